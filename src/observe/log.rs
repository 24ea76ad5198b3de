//! Log lines: tracing events and query lines in, text on standard output out, in CoreDNS's format or as JSON.
//!
//! Three promises. Nobody who logs waits for standard output. The same line does not come a thousand times: each call
//! site has a small budget, and so has whatever a line is about that names it in its field `per`; what was left out is
//! counted and told. The lines of the `log` plugin have a buffer of
//! their own.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::Counter;
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, SetGlobalDefaultError};
use tracing::{Event, Level, Metadata, Subscriber};

use super::counters;
use super::limit::{CALL_SITE, Limiter, SUBJECT};
pub use super::line::Severity;
use super::line::{Line, PER};
use super::registry::Registry;
use super::sink::{Sink, Stream};
use crate::sys::clock;

/// The log of the process: where lines go, and how they look. Clones are the same log.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// JSON objects instead of CoreDNS's format.
    pub json: bool,
    /// Lines at DEBUG too.
    pub debug: bool,
}

/// Takes the lines of the `log` plugin. Cheap to clone.
#[derive(Clone, Debug)]
pub struct QueryLog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    sink: Arc<Sink>,
    limiter: Mutex<Limiter<Kind, Line>>,
    json: bool,
    debug: AtomicBool,
    suppressed: Counter,
    dropped: [Counter; 2],
}

/// Lines that share a budget.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// Those of one call site.
    CallSite(Identifier),
    /// Those about one thing, from wherever they come.
    Subject(String),
}

impl Log {
    /// Starts the thread that writes to `out`, which may block. Events come once [`Log::install`] was called.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(options: Options, out: Box<dyn Write + Send>, registry: &Registry) -> io::Result<Log> {
        let shared = Arc::new(Shared {
            sink: Arc::default(),
            limiter: Mutex::new(Limiter::new()),
            json: options.json,
            debug: AtomicBool::new(options.debug),
            suppressed: registry.counter(&counters::LOG_SUPPRESSED, &[]),
            dropped: Stream::LABELS.map(|stream| registry.counter(&counters::LOG_DROPPED, &[stream])),
        });
        let summaries = Arc::downgrade(&shared);
        let due = move || summaries.upgrade().map_or_else(String::new, |shared| shared.summaries(clock::now()));
        shared.sink.drain(out, due)?;
        Ok(Log { shared })
    }

    /// Makes this the log of all tracing events of the process.
    ///
    /// # Errors
    /// If there is one already.
    pub fn install(&self) -> Result<(), SetGlobalDefaultError> {
        tracing::subscriber::set_global_default(self.subscriber())
    }

    /// What turns tracing events into lines of this log.
    pub fn subscriber(&self) -> impl Subscriber + use<> {
        Lines { shared: Arc::clone(&self.shared) }
    }

    /// Switches lines at DEBUG on or off.
    pub fn set_debug(&self, on: bool) {
        self.shared.debug.store(on, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    /// Writes a line without level and without limit, as CoreDNS does at start for each zone.
    pub fn raw(&self, line: &str) {
        let text = match self.shared.json {
            true => Line::plain(Severity::Info, line).json(clock::wall()),
            false => format!("{line}\n"),
        };
        self.shared.push(Stream::Log, &[text.as_bytes()]);
    }

    /// The way in for the `log` plugin.
    pub fn query_log(&self) -> QueryLog {
        QueryLog { shared: Arc::clone(&self.shared) }
    }

    /// Waits until all lines are written, at most for `patience`; whether they are. For the end of the process.
    pub fn flush(&self, patience: Duration) -> bool {
        self.shared.sink.flush(patience)
    }
}

impl QueryLog {
    /// Takes one line about a query, without level and end of line. Never waits: a line that finds no room is dropped
    /// and counted.
    pub fn line(&self, line: &str) {
        if self.shared.json {
            let mut object = Line::plain(Severity::Info, line);
            object.plugin = Some("log".to_owned());
            self.shared.push(Stream::Query, &[object.json(clock::wall()).as_bytes()]);
        } else {
            self.shared.push(Stream::Query, &[b"[INFO] ", line.as_bytes(), b"\n"]);
        }
    }
}

impl Shared {
    fn push(&self, stream: Stream, parts: &[&[u8]]) {
        if !self.sink.push(stream, parts) {
            self.dropped[stream as usize].increment(1);
        }
    }

    fn format(&self, line: &Line) -> String {
        if self.json { line.json(clock::wall()) } else { line.text() }
    }

    /// Lines about lines that were left out, where it is time to tell.
    fn summaries(&self, now: Instant) -> String {
        let due = self.limiter.lock().unwrap_or_else(PoisonError::into_inner).due(now);
        let tell = |(count, window, mut sample): (u64, Duration, Line)| {
            sample.message = format!("{count} more like this in the last {} s: {}", window.as_secs(), sample.message);
            self.format(&sample)
        };
        due.into_iter().map(tell).collect()
    }

    fn wanted(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = target.starts_with("dnslet") || target.starts_with("plugin/");
        // Other people's libraries speak of every packet.
        let most = if ours { self.most() } else { Level::WARN };
        metadata.is_event() && *metadata.level() <= most
    }

    fn most(&self) -> Level {
        if self.debug.load(Ordering::Relaxed) { Level::DEBUG } else { Level::INFO }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.sink.close();
    }
}

/// The tracing side. Spans are not kept: a line says by itself what it is about.
struct Lines {
    shared: Arc<Shared>,
}

impl Subscriber for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.shared.wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.shared.wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.shared.most().into())
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        if *metadata.level() <= Level::INFO {
            let subject = metadata.fields().field(PER).and_then(|_| Line::of(event).per);
            let (kind, pace) = match subject {
                Some(subject) => (Kind::Subject(subject), &SUBJECT),
                None => (Kind::CallSite(metadata.callsite()), &CALL_SITE),
            };
            let mut limiter = self.shared.limiter.lock().unwrap_or_else(PoisonError::into_inner);
            if !limiter.admit(kind, pace, clock::now(), || Line::of(event)) {
                self.shared.suppressed.increment(1);
                return;
            }
        }
        let text = self.shared.format(&Line::of(event));
        self.shared.push(Stream::Log, &[text.as_bytes()]);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::subscriber::with_default;
    use tracing::{debug, error, info, warn};

    /// Where a test reads what was written.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(octets);
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What a log with these options writes while `work` runs, and the metrics afterwards.
    fn written(options: Options, work: impl FnOnce(&Log)) -> (String, String) {
        let (page, registry) = (Page::default(), Registry::new(1));
        let log = Log::start(options, Box::new(page.clone()), &registry).unwrap();
        with_default(log.subscriber(), || work(&log));
        assert!(log.flush(Duration::from_secs(60)));
        let text = String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
        (text, registry.render())
    }

    #[test]
    fn lines_look_like_those_of_coredns() {
        let (text, _) = written(Options::default(), |log| {
            log.raw(".:53 on 169.254.20.10");
            info!("Reloading");
            error!(plugin = "errors", "{} {} {}: {}", 2, "a.example.org.", "A", "i/o timeout");
            warn!(target: "plugin/forward", to = "10.0.0.1:53", "upstream is down");
            debug!("not shown");
            warn!(target: "hyper::proto", "shown");
            info!(target: "hyper::proto", "not shown");
        });
        assert_eq!(
            text,
            ".:53 on 169.254.20.10\n\
             [INFO] Reloading\n\
             [ERROR] plugin/errors: 2 a.example.org. A: i/o timeout\n\
             [WARNING] plugin/forward: upstream is down to=10.0.0.1:53\n\
             [WARNING] shown\n"
        );
    }

    #[test]
    fn debug_can_be_switched_while_running() {
        let (text, _) = written(Options::default(), |log| {
            for (round, on) in [false, true, false].into_iter().enumerate() {
                log.set_debug(on);
                debug!("round {round}");
            }
        });
        assert_eq!(text, "[DEBUG] round 1\n");
    }

    #[test]
    fn a_call_site_has_a_budget_and_the_rest_is_counted() {
        let (text, metrics) = written(Options::default(), |_| {
            for round in 0..50 {
                warn!("round {round}");
            }
            info!("another call site");
        });
        assert!(text.lines().count() < 50 && text.ends_with("[INFO] another call site\n"), "{text}");
        let suppressed = 51 - text.lines().count();
        assert!(metrics.contains(&format!("\ndnslet_log_lines_suppressed_total {suppressed}\n")), "{metrics}");
    }

    #[test]
    fn what_lines_are_about_has_a_budget_of_its_own_whoever_writes_them() {
        let (text, metrics) = written(Options::default(), |_| {
            for to in ["10.0.0.1:53", "10.0.0.2:53"] {
                for round in 0..10 {
                    warn!(per = to, "{to} is down for the {round}. time");
                    info!(per = to, "{to} is back for the {round}. time");
                }
            }
        });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 12, "{text}");
        assert_eq!(
            [lines[0], lines[1]],
            ["[WARNING] 10.0.0.1:53 is down for the 0. time", "[INFO] 10.0.0.1:53 is back for the 0. time"]
        );
        assert!(lines[6].contains("10.0.0.2:53 is down for the 0. time"), "{text}");
        assert!(metrics.contains("\ndnslet_log_lines_suppressed_total 28\n"), "{metrics}");
    }

    #[test]
    fn query_lines_come_in_both_forms() {
        let line =
            r#"10.0.0.9:44373 - 5921 "A IN a.example.org. udp 58 false 1232" NOERROR qr,aa,rd,ra 101 0.000153271s"#;
        let (text, _) = written(Options::default(), |log| log.query_log().line(line));
        assert_eq!(text, format!("[INFO] {line}\n"));
        let (text, _) = written(Options { json: true, debug: false }, |log| log.query_log().line(line));
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&object["plugin"], &object["msg"]), (&"log".into(), &line.into()));
    }

    #[test]
    fn lines_left_out_are_told_in_the_words_of_the_first() {
        let (page, registry) = (Page::default(), Registry::new(1));
        let log = Log::start(Options::default(), Box::new(page.clone()), &registry).unwrap();
        with_default(log.subscriber(), || (0..50).for_each(|round| warn!(plugin = "x", "round {round}")));
        assert!(log.flush(Duration::from_secs(60)));
        let shown = page.0.lock().unwrap().iter().filter(|&&octet| octet == b'\n').count();
        assert_eq!(log.shared.summaries(clock::now()), "", "not before the window is over");
        let told = log.shared.summaries(clock::now() + CALL_SITE.window);
        let count = 50 - shown;
        assert!(
            told.starts_with(&format!("[WARNING] plugin/x: {count} more like this in the last 10 s: round ")),
            "{told}"
        );
    }
}
