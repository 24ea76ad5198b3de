//! Clients: one question and one reply, over UDP or TCP.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use super::message::{Message, Query};
use super::time::PATIENCE;
use super::upstream::{framed, read_framed};

/// A UDP socket connected to one server.
pub struct Udp(UdpSocket);

impl Udp {
    pub fn to(server: SocketAddr) -> Udp {
        let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        Udp::between(any, server)
    }

    /// From an address of the test's choice.
    pub fn between(client: SocketAddr, server: SocketAddr) -> Udp {
        let socket = UdpSocket::bind(client).expect("a free port");
        socket.connect(server).expect("a route to the server");
        Udp(socket)
    }

    pub fn send(&self, message: &[u8]) {
        self.0.send(message).expect("the server's port is open");
    }

    /// The next datagram; `None` when none came in time or the port is closed.
    pub fn receive(&self, patience: Duration) -> Option<Vec<u8>> {
        self.0.set_read_timeout(Some(patience)).expect("a positive time");
        let mut buffer = vec![0; 65_535];
        match self.0.recv(&mut buffer) {
            Ok(length) => Some(buffer[..length].to_vec()),
            Err(error) => {
                let expected = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::ConnectionRefused];
                assert!(expected.contains(&error.kind()), "receiving failed: {error}");
                None
            }
        }
    }

    /// Sends a query and waits for its reply, whatever it says.
    #[track_caller]
    pub fn ask(&self, query: &Query) -> Message {
        self.send(&query.bytes());
        let raw = self.receive(PATIENCE).expect("a reply");
        let reply = Message::parse(&raw).unwrap_or_else(|| panic!("not a well-formed reply: {raw:02x?}"));
        reply.check_against(query);
        reply
    }
}

/// A TCP connection to one server.
pub struct Tcp(pub TcpStream);

impl Tcp {
    pub fn to(server: SocketAddr) -> Tcp {
        let stream = TcpStream::connect(server).expect("the server's port is open");
        stream.set_read_timeout(Some(PATIENCE)).expect("a positive time");
        stream.set_nodelay(true).expect("a TCP socket");
        Tcp(stream)
    }

    pub fn send(&mut self, message: &[u8]) {
        assert!(self.try_send(message), "an open connection");
    }

    /// Sends a message; `false` when the server has closed the connection.
    pub fn try_send(&mut self, message: &[u8]) -> bool {
        self.0.write_all(&framed(message)).is_ok()
    }

    /// The next message; `None` when the server closed the connection.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        read_framed(&mut self.0)
    }

    /// The next message, taken apart.
    #[track_caller]
    pub fn next(&mut self) -> Message {
        let raw = self.receive().expect("a reply on the connection");
        Message::parse(&raw).unwrap_or_else(|| panic!("not a well-formed reply: {raw:02x?}"))
    }

    /// Sends a query and waits for the next reply, which must be its own.
    #[track_caller]
    pub fn ask(&mut self, query: &Query) -> Message {
        self.send(&query.bytes());
        let reply = self.next();
        reply.check_against(query);
        reply
    }
}
