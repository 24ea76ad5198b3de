//! What node-cache 1.13.2 was seen to answer, one test per case: the same here, or different where a row of
//! docs/compatibility.md says why. Settings as observed: `cache 30`, one UDP upstream, EDNS 1232.

use crate::support::wire::*;
use crate::support::{Agent, Message, Query, Upstream, namespace, time};

/// How long a stub resolver waits before it gives up (resolv.conf(5), `timeout`).
const STUB: std::time::Duration = std::time::Duration::from_secs(5);

fn cached() -> (Agent, Upstream) {
    Agent::beside_upstream("cache 30\n forward . {once}")
}

fn ask(agent: &Agent, name: &str) -> Message {
    agent.ask(&Query::new(name, A).edns(1232))
}

/// Asks as a stub resolver does: the reply must come before its patience ends.
#[track_caller]
fn ask_in_time(agent: &Agent, name: &str) -> Message {
    let (client, query) = (agent.udp(), Query::new(name, A).edns(1232));
    client.send(&query.bytes());
    let raw = client.receive(STUB).expect("a reply before the stub resolver gives up");
    let reply = Message::parse(&raw).expect("a well-formed reply");
    reply.check_against(&query);
    reply
}

#[test]
fn ttl_zero_is_passed_on_and_never_stored() {
    let (agent, up) = cached();
    for asked in 1..=3 {
        assert_eq!(ask(&agent, "ttl0.v.test.").ttls(), [0]);
        assert_eq!(up.count("ttl0.v.test."), asked);
    }
}

#[test]
fn ttl_is_capped_and_counts_down() {
    let (agent, up) = cached();
    let first = ask(&agent, "ttl300.v.test.");
    assert_eq!(first.ttls(), [30]);
    assert!(first.has(QR | RD | RA));
    let later = agent.ask_until_older("ttl300.v.test.", 30);
    assert!(later.has(QR | RD | RA));
    assert_eq!(later.ttls(), [29]);
    assert_eq!(up.count("ttl300.v.test."), 1);
}

#[test]
fn lowest_ttl_holds_for_the_whole_answer() {
    let (agent, up) = cached();
    assert_eq!(ask(&agent, "two.v.test.").ttls(), [20, 20]);
    assert_eq!(agent.ask_until_older("two.v.test.", 20).ttls(), [19, 19]);
    assert_eq!(up.count("two.v.test."), 1);
}

#[test]
fn nxdomain_lives_as_long_as_the_soa_minimum() {
    let (agent, up) = cached();
    let first = ask(&agent, "nx-60-10.v.test.");
    assert_eq!((first.rcode, first.ttls()), (NXDOMAIN, vec![10]));
    assert_eq!(first.authority[0].kind, SOA);
    let later = agent.ask_until_older("nx-60-10.v.test.", 10);
    assert_eq!((later.rcode, later.ttls()), (NXDOMAIN, vec![9]));
    assert_eq!(up.count("nx-60-10.v.test."), 1);
}

#[test]
fn nodata_lives_as_long_as_the_soa_minimum() {
    let (agent, up) = cached();
    let first = ask(&agent, "nodata-60-10.v.test.");
    assert_eq!((first.rcode, first.answers.len(), first.ttls()), (NOERROR, 0, vec![10]));
    assert_eq!(agent.ask_until_older("nodata-60-10.v.test.", 10).ttls(), [9]);
    assert_eq!(up.count("nodata-60-10.v.test."), 1);
}

#[test]
fn nxdomain_without_soa_is_asked_again() {
    let (agent, up) = cached();
    for asked in 1..=2 {
        assert_eq!(ask(&agent, "nxnosoa.v.test.").rcode, NXDOMAIN);
        assert_eq!(up.count("nxnosoa.v.test."), asked);
    }
}

#[test]
fn empty_answer_without_soa_is_asked_again() {
    let (agent, up) = cached();
    for asked in 1..=2 {
        let reply = ask(&agent, "empty.v.test.");
        assert_eq!((reply.rcode, reply.ttls().len()), (NOERROR, 0));
        assert_eq!(up.count("empty.v.test."), asked);
    }
}

#[test]
fn failures_are_passed_on_and_remembered() {
    let (agent, up) = cached();
    for (name, rcode) in [("servfail.v.test.", SERVFAIL), ("refused.v.test.", REFUSED)] {
        let mut repeated = 0;
        for _ in 0..5 {
            let reply = ask(&agent, name);
            assert_eq!(reply.rcode, rcode);
            assert!(reply.has(QR | RD | RA));
            repeated += usize::from(reply.errors() == [13]);
        }
        assert!(repeated > 0, "{name}");
        assert_eq!(up.count(name), 5 - repeated, "what is said to be remembered is not asked for");
    }
}

#[test]
fn extended_error_of_the_upstream_is_kept() {
    let (agent, up) = cached();
    for _ in 0..2 {
        assert_eq!(ask(&agent, "ede.v.test.").errors(), [17], "on the first reply and from the cache");
    }
    assert_eq!(agent.ask_a("ede.v.test.").opt, None, "a client without EDNS gets none");
    assert_eq!(up.count("ede.v.test."), 1);
}

#[test]
fn answer_to_another_question_is_not_passed_on() {
    let (agent, up) = Agent::beside_upstream("cache 30\n forward . {up}");
    let reply = ask_in_time(&agent, "wrongq.v.test.");
    assert_eq!((reply.rcode, reply.answers.len()), (SERVFAIL, 0));
    assert!(!reply.errors().is_empty(), "the reason is told");
    assert!((1..=3).contains(&up.count("wrongq.v.test.")), "{}", up.count("wrongq.v.test."));
}

#[test]
fn silent_upstream_is_servfail_in_time_after_few_packets() {
    let (agent, up) = Agent::beside_upstream("cache 30\n forward . {up}");
    let reply = ask_in_time(&agent, "silent.v.test.");
    assert_eq!(reply.rcode, SERVFAIL);
    assert!(reply.has(QR | RD));
    assert!(!reply.errors().is_empty(), "the reason is told");
    assert!((1..=3).contains(&up.count("silent.v.test.")), "{}", up.count("silent.v.test."));
}

#[test]
fn closed_port_is_tried_at_most_three_times() {
    if !namespace::entered("vectors::closed_port_is_tried_at_most_three_times") {
        return;
    }
    // max_fails 0: no health probes among the packets that are counted.
    let agent = Agent::root("cache 30\n forward . 127.0.0.99:5300 {\n max_fails 0\n }");
    let before = namespace::counter("Udp", "NoPorts");
    let reply = ask_in_time(&agent, "closed.v.test.");
    let tried = namespace::counter("Udp", "NoPorts") - before;
    assert_eq!(reply.rcode, SERVFAIL);
    assert!(!reply.errors().is_empty(), "the reason is told");
    assert!((1..=3).contains(&tried), "{tried} packets");
}

#[test]
fn udp_answer_above_the_advertised_size_is_still_cached_whole() {
    let (agent, up) = cached();
    let first = ask(&agent, "bignotc-100.v.test.");
    assert!(first.truncated());
    assert!(first.raw.len() <= 1232);
    let asked = up.count("bignotc-100.v.test.");
    let whole = agent.ask_tcp(&Query::new("bignotc-100.v.test.", A).edns(1232));
    assert_eq!((whole.truncated(), whole.answers.len()), (false, 100));
    assert!(ask(&agent, "bignotc-100.v.test.").truncated());
    assert_eq!(up.count("bignotc-100.v.test."), asked, "both came from the cache");
}

#[test]
fn large_answer_is_cut_for_a_client_without_edns() {
    let (agent, up) = cached();
    let whole = agent.ask_tcp(&Query::new("big-120.v.test.", A));
    assert_eq!((whole.truncated(), whole.answers.len()), (false, 120));
    let asked = up.count("big-120.v.test.");
    let cut = agent.ask_a("big-120.v.test.");
    assert!(cut.truncated());
    assert!(cut.raw.len() <= 512);
    assert_eq!(cut.answers.len(), 30);
    assert_eq!(up.count("big-120.v.test."), asked);
}

#[test]
fn truncated_answer_is_asked_again_over_tcp() {
    let (agent, up) = cached();
    for _ in 0..2 {
        let reply = ask(&agent, "tc.v.test.");
        assert_eq!((reply.truncated(), reply.answers.len()), (false, 1));
    }
    let transports: Vec<bool> = up.seen("tc.v.test.").iter().map(|seen| seen.tcp).collect();
    assert_eq!(transports, [false, true], "once over UDP, once over TCP");
}

#[test]
fn dnssec_ok_and_checking_disabled_have_entries_of_their_own() {
    let (agent, up) = cached();
    let name = "ttl300.Keys.Test.";
    agent.ask(&Query::new(name, A).dnssec_ok());
    agent.ask(&Query::new(name, A).edns(1232).flag(CD, true));
    ask(&agent, name);
    assert_eq!(up.count(name), 3);
    let mixed = ask(&agent, "TTL300.kEYS.tEST.");
    assert_eq!(mixed.questions[0].name, "TTL300.kEYS.tEST.");
    assert_eq!(mixed.answers[0].name, "TTL300.kEYS.tEST.");
    assert_eq!(up.count(name), 3);
}

#[test]
fn failover_with_one_upstream_ends_after_one_query() {
    let (agent, up) = Agent::beside_upstream("forward . {up} {\n failover SERVFAIL\n }");
    assert_eq!(ask_in_time(&agent, "servfail.v.test.").rcode, SERVFAIL);
    assert_eq!(up.count("servfail.v.test."), 1);
}

#[test]
fn class_chaos_is_forwarded_but_for_names_that_mean_this_server() {
    let (agent, up) = cached();
    for _ in 0..2 {
        let reply = agent.ask(&Query::new("ttl300.v.test.", TXT).class(CH).edns(1232));
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
    }
    assert_eq!(agent.ask(&Query::new("ttl300.v.test.", TXT)).questions[0].class, IN);
    assert_eq!(up.all().len(), 2, "one entry for each class");
    for name in ["version.bind.", "VERSION.Server.", "id.server.", "hostname.bind."] {
        let reply = agent.ask(&Query::new(name, TXT).class(CH).edns(1232));
        assert_eq!((reply.rcode, reply.answers.len()), (REFUSED, 0), "{name}");
    }
    assert_eq!(up.all().len(), 2);
}

#[test]
fn edns_version_one_is_badvers() {
    let (agent, up) = cached();
    let reply = agent.ask(&Query::new("ttl300.v.test.", A).edns(1232).version(1));
    assert_eq!((reply.rcode, reply.answers.len()), (BADVERS, 0));
    assert_eq!(up.all().len(), 0);
}

#[test]
fn other_opcodes_are_not_implemented_and_not_forwarded() {
    let (agent, up) = cached();
    for opcode in [2, 4] {
        let reply = agent.ask(&Query::new("ttl300.v.test.", SOA).opcode(opcode));
        assert_eq!(reply.rcode, NOTIMP, "opcode {opcode}");
    }
    assert_eq!(up.all().len(), 0);
}

#[test]
fn more_than_max_concurrent_is_refused() {
    let (agent, up) = Agent::beside_upstream("cache 30\n forward . {up} {\n max_concurrent 1\n }");
    let (first, query) = (agent.udp(), Query::new("hold.one.test.", A));
    first.send(&query.bytes());
    up.wait_for("hold.one.test.", 1);
    assert_eq!(ask(&agent, "ttl300.two.test.").rcode, REFUSED);
    up.release();
    let reply = first.receive(time::PATIENCE).and_then(|raw| Message::parse(&raw)).expect("the first one's reply");
    assert_eq!(reply.rcode, NOERROR);
    assert_eq!(ask(&agent, "ttl300.two.test.").rcode, NOERROR, "there is room again");
}

#[test]
fn query_of_642_bytes_is_answered() {
    let (agent, _up) = cached();
    let short = Query::new("ttl300.v.test.", A).edns(1232);
    let padding = vec![0; 642 - short.bytes().len() - 4];
    let long = short.option(PADDING, &padding);
    assert_eq!(long.bytes().len(), 642);
    assert_eq!(agent.ask(&long).answers.len(), 1);
}

#[test]
fn tcp_queries_do_not_wait_for_each_other() {
    let (agent, _up) = cached();
    let mut client = agent.tcp();
    let (silent, quick) = (Query::new("silent.v.test.", A), Query::new("ttl300.v.test.", A));
    client.send(&silent.bytes());
    client.send(&quick.bytes());
    client.next().check_against(&quick);
    let last = client.next();
    last.check_against(&silent);
    assert_eq!(last.rcode, SERVFAIL);
}

#[test]
fn stale_answer_outlives_a_failing_upstream() {
    let (agent, up) = Agent::beside_upstream("cache {\n success 9984 1 0\n serve_stale 1h\n }\n forward . {once}");
    let name = "ttl300.stale.test.";
    assert_eq!(ask(&agent, name).ttls(), [1]);
    up.change(name, "servfail");
    let stale = time::until("a stale answer", || Some(ask(&agent, name)).filter(|reply| reply.errors() == [3]));
    assert_eq!((stale.rcode, stale.ttls()), (NOERROR, vec![30]));
    up.wait_for(name, 2);
    for _ in 0..20 {
        let again = ask(&agent, name);
        assert_eq!((again.rcode, again.ttls(), again.errors()), (NOERROR, vec![30], vec![3]));
    }
}

#[test]
fn fresh_answer_replaces_an_expired_denial() {
    let settings = "cache {\n denial 9984 1 0\n serve_stale 1h verify\n }\n forward . {once}";
    let (agent, up) = Agent::beside_upstream(settings);
    let name = "nx-60-60.denied.test.";
    let first = ask(&agent, name);
    assert_eq!((first.rcode, first.ttls()), (NXDOMAIN, vec![1]));
    up.change(name, "ttl300");
    time::until("the positive answer", || Some(ask(&agent, name)).filter(|reply| reply.rcode == NOERROR));
    assert_eq!(up.count(name), 2);
    assert_eq!(ask(&agent, name).answers.len(), 1);
    assert_eq!(up.count(name), 2, "the repeat is a hit");
}
