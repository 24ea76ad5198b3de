//! What earlier processes left on the node: our own that were killed or asked to leave things, and node-cache.
//!
//! node-cache's rules have no owner and no condition: when it was killed, its clients find nobody at an address that
//! nothing translates. So an agent that takes over its work removes them once its own rules are in place, and
//! `dnslet cleanup` removes everything. Ours is known by its names, node-cache's by the comments of its rules and the name
//! of its interface; nothing else is touched.

use std::net::{IpAddr, SocketAddr};

use super::desired::Rules;
use super::diagnosis::concerned;
use super::links::Links;
use super::status::Trouble;
use crate::sys::process::{PortOf, listeners, other_holder_of};

mod chains;
mod native;
mod tables;
#[cfg(test)]
mod tests;

use chains::Meant;

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// What was removed, one thing each, in words.
    pub things: Vec<String>,
    /// What could not be removed.
    pub troubles: Vec<Trouble>,
    /// What was not looked for, in words.
    pub unseen: Vec<String>,
}

/// The interface of node-cache.
const NODE_CACHE_LINK: &str = "nodelocaldns";

/// The port that node-cache answers on.
const NODE_CACHE_PORT: u16 = 53;

/// What a new agent made of what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    /// What was removed, one thing each, in words.
    pub removed: Vec<String>,
    /// What could not be looked for or removed at this time.
    pub troubles: Vec<Trouble>,
    /// What cannot be seen from here however often it is tried, and what follows, as a sentence for the log.
    pub unseen: Option<String>,
    /// Whether nothing is left to do; otherwise another call later may do more.
    pub complete: bool,
}

/// Removes the rules of others that would keep clients here while nobody answers, now that ours of the kind `in_force` are
/// in place for `addresses`: node-cache's for them, and for any address at which nobody else listens; and those of an
/// agent that ran here with the other kind of rules, unless some other process listens at one of the addresses. Starts
/// no program where the kernel has nothing of the sort. Must be called inside a runtime.
pub async fn take_over(addresses: &[IpAddr], dns_port: u16, in_force: Rules) -> TakenOver {
    let other = addresses.iter().any(|address| is_held(*address, &[dns_port]));
    let mut taken = TakenOver { complete: !other, ..TakenOver::default() };
    if tables::may_hold_rules() {
        let goes = |address: Option<IpAddr>| {
            let is_ours = |address| dns_port == NODE_CACHE_PORT && addresses.contains(&address);
            let is_dead = |address| !is_held(address, &[NODE_CACHE_PORT, dns_port]);
            address.is_some_and(|address| is_ours(address) || is_dead(address))
        };
        let ours = in_force == Rules::Nftables && !other;
        let swept = chains::sweep(Meant { node_cache: &goes, ours }).await;
        taken.complete &= swept.left == 0;
        taken.removed = swept.removed;
        taken.troubles = swept.troubles;
        taken.unseen = (!swept.unseen.is_empty()).then(|| unseen(&swept.unseen));
    }
    if in_force == Rules::Iptables && !other {
        match tables::remove_base(&mut taken.removed) {
            Ok(done) => taken.complete &= done,
            Err(trouble) => taken.troubles.push(trouble),
        }
    }
    taken.complete &= taken.troubles.is_empty();
    taken
}

/// Whether another process listens at the address, on one of the ports.
fn is_held(address: IpAddr, ports: &[u16]) -> bool {
    let at = |port: &u16, transport| other_holder_of(SocketAddr::new(address, *port), transport).is_some();
    ports.iter().any(|port| at(port, PortOf::Udp) || at(port, PortOf::Tcp))
}

fn unseen(what: &[String]) -> String {
    format!(
        "rules of earlier agents could not all be looked for: {}; if node-cache left rules there, its clients get no answer \
         while this agent is away; run `dnslet cleanup` where the program is, with the agent stopped, or delete the rules \
         with the comment \"NodeLocal DNS Cache\" by hand",
        what.join("; ")
    )
}

/// Removes everything of ours and of node-cache's: rules, tables, the interface of this name, and what is on `lo` of
/// `addresses`. `dns_port` is where an agent would answer. Must be called inside a runtime.
///
/// # Errors
/// Why nothing was removed, in words: an agent or node-cache is alive, or that cannot be seen.
pub async fn remove_all(link: &str, addresses: &[IpAddr], dns_port: u16) -> Result<Removed, String> {
    if let Some(living) = living(link, addresses, dns_port).await? {
        return Err(format!("an agent runs here, {living}; stop it first"));
    }
    let mut removed = Removed::default();
    removed.troubles.extend(tables::remove(&mut removed.things).err());
    let swept = chains::sweep(Meant { node_cache: &|_| true, ours: true }).await;
    removed.things.extend(swept.removed);
    removed.troubles.extend(swept.troubles);
    removed.unseen = swept.unseen;
    remove_links(link, addresses, &mut removed).await;
    Ok(removed)
}

/// The process that relies on what is here, in words: it owns rules, or listens at one of the addresses, at one that rules
/// are about, or at one on the interface.
///
/// # Errors
/// That it cannot be seen.
async fn living(link: &str, addresses: &[IpAddr], dns_port: u16) -> Result<Option<String>, String> {
    let owner =
        tables::owner().map_err(|trouble| format!("it cannot be seen whether an agent runs here: {trouble}"))?;
    if owner.is_some() {
        return Ok(owner);
    }
    let mut concerned = concerned(&[link, NODE_CACHE_LINK]).await;
    concerned.extend(addresses);
    // Whoever listens at every address is a server of another kind, which was there before.
    let at = |port| listeners(port).into_iter().find(|one| concerned.contains(&one.address.ip().to_canonical()));
    let listener = at(dns_port).or_else(|| at(NODE_CACHE_PORT).filter(|_| dns_port != NODE_CACHE_PORT));
    Ok(listener.map(|one| format!("{}, which listens at {}", one.holder, one.address)))
}

/// The rules go before the addresses: a packet to an address that has gone is not to be kept from the cluster's DNS.
async fn remove_links(link: &str, addresses: &[IpAddr], removed: &mut Removed) {
    let mut links = match Links::connect() {
        Ok(links) => links,
        Err(trouble) => return removed.troubles.push(trouble),
    };
    links.expect(addresses);
    let names = [Some(link), (link != NODE_CACHE_LINK).then_some(NODE_CACHE_LINK)];
    for name in names.into_iter().flatten() {
        let (things, trouble) = links.try_remove(name, &[]).await;
        removed.things.extend(things);
        removed.troubles.extend(trouble);
    }
}
