//! The cluster's DNS: servers that answer every A and AAAA question at once and count them; only external names with a
//! suffix of the cluster's do not exist. Their answers are authoritative and dnslet's never are, so a client can tell who
//! answered.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::host::Host;

/// Seconds that an answer may be kept.
const TTL: u32 = 30;
/// Seconds that a denial may be kept, as CoreDNS has it.
const DENIAL_TTL: u32 = 5;

pub struct ClusterDns {
    queries: Arc<AtomicUsize>,
}

impl ClusterDns {
    /// Serves on port 53 of these addresses of the host until the process ends. Each answer takes `distance`, as if
    /// there was a network in between.
    pub fn start(host: &Host, addresses: &[IpAddr], distance: Duration) -> ClusterDns {
        let queries = Arc::new(AtomicUsize::new(0));
        for &address in addresses {
            let server = SocketAddr::new(address, 53);
            let sockets = move || (UdpSocket::bind(server), TcpListener::bind(server));
            let (udp, tcp) = host.run(sockets);
            let (udp, tcp) = (udp.expect("port 53 over UDP"), tcp.expect("port 53 over TCP"));
            let (for_udp, for_tcp) = (Arc::clone(&queries), Arc::clone(&queries));
            thread::spawn(move || datagrams(&udp, &for_udp, distance));
            thread::spawn(move || streams(&tcp, &for_tcp, distance));
        }
        ClusterDns { queries }
    }

    /// How many queries came so far.
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::SeqCst)
    }
}

fn datagrams(socket: &UdpSocket, queries: &AtomicUsize, distance: Duration) {
    let mut buffer = [0; 1500];
    loop {
        // An error here is an ICMP message about an earlier reply: a client that left.
        let Ok((length, client)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(reply) = answer(&buffer[..length]) {
            queries.fetch_add(1, Ordering::SeqCst);
            pass(distance);
            drop(socket.send_to(&reply, client));
        }
    }
}

fn streams(listener: &TcpListener, queries: &Arc<AtomicUsize>, distance: Duration) {
    for stream in listener.incoming().flatten() {
        let queries = Arc::clone(queries);
        thread::spawn(move || stream_of_queries(stream, &queries, distance));
    }
}

/// Ends with `None` when the client hangs up.
fn stream_of_queries(mut stream: TcpStream, queries: &AtomicUsize, distance: Duration) -> Option<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query).ok()?;
        let reply = answer(&query)?;
        queries.fetch_add(1, Ordering::SeqCst);
        pass(distance);
        let length = u16::try_from(reply.len()).ok()?;
        stream.write_all(&[&length.to_be_bytes()[..], &reply].concat()).ok()?;
    }
}

#[allow(clippy::disallowed_methods, reason = "a distance is nothing but time")]
fn pass(distance: Duration) {
    if !distance.is_zero() {
        thread::sleep(distance);
    }
}

/// The reply to a query with one question; `None` for anything else.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(query[end]);
    }
    end += 5;
    let data: &[u8] = match query.get(end - 4..end)? {
        [0, 1, 0, 1] => &[10, 96, 7, 7],
        [0, 28, 0, 1] => &[0xfd, 0x96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
        _ => &[],
    };
    let name = &query[12..end - 4];
    let missing = name.ends_with(b"\x07cluster\x05local\0") && name.windows(4).any(|label| label == b"\x03com");
    let count = u8::from(!missing && !data.is_empty());
    // QR, AA and the client's RD; RA.
    let mut reply = vec![query[0], query[1], 0x84 | query[2] & 1, 0x80, 0, 1, 0, count, 0, 1 - count, 0, 0];
    reply.extend(&query[12..end]);
    if missing {
        reply[3] |= 3;
    }
    if count == 0 {
        // The SOA of the zone, or of the root: two names that are the root and five numbers, the last a TTL.
        reply.extend(if missing { [0xc0, u8::try_from(end - 4 - 15).ok()?].to_vec() } else { vec![0] });
        reply.extend([0, 6, 0, 1]);
        reply.extend(DENIAL_TTL.to_be_bytes());
        reply.extend([0, 22, 0, 0]);
        reply.extend([1, 7200, 1800, 86400, DENIAL_TTL].map(u32::to_be_bytes).concat());
    }
    if count == 1 {
        reply.extend([0xc0, 12]);
        reply.extend(&query[end - 4..end]);
        reply.extend(TTL.to_be_bytes());
        reply.extend([0, u8::try_from(data.len()).ok()?]);
        reply.extend(data);
    }
    Some(reply)
}
