//! Clients that ask at a fixed rate, whatever comes back, and write down when each query was sent and answered and by
//! whom. Nothing is asked twice: what gets no answer is lost.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{Host, NAME};
use crate::support::wire::{A, AA, QR, RA, u16_at};
use crate::support::{Query, time};

/// How long answers to the last queries are waited for.
const LATE: Duration = Duration::from_secs(2);
/// How long a receiver waits before it looks whether it should stop.
const LOOK: Duration = Duration::from_millis(50);

/// Clients in one namespace, each with one connected UDP socket for all its queries; they take turns.
pub struct Load {
    pub from: Host,
    pub servers: Vec<SocketAddr>,
    /// Queries per second, all clients together.
    pub rate: u32,
    /// Clients of each server.
    pub clients: usize,
}

/// Who wrote a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    Agent,
    Cluster,
}

/// One query.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub server: SocketAddr,
    pub sent: Instant,
    pub answered: Option<(Instant, Who)>,
}

/// A load that is being sent.
pub struct Sending {
    clients: Vec<Arc<Client>>,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
}

/// What became of it.
pub struct Report {
    /// In the order sent.
    pub records: Vec<Record>,
    /// When a client was told that nobody listens.
    pub refused: Vec<Instant>,
}

struct Client {
    server: SocketAddr,
    socket: UdpSocket,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// By query ID.
    records: Vec<Record>,
    refused: Vec<Instant>,
}

impl Who {
    /// Reads the header of a reply; `None` for what neither would write.
    pub fn wrote(reply: &[u8]) -> Option<Who> {
        let flags = u16_at(reply, 2)?;
        match flags & (QR | AA | RA) {
            bits if flags & 0xf != 0 || bits & QR == 0 => None,
            bits if bits & RA != 0 => Some(Who::Agent),
            bits if bits & AA != 0 => Some(Who::Cluster),
            _ => None,
        }
    }
}

impl Load {
    /// Five thousand queries a second from many sockets.
    pub fn heavy(from: Host, servers: &[SocketAddr]) -> Load {
        Load { from, servers: servers.to_vec(), rate: 5000, clients: 24 / servers.len().max(1) }
    }

    /// One client for each server, so each keeps its one socket through whatever happens.
    pub fn pinned(from: Host, servers: &[SocketAddr]) -> Load {
        Load { from, servers: servers.to_vec(), rate: 250 * servers.len() as u32, clients: 1 }
    }

    pub fn start(self) -> Sending {
        let clients: Vec<Arc<Client>> = self.from.run(|| {
            let rounds = std::iter::repeat_n(&self.servers, self.clients).flatten();
            rounds.map(|server| Arc::new(Client::new(*server))).collect()
        });
        let stop = Arc::new(AtomicBool::new(false));
        let receivers = clients.iter().map(|client| {
            let (client, stop) = (Arc::clone(client), Arc::clone(&stop));
            thread::spawn(move || client.receive(&stop))
        });
        let receivers = receivers.collect();
        let sender = {
            let (clients, stop) = (clients.clone(), Arc::clone(&stop));
            thread::spawn(move || send(&clients, self.rate, &stop))
        };
        Sending { clients, stop, sender: Some(sender), receivers }
    }

    /// Sends for this long.
    pub fn send_for(self, duration: Duration) -> Report {
        let sending = self.start();
        time::pass(duration);
        sending.stop()
    }
}

/// Sends what is due, a few times each millisecond at most.
fn send(clients: &[Arc<Client>], rate: u32, stop: &AtomicBool) {
    let (start, mut sent) = (time::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        for number in sent..due {
            clients[number as usize % clients.len()].send();
        }
        sent = due.max(sent);
        time::pass(Duration::from_micros(500));
    }
}

impl Client {
    fn new(server: SocketAddr) -> Client {
        let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = UdpSocket::bind(any).expect("a free port");
        socket.connect(server).expect("a route to the server");
        socket.set_read_timeout(Some(LOOK)).expect("a positive time");
        Client { server, socket, seen: Mutex::default() }
    }

    fn send(&self) {
        let id = {
            let mut seen = self.seen.lock().expect("no panic under the lock");
            seen.records.push(Record { server: self.server, sent: time::now(), answered: None });
            u16::try_from(seen.records.len() - 1).expect("a load that ends before IDs come again")
        };
        let query = Query::new(NAME, A).with_id(id).bytes();
        // The report about an earlier query comes with the next call, which then sends nothing.
        if self.socket.send(&query).is_err() {
            self.note_refusal();
            let _ = self.socket.send(&query);
        }
    }

    fn receive(&self, stop: &AtomicBool) {
        let mut buffer = [0; 1500];
        let mut last = time::now();
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => self.note(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => self.note_refusal(),
            }
            if !stop.load(Ordering::Relaxed) {
                last = time::now();
            } else if self.is_settled() || last.elapsed() > LATE {
                return;
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.seen.lock().expect("no panic under the lock").records.iter().all(|record| record.answered.is_some())
    }

    fn note(&self, reply: &[u8]) {
        let who = Who::wrote(reply).unwrap_or_else(|| panic!("neither the agent nor the cluster wrote {reply:02x?}"));
        let id = usize::from(u16_at(reply, 0).expect("a header"));
        let mut seen = self.seen.lock().expect("no panic under the lock");
        let record = seen.records.get_mut(id).expect("an answer to what was asked");
        record.answered.get_or_insert((time::now(), who));
    }

    fn note_refusal(&self) {
        self.seen.lock().expect("no panic under the lock").refused.push(time::now());
    }
}

impl Sending {
    /// Stops asking, waits for late answers and adds up.
    pub fn stop(mut self) -> Report {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.take().expect("stopped once").join().expect("the sender does not panic");
        self.receivers.drain(..).for_each(|receiver| receiver.join().expect("a receiver does not panic"));
        let (mut records, mut refused) = (Vec::new(), Vec::new());
        for client in &self.clients {
            let mut seen = client.seen.lock().expect("no panic under the lock");
            records.append(&mut seen.records);
            refused.append(&mut seen.refused);
        }
        records.sort_by_key(|record| record.sent);
        refused.sort();
        Report { records, refused }
    }
}

impl Report {
    pub fn lost(&self) -> Vec<Record> {
        self.records.iter().filter(|record| record.answered.is_none()).copied().collect()
    }

    /// What was lost of the queries sent at or after the moment.
    pub fn lost_since(&self, moment: Instant) -> usize {
        self.lost().iter().filter(|record| record.sent >= moment).count()
    }

    /// How many answers each wrote.
    pub fn answers(&self) -> BTreeMap<Who, usize> {
        let mut answers = BTreeMap::new();
        for (_, who) in self.records.iter().filter_map(|record| record.answered) {
            *answers.entry(who).or_default() += 1;
        }
        answers
    }

    /// The longest time between two answers in a row, between the first and the last query.
    pub fn longest_gap(&self) -> Duration {
        self.gaps().into_iter().map(|(_, gap)| gap).max().unwrap_or_default()
    }

    /// Each answer or end of the load, and how long after it the next one was.
    pub fn gaps(&self) -> Vec<(Instant, Duration)> {
        let mut moments: Vec<Instant> = self.records.iter().filter_map(|record| Some(record.answered?.0)).collect();
        moments.extend(self.records.first().map(|record| record.sent));
        moments.extend(self.records.last().map(|record| record.sent));
        moments.sort();
        moments.windows(2).map(|pair| (pair[0], pair[1] - pair[0])).collect()
    }

    /// How long after the moment the first query sent after it was answered, at this server and by this writer.
    pub fn first_answer(&self, server: SocketAddr, who: Who, moment: Instant) -> Option<Duration> {
        let after = self.records.iter().filter(|record| record.server == server && record.sent >= moment);
        let answers = after.filter_map(|record| record.answered.filter(|(_, writer)| *writer == who));
        answers.map(|(at, _)| at - moment).min()
    }

    /// What happened, in the order sent: how many in a row were answered by whom, or lost, and when that began after the
    /// moment.
    pub fn story(&self, moment: Instant) -> String {
        let mut story = String::new();
        let outcomes = self.records.iter().map(|record| (record.sent, record.answered.map(|(_, who)| who)));
        let outcomes: Vec<(Instant, Option<Who>)> = outcomes.collect();
        for run in outcomes.chunk_by(|one, next| one.1 == next.1) {
            let (begin, outcome) = run[0];
            let at = begin.saturating_duration_since(moment).as_millis();
            let what = outcome.map_or("lost".to_owned(), |who| format!("{who:?}"));
            story.push_str(&format!("{at} ms: {} {what}; ", run.len()));
        }
        story
    }

    /// The slowest answer.
    pub fn slowest(&self) -> Duration {
        let times = self.records.iter().filter_map(|record| Some(record.answered?.0 - record.sent));
        times.max().unwrap_or_default()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} sent, {} lost, {} refusals, answered by {:?}, longest gap {:?}, slowest answer {:?}",
            self.records.len(),
            self.lost().len(),
            self.refused.len(),
            self.answers(),
            self.longest_gap(),
            self.slowest()
        )
    }
}
