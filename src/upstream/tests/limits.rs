//! What all questions together may send, and what becomes of an upstream that answers SERVFAIL.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crate::dns::{Protocol, Rcode, header};
use crate::sys::clock;
use crate::upstream::spec::Policy;
use crate::upstream::testing::*;
use crate::upstream::{Ask, Failure, Pool, Upstreams};

const MS: Duration = Duration::from_millis(1);

/// Spends every further try there is, and those of the time to come.
fn spend(upstreams: &Upstreams, to_come: Duration) {
    let later = clock::now() + to_come;
    while upstreams.budget().again(false, later) {}
}

const HOUR: Duration = Duration::from_secs(3600);

fn failing(arrival: Arrival<'_>) -> Vec<Act> {
    vec![Act::Send(answer(arrival.query, Rcode::SERVFAIL))]
}

async fn refresh(pool: &Pool, limit: Duration) -> Result<(), Failure> {
    let query = query("www.example.org.", 1);
    let ask = Ask { awaited: &AtomicBool::new(false), ..asking(&query, Protocol::Udp, limit) };
    pool.exchange(ask).await.map(drop)
}

#[tokio::test]
async fn with_no_further_tries_left_an_exchange_waits_for_what_it_sent() {
    let responder = Responder::start(silent).await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |spec| spec.max_fails = 0);
    spend(&upstreams, HOUR);
    let result = ask_for(&pool, "www.example.org.", 1800 * MS).await;
    assert!(matches!(result, Err(Failure::Timeout(_))));
    assert_eq!((responder.seen().datagrams.len(), responder.seen().connections), (1, 0));
    assert_eq!(value(&upstreams, REFUSED), 1);
}

#[tokio::test]
async fn a_further_try_that_has_to_wait_is_made_later() {
    let responder =
        Responder::start(|arrival| if arrival.number == 0 { silent(arrival) } else { answering(arrival) }).await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |spec| spec.max_fails = 0);
    // Longer than the patience with an upstream of which nothing is known.
    spend(&upstreams, 600 * MS);
    ask_for(&pool, "www.example.org.", 4500 * MS).await.unwrap();
    assert_eq!((responder.seen().datagrams.len(), responder.seen().connections), (2, 0));
    assert_eq!(value(&upstreams, REFUSED), 1);
}

#[tokio::test]
async fn with_no_further_tries_left_another_upstream_is_asked_all_the_same() {
    let closed = closed_port().await;
    let (silent, responder) = (Responder::start(silent).await, Responder::start(answering).await);
    for dead in [closed, silent.socket] {
        let upstreams = Upstreams::new();
        let pool = pool(&[dead, responder.socket], &upstreams, |spec| {
            spec.policy = Policy::Sequential;
            spec.max_fails = 0;
        });
        spend(&upstreams, Duration::ZERO);
        for _ in 0..10 {
            let exchanged = ask_for(&pool, "www.example.org.", 4500 * MS).await.unwrap();
            assert_eq!(exchanged.upstream.address().socket, responder.socket);
        }
        assert_eq!(value(&upstreams, REFUSED), 0);
    }
}

#[tokio::test]
async fn a_closed_port_alone_is_told_at_once_when_no_further_tries_are_left() {
    let upstreams = Upstreams::new();
    let pool = pool(&[closed_port().await], &upstreams, |spec| spec.max_fails = 0);
    spend(&upstreams, HOUR);
    let started = clock::now();
    assert!(matches!(ask(&pool).await, Err(Failure::Refused(_))));
    assert!(started.elapsed() < 2000 * MS, "{:?}", started.elapsed());
}

const REFUSED: &str = "dnslet_upstream_retries_refused_total";
const PACED: &str = "dnslet_upstream_paced_total";

#[tokio::test]
async fn failover_and_truncation_need_no_further_tries() {
    let first = Responder::start(failing).await;
    let second = Responder::start(|arrival| {
        let mut message = answer(arrival.query, Rcode::NOERROR);
        message[2] |= if arrival.network == crate::upstream::Network::Udp { header::TC } else { 0 };
        vec![Act::Send(message)]
    })
    .await;
    let upstreams = Upstreams::new();
    let pool = pool(&[first.socket, second.socket], &upstreams, |spec| {
        spec.policy = Policy::Sequential;
        spec.failover = vec![Rcode::SERVFAIL];
    });
    spend(&upstreams, HOUR);
    for _ in 0..5 {
        let exchanged = ask(&pool).await.unwrap();
        assert!(!header::truncated(&exchanged.wire));
        assert_eq!(header::rcode(&exchanged.wire), Rcode::NOERROR);
    }
    assert_eq!(value(&upstreams, REFUSED), 0);
}

#[tokio::test]
async fn over_the_cap_on_packets_questions_fail_at_once_and_refreshes_sooner() {
    let responder = Responder::start(answering).await;
    // Ten at once, then one in ten milliseconds; the clock of the test may bring in a few.
    let upstreams = Upstreams::with_pps(100);
    let paced_pool = pool(&[responder.socket], &upstreams, |_| {});
    let mut refreshed = 0;
    while refresh(&paced_pool, 1000 * MS).await.is_ok() {
        refreshed += 1;
        assert!(refreshed < 100, "never paced");
    }
    assert!(refreshed >= 5, "{refreshed}");
    assert!(ask(&paced_pool).await.is_ok(), "a client's question still goes");
    let mut asked = 0;
    let failure = loop {
        match ask(&paced_pool).await {
            Ok(_) => asked += 1,
            Err(failure) => break failure,
        }
        assert!(asked < 1000, "never paced");
    };
    assert_eq!(failure, Failure::Paced);
    assert_eq!(failure.to_string(), "too many packets to upstreams");
    assert_eq!(value(&upstreams, PACED), 2);
    assert_eq!(responder.seen().datagrams.len(), refreshed + 1 + asked);
    let unlimited = pool(&[responder.socket], &Upstreams::new(), |_| {});
    for _ in 0..200 {
        ask(&unlimited).await.unwrap();
    }
}

/// Spends the packets of the time to come as well.
fn spend_packets(upstreams: &Upstreams, to_come: Duration) {
    let later = clock::now() + to_come;
    while upstreams.budget().packet(false, later) {}
}

#[tokio::test]
async fn questions_over_the_cap_on_packets_earn_no_further_tries() {
    let upstreams = Upstreams::with_pps(100);
    let pool = pool(&[closed_port().await], &upstreams, |spec| spec.max_fails = 0);
    spend(&upstreams, HOUR);
    spend_packets(&upstreams, HOUR);
    for _ in 0..50 {
        assert_eq!(ask(&pool).await.unwrap_err(), Failure::Paced);
    }
    assert!(!upstreams.budget().again(false, clock::now() + HOUR));
}

#[tokio::test]
async fn a_probe_over_the_cap_on_packets_leaves_its_turn_to_the_next_one() {
    let responder = Responder::start(answering).await;
    let upstreams = Upstreams::with_pps(100);
    let pool = pool(&[responder.socket], &upstreams, |_| {});
    let health = pool.members()[0].clone();
    (0..5).for_each(|_| health.health().failed());
    assert!(pool.is_down());
    spend_packets(&upstreams, 50 * MS);
    assert_eq!(ask(&pool).await.unwrap_err(), Failure::Paced);
    while let Err(failure) = ask(&pool).await {
        assert_eq!(failure, Failure::Paced, "the turn was used up");
        tokio::time::sleep(MS).await;
    }
}

#[tokio::test]
async fn what_a_lost_connection_leaves_is_sent_again_within_the_cap_on_packets() {
    // Ends the first connection when it has got all of the questions.
    let responder = Responder::start(|arrival| match arrival.number {
        0..9 => silent(arrival),
        9 => vec![Act::Close],
        _ => answering(arrival),
    })
    .await;
    let upstreams = Upstreams::with_pps(100);
    let pool = pool(&[responder.socket], &upstreams, |spec| {
        spec.force_tcp = true;
        spec.max_fails = 0;
        spec.max_connect_attempts = Some(1);
    });
    let asks = (0..10).map(|index| {
        let pool = pool.clone();
        async move { ask_for(&pool, &format!("n{index}.example.org."), 4500 * MS).await }
    });
    let outcomes: Vec<_> = asks.map(tokio::spawn).collect();
    let mut answered = 0;
    for outcome in outcomes {
        answered += usize::from(outcome.await.unwrap().is_ok());
    }
    // The ten used up what may leave at once; while the connection was opened a few more came in.
    assert!(answered < 10, "{answered}");
    assert_eq!(responder.seen().stream_queries.len(), 10 + answered);
    assert!(value(&upstreams, PACED) >= 10 - answered as u64);
}

#[tokio::test]
async fn a_refresh_is_sent_twice_at_most_and_not_in_haste() {
    let responder = Responder::start(silent).await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |spec| spec.max_fails = 0);
    assert!(matches!(refresh(&pool, 950 * MS).await, Err(Failure::Timeout(_))));
    assert_eq!(responder.seen().datagrams.len(), 1);
    assert!(matches!(refresh(&pool, 2500 * MS).await, Err(Failure::Timeout(_))));
    assert_eq!((responder.seen().datagrams.len(), responder.seen().connections), (1 + 2, 0));
}

#[tokio::test]
async fn a_refresh_that_a_client_has_joined_is_no_refresh_any_more() {
    let responder = Responder::start(silent).await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |spec| spec.max_fails = 0);
    let (query, awaited) = (query("www.example.org.", 1), AtomicBool::new(false));
    let ask = Ask { awaited: &awaited, ..asking(&query, Protocol::Udp, 2500 * MS) };
    let join = async {
        tokio::time::sleep(100 * MS).await;
        awaited.store(true, SeqCst);
    };
    let (outcome, ()) = tokio::join!(pool.exchange(ask), join);
    assert!(matches!(outcome, Err(Failure::Timeout(_))));
    assert_eq!((responder.seen().datagrams.len(), responder.seen().connections), (2, 1), "the try over TCP as well");
}

#[tokio::test]
async fn an_upstream_that_only_says_servfail_is_set_back_and_tried_again() {
    let broken = Arc::new(AtomicBool::new(true));
    let switch = broken.clone();
    let first =
        Responder::start(move |arrival| if switch.load(SeqCst) { failing(arrival) } else { answering(arrival) }).await;
    let second = Responder::start(answering).await;
    let pool = pool(&[first.socket, second.socket], &Upstreams::new(), |spec| spec.policy = Policy::Sequential);
    let mut seen = 0;
    while header::rcode(&ask(&pool).await.unwrap().wire) == Rcode::SERVFAIL {
        seen += 1;
        assert!(seen < 40, "never set back");
    }
    let before = first.seen().datagrams.len();
    let set_back = clock::now();
    while set_back.elapsed() < 2600 * MS {
        let exchanged = ask(&pool).await.unwrap();
        assert_eq!(header::rcode(&exchanged.wire), Rcode::NOERROR, "a trial is not seen by clients");
        tokio::time::sleep(MS).await;
    }
    let trials = first.seen().datagrams.len() - before;
    assert!((1..=3).contains(&trials), "{trials}");
    broken.store(false, SeqCst);
    while ask(&pool).await.unwrap().upstream.address().socket != first.socket {
        tokio::time::sleep(MS).await;
    }
    assert_eq!(ask(&pool).await.unwrap().upstream.address().socket, first.socket, "in its turn again");
}

#[tokio::test]
async fn an_exchange_that_only_waits_for_a_late_answer_stands_in_nobodys_way() {
    let responder = Responder::start(silent).await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |spec| {
        (spec.max_concurrent, spec.max_fails) = (Some(1), 0);
    });
    let query = query("www.example.org.", 1);
    let ask = asking(&query, Protocol::Udp, 10 * MS);
    let mut exchange = pool.begin(Ask { deadline: ask.budget + 60_000 * MS, ..ask }).unwrap();
    assert!(exchange.run().await.is_err() && exchange.is_open());
    assert!(matches!(pool.begin(ask), Err(Failure::Overloaded { limit: 1 })), "it has its place until it lingers");
    let next = async {
        tokio::task::yield_now().await;
        pool.begin(ask).map(drop)
    };
    tokio::select! {
        biased;
        _ = exchange.linger() => panic!("nothing comes"),
        next = next => next.unwrap(),
    }
}
