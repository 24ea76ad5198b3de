//! Rules of iptables where it is the nf_tables one, removed without any program: an image without iptables may follow a
//! node-cache, or an agent, that brought its own.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use netlink_packet_core::Emitable;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Immediate, ListAttribute,
    NfTablesMessage, RuleAttribute, RuleMessage, VerdictAttribute,
};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};

use super::chains::{Meant, NODE_CACHE, Swept};
use crate::node::firewall::iptables::{Family, PREFIX};
use crate::node::netfilter::{Change, Netfilter};

/// The chains of iptables that node-cache uses, by the names that nf_tables has for them.
const PLACES: [(&str, &str); 4] = [("raw", "PREROUTING"), ("raw", "OUTPUT"), ("filter", "INPUT"), ("filter", "OUTPUT")];

/// A chain with a name of ours, and its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    table: String,
    name: String,
}

/// Removes the meant rules from the tables of this family, and says so in `swept`.
///
/// # Errors
/// The kernel's. What was removed before is in the list.
pub(super) fn sweep(family: Family, meant: Meant<'_>, swept: &mut Swept) -> io::Result<()> {
    let (kernel_family, word) = match family {
        Family::V4 => (NetfilterProtoFamily::IPv4, "ip"),
        Family::V6 => (NetfilterProtoFamily::IPv6, "ip6"),
    };
    let mut kernel = match Netfilter::connect() {
        Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => return Ok(()),
        connected => connected?,
    };
    for (table, chain) in PLACES {
        let listed = rules(&mut kernel, kernel_family, table, Some(chain))?;
        let node_caches = listed.iter().filter(|rule| is_node_cache(rule));
        let (goes, stays): (Vec<&RuleMessage>, Vec<&RuleMessage>) =
            node_caches.partition(|rule| (meant.node_cache)(address(rule, family)));
        swept.left += stays.len();
        let handles: Vec<u64> = goes.into_iter().filter_map(handle).collect();
        if handles.is_empty() {
            continue;
        }
        let changes = handles.iter().map(|handle| deletion(table, chain, Some(*handle))).collect();
        kernel.transact_in(kernel_family, changes)?;
        let words = |handle| format!("node-cache's rule {handle} in {word} {table}: {chain}");
        swept.removed.extend(handles.iter().map(words));
    }
    let ours = if meant.ours { chains(&mut kernel, kernel_family)? } else { Vec::new() };
    let mut changes = Vec::new();
    for table in ours.iter().map(|chain| chain.table.as_str()).collect::<BTreeSet<_>>() {
        let listed = rules(&mut kernel, kernel_family, table, None)?;
        let jumps = listed.iter().filter(|rule| leads_to_ours(rule));
        changes.extend(jumps.filter_map(|rule| Some(deletion(table, chain_of(rule)?, handle(rule)))));
    }
    if !ours.is_empty() {
        changes.extend(ours.iter().map(|chain| deletion(&chain.table, &chain.name, None)));
        changes.extend(ours.iter().map(Chain::deletion));
        kernel.transact_in(kernel_family, changes)?;
        swept.removed.extend(ours.iter().map(|chain| format!("chain {} in {word} {}", chain.name, chain.table)));
    }
    Ok(())
}

/// The chains of this family that have a name of ours. None where the kernel has no nf_tables.
///
/// # Errors
/// The kernel's.
pub(super) fn chains(kernel: &mut Netfilter, family: NetfilterProtoFamily) -> io::Result<Vec<Chain>> {
    let asked = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    let listed = absent_is_empty(kernel.list(family, asked))?;
    Ok(listed.into_iter().filter_map(Chain::of).filter(|chain| chain.name.starts_with(PREFIX)).collect())
}

fn rules(
    kernel: &mut Netfilter,
    family: NetfilterProtoFamily,
    table: &str,
    chain: Option<&str>,
) -> io::Result<Vec<RuleMessage>> {
    let mut attributes = vec![RuleAttribute::Table(table.to_owned())];
    attributes.extend(chain.map(|chain| RuleAttribute::Chain(chain.to_owned())));
    let listed = absent_is_empty(kernel.list(family, NfTablesMessage::GetRule(RuleMessage { attributes })))?;
    let rule = |message| match message {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) => Some(rule),
        _ => None,
    };
    Ok(listed.into_iter().filter_map(rule).collect())
}

/// There may be no such table, or no nf_tables at all.
fn absent_is_empty(listed: io::Result<Vec<NetfilterMessageInner>>) -> io::Result<Vec<NetfilterMessageInner>> {
    match listed {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::EOPNOTSUPP)) => {
            Ok(Vec::new())
        }
        listed => listed,
    }
}

/// Without a handle, all rules of the chain.
fn deletion(table: &str, chain: &str, handle: Option<u64>) -> Change {
    let mut attributes = vec![RuleAttribute::Table(table.to_owned()), RuleAttribute::Chain(chain.to_owned())];
    attributes.extend(handle.map(RuleAttribute::Handle));
    Change { flags: 0, message: NfTablesMessage::DeleteRule(RuleMessage { attributes }).into() }
}

impl Chain {
    fn of(message: NetfilterMessageInner) -> Option<Self> {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(told)) = message else { return None };
        let (mut table, mut name) = (None, None);
        for attribute in told.attributes {
            match attribute {
                ChainAttribute::Table(text) => table = Some(text),
                ChainAttribute::Name(text) => name = Some(text),
                _ => {}
            }
        }
        Some(Self { table: table?, name: name? })
    }

    fn deletion(&self) -> Change {
        let attributes = vec![ChainAttribute::Table(self.table.clone()), ChainAttribute::Name(self.name.clone())];
        Change { flags: 0, message: NfTablesMessage::DeleteChain(ChainMessage { attributes }).into() }
    }
}

/// Whether a rule holds one of the comments. Where it keeps its comment depends on the iptables.
fn is_node_cache(rule: &RuleMessage) -> bool {
    rule.attributes.iter().any(|attribute| {
        let told = matches!(attribute, RuleAttribute::Expressions(_) | RuleAttribute::UserData(_));
        told && NODE_CACHE.iter().any(|comment| holds(attribute, comment))
    })
}

fn handle(rule: &RuleMessage) -> Option<u64> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Handle(handle) => Some(*handle),
        _ => None,
    })
}

fn chain_of(rule: &RuleMessage) -> Option<&str> {
    rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Chain(chain) => Some(chain.as_str()),
        _ => None,
    })
}

fn expressions(rule: &RuleMessage) -> impl Iterator<Item = &Expressions> {
    let lists = rule.attributes.iter().filter_map(|attribute| match attribute {
        RuleAttribute::Expressions(list) => Some(list),
        _ => None,
    });
    let parts = lists.flatten().filter_map(|element| match element {
        ListAttribute::Element(parts) => Some(parts),
        _ => None,
    });
    parts.flatten().filter_map(|part| match part {
        ExpressionAttribute::Data(expression) => Some(expression),
        _ => None,
    })
}

/// The address a rule of node-cache compares with, the only thing of that length in it.
fn address(rule: &RuleMessage, family: Family) -> Option<IpAddr> {
    let compared = expressions(rule).filter_map(|expression| match expression {
        Expressions::Cmp(parts) => Some(parts),
        _ => None,
    });
    compared.flatten().find_map(|part| match (part, family) {
        (Cmp::Data(DataAttribute::Value(octets)), Family::V4) => {
            <[u8; 4]>::try_from(octets.as_slice()).ok().map(IpAddr::from)
        }
        (Cmp::Data(DataAttribute::Value(octets)), Family::V6) => {
            <[u8; 16]>::try_from(octets.as_slice()).ok().map(IpAddr::from)
        }
        _ => None,
    })
}

/// Whether a rule of others leads to a chain of ours.
fn leads_to_ours(rule: &RuleMessage) -> bool {
    let is_ours = |part: &VerdictAttribute| matches!(part, VerdictAttribute::Chain(name) if name.starts_with(PREFIX));
    let leads =
        |part: &Immediate| matches!(part, Immediate::Data(DataAttribute::Verdict(to)) if to.iter().any(is_ours));
    let jumps = expressions(rule).any(|one| matches!(one, Expressions::Immediate(parts) if parts.iter().any(leads)));
    jumps && !chain_of(rule).is_some_and(|chain| chain.starts_with(PREFIX))
}

/// Whether the text stands in the attribute, and ends there.
fn holds(attribute: &RuleAttribute, text: &str) -> bool {
    let mut bytes = vec![0; attribute.buffer_len()];
    attribute.emit(&mut bytes);
    let ended = [text.as_bytes(), &[0]].concat();
    bytes.windows(ended.len()).any(|window| window == ended)
}
