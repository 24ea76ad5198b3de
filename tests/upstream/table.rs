//! One row per behaviour of the scripted upstream: the reply to the first client that asks for such a name, when it
//! comes, and how many queries for that name the upstream sees until then.

use std::fmt::Write;
use std::thread;
use std::time::Duration;

use super::{BUDGET, MARGIN, Via, ask};
use crate::support::wire::*;
use crate::support::{Agent, Message, Upstream, answer};

/// The most often a row is gone through when the machine was too slow to tell.
const ROUNDS: usize = 5;
/// The shortest time after which a question may be asked again: a slower machine sees more queries than a row says.
const FIRST_TIMER: Duration = Duration::from_millis(80);

/// When the reply comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// In less than a second.
    AtOnce,
    /// Before a client with an expired entry would get that instead: in 1.8 s.
    InTime,
    /// When every connection has stood still for too long: before the client's budget is spent.
    Stall,
    /// When the client's budget is spent: after 4.5 s.
    Budget,
}

/// What the answer section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    Nothing,
    /// The one right record.
    Right,
    /// So many records of any kind.
    Records(usize),
    /// TC=1: a client over UDP has to come back over TCP.
    Cut,
}

use Holds::{Cut, Nothing, Records, Right};
use When::{AtOnce, Budget, InTime, Stall};

struct Row {
    label: &'static str,
    rcode: u16,
    /// The Extended DNS Errors (RFC 8914).
    errors: &'static [u16],
    holds: Holds,
    when: When,
    /// Over UDP, TCP and TLS; `NONE` where it cannot be told from another row there.
    queries: [usize; 3],
}

const NONE: usize = usize::MAX;

const fn row(
    label: &'static str,
    rcode: u16,
    errors: &'static [u16],
    holds: Holds,
    when: When,
    queries: [usize; 3],
) -> Row {
    Row { label, rcode, errors, holds, when, queries }
}

/// Queries over UDP include those over TCP that follow from them.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    //  label           rcode     EDE    answer        when    queries over UDP, TCP, TLS
    // What is asked for, or what the name lacks.
    row("ttl300",       NOERROR,  &[],   Right,        AtOnce, [1, 1, 1]),
    row("ttl0",         NOERROR,  &[],   Right,        AtOnce, [1, 1, 1]),
    row("extra",        NOERROR,  &[],   Right,        AtOnce, [1, 1, 1]),
    row("dup",          NOERROR,  &[],   Right,        AtOnce, [1, 1, 1]),
    row("big-60",       NOERROR,  &[],   Records(60),  AtOnce, [1, 1, 1]),
    row("big-200",      NOERROR,  &[],   Cut,          AtOnce, [2, 1, 1]),
    row("tc",           NOERROR,  &[],   Right,        AtOnce, [2, 1, 1]),
    row("tctail",       NOERROR,  &[],   Records(2),   AtOnce, [2, 1, 1]),
    row("tcboth",       NOERROR,  &[],   Cut,          AtOnce, [2, 1, 1]),
    row("empty",        NOERROR,  &[],   Nothing,      AtOnce, [1, 1, 1]),
    row("nodata",       NOERROR,  &[],   Nothing,      AtOnce, [1, 1, 1]),
    row("nx",           NXDOMAIN, &[],   Nothing,      AtOnce, [1, 1, 1]),
    row("nxnosoa",      NXDOMAIN, &[],   Nothing,      AtOnce, [1, 1, 1]),
    row("other",        NOERROR,  &[],   Nothing,      AtOnce, [1, 1, 1]),
    row("noedns",       NOERROR,  &[],   Right,        AtOnce, [2, 2, 2]),
    row("noednsimp",    NOERROR,  &[],   Right,        AtOnce, [2, 2, 2]),
    // Failures that the upstream tells.
    row("servfail",     SERVFAIL, &[],   Nothing,      AtOnce, [1, 1, 1]),
    row("refused",      REFUSED,  &[],   Nothing,      AtOnce, [1, 1, 1]),
    row("formerr",      FORMERR,  &[],   Nothing,      AtOnce, [1, 1, 1]),
    row("notimp",       NOTIMP,   &[],   Nothing,      AtOnce, [1, 1, 1]),
    row("edefail",      SERVFAIL, &[6],  Nothing,      AtOnce, [1, 1, 1]),
    row("flap-servfail", SERVFAIL, &[],  Nothing,      AtOnce, [1, 1, 1]),
    // Answers that are no use.
    row("cnameloop",    SERVFAIL, &[24], Nothing,      AtOnce, [1, 1, 1]),
    row("cnametwo",     SERVFAIL, &[24], Nothing,      AtOnce, [1, 1, 1]),
    // A wrong packet, the right one after it.
    row("early-badid",      NOERROR, &[], Right,       AtOnce, [1, 1, 1]),
    row("early-port",       NOERROR, &[], Right,       AtOnce, [1, NONE, NONE]),
    row("early-wrongq",     NOERROR, &[], Right,       AtOnce, [1, 1, 1]),
    row("early-wrongtype",  NOERROR, &[], Right,       AtOnce, [1, 1, 1]),
    row("early-wrongclass", NOERROR, &[], Right,       AtOnce, [1, 1, 1]),
    row("early-noqr",       NOERROR, &[], Right,       AtOnce, [1, 1, 1]),
    row("early-short",      NOERROR, &[], Right,       AtOnce, [1, 1, 1]),
    row("early-garbage",    NOERROR, &[], Right,       AtOnce, [1, 1, 1]),
    row("early-pointer",    NOERROR, &[], Right,       AtOnce, [1, NONE, NONE]),
    row("early-badrdata",   NOERROR, &[], Right,       AtOnce, [1, NONE, NONE]),
    row("early-badlength",  NOERROR, &[], Right,       AtOnce, [1, NONE, NONE]),
    row("early-badcount",   NOERROR, &[], Right,       AtOnce, [1, NONE, NONE]),
    row("flood",            NOERROR, &[], Right,       AtOnce, [2, NONE, NONE]),
    // A wrong packet and nothing after it.
    row("badid",        SERVFAIL, &[22], Nothing,      Budget, [3, 2, 2]),
    row("wrongq",       SERVFAIL, &[22], Nothing,      Budget, [3, 2, 2]),
    row("wrongtype",    SERVFAIL, &[22], Nothing,      Budget, [3, 2, 2]),
    row("wrongclass",   SERVFAIL, &[22], Nothing,      Budget, [3, 2, 2]),
    row("noqr",         SERVFAIL, &[22], Nothing,      Budget, [3, 2, 2]),
    row("short",        SERVFAIL, &[22], Nothing,      Budget, [3, 2, 2]),
    row("garbage",      SERVFAIL, &[22], Nothing,      Budget, [3, 2, 2]),
    row("pointer",      SERVFAIL, &[24], Nothing,      InTime, [2, 2, 2]),
    row("badrdata",     SERVFAIL, &[24], Nothing,      InTime, [2, 2, 2]),
    row("badlength",    SERVFAIL, &[24], Nothing,      InTime, [2, 2, 2]),
    row("badcount",     SERVFAIL, &[24], Nothing,      InTime, [2, 2, 2]),
    // Slow, or nothing.
    row("slow-40",      NOERROR,  &[],   Right,        AtOnce, [1, 1, 1]),
    row("slow-1200",    NOERROR,  &[],   Right,        InTime, [2, 2, 2]),
    row("silent",       SERVFAIL, &[22], Nothing,      Budget, [3, 2, 2]),
    row("late",         SERVFAIL, &[22], Nothing,      Budget, [3, 2, 2]),
    row("flap-silent",  NOERROR,  &[],   Right,        InTime, [2, 2, 2]),
    // Connections that end, or bring half of what they should.
    row("close-1",      NOERROR,  &[],   Right,        AtOnce, [NONE, 2, 2]),
    row("close-99",     SERVFAIL, &[23], Nothing,      AtOnce, [NONE, 3, 3]),
    row("closeafter-1", NOERROR,  &[],   Right,        AtOnce, [NONE, 1, 1]),
    row("reset-1",      NOERROR,  &[],   Right,        AtOnce, [NONE, 2, 2]),
    row("reset-99",     SERVFAIL, &[23], Nothing,      AtOnce, [NONE, 3, 3]),
    row("halfclose",    SERVFAIL, &[23], Nothing,      AtOnce, [NONE, 3, 3]),
    row("half",         SERVFAIL, &[22], Nothing,      Budget, [3, NONE, NONE]),
    row("half",         SERVFAIL, &[22], Nothing,      Stall,  [NONE, 2, 2]),
    row("trickle-100",  SERVFAIL, &[22], Nothing,      Stall,  [NONE, 2, 2]),
    row("trickle-2",    NOERROR,  &[],   Right,        AtOnce, [NONE, 1, 1]),
    row("flap-reset",   NOERROR,  &[],   Right,        AtOnce, [NONE, 2, 2]),
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

/// Where a row is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// With all others that are answered at once, one after the other.
    Turn,
    /// With all others that nobody answers, at the same time.
    Crowd,
    /// With an agent and an upstream of its own: it spoils a connection, or is remembered of the upstream.
    Alone,
}

/// Everything is started before anything is measured.
#[track_caller]
fn check(via: Via) {
    let rows = || ROWS.iter().filter(|row| row.queries[via as usize] != NONE);
    let lab = || {
        let up = via.upstream();
        (via.agent(&[&up], ""), up)
    };
    let (shared, crowded) = (lab(), lab());
    let alone: Vec<_> = rows().filter(|row| row.place() == Place::Alone).map(|row| (row, lab())).collect();
    let wrong: Vec<String> = thread::scope(|scope| {
        let alone = alone.iter().map(|(row, lab)| scope.spawn(move || row.check(via, lab)));
        let (crowd, crowded) = (rows().filter(|row| row.place() == Place::Crowd), &crowded);
        let running: Vec<_> = alone.chain(crowd.map(|row| scope.spawn(move || row.check(via, crowded)))).collect();
        let turns = rows().filter(|row| row.place() == Place::Turn).filter_map(|row| row.check(via, &shared));
        let wrong: Vec<String> = turns.collect();
        wrong.into_iter().chain(running.into_iter().filter_map(|row| row.join().expect("no panic"))).collect()
    });
    assert!(wrong.is_empty(), "over {via:?}:\n{}", wrong.join("\n"));
}

impl Row {
    fn place(&self) -> Place {
        match (self.label, self.when) {
            ("noedns" | "noednsimp" | "half", _) | (_, InTime | Stall) => Place::Alone,
            (_, AtOnce) => Place::Turn,
            (_, Budget) => Place::Crowd,
        }
    }

    /// What is not as it should be.
    fn check(&self, via: Via, (agent, up): &(Agent, Upstream)) -> Option<String> {
        let expected = self.queries[via as usize];
        for round in 1.. {
            let name = format!("{}.n{round}.table.test.", self.label);
            let (reply, took) = ask(agent, &name);
            let queries = up.count(&name);
            let slow = self.when == AtOnce && took > FIRST_TIMER;
            if slow && queries > expected && round < ROUNDS {
                continue;
            }
            let mut wrong = String::new();
            let mut note = |what: &str, is: String, should: String| {
                if is != should {
                    write!(wrong, ", {what} {is} instead of {should}").expect("a string takes it");
                }
            };
            note("RCODE", reply.rcode.to_string(), self.rcode.to_string());
            note("EDE", format!("{:?}", reply.errors()), format!("{:?}", self.errors));
            note("answer", format!("{:?}", held(&reply)), format!("{:?}", self.holds));
            note("queries", queries.to_string(), expected.to_string());
            let strays = up.seen(&name).iter().filter(|seen| !via.carries(seen)).count();
            note("queries over another transport", strays.to_string(), "0".to_owned());
            if !self.when.holds(took) {
                note("time", format!("{took:?}"), format!("{:?}", self.when));
            }
            return (!wrong.is_empty()).then(|| format!("{}{wrong}", self.label));
        }
        None
    }
}

impl When {
    fn holds(self, took: Duration) -> bool {
        match self {
            AtOnce => took < Duration::from_secs(1),
            InTime => took < Duration::from_millis(1800),
            Stall => took > Duration::from_millis(1800) && took < BUDGET,
            Budget => took > BUDGET - MARGIN && took < BUDGET + MARGIN,
        }
    }
}

fn held(reply: &Message) -> Holds {
    match &reply.answers[..] {
        _ if reply.truncated() => Cut,
        [] => Nothing,
        [record] if record.kind == A && record.data == answer::data(A) => Right,
        records => Records(records.len()),
    }
}
