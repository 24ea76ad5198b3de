//! Tables of nf_tables that were left behind. Those of an agent that lives are not: it owns one.

use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableMessage};

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
