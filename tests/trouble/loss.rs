//! Packet loss on the way to both of two upstreams.

use std::time::Duration;

use super::filter;
use super::load::Load;
use super::source::Source;
use crate::support::address::DNS;
use crate::support::{Agent, namespace, time};

#[test]
fn five_percent_loss_is_hardly_seen() {
    if namespace::entered("trouble::loss::five_percent_loss_is_hardly_seen") {
        lossy(5, 500, 10_000, 0.9999);
    }
}

#[test]
fn twenty_percent_loss_is_borne() {
    if namespace::entered("trouble::loss::twenty_percent_loss_is_borne") {
        lossy(20, 250, 3_000, 0.995);
    }
}

/// Queries and answers are lost with this probability, each for itself, over UDP and over TCP.
#[track_caller]
fn lossy(percent: u32, rate: u32, questions: usize, wanted: f64) {
    let sources = [Source::start(300), Source::start(300)];
    let lines = format!("cache\n forward . {} {}", sources[0].address(), sources[1].address());
    let agent = Agent::root(&lines);
    let lost = format!("numgen random mod 100 < {percent} drop");
    let rules = sources.each_ref().map(|source| {
        let ip = source.ip();
        let to = |protocol| {
            format!("ip daddr {ip} {protocol} dport {DNS} {lost}\nip saddr {ip} {protocol} sport {DNS} {lost}")
        };
        format!("{}\n{}", to("udp"), to("tcp"))
    });
    filter(&rules);
    let start = time::now();
    let report = Load::run(agent.dns(), rate, questions, |number| format!("q{number}.z{}.test.", number % 50));
    let came: usize = sources.iter().map(|source| source.since(start).len()).sum();
    println!("{}", report.table(start, Duration::from_secs(1)));
    let (all, failed) = (report.len(), report.failed());
    let success = 1.0 - failed as f64 / all as f64;
    println!(
        "{percent} % loss: {all} questions, {failed} failed ({} without reply), success {:.3} %, {:.3} upstream \
        queries seen per question, p50 {:?}, p99 {:?}",
        report.lost(),
        success * 100.0,
        came as f64 / all as f64,
        report.percentile(0.5),
        report.percentile(0.99)
    );
    assert!(report.percentile(0.5) < Duration::from_millis(80), "most queries lose nothing");
    assert!(came > all, "packets were lost");
    assert_eq!(report.lost(), 0, "every query gets a reply");
    assert!(success >= wanted, "{failed} of {all} failed");
}
