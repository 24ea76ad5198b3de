//! What an operator meets on a node that is not as it should be: one clear message, and service where it can be.

use std::net::UdpSocket;
use std::time::Duration;

use super::lab::agent::who_answers;
use super::lab::{self, KubeProxy, LINK_LOCAL, Lab, NODE, POD1, Running, SERVICE, Start, Who, dns, kernel};
use crate::support::time;

const TEST: &str = "node::bad_input";

/// Lines of the log that hold the text.
fn lines(agent: &Running, text: &str) -> Vec<String> {
    agent.log().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

/// Puts these addresses on the loopback interface, as an operator would.
fn place(addresses: &[&str]) {
    for address in addresses {
        NODE.ip(&format!("address add {address} dev lo{}", if address.contains(':') { " nodad" } else { "" }));
    }
}

#[test]
fn without_net_admin_it_serves_without_rules() {
    if !lab::entered(&format!("{TEST}::without_net_admin_it_serves_without_rules")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    place(&[LINK_LOCAL, SERVICE].concat());
    let drop_it = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    for rules in ["auto", "nftables"] {
        let mut agent = Start::new().under(&drop_it).flag("-rules", rules).launch();
        agent.wait_for_log("CAP_NET_ADMIN");
        for address in LINK_LOCAL {
            agent.wait_until_intercepting(&[dns(address)]);
        }
        assert_eq!(who_answers(POD1, dns(SERVICE[0])), Some(Who::Cluster), "without rules kube-proxy is asked");
        let said = lines(&agent, "CAP_NET_ADMIN");
        println!("-rules={rules}: {said:#?}");
        assert!(kernel::intercepts().is_empty());
        assert!(said.len() <= 2, "said once for the interface and once for the rules: {said:#?}");
    }
}

#[test]
fn without_ipv6_the_other_family_is_served() {
    if !lab::entered(&format!("{TEST}::without_ipv6_the_other_family_is_served")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    NODE.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
    let mut agent = Start::new().launch();
    for address in [LINK_LOCAL[0], SERVICE[0]] {
        agent.wait_until_intercepting(&[dns(address)]);
    }
    agent.wait_for_log("IPv6");
    println!("{:#?}", lines(&agent, "IPv6"));
    assert_eq!(kernel::intercepted().iter().filter(|address| address.is_ipv6()).count(), 0);
}

#[test]
fn a_foreign_link_of_that_name_is_left_alone() {
    if !lab::entered(&format!("{TEST}::a_foreign_link_of_that_name_is_left_alone")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    place(&SERVICE);
    NODE.ip("link add nodelocaldns type bridge");
    let before = NODE.ip("-details address show dev nodelocaldns");
    let mut agent = Start::new().launch();
    agent.wait_until_intercepting(&SERVICE.map(dns));
    agent.wait_for_log("nodelocaldns");
    let said = lines(&agent, "nodelocaldns");
    println!("{said:#?}");
    assert_eq!(said.len(), 1, "said once: {said:#?}");
    assert_eq!(NODE.ip("-details address show dev nodelocaldns"), before);
    assert!(kernel::intercepted().iter().all(|address| SERVICE.contains(&address.to_string().as_str())));
}

#[test]
fn an_address_whose_port_is_taken_is_left_to_the_cluster() {
    if !lab::entered(&format!("{TEST}::an_address_whose_port_is_taken_is_left_to_the_cluster")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    NODE.ip(&format!("address add {} dev lo", SERVICE[0]));
    let squatter = NODE.run(|| UdpSocket::bind(dns(SERVICE[0])).expect("a free port"));
    let mut agent = Start::new().launch();
    for address in [LINK_LOCAL[0], LINK_LOCAL[1], SERVICE[1]] {
        agent.wait_until_intercepting(&[dns(address)]);
    }
    agent.wait_for_log(&format!("{}:53", SERVICE[0]));
    println!("{:#?}", lines(&agent, SERVICE[0]));
    assert!(!kernel::intercepted().contains(&dns(SERVICE[0]).ip()), "{:?}", kernel::intercepted());
    assert_eq!(who_answers(POD1, dns(SERVICE[0])), Some(Who::Cluster));
    drop(squatter);
}

#[test]
fn an_address_is_intercepted_only_once_its_probe_is_answered() {
    if !lab::entered(&format!("{TEST}::an_address_is_intercepted_only_once_its_probe_is_answered")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let silenced = dns(SERVICE[0]);
    for (protocol, other) in [("udp", "tcp"), ("tcp", "udp")] {
        NODE.nft(&format!(
            "add table inet fault\nadd chain inet fault in {{ type filter hook input priority 0; }}\n\
             add rule inet fault in ip daddr {} {protocol} dport 53 drop\n",
            silenced.ip()
        ));
        let mut agent = Start::new().launch();
        for address in [LINK_LOCAL[0], LINK_LOCAL[1], SERVICE[1]] {
            agent.wait_until_intercepting(&[dns(address)]);
        }
        // The others are in place; this one had as long, and half a second more.
        time::pass(Duration::from_millis(500));
        assert!(!kernel::intercepted().contains(&silenced.ip()), "{protocol} is not answered, only {other}");
        assert_eq!(who_answers(POD1, silenced), Some(Who::Cluster));
        NODE.nft("delete table inet fault");
        agent.wait_until_intercepting(&[silenced]);
    }
}
