//! Somebody who knows all but one field of the answer and sends a great many packets.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};
use tokio::task::JoinSet;

use super::wrong::with_record;
use crate::dns::header::{self, Count};
use crate::dns::{Class, Rcode, Type};
use crate::sys::clock;
use crate::upstream::tally::Mismatch;
use crate::upstream::testing::*;
use crate::upstream::transport::accept;
use crate::upstream::{Network, Pool, Upstreams};

const WRONG: &str = "dnslet_upstream_mismatches_total";
const FORGED: [u8; 4] = [203, 0, 113, 66];

/// What a forger would like to be believed: an address, or a word that would change how the upstream is asked.
fn wished(query: &[u8], choice: u64) -> Vec<u8> {
    match choice % 4 {
        0 => answer(query, Rcode::FORMERR),
        1 => answer(query, Rcode::SERVFAIL),
        2 => {
            let mut truncated = answer(query, Rcode::NOERROR);
            truncated[2] |= header::TC;
            truncated
        }
        _ => with_record(answer(query, Rcode::NOERROR), Type::A, &FORGED),
    }
}

/// Everything right but one field of the message; also the reason for which it is refused.
fn with_one_field_wrong(query: &[u8], random: &mut StdRng) -> (Vec<u8>, Mismatch) {
    let end = query.len();
    let mut message = wished(query, random.next_u64());
    let reason = match random.random_range(0..7) {
        0 => {
            header::set_id(&mut message, header::id(query) ^ random.random_range(1..=u16::MAX));
            Mismatch::Id
        }
        1 => {
            // A letter for a letter, never the same one in another case.
            let at = header::LENGTH + 1 + random.random_range(0..3);
            message[at] = if message[at] == b'x' { b'y' } else { b'x' };
            Mismatch::Question
        }
        2 => {
            header::write_u16(&mut message, end - 4, Type::A.0 ^ random.random_range(1..=u16::MAX));
            Mismatch::Question
        }
        3 => {
            header::write_u16(&mut message, end - 2, Class::IN.0 ^ random.random_range(1..=u16::MAX));
            Mismatch::Question
        }
        4 => {
            message[2] &= !header::QR;
            Mismatch::NotResponse
        }
        5 => {
            message[2] |= random.random_range(1..16) << 3;
            Mismatch::Question
        }
        _ => {
            header::set_count(&mut message, Count::Question, random.random_range(2..=u16::MAX));
            Mismatch::Question
        }
    };
    (message, reason)
}

#[test]
fn of_a_million_packets_with_one_field_wrong_none_is_accepted() {
    let mut random = StdRng::seed_from_u64(5452);
    for number in 0..1_000_000u32 {
        let sent = query("www.example.org.", random.random());
        let (message, reason) = with_one_field_wrong(&sent, &mut random);
        assert_eq!(accept(&sent, header::id(&sent), &message), Err(reason), "packet {number}: {message:02x?}");
    }
}

/// An upstream that has learnt nothing yet.
fn assert_unchanged(pool: &Pool) {
    let upstream = &pool.members()[0];
    assert_eq!((upstream.round_trip(), upstream.failed_checks(), upstream.connections()), (None, 0, 0));
    assert!(!upstream.edns().is_set(clock::now()));
}

/// Packets from elsewhere to one open question, while its answer is still to come.
const STRAYS: usize = 100_000;

#[tokio::test]
async fn packets_from_elsewhere_reach_no_question() {
    for with_answer in [true, false] {
        // The query with the address it came from goes to the forger; the upstream waits until the forger is done.
        let (seen, question) = channel::<(SocketAddr, Vec<u8>)>();
        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = upstream.local_addr().unwrap();
        let upstreams = Upstreams::new();
        let pool = pool(&[to], &upstreams, |spec| {
            spec.max_fails = 0;
            spec.max_connect_attempts = Some(1);
        });
        let server = std::thread::spawn(move || {
            let mut buffer = [0; 512];
            let (length, from) = upstream.recv_from(&mut buffer).unwrap();
            let query = &buffer[..length];
            seen.send((from, query.to_vec())).unwrap();
            let strangers =
                [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind(("127.0.0.66", to.port())).unwrap()];
            for number in 0..STRAYS {
                let wish = wished(query, number as u64);
                // The kernel may tell the forger that nobody there wants it.
                let _ = strangers[number % 2].send_to(&wish, from);
            }
            if with_answer {
                let right = with_record(answer(query, Rcode::NOERROR), Type::A, &[192, 0, 2, 1]);
                upstream.send_to(&right, from).unwrap();
            }
            upstream
        });
        let limit = if with_answer { Duration::from_secs(60) } else { Duration::from_secs(4) };
        let exchanged = ask_for(&pool, "www.example.org.", limit).await;
        server.join().unwrap();
        assert_eq!(question.iter().count(), 1, "asked once");
        match exchanged {
            Ok(exchanged) => assert!(with_answer && exchanged.wire.ends_with(&[192, 0, 2, 1])),
            Err(_) => {
                assert!(!with_answer);
                assert_unchanged(&pool);
            }
        }
        for reason in ["short", "not_response", "id", "question", "malformed"] {
            assert_eq!(value(&upstreams, &format!("{WRONG}{{to=\"{to}\",reason=\"{reason}\"}}")), 0, "{reason}");
        }
    }
}

#[tokio::test]
async fn guessing_from_the_right_place_ends_in_one_question_over_tcp() {
    let mut guessed = JoinSet::new();
    (0..20).for_each(|seed| drop(guessed.spawn(guess(seed))));
    while let Some(result) = guessed.join_next().await {
        result.unwrap();
    }
}

async fn guess(seed: u64) {
    let random = Mutex::new(StdRng::seed_from_u64(seed));
    let responder = Responder::start(move |arrival| match arrival.network {
        Network::Udp => {
            let mut random = random.lock().unwrap();
            (0..200).map(|_| Act::Send(with_one_field_wrong(arrival.query, &mut random).0)).collect()
        }
        // Over TCP nobody says anything: what was guessed over UDP must not count either.
        _ => Vec::new(),
    })
    .await;
    let upstreams = Upstreams::new();
    let pool = pool(&[responder.socket], &upstreams, |spec| {
        spec.max_fails = 0;
        spec.max_connect_attempts = Some(1);
    });
    ask_for(&pool, "www.example.org.", Duration::from_secs(3)).await.unwrap_err();
    let seen = responder.seen();
    assert_eq!((seen.datagrams.len(), seen.stream_queries.len()), (1, 1), "seed {seed}");
    let wrong = ["short", "not_response", "id", "question", "malformed"];
    let counted = wrong.map(|reason| value(&upstreams, &responder.series(WRONG, reason)));
    assert_eq!(counted.iter().sum::<u64>(), 8, "seed {seed}");
    let upstream = &pool.members()[0];
    assert_eq!((upstream.round_trip(), upstream.failed_checks()), (None, 0), "seed {seed}");
    assert!(!upstream.edns().is_set(clock::now()), "seed {seed}");
}
