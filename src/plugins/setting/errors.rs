//! `errors [stdout] { stacktrace; consolidate DURATION REGEXP [LEVEL [show_first]] }`: failures of single queries in
//! the log.

use std::time::Duration;

use regex::Regex;

use crate::corefile::{Diagnostic, Directive, Token};
use crate::plugins::report::{Report, options};

/// Failures are logged.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// The first rule whose pattern is found in a message decides.
    pub consolidate: Vec<Consolidate>,
}

/// Messages that are counted instead of logged one by one.
#[derive(Clone, Debug)]
pub struct Consolidate {
    /// So long after the first one their number is logged.
    pub period: Duration,
    /// Found anywhere in the message.
    pub pattern: Regex,
    /// The level of that line.
    pub level: Level,
    /// The first message is logged too.
    pub show_first: bool,
}

/// Levels of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// DEBUG
    Debug,
    /// INFO
    Info,
    /// WARNING
    Warning,
    /// ERROR
    Error,
}

const MAX_PATTERN: usize = 10_000;
const LEVELS: [(&str, Level); 4] =
    [("warning", Level::Warning), ("error", Level::Error), ("info", Level::Info), ("debug", Level::Debug)];

impl Errors {
    /// The rule for a message, by its place in [`Errors::consolidate`].
    pub fn rule(&self, message: &str) -> Option<usize> {
        self.consolidate.iter().position(|rule| rule.pattern.is_match(message))
    }
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Errors {
    let mut errors = Errors::default();
    if let Some(word) = report.args(line, 0..=1, "errors [stdout]").first()
        && &*word.text != "stdout"
    {
        report.add(
            Diagnostic::error(word.span, format!("errors cannot be written to `{word}`"))
                .help("write `errors` or `errors stdout`; both write to standard output"),
        );
    }
    for option in options(line) {
        match &*option.name.text {
            "stacktrace" => {
                report.alone(option);
                report.add(
                    Diagnostic::warning(option.name.span, "`stacktrace` does nothing")
                        .label("a panic is always logged with its place")
                        .help("remove it"),
                );
            }
            "consolidate" => errors.consolidate.extend(consolidate(option, report)),
            _ => report.unknown_option("errors", option, &["consolidate", "stacktrace"]),
        }
    }
    errors
}

fn consolidate(option: &Directive, report: &mut Report<'_>) -> Option<Consolidate> {
    report.no_block(option);
    let words = report.args(option, 2..=4, "consolidate DURATION REGEXP [warning|error|info|debug [show_first]]");
    let [period, pattern, rest @ ..] = words else { return None };
    let period = report.duration(period, Duration::from_nanos(1)..=Duration::MAX);
    let pattern = regexp(pattern, report);
    let mut level = Level::Error;
    let mut show_first = false;
    for (at, word) in rest.iter().enumerate() {
        if &*word.text == "show_first" && at + 1 == rest.len() {
            show_first = true;
        } else {
            level = report.choice(word, &LEVELS)?;
        }
    }
    Some(Consolidate { period: period?, pattern: pattern?, level, show_first })
}

fn regexp(word: &Token, report: &mut Report<'_>) -> Option<Regex> {
    if word.text.len() > MAX_PATTERN {
        report.add(
            Diagnostic::error(word.span, "this pattern is too long")
                .help(format!("patterns have at most {MAX_PATTERN} characters")),
        );
        return None;
    }
    match Regex::new(&word.text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            report.add(
                Diagnostic::error(word.span, format!("this is not a regular expression: {reason}"))
                    .help("patterns are RE2 expressions, found anywhere in the message; quote those with spaces"),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_decides() {
        let rule = |pattern| Consolidate {
            period: Duration::from_secs(1),
            pattern: Regex::new(pattern).unwrap(),
            level: Level::Error,
            show_first: false,
        };
        let errors = Errors { consolidate: vec![rule("timeout$"), rule("^2 ")] };
        assert_eq!(errors.rule("2 a.example. A: i/o timeout"), Some(0));
        assert_eq!(errors.rule("2 a.example. A: refused"), Some(1));
        assert_eq!(errors.rule("5 a.example. A: refused"), None);
    }
}
