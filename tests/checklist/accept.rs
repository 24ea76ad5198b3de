//! Rules 30 to 38: which packets count as the answer.

use std::collections::HashSet;

use super::cached;
use crate::support::wire::*;
use crate::support::{Agent, Message, Query, answer, time, wrong};

/// Kinds of packets that are no answer, as the scripted upstream names them.
fn wrong() -> impl Iterator<Item = &'static str> {
    wrong::KINDS.into_iter().chain(["port"])
}

#[test]
fn c030_packet_with_one_field_wrong_is_no_answer() {
    let (agent, _up) = cached();
    for wrong in wrong() {
        let reply = agent.ask_a(&format!("early-{wrong}.c030.test."));
        assert_eq!(reply.rcode, NOERROR, "{wrong}");
        assert_eq!(reply.answers[0].data, answer::data(A), "{wrong}");
    }
}

#[test]
fn c036_wrong_packets_change_nothing_and_are_counted() {
    let (agent, up) = cached();
    for wrong in wrong() {
        let name = format!("early-{wrong}.c036.test.");
        agent.ask_a(&name);
        assert_eq!(up.count(&name), 1, "{wrong}: no second query");
    }
    let told: Vec<String> = agent
        .metrics()
        .lines()
        .filter(|line| line.contains("mismatch") && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let counted: f64 = told.iter().filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
    // The one from another port never reaches a connected socket.
    assert_eq!(counted, wrong::KINDS.len() as f64, "{told:?}");
}

#[test]
fn c036_unreadable_answers_end_in_servfail_and_say_why() {
    let (agent, up) = Agent::beside_upstream("cache\n forward . {up}");
    let reply = agent.ask(&Query::new("pointer.c036.test.", A).edns(1232));
    assert_eq!((reply.rcode, reply.errors()), (SERVFAIL, vec![24]));
    assert_eq!(up.count("pointer.c036.test."), 2);
    assert!(up.seen("pointer.c036.test.").iter().all(|seen| !seen.tcp));
    assert!(agent.metric("dnslet_upstream_mismatches_total", &[("reason", "malformed")]) >= 2.0);
}

#[test]
fn c036_many_wrong_packets_lead_to_tcp_once() {
    let (agent, up) = cached();
    assert_eq!(agent.ask_a("flood.c036.test.").answers[0].data, answer::data(A));
    let transports: Vec<bool> = up.seen("flood.c036.test.").iter().map(|seen| seen.tcp).collect();
    assert_eq!(transports, [false, true]);
}

#[test]
fn c034_equal_questions_share_one_upstream_query() {
    let (agent, up) = cached();
    let query = Query::new("hold.c034.test.", A);
    let clients: Vec<_> = (0..50).map(|_| agent.udp()).collect();
    clients.iter().for_each(|client| client.send(&query.bytes()));
    let mut streams: Vec<_> = (0..10).map(|_| agent.tcp()).collect();
    streams.iter_mut().for_each(|stream| stream.send(&query.bytes()));
    time::until("all questions to arrive", || (agent.metric("coredns_dns_requests_total", &[]) >= 60.0).then_some(()));
    up.release();
    for client in &clients {
        let reply = Message::parse(&client.receive(time::PATIENCE).expect("a reply")).expect("a well-formed reply");
        assert_eq!(reply.answers.len(), 1);
    }
    for stream in &mut streams {
        assert_eq!(stream.next().answers.len(), 1);
    }
    assert_eq!(up.count("hold.c034.test."), 1);
}

#[test]
fn c035_records_nobody_asked_for_answer_nothing() {
    let (agent, up) = cached();
    let reply = agent.ask_a("extra.c035.test.");
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(reply.answers[0].name, "extra.c035.test.");
    let reply = agent.ask_a("other.c035.test.");
    assert_eq!(reply.answers, []);
    let victim = agent.ask_a("ttl300.victim.test.");
    assert_eq!(victim.answers[0].data, answer::data(A));
    assert_eq!(up.count("ttl300.victim.test."), 1);
}

#[test]
fn c037_options_of_the_client_stay_with_the_client() {
    let (agent, up) = cached();
    let query = Query::new("ttl300.c037.test.", A).edns(4096).option(COOKIE, &[1; 8]).option(65_001, b"local");
    agent.ask(&query);
    let sent = up.seen("ttl300.c037.test.").remove(0).message;
    let opt = sent.opt.expect("our own OPT");
    assert!(!opt.options.iter().any(|(code, data)| *code == 65_001 || data.starts_with(&[1; 8])), "{:?}", opt.options);
    assert_ne!(sent.id, query.id, "an ID of its own");
}

#[test]
fn c038_own_size_is_advertised() {
    let (agent, up) = cached();
    for (number, size) in [None, Some(512), Some(65_535)].into_iter().enumerate() {
        let asked = format!("ttl300.n{number}.c038.test.");
        let query = Query::new(&asked, A);
        agent.ask(&size.map_or(query.clone(), |size| query.edns(size)));
        let sent = up.seen(&asked).remove(0).message;
        assert_eq!(sent.opt.map(|opt| opt.size), Some(1232), "{asked}");
    }
}

/// Chi-square of counts against an even spread, over its degrees of freedom: near 1 when the spread is even.
fn unevenness(counts: &[u32]) -> f64 {
    let total: f64 = counts.iter().copied().map(f64::from).sum();
    let expected = total / counts.len() as f64;
    let sum: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    sum / (counts.len() as f64 - 1.0)
}

#[test]
fn c031_c032_ports_and_ids_are_spread_evenly() {
    const MISSES: usize = 20_000;
    let (agent, up) = Agent::beside_upstream("cache\n forward . {up} {\n max_fails 0\n }");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let agent = &agent;
            scope.spawn(move || {
                let client = agent.udp();
                for number in 0..MISSES / 4 {
                    client.ask(&Query::new(&format!("ttl300.n{number}.t{thread}.test."), A));
                }
            });
        }
    });
    let seen = up.all();
    let queries: Vec<_> =
        seen.iter().filter(|seen| !seen.tcp && seen.message.questions[0].name.starts_with("ttl300.n")).collect();
    assert!(queries.len() >= MISSES, "{} queries", queries.len());
    let ports: Vec<u16> = queries.iter().map(|seen| seen.peer.port()).collect();
    let ids: Vec<u16> = queries.iter().map(|seen| seen.message.id).collect();
    assert_spread("IDs", &ids, 0, u16::MAX);
    let (low, high) = (ports.iter().min().expect("queries"), ports.iter().max().expect("queries"));
    assert!(high - low >= 16_000, "ports from {low} to {high}");
    assert_spread("ports", &ports, *low, *high);
}

/// Fails for a spread over `low..=high` that chance would give in fewer than one of a billion runs.
fn assert_spread(what: &str, values: &[u16], low: u16, high: u16) {
    const BINS: usize = 64;
    let width = (usize::from(high) - usize::from(low) + 1).div_ceil(BINS);
    let (mut coarse, mut fine) = ([0; BINS], [0; BINS]);
    for value in values {
        coarse[usize::from(value - low) / width] += 1;
        fine[usize::from(*value) % BINS] += 1;
    }
    // 63 degrees of freedom: 2.4 times their number is nearly eight standard deviations up. The last bin may be cut short.
    let coarse = &coarse[..(usize::from(high) - usize::from(low) + 1) / width];
    assert!(unevenness(coarse) < 2.4, "{what}, high bits: {coarse:?}");
    assert!(unevenness(&fine) < 2.4, "{what}, low bits: {fine:?}");
    let steps = values.windows(2).filter(|pair| pair[1].wrapping_sub(pair[0]) <= 2).count();
    assert!(steps < values.len() / 50, "{what}: {steps} times hardly different from the one before");
    let distinct = values.iter().collect::<HashSet<_>>().len();
    let range = f64::from(high - low) + 1.0;
    let expected = range * (1.0 - (-(values.len() as f64) / range).exp());
    assert!(distinct as f64 > 0.9 * expected, "{what}: {distinct} different ones, {expected:.0} expected");
}
