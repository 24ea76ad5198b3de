//! Looking for forwarding loops: each block with `loop` is asked, at its own first address, for a name only it knows. If
//! the question comes back from an upstream the block's guard sees it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::dns::convert::Outgoing;
use crate::dns::question::echoes;
use crate::dns::{Class, Name, Rcode, Type, header};
use crate::observe::probe::reachable;
use crate::resolve::Resolver;
use crate::sys::clock;

/// One probe is given up after this long.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two probes, while none was answered.
const PAUSE: Duration = Duration::from_secs(1);
/// No answer for this long: the upstream is down, not circular.
const LONGEST: Duration = Duration::from_secs(30);

/// A loop that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The sentence for the log.
    pub(super) sentence: String,
}

/// Asks every guarded block of the snapshot until an answer or a loop is seen; ends when all are settled. Dropped when
/// the next snapshot is published, whose guards are new.
pub(super) async fn run(resolver: Arc<Resolver>, found: mpsc::Sender<Found>) {
    let guarded: Vec<usize> = resolver.loop_guards().map(|(route, _)| route).collect();
    let mut probes = tokio::task::JoinSet::new();
    for route in guarded {
        probes.spawn(settle(Arc::clone(&resolver), route, found.clone()));
    }
    while probes.join_next().await.is_some() {}
}

async fn settle(resolver: Arc<Resolver>, route: usize, found: mpsc::Sender<Found>) {
    let Some((_, guard)) = resolver.loop_guards().find(|(index, _)| *index == route) else { return };
    let Some(address) = resolver.routes().first_address(route) else { return };
    let end = clock::now() + LONGEST;
    loop {
        guard.sending();
        let asked = tokio::time::timeout(PATIENCE, ask(address, guard.name())).await;
        if guard.detected() {
            let zone = resolver.routes().routes[route].zones.first().map_or(".".to_owned(), Name::to_string);
            // The receiver is gone only when the agent is stopping.
            let _ = found.send(Found { sentence: sentence(address, &zone, guard.name()) }).await;
            return;
        }
        match asked {
            // A loop that is cut short ends in SERVFAIL as well, so only another answer settles it.
            Ok(Ok(rcode)) if rcode != Rcode::SERVFAIL => return,
            _ if clock::now() >= end => return,
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

fn sentence(address: SocketAddr, zone: &str, name: &Name) -> String {
    format!(
        "Loop (ourselves -> {address}) detected for zone {zone:?}, see https://coredns.io/plugins/loop#troubleshooting. \
         Query: \"HINFO {name}\""
    )
}

/// Sends one probe and returns the answer's RCODE.
async fn ask(address: SocketAddr, name: &Name) -> std::io::Result<Rcode> {
    let address = reachable(address);
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    let query = query(rand::random(), name);
    socket.send(&query).await?;
    let mut message = [0; 1232];
    loop {
        let length = socket.recv(&mut message).await?;
        let message = &message[..length];
        if length >= header::LENGTH && header::id(message) == header::id(&query) && echoes(&query, message) {
            return Ok(header::rcode(message));
        }
    }
}

fn query(id: u16, name: &Name) -> Vec<u8> {
    Outgoing::plain(name.as_wire(), Type::HINFO, Class::IN).to_wire(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Query;

    #[test]
    fn the_probe_asks_for_hinfo_with_recursion() {
        let name = Name::parse("1.2.example.org.").unwrap();
        let message = query(7, &name);
        let parsed = Query::parse(&message).unwrap();
        assert_eq!((parsed.id(), parsed.name(), parsed.qtype), (7, name.as_wire(), Type::HINFO));
        assert!(parsed.recursion_desired());
    }

    #[test]
    fn only_the_answer_to_the_probe_counts() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = server.local_addr().unwrap();
            let answering = async {
                let mut message = [0; 512];
                let (length, peer) = server.recv_from(&mut message).await.unwrap();
                let message = &mut message[..length];
                server.send_to(message, peer).await.unwrap();
                message[2] |= header::QR;
                message[3] = 3;
                server.send_to(&message[..5], peer).await.unwrap();
                let mut forged = message.to_vec();
                forged[1] ^= 1;
                server.send_to(&forged, peer).await.unwrap();
                server.send_to(message, peer).await.unwrap();
            };
            let name = Name::parse("x.test.").unwrap();
            let (rcode, ()) = tokio::join!(ask(address, &name), answering);
            assert_eq!(rcode.unwrap(), Rcode::NXDOMAIN);
        });
    }
}
