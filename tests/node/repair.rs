//! What others take away from under a running agent comes back within a second, and clients hardly notice.

use std::time::Duration;

use super::lab::{self, KubeProxy, LINK_LOCAL, Lab, Load, NODE, POD1, SERVICE, Start, Who, dns, kernel, listening};
use crate::support::time;

const TEST: &str = "node::repair";
const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_deleted_address_comes_back() {
    if !lab::entered_alone(&format!("{TEST}::a_deleted_address_comes_back")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let mut agent = Start::new().start();
    for address in [LINK_LOCAL, SERVICE].concat() {
        let server = dns(address);
        let sending = Load::pinned(POD1, &[server]).start();
        time::pass(Duration::from_millis(200));
        let link = kernel::link_of(server.ip()).expect("the agent placed its address");
        let full = if server.is_ipv4() { format!("{address}/32") } else { format!("{address}/128") };
        NODE.ip(&format!("address delete {full} dev {link}"));
        let deleted = time::now();
        time::until("the address", || kernel::link_of(server.ip()));
        let repaired = deleted.elapsed();
        agent.wait_until_intercepting(&[server]);
        time::pass(Duration::from_millis(200));
        let report = sending.stop();
        println!("{address} deleted from {link}: back after {repaired:?}; {report}");
        assert!(repaired <= SOON, "{repaired:?}");
        assert!(report.longest_gap() <= SOON, "{report}");
    }
    let added = agent.metric("dnslet_node_actions_total", &[("action", "address_added")]);
    assert!(added >= 8.0, "four at the start and four since, said the metric: {added}");
}

#[test]
fn a_foreign_flush_spares_the_intercept_and_the_base_comes_back() {
    if !lab::entered_alone(&format!("{TEST}::a_foreign_flush_spares_the_intercept_and_the_base_comes_back")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let mut agent = Start::new().start();
    let before = kernel::rules();
    let sending = Load::heavy(POD1, &listening()).start();
    for round in 1..=5 {
        time::pass(Duration::from_millis(200));
        NODE.command("nft flush ruleset");
        let flushed = time::now();
        assert_eq!(kernel::intercepted().len(), 4, "the table that belongs to the keeper is not for others to flush");
        KubeProxy::Nftables.place(NODE);
        time::until("the base", || (kernel::rules() == before).then_some(()));
        let repaired = flushed.elapsed();
        println!("flush {round}: all {before} rules back after {repaired:?}");
        assert!(repaired <= SOON, "{repaired:?}");
    }
    let report = sending.stop();
    agent.check_alive();
    println!("under five flushes: {report}");
    assert!(report.lost().is_empty() && !report.answers().contains_key(&Who::Cluster), "{report}");
}

#[test]
fn a_deleted_base_comes_back_and_the_intercept_cannot_be_deleted() {
    if !lab::entered(&format!("{TEST}::a_deleted_base_comes_back_and_the_intercept_cannot_be_deleted")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    let _agent = Start::new().start();
    let before = kernel::rules();
    NODE.command("nft delete table inet dnslet");
    let deleted = time::now();
    time::until("the base", || (kernel::rules() == before).then_some(()));
    assert!(deleted.elapsed() <= SOON, "{:?}", deleted.elapsed());
    let table = kernel::intercepts().pop().expect("the keeper's table");
    let refused = NODE.refused(&format!("nft delete {table}"));
    assert!(refused.contains("Operation not permitted"), "{refused}");
}
