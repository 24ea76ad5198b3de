//! UDP, and the ways from there to TCP.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::dns::header::{self, Count};
use crate::dns::{Protocol, Rcode};
use crate::upstream::spec::Policy;
use crate::upstream::testing::*;
use crate::upstream::{Failure, Network, Upstreams};

const WRONG: &str = "dnslet_upstream_mismatches_total";
const OVER_TCP: &str = "dnslet_upstream_tcp_fallbacks_total";

#[tokio::test]
async fn the_answer_is_found_among_wrong_messages_without_asking_again() {
    let responder = Responder::start(|arrival| {
        let good = answer(arrival.query, Rcode::NXDOMAIN);
        let mut other_id = good.clone();
        header::set_id(&mut other_id, !header::id(&good));
        let other_question = answer(&query("other.example.org.", header::id(&good)), Rcode::NOERROR);
        let mut garbage = vec![0xff; 40];
        header::set_id(&mut garbage, header::id(&good));
        [other_id, other_question, arrival.query.to_vec(), good[..3].to_vec(), garbage, good].map(Act::Send).into()
    })
    .await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |_| {});
    let exchanged = ask(&pool).await.unwrap();
    assert_eq!(header::rcode(&exchanged.wire), Rcode::NXDOMAIN);
    assert_eq!(header::id(&exchanged.wire), 4711);
    assert_eq!(responder.seen().datagrams.len(), 1);
    assert_eq!(responder.seen().connections, 0);
    for (reason, count) in [("id", 1), ("question", 2), ("not_response", 1), ("short", 1)] {
        assert_eq!(value(&upstreams, &responder.series(WRONG, reason)), count, "{reason}");
    }
}

#[tokio::test]
async fn guessing_ends_in_one_question_over_tcp() {
    let responder = Responder::start(|arrival| match arrival.network {
        Network::Udp => {
            let mut wrong = answer(arrival.query, Rcode::NOERROR);
            header::set_id(&mut wrong, !header::id(arrival.query));
            (0..20).map(|_| Act::Send(wrong.clone())).collect()
        }
        _ => answering(arrival),
    })
    .await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |_| {});
    ask(&pool).await.unwrap();
    assert_eq!(responder.seen().datagrams.len(), 1);
    assert_eq!(responder.seen().stream_queries.len(), 1);
    assert_eq!(value(&upstreams, &responder.series(WRONG, "id")), 8);
    assert_eq!(value(&upstreams, &responder.series(OVER_TCP, "mismatches")), 1);
}

#[tokio::test]
async fn ports_and_ids_are_spread_over_their_whole_range() {
    let responder = Responder::start(answering).await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |_| {});
    for _ in 0..2000 {
        ask(&pool).await.unwrap();
    }
    let seen = responder.seen();
    assert_eq!(seen.datagrams.len(), 2000);
    // 2000 draws from 64k values: about 30 repeats. 200 would be a sign of a small range.
    let ports: HashSet<u16> = seen.datagrams.iter().map(|(from, _)| from.port()).collect();
    let ids: HashSet<u16> = seen.datagrams.iter().map(|(_, id)| *id).collect();
    assert!(ports.len() > 1800 && ids.len() > 1800, "{} ports, {} ids", ports.len(), ids.len());
    assert!(ports.iter().all(|port| *port >= 1024));
    // Eight equal parts, 250 expected in each with a deviation of 15.
    let parts = |values: &mut dyn Iterator<Item = usize>| {
        let mut parts = HashMap::new();
        values.for_each(|value| *parts.entry(value).or_insert(0) += 1);
        (0..8).map(|part| parts.get(&part).copied().unwrap_or(0)).collect::<Vec<u32>>()
    };
    let by_id = parts(&mut seen.datagrams.iter().map(|(_, id)| usize::from(*id) / 8192));
    let by_port = parts(&mut seen.datagrams.iter().map(|(from, _)| (usize::from(from.port()) - 1024) / 8064));
    for count in by_id.iter().chain(&by_port) {
        assert!((150..350).contains(count), "ids {by_id:?}, ports {by_port:?}");
    }
    let ids: Vec<u16> = seen.datagrams.iter().map(|(_, id)| *id).collect();
    assert!(ids.windows(2).filter(|pair| pair[1] == pair[0].wrapping_add(1)).count() < 10, "IDs in sequence");
}

#[tokio::test]
async fn a_truncated_answer_is_completed_over_tcp() {
    let responder = Responder::start(|arrival| {
        let mut message = answer(arrival.query, Rcode::NOERROR);
        if arrival.network == Network::Udp {
            message[2] |= header::TC;
        }
        vec![Act::Send(message)]
    })
    .await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |_| {});
    let exchanged = ask(&pool).await.unwrap();
    assert!(!header::truncated(&exchanged.wire));
    assert_eq!(responder.seen().datagrams.len(), 1);
    assert_eq!(responder.seen().stream_queries.len(), 1);
    assert_eq!(value(&upstreams, &responder.series(OVER_TCP, "truncated")), 1);
}

#[tokio::test]
async fn a_truncated_answer_stands_for_udp_clients_only_where_tcp_fails() {
    let responder = Responder::start(|arrival| {
        let mut message = answer(arrival.query, Rcode::NOERROR);
        message[2] |= header::TC;
        if arrival.network == Network::Udp { vec![Act::Send(message)] } else { vec![Act::Close] }
    })
    .await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |_| {});
    let exchanged = ask(&pool).await.unwrap();
    assert!(header::truncated(&exchanged.wire));
    let query = query("www.example.org.", 1);
    let failure = pool.exchange(asking(&query, Protocol::Tcp, Duration::from_secs(20))).await.unwrap_err();
    assert!(matches!(failure, Failure::Closed(..)), "{failure}");
}

fn cut(query: &[u8]) -> Act {
    let mut message = answer(query, Rcode::NOERROR);
    message[2] |= header::TC;
    Act::Send(message)
}

#[tokio::test]
async fn a_second_truncated_answer_does_not_end_the_wait_for_the_whole_one() {
    // The second upstream is asked because the first is slow; the first comes while TCP to the second is under way.
    let slow = |pause, over_tcp| {
        Responder::start(move |arrival| match arrival.network {
            Network::Udp => vec![Act::Pause(Duration::from_millis(pause)), cut(arrival.query)],
            _ => vec![Act::Pause(Duration::from_millis(over_tcp)), Act::Send(answer(arrival.query, Rcode::NOERROR))],
        })
    };
    for client in [Protocol::Udp, Protocol::Tcp] {
        let (first, second) = (slow(1100, 0).await, slow(0, 1300).await);
        let pool = pool(&[first.socket, second.socket], &Upstreams::new(), |spec| spec.policy = Policy::Sequential);
        let query = query("www.example.org.", 1);
        let exchanged = pool.exchange(asking(&query, client, Duration::from_secs(20))).await.unwrap();
        assert!(!header::truncated(&exchanged.wire), "{client:?}");
        assert_eq!(exchanged.upstream.address().socket, second.socket, "{client:?}");
        assert_eq!(first.seen().stream_queries.len(), 0, "{client:?}");
    }
}

#[tokio::test]
async fn where_tcp_to_one_upstream_does_not_work_the_other_gives_the_whole_answer() {
    let one = |tcp_works| {
        Responder::start(move |arrival| match arrival.network {
            Network::Udp => vec![cut(arrival.query)],
            _ if tcp_works => answering(arrival),
            _ => vec![Act::Close],
        })
    };
    for client in [Protocol::Udp, Protocol::Tcp] {
        let (first, second) = (one(false).await, one(true).await);
        let pool = pool(&[first.socket, second.socket], &Upstreams::new(), |spec| spec.policy = Policy::Sequential);
        let query = query("www.example.org.", 1);
        let exchanged = pool.exchange(asking(&query, client, Duration::from_secs(20))).await.unwrap();
        assert!(!header::truncated(&exchanged.wire), "{client:?}");
        assert_eq!(exchanged.upstream.address().socket, second.socket, "{client:?}");
        assert_eq!((second.seen().datagrams.len(), second.seen().stream_queries.len()), (0, 1), "{client:?}");
    }
}

/// An error of one upstream is no better than half an answer of another, to who can make use of that.
#[tokio::test]
async fn half_an_answer_is_kept_over_an_error_for_udp_clients() {
    let first = Responder::start(|arrival| match arrival.network {
        Network::Udp => vec![cut(arrival.query)],
        _ => vec![Act::Close],
    })
    .await;
    let second = Responder::start(|arrival| vec![Act::Send(answer(arrival.query, Rcode::REFUSED))]).await;
    let pool = pool(&[first.socket, second.socket], &Upstreams::new(), |spec| spec.policy = Policy::Sequential);
    assert!(header::truncated(&ask(&pool).await.unwrap().wire));
    let query = query("www.example.org.", 1);
    let exchanged = pool.exchange(asking(&query, Protocol::Tcp, Duration::from_secs(20))).await.unwrap();
    assert_eq!(header::rcode(&exchanged.wire), Rcode::REFUSED);
}

#[tokio::test]
async fn an_answer_larger_than_the_buffer_is_fetched_over_tcp() {
    let responder = Responder::start(|arrival| {
        let mut message = answer(arrival.query, Rcode::NOERROR);
        header::set_count(&mut message, Count::Answer, 300);
        message.resize(9000, 0);
        vec![Act::Send(message)]
    })
    .await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |_| {});
    assert_eq!(ask(&pool).await.unwrap().wire.len(), 9000);
    assert_eq!(responder.seen().stream_queries.len(), 1);
}

#[tokio::test]
async fn an_error_without_question_is_an_answer() {
    let responder = Responder::start(|arrival| {
        let mut message = answer(arrival.query, Rcode::FORMERR)[..header::LENGTH].to_vec();
        header::set_count(&mut message, Count::Question, 0);
        vec![Act::Send(message)]
    })
    .await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |_| {});
    let exchanged = ask(&pool).await.unwrap();
    assert_eq!(header::rcode(&exchanged.wire), Rcode::FORMERR);
    assert!(crate::dns::question::echoes(&query("www.example.org.", 0), &exchanged.wire));
}
