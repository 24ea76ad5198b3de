//! The numbers that change on every query: one slab per worker and label set, written by that worker alone.
//!
//! A worker finishes its misses itself, on its own thread, so "the worker writes" holds for them too. Two threads that
//! wrote one slab would lose counts, nothing worse.

use std::time::Duration;

use super::counters;
use super::exposition::Exposition;
use super::histogram::{Cell, Sizes, Snapshot, Times};
use crate::dns::{Protocol, Rcode, Type};

/// What tells the numbers of one kind of query from another's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MeterKey {
    /// The listener, `dns://ip:port`.
    pub server: String,
    /// The zone label of `coredns_dns_*`; `None` where the block has no `prometheus` directive and is not counted.
    pub zone: Option<String>,
    /// The cache's zones, joined by commas, for `coredns_cache_*`; `None` without a cache.
    pub zones: Option<String>,
    /// The view, or nothing.
    pub view: String,
}

/// The numbers of one label set, a slab for each worker.
#[derive(Debug)]
pub struct Meter {
    key: MeterKey,
    slabs: Box<[Slab]>,
}

/// One worker's part. The alignment keeps two workers off one line and off the neighbour line that is fetched with it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Slab {
    requests: [[[Cell; TYPES]; 2]; 2],
    request_sizes: [Sizes; 2],
    dnssec_ok: Cell,
    durations: Times,
    responses: [[Cell; PLUGINS]; RCODES],
    response_sizes: [Sizes; 2],
    hits: [Cell; 2],
    misses: Cell,
    prefetches: Cell,
    drops: Cell,
    stale: Cell,
}

/// A query, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// How it came.
    pub proto: Protocol,
    /// Whether the client has an IPv6 address (an IPv4-mapped one is not).
    pub ipv6: bool,
    /// QTYPE.
    pub qtype: Type,
    /// Octets of the message.
    pub size: usize,
    /// The DO bit.
    pub dnssec_ok: bool,
}

/// A reply, as far as it is counted.
#[derive(Clone, Copy, Debug)]
pub struct Response {
    /// The whole RCODE, extended bits included.
    pub rcode: Rcode,
    /// Who wrote it.
    pub plugin: Plugin,
    /// Octets of the message.
    pub size: usize,
    /// How it leaves.
    pub proto: Protocol,
    /// Since the query was read.
    pub elapsed: Duration,
}

/// The two classes of cache entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Answers.
    Success,
    /// NXDOMAIN, NODATA and kept errors.
    Denial,
}

macro_rules! plugins {
    ($($(#[$doc:meta])* $plugin:ident = $label:literal,)*) => {
        /// Who wrote a reply: the label `plugin` of `coredns_dns_responses_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Plugin {
            $($(#[$doc])* $plugin,)*
        }

        impl Plugin {
            const LABELS: &'static [&'static str] = &[$($label),*];

            /// The label's value.
            pub const fn label(self) -> &'static str {
                Self::LABELS[self as usize]
            }
        }
    };
}

plugins! {
    /// No plugin: refused before any, or an error that none wrote.
    None = "",
    /// The cache, from memory.
    Cache = "cache",
    /// An upstream's answer.
    Forward = "forward",
    /// The client's own address.
    Whoami = "whoami",
    /// AAAA questions that the Corefile has answered with no data.
    Aaaa = "aaaa",
    /// Refused because it would come back to us.
    Loop = "loop",
}

const PLUGINS: usize = Plugin::LABELS.len();

/// Registered RCODEs end at 23; one more cell takes those above.
const RCODES: usize = 25;

/// The types with a label of their own; the last cell takes all others.
const TYPE_LABELS: [&str; 20] = [
    "A", "AAAA", "CNAME", "DNSKEY", "DS", "MX", "NSEC", "NSEC3", "NS", "PTR", "RRSIG", "SOA", "SRV", "TXT", "HTTPS",
    "SVCB", "IXFR", "AXFR", "ANY", "other",
];
const TYPES: usize = TYPE_LABELS.len();

impl MeterKey {
    /// For messages of a listener that are refused before any block is found.
    pub fn dropped(server: &str) -> MeterKey {
        MeterKey { server: server.to_owned(), zone: Some("dropped".to_owned()), zones: None, view: String::new() }
    }
}

impl Meter {
    pub(super) fn new(key: MeterKey, workers: usize) -> Meter {
        Meter { key, slabs: (0..workers.max(1)).map(|_| Slab::default()).collect() }
    }

    /// The labels.
    pub fn key(&self) -> &MeterKey {
        &self.key
    }

    /// The slab of a worker; only that worker may write to it. Workers are numbered from 0.
    #[inline]
    pub fn worker(&self, worker: usize) -> &Slab {
        &self.slabs[worker]
    }

    /// Adds the sums over all workers to a scrape.
    pub(super) fn expose(&self, into: &mut Exposition) {
        if let Some(zone) = &self.key.zone {
            self.expose_requests(zone, into);
            self.expose_responses(zone, into);
        }
        if let Some(zones) = &self.key.zones {
            self.expose_cache(zones, into);
        }
    }

    fn expose_requests(&self, zone: &str, into: &mut Exposition) {
        let (server, view) = (self.key.server.as_str(), self.key.view.as_str());
        for proto in [Protocol::Udp, Protocol::Tcp] {
            let name = proto_label(proto);
            for (family, label) in ["1", "2"].into_iter().enumerate() {
                for (index, kind) in TYPE_LABELS.into_iter().enumerate() {
                    let sum = self.sum(|slab| &slab.requests[proto as usize][family][index]);
                    into.used(&counters::DNS_REQUESTS, &[server, zone, view, name, label, kind], sum);
                }
            }
            let sizes = self.merged(|slab| slab.request_sizes[proto as usize].snapshot());
            into.used_histogram(&counters::DNS_REQUEST_SIZE, &[server, zone, view, name], sizes);
        }
        let sum = self.sum(|slab| &slab.dnssec_ok);
        into.used(&counters::DNS_DO_REQUESTS, &[server, zone, view], sum);
    }

    fn expose_responses(&self, zone: &str, into: &mut Exposition) {
        let (server, view) = (self.key.server.as_str(), self.key.view.as_str());
        for rcode in 0..RCODES {
            let name = if rcode + 1 == RCODES { "other".to_owned() } else { Rcode(rcode as u16).to_string() };
            for (plugin, label) in Plugin::LABELS.iter().enumerate() {
                let sum = self.sum(|slab| &slab.responses[rcode][plugin]);
                into.used(&counters::DNS_RESPONSES, &[server, zone, view, &name, label], sum);
            }
        }
        let durations = self.merged(|slab| slab.durations.snapshot());
        into.used_histogram(&counters::DNS_REQUEST_DURATION, &[server, zone, view], durations);
        for proto in [Protocol::Udp, Protocol::Tcp] {
            let sizes = self.merged(|slab| slab.response_sizes[proto as usize].snapshot());
            into.used_histogram(&counters::DNS_RESPONSE_SIZE, &[server, zone, view, proto_label(proto)], sizes);
        }
    }

    fn expose_cache(&self, zones: &str, into: &mut Exposition) {
        let (server, view) = (self.key.server.as_str(), self.key.view.as_str());
        let labels = [server, zones, view];
        let hits = [Class::Success, Class::Denial].map(|class| {
            let sum = self.sum(|slab| &slab.hits[class as usize]);
            into.used(&counters::CACHE_HITS, &[server, class.label(), zones, view], sum);
            sum
        });
        let misses = self.sum(|slab| &slab.misses);
        into.used(&counters::CACHE_MISSES, &labels, misses);
        into.used(&counters::CACHE_REQUESTS, &labels, hits.iter().sum::<u64>() + misses);
        into.used(&counters::CACHE_PREFETCH, &labels, self.sum(|slab| &slab.prefetches));
        into.used(&counters::CACHE_DROPS, &labels, self.sum(|slab| &slab.drops));
        into.used(&counters::CACHE_SERVED_STALE, &labels, self.sum(|slab| &slab.stale));
    }

    fn sum(&self, cell: impl Fn(&Slab) -> &Cell) -> u64 {
        self.slabs.iter().map(|slab| cell(slab).get()).fold(0, u64::wrapping_add)
    }

    fn merged(&self, of: impl Fn(&Slab) -> Snapshot) -> Snapshot {
        let (first, rest) = self.slabs.split_first().expect("a meter has a slab for at least one worker");
        rest.iter().fold(of(first), |mut all, slab| {
            all.merge(&of(slab));
            all
        })
    }
}

impl Slab {
    /// A query was read.
    #[inline]
    pub fn request(&self, request: Request) {
        let proto = request.proto as usize;
        self.requests[proto][usize::from(request.ipv6)][type_index(request.qtype)].add(1);
        self.request_sizes[proto].record(request.size);
        self.dnssec_ok.add(u64::from(request.dnssec_ok));
    }

    /// A reply is ready.
    #[inline]
    pub fn response(&self, response: Response) {
        let rcode = usize::from(response.rcode.0).min(RCODES - 1);
        self.responses[rcode][response.plugin as usize].add(1);
        self.response_sizes[response.proto as usize].record(response.size);
        self.durations.record(response.elapsed);
    }

    /// A lookup found an entry, fresh or stale. Lookups themselves are hits and misses, added up at scrape.
    #[inline]
    pub fn cache_hit(&self, class: Class) {
        self.hits[class as usize].add(1);
    }

    /// A lookup found nothing to use.
    #[inline]
    pub fn cache_miss(&self) {
        self.misses.add(1);
    }

    /// An entry is being renewed ahead of time.
    pub fn prefetch(&self) {
        self.prefetches.add(1);
    }

    /// An upstream's answer was not kept because it does not belong to the question.
    pub fn cache_drop(&self) {
        self.drops.add(1);
    }

    /// A reply was made from an expired entry.
    #[inline]
    pub fn served_stale(&self) {
        self.stale.add(1);
    }
}

impl Class {
    /// The value of the label `type`.
    pub const fn label(self) -> &'static str {
        match self {
            Class::Success => "success",
            Class::Denial => "denial",
        }
    }
}

/// The value of the label `proto`.
const fn proto_label(proto: Protocol) -> &'static str {
    match proto {
        Protocol::Udp => "udp",
        Protocol::Tcp => "tcp",
    }
}

/// The place of a type in [`TYPE_LABELS`].
#[inline]
const fn type_index(qtype: Type) -> usize {
    match qtype {
        Type::A => 0,
        Type::AAAA => 1,
        Type::CNAME => 2,
        Type::DNSKEY => 3,
        Type::DS => 4,
        Type::MX => 5,
        Type::NSEC => 6,
        Type::NSEC3 => 7,
        Type::NS => 8,
        Type::PTR => 9,
        Type::RRSIG => 10,
        Type::SOA => 11,
        Type::SRV => 12,
        Type::TXT => 13,
        Type::HTTPS => 14,
        Type::SVCB => 15,
        Type::IXFR => 16,
        Type::AXFR => 17,
        Type::ANY => 18,
        _ => TYPES - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_type_bears_its_name() {
        for (index, label) in TYPE_LABELS[..TYPES - 1].iter().enumerate() {
            assert_eq!(type_index(Type::from_name(label).unwrap()), index, "{label}");
        }
        assert_eq!(TYPE_LABELS[type_index(Type::HINFO)], "other");
    }

    #[test]
    fn slabs_of_two_workers_share_no_line() {
        let meter = Meter::new(MeterKey::dropped("dns://127.0.0.1:53"), 2);
        let address = |worker: usize| std::ptr::from_ref(meter.worker(worker)).addr();
        assert_eq!(address(0) % 128, 0);
        assert_eq!(address(1) % 128, 0);
    }
}
