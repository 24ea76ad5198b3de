//! Which rules the two tables hold. `iptables/notrack.nft` is the same in the words of the `nft` program.
//!
//! Every packet of the node passes the chains at a hook, so those compare addresses only; what is compared of a packet
//! that has one stands in a chain beside them. Those chains are entered by `jump`, since a packet from this node to
//! itself has such an address at both ends.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_netfilter::nftables::{Expressions, InetHookNumber};

use super::expressions::{
    End, Transport, address, counter, destination_translated, jump, mark, masquerade, notrack, one_in, port,
    translate_to,
};
use super::table::{Chain, Place, Rule, Table};
use crate::node::firewall::{Base, PROBE_MARK};

/// The name of the base. The intercept's name adds the instance.
pub(super) const BASE: &str = "dnslet";

/// What stands before an instance in the name of its table.
pub(super) const INSTANCE_PREFIX: &str = "dnslet_";

/// Before connection tracking.
const RAW: i32 = -300;

/// Just behind the place where destinations are translated (kube-proxy), and where sources are.
const AFTER_DESTINATION: i32 = -90;
const SOURCE: i32 = 100;

/// What a rule is for, in words.
const HEALTH_CHECKS: &str = "health checks";

/// How the comments of the fallback's rules begin; an address follows.
const FALLBACK: &str = "no cache at ";

/// The two ports that clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ports {
    pub(super) dns: u16,
    pub(super) health: u16,
}

/// The base as this instance wants it.
pub(super) fn base(wanted: &Base, instance: &str) -> Table {
    let comment =
        format!("DNS cache of this node: outlives it, the cluster's DNS answers meanwhile; written by {instance}");
    let ports = Ports { dns: wanted.dns_port, health: wanted.health_port };
    let mut table = Table::empty(BASE.to_owned(), comment, false);
    if wanted.addresses.is_empty() {
        return table;
    }
    let addresses: BTreeSet<IpAddr> = wanted.addresses.iter().copied().collect();
    let fallback: Vec<(IpAddr, Vec<SocketAddr>)> =
        addresses.iter().map(|address| (*address, wanted.fallback_of(*address))).collect();
    table.chains.extend([from_cache(ports, false), health_checks(ports), probes(&addresses, ports)]);
    let only_here = fallback.iter().filter(|(address, servers)| servers.is_empty() && is_link_local(*address));
    if only_here.clone().next().is_some() {
        table.chains.push(to_cache(ports, false));
    }
    let arriving: Vec<Rule> = addresses
        .iter()
        .map(|there| {
            let chain =
                if only_here.clone().any(|(address, _)| address == there) { "to_cache" } else { "health_checks" };
            let comment = format!("untracked to {there}");
            rule(comment, [address(End::Destination, *there), vec![jump(chain)]])
        })
        .collect();
    table.chains.push(at("prerouting", "filter", InetHookNumber::PreRouting, RAW, arriving.clone()));
    table.chains.push(output_of_base(&addresses, arriving));
    if fallback.iter().any(|(_, servers)| !servers.is_empty()) {
        for (name, hook) in
            [("fallback_prerouting", InetHookNumber::PreRouting), ("fallback_output", InetHookNumber::LocalOut)]
        {
            let rules = fallback.iter().flat_map(|(address, servers)| fallback_rules(*address, servers, ports.dns));
            table.chains.push(at(name, "nat", hook, AFTER_DESTINATION, rules.collect()));
        }
    }
    // A Service address is translated by others, but its host clients need the same help.
    let rules = addresses.iter().map(|address| masquerade_rule(*address)).collect();
    table.chains.push(at("fallback_postrouting", "nat", InetHookNumber::PostRouting, SOURCE, rules));
    table
}

/// The base for a kernel that translates nothing.
pub(super) fn base_without_translation(wanted: &Base, instance: &str) -> Table {
    let mut table = base(&Base { fallback: Vec::new(), ..wanted.clone() }, instance);
    table.chains.retain(|chain| chain.place.is_none_or(|place| place.kind != "nat"));
    table
}

/// The intercept of one instance; no chains for no addresses.
pub(super) fn intercept(instance: &str, ready: &BTreeSet<IpAddr>, ports: Ports) -> Table {
    let comment = match ready.is_empty() {
        true => "DNS cache of this node: does not answer, packets go to the cluster's DNS",
        false => "DNS cache of this node: ends with its process",
    };
    let mut table = Table::empty(format!("{INSTANCE_PREFIX}{instance}"), comment.to_owned(), true);
    if ready.is_empty() {
        return table;
    }
    table.chains.extend([to_cache(ports, true), from_cache(ports, true)]);
    for (name, hook) in [("prerouting", InetHookNumber::PreRouting), ("output", InetHookNumber::LocalOut)] {
        let both_ends = ready.iter().flat_map(|there| {
            [
                rule(format!("to {there}"), [address(End::Destination, *there), vec![counter(), jump("to_cache")]]),
                rule(format!("from {there}"), [address(End::Source, *there), vec![counter(), jump("from_cache")]]),
            ]
        });
        table.chains.push(at(name, "filter", hook, RAW, both_ends.collect()));
    }
    table
}

fn to_cache(ports: Ports, counted: bool) -> Chain {
    beside(
        "to_cache",
        untracked(End::Destination, ports, ["queries over UDP", "queries over TCP", HEALTH_CHECKS], counted),
    )
}

/// Nobody else answers these. If the replies are untracked and these are not, the connection looks as if it had begun
/// in its middle, and hosts drop such packets.
fn health_checks(ports: Ports) -> Chain {
    let matched = port(End::Destination, Transport::Tcp, ports.health);
    beside("health_checks", vec![rule(HEALTH_CHECKS.to_owned(), [matched, vec![notrack()]])])
}

/// Whether the address cannot be that of a Service either.
fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// Replies of the cache. Nobody needs to know how many there were while nothing is intercepted.
fn from_cache(ports: Ports, counted: bool) -> Chain {
    beside(
        "from_cache",
        untracked(End::Source, ports, ["replies over UDP", "replies over TCP", "health replies"], counted),
    )
}

/// The packets of a probe. They and their replies are untracked even if clients' packets are tracked and translated.
fn probes(addresses: &BTreeSet<IpAddr>, ports: Ports) -> Chain {
    let each = addresses.iter().flat_map(|there| {
        [Transport::Udp, Transport::Tcp].map(|transport| {
            let matched =
                [address(End::Destination, *there), port(End::Destination, transport, ports.dns), vec![notrack()]];
            rule(format!("probe of {there} over {}", word(transport)), matched)
        })
    });
    beside("probes", each.collect())
}

fn output_of_base(addresses: &BTreeSet<IpAddr>, arriving: Vec<Rule>) -> Chain {
    let probes = rule("the cache's own probes".to_owned(), [mark(PROBE_MARK), vec![jump("probes")]]);
    let replies = addresses
        .iter()
        .map(|there| rule(format!("from {there}"), [address(End::Source, *there), vec![jump("from_cache")]]));
    at("output", "filter", InetHookNumber::LocalOut, RAW, [probes].into_iter().chain(replies).chain(arriving).collect())
}

fn untracked(end: End, ports: Ports, comments: [&str; 3], counted: bool) -> Vec<Rule> {
    let matches = [
        port(end, Transport::Udp, ports.dns),
        port(end, Transport::Tcp, ports.dns),
        port(end, Transport::Tcp, ports.health),
    ];
    let count = if counted { vec![counter()] } else { Vec::new() };
    let each = matches.into_iter().zip(comments);
    each.map(|(matched, comment)| rule(comment.to_owned(), [matched, count.clone(), vec![notrack()]])).collect()
}

/// Packets to the address are spread over the servers: the first takes one of all, the second one of the rest.
fn fallback_rules(there: IpAddr, servers: &[SocketAddr], dns: u16) -> Vec<Rule> {
    let mut rules = Vec::new();
    for transport in [Transport::Udp, Transport::Tcp] {
        for (server, left) in servers.iter().zip((1..=servers.len()).rev()) {
            let drawn = match u32::try_from(left) {
                Ok(left @ 2..) => one_in(left),
                _ => Vec::new(),
            };
            let matched = [address(End::Destination, there), port(End::Destination, transport, dns), drawn];
            let done = [vec![counter()], translate_to(*server)];
            let comment = format!("{FALLBACK}{there}: {} to {server}", word(transport));
            rules.push(rule(comment, matched.into_iter().chain(done)));
        }
    }
    rules
}

/// A host client asks from the very address that it asks, and the answer would not come back to this node.
fn masquerade_rule(from: IpAddr) -> Rule {
    let matched = [destination_translated(), address(End::Source, from), vec![masquerade()]];
    rule(format!("no cache at {from}: clients on this node ask as the node"), matched)
}

/// The address and the server of a rule of the fallback, by its comment.
pub(super) fn led(comment: &str) -> Option<(IpAddr, SocketAddr)> {
    let (address, way) = comment.strip_prefix(FALLBACK)?.split_once(": ")?;
    let (_, server) = way.split_once(" to ")?;
    Some((address.parse().ok()?, server.parse().ok()?))
}

fn word(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Tcp => "TCP",
    }
}

fn rule(comment: String, parts: impl IntoIterator<Item = Vec<Expressions>>) -> Rule {
    Rule { comment, expressions: parts.into_iter().flatten().collect() }
}

fn at(name: &'static str, kind: &'static str, hook: InetHookNumber, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { name, place: Some(Place { kind, hook, priority }), rules }
}

fn beside(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain { name, place: None, rules }
}
