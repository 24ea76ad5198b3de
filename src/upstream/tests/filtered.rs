//! Servers of which one transport is filtered on the way: what works goes on being used.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::sys::clock;
use crate::upstream::testing::*;
use crate::upstream::{Network, Upstreams};

const MS: Duration = Duration::from_millis(1);

/// Answers over every transport but this one.
fn silent_over(network: Network) -> impl Fn(Arrival<'_>) -> Vec<Act> + Send + Sync + 'static {
    move |arrival| if arrival.network == network { silent(arrival) } else { answering(arrival) }
}

/// Queries over UDP that are no checks: those ask for the root.
fn is_query(arrival: &Arrival<'_>) -> bool {
    arrival.query.len() > 17
}

#[tokio::test]
async fn without_udp_a_server_is_used_over_tcp() {
    for max_fails in [2, 0] {
        let responder = Responder::start(silent_over(Network::Udp)).await;
        let upstreams = Upstreams::new();
        let pool = pool(&[responder.socket], &upstreams, |spec| spec.max_fails = max_fails);
        ask_for(&pool, "first.example.org.", 4500 * MS).await.expect("an answer over TCP");
        if max_fails == 0 {
            // Without checks one query has to find out whether it was the name.
            ask_for(&pool, "second.example.org.", 4500 * MS).await.expect("an answer over TCP");
        }
        let started = clock::now();
        while started.elapsed() < 4000 * MS {
            let exchanged = ask_for(&pool, "more.example.org.", 4500 * MS).await.expect("an answer over TCP");
            assert!(exchanged.took < 1000 * MS, "{max_fails}: {:?}", exchanged.took);
            assert!(!pool.is_down());
            sleep(20 * MS).await;
        }
        let datagrams = responder.seen().datagrams.len();
        assert!(datagrams <= 8, "{max_fails}: {datagrams} datagrams");
    }
}

#[tokio::test]
async fn one_name_without_answer_over_udp_leaves_the_others_there() {
    let by_udp = Arc::new(AtomicBool::new(false));
    let heard = by_udp.clone();
    let responder = Responder::start(move |arrival| {
        let unheard = arrival.query.windows(7).any(|part| part == b"unheard");
        match (arrival.network, unheard) {
            (Network::Udp, true) => silent(arrival),
            (Network::Udp, false) => {
                heard.fetch_or(is_query(&arrival), SeqCst);
                answering(arrival)
            }
            _ => answering(arrival),
        }
    })
    .await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |_| {});
    ask_for(&pool, "unheard.example.org.", 4500 * MS).await.expect("an answer over TCP");
    let started = clock::now();
    while !by_udp.load(SeqCst) {
        assert!(started.elapsed() < 2000 * MS, "other names go over UDP");
        ask_for(&pool, "other.example.org.", 4500 * MS).await.expect("an answer");
        sleep(MS).await;
    }
}

#[tokio::test]
async fn a_dead_transport_of_one_line_is_not_held_against_another() {
    for filtered in [Network::Udp, Network::Tcp] {
        let responder = Responder::start(silent_over(filtered)).await;
        let upstreams = Upstreams::new();
        let plain = pool(&[responder.socket], &upstreams, |_| {});
        let forced = pool(&[responder.socket], &upstreams, |spec| spec.force_tcp = true);
        let started = clock::now();
        let mut was_down = false;
        while started.elapsed() < 6000 * MS {
            let over_tcp = ask_for(&forced, "forced.example.org.", 600 * MS).await;
            assert_eq!(over_tcp.is_ok(), filtered == Network::Udp, "{filtered:?}: {over_tcp:?}");
            ask_for(&plain, "plain.example.org.", 4500 * MS).await.expect("an answer");
            assert!(!plain.is_down(), "{filtered:?}");
            was_down |= forced.is_down();
            sleep(20 * MS).await;
        }
        assert_eq!(was_down, filtered == Network::Tcp);
    }
}

#[tokio::test]
async fn a_server_that_comes_back_without_udp_is_found() {
    let dead = Arc::new(AtomicBool::new(true));
    let switch = dead.clone();
    let responder = Responder::start(move |arrival| match arrival.network {
        Network::Udp => silent(arrival),
        _ if switch.load(SeqCst) => vec![Act::Close],
        _ => answering(arrival),
    })
    .await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |_| {});
    while !pool.is_down() {
        ask_for(&pool, "www.example.org.", 600 * MS).await.expect_err("nothing answers");
    }
    dead.store(false, SeqCst);
    let back = clock::now();
    while pool.is_down() {
        assert!(back.elapsed() < 8000 * MS, "still down");
        sleep(10 * MS).await;
    }
    let exchanged = ask_for(&pool, "www.example.org.", 4500 * MS).await.expect("an answer over TCP");
    assert!(exchanged.took < 1000 * MS, "{:?}", exchanged.took);
}

#[tokio::test]
async fn a_server_that_flaps_is_soon_asked_over_udp_again() {
    let dead = Arc::new(AtomicBool::new(false));
    let switch = dead.clone();
    let responder = Responder::start(move |arrival| match switch.load(SeqCst) {
        true => silent(arrival),
        false => answering(arrival),
    })
    .await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |_| {});
    let mut asked = JoinSet::new();
    for round in 0..6 {
        dead.store(round % 2 == 0, SeqCst);
        let started = clock::now();
        while started.elapsed() < 1000 * MS {
            let pool = pool.clone();
            asked.spawn(async move { ask_for(&pool, "www.example.org.", 4500 * MS).await.is_ok() });
            sleep(10 * MS).await;
        }
    }
    let over = clock::now();
    while pool.is_down() || pool.members()[0].silence().is_on() {
        assert!(over.elapsed() < 2500 * MS, "asked over TCP only, or not at all");
        let _ = ask_for(&pool, "www.example.org.", 4500 * MS).await;
        sleep(10 * MS).await;
    }
}
