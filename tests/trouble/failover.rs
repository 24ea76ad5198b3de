//! Two upstreams, of which one goes and comes back, under a thousand misses a second.

use std::time::{Duration, Instant};

use super::load::{Load, Report};
use super::source::Source;
use super::{entered_alone, filter, unfilter};
use crate::support::{Agent, time};

/// Misses per second.
const RATE: u32 = 1000;
/// How much longer replies may take once the dead upstream has been noticed. The shortest wait before the other upstream is
/// asked is 80 ms, so a query that met the dead one is seen.
const SLACK: Duration = Duration::from_millis(60);

/// How an upstream goes.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Its packets are dropped on the way, so nothing at all comes back.
    Silence,
    /// Its port is closed.
    Refusal,
}

impl End {
    fn begin(self, source: &mut Source) {
        match self {
            End::Silence => {
                filter(&[format!("ip daddr {0} drop", source.ip()), format!("ip saddr {0} drop", source.ip())])
            }
            End::Refusal => source.close(),
        }
    }

    fn end(self, source: &mut Source) {
        match self {
            End::Silence => unfilter(),
            End::Refusal => source.open(),
        }
    }
}

#[test]
fn upstream_that_goes_costs_no_query() {
    if !entered_alone("trouble::failover::upstream_that_goes_costs_no_query") {
        return;
    }
    for (option, end) in
        [("", End::Silence), ("", End::Refusal), ("force_tcp", End::Silence), ("force_tcp", End::Refusal)]
    {
        println!("--- {end:?} {option}");
        one_of_two(option, end);
    }
}

/// One of two upstreams goes for two seconds: nothing is lost, a second later nobody notices any more, and two
/// seconds after its return it is used again.
#[track_caller]
fn one_of_two(option: &str, end: End) {
    let (mut goes, stays) = (Source::start(300), Source::start(300));
    let lines = format!("cache\n forward . {} {} {{\n {option}\n }}", goes.address(), stays.address());
    let agent = Agent::root(&lines);
    let load = Load::start(agent.dns(), RATE, |number| format!("q{number}.z{}.test.", number % 50));
    let second = Duration::from_secs(1);
    // In the first moments connections are opened and round trips measured.
    time::pass(second / 4);
    let start = time::now();
    time::pass(second * 3 / 4);
    let death = time::now();
    end.begin(&mut goes);
    time::pass(second * 2);
    let back = time::now();
    end.end(&mut goes);
    time::pass(second * 2);
    let stopped = time::now();
    let report = load.stop();
    println!("{}", report.table(death, Duration::from_millis(100)));
    let (before, settled) = (report.between(start, death), report.between(death + second, back));
    let (usual, later) = (before.percentile(0.99), settled.percentile(0.99));
    let returned = goes.first_answer_after(back);
    println!(
        "{} queries, {} failed; p99 {usual:?} before, {later:?} from 1 s after; used again after {returned:?}",
        report.len(),
        report.failed()
    );
    per_query(&report, &[&goes, &stays], start, stopped);
    let used = |source: &Source| source.since(start).iter().any(|arrival| arrival.is_question() && arrival.at < death);
    assert!(used(&goes) && used(&stays), "both were in use");
    assert_eq!((report.lost(), report.failed()), (0, 0), "every query is answered");
    assert!(later <= usual + SLACK, "the dead upstream is still felt: {later:?} against {usual:?}");
    assert!(returned.is_some_and(|after| after <= second * 2), "used again after {returned:?}");
}

/// Prints how many upstream queries there were for one of a client.
pub fn per_query(report: &Report, sources: &[&Source], from: Instant, to: Instant) -> f64 {
    let came = |source: &&Source| source.since(from).iter().filter(|arrival| arrival.at < to).count();
    let share = sources.iter().map(came).sum::<usize>() as f64 / report.between(from, to).len() as f64;
    println!("{share:.3} upstream queries for one of a client");
    share
}
