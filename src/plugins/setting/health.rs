//! `health [ADDRESS] { lameduck DURATION }`: the liveness endpoint `/health`.

use std::time::Duration;

use crate::corefile::Directive;
use crate::plugins::report::{Report, options};
use crate::plugins::value::HttpAddress;

/// The liveness endpoint of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Where it listens; all addresses, port 8080, if nothing else is said.
    pub address: HttpAddress,
    /// How long to go on answering before a shutdown.
    pub lameduck: Duration,
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Health {
    let mut health = Health { address: HttpAddress::any(8080), lameduck: Duration::ZERO };
    if let Some(word) = report.args(line, 0..=1, "health [ADDRESS:PORT]").first()
        && let Some(address) = report.http(word)
    {
        health.address = address;
    }
    for option in options(line) {
        match &*option.name.text {
            "lameduck" => {
                report.no_block(option);
                if let Some(word) = report.one(option, "lameduck DURATION")
                    && let Some(value) = report.duration(word, Duration::ZERO..=Duration::MAX)
                {
                    health.lameduck = value;
                }
            }
            _ => report.unknown_option("health", option, &["lameduck"]),
        }
    }
    health
}
