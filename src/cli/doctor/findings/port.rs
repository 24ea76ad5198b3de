//! Who holds the port of DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::Examined;
use super::{Finding, list, ok, problem, skipped, warning};
use crate::node::diagnosis::Unseen;
use crate::sys::process::{Listener, PortOf};

pub(super) fn port(seen: &Examined) -> Vec<Finding> {
    let port = seen.dns_port;
    let mut found = Vec::new();
    for address in &seen.facts.addresses {
        let here: Vec<&Listener> = seen.listeners.iter().filter(|one| takes(one.address.ip(), *address)).collect();
        let silent = [PortOf::Udp, PortOf::Tcp].into_iter().filter(|of| !here.iter().any(|one| one.transport == *of));
        let silent = list(silent.map(word));
        if !silent.is_empty() {
            let text = format!("nobody listens on port {port} of {address} over {silent}");
            found.push(problem(text, "start the agent; if it runs, its log says why it does not listen there"));
        }
        let exact = here.iter().filter(|one| one.address.ip() == *address);
        found.extend(by_holder(exact.copied()).into_iter().map(|(holder, how)| {
            let text = format!("port {port} of {address} is held by {holder} over {how}");
            match () {
                () if holder.starts_with("dnslet ") => ok(text),
                () if holder.starts_with("another ") => {
                    skipped(&text, &Unseen::Failed("who that is, root sees on the node".to_owned()))
                }
                () => {
                    problem(text, "stop it, or give the agent other addresses: queries are shared out between the two")
                }
            }
        }));
    }
    let wildcards = seen.listeners.iter().filter(|one| one.address.ip().is_unspecified());
    found.extend(by_holder(wildcards).into_iter().map(|(holder, how)| {
        let text = format!("port {port} of every address is held by {holder} over {how}");
        match holder.starts_with("dnslet ") || holder.starts_with("another ") || seen.facts.addresses.is_empty() {
            true => ok(text),
            false => warning(text, "whatever the agent does not listen on goes there; bind it to its own addresses"),
        }
    }));
    found
}

/// Whether a socket on the first address gets what is sent to the second.
fn takes(bound: IpAddr, address: IpAddr) -> bool {
    bound == address || (bound.is_unspecified() && (bound.is_ipv6() || address.is_ipv4()))
}

fn by_holder<'a>(listeners: impl Iterator<Item = &'a Listener>) -> BTreeMap<&'a str, String> {
    let mut transports: BTreeMap<&str, BTreeSet<PortOf>> = BTreeMap::new();
    for one in listeners {
        transports.entry(&one.holder).or_default().insert(one.transport);
    }
    transports.into_iter().map(|(holder, over)| (holder, list(over.into_iter().map(word)))).collect()
}

const fn word(transport: PortOf) -> &'static str {
    match transport {
        PortOf::Udp => "UDP",
        PortOf::Tcp => "TCP",
    }
}
