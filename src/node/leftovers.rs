//! What earlier processes left on the node: our own that were killed or asked to leave things, and node-cache.
//!
//! node-cache's rules have no owner and no condition: when it was killed, its clients find nobody at an address that
//! nothing translates. So an agent that takes over its work removes them once its own rules are in place, and
//! `dnslet cleanup` removes everything. Ours is known by its names, node-cache's by the comments of its rules and the name
//! of its interface; nothing else is touched.

use std::net::IpAddr;

use super::links::Links;
use super::status::Trouble;

mod chains;
mod native;
mod tables;
#[cfg(test)]
mod tests;

use chains::Whose;

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

/// Removes the rules that node-cache left in iptables, and returns them and what could not be removed. To be called when
/// our own are in place. Where iptables is the nf_tables one, its programs need not be here; where nobody has a table
/// `raw`, there is nothing to look for, and no program is started.
pub async fn remove_node_cache_rules() -> (Vec<String>, Vec<Trouble>) {
    if !tables::raw_exists() {
        return (Vec::new(), Vec::new());
    }
    let swept = chains::sweep(Whose::NodeCache).await;
    (swept.removed, swept.troubles)
}

/// Removes everything of ours and of node-cache's: rules, tables, the interface of this name, and what is on `lo` of
/// `addresses`. Must be called inside a runtime.
///
/// # Errors
/// The agent that is alive and owns rules, in words; nothing was removed then.
pub async fn remove_all(link: &str, addresses: &[IpAddr]) -> Result<Removed, String> {
    let mut removed = Removed::default();
    match tables::owner() {
        Ok(Some(owner)) => return Err(owner),
        Ok(None) => removed.troubles.extend(tables::remove(&mut removed.things).err()),
        Err(trouble) => removed.troubles.push(trouble),
    }
    let swept = chains::sweep(Whose::All).await;
    removed.things.extend(swept.removed);
    removed.troubles.extend(swept.troubles);
    removed.unseen = swept.unseen;
    remove_links(link, addresses, &mut removed).await;
    Ok(removed)
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
