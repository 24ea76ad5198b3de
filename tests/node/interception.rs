//! Queries to the cache's addresses reach the agent and leave no entry in connection tracking.

use std::time::Duration;

use super::lab::agent::{who_answers, who_answers_tcp};
use super::lab::{self, KubeProxy, Lab, Load, NODE, POD1, POD2, Start, Who, kernel, listening};

const TEST: &str = "node::interception";
/// Queries over UDP and over TCP of each client to each address.
const QUERIES: [u64; 2] = [20, 5];

#[test]
fn queries_leave_no_entry_beside_an_nftables_kube_proxy() {
    if lab::entered(&format!("{TEST}::queries_leave_no_entry_beside_an_nftables_kube_proxy")) {
        queries_leave_no_entry(KubeProxy::Nftables, "nftables");
    }
}

#[test]
fn queries_leave_no_entry_beside_an_iptables_kube_proxy() {
    if lab::entered(&format!("{TEST}::queries_leave_no_entry_beside_an_iptables_kube_proxy")) {
        queries_leave_no_entry(KubeProxy::Iptables, "nftables");
    }
}

#[test]
fn iptables_rules_leave_no_entry_beside_an_iptables_kube_proxy() {
    if lab::entered(&format!("{TEST}::iptables_rules_leave_no_entry_beside_an_iptables_kube_proxy")) {
        queries_leave_no_entry(KubeProxy::Iptables, "iptables");
    }
}

fn queries_leave_no_entry(style: KubeProxy, rules: &str) {
    let _lab = Lab::new(style);
    let agent = Start::new().flag("-rules", rules).start();
    for server in listening() {
        for from in [POD1, POD2, NODE] {
            let before = kernel::counted(rules, server.ip());
            for _ in 0..QUERIES[0] {
                assert_eq!(who_answers(from, server), Some(Who::Agent), "{from:?} asks {server}");
            }
            for _ in 0..QUERIES[1] {
                assert_eq!(who_answers_tcp(from, server), Some(Who::Agent), "{from:?} asks {server} over TCP");
            }
            let counted = kernel::counted(rules, server.ip()) - before;
            println!(
                "{style:?}, {from:?} to {server}: {QUERIES:?} queries over UDP and TCP, {counted} packets counted"
            );
            assert!(counted >= QUERIES.iter().sum(), "{counted} packets counted");
        }
    }
    for from in [POD1, NODE] {
        let load = Load::heavy(from, &listening()).send_for(Duration::from_secs(1));
        println!("{from:?}: {load}");
        assert!(load.lost().is_empty() && !load.answers().contains_key(&Who::Cluster), "{load}");
    }
    let tracked = kernel::tracked(&listening());
    println!("{style:?}, {rules}: {} entries in connection tracking", tracked.len());
    assert!(tracked.is_empty(), "{tracked:#?}");
    drop(agent);
}
