//! The rules as text: what each table should hold, in the words of `iptables-restore`.
//!
//! All rules sit in chains of our own, so one restore replaces them at once: naming a chain empties it. The built-in
//! chains hold only jumps, which a restore adds where they are missing. `iptables/*.rules` are the same rules for an
//! operator's hand; a test compares the two.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::super::{Base, PROBE_MARK};
use super::saved::Saved;

/// A table of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Before connection tracking.
    Raw,
    /// Accept or drop.
    Filter,
    /// Translation of addresses.
    Nat,
}

/// An address family, which has programs and tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `iptables`.
    V4,
    /// `ip6tables`.
    V6,
}

/// What one table should hold; no rules means none of our chains either.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    table: Table,
    jumps: &'static [Jump],
    /// Each begins with `-A CHAIN`.
    pub(super) rules: Vec<String>,
}

/// The way from a built-in chain into one of ours.
#[derive(Debug, PartialEq, Eq)]
struct Jump {
    from: &'static str,
    to: &'static str,
    /// At the top of the built-in chain, else at its end.
    first: bool,
}

/// The beginning of the name of every chain of ours.
pub(crate) const PREFIX: &str = "DNSLET-";

const fn top(from: &'static str, to: &'static str) -> Jump {
    Jump { from, to, first: true }
}

const RAW: &[Jump] = &[top("PREROUTING", "DNSLET-PREROUTING"), top("OUTPUT", "DNSLET-OUTPUT")];
const FILTER: &[Jump] = &[top("INPUT", "DNSLET-INPUT"), top("OUTPUT", "DNSLET-OUTPUT")];
/// The fallback comes after kube-proxy, whose word counts for the address of a Service.
const NAT: &[Jump] = &[
    Jump { from: "PREROUTING", to: "DNSLET-FALLBACK", first: false },
    Jump { from: "OUTPUT", to: "DNSLET-FALLBACK", first: false },
    top("POSTROUTING", "DNSLET-POSTROUTING"),
];

impl Table {
    pub(crate) const ALL: [Table; 3] = [Table::Raw, Table::Filter, Table::Nat];

    /// Its name.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Table::Raw => "raw",
            Table::Filter => "filter",
            Table::Nat => "nat",
        }
    }
}

impl Family {
    /// Whether the address is of this family.
    pub(crate) fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Family::V4)
    }

    /// How its programs' names begin.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        }
    }
}

impl Plan {
    /// What the table should hold for this base while the addresses of `ready` are intercepted.
    pub(super) fn new(table: Table, family: Family, base: &Base, ready: &BTreeSet<IpAddr>) -> Self {
        let addresses: Vec<IpAddr> = base.addresses.iter().copied().filter(|address| family.has(*address)).collect();
        let (jumps, rules) = match table {
            Table::Raw => (RAW, raw(base, &addresses, ready)),
            Table::Filter => (FILTER, filter(base, &addresses)),
            Table::Nat => (NAT, nat(base, &addresses)),
        };
        Self { table, jumps, rules }
    }

    /// Nothing of ours.
    pub(super) fn nothing(table: Table) -> Self {
        Self { table, jumps: &[], rules: Vec::new() }
    }

    /// Whether every jump is there once, and nothing is where nothing should be.
    pub(super) fn joined(&self, saved: &Saved) -> bool {
        match self.rules.is_empty() {
            true => saved.chains.is_empty(),
            false => self.jumps.iter().all(|jump| saved.jumps_between(jump.from, jump.to).count() == 1),
        }
    }

    /// The section for `iptables-restore --noflush` that makes the table so, given what it holds.
    pub(super) fn restore(&self, saved: &Saved) -> String {
        let mut text = format!("*{}\n", self.table.word());
        if self.rules.is_empty() {
            text.push_str(&saved.removal());
        } else {
            let chains: BTreeSet<&str> = self.jumps.iter().map(|jump| jump.to).collect();
            chains.iter().for_each(|chain| line(&mut text, format_args!(":{chain} - [0:0]")));
            for Jump { from, to, first } in self.jumps {
                // Somebody's doubled jump goes; a jump that is there stays where it is.
                saved.jumps_between(from, to).skip(1).for_each(|jump| line(&mut text, format_args!("-D {jump}")));
                if saved.jumps_between(from, to).next().is_none() {
                    let how = if *first { "-I" } else { "-A" };
                    line(&mut text, format_args!("{how} {from} -m comment --comment \"dnslet\" -j {to}"));
                }
            }
            self.rules.iter().for_each(|rule| line(&mut text, format_args!("{rule}")));
        }
        text.push_str("COMMIT\n");
        text
    }
}

/// Nothing of these packets is tracked. A query is left alone only while a socket here would take it: the match makes
/// the death of the agent harmless for pods. It knows the packets that come in, not those a program here sends.
fn raw(base: &Base, addresses: &[IpAddr], ready: &BTreeSet<IpAddr>) -> Vec<String> {
    let dns = [("udp", base.dns_port), ("tcp", base.dns_port)];
    let all = [dns[0], dns[1], ("tcp", base.health_port)];
    let served: Vec<IpAddr> = addresses.iter().copied().filter(|address| ready.contains(address)).collect();
    let comes = each(&served, &all, |address, protocol, port| {
        let packets = format!("-d {address} -p {protocol} --dport {port} -m socket --nowildcard");
        rule("DNSLET-PREROUTING", &packets, "to the cache, while it listens", "NOTRACK")
    });
    let replies = each(addresses, &all, |address, protocol, port| {
        let packets = format!("-s {address} -p {protocol} --sport {port}");
        rule("DNSLET-OUTPUT", &packets, "replies of the cache", "NOTRACK")
    });
    let probes = each(addresses, &dns, |address, protocol, port| {
        let packets = format!("-d {address} -p {protocol} --dport {port} -m mark --mark {PROBE_MARK:#x}");
        rule("DNSLET-OUTPUT", &packets, "probes of the agent", "NOTRACK")
    });
    let local = each(&served, &all, |address, protocol, port| {
        let packets = format!("-d {address} -p {protocol} --dport {port}");
        rule("DNSLET-OUTPUT", &packets, "to the cache, from this node", "NOTRACK")
    });
    [comes, replies, probes, local].concat()
}

/// Hosts that drop by default know the state of connections, and these packets have none.
fn filter(base: &Base, addresses: &[IpAddr]) -> Vec<String> {
    let dns = [("udp", base.dns_port), ("tcp", base.dns_port)];
    let queries = each(addresses, &dns, |address, protocol, port| {
        let packets = format!("-d {address} -p {protocol} --dport {port}");
        rule("DNSLET-INPUT", &packets, "allow DNS queries", "ACCEPT")
    });
    let replies = each(addresses, &dns, |address, protocol, port| {
        let packets = format!("-s {address} -p {protocol} --sport {port}");
        rule("DNSLET-OUTPUT", &packets, "allow DNS replies", "ACCEPT")
    });
    [queries, replies].concat()
}

/// Tracked packets only come here while there is no intercept. A program of this node has the cache's address for its
/// source, to which no server elsewhere could reply; that also holds where it is kube-proxy who translates.
fn nat(base: &Base, addresses: &[IpAddr]) -> Vec<String> {
    let mut rules = Vec::new();
    for address in addresses {
        let servers = base.fallback_of(*address);
        for protocol in ["udp", "tcp"] {
            rules.extend(servers.iter().enumerate().map(|(at, server)| {
                let packets = format!("-d {address} -p {protocol} --dport {}{}", base.dns_port, share(&servers[at..]));
                let target = format!("DNAT --to-destination {server}");
                rule("DNSLET-FALLBACK", &packets, "cluster DNS, while the cache is away", &target)
            }));
        }
    }
    rules.extend(addresses.iter().map(|address| {
        let packets = format!("-s {address} -m conntrack --ctstate DNAT");
        rule("DNSLET-POSTROUTING", &packets, "cluster DNS replies to the node", "MASQUERADE")
    }));
    rules
}

/// The first of the servers left gets its share of the packets that were not taken before it.
fn share(left: &[SocketAddr]) -> String {
    match left.len() {
        0 | 1 => String::new(),
        count => format!(" -m statistic --mode random --probability {:.10}", 1.0 / count as f64),
    }
}

/// A rule for every address, protocol and port.
fn each(addresses: &[IpAddr], ports: &[(&str, u16)], rule: impl Fn(IpAddr, &str, u16) -> String) -> Vec<String> {
    let rule = &rule;
    let of = |address: &IpAddr| {
        let address = *address;
        ports.iter().map(move |(protocol, port)| rule(address, protocol, *port))
    };
    addresses.iter().flat_map(of).collect()
}

fn rule(chain: &str, packets: &str, comment: &str, target: &str) -> String {
    format!("-A {chain} {packets} -m comment --comment \"dnslet: {comment}\" -j {target}")
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{line}");
}
