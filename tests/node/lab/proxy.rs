//! What kube-proxy does for the Services of kube-dns: each new flow goes to one of the two servers at random, and one
//! that comes from no pod gets the node's own address as its source.

use std::net::SocketAddr;

use super::{Host, SERVICE, UPSTREAM_SERVICE, endpoints};

/// The two styles of kube-proxy whose rules run before a local address is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KubeProxy {
    Nftables,
    Iptables,
}

impl KubeProxy {
    /// Places the rules on the node.
    pub fn place(self, node: Host) {
        match self {
            KubeProxy::Nftables => node.nft(&nftables()),
            KubeProxy::Iptables => {
                node.feed("iptables-restore -w 5", &iptables(&[SERVICE[0], UPSTREAM_SERVICE], "10.244.0.0/16"));
                node.feed("ip6tables-restore -w 5", &iptables(&[SERVICE[1]], "fd00:244::/32"));
            }
        }
    }
}

/// The servers of the Service's own family.
fn servers(service: &str) -> Vec<SocketAddr> {
    let six = service.contains(':');
    endpoints().into_iter().filter(|server| server.is_ipv6() == six).collect()
}

fn nftables() -> String {
    let mut rules = String::new();
    for service in [SERVICE[0], SERVICE[1], UPSTREAM_SERVICE] {
        let servers = servers(service);
        let (family, pods) = if service.contains(':') { ("ip6", "fd00:244::/32") } else { ("ip", "10.244.0.0/16") };
        for protocol in ["udp", "tcp"] {
            let flow = format!("{family} daddr {service} {protocol} dport 53");
            rules.push_str(&format!(
                "add rule inet proxy services {flow} {family} saddr != {pods} meta mark set meta mark or 0x4000\n"
            ));
            rules.push_str(&format!(
                "add rule inet proxy services {flow} dnat {family} to numgen random mod 2 map {{ 0 : {}, 1 : {} }}\n",
                servers[0].ip(),
                servers[1].ip()
            ));
        }
    }
    format!(
        "add table inet proxy\nadd chain inet proxy services\n\
         add chain inet proxy prerouting {{ type nat hook prerouting priority dstnat; }}\n\
         add chain inet proxy output {{ type nat hook output priority -100; }}\n\
         add chain inet proxy postrouting {{ type nat hook postrouting priority srcnat; }}\n{rules}\
         add rule inet proxy prerouting jump services\nadd rule inet proxy output jump services\n\
         add rule inet proxy postrouting meta mark and 0x4000 == 0x4000 masquerade\n"
    )
}

fn iptables(services: &[&str], pods: &str) -> String {
    let mut rules = String::new();
    for service in services {
        let servers = servers(service);
        for protocol in ["udp", "tcp"] {
            let flow = format!("-A KUBE-SERVICES -d {service} -p {protocol} --dport 53");
            rules.push_str(&format!("{flow} ! -s {pods} -j MARK --or-mark 0x4000\n"));
            rules.push_str(&format!(
                "{flow} -m statistic --mode random --probability 0.5 -j DNAT --to-destination {}\n",
                servers[0]
            ));
            rules.push_str(&format!("{flow} -j DNAT --to-destination {}\n", servers[1]));
        }
    }
    format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n\
         -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\n{rules}COMMIT\n"
    )
}
