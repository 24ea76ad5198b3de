//! What the kernel says about this node's part in DNS, read and never changed, for a person who wants to know.
//!
//! What cannot be seen is not an error: each part says by itself what kept it from being read, so that the rest is still
//! told.

mod conntrack;
mod iptables;
mod kernel;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::pin::pin;

use futures_util::TryStreamExt;
use nix::ifaddrs::getifaddrs;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo};

use super::desired::Rules;
use super::firewall::{Firewall, Installed, installed};
use crate::sys::process::netlink_holder;

pub use conntrack::Tracked;
pub use iptables::Chains;
pub use kernel::{Ipv6, Kernel, ipv6};

/// What to look at.
#[derive(Clone, Debug)]
pub struct Question {
    /// The interface that would have the addresses.
    pub link: String,
    /// The addresses of the cache; empty if they are to be found out.
    pub addresses: Vec<IpAddr>,
    /// The ports of DNS and of `/health`.
    pub ports: [u16; 2],
    /// The wanted kind of rules.
    pub rules: Rules,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The addresses that were asked about, or found in rules, or on the interface.
    pub addresses: Vec<IpAddr>,
    /// The interface of that name, if there is one.
    pub link: Seen<Option<Interface>>,
    /// The interfaces that have each of the addresses.
    pub places: BTreeMap<IpAddr, Vec<String>>,
    /// Our tables of nf_tables.
    pub tables: Seen<Vec<Table>>,
    /// Rules of iptables, ours and node-cache's.
    pub iptables: Seen<Chains>,
    /// Entries of connection tracking for the addresses.
    pub tracked: Seen<Tracked>,
    /// What the kernel can do.
    pub kernel: Kernel,
    /// Which rules an agent could place here; the sentence says why none.
    pub placeable: Result<Rules, String>,
}

/// A fact, or what keeps it from being seen.
pub type Seen<T> = Result<T, Unseen>;

/// What keeps a fact from being seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseen {
    /// It takes root, or CAP_NET_ADMIN.
    Forbidden,
    /// Something else, in words.
    Failed(String),
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What it is, as in `dummy`; `None` for network cards and `lo`.
    pub kind: Option<String>,
    /// Whether it is switched on.
    pub up: bool,
}

/// A table of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The process it ends with: its name if that can be seen, else the number of its socket.
    pub holder: Option<String>,
    /// How many rules it has.
    pub rules: usize,
    /// The addresses whose packets it brings here, and how many came.
    pub intercepted: BTreeMap<IpAddr, u64>,
    /// The addresses that lead elsewhere while they are not intercepted, and how many packets did.
    pub fallback: BTreeMap<IpAddr, u64>,
}

/// Looks at everything. Must be called inside a runtime.
pub async fn look(question: &Question) -> Facts {
    let link = interface(&question.link).await.map_err(Unseen::from);
    let tables = installed().map(|tables| tables.iter().map(Table::from).collect::<Vec<_>>());
    let tables = tables.map_err(|trouble| match kernel::may_change_network() {
        false => Unseen::Forbidden,
        true => Unseen::Failed(trouble.text),
    });
    let iptables = iptables::look().await;
    let placed = placed();
    let addresses = match question.addresses.as_slice() {
        [] => found(&tables, &iptables, &placed, &question.link),
        given => given.to_vec(),
    };
    let at =
        |address: &IpAddr| placed.iter().filter(|(_, there)| there == address).map(|(name, _)| name.clone()).collect();
    let places = addresses.iter().map(|address| (*address, at(address))).collect();
    let tracked = conntrack::look(&addresses, &question.ports);
    let placeable = match Firewall::choose(question.rules).await {
        (firewall, None) => Ok(firewall.rules().unwrap_or(Rules::None)),
        (_, Some(trouble)) => Err(trouble.text),
    };
    Facts { addresses, link, places, tables, iptables, tracked, kernel: kernel::look(&question.link), placeable }
}

/// The addresses of an agent that is here or was: those in rules, else those on its interface.
fn found(tables: &Seen<Vec<Table>>, iptables: &Seen<Chains>, placed: &[(String, IpAddr)], link: &str) -> Vec<IpAddr> {
    let tables = tables.as_deref().unwrap_or_default().iter();
    let mut found: BTreeSet<IpAddr> =
        tables.flat_map(|table| table.intercepted.keys().chain(table.fallback.keys())).copied().collect();
    found.extend(iptables.iter().flat_map(|chains| &chains.addresses));
    if found.is_empty() {
        // Every interface that is up has an address of its own making as well.
        let own_making = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let there = placed.iter().filter(|(name, address)| name == link && !own_making(address));
        found.extend(there.map(|(_, address)| *address));
    }
    found.into_iter().collect()
}

/// Every address that an agent or node-cache has, or had, here: in rules of whichever kind, and on interfaces of these
/// names. What cannot be seen is left out.
pub(super) async fn concerned(links: &[&str]) -> BTreeSet<IpAddr> {
    let rules = installed().unwrap_or_default().into_iter().flat_map(|table| table.rules);
    let words =
        |comment: &str| comment.split(' ').map(|word| word.trim_end_matches(':').parse().ok()).collect::<Vec<_>>();
    let mut found: BTreeSet<IpAddr> = rules.flat_map(|rule| words(&rule.comment)).flatten().collect();
    if let Ok(chains) = iptables::look().await {
        found.extend(chains.addresses.iter().chain(&chains.node_cache_addresses));
    }
    let on_links = placed().into_iter().filter(|(name, _)| links.contains(&name.as_str()));
    found.extend(on_links.map(|(_, address)| address));
    found
}

/// Each address of this network namespace with its interface.
fn placed() -> Vec<(String, IpAddr)> {
    let all = getifaddrs().into_iter().flatten();
    let each = all.filter_map(|entry| {
        let address = entry.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let ip = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
        Some((entry.interface_name, ip))
    });
    each.collect()
}

async fn interface(name: &str) -> io::Result<Option<Interface>> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let connection = tokio::spawn(connection);
    let answer = pin!(handle.link().get().match_name(name.to_owned()).execute()).try_next().await;
    connection.abort();
    let message = match answer {
        Ok(Some(message)) => message,
        Ok(None) => return Ok(None),
        Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ENODEV => return Ok(None),
        Err(rtnetlink::Error::NetlinkError(error)) => return Err(error.to_io()),
        Err(error) => return Err(io::Error::other(error.to_string())),
    };
    let infos = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => Some(infos),
        _ => None,
    });
    let kind = infos.into_iter().flatten().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    });
    Ok(Some(Interface { name: name.to_owned(), kind, up: message.header.flags.contains(LinkFlags::Up) }))
}

impl From<&Installed> for Table {
    fn from(installed: &Installed) -> Self {
        let (mut intercepted, mut fallback) = (BTreeMap::new(), BTreeMap::new());
        for rule in &installed.rules {
            let packets = rule.packets.unwrap_or_default();
            let enters = ["prerouting", "output"].contains(&rule.chain.as_str());
            let leads_away = ["fallback_prerouting", "fallback_output"].contains(&rule.chain.as_str());
            if let Some(address) = rule.comment.strip_prefix("to ").and_then(|address| address.parse().ok())
                && enters
            {
                *intercepted.entry(address).or_default() += packets;
            } else if let Some(rest) = rule.comment.strip_prefix("no cache at ")
                && let Some((address, _)) = rest.split_once(": ")
                && let Ok(address) = address.parse()
                && leads_away
            {
                *fallback.entry(address).or_default() += packets;
            }
        }
        let named = |number| netlink_holder(libc::NETLINK_NETFILTER, number);
        let holder = installed.owner.map(|number| named(number).unwrap_or_else(|| format!("socket {number}")));
        Self { name: installed.table.clone(), holder, rules: installed.rules.len(), intercepted, fallback }
    }
}

impl From<io::Error> for Unseen {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => Unseen::Forbidden,
            _ => Unseen::Failed(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
