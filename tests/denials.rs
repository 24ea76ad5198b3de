//! What `denial_cut` saves beside a server that means what it denies, and that it hides nothing for long beside one that
//! denies names which only have names beneath them.

use crate::support::address::Address;
use crate::support::dig::dig;
use crate::support::wire::*;
use crate::support::{Agent, Query, Upstream, peers};

fn lines(zone: &str) -> String {
    format!("cache {{\n denial 20000 60\n denial_cut {zone}\n }}")
}

/// How many queries the agent has sent.
fn sent(agent: &Agent) -> f64 {
    agent.metric("coredns_proxy_request_duration_seconds_count", &[("proxy_name", "forward")])
}

#[test]
fn a_thousand_names_under_one_that_does_not_exist_cost_a_server_one_query() {
    let nsd = Address::fresh();
    let _cluster = peers::cluster(nsd.dns());
    for name in ["svc.cluster.local", "shop.svc.cluster.local"] {
        assert!(dig(nsd.dns(), &[name]).contains("NOERROR"), "nsd knows what an empty non-terminal is");
    }
    let agent = Agent::root(&format!("{}\n forward . {}", lines("cluster.local"), nsd.dns()));
    assert_eq!(agent.ask_a("com.shop.svc.cluster.local.").rcode, NXDOMAIN);
    assert_eq!(sent(&agent), 1.0);
    for number in 0..1000 {
        let reply = agent.ask(&Query::new(&format!("www.n{number}.com.shop.svc.cluster.local."), A).edns(1232));
        assert_eq!((reply.rcode, reply.authority.len(), reply.errors()), (NXDOMAIN, 1, vec![29]));
    }
    assert_eq!(sent(&agent), 1.0);
    assert_eq!(agent.metric("coredns_cache_entries", &[("type", "denial")]), 1.0, "made-up names fill no cache");
    assert_eq!(agent.metric("dnslet_denial_cuts_total", &[]), 1000.0);
    assert_eq!(agent.ask_a("web.shop.svc.cluster.local.").answers.len(), 1);
    assert_eq!(agent.metric("dnslet_denial_cuts_refused_total", &[]), 0.0);
}

/// The scripted upstream answers by the first label, so that `nx-60-60` does not exist and `ttl300.nx-60-60` does.
#[test]
fn what_was_seen_to_exist_is_not_denied_by_a_server_that_denies_names_above() {
    let up = Upstream::start();
    let agent = Agent::root(&format!("{}\n forward . {}", lines("cluster.test"), up.address()));
    let names: Vec<String> = (0..200).map(|number| format!("ttl300.n{number}.nx-60-60.svc.cluster.test.")).collect();
    names.iter().for_each(|name| assert_eq!(agent.ask_a(name).rcode, NOERROR));
    up.change("svc.cluster.test.", "nx-60-60");
    for above in ["nx-60-60.svc.cluster.test.", "svc.cluster.test."] {
        assert_eq!(agent.ask_a(above).rcode, NXDOMAIN);
    }
    for name in &names {
        for (kind, answers) in [(A, 1), (AAAA, 1), (TXT, 1)] {
            let reply = agent.ask(&Query::new(name, kind));
            assert_eq!((reply.rcode, reply.answers.len()), (NOERROR, answers), "{name} type {kind}");
        }
    }
    // Names that nobody has asked for are under the same denial, and under no other.
    assert_eq!(agent.ask_a("ttl300.unseen.nx-60-60.svc.cluster.test.").rcode, NOERROR);
    assert_eq!(agent.metric("dnslet_denial_cuts_total", &[]), 0.0);
    assert!(agent.metric("dnslet_denial_cuts_refused_total", &[]) >= 400.0);
}

#[test]
fn one_answer_ends_what_a_wrong_denial_hides() {
    let up = Upstream::start();
    let agent = Agent::root(&format!("{}\n forward . {}", lines("cluster.test"), up.address()));
    let (above, hidden, seen) = (
        "nx-60-60.svc.cluster.test.",
        "ttl300.hidden.nx-60-60.svc.cluster.test.",
        "ttl300.seen.nx-60-60.svc.cluster.test.",
    );
    assert_eq!(agent.ask_a(above).rcode, NXDOMAIN);
    assert_eq!(agent.ask_a(hidden).rcode, NXDOMAIN);
    // With other flags the denial is another one, so that the server is asked.
    assert_eq!(agent.ask(&Query::new(seen, A).dnssec_ok()).rcode, NOERROR);
    assert_eq!(agent.ask_a(hidden).rcode, NOERROR);
    assert_eq!(agent.ask_a(above).rcode, NXDOMAIN, "the name itself was denied, and that is kept");
}
