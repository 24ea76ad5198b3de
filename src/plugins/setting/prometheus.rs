//! `prometheus [ADDRESS] { runtime_metrics }`: the metrics endpoint `/metrics`, and counting for the block's zones.

use crate::corefile::{Diagnostic, Directive};
use crate::plugins::report::{Report, options};
use crate::plugins::value::HttpAddress;

/// The metrics endpoint of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prometheus {
    /// Where it listens; 127.0.0.1:9153 if nothing else is said.
    pub address: HttpAddress,
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Prometheus {
    let mut address = HttpAddress::local(9153);
    if let Some(word) = report.args(line, 0..=1, "prometheus [ADDRESS:PORT]").first()
        && let Some(given) = report.http(word)
    {
        address = given;
    }
    for option in options(line) {
        match &*option.name.text {
            "runtime_metrics" => report.add(
                Diagnostic::warning(option.name.span, "`runtime_metrics` does nothing")
                    .label("there is no Go runtime to measure")
                    .help("remove it"),
            ),
            "tls" => report.add(
                Diagnostic::error(option.name.span, "metrics over TLS are not offered")
                    .help("remove `tls`; put a proxy in front if the endpoint must be protected"),
            ),
            _ => report.unknown_option("prometheus", option, &["runtime_metrics"]),
        }
    }
    Prometheus { address }
}
