//! Rules 60 to 64, 72 and 89: what becomes of questions that nobody answers.

use std::thread;
use std::time::Duration;

use crate::support::wire::*;
use crate::support::{Agent, Message, Query, Upstream, time};

/// Asks with EDNS, so that reasons can be told.
#[track_caller]
fn ask(agent: &Agent, name: &str) -> Message {
    agent.ask(&Query::new(name, A).edns(1232))
}

/// A cache and one upstream, with as many tries as there are.
fn unlimited() -> (Agent, Upstream) {
    Agent::beside_upstream("cache\n forward . {up}")
}

#[test]
fn c060_one_server_is_asked_three_times_at_most() {
    let (agent, up) = unlimited();
    let name = "silent.c060.test.";
    assert_eq!(ask(&agent, name).rcode, SERVFAIL);
    let seen = up.seen(name);
    let streams = seen.iter().filter(|seen| seen.tcp).count();
    assert!((1..=3).contains(&(seen.len() - streams)) && streams <= 3, "{} and {streams}", seen.len() - streams);
}

/// Asks every quarter of a second for eight seconds; returns the pauses between the queries upstream, in milliseconds.
fn pauses(agent: &Agent, up: &Upstream, name: &str) -> Vec<u128> {
    let started = time::now();
    while started.elapsed() < Duration::from_secs(8) {
        assert_eq!(ask(agent, name).rcode, SERVFAIL);
        time::pass(Duration::from_millis(250));
    }
    let seen = up.seen(name);
    seen.windows(2).map(|pair| (pair[1].at - pair[0].at).as_millis()).collect()
}

#[test]
fn c062_longest_pause_is_configurable() {
    let (agent, up) = Agent::beside_upstream("cache {\n servfail 1s\n }\n forward . {once}");
    let pauses = pauses(&agent, &up, "servfail.c062.test.");
    assert!((4..=7).contains(&pauses.len()), "{pauses:?}");
    assert!(pauses.iter().all(|pause| (850..2000).contains(pause)), "{pauses:?}");
    let (agent, up) = Agent::beside_upstream("cache {\n servfail 0\n }\n forward . {once}");
    for asked in 1..=3 {
        assert_eq!(ask(&agent, "servfail.c062.test.").errors(), Vec::<u16>::new());
        assert_eq!(up.count("servfail.c062.test."), asked);
    }
}

#[test]
fn c072_every_query_has_its_reply_in_time() {
    let (agent, _up) = unlimited();
    thread::scope(|scope| {
        for delay in [0, 100, 300, 1000, 2000, 3000, 4000, 5000, 7000, 20_000] {
            let agent = &agent;
            scope.spawn(move || {
                let started = time::now();
                let reply = ask(agent, &format!("slow-{delay}.c072.test."));
                let took = started.elapsed();
                assert!(took < Duration::from_secs(5), "{delay} ms: {took:?}");
                assert_eq!(reply.rcode, if delay < 4500 { NOERROR } else { SERVFAIL }, "{delay} ms");
            });
        }
    });
}

#[test]
fn c089_stale_replies_say_so() {
    let (agent, up) = Agent::beside_upstream(
        "cache {\n success 9984 3600 0\n denial 9984 3600 0\n serve_stale 1h immediate\n }\n forward . {once}",
    );
    for (label, rcode, code) in [("ttl1", NOERROR, 3), ("nx-1-1", NXDOMAIN, 19)] {
        let name = format!("{label}.c089.test.");
        let first = ask(&agent, &name);
        assert_eq!((first.rcode, first.errors()), (rcode, vec![]), "{label}");
        up.change(&name, "servfail");
        let stale = time::until("the end of the entry", || {
            let reply = ask(&agent, &name);
            (!reply.errors().is_empty()).then_some(reply)
        });
        assert_eq!((stale.rcode, stale.errors()), (rcode, vec![code]), "{label}");
    }
}
