//! The packet rules, and what connection tracking says about their effect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::Examined;
use super::{Finding, list, ok, problem, skipped, warning};
use crate::node::Rules;
use crate::node::diagnosis::{Table, Unseen};

/// The addresses that rules bring here, of whichever kind.
fn intercepted(seen: &Examined) -> BTreeSet<IpAddr> {
    let tables = seen.facts.tables.iter().flatten().flat_map(|table| table.intercepted.keys());
    let chains = seen.facts.iptables.iter().flat_map(|chains| chains.intercepted.keys());
    tables.chain(chains).copied().collect()
}

pub(super) fn rules(seen: &Examined) -> Vec<Finding> {
    let mut found = Vec::new();
    let placed = intercepted(seen);
    match &seen.facts.tables {
        Err(why) => found.push(skipped("rules of nf_tables", why)),
        Ok(tables) => found.extend(tables.iter().map(table)),
    }
    match &seen.facts.iptables {
        Err(why) => found.push(skipped("rules of iptables", why)),
        Ok(chains) => {
            let tables = seen.facts.tables.as_deref().unwrap_or_default();
            if chains.ours > 0 && tables.iter().any(|table| table.holder.is_some()) {
                found.push(warning(
                    format!(
                        "iptables has {} rules of dnslet, and a running agent uses nf_tables: those rules stay when it dies, \
                         and lead clients to servers that may be gone",
                        chains.ours
                    ),
                    "the agent removes them at a sync, unless another process listens at its addresses; else stop it, and: \
                     dnslet cleanup",
                ));
            } else if chains.ours > 0 {
                found.push(ok(format!(
                    "iptables has {} rules of dnslet; {}",
                    chains.ours,
                    counted(&chains.intercepted)
                )));
            }
            if chains.node_caches > 0 {
                found.push(warning(
                    format!(
                        "iptables has {} rules of node-cache: if nobody answers at their addresses, clients get nothing",
                        chains.node_caches
                    ),
                    "when node-cache has left this node for good: dnslet cleanup",
                ));
            }
        }
    }
    if seen.rules == Rules::None {
        let text = "no rules are wanted (-rules none, or -setupiptables=false): packets are tracked like any others";
        found.push(ok(text.to_owned()));
    } else if placed.is_empty() && is_certain(seen) {
        found.push(no_rules(seen));
    } else if !placed.is_empty() {
        let left_out = seen.facts.addresses.iter().filter(|address| !placed.contains(address));
        found.extend(left_out.map(|address| {
            let text = format!("packets to {address} are not intercepted: the agent does not answer there, or not yet");
            problem(text, "the lines below tell whether it answers; the agent's log says why not")
        }));
    }
    found
}

/// Whether rules that are not seen are not there.
fn is_certain(seen: &Examined) -> bool {
    let by_iptables = seen.rules == Rules::Iptables || seen.facts.placeable == Ok(Rules::Iptables);
    seen.facts.tables != Err(Unseen::Forbidden) && (!by_iptables || seen.facts.iptables.is_ok())
}

fn no_rules(seen: &Examined) -> Finding {
    let text = "no rules bring packets to the cache: queries to a Service address go to the cluster's DNS";
    if seen.facts.addresses.is_empty() {
        return warning(text.to_owned(), "that is as it should be for an agent without -localip");
    }
    match &seen.facts.placeable {
        Err(why) => problem(format!("{text}, and none can be placed"), why),
        Ok(kind) => {
            let kind = if *kind == Rules::Iptables { "iptables" } else { "nf_tables" };
            let advice = format!(
                "start the agent with -localip; it places them by {kind} as soon as it answers. If it runs, the lines below \
                 tell whether it answers, and its log why not"
            );
            problem(text.to_owned(), &advice)
        }
    }
}

fn table(table: &Table) -> Finding {
    let name = &table.name;
    match (&table.holder, table.intercepted.is_empty()) {
        (None, true) if table.fallback.is_empty() => {
            ok(format!("table inet {name} keeps replies untracked; it stays while the agent is away"))
        }
        (None, true) => {
            let sent: u64 = table.fallback.values().sum();
            let from = list(table.fallback.keys());
            ok(format!(
                "table inet {name} sends {from} to the cluster's DNS while the agent is away: {sent} packets so far"
            ))
        }
        (None, false) => warning(
            format!("table inet {name} was loaded by hand: it stays when the agent dies, and clients get no answer"),
            &format!("let the agent place the rules, and remove these: nft delete table inet {name}"),
        ),
        (Some(holder), true) => problem(
            format!(
                "table inet {name} of {holder} is empty: its probes get no answer, clients are at the cluster's DNS"
            ),
            "the agent's log says what is wrong; the rules come back by themselves when it answers",
        ),
        (Some(holder), false) => {
            let packets = counted(&table.intercepted);
            ok(format!("table inet {name} ends with {holder} and has {} rules; {packets}", table.rules))
        }
    }
}

fn counted(packets: &BTreeMap<IpAddr, u64>) -> String {
    let each = packets.iter().map(|(address, packets)| format!("{packets} to {address}"));
    format!("packets: {}", list(each))
}

pub(super) fn tracking(seen: &Examined) -> Vec<Finding> {
    let mut found = Vec::new();
    match &seen.facts.tracked {
        _ if seen.facts.addresses.is_empty() => {}
        Err(why) => found.push(skipped("entries of connection tracking for the addresses", why)),
        Ok(tracked) if tracked.entries.is_empty() && tracked.complete => {
            found.push(ok("connection tracking has no entry for the addresses".to_owned()));
        }
        Ok(tracked) => {
            let each = tracked.entries.iter().map(|(address, entries)| format!("{entries} for {address}"));
            let example = tracked.example.as_deref().unwrap_or("none in the part that was looked at");
            let text = format!("connection tracking has entries: {} ({example})", list(each));
            let untracked = intercepted(seen);
            found.push(match tracked.entries.keys().any(|address| untracked.contains(address)) {
                true => warning(
                    text,
                    "those from before the rules end within minutes; if there are ever new ones, packets pass around the \
                     rules: look for other rules in table raw",
                ),
                false => ok(format!("{text}, as is to be expected without rules for them")),
            });
        }
    }
    if let Some((entries, most)) = seen.facts.kernel.tracked {
        let text = format!("connection tracking is at {entries} of {most} entries");
        found.push(match entries.saturating_mul(10) >= most.saturating_mul(9) && most > 0 {
            true => problem(
                format!("{text}: the kernel drops what does not fit"),
                "sysctl -w net.netfilter.nf_conntrack_max with more, and see what fills it: conntrack -S",
            ),
            false => ok(text),
        });
    }
    found
}
