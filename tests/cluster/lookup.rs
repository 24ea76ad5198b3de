//! What a client does: one A question from a fresh port, as the C library asks it.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// How long a client waits for an answer before it calls it lost: as long as the C library.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// Who answered: the reply says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Agent,
    ClusterDns,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Who::Agent => "dnslet",
            Who::ClusterDns => "cluster DNS",
        })
    }
}

/// Asks the server for the A record of the name. An error says what a client would see: nothing in time, a closed port,
/// or something that is no answer.
pub fn ask(server: IpAddr, name: &str, transport: Transport) -> io::Result<Who> {
    ask_within(server, name, transport, PATIENCE)
}

pub fn ask_within(server: IpAddr, name: &str, transport: Transport, patience: Duration) -> io::Result<Who> {
    let (server, query) = (SocketAddr::new(server, 53), question(name));
    let reply = match transport {
        Transport::Udp => over_udp(server, &query, patience)?,
        Transport::Tcp => over_tcp(server, &query, patience)?,
    };
    let no_answer = || io::Error::other(format!("no answer to the question: {reply:02x?}"));
    match reply.as_slice() {
        // The ID, QR, RCODE 0 and one answer.
        [high, low, first, second, _, _, 0, 1, ..]
            if [*high, *low] == query[..2] && first & 0x80 != 0 && second & 15 == 0 =>
        {
            Ok(if first & 4 == 0 { Who::Agent } else { Who::ClusterDns })
        }
        _ => Err(no_answer()),
    }
}

/// Whether the name has records of the type, by a server that answers in any way.
pub fn has(server: IpAddr, name: &str, qtype: u16) -> io::Result<bool> {
    let reply = over_udp(SocketAddr::new(server, 53), &question_of(name, qtype), PATIENCE)?;
    match reply.get(2..8) {
        // QR, RCODE, the count of answers.
        Some([flags, rcode, _, _, high, low]) if flags & 0x80 != 0 && matches!(rcode & 15, 0 | 3) => {
            Ok(rcode & 15 == 0 && [*high, *low] != [0, 0])
        }
        _ => Err(io::Error::other(format!("no answer to the question: {reply:02x?}"))),
    }
}

fn over_udp(server: SocketAddr, query: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(query)?;
    let mut buffer = vec![0; 1500];
    let length = socket.recv(&mut buffer)?;
    buffer.truncate(length);
    Ok(buffer)
}

fn over_tcp(server: SocketAddr, query: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let length = u16::try_from(query.len()).expect("a short question").to_be_bytes();
    stream.write_all(&[&length, query].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

fn question(name: &str) -> Vec<u8> {
    question_of(name, 1)
}

fn question_of(name: &str, qtype: u16) -> Vec<u8> {
    let [high, low]: [u8; 2] = rand::random();
    let mut query = vec![high, low, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        query.push(u8::try_from(label.len()).expect("a label of at most 63 octets"));
        query.extend(label.bytes());
    }
    query.push(0);
    query.extend(qtype.to_be_bytes());
    query.extend([0, 1]);
    query
}
