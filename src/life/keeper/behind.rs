//! Which servers are behind the addresses that the cluster's zone is forwarded to. A Service's address is translated to one
//! of its endpoints, and a packet is translated only once: a rule of ours has to name the endpoints.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tokio::task::JoinSet;

use crate::life::options::NodeOptions;
use crate::node::firewall::Base;
use crate::node::translation::endpoints;

/// Connections made to learn which servers are behind one address: each is led to one of them at random.
const TRIES: usize = 12;
/// Upstream addresses that are looked behind.
const MOST_ADDRESSES: usize = 8;

/// The search for those servers.
#[derive(Debug)]
pub(super) struct Behind {
    /// Nobody needs to know, or the operator has said it.
    off: bool,
    cluster: Vec<SocketAddr>,
    looking: JoinSet<Vec<SocketAddr>>,
    seen: BTreeSet<SocketAddr>,
    /// What was found last.
    known: BTreeSet<SocketAddr>,
}

impl Behind {
    /// Nothing is known yet.
    pub(super) fn new(options: &NodeOptions) -> Behind {
        let off = options.fallback_given || !options.desired.addresses.iter().any(|ip| Base::is_private(*ip));
        let (looking, seen, known) = (JoinSet::new(), BTreeSet::new(), BTreeSet::new());
        Behind { off, cluster: Vec::new(), looking, seen, known }
    }

    /// Looks behind these addresses, if they are others than before. Must be called inside a runtime.
    pub(super) fn look(&mut self, cluster: &[SocketAddr]) {
        if self.cluster != cluster {
            self.cluster = cluster.to_vec();
            self.looking = JoinSet::new();
            self.look_again();
        }
    }

    /// Looks behind the same addresses once more. A server found before that no connection happened to reach is asked by
    /// itself: it counts for as long as it takes connections.
    pub(super) fn look_again(&mut self) {
        if self.off || !self.looking.is_empty() {
            return;
        }
        self.seen.clear();
        for address in self.cluster.iter().take(MOST_ADDRESSES) {
            self.looking.spawn(endpoints(*address, TRIES));
        }
        for server in &self.known {
            self.looking.spawn(endpoints(*server, 1));
        }
    }

    /// Waits for the servers behind all addresses, if they are others than before; where none answered, nothing is known
    /// and this waits on. Safe to cancel.
    pub(super) async fn found(&mut self) -> Vec<SocketAddr> {
        loop {
            match self.looking.join_next().await {
                Some(endpoints) => self.seen.extend(endpoints.unwrap_or_default()),
                None => return std::future::pending().await,
            }
            if self.looking.is_empty() && !self.seen.is_empty() && self.seen != self.known {
                self.known.clone_from(&self.seen);
                return self.seen.iter().copied().collect();
            }
        }
    }
}
