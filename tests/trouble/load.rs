//! Clients that ask at a fixed rate, whatever comes back, and write down what became of each query. Nothing is asked
//! twice: what gets no reply is lost.

use std::fmt::Write;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::wire::{A, NOERROR};
use crate::support::{Message, Query, time};

/// Sockets that take turns; each has query IDs for 65,536 queries.
const SOCKETS: usize = 8;
/// How long a reply may take: longer than any client waits.
const LATE: Duration = Duration::from_secs(6);
/// How long a receiver waits before it looks whether it should stop.
const LOOK: Duration = Duration::from_millis(50);

/// One query and what became of it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub number: usize,
    pub sent: Instant,
    pub reply: Option<Reply>,
}

#[derive(Clone, Debug)]
pub struct Reply {
    pub took: Duration,
    pub rcode: u16,
    pub errors: Vec<u16>,
    pub ttl: Option<u32>,
}

/// A load that is being sent.
pub struct Load {
    sockets: Vec<Arc<Socket>>,
    stop: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    receivers: Vec<JoinHandle<()>>,
}

struct Socket {
    socket: UdpSocket,
    /// By query ID.
    asked: Mutex<Vec<Asked>>,
}

/// What became of some queries, in the order sent.
pub struct Report(pub Vec<Asked>);

impl Load {
    /// Starts to ask for the A record of `name(0)`, `name(1)`, ... at this rate per second.
    pub fn start(server: SocketAddr, rate: u32, name: impl Fn(usize) -> String + Send + 'static) -> Load {
        let sockets: Vec<_> = (0..SOCKETS).map(|_| Arc::new(Socket::to(server))).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let receivers = sockets.iter().map(|socket| {
            let (socket, stop) = (Arc::clone(socket), Arc::clone(&stop));
            thread::spawn(move || socket.receive(&stop))
        });
        let receivers = receivers.collect();
        let sender = {
            let (sockets, stop) = (sockets.clone(), Arc::clone(&stop));
            thread::spawn(move || {
                let (start, mut number) = (time::now(), 0);
                while !stop.load(SeqCst) {
                    let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as usize;
                    for number in number..due {
                        sockets[number % SOCKETS].send(number, &name(number));
                    }
                    number = due.max(number);
                    time::pass(Duration::from_millis(1));
                }
            })
        };
        Load { sockets, stop, sender, receivers }
    }

    /// Stops asking, waits for late replies and adds up.
    pub fn stop(self) -> Report {
        self.stop.store(true, SeqCst);
        self.sender.join().expect("the sender does not panic");
        self.receivers.into_iter().for_each(|receiver| receiver.join().expect("a receiver does not panic"));
        let take = |socket: &Arc<Socket>| std::mem::take(&mut *socket.asked.lock().expect("no panic under the lock"));
        let mut all: Vec<Asked> = self.sockets.iter().flat_map(take).collect();
        all.sort_by_key(|asked| asked.sent);
        Report(all)
    }

    /// Asks for this many names, each once, and stops.
    pub fn run(server: SocketAddr, rate: u32, count: usize, name: impl Fn(usize) -> String + Send + 'static) -> Report {
        let load = Load::start(server, rate, name);
        time::pass(Duration::from_secs_f64(count as f64 / f64::from(rate)));
        load.stop()
    }
}

impl Socket {
    fn to(server: SocketAddr) -> Socket {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a free port");
        socket.connect(server).expect("a route to the server");
        socket.set_read_timeout(Some(LOOK)).expect("a positive time");
        Socket { socket, asked: Mutex::default() }
    }

    fn send(&self, number: usize, name: &str) {
        let id = {
            let mut asked = self.asked.lock().expect("no panic under the lock");
            asked.push(Asked { number, sent: time::now(), reply: None });
            u16::try_from(asked.len() - 1).expect("a load that ends before IDs come again")
        };
        let query = Query::new(name, A).edns(1232).with_id(id);
        self.socket.send(&query.bytes()).expect("the agent's port is open");
    }

    fn receive(&self, stop: &AtomicBool) {
        let mut buffer = [0; 1500];
        let mut last = time::now();
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => self.note(&buffer[..length]),
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
                }
            }
            if !stop.load(SeqCst) {
                last = time::now();
            } else if self.is_settled() || last.elapsed() > LATE {
                return;
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.asked.lock().expect("no panic under the lock").iter().all(|asked| asked.reply.is_some())
    }

    fn note(&self, raw: &[u8]) {
        let now = time::now();
        let message = Message::parse(raw).unwrap_or_else(|| panic!("not a well-formed reply: {raw:02x?}"));
        let mut asked = self.asked.lock().expect("no panic under the lock");
        let asked = asked.get_mut(usize::from(message.id)).expect("a reply to what was asked");
        let reply = Reply {
            took: now - asked.sent,
            rcode: message.rcode,
            errors: message.errors(),
            ttl: message.ttls().first().copied(),
        };
        assert!(asked.reply.replace(reply).is_none(), "one reply to one query");
    }
}

impl Reply {
    /// The answer, fresh or stale.
    pub fn is_good(&self) -> bool {
        self.rcode == NOERROR && self.ttl.is_some()
    }

    /// An expired answer, told as such (RFC 8767 section 4, RFC 8914 section 4.4).
    pub fn is_stale(&self) -> bool {
        self.is_good() && self.errors.contains(&3)
    }
}

impl Asked {
    pub fn is_good(&self) -> bool {
        self.reply.as_ref().is_some_and(Reply::is_good)
    }

    pub fn is_stale(&self) -> bool {
        self.reply.as_ref().is_some_and(Reply::is_stale)
    }
}

impl Report {
    /// Those sent at or after `from` and before `to`.
    pub fn between(&self, from: Instant, to: Instant) -> Report {
        Report(self.0.iter().filter(|asked| (from..to).contains(&asked.sent)).cloned().collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Queries without any reply.
    pub fn lost(&self) -> usize {
        self.0.iter().filter(|asked| asked.reply.is_none()).count()
    }

    /// Queries that got no answer: no reply, or one that says that something failed.
    pub fn failed(&self) -> usize {
        self.0.iter().filter(|asked| !asked.is_good()).count()
    }

    pub fn stale(&self) -> usize {
        self.0.iter().filter(|asked| asked.is_stale()).count()
    }

    /// The time within which this share of the queries got its reply; a lost query took for ever.
    pub fn percentile(&self, share: f64) -> Duration {
        let mut times: Vec<Duration> =
            self.0.iter().map(|asked| asked.reply.as_ref().map_or(Duration::MAX, |reply| reply.took)).collect();
        times.sort_unstable();
        let index = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        times.get(index).copied().unwrap_or_default()
    }

    /// A line for each part of this length: when it began after `zero`, how many were sent, failed and stale, and how long
    /// replies took.
    pub fn table(&self, zero: Instant, part: Duration) -> String {
        let signed = |at: Instant| {
            at.saturating_duration_since(zero).as_millis() as i64
                - zero.saturating_duration_since(at).as_millis() as i64
        };
        let part = part.as_millis() as i64;
        let mut text = "      ms   sent failed  stale    p50 ms    p99 ms    max ms\n".to_owned();
        for rows in self.0.chunk_by(|one, next| signed(one.sent).div_euclid(part) == signed(next.sent).div_euclid(part))
        {
            let begin = signed(rows[0].sent).div_euclid(part) * part;
            let rows = Report(rows.to_vec());
            let millis = |share| match rows.percentile(share) {
                Duration::MAX => "lost".to_owned(),
                took => format!("{:.1}", took.as_secs_f64() * 1e3),
            };
            let (p50, p99, most) = (millis(0.5), millis(0.99), millis(1.0));
            let (sent, failed, stale) = (rows.len(), rows.failed(), rows.stale());
            writeln!(text, "{begin:>8} {sent:>6} {failed:>6} {stale:>6} {p50:>9} {p99:>9} {most:>9}").expect("memory");
        }
        text
    }
}
