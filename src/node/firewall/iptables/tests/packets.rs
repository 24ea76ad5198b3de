//! What the rules do to packets: a pod and a program of the node, a cluster DNS behind a kube-proxy, a host that drops
//! what it does not know.

use tokio::task::JoinSet;

use super::super::super::PROBE_MARK;
use super::*;
use crate::node::firewall::packets::{CACHE, asked, everywhere, network, serve, serve_cluster};
use crate::node::namespace::Host;

/// A node with a default-deny firewall, kube-proxy's rules for 10.96.0.10, a pod and a server of the cluster's DNS.
fn node(variant: &str) -> (Host, Host) {
    let (pod, dns) = network();
    for (family, service, server) in [("iptables", CACHE[1], "10.9.1.2"), ("ip6tables", CACHE[3], "fd19::2")] {
        for rule in [
            "-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT".to_owned(),
            "-A INPUT -i lo -j ACCEPT".to_owned(),
            "-A INPUT -p icmpv6 -j ACCEPT".to_owned(),
            "-A INPUT -j DROP".to_owned(),
            "-A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED,NEW -j ACCEPT".to_owned(),
            "-A OUTPUT -o lo -j ACCEPT".to_owned(),
            "-A OUTPUT -p icmpv6 -j ACCEPT".to_owned(),
            "-A OUTPUT -j DROP".to_owned(),
            format!("-t nat -A PREROUTING -d {service} -p udp --dport 53 -j DNAT --to-destination {server}"),
            format!("-t nat -A PREROUTING -d {service} -p tcp --dport 53 -j DNAT --to-destination {server}"),
            format!("-t nat -A OUTPUT -d {service} -p udp --dport 53 -j DNAT --to-destination {server}"),
            format!("-t nat -A OUTPUT -d {service} -p tcp --dport 53 -j DNAT --to-destination {server}"),
        ] {
            let rule = if family == "iptables" { rule.replace("icmpv6", "icmp") } else { rule };
            run(&format!("{family}{variant} {rule}"));
        }
    }
    (pod, dns)
}

#[test]
fn packets_go_to_the_cache_while_it_listens_and_to_the_cluster_when_not() {
    private(|| block_on(packets("-nft")));
}

#[test]
fn packets_go_the_same_ways_with_legacy_iptables() {
    private(|| block_on(packets("-legacy")));
}

async fn packets(variant: &str) {
    let (pod, dns) = node(variant);
    serve_cluster(&dns);
    let base = base(&CACHE, &["10.9.1.2:53", "[fd19::2]:53"]);
    let mut iptables = Iptables::of(variant).await.expect("apt-get install iptables");

    // Nobody listens, nothing is intercepted; then somebody listens whose probes were not answered yet.
    iptables.base(&base).await.expect("a base");
    assert_eq!(asked(Some(&pod), 0).await, everywhere("cluster"));
    assert_eq!(asked(None, 0).await, everywhere("cluster"));
    let mut cache = JoinSet::new();
    for address in &base.addresses {
        serve(&mut cache, SocketAddr::new(*address, 53), b"cache").await;
    }
    assert_eq!(asked(Some(&pod), 0).await, everywhere("cluster"));
    assert_eq!(asked(None, PROBE_MARK).await, everywhere("cache"));

    // Intercepted, and no connection is tracked, although the host knows only tracked ones.
    iptables.intercept(&all(&base)).await.expect("an intercept");
    run("conntrack -F");
    assert_eq!(asked(Some(&pod), 0).await, everywhere("cache"));
    assert_eq!(asked(None, 0).await, everywhere("cache"));
    let tracked = ["udp", "tcp"].map(|protocol| {
        ["ipv4", "ipv6"].map(|family| run(&format!("conntrack -L -f {family} -p {protocol} --dport 53 2>/dev/null")))
    });
    assert_eq!(tracked.concat().concat(), "");

    // The cache dies and its rules stay: pods are back at the cluster's DNS.
    cache.shutdown().await;
    assert_eq!(asked(Some(&pod), 0).await, everywhere("cluster"));
    assert_eq!(asked(None, 0).await, everywhere("refused"));
    iptables.intercept(&BTreeSet::new()).await.expect("it goes");
    assert_eq!(asked(None, 0).await, everywhere("cluster"));
}
