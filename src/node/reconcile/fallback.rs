//! The fallback that the node has already.
//!
//! Who starts does not know the cluster's DNS servers before one of them has answered. The rules that an earlier process
//! left, or that another instance keeps, name those of before, and those are better than none.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_netfilter::nftables::{NfTablesMessage, TableAttribute, TableMessage};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterProtoFamily};

use crate::node::firewall::installed;
use crate::node::firewall::iptables::{Family, Table, Tools, words};
use crate::node::netfilter::Netfilter;
use crate::node::status::{Kind, Trouble};

/// How rules of the fallback begin in what `iptables-save` prints.
const RULE: &str = "-A DNSLET-FALLBACK ";

/// The servers that rules of nf_tables lead clients of these addresses to.
///
/// # Errors
/// Why the rules could not be read.
pub(super) fn of_nftables(addresses: &[IpAddr]) -> Result<BTreeSet<SocketAddr>, Trouble> {
    let tables = installed()?.into_iter().filter(|table| table.owner.is_none());
    let led = tables.flat_map(|table| table.rules).filter_map(|rule| rule.leads());
    Ok(led.filter(|(address, _)| addresses.contains(address)).map(|(_, server)| server).collect())
}

/// As [`of_nftables`], for iptables. No program is started where there is no table `nat`.
///
/// # Errors
/// Why the rules could not be read.
pub(super) async fn of_iptables(addresses: &[IpAddr]) -> Result<BTreeSet<SocketAddr>, Trouble> {
    let mut servers = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        if !addresses.iter().any(|address| family.has(*address)) || !nat_exists(family) {
            continue;
        }
        let Ok(tools) = Tools::find(family, "") else { continue };
        let saved = tools.save(Table::Nat, &|line| line.starts_with(RULE)).await;
        let lines = saved.map_err(|failure| Trouble {
            kind: Kind::Iptables,
            text: format!(
                "the fallback that the {} rules hold could not be read: {}; they stay as they are, and what else is to be \
                 placed waits for the next check",
                family.word(),
                words(&failure)
            ),
        })?;
        let led = lines.iter().filter_map(|line| leads(line));
        servers.extend(led.filter(|(address, _)| addresses.contains(address)).map(|(_, server)| server));
    }
    Ok(servers)
}

/// The address and the server of a line such as `-A DNSLET-FALLBACK -d 169.254.20.10/32 ... --to-destination 10.0.0.2:53`.
fn leads(line: &str) -> Option<(IpAddr, SocketAddr)> {
    let after = |option: &str| line.split_once(option)?.1.split(' ').next();
    let (address, _) = after(" -d ")?.split_once('/')?;
    Some((address.parse().ok()?, after(" --to-destination ")?.parse().ok()?))
}

/// Whether iptables has a table `nat` of the family, in either variant. True where that cannot be seen.
fn nat_exists(family: Family) -> bool {
    let (path, number) = match family {
        Family::V4 => ("/proc/net/ip_tables_names", NetfilterProtoFamily::IPv4),
        Family::V6 => ("/proc/net/ip6_tables_names", NetfilterProtoFamily::IPv6),
    };
    if std::fs::read_to_string(path).is_ok_and(|names| names.lines().any(|name| name == "nat")) {
        return true;
    }
    let asked = NfTablesMessage::GetTable(TableMessage { attributes: Vec::new() });
    let is_nat = |told: &NetfilterMessageInner| match told {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewTable(table)) => {
            table.attributes.contains(&TableAttribute::Name("nat".to_owned()))
        }
        _ => false,
    };
    let listed = Netfilter::connect().and_then(|mut kernel| kernel.list(number, asked));
    listed.map_or(true, |tables| tables.iter().any(is_nat))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_of_iptables_names_address_and_server() {
        for (line, found) in [
            (
                "-A DNSLET-FALLBACK -d 169.254.20.10/32 -p udp -m udp --dport 53 -m statistic --mode random \
                 --probability 0.50000000000 -m comment --comment \"dnslet: cluster DNS, while the cache is away\" -j DNAT \
                 --to-destination 10.244.0.2:53",
                Some(("169.254.20.10", "10.244.0.2:53")),
            ),
            (
                "-A DNSLET-FALLBACK -d fd69:254:20::10/128 -p tcp -j DNAT --to-destination [fd00:10:244::2]:53",
                Some(("fd69:254:20::10", "[fd00:10:244::2]:53")),
            ),
            ("-A DNSLET-FALLBACK -d 169.254.20.10/32 -p udp -j RETURN", None),
        ] {
            let found = found.map(|(address, server)| (address.parse().unwrap(), server.parse().unwrap()));
            assert_eq!(leads(line), found, "{line}");
        }
    }
}
