//! Upstreams that do not know EDNS, and those that only seem not to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::streams::over_both;
use crate::dns::convert::Outgoing;
use crate::dns::header::{self, Count};
use crate::dns::question::has_opt;
use crate::dns::{Class, Name, Protocol, Rcode, Type};
use crate::sys::clock;
use crate::upstream::testing::*;
use crate::upstream::{Ask, Network, Pool, Upstreams};

const FALLBACKS: &str = "dnslet_upstream_edns_fallbacks_total";

/// Asks with an OPT and gives the RCODE.
async fn ask_with_opt(pool: &Pool) -> Rcode {
    let name = Name::parse("www.example.org").unwrap();
    let query = Outgoing { edns: Some((1232, true)), ..Outgoing::plain(name.as_wire(), Type::A, Class::IN) }.to_wire(7);
    let deadline = clock::now() + Duration::from_secs(2);
    let ask = Ask { query: &query, client: Protocol::Udp, budget: deadline, deadline, awaited: &AWAITED };
    let exchanged = pool.exchange(ask).await.unwrap();
    assert_eq!(header::id(&exchanged.wire), 7);
    header::rcode(&exchanged.wire)
}

/// A response with this RCODE and nothing but the question; with `opt` with an OPT as well.
fn reply(query: &[u8], rcode: Rcode, opt: bool) -> Vec<u8> {
    let end = crate::dns::question::question_end(query).unwrap();
    let mut wire = answer(&query[..end], rcode);
    header::set_count(&mut wire, Count::Additional, u16::from(opt));
    if opt {
        wire.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    }
    wire
}

/// Whether each query had an OPT.
type Opts = Arc<Mutex<Vec<bool>>>;

/// A server that answers with OPT as `with` says and without as `without` says, and notes what it was asked.
fn server(
    opts: &Opts,
    with: impl Fn(&[u8]) -> Vec<Act> + Send + Sync + 'static,
    without: impl Fn(&[u8]) -> Vec<Act> + Send + Sync + 'static,
) -> impl Fn(Arrival<'_>) -> Vec<Act> + Send + Sync + 'static {
    let opts = opts.clone();
    move |arrival| {
        let opt = has_opt(arrival.query);
        opts.lock().unwrap().push(opt);
        if opt { with(arrival.query) } else { without(arrival.query) }
    }
}

fn rejecting(rcode: Rcode, opt: bool) -> impl Fn(&[u8]) -> Vec<Act> + Send + Sync + 'static {
    move |query| vec![Act::Send(reply(query, rcode, opt))]
}

fn good(query: &[u8]) -> Vec<Act> {
    vec![Act::Send(reply(query, Rcode::NOERROR, has_opt(query)))]
}

/// Asks three times over UDP, and once per `ask` expects these queries and this RCODE.
async fn three_times(
    with: impl Fn(&[u8]) -> Vec<Act> + Send + Sync + 'static,
    without: impl Fn(&[u8]) -> Vec<Act> + Send + Sync + 'static,
    expected: (Rcode, &[bool]),
) {
    let opts = Opts::default();
    let responder = Responder::start(server(&opts, with, without)).await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |_| {});
    for _ in 0..3 {
        assert_eq!(ask_with_opt(&pool).await, expected.0);
    }
    assert_eq!(*opts.lock().unwrap(), expected.1);
    assert_eq!(responder.seen().stream_queries.len(), 0);
}

#[tokio::test]
async fn one_packet_more_for_the_first_question_and_none_for_the_next() {
    for rcode in [Rcode::FORMERR, Rcode::NOTIMP] {
        three_times(rejecting(rcode, false), good, (Rcode::NOERROR, &[true, false, false, false])).await;
    }
    // An old server answers with a header alone.
    let header_alone = |query: &[u8]| {
        let mut bare = reply(query, Rcode::FORMERR, false)[..header::LENGTH].to_vec();
        header::set_count(&mut bare, Count::Question, 0);
        vec![Act::Send(bare)]
    };
    three_times(header_alone, good, (Rcode::NOERROR, &[true, false, false, false])).await;
}

#[tokio::test]
async fn a_rejection_by_one_who_knows_edns_is_the_answer() {
    three_times(rejecting(Rcode::FORMERR, true), good, (Rcode::FORMERR, &[true; 3])).await;
    three_times(rejecting(Rcode::NOTIMP, true), good, (Rcode::NOTIMP, &[true; 3])).await;
    three_times(rejecting(Rcode::SERVFAIL, false), good, (Rcode::SERVFAIL, &[true; 3])).await;
}

#[tokio::test]
async fn only_an_answer_without_edns_is_remembered() {
    let both = || rejecting(Rcode::FORMERR, false);
    three_times(both(), both(), (Rcode::FORMERR, &[true, false, true, false, true, false])).await;
    let failing = rejecting(Rcode::SERVFAIL, false);
    three_times(both(), failing, (Rcode::SERVFAIL, &[true, false, true, false, true, false])).await;
}

#[tokio::test]
async fn a_rejection_that_answers_no_question_of_ours_changes_nothing() {
    let spoofed = |query: &[u8]| {
        let mut other_id = reply(query, Rcode::FORMERR, false);
        other_id[1] ^= 1;
        let mut other_name = reply(query, Rcode::FORMERR, false);
        other_name[header::LENGTH + 1] ^= 1;
        let early = [other_id, other_name].map(Act::Send).into_iter();
        early.chain([Act::Pause(Duration::from_millis(50))]).chain(good(query)).collect()
    };
    three_times(spoofed, good, (Rcode::NOERROR, &[true; 3])).await;
}

#[tokio::test]
async fn a_rejection_stands_when_nothing_better_comes() {
    let opts = Opts::default();
    let responder = Responder::start(server(&opts, rejecting(Rcode::FORMERR, false), |_| Vec::new())).await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |_| {});
    assert_eq!(ask_with_opt(&pool).await, Rcode::FORMERR);
    let opts = opts.lock().unwrap();
    // Silence over UDP leads to TCP, as always.
    assert_eq!(opts[..2], [true, false]);
    assert!(opts.len() <= 3 && !opts[1..].contains(&true), "{opts:?}");
}

#[tokio::test]
async fn what_one_upstream_does_not_know_another_may() {
    let (old, new) = (Opts::default(), Opts::default());
    let first = Responder::start(server(&old, rejecting(Rcode::FORMERR, false), good)).await;
    let second = Responder::start(server(&new, good, good)).await;
    let pool = pool(&[first.socket, second.socket], &Upstreams::new(), |spec| {
        spec.policy = crate::upstream::spec::Policy::RoundRobin;
    });
    for _ in 0..4 {
        assert_eq!(ask_with_opt(&pool).await, Rcode::NOERROR);
    }
    assert_eq!(
        (old.lock().unwrap().as_slice(), new.lock().unwrap().as_slice()),
        (&[true, false, false][..], &[true; 2][..])
    );
}

#[tokio::test]
async fn it_is_the_same_over_connections() {
    let opts = Opts::default();
    let handler = || server(&opts, rejecting(Rcode::FORMERR, false), good);
    over_both("classic", false, handler, async |network: Network, upstreams, pool, responder| {
        for _ in 0..3 {
            assert_eq!(ask_with_opt(&pool).await, Rcode::NOERROR, "{network:?}");
        }
        assert_eq!(std::mem::take(&mut *opts.lock().unwrap()), [true, false, false, false], "{network:?}");
        assert_eq!(responder.seen().connections, 1, "{network:?}");
        let fallbacks = value(&upstreams, &format!("{FALLBACKS}{{to=\"{}\"}}", responder.socket));
        assert_eq!(fallbacks, 1, "{network:?}");
    })
    .await;
}

#[tokio::test]
async fn a_truncated_answer_without_edns_is_completed_without() {
    let opts = Opts::default();
    let noted = opts.clone();
    let responder = Responder::start(move |arrival| {
        let opt = has_opt(arrival.query);
        noted.lock().unwrap().push(opt);
        let mut wire = reply(arrival.query, if opt { Rcode::FORMERR } else { Rcode::NOERROR }, false);
        if !opt && arrival.network == Network::Udp {
            wire[2] |= header::TC;
        }
        vec![Act::Send(wire)]
    })
    .await;
    let pool = pool(&[responder.socket], &Upstreams::new(), |_| {});
    assert_eq!(ask_with_opt(&pool).await, Rcode::NOERROR);
    assert_eq!(*opts.lock().unwrap(), [true, false, false]);
    assert_eq!(responder.seen().stream_queries.len(), 1);
}
