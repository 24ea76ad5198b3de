//! One question to a listening address, over UDP or TCP, to see whether anything answers there.
//!
//! The question is `CH TXT id.server.` (RFC 4892): the agent answers class CH by itself, so a probe never reaches an
//! upstream. It is sent from the address that it asks, which leaves no doubt that the address is on this machine, and the
//! reply bears a code of ours: where packets to the address are translated, another server may answer.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use super::counters;
use super::registry::Registry;
use super::sockets::Sockets;
use crate::dns::convert::Outgoing;
use crate::dns::{Class, Ede, Protocol, Type, header};
use crate::sys::{clock, sockopt};

/// Between two tries of a probe over UDP.
const AGAIN: Duration = Duration::from_millis(200);

/// Why a probe got no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// Nothing came before the deadline.
    Silence,
    /// The connection was closed before an answer.
    Closed,
    /// The kernel said no.
    Network(String),
    /// No interface of this machine has the address.
    Absent,
    /// Another server answers at the address: packets are led elsewhere.
    Foreign,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Silence => f.write_str("no answer in time"),
            Failure::Closed => f.write_str("connection closed without an answer"),
            Failure::Network(reason) => f.write_str(reason),
            Failure::Absent => f.write_str("no interface has the address"),
            Failure::Foreign => f.write_str("another server answers there"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Failure::Closed,
            io::ErrorKind::AddrNotAvailable => Failure::Absent,
            kind => Failure::Network(kind.to_string()),
        }
    }
}

/// The probe's message, without a TCP length: one question, RD clear, with EDNS so that the reply can say more.
pub fn query(id: u16) -> Vec<u8> {
    let plain = Outgoing::plain(b"\x02id\x06server\x00", Type::TXT, Class::CH);
    Outgoing { recursion_desired: false, edns: Some((1232, false)), ..plain }.to_wire(id)
}

/// Asks a listening address and returns how long the answer took. An unspecified address is asked on loopback. Packets
/// carry `mark` where one is given and this process may set it. Over UDP the question goes out again from the same port
/// until `deadline`: one lost datagram tells nothing, and the kernel gives every try to the same worker's socket.
///
/// # Errors
/// The reason why there was no answer; after `deadline` that is [`Failure::Silence`], or the last thing the kernel said.
pub async fn ask(
    listen: SocketAddr,
    protocol: Protocol,
    deadline: Duration,
    mark: Option<u32>,
) -> Result<Duration, Failure> {
    let (start, id, target) = (clock::now(), rand::random(), reachable(listen));
    let mut last = Failure::Silence;
    let asked = async {
        match protocol {
            Protocol::Udp => ask_udp(target, id, mark, &mut last).await,
            Protocol::Tcp => loop {
                match ask_tcp(target, id, mark).await {
                    // A server that is just being replaced refuses or resets; the next one may answer.
                    Err(failure @ (Failure::Network(_) | Failure::Closed)) => last = failure,
                    asked => break asked,
                }
                tokio::time::sleep(AGAIN).await;
            },
        }
    };
    match timeout(deadline, asked).await {
        Ok(asked) => asked?,
        Err(_) => return Err(last),
    }
    Ok(clock::now().saturating_duration_since(start))
}

/// Takes down the result of a probe: in `sockets`, in the health metrics, and as a warning for a failure.
pub fn take_down(
    sockets: &Sockets,
    registry: &Registry,
    listen: SocketAddr,
    protocol: Protocol,
    result: Result<Duration, Failure>,
) {
    match &result {
        Ok(elapsed) => registry.health_duration().record(*elapsed),
        Err(failure) => {
            registry.counter(&counters::HEALTH_FAILURES, &[]).increment(1);
            let over = if protocol == Protocol::Udp { "udp" } else { "tcp" };
            tracing::warn!(plugin = "health", "Local health request to {over}://{listen} failed: {failure}");
        }
    }
    sockets.record(listen, protocol, clock::now(), result);
}

async fn ask_udp(target: SocketAddr, id: u16, mark: Option<u32>, last: &mut Failure) -> Result<(), Failure> {
    let socket = UdpSocket::bind((target.ip(), 0)).await?;
    sockopt::mark(socket.as_fd(), mark);
    socket.connect(target).await?;
    loop {
        // A port that nobody listens on is an error here, until somebody does.
        let _ = socket.send(&query(id)).await;
        if timeout(AGAIN, answered(&socket, id, last)).await.is_ok() {
            return Ok(());
        }
    }
}

async fn answered(socket: &UdpSocket, id: u16, last: &mut Failure) {
    let mut message = [0; 512];
    loop {
        // Anything else may be a late or forged datagram: the answer can still come.
        match socket.recv(&mut message).await.map(|length| whose(&message[..length], id)) {
            Ok(Whose::Ours) => return,
            Ok(Whose::Foreign) => *last = Failure::Foreign,
            Ok(Whose::Nobodys) => {}
            Err(_) => return std::future::pending().await,
        }
    }
}

async fn ask_tcp(target: SocketAddr, id: u16, mark: Option<u32>) -> Result<(), Failure> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    sockopt::mark(socket.as_fd(), mark);
    socket.bind((target.ip(), 0).into())?;
    let mut stream = socket.connect(target).await?;
    let query = query(id);
    let length = u16::try_from(query.len()).expect("the probe is shorter than 64 KiB");
    let mut framed = length.to_be_bytes().to_vec();
    framed.extend_from_slice(&query);
    stream.write_all(&framed).await?;
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    // A probe a second must not leave a row of closed connections behind.
    sockopt::reset_on_close(stream.as_fd())?;
    if whose(&message, id) == Whose::Ours { Ok(()) } else { Err(Failure::Foreign) }
}

/// Who sent a message.
#[derive(Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    /// An answer to the probe, by somebody else.
    Foreign,
    /// No answer to the probe.
    Nobodys,
}

/// Our own reply ends with its OPT record, and that with the extended error that nobody else sends (RFC 8914 section 2).
fn whose(message: &[u8], id: u16) -> Whose {
    const EDE: u16 = 15;
    let ending = [EDE, 2, Ede::OURSELVES.0].map(u16::to_be_bytes).concat();
    let is_answer = message.len() >= header::LENGTH && header::id(message) == id && header::is_response(message);
    match (is_answer, message.ends_with(&ending)) {
        (true, true) => Whose::Ours,
        (true, false) => Whose::Foreign,
        (false, _) => Whose::Nobodys,
    }
}

/// Where to ask this listening address: a wildcard on the loopback; `[::]` takes IPv4 too, so a machine without IPv6 is
/// asked there.
pub fn reachable(listen: SocketAddr) -> SocketAddr {
    let loopback = |ip: IpAddr| std::net::UdpSocket::bind((ip, 0)).is_ok();
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() && loopback(Ipv6Addr::LOCALHOST.into()) => Ipv6Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        _ => return listen,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::reply::write_error;
    use crate::dns::{Explained, Query, Rcode};
    use tokio::net::TcpListener;

    const LONG: Duration = Duration::from_secs(60);
    /// Less than the pause between two tries.
    const SHORT: Duration = Duration::from_millis(150);

    fn run_async<T>(task: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(task)
    }

    fn reply(query: &[u8]) -> Vec<u8> {
        let explained = Explained { code: Ede::OURSELVES, text: "" };
        let mut out = [0; 512];
        let length = write_error(&Query::parse(query).unwrap(), Rcode::REFUSED, Some(explained), &mut out);
        out[..length].to_vec()
    }

    /// As another server answers.
    fn foreign(query: &[u8]) -> Vec<u8> {
        let mut reply = query.to_vec();
        reply[2] |= header::QR;
        reply
    }

    #[test]
    fn the_question_is_well_formed() {
        let message = query(0x1234);
        let parsed = Query::parse(&message).unwrap();
        assert_eq!((header::id(&message), parsed.name()), (0x1234, b"\x02id\x06server\x00".as_slice()));
    }

    #[test]
    fn our_own_answer_counts_and_others_do_not() {
        run_async(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = server.local_addr().unwrap();
            let serve = async {
                let mut buffer = [0; 512];
                let (length, client) = server.recv_from(&mut buffer).await.unwrap();
                let good = reply(&buffer[..length]);
                let mut wrong = good.clone();
                wrong[0] ^= 1;
                for datagram in [b"x".as_slice(), &wrong, &buffer[..length], &foreign(&buffer[..length]), &good] {
                    server.send_to(datagram, client).await.unwrap();
                }
            };
            let (result, ()) = tokio::join!(ask(address, Protocol::Udp, LONG, None), serve);
            assert!(result.is_ok(), "{result:?}");
        });
    }

    #[test]
    fn tcp_is_asked_with_a_length_and_unspecified_means_loopback() {
        run_async(async {
            let server = TcpListener::bind("0.0.0.0:0").await.unwrap();
            let address = server.local_addr().unwrap();
            let serve = async {
                let (mut stream, _) = server.accept().await.unwrap();
                let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut query).await.unwrap();
                let reply = reply(&query);
                stream.write_u16(reply.len() as u16).await.unwrap();
                stream.write_all(&reply).await.unwrap();
            };
            let (result, ()) = tokio::join!(ask(address, Protocol::Tcp, LONG, None), serve);
            assert!(result.is_ok(), "{result:?}");
        });
    }

    #[test]
    fn failures_tell_what_happened_last() {
        run_async(async {
            let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let result = ask(silent.local_addr().unwrap(), Protocol::Udp, SHORT, None).await;
            assert_eq!(result, Err(Failure::Silence));
            let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = closing.local_addr().unwrap();
            let serve = async {
                let (mut stream, _) = closing.accept().await.unwrap();
                let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut query).await.unwrap();
            };
            let (result, ()) = tokio::join!(ask(address, Protocol::Tcp, SHORT, None), serve);
            assert_eq!(result, Err(Failure::Closed));
            drop(closing);
            let result = ask(address, Protocol::Tcp, SHORT, None).await;
            assert_eq!(result, Err(Failure::Network("connection refused".to_owned())));
        });
    }

    #[test]
    fn another_server_or_another_machine_is_told_apart_from_silence() {
        run_async(async {
            let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = other.local_addr().unwrap();
            let serve = async {
                let mut buffer = [0; 512];
                let (length, client) = other.recv_from(&mut buffer).await.unwrap();
                assert_eq!(client.ip(), address.ip(), "it is sent from the address that it asks");
                other.send_to(&foreign(&buffer[..length]), client).await.unwrap();
            };
            let (result, ()) = tokio::join!(ask(address, Protocol::Udp, SHORT, None), serve);
            assert_eq!(result, Err(Failure::Foreign));
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                let result = ask("192.0.2.1:53".parse().unwrap(), protocol, LONG, None).await;
                assert_eq!(result, Err(Failure::Absent));
            }
        });
    }

    #[test]
    fn a_lost_datagram_is_sent_again_from_the_same_port() {
        run_async(async {
            let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = server.local_addr().unwrap();
            let serve = async {
                let mut buffer = [0; 512];
                let (_, first) = server.recv_from(&mut buffer).await.unwrap();
                let (length, second) = server.recv_from(&mut buffer).await.unwrap();
                assert_eq!(first, second);
                server.send_to(&reply(&buffer[..length]), second).await.unwrap();
            };
            let (result, ()) = tokio::join!(ask(address, Protocol::Udp, LONG, None), serve);
            assert!(result.is_ok(), "{result:?}");
        });
    }
}
