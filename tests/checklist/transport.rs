//! Rules 100 to 112: UDP and TCP.

use std::collections::HashSet;
use std::io::Write;

use super::cached;
use crate::support::upstream::framed;
use crate::support::wire::*;
use crate::support::{Agent, Query, Upstream, answer, time};

fn over_tcp() -> (Agent, Upstream) {
    Agent::beside_upstream("cache\n forward . {up} {\n force_tcp\n }")
}

#[test]
fn c100_many_queries_on_one_connection() {
    let (agent, _up) = cached();
    let mut client = agent.tcp();
    for number in 0..50 {
        // `ask` checks that each reply is the query's own.
        assert_eq!(client.ask(&Query::new(&format!("ttl300.n{number}.c100.test."), A)).answers.len(), 1);
    }
}

#[test]
fn c101_replies_leave_when_they_are_ready() {
    let (agent, up) = cached();
    let mut client = agent.tcp();
    let held = Query::new("hold.c101.test.", A);
    client.send(&held.bytes());
    up.wait_for("hold.c101.test.", 1);
    for number in 0..3 {
        client.ask(&Query::new(&format!("ttl300.n{number}.c101.test."), A));
    }
    up.release();
    client.next().check_against(&held);
}

#[test]
fn c102_no_id_is_twice_in_flight_on_one_connection() {
    const FLIGHTS: usize = 300;
    let (agent, up) = Agent::beside_upstream("cache\n forward . {up} {\n force_tcp\n max_connect_attempts 1\n }");
    let clients: Vec<_> = (0..FLIGHTS)
        .map(|number| {
            let client = agent.udp();
            client.send(&Query::new(&format!("hold.n{number}.c102.test."), A).bytes());
            client
        })
        .collect();
    (0..FLIGHTS).for_each(|number| up.wait_for(&format!("hold.n{number}.c102.test."), 1));
    let seen = up.all();
    let ids: HashSet<(usize, u16)> = seen.iter().map(|seen| (seen.connection, seen.message.id)).collect();
    assert_eq!(ids.len(), seen.len());
    assert!(seen.iter().all(|seen| seen.tcp));
    up.release();
    clients.iter().for_each(|client| assert!(client.receive(time::PATIENCE).is_some()));
}

#[test]
fn c103_few_connections_to_one_upstream() {
    let workers = 2;
    let upstream = Upstream::start();
    let agent = Agent::plan()
        .arguments(&["-workers", "2"])
        .root(&format!("cache\n forward . {} {{\n force_tcp\n max_connect_attempts 1\n }}", upstream.address()))
        .start();
    let clients: Vec<_> = (0..200)
        .map(|number| {
            let client = agent.udp();
            client.send(&Query::new(&format!("hold.n{number}.c103.test."), A).bytes());
            client
        })
        .collect();
    (0..200).for_each(|number| upstream.wait_for(&format!("hold.n{number}.c103.test."), 1));
    upstream.release();
    clients.iter().for_each(|client| assert!(client.receive(time::PATIENCE).is_some()));
    assert!(upstream.connections() <= 2 * workers, "{} connections", upstream.connections());
}

#[test]
fn c104_idle_connection_is_closed() {
    let (agent, _up) = Agent::beside_upstream("timeouts {\n read 1s\n idle 1s\n }\n forward . {up}");
    let mut client = agent.tcp();
    client.ask(&Query::new("ttl300.c104.test.", A));
    assert_eq!(client.receive(), None, "the server closes it");
}

#[test]
fn c104_dribble_does_not_keep_a_connection_open() {
    let (agent, _up) = Agent::beside_upstream("timeouts {\n read 1s\n idle 1s\n }\n forward . {up}");
    let mut client = agent.tcp();
    let message = framed(&Query::new("ttl300.c104.test.", A).edns(1232).option(PADDING, &[0; 1000]).bytes());
    let mut bytes = message.iter();
    time::until("the end of the connection", || {
        let byte = bytes.next().expect("closed long before the message is complete");
        client.0.write_all(&[*byte]).is_err().then_some(())
    });
}

#[test]
fn c105_closed_upstream_connection_is_replaced() {
    let (agent, up) = over_tcp();
    let reply = agent.ask_a("close.c105.test.");
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(up.count("close.c105.test."), 2);
    up.hang_up();
    assert_eq!(agent.ask_a("ttl300.c105.test.").answers.len(), 1, "an idle connection that went away");
}

#[test]
fn c105_client_that_goes_away_disturbs_nobody() {
    let (agent, up) = cached();
    let mut client = agent.tcp();
    client.send(&Query::new("hold.c105.test.", A).bytes());
    up.wait_for("hold.c105.test.", 1);
    drop(client);
    up.release();
    assert_eq!(agent.ask_tcp(&Query::new("hold.c105.test.", A)).answers.len(), 1);
}

#[test]
fn c106_message_may_come_byte_by_byte() {
    let (agent, _up) = cached();
    let mut client = agent.tcp();
    for _ in 0..2 {
        let query = Query::new("ttl300.c106.test.", A);
        for byte in framed(&query.bytes()) {
            client.0.write_all(&[byte]).expect("an open connection");
        }
        client.next().check_against(&query);
    }
}

#[test]
fn c107_tcp_needs_no_udp_before_it() {
    let (agent, _up) = cached();
    for label in ["ttl300", "nx", "servfail"] {
        agent.ask_tcp(&Query::new(&format!("{label}.c107.test."), A));
    }
}

#[test]
fn c110_truncation_is_resolved_for_every_client() {
    let (agent, up) = cached();
    let by_tcp = agent.ask_tcp(&Query::new("tctail.first.test.", A));
    assert_eq!((by_tcp.truncated(), by_tcp.answers.len()), (false, 2));
    let by_udp = agent.ask_a("tctail.second.test.");
    assert_eq!((by_udp.truncated(), by_udp.answers.len()), (false, 2));
    assert_eq!(up.seen("tctail.second.test.").iter().filter(|seen| seen.tcp).count(), 1);
}

#[test]
fn c111_udp_replies_are_never_above_the_cap() {
    let (agent, _up) = cached();
    for count in [60, 75, 76, 77, 100, 1000] {
        let reply = agent.ask(&Query::new(&format!("big-{count}.c111.test."), A).edns(65_535));
        assert!(reply.raw.len() <= 1232, "{count} records: {} bytes", reply.raw.len());
    }
}

#[test]
fn c112_refused_port_fails_one_try_only() {
    let up = Upstream::start();
    let closed = crate::support::address::Address::fresh();
    let lines = format!("cache\n forward . {} {} {{\n policy sequential\n }}", closed.dns(), up.address());
    let agent = Agent::root(&lines);
    for number in 0..3 {
        let reply = agent.ask_a(&format!("ttl300.n{number}.c112.test."));
        assert_eq!(reply.rcode, NOERROR);
        assert_eq!(reply.answers[0].data, answer::data(A));
    }
}
