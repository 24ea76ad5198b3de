//! An upstream that answers for a second, is silent for a second, and so on.

use std::time::Duration;

use super::entered_alone;
use super::failover::per_query;
use super::load::{Load, Report};
use super::source::{Source, by_name};
use crate::support::{Agent, time};

const RATE: u32 = 500;
const NAMES: usize = 200;

#[test]
fn flapping_upstream_is_not_seen_by_clients_of_known_names() {
    if !entered_alone("trouble::flapping::flapping_upstream_is_not_seen_by_clients_of_known_names") {
        return;
    }
    let (report, _) = flap("serve_stale 1h verify");
    assert_eq!(report.failed(), 0, "every known name is always answered");
    let slowest = report.percentile(1.0);
    assert!(slowest < Duration::from_millis(3500), "by the client timer of 1.8 s: {slowest:?}");
    assert!(report.stale() > 0, "the upstream was missed");
}

#[test]
fn flapping_upstream_gets_a_bounded_number_of_packets() {
    if !entered_alone("trouble::flapping::flapping_upstream_gets_a_bounded_number_of_packets") {
        return;
    }
    let (report, most) = flap("");
    assert_eq!(report.lost(), 0, "every query gets a reply");
    // It is gone for half of the time; a second's failures are remembered beyond that.
    assert!(report.failed() * 10 < report.len() * 6, "{} of {} queries failed", report.failed(), report.len());
    // Each second at most one exchange begins, of two tries over UDP and one over TCP.
    assert!(most <= 18, "{most} packets for one name");
}

/// Asks for known names with a TTL of one second beside a flapping upstream for six seconds. Returns what became of the
/// queries, and how often the upstream saw the name it saw most.
#[track_caller]
fn flap(option: &str) -> (Report, usize) {
    let second = Duration::from_secs(1);
    let source = Source::start(1);
    let agent = Agent::root(&format!("cache {{\n success 9984 1 0\n {option}\n }}\n forward . {}", source.address()));
    let name = |number: usize| format!("n{}.flap.test.", number % NAMES);
    assert_eq!(Load::run(agent.dns(), RATE, NAMES + 50, name).failed(), 0, "all names are known");
    let load = Load::start(agent.dns(), RATE, name);
    let start = time::now();
    for round in 0..6 {
        source.silence(round % 2 == 0);
        time::pass(second);
    }
    let end = time::now();
    source.silence(false);
    let report = load.stop();
    println!("{}", report.table(start, second / 2));
    println!("{} queries, {} failed, {} stale", report.len(), report.failed(), report.stale());
    let per_query = per_query(&report, &[&source], start, end);
    assert!(per_query < 1.0, "fewer packets than queries");
    let most = by_name(&source.since(start)).into_values().max().unwrap_or(0);
    println!("the same name at most {most} times");
    (report, most)
}
