//! node-cache's rules where its iptables was the nf_tables one, removed without any program: an image without iptables
//! may follow a node-cache that brought its own.

use std::io;

use netlink_packet_core::Emitable;
use netlink_packet_netfilter::nftables::{NfTablesMessage, RuleAttribute, RuleMessage};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};

use super::chains::NODE_CACHE;
use crate::node::firewall::iptables::Family;
use crate::node::netfilter::{Change, Netfilter};

/// The chains of iptables that node-cache uses, by the names that nf_tables has for them.
const PLACES: [(&str, &str); 4] = [("raw", "PREROUTING"), ("raw", "OUTPUT"), ("filter", "INPUT"), ("filter", "OUTPUT")];

/// Removes the rules with node-cache's comments from the tables of this family, and adds them to `removed`.
///
/// # Errors
/// The kernel's. What was removed before is in the list.
pub(super) fn sweep(family: Family, removed: &mut Vec<String>) -> io::Result<()> {
    let (kernel_family, word) = match family {
        Family::V4 => (NetfilterProtoFamily::IPv4, "ip"),
        Family::V6 => (NetfilterProtoFamily::IPv6, "ip6"),
    };
    let mut kernel = match Netfilter::connect() {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(()),
        connected => connected?,
    };
    for (table, chain) in PLACES {
        let place = || vec![RuleAttribute::Table(table.to_owned()), RuleAttribute::Chain(chain.to_owned())];
        let listed = match kernel.list(kernel_family, NfTablesMessage::GetRule(RuleMessage { attributes: place() })) {
            // There is no such table, or no nf_tables at all.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP)) => {
                continue;
            }
            listed => listed?,
        };
        let handles: Vec<u64> = listed.into_iter().filter_map(node_cache_handle).collect();
        if handles.is_empty() {
            continue;
        }
        let deletion = |handle: &u64| {
            let attributes = [place(), vec![RuleAttribute::Handle(*handle)]].concat();
            Change { flags: 0, message: NfTablesMessage::DeleteRule(RuleMessage { attributes }).into() }
        };
        kernel.transact_in(kernel_family, handles.iter().map(deletion).collect())?;
        removed.extend(handles.iter().map(|handle| format!("node-cache's rule {handle} in {word} {table}: {chain}")));
    }
    Ok(())
}

/// The handle of a rule that holds one of the comments. Where a rule keeps its comment depends on the iptables.
fn node_cache_handle(message: NetfilterMessageInner) -> Option<u64> {
    let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = message else { return None };
    let is_commented = rule.attributes.iter().any(|attribute| {
        let told = matches!(attribute, RuleAttribute::Expressions(_) | RuleAttribute::UserData(_));
        told && NODE_CACHE.iter().any(|comment| holds(attribute, comment))
    });
    let handle = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Handle(handle) => Some(*handle),
        _ => None,
    });
    handle.filter(|_| is_commented)
}

/// Whether the text stands in the attribute, and ends there.
fn holds(attribute: &RuleAttribute, text: &str) -> bool {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    let ended = [text.as_bytes(), &[0]].concat();
    bytes.windows(ended.len()).any(|window| window == ended)
}
