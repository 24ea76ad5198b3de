//! `top`: what a running agent does now, as rates over an interval, until it is interrupted.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::builder::ValueParser;

use super::scrape::{self, Figures};
use super::status::{self, Ratio, Scale, share};
use super::value;
use super::{Unheard, flags};
use crate::observe::counters::{
    AUTOPATH_SAVED, CACHE_HITS, CACHE_REQUESTS, DNS_REQUEST_DURATION, DNS_REQUESTS, DNS_RESPONSES, FLIGHTS,
    PROCESS_START, UPSTREAM_QUERIES,
};
use crate::sys::clock;

/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// What may be said to `top` beside the flags of all commands.
#[derive(Debug, Parser)]
#[command(name = "dnslet", about = "Shows what a running agent does, as rates.")]
#[command(disable_help_flag = true, disable_version_flag = true, args_override_self = true)]
#[command(override_usage = "dnslet top [flags]")]
pub(super) struct Top {
    /// How many intervals to show [default: until interrupted]
    #[arg(long = "n", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Top")]
    count: Option<u64>,
    /// How long one is
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = ValueParser::new(value::interval), help_heading = "Top")]
    interval: Duration,
    #[command(flatten)]
    pub(super) common: flags::Flags,
}

/// Shows the rates of each interval: a screen where output is a terminal, else a line. Failure where no agent shows its
/// numbers at the start; later one that is gone is waited for.
pub(super) fn top(flags: &Top) -> ExitCode {
    match super::runtime() {
        Ok(runtime) => runtime.block_on(run(flags)).unwrap_or_else(ExitCode::from),
        Err(code) => code,
    }
}

/// Ends early when nobody reads.
async fn run(flags: &Top) -> Result<ExitCode, Unheard> {
    let (endpoint, mut before) = match scrape::first(&scrape::endpoints(&flags.common)).await {
        Ok(first) => first,
        Err(why) => {
            super::complain(&why);
            return Ok(ExitCode::FAILURE);
        }
    };
    let (terminal, mut then) = (std::io::stdout().is_terminal(), clock::now());
    if terminal {
        super::tell(&format!("looking at {endpoint} ...\n"))?;
    }
    for _ in 0..flags.count.unwrap_or(u64::MAX) {
        tokio::time::sleep(flags.interval).await;
        let shown = match scrape::fetch(endpoint).await {
            Ok(figures) => {
                let now = clock::now();
                let seconds = now.duration_since(then).as_secs_f64().max(1e-3);
                let interval = Interval { grown: figures.since(&before), figures: &figures, seconds };
                let replaced = figures.sum(&PROCESS_START) != before.sum(&PROCESS_START);
                let more = if replaced { ", started anew" } else { "" };
                let shown = match terminal {
                    true => CLEAR.to_owned() + &status::head(endpoint, &figures, more) + &interval.screen(),
                    false => interval.line() + more + "\n",
                };
                (before, then) = (figures, now);
                shown
            }
            Err(unread) => format!("{endpoint}: {unread}\n"),
        };
        super::tell(&shown)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One interval: how things stand at its end, what has grown in it, and how long it was.
struct Interval<'a> {
    figures: &'a Figures,
    grown: Figures,
    seconds: f64,
}

impl Interval<'_> {
    fn screen(&self) -> String {
        let times = format!("{:<12} {}\n", "took", self.times());
        times + &status::counts(&self.grown, &Scale::PerSecond(self.seconds)) + &status::standing(self.figures)
    }

    fn line(&self) -> String {
        let rate = |metric| status::rate(self.grown.sum(metric).unwrap_or(0.0) / self.seconds);
        let failed: f64 = self.grown.by(&DNS_RESPONSES, "rcode").get("SERVFAIL").copied().unwrap_or(0.0);
        format!(
            "queries {}, hits {}, upstream {} ({} a query), saved {}, {}, SERVFAIL {}, flights {:.0}",
            rate(&DNS_REQUESTS),
            share(self.grown.sum(&CACHE_HITS).or(Some(0.0)), self.grown.sum(&CACHE_REQUESTS)),
            rate(&UPSTREAM_QUERIES),
            self.each(),
            rate(&AUTOPATH_SAVED),
            self.times(),
            status::rate(failed / self.seconds),
            self.figures.sum(&FLIGHTS).unwrap_or(0.0),
        )
    }

    fn each(&self) -> String {
        match status::per_query(&self.grown) {
            Ratio::Known(each) => format!("{each:.2}"),
            Ratio::Mixed | Ratio::Unknown => "-".to_owned(),
        }
    }

    fn times(&self) -> String {
        let buckets = self.grown.buckets(&DNS_REQUEST_DURATION);
        let shown = |part| match quantile(&buckets, part) {
            None => "-".to_owned(),
            Some(Time::Within(limit)) => format!("<{}", status::short(limit)),
            Some(Time::About(time)) => status::short(time),
        };
        format!("p50 {}, p99 {}", shown(0.5), shown(0.99))
    }
}

/// A time in seconds.
#[derive(Debug, PartialEq)]
enum Time {
    About(f64),
    /// The shortest that are told apart are not longer.
    Within(f64),
}

/// The time that this part of all does not exceed, as if times were spread evenly inside a bucket; of the first, which has
/// times of any size, only the limit is told. Beyond the last limit that is a number it is that limit. `None` where nothing
/// was counted.
fn quantile(buckets: &[(f64, f64)], part: f64) -> Option<Time> {
    let all = buckets.last().map(|(_, count)| *count).filter(|all| *all > 0.0)?;
    let rank = part * all;
    let (mut below, mut counted) = (0.0, 0.0);
    for (place, (limit, count)) in buckets.iter().enumerate() {
        if *count >= rank && *count > counted {
            let inside = (rank - counted) / (count - counted);
            return Some(match place {
                _ if !limit.is_finite() => Time::About(below),
                0 => Time::Within(*limit),
                _ => Time::About(below + (limit - below) * inside),
            });
        }
        (below, counted) = (*limit, counted.max(*count));
    }
    Some(Time::About(below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_found_inside_its_bucket() {
        let buckets = [(1.0, 50.0), (2.0, 90.0), (4.0, 90.0), (f64::INFINITY, 100.0)];
        let at = |part| quantile(&buckets, part).unwrap();
        assert_eq!([0.25, 0.5].map(at), [Time::Within(1.0), Time::Within(1.0)]);
        assert_eq!([0.7, 0.9, 0.99].map(at), [1.5, 2.0, 4.0].map(Time::About));
        assert_eq!(quantile(&[(1.0, 0.0), (f64::INFINITY, 0.0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
        let falling = quantile(&[(1.0, 3.0), (2.0, 5.0), (3.0, 4.0)], 1.0);
        assert_eq!(falling, Some(Time::About(1.5)), "counts that fall are no reason to stop");
    }
}
