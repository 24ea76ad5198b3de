//! Which queries are answered at all, before any zone is looked for.

use std::net::IpAddr;

use crate::dns::{Class, Ede, Explained, Query, Rcode, Type};
use crate::observe::Event;
use crate::plugins::value::Network;

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
    /// Whether a client at `peer` is answered on a listener at `local`. Who reaches a private address is local enough.
    pub fn serves(&self, peer: IpAddr, local: IpAddr) -> bool {
        let peer = peer.to_canonical();
        let local = local.to_canonical();
        is_private(peer)
            || (!local.is_unspecified() && is_private(local))
            || self.nets.iter().any(|net| net.contains(peer))
    }
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
        for (peer, local, served) in [
            ("127.0.0.1", "0.0.0.0", true),
            ("10.1.2.3", "0.0.0.0", true),
            ("::ffff:10.1.2.3", "::", true),
            ("100.64.1.1", "::", true),
            ("8.8.8.8", "0.0.0.0", false),
            ("8.8.8.8", "198.51.100.1", false),
            ("8.8.8.8", "169.254.20.10", true),
            ("203.0.113.9", "0.0.0.0", true),
            ("203.0.114.9", "0.0.0.0", false),
            ("2001:db8::1", "::", false),
            ("fd00::1", "::", true),
            ("2001:db8::1", "fd00::53", true),
        ] {
            assert_eq!(policy.serves(ip(peer), ip(local)), served, "{peer} at {local}");
        }
        let everybody = ClientPolicy { nets: vec![net("::/0")] };
        assert!(everybody.serves(ip("2001:db8::1"), ip("::")));
    }
}
