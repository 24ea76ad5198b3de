//! The lines of the `errors` plugin, and the lines that stand for many alike (`consolidate`).

use std::fmt::{Display, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use regex::{Regex, RegexBuilder};

use super::line::Severity;
use crate::dns::{Name, Rcode, Type};

/// The longest pattern, in octets.
pub const MAX_PATTERN: usize = 10_000;

/// The most memory a compiled pattern may take, in octets.
const MAX_COMPILED: usize = 1 << 20;

/// One `consolidate` line.
#[derive(Clone, Debug)]
pub struct Consolidation {
    /// Found anywhere in an error.
    pub pattern: Regex,
    /// So long after the first one their number is told.
    pub duration: Duration,
    /// At which level.
    pub severity: Severity,
    /// The first one is shown at once.
    pub show_first: bool,
}

/// Counts errors instead of showing each. Knows no clock.
#[derive(Debug, Default)]
pub struct Consolidator {
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    wanted: Consolidation,
    count: u64,
    due: Option<Instant>,
}

/// The `errors` plugin of one block: what it is told goes to the log, consolidated.
#[derive(Debug, Default)]
pub struct ErrorsLog {
    consolidator: Mutex<Consolidator>,
}

impl Consolidation {
    /// Errors that match `pattern` anywhere are counted for `duration` from the first, then told at `severity`;
    /// with `show_first` the first is shown at once, at that severity.
    ///
    /// # Errors
    /// If the pattern is not a regular expression, or too large.
    pub fn new(
        pattern: &str,
        duration: Duration,
        severity: Severity,
        show_first: bool,
    ) -> Result<Consolidation, regex::Error> {
        if pattern.len() > MAX_PATTERN {
            return Err(regex::Error::CompiledTooBig(MAX_PATTERN));
        }
        let pattern = RegexBuilder::new(pattern).size_limit(MAX_COMPILED).build()?;
        Ok(Consolidation { pattern, duration, severity, show_first })
    }
}

impl Consolidator {
    /// The rules in order; the first that matches takes the error.
    pub fn new(rules: Vec<Consolidation>) -> Consolidator {
        let rules = rules.into_iter().map(|wanted| Rule { wanted, count: 0, due: None });
        Consolidator { rules: rules.collect() }
    }

    /// Takes an error. Returns the severity to show it at, or `None` if it was counted.
    pub fn observe(&mut self, error: &str, now: Instant) -> Option<Severity> {
        let Some(rule) = self.rules.iter_mut().find(|rule| rule.wanted.pattern.is_match(error)) else {
            return Some(Severity::Error);
        };
        rule.count += 1;
        rule.due.get_or_insert(now + rule.wanted.duration);
        (rule.wanted.show_first && rule.count == 1).then_some(rule.wanted.severity)
    }

    /// The lines for the counts whose time is up.
    pub fn due(&mut self, now: Instant) -> Vec<(Severity, String)> {
        self.tell(|due| due <= now)
    }

    /// The lines for all counts, at shutdown and before a reload drops the rules.
    pub fn flush(&mut self) -> Vec<(Severity, String)> {
        self.tell(|_| true)
    }

    fn tell(&mut self, is_due: impl Fn(Instant) -> bool) -> Vec<(Severity, String)> {
        let due = self.rules.iter_mut().filter(|rule| rule.due.is_some_and(&is_due));
        due.filter_map(Rule::tell).collect()
    }
}

impl Rule {
    fn tell(&mut self) -> Option<(Severity, String)> {
        self.due = None;
        let count = std::mem::take(&mut self.count);
        let Consolidation { pattern, duration, severity, show_first } = &self.wanted;
        let shown_already = *show_first && count == 1;
        let line = || format!("{count} errors like '{pattern}' occurred in last {}", Go(*duration));
        (!shown_already).then(|| (*severity, line()))
    }
}

impl ErrorsLog {
    /// With the `consolidate` lines of the block.
    pub fn new(rules: Vec<Consolidation>) -> ErrorsLog {
        ErrorsLog { consolidator: Mutex::new(Consolidator::new(rules)) }
    }

    /// A query ended in an error.
    pub fn report(&self, rcode: Rcode, name: &Name, qtype: Type, error: &dyn Display, now: Instant) {
        let error = error.to_string();
        let shown = self.consolidator().observe(&error, now);
        if let Some(severity) = shown {
            write_line(severity, &line(rcode, name, qtype, &error));
        }
    }

    /// Writes the counts whose time is up; called about once a second.
    pub fn tick(&self, now: Instant) {
        let due = self.consolidator().due(now);
        due.iter().for_each(|(severity, line)| write_line(*severity, line));
    }

    /// Writes all counts, whether their time is up or not: nothing else tells them once the agent stops.
    pub fn flush(&self) {
        let rest = self.consolidator().flush();
        rest.iter().for_each(|(severity, line)| write_line(*severity, line));
    }

    fn consolidator(&self) -> MutexGuard<'_, Consolidator> {
        self.consolidator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ErrorsLog {
    /// A reload drops the old rules; what they counted is still told.
    fn drop(&mut self) {
        self.flush();
    }
}

/// `2 a.example.org. A: read udp …: i/o timeout`.
fn line(rcode: Rcode, name: &Name, qtype: Type, error: &str) -> String {
    format!("{} {name} {qtype}: {error}", rcode.0)
}

fn write_line(severity: Severity, line: &str) {
    match severity {
        Severity::Debug => tracing::debug!(plugin = "errors", "{line}"),
        Severity::Info => tracing::info!(plugin = "errors", "{line}"),
        Severity::Warning => tracing::warn!(plugin = "errors", "{line}"),
        Severity::Error => tracing::error!(plugin = "errors", "{line}"),
    }
}

/// A duration as Go prints it, which is how the line is known: `30s`, `1m30s`, `5m0s`, `1h0m0s`, `1.5s`, `500ms`.
struct Go(Duration);

impl Display for Go {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Go(duration) = self;
        let (whole, nanos) = (duration.as_secs(), duration.subsec_nanos());
        if whole == 0 && nanos != 0 {
            let (unit, name) = match nanos {
                1_000_000.. => (1_000_000, "ms"),
                1_000.. => (1_000, "µs"),
                _ => (1, "ns"),
            };
            return write!(f, "{}{name}", f64::from(nanos) / f64::from(unit));
        }
        let (hours, minutes, seconds) = (whole / 3600, whole / 60 % 60, whole % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if whole >= 60 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{seconds}")?;
        if nanos != 0 {
            let fraction = format!("{nanos:09}");
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        f.write_char('s')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    const TIMEOUT: &str = "read udp 10.0.0.2:44136->10.0.0.1:53: i/o timeout";

    fn rule(pattern: &str, severity: Severity, show_first: bool) -> Consolidation {
        Consolidation::new(pattern, Duration::from_secs(30), severity, show_first).unwrap()
    }

    #[test]
    fn a_line_is_that_of_coredns() {
        let name = Name::parse("A.example.org").unwrap();
        assert_eq!(line(Rcode::SERVFAIL, &name, Type::A, TIMEOUT), format!("2 a.example.org. A: {TIMEOUT}"));
    }

    #[test]
    fn matching_errors_are_counted_and_told_when_the_time_is_up() {
        let rules = vec![rule("i/o timeout$", Severity::Warning, false), rule("^read", Severity::Info, false)];
        let (mut errors, start) = (Consolidator::new(rules), clock::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(errors.observe("no upstream", at(0)), Some(Severity::Error));
        assert_eq!(errors.observe(TIMEOUT, at(0)), None);
        assert_eq!(errors.observe(TIMEOUT, at(29)), None);
        assert_eq!(errors.due(at(29)), []);
        let told = (Severity::Warning, "2 errors like 'i/o timeout$' occurred in last 30s".to_owned());
        assert_eq!(errors.due(at(30)), [told]);
        assert_eq!(errors.due(at(90)), []);
        assert_eq!(errors.observe(TIMEOUT, at(91)), None);
        assert_eq!(errors.due(at(120)), [], "the time starts anew with the first error");
        assert_eq!(errors.flush().len(), 1);
    }

    #[test]
    fn the_first_can_be_shown_and_alone_is_not_told_again() {
        let (mut errors, start) = (Consolidator::new(vec![rule("timeout", Severity::Info, true)]), clock::now());
        let late = start + Duration::from_secs(30);
        assert_eq!(errors.observe(TIMEOUT, start), Some(Severity::Info));
        assert_eq!(errors.due(late), []);
        assert_eq!(errors.observe(TIMEOUT, late), Some(Severity::Info), "a new period");
        assert_eq!(errors.observe(TIMEOUT, late), None);
        assert_eq!(errors.observe(TIMEOUT, late), None);
        let told = (Severity::Info, "3 errors like 'timeout' occurred in last 30s".to_owned());
        assert_eq!(errors.due(late + Duration::from_secs(30)), [told]);
    }

    #[test]
    fn a_pattern_has_limits() {
        let new = |pattern: &str| Consolidation::new(pattern, Duration::ZERO, Severity::Error, false);
        assert!(new(&"x".repeat(MAX_PATTERN)).is_ok());
        assert!(new(&"x".repeat(MAX_PATTERN + 1)).is_err());
        assert!(new("(((a{100}){100}){100})").is_err());
        assert!(new("(").is_err());
    }

    #[test]
    fn durations_as_go_prints_them() {
        let cases = [
            (0, "0s"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (30_000_000_000, "30s"),
            (90_000_000_000, "1m30s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(Go(Duration::from_nanos(nanos)).to_string(), text);
        }
    }
}
