//! The one table of metrics: name, kind, labels, help. `docs/metrics.md` says the same to operators, and a test here
//! compares the two. Names that start with `coredns_` are those of CoreDNS and node-cache, labels and buckets included.

/// What a metric is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

/// Who keeps the number between scrapes. A metric has one home, so that its lines stay together in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// The slabs of the workers, summed at scrape.
    Slab,
    /// A handle from [`Registry::counter`](super::Registry::counter) or [`Registry::gauge`](super::Registry::gauge).
    Handle,
    /// Whoever registered a source that is asked at scrape.
    Source,
}

/// One row of the table.
#[derive(Debug)]
pub struct Metric {
    /// The full name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// Who keeps it.
    pub home: Home,
    /// Whether it is there, as 0, before its first use; only where there are no labels.
    pub at_start: bool,
    /// One sentence for the exposition.
    pub help: &'static str,
}

impl Kind {
    /// The word of the exposition format.
    pub const fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// `Absent` until first used, or `AtStart`.
macro_rules! at_start {
    (AtStart) => {
        true
    };
    (Absent) => {
        false
    };
}

macro_rules! table {
    ($($row:ident = $name:literal $kind:ident $home:ident $start:ident [$($label:literal)*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $row: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                home: Home::$home,
                at_start: at_start!($start),
                help: $help,
            };
        )*

        /// Every row.
        pub static TABLE: &[&Metric] = &[$(&$row),*];
    };
}

table! {
    BUILD_INFO = "coredns_build_info" Gauge Handle Absent ["version" "revision" "goversion"]
        "Always 1; the labels tell which build answers.";
    DNS_REQUESTS = "coredns_dns_requests_total" Counter Slab Absent ["server" "zone" "view" "proto" "family" "type"]
        "Queries received.";
    DNS_REQUEST_DURATION = "coredns_dns_request_duration_seconds" Histogram Slab Absent ["server" "zone" "view"]
        "Time from reading a query to having its reply.";
    DNS_REQUEST_SIZE = "coredns_dns_request_size_bytes" Histogram Slab Absent ["server" "zone" "view" "proto"]
        "Size of a query as it arrived.";
    DNS_DO_REQUESTS = "coredns_dns_do_requests_total" Counter Slab Absent ["server" "zone" "view"]
        "Queries with the DO bit.";
    DNS_RESPONSE_SIZE = "coredns_dns_response_size_bytes" Histogram Slab Absent ["server" "zone" "view" "proto"]
        "Size of a reply.";
    DNS_RESPONSES = "coredns_dns_responses_total" Counter Slab Absent ["server" "zone" "view" "rcode" "plugin"]
        "Replies by RCODE and by the plugin that wrote them.";
    PANICS = "coredns_panics_total" Counter Handle AtStart []
        "Panics that were caught; each cost one question.";
    PLUGIN_ENABLED = "coredns_plugin_enabled" Gauge Source Absent ["server" "zone" "view" "name"]
        "1 for each plugin that handles queries of the zone.";

    CACHE_ENTRIES = "coredns_cache_entries" Gauge Source Absent ["server" "type" "zones" "view"]
        "Entries in the cache.";
    CACHE_REQUESTS = "coredns_cache_requests_total" Counter Slab Absent ["server" "zones" "view"]
        "Lookups in the cache.";
    CACHE_HITS = "coredns_cache_hits_total" Counter Slab Absent ["server" "type" "zones" "view"]
        "Lookups that found an entry, stale ones included.";
    CACHE_MISSES = "coredns_cache_misses_total" Counter Slab Absent ["server" "zones" "view"]
        "Lookups that found nothing to use.";
    CACHE_EVICTIONS = "coredns_cache_evictions_total" Counter Source Absent ["server" "type" "zones" "view"]
        "Entries pushed out before their time.";
    CACHE_PREFETCH = "coredns_cache_prefetch_total" Counter Slab Absent ["server" "zones" "view"]
        "Entries renewed before they expired.";
    CACHE_DROPS = "coredns_cache_drops_total" Counter Slab Absent ["server" "zones" "view"]
        "Upstream answers not kept because they do not belong to the question.";
    CACHE_SERVED_STALE = "coredns_cache_served_stale_total" Counter Slab Absent ["server" "zones" "view"]
        "Replies made from an expired entry.";
    CACHE_BYTES = "dnslet_cache_bytes" Gauge Source Absent []
        "Memory that cache entries take.";
    CACHE_BUDGET = "dnslet_cache_budget_bytes" Gauge Source Absent []
        "Memory that cache entries may take.";
    CACHE_DENIALS_REFUSED = "dnslet_cache_denials_refused_total" Counter Source AtStart []
        "Denials not kept because their part of the cache had no room.";

    FORWARD_HEALTHCHECK_BROKEN = "coredns_forward_healthcheck_broken_total" Counter Source AtStart []
        "Exchanges that found every upstream of their line down.";
    FORWARD_REJECTS = "coredns_forward_max_concurrent_rejects_total" Counter Source AtStart []
        "Queries refused because max_concurrent were under way.";
    PROXY_DURATION = "coredns_proxy_request_duration_seconds" Histogram Source Absent ["proxy_name" "to" "rcode"]
        "Time of a successful exchange with an upstream.";
    PROXY_HEALTHCHECK_FAILURES = "coredns_proxy_healthcheck_failures_total" Counter Source Absent ["proxy_name" "to"]
        "Health checks an upstream did not answer.";
    PROXY_CONN_HITS = "coredns_proxy_conn_cache_hits_total" Counter Source Absent ["proxy_name" "to" "proto"]
        "Exchanges over a connection that was already open.";
    PROXY_CONN_MISSES = "coredns_proxy_conn_cache_misses_total" Counter Source Absent ["proxy_name" "to" "proto"]
        "Exchanges that opened a connection or socket.";
    UPSTREAM_UP = "dnslet_upstream_up" Gauge Source Absent ["to"]
        "0 while an upstream is passed by as down, else 1.";
    UPSTREAM_QUERIES = "dnslet_upstream_queries_total" Counter Source Absent ["to"]
        "Questions sent to an upstream for clients and refreshes, each try of its own.";
    UPSTREAM_FAILURES = "dnslet_upstream_failures_total" Counter Source Absent ["to" "reason"]
        "Exchanges with an upstream that failed.";
    UPSTREAM_RETRIES = "dnslet_upstream_retries_total" Counter Source Absent ["to"]
        "Questions sent to an upstream again.";
    UPSTREAM_RETRIES_REFUSED = "dnslet_upstream_retries_refused_total" Counter Source AtStart []
        "Questions sent again later or not at all because too many others were.";
    UPSTREAM_PACED = "dnslet_upstream_paced_total" Counter Source AtStart []
        "Questions not sent because of the limit of packets a second.";
    UPSTREAM_SUSPICIONS = "dnslet_upstream_suspicions_total" Counter Source Absent ["to"]
        "Times an upstream was set back after queries in a row without answer.";
    UPSTREAM_FALLBACKS = "dnslet_upstream_tcp_fallbacks_total" Counter Source Absent ["to" "reason"]
        "Questions that went over TCP although UDP comes first.";
    UPSTREAM_EDNS_FALLBACKS = "dnslet_upstream_edns_fallbacks_total" Counter Source Absent ["to"]
        "Questions asked again without EDNS.";
    UPSTREAM_MISMATCHES = "dnslet_upstream_mismatches_total" Counter Source Absent ["to" "reason"]
        "Messages from an upstream's address that matched no question in flight.";
    UPSTREAM_RTT = "dnslet_upstream_rtt_seconds" Gauge Source Absent ["to"]
        "Smoothed round-trip time of an upstream.";
    UPSTREAM_CONNECTIONS = "dnslet_upstream_connections" Gauge Source Absent ["to"]
        "Connections open to an upstream.";

    AUTOPATH_WALKS = "dnslet_autopath_walks_total" Counter Slab Absent ["outcome"]
        "Search lists walked for clients, replies from memory included.";
    AUTOPATH_PLAIN = "dnslet_autopath_plain_total" Counter Slab Absent ["reason"]
        "First names of search lists that were answered without a walk, or after one that was given up.";
    AUTOPATH_STEPS = "dnslet_autopath_steps_total" Counter Slab Absent ["by"]
        "Names tried in walks, by how it was known whether they exist.";
    AUTOPATH_SAVED = "dnslet_autopath_queries_saved_total" Counter Slab Absent []
        "Queries that clients did not have to send because a walk answered the first one.";
    DENIAL_CUTS = "dnslet_denial_cuts_total" Counter Slab Absent []
        "Lookups answered by the denial of a name above.";
    DENIAL_CUTS_REFUSED = "dnslet_denial_cuts_refused_total" Counter Slab Absent []
        "Denials not used for names beneath because such a name existed within the last hour.";
    AAAA_OFF = "dnslet_aaaa_off_total" Counter Slab Absent []
        "AAAA questions answered with no data because the Corefile says so.";

    FLIGHTS = "dnslet_flights" Gauge Source Absent []
        "Misses being resolved now.";
    LIMIT = "dnslet_limit" Gauge Handle Absent ["of"]
        "Limits in force.";
    FLIGHTS_JOINED = "dnslet_flights_joined_total" Counter Slab Absent []
        "Queries that joined a miss already being resolved.";
    MISSES_SHED = "dnslet_misses_shed_total" Counter Slab Absent ["reason"]
        "Misses answered at once because a limit was reached.";
    FAILURES = "dnslet_failures_total" Counter Slab Absent ["reason"]
        "Exchanges for clients or refreshes that ended without a usable answer.";
    FAILURES_REPEATED = "dnslet_failures_repeated_total" Counter Slab Absent []
        "Queries that met a failure that is remembered.";
    FAILURES_REMEMBERED = "dnslet_failures_remembered" Gauge Source Absent []
        "Questions whose failure is remembered.";
    FAILURES_EVICTED = "dnslet_failures_evicted_total" Counter Source AtStart []
        "Remembered failures that were given up for want of room.";
    QUERIES_REJECTED = "dnslet_queries_rejected_total" Counter Slab Absent ["reason"]
        "Messages answered with an error before any plugin saw them.";
    DATAGRAMS_RECEIVED = "dnslet_datagrams_received_total" Counter Slab Absent []
        "Datagrams read.";
    RECEIVE_CALLS = "dnslet_receive_calls_total" Counter Slab Absent []
        "System calls that read datagrams; each may bring a batch.";
    RECEIVE_ERRORS = "dnslet_receive_errors_total" Counter Slab Absent []
        "System calls that failed to read datagrams.";
    DATAGRAMS_DROPPED = "dnslet_datagrams_dropped_total" Counter Slab Absent ["reason"]
        "Datagrams that got no reply.";
    REPLIES_TRUNCATED = "dnslet_replies_truncated_total" Counter Slab Absent []
        "Replies cut to the client's size and marked with TC.";
    TCP_ACCEPTED = "dnslet_tcp_connections_accepted_total" Counter Slab Absent []
        "Connections taken from clients.";
    TCP_REFUSED = "dnslet_tcp_connections_refused_total" Counter Slab Absent ["reason"]
        "Connections from clients that were not taken.";
    TCP_CLOSED = "dnslet_tcp_connections_closed_total" Counter Slab Absent ["reason"]
        "Connections from clients that ended.";
    TCP_CONNECTIONS = "dnslet_tcp_connections" Gauge Slab AtStart []
        "Connections from clients open now.";
    TCP_HELD = "dnslet_tcp_held_bytes" Gauge Slab AtStart []
        "Memory that connections hold for unread queries and replies, beyond 4 KiB each.";
    MISSES_IN_FLIGHT = "dnslet_misses_in_flight" Gauge Slab AtStart []
        "Queries of clients that wait for an upstream now.";

    HEALTH_DURATION = "coredns_health_request_duration_seconds" Histogram Source AtStart []
        "Time the agent's own sockets took to answer a probe.";
    HEALTH_FAILURES = "coredns_health_request_failures_total" Counter Handle AtStart []
        "Probes of the agent's own sockets that failed.";
    LISTENER_UP = "dnslet_listener_up" Gauge Source Absent ["server" "proto"]
        "1 while a listening socket answers probes.";
    READY = "dnslet_ready" Gauge Source AtStart []
        "1 while every part is ready.";
    RELOAD_FAILED = "coredns_reload_failed_total" Counter Handle AtStart []
        "Reloads refused because the new configuration is wrong.";
    RELOAD_VERSION = "coredns_reload_version_info" Gauge Source Absent ["hash" "value"]
        "Always 1; the labels carry the digest of the configuration in use.";
    CONFIG_VALID = "dnslet_config_valid" Gauge Handle Absent []
        "1 while the configuration on disk is the one in use, 0 after it was refused.";
    CONFIG_LOADED = "dnslet_config_loaded_timestamp_seconds" Gauge Handle Absent []
        "When the configuration in use was loaded, in seconds since 1970.";
    LOOPS = "dnslet_forwarding_loops_total" Counter Handle AtStart []
        "Blocks whose queries were seen to come back from their upstream.";
    SETUP_ERRORS = "coredns_nodecache_setup_errors_total" Counter Handle Absent ["errortype"]
        "Failures to set up the node.";

    NODE_INTERCEPTED = "dnslet_node_intercepted" Gauge Handle Absent ["address"]
        "1 while packets to the address come here untracked.";
    NODE_FAIL_OPEN = "dnslet_node_fail_open" Gauge Handle Absent []
        "1 while clients are sent to the cluster's DNS because an address does not answer.";
    NODE_FAIL_OPEN_SECONDS = "dnslet_node_fail_open_seconds_total" Counter Handle Absent []
        "How long that was so in all, in whole seconds.";
    NODE_FALLBACK = "dnslet_node_fallback_endpoints" Gauge Handle Absent []
        "DNS servers that clients of link-local addresses reach while nobody answers here.";
    NODE_ACTIONS = "dnslet_node_actions_total" Counter Handle Absent ["action"]
        "Changes made to link, addresses and rules.";
    SERVER_RESTARTS = "dnslet_server_restarts_total" Counter Handle Absent ["reason"]
        "Times that the process which reads packets was started again.";

    LOG_SUPPRESSED = "dnslet_log_lines_suppressed_total" Counter Handle AtStart []
        "Log lines left out because many alike were written just before.";
    LOG_DROPPED = "dnslet_log_lines_dropped_total" Counter Handle Absent ["stream"]
        "Log lines lost because standard output was too slow.";
    HTTP_REFUSED = "dnslet_http_connections_refused_total" Counter Handle AtStart []
        "Connections to the HTTP endpoints closed because too many were open.";
    METERS_REFUSED = "dnslet_meters_refused_total" Counter Handle AtStart []
        "Label sets folded into one because there were too many.";
    WORKERS = "dnslet_workers" Gauge Handle Absent []
        "Threads that answer queries.";

    PROCESS_CPU = "process_cpu_seconds_total" Counter Source Absent []
        "Processor time used, user and system.";
    PROCESS_OPEN_FDS = "process_open_fds" Gauge Source Absent []
        "Open file descriptors.";
    PROCESS_MAX_FDS = "process_max_fds" Gauge Source Absent []
        "File descriptors the process may open.";
    PROCESS_RESIDENT = "process_resident_memory_bytes" Gauge Source Absent []
        "Resident memory.";
    PROCESS_VIRTUAL = "process_virtual_memory_bytes" Gauge Source Absent []
        "Address space in use.";
    PROCESS_VIRTUAL_MAX = "process_virtual_memory_max_bytes" Gauge Source Absent []
        "Address space the process may use; -1 without a limit.";
    PROCESS_START = "process_start_time_seconds" Gauge Source Absent []
        "When the process started, in seconds since 1970.";
    PROCESS_THREADS = "process_threads" Gauge Source Absent []
        "Threads of the process.";
    PROCESS_NETWORK_RECEIVED = "process_network_receive_bytes_total" Counter Source Absent []
        "Bytes that IP received in the process's network namespace.";
    PROCESS_NETWORK_SENT = "process_network_transmit_bytes_total" Counter Source Absent []
        "Bytes that IP sent from the process's network namespace.";
}

/// The values of the label `errortype`; all are there, as 0, from the start.
pub static SETUP_ERROR_TYPES: [&str; 5] =
    ["iptables", "iptables_lock", "interface_add", "interface_check", "configmap"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Rows of the tables in `docs/metrics.md` whose first cell is a metric's name.
    fn documented() -> Vec<(String, String, String)> {
        let page = include_str!("../../docs/metrics.md");
        let cells = page.lines().filter(|line| line.starts_with("| `")).map(|line| {
            let cells: Vec<String> = line.split('|').map(|cell| cell.trim().replace('`', "")).collect();
            assert_eq!(cells.len(), 7, "five cells: {line}");
            assert!(cells[4].len() > 10 && cells[5].len() > 10, "meaning and what to do: {line}");
            (cells[1].clone(), cells[2].clone(), cells[3].clone())
        });
        cells.collect()
    }

    #[test]
    fn the_page_for_operators_has_the_same_rows() {
        let row = |metric: &&Metric| {
            let labels = if metric.labels.is_empty() { "-".to_owned() } else { metric.labels.join(", ") };
            (metric.name.to_owned(), metric.kind.word().to_owned(), labels)
        };
        let table: BTreeSet<_> = TABLE.iter().map(row).collect();
        let page: BTreeSet<_> = documented().into_iter().collect();
        let missing: Vec<_> = table.difference(&page).collect();
        let unknown: Vec<_> = page.difference(&table).collect();
        assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
        assert!(unknown.is_empty(), "only in docs/metrics.md: {unknown:?}");
    }

    #[test]
    fn names_follow_the_rules_of_prometheus() {
        let word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let scaled = ["_ms", "_milliseconds", "_microseconds", "_minutes", "_kb", "_mb", "_kilobytes", "_percent"];
        let reserved = ["_bucket", "_sum", "_count"];
        let mut seen = BTreeSet::new();
        for metric in TABLE {
            let name = metric.name;
            assert!(seen.insert(name), "{name} twice");
            assert!(word(name), "{name}");
            assert!(["coredns_", "dnslet_", "process_"].iter().any(|prefix| name.starts_with(prefix)), "{name}");
            assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}: counters end in _total");
            let base = name.trim_end_matches("_total");
            assert!(!scaled.iter().any(|unit| base.ends_with(unit)), "{name}: base units only");
            assert!(!reserved.iter().any(|suffix| name.ends_with(suffix)), "{name}: the suffix is the format's");
            let unit = base.ends_with("_seconds") || base.ends_with("_bytes");
            assert!(metric.kind != Kind::Histogram || unit, "{name}: a histogram names its unit");
            assert!(metric.labels.iter().all(|&label| word(label) && label != "le" && label != "quantile"), "{name}");
            let labels: BTreeSet<_> = metric.labels.iter().collect();
            assert_eq!(labels.len(), metric.labels.len(), "{name}: a label twice");
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}: one sentence");
            assert!(!metric.at_start || metric.labels.is_empty(), "{name}: nothing to start with");
        }
    }
}
