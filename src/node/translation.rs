//! Who is behind an address that the node translates, as kube-proxy does for a Service.
//!
//! A connection is translated once, so a rule that leads clients to a Service address leads them nowhere: it must name
//! the servers. Which they are is known to the node's connection tracking, for each connection that was made to the
//! address.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::netfilter::Netfilter;

/// How long a server may take to accept a connection.
const PATIENCE: Duration = Duration::from_millis(300);

/// How many connections are made at most. Each is led to a server at random.
const MOST_TRIES: usize = 32;

/// The servers that accept TCP connections to `address`, seen over that many connections (at most 32, all at once): those
/// that the node's rules lead to, or `address` itself where it is not translated, or where the kernel does not tell for
/// lack of CAP_NET_ADMIN. None where nobody accepts within 300 ms. In order, each once.
pub async fn endpoints(address: SocketAddr, tries: usize) -> Vec<SocketAddr> {
    let mut connecting = JoinSet::new();
    for _ in 0..tries.min(MOST_TRIES) {
        connecting.spawn(timeout(PATIENCE, TcpStream::connect(address)));
    }
    let mut connections = Vec::new();
    while let Some(ended) = connecting.join_next().await {
        if let Ok(Ok(Ok(connection))) = ended {
            connections.push(connection);
        }
    }
    let servers: BTreeSet<SocketAddr> = match Netfilter::connect() {
        Ok(mut kernel) => connections
            .iter()
            .filter_map(|connection| behind(&mut kernel, connection.local_addr().ok()?, address).ok())
            .collect(),
        Err(_) => BTreeSet::new(),
    };
    match (servers.is_empty(), connections.is_empty()) {
        (true, false) => vec![address],
        _ => servers.into_iter().collect(),
    }
}

/// The server that answers the TCP connection from `client` to `address`. Errors: the kernel's; ENOENT where the
/// connection is not tracked.
fn behind(kernel: &mut Netfilter, client: SocketAddr, address: SocketAddr) -> io::Result<SocketAddr> {
    let family = match address {
        SocketAddr::V4(_) => NetfilterProtoFamily::IPv4,
        SocketAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    let addresses = vec![IPTuple::SourceAddress(client.ip()), IPTuple::DestinationAddress(address.ip())];
    let ports = vec![
        ProtoTuple::Protocol(Protocol::Tcp),
        ProtoTuple::SourcePort(client.port()),
        ProtoTuple::DestinationPort(address.port()),
    ];
    let asked = ConntrackAttribute::CtaTupleOrig(vec![Tuple::Ip(addresses), Tuple::Proto(ports)]);
    let unknown = || io::Error::from(io::ErrorKind::InvalidData);
    match kernel.get(family, ConntrackMessage::Get(vec![asked]))? {
        NetfilterMessageInner::Conntrack(ConntrackMessage::New(told)) => source_of_replies(&told).ok_or_else(unknown),
        _ => Err(unknown()),
    }
}

fn source_of_replies(told: &[ConntrackAttribute]) -> Option<SocketAddr> {
    let tuples = told.iter().find_map(|attribute| match attribute {
        ConntrackAttribute::CtaTupleReply(tuples) => Some(tuples),
        _ => None,
    })?;
    let (mut address, mut port) = (None, None);
    for tuple in tuples {
        match tuple {
            Tuple::Ip(parts) => {
                address = parts.iter().find_map(|part| match part {
                    IPTuple::SourceAddress(address) => Some(*address),
                    _ => None,
                });
            }
            Tuple::Proto(parts) => {
                port = parts.iter().find_map(|part| match part {
                    ProtoTuple::SourcePort(port) => Some(*port),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Some(SocketAddr::new(address?, port?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::namespace::{Host, block_on, private, run};
    use std::net::TcpListener;

    /// kube-proxy's rules for a Service in each family with two servers, on other ports than the Service's.
    const KUBE_PROXY: &str = "nft -f - <<'EOF'
table inet kube-proxy {
  chain output {
    type nat hook output priority -100; policy accept;
    ip daddr 10.96.0.10 tcp dport 53 numgen random mod 2 0 dnat ip to 10.9.0.2:1053
    ip daddr 10.96.0.10 tcp dport 53 dnat ip to 10.9.0.3:1053
    ip6 daddr fd00:96::a tcp dport 53 numgen random mod 2 0 dnat ip6 to [fd09::2]:1053
    ip6 daddr fd00:96::a tcp dport 53 dnat ip6 to [fd09::3]:1053
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    meta l4proto tcp ct status dnat masquerade
  }
}
EOF";

    fn socket(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    /// A host whose servers listen for as long as the listeners live.
    fn servers(addresses: &'static [&'static str]) -> (Host, Vec<TcpListener>) {
        let host = Host::new("dns", &["10.9.0.2/24", "10.9.0.3/24", "fd09::2/64", "fd09::3/64"]);
        run("ip addr add 10.9.0.1/24 dev dns && ip addr add fd09::1/64 dev dns nodad");
        run("ip route add 10.96.0.0/16 dev dns && ip route add fd00:96::/112 dev dns");
        let bind = move || addresses.iter().map(|address| TcpListener::bind(address).expect("it is free")).collect();
        let listeners = host.thread(bind).join().expect("they listen");
        (host, listeners)
    }

    #[test]
    fn servers_of_a_service_are_found_in_both_families() {
        private(|| {
            let all = &["10.9.0.2:1053", "10.9.0.3:1053", "[fd09::2]:1053", "[fd09::3]:1053"];
            let (_host, _listeners) = servers(all);
            run(KUBE_PROXY);
            for (service, found) in [("10.96.0.10:53", &all[..2]), ("[fd00:96::a]:53", &all[2..])] {
                let found: Vec<SocketAddr> = found.iter().map(|text| socket(text)).collect();
                assert_eq!(block_on(endpoints(socket(service), 32)), found);
            }
        });
    }

    #[test]
    fn a_server_that_accepts_nothing_is_no_endpoint() {
        private(|| {
            let (_host, _listeners) = servers(&["10.9.0.3:1053"]);
            run(KUBE_PROXY);
            assert_eq!(block_on(endpoints(socket("10.96.0.10:53"), 32)), [socket("10.9.0.3:1053")]);
            assert_eq!(block_on(endpoints(socket("[fd00:96::a]:53"), 4)), []);
            assert_eq!(block_on(endpoints(socket("10.9.0.3:1053"), 0)), []);
        });
    }

    #[test]
    fn an_address_that_is_not_translated_is_its_own_server() {
        private(|| {
            let (_host, _listeners) = servers(&["10.9.0.2:1053", "[fd09::2]:1053"]);
            for address in ["10.9.0.2:1053", "[fd09::2]:1053"] {
                assert_eq!(block_on(endpoints(socket(address), 2)), [socket(address)], "not tracked");
            }
            run(KUBE_PROXY);
            for address in ["10.9.0.2:1053", "[fd09::2]:1053"] {
                assert_eq!(block_on(endpoints(socket(address), 2)), [socket(address)], "tracked");
            }
        });
    }
}
