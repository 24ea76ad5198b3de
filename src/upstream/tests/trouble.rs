//! How often a question is sent when it meets each kind of error: exactly so often, alone and beside an upstream that
//! answers, over UDP, TCP and TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::certificates::Authority;
use crate::dns::Rcode;
use crate::upstream::spec::{Policy, PoolSpec};
use crate::upstream::testing::*;
use crate::upstream::{Address, Failure, Network, Pool, Upstreams};

const OVER: [Network; 3] = [Network::Udp, Network::Tcp, Network::Tls];

/// Broadcast is forbidden to sockets that did not ask for it, and TCP knows no way there.
const FORBIDDEN: &str = "255.255.255.255:53";
/// The loopback interface leads to no link-local address.
const UNREACHABLE: &str = "fe80::1%lo";

/// A place where tests of all networks are run, with one authority for their certificates.
struct Place {
    network: Network,
    authority: Authority,
}

impl Place {
    fn new(network: Network, name: &str) -> Place {
        Place { network, authority: Authority::new(&format!("{name}-{}", network.name())) }
    }

    async fn responder(&self, reset: bool, handler: fn(Arrival<'_>) -> Vec<Act>) -> Responder {
        let acceptor = (self.network == Network::Tls).then(|| self.authority.acceptor(&["127.0.0.1"]));
        Responder::bind(acceptor, reset, handler).await
    }

    fn address(&self, socket: SocketAddr) -> Address {
        if self.network == Network::Tls { tls_address(socket, None) } else { Address::plain(socket) }
    }

    /// Without checks, so that every packet is one of the question's.
    fn pool(&self, addresses: Vec<Address>, upstreams: &Upstreams) -> Arc<Pool> {
        pool_of(addresses, upstreams, |spec: &mut PoolSpec| {
            spec.force_tcp = self.network == Network::Tcp;
            spec.policy = Policy::Sequential;
            spec.max_fails = 0;
            if self.network == Network::Tls {
                spec.tls = self.authority.spec();
            }
        })
    }
}

fn closing(_: Arrival<'_>) -> Vec<Act> {
    vec![Act::Close]
}

fn halving(arrival: Arrival<'_>) -> Vec<Act> {
    let whole = answer(arrival.query, Rcode::NOERROR);
    let half = &whole[..whole.len() / 2];
    match arrival.network {
        Network::Udp => vec![Act::Send(half.to_vec())],
        _ => vec![Act::Raw([&(whole.len() as u16).to_be_bytes()[..], half].concat()), Act::Close],
    }
}

/// Asks an upstream like this alone; what it saw, over UDP and over connections, and how the exchange failed.
async fn alone(
    network: Network,
    name: &str,
    reset: bool,
    handler: fn(Arrival<'_>) -> Vec<Act>,
) -> (usize, usize, Failure) {
    let place = Place::new(network, name);
    let responder = place.responder(reset, handler).await;
    let pool = place.pool(vec![place.address(responder.socket)], &Upstreams::new());
    // Long enough for the try over TCP after silence over UDP.
    let failure = ask_for(&pool, "www.example.org.", Duration::from_secs(2)).await.unwrap_err();
    let seen = responder.seen();
    (seen.datagrams.len(), seen.stream_queries.len(), failure)
}

/// Asks an upstream like this six times before one that answers; what the first saw.
async fn beside(network: Network, name: &str, reset: bool, handler: fn(Arrival<'_>) -> Vec<Act>) -> (usize, usize) {
    let place = Place::new(network, name);
    let responder = place.responder(reset, handler).await;
    let good = place.responder(false, answering).await;
    let addresses = [&responder, &good].map(|one| place.address(one.socket));
    let pool = place.pool(addresses.into(), &Upstreams::new());
    for _ in 0..6 {
        assert_eq!(ask(&pool).await.unwrap().upstream.address().socket, good.socket, "{network:?}");
    }
    let seen = responder.seen();
    (seen.datagrams.len(), seen.stream_queries.len())
}

#[tokio::test]
async fn silence_costs_three_packets_and_beside_another_three_queries() {
    let silence = async |network| {
        let (datagrams, queries, failure) = alone(network, "silent-alone", false, silent).await;
        assert!(matches!(failure, Failure::Timeout(_)), "{network:?}: {failure}");
        let expected = if network == Network::Udp { (2, 1) } else { (0, 2) };
        assert_eq!((datagrams, queries), expected, "{network:?}");
        let expected = if network == Network::Udp { (3, 0) } else { (0, 3) };
        assert_eq!(beside(network, "silent-beside", false, silent).await, expected, "{network:?}");
    };
    let [udp, tcp, tls] = OVER;
    tokio::join!(silence(udp), silence(tcp), silence(tls));
}

#[tokio::test]
async fn a_connection_that_ends_or_is_reset_costs_three_queries_and_beside_another_six() {
    for network in [Network::Tcp, Network::Tls] {
        for reset in [false, true] {
            let (datagrams, queries, failure) = alone(network, &format!("ends-{reset}"), reset, closing).await;
            assert!(matches!(failure, Failure::Closed(..)), "{network:?} {reset}: {failure}");
            // Once more on another connection, and a second try.
            assert_eq!((datagrams, queries), (0, 3), "{network:?} {reset}");
            let seen = beside(network, &format!("ends-beside-{reset}"), reset, closing).await;
            assert_eq!(seen, (0, 6), "{network:?} {reset}: three tries, each on two connections");
        }
    }
}

#[tokio::test]
async fn half_an_answer_costs_as_much_as_none() {
    for network in OVER {
        let (datagrams, queries, failure) = alone(network, "half-alone", false, halving).await;
        match network {
            // The last try goes over TCP, and once more because the connection ends.
            Network::Udp => {
                assert!(matches!(failure, Failure::Timeout(_)), "{failure}");
                assert_eq!((datagrams, queries), (2, 2));
            }
            _ => {
                assert!(matches!(failure, Failure::Closed(..)), "{network:?}: {failure}");
                assert_eq!((datagrams, queries), (0, 3), "{network:?}");
            }
        }
        let expected = if network == Network::Udp { (3, 0) } else { (0, 6) };
        assert_eq!(beside(network, "half-beside", false, halving).await, expected, "{network:?}");
    }
}

/// All failures of attempts at an upstream.
fn failures(upstreams: &Upstreams, label: &str) -> u64 {
    ["timeout", "refused", "unreachable", "closed", "tls", "local"]
        .iter()
        .map(|reason| {
            value(upstreams, &format!("dnslet_upstream_failures_total{{to=\"{label}\",reason=\"{reason}\"}}"))
        })
        .sum()
}

#[tokio::test]
async fn what_cannot_be_sent_is_tried_twice_and_beside_another_three_times() {
    for network in OVER {
        let closed = Address::plain(closed_port().await);
        let targets = [closed, Address::parse(FORBIDDEN).unwrap(), Address::parse(UNREACHABLE).unwrap()];
        for (index, target) in targets.into_iter().enumerate() {
            let place = Place::new(network, &format!("cannot-{index}"));
            let target = Address { transport: place.address(target.socket).transport, ..target };
            let upstreams = Upstreams::new();
            let pool = place.pool(vec![target.clone()], &upstreams);
            let failure = ask(&pool).await.unwrap_err();
            assert!(failure.blames_upstream(), "{network:?}: {failure}");
            assert!(!matches!(failure, Failure::Timeout(_)), "{network:?}: {failure}");
            assert_eq!(failures(&upstreams, &target.label()), 2, "{network:?} {target}: {failure}");

            let good = place.responder(false, answering).await;
            let upstreams = Upstreams::new();
            let pool = place.pool(vec![target.clone(), place.address(good.socket)], &upstreams);
            for _ in 0..6 {
                assert_eq!(ask(&pool).await.unwrap().upstream.address().socket, good.socket, "{network:?} {target}");
            }
            assert_eq!(failures(&upstreams, &target.label()), 3, "{network:?} {target}");
        }
    }
}
