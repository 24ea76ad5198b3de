//! What the search list of a pod costs: queries for one external name, by the rules of the C library.

use std::io;

use anyhow::{Context, Result};

use super::cluster::lookup;
use super::cluster::{Cluster, SERVICE};

/// What a pod's resolv.conf says with `ndots:5`, and the name as it is.
const SUFFIXES: [&str; 4] = [".shop.svc.cluster.local", ".svc.cluster.local", ".cluster.local", ""];
/// A and AAAA.
const TYPES: [u16; 2] = [1, 28];
/// Names of the same top-level domain that were looked up before.
const BEFORE: [&str; 3] = ["www.example.com", "api.example.com", "images.example.com"];
const NAME: &str = "docs.example.com";

/// Queries for a name.
pub struct Cost {
    /// From the pod.
    sent: usize,
    /// At the cluster's DNS when the name is looked up for the first time, and at once again.
    first: usize,
    again: usize,
}

impl Cost {
    /// A pod looks a name up twice that nobody asked for before.
    pub fn measure(cluster: &Cluster) -> Result<Cost> {
        for name in BEFORE {
            look_up(cluster, name)?;
        }
        let (sent, first) = look_up(cluster, NAME)?;
        let (_, again) = look_up(cluster, NAME)?;
        Ok(Cost { sent, first, again })
    }
}

/// Queries that the pod sent, and that reached the cluster's DNS.
fn look_up(cluster: &Cluster, name: &'static str) -> Result<(usize, usize)> {
    let before = cluster.dns.queries();
    let sent = cluster.pods[0].run(move || stub(name)).with_context(|| format!("looking up {name}"))?;
    Ok((sent, cluster.dns.queries() - before))
}

/// Asks name after name for both types until one has either; how many queries that took.
fn stub(name: &str) -> io::Result<usize> {
    let mut sent = 0;
    for suffix in SUFFIXES {
        let mut found = false;
        for qtype in TYPES {
            found |= lookup::has(SERVICE.into(), &format!("{name}{suffix}"), qtype)?;
            sent += 1;
        }
        if found {
            return Ok(sent);
        }
    }
    Err(io::Error::other("no name of the search list has an address"))
}

/// The table of all three.
pub fn print(without: &Cost, with: &Cost, walked: &Cost) {
    line("A pod looks up an external name", ["sent by", "at cluster", "asked"]);
    line("with its search list, A and AAAA", ["the pod", "DNS", "again"]);
    for (state, cost) in [("without dnslet", without), ("with dnslet", with), ("with dnslet and autopath", walked)] {
        line(&format!("  {state}"), [cost.sent, cost.first, cost.again].map(|count| count.to_string()).each_ref());
    }
}

fn line<T: std::fmt::Display + ?Sized>(what: &str, [sent, first, again]: [&T; 3]) {
    println!("{what:36}{sent:>12}{first:>12}{again:>12}");
}
