//! What is wanted and what is there, brought together.

mod fallback;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::desired::{Desired, Rules};
use super::firewall::{Base, Firewall};
use super::links::{Links, listed};
use super::status::{Action, Status, Trouble};
use crate::sys::clock;
use crate::sys::process::{self, PortOf};

/// How long events are gathered: one command of an operator often causes several.
const SETTLE: Duration = Duration::from_millis(20);

/// The least time between two rounds of repair, so that somebody who undoes each of them costs ten rounds a second.
const PAUSE: Duration = Duration::from_millis(100);

/// The network of the node, kept as it is wanted. Lives on one runtime.
#[derive(Debug)]
pub struct Node {
    desired: Desired,
    /// `None` while there is no connection to the kernel, or none is needed.
    links: Option<Links>,
    firewall: Firewall,
    /// Whether the fallback was given or found. Until then it is what the node has already.
    knows_fallback: bool,
    /// Whether the rules in the kernel were looked at for a fallback.
    has_looked: bool,
    /// The addresses whose packets are to come here.
    ready: BTreeSet<IpAddr>,
    /// The base that is in place, or as much of it as could be placed.
    base: Option<Base>,
    status: Status,
    /// The troubles that last, as they were told.
    troubles: BTreeMap<Part, BTreeSet<String>>,
    /// When the events that are being gathered are to be acted upon.
    due: Option<Instant>,
    last: Option<Instant>,
}

/// What a trouble is with. Each part is looked at as a whole, which ends the troubles it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Links,
    Choice,
    Base,
    Intercept,
}

impl Node {
    /// Brings the node in order as far as it can; packets do not come here before [`Node::intercept`]. Never fails: what
    /// could not be done is in the log and in the status. No servers in `desired.fallback` means that they are not known
    /// before [`Node::set_fallback`]. Must be called inside a runtime.
    pub async fn start(desired: Desired) -> Node {
        let (firewall, trouble) = Firewall::choose(desired.rules).await;
        let mut node = Node {
            links: None,
            firewall,
            knows_fallback: !desired.fallback.is_empty(),
            has_looked: false,
            ready: BTreeSet::new(),
            base: None,
            status: Status::default(),
            troubles: BTreeMap::new(),
            due: None,
            last: None,
            desired,
        };
        node.status.rules = node.firewall.rules();
        node.report(Part::Choice, trouble);
        node.reconcile().await;
        node
    }

    /// Looks at everything and repairs what is not as wanted; otherwise changes nothing.
    pub async fn reconcile(&mut self) {
        self.place().await;
        self.lay().await;
        self.steer().await;
    }

    /// Sets the servers that link-local clients reach while nobody answers here; with none, nobody leads them anywhere.
    pub async fn set_fallback(&mut self, endpoints: Vec<SocketAddr>) {
        self.knows_fallback = true;
        self.desired.fallback = endpoints;
        self.lay().await;
    }

    /// Has the packets to exactly these addresses come here, untracked; with none, they go wherever the cluster sends
    /// them.
    pub async fn intercept(&mut self, ready: BTreeSet<IpAddr>) {
        self.ready = ready;
        self.steer().await;
    }

    /// Waits until the kernel tells of a change, and a little longer for what comes with it. [`Node::reconcile`] is to
    /// follow; the events of its own changes cause one more call, which finds nothing to do. Cancel-safe.
    pub async fn changed(&mut self) {
        let due = match self.due {
            Some(due) => due,
            None => {
                event(&mut self.links, &mut self.firewall).await;
                let settled = clock::now() + SETTLE;
                *self.due.insert(self.last.map_or(settled, |last| settled.max(last + PAUSE)))
            }
        };
        loop {
            tokio::select! {
                () = sleep_until(due.into()) => break,
                () = event(&mut self.links, &mut self.firewall) => {}
            }
        }
        self.due = None;
        self.last = Some(clock::now());
    }

    /// What is in place, and what was done.
    pub const fn status(&self) -> &Status {
        &self.status
    }

    /// Leaves the node as it is to be found: packets do not come here, and unless `keep_all`, what is ours goes. What stays
    /// are addresses that lead to the cluster's DNS, with the rules for that, because clients have them in their
    /// configuration, or that may yet, because its servers were not found; and what another instance uses, as during an
    /// upgrade.
    pub async fn teardown(&mut self, keep_all: bool) {
        self.intercept(BTreeSet::new()).await;
        if keep_all || self.is_shared().await {
            return;
        }
        let laid = self.base.take();
        let (mut keep, mut relied_on) = (Vec::new(), false);
        for address in self.desired.addresses.clone() {
            let servers = laid.as_ref().map_or_else(Vec::new, |base| base.fallback_of(address));
            if let Some(holder) = process::other_holder_of((address, self.desired.dns_port).into(), PortOf::Udp) {
                tracing::info!("Kept {address} - {holder} answers there");
                relied_on = true;
            } else if !servers.is_empty() && self.covers(address) {
                tracing::info!("Kept {address} - it leads to the cluster's DNS while nobody answers here");
            } else if self.may_fall_back() && Base::is_private(address) {
                tracing::info!(
                    "Kept {address} - clients may have it in their configuration, and the cluster's DNS servers for them \
                     were not found; `dnslet cleanup` removes it"
                );
            } else {
                continue;
            }
            keep.push(address);
        }
        let mut removed = match (&self.desired.link, &mut self.links) {
            (Some(name), Some(links)) => links.remove(name, &keep).await,
            _ => Vec::new(),
        };
        // Rules that another process relies on are its own matter from here on.
        let outcome = match laid {
            _ if relied_on => Ok(Vec::new()),
            Some(base) if keep.iter().any(|address| !base.fallback_of(*address).is_empty()) => {
                self.firewall.base(&Base { addresses: keep, ..base }).await.map(|_| Vec::new())
            }
            // What could not be read is not removed either.
            None if self.may_fall_back() && !self.has_looked => Ok(Vec::new()),
            _ => self.firewall.remove_base().await,
        };
        let trouble = outcome.map(|rules| removed.extend(rules)).err();
        self.report(Part::Base, trouble);
        removed.iter().for_each(|removed| tracing::info!("Removed {removed}"));
    }

    /// Whether another instance relies on what is here.
    async fn is_shared(&mut self) -> bool {
        match self.firewall.shared().await {
            Ok(false) => return false,
            Ok(true) => tracing::info!("Kept interface, addresses and rules - another instance is running"),
            Err(trouble) => self.report(Part::Base, Some(trouble)),
        }
        true
    }

    /// Whether a fallback is wanted whose servers are not known.
    fn may_fall_back(&self) -> bool {
        !self.knows_fallback && self.desired.rules != Rules::None
    }

    /// Until the fallback is known, takes over the one that the node has. Errors: why the rules could not be read.
    async fn take_over_fallback(&mut self) -> Result<(), Trouble> {
        let private: Vec<IpAddr> = self.desired.addresses.iter().copied().filter(|ip| Base::is_private(*ip)).collect();
        let Some(rules) = self.firewall.rules().filter(|_| !self.knows_fallback && !private.is_empty()) else {
            self.has_looked = true;
            return Ok(());
        };
        let mut found = fallback::of_nftables(&private)?;
        if found.is_empty() && !self.has_looked {
            found = match fallback::of_iptables(&private).await {
                // Nothing is written over those rules.
                Err(_) if rules == Rules::Nftables => found,
                read => read?,
            };
        }
        self.has_looked = true;
        // Somebody may have removed them since.
        let found: Vec<SocketAddr> = found.into_iter().collect();
        if !found.is_empty() && found != self.desired.fallback {
            tracing::info!("Kept the node's fallback to {} servers until the cluster's DNS is found", found.len());
            self.desired.fallback = found;
        }
        Ok(())
    }

    /// Whether rules for this address can be placed.
    fn covers(&self, address: IpAddr) -> bool {
        match &self.firewall {
            Firewall::Nftables(_) => true,
            Firewall::Iptables(iptables) => iptables.covers(address),
            Firewall::None => false,
        }
    }

    /// The interface and the addresses.
    async fn place(&mut self) {
        let Some(name) = &self.desired.link else { return };
        let links = match &mut self.links {
            Some(links) => links,
            None => match Links::connect() {
                Ok(links) => self.links.insert(links),
                Err(trouble) => return self.report(Part::Links, Some(trouble)),
            },
        };
        let (actions, troubles) = links.ensure(name, &self.desired.addresses).await;
        self.status.link = links.place().map(str::to_owned);
        actions.into_iter().for_each(|action| self.did(action));
        self.report(Part::Links, troubles);
    }

    /// The rules that outlive the process.
    async fn lay(&mut self) {
        if let Err(trouble) = self.take_over_fallback().await {
            // What is there is better than what would be written over it.
            return self.report(Part::Base, Some(trouble));
        }
        let base = Base::from(&self.desired);
        let trouble = match self.firewall.base(&base).await {
            Ok(written) => {
                if written {
                    let again = self.base.as_ref() == Some(&base) && !self.troubles.contains_key(&Part::Base);
                    let added = if again { "Added back" } else { "Added" };
                    tracing::info!("{added} rules - replies are not tracked{}", fallback_in_words(&base));
                    self.did(Action::BaseWritten);
                }
                if self.status.rules.is_some() {
                    let servers = base.addresses.iter().flat_map(|address| base.fallback_of(*address));
                    self.status.fallback = servers.collect::<BTreeSet<_>>().into_iter().collect();
                    self.base = Some(base);
                }
                None
            }
            Err(trouble) => {
                self.base.get_or_insert(base);
                Some(trouble)
            }
        };
        self.report(Part::Base, trouble);
    }

    /// The rules that bring packets here.
    async fn steer(&mut self) {
        if self.base.is_none() && self.may_fall_back() && !self.has_looked && !self.ready.is_empty() {
            // The base was not tried yet, and the ports are said with it.
            return;
        }
        let trouble = match self.firewall.intercept(&self.ready).await {
            Ok(action) => {
                let steered = self.ready.iter().copied().filter(|address| self.covers(*address)).collect();
                let before = std::mem::replace(&mut self.status.intercepted, steered);
                let words = |addresses: &BTreeSet<IpAddr>| listed(&addresses.iter().copied().collect::<Vec<_>>());
                if let Some(action) = action {
                    match action {
                        Action::Withdrawn => tracing::info!("Removed rules - intercept of {}", words(&before)),
                        _ if before == self.status.intercepted => {
                            tracing::info!("Added back rules - intercept of {}", words(&before));
                        }
                        _ => tracing::info!("Added rules - intercept of {}", words(&self.status.intercepted)),
                    }
                    self.did(action);
                }
                None
            }
            Err(trouble) => Some(trouble),
        };
        self.report(Part::Intercept, trouble);
    }

    fn did(&mut self, action: Action) {
        *self.status.actions.entry(action).or_default() += 1;
    }

    /// Counts the troubles of a part, and tells those that it did not have before.
    fn report(&mut self, part: Part, troubles: impl IntoIterator<Item = Trouble>) {
        let before = self.troubles.remove(&part).unwrap_or_default();
        for trouble in troubles {
            *self.status.troubles.entry(trouble.kind).or_default() += 1;
            if !before.contains(&trouble.text) {
                tracing::error!("{trouble}");
            }
            self.troubles.entry(part).or_default().insert(trouble.text);
        }
        self.status.lasting = self.troubles.values().flatten().cloned().collect();
    }
}

/// Waits for an event of either kind. Cancel-safe.
async fn event(links: &mut Option<Links>, firewall: &mut Firewall) {
    let links = async {
        match links {
            Some(links) => links.changed().await,
            None => pending().await,
        }
    };
    tokio::select! {
        () = links => {}
        () = firewall.changed() => {}
    }
}

fn fallback_in_words(base: &Base) -> String {
    let led: Vec<IpAddr> = base.addresses.iter().copied().filter(|ip| !base.fallback_of(*ip).is_empty()).collect();
    match led.as_slice() {
        [] => String::new(),
        led => format!(", clients of {} reach the cluster's DNS while nobody answers here", listed(led)),
    }
}

#[cfg(test)]
mod tests;
