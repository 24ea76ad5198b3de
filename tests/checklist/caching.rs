//! Rules 40 to 47, 54, 56 and a part of 68: what is kept, and for how long.

use super::cached;
use crate::support::agent::Plan;
use crate::support::wire::*;
use crate::support::{Agent, Message, Query, Upstream, answer, time};

#[test]
fn c040_entry_ends_with_its_ttl() {
    let (agent, up) = Agent::beside_upstream("cache {\n success 9984 3600 0\n }\n forward . {once}");
    let name = "ttl2.c040.test.";
    assert_eq!(agent.ask_a(name).ttls(), [2]);
    assert_eq!(agent.ask_until_older(name, 2).ttls(), [1]);
    assert_eq!(up.count(name), 1);
    let after = time::until("the end of the entry", || {
        let reply = agent.ask_a(name);
        assert_ne!(reply.ttls(), [0], "an entry is unusable at zero");
        (up.count(name) == 2).then_some(reply)
    });
    assert_eq!(after.ttls(), [2]);
}

#[test]
fn c041_ttl_zero_is_never_stored_nor_stale() {
    let (agent, up) = Agent::beside_upstream("cache {\n serve_stale 1h\n }\n forward . {once}");
    let name = "ttl0.c041.test.";
    for asked in 1..=3 {
        assert_eq!(agent.ask_a(name).ttls(), [0]);
        assert_eq!(up.count(name), asked);
    }
    up.change(name, "servfail");
    assert_eq!(agent.ask_a(name).rcode, SERVFAIL);
}

#[test]
fn c042_huge_ttl_is_positive_and_capped() {
    let (agent, up) = cached();
    for ttl in [2_147_483_648u32, 4_294_967_295] {
        let name = format!("ttl{ttl}.c042.test.");
        for _ in 0..2 {
            let left = agent.ask_a(&name).ttls()[0];
            assert!((3590..=3600).contains(&left), "{left}");
        }
        assert_eq!(up.count(&name), 1);
    }
    let (agent, _up) = Agent::beside_upstream("cache 4000000\n forward . {once}");
    let left = agent.ask_a("ttl4294967295.c042.test.").ttls()[0];
    assert!((1..=604_800).contains(&left), "{left}");
}

#[test]
fn c043_negative_ttl_is_minimum() {
    let (agent, _up) = Agent::beside_upstream("cache {\n denial 9984 50 0\n }\n forward . {once}");
    for kind in ["nx", "nodata"] {
        for (ttl, minimum, kept) in [(60, 20, 20), (10, 60, 10), (300, 300, 50)] {
            let reply = agent.ask_a(&format!("{kind}-{ttl}-{minimum}.c043.test."));
            assert_eq!(reply.ttls(), [kept], "{kind} with SOA TTL {ttl}, MINIMUM {minimum}");
        }
    }
}

#[test]
fn c044_denial_without_soa_is_not_kept() {
    let (agent, up) = cached();
    for name in ["nxnosoa.c044.test.", "empty.c044.test."] {
        for asked in 1..=3 {
            agent.ask_a(name);
            assert_eq!(up.count(name), asked, "{name}");
        }
    }
}

#[test]
fn c045_cached_denial_carries_its_soa() {
    let (agent, up) = cached();
    for name in ["nx-60-10.c045.test.", "nodata-60-10.c045.test."] {
        agent.ask_a(name);
        let later = agent.ask_until_older(name, 10);
        assert_eq!((later.authority.len(), later.authority[0].kind, later.authority[0].ttl), (1, SOA, 9), "{name}");
        assert_eq!(later.authority[0].data, soa(10));
        assert_eq!(up.count(name), 1);
    }
}

#[test]
fn c046_nodata_is_for_one_type() {
    let (agent, up) = cached();
    let name = "nodata.c046.test.";
    assert_eq!(agent.ask_a(name).answers, []);
    up.change(name, "ttl300");
    assert_eq!(agent.ask(&Query::new(name, AAAA)).answers.len(), 1);
    assert_eq!(agent.ask_a(name).answers, []);
    assert_eq!(up.count(name), 2);
}

#[test]
fn c046_nxdomain_is_for_every_type() {
    let (agent, up) = cached();
    let name = "nx-60-60.c046.test.";
    for kind in [A, AAAA, TXT] {
        assert_eq!(agent.ask(&Query::new(name, kind)).rcode, NXDOMAIN, "type {kind}");
    }
    assert_eq!(up.count(name), 1);
}

#[test]
fn c047_truncated_answer_is_not_kept() {
    let (agent, up) = cached();
    let name = "tcboth.c047.test.";
    agent.ask_a(name);
    let asked = up.count(name);
    agent.ask_a(name);
    assert!(up.count(name) > asked);
}

#[test]
fn c056_answers_are_not_mixed() {
    let (agent, up) = cached();
    let name = "ttl300.c056.test.";
    agent.ask_a(name);
    up.change(name, "cname-1");
    let aliased = agent.ask(&Query::new(name, AAAA));
    let kinds: Vec<u16> = aliased.answers.iter().map(|record| record.kind).collect();
    assert_eq!(kinds, [CNAME, AAAA]);
    let plain = agent.ask_a(name);
    assert_eq!((plain.answers.len(), plain.answers[0].data.clone()), (1, answer::data(A)));
    // The end of the chain is a name of its own.
    up.change("link1.test.", "ttl77");
    assert_eq!(agent.ask(&Query::new("link1.test.", AAAA)).ttls(), [77]);
}

#[test]
fn c068_answer_that_is_late_for_every_client_is_kept_for_the_next() {
    let (agent, up) = Agent::beside_upstream("cache\n forward . {up}");
    let name = "late.c068.test.";
    assert_eq!(agent.ask_a(name).rcode, SERVFAIL, "nothing within a client's patience");
    let asked = up.count(name);
    // Whoever asks again waits for the answer to what was sent, once the failure is forgotten.
    let reply = time::until("the late answer", || Some(agent.ask_a(name)).filter(|reply| reply.rcode == NOERROR));
    assert_eq!(reply.answers[0].data, answer::data(A));
    assert_eq!(up.count(name), asked, "nothing more was sent");
}

#[test]
fn c054_a_denial_says_nothing_of_names_beneath_unless_told_so() {
    let (agent, up) = cached();
    let (above, beneath) = ("nx-60-60.c054.test.", "ttl300.nx-60-60.c054.test.");
    assert_eq!(agent.ask_a(above).rcode, NXDOMAIN);
    let reply = agent.ask_a(beneath);
    assert_eq!((reply.rcode, reply.answers.len(), up.count(beneath)), (NOERROR, 1, 1));
}

#[test]
fn c054_denial_cut_is_for_its_zones() {
    let (agent, up) = Agent::beside_upstream("cache {\n denial_cut cut.c054.test\n }\n forward . {once}");
    for (zone, rcode, asked) in [("cut.c054.test.", NXDOMAIN, 0), ("whole.c054.test.", NOERROR, 1)] {
        let (above, beneath) = (format!("nx-60-60.{zone}"), format!("ttl300.a.nx-60-60.{zone}"));
        assert_eq!(agent.ask_a(&above).rcode, NXDOMAIN);
        let reply = agent.ask(&Query::new(&beneath, A).edns(1232));
        assert_eq!((reply.rcode, up.count(&beneath)), (rcode, asked), "{beneath}");
        assert_eq!(reply.errors().contains(&29), asked == 0, "{beneath}");
    }
    assert_eq!(agent.metric("dnslet_denial_cuts_total", &[]), 1.0);
    // The zone itself does not cut.
    up.change("cut.c054.test.", "nx-60-60");
    assert_eq!(agent.ask_a("cut.c054.test.").rcode, NXDOMAIN);
    assert_eq!(agent.ask_a("ttl300.cut.c054.test.").rcode, NOERROR);
}

#[test]
fn c054_denial_with_its_proof_denies_beneath_for_those_with_do() {
    let (agent, up) = Agent::beside_upstream("cache {\n denial_cut c054.test\n }\n forward . {once}");
    let with_do = |name: &str| agent.ask(&Query::new(name, A).dnssec_ok());
    let above = with_do("signednx.c054.test.");
    let beneath = with_do("www.signednx.c054.test.");
    let kinds =
        |reply: &Message| reply.authority.iter().map(|record| (record.name.clone(), record.kind)).collect::<Vec<_>>();
    assert_eq!(beneath.rcode, NXDOMAIN);
    assert_eq!(kinds(&beneath), kinds(&above));
    assert!(kinds(&beneath).iter().any(|(_, kind)| *kind == NSEC), "{beneath:?}");
    assert_eq!(up.count("www.signednx.c054.test."), 0);
    // What was kept for them is not for others.
    agent.ask_a("www.signednx.c054.test.");
    assert_eq!(up.count("www.signednx.c054.test."), 1);
}

#[test]
fn c054_denial_never_crosses_into_a_more_specific_block() {
    let (outer, inner) = (Upstream::start(), Upstream::start());
    let block = |plan: &Plan, zone: &str, up: &Upstream| {
        plan.block(zone, &format!("cache {{\n denial_cut cluster.test\n }}\n forward . {}", up.address()))
    };
    let plan = Agent::plan();
    let text = block(&plan, "cluster.test", &outer) + &block(&plan, "x.com.default.svc.cluster.test", &inner);
    let agent = plan.corefile(&text).start();
    outer.change("com.default.svc.cluster.test.", "nx-60-60");
    inner.change("x.com.default.svc.cluster.test.", "ttl300");
    assert_eq!(agent.ask_a("com.default.svc.cluster.test.").rcode, NXDOMAIN);
    for name in ["x.com.default.svc.cluster.test.", "ttl300.x.com.default.svc.cluster.test."] {
        assert_eq!((agent.ask_a(name).rcode, inner.count(name)), (NOERROR, 1), "{name}");
    }
    let beside = "ttl300.y.com.default.svc.cluster.test.";
    assert_eq!((agent.ask_a(beside).rcode, outer.count(beside)), (NXDOMAIN, 0));
}

#[test]
fn c054_denial_never_crosses_a_forward_line() {
    let (up, other) = (Upstream::start(), Upstream::start());
    let plan = Agent::plan();
    let lines = format!(
        "cache {{\n denial_cut c054.test\n }}\n forward own.nx-60-60.c054.test {}\n forward . {} {{\n except not.nx-60-60.c054.test\n }}",
        other.address(),
        up.address()
    );
    let agent = plan.root(&lines).start();
    assert_eq!(agent.ask_a("nx-60-60.c054.test.").rcode, NXDOMAIN);
    assert_eq!(agent.ask_a("ttl300.nx-60-60.c054.test.").rcode, NXDOMAIN);
    assert_eq!(agent.ask_a("ttl300.own.nx-60-60.c054.test.").rcode, NOERROR);
    assert_eq!(other.count("ttl300.own.nx-60-60.c054.test."), 1);
    assert_eq!(agent.ask_a("ttl300.not.nx-60-60.c054.test.").rcode, SERVFAIL, "no line asks for it");
}
