//! `status`: what a running agent has done since it was started, on one screen.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use super::flags::Flags;
use super::scrape::{self, Figures};
use crate::observe::Metric;
use crate::observe::counters::{
    AAAA_OFF, AUTOPATH_PLAIN, AUTOPATH_SAVED, AUTOPATH_STEPS, AUTOPATH_WALKS, BUILD_INFO, CACHE_BUDGET, CACHE_BYTES,
    CACHE_HITS, CACHE_REQUESTS, CONFIG_VALID, DENIAL_CUTS, DENIAL_CUTS_REFUSED, DNS_REQUESTS, DNS_RESPONSES, FLIGHTS,
    LIMIT, MISSES_IN_FLIGHT, NODE_INTERCEPTED, PLUGIN_ENABLED, PROCESS_RESIDENT, PROCESS_START, READY,
    UPSTREAM_QUERIES, UPSTREAM_RTT, UPSTREAM_UP,
};
use crate::sys::clock;

/// The most upstreams, and addresses, that are shown one by one.
const MOST_LINES: usize = 40;

/// The most RCODEs, outcomes and reasons: there are not that many.
const MOST_WORDS: usize = 30;

/// Prints the screen; failure where no agent shows its numbers.
pub(super) fn status(flags: &Flags) -> ExitCode {
    let runtime = match super::runtime() {
        Ok(runtime) => runtime,
        Err(code) => return code,
    };
    match runtime.block_on(scrape::first(&scrape::endpoints(flags))) {
        Ok((endpoint, figures)) => super::say(&screen(endpoint, &figures), ExitCode::SUCCESS),
        Err(why) => {
            super::complain(&why);
            ExitCode::FAILURE
        }
    }
}

fn screen(endpoint: SocketAddr, figures: &Figures) -> String {
    let up = figures.sum(&PROCESS_START).map(|start| {
        let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        format!(", up {}", long(wall.saturating_sub(Duration::from_secs_f64(start.clamp(0.0, 1e12)))))
    });
    render(endpoint, figures, &up.unwrap_or_default())
}

fn render(endpoint: SocketAddr, figures: &Figures, more: &str) -> String {
    head(endpoint, figures, more) + &counts(figures, &Scale::Total) + &standing(figures)
}

/// The first line: who, where, and what more there is to say of it.
pub(super) fn head(endpoint: SocketAddr, figures: &Figures, more: &str) -> String {
    let version = figures.by(&BUILD_INFO, "version").into_keys().next().unwrap_or_default();
    let agent = if version.is_empty() { "dnslet".to_owned() } else { format!("dnslet {version}") };
    format!("{agent}, metrics at {endpoint}{more}\n")
}

/// How counts are shown.
pub(super) enum Scale {
    /// As they are.
    Total,
    /// Divided by so many seconds.
    PerSecond(f64),
}

impl Scale {
    pub(super) fn show(&self, count: f64) -> String {
        match self {
            Scale::Total => whole(count),
            Scale::PerSecond(seconds) => rate(count / seconds),
        }
    }
}

/// What was counted, a line for each kind. What this agent has no number for is a dash, and left out where it is about
/// something that need not be in use.
pub(super) fn counts(figures: &Figures, scale: &Scale) -> String {
    let sum = |metric| figures.sum(metric).unwrap_or(0.0);
    let by = |metric: &Metric, label: &str| words(&figures.by(metric, label), scale);
    let mut text = String::new();
    let hits = share(figures.sum(&CACHE_HITS).or(Some(0.0)), figures.sum(&CACHE_REQUESTS));
    line(
        &mut text,
        "queries",
        &match figures.sum(&DNS_REQUESTS) {
            Some(queries) => format!("{}, {hits} of lookups answered from the cache", scale.show(queries)),
            None => "none counted (blocks without `prometheus` do not count theirs)".to_owned(),
        },
    );
    line(&mut text, "replies", &by(&DNS_RESPONSES, "rcode"));
    let sent = sum(&UPSTREAM_QUERIES);
    let each = match per_query(figures) {
        Ratio::Known(each) => format!("{each:.2} for each query of a client"),
        Ratio::Mixed => "some for blocks without `prometheus`, whose clients are not counted".to_owned(),
        Ratio::Unknown => "- for each query of a client".to_owned(),
    };
    line(&mut text, "upstream", &format!("{} queries, {each}", scale.show(sent)));
    if figures.sum(&AUTOPATH_WALKS).or(figures.sum(&AUTOPATH_PLAIN)).is_some() {
        line(&mut text, "walks", &by(&AUTOPATH_WALKS, "outcome"));
        line(&mut text, "  steps", &by(&AUTOPATH_STEPS, "by"));
        line(&mut text, "  plain", &by(&AUTOPATH_PLAIN, "reason"));
        line(&mut text, "  saved", &format!("{} queries of clients", scale.show(sum(&AUTOPATH_SAVED))));
    }
    if figures.sum(&DENIAL_CUTS).or(figures.sum(&DENIAL_CUTS_REFUSED)).is_some() {
        let refused = scale.show(sum(&DENIAL_CUTS_REFUSED));
        line(&mut text, "denial cuts", &format!("{}, refused {refused}", scale.show(sum(&DENIAL_CUTS))));
    }
    if let Some(off) = figures.sum(&AAAA_OFF) {
        line(&mut text, "AAAA off", &scale.show(off));
    }
    text
}

/// How things stand: upstreams, limits, node.
pub(super) fn standing(figures: &Figures) -> String {
    let mut text = String::new();
    let (up, times) = (figures.by(&UPSTREAM_UP, "to"), figures.by(&UPSTREAM_RTT, "to"));
    for (place, (to, up)) in up.iter().take(MOST_LINES).enumerate() {
        let state = if *up == 0.0 { "DOWN" } else { "up" };
        let time = times.get(to).map(|seconds| format!(", {}", short(*seconds))).unwrap_or_default();
        line(&mut text, if place == 0 { "upstreams" } else { "" }, &format!("{to} {state}{time}"));
    }
    if up.len() > MOST_LINES {
        line(&mut text, "", &format!("and {} more", up.len() - MOST_LINES));
    }
    let limits = figures.by(&LIMIT, "of");
    let against = |used: Option<f64>, limit: &str| {
        let shown = |number: Option<f64>| number.map_or("-".to_owned(), whole);
        format!("{} of {}", shown(used), shown(limits.get(limit).copied()))
    };
    let waiting = against(figures.sum(&MISSES_IN_FLIGHT), "waiting");
    line(&mut text, "flights", &format!("{}, queries waiting {waiting}", against(figures.sum(&FLIGHTS), "flights")));
    let octets = |metric| figures.sum(metric).map_or("-".to_owned(), mebibytes);
    let (used, budget, resident) = (octets(&CACHE_BYTES), octets(&CACHE_BUDGET), octets(&PROCESS_RESIDENT));
    line(&mut text, "memory", &format!("cache {used} of {budget}, process {resident}"));
    let said = |metric, yes, no| match figures.sum(metric) {
        Some(0.0) => no,
        Some(_) => yes,
        None => "-",
    };
    let (ready, valid) = (said(&READY, "yes", "NO"), said(&CONFIG_VALID, "valid", "REFUSED, an older one is in use"));
    line(&mut text, "ready", &format!("{ready}, configuration on disk {valid}"));
    for (address, intercepted) in figures.by(&NODE_INTERCEPTED, "address").into_iter().take(MOST_LINES) {
        let state = if intercepted == 0.0 { "NOT intercepted" } else { "intercepted" };
        line(&mut text, "node", &format!("{address} {state}"));
    }
    text
}

/// Upstream queries for each query of a client.
pub(super) enum Ratio {
    Known(f64),
    /// Blocks that ask upstreams do not count their clients.
    Mixed,
    /// There were no clients.
    Unknown,
}

/// What is told of all upstreams, against what only blocks with `prometheus` tell: of these two a ratio can be made where
/// every block that forwards is one of those.
pub(super) fn per_query(figures: &Figures) -> Ratio {
    let sent = figures.sum(&UPSTREAM_QUERIES).unwrap_or(0.0);
    let counting = figures.blocks(&PLUGIN_ENABLED, "prometheus");
    if !figures.blocks(&PLUGIN_ENABLED, "forward").is_subset(&counting) {
        return Ratio::Mixed;
    }
    match figures.sum(&DNS_REQUESTS) {
        Some(queries) if queries > 0.0 => Ratio::Known(sent / queries),
        _ => Ratio::Unknown,
    }
}

/// Which part of `all` the `part` is.
pub(super) fn share(part: Option<f64>, all: Option<f64>) -> String {
    match (part, all) {
        (Some(part), Some(all)) if all > 0.0 => format!("{:.1} %", 100.0 * part / all),
        _ => "-".to_owned(),
    }
}

/// A time in the unit that suits it.
pub(super) fn short(seconds: f64) -> String {
    match seconds {
        ..0.001 => format!("{:.0} µs", seconds * 1e6),
        ..1.0 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

pub(super) fn rate(per_second: f64) -> String {
    if per_second < 100.0 { format!("{per_second:.1}/s") } else { format!("{}/s", whole(per_second)) }
}

fn line(text: &mut String, what: &str, said: &str) {
    text.push_str(format!("{what:<12} {said}").trim_end());
    text.push('\n');
}

/// `found 12, missing 3`, the most first.
fn words(counts: &BTreeMap<String, f64>, scale: &Scale) -> String {
    let mut counts: Vec<_> = counts.iter().filter(|(_, count)| **count > 0.0).collect();
    counts.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let shown = counts.iter().take(MOST_WORDS).map(|(word, count)| format!("{word} {}", scale.show(**count)));
    let rest = counts.len().checked_sub(MOST_WORDS).filter(|rest| *rest > 0).map(|rest| format!("{rest} more"));
    let shown: Vec<String> = shown.chain(rest).collect();
    if shown.is_empty() { "-".to_owned() } else { shown.join(", ") }
}

/// A count with its thousands apart.
fn whole(count: f64) -> String {
    let digits = format!("{count:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn mebibytes(octets: f64) -> String {
    format!("{:.1} MiB", octets / f64::from(1 << 20))
}

fn long(time: Duration) -> String {
    let (minutes, seconds) = (time.as_secs() / 60, time.as_secs() % 60);
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {seconds} s"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([0.0, 12.0, 999.0, 1000.0, 1234567.0].map(whole), ["0", "12", "999", "1,000", "1,234,567"]);
        assert_eq!([0.0004, 0.0123, 2.5].map(short), ["400 µs", "12.3 ms", "2.50 s"]);
        assert_eq!([0.25, 99.96, 1234.4].map(rate), ["0.2/s", "100.0/s", "1,234/s"]);
        assert_eq!(
            [5, 65, 7_320, 180_000].map(|s| long(Duration::from_secs(s))),
            ["5 s", "1 min 5 s", "2 h 2 min", "2 d 2 h"]
        );
        assert_eq!(share(Some(0.0), Some(0.0)), "-");
    }

    #[test]
    fn the_page_for_operators_shows_what_is_printed() {
        let text = "coredns_build_info{version=\"0.1.0\"} 1\ncoredns_dns_requests_total{type=\"A\"} 184220\n\
                    coredns_cache_requests_total 184220\ncoredns_cache_hits_total{type=\"success\"} 178331\n\
                    coredns_dns_responses_total{rcode=\"NOERROR\"} 171202\n\
                    coredns_dns_responses_total{rcode=\"NXDOMAIN\"} 13011\n\
                    coredns_dns_responses_total{rcode=\"SERVFAIL\"} 7\n\
                    dnslet_upstream_queries_total{to=\"10.96.3.7:53\"} 2704\n\
                    dnslet_upstream_queries_total{to=\"10.1.0.53:53\"} 3188\n\
                    dnslet_autopath_walks_total{outcome=\"found\"} 41877\n\
                    dnslet_autopath_walks_total{outcome=\"first\"} 9120\n\
                    dnslet_autopath_walks_total{outcome=\"missing\"} 214\n\
                    dnslet_autopath_plain_total{reason=\"continued\"} 1006\n\
                    dnslet_autopath_plain_total{reason=\"namespace\"} 12\n\
                    dnslet_autopath_steps_total{by=\"cache\"} 152301\n\
                    dnslet_autopath_steps_total{by=\"upstream\"} 2011\n\
                    dnslet_autopath_steps_total{by=\"above\"} 633\n\
                    dnslet_autopath_queries_saved_total 125631\ndnslet_denial_cuts_total 1402\n\
                    dnslet_upstream_up{to=\"10.96.3.7:53\"} 1\ndnslet_upstream_up{to=\"10.1.0.53:53\"} 0\n\
                    dnslet_upstream_rtt_seconds{to=\"10.96.3.7:53\"} 0.00042\n\
                    dnslet_flights 3\ndnslet_limit{of=\"flights\"} 435\ndnslet_misses_in_flight 4\n\
                    dnslet_limit{of=\"waiting\"} 870\ndnslet_cache_bytes 2202009\n\
                    dnslet_cache_budget_bytes 22369621\nprocess_resident_memory_bytes 24012390\n\
                    dnslet_ready 1\ndnslet_config_valid 1\ndnslet_node_intercepted{address=\"169.254.20.10\"} 1\n";
        let shown = render("127.0.0.1:9353".parse().unwrap(), &Figures::read(text), ", up 3 h 12 min");
        let page = include_str!("../../docs/trouble.md");
        assert!(page.contains(&shown), "docs/trouble.md does not show this:\n{shown}");
    }

    #[test]
    fn a_block_that_does_not_count_its_clients_leaves_no_ratio() {
        let plugin = |zone: &str, name: &str| {
            format!("coredns_plugin_enabled{{server=\"dns://:53\",zone=\"{zone}\",view=\"\",name=\"{name}\"}} 1\n")
        };
        let both = plugin(".", "forward") + &plugin(".", "prometheus") + &plugin("local.test.", "whoami");
        let text = "coredns_dns_requests_total 10\ndnslet_upstream_queries_total{to=\"x\"} 5\n".to_owned() + &both;
        let shown = |text: &str| counts(&Figures::read(text), &Scale::Total);
        assert!(shown(&text).contains("5 queries, 0.50 for each query of a client\n"), "{}", shown(&text));
        let mixed = text + &plugin("a.test.", "forward");
        let part = "5 queries, some for blocks without `prometheus`, whose clients are not counted\n";
        assert!(shown(&mixed).contains(part), "{}", shown(&mixed));
    }

    #[test]
    fn there_is_a_last_line_and_a_last_word() {
        let many: String = (0..5000).map(|n| format!("dnslet_upstream_up{{to=\"{n}\"}} 1\n")).collect();
        let all = standing(&Figures::read(&many));
        assert!(all.contains("\n             and 4960 more\n") && all.lines().count() < 50, "{all}");
        let many: String = (0..5000).map(|n| format!("coredns_dns_responses_total{{rcode=\"{n}\"}} 1\n")).collect();
        let all = counts(&Figures::read(&many), &Scale::Total);
        assert!(all.contains(", 4970 more\n") && all.len() < 1000, "{all}");
    }

    #[test]
    fn what_an_agent_does_not_tell_is_a_dash() {
        let empty = screen("127.0.0.1:9353".parse().unwrap(), &Figures::default());
        for line in [
            "dnslet, metrics at 127.0.0.1:9353\n",
            "queries      none counted",
            "replies      -\n",
            "upstream     0 queries, - for each query of a client\n",
            "flights      - of -, queries waiting - of -\n",
            "ready        -, configuration on disk -\n",
        ] {
            assert!(empty.contains(line), "{line} in\n{empty}");
        }
        assert!(!empty.contains("walks") && !empty.contains("NaN"), "{empty}");
    }
}
