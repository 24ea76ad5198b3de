//! All numbers of the process in one place, and the text a scrape gets.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::counters::{self, Home, Kind, Metric, TABLE};
use super::events::Worker;
use super::exposition::Exposition;
use super::histogram::{HEALTH, SharedHistogram};
use super::slab::{Meter, MeterKey};
use crate::sys::process;

/// Label sets with numbers of their own; more are folded into one. A reload never takes numbers away, so this bounds
/// what a long series of reloads can leave behind.
const MAX_METERS: usize = 4096;

const METADATA: Metadata<'static> = Metadata::new("dnslet", Level::INFO, None);

/// The numbers of the process. Made once, handed to every room; nothing in it is reset by a reload.
pub struct Registry {
    workers: Box<[Worker]>,
    meters: Mutex<HashMap<MeterKey, Arc<Meter>>>,
    sources: Mutex<Vec<(&'static str, Source)>>,
    recorder: PrometheusRecorder,
    text: PrometheusHandle,
    health: SharedHistogram,
}

/// Adds numbers to a scrape that somebody else keeps.
type Source = Arc<dyn Fn(&mut Exposition) + Send + Sync>;

impl Registry {
    /// Numbers for so many workers, at least one.
    pub fn new(workers: usize) -> Arc<Registry> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let registry = Registry {
            workers: (0..workers.max(1)).map(|_| Worker::default()).collect(),
            meters: Mutex::default(),
            sources: Mutex::default(),
            text: recorder.handle(),
            recorder,
            health: SharedHistogram::new(&HEALTH),
        };
        registry.describe();
        registry.start();
        Arc::new(registry)
    }

    /// The numbers of one label set, made when asked for first. The same key gives the same meter, also after a reload.
    pub fn meter(&self, key: &MeterKey) -> Arc<Meter> {
        let mut meters = lock(&self.meters);
        if let Some(meter) = meters.get(key) {
            return Arc::clone(meter);
        }
        let key = if meters.len() < MAX_METERS {
            key.clone()
        } else {
            self.counter(&counters::METERS_REFUSED, &[]).increment(1);
            let folded = || Some("folded".to_owned());
            MeterKey { server: String::new(), zone: folded(), zones: folded(), view: String::new() }
        };
        let fresh = || Arc::new(Meter::new(key.clone(), self.workers.len()));
        Arc::clone(meters.entry(key.clone()).or_insert_with(fresh))
    }

    /// A worker's own numbers; only that worker may write to them. Workers are numbered from 0.
    #[inline]
    pub fn worker(&self, worker: usize) -> &Worker {
        &self.workers[worker]
    }

    /// How many workers there are numbers for.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// A handle to a counter whose home is [`Home::Handle`]; it shows as 0 from now on. `labels` are values, in the
    /// order of the metric's label names. Made at start or at reload, kept, never looked up per query.
    pub fn counter(&self, metric: &'static Metric, labels: &[&str]) -> Counter {
        debug_assert_eq!((metric.home, metric.kind), (Home::Handle, Kind::Counter), "{}", metric.name);
        self.recorder.register_counter(&key(metric, labels), &METADATA)
    }

    /// A handle to a gauge whose home is [`Home::Handle`].
    pub fn gauge(&self, metric: &'static Metric, labels: &[&str]) -> Gauge {
        debug_assert_eq!((metric.home, metric.kind), (Home::Handle, Kind::Gauge), "{}", metric.name);
        self.recorder.register_gauge(&key(metric, labels), &METADATA)
    }

    /// Where the health probe records how long it took.
    pub fn health_duration(&self) -> &SharedHistogram {
        &self.health
    }

    /// Has `source` asked at each scrape for metrics whose home is [`Home::Source`]. A second one of the same name takes
    /// the first one's place, so a reload leaves nothing of the old configuration behind.
    pub fn set_source(&self, name: &'static str, source: impl Fn(&mut Exposition) + Send + Sync + 'static) {
        let mut sources = lock(&self.sources);
        sources.retain(|(known, _)| *known != name);
        sources.push((name, Arc::new(source)));
    }

    /// The whole text of a scrape.
    pub fn render(&self) -> String {
        let mut exposition = Exposition::at_start();
        for worker in &self.workers {
            worker.expose(&mut exposition);
        }
        // Copies, so that a source that takes its time, or registers another, holds up nobody.
        let meters: Vec<Arc<Meter>> = lock(&self.meters).values().cloned().collect();
        for meter in meters {
            meter.expose(&mut exposition);
        }
        let sources: Vec<Source> = lock(&self.sources).iter().map(|(_, source)| Arc::clone(source)).collect();
        for source in sources {
            source(&mut exposition);
        }
        exposition.histogram(&counters::HEALTH_DURATION, &[], self.health.snapshot());
        expose_process(&process::figures(), &mut exposition);
        self.text.render() + &exposition.render()
    }

    /// As much of it as one worker counts by itself.
    pub fn render_worker(&self, worker: usize) -> String {
        let mut exposition = Exposition::at_start();
        self.workers[worker].expose(&mut exposition);
        exposition.render()
    }

    fn describe(&self) {
        for metric in TABLE.iter().filter(|metric| metric.home == Home::Handle) {
            match metric.kind {
                Kind::Counter => self.recorder.describe_counter(metric.name.into(), None, metric.help.into()),
                Kind::Gauge => self.recorder.describe_gauge(metric.name.into(), None, metric.help.into()),
                Kind::Histogram => unreachable!("the recorder would keep every sample, so no histogram lives there"),
            }
        }
    }

    /// What is there before first use.
    fn start(&self) {
        for metric in TABLE.iter().filter(|metric| metric.at_start && metric.home == Home::Handle) {
            self.counter(metric, &[]).absolute(0);
        }
        for errortype in counters::SETUP_ERROR_TYPES {
            self.counter(&counters::SETUP_ERRORS, &[errortype]).absolute(0);
        }
        self.gauge(&counters::WORKERS, &[]).set(self.workers.len() as f64);
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

fn key(metric: &'static Metric, values: &[&str]) -> Key {
    debug_assert_eq!(values.len(), metric.labels.len(), "{}: values for {:?}", metric.name, metric.labels);
    let labels = metric.labels.iter().zip(values).map(|(&name, &value)| Label::new(name, value.to_owned()));
    Key::from_parts(metric.name, labels.collect::<Vec<_>>())
}

fn expose_process(figures: &process::Figures, into: &mut Exposition) {
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    if let Some(seconds) = figures.cpu_seconds {
        into.counter_f64(&counters::PROCESS_CPU, &[], seconds);
    }
    let gauges = [
        (&counters::PROCESS_OPEN_FDS, whole(figures.open_fds)),
        (&counters::PROCESS_MAX_FDS, whole(figures.max_fds)),
        (&counters::PROCESS_RESIDENT, whole(figures.resident_bytes)),
        (&counters::PROCESS_VIRTUAL, whole(figures.virtual_bytes)),
        (&counters::PROCESS_VIRTUAL_MAX, Some(whole(figures.virtual_max_bytes).unwrap_or(-1.0))),
        (&counters::PROCESS_START, figures.start_seconds),
        (&counters::PROCESS_THREADS, whole(figures.threads)),
    ];
    for (metric, value) in gauges {
        if let Some(value) = value {
            into.gauge(metric, &[], value);
        }
    }
    let network = [
        (&counters::PROCESS_NETWORK_RECEIVED, figures.network_received),
        (&counters::PROCESS_NETWORK_SENT, figures.network_sent),
    ];
    for (metric, value) in network {
        if let Some(value) = value {
            into.counter(metric, &[], value);
        }
    }
}

/// No value behind these locks is ever half written, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::{Class, Event, Plugin, Request, Response};
    use super::*;
    use crate::dns::{Protocol, Rcode, Type};
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    /// Reads the text format strictly: families in one piece, HELP and TYPE first, each series once.
    fn parse(text: &str) -> BTreeMap<String, f64> {
        let mut families = BTreeSet::new();
        let mut family = String::new();
        let mut samples = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap().to_owned();
                assert!(families.insert(family.clone()), "{family} in two pieces");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let metric = TABLE.iter().find(|metric| metric.name == name).expect(name);
                assert_eq!((name, kind), (family.as_str(), metric.kind.word()));
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                assert!(name == family || base == Some(family.as_str()), "{line} under {family}");
                assert!(samples.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series} twice");
            }
        }
        samples
    }

    fn cluster() -> MeterKey {
        let zone = || Some("cluster.local.".to_owned());
        MeterKey { server: "dns://10.0.0.1:53".to_owned(), zone: zone(), zones: zone(), view: String::new() }
    }

    const LABELS: &str = r#"server="dns://10.0.0.1:53",zone="cluster.local.",view="""#;
    const CACHE: &str = r#"zones="cluster.local.",view="""#;

    #[test]
    fn workers_are_summed_under_the_labels_of_dashboards() {
        let registry = Registry::new(2);
        let meter = registry.meter(&cluster());
        for worker in 0..2 {
            let slab = meter.worker(worker);
            slab.request(Request { proto: Protocol::Udp, ipv6: true, qtype: Type::AAAA, size: 44, dnssec_ok: true });
            slab.cache_miss();
            slab.cache_hit(Class::Denial);
            slab.response(Response {
                rcode: Rcode::NXDOMAIN,
                plugin: Plugin::Cache,
                size: 120,
                proto: Protocol::Udp,
                elapsed: Duration::from_millis(1),
            });
            registry.worker(worker).count(Event::DroppedShort);
        }
        let samples = parse(&registry.render());
        let value = |series: String| *samples.get(&series).unwrap_or_else(|| panic!("no {series}"));
        assert_eq!(
            value(format!("coredns_dns_requests_total{{{LABELS},proto=\"udp\",family=\"2\",type=\"AAAA\"}}")),
            2.0
        );
        assert_eq!(value(format!("coredns_dns_do_requests_total{{{LABELS}}}")), 2.0);
        assert_eq!(value(format!("coredns_dns_responses_total{{{LABELS},rcode=\"NXDOMAIN\",plugin=\"cache\"}}")), 2.0);
        let duration = "coredns_dns_request_duration_seconds";
        assert_eq!(value(format!("{duration}_bucket{{{LABELS},le=\"0.0005\"}}")), 0.0);
        assert_eq!(value(format!("{duration}_bucket{{{LABELS},le=\"0.001\"}}")), 2.0);
        assert_eq!(value(format!("{duration}_sum{{{LABELS}}}")), 0.002);
        assert_eq!(value(format!("coredns_dns_response_size_bytes_count{{{LABELS},proto=\"udp\"}}")), 2.0);
        let server = r#"server="dns://10.0.0.1:53""#;
        assert_eq!(value(format!("coredns_cache_requests_total{{{server},{CACHE}}}")), 4.0);
        assert_eq!(value(format!("coredns_cache_hits_total{{{server},type=\"denial\",{CACHE}}}")), 2.0);
        assert_eq!(value("dnslet_datagrams_dropped_total{reason=\"short\"}".to_owned()), 2.0);
    }

    #[test]
    fn the_same_key_is_the_same_meter_and_another_zone_shares_the_cache_series() {
        let registry = Registry::new(1);
        let other = MeterKey { zone: Some("svc.cluster.local.".to_owned()), ..cluster() };
        registry.meter(&cluster()).worker(0).cache_miss();
        registry.meter(&cluster()).worker(0).cache_miss();
        registry.meter(&other).worker(0).cache_miss();
        let samples = parse(&registry.render());
        let series = format!("coredns_cache_misses_total{{server=\"dns://10.0.0.1:53\",{CACHE}}}");
        assert_eq!(samples[&series], 3.0);
    }

    #[test]
    fn a_block_without_prometheus_has_cache_series_only() {
        let registry = Registry::new(1);
        let meter = registry.meter(&MeterKey { zone: None, ..cluster() });
        let request = Request { proto: Protocol::Tcp, ipv6: false, qtype: Type::A, size: 40, dnssec_ok: false };
        meter.worker(0).request(request);
        meter.worker(0).cache_miss();
        let text = registry.render();
        assert!(!text.contains("coredns_dns_requests_total"), "{text}");
        assert!(text.contains("coredns_cache_misses_total{"), "{text}");
    }

    #[test]
    fn what_starts_at_zero_is_there_before_any_query() {
        let samples = parse(&Registry::new(1).render());
        for metric in TABLE.iter().filter(|metric| metric.at_start) {
            let name = metric.name.to_owned() + if metric.kind == Kind::Histogram { "_count" } else { "" };
            assert_eq!(samples.get(&name), Some(&0.0), "{name}");
        }
        for errortype in counters::SETUP_ERROR_TYPES {
            let series = format!("coredns_nodecache_setup_errors_total{{errortype=\"{errortype}\"}}");
            assert_eq!(samples.get(&series), Some(&0.0), "{series}");
        }
        assert!(samples["process_resident_memory_bytes"] > 0.0);
        assert!(!samples.keys().any(|series| series.starts_with("coredns_dns_")));
    }

    #[test]
    fn a_source_takes_the_place_of_the_one_before() {
        let registry = Registry::new(1);
        for digest in ["old", "new"] {
            registry.set_source("version", move |into| into.gauge(&counters::RELOAD_VERSION, &["sha512", digest], 1.0));
        }
        let samples = parse(&registry.render());
        assert_eq!(samples.get("coredns_reload_version_info{hash=\"sha512\",value=\"new\"}"), Some(&1.0));
        assert!(!samples.contains_key("coredns_reload_version_info{hash=\"sha512\",value=\"old\"}"));
    }

    #[test]
    fn handles_show_under_their_labels() {
        let registry = Registry::new(1);
        registry.counter(&counters::METERS_REFUSED, &[]).increment(3);
        registry.gauge(&counters::BUILD_INFO, &["0.1.0", "abc", "rust"]).set(1.0);
        let samples = parse(&registry.render());
        assert_eq!(samples["dnslet_meters_refused_total"], 3.0);
        assert_eq!(samples["coredns_build_info{version=\"0.1.0\",revision=\"abc\",goversion=\"rust\"}"], 1.0);
    }

    #[test]
    fn too_many_label_sets_are_folded() {
        let registry = Registry::new(1);
        for zone in 0..MAX_METERS + 2 {
            let key = MeterKey { zone: Some(format!("z{zone}.")), zones: None, ..cluster() };
            registry.meter(&key).worker(0).request(Request {
                proto: Protocol::Udp,
                ipv6: false,
                qtype: Type::A,
                size: 30,
                dnssec_ok: false,
            });
        }
        let samples = parse(&registry.render());
        assert_eq!(samples["dnslet_meters_refused_total"], 2.0);
        let folded = r#"{server="",zone="folded",view="",proto="udp",family="1",type="A"}"#;
        assert_eq!(samples[&format!("coredns_dns_requests_total{folded}")], 2.0);
    }
}
