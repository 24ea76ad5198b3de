//! What happened at one upstream, counted. Everything here is read at scrape and written at most a few times per
//! miss, so plain shared atomics do.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::failure::{Cause, Network};
use crate::dns::Rcode;
use crate::observe::counters::{
    PROXY_CONN_HITS, PROXY_CONN_MISSES, PROXY_DURATION, PROXY_HEALTHCHECK_FAILURES, UPSTREAM_EDNS_FALLBACKS,
    UPSTREAM_FAILURES, UPSTREAM_FALLBACKS, UPSTREAM_MISMATCHES, UPSTREAM_QUERIES, UPSTREAM_RETRIES,
    UPSTREAM_SUSPICIONS,
};
use crate::observe::{Exposition, Metric, SharedHistogram, TIMES};

/// The `proxy_name` label of the metrics that are CoreDNS's.
const PROXY: &str = "forward";
/// RCODEs told apart in the histogram: those that fit a header.
const RCODES: usize = 16;

/// The counts of one `to` label. Several upstreams with one label (UDP and TLS on one port, say) share it, and it
/// outlives them, so that a counter does not start anew when an upstream is configured again.
#[derive(Debug)]
pub(crate) struct Tally {
    to: String,
    mismatches: [AtomicU64; Mismatch::ALL.len()],
    fallbacks: [AtomicU64; Fallback::ALL.len()],
    failures: [AtomicU64; Cause::ALL.len()],
    reused: [AtomicU64; Network::ALL.len()],
    opened: [AtomicU64; Network::ALL.len()],
    queries: AtomicU64,
    retries: AtomicU64,
    without_edns: AtomicU64,
    check_failures: AtomicU64,
    suspicions: AtomicU64,
    durations: [OnceLock<SharedHistogram>; RCODES],
}

/// Why a message that arrived was not the answer (RFC 5452 section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// Shorter than a header.
    Short,
    /// QR=0.
    NotResponse,
    /// Another ID.
    Id,
    /// Another question, or none that can be read.
    Question,
    /// Records that cannot be read.
    Malformed,
}

/// Why a question went over TCP although UDP comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// The UDP answer had TC=1.
    Truncated,
    /// Too many wrong messages arrived.
    Mismatches,
    /// UDP brought nothing.
    Silence,
}

impl Mismatch {
    const ALL: [Mismatch; 5] =
        [Mismatch::Short, Mismatch::NotResponse, Mismatch::Id, Mismatch::Question, Mismatch::Malformed];

    fn name(self) -> &'static str {
        match self {
            Mismatch::Short => "short",
            Mismatch::NotResponse => "not_response",
            Mismatch::Id => "id",
            Mismatch::Question => "question",
            Mismatch::Malformed => "malformed",
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
            queries: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            without_edns: AtomicU64::new(0),
            check_failures: AtomicU64::new(0),
            suspicions: AtomicU64::new(0),
            durations: Default::default(),
        }
    }

    /// Adds everything that has happened so far to a scrape.
    pub(crate) fn expose(&self, into: &mut Exposition) {
        let to = self.to.as_str();
        let mut tell = |metric: &'static Metric, labels: &[&str], count: &AtomicU64| match count.load(Relaxed) {
            0 => {}
            count => into.counter(metric, labels, count),
        };
        tell(&PROXY_HEALTHCHECK_FAILURES, &[PROXY, to], &self.check_failures);
        tell(&UPSTREAM_QUERIES, &[to], &self.queries);
        tell(&UPSTREAM_RETRIES, &[to], &self.retries);
        tell(&UPSTREAM_EDNS_FALLBACKS, &[to], &self.without_edns);
        tell(&UPSTREAM_SUSPICIONS, &[to], &self.suspicions);
        for network in Network::ALL {
            tell(&PROXY_CONN_HITS, &[PROXY, to, network.name()], &self.reused[network as usize]);
            tell(&PROXY_CONN_MISSES, &[PROXY, to, network.name()], &self.opened[network as usize]);
        }
        for reason in Mismatch::ALL {
            tell(&UPSTREAM_MISMATCHES, &[to, reason.name()], &self.mismatches[reason as usize]);
        }
        for reason in Fallback::ALL {
            tell(&UPSTREAM_FALLBACKS, &[to, reason.name()], &self.fallbacks[reason as usize]);
        }
        for cause in Cause::ALL {
            tell(&UPSTREAM_FAILURES, &[to, cause.name()], &self.failures[cause as usize]);
        }
        for (rcode, times) in (0..).map(Rcode).zip(&self.durations) {
            let Some(times) = times.get() else { continue };
            // CoreDNS gives unknown RCODEs as bare numbers here, unlike in its other metrics.
            let number = rcode.0.to_string();
            into.histogram(&PROXY_DURATION, &[PROXY, to, rcode.name().unwrap_or(&number)], times.snapshot());
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

    /// A question left, for the first time or again.
    pub(crate) fn query(&self) {
        self.queries.fetch_add(1, Relaxed);
    }

    pub(crate) fn retry(&self) {
        self.retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn without_edns(&self) {
        self.without_edns.fetch_add(1, Relaxed);
    }

    pub(crate) fn check_failure(&self) {
        self.check_failures.fetch_add(1, Relaxed);
    }

    /// Several queries in a row brought nothing.
    pub(crate) fn suspected(&self) {
        self.suspicions.fetch_add(1, Relaxed);
    }

    /// A completed exchange. `rcode` is the header's part of the RCODE.
    pub(crate) fn exchanged(&self, rcode: Rcode, took: Duration) {
        self.durations[usize::from(rcode.0) % RCODES].get_or_init(|| SharedHistogram::new(&TIMES)).record(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Registry;
    use std::sync::Arc;

    #[test]
    fn what_happened_is_seen_under_its_label_and_nothing_else() {
        let tally = Arc::new(Tally::new("10.0.0.10:53".to_owned()));
        tally.mismatch(Mismatch::Question);
        tally.failure(Cause::Refused);
        tally.connection(Network::Tls, true);
        tally.exchanged(Rcode::NXDOMAIN, Duration::from_millis(3));
        tally.exchanged(Rcode(13), Duration::from_millis(3));
        let registry = Registry::new(1);
        registry.set_source("upstreams", move |into| tally.expose(into));
        let text = registry.render();
        let about: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("to=\"10.0.0.10:53\"") && !line.contains("_bucket") && !line.contains("_sum"))
            .collect();
        assert_eq!(
            about,
            [
                r#"coredns_proxy_conn_cache_hits_total{proxy_name="forward",to="10.0.0.10:53",proto="tcp-tls"} 1"#,
                r#"coredns_proxy_request_duration_seconds_count{proxy_name="forward",to="10.0.0.10:53",rcode="13"} 1"#,
                r#"coredns_proxy_request_duration_seconds_count{proxy_name="forward",to="10.0.0.10:53",rcode="NXDOMAIN"} 1"#,
                r#"dnslet_upstream_failures_total{to="10.0.0.10:53",reason="refused"} 1"#,
                r#"dnslet_upstream_mismatches_total{to="10.0.0.10:53",reason="question"} 1"#,
            ]
        );
    }
}
