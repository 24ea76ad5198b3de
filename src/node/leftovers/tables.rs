//! Tables of nf_tables that were left behind. Those of an agent that lives are not: it owns one.

use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableMessage};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};

use crate::node::firewall::{Installed, installed};
use crate::node::netfilter::{Change, Netfilter};
use crate::node::status::{Kind, Trouble};
use crate::sys::process::netlink_holder;

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

/// Whether iptables has a table `raw` of either family, which is where node-cache puts most of its rules. True where that
/// cannot be seen.
pub(super) fn raw_exists() -> bool {
    let names = |path| std::fs::read_to_string(path).unwrap_or_default();
    let legacy = ["/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"];
    if legacy.iter().any(|path| names(path).lines().any(|name| name == "raw")) {
        return true;
    }
    let Ok(mut kernel) = Netfilter::connect() else { return true };
    [NetfilterProtoFamily::IPv4, NetfilterProtoFamily::IPv6].into_iter().any(|family| {
        let asked = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
        let is_raw = |told: &NetfilterMessageInner| match told {
            NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) => {
                table.attributes.contains(&TableAttribute::Name("raw".to_owned()))
            }
            _ => false,
        };
        kernel.list(family, asked).map_or(true, |tables| tables.iter().any(is_raw))
    })
}

/// Removes all of them, and returns which.
///
/// # Errors
/// The first that could not be removed.
pub(super) fn remove(removed: &mut Vec<String>) -> Result<(), Trouble> {
    for Installed { table, .. } in installed()? {
        let attributes = vec![TableAttribute::Name(table.clone())];
        let message = NfTablesMessage::DeleteTable(TableMessage { attributes });
        let done = Netfilter::connect()
            .and_then(|mut kernel| kernel.transact(vec![Change { flags: 0, message: message.into() }]));
        if let Err(error) = done {
            let text = format!(
                "the table inet {table} could not be removed ({error}): packets to the cache's addresses are still led by \
                 it; try `nft delete table inet {table}` as root"
            );
            return Err(Trouble { kind: Kind::Iptables, text });
        }
        removed.push(format!("table inet {table}"));
    }
    Ok(())
}
