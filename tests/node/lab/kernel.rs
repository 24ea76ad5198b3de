//! What the node's kernel holds: entries of connection tracking, rules and their counters.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};

use super::{Host, NODE};

/// The entries of connection tracking for these addresses and port 53, one line each.
pub fn tracked(addresses: &[SocketAddr]) -> Vec<String> {
    let families = NODE.run(|| ["ipv4", "ipv6"].map(|family| NODE.command(&format!("conntrack -L -f {family}"))));
    let lines = families.iter().flat_map(|text| text.lines());
    lines.filter(|line| addresses.iter().any(|address| names(line, *address))).map(str::to_owned).collect()
}

fn names(line: &str, address: SocketAddr) -> bool {
    let value = |key: &str| {
        line.split(' ').filter_map(move |word| word.strip_prefix(key)?.parse::<IpAddr>().ok()).collect::<Vec<_>>()
    };
    let port = format!("port={}", address.port());
    let at_port = line.split(' ').any(|word| word.strip_prefix(['s', 'd']).is_some_and(|rest| rest == port));
    at_port && [value("src="), value("dst=")].concat().contains(&address.ip())
}

/// Forgets every flow of the node.
pub fn forget_flows() {
    NODE.command("conntrack -F");
}

/// How many times a client on the host had to try again to be heard when it opened a connection.
pub fn connections_tried_again(host: Host) -> u64 {
    counter(host, "TcpExtTCPSynRetrans")
}

/// Datagrams that came to the host and found a queue full: that of their socket, or of a processor of the machine.
pub fn overflows(host: Host) -> u64 {
    let processors = std::fs::read_to_string("/proc/net/softnet_stat").expect("a mounted /proc");
    let dropped = processors.lines().filter_map(|line| u64::from_str_radix(line.split(' ').nth(1)?, 16).ok());
    counter(host, "UdpRcvbufErrors") + counter(host, "Udp6RcvbufErrors") + dropped.sum::<u64>()
}

/// A counter of the host's network, as nstat names it.
fn counter(host: Host, name: &str) -> u64 {
    let printed = host.command(&format!("nstat --ignore --noupdate --zeros {name}"));
    let line = printed.lines().find(|line| line.starts_with(name)).expect("the counter is shown");
    line.split_whitespace().nth(1).expect("a name and a value").parse().expect("a number")
}

/// Everything in nf_tables, as `nft` prints it.
pub fn ruleset(host: Host) -> String {
    host.command("nft list ruleset")
}

/// The addresses whose packets a table of ours brings here: one of the tables that end with the keeper.
pub fn intercepted() -> BTreeSet<IpAddr> {
    let rules = rules_to_cache();
    let addresses = rules.iter().filter_map(|rule| rule.split_once("daddr ")?.1.split(' ').next()?.parse().ok());
    addresses.collect()
}

/// The tables that end with a keeper, one for each instance, as `nft list tables` names them.
pub fn intercepts() -> Vec<String> {
    let tables = NODE.command("nft list tables");
    tables.lines().filter(|line| line.starts_with("table inet dnslet_")).map(str::to_owned).collect()
}

/// The link that carries the address.
pub fn link_of(address: IpAddr) -> Option<String> {
    let printed = NODE.ip(&format!("-oneline address show to {address}"));
    printed.split_whitespace().nth(1).map(str::to_owned)
}

/// The number of rules of our own in nf_tables.
pub fn rules() -> usize {
    tables().iter().flat_map(|table| table.lines()).filter(|line| is_rule(line)).count()
}

/// Packets of DNS that the rules in use (`nftables` or `iptables`) counted on their way to the address.
pub fn counted(rules: &str, address: IpAddr) -> u64 {
    if rules == "nftables" {
        let rules = rules_to_cache();
        let rules = rules.iter().filter(|rule| rule.contains(&format!("daddr {address} ")));
        return rules.filter_map(|rule| number(rule.split_once("counter packets ")?.1)).sum();
    }
    let save = if address.is_ipv4() { "iptables-save -c -t raw" } else { "ip6tables-save -c -t raw" };
    let saved = NODE.command(save);
    let lines = saved.lines().filter(|line| line.contains(&format!("-d {address}/")) && line.contains("--dport 53 "));
    lines.filter_map(|line| number(line.strip_prefix('[')?)).sum()
}

/// The number at the start of the text.
fn number(text: &str) -> Option<u64> {
    text.split(|char: char| !char.is_ascii_digit()).next()?.parse().ok()
}

/// The rules for packets to one of the cache's addresses, in the tables that end with a keeper: one for pods and one for
/// the host for each address.
pub fn rules_to_cache() -> Vec<String> {
    let tables = tables();
    let intercepts = tables.iter().filter(|table| table.starts_with("inet dnslet_"));
    let rules = intercepts.flat_map(|table| table.lines()).map(str::trim);
    rules.filter(|rule| rule.contains("jump to_cache")).map(str::to_owned).collect()
}

/// The tables of our own as `nft` prints them, without the word "table".
fn tables() -> Vec<String> {
    let all = ruleset(NODE);
    let tables = all.split("\ntable ").map(|part| part.strip_prefix("table ").unwrap_or(part));
    tables.filter(|part| part.starts_with("inet dnslet")).map(str::to_owned).collect()
}

fn is_rule(line: &str) -> bool {
    let line = line.trim();
    !line.is_empty()
        && !["inet ", "chain ", "type ", "}", "flags ", "comment "].iter().any(|start| line.starts_with(start))
}

/// Has the kernel answer to this thread, and to what it starts, as one built without nf_tables: there are no netlink
/// sockets of that protocol.
pub fn hide_nf_tables() {
    let equals =
        |argument, value: i32| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value as u64);
    let netfilter = [(0, libc::AF_NETLINK), (2, libc::NETLINK_NETFILTER)]
        .map(|(at, value)| equals(at, value).expect("an argument"));
    let rule = SeccompRule::new(netfilter.to_vec()).expect("two conditions");
    let refuse = SeccompAction::Errno(libc::EPROTONOSUPPORT as u32);
    let machine = std::env::consts::ARCH.try_into().expect("a machine that seccomp knows");
    let filter = SeccompFilter::new([(libc::SYS_socket, vec![rule])].into(), SeccompAction::Allow, refuse, machine);
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter of one rule");
    apply_filter(&program).expect("the kernel takes filters");
}
