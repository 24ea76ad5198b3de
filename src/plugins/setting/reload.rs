//! `reload [INTERVAL [JITTER]]`: the Corefile is looked at again from time to time.

use std::time::Duration;

use crate::corefile::Directive;
use crate::plugins::report::Report;

/// How often to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reload {
    /// The mean pause.
    pub interval: Duration,
    /// The pause differs from the mean by up to half of this in either direction; at most half the interval.
    pub jitter: Duration,
}

const MIN_INTERVAL: Duration = Duration::from_secs(2);
const MIN_JITTER: Duration = Duration::from_secs(1);

pub(crate) fn parse(line: &Directive, report: &mut Report<'_>) -> Reload {
    let mut reload = Reload { interval: Duration::from_secs(30), jitter: Duration::from_secs(15) };
    report.no_block(line);
    let words = report.args(line, 0..=2, "reload [INTERVAL [JITTER]]");
    if let Some(word) = words.first()
        && let Some(interval) = report.duration(word, MIN_INTERVAL..=Duration::MAX)
    {
        reload.interval = interval;
    }
    if let Some(word) = words.get(1)
        && let Some(jitter) = report.duration(word, Duration::ZERO..=Duration::MAX)
    {
        if !jitter.is_zero() && jitter < MIN_JITTER {
            report.out_of_range(word, &(MIN_JITTER..=Duration::MAX));
        }
        reload.jitter = jitter;
    }
    reload.jitter = reload.jitter.min(reload.interval / 2);
    reload
}
