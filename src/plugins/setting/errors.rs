//! `errors [stdout] { stacktrace; consolidate DURATION REGEXP [LEVEL [show_first]] }`: failures of single queries in
//! the log.

use std::time::Duration;

use crate::corefile::{Diagnostic, Directive};
use crate::observe::errors_log::{Consolidation, MAX_PATTERN};
use crate::observe::log::Severity;
use crate::plugins::report::{Report, options};

/// Failures are logged.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// The first rule whose pattern is found in a message decides.
    pub consolidate: Vec<Consolidation>,
}

const LEVELS: [(&str, Severity); 4] =
    [("warning", Severity::Warning), ("error", Severity::Error), ("info", Severity::Info), ("debug", Severity::Debug)];

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

fn consolidate(option: &Directive, report: &mut Report<'_>) -> Option<Consolidation> {
    report.no_block(option);
    let words = report.args(option, 2..=4, "consolidate DURATION REGEXP [warning|error|info|debug [show_first]]");
    let [period, pattern, rest @ ..] = words else { return None };
    let period = report.duration(period, Duration::from_nanos(1)..=Duration::MAX);
    let mut severity = Severity::Error;
    let mut show_first = false;
    for (at, word) in rest.iter().enumerate() {
        if &*word.text == "show_first" && at + 1 == rest.len() {
            show_first = true;
        } else {
            severity = report.choice(word, &LEVELS)?;
        }
    }
    match Consolidation::new(&pattern.text, period?, severity, show_first) {
        Ok(consolidation) => Some(consolidation),
        Err(error) => {
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            report.add(Diagnostic::error(pattern.span, format!("this is not a regular expression: {reason}")).help(
                format!(
                    "patterns are RE2 expressions of at most {MAX_PATTERN} characters, found anywhere in the message; \
                     quote those with spaces"
                ),
            ));
            None
        }
    }
}
