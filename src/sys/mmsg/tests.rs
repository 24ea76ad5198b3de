//! Batches between real sockets.

use super::*;
use crate::sys::sockaddr::send;
use crate::sys::sockopt::{self, Options};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;

fn server(address: &str) -> (UdpSocket, bool) {
    let address: SocketAddr = address.parse().unwrap();
    let socket = sockopt::udp(address, &Options::default()).unwrap().socket;
    // Lets the test wait for what it sent; `receive` itself never waits.
    socket.set_nonblocking(false).unwrap();
    (socket, address.ip().is_unspecified())
}

fn wait_readable(socket: &UdpSocket) {
    socket.peek_from(&mut [0]).unwrap();
}

fn client(address: &str) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap();
    socket.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
    socket
}

/// Receives everything there is and answers each datagram with its bytes reversed.
fn echo(socket: &UdpSocket, control: bool, batch: &mut Batch) -> usize {
    wait_readable(socket);
    let n = batch.receive(socket.as_fd(), control).unwrap();
    for i in 0..n {
        let (datagram, reply) = batch.slot(i);
        let len = datagram.bytes.len();
        reply[..len].copy_from_slice(datagram.bytes);
        reply[..len].reverse();
        batch.queue(i, len);
    }
    while batch.unsent() > 0 {
        batch.send(socket.as_fd()).unwrap();
    }
    n
}

#[test]
fn every_datagram_gets_its_own_reply_over_many_batches() {
    let (server, control) = server("127.0.0.1:0");
    let (to, client, mut batch) = (server.local_addr().unwrap(), client("127.0.0.1:0"), Batch::new());
    for round in 0..20u8 {
        let count = BATCH + usize::from(round);
        for i in 0..count {
            client.send_to(&[round, i as u8, b'x'], to).unwrap();
        }
        let mut answered = 0;
        while answered < count {
            answered += echo(&server, control, &mut batch);
        }
        let mut seen: Vec<u8> = (0..count)
            .map(|_| {
                let mut buffer = [0; 16];
                let (len, from) = client.recv_from(&mut buffer).unwrap();
                assert_eq!((len, from, buffer[0], buffer[2]), (3, to, b'x', round));
                buffer[1]
            })
            .collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..count as u8).collect::<Vec<_>>());
    }
}

#[test]
fn an_empty_socket_would_block() {
    let (server, _) = server("127.0.0.1:0");
    let error = Batch::new().receive(server.as_fd(), false).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_long_datagram_is_cut_and_the_next_one_is_whole() {
    let (server, control) = server("127.0.0.1:0");
    let (to, client, mut batch) = (server.local_addr().unwrap(), client("127.0.0.1:0"), Batch::new());
    client.send_to(&[7; DATAGRAM + 1], to).unwrap();
    client.send_to(&[8; DATAGRAM], to).unwrap();
    wait_readable(&server);
    assert_eq!(batch.receive(server.as_fd(), control).unwrap(), 2);
    let (first, _) = batch.slot(0);
    assert_eq!((first.cut, first.bytes.len()), (true, DATAGRAM));
    let (second, _) = batch.slot(1);
    assert_eq!((second.cut, second.bytes), (false, &[8; DATAGRAM][..]));
}

#[test]
fn wildcard_sockets_answer_from_the_address_asked() {
    for (bind, asked, from) in [
        ("0.0.0.0:0", "127.0.0.7", "127.0.0.1:0"),
        ("0.0.0.0:0", "127.0.0.8", "127.0.0.1:0"),
        ("[::]:0", "127.0.0.9", "127.0.0.1:0"),
        ("[::]:0", "::1", "[::1]:0"),
    ] {
        let (server, control) = server(bind);
        let (client, mut batch) = (client(from), Batch::new());
        let to = SocketAddr::new(asked.parse().unwrap(), server.local_addr().unwrap().port());
        client.send_to(b"ab", to).unwrap();
        wait_readable(&server);
        assert_eq!(batch.receive(server.as_fd(), control).unwrap(), 1);
        let (datagram, reply) = batch.slot(0);
        assert_eq!(datagram.local, Some(to.ip()), "{bind} asked at {asked}");
        assert_eq!(datagram.peer, client.local_addr().unwrap());
        reply[..2].copy_from_slice(b"hi");
        let path = batch.return_path(0);
        batch.queue(0, 2);
        assert_eq!(batch.send(server.as_fd()).unwrap(), 1);
        send(server.as_fd(), b"later", &path).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (2, to), "{bind} asked at {asked}");
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (5, to), "{bind} asked at {asked}");
    }
}

#[test]
fn one_batch_serves_wildcard_and_plain_sockets_in_turn() {
    let (wild, plain) = (server("0.0.0.0:0"), server("127.0.0.1:0"));
    let (client, mut batch) = (client("127.0.0.1:0"), Batch::new());
    for (socket, control) in [&plain, &wild, &plain, &wild] {
        let port = socket.local_addr().unwrap().port();
        let asked = Ipv4Addr::new(127, 0, 0, if *control { 7 } else { 1 });
        client.send_to(b"ab", (asked, port)).unwrap();
        assert_eq!(echo(socket, *control, &mut batch), 1);
        let (_, from) = client.recv_from(&mut [0; 16]).unwrap();
        assert_eq!(from, (asked, port).into());
    }
}

#[test]
fn a_reply_that_cannot_be_sent_can_be_taken_out() {
    let (server, control) = server("127.0.0.1:0");
    let (to, client, mut batch) = (server.local_addr().unwrap(), client("127.0.0.1:0"), Batch::new());
    client.send_to(b"one", to).unwrap();
    client.send_to(b"two", to).unwrap();
    wait_readable(&server);
    assert_eq!(batch.receive(server.as_fd(), control).unwrap(), 2);
    for (i, text) in [b"1", b"2"].into_iter().enumerate() {
        batch.slot(i).1[..1].copy_from_slice(text);
        batch.queue(i, 1);
    }
    let (bytes, path) = batch.take_unsent().unwrap();
    let bytes = bytes.to_vec();
    assert_eq!(batch.unsent(), 1);
    assert_eq!(batch.send(server.as_fd()).unwrap(), 1);
    send(server.as_fd(), &bytes, &path).unwrap();
    let mut got = [0; 2];
    for byte in &mut got {
        client.recv_from(std::slice::from_mut(byte)).unwrap();
    }
    assert_eq!(&got, b"21");
    assert!(batch.take_unsent().is_none());
}
