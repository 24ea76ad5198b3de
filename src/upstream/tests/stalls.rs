//! Connections that do not come about, that stand still, and that die without a word.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::certificates::Authority;
use super::streams::{over_both, over_both_with};
use crate::dns::Rcode;
use crate::sys::clock;
use crate::upstream::spec::PoolSpec;
use crate::upstream::testing::*;
use crate::upstream::{Failure, Network, Pool, Upstreams};

/// A message with its length, as it goes over a connection.
fn framed(message: &[u8]) -> Vec<u8> {
    [&(message.len() as u16).to_be_bytes()[..], message].concat()
}

/// The answer octet by octet.
fn trickle(query: &[u8], pause: Duration) -> Vec<Act> {
    let octets = framed(&answer(query, Rcode::NOERROR));
    octets.into_iter().flat_map(|octet| [Act::Raw(vec![octet]), Act::Pause(pause)]).collect()
}

/// Half the answer.
fn half(query: &[u8]) -> Vec<Act> {
    let octets = framed(&answer(query, Rcode::NOERROR));
    vec![Act::Raw(octets[..octets.len() / 2].to_vec())]
}

#[tokio::test]
async fn an_answer_may_come_octet_by_octet() {
    let handler = || |arrival: Arrival<'_>| trickle(arrival.query, Duration::from_millis(2));
    over_both("octets", false, handler, async |network, _, pool, responder| {
        for _ in 0..2 {
            ask(&pool).await.unwrap();
        }
        let seen = responder.seen();
        assert_eq!((seen.stream_queries.len(), seen.connections), (2, 1), "{network:?}");
    })
    .await;
}

/// The first question gets what `first` says, and the connection is of no use after that; everything after it is
/// answered, on another connection.
async fn costs_one_attempt(name: &str, first: impl Fn(&[u8]) -> Vec<Act> + Copy + Send + Sync + 'static) {
    let handler =
        || move |arrival: Arrival<'_>| if arrival.number == 0 { first(arrival.query) } else { answering(arrival) };
    over_both(name, false, handler, async |network, _, pool, responder| {
        for _ in 0..20 {
            ask(&pool).await.unwrap();
        }
        let seen = responder.seen();
        assert_eq!((seen.stream_queries.len(), seen.connections), (21, 2), "{network:?} {name}");
        let spoilt = seen.stream_queries.iter().filter(|(connection, _)| *connection == 0).count();
        assert_eq!(spoilt, 1, "{network:?} {name}");
        // Nobody waits for the first connection any more, or it has stood still for too long.
        while responder.seen().open_connections > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(pool.members()[0].connections(), 1, "{network:?} {name}");
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_stands_still_costs_one_attempt() {
    tokio::join!(
        costs_one_attempt("half", half),
        costs_one_attempt("silence", |_| Vec::new()),
        costs_one_attempt("length", |_| vec![Act::Raw(vec![0])]),
        costs_one_attempt("slow", |query| trickle(query, Duration::from_millis(100))),
    );
}

#[tokio::test]
async fn half_answers_end_in_a_failure_before_the_time_is_up() {
    over_both(
        "halves",
        false,
        || |arrival: Arrival<'_>| half(arrival.query),
        async |network, _, pool, responder| {
            let failure = ask(&pool).await.unwrap_err();
            assert!(matches!(failure, Failure::Timeout(_)), "{network:?}: {failure}");
            let seen = responder.seen();
            assert_eq!((seen.stream_queries.len(), seen.connections), (2, 2), "{network:?}");
        },
    )
    .await;
}

#[tokio::test]
async fn connections_that_stand_still_do_not_pile_up() {
    let handler = || |arrival: Arrival<'_>| half(arrival.query);
    over_both("pile", false, handler, async |network, _, pool, responder| {
        let mut asked = JoinSet::new();
        for index in 0..200u64 {
            let pool = pool.clone();
            asked.spawn(async move {
                // Not all at once: each second try finds another connection that it may take out of use.
                tokio::time::sleep(Duration::from_millis(10 * index)).await;
                ask_for(&pool, &format!("n{index}.example.org."), Duration::from_secs(3)).await.unwrap_err()
            });
        }
        while asked.join_next().await.is_some() {}
        let most = responder.seen().most_connections;
        assert!((2..=6).contains(&most), "{network:?}: {most} connections at a time");
    })
    .await;
}

#[tokio::test]
async fn old_connections_that_still_wait_leave_room_for_no_more_than_six() {
    let aged = |spec: &mut PoolSpec| {
        spec.max_age = Some(Duration::from_millis(30));
        spec.max_connect_attempts = Some(1);
    };
    over_both_with(
        aged,
        "aged",
        false,
        || silent,
        async |network, _, pool, responder| {
            let mut asked = JoinSet::new();
            let mut ask = |count: usize| {
                for _ in 0..count {
                    let pool = pool.clone();
                    asked.spawn(async move { ask_for(&pool, "www.example.org.", Duration::from_secs(20)).await });
                }
            };
            // Each outlives its connection's time; many at once take two connections.
            for (count, old) in [(100, 2), (100, 4), (1, 5)] {
                ask(count);
                while responder.seen().open_connections < old || pool.members()[0].connections() != 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            ask(200);
            tokio::time::sleep(Duration::from_millis(500)).await;
            let most = responder.seen().most_connections;
            assert_eq!(most, 6, "{network:?}");
        },
    )
    .await;
}

/// A port whose queue of connections is full, so that handshakes stay unanswered; with what fills it.
async fn full_port() -> (Socket, Vec<TcpStream>, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let to = socket.local_addr().unwrap().as_socket().unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(to)).await {
        waiting.push(stream);
    }
    (socket, waiting, to)
}

/// One attempt at a connection that does not come about ends after a second and a half.
async fn assert_dial_ends(pool: &Pool, network: Network) {
    let started = clock::now();
    let failure = ask(pool).await.unwrap_err();
    let took = clock::now() - started;
    assert!(matches!(failure, Failure::Timeout(_)), "{network:?}: {failure}");
    assert!(failure.to_string().starts_with("dial tcp 127.0.0.1:"), "{network:?}: {failure}");
    assert!((Duration::from_millis(1400)..Duration::from_secs(3)).contains(&took), "{network:?}: {took:?}");
}

#[tokio::test]
async fn a_first_dial_ends_after_a_second_and_a_half() {
    let once = |spec: &mut PoolSpec| {
        spec.max_fails = 0;
        spec.max_connect_attempts = Some(1);
    };
    let (_socket, _waiting, to) = full_port().await;
    let tcp = pool(&[to], &Upstreams::new(), |spec| {
        once(spec);
        spec.force_tcp = true;
    });
    assert_dial_ends(&tcp, Network::Tcp).await;

    let authority = Authority::new("dial");
    let over_tls = |to| {
        pool_of(vec![tls_address(to, None)], &Upstreams::new(), |spec| {
            once(spec);
            spec.tls = authority.spec();
        })
    };
    assert_dial_ends(&over_tls(to), Network::Tls).await;
    // The connection is there, and the TLS handshake stays unanswered.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    assert_dial_ends(&over_tls(listener.local_addr().unwrap()), Network::Tls).await;
}

#[tokio::test]
async fn a_connection_that_died_unused_is_replaced() {
    // The peer ends each connection after its answer, as one that saves on idle connections does.
    let handler = || |arrival: Arrival<'_>| answering(arrival).into_iter().chain([Act::Close]).collect();
    let patient = |spec: &mut PoolSpec| spec.expire = Duration::from_secs(3600);
    over_both_with(patient, "unused", false, handler, async |network, _, pool, responder| {
        for round in 1..=5 {
            ask(&pool).await.unwrap();
            while pool.members()[0].connections() != 0 {
                tokio::task::yield_now().await;
            }
            let seen = responder.seen();
            assert_eq!((seen.stream_queries.len(), seen.connections), (round, round), "{network:?}");
        }
    })
    .await;
}
