//! Which queries are answered at all, before any zone is looked for.

use std::net::IpAddr;

use crate::dns::{Class, Ede, Explained, Query, Rcode, Type};
use crate::observe::Event;
use crate::plugins::value::Network;

use super::way::Client;

/// Which clients are answered: those of the node and of private networks, and the networks the operator adds. An open
/// resolver is a weapon in other people's hands (RFC 5358).
#[derive(Clone, Debug, Default)]
pub struct ClientPolicy {
    /// Networks beside the private ones.
    pub nets: Vec<Network>,
}

/// A query that is answered with an RCODE and nothing else.
pub(super) struct Refusal {
    pub(super) rcode: Rcode,
    pub(super) explained: Option<Explained<'static>>,
    pub(super) event: Event,
}

/// Names of class CH that ask who we are; they mean this server and are never forwarded (RFC 4892).
const OWN_CHAOS: [&[u8]; 4] =
    [b"\x02id\x06server\x00", b"\x07version\x06server\x00", b"\x08hostname\x04bind\x00", b"\x07version\x04bind\x00"];

impl ClientPolicy {
    /// Whether a client at `peer` is answered. `bound` is the listener's address where the Corefile names it: who reaches
    /// a private address that was chosen is local enough. A listener on all addresses says nothing of the kind, for a
    /// host behind address translation has a private one for the whole internet.
    pub fn serves(&self, peer: IpAddr, bound: Option<IpAddr>) -> bool {
        let peer = peer.to_canonical();
        is_private(peer)
            || bound.is_some_and(|address| is_private(address.to_canonical()))
            || self.nets.iter().any(|net| net.contains(peer))
    }
}

/// What the reply to our own health probe says: that it is ours.
pub(super) const OURSELVES: Explained<'static> = Explained { code: Ede::OURSELVES, text: "" };

/// Whether this is our own health probe: it comes from the address that it asks, or from the loopback.
pub(super) fn is_probe(query: &Query<'_>, client: &Client) -> bool {
    let peer = client.peer.ip().to_canonical();
    query.qclass == Class::CH
        && query.name() == OWN_CHAOS[0]
        && (peer.is_loopback() || peer == client.local.ip().to_canonical())
}

/// What is wrong with a query in itself.
pub(super) fn refusal(query: &Query<'_>) -> Option<Refusal> {
    let refused =
        |event, code, text| Some(Refusal { rcode: Rcode::REFUSED, explained: Some(Explained { code, text }), event });
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Some(Refusal { rcode: Rcode::BADVERS, explained: None, event: Event::RejectedVersion });
    }
    if query.qtype.is_transfer() {
        return refused(Event::RejectedType, Ede::NOT_SUPPORTED, "zone transfers are not offered");
    }
    if matches!(query.qtype, Type(0) | Type::OPT | Type::TSIG) {
        return Some(Refusal { rcode: Rcode::FORMERR, explained: None, event: Event::RejectedType });
    }
    if query.signed {
        return refused(Event::RejectedType, Ede::NOT_SUPPORTED, "signed queries cannot be passed on unaltered");
    }
    if query.qclass == Class::CH && OWN_CHAOS.contains(&query.name()) {
        return refused(Event::RejectedClass, Ede::PROHIBITED, "this server does not tell");
    }
    None
}

/// Addresses that the public internet does not route: loopback, link-local, private and shared ones.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let shared = v4.octets()[0] == 100 && v4.octets()[1] & 0xc0 == 64;
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Network {
        Network::parse(text).unwrap()
    }

    #[test]
    fn strangers_are_not_answered_on_public_or_wildcard_addresses() {
        let policy = ClientPolicy { nets: vec![net("203.0.113.0/24")] };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (peer, bound, served) in [
            ("127.0.0.1", None, true),
            ("10.1.2.3", None, true),
            ("::ffff:10.1.2.3", None, true),
            ("100.64.1.1", None, true),
            ("8.8.8.8", None, false),
            ("8.8.8.8", Some("198.51.100.1"), false),
            ("8.8.8.8", Some("169.254.20.10"), true),
            ("203.0.113.9", None, true),
            ("203.0.114.9", None, false),
            ("2001:db8::1", None, false),
            ("fd00::1", None, true),
            ("2001:db8::1", Some("fd00::53"), true),
        ] {
            assert_eq!(policy.serves(ip(peer), bound.map(ip)), served, "{peer} at {bound:?}");
        }
        let everybody = ClientPolicy { nets: vec![net("::/0")] };
        assert!(everybody.serves(ip("2001:db8::1"), None));
    }
}
