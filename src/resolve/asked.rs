//! A question that outlives the datagram it came in.

use std::time::{Duration, Instant};

use crate::cache::Key;
use crate::dns::{Class, Protocol, Query, Type};

use super::bits::Bits;
use super::resolver::Resolver;
use super::way::Way;

/// Every client has a reply by then: stub resolvers give up after five seconds.
const CLIENT_BUDGET: Duration = Duration::from_millis(4500);

/// The type under which the denial of a whole name is kept; the gate lets no question of this type through.
pub(super) const WHOLE_NAME: Type = Type(0);

/// A question that has to be asked, with everything that is needed after the client's datagram is gone.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The route, as an index into `Routes::routes`.
    pub route: usize,
    /// QNAME in lower case, wire form.
    pub name: Box<[u8]>,
    /// QTYPE.
    pub qtype: Type,
    /// QCLASS.
    pub qclass: Class,
    /// DO, CD, RD.
    pub bits: Bits,
    /// The transport of the client that asked first.
    pub protocol: Protocol,
    /// Under which key the answer is stored.
    pub exact: Key,
    /// Under which key it is stored when it denies the name as a whole.
    pub whole: Key,
    /// Equal questions in progress share this one.
    pub flight: Key,
    /// When it was asked.
    pub started: Instant,
    /// When the client has to have a reply.
    pub deadline: Instant,
    /// A denial is kept as that of this type alone.
    pub one_type: bool,
    /// How often an upstream had recovered when it was asked: a failure says nothing about one that came back since.
    pub recoveries: u64,
}

impl Asked {
    /// The question of a query on its way, owned, with its keys.
    pub(super) fn of(resolver: &Resolver, way: &Way<'_>, query: &mut Query<'_>) -> Asked {
        let bits = Bits::of(query);
        let (qtype, fingerprint) = (query.qtype, way.route.fingerprint);
        let cache = &resolver.cache;
        Asked {
            route: way.route_index,
            name: query.name().into(),
            qtype,
            qclass: query.qclass,
            bits,
            protocol: way.client.protocol,
            exact: cache.key(fingerprint, query.key(qtype, bits.cached())).to_key(),
            whole: cache.key(fingerprint, query.key(WHOLE_NAME, bits.cached())).to_key(),
            flight: cache.key(fingerprint, query.key(qtype, bits.flying())).to_key(),
            started: way.now,
            deadline: way.now + CLIENT_BUDGET,
            one_type: false,
            recoveries: resolver.recoveries(way.route_index),
        }
    }
}
