//! Messages that come shortly before the answer and are not it, and answers that cannot be read.

use std::net::IpAddr;
use std::time::Duration;

use super::streams::over_both;
use crate::dns::header::{self, Count};
use crate::dns::{Class, Ede, Rcode, Type};
use crate::upstream::testing::*;
use crate::upstream::{Failure, Network, Upstreams};

const WRONG: &str = "dnslet_upstream_mismatches_total";

/// How much earlier than the answer the wrong message comes: less than anybody's patience.
const HEAD_START: Duration = Duration::from_millis(50);

/// Appends a record whose owner is the question's name.
pub(super) fn with_record(mut message: Vec<u8>, rtype: Type, rdata: &[u8]) -> Vec<u8> {
    let count = header::count(&message, Count::Answer) + 1;
    header::set_count(&mut message, Count::Answer, count);
    message.extend([0xc0, header::LENGTH as u8]);
    message.extend(rtype.0.to_be_bytes());
    message.extend(Class::IN.0.to_be_bytes());
    message.extend(300u32.to_be_bytes());
    message.extend((rdata.len() as u16).to_be_bytes());
    message.extend(rdata);
    message
}

/// The right answer to an address query.
fn right(query: &[u8]) -> Vec<u8> {
    with_record(answer(query, Rcode::NOERROR), Type::A, &[192, 0, 2, 1])
}

/// What a forger would like to be believed.
fn forged(query: &[u8]) -> Vec<u8> {
    with_record(answer(query, Rcode::NOERROR), Type::A, &[203, 0, 113, 66])
}

/// Each kind of wrong message, and the reason under which it is counted.
const KINDS: [(&str, &str); 15] = [
    ("id", "id"),
    ("name", "question"),
    ("type", "question"),
    ("class", "question"),
    ("two questions", "question"),
    ("opcode", "question"),
    ("query", "not_response"),
    ("short", "short"),
    ("garbage", "question"),
    ("address of five octets", "malformed"),
    ("alias to nowhere", "malformed"),
    ("owner that points to itself", "malformed"),
    ("cut", "malformed"),
    ("one record too few", "malformed"),
    ("counts at their highest", "malformed"),
];

fn wrong(kind: &str, query: &[u8]) -> Vec<u8> {
    let end = query.len();
    let mut message = forged(query);
    match kind {
        "id" => message[1] ^= 1,
        "name" => message[header::LENGTH + 1] ^= 1,
        "type" => message[end - 3] = Type::AAAA.0 as u8,
        "class" => message[end - 1] = Class::CH.0 as u8,
        "two questions" => header::set_count(&mut message, Count::Question, 2),
        "opcode" => message[2] |= 5 << 3,
        "query" => message[2] &= !header::QR,
        "short" => message.truncate(3),
        "garbage" => message[2..].iter_mut().for_each(|octet| *octet = 0xff),
        "address of five octets" => {
            message = with_record(answer(query, Rcode::NOERROR), Type::A, &[203, 0, 113, 66, 1])
        }
        "alias to nowhere" => message = with_record(answer(query, Rcode::NOERROR), Type::CNAME, &[0xff, 0xff]),
        "owner that points to itself" => message[end..end + 2].copy_from_slice(&[0xc0, end as u8]),
        "cut" => message.truncate(message.len() - 2),
        "one record too few" => header::set_count(&mut message, Count::Answer, 2),
        "counts at their highest" => message[6..12].fill(0xff),
        other => panic!("no such kind: {other}"),
    }
    message
}

fn address_in(wire: &[u8]) -> &[u8] {
    &wire[wire.len() - 4..]
}

#[tokio::test]
async fn an_early_wrong_datagram_costs_nothing() {
    for (kind, reason) in KINDS {
        let responder = Responder::start(move |arrival| {
            vec![Act::Send(wrong(kind, arrival.query)), Act::Pause(HEAD_START), Act::Send(right(arrival.query))]
        })
        .await;
        let upstreams = Upstreams::new();
        let pool = pool(&[responder.socket], &upstreams, |_| {});
        let exchanged = ask(&pool).await.unwrap();
        assert_eq!(address_in(&exchanged.wire), [192, 0, 2, 1], "{kind}");
        let seen = responder.seen();
        assert_eq!((seen.datagrams.len(), seen.stream_queries.len()), (1, 0), "{kind}");
        for (_, other) in KINDS {
            let expected = u64::from(other == reason);
            assert_eq!(value(&upstreams, &responder.series(WRONG, other)), expected, "{kind}: {other}");
        }
    }
}

#[tokio::test]
async fn an_early_datagram_from_elsewhere_is_not_even_seen() {
    for from in ["127.0.0.1", "127.0.0.66"] {
        let from: IpAddr = from.parse().unwrap();
        let responder = Responder::start(move |arrival| {
            vec![Act::Stray(from, forged(arrival.query)), Act::Pause(HEAD_START), Act::Send(right(arrival.query))]
        })
        .await;
        let upstreams = Upstreams::new();
        let pool = pool(&[responder.socket], &upstreams, |_| {});
        assert_eq!(address_in(&ask(&pool).await.unwrap().wire), [192, 0, 2, 1], "{from}");
        assert_eq!(responder.seen().datagrams.len(), 1, "{from}");
        for (_, reason) in KINDS {
            assert_eq!(value(&upstreams, &responder.series(WRONG, reason)), 0, "{from}: {reason}");
        }
    }
}

#[tokio::test]
async fn an_early_wrong_message_on_the_connection_costs_nothing() {
    for (kind, reason) in KINDS.into_iter().filter(|(_, reason)| *reason != "malformed") {
        let handler = || {
            move |arrival: Arrival<'_>| {
                vec![Act::Send(wrong(kind, arrival.query)), Act::Pause(HEAD_START), Act::Send(right(arrival.query))]
            }
        };
        over_both("early", false, handler, async |network, upstreams, pool, responder| {
            assert_eq!(address_in(&ask(&pool).await.unwrap().wire), [192, 0, 2, 1], "{network:?} {kind}");
            let seen = responder.seen();
            assert_eq!((seen.datagrams.len(), seen.stream_queries.len(), seen.connections), (0, 1, 1), "{network:?}");
            assert_eq!(value(&upstreams, &responder.series(WRONG, reason)), 1, "{network:?} {kind}");
        })
        .await;
    }
}

#[tokio::test]
async fn an_unreadable_answer_on_a_connection_fails_that_attempt_at_once() {
    for (kind, _) in KINDS.into_iter().filter(|(_, reason)| *reason == "malformed") {
        let handler = || {
            move |arrival: Arrival<'_>| match arrival.number {
                0 => vec![Act::Send(wrong(kind, arrival.query))],
                _ => vec![Act::Send(right(arrival.query))],
            }
        };
        over_both("unreadable", false, handler, async |network, upstreams, pool, responder| {
            assert_eq!(address_in(&ask(&pool).await.unwrap().wire), [192, 0, 2, 1], "{network:?} {kind}");
            let seen = responder.seen();
            // The connection is as good as before: the length said where the message ends.
            assert_eq!((seen.stream_queries.len(), seen.connections), (2, 1), "{network:?} {kind}");
            assert_eq!(value(&upstreams, &responder.series(WRONG, "malformed")), 1, "{network:?} {kind}");
        })
        .await;
    }
}

#[tokio::test]
async fn nothing_but_unreadable_answers_is_a_failure_of_its_own() {
    let bad = |arrival: Arrival<'_>| vec![Act::Send(wrong("cut", arrival.query))];
    let check = async |network, upstreams: Upstreams, pool: std::sync::Arc<crate::upstream::Pool>, to: Responder| {
        let failure = ask(&pool).await.unwrap_err();
        assert!(matches!(failure, Failure::Malformed(_)), "{network:?}: {failure}");
        assert_eq!(failure.ede(), Ede::INVALID_DATA);
        assert!(failure.to_string().ends_with(&format!("->{}: malformed response", to.socket)), "{failure}");
        let seen = to.seen();
        assert_eq!(seen.datagrams.len() + seen.stream_queries.len(), 2, "{network:?}");
        let upstream = &pool.members()[0];
        assert_eq!(upstream.failed_checks(), 0, "{network:?}: somebody answers there");
        assert_eq!(upstream.round_trip(), None, "{network:?}: what is no answer measures nothing");
        let failures = value(&upstreams, &to.series("dnslet_upstream_failures_total", "malformed"));
        assert_eq!(failures, 2, "{network:?}");
    };
    over_both("nothing", false, || bad, check).await;
    let responder = Responder::start(bad).await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |_| {});
    // It ends long before its time: an unreadable answer is worth no more than the patience for a good one.
    check(Network::Udp, upstreams, pool, responder).await;
}

#[tokio::test]
async fn an_unreadable_answer_does_not_keep_others_from_being_asked() {
    let bad = Responder::start(|arrival| vec![Act::Send(wrong("cut", arrival.query))]).await;
    let good = Responder::start(|arrival| vec![Act::Send(right(arrival.query))]).await;
    let pool = pool(&[bad.socket, good.socket], &Upstreams::new(), |spec| {
        spec.policy = crate::upstream::spec::Policy::Sequential;
    });
    let exchanged = ask(&pool).await.unwrap();
    assert_eq!(exchanged.upstream.address().socket, good.socket);
    assert_eq!((bad.seen().datagrams.len(), good.seen().datagrams.len()), (1, 1));
}
