//! All upstreams gone, with every name known.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::entered_alone;
use super::load::{Asked, Load};
use super::source::{Arrival, Capacity, Source, busiest_second, by_name};
use crate::support::wire::{A, NOERROR, SERVFAIL};
use crate::support::{Agent, Query, time};

/// No multiple of what five or ten seconds bring, so that no deadline falls together with a name's turn.
const NAMES: usize = 10_400;
/// Queries of clients per second, and what both upstreams together can answer.
const RATE: u32 = 2000;
/// The client timer (RFC 8767 section 5) and some time for a busy machine.
const CLIENT_TIMER: Duration = Duration::from_millis(1800 + 400);
/// After this the upstreams are known to be down.
const NOTICED: Duration = Duration::from_millis(2500);
/// A recovery is seen in this time, on a busy machine a little later.
const RECOVERY: Duration = Duration::from_millis(2500);

fn known(number: usize) -> String {
    format!("n{number}.z{}.test.", number % 50)
}

#[test]
fn total_outage_is_not_seen_by_clients() {
    if entered_alone("trouble::outage::total_outage_is_not_seen_by_clients") {
        outage();
    }
}

#[test]
fn name_that_failed_in_an_outage_is_answered_soon_after_it() {
    let source = Source::start(300);
    let agent = Agent::root(&format!("cache\n forward . {}", source.address()));
    let query = Query::new("unknown.test.", A).edns(1232);
    source.silence(true);
    assert_eq!(agent.ask(&query).rcode, SERVFAIL);
    source.silence(false);
    let back = time::now();
    time::until("an answer", || (agent.ask(&query).rcode == NOERROR).then_some(()));
    println!("answered {:?} after the upstream came back", back.elapsed());
    // Nobody waits for what was sent before.
    assert!(back.elapsed() < RECOVERY, "answered after {:?}", back.elapsed());
}

/// Known names, asked for two thousand times a second, over an outage and after it.
#[track_caller]
fn outage() {
    let second = Duration::from_secs(1);
    let sources = [Source::start(2), Source::start(2)];
    let lines = format!(
        "cache {{\n success 40000 3600 0\n serve_stale 24h verify\n }}\n forward . {} {}",
        sources[0].address(),
        sources[1].address()
    );
    let agent = Agent::root(&lines);
    let filled = Load::run(agent.dns(), RATE, NAMES + 200, |number| known(number % NAMES));
    assert_eq!(filled.failed(), 0, "all names are known:\n{}", filled.table(time::now(), second));

    let load = Load::start(agent.dns(), RATE, |number| known(number % NAMES));
    time::pass(second);
    let outage = time::now();
    sources.iter().for_each(|source| source.silence(true));
    let mut descriptors: f64 = 0.0;
    for _ in 0..7 {
        time::pass(second);
        descriptors = descriptors.max(agent.metric("process_open_fds", &[]));
    }
    println!("at most {descriptors} descriptors of {}", agent.metric("process_max_fds", &[]));
    assert!(
        descriptors * 2.0 < agent.metric("process_max_fds", &[]),
        "there are descriptors left for clients over TCP"
    );
    let capacity = Capacity::new(RATE);
    for source in &sources {
        source.limit(&capacity);
        source.set_ttl(300);
    }
    let back = time::now();
    sources.iter().for_each(|source| source.silence(false));
    time::pass(second * 8);
    let end = time::now();
    let report = load.stop();

    println!("{}", report.table(outage, second / 2));
    let during = report.between(outage, back);
    let noticed = report.between(outage + NOTICED, back);
    println!(
        "outage: {} queries, {} failed, {} stale, slowest {:?}; p99 once noticed {:?}",
        during.len(),
        during.failed(),
        during.stale(),
        during.percentile(1.0),
        noticed.percentile(0.99)
    );
    assert_eq!(report.failed(), 0, "no client sees a failure");
    assert!(during.percentile(1.0) < CLIENT_TIMER, "an expired answer comes by the client timer");
    assert_eq!(noticed.stale(), noticed.len(), "all of them are answered, and told so");
    assert!(noticed.percentile(0.99) < Duration::from_millis(200), "at once, while all upstreams are down");
    assert!(noticed.0.iter().filter_map(|asked| asked.reply.as_ref()?.ttl).all(|ttl| ttl == 30));
    for source in &sources {
        few_packets(source, outage, back);
    }
    recovered(&sources, &report.0, back, end);
}

/// While it is known to be down an upstream gets a probe per second, and each question at most once per pause.
#[track_caller]
fn few_packets(source: &Source, outage: Instant, back: Instant) {
    let arrivals: Vec<Arrival> = source.since(outage).into_iter().filter(|arrival| arrival.at < back).collect();
    let most = by_name(&arrivals).into_values().max().unwrap_or(0);
    let (last_tries, probes): (Vec<Arrival>, Vec<Arrival>) =
        // Some checks go over TCP.
        arrivals
            .iter()
            .filter(|arrival| arrival.at >= outage + NOTICED)
            .cloned()
            .partition(|arrival| arrival.tcp && arrival.is_question());
    println!(
        "{} per second: {:?}; the same name at most {most} times; once noticed {} probes, {} last tries over TCP",
        source.ip(),
        seconds(&arrivals, outage),
        probes.len(),
        last_tries.len()
    );
    let allowed = (back - outage - NOTICED).as_secs_f64().ceil() as usize;
    assert!(probes.len() <= allowed, "{} probes of an upstream that is down, {allowed} are allowed", probes.len());
    assert!(busiest_second(&probes) <= 2, "probes come one by one");
    // Two tries over UDP and, of questions that were on their way when the outage was noticed, one over TCP, which goes out
    // once more if its connection is given up. Nothing is sent after a question's 4.5 s.
    assert!(most <= 4, "{most} packets for one name");
    assert!(last_tries.iter().all(|arrival| arrival.at < outage + Duration::from_secs(6)), "those end in time");
}

/// After the outage the upstreams get what they can bear, and every name is fresh again.
#[track_caller]
fn recovered(sources: &[Source], asked: &[Asked], back: Instant, end: Instant) {
    let arrivals: Vec<Arrival> = sources.iter().flat_map(|source| source.since(back)).collect();
    let (busiest, dropped) = (busiest_second(&arrivals), arrivals.iter().filter(|arrival| !arrival.answered).count());
    println!("recovery: per second {:?}, busiest {busiest}, {dropped} dropped", seconds(&arrivals, back));
    let mut fresh: HashMap<usize, Instant> = HashMap::new();
    let mut stale_later = 0;
    for asked in asked.iter().filter(|asked| asked.sent >= back) {
        match asked.is_stale() {
            true => stale_later += usize::from(fresh.contains_key(&(asked.number % NAMES))),
            false => drop(fresh.entry(asked.number % NAMES).or_insert(asked.sent)),
        }
    }
    let last = fresh.values().max().map(|at| *at - back);
    println!("{} names fresh again, the last after {last:?} of {:?}", fresh.len(), end - back);
    assert!(busiest as f64 <= f64::from(RATE) * 1.2, "{busiest} queries within a second");
    assert_eq!(fresh.len(), NAMES, "every name is fresh again");
    // As soon as its turn comes once the recovery is seen.
    let in_time = Duration::from_secs_f64(NAMES as f64 / f64::from(RATE)) + RECOVERY;
    assert!(last.is_some_and(|last| last <= in_time), "the last name is fresh after {last:?}");
    assert_eq!(stale_later, 0, "and stays so");
}

/// How many there were in each second after the moment.
fn seconds(arrivals: &[Arrival], zero: Instant) -> Vec<usize> {
    let mut counts = Vec::new();
    for arrival in arrivals {
        let index = (arrival.at - zero).as_secs() as usize;
        counts.resize(counts.len().max(index + 1), 0);
        counts[index] += 1;
    }
    counts
}
