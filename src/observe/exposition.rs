//! One scrape in the making: samples gathered by metric, summed where labels are equal, written as Prometheus text.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write;

use super::counters::{Home, Kind, Metric, TABLE};
use super::histogram::{HEALTH, SharedHistogram, Snapshot};

/// Samples of one scrape. Sources add to it; the order in which they do does not show.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<&'static str, Family>,
}

#[derive(Debug)]
struct Family {
    metric: &'static Metric,
    samples: BTreeMap<Vec<String>, Value>,
}

#[derive(Clone, Debug)]
enum Value {
    Integer(u64),
    Float(f64),
    Histogram(Snapshot),
}

impl Exposition {
    /// One with the zeros that are there before first use.
    pub(super) fn at_start() -> Exposition {
        let mut exposition = Exposition::default();
        for metric in TABLE.iter().filter(|metric| metric.at_start && metric.home != Home::Handle) {
            let zero = match metric.kind {
                Kind::Counter => Value::Integer(0),
                Kind::Gauge => Value::Float(0.0),
                Kind::Histogram => Value::Histogram(SharedHistogram::new(&HEALTH).snapshot()),
            };
            exposition.add(metric, &[], zero);
        }
        exposition
    }

    /// Adds to a counter; equal labels add up. `labels` are values, in the order of the metric's label names.
    pub fn counter(&mut self, metric: &'static Metric, labels: &[&str], value: u64) {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.add(metric, labels, Value::Integer(value));
    }

    /// Adds to a counter that is not a whole number.
    pub fn counter_f64(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        debug_assert_eq!(metric.kind, Kind::Counter, "{}", metric.name);
        self.add(metric, labels, Value::Float(value));
    }

    /// Adds to a gauge; equal labels add up.
    pub fn gauge(&mut self, metric: &'static Metric, labels: &[&str], value: f64) {
        debug_assert_eq!(metric.kind, Kind::Gauge, "{}", metric.name);
        self.add(metric, labels, Value::Float(value));
    }

    /// Adds a histogram; equal labels add up.
    pub fn histogram(&mut self, metric: &'static Metric, labels: &[&str], value: Snapshot) {
        debug_assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        self.add(metric, labels, Value::Histogram(value));
    }

    /// Adds to a counter that appears with its first use only.
    pub(super) fn used(&mut self, metric: &'static Metric, labels: &[&str], value: u64) {
        if value > 0 {
            self.counter(metric, labels, value);
        }
    }

    /// Adds a histogram that appears with its first use only.
    pub(super) fn used_histogram(&mut self, metric: &'static Metric, labels: &[&str], value: Snapshot) {
        if value.count() > 0 {
            self.histogram(metric, labels, value);
        }
    }

    fn add(&mut self, metric: &'static Metric, labels: &[&str], value: Value) {
        debug_assert_ne!(metric.home, Home::Handle, "{} is kept by a handle", metric.name);
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}: values for {:?}", metric.name, metric.labels);
        let family = self.families.entry(metric.name).or_insert_with(|| Family { metric, samples: BTreeMap::new() });
        match family.samples.entry(labels.iter().map(|&value| value.to_owned()).collect()) {
            Entry::Vacant(place) => {
                place.insert(value);
            }
            Entry::Occupied(mut place) => place.get_mut().merge(value),
        }
    }

    /// The text, metrics by name, series by labels.
    pub(super) fn render(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        for (name, Family { metric, samples }) in &self.families {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} {}", metric.help, metric.kind.word());
            for (values, value) in samples {
                let labels = pairs(metric.labels, values);
                match value {
                    Value::Integer(value) => line(&mut text, name, "", &labels, value),
                    Value::Float(value) => line(&mut text, name, "", &labels, value),
                    Value::Histogram(snapshot) => histogram(&mut text, name, &labels, snapshot),
                }
            }
        }
        text
    }
}

impl Value {
    fn merge(&mut self, other: Value) {
        match (self, other) {
            (Value::Integer(sum), Value::Integer(more)) => *sum = sum.wrapping_add(more),
            (Value::Float(sum), Value::Float(more)) => *sum += more,
            (Value::Histogram(all), Value::Histogram(more)) => all.merge(&more),
            (this, other) => *this = other,
        }
    }
}

fn histogram(text: &mut String, name: &str, labels: &str, snapshot: &Snapshot) {
    let comma = if labels.is_empty() { "" } else { "," };
    for (limit, count) in snapshot.cumulative() {
        line(text, name, "_bucket", &format!("{labels}{comma}le=\"{limit}\""), &count);
    }
    line(text, name, "_bucket", &format!("{labels}{comma}le=\"+Inf\""), &snapshot.count());
    line(text, name, "_sum", labels, &snapshot.sum());
    line(text, name, "_count", labels, &snapshot.count());
}

fn line(text: &mut String, name: &str, suffix: &str, labels: &str, value: &dyn std::fmt::Display) {
    let _ = match labels {
        "" => writeln!(text, "{name}{suffix} {value}"),
        labels => writeln!(text, "{name}{suffix}{{{labels}}} {value}"),
    };
}

/// `name="value",…` with the three characters escaped that the format wants escaped.
fn pairs(names: &[&str], values: &[String]) -> String {
    let mut text = String::new();
    for (name, value) in names.iter().zip(values) {
        let comma = if text.is_empty() { "" } else { "," };
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(text, "{comma}{name}=\"{value}\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::counters;
    use super::*;
    use std::time::Duration;

    #[test]
    fn equal_labels_add_up_and_values_are_escaped() {
        let mut scrape = Exposition::default();
        scrape.counter(&counters::PROXY_HEALTHCHECK_FAILURES, &["forward", "a\"b\\c\nd"], 2);
        scrape.counter(&counters::PROXY_HEALTHCHECK_FAILURES, &["forward", "a\"b\\c\nd"], 3);
        assert_eq!(
            scrape.render(),
            "# HELP coredns_proxy_healthcheck_failures_total Health checks an upstream did not answer.\n\
             # TYPE coredns_proxy_healthcheck_failures_total counter\n\
             coredns_proxy_healthcheck_failures_total{proxy_name=\"forward\",to=\"a\\\"b\\\\c\\nd\"} 5\n"
        );
    }

    #[test]
    fn a_histogram_has_cumulative_buckets_a_sum_and_a_count() {
        let times = SharedHistogram::new(&HEALTH);
        times.record(Duration::from_millis(1));
        times.record(Duration::from_secs(9));
        let mut scrape = Exposition::default();
        scrape.histogram(&counters::HEALTH_DURATION, &[], times.snapshot());
        let text = scrape.render();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let name = "coredns_health_request_duration_seconds";
        let wanted = [
            format!("{name}_bucket{{le=\"0.00025\"}} 0"),
            format!("{name}_bucket{{le=\"0.0025\"}} 1"),
            format!("{name}_bucket{{le=\"0.025\"}} 1"),
            format!("{name}_bucket{{le=\"0.25\"}} 1"),
            format!("{name}_bucket{{le=\"2.5\"}} 1"),
            format!("{name}_bucket{{le=\"+Inf\"}} 2"),
            format!("{name}_sum 9.001"),
            format!("{name}_count 2"),
        ];
        assert_eq!(lines, wanted);
    }
}
