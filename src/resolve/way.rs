//! A query on its way: who asks, and everything that is known once its zone is found.

use std::net::SocketAddr;
use std::time::Instant;

use crate::dns::{Protocol, Query, reply};
use crate::observe::Slab;
use crate::routes::Route;

/// Who asks, and where.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The client's address.
    pub peer: SocketAddr,
    /// Its transport.
    pub protocol: Protocol,
    /// Which listener, as an index into `Routes::listens`.
    pub listen: u16,
    /// The address it asked.
    pub local: SocketAddr,
}

/// One query on its way: everything that is known once its zone is found.
pub(super) struct Way<'a> {
    pub(super) worker: usize,
    pub(super) now: Instant,
    pub(super) client: &'a Client,
    pub(super) route_index: usize,
    pub(super) route: &'a Route,
    pub(super) zone: usize,
    pub(super) slab: &'a Slab,
}

impl Way<'_> {
    /// The most octets of a reply.
    pub(super) fn limit(&self, query: &Query<'_>, out: &[u8]) -> usize {
        match self.client.protocol {
            Protocol::Udp => reply::udp_limit(query, self.route.bufsize).min(out.len()),
            Protocol::Tcp => out.len(),
        }
    }
}
