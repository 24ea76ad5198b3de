//! An upstream in trouble beside another: the reply, the longest it may take, and how many queries each has seen.

use std::thread;
use std::time::Duration;

use super::{Via, ask};
use crate::support::wire::*;
use crate::support::{Query, time};

/// Instead of a label: nobody listens.
const CLOSED: &str = "closed";

/// When an upstream that stays silent no longer holds up the question.
const HEDGED: Duration = Duration::from_millis(1800);
const SECOND: Duration = Duration::from_secs(1);
/// The clients' budget and what a busy machine adds.
const BUDGET: Duration = Duration::from_secs(5);

struct Row {
    /// How each upstream answers; the first is asked first.
    labels: [&'static str; 2],
    options: &'static str,
    rcode: u16,
    errors: &'static [u16],
    within: Duration,
    /// At each upstream; the first pair over UDP, the second over TCP and TLS.
    queries: [[usize; 2]; 2],
}

const fn row(
    labels: [&'static str; 2],
    options: &'static str,
    rcode: u16,
    errors: &'static [u16],
    within: Duration,
    queries: [[usize; 2]; 2],
) -> Row {
    Row { labels, options, rcode, errors, within, queries }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    //  labels                    options              rcode     EDE    within  queries over UDP, over TCP and TLS
    row(["ttl300",   "ttl300"],   "",                  NOERROR,  &[],   SECOND, [[1, 0], [1, 0]]),
    row(["silent",   "ttl300"],   "",                  NOERROR,  &[],   HEDGED, [[1, 1], [1, 1]]),
    row([CLOSED,     "ttl300"],   "",                  NOERROR,  &[],   SECOND, [[0, 1], [0, 1]]),
    row(["servfail", "ttl300"],   "",                  SERVFAIL, &[],   SECOND, [[1, 0], [1, 0]]),
    row(["servfail", "ttl300"],   "failover SERVFAIL", NOERROR,  &[],   SECOND, [[1, 1], [1, 1]]),
    row(["refused",  "ttl300"],   "failover REFUSED",  NOERROR,  &[],   SECOND, [[1, 1], [1, 1]]),
    row(["servfail", "servfail"], "failover SERVFAIL", SERVFAIL, &[],   SECOND, [[1, 1], [1, 1]]),
    row(["nx",       "ttl300"],   "failover SERVFAIL", NXDOMAIN, &[],   SECOND, [[1, 0], [1, 0]]),
    row(["silent",   "servfail"], "",                  SERVFAIL, &[],   HEDGED, [[1, 1], [1, 1]]),
    row([CLOSED,     "silent"],   "",                  SERVFAIL, &[22], BUDGET, [[0, 3], [0, 2]]),
    row(["silent",   "silent"],   "",                  SERVFAIL, &[22], BUDGET, [[3, 2], [2, 2]]),
];

#[test]
fn over_udp() {
    check(Via::Udp);
}

#[test]
fn over_tcp() {
    check(Via::Tcp);
}

#[test]
fn over_tls() {
    check(Via::Tls);
}

/// Long answers where TCP to the first upstream does not work: clients of either kind get the whole from the other one.
#[test]
fn a_truncated_answer_is_completed_by_the_other_upstream() {
    // How the first one answers, how many queries each sees, and how long it may take.
    let rows = [("tcclose", [3, 1], SECOND), ("tcsilent", [2, 1], Duration::from_millis(2500))];
    thread::scope(|scope| {
        for (label, queries, within) in rows {
            for client in [Via::Udp, Via::Tcp] {
                scope.spawn(move || {
                    let name = "name.beside.test.";
                    let ups = [Via::Udp.upstream(), Via::Udp.upstream()];
                    ups[0].change(name, label);
                    ups[1].change(name, "tc");
                    let agent = Via::Udp.agent(&[&ups[0], &ups[1]], "");
                    let started = time::now();
                    let query = Query::new(name, A).edns(1232);
                    let reply = if client == Via::Tcp { agent.ask_tcp(&query) } else { agent.ask(&query) };
                    let took = started.elapsed();
                    let what = format!("{label}, asked over {client:?}");
                    assert_eq!((reply.rcode, reply.truncated(), reply.answers.len()), (NOERROR, false, 1), "{what}");
                    assert_eq!(ups.each_ref().map(|up| up.count(name)), queries, "{what}");
                    assert!(took < within, "{what}: {took:?}");
                });
            }
        }
    });
}

#[track_caller]
fn check(via: Via) {
    let wrong: Vec<String> = thread::scope(|scope| {
        let rows: Vec<_> = ROWS.iter().map(|row| scope.spawn(move || row.check(via))).collect();
        rows.into_iter().filter_map(|row| row.join().expect("a check does not panic")).collect()
    });
    assert!(wrong.is_empty(), "over {via:?}:\n{}", wrong.join("\n"));
}

impl Row {
    /// What is not as it should be.
    fn check(&self, via: Via) -> Option<String> {
        let name = "name.beside.test.";
        let ups = [via.upstream(), via.upstream()];
        for (up, label) in ups.iter().zip(self.labels) {
            up.change(name, label);
            if label == CLOSED {
                up.close_ports();
            }
        }
        let agent = via.agent(&[&ups[0], &ups[1]], self.options);
        let (reply, took) = ask(&agent, name);
        let is = (reply.rcode, reply.errors(), ups.each_ref().map(|up| up.count(name)));
        let should = (self.rcode, self.errors.to_vec(), self.queries[usize::from(via != Via::Udp)]);
        let fits = is == should && took < self.within;
        (!fits).then(|| format!("{:?} {}: {is:?} after {took:?} instead of {should:?}", self.labels, self.options))
    }
}
