//! The questions to our own sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::dns::Protocol;
use crate::life::channel::Probed;
use crate::observe::probe;

/// How long a probe may take.
const DEADLINE: Duration = Duration::from_secs(1);
/// How often a socket is asked over TCP.
const TCP_PERIOD: Duration = Duration::from_secs(1);
/// Tells the rules that these packets are ours: they reach the sockets even while clients' do not.
const MARK: u32 = crate::node::firewall::PROBE_MARK;

/// Probes under way and their last results. A probe ends by its deadline, so a socket has a handful under way at most.
#[derive(Debug, Default)]
pub(super) struct Probes {
    addresses: BTreeSet<SocketAddr>,
    under_way: JoinSet<Probed>,
    tcp_due: Option<Instant>,
    /// The last result for each socket, until it is taken.
    results: BTreeMap<(SocketAddr, bool), Probed>,
}

impl Probes {
    /// The sockets to ask from here on.
    pub(super) fn watch(&mut self, addresses: BTreeSet<SocketAddr>) {
        self.addresses = addresses;
        self.results.retain(|(address, _), _| self.addresses.contains(address));
    }

    /// Whether every socket that is asked is among these.
    pub(super) fn are_all_in(&self, up: &BTreeSet<SocketAddr>) -> bool {
        self.addresses.is_subset(up)
    }

    /// Asks all sockets anew: what is under way may have been sent while the addresses were on no interface.
    pub(super) fn again(&mut self, now: Instant) {
        self.under_way.abort_all();
        self.ask_all(now);
    }

    /// Asks all sockets over UDP and TCP.
    pub(super) fn ask_all(&mut self, now: Instant) {
        self.tcp_due = None;
        self.ask(now);
    }

    /// Asks every socket over UDP, and over TCP when it is time.
    pub(super) fn ask(&mut self, now: Instant) {
        let with_tcp = self.tcp_due.is_none_or(|due| due <= now);
        if with_tcp {
            self.tcp_due = Some(now + TCP_PERIOD);
        }
        for listen in &self.addresses {
            for tcp in [false, true] {
                if !tcp || with_tcp {
                    self.under_way.spawn(ask(*listen, tcp));
                }
            }
        }
    }

    /// Waits for the next result. Safe to cancel.
    pub(super) async fn heard(&mut self) -> Probed {
        loop {
            match self.under_way.join_next().await {
                Some(Ok(probed)) if self.addresses.contains(&probed.listen) => {
                    self.results.insert((probed.listen, probed.tcp), probed.clone());
                    return probed;
                }
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// The last result of each socket since they were last taken.
    pub(super) fn take(&mut self) -> Vec<Probed> {
        std::mem::take(&mut self.results).into_values().collect()
    }
}

async fn ask(listen: SocketAddr, tcp: bool) -> Probed {
    let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
    Probed { listen, tcp, result: probe::ask(listen, protocol, DEADLINE, Some(MARK)).await }
}
