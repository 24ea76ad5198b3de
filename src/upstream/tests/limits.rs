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

/// Spends every further try there is, and those of the next hour.
fn spend(upstreams: &Upstreams) {
    let later = clock::now() + 3_600_000 * MS;
    while upstreams.budget().further(false, later) {}
}

fn failing(arrival: Arrival<'_>) -> Vec<Act> {
    vec![Act::Send(answer(arrival.query, Rcode::SERVFAIL))]
}

async fn refresh(pool: &Pool, limit: Duration) -> Result<(), Failure> {
    let query = query("www.example.org.", 1);
    let ask = Ask { background: true, ..asking(&query, Protocol::Udp, limit) };
    pool.exchange(ask).await.map(drop)
}

#[tokio::test]
async fn with_no_further_tries_left_an_exchange_waits_for_what_it_sent() {
    let responder = Responder::start(silent).await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |spec| spec.max_fails = 0);
    spend(&upstreams);
    let result = ask_for(&pool, "www.example.org.", 1800 * MS).await;
    assert!(matches!(result, Err(Failure::Timeout(_))));
    assert_eq!((responder.seen().datagrams.len(), responder.seen().connections), (1, 0));
    assert_eq!(value(&upstreams, REFUSED), 1);
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
    spend(&upstreams);
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
