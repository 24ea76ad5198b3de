//! TCP and TLS: shared connections and lost ones.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::certificates::Authority;
use crate::dns::{Rcode, header};
use crate::upstream::spec::PoolSpec;
use crate::upstream::testing::*;
use crate::upstream::{Network, Pool, Upstreams};

/// Runs `check` over TCP and over TLS with a responder that does what `handler` says.
pub(super) async fn over_both<H, C>(name: &str, reset: bool, handler: impl Fn() -> H, check: C)
where
    H: Fn(Arrival<'_>) -> Vec<Act> + Send + Sync + 'static,
    C: AsyncFn(Network, Upstreams, Arc<Pool>, Responder),
{
    over_both_with(|_| {}, name, reset, handler, check).await;
}

/// The same with a `forward` line that is changed.
pub(super) async fn over_both_with<H, C>(
    change: impl Fn(&mut PoolSpec),
    name: &str,
    reset: bool,
    handler: impl Fn() -> H,
    check: C,
) where
    H: Fn(Arrival<'_>) -> Vec<Act> + Send + Sync + 'static,
    C: AsyncFn(Network, Upstreams, Arc<Pool>, Responder),
{
    let responder = Responder::bind(None, reset, handler()).await;
    let upstreams = Upstreams::new();
    let tcp = pool(&[responder.socket], &upstreams, |spec| {
        spec.force_tcp = true;
        spec.max_fails = 0;
        change(spec);
    });
    check(Network::Tcp, upstreams, tcp, responder).await;

    let authority = Authority::new(name);
    let responder = Responder::bind(Some(authority.acceptor(&["127.0.0.1"])), reset, handler()).await;
    let addresses = vec![tls_address(responder.socket, None)];
    let upstreams = Upstreams::new();
    let tls = pool_of(addresses, &upstreams, |spec| {
        spec.tls = authority.spec();
        spec.max_fails = 0;
        change(spec);
    });
    check(Network::Tls, upstreams, tls, responder).await;
}

#[tokio::test]
async fn the_answer_is_found_among_wrong_messages_without_asking_again() {
    let handler = || {
        |arrival: Arrival<'_>| {
            let good = answer(arrival.query, Rcode::NXDOMAIN);
            let mut other_id = good.clone();
            header::set_id(&mut other_id, !header::id(&good));
            let other_question = answer(&query("other.example.org.", header::id(&good)), Rcode::NOERROR);
            let mut garbage = vec![0xff; 40];
            header::set_id(&mut garbage, header::id(&good));
            let wrong =
                [vec![], vec![7], other_id, other_question, arrival.query.to_vec(), good[..3].to_vec(), garbage];
            wrong.into_iter().chain([good]).map(Act::Send).collect()
        }
    };
    over_both("wrong", false, handler, async |network, upstreams, pool, responder| {
        let exchanged = ask(&pool).await.unwrap();
        assert_eq!(header::rcode(&exchanged.wire), Rcode::NXDOMAIN, "{network:?}");
        assert_eq!(header::id(&exchanged.wire), 4711);
        let seen = responder.seen();
        assert_eq!((seen.datagrams.len(), seen.stream_queries.len(), seen.connections), (0, 1, 1), "{network:?}");
        let wrong = |reason| value(&upstreams, &responder.series("dnslet_upstream_mismatches_total", reason));
        assert_eq!([wrong("short"), wrong("id"), wrong("question"), wrong("not_response")], [3, 1, 2, 1]);
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_questions_share_two_connections_and_no_id() {
    const COUNT: usize = 10_000;
    // Answers nothing before the last question has come, then everything, youngest first.
    let handler = || {
        let waiting: Mutex<Vec<Vec<u8>>> = Mutex::default();
        move |arrival: Arrival<'_>| {
            let mut waiting = waiting.lock().unwrap();
            waiting.push(arrival.query.to_vec());
            if waiting.len() < 100 {
                return Vec::new();
            }
            waiting.drain(..).rev().map(|query| Act::Send(answer(&query, Rcode::NOERROR))).collect()
        }
    };
    let responder = Responder::start(handler()).await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |spec| {
        spec.force_tcp = true;
        spec.max_idle_conns = Some(1);
        // However slow this machine is, no question is asked again, and no check is counted among them.
        spec.max_connect_attempts = Some(1);
        spec.max_fails = 0;
    });
    let mut tasks = JoinSet::new();
    for index in 0..COUNT {
        let pool = pool.clone();
        tasks.spawn(async move {
            let name = format!("n{index}.example.org.");
            let exchanged = ask_for(&pool, &name, Duration::from_secs(60)).await;
            (name, exchanged)
        });
        // Not more at once than a connection takes.
        while tasks.len() >= 5000 {
            let (name, exchanged) = tasks.join_next().await.unwrap().unwrap();
            assert_eq!(exchanged.unwrap().wire, answer(&query(&name, 4711), Rcode::NOERROR));
        }
    }
    while let Some(done) = tasks.join_next().await {
        let (name, exchanged) = done.unwrap();
        assert_eq!(exchanged.unwrap().wire, answer(&query(&name, 4711), Rcode::NOERROR));
    }
    assert_eq!(responder.seen().connections, 1);
    assert_eq!(responder.seen().stream_queries.len(), COUNT);
}

#[tokio::test]
async fn many_questions_at_once_use_two_connections_and_each_id_once() {
    // Silence keeps every question in flight.
    over_both(
        "many",
        false,
        || silent,
        async |network, _, pool, responder| {
            let mut tasks = JoinSet::new();
            for index in 0..500 {
                let pool = pool.clone();
                tasks.spawn(
                    async move { ask_for(&pool, &format!("n{index}.example.org."), Duration::from_secs(20)).await },
                );
            }
            while responder.seen().stream_queries.len() < 500 {
                tokio::task::yield_now().await;
            }
            assert_eq!(responder.seen().connections, 2, "{network:?}");
            assert!(responder.seen().stream_ids_are_unique(), "{network:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn questions_on_a_lost_connection_are_sent_once_more() {
    for reset in [false, true] {
        // The first connection ends with its second question; the first one then was not answered either.
        let handler = || {
            |arrival: Arrival<'_>| match arrival.number {
                0 => Vec::new(),
                1 => vec![Act::Close],
                _ => answering(arrival),
            }
        };
        over_both("lost", reset, handler, async |network, _, pool, responder| {
            let (first, second) = tokio::join!(ask(&pool), ask(&pool));
            assert!(first.is_ok() && second.is_ok(), "{network:?} {reset}: {first:?} {second:?}");
            let seen = responder.seen();
            assert_eq!((seen.stream_queries.len(), seen.connections), (4, 2), "{network:?} {reset}");
        })
        .await;
    }
}

#[tokio::test]
async fn a_connection_that_always_ends_is_not_dialled_for_ever() {
    over_both(
        "ends",
        false,
        || |_: Arrival<'_>| vec![Act::Close],
        async |network, _, pool, responder| {
            let failure = ask(&pool).await.unwrap_err();
            assert_eq!(failure.to_string(), "EOF", "{network:?}");
            // The first attempt, once more on a fresh connection, and the second attempt.
            assert_eq!(responder.seen().stream_queries.len(), 3, "{network:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_connection_is_reused_until_it_is_idle_or_old() {
    over_both(
        "reused",
        false,
        || answering,
        async |network, _, pool, responder| {
            for _ in 0..20 {
                ask(&pool).await.unwrap();
            }
            assert_eq!(responder.seen().connections, 1, "{network:?}");
        },
    )
    .await;
    let short = Duration::from_millis(20);
    for (expire, max_age) in [(short, None), (Duration::from_secs(3600), Some(short))] {
        let change = |spec: &mut PoolSpec| (spec.expire, spec.max_age) = (expire, max_age);
        over_both_with(
            change,
            "old",
            false,
            || answering,
            async |network, _, pool, responder| {
                let exchanged = ask(&pool).await.unwrap();
                while exchanged.upstream.connections() != 0 || responder.seen().open_connections != 0 {
                    tokio::task::yield_now().await;
                }
                ask(&pool).await.unwrap();
                assert_eq!(responder.seen().connections, 2, "{network:?}");
            },
        )
        .await;
    }
}

#[tokio::test]
async fn connections_end_with_the_last_pool_that_uses_them() {
    over_both(
        "last",
        false,
        || answering,
        async |_, _, pool, responder| {
            ask(&pool).await.unwrap();
            assert_eq!(responder.seen().open_connections, 1);
            drop(pool);
            while responder.seen().open_connections != 0 {
                tokio::task::yield_now().await;
            }
        },
    )
    .await;
}

fn runtime() -> LocalRuntime {
    Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap()
}

/// Runs `task` on a worker of its own until `stop` is dropped.
fn worker<T: Send + 'static>(
    task: impl AsyncFnOnce() -> T + Send + 'static,
) -> (T, oneshot::Sender<()>, std::thread::JoinHandle<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let (done, result) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        runtime().block_on(async move {
            done.send(task().await).ok();
            let _ = stopped.await;
        });
    });
    (result.recv().unwrap(), stop, thread)
}

#[test]
fn workers_share_connections_and_replace_those_of_a_worker_that_ended() {
    let (responder, _server, _thread) = worker(async || Responder::start(answering).await);
    let pool = pool(&[responder.socket], &Upstreams::new(), |spec| spec.force_tcp = true);
    let first = pool.clone();
    let (answer, stop, thread) = worker(async move || ask(&first).await);
    answer.unwrap();
    let second = runtime();
    second.block_on(ask(&pool)).unwrap();
    assert_eq!(responder.seen().connections, 1, "the second worker used the first one's connection");
    drop(stop);
    thread.join().unwrap();
    second.block_on(ask(&pool)).unwrap();
    assert_eq!(responder.seen().connections, 2);
}
