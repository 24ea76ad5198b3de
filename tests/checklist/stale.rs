//! Rules 65 to 71: when an expired answer is used, and how.

use std::time::Duration;

use crate::support::wire::*;
use crate::support::{Agent, Message, Query, Upstream, time};

/// Entries that end after a second, and may be used for an hour more.
const SHORT: &str = "cache {\n success 9984 1 0\n denial 9984 1 0\n serve_stale 1h verify\n }\n forward . {once}";
/// The same with a pause of a second after a failed refresh.
const RETRIED: &str =
    "cache {\n success 9984 1 0\n denial 9984 1 0\n serve_stale 1h verify 1800ms 30s 1s\n }\n forward . {once}";

fn query(name: &str) -> Query {
    Query::new(name, A).edns(1232)
}

/// Asks until the reply carries this Extended DNS Error; returns it and how long it took. Every reply before it must be one
/// that `fits`.
#[track_caller]
fn until_told(agent: &Agent, name: &str, code: u16, fits: impl Fn(&Message) -> bool) -> (Message, Duration) {
    time::until("an expired answer", || {
        let start = time::now();
        let reply = agent.ask(&query(name));
        let took = start.elapsed();
        if reply.errors() == [code] {
            return Some((reply, took));
        }
        assert!(fits(&reply), "{name}: {} {:?} {:?}", reply.rcode, reply.errors(), reply.ttls());
        None
    })
}

#[track_caller]
fn stale(agent: &Agent, name: &str) -> (Message, Duration) {
    until_told(agent, name, 3, |reply| reply.rcode == NOERROR && reply.errors().is_empty())
}

/// Keeps an answer for the name and makes the upstream behave differently from then on.
#[track_caller]
fn kept_then(agent: &Agent, up: &Upstream, name: &str, label: &str) {
    assert_eq!(agent.ask(&query(name)).ttls(), [1], "{name}");
    up.change(name, label);
}

#[test]
fn c065_slow_upstream_is_waited_for_until_the_client_timer() {
    let (agent, up) = Agent::beside_upstream(SHORT);
    let name = "ttl300.c065.test.";
    kept_then(&agent, &up, name, "slow-3000");
    let (reply, took) = stale(&agent, name);
    assert_eq!((reply.rcode, reply.answers.len(), up.count(name)), (NOERROR, 1, 2));
    assert!((Duration::from_millis(1700)..Duration::from_millis(2900)).contains(&took), "{took:?}");
}

#[test]
fn c065_answer_within_the_client_timer_is_used() {
    let (agent, up) = Agent::beside_upstream(SHORT);
    let name = "ttl300.c065.test.";
    kept_then(&agent, &up, name, "slow-700");
    time::until("the end of the entry", || {
        assert_eq!(agent.ask(&query(name)).errors(), [] as [u16; 0], "nothing expired is given");
        (up.count(name) == 2).then_some(())
    });
}

#[test]
fn c065_failed_refresh_is_tried_first_and_not_waited_for() {
    for failure in ["servfail", "refused", "close"] {
        let transport = if failure == "close" { "{\n force_tcp\n max_connect_attempts 1\n }" } else { "" };
        let (agent, up) = Agent::beside_upstream(&SHORT.replace("{once}", &format!("{{up}} {transport}")));
        let name = "ttl300.c065.test.";
        kept_then(&agent, &up, name, failure);
        if failure == "close" {
            // The label closes once only; an upstream that is gone refuses the next connection as well.
            drop(up);
            assert!(stale(&agent, name).1 < Duration::from_millis(1700), "{failure}");
            continue;
        }
        let (_, took) = stale(&agent, name);
        assert!(up.count(name) >= 2, "{failure}: the upstream was asked first");
        assert!(took < Duration::from_millis(1700), "{failure}: {took:?}");
    }
}

#[test]
fn c066_stale_ttl_is_thirty_unless_configured() {
    for (settings, ttl) in [("verify", 30), ("verify 1800ms 7s", 7), ("immediate", 30)] {
        let (agent, up) = Agent::beside_upstream(&SHORT.replace("verify", settings));
        let name = "two.c066.test.";
        assert_eq!(agent.ask(&query(name)).ttls(), [1, 1]);
        up.change(name, "servfail");
        assert_eq!(stale(&agent, name).0.ttls(), [ttl, ttl], "{settings}");
    }
}

#[test]
fn c067_failures_leave_the_answer_and_denials_end_it() {
    for (failure, denial, rcode) in
        [("servfail", "nx-60-10", NXDOMAIN), ("refused", "nx-60-10", NXDOMAIN), ("notimp", "nodata-60-10", NOERROR)]
    {
        let (agent, up) = Agent::beside_upstream(RETRIED);
        let name = "ttl300.c067.test.";
        kept_then(&agent, &up, name, failure);
        assert_eq!(stale(&agent, name).0.answers.len(), 1, "{failure}");
        up.change(name, denial);
        time::until("the denial", || {
            let reply = agent.ask(&query(name));
            assert!(reply.answers.len() == 1 || reply.rcode == rcode, "{failure}: {}", reply.rcode);
            reply.answers.is_empty().then_some(())
        });
        up.change(name, failure);
        let code = if rcode == NXDOMAIN { 19 } else { 3 };
        let (after, _) = until_told(&agent, name, code, |reply| reply.answers.is_empty());
        assert_eq!((after.rcode, after.answers.len()), (rcode, 0), "{denial}: the old answer does not come back");
    }
}

#[test]
fn c068_failed_refresh_is_not_repeated_in_its_pause() {
    let (agent, up) = Agent::beside_upstream(SHORT);
    let name = "ttl300.c068.test.";
    kept_then(&agent, &up, name, "servfail");
    stale(&agent, name);
    let asked = up.count(name);
    // Longer than failures of this name are remembered by themselves.
    for _ in 0..40 {
        assert_eq!(agent.ask(&query(name)).errors(), [3]);
        time::pass(Duration::from_millis(100));
    }
    assert_eq!(up.count(name), asked, "nothing is asked for thirty seconds");
}

#[test]
fn c068_refresh_is_tried_again_after_its_pause() {
    let (agent, up) = Agent::beside_upstream(RETRIED);
    let name = "ttl300.c068.test.";
    kept_then(&agent, &up, name, "servfail");
    stale(&agent, name);
    let (start, asked) = (time::now(), up.count(name));
    time::until("two more tries", || {
        assert_eq!(agent.ask(&query(name)).errors(), [3]);
        (up.count(name) >= asked + 2).then_some(())
    });
    assert!(start.elapsed() >= Duration::from_millis(1700), "one try per pause: {:?}", start.elapsed());
    up.change(name, "ttl300");
    time::until("a fresh answer", || agent.ask(&query(name)).errors().is_empty().then_some(()));
}

#[test]
fn c068_answer_after_the_client_timer_is_kept() {
    let (agent, up) = Agent::beside_upstream(&SHORT.replace("success 9984 1 0", "success 9984 2 0"));
    let name = "ttl300.c068.test.";
    assert_eq!(agent.ask(&query(name)).ttls(), [2]);
    up.change(name, "slow-3000");
    stale(&agent, name);
    time::until("the late answer", || agent.ask(&query(name)).errors().is_empty().then_some(()));
    assert_eq!(up.count(name), 2, "it came by the question that was waited for");
}

#[test]
fn c068_answer_is_not_used_beyond_its_longest_time() {
    let (agent, up) = Agent::beside_upstream(&SHORT.replace("1h", "2s"));
    let name = "ttl300.c068.test.";
    kept_then(&agent, &up, name, "servfail");
    stale(&agent, name);
    time::until("the end of two seconds", || (agent.ask(&query(name)).rcode == SERVFAIL).then_some(()));
    for _ in 0..5 {
        let reply = agent.ask(&query(name));
        assert_eq!((reply.rcode, reply.answers.len()), (SERVFAIL, 0));
    }
}

#[test]
fn c069_query_without_recursion_gets_nothing_stale() {
    let (agent, up) = Agent::beside_upstream(SHORT);
    let name = "ttl300.c069.test.";
    let plain = query(name).flag(RD, false);
    kept_then(&agent, &up, name, "servfail");
    stale(&agent, name);
    for _ in 0..3 {
        let reply = agent.ask(&plain);
        assert_eq!((reply.rcode, reply.answers.len()), (SERVFAIL, 0), "without RD");
        assert_eq!(agent.ask(&query(name)).errors(), [3], "with RD");
    }
}

#[test]
fn c070_stale_chain_is_whole() {
    let (agent, up) = Agent::beside_upstream(SHORT);
    for (name, links) in [("cname-2.c070.test.", 3), ("cname-5.c070.test.", 6)] {
        let fresh = agent.ask(&query(name));
        assert_eq!(fresh.answers.len(), links);
        up.change(name, "servfail");
        let (reply, _) = stale(&agent, name);
        let owners = |message: &Message| message.answers.iter().map(|record| record.name.clone()).collect::<Vec<_>>();
        assert_eq!(owners(&reply), owners(&fresh), "every link, in order");
        assert_eq!(reply.ttls(), vec![30; links]);
    }
    // Its links are no answers to questions of their own.
    up.change("link1.test.", "servfail");
    let link = agent.ask(&query("link1.test."));
    assert_eq!((link.rcode, link.answers.len()), (SERVFAIL, 0));
}

#[test]
fn c071_stale_replies_say_so() {
    let (agent, up) = Agent::beside_upstream(SHORT);
    for (name, rcode, code) in [("ttl300.c071.test.", NOERROR, 3), ("nx-60-10.c071.test.", NXDOMAIN, 19)] {
        assert_eq!(agent.ask(&query(name)).rcode, rcode);
        up.change(name, "servfail");
        let (reply, _) = until_told(&agent, name, code, |reply| reply.rcode == rcode && reply.errors().is_empty());
        assert_eq!((reply.rcode, reply.ttls()), (rcode, vec![30]));
        let classic = agent.ask_a(name);
        assert_eq!((classic.rcode, classic.ttls(), classic.opt), (rcode, vec![30], None), "without EDNS");
    }
}
