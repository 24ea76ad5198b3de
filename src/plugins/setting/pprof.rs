//! `pprof [ADDRESS] { block [RATE] }`: read for compatibility. Profiles of the Go runtime cannot be had here.

use crate::corefile::{Diagnostic, Directive};
use crate::plugins::report::{Report, options};

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) {
    if let Some(word) = report.args(line, 0..=1, "pprof [ADDRESS:PORT]").first() {
        report.http(word);
    }
    for option in options(line) {
        match &*option.name.text {
            "block" => {
                report.no_block(option);
                if let Some(rate) = report.args(option, 0..=1, "block [RATE]").first() {
                    report.integer(rate, 0..=i64::MAX);
                }
            }
            _ => report.unknown_option("pprof", option, &["block"]),
        }
    }
    report.add(
        Diagnostic::warning(line.name.span, "`pprof` does nothing")
            .label("it profiles the Go runtime, and there is none")
            .help("remove it"),
    );
}
