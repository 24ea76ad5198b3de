//! Rules 130 to 142: the questions of RFC 8906 section 8, asked with RD=1.

use super::cached;
use crate::support::wire::*;
use crate::support::{Message, Query, time};

/// Asks over UDP, beside an upstream that knows the name; `ask` checks header and OPT of every reply.
fn ask(query: &Query) -> Message {
    let (agent, _up) = cached();
    agent.ask(query)
}

fn soa_query() -> Query {
    Query::new("ttl300.odd.test.", SOA)
}

#[test]
fn c130_plain_soa() {
    let reply = ask(&soa_query());
    assert_eq!((reply.rcode, reply.answers[0].kind), (NOERROR, SOA));
    assert!(reply.has(QR | RD | RA));
}

#[test]
fn c131_unknown_type() {
    let reply = ask(&Query::new("nodata.odd.test.", 1000));
    assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 0));
}

#[test]
fn c132_header_bits() {
    for (bits, on) in [(CD, true), (AD, true), (Z, true), (RD, true), (RD, false)] {
        let reply = ask(&soa_query().flag(bits, on));
        assert_eq!(reply.flags & CD != 0, bits == CD, "CD is copied");
        assert_eq!(reply.flags & (Z | AD), 0);
        assert_eq!(reply.rcode, NOERROR, "{bits:#06x} {on}");
    }
}

#[test]
fn c133_unknown_opcode_header_only() {
    let (agent, _up) = cached();
    let bytes = Query::new(".", A).opcode(15).flag(RD, false).questions(0).bytes();
    let client = agent.udp();
    client.send(&bytes[..12]);
    let raw = client.receive(time::PATIENCE).expect("a reply");
    assert_eq!((raw.len(), raw[3] & 0xf), (12, NOTIMP as u8));
}

#[test]
fn c134_over_tcp() {
    let (agent, _up) = cached();
    assert_eq!(agent.ask_tcp(&soa_query()).answers[0].kind, SOA);
}

#[test]
fn c135_minimal_edns() {
    let reply = ask(&soa_query().edns(512));
    assert_eq!((reply.rcode, reply.answers[0].kind), (NOERROR, SOA));
}

#[test]
fn c136_edns_version_one() {
    let reply = ask(&soa_query().edns(512).version(1));
    assert_eq!((reply.rcode, reply.answers.len()), (BADVERS, 0));
}

#[test]
fn c137_unknown_option() {
    let reply = ask(&soa_query().edns(512).option(100, &[]));
    assert_eq!((reply.rcode, reply.answers.len(), reply.options()), (NOERROR, 1, vec![]));
}

#[test]
fn c138_unknown_flag() {
    let reply = ask(&soa_query().edns(512).edns_flags(0x40));
    assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
}

#[test]
fn c139_edns_version_one_with_flag_or_option() {
    for query in [soa_query().edns(512).version(1).edns_flags(0x40), soa_query().edns(512).version(1).option(100, &[])]
    {
        let reply = ask(&query);
        assert_eq!((reply.rcode, reply.answers.len(), reply.options()), (BADVERS, 0, vec![]));
    }
}

#[test]
fn c140_small_buffer_with_dnssec_ok() {
    let reply = ask(&Query::new("big-60.odd.test.", A).edns(512).edns_flags(0x8000));
    assert!(reply.truncated() && reply.opt.is_some());
}

#[test]
fn c141_dnssec_ok() {
    let reply = ask(&soa_query().dnssec_ok());
    assert!(reply.rcode == NOERROR && reply.dnssec_ok());
    assert_eq!(ask(&soa_query().dnssec_ok().version(1)).rcode, BADVERS);
}

#[test]
fn c142_many_options() {
    let options = [(NSID, &[][..]), (COOKIE, &[7; 8]), (EXPIRE, &[]), (ECS, &[0, 1, 0, 0])];
    let query = options.iter().fold(soa_query().edns(512), |query, (code, data)| query.option(*code, data));
    let reply = ask(&query);
    assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, 1));
    assert!(!reply.options().contains(&EXPIRE) && !reply.options().contains(&ECS), "{:?}", reply.options());
}
