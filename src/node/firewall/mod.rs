//! Which packets reach the cache, and where they go while nobody answers: rules of the kernel's packet filter.
//!
//! Two sets of rules, with two lives.
//!
//! - **Intercept**: packets to the cache's addresses, and its replies, are not tracked. Untracked packets skip every
//!   NAT chain, so a query to a Service address stays on this node, and no query costs an entry of the connection
//!   tracking table. These rules are in force only for addresses whose probes are answered, and the kernel removes them
//!   when this process ends, however it ends: its clients are then back at the cluster's DNS.
//! - **Base**: what has to hold while the intercept is away. Replies and this process's own probes are never tracked (a
//!   tracked late reply would keep the client's next packet from being translated), and for addresses that only this
//!   node knows, packets that are tracked are sent to the cluster's DNS servers. The base outlives the process and is
//!   shared by all instances on a node.
//!
//! There are two ways to place them. [`Nftables`] speaks nf_tables to the kernel, in one transaction for each set, with
//! a table that belongs to a socket of this process. [`Iptables`] is for nodes where that does not work or is not enough:
//! kernels before 5.12, and nodes whose filter table drops untracked packets.
//!
//! Example: `-localip 169.254.20.10,10.96.0.10` with two cluster DNS servers. [`Firewall::base`] writes the base once;
//! a probe of both addresses is answered, and [`Firewall::intercept`] with both places the intercept. The server hangs:
//! `intercept` with no address withdraws it, and a client of 169.254.20.10 is sent to one of the two servers, a client of
//! 10.96.0.10 wherever kube-proxy sends it. Each call looks at what the kernel has, so calling again repairs what somebody
//! else removed and otherwise does nothing.
//!
//! Nothing here decides whether an address is ready, and nothing here touches rules of others.

mod choose;
pub(super) mod iptables;
mod nftables;
#[cfg(test)]
mod packets;

use std::collections::BTreeSet;
use std::future;
use std::net::{IpAddr, SocketAddr};

pub use iptables::Iptables;
pub use nftables::{Installed, InstalledRule, Nftables, installed};

use super::desired::{Desired, Rules};
use super::status::{Action, Trouble};

/// The mark (SO_MARK) of the packets that probe the cache. They reach its sockets whatever the clients' packets do.
pub const PROBE_MARK: u32 = 0x35;

/// How many servers of a family take part in the fallback; more would make the rules long and gain nothing.
const MOST_ENDPOINTS: usize = 8;

/// One way to place rules.
#[derive(Debug)]
pub enum Firewall {
    /// nf_tables, by netlink.
    Nftables(Box<Nftables>),
    /// iptables, by `iptables-restore`.
    Iptables(Iptables),
    /// No rules.
    None,
}

/// What the rules are made from, apart from the addresses that are ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The addresses of the cache.
    pub addresses: Vec<IpAddr>,
    /// The port of DNS.
    pub dns_port: u16,
    /// The port of `/health`.
    pub health_port: u16,
    /// The cluster's DNS servers. They must be endpoints: a packet is translated once, so a Service address would
    /// not be translated further.
    pub fallback: Vec<SocketAddr>,
}

impl Firewall {
    /// Picks the way that `wanted` asks for, or that this node can do, and says in the log which and why. The trouble is
    /// that the wanted way does not work; there are no rules then.
    pub async fn choose(wanted: Rules) -> (Firewall, Option<Trouble>) {
        choose::choose(wanted).await
    }

    /// The way in use, for metrics and people; `None` where there are no rules.
    pub fn rules(&self) -> Option<Rules> {
        match self {
            Firewall::Nftables(_) => Some(Rules::Nftables),
            Firewall::Iptables(_) => Some(Rules::Iptables),
            Firewall::None => None,
        }
    }

    /// Makes the kernel have this base, and returns whether something had to be written. Call it before
    /// [`Firewall::intercept`], which takes the ports from here.
    ///
    /// # Errors
    /// What is missing and what follows from it. What could be placed is in place.
    pub async fn base(&mut self, base: &Base) -> Result<bool, Trouble> {
        match self {
            Firewall::Nftables(nftables) => nftables.base(base).await,
            Firewall::Iptables(iptables) => iptables.base(base).await,
            Firewall::None => Ok(false),
        }
    }

    /// Makes the kernel intercept exactly the packets of these addresses; with none, the intercept is withdrawn.
    /// Returns what had to be done, if anything.
    ///
    /// # Errors
    /// Why it could not be done. The kernel has what it had.
    pub async fn intercept(&mut self, ready: &BTreeSet<IpAddr>) -> Result<Option<Action>, Trouble> {
        match self {
            Firewall::Nftables(nftables) => nftables.intercept(ready).await,
            Firewall::Iptables(iptables) => iptables.intercept(ready).await,
            Firewall::None => Ok(None),
        }
    }

    /// Removes the base, unless another instance is running, and returns what was removed in words.
    ///
    /// # Errors
    /// Why it could not be removed, and what to type instead.
    pub async fn remove_base(&mut self) -> Result<Vec<String>, Trouble> {
        match self {
            Firewall::Nftables(nftables) => nftables.remove_base().await,
            Firewall::Iptables(iptables) => iptables.remove_base().await,
            Firewall::None => Ok(Vec::new()),
        }
    }

    /// Whether another instance is running on this node. Only nf_tables knows.
    ///
    /// # Errors
    /// Why that is not known.
    pub async fn shared(&mut self) -> Result<bool, Trouble> {
        match self {
            Firewall::Nftables(nftables) => nftables.shared().await,
            Firewall::Iptables(_) | Firewall::None => Ok(false),
        }
    }

    /// Waits until somebody else changed our rules, or may have. Pends for ever where nobody tells. Cancel-safe.
    pub async fn changed(&mut self) {
        match self {
            Firewall::Nftables(nftables) => nftables.changed().await,
            Firewall::Iptables(_) | Firewall::None => future::pending().await,
        }
    }
}

impl Base {
    /// The servers that packets to `address` go to while they are not intercepted: those of its family, and only for an
    /// address that nobody but this node answers for.
    pub fn fallback_of(&self, address: IpAddr) -> Vec<SocketAddr> {
        let mut servers = self.fallback.clone();
        // A server at an address of the cache would be the cache again.
        servers.retain(|server| server.is_ipv4() == address.is_ipv4() && !self.addresses.contains(&server.ip()));
        servers.sort_unstable();
        servers.dedup();
        servers.truncate(if Self::is_private(address) { MOST_ENDPOINTS } else { 0 });
        servers
    }

    /// Whether nobody but this node answers for the address. In IPv4 those are the link-local ones. In IPv6 unique local
    /// ones serve too, and a Service may have such an address: kube-proxy translates earlier in the same hook, and a
    /// packet is translated once, so its word counts where it runs.
    pub fn is_private(address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local() || address.is_unique_local(),
        }
    }
}

impl From<&Desired> for Base {
    fn from(desired: &Desired) -> Self {
        Self {
            addresses: desired.addresses.clone(),
            dns_port: desired.dns_port,
            health_port: desired.health_port,
            fallback: desired.fallback.clone(),
        }
    }
}
