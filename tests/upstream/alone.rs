//! One upstream that stays in trouble: what it costs, and what clients get meanwhile.

use std::thread;
use std::time::Duration;

use super::{BUDGET, MARGIN, Via, ask, over_each};
use crate::support::upstream::Door;
use crate::support::wire::*;
use crate::support::{Agent, Query, Upstream, namespace, time};

/// Checks would be counted among the attempts.
const UNCHECKED: &str = "max_fails 0";

/// Asks ten times in a row: each is answered from memory and says so.
#[track_caller]
fn repeat(agent: &Agent, name: &str) {
    for number in 1..=10 {
        let (reply, took) = ask(agent, name);
        assert_eq!(reply.rcode, SERVFAIL, "repeat {number}");
        assert!(reply.errors().contains(&13), "repeat {number}: {:?}", reply.errors());
        assert!(took < Duration::from_secs(1), "repeat {number}: {took:?}");
    }
}

/// Asks ten times in three seconds, whether or not the one before has its reply; each has its own in time.
#[track_caller]
fn repeat_for_three_seconds(agent: &Agent, name: &str) {
    thread::scope(|scope| {
        for number in 1..=10 {
            scope.spawn(move || {
                let (reply, took) = ask(agent, name);
                assert_eq!(reply.rcode, SERVFAIL, "repeat {number}");
                assert!(took < BUDGET + MARGIN, "repeat {number}: {took:?}");
            });
            time::pass(Duration::from_millis(300));
        }
    });
}

#[test]
fn silence_costs_three_packets_and_its_repeats_nothing() {
    over_each(|via| {
        let up = via.upstream();
        let agent = via.agent(&[&up], "");
        let name = "silent.alone.test.";
        let (reply, took) = ask(&agent, name);
        assert_eq!((reply.rcode, reply.errors()), (SERVFAIL, vec![22]), "{via:?}");
        assert!(took < BUDGET + MARGIN, "{via:?}: {took:?}");
        let sent = up.count(name);
        assert!((1..=3).contains(&sent), "{via:?}: {sent} packets");
        repeat(&agent, name);
        repeat_for_three_seconds(&agent, name);
        assert_eq!(up.count(name), sent, "{via:?}: repeats cost nothing");
    });
}

/// Datagrams and connections that found a port closed, in this namespace.
fn attempts() -> u64 {
    namespace::counter("Udp", "NoPorts") + namespace::counter("Tcp", "AttemptFails")
}

/// One after the other: the counters belong to the whole namespace.
#[test]
fn a_closed_port_costs_three_attempts_and_its_repeats_nothing() {
    if !namespace::entered("upstream::alone::a_closed_port_costs_three_attempts_and_its_repeats_nothing") {
        return;
    }
    for to in ["127.0.0.99:5300", "127.0.0.99:5300 {\n force_tcp", "tls://127.0.0.99:5853 {\n expire 10s"] {
        let options =
            if to.contains('{') { format!("{to}\n {UNCHECKED}\n }}") } else { format!("{to} {{\n {UNCHECKED}\n }}") };
        let agent = Agent::root(&format!("cache\n forward . {options}"));
        let before = attempts();
        let (reply, took) = ask(&agent, "ttl300.closed.test.");
        let tried = attempts() - before;
        assert_eq!((reply.rcode, reply.errors()), (SERVFAIL, vec![23]), "{to}");
        assert!(took < Duration::from_secs(1), "{to}: {took:?}");
        assert!((1..=3).contains(&tried), "{to}: {tried} attempts");
        repeat(&agent, "ttl300.closed.test.");
        assert_eq!(attempts() - before, tried, "{to}: repeats cost nothing");
    }
}

/// With checks: what is sent does not grow with what is asked.
#[test]
fn a_closed_port_is_probed_about_once_a_second() {
    if !namespace::entered("upstream::alone::a_closed_port_is_probed_about_once_a_second") {
        return;
    }
    let agent = Agent::root("cache\n forward . 127.0.0.99:5300");
    let udp = agent.udp();
    for number in 0..3 {
        udp.ask(&Query::new(&format!("n{number}.closed.test."), A));
    }
    // By now it is known to be down, or will be within a few checks.
    time::pass(Duration::from_secs(3));
    let before = attempts();
    let started = time::now();
    let mut asked = 0;
    while started.elapsed() < Duration::from_secs(3) {
        let reply = udp.ask(&Query::new(&format!("m{asked}.closed.test."), A));
        assert_eq!(reply.rcode, SERVFAIL);
        asked += 1;
        time::pass(Duration::from_millis(10));
    }
    let tried = attempts() - before;
    assert!(asked >= 50, "{asked} questions");
    assert!((1..=4).contains(&tried), "{tried} attempts for {asked} questions in three seconds");
}

#[test]
fn connections_that_are_reset_are_dialled_three_times() {
    for via in [Via::Tcp, Via::Tls] {
        let up = via.upstream();
        up.door(Door::Reset);
        let agent = via.agent(&[&up], UNCHECKED);
        let name = "ttl300.reset.test.";
        let (reply, took) = ask(&agent, name);
        assert_eq!((reply.rcode, reply.errors()), (SERVFAIL, vec![23]), "{via:?}");
        assert!(took < Duration::from_secs(1), "{via:?}: {took:?}");
        let dialled = up.connections();
        assert!((1..=3).contains(&dialled), "{via:?}: {dialled} connections");
        repeat(&agent, name);
        assert_eq!(up.connections(), dialled, "{via:?}: repeats cost nothing");
        up.door(Door::Open);
        let (reply, took) = ask(&agent, "ttl300.open.test.");
        assert!(reply.rcode == NOERROR && took < Duration::from_secs(1), "{via:?}: {took:?}");
    }
}

#[test]
fn a_port_that_takes_connections_and_says_nothing_is_given_up_in_time() {
    over_each(|via| {
        let up = via.upstream();
        match via {
            Via::Udp => up.change_all(Some("silent")),
            Via::Tcp | Via::Tls => up.door(Door::Mute),
        }
        let agent = via.agent(&[&up], UNCHECKED);
        let (reply, took) = ask(&agent, "ttl300.mute.test.");
        assert_eq!((reply.rcode, reply.errors()), (SERVFAIL, vec![22]), "{via:?}");
        assert!(took < BUDGET + MARGIN, "{via:?}: {took:?}");
        assert!(up.connections() <= 3, "{via:?}: {} connections", up.connections());
        up.change_all(None);
        up.door(Door::Open);
        let (reply, took) = ask(&agent, "ttl300.heard.test.");
        assert_eq!(reply.rcode, NOERROR, "{via:?}");
        assert!(took < Duration::from_millis(2500), "{via:?}: {took:?}");
    });
}

/// As behind a filter: the first question finds out, and no other pays for it.
#[test]
fn a_server_without_udp_is_used_over_tcp_and_only_its_first_question_waits() {
    let up = Upstream::start();
    up.filter_udp(true);
    let agent = Via::Udp.agent(&[&up], "");
    let (reply, took) = ask(&agent, "ttl300.first.test.");
    assert_eq!((reply.rcode, reply.errors()), (NOERROR, vec![]));
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let started = time::now();
    let mut asked = 0;
    while started.elapsed() < Duration::from_secs(6) {
        asked += 1;
        let (reply, took) = ask(&agent, &format!("ttl300.n{asked}.test."));
        assert_eq!(reply.rcode, NOERROR, "question {asked}, {:?} after the first", started.elapsed());
        assert!(took < Duration::from_secs(1), "question {asked}: {took:?}");
        time::pass(Duration::from_millis(20));
    }
    assert!(asked > 50, "{asked} questions");
    let to = up.address().to_string();
    assert_eq!(agent.metric("dnslet_upstream_up", &[("to", &to)]), 1.0);
    assert_eq!(agent.metric("coredns_forward_healthcheck_broken_total", &[]), 0.0);
}

#[test]
fn an_answer_too_late_for_its_client_is_there_for_the_next() {
    over_each(|via| {
        let up = via.upstream();
        let agent = via.agent(&[&up], "");
        let name = "late.alone.test.";
        let (reply, took) = ask(&agent, name);
        assert_eq!((reply.rcode, reply.errors()), (SERVFAIL, vec![22]), "{via:?}");
        assert!(took < BUDGET + MARGIN, "{via:?}: {took:?}");
        let sent = up.count(name);
        let answered = time::until("the late answer", || {
            let (reply, took) = ask(&agent, name);
            assert!(took < BUDGET + MARGIN, "{via:?}: {took:?}");
            (reply.rcode == NOERROR).then_some(reply)
        });
        assert_eq!(answered.answers.len(), 1, "{via:?}");
        assert_eq!(up.count(name), sent, "{via:?}: nothing is sent after the budget");
    });
}

/// Failures do not add up: what flaps is answered as soon as it is asked again.
#[test]
fn what_flaps_is_remembered_for_a_second_and_then_answered() {
    over_each(|via| {
        let up = via.upstream();
        let agent = via.agent(&[&up], "");
        let name = "flap-servfail.alone.test.";
        assert_eq!(ask(&agent, name).0.rcode, SERVFAIL, "{via:?}");
        let failed = time::now();
        let reply = time::until("the end of the failure's time", || {
            let (reply, _) = ask(&agent, name);
            (reply.rcode == NOERROR).then_some(reply)
        });
        let after = failed.elapsed();
        assert!(after > Duration::from_millis(800) && after < Duration::from_secs(2), "{via:?}: {after:?}");
        assert_eq!((reply.errors(), up.count(name)), (vec![], 2), "{via:?}");
    });
}
