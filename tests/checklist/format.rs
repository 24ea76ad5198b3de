//! Rules 1 to 14: messages and names.

use super::cached;
use crate::support::wire::*;
use crate::support::{Agent, Message, Query, answer, time};

/// The RCODE of the reply to raw bytes; the reply carries their ID and no records.
#[track_caller]
fn rcode_of(agent: &Agent, bytes: &[u8]) -> u16 {
    let raw = agent.reply_to(bytes).expect("a reply");
    let reply = Message::parse(&raw).expect("a well-formed reply");
    assert_eq!(raw[..2], bytes[..2], "the ID comes back");
    assert!(reply.has(QR));
    assert!(reply.ttls().is_empty(), "no records");
    reply.rcode
}

/// A query whose name is these bytes as they are.
fn query_for(name: &[u8]) -> Vec<u8> {
    let mut query = Query::new(".", A);
    query.name = name.to_vec();
    query.bytes()
}

#[test]
fn c001_longest_names_and_any_octet() {
    let (agent, _up) = cached();
    let label = "x".repeat(63);
    let longest = format!("{label}.{label}.{label}.{}.", "y".repeat(61));
    assert_eq!(name(&longest).len(), 255);
    let most_labels = "a.".repeat(127);
    for text in [&longest, &most_labels, "\\000\\255\\.\\032.bin.test.", "."] {
        let reply = agent.ask_a(text);
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1), "{text}");
        assert_eq!(reply.answers[0].name, reply.questions[0].name);
    }
}

#[test]
fn c001_names_beyond_the_limits_are_format_errors() {
    let (agent, up) = cached();
    let label = [&[63][..], &[b'x'; 63]].concat();
    let too_long = [&label[..], &label, &label, &label, &[0]].concat();
    let too_wide = [&[64][..], &[b'x'; 64], &[0]].concat();
    let extended = [&[0x81][..], &[b'x'; 4], &[0]].concat();
    for name in [too_long, too_wide, extended] {
        assert_eq!(rcode_of(&agent, &query_for(&name)), FORMERR, "{name:02x?}");
    }
    assert_eq!(up.all().len(), 0);
}

#[test]
fn c002_pointers_in_a_question_are_format_errors() {
    let (agent, up) = cached();
    // To itself, forward, outside of the message, and two that lead to each other.
    for name in [&[0xc0, 12][..], &[0xc0, 20], &[0xff, 0xff], &[1, b'a', 0xc0, 12]] {
        assert_eq!(rcode_of(&agent, &query_for(name)), FORMERR, "{name:02x?}");
    }
    assert_eq!(up.all().len(), 0);
}

#[test]
fn c002_looping_pointer_in_an_answer_ends_in_servfail() {
    let (agent, _up) = cached();
    let reply = agent.ask_a("pointer.c002.test.");
    assert_eq!((reply.rcode, reply.answers.len()), (SERVFAIL, 0));
}

#[test]
fn c003_counts_and_lengths_that_lie_are_format_errors() {
    let (agent, up) = cached();
    let good = Query::new("ttl300.c003.test.", A).edns(1232).bytes();
    let with = |at: usize, value: u16| {
        let mut bytes = good.clone();
        bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
        bytes
    };
    let rdlength = good.len() - 2;
    let cases = [
        good[..12].to_vec(),
        good[..20].to_vec(),
        good[..good.len() - 1].to_vec(),
        with(10, 65_535),
        with(rdlength, 9),
    ];
    for bytes in cases {
        assert_eq!(rcode_of(&agent, &bytes), FORMERR, "{bytes:02x?}");
    }
    assert_eq!(up.all().len(), 0);
}

#[test]
fn c003_broken_messages_do_no_harm() {
    let (agent, _up) = cached();
    let good = Query::new("ttl300.broken.test.", A).edns(1232).option(COOKIE, &[1; 8]).bytes();
    let client = agent.udp();
    // A fixed sequence (Knuth's multiplier), so that a failure can be repeated.
    let mut random = 1u64;
    let mut next = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    for number in 0..3_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + next() % 4 {
            let at = next() % bytes.len();
            bytes[at] = next() as u8;
        }
        bytes.truncate(1 + next() % bytes.len());
        client.send(&bytes);
        if number % 50 == 49 {
            // No more at once than a socket's buffer holds.
            agent.ask_a("ttl300.after.test.");
        }
    }
    assert_eq!(agent.ask_a("ttl300.after.test.").rcode, NOERROR);
    let mut stream = agent.tcp();
    // The server may hang up on what is no message; the rest then goes nowhere.
    let _hung_up = (0..40).any(|length| !stream.try_send(&good[..length]));
    assert_eq!(agent.ask_tcp(&Query::new("ttl300.after.test.", A)).rcode, NOERROR);
}

#[test]
fn c004_unknown_type_is_carried_untouched() {
    let (agent, up) = cached();
    for _ in 0..2 {
        let reply = agent.ask(&Query::new("ttl300.c004.test.", PRIVATE));
        assert_eq!(reply.answers[0].kind, PRIVATE);
        assert_eq!(reply.answers[0].data, answer::data(PRIVATE));
    }
    assert_eq!(up.count("ttl300.c004.test."), 1);
}

#[test]
fn c005_case_is_kept_and_ignored() {
    let (agent, up) = cached();
    for spelling in ["ttl300.c005.test.", "TTL300.C005.TEST.", "tTl300.c005.TeST."] {
        let reply = agent.ask_a(spelling);
        assert_eq!(reply.questions[0].name, spelling);
        assert_eq!(reply.answers.len(), 1);
    }
    assert_eq!(up.count("ttl300.c005.test."), 1);
}

#[test]
fn c006_other_than_one_question_is_a_format_error() {
    let (agent, up) = cached();
    for count in [0, 2, 3, 65_535] {
        let query = Query::new("ttl300.c006.test.", A).questions(count);
        assert_eq!(rcode_of(&agent, &query.bytes()), FORMERR, "QDCOUNT {count}");
    }
    assert_eq!(up.all().len(), 0);
}

#[test]
fn c007_reserved_bit_is_ignored_and_never_sent() {
    let (agent, up) = cached();
    let reply = agent.ask(&Query::new("ttl300.c007.test.", A).flag(Z, true));
    assert_eq!((reply.rcode, reply.flags & Z), (NOERROR, 0));
    assert_eq!(up.seen("ttl300.c007.test.")[0].message.flags & Z, 0);
}

#[test]
fn c008_unknown_opcodes_are_not_implemented() {
    let (agent, up) = cached();
    for opcode in 1..=15 {
        let query = Query::new("ttl300.c008.test.", A).opcode(opcode);
        assert_eq!(agent.ask(&query).rcode, NOTIMP, "opcode {opcode}");
        assert_eq!(rcode_of(&agent, &query.questions(0).bytes()[..12]), NOTIMP, "opcode {opcode}, header only");
    }
    assert_eq!(up.all().len(), 0);
}

#[test]
fn c009_notify_update_and_dso_are_not_implemented() {
    let (agent, up) = cached();
    for opcode in [4, 5, 6] {
        let query = Query::new("ttl300.c009.test.", SOA).opcode(opcode);
        assert_eq!(agent.ask(&query).rcode, NOTIMP, "opcode {opcode}");
        assert_eq!(agent.ask_tcp(&query).rcode, NOTIMP, "opcode {opcode} over TCP");
    }
    assert_eq!(up.all().len(), 0);
}

#[test]
fn c009_zone_transfers_are_refused() {
    let (agent, up) = cached();
    for kind in [AXFR, IXFR] {
        let query = Query::new("ttl300.c009.test.", kind);
        assert_eq!(agent.ask(&query).rcode, REFUSED, "type {kind}");
        assert_eq!(agent.ask_tcp(&query).rcode, REFUSED, "type {kind} over TCP");
    }
    assert_eq!(up.all().len(), 0);
}

#[test]
fn c010_responses_are_dropped() {
    let (agent, up) = cached();
    for query in [Query::new("ttl300.c010.test.", A), Query::new("ttl300.c010.test.", A).opcode(4)] {
        assert_eq!(agent.reply_to(&query.flag(QR, true).bytes()), None);
    }
    assert_eq!(agent.reply_to(&[0x80, 0x00, 0x80]), None, "no header at all");
    assert_eq!(up.all().len(), 0);
}

#[test]
fn c011_lowest_ttl_of_a_set_holds() {
    let (agent, _up) = cached();
    assert_eq!(agent.ask_a("two.c011.test.").ttls(), [20, 20]);
}

#[test]
fn c012_broken_chains_are_failures_and_not_kept() {
    let (agent, up) = cached();
    for label in ["cnameloop", "cnametwo"] {
        let name = format!("{label}.c012.test.");
        let reply = agent.ask_a(&name);
        assert_eq!((reply.rcode, reply.answers.len()), (SERVFAIL, 0), "{label}");
        up.change(&name, "ttl300");
        time::until("the repaired answer", || Some(agent.ask_a(&name)).filter(|reply| reply.answers.len() == 1));
    }
}

#[test]
fn c013_rcode_belongs_to_the_end_of_the_chain() {
    let (agent, up) = cached();
    for _ in 0..2 {
        let reply = agent.ask_a("cnamenx-2.c013.test.");
        assert_eq!((reply.rcode, reply.answers.len(), reply.authority.len()), (NXDOMAIN, 2, 1));
        let reply = agent.ask_a("cname-3.c013.test.");
        assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 4));
    }
    assert_eq!((up.count("cnamenx-2.c013.test."), up.count("cname-3.c013.test.")), (1, 1));
}

#[test]
fn c014_header_is_the_same_for_every_kind_of_answer() {
    let (agent, _up) = cached();
    for label in ["ttl300", "nx", "nodata", "empty", "servfail", "refused", "aa", "cname-1", "big-200", "nxnosoa"] {
        for _ in 0..2 {
            let name = format!("{label}.C014.test.");
            let (plain, edns) = (agent.ask_a(&name), agent.ask(&Query::new(&name, A).edns(4096)));
            assert!(plain.has(RA) && edns.has(RA), "{label}: recursion is available");
            let undesired = agent.ask(&Query::new(&name, A).flag(RD, false));
            assert!(undesired.has(RA), "{label} without RD");
        }
    }
}
