//! Tables of nf_tables that were left behind. Those of an agent that lives are not: it owns one.

use std::io::ErrorKind;

use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableMessage};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};

use super::native;
use crate::node::firewall::{Installed, installed};
use crate::node::netfilter::{Change, Netfilter};
use crate::node::status::{Kind, Trouble};
use crate::sys::process::netlink_holder;

/// The table that outlives an agent.
const BASE: &str = "dnslet";

/// Who lives and owns one of our tables, in words.
///
/// # Errors
/// That the tables could not be listed.
pub(super) fn owner() -> Result<Option<String>, Trouble> {
    let owned = installed()?.into_iter().find_map(|Installed { table, owner, .. }| Some((table, owner?)));
    Ok(owned.map(|(table, owner)| {
        let holder = netlink_holder(libc::NETLINK_NETFILTER, owner);
        let holder = holder.unwrap_or_else(|| format!("a process that is not seen from here (netlink port {owner})"));
        format!("{holder}, which owns the table inet {table}")
    }))
}

/// Whether iptables may have rules of node-cache or of an agent: a table `raw` of either family, where both place most of
/// theirs, or a chain with a name of ours. True where that cannot be seen.
pub(super) fn may_hold_rules() -> bool {
    let legacy = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    let has_raw = |path| match std::fs::read_to_string(path) {
        Ok(names) => names.lines().any(|name| name == "raw"),
        Err(error) => error.kind() != ErrorKind::NotFound,
    };
    if legacy.into_iter().any(has_raw) {
        return true;
    }
    let mut kernel = match Netfilter::connect() {
        Err(error) => return error.raw_os_error() != Some(libc::EPROTONOSUPPORT),
        Ok(kernel) => kernel,
    };
    [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6].into_iter().any(|family| {
        let asked = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
        let is_raw = |told: &NetfilterMessageInner| match told {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) => {
                table.attributes.contains(&TableAttribute::Name("raw".to_owned()))
            }
            _ => false,
        };
        let raw = kernel.list(family, asked).map_or(true, |tables| tables.iter().any(is_raw));
        raw || native::chains(&mut kernel, family).map_or(true, |chains| !chains.is_empty())
    })
}

/// Removes the table that outlives an agent which used nf_tables; not while another owns a table. Returns whether there
/// is none, in the end.
///
/// # Errors
/// Why it could not be looked for or removed.
pub(super) fn remove_base(removed: &mut Vec<String>) -> Result<bool, Trouble> {
    let tables = installed()?;
    if tables.iter().any(|table| table.owner.is_some()) {
        return Ok(false);
    }
    // Those by other names were loaded by hand.
    tables.iter().filter(|table| table.table == BASE).try_for_each(|table| delete(&table.table, removed))?;
    Ok(true)
}

/// Removes all of them, and returns which.
///
/// # Errors
/// The first that could not be removed.
pub(super) fn remove(removed: &mut Vec<String>) -> Result<(), Trouble> {
    installed()?.iter().try_for_each(|table| delete(&table.table, removed))
}

fn delete(table: &str, removed: &mut Vec<String>) -> Result<(), Trouble> {
    let attributes = vec![TableAttribute::Name(table.to_owned())];
    let message = NfTablesMessage::DeleteTable(TableMessage { attributes });
    let done =
        Netfilter::connect().and_then(|mut kernel| kernel.transact(vec![Change { flags: 0, message: message.into() }]));
    if let Err(error) = done {
        let text = format!(
            "the table inet {table} could not be removed ({error}): packets to the cache's addresses are still led by it; \
             try `nft delete table inet {table}` as root"
        );
        return Err(Trouble { kind: Kind::Iptables, text });
    }
    removed.push(format!("table inet {table}"));
    Ok(())
}
