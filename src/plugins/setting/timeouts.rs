//! `timeouts { read D; write D; idle D; maxtcpqueries N }`: limits of TCP connections with clients.

use std::time::Duration;

use crate::corefile::{Diagnostic, Directive};
use crate::plugins::report::{Report, options};

/// What was said; what was not keeps its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// For a query to arrive whole.
    pub read: Option<Duration>,
    /// For a reply to be taken by the client.
    pub write: Option<Duration>,
    /// For a connection without queries.
    pub idle: Option<Duration>,
    /// Queries on one connection.
    pub max_queries: Option<MaxQueries>,
}

/// How many queries one TCP connection may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxQueries {
    /// Any number.
    Unlimited,
    /// So many.
    Limit(u32),
}

const MIN: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(24 * 3600);
const KNOWN: [&str; 4] = ["read", "write", "idle", "maxtcpqueries"];

impl Timeouts {
    /// The values of `other` where it has any, else those of `self`.
    #[must_use]
    pub fn or_later(self, other: Timeouts) -> Timeouts {
        Timeouts {
            read: other.read.or(self.read),
            write: other.write.or(self.write),
            idle: other.idle.or(self.idle),
            max_queries: other.max_queries.or(self.max_queries),
        }
    }

    /// How many queries one connection may carry; `None` is any number, as when nothing was said.
    pub fn queries(&self) -> Option<u32> {
        match self.max_queries {
            Some(MaxQueries::Limit(queries)) => Some(queries),
            Some(MaxQueries::Unlimited) | None => None,
        }
    }
}

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Timeouts {
    let mut timeouts = Timeouts::default();
    report.args(line, 0..=0, "timeouts {");
    if options(line).is_empty() {
        report.add(
            Diagnostic::error(line.name.span, "`timeouts` says nothing")
                .help("write `read`, `write` or `idle` with a duration on lines between braces"),
        );
    }
    for option in options(line) {
        let slot = match &*option.name.text {
            "read" => &mut timeouts.read,
            "write" => &mut timeouts.write,
            "idle" => &mut timeouts.idle,
            "maxtcpqueries" => {
                report.no_block(option);
                let number = report
                    .one(option, "maxtcpqueries N|-1")
                    .and_then(|word| report.integer(word, -1..=i64::from(u32::MAX)));
                timeouts.max_queries = match number.map(u32::try_from) {
                    None => timeouts.max_queries,
                    Some(Ok(limit)) => Some(MaxQueries::Limit(limit)),
                    Some(Err(_)) => Some(MaxQueries::Unlimited),
                };
                continue;
            }
            _ => {
                report.unknown_option("timeouts", option, &KNOWN);
                continue;
            }
        };
        report.no_block(option);
        let Some(word) = report.one(option, &format!("{} DURATION", option.name)) else { continue };
        let value = match word.text.parse::<u64>().ok().map(Duration::from_secs) {
            Some(seconds) if (MIN..=MAX).contains(&seconds) => Some(seconds),
            Some(_) => {
                report.out_of_range(word, &(MIN..=MAX));
                None
            }
            None => report.duration(word, MIN..=MAX),
        };
        *slot = value.or(*slot);
    }
    timeouts
}
