//! The node, tended by a task of its own: placing rules may wait for a lock or a program, and nothing else waits with it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::life::options::NodeOptions;
use crate::node::firewall::Base;
use crate::node::leftovers::remove_node_cache_rules;
use crate::node::translation::endpoints;
use crate::node::{Node, Status};

/// How long a stop waits for the rules to go. nf_tables takes a millisecond; iptables may wait for its lock, and a stop
/// does not.
const WITHDRAWAL: Duration = Duration::from_secs(1);
/// How long it waits for the rest, which with iptables is several programs.
const TEARDOWN: Duration = Duration::from_secs(2);
/// Connections made to learn which servers are behind one address.
const TRIES: usize = 6;
/// Upstream addresses that are looked behind.
const MOST_ADDRESSES: usize = 8;

/// The way to the task that tends the node.
#[derive(Debug)]
pub(super) struct Tending {
    wishes: watch::Sender<Wish>,
    state: watch::Receiver<State>,
    addresses: Vec<IpAddr>,
    port: u16,
}

/// What the node should be like. Each wish replaces the one before.
#[derive(Debug, Clone, Default, PartialEq)]
struct Wish {
    number: u64,
    /// The addresses that answer.
    ready: BTreeSet<IpAddr>,
    /// What the cluster's zone is forwarded to.
    cluster: Vec<SocketAddr>,
    /// Leave the node as it is to be found afterwards.
    end: bool,
}

/// What became of the wishes.
#[derive(Debug, Clone, Default)]
struct State {
    /// The last wish that was fulfilled.
    number: u64,
    status: Status,
}

/// What changed for clients.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Steered {
    /// Addresses whose clients come here.
    pub(super) gained: Vec<IpAddr>,
    /// Addresses whose clients are sent elsewhere.
    pub(super) lost: Vec<IpAddr>,
}

impl Tending {
    /// Puts the node in order and keeps it so. Must be called inside a runtime.
    pub(super) fn start(options: &NodeOptions, port: u16) -> Tending {
        let (wishes, wished) = watch::channel(Wish::default());
        let (told, state) = watch::channel(State::default());
        tokio::spawn(tend(options.clone(), wished, told));
        Tending { wishes, state, addresses: options.desired.addresses.clone(), port }
    }

    /// Has clients come here for the addresses that are up. Says what is different from before.
    pub(super) fn steer(&mut self, up: &BTreeSet<SocketAddr>) -> Steered {
        let is_up = |ip: &IpAddr| up.contains(&SocketAddr::new(*ip, self.port));
        let ready: BTreeSet<IpAddr> = self.addresses.iter().copied().filter(is_up).collect();
        let before = self.wishes.borrow().ready.clone();
        if ready != before {
            self.wish(|wish| wish.ready.clone_from(&ready));
        }
        let without = |one: &BTreeSet<IpAddr>, other| one.difference(other).copied().collect();
        Steered { gained: without(&ready, &before), lost: without(&before, &ready) }
    }

    /// The cluster's zone is forwarded to these addresses.
    pub(super) fn follow(&mut self, cluster: Vec<SocketAddr>) {
        if self.wishes.borrow().cluster != cluster {
            self.wish(|wish| wish.cluster = cluster);
        }
    }

    /// Waits for news of the node. Safe to cancel.
    pub(super) async fn news(&mut self) -> Status {
        if self.state.changed().await.is_err() {
            return std::future::pending().await;
        }
        self.state.borrow_and_update().status.clone()
    }

    /// Takes the rules away that bring clients here, and waits until that is done.
    pub(super) async fn withdraw(&mut self) {
        self.wish(|wish| wish.ready.clear());
        self.fulfilled(WITHDRAWAL).await;
    }

    /// Leaves the node as it is to be found.
    pub(super) async fn teardown(mut self) {
        self.wish(|wish| {
            wish.ready.clear();
            wish.end = true;
        });
        self.fulfilled(TEARDOWN).await;
    }

    fn wish(&mut self, change: impl FnOnce(&mut Wish)) {
        self.wishes.send_modify(|wish| {
            wish.number += 1;
            change(wish);
        });
    }

    async fn fulfilled(&mut self, patience: Duration) {
        let number = self.wishes.borrow().number;
        let done = self.state.wait_for(|state| state.number >= number);
        if timeout(patience, done).await.is_err() {
            tracing::error!(
                "the node's rules and addresses could not be looked after in time; `dnslet cleanup` does it"
            );
        }
    }
}

async fn tend(options: NodeOptions, mut wishes: watch::Receiver<Wish>, told: watch::Sender<State>) {
    let mut node = Node::start(options.desired.clone()).await;
    let mut behind = Behind::new(&options);
    let (mut number, mut taken_over) = (0, false);
    loop {
        told.send_replace(State { number, status: node.status().clone() });
        tokio::select! {
            biased;
            changed = wishes.changed() => {
                if changed.is_err() {
                    return;
                }
                let wish = wishes.borrow_and_update().clone();
                number = wish.number;
                node.intercept(wish.ready.clone()).await;
                behind.look(&wish.cluster);
                if wish.end {
                    node.teardown(options.skip_teardown).await;
                    told.send_replace(State { number, status: node.status().clone() });
                    return;
                }
            }
            found = behind.found() => node.set_fallback(found).await,
            () = node.changed() => node.reconcile().await,
            () = tokio::time::sleep(options.sync_interval) => {
                node.reconcile().await;
                behind.look_again();
            }
        }
        if !taken_over && !node.status().intercepted.is_empty() {
            taken_over = true;
            // By itself: it may start programs that wait for a lock.
            tokio::spawn(take_over());
        }
    }
}

/// Rules that a killed node-cache left behind would keep clients here even while nobody answers.
async fn take_over() {
    let (removed, troubles) = remove_node_cache_rules().await;
    if !removed.is_empty() {
        tracing::info!("Removed {} rules that node-cache left behind", removed.len());
    }
    troubles.iter().for_each(|trouble| tracing::warn!("{trouble}"));
}

/// Which servers are behind the addresses that the cluster's zone is forwarded to. A Service's address is translated to
/// one of its endpoints, and a packet is translated only once: a rule of ours has to name the endpoints.
#[derive(Debug)]
struct Behind {
    /// Nobody needs to know, or the operator has said it.
    off: bool,
    cluster: Vec<SocketAddr>,
    looking: JoinSet<Vec<SocketAddr>>,
    seen: BTreeSet<SocketAddr>,
}

impl Behind {
    fn new(options: &NodeOptions) -> Behind {
        let off = options.fallback_given || !options.desired.addresses.iter().any(|ip| Base::is_private(*ip));
        Behind { off, cluster: Vec::new(), looking: JoinSet::new(), seen: BTreeSet::new() }
    }

    fn look(&mut self, cluster: &[SocketAddr]) {
        if self.cluster != cluster {
            self.cluster = cluster.to_vec();
            self.looking = JoinSet::new();
            self.look_again();
        }
    }

    fn look_again(&mut self) {
        if self.off || !self.looking.is_empty() {
            return;
        }
        self.seen.clear();
        for address in self.cluster.iter().take(MOST_ADDRESSES) {
            self.looking.spawn(endpoints(*address, TRIES));
        }
    }

    /// Waits for the endpoints of all addresses; where none answered, nothing is known and this waits on. Safe to cancel.
    async fn found(&mut self) -> Vec<SocketAddr> {
        loop {
            match self.looking.join_next().await {
                Some(endpoints) => self.seen.extend(endpoints.unwrap_or_default()),
                None => return std::future::pending().await,
            }
            if self.looking.is_empty() && !self.seen.is_empty() {
                return self.seen.iter().copied().collect();
            }
        }
    }
}
