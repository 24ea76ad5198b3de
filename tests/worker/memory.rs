//! Clients over TCP that make the server hold octets: messages without end, replies that nobody reads.

use super::*;
use std::io::ErrorKind;

const HELD: (&str, &str) = ("dnslet_tcp_held_bytes", "");
const FORMAT: (&str, &str) = ("dnslet_queries_rejected_total", "format");

/// Asks all at once, and reads all replies.
fn pipeline(stream: &mut TcpStream, queries: u16) {
    let all: Vec<u8> = (0..queries).flat_map(|id| framed(&query(id, NOW))).collect();
    stream.write_all(&all).unwrap();
    for id in 0..queries {
        assert_eq!(next_id(stream), Some(id));
    }
}

#[test]
fn a_message_above_4_kib_is_refused_when_it_is_over_and_the_connection_goes_on() {
    let lab = Lab::start();
    let mut stream = lab.tcp();
    for (id, length) in [(1, 4097), (2, 65_535)] {
        let message = framed(&padded(id, NOW, length));
        let (half, rest) = message.split_at(length / 2);
        stream.write_all(half).unwrap();
        pipeline(&mut lab.tcp(), 1);
        stream.write_all(rest).unwrap();
        let reply = next(&mut stream).unwrap();
        assert_eq!((header::id(&reply), header::rcode(&reply)), (id, Rcode::FORMERR));
    }
    pipeline(&mut stream, 100);
    assert_eq!((lab.metric(FORMAT), lab.metric((CLOSED, "memory"))), (2, 0));
}

#[test]
fn unfinished_messages_are_not_kept() {
    const LIMIT: usize = 16 << 10;
    let limits = Limits { octets: LIMIT, read: Duration::from_millis(500), ..Limits::default() };
    let lab = Lab::with("127.0.0.1:0", limits);
    let half = [vec![0xff, 0xff], vec![0; 32 << 10]].concat();
    let mut attack: Vec<TcpStream> = (0..100).map(|_| lab.tcp()).collect();
    for stream in &mut attack {
        stream.write_all(&half).unwrap();
    }
    pipeline(&mut tcp_from(2, &lab), 100);
    assert!(lab.metric(HELD) <= LIMIT as u64, "{}", lab.metric(HELD));
    lab.await_metric((CLOSED, "slow"), 100);
    assert_eq!((lab.metric(HELD), lab.metric((CLOSED, "memory"))), (0, 0));
}

#[test]
fn who_does_not_read_gives_way_and_who_reads_does_not() {
    const LIMIT: usize = 1 << 20;
    const GIVEN_UP: u64 = 20;
    let lab = Lab::with("127.0.0.1:0", Limits { octets: LIMIT, ..Limits::default() });
    let all: Vec<u8> = (0..300).flat_map(|id| framed(&query(id, NOW))).collect();
    let connect = || {
        let stream = lab.tcp();
        stream.set_nonblocking(true).unwrap();
        stream
    };
    let mut attack: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    let (mut reader, end) = (tcp_from(2, &lab), clock::now() + PATIENCE);
    while lab.metric((CLOSED, "memory")) < GIVEN_UP {
        assert!(clock::now() < end, "{} given up", lab.metric((CLOSED, "memory")));
        for stream in &mut attack {
            // Queries are cut where the connection takes no more; the server need not notice.
            match stream.write(&all) {
                Err(e) if e.kind() != ErrorKind::WouldBlock => *stream = connect(),
                _ => {}
            }
        }
        pipeline(&mut reader, 100);
        assert!(lab.metric(HELD) <= LIMIT as u64, "{}", lab.metric(HELD));
    }
    drop(attack);
    pipeline(&mut reader, 100);
    lab.await_metric(HELD, 0);
}
