//! One log line: gathered from a tracing event, written as CoreDNS does or as a JSON object.

use std::fmt::{self, Write};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};

/// The field of events that names what they are about.
pub(super) const PER: &str = "per";

/// How bad it is, in CoreDNS's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// For looking into a problem.
    Debug,
    /// For the record.
    Info,
    /// Something to look at.
    Warning,
    /// Something that does not work.
    Error,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) severity: Severity,
    /// The plugin it speaks for.
    pub(super) plugin: Option<String>,
    /// What it is about, where that has an allowance of lines of its own; not shown.
    pub(super) per: Option<String>,
    pub(super) message: String,
    /// What else the event carried.
    pub(super) fields: Map<String, Value>,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Severity::Debug => "DEBUG",
            Severity::Info => "INFO",
            Severity::Warning => "WARNING",
            Severity::Error => "ERROR",
        }
    }
}

impl From<&Level> for Severity {
    fn from(level: &Level) -> Severity {
        match *level {
            Level::ERROR => Severity::Error,
            Level::WARN => Severity::Warning,
            Level::INFO => Severity::Info,
            _ => Severity::Debug,
        }
    }
}

impl Line {
    /// A line without a plugin.
    pub(super) fn plain(severity: Severity, message: &str) -> Line {
        Line { severity, plugin: None, per: None, message: message.to_owned(), fields: Map::new() }
    }

    /// Reads an event. The plugin is its field `plugin`, or stands in a target `plugin/<name>`; what it is about is
    /// [`PER`].
    pub(super) fn of(event: &Event<'_>) -> Line {
        let mut line = Line::plain(event.metadata().level().into(), "");
        line.plugin = event.metadata().target().strip_prefix("plugin/").map(str::to_owned);
        event.record(&mut line);
        line
    }

    /// `[LEVEL] plugin/name: message key=value`, with its end of line.
    pub(super) fn text(&self) -> String {
        let mut text = format!("[{}] ", self.severity.word());
        if let Some(plugin) = &self.plugin {
            let _ = write!(text, "plugin/{plugin}: ");
        }
        // What comes from outside is escaped where it is put into words; this keeps the terminal safe regardless.
        text.extend(self.message.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c }));
        for (name, value) in &self.fields {
            let _ = match value {
                Value::String(word) if !word.is_empty() && !word.contains(|c: char| c == ' ' || c.is_control()) => {
                    write!(text, " {name}={word}")
                }
                value => write!(text, " {name}={value}"),
            };
        }
        text.push('\n');
        text
    }

    /// An object with `ts`, `level`, `plugin` and `fields` where there are some, and `msg`; with its end of line.
    pub(super) fn json(&self, at: SystemTime) -> String {
        let mut object = Map::new();
        object.insert("ts".to_owned(), json!(timestamp(at)));
        object.insert("level".to_owned(), json!(self.severity.word().to_ascii_lowercase()));
        if let Some(plugin) = &self.plugin {
            object.insert("plugin".to_owned(), json!(plugin));
        }
        object.insert("msg".to_owned(), json!(self.message));
        if !self.fields.is_empty() {
            object.insert("fields".to_owned(), Value::Object(self.fields.clone()));
        }
        Value::Object(object).to_string() + "\n"
    }

    fn take(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            ("plugin", Value::String(plugin)) => self.plugin = Some(plugin),
            (PER, Value::String(per)) => self.per = Some(per),
            (name, value) => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.take(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.take(field, json!(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.take(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.take(field, json!(value));
    }
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second, millis) = (second / 3600, second / 60 % 60, second % 60, since.subsec_millis());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The date that is so many days after 1 January 1970. Years are counted from March, which puts the leap day last.
fn civil(days: u64) -> (u64, u64, u64) {
    const ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / ERA, days % ERA);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_coredns() {
        let mut line = Line::plain(Severity::Info, "Reloading");
        assert_eq!(line.text(), "[INFO] Reloading\n");
        line.plugin = Some("reload".to_owned());
        line.severity = Severity::Warning;
        line.message = "bad\u{1b}[2J\tname\nnext".to_owned();
        line.fields.insert("to".to_owned(), json!("10.0.0.1:53"));
        line.fields.insert("why".to_owned(), json!("no route"));
        line.fields.insert("times".to_owned(), json!(3));
        assert_eq!(
            line.text(),
            "[WARNING] plugin/reload: bad?[2J\tname\nnext times=3 to=10.0.0.1:53 why=\"no route\"\n"
        );
    }

    #[test]
    fn json_is_one_object_per_line() {
        let mut line = Line::plain(Severity::Error, "two\nlines \"quoted\"");
        line.plugin = Some("errors".to_owned());
        line.fields.insert("n".to_owned(), json!(1));
        let text = line.json(SystemTime::UNIX_EPOCH + Duration::from_millis(951_782_400_007));
        assert_eq!(text.matches('\n').count(), 1);
        let object: Value = serde_json::from_str(&text).unwrap();
        let wanted = json!({
            "ts": "2000-02-29T00:00:00.007Z", "level": "error", "plugin": "errors",
            "msg": "two\nlines \"quoted\"", "fields": {"n": 1},
        });
        assert_eq!(object, wanted);
    }

    #[test]
    fn dates_around_leap_days() {
        let second = |secs| timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(second(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(second(1_709_251_199), "2024-02-29T23:59:59.000Z");
        assert_eq!(second(1_709_251_200), "2024-03-01T00:00:00.000Z");
        assert_eq!(second(4_107_542_399), "2100-02-28T23:59:59.000Z");
        assert_eq!(second(4_107_542_400), "2100-03-01T00:00:00.000Z");
    }
}
