//! TCP.

use super::*;
use std::net::Shutdown;

const OPEN: (&str, &str) = ("dnslet_tcp_connections", "");
const REFUSED: &str = "dnslet_tcp_connections_refused_total";

#[test]
fn questions_on_one_connection_are_answered_out_of_order() {
    let lab = Lab::start();
    let mut stream = lab.tcp();
    send(&mut stream, 1, &held(1));
    send(&mut stream, 2, NOW);
    assert_eq!(next_id(&mut stream), Some(2));
    lab.release(1);
    assert_eq!(next_id(&mut stream), Some(1));
}

#[test]
fn one_octet_at_a_time_is_understood() {
    let lab = Lab::start();
    let mut stream = lab.tcp();
    for id in 1..=2 {
        for octet in framed(&query(id, NOW)) {
            stream.write_all(&[octet]).unwrap();
        }
        assert_eq!(next_id(&mut stream), Some(id));
    }
}

#[test]
fn many_questions_in_one_write_are_all_answered() {
    let lab = Lab::start();
    let mut stream = lab.tcp();
    let all: Vec<u8> = (0..5000).flat_map(|id| framed(&query(id, NOW))).collect();
    let mut writer = stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || writer.write_all(&all).unwrap());
    for id in 0..5000 {
        assert_eq!(next_id(&mut stream), Some(id));
    }
    writer.join().unwrap();
}

#[test]
fn a_message_of_4_kib_is_read() {
    let lab = Lab::start();
    let mut stream = lab.tcp();
    stream.write_all(&framed(&padded(1, NOW, 4096))).unwrap();
    send(&mut stream, 2, NOW);
    assert_eq!(header::rcode(&next(&mut stream).unwrap()), Rcode::REFUSED);
    assert_eq!(next_id(&mut stream), Some(2));
}

#[test]
fn what_was_asked_is_answered_after_a_half_close() {
    let lab = Lab::start();
    let mut stream = lab.tcp();
    send(&mut stream, 1, &held(1));
    send(&mut stream, 2, NOW);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next_id(&mut stream), Some(2));
    lab.release(1);
    assert_eq!(next_id(&mut stream), Some(1));
    assert!(next(&mut stream).is_none());
    lab.await_metric((CLOSED, "client"), 1);
}

#[test]
fn replies_for_a_client_that_left_are_dropped() {
    let lab = Lab::start();
    let mut stream = lab.tcp();
    send(&mut stream, 1, &held(1));
    lab.await_metric(IN_FLIGHT, 1);
    sockopt::reset_on_close(std::os::fd::AsFd::as_fd(&stream)).unwrap();
    drop(stream);
    lab.await_metric((CLOSED, "error"), 1);
    lab.release(1);
    lab.await_metric(IN_FLIGHT, 0);
    let mut stream = lab.tcp();
    send(&mut stream, 2, NOW);
    assert_eq!(next_id(&mut stream), Some(2));
}

#[test]
fn a_connection_is_not_read_while_too_much_of_it_is_in_flight() {
    let lab = Lab::with("127.0.0.1:0", Limits { per_connection: 2, ..Limits::default() });
    let mut stream = lab.tcp();
    for id in 1..=3 {
        send(&mut stream, id, &held(id));
    }
    send(&mut stream, 4, NOW);
    lab.await_metric(IN_FLIGHT, 2);
    lab.release(1);
    let first = next_id(&mut stream).unwrap();
    assert!(first <= 2, "{first} was in flight first");
    lab.release(2);
    let mut rest: Vec<u16> = (0..3).map(|_| next_id(&mut stream).unwrap()).collect();
    rest.push(first);
    rest.sort_unstable();
    assert_eq!(rest, [1, 2, 3, 4]);
    assert_eq!(lab.metric(SHED), 0);
}

#[test]
fn an_unfinished_message_ends_the_connection_however_slowly_it_grows() {
    let lab = Lab::with(
        "127.0.0.1:0",
        Limits { read: Duration::from_millis(300), idle: Duration::from_secs(600), ..Limits::default() },
    );
    let mut stream = lab.tcp();
    send(&mut stream, 1, NOW);
    assert_eq!(next_id(&mut stream), Some(1));
    let mut dribble = stream.try_clone().unwrap();
    let pace = UdpSocket::bind("127.0.0.1:0").unwrap();
    pace.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let dribble = std::thread::spawn(move || {
        for octet in framed(&[0; 60_000]) {
            if dribble.write_all(&[octet]).is_err() {
                return;
            }
            // Nothing ever arrives: this only sets the pace.
            assert!(pace.recv(&mut [0]).is_err());
        }
    });
    assert!(is_over(&mut stream));
    lab.await_metric((CLOSED, "slow"), 1);
    drop(stream);
    dribble.join().unwrap();
}

#[test]
fn idle_connections_end() {
    let lab = Lab::with("127.0.0.1:0", Limits { idle: Duration::from_millis(100), ..Limits::default() });
    let (mut silent, mut asked) = (lab.tcp(), lab.tcp());
    send(&mut asked, 1, NOW);
    assert_eq!(next_id(&mut asked), Some(1));
    assert!(is_over(&mut asked));
    assert!(is_over(&mut silent));
    lab.await_metric((CLOSED, "idle"), 2);
}

#[test]
fn a_connection_with_a_question_in_flight_is_not_idle() {
    let lab = Lab::with("127.0.0.1:0", Limits { idle: Duration::from_millis(50), ..Limits::default() });
    let (mut waiting, mut idle) = (lab.tcp(), lab.tcp());
    send(&mut waiting, 1, &held(1));
    lab.await_metric(IN_FLIGHT, 1);
    send(&mut idle, 2, NOW);
    assert_eq!(next_id(&mut idle), Some(2));
    assert!(is_over(&mut idle));
    lab.release(1);
    assert_eq!(next_id(&mut waiting), Some(1));
    assert!(is_over(&mut waiting));
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let lab = Lab::with("127.0.0.1:0", Limits { write: Duration::from_millis(200), ..Limits::default() });
    let mut stream = lab.tcp();
    let all: Vec<u8> = (0..1000).flat_map(|id| framed(&query(id, NOW))).collect();
    while stream.write_all(&all).is_ok() {}
    lab.await_metric((CLOSED, "unread"), 1);
    lab.await_metric(OPEN, 0);
}

#[test]
fn an_empty_message_ends_the_connection() {
    let lab = Lab::start();
    let mut stream = lab.tcp();
    send(&mut stream, 1, &held(1));
    stream.write_all(&[0, 0]).unwrap();
    assert!(is_over(&mut stream));
    lab.await_metric((CLOSED, "malformed"), 1);
}

#[test]
fn a_connection_ends_after_as_many_queries_as_the_corefile_allows() {
    let lab = Lab::configured("127.0.0.1:0", Limits::default(), "timeouts {\n maxtcpqueries 2\n }");
    let mut stream = lab.tcp();
    send(&mut stream, 1, &held(1));
    send(&mut stream, 2, NOW);
    assert_eq!(next_id(&mut stream), Some(2));
    lab.release(1);
    assert_eq!(next_id(&mut stream), Some(1));
    assert!(is_over(&mut stream));
    lab.await_metric((CLOSED, "queries"), 1);
}

#[test]
fn one_source_has_only_so_many_connections() {
    let lab = Lab::with("127.0.0.1:0", Limits { per_source: 2, ..Limits::default() });
    let mut held = [lab.tcp(), lab.tcp()];
    for stream in &mut held {
        send(stream, 1, NOW);
        assert_eq!(next_id(stream), Some(1));
    }
    assert!(is_over(&mut lab.tcp()));
    lab.await_metric((REFUSED, "source"), 1);
    let [first, _second] = held;
    drop(first);
    lab.await_metric(OPEN, 1);
    let mut third = lab.tcp();
    send(&mut third, 3, NOW);
    assert_eq!(next_id(&mut third), Some(3));
}

#[test]
fn the_longest_idle_connection_gives_way_and_busy_ones_stay() {
    let lab = Lab::with("127.0.0.1:0", Limits { connections: 3, ..Limits::default() });
    let (mut busy, mut older, mut newer) = (lab.tcp(), lab.tcp(), lab.tcp());
    send(&mut busy, 1, &held(1));
    lab.await_metric(IN_FLIGHT, 1);
    for stream in [&mut older, &mut newer] {
        send(stream, 2, NOW);
        assert_eq!(next_id(stream), Some(2));
    }
    let mut fourth = lab.tcp();
    send(&mut fourth, 4, &held(4));
    assert!(is_over(&mut older));
    lab.await_metric((CLOSED, "pressure"), 1);
    send(&mut newer, 5, &held(5));
    lab.await_metric(IN_FLIGHT, 3);
    assert!(is_over(&mut lab.tcp()), "all three are busy");
    lab.await_metric((REFUSED, "total"), 1);
    lab.release(3);
    for (stream, id) in [(&mut busy, 1), (&mut fourth, 4), (&mut newer, 5)] {
        assert_eq!(next_id(stream), Some(id));
    }
}

#[test]
fn a_flood_of_idle_connections_does_not_keep_others_out() {
    let lab = Lab::with("127.0.0.1:0", Limits { connections: 20, per_source: 1000, ..Limits::default() });
    let mut flood: Vec<TcpStream> = Vec::new();
    for round in 0..100 {
        flood.push(lab.tcp());
        let mut honest = lab.tcp();
        send(&mut honest, round, NOW);
        assert_eq!(next_id(&mut honest), Some(round));
    }
    assert!(lab.metric(OPEN) <= 20);
}

#[test]
fn a_client_with_many_unfinished_messages_does_not_keep_others_out() {
    let lab = Lab::with("127.0.0.1:0", Limits { connections: 32, per_source: 1000, ..Limits::default() });
    let mut attack: Vec<TcpStream> = (0..32).map(|_| lab.tcp()).collect();
    for stream in &mut attack {
        stream.write_all(&[0]).unwrap();
    }
    lab.await_metric(OPEN, 32);
    assert!(is_over(&mut lab.tcp()), "as many as there may be");
    let mut other = tcp_from(2, &lab);
    send(&mut other, 1, NOW);
    assert_eq!(next_id(&mut other), Some(1));
    assert!(is_over(&mut attack[0]), "the oldest");
    lab.await_metric((CLOSED, "pressure"), 1);
    let mut again = lab.tcp();
    assert!(is_over(&mut again), "who has many does not take the place of one that is idle for a moment");
    send(&mut other, 2, NOW);
    assert_eq!(next_id(&mut other), Some(2));
}

#[test]
fn connections_over_ipv6_and_to_the_wildcard_work() {
    let lab = Lab::with("[::]:0", Limits::default());
    for host in ["::1", "127.0.0.9"] {
        let mut stream = TcpStream::connect((host, lab.address.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        send(&mut stream, 1, NOW);
        assert_eq!(next_id(&mut stream), Some(1));
    }
}
