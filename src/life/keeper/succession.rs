//! What others left on the node before us: rules that keep clients here even while nobody answers.

use std::net::IpAddr;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::node::Status;
use crate::node::leftovers::{TakenOver, take_over};

/// Between the intercept and a try, which reads every socket of the machine: while clients move here, the processor is
/// theirs.
const PAUSE: Duration = Duration::from_secs(1);

/// The removal of those rules, tried until nothing is left to do. It runs beside everything else: it may start programs
/// that wait for a lock.
#[derive(Debug)]
pub(super) struct Succession {
    addresses: Vec<IpAddr>,
    port: u16,
    /// It is time for another try.
    due: bool,
    trying: JoinSet<TakenOver>,
    /// What was said and is not said again.
    said: Option<String>,
}

impl Succession {
    /// Nothing was tried yet.
    pub(super) fn new(addresses: &[IpAddr], port: u16) -> Succession {
        Succession { addresses: addresses.to_vec(), port, due: true, trying: JoinSet::new(), said: None }
    }

    /// Tries when it is time, once our own rules are in place. Must be called inside a runtime.
    pub(super) fn go_on(&mut self, status: &Status) {
        let Some(rules) = status.rules.filter(|_| self.due && !status.intercepted.is_empty()) else { return };
        self.due = false;
        let (addresses, port) = (self.addresses.clone(), self.port);
        self.trying.spawn(async move {
            tokio::time::sleep(PAUSE).await;
            take_over(&addresses, port, rules).await
        });
    }

    /// Waits for the end of a try, and tells what it did. True if another one may do more. Safe to cancel.
    pub(super) async fn ended(&mut self) -> bool {
        let taken = match self.trying.join_next().await {
            Some(taken) => taken.unwrap_or_default(),
            None => std::future::pending().await,
        };
        taken.removed.iter().for_each(|thing| tracing::info!("Removed {thing} - left behind"));
        taken.troubles.iter().for_each(|trouble| tracing::warn!("{trouble}"));
        if let Some(unseen) = taken.unseen.filter(|unseen| self.said.as_ref() != Some(unseen)) {
            tracing::error!("{unseen}");
            self.said = Some(unseen);
        }
        !taken.complete
    }

    /// Another try is to be made.
    pub(super) fn again(&mut self) {
        self.due = true;
    }
}
