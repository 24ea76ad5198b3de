//! Which upstream is asked, how often, and what becomes of those that do not answer.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use crate::dns::{Rcode, header};
use crate::upstream::spec::Policy;
use crate::upstream::testing::*;
use crate::upstream::{Address, BuildError, Failure, Pool, Upstreams};

const BROKEN: &str = "coredns_forward_healthcheck_broken_total";

fn rcode(rcode: Rcode) -> impl Fn(Arrival<'_>) -> Vec<Act> + Send + Sync + 'static {
    move |arrival| vec![Act::Send(answer(arrival.query, rcode))]
}

#[tokio::test]
async fn a_silent_upstream_is_asked_twice_over_udp() {
    let responder = Responder::start(silent).await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |spec| spec.max_fails = 0);
    let failure = ask_for(&pool, "www.example.org.", Duration::from_millis(1200)).await.unwrap_err();
    assert!(matches!(failure, Failure::Timeout(_)), "{failure}");
    assert!(failure.to_string().starts_with("read udp 127.0.0.1:"), "{failure}");
    assert!(failure.to_string().ends_with(&format!("->{}: i/o timeout", responder.socket)), "{failure}");
    assert_eq!((responder.seen().datagrams.len(), responder.seen().connections), (2, 0));
}

#[tokio::test]
async fn a_silent_upstream_is_asked_twice_over_tcp() {
    let responder = Responder::start(silent).await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |spec| {
        spec.max_fails = 0;
        spec.force_tcp = true;
    });
    let failure = ask_for(&pool, "www.example.org.", Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(failure, Failure::Timeout(_)), "{failure}");
    let seen = responder.seen();
    assert_eq!((seen.datagrams.len(), seen.stream_queries.len()), (0, 2));
    assert_ne!(seen.stream_queries[0].0, seen.stream_queries[1].0, "the second time over another connection");
}

#[tokio::test]
async fn a_closed_port_is_an_error_at_once() {
    let socket = closed_port().await;
    for (force_tcp, text) in [
        (false, format!("->{socket}: read: connection refused")),
        (true, format!("dial tcp {socket}: connect: connection refused")),
    ] {
        let upstreams = Upstreams::new();
        let pool = pool(&[socket], &upstreams, |spec| {
            spec.max_fails = 0;
            spec.force_tcp = force_tcp;
        });
        let failure = ask(&pool).await.unwrap_err();
        assert!(matches!(failure, Failure::Refused(_)), "{failure}");
        assert!(failure.to_string().ends_with(&text), "{failure}");
        let failures = format!("dnslet_upstream_failures_total{{to=\"{socket}\",reason=\"refused\"}}");
        assert_eq!(value(&upstreams, &failures), 2);
        assert_eq!(value(&upstreams, &format!("dnslet_upstream_retries_total{{to=\"{socket}\"}}")), 1);
        assert_eq!(value(&upstreams, &format!("dnslet_upstream_queries_total{{to=\"{socket}\"}}")), 2);
    }
}

#[tokio::test]
async fn one_closed_port_costs_the_client_nothing() {
    let closed = closed_port().await;
    let responder = Responder::start(answering).await;
    let upstreams = Upstreams::new();
    let pool = pool(&[closed, responder.socket], &upstreams, |spec| spec.policy = Policy::Sequential);
    for _ in 0..10 {
        assert_eq!(ask(&pool).await.unwrap().upstream.address().socket, responder.socket);
    }
    assert_eq!(responder.seen().datagrams.len(), 10);
    let sent = format!("dnslet_upstream_queries_total{{to=\"{}\"}}", responder.socket);
    assert_eq!(value(&upstreams, &sent), 10);
}

#[tokio::test]
async fn a_silent_upstream_is_overtaken() {
    let silent = Responder::start(silent).await;
    let responder = Responder::start(answering).await;
    let pool = pool(&[silent.socket, responder.socket], &Upstreams::new(), |spec| spec.policy = Policy::Sequential);
    assert_eq!(ask(&pool).await.unwrap().upstream.address().socket, responder.socket);
    assert!(!silent.seen().datagrams.is_empty());
    assert_eq!(responder.seen().datagrams.len(), 1);
}

#[tokio::test]
async fn policies_order_the_upstreams() {
    let responders =
        [Responder::start(answering).await, Responder::start(answering).await, Responder::start(answering).await];
    let sockets = responders.each_ref().map(|responder| responder.socket);
    let order = async |policy, count| {
        let pool = pool(&sockets, &Upstreams::new(), |spec| spec.policy = policy);
        let mut order = Vec::new();
        for _ in 0..count {
            let asked: SocketAddr = ask(&pool).await.unwrap().upstream.address().socket;
            order.push(sockets.iter().position(|socket| *socket == asked).unwrap());
        }
        order
    };
    assert_eq!(order(Policy::Sequential, 4).await, [0, 0, 0, 0]);
    assert_eq!(order(Policy::RoundRobin, 5).await, [1, 2, 0, 1, 2]);
    let random: HashSet<usize> = order(Policy::Random, 100).await.into_iter().collect();
    assert_eq!(random.len(), 3);
}

#[tokio::test]
async fn failover_goes_once_around_and_returns_the_last_response() {
    let first = Responder::start(rcode(Rcode::SERVFAIL)).await;
    let second = Responder::start(rcode(Rcode::REFUSED)).await;
    let third = Responder::start(answering).await;
    let with = |sockets: &[SocketAddr]| {
        pool(sockets, &Upstreams::new(), |spec| {
            spec.policy = Policy::Sequential;
            spec.failover = vec![Rcode::SERVFAIL, Rcode::REFUSED];
        })
    };
    let exchanged = ask(&with(&[first.socket, second.socket])).await.unwrap();
    assert_eq!(header::rcode(&exchanged.wire), Rcode::REFUSED);
    assert_eq!(exchanged.upstream.address().socket, second.socket);
    assert_eq!((first.seen().datagrams.len(), second.seen().datagrams.len()), (1, 1));
    let exchanged = ask(&with(&[first.socket, third.socket])).await.unwrap();
    assert_eq!(header::rcode(&exchanged.wire), Rcode::NOERROR);
    let exchanged = ask(&with(&[first.socket])).await.unwrap();
    assert_eq!(header::rcode(&exchanged.wire), Rcode::SERVFAIL);
    assert_eq!(first.seen().datagrams.len(), 3);
}

#[tokio::test]
async fn without_failover_any_rcode_is_the_answer() {
    let first = Responder::start(rcode(Rcode::SERVFAIL)).await;
    let second = Responder::start(answering).await;
    let pool = pool(&[first.socket, second.socket], &Upstreams::new(), |spec| spec.policy = Policy::Sequential);
    assert_eq!(header::rcode(&ask(&pool).await.unwrap().wire), Rcode::SERVFAIL);
    assert_eq!(second.seen().datagrams.len(), 0);
}

/// Waits until the only upstream of `pool` has failed this many checks, or none.
async fn until(pool: &Pool, condition: impl Fn(u32) -> bool) {
    while !condition(pool.members()[0].failed_checks()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_upstream_goes_down_and_comes_back() {
    let dead = Arc::new(AtomicBool::new(true));
    let switch = dead.clone();
    let responder = Responder::bind(None, true, move |arrival| match (switch.load(SeqCst), arrival.network) {
        (true, _) => vec![Act::Close],
        (false, _) => answering(arrival),
    })
    .await;
    let upstreams = Upstreams::new();
    let change = |spec: &mut crate::upstream::spec::PoolSpec| {
        spec.force_tcp = true;
        spec.health_check.interval = Duration::from_millis(10);
    };
    let first = pool(&[responder.socket], &upstreams, change);
    ask(&first).await.unwrap_err();
    until(&first, |fails| fails > 2).await;
    assert!(first.is_down());

    // Another pool, as after a reload, knows it is down.
    let second = pool(&[responder.socket], &upstreams, |spec| {
        change(spec);
        spec.failfast = true;
    });
    let failure = ask(&second).await.unwrap_err();
    assert_eq!(failure, Failure::NoHealthy);
    assert_eq!(value(&upstreams, BROKEN), 1);
    ask(&first).await.unwrap_err();
    assert_eq!(value(&upstreams, BROKEN), 2);
    let to = responder.socket;
    let failures = format!("coredns_proxy_healthcheck_failures_total{{proxy_name=\"forward\",to=\"{to}\"}}");
    assert!(value(&upstreams, &failures) > 2);
    assert_eq!(value(&upstreams, &format!("dnslet_upstream_up{{to=\"{to}\"}}")), 0);

    assert_eq!(second.recoveries(), 0);
    dead.store(false, SeqCst);
    until(&second, |fails| fails == 0).await;
    assert_eq!((second.is_down(), second.recoveries()), (false, 1));
    ask(&second).await.unwrap();
}

#[tokio::test]
async fn with_everything_down_one_question_is_let_through_and_its_success_counts() {
    let dead = Arc::new(AtomicBool::new(true));
    let switch = dead.clone();
    let responder = Responder::bind(None, true, move |arrival| {
        // Checks ask for the root; they go on failing.
        let check = arrival.query.len() == 17;
        if check || switch.load(SeqCst) { vec![Act::Close] } else { answering(arrival) }
    })
    .await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |spec| {
        spec.force_tcp = true;
        spec.max_fails = 1;
        spec.health_check.interval = Duration::from_millis(1);
    });
    ask(&pool).await.unwrap_err();
    until(&pool, |fails| fails > 1).await;
    dead.store(false, SeqCst);
    let mut refused = 0;
    while let Err(failure) = ask(&pool).await {
        assert_eq!(failure, Failure::NoHealthy, "without asking");
        refused += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(value(&upstreams, BROKEN), refused + 1);
    assert_eq!((pool.is_down(), pool.recoveries()), (false, 1));
}

#[tokio::test]
async fn over_max_concurrent_queries_are_refused() {
    let responder = Responder::start(silent).await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |spec| spec.max_concurrent = Some(2));
    let limit = Duration::from_millis(300);
    let ask = || ask_for(&pool, "www.example.org.", limit);
    let (first, second, third) = tokio::join!(ask(), ask(), ask());
    assert!(matches!(first, Err(Failure::Timeout(_))));
    assert!(matches!(second, Err(Failure::Timeout(_))));
    assert_eq!(third.unwrap_err().to_string(), "concurrent queries exceeded maximum 2");
    assert_eq!(value(&upstreams, "coredns_forward_max_concurrent_rejects_total"), 1);
    assert!(matches!(ask().await, Err(Failure::Timeout(_))), "places are given back");
}

#[tokio::test]
async fn addresses_can_be_replaced_and_known_ones_keep_their_state() {
    let first = Responder::start(answering).await;
    let second = Responder::start(answering).await;
    let upstreams = Upstreams::new();
    let pool = pool(&[first.socket], &upstreams, |spec| spec.force_tcp = true);
    ask(&pool).await.unwrap();
    let kept = pool.members()[0].clone();
    pool.set_addresses(&[Address::plain(second.socket), Address::plain(first.socket)]).unwrap();
    assert!(Arc::ptr_eq(&pool.members()[1], &kept));
    assert_eq!(kept.connections(), 1);
    pool.set_addresses(&[Address::plain(second.socket)]).unwrap();
    assert_eq!(ask(&pool).await.unwrap().upstream.address().socket, second.socket);
    assert_eq!(upstreams.recoveries(), 2, "what failed before may come from others");
    pool.set_addresses(&[Address::plain(second.socket)]).unwrap();
    assert!(matches!(pool.set_addresses(&[]), Err(BuildError::NoAddresses)));
    assert_eq!(upstreams.recoveries(), 2, "nothing has changed");
    assert_eq!(pool.members().len(), 1, "a bad list changes nothing");
    let many: Vec<Address> = (1..=16).map(|last| Address::parse(&format!("10.0.0.{last}")).unwrap()).collect();
    assert_eq!(pool.set_addresses(&many).unwrap_err().to_string(), "more than 15 TOs configured");
}

#[tokio::test]
async fn queries_leave_from_the_source_address() {
    let responder = Responder::start(answering).await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |spec| {
        spec.source_address = Some("127.0.0.77".parse().unwrap());
    });
    ask(&pool).await.unwrap();
    assert_eq!(responder.seen().datagrams[0].0.ip().to_string(), "127.0.0.77");
}

#[tokio::test]
async fn udp_comes_first_unless_tcp_is_forced() {
    let responder = Responder::start(answering).await;
    for force_tcp in [false, true] {
        let pool = pool(&[responder.socket], &Upstreams::new(), |spec| spec.force_tcp = force_tcp);
        ask(&pool).await.unwrap();
    }
    let seen = responder.seen();
    assert_eq!((seen.datagrams.len(), seen.stream_queries.len()), (1, 1));
}
