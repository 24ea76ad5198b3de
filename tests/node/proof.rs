//! The lab proves itself: without an agent, on plain set-ups, its instruments show what is there.

use std::time::Duration;

use super::lab::agent::{who_answers, who_answers_tcp};
use super::lab::{self, KubeProxy, Lab, Load, NAME, NODE, POD1, POD2, SERVICE, Who, dns, endpoints, kernel};
use crate::support::client::Tcp;
use crate::support::wire::A;
use crate::support::{Query, time};

#[test]
fn nftables_kube_proxy_spreads_flows_and_each_leaves_an_entry() {
    if lab::entered("node::proof::nftables_kube_proxy_spreads_flows_and_each_leaves_an_entry") {
        flows_leave_entries(KubeProxy::Nftables);
    }
}

#[test]
fn iptables_kube_proxy_spreads_flows_and_each_leaves_an_entry() {
    if lab::entered("node::proof::iptables_kube_proxy_spreads_flows_and_each_leaves_an_entry") {
        flows_leave_entries(KubeProxy::Iptables);
    }
}

/// What the agent is to prevent can be seen here: an entry for each flow.
fn flows_leave_entries(style: KubeProxy) {
    let _lab = Lab::new(style);
    let servers = SERVICE.map(dns);
    for from in [POD1, POD2, NODE] {
        kernel::forget_flows();
        for server in servers {
            (0..20).for_each(|_| assert_eq!(who_answers(from, server), Some(Who::Cluster), "{from:?} {server}"));
            from.run(|| Tcp::to(server).send(&Query::new(NAME, A).bytes()));
        }
        let entries = kernel::tracked(&servers);
        println!("{style:?}, {from:?}: {} entries for 42 flows", entries.len());
        // A port may come twice, and two queries be one flow.
        assert!((38..=42).contains(&entries.len()), "{entries:#?}");
        for endpoint in endpoints() {
            let there = entries.iter().filter(|entry| entry.contains(&format!("src={} ", endpoint.ip()))).count();
            assert!(there > 0, "no flow went to {endpoint}: {entries:#?}");
        }
    }
}

#[test]
fn the_load_sees_what_is_lost_and_how_long_nobody_answers() {
    if !lab::entered_alone("node::proof::the_load_sees_what_is_lost_and_how_long_nobody_answers") {
        return;
    }
    let lab = Lab::new(KubeProxy::Nftables);
    let servers = SERVICE.map(dns);
    let calm = Load::heavy(POD1, &servers).send_for(Duration::from_secs(1));
    println!("nothing wrong: {calm}");
    assert!(calm.lost().is_empty(), "{calm}");
    assert!(calm.longest_gap() < Duration::from_millis(100), "{calm}");
    assert_eq!(calm.answers().keys().collect::<Vec<_>>(), [&Who::Cluster], "{calm}");
    assert!((4500..=5100).contains(&calm.records.len()), "{calm}");

    POD1.nft(
        "add table inet fault\nadd chain inet fault in { type filter hook input priority 0; }\n\
              add rule inet fault in udp sport 53 numgen inc mod 100 == 0 counter drop\n",
    );
    let lossy = Load::heavy(POD1, &servers).send_for(Duration::from_secs(1));
    let dropped = kernel::ruleset(POD1);
    let dropped: usize = dropped
        .split_once("counter packets ")
        .and_then(|(_, rest)| rest.split(' ').next())
        .and_then(|count| count.parse().ok())
        .expect("a counter");
    println!("{dropped} answers dropped: {lossy}");
    assert!(dropped > 40, "{dropped}");
    assert_eq!(lossy.lost().len(), dropped, "{lossy}");
    POD1.nft("delete table inet fault");

    let sending = Load::heavy(POD1, &servers).start();
    time::pass(Duration::from_millis(200));
    [&lab.dns1, &lab.dns2].iter().for_each(|server| server.signal(nix::sys::signal::Signal::SIGSTOP));
    time::pass(Duration::from_millis(300));
    [&lab.dns1, &lab.dns2].iter().for_each(|server| server.signal(nix::sys::signal::Signal::SIGCONT));
    time::pass(Duration::from_millis(200));
    let paused = sending.stop();
    println!("servers stopped for 300 ms: {paused}");
    assert!((280..600).contains(&paused.longest_gap().as_millis()), "{paused}");
}

#[test]
fn a_service_address_on_the_node_itself_is_translated_for_pods_and_the_host() {
    if !lab::entered("node::proof::a_service_address_on_the_node_itself_is_translated_for_pods_and_the_host") {
        return;
    }
    let _lab = Lab::new(KubeProxy::Iptables);
    for address in SERVICE {
        NODE.ip(&format!("address add {address} dev lo{}", if address.contains(':') { " nodad" } else { "" }));
        for from in [POD1, NODE] {
            assert_eq!(who_answers(from, dns(address)), Some(Who::Cluster), "{from:?} asks {address}");
            assert_eq!(who_answers_tcp(from, dns(address)), Some(Who::Cluster), "{from:?} asks {address} over TCP");
        }
    }
}
