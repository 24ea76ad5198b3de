//! `ready [ADDRESS] { monitor until-ready|continuously }`: the readiness endpoint `/ready`.

use crate::corefile::Directive;
use crate::plugins::report::{Report, options};
use crate::plugins::value::HttpAddress;

/// The readiness endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Where it listens; all addresses, port 8181, if nothing else is said.
    pub address: HttpAddress,
    /// Whether what was ready once is asked again.
    pub monitor: Monitor,
}

/// How long readiness is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Monitor {
    /// Once ready stays ready.
    UntilReady,
    /// Asked anew at every request.
    Continuously,
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Ready {
    let mut ready = Ready { address: HttpAddress::any(8181), monitor: Monitor::UntilReady };
    if let Some(word) = report.args(line, 0..=1, "ready [ADDRESS:PORT]").first()
        && let Some(address) = report.http(word)
    {
        ready.address = address;
    }
    for option in options(line) {
        match &*option.name.text {
            "monitor" => {
                let choices = [("until-ready", Monitor::UntilReady), ("continuously", Monitor::Continuously)];
                report.no_block(option);
                if let Some(word) = report.one(option, "monitor until-ready|continuously")
                    && let Some(monitor) = report.choice(word, &choices)
                {
                    ready.monitor = monitor;
                }
            }
            _ => report.unknown_option("ready", option, &["monitor"]),
        }
    }
    ready
}
