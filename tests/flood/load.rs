//! The traffic of a flood: clients that send at a rate, clients that want every answer, and an upstream that is fast.
//! Each is one thread with plain sockets; they share the machine with the agent and print what rate they reached.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::address::Address;
use crate::support::time;
use crate::support::wire::{self, A, NOERROR, NXDOMAIN, RA, RD};
use crate::support::{Query, message};

/// Queries sent between two looks at the clock.
const BURST: u64 = 64;
/// How late a late answer is: less than what has an upstream taken for dead.
const LATE: Duration = Duration::from_millis(1500);
/// A quiet client that has no reply after this long has lost its query: stub resolvers give up at five seconds.
const LOST: Duration = Duration::from_secs(5);
/// It asks once more after this long: a datagram may get lost on a busy machine.
const AGAIN: Duration = Duration::from_millis(2400);

/// A thread that goes on until it is told to stop, and what it counted.
pub struct Running<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

/// What became of the queries of a flood.
#[derive(Debug, Default)]
pub struct Sent {
    pub seconds: f64,
    pub sent: u64,
    /// Replies by RCODE.
    pub replies: [u64; 16],
}

/// What became of the queries of quiet clients.
#[derive(Debug, Default)]
pub struct Quiet {
    pub asked: u64,
    pub asked_again: u64,
    pub lost: u64,
    /// Replies that are no answer.
    pub refused: u64,
    pub slowest: Duration,
}

/// A query of a quiet client that waits for its reply.
struct Asked {
    query: Vec<u8>,
    since: Instant,
    again: bool,
}

/// A query whose name has runs of `#`, which are numbers.
pub struct Template {
    bytes: Vec<u8>,
    places: Vec<(usize, usize)>,
}

impl<T: Send + 'static> Running<T> {
    pub fn start(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Running<T> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        Running { stop, thread: thread::spawn(move || work(&flag)) }
    }

    pub fn stop(self) -> T {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the load does not panic")
    }
}

impl Sent {
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.seconds
    }
}

impl Template {
    pub fn new(name: &str) -> Template {
        let bytes = Query::new(name, A).bytes();
        let mut places: Vec<(usize, usize)> = Vec::new();
        for at in (12..bytes.len()).filter(|&at| bytes[at] == b'#') {
            match places.last_mut() {
                Some((start, length)) if *start + *length == at => *length += 1,
                _ => places.push((at, 1)),
            }
        }
        Template { bytes, places }
    }

    /// The query with this number in every place, and as its ID.
    pub fn fill(&mut self, number: u64) -> &[u8] {
        for (start, length) in &self.places {
            let mut rest = number;
            for digit in self.bytes[*start..start + length].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
        }
        self.bytes[..2].copy_from_slice(&(number as u16).to_be_bytes());
        &self.bytes
    }
}

/// Sends `rate` queries a second from these addresses in turn, the numbers going up to `numbers` and then from 0 again.
pub fn flood(from: &[IpAddr], server: SocketAddr, rate: u64, name: &str, numbers: u64) -> Running<Sent> {
    let sockets: Vec<UdpSocket> = from.iter().map(|ip| client(*ip, server)).collect();
    let mut template = Template::new(name);
    Running::start(move |stop| {
        let (start, mut count, mut buffer) = (time::now(), Sent::default(), [0; 1500]);
        while !stop.load(Relaxed) {
            let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
            for _ in 0..due.saturating_sub(count.sent).min(BURST) {
                let socket = &sockets[count.sent as usize % sockets.len()];
                // A full buffer of the kernel is the flood's own loss.
                let _ = socket.send(template.fill(count.sent % numbers));
                count.sent += 1;
            }
            for socket in &sockets {
                while socket.recv(&mut buffer).is_ok() {
                    count.replies[usize::from(buffer[3] & 15)] += 1;
                }
            }
            if due.saturating_sub(count.sent) < BURST {
                time::pass(Duration::from_millis(1));
            }
        }
        count.seconds = start.elapsed().as_secs_f64();
        count
    })
}

/// Each of these clients asks every `pause` for a name that all ask for, and where `fresh` by turns for one that nobody
/// asked for before.
pub fn quiet(from: &[IpAddr], server: SocketAddr, pause: Duration, fresh: bool) -> Running<Quiet> {
    let sockets: Vec<UdpSocket> = from.iter().map(|ip| client(*ip, server)).collect();
    Running::start(move |stop| {
        let (mut quiet, start) = (Quiet::default(), time::now());
        let (mut known, mut unknown) = (Template::new("h###.hot.test."), Template::new("q########.quiet.test."));
        let mut waiting = HashMap::new();
        while !stop.load(Relaxed) || !waiting.is_empty() {
            let due = (start.elapsed().as_secs_f64() / pause.as_secs_f64() * sockets.len() as f64) as u64;
            while quiet.asked < due && !stop.load(Relaxed) {
                let (which, number) = (quiet.asked as usize % sockets.len(), quiet.asked / 2 + quiet.asked % 2);
                let query = if !fresh || (quiet.asked / sockets.len() as u64).is_multiple_of(2) {
                    known.fill(number % super::HOT)
                } else {
                    unknown.fill(quiet.asked)
                };
                let id = wire::u16_at(query, 0).expect("a header");
                sockets[which].send(query).expect("the agent's port is open");
                waiting.insert((which, id), Asked { query: query.to_vec(), since: time::now(), again: false });
                quiet.asked += 1;
            }
            for (which, socket) in sockets.iter().enumerate() {
                quiet.receive(which, socket, &mut waiting);
            }
            let before = waiting.len();
            waiting.retain(|_, asked| asked.since.elapsed() < LOST);
            for ((which, _), asked) in &mut waiting {
                if !asked.again && asked.since.elapsed() >= AGAIN {
                    sockets[*which].send(&asked.query).expect("the agent's port is open");
                    asked.again = true;
                    quiet.asked_again += 1;
                }
            }
            quiet.lost += (before - waiting.len()) as u64;
            time::pass(Duration::from_millis(1));
        }
        quiet
    })
}

impl Quiet {
    fn receive(&mut self, which: usize, socket: &UdpSocket, waiting: &mut HashMap<(usize, u16), Asked>) {
        let mut buffer = [0; 1500];
        while let Ok(length) = socket.recv(&mut buffer) {
            let reply = message::Message::parse(&buffer[..length]).expect("a well-formed reply");
            let Some(asked) = waiting.remove(&(which, reply.id)) else { continue };
            self.slowest = self.slowest.max(asked.since.elapsed());
            if reply.rcode != NOERROR || reply.answers.is_empty() {
                self.refused += 1;
            }
        }
    }
}

/// An upstream that answers at once, and where a label is `late` after [`LATE`]: NXDOMAIN under `flood.test`, an address
/// otherwise. It counts the questions under `hot.test`, and all.
pub struct Fast {
    address: Address,
    pub hot: Arc<AtomicU64>,
    pub all: Arc<AtomicU64>,
    /// Ends with this value.
    running: Option<Running<()>>,
}

impl Fast {
    pub fn start() -> Fast {
        let address = Address::fresh();
        let socket = UdpSocket::bind(address.dns()).expect("a socket for the upstream");
        // As much as the system lets it have.
        socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20).expect("a larger buffer");
        socket.set_read_timeout(Some(Duration::from_millis(10))).expect("a positive time");
        let (hot, all) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (hot_seen, all_seen) = (Arc::clone(&hot), Arc::clone(&all));
        let running = Running::start(move |stop| {
            let (mut buffer, mut later) = ([0; 1500], VecDeque::new());
            while !stop.load(Relaxed) {
                let due = |(at, ..): &mut (Instant, Vec<u8>, SocketAddr)| time::now() >= *at;
                while let Some((_, reply, peer)) = later.pop_front_if(due) {
                    // Who does not wait any more needs no answer.
                    let _ = socket.send_to(&reply, peer);
                }
                let (length, peer) = match socket.recv_from(&mut buffer) {
                    Ok(received) => received,
                    Err(error) => {
                        let usual = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::ConnectionRefused];
                        assert!(usual.contains(&error.kind()), "{error}");
                        continue;
                    }
                };
                let end = 12 + buffer[12..length].iter().position(|&octet| octet == 0).expect("a name ends") + 5;
                let name = &buffer[12..end - 4];
                all_seen.fetch_add(1, Relaxed);
                hot_seen.fetch_add(u64::from(name.ends_with(&wire::name("hot.test."))), Relaxed);
                let reply = reply(&buffer[..end], name);
                if name.windows(5).any(|label| label == b"\x04late") {
                    later.push_back((time::now() + LATE, reply, peer));
                } else {
                    let _ = socket.send_to(&reply, peer);
                }
            }
        });
        Fast { address, hot, all, running: Some(running) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address.dns()
    }
}

impl Drop for Fast {
    fn drop(&mut self) {
        self.running.take().expect("it runs until now").stop();
    }
}

fn reply(question: &[u8], name: &[u8]) -> Vec<u8> {
    let denied = name.ends_with(&wire::name("flood.test."));
    let rcode = if denied { NXDOMAIN } else { NOERROR };
    let mut bytes = question[..2].to_vec();
    for word in [0x8000 | RD | RA | rcode, 1, u16::from(!denied), u16::from(denied), 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(&question[12..]);
    bytes.extend(match denied {
        true => wire::record(&wire::name("flood.test."), wire::SOA, wire::IN, 300, &wire::soa(300)),
        false => wire::record(&[0xc0, 12], A, wire::IN, 300, &[192, 0, 2, 1]),
    });
    bytes
}

fn client(from: IpAddr, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).expect("a port of a loopback address");
    socket.connect(server).expect("a route to the agent");
    socket.set_nonblocking(true).expect("a socket");
    socket
}
