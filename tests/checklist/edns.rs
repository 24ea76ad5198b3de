//! Rules 80 to 93: EDNS.

use super::cached;
use crate::support::wire::*;
use crate::support::{Message, Query, answer};

#[test]
fn c080_opt_if_and_only_if_asked_with_it() {
    let (agent, _up) = cached();
    // `ask` checks the rule itself.
    for label in
        ["ttl300", "nx", "nodata", "empty", "servfail", "refused", "big-200", "cnameloop", "formerr", "options"]
    {
        for _ in 0..2 {
            let name = format!("{label}.c080.test.");
            agent.ask_a(&name);
            agent.ask(&Query::new(&name, A).edns(512));
            agent.ask_tcp(&Query::new(&name, A));
            agent.ask_tcp(&Query::new(&name, A).edns(512));
        }
    }
    for query in [Query::new("t.test.", A).opcode(2), Query::new("t.test.", AXFR), Query::new("t.test.", TXT).class(CH)]
    {
        agent.ask(&query);
        agent.ask(&query.edns(1232));
    }
}

/// Sends a query that is wrong in its EDNS part and expects FORMERR with an OPT of our own.
#[track_caller]
fn assert_format_error(bytes: &[u8]) {
    let (agent, up) = cached();
    let raw = agent.reply_to(bytes).expect("a reply");
    let reply = Message::parse(&raw).expect("a well-formed reply");
    assert_eq!((reply.rcode, reply.ttls().len()), (FORMERR, 0));
    assert_eq!(reply.opt.map(|opt| (opt.version, opt.size)), Some((0, 1232)));
    assert_eq!(up.all().len(), 0);
}

#[test]
fn c081_two_opt_records_are_a_format_error() {
    let second = record(&[0], OPT, 1232, 0, &[]);
    assert_format_error(&Query::new("ttl300.c081.test.", A).edns(1232).additional(second).bytes());
}

#[test]
fn c082_other_versions_are_badvers() {
    let (agent, up) = cached();
    for version in [1, 2, 255] {
        let reply = agent.ask(&Query::new("ttl300.c082.test.", A).edns(1232).version(version));
        assert_eq!((reply.rcode, reply.questions.len(), reply.ttls().len()), (BADVERS, 1, 0));
    }
    assert_eq!(up.all().len(), 0);
}

#[test]
fn c083_unknown_options_are_ignored() {
    let (agent, up) = cached();
    let reply = agent.ask(&Query::new("ttl300.c083.test.", A).edns(1232).option(100, b"x").option(65_001, &[0; 40]));
    assert_eq!((reply.rcode, reply.answers.len(), reply.options()), (NOERROR, 1, vec![]));
    let sent = up.seen("ttl300.c083.test.").remove(0).message.options();
    assert!(!sent.contains(&100) && !sent.contains(&65_001), "{sent:?}");
}

#[test]
fn c084_unknown_flags_are_ignored() {
    let (agent, up) = cached();
    // `ask` checks that the reply's are zero.
    let reply = agent.ask(&Query::new("ttl300.c084.test.", A).edns(1232).edns_flags(0x40));
    assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
    let sent = up.seen("ttl300.c084.test.").remove(0).message.opt.expect("our own OPT");
    assert_eq!(sent.flags & 0x7fff, 0);
}

#[test]
fn c085_reply_keeps_to_the_size_of_its_own_query() {
    let (agent, _up) = cached();
    let name = "big-200.c085.test.";
    for (size, limit) in
        [(4096, 1232), (0, 512), (1232, 1232), (1, 512), (511, 512), (513, 513), (512, 512), (65_535, 1232)]
    {
        let reply = agent.ask(&Query::new(name, A).edns(size));
        assert!(reply.truncated());
        assert!(reply.raw.len() <= limit, "size {size}: {} bytes", reply.raw.len());
        assert!(agent.ask_a(name).raw.len() <= 512, "without EDNS, after size {size}");
    }
    let fits = agent.ask(&Query::new("big-50.c085.test.", A).edns(1232));
    assert_eq!((fits.truncated(), fits.answers.len()), (false, 50));
}

#[test]
fn c086_malformed_opt_is_a_format_error() {
    // One option whose length leads past the end of the record, and half an option header.
    for data in [&[0, 10, 0, 9, 1, 2][..], &[0, 10, 0]] {
        let opt = record(&[0], OPT, 1232, 0, data);
        assert_format_error(&Query::new("ttl300.c086.test.", A).additional(opt).bytes());
    }
    let named = record(&name("x.test."), OPT, 1232, 0, &[]);
    assert_format_error(&Query::new("ttl300.c086.test.", A).additional(named).bytes());
}

#[test]
fn c087_upstream_without_edns_is_asked_without() {
    let (agent, up) = cached();
    for label in ["noedns", "noednsimp"] {
        let name = format!("{label}.c087.test.");
        let reply = agent.ask(&Query::new(&name, A).edns(1232));
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1), "{label}");
        assert_eq!(reply.answers[0].data, answer::data(A));
        assert_eq!(up.count(&name), if label == "noedns" { 2 } else { 1 }, "{label}: it is found out once");
        assert!(up.seen(&name).last().expect("a query").message.opt.is_none());
    }
    agent.ask(&Query::new("ttl300.c087.test.", A).edns(1232));
    let seen = up.seen("ttl300.c087.test.");
    assert_eq!((seen.len(), &seen[0].message.opt), (1, &None), "it is remembered");
    assert_eq!(agent.metric("dnslet_upstream_edns_fallbacks_total", &[]), 1.0);
}

#[test]
fn c087_errors_by_an_upstream_with_edns_change_nothing() {
    let (agent, up) = cached();
    for label in ["formerr", "notimp", "refused"] {
        agent.ask(&Query::new(&format!("{label}.c087.test."), A).edns(1232));
        assert_eq!(up.count(&format!("{label}.c087.test.")), 1, "{label}");
    }
    agent.ask(&Query::new("ttl300.c087.test.", A).edns(1232));
    assert!(up.seen("ttl300.c087.test.")[0].message.opt.is_some());
}

#[test]
fn c088_extended_errors_only_with_edns() {
    let (agent, _up) = cached();
    for (label, rcode, error) in [("ede", NOERROR, 17), ("edefail", SERVFAIL, 6)] {
        let name = format!("{label}.c088.test.");
        for _ in 0..2 {
            let reply = agent.ask(&Query::new(&name, A).edns(1232));
            assert_eq!(reply.rcode, rcode, "{label}");
            assert!(reply.errors().contains(&error), "{label}: {:?}", reply.errors());
            // `ask` checks that there is no OPT to hold one.
            assert_eq!(agent.ask_a(&name).rcode, rcode, "{label}");
        }
    }
}

#[test]
fn c088_the_upstreams_words_are_passed_on() {
    let (agent, _up) = cached();
    for _ in 0..2 {
        let reply = agent.ask(&Query::new("ede.words.c088.test.", A).edns(1232));
        assert_eq!(reply.opt.expect("an OPT").options, [(EDE, b"\x00\x11filtered".to_vec())]);
    }
}

#[test]
fn c090_keepalive_is_never_sent_over_udp() {
    let (agent, _up) = cached();
    let reply = agent.ask(&Query::new("ttl300.c090.test.", A).edns(1232).option(KEEPALIVE, &[]));
    assert_eq!((reply.rcode, reply.options()), (NOERROR, vec![]));
}

#[test]
fn c093_options_of_one_hop_are_neither_copied_nor_a_key() {
    let (agent, up) = cached();
    let name = "ttl300.c093.test.";
    for cookie in [[1; 8], [2; 8]] {
        let query = Query::new(name, A).edns(1232).option(COOKIE, &cookie).option(NSID, &[]);
        agent.ask_tcp(&query.option(PADDING, &[0; 31]).option(KEEPALIVE, &[]));
    }
    let seen = up.seen(name);
    assert_eq!(seen.len(), 1, "one entry for all");
    let options = seen[0].message.opt.as_ref().expect("our own OPT").options.clone();
    assert!(options.iter().all(|(code, data)| *code == COOKIE && !data.starts_with(&[1; 8])), "{options:?}");
}
