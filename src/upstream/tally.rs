//! What happened at one upstream, counted. Everything here is read at scrape and written at most a few times per
//! miss, so plain shared atomics do.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::failure::{Cause, Network};
use crate::dns::Rcode;

/// Upper bounds of the duration histogram in seconds, those of CoreDNS; a last bucket takes what is longer.
pub const BOUNDS: [f64; 16] =
    [0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192];

/// RCODEs told apart in the histogram: those that fit a header.
const RCODES: usize = 16;

/// The counts of one `to` label. Several upstreams with one label (UDP and TLS on one port, say) share it, and it
/// outlives them, so that a counter does not start anew when an upstream is configured again.
#[derive(Debug)]
pub struct Tally {
    to: String,
    mismatches: [AtomicU64; Mismatch::ALL.len()],
    fallbacks: [AtomicU64; Fallback::ALL.len()],
    failures: [AtomicU64; Cause::ALL.len()],
    reused: [AtomicU64; Network::ALL.len()],
    opened: [AtomicU64; Network::ALL.len()],
    retries: AtomicU64,
    check_failures: AtomicU64,
    durations: [Buckets; RCODES],
}

/// Why a message that arrived was not the answer (RFC 5452 section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Shorter than a header.
    Short,
    /// QR=0.
    NotResponse,
    /// Another ID.
    Id,
    /// Another question, or none that can be read.
    Question,
}

/// Why a question went over TCP although UDP comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The UDP answer had TC=1.
    Truncated,
    /// Too many wrong messages arrived.
    Mismatches,
    /// UDP brought nothing.
    Silence,
}

/// One count as a metric: its name, one label beside `to`, its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact {
    /// The metric's full name.
    pub name: &'static str,
    /// The label beside `to` and its value.
    pub label: Option<(&'static str, &'static str)>,
    /// The count since the process started.
    pub value: u64,
}

/// A duration histogram as it is now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Durations {
    /// Exchanges per bucket of [`BOUNDS`] (not cumulative); the last entry is what was longer.
    pub buckets: [u64; BOUNDS.len() + 1],
    /// The sum of all durations.
    pub sum: Duration,
}

#[derive(Debug, Default)]
struct Buckets {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Mismatch {
    const ALL: [Mismatch; 4] = [Mismatch::Short, Mismatch::NotResponse, Mismatch::Id, Mismatch::Question];

    fn name(self) -> &'static str {
        match self {
            Mismatch::Short => "short",
            Mismatch::NotResponse => "not_response",
            Mismatch::Id => "id",
            Mismatch::Question => "question",
        }
    }
}

impl Fallback {
    const ALL: [Fallback; 3] = [Fallback::Truncated, Fallback::Mismatches, Fallback::Silence];

    fn name(self) -> &'static str {
        match self {
            Fallback::Truncated => "truncated",
            Fallback::Mismatches => "mismatches",
            Fallback::Silence => "silence",
        }
    }
}

impl Tally {
    pub(crate) fn new(to: String) -> Tally {
        Tally {
            to,
            mismatches: Default::default(),
            fallbacks: Default::default(),
            failures: Default::default(),
            reused: Default::default(),
            opened: Default::default(),
            retries: AtomicU64::new(0),
            check_failures: AtomicU64::new(0),
            durations: Default::default(),
        }
    }

    /// The `to` label: `10.0.0.10:53`.
    pub fn to(&self) -> &str {
        &self.to
    }

    /// Hands every counter to `see`, those still at zero included.
    pub fn facts(&self, mut see: impl FnMut(Fact)) {
        let mut tell = |name, label, count: &AtomicU64| see(Fact { name, label, value: count.load(Relaxed) });
        tell("coredns_proxy_healthcheck_failures_total", None, &self.check_failures);
        for network in Network::ALL {
            let label = Some(("proto", network.name()));
            tell("coredns_proxy_conn_cache_hits_total", label, &self.reused[network as usize]);
            tell("coredns_proxy_conn_cache_misses_total", label, &self.opened[network as usize]);
        }
        tell("dnslet_upstream_retries_total", None, &self.retries);
        for reason in Mismatch::ALL {
            let label = Some(("reason", reason.name()));
            tell("dnslet_upstream_mismatches_total", label, &self.mismatches[reason as usize]);
        }
        for reason in Fallback::ALL {
            let label = Some(("reason", reason.name()));
            tell("dnslet_upstream_tcp_fallbacks_total", label, &self.fallbacks[reason as usize]);
        }
        for cause in Cause::ALL {
            let label = Some(("cause", cause.name()));
            tell("dnslet_upstream_failures_total", label, &self.failures[cause as usize]);
        }
    }

    /// Hands the duration histogram of every RCODE that was seen to `see` (`coredns_proxy_request_duration_seconds`).
    pub fn durations(&self, mut see: impl FnMut(Rcode, Durations)) {
        for (rcode, cell) in (0..).zip(&self.durations) {
            let buckets = std::array::from_fn(|index| cell.buckets[index].load(Relaxed));
            if buckets.iter().any(|count| *count != 0) {
                let sum = Duration::from_nanos(cell.nanoseconds.load(Relaxed));
                see(Rcode(rcode), Durations { buckets, sum });
            }
        }
    }

    pub(crate) fn mismatch(&self, reason: Mismatch) {
        self.mismatches[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn fallback(&self, reason: Fallback) {
        self.fallbacks[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn failure(&self, cause: Cause) {
        self.failures[cause as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn connection(&self, network: Network, reused: bool) {
        let counts = if reused { &self.reused } else { &self.opened };
        counts[network as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn check_failure(&self) {
        self.check_failures.fetch_add(1, Relaxed);
    }

    /// A completed exchange. `rcode` is the header's part of the RCODE.
    pub(crate) fn exchanged(&self, rcode: Rcode, took: Duration) {
        let cell = &self.durations[usize::from(rcode.0) % RCODES];
        let seconds = took.as_secs_f64();
        let index = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        cell.buckets[index].fetch_add(1, Relaxed);
        cell.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
}

#[cfg(test)]
impl Tally {
    /// The value of one counter, for tests.
    pub(crate) fn value(&self, name: &str, label: Option<&str>) -> u64 {
        let mut found = None;
        self.facts(|fact| {
            if fact.name == name && fact.label.map(|(_, value)| value) == label {
                found = Some(fact.value);
            }
        });
        found.expect("the metric exists")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_the_buckets_of_coredns() {
        let tally = Tally::new("10.0.0.10:53".to_owned());
        tally.exchanged(Rcode::NOERROR, Duration::from_micros(250));
        tally.exchanged(Rcode::NOERROR, Duration::from_micros(251));
        tally.exchanged(Rcode::NXDOMAIN, Duration::from_secs(9));
        let mut seen = Vec::new();
        tally.durations(|rcode, durations| seen.push((rcode, durations)));
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].0, Rcode::NOERROR);
        assert_eq!(seen[0].1.buckets[..3], [1, 1, 0]);
        assert_eq!(seen[0].1.sum, Duration::from_micros(501));
        assert_eq!(seen[1].0, Rcode::NXDOMAIN);
        assert_eq!(seen[1].1.buckets[16], 1);
    }

    #[test]
    fn every_fact_has_a_series_of_its_own() {
        let tally = Tally::new("10.0.0.10:53".to_owned());
        tally.mismatch(Mismatch::Question);
        tally.failure(Cause::Local);
        tally.connection(Network::Tls, true);
        let mut seen = std::collections::HashSet::new();
        tally.facts(|fact| assert!(seen.insert((fact.name, fact.label)), "{fact:?} twice"));
        assert_eq!(tally.value("dnslet_upstream_mismatches_total", Some("question")), 1);
        assert_eq!(tally.value("dnslet_upstream_failures_total", Some("local")), 1);
        assert_eq!(tally.value("coredns_proxy_conn_cache_hits_total", Some("tcp-tls")), 1);
        assert_eq!(tally.value("coredns_proxy_conn_cache_hits_total", Some("tcp")), 0);
    }
}
