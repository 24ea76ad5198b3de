//! The server or the keeper dies or hangs: queries wait or go to the cluster's DNS, and come back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::lab::agent::{who_answers, who_answers_tcp};
use super::lab::load::{Report, Sending};
use super::lab::streams::Asking;
use super::lab::{
    self, Host, KubeProxy, LINK_LOCAL, Lab, Load, NODE, POD1, Running, Start, Streams, Who, dns, kernel, listening,
};
use crate::support::time;

const TEST: &str = "node::death";
/// What the server takes from a socket at once, and so may have in hand when it dies.
const BATCH: usize = 64;
/// The longest a client may be without an answer while the server starts again.
const LONGEST_GAP: Duration = Duration::from_millis(100);
/// How soon a client is answered by the cluster's DNS once the keeper is dead.
const FAIL_OPEN: Duration = Duration::from_millis(50);
/// Queries a second over UDP while two instances overlap; connections that ask all the time, and clients that open one for
/// every query.
const RATE: u32 = 10_000;
const LASTING: usize = 50;
const FLEETING: usize = 10;

#[test]
fn a_server_killed_fifty_times_loses_nothing_that_was_queued() {
    if !lab::entered_alone(&format!("{TEST}::a_server_killed_fifty_times_loses_nothing_that_was_queued")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let mut agent = Start::new().start();
    let sending = Load::heavy(POD1, &listening()).start();
    let mut kills = Vec::new();
    for _ in 0..50 {
        // A server that served for a second is started again without delay.
        agent.wait_until_intercepting(&listening()[..1]);
        time::pass(Duration::from_millis(1050));
        let server = agent.server();
        agent.strike(server, Signal::SIGKILL);
        kills.push(time::now());
        time::until("another server", || (agent.server() != server).then_some(()));
    }
    time::pass(Duration::from_millis(1100));
    let report = sending.stop();
    agent.check_alive();
    // A query belongs to the last kill that was not long before it: the queue may have waited for the one before.
    let mut lost: BTreeMap<usize, usize> = BTreeMap::new();
    for record in report.lost() {
        let kill = kills.iter().position(|kill| record.sent < *kill + LONGEST_GAP).unwrap_or(kills.len());
        *lost.entry(kill).or_default() += 1;
    }
    let (all, end) = (report.gaps(), time::now());
    let gaps = kills.iter().zip(kills.iter().skip(1).chain([&end])).map(|(kill, next)| {
        let ends = all.iter().filter(|(at, gap)| (kill..next).contains(&&(*at + *gap)));
        ends.map(|(_, gap)| *gap).max().unwrap_or_default()
    });
    let gaps: Vec<Duration> = gaps.collect();
    println!("50 kills: {report}");
    let millis: Vec<u128> = gaps.iter().map(Duration::as_millis).collect();
    println!("lost at each: {:?}; longest gap after each, in ms: {millis:?}", lost.values().collect::<Vec<_>>());
    assert!(lost.values().all(|count| *count <= BATCH), "{report}: {lost:?}");
    // A machine that does other work may take long over one start, though not over many.
    assert!(gaps.iter().filter(|gap| **gap > LONGEST_GAP).count() <= 1, "{report}: {gaps:?}");
    assert!(report.longest_gap() <= 3 * LONGEST_GAP, "{report}: {gaps:?}");
    assert!(!report.answers().contains_key(&Who::Cluster), "clients were never sent elsewhere: {report}");
    assert!(report.refused.is_empty(), "{report}");
}

#[test]
fn a_killed_keeper_leaves_clients_to_the_cluster() {
    if lab::entered_alone(&format!("{TEST}::a_killed_keeper_leaves_clients_to_the_cluster")) {
        fails_open(KubeProxy::Nftables, |agent| agent.strike(agent.keeper(), Signal::SIGKILL));
    }
}

#[test]
fn a_keeper_and_server_killed_at_once_leave_clients_to_the_cluster() {
    if lab::entered_alone(&format!("{TEST}::a_keeper_and_server_killed_at_once_leave_clients_to_the_cluster")) {
        fails_open(KubeProxy::Iptables, |agent| agent.signal(Signal::SIGKILL));
    }
}

/// Pod and host clients, some with a socket of many queries and some with few, before, while and after.
fn fails_open(style: KubeProxy, kill: fn(&Running)) {
    let _lab = Lab::new(style);
    let mut agent = Start::new().start();
    let crowd = |from: Host| Load { rate: 1500, ..Load::heavy(from, &listening()) }.start();
    let pinned = |from: Host| Load::pinned(from, &listening()).start();
    let loads = [crowd(POD1), crowd(NODE), pinned(POD1), pinned(NODE)];
    time::pass(Duration::from_millis(500));
    kill(&agent);
    let killed = time::now();
    let server_gone = agent.wait();
    for (from, server) in [POD1, NODE].into_iter().flat_map(|from| listening().map(|server| (from, server))) {
        assert_eq!(who_answers_tcp(from, server), Some(Who::Cluster), "{from:?} asks {server} over TCP");
    }
    time::pass(Duration::from_secs(1));
    let started = time::now();
    let mut agent = Start::new().launch();
    agent.wait_until_intercepting(&listening());
    let intercepted = time::now();
    println!("{style:?}: killed ({server_gone}); intercepted {:?} after the next start", intercepted - started);
    time::pass(Duration::from_millis(500));
    for (report, who) in loads.map(Sending::stop).iter().zip(["pod", "host", "one pod socket", "one host socket"]) {
        check_fail_open(who, report, killed, started, intercepted);
    }
}

fn check_fail_open(who: &str, report: &Report, killed: Instant, started: Instant, intercepted: Instant) {
    println!(
        "{who}: {report}; lost after the kill {}, after the start {}",
        report.lost_since(killed),
        report.lost_since(started)
    );
    for server in listening() {
        let open = report.first_answer(server, Who::Cluster, killed);
        let open = open.unwrap_or_else(|| panic!("{who}: the cluster never answered at {server}: {report}"));
        println!("{who}: the cluster answered at {server} {open:?} after the kill");
        assert!(open <= FAIL_OPEN, "{who}, {server}: {open:?}; {report}");
        let back = report.records.iter().filter(|record| record.server == server && record.sent > intercepted);
        assert!(back.clone().count() > 10, "{who}, {server}: too few queries to tell");
        assert!(
            back.clone().all(|record| record.answered.is_some_and(|(_, who)| who == Who::Agent)),
            "{who}, {server}: not all intercepted again; {report}"
        );
    }
    assert_eq!(report.lost_since(killed + FAIL_OPEN), 0, "{who}: {report}");
}

#[test]
fn a_stopped_server_loses_its_rules_and_a_new_one_gets_them_back() {
    if !lab::entered_alone(&format!("{TEST}::a_stopped_server_loses_its_rules_and_a_new_one_gets_them_back")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let mut agent = Start::new().start();
    let loads = [Load::pinned(POD1, &listening()).start(), Load::pinned(NODE, &listening()).start()];
    time::pass(Duration::from_millis(500));
    let server: Pid = agent.server();
    agent.strike(server, Signal::SIGSTOP);
    let stopped = time::now();
    time::until("the rules to go", || kernel::intercepted().is_empty().then_some(()));
    let gone = stopped.elapsed();
    println!("rules gone {gone:?} after SIGSTOP");
    assert!(gone <= Duration::from_millis(1500), "{gone:?}");
    agent.wait_until_intercepting(&listening());
    println!("intercepted again {:?} after SIGSTOP; server {server} is now {}", stopped.elapsed(), agent.server());
    assert_ne!(agent.server(), server, "a server that hangs is replaced");
    time::until("the metrics of another server", || {
        let wedged = agent.metric("dnslet_server_restarts_total", &[("reason", "wedged")]);
        let open = agent.metric("dnslet_node_fail_open_seconds_total", &[]);
        (wedged == 1.0 && open >= 1.0 && agent.metric("dnslet_node_fail_open", &[]) == 0.0).then_some(())
    });
    let back = time::now();
    time::pass(Duration::from_millis(300));
    for report in loads.map(Sending::stop) {
        println!("{report}");
        for server in listening() {
            let open = report.first_answer(server, Who::Cluster, stopped);
            let open = open.unwrap_or_else(|| panic!("the cluster never answered at {server}: {report}"));
            assert!(open <= Duration::from_millis(1550), "{server}: {open:?}");
        }
        assert_eq!(report.lost_since(back), 0, "{report}");
    }
}

#[test]
fn the_fallback_is_learned_from_the_upstream_of_the_cluster_zone() {
    if !lab::entered(&format!("{TEST}::the_fallback_is_learned_from_the_upstream_of_the_cluster_zone")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let mut agent = Start::new().without("-fallback").start();
    time::until("a server behind the Service", || {
        (agent.metric("dnslet_node_fallback_endpoints", &[]) >= 1.0).then_some(())
    });
    agent.signal(Signal::SIGKILL);
    agent.wait();
    for from in [POD1, NODE] {
        assert_eq!(who_answers(from, dns(LINK_LOCAL[0])), Some(Who::Cluster), "{from:?}");
    }
}

#[test]
fn two_instances_overlap_during_an_upgrade() {
    if lab::entered_alone(&format!("{TEST}::two_instances_overlap_during_an_upgrade")) {
        overlap(|old, new| [old, new]);
    }
}

#[test]
fn an_upgrade_that_is_taken_back_loses_nothing() {
    if lab::entered_alone(&format!("{TEST}::an_upgrade_that_is_taken_back_loses_nothing")) {
        overlap(|old, new| [new, old]);
    }
}

/// An instance beside one that runs, once both serve all addresses.
fn second() -> Running {
    let mut new = Start::new().launch();
    time::until("two tables for all addresses", || {
        new.check_alive();
        (kernel::rules_to_cache().len() == 4 * listening().len()).then_some(())
    });
    new
}

/// Two instances side by side under load, of which one leaves: the first of those that the order gives for old and new.
fn overlap(order: fn(Running, Running) -> [Running; 2]) {
    let _lab = Lab::new(KubeProxy::Nftables);
    let old = Start::new().start();
    let datagrams = Load { rate: RATE, ..Load::heavy(POD1, &listening()) }.start();
    let overflows = || kernel::overflows(NODE) + kernel::overflows(POD1);
    let overflowed = overflows();
    let streams = |connections, each| Streams { from: POD1, servers: listening().to_vec(), connections, each }.start();
    let streams = [streams(LASTING, usize::MAX), streams(FLEETING, 1)];
    let new = second();
    let [mut leaves, mut stays] = order(old, new);
    time::pass(Duration::from_secs(1));
    leaves.strike(leaves.keeper(), Signal::SIGTERM);
    assert!(leaves.wait().success(), "{}", leaves.log());
    time::pass(Duration::from_secs(1));
    let (report, answers) = (datagrams.stop(), streams.map(Asking::stop));
    let (first, last) = (report.records[0].sent, report.records[report.records.len() - 1].sent);
    let rate = report.records.len() as f64 / (last - first).as_secs_f64();
    let overflowed = overflows() - overflowed;
    println!("UDP: {rate:.0} q/s; {report}; queues overflowed {overflowed} times");
    answers.iter().for_each(|answers| println!("{answers}"));
    stays.check_alive();
    assert_eq!(kernel::intercepted().len(), 4);
    assert!(!report.answers().contains_key(&Who::Cluster), "{report}");
    // What found no room is no fault of the one that left: the machine cannot take so many at once.
    assert!(report.lost().len() as u64 <= overflowed, "{report}; {}", report.story(first));
    assert!(answers.iter().all(|answers| answers.lost.is_empty()), "{answers:?}");
    assert_eq!(kernel::connections_tried_again(POD1), 0, "a client waited a second to be heard");
}

#[test]
fn the_one_that_leaves_is_given_nothing_more() {
    if !lab::entered(&format!("{TEST}::the_one_that_leaves_is_given_nothing_more")) {
        return;
    }
    let _lab = Lab::new(KubeProxy::Nftables);
    let health = format!("health {}:8080", LINK_LOCAL[0]);
    let mut old = Start::new().edit(&health, &format!("{health} {{\n lameduck 20s\n }}")).start();
    let mut new = second();
    let (keeper, server) = (old.keeper(), old.server());
    old.strike(keeper, Signal::SIGTERM);
    old.wait_for_log("Going into lameduck mode");
    // From here on whatever comes to its sockets stays there.
    old.strike(server, Signal::SIGSTOP);
    let streams = Streams { from: POD1, servers: listening().to_vec(), connections: 4, each: 1 }.start();
    let report = Load { rate: 1000, ..Load::heavy(POD1, &listening()) }.send_for(Duration::from_millis(500));
    let answers = streams.stop();
    println!("{report}\n{answers}");
    assert!(report.lost().is_empty() && answers.lost.is_empty(), "{report}; {answers}");
    assert_eq!(kernel::connections_tried_again(POD1), 0, "{answers}");
    new.check_alive();
    old.strike(server, Signal::SIGKILL);
    old.wait();
}
