//! The `whoami` plugin: tells a client its own address and port.

use std::net::IpAddr;

use crate::dns::header::Count;
use crate::dns::name::MAX_NAME;
use crate::dns::{Builder, Protocol, Query, Rcode, Type, reply};

use super::way::Client;

/// Writes the reply: no answer; in the additional section the client's address under the name asked for, and its port
/// as an SRV record under `_udp.` or `_tcp.` and that name, unless that would be too long for a name.
pub(super) fn write(query: &Query<'_>, client: &Client, limit: usize, out: &mut [u8]) -> usize {
    let mut builder = Builder::new(query.message, query.question_end, [0, 0]);
    let mut add = |owner: &[u8], rtype, rdata: &[u8]| {
        builder.add(Count::Additional, owner, rtype, 0, rdata).expect("two records fit into a message");
    };
    match client.peer.ip().to_canonical() {
        IpAddr::V4(v4) => add(query.name(), Type::A, &v4.octets()),
        IpAddr::V6(v6) => add(query.name(), Type::AAAA, &v6.octets()),
    }
    let transport: &[u8] = if client.protocol == Protocol::Udp { b"\x04_udp" } else { b"\x04_tcp" };
    let owner = [transport, query.name()].concat();
    if owner.len() <= MAX_NAME {
        let [high, low] = client.peer.port().to_be_bytes();
        add(&owner, Type::SRV, &[0, 0, 0, 0, high, low, 0]);
    }
    let response = builder.build(Rcode::NOERROR, Vec::new());
    reply::write(query, &response, reply::Shape { ttl: None, explained: None, limit }, out)
}
