//! Rules 60 to 64, 72 and 89: what becomes of questions that nobody answers.

use std::thread;
use std::time::Duration;

use super::cached;
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

/// A failure is told as it is, then ten times from memory.
#[track_caller]
fn check_remembered(agent: &Agent, up: &Upstream, label: &str, rcode: u16) {
    let name = format!("{label}.c061.test.");
    let first = ask(agent, &name);
    assert_eq!(first.rcode, rcode, "{label}");
    assert!(!first.errors().contains(&13), "{label}: {:?}", first.errors());
    let sent = up.count(&name);
    for _ in 0..10 {
        let reply = ask(agent, &name);
        assert_eq!(reply.rcode, rcode, "{label}");
        assert!(reply.errors().contains(&13), "{label}: {:?}", reply.errors());
    }
    assert_eq!(up.count(&name), sent, "{label}");
}

#[test]
fn c061_servfail_is_remembered() {
    let (agent, up) = unlimited();
    check_remembered(&agent, &up, "servfail", SERVFAIL);
    check_remembered(&agent, &up, "edefail", SERVFAIL);
}

#[test]
fn c061_refused_is_remembered() {
    let (agent, up) = unlimited();
    check_remembered(&agent, &up, "refused", REFUSED);
}

#[test]
fn c061_formerr_is_remembered() {
    let (agent, up) = unlimited();
    check_remembered(&agent, &up, "formerr", FORMERR);
}

#[test]
fn c061_notimp_is_remembered() {
    let (agent, up) = unlimited();
    check_remembered(&agent, &up, "notimp", NOTIMP);
}

#[test]
fn c061_timeout_is_remembered() {
    let (agent, up) = unlimited();
    check_remembered(&agent, &up, "silent", SERVFAIL);
}

#[test]
fn c061_network_error_is_remembered() {
    let (agent, up) = Agent::beside_upstream("cache\n forward . {up} {\n force_tcp\n }");
    check_remembered(&agent, &up, "reset-99", SERVFAIL);
    check_remembered(&agent, &up, "close-99", SERVFAIL);
}

#[test]
fn c061_alias_loop_is_remembered() {
    let (agent, up) = unlimited();
    check_remembered(&agent, &up, "cnameloop", SERVFAIL);
    check_remembered(&agent, &up, "cnametwo", SERVFAIL);
}

#[test]
fn c061_malformed_answer_is_remembered() {
    let (agent, up) = unlimited();
    check_remembered(&agent, &up, "badrdata", SERVFAIL);
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
fn c062_pauses_between_tries_grow() {
    let (agent, up) = cached();
    let pauses = pauses(&agent, &up, "servfail.c062.test.");
    assert_eq!(pauses.len(), 3, "{pauses:?}");
    for (pause, seconds) in pauses.iter().zip([1, 2, 4]) {
        // Up to the next question, and what a busy machine adds to it.
        let range = seconds * 1000 - 150..=seconds * 1250 + 500;
        assert!(range.contains(pause), "{pause} ms instead of {seconds} s: {pauses:?}");
    }
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
fn c063_one_bad_name_does_not_hurt_others() {
    let (agent, up) = unlimited();
    let bad = ["silent.c063.test.", "servfail.c063.test.", "badid.c063.test."];
    thread::scope(|scope| {
        let agent = &agent;
        for name in bad {
            scope.spawn(move || assert_eq!(ask(agent, name).rcode, SERVFAIL, "{name}"));
        }
        for number in 0..20 {
            let started = time::now();
            assert_eq!(ask(agent, &format!("ttl300.n{number}.c063.test.")).rcode, NOERROR);
            assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
            time::pass(Duration::from_millis(250));
        }
    });
    // Not the name has failed, but one question about it, with CD=0.
    let name = "refused.c063.test.";
    assert_eq!(ask(&agent, name).rcode, REFUSED);
    up.change(name, "ttl300");
    assert_eq!(ask(&agent, name).rcode, REFUSED);
    assert_eq!(agent.ask(&Query::new(name, AAAA)).rcode, NOERROR);
    assert_eq!(agent.ask(&Query::new(name, A).flag(CD, true)).rcode, NOERROR);
    assert_eq!(ask(&agent, &format!("www.{name}")).rcode, NOERROR);
}

#[test]
fn c064_recovery_is_seen_in_two_seconds() {
    let (agent, up) = unlimited();
    up.change_all(Some("silent"));
    thread::scope(|scope| {
        for number in 0..10 {
            let agent = &agent;
            scope.spawn(move || ask(agent, &format!("ttl300.n{number}.c064.test.")));
        }
    });
    let asked = std::cell::Cell::new(0);
    let fresh = || {
        asked.set(asked.get() + 1);
        ask(&agent, &format!("ttl300.m{}.c064.test.", asked.get()))
    };
    time::until("a server that is known to be down", || {
        let started = time::now();
        let reply = fresh();
        assert_eq!(reply.rcode, SERVFAIL);
        (started.elapsed() < Duration::from_millis(500)).then_some(())
    });
    up.change_all(None);
    let back = time::now();
    time::until("an answer", || (fresh().rcode == NOERROR).then_some(()));
    assert!(back.elapsed() < Duration::from_millis(2500), "{:?}", back.elapsed());
}

#[test]
fn c072_every_query_has_its_reply_in_time() {
    let (agent, _up) = unlimited();
    thread::scope(|scope| {
        // None so near the limit that a busy machine could bring it to the other side.
        for delay in [0, 100, 300, 1000, 2000, 3000, 5500, 7000, 20_000] {
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
fn c089_failures_say_why() {
    let (agent, _up) = Agent::beside_upstream("cache\n forward . {up} {\n force_tcp\n }");
    for (label, rcode, code) in [
        ("silent", SERVFAIL, 22),
        ("reset-99", SERVFAIL, 23),
        ("cnameloop", SERVFAIL, 24),
        ("badrdata", SERVFAIL, 24),
        ("cnameloop", SERVFAIL, 13),
    ] {
        let reply = ask(&agent, &format!("{label}.c089.test."));
        assert_eq!(reply.rcode, rcode, "{label}");
        assert!(reply.errors().contains(&code), "{label}: {:?}", reply.errors());
    }
    let transfer = agent.ask_tcp(&Query::new("ttl300.c089.test.", AXFR).edns(1232));
    assert_eq!((transfer.rcode, transfer.errors()), (REFUSED, vec![21]));
    let plan = Agent::plan();
    let block = plan.block("here.test", "whoami");
    let agent = plan.corefile(&block).start();
    let elsewhere = ask(&agent, "elsewhere.test.");
    assert_eq!((elsewhere.rcode, elsewhere.errors()), (REFUSED, vec![20]));
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
