//! What the rules do to packets: a pod and a program of the node, a cluster DNS behind a kube-proxy.

use std::net::SocketAddr;
use std::net::UdpSocket;

use tokio::task::JoinSet;

use super::*;
use crate::node::firewall::PROBE_MARK;
use crate::node::firewall::packets::{CACHE, CLUSTER, asked, asked_at, everywhere, network, serve, serve_cluster};
use crate::node::namespace::Host;

fn base() -> Base {
    Base {
        addresses: addresses(&CACHE).into_iter().collect(),
        dns_port: 53,
        health_port: 8080,
        fallback: CLUSTER.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

/// Translates the Service addresses as kube-proxy in nftables mode does, without a masquerade.
fn kube_proxy() {
    run("nft -f - <<'EOF'
table inet kube-proxy {
  chain services {
    ip daddr 10.96.0.10 udp dport 53 dnat ip to 10.9.1.2:53
    ip daddr 10.96.0.10 tcp dport 53 dnat ip to 10.9.1.2:53
    ip6 daddr fd00:96::a udp dport 53 dnat ip6 to [fd19::2]:53
    ip6 daddr fd00:96::a tcp dport 53 dnat ip6 to [fd19::2]:53
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    jump services
  }
  chain output {
    type nat hook output priority -100; policy accept;
    jump services
  }
}
EOF");
}

async fn cache(addresses: &[IpAddr]) -> JoinSet<()> {
    let mut cache = JoinSet::new();
    for address in addresses {
        serve(&mut cache, SocketAddr::new(*address, 53), b"cache").await;
    }
    cache
}

fn tracked() -> String {
    ["ipv4", "ipv6"].map(|family| run(&format!("conntrack -L -f {family} 2>/dev/null"))).concat()
}

/// The packets that the rules of a chain matched, by their comments: of the intercept (owned) or the base.
fn counted(owned: bool, chain: &str) -> Vec<(String, u64)> {
    let found = installed().unwrap().into_iter().find(|found| found.owner.is_some() == owned).unwrap();
    let rules = found.rules.into_iter().filter(|rule| rule.chain == chain);
    rules.map(|rule| (rule.comment, rule.packets.unwrap())).collect()
}

#[test]
fn packets_go_to_the_cache_when_intercepted_and_to_the_cluster_otherwise() {
    private(|| {
        block_on(async {
            let (pod, dns) = network();
            kube_proxy();
            serve_cluster(&dns);
            let base = base();
            let mut rules = Nftables::detect().await.unwrap();
            rules.base(&base).await.unwrap();

            // Nobody listens; then somebody does whose probes were not answered yet.
            for client in [Some(&pod), None] {
                assert_eq!(asked(client, 0).await, everywhere("cluster"));
            }
            let cache = cache(&base.addresses).await;
            for client in [Some(&pod), None] {
                assert_eq!(asked(client, 0).await, everywhere("cluster"));
            }
            assert_eq!(asked(None, PROBE_MARK).await, everywhere("cache"));

            rules.intercept(&all(&base)).await.unwrap();
            run("conntrack -F 2>/dev/null");
            for client in [Some(&pod), None] {
                assert_eq!(asked(client, 0).await, everywhere("cache"));
            }
            assert_eq!(tracked(), "");
            for (comment, packets) in counted(true, "prerouting") {
                assert!(packets > 0, "{comment}");
            }

            // As when the process dies.
            drop(rules);
            for client in [Some(&pod), None] {
                assert_eq!(asked(client, 0).await, everywhere("cluster"));
            }
            assert!(tracked().contains("10.9.1."), "the meter shows something");
            drop(cache);
        });
    });
}

#[test]
fn clients_on_the_node_reach_a_service_of_a_family_without_fallback() {
    private(|| {
        block_on(async {
            let (_pod, dns) = network();
            kube_proxy();
            serve_cluster(&dns);
            let mut base = base();
            base.fallback.retain(SocketAddr::is_ipv4);
            let mut rules = Nftables::detect().await.unwrap();
            rules.base(&base).await.unwrap();
            let service = CACHE.iter().position(|address| *address == "fd00:96::a").unwrap();
            let answers = asked(None, 0).await;
            assert_eq!(answers[2 * service..][..2], ["cluster", "cluster"]);
            assert_eq!(answers[..4], everywhere("cluster")[..4]);
        });
    });
}

#[test]
fn tcp_is_whole_while_nothing_is_intercepted() {
    private(|| {
        block_on(async {
            let (pod, _dns) = network();
            run("nft -f - <<'EOF'
table inet strict {
  chain input {
    type filter hook input priority 0; policy accept;
    ct state invalid drop
  }
}
EOF");
            let base = Base { fallback: Vec::new(), ..base() };
            let mut rules = Nftables::detect().await.unwrap();
            rules.base(&base).await.unwrap();
            let mut cache = cache(&base.addresses).await;
            for address in &base.addresses {
                serve(&mut cache, SocketAddr::new(*address, 8080), b"health").await;
            }
            for client in [Some(&pod), None] {
                let link_local = &asked(client, 0).await[..2];
                assert_eq!(link_local, ["cache", "cache"]);
                assert_eq!(asked_at(8080, client, 0).await, everywhere("health"));
            }
        });
    });
}

#[test]
fn a_client_that_goes_on_asking_is_led_back_and_forth() {
    private(|| {
        block_on(async {
            let (pod, dns) = network();
            kube_proxy();
            serve_cluster(&dns);
            let base = base();
            let mut rules = Nftables::detect().await.unwrap();
            rules.base(&base).await.unwrap();
            let _cache = cache(&base.addresses).await;
            let clients = CACHE.map(|address| client(&pod, address));
            for answered_by in ["cluster", "cache", "cluster", "cache"] {
                let ready = if answered_by == "cache" { all(&base) } else { BTreeSet::new() };
                rules.intercept(&ready).await.unwrap();
                for client in &clients {
                    let mut reply = [0; 16];
                    client.send(b"?").await.unwrap();
                    let length = tokio::time::timeout(Duration::from_secs(5), client.recv(&mut reply)).await;
                    let length = length.expect("an answer").unwrap();
                    assert_eq!(String::from_utf8_lossy(&reply[..length]), answered_by, "{client:?}");
                }
            }
        });
    });
}

/// A socket of the pod that keeps its port.
fn client(pod: &Host, server: &str) -> tokio::net::UdpSocket {
    let server = SocketAddr::new(server.parse().unwrap(), 53);
    let here = if server.is_ipv4() { "10.9.0.2:0" } else { "[fd09::2]:0" };
    let bound = pod.thread(move || {
        let socket = UdpSocket::bind(here).unwrap();
        socket.connect(server).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    });
    tokio::net::UdpSocket::from_std(bound.join().unwrap()).unwrap()
}

#[test]
fn the_fallback_is_spread_over_the_servers() {
    private(|| {
        block_on(async {
            let (pod, dns) = network();
            serve_cluster(&dns);
            let base =
                Base { addresses: addresses(&["169.254.20.10", "fd69:254:20::10"]).into_iter().collect(), ..base() };
            let mut rules = Nftables::detect().await.unwrap();
            rules.base(&base).await.unwrap();
            let clients: Vec<_> =
                (0..64).flat_map(|_| ["169.254.20.10", "fd69:254:20::10"].map(|to| client(&pod, to))).collect();
            for client in &clients {
                client.send(b"?").await.unwrap();
            }
            for client in &clients {
                let mut reply = [0; 16];
                tokio::time::timeout(Duration::from_secs(5), client.recv(&mut reply))
                    .await
                    .expect("an answer")
                    .unwrap();
                assert!(reply.starts_with(b"cluster"));
            }
            let by_server = counted(false, "fallback_prerouting");
            let udp: Vec<_> = by_server.iter().filter(|(comment, _)| comment.contains("UDP")).collect();
            assert_eq!(udp.iter().map(|(_, packets)| packets).sum::<u64>(), 128);
            assert!(udp.len() == 4 && udp.iter().all(|(_, packets)| *packets > 0), "{udp:?}");
        });
    });
}
