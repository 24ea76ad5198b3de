//! One upstream of two that dies, both that do, and how they come back.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::{interval, sleep};

use crate::sys::clock;
use crate::upstream::testing::*;
use crate::upstream::{Failure, Network, Upstreams};

const MS: Duration = Duration::from_millis(1);

/// An upstream that can be silenced, and what it was asked.
#[derive(Default)]
struct Mortal {
    dead: AtomicBool,
    queries: AtomicUsize,
    /// Checks too.
    arrivals: Mutex<Vec<Instant>>,
}

impl Mortal {
    async fn start() -> (Arc<Mortal>, Responder) {
        let mortal = Arc::new(Mortal::default());
        let handler = mortal.clone();
        let responder = Responder::start(move |arrival| {
            handler.arrivals.lock().unwrap().push(clock::now());
            // Checks ask for the root.
            handler.queries.fetch_add(usize::from(arrival.query.len() > 17), SeqCst);
            if handler.dead.load(SeqCst) { silent(arrival) } else { answering(arrival) }
        })
        .await;
        (mortal, responder)
    }

    fn queries(&self) -> usize {
        self.queries.load(SeqCst)
    }
}

#[tokio::test]
async fn an_upstream_that_dies_among_a_thousand_queries_a_second_costs_none_of_them() {
    let (mortal, first) = Mortal::start().await;
    let (other, second) = Mortal::start().await;
    let upstreams = Upstreams::new();
    let pool = pool(&[first.socket, second.socket], &upstreams, |_| {});
    let mut asked = JoinSet::new();
    let mut ticks = interval(MS);
    let (mut at_death, mut a_second_later, mut at_return) = (0, 0, 0);
    let mut returned = None;
    let mut used_after = None;
    for at in 0.. {
        ticks.tick().await;
        match at {
            1000 => mortal.dead.store(true, SeqCst),
            2000 => a_second_later = mortal.queries(),
            3000 => {
                at_death = mortal.queries() - a_second_later;
                at_return = mortal.queries();
                mortal.dead.store(false, SeqCst);
                returned = Some(clock::now());
            }
            _ => {}
        }
        // More than the few that come when the other one is slow.
        if let Some(returned) = returned
            && mortal.queries() > at_return + 20
        {
            used_after = Some(returned.elapsed());
            break;
        }
        let pool = pool.clone();
        asked.spawn(async move { ask_for(&pool, &format!("n{at}.example.org."), 4500 * MS).await.map(|got| got.took) });
    }
    let (came, lost): (Vec<_>, Vec<_>) = asked.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(lost.len(), 0, "of {} queries: {:?}", came.len() + lost.len(), lost.first());
    // A busy machine may be late with an answer of the living one, which then costs one question to the dead one.
    assert!(at_death <= 10, "{at_death} queries of 1000 went to the dead one a second after its death");
    assert!(used_after.is_some_and(|after| after < 2000 * MS), "used again after {used_after:?}");
    assert!(other.queries() > 2000);
}

#[tokio::test]
async fn with_all_upstreams_dead_there_is_one_packet_a_second_for_each() {
    with_all_upstreams_dead(false).await;
}

#[tokio::test]
async fn with_all_upstreams_dead_over_tcp_there_is_one_query_a_second_for_each() {
    with_all_upstreams_dead(true).await;
}

async fn with_all_upstreams_dead(force_tcp: bool) {
    let (mortal, responder) = Mortal::start().await;
    let (other, second) = Mortal::start().await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket, second.socket], &upstreams, |spec| spec.force_tcp = force_tcp);
    // What is known to be fast is known to be late the sooner.
    while mortal.queries() == 0 || other.queries() == 0 {
        ask(&pool).await.unwrap();
    }
    mortal.dead.store(true, SeqCst);
    other.dead.store(true, SeqCst);
    let died = clock::now();
    let mut asked = JoinSet::new();
    while !pool.is_down() {
        let pool = pool.clone();
        asked.spawn(async move { ask_for(&pool, "www.example.org.", 4500 * MS).await });
        sleep(20 * MS).await;
    }
    let (took, at_most) = (died.elapsed(), if force_tcp { 6000 } else { 3500 });
    assert!(took < at_most * MS, "down after {took:?}");

    let down = clock::now();
    while down.elapsed() < 4000 * MS {
        let pool = pool.clone();
        asked.spawn(async move { ask_for(&pool, "www.example.org.", 4500 * MS).await });
        sleep(2 * MS).await;
    }
    for mortal in [&mortal, &other] {
        let arrivals = mortal.arrivals.lock().unwrap().clone();
        // Those before were sent when it was not yet known.
        let probes: Vec<Instant> = arrivals.into_iter().filter(|at| *at >= down + 100 * MS).collect();
        assert!((2..=4).contains(&probes.len()), "{} probes in four seconds", probes.len());
        let close = probes.windows(2).filter(|pair| pair[1] - pair[0] < 900 * MS).count();
        assert_eq!(close, 0, "{probes:?}");
    }
    assert_eq!(upstreams.recoveries(), 0);

    mortal.dead.store(false, SeqCst);
    let back = clock::now();
    while pool.is_down() {
        let pool = pool.clone();
        asked.spawn(async move { ask_for(&pool, "www.example.org.", 4500 * MS).await });
        sleep(2 * MS).await;
    }
    assert!(back.elapsed() < 2000 * MS, "up again after {:?}", back.elapsed());
    assert_eq!(upstreams.recoveries(), 1);
    ask(&pool).await.unwrap();
}

#[tokio::test]
async fn fail_fast_lets_no_query_through() {
    let (mortal, responder) = Mortal::start().await;
    mortal.dead.store(true, SeqCst);
    let pool = pool(&[responder.socket], &Upstreams::new(), |spec| {
        spec.failfast = true;
        spec.max_fails = 1;
    });
    assert!(matches!(ask_for(&pool, "www.example.org.", 600 * MS).await, Err(Failure::Timeout(_))));
    while !pool.is_down() {
        sleep(MS).await;
    }
    let before = mortal.queries();
    let down = clock::now();
    while down.elapsed() < 2500 * MS {
        assert_eq!(ask(&pool).await.unwrap_err(), Failure::NoHealthy);
        sleep(MS).await;
    }
    assert_eq!(mortal.queries(), before, "only checks");
}

#[tokio::test]
async fn a_name_that_is_never_answered_takes_no_upstream_down() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let responder = Responder::start(move |arrival| {
        let check = arrival.query.len() == 17;
        count.fetch_add(usize::from(check), SeqCst);
        if check { answering(arrival) } else { silent(arrival) }
    })
    .await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |_| {});
    for _ in 0..2 {
        let failure = ask_for(&pool, "www.example.org.", 1800 * MS).await.unwrap_err();
        assert!(matches!(failure, Failure::Timeout(leg) if leg.network == Network::Udp || leg.network == Network::Tcp));
    }
    assert!((1..=8).contains(&asked.load(SeqCst)), "{asked:?} checks");
    assert_eq!((pool.is_down(), pool.members()[0].failed_checks(), upstreams.recoveries()), (false, 0, 0));
}

#[tokio::test]
async fn without_checks_a_recovery_is_seen_by_its_first_answer() {
    let (mortal, responder) = Mortal::start().await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |spec| spec.max_fails = 0);
    ask(&pool).await.unwrap();
    mortal.dead.store(true, SeqCst);
    for _ in 0..3 {
        ask_for(&pool, "www.example.org.", 600 * MS).await.unwrap_err();
    }
    assert_eq!(upstreams.recoveries(), 0);
    mortal.dead.store(false, SeqCst);
    ask(&pool).await.unwrap();
    assert_eq!(upstreams.recoveries(), 1);
    ask(&pool).await.unwrap();
    assert_eq!(upstreams.recoveries(), 1);
}

#[tokio::test]
async fn a_death_after_a_good_check_is_noticed_however_seldom_checks_are() {
    let checks = Arc::new(AtomicUsize::new(0));
    let dead = Arc::new(AtomicBool::new(false));
    let (count, switch) = (checks.clone(), dead.clone());
    let responder = Responder::start(move |arrival| {
        let check = arrival.query.len() == 17;
        count.fetch_add(usize::from(check), SeqCst);
        if check && !switch.load(SeqCst) { answering(arrival) } else { silent(arrival) }
    })
    .await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |spec| {
        spec.health_check.interval = Duration::from_secs(60);
    });
    while checks.load(SeqCst) == 0 {
        ask_for(&pool, "www.example.org.", 600 * MS).await.unwrap_err();
    }
    sleep(200 * MS).await;
    assert_eq!(pool.members()[0].failed_checks(), 0, "the check was answered");
    dead.store(true, SeqCst);
    let died = clock::now();
    while pool.members()[0].failed_checks() == 0 {
        assert!(died.elapsed() < 5000 * MS, "no check since");
        ask_for(&pool, "www.example.org.", 600 * MS).await.unwrap_err();
    }
}
