//! What a running agent tells of itself at a metrics endpoint: fetched, read, added up. Whoever answers there may be somebody
//! else, so nothing that comes is trusted to be well formed or short.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::flags::Flags;
use super::options;
use crate::life::load::load;
use crate::life::options::Configuration;
use crate::life::sources::Sources;
use crate::observe::counters::{Metric, WORKERS};
use crate::observe::probe::reachable;

/// Where node-cache's metrics are, and ours by default.
pub(super) const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 9353);

/// Where the metrics of the package's Corefile are.
const PACKAGED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9253);

/// Where the metrics of the built-in Corefile are.
const BUILT_IN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 19153);

/// How long an endpoint may take for the whole of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most that is read, in octets. An agent with a thousand meters stays below.
const LONGEST: u64 = 16 << 20;

/// Labels are cut to so many characters; addresses and words are shorter.
const LONGEST_LABEL: usize = 80;

/// No number that an agent tells is larger, or below nothing.
const LARGEST: f64 = 1e15;

/// The samples of one scrape, as far as they can be shown on a terminal.
#[derive(Debug, Default)]
pub(super) struct Figures(BTreeMap<String, Vec<Sample>>);

/// One series: its labels, nothing in them that a terminal would not show, and its value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    labels: Vec<(String, String)>,
    pub(super) value: f64,
}

/// Why there are no samples.
#[derive(Debug)]
pub(super) enum Unread {
    /// The kernel said no.
    Network(io::Error),
    /// It takes too long.
    Slow,
    /// It is no agent, with what shows that.
    Foreign(String),
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unread::Network(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                f.write_str("nobody listens there")
            }
            Unread::Network(error) => error.fmt(f),
            Unread::Slow => write!(f, "no whole answer within {} s", PATIENCE.as_secs()),
            Unread::Foreign(why) => write!(f, "no agent answers there: {why}"),
        }
    }
}

/// Where to look, the likeliest first: only where a flag says, or else where the Corefile does, if flags name one that
/// can be used, and where agents are by default.
pub(super) fn endpoints(flags: &Flags) -> Vec<SocketAddr> {
    if let Some(given) = &flags.metrics_listen_address {
        return given.0.into_iter().collect();
    }
    let template = super::value::listen_address(&flags.prometheus_listen_address.0).ok();
    let defaults = [Some(METRICS), template, Some(PACKAGED), Some(BUILT_IN)].into_iter().flatten();
    let mut endpoints = Vec::new();
    for endpoint in configured(flags).into_iter().chain(defaults) {
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    endpoints
}

/// The `prometheus` lines of the Corefile; none where it cannot be used.
fn configured(flags: &Flags) -> Vec<SocketAddr> {
    let Ok(options) = options::options(flags, &options::Machine::here()) else { return Vec::new() };
    if matches!(options.configuration, Configuration::BuiltIn | Configuration::Stdin) {
        return Vec::new();
    }
    let loaded = load(&mut Sources::new(&options), &options, |_| ());
    let process = loaded.map(|loaded| loaded.routes.process).unwrap_or_default();
    process.prometheus.iter().map(|address| address.socket).collect()
}

/// The samples at the first endpoint that has some. The error is a sentence for the operator.
pub(super) async fn first(endpoints: &[SocketAddr]) -> Result<(SocketAddr, Figures), String> {
    let mut why = Vec::new();
    for endpoint in endpoints {
        match fetch(*endpoint).await {
            Ok(figures) => return Ok((reachable(*endpoint), figures)),
            Err(unread) => why.push(format!("{}: {unread}", reachable(*endpoint))),
        }
    }
    if why.is_empty() {
        return Err("-metrics-listen-address is empty: say where the metrics of the agent are".to_owned());
    }
    let where_else = "-metrics-listen-address says where, as a `prometheus` line of the Corefile does";
    Err(format!("no agent shows its numbers; {}; {where_else}", why.join("; ")))
}

/// The samples at one endpoint.
pub(super) async fn fetch(endpoint: SocketAddr) -> Result<Figures, Unread> {
    let text = timeout(PATIENCE, get(reachable(endpoint))).await.map_err(|_| Unread::Slow)?;
    let text = text.map_err(Unread::Network)?;
    if text.len() as u64 >= LONGEST {
        return Err(Unread::Foreign(format!("more than {} MiB", LONGEST >> 20)));
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.lines().next().unwrap_or_default();
    if !(status.starts_with("HTTP/1.") && status.split(' ').nth(1) == Some("200")) {
        return Err(Unread::Foreign(format!("{:?}", status.chars().take(60).collect::<String>())));
    }
    let figures = Figures::read(body);
    match figures.sum(&WORKERS) {
        Some(_) => Ok(figures),
        None => Err(Unread::Foreign(format!("there is no {}", WORKERS.name))),
    }
}

async fn get(target: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {target}\r\n\r\n").as_bytes()).await?;
    let mut text = Vec::new();
    stream.take(LONGEST).read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Figures {
    /// Reads an exposition; lines that are no samples are passed over.
    pub(super) fn read(text: &str) -> Figures {
        let mut figures = Figures::default();
        for (name, sample) in text.lines().filter_map(sample) {
            figures.0.entry(name).or_default().push(sample);
        }
        figures
    }

    /// All series of a metric added up; `None` where there is none.
    pub(super) fn sum(&self, metric: &Metric) -> Option<f64> {
        let samples = self.0.get(metric.name)?;
        Some(samples.iter().map(|sample| sample.value).sum())
    }

    /// The same for each value of a label.
    pub(super) fn by(&self, metric: &Metric, label: &str) -> BTreeMap<String, f64> {
        self.grouped(metric.name, label)
    }

    /// The server blocks, by server and zone, that have a plugin of this name.
    pub(super) fn blocks(&self, metric: &Metric, plugin: &str) -> BTreeSet<[&str; 2]> {
        let samples = self.0.get(metric.name).into_iter().flatten();
        let having = samples.filter(|sample| sample.label("name") == plugin);
        having.map(|sample| ["server", "zone"].map(|key| sample.label(key))).collect()
    }

    /// The counts of a histogram up to each of its limits.
    pub(super) fn buckets(&self, metric: &Metric) -> Vec<(f64, f64)> {
        let counts = self.grouped(&format!("{}_bucket", metric.name), "le");
        let number = |limit: &str| if limit == "+Inf" { Ok(f64::INFINITY) } else { limit.parse() };
        let counts = counts.iter().filter_map(|(limit, count)| Some((number(limit).ok()?, *count)));
        let mut counts: Vec<_> = counts.filter(|(limit, _)| !limit.is_nan()).collect();
        counts.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        counts
    }

    /// How much each series has grown since `before`. One that fell has started anew, as those of a process that was
    /// replaced do.
    pub(super) fn since(&self, before: &Figures) -> Figures {
        let grown = |name: &String, sample: &Sample| {
            let old = before.0.get(name).and_then(|samples| samples.iter().find(|old| old.labels == sample.labels));
            let old = old.map_or(0.0, |old| old.value);
            Sample { value: if sample.value < old { sample.value } else { sample.value - old }, ..sample.clone() }
        };
        let all = self
            .0
            .iter()
            .map(|(name, samples)| (name.clone(), samples.iter().map(|sample| grown(name, sample)).collect()));
        Figures(all.collect())
    }

    fn grouped(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for sample in self.0.get(name).into_iter().flatten() {
            *sums.entry(sample.label(label).to_owned()).or_insert(0.0) += sample.value;
        }
        sums
    }
}

impl Sample {
    /// Nothing where it has no such label.
    fn label(&self, key: &str) -> &str {
        self.labels.iter().find(|(known, _)| known == key).map_or("", |(_, value)| value)
    }
}

/// `name{label="value",...} number`, with or without labels, and perhaps a timestamp.
fn sample(line: &str) -> Option<(String, Sample)> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).filter(|end| *end > 0)?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value: f64 = rest.split_ascii_whitespace().next()?.parse().ok().filter(|value: &f64| value.is_finite())?;
    Some((name.to_owned(), Sample { labels, value: value.clamp(0.0, LARGEST) }))
}

/// The labels, and what follows the brace that ends them.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, quoted) = rest.split_once("=\"")?;
        let (mut value, mut escaped) = (String::new(), false);
        let end = quoted.char_indices().find_map(|(at, c)| {
            match c {
                '"' if !escaped => return Some(at),
                '\\' if !escaped => {
                    escaped = true;
                    return None;
                }
                'n' if escaped => value.push('\n'),
                c => value.push(c),
            }
            escaped = false;
            None
        })?;
        labels.push((key.to_owned(), shown(&value)));
        rest = &quoted[end + 1..];
    }
}

/// A label as it may be shown: what could move the cursor, or hide or reorder what stands there, is escaped; what is too
/// long is cut.
fn shown(label: &str) -> String {
    let visible = |c: char| matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1;
    let mut text = String::new();
    for c in label.chars() {
        match visible(c) {
            true => text.push(c),
            false => text.extend(c.escape_unicode()),
        }
        if text.chars().count() > LONGEST_LABEL {
            return text.chars().take(LONGEST_LABEL - 3).collect::<String>() + "...";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::counters::{DNS_REQUEST_DURATION, DNS_RESPONSES, UPSTREAM_UP};

    #[test]
    fn samples_are_found_among_whatever_else_there_is() {
        let text = "# HELP dnslet_upstream_up 0 while.\n# TYPE dnslet_upstream_up gauge\n\
                    dnslet_upstream_up{to=\"10.0.0.10:53\"} 1\ndnslet_upstream_up{to=\"[fd00::1]:53\"} 0\n\
                    dnslet_upstream_up{to=\"cut\ndnslet_upstream_up{to=\"x\"} lots\n} 5\n\
                    dnslet_workers 2 1700000000\ndnslet_workers NaN\n";
        let figures = Figures::read(text);
        let told = [("10.0.0.10:53".to_owned(), 1.0), ("[fd00::1]:53".to_owned(), 0.0)];
        assert_eq!(figures.by(&UPSTREAM_UP, "to"), told.into());
        assert_eq!(figures.by(&UPSTREAM_UP, "colour"), [(String::new(), 1.0)].into(), "a label it does not have");
        assert_eq!(figures.sum(&WORKERS), Some(2.0));
        assert_eq!(Figures::read("<html>").sum(&WORKERS), None);
    }

    #[test]
    fn labels_may_hold_every_character() {
        let text = "coredns_dns_responses_total{zone=\"a\\\"b}\\\\,\",rcode=\"NO\\nERROR\", more=\"\"} 3";
        let figures = Figures::read(text);
        assert_eq!(figures.by(&DNS_RESPONSES, "zone"), [("a\"b}\\,".to_owned(), 3.0)].into());
        assert_eq!(figures.by(&DNS_RESPONSES, "rcode"), [("NO\\u{a}ERROR".to_owned(), 3.0)].into());
    }

    #[test]
    fn what_would_not_be_shown_as_it_is_is_escaped_and_cut() {
        let only = |line: &str| Figures::read(line).by(&UPSTREAM_UP, "to").into_iter().next().unwrap();
        let of = |label: &str| only(&format!("dnslet_upstream_up{{to=\"{label}\"}} 1")).0;
        assert_eq!(of("\x1b[2J\u{9b}1m\u{202e}\u{200b}\x07"), "\\u{1b}[2J\\u{9b}1m\\u{202e}\\u{200b}\\u{7}");
        assert_eq!(of("tls://[fd00::1]:853 it's é"), "tls://[fd00::1]:853 it's é");
        assert_eq!(of(&"x".repeat(80)).len(), 80);
        assert_eq!(of(&"\x1b".repeat(1_000_000)).len(), 80);
        assert!(of(&"x".repeat(81)).ends_with("xx..."));
        for (number, value) in [("1e308", 1e15), ("-5", 0.0), ("-1e308", 0.0), ("-0", 0.0), ("7.5", 7.5)] {
            assert_eq!(only(&format!("dnslet_upstream_up{{to=\"x\"}} {number}")).1, value, "{number}");
        }
        let many = "dnslet_workers 1e308\n".repeat(1000);
        assert!(Figures::read(&many).sum(&WORKERS).unwrap().is_finite());
    }

    #[test]
    fn a_histogram_is_added_up_over_its_other_labels() {
        let line = |zone: &str, limit: &str, count: u32| {
            format!("coredns_dns_request_duration_seconds_bucket{{zone=\"{zone}\",le=\"{limit}\"}} {count}\n")
        };
        let text = line("a", "0.5", 1) + &line("a", "+Inf", 4) + &line("b", "0.5", 2) + &line("b", "+Inf", 2);
        let buckets = Figures::read(&text).buckets(&DNS_REQUEST_DURATION);
        assert_eq!(buckets, [(0.5, 3.0), (f64::INFINITY, 6.0)]);
    }

    #[test]
    fn a_counter_that_fell_has_started_anew() {
        let at = |one: u32, other: u32| {
            Figures::read(&format!(
                "dnslet_upstream_up{{to=\"one\"}} {one}\ndnslet_upstream_up{{to=\"other\"}} {other}\n"
            ))
        };
        let grown = at(5, 12).since(&at(100, 10)).by(&UPSTREAM_UP, "to");
        assert_eq!(grown, [("one".to_owned(), 5.0), ("other".to_owned(), 2.0)].into());
        assert_eq!(at(5, 1).since(&Figures::default()).sum(&UPSTREAM_UP), Some(6.0));
    }
}
