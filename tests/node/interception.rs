//! Queries to the cache's addresses reach the agent and leave no entry in connection tracking.

use std::time::Duration;

use nix::sys::signal::Signal;

use super::lab::agent::{who_answers, who_answers_tcp};
use super::lab::{self, KubeProxy, Lab, Load, NODE, POD1, POD2, SERVICE, Start, Who, dns, kernel, listening};
use crate::support::time;

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

#[test]
fn a_reload_that_drops_an_address_loses_no_query() {
    if !lab::entered(&format!("{TEST}::a_reload_that_drops_an_address_loses_no_query")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let mut agent = Start::new().start();
    let dropped = dns(SERVICE[0]);
    let sending = Load::heavy(POD1, &[dropped]).start();
    agent.edit(&format!(" {}", SERVICE[0]), "");
    agent.strike(agent.keeper(), Signal::SIGHUP);
    agent.wait_for_log("Reloading complete");
    time::until("the cluster's DNS to answer", || (who_answers(POD1, dropped) == Some(Who::Cluster)).then_some(()));
    let report = sending.stop();
    println!("{dropped} dropped by a reload: {report}");
    assert!(report.lost().is_empty() && report.answers().contains_key(&Who::Agent), "{report}");
    assert_eq!(kernel::intercepted().len(), 3);
}
