//! Rules 48 to 53: DO, CD, AD and what belongs to one leg only.

use super::cached;
use crate::support::wire::*;
use crate::support::{Agent, Query};

fn kinds(agent: &Agent, query: &Query) -> Vec<u16> {
    agent.ask(query).answers.iter().map(|record| record.kind).collect()
}

#[test]
fn c048_checking_disabled_is_kept_apart() {
    let (agent, up) = cached();
    let (checked, unchecked) =
        (Query::new("servfail.c048.test.", A), Query::new("servfail.c048.test.", A).flag(CD, true));
    assert_eq!(agent.ask(&checked).rcode, SERVFAIL);
    up.change("servfail.c048.test.", "ttl300");
    assert_eq!(agent.ask(&unchecked).rcode, NOERROR, "a failure under CD=0 is not for a CD=1 client");
    let (checked, unchecked) = (Query::new("ttl300.c048.test.", A), Query::new("ttl300.c048.test.", A).flag(CD, true));
    assert_eq!(agent.ask(&unchecked).rcode, NOERROR);
    up.change("ttl300.c048.test.", "servfail");
    assert_eq!(agent.ask(&checked).rcode, SERVFAIL, "what CD=1 obtained is not for a CD=0 client");
}

#[test]
fn c049_dnssec_records_only_for_those_who_ask() {
    let (agent, _up) = cached();
    for label in ["signed", "oversigned"] {
        for order in [[true, false], [false, true], [true, true], [false, false]] {
            let name = format!("{label}.{}{}.c049.test.", order[0], order[1]);
            for wants in order {
                let query = Query::new(&name, A).edns(1232).edns_flags(if wants { 0x8000 } else { 0 });
                let expected = if wants { vec![A, RRSIG] } else { vec![A] };
                assert_eq!(kinds(&agent, &query), expected, "{name} DO={wants}");
            }
            assert_eq!(kinds(&agent, &Query::new(&name, A)), [A], "without EDNS");
        }
    }
    assert_eq!(kinds(&agent, &Query::new("ttl300.c049.test.", RRSIG)), [RRSIG], "asked for by type");
}

#[test]
fn c045_denial_with_proof_only_for_those_who_ask() {
    let (agent, up) = cached();
    for _ in 0..2 {
        let proven = agent.ask(&Query::new("signednx.c045.test.", A).dnssec_ok());
        let kinds: Vec<u16> = proven.authority.iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [SOA, RRSIG, NSEC, RRSIG]);
        let plain = agent.ask_a("signednx.c045.test.");
        assert_eq!((plain.rcode, plain.authority.len()), (NXDOMAIN, 1));
    }
    assert!(up.count("signednx.c045.test.") <= 2);
}

#[test]
fn c050_authentic_data_for_those_who_can_use_it() {
    let (agent, _up) = cached();
    let name = "ad.c050.test.";
    let plain = || Query::new(name, A);
    for _ in 0..2 {
        assert!(!agent.ask(&plain()).has(AD), "neither AD nor DO");
        assert!(agent.ask(&plain().flag(AD, true)).has(AD), "AD");
        assert!(agent.ask(&plain().dnssec_ok()).has(AD), "DO");
        assert!(!agent.ask(&plain().edns(1232)).has(AD), "EDNS alone");
    }
    assert!(!agent.ask(&Query::new("ttl300.c050.test.", A).flag(AD, true)).has(AD), "the upstream did not set it");
}

#[test]
fn c051_checking_disabled_is_copied_to_both_sides() {
    let (agent, up) = cached();
    for on in [true, false] {
        let name = format!("ttl300.{on}.c051.test.");
        for _ in 0..2 {
            assert_eq!(agent.ask(&Query::new(&name, A).flag(CD, on)).has(CD), on);
        }
        assert_eq!(up.seen(&name)[0].message.has(CD), on);
    }
}

#[test]
fn c052_opt_is_made_anew_for_each_side() {
    let (agent, up) = cached();
    let name = "options.c052.test.";
    // `ask` checks that OPT is there exactly for those who sent one.
    assert_eq!(agent.ask(&Query::new(name, A).edns(1232)).options(), Vec::<u16>::new());
    agent.ask_a(name);
    assert_eq!(agent.ask(&Query::new(name, A).edns(1400).option(NSID, &[])).options(), Vec::<u16>::new());
    agent.ask_a("ttl300.c052.test.");
    agent.ask(&Query::new("ttl300.c052.test.", A).edns(4096));
    assert_eq!((up.count(name), up.count("ttl300.c052.test.")), (1, 1));
}

#[test]
fn c053_client_subnet_is_removed() {
    let (agent, up) = cached();
    let subnet = [0, 1, 24, 0, 198, 51, 100];
    let reply = agent.ask(&Query::new("ttl300.c053.test.", A).edns(1232).option(ECS, &subnet));
    assert_eq!((reply.answers.len(), reply.options()), (1, vec![]));
    agent.ask(&Query::new("ttl300.c053.test.", A).edns(1232).option(ECS, &[0, 1, 24, 0, 203, 0, 113]));
    let seen = up.seen("ttl300.c053.test.");
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].message.options().contains(&ECS));
}
