//! Rules 20 to 29: transparency as a proxy.

use super::cached;
use crate::support::client::Udp;
use crate::support::wire::*;
use crate::support::{Agent, Query, Upstream, answer, namespace};

#[test]
fn c021_every_type_is_asked_and_returned() {
    let (agent, up) = cached();
    let (udp, mut tcp) = (agent.udp(), agent.tcp());
    // All but OPT and those that are no data: TKEY, TSIG, zone transfers, MAILB, MAILA, ANY.
    let types = (1..=248).chain(256..=265).chain([32_768, 32_769, 65_280, 65_534]).filter(|kind| *kind != OPT);
    for kind in types {
        let query = Query::new("ttl300.c021.test.", kind);
        let reply = udp.ask(&query);
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1), "type {kind}");
        assert_eq!(reply.answers[0].data, answer::data(kind), "type {kind}");
        assert_eq!(tcp.ask(&query).answers, reply.answers, "type {kind} over TCP");
    }
    assert!(up.all().iter().all(|seen| !seen.tcp));
}

#[test]
fn c022_truncation_is_told_and_only_then() {
    let (agent, _up) = cached();
    for count in [1, 20, 29, 30, 31, 60, 72, 76, 80, 200] {
        let name = format!("big-{count}.c022.test.");
        let whole = agent.ask_tcp(&Query::new(&name, A).edns(1232));
        assert_eq!((whole.truncated(), whole.answers.len()), (false, count));
        for (query, limit) in [
            (Query::new(&name, A), 512),
            (Query::new(&name, A).edns(512), 512),
            (Query::new(&name, A).edns(1000), 1000),
            (Query::new(&name, A).edns(4096), 1232),
        ] {
            let reply = agent.ask(&query);
            assert!(reply.raw.len() <= limit, "{count} records, limit {limit}: {} bytes", reply.raw.len());
            assert_eq!(reply.truncated(), reply.answers.len() < count, "{count} records, limit {limit}");
            let room = limit - reply.raw.len();
            assert!(
                !reply.truncated() || reply.answers.is_empty() || room < 16,
                "cut no more than needed: {room} left"
            );
        }
    }
}

#[test]
fn c022_answers_of_64_kilobytes_pass_over_tcp() {
    let (agent, up) = cached();
    for _ in 0..2 {
        let reply = agent.ask_tcp(&Query::new("big-4000.c022.test.", A));
        assert_eq!((reply.truncated(), reply.answers.len()), (false, 4000));
    }
    assert_eq!(up.seen("big-4000.c022.test.").iter().filter(|seen| seen.tcp).count(), 1);
}

#[test]
fn c023_tcp_to_clients_and_to_the_upstream() {
    let (agent, up) = Agent::beside_upstream("cache\n forward . {up} {\n force_tcp\n max_connect_attempts 1\n }");
    assert_eq!(agent.ask_tcp(&Query::new("ttl300.one.test.", A)).answers.len(), 1);
    assert_eq!(agent.ask_a("ttl300.two.test.").answers.len(), 1);
    assert_eq!(up.all().len(), 2);
    assert!(up.all().iter().all(|seen| seen.tcp));
}

#[test]
fn c024_tcp_client_gets_the_whole_of_a_truncated_answer() {
    let (agent, _up) = cached();
    let reply = agent.ask_tcp(&Query::new("tctail.c024.test.", A));
    assert_eq!((reply.truncated(), reply.answers.len()), (false, 2));
}

#[test]
fn c025_signed_queries_are_refused() {
    let (agent, up) = cached();
    let mut data = name("hmac-sha256.");
    data.extend([0; 6]);
    data.extend(300u16.to_be_bytes());
    data.extend(32u16.to_be_bytes());
    data.extend([7; 32]);
    data.extend([0; 6]);
    let signature = record(&name("key.test."), TSIG, 255, 0, &data);
    let reply = agent.ask(&Query::new("ttl300.c025.test.", A).additional(signature));
    assert_eq!((reply.rcode, reply.answers.len()), (REFUSED, 0));
    assert_eq!(up.all().len(), 0, "an altered query would not verify");
}

#[test]
fn c027_strangers_are_refused_on_public_addresses() {
    if !namespace::entered("checklist::proxy::c027_strangers_are_refused_on_public_addresses") {
        return;
    }
    for address in ["198.51.100.1/32", "203.0.113.9/32", "10.1.2.3/32"] {
        namespace::add_address(address);
    }
    let up = Upstream::start();
    let mut agent = Agent::plan().corefile(&format!(".:53 {{\n forward . {}\n}}\n", up.address())).launch();
    let server = ([198, 51, 100, 1], 53).into();
    agent.wait_until_serving(([127, 0, 0, 1], 53).into());
    for (source, rcode) in [([203, 0, 113, 9], REFUSED), ([10, 1, 2, 3], NOERROR), ([127, 0, 0, 1], NOERROR)] {
        let client = Udp::between((source, 0).into(), server);
        assert_eq!(client.ask(&Query::new("ttl300.c027.test.", A)).rcode, rcode, "{source:?}");
    }
    assert_eq!(up.count("ttl300.c027.test."), 2);
}

#[test]
fn c028_unusable_answers_end_in_servfail() {
    let (agent, _up) = cached();
    let replies = std::thread::scope(|scope| {
        let ask = |label: &str| {
            let name = format!("{label}.c028.test.");
            let agent = &agent;
            scope.spawn(move || agent.ask_a(&name))
        };
        let asked = ["short", "garbage", "noqr", "badid", "wrongtype"].map(ask);
        asked.map(|thread| thread.join().expect("a reply"))
    });
    for reply in replies {
        assert_eq!((reply.rcode, reply.answers.len()), (SERVFAIL, 0), "{}", reply.questions[0].name);
    }
}

#[test]
fn c029_any_has_an_entry_of_its_own() {
    let (agent, up) = cached();
    for (first, second) in [(A, ANY), (ANY, A)] {
        let name = format!("ttl300.after{first}.test.");
        agent.ask(&Query::new(&name, first));
        assert_eq!(up.count(&name), 1);
        let reply = agent.ask(&Query::new(&name, second));
        assert_eq!((up.count(&name), reply.truncated()), (2, false), "{second} after {first}");
        agent.ask(&Query::new(&name, second));
        assert_eq!(up.count(&name), 2, "and is cached");
    }
}
