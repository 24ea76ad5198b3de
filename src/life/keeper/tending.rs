//! The node, tended by a thread of its own: placing rules may wait for the kernel, a lock or a program, and nothing else
//! waits with it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::life::options::NodeOptions;
use crate::node::{Node, Status};
use crate::sys::clock;

use super::behind::Behind;
use super::succession::Succession;

/// How long a stop waits for the rules to go. nf_tables takes a millisecond; iptables may wait for its lock, and a stop
/// does not.
const WITHDRAWAL: Duration = Duration::from_secs(1);
/// How long it waits for the rest, which with iptables is several programs.
const TEARDOWN: Duration = Duration::from_secs(2);
/// Rules that could not be taken away are tried again after so long.
const RETRY: Duration = Duration::from_secs(1);

/// The way to the thread that tends the node.
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
    /// Puts the node in order and keeps it so. The error is that there is no thread or no event queue to be had.
    pub(super) fn start(options: &NodeOptions, port: u16) -> io::Result<Tending> {
        let (wishes, wished) = watch::channel(Wish::default());
        let (told, state) = watch::channel(State::default());
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let addresses = options.desired.addresses.clone();
        let options = options.clone();
        thread::Builder::new()
            .name("dnslet-node".to_owned())
            .spawn(move || runtime.block_on(tend(options, wished, told)))?;
        Ok(Tending { wishes, state, addresses, port })
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
    ///
    /// # Errors
    /// Nobody tends the node any more, and nobody would take the rules away.
    pub(super) async fn news(&mut self) -> Result<Status> {
        self.state.changed().await.context("the node is no longer tended; the log tells why")?;
        Ok(self.state.borrow_and_update().status.clone())
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

    /// Waits until what was wished is so, for as long as the rules may take to go. Says whether it is.
    pub(super) async fn has_caught_up(&self) -> bool {
        self.is_fulfilled(WITHDRAWAL).await
    }

    fn wish(&mut self, change: impl FnOnce(&mut Wish)) {
        self.wishes.send_modify(|wish| {
            wish.number += 1;
            change(wish);
        });
    }

    async fn fulfilled(&self, patience: Duration) {
        if !self.is_fulfilled(patience).await {
            tracing::error!(
                "the node's rules and addresses could not be looked after in time; `dnslet cleanup` does it"
            );
        }
    }

    async fn is_fulfilled(&self, patience: Duration) -> bool {
        let number = self.wishes.borrow().number;
        // With a receiver of its own: what it sees is still news. An error is the end of the thread, which fulfils nothing.
        let mut state = self.state.clone();
        let done = state.wait_for(|state| state.number >= number);
        matches!(timeout(patience, done).await, Ok(Ok(_)))
    }
}

async fn tend(options: NodeOptions, mut wishes: watch::Receiver<Wish>, told: watch::Sender<State>) {
    let mut node = Node::start(options.desired.clone()).await;
    let mut behind = Behind::new(&options);
    let mut succession = Succession::new(&options.desired.addresses, options.desired.dns_port);
    let (mut wish, mut left) = (Wish::default(), false);
    // Kept over iterations: events must not put the regular look off.
    let mut next_sync = clock::now() + options.sync_interval;
    loop {
        told.send_replace(State { number: wish.number, status: node.status().clone() });
        tokio::select! {
            biased;
            changed = wishes.changed() => {
                if changed.is_err() {
                    return;
                }
                wish = wishes.borrow_and_update().clone();
                node.intercept(wish.ready.clone()).await;
                behind.look(&wish.cluster);
                if wish.end {
                    node.teardown(options.skip_teardown).await;
                    told.send_replace(State { number: wish.number, status: node.status().clone() });
                    return;
                }
            }
            more = succession.ended() => left = more,
            found = behind.found() => node.set_fallback(found).await,
            () = node.changed() => node.reconcile().await,
            () = tokio::time::sleep(RETRY), if is_refused(&node, &wish) => node.intercept(wish.ready.clone()).await,
            () = tokio::time::sleep_until(next_sync.into()) => {
                node.reconcile().await;
                behind.look_again();
                if std::mem::take(&mut left) {
                    succession.again();
                }
                next_sync = clock::now() + options.sync_interval;
            }
        }
        succession.go_on(node.status());
    }
}

/// Whether rules that were to go are still there, so that clients are where nobody may answer.
fn is_refused(node: &Node, wish: &Wish) -> bool {
    !node.status().intercepted.is_subset(&wish.ready)
}
