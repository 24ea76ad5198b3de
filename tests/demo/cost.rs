//! What lookups cost: queries that reach the cluster's DNS, conntrack entries, and time.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result};
use dnslet::sys::clock;

use super::cluster::lookup::{self, Transport};
use super::cluster::{Cluster, SERVICE, netfilter};

/// How many lookups are measured at a time.
const LOOKUPS: usize = 1000;

/// What that many lookups of one name cost.
pub struct Cost {
    /// Queries that reached the cluster's DNS.
    queries: usize,
    /// Entries for DNS on the node, the agent's own included.
    entries: usize,
    /// The time of each, sorted.
    times: Vec<Duration>,
}

impl Cost {
    /// A pod looks the name up at the Service IP, each time from a new port, one after the other.
    pub fn measure(cluster: &Cluster, name: &str) -> Result<Cost> {
        netfilter::forget_flows().context("emptying the conntrack table")?;
        let before = cluster.dns.queries();
        let asked = name.to_owned();
        let times = cluster.pods[0].run(move || (0..LOOKUPS).map(|_| one(&asked)).collect::<io::Result<Vec<_>>>());
        let mut times = times.with_context(|| format!("a lookup of {name} went unanswered"))?;
        times.sort_unstable();
        Ok(Cost { queries: cluster.dns.queries() - before, entries: netfilter::dns_flows()?.len(), times })
    }

    /// The time that this part of the lookups did not exceed.
    fn within(&self, part: f64) -> u128 {
        let index = (self.times.len() as f64 * part).ceil() as usize;
        self.times[index.clamp(1, self.times.len()) - 1].as_micros()
    }
}

fn one(name: &str) -> io::Result<Duration> {
    let start = clock::now();
    lookup::ask(SERVICE.into(), name, Transport::Udp)?;
    Ok(start.elapsed())
}

/// The table of both, name by name.
pub fn print<const N: usize>(names: [&str; N], before: [Result<Cost>; N], after: [Result<Cost>; N]) -> Result<()> {
    line("1,000 lookups by a pod, each from", ["queries at", "conntrack", "half took", "99 % took"]);
    line("a port of the kernel's choice", ["cluster DNS", "entries", "at most", "at most"]);
    for ((name, before), after) in names.iter().zip(before).zip(after) {
        println!("{name}");
        for (state, cost) in [("  without dnslet", before?), ("  with dnslet", after?)] {
            let [half, most] = [cost.within(0.5), cost.within(0.99)].map(|time| format!("{time} µs"));
            line(state, [&cost.queries.to_string(), &cost.entries.to_string(), &half, &most]);
        }
    }
    Ok(())
}

fn line(what: &str, [queries, entries, half, most]: [&str; 4]) {
    println!("{what:36}{queries:>12}{entries:>12}{half:>12}{most:>12}");
}
