//! `whoami`: every query is answered with what the server sees of the client.

use std::net::{IpAddr, SocketAddr};

use crate::corefile::Directive;
use crate::dns::name::MAX_NAME;
use crate::dns::{Protocol, Type};
use crate::plugins::report::Report;

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) {
    report.alone(line);
}

/// A record of the additional section of the reply: owner (wire form), type, RDATA. Class is IN, TTL 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The owner name, uncompressed wire form.
    pub owner: Vec<u8>,
    /// A, AAAA or SRV.
    pub rtype: Type,
    /// The data.
    pub rdata: Vec<u8>,
}

/// The client's address under the name asked for, and its port as SRV under `_udp.` or `_tcp.` and that name. The SRV
/// record is left out when its owner would be longer than a name may be.
pub fn facts(qname: &[u8], peer: SocketAddr, protocol: Protocol) -> Vec<Fact> {
    let (rtype, rdata) = match peer.ip().to_canonical() {
        IpAddr::V4(v4) => (Type::A, v4.octets().to_vec()),
        IpAddr::V6(v6) => (Type::AAAA, v6.octets().to_vec()),
    };
    let mut facts = vec![Fact { owner: qname.to_vec(), rtype, rdata }];
    let label: &[u8] = if protocol == Protocol::Udp { b"\x04_udp" } else { b"\x04_tcp" };
    let owner = [label, qname].concat();
    if owner.len() <= MAX_NAME {
        let port = peer.port().to_be_bytes();
        facts.push(Fact { owner, rtype: Type::SRV, rdata: vec![0, 0, 0, 0, port[0], port[1], 0] });
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_and_port() {
        let found = facts(b"\x01a\x00", "192.0.2.1:258".parse().unwrap(), Protocol::Udp);
        assert_eq!(found[0], Fact { owner: b"\x01a\x00".into(), rtype: Type::A, rdata: vec![192, 0, 2, 1] });
        assert_eq!(found[1].owner, b"\x04_udp\x01a\x00");
        assert_eq!(found[1].rdata, [0, 0, 0, 0, 1, 2, 0]);
        let mapped = facts(b"\x00", "[::ffff:192.0.2.1]:1".parse().unwrap(), Protocol::Tcp);
        assert_eq!((mapped[0].rtype, mapped[1].owner.as_slice()), (Type::A, b"\x04_tcp\x00".as_slice()));
        assert_eq!(facts(&[0; 253], "[fd00::1]:1".parse().unwrap(), Protocol::Tcp).len(), 1);
    }
}
