//! An upstream that answers every question with one record, over UDP and TCP, until it is told otherwise; when each query
//! came is written down.

use std::collections::HashMap;
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::address::Address;
use crate::support::answer::{Answer, data};
use crate::support::upstream::{framed, read_framed};
use crate::support::wire::{A, NOERROR};
use crate::support::{Message, time};

/// How long the UDP loop waits before it looks whether it should stop.
const LOOK: Duration = Duration::from_millis(20);

/// The running upstream; it ends with this value.
pub struct Source {
    address: Address,
    shared: Arc<Shared>,
    loops: Vec<JoinHandle<()>>,
}

/// One query as it came.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: Instant,
    pub name: String,
    pub tcp: bool,
    pub answered: bool,
}

impl Arrival {
    /// Whether a client may have asked it: checks ask for the root's name servers.
    pub fn is_question(&self) -> bool {
        self.name != "."
    }
}

/// What several upstreams can answer together, in queries per second; what is above it is dropped.
pub struct Capacity {
    rate: f64,
    bucket: Mutex<(f64, Instant)>,
}

struct Shared {
    silent: AtomicBool,
    stopped: AtomicBool,
    ttl: AtomicU32,
    capacity: Mutex<Option<Arc<Capacity>>>,
    arrivals: Mutex<Vec<Arrival>>,
    open: Mutex<Vec<TcpStream>>,
}

impl Source {
    pub fn start(ttl: u32) -> Source {
        let shared = Shared {
            silent: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            ttl: AtomicU32::new(ttl),
            capacity: Mutex::default(),
            arrivals: Mutex::default(),
            open: Mutex::default(),
        };
        let mut source = Source { address: Address::fresh(), shared: Arc::new(shared), loops: Vec::new() };
        source.open();
        source
    }

    /// `IP:port`, as a Corefile's `forward` takes it.
    pub fn address(&self) -> String {
        self.address.dns().to_string()
    }

    pub fn ip(&self) -> String {
        self.address.ip().to_string()
    }

    /// Reads what comes and answers nothing, or answers again.
    pub fn silence(&self, on: bool) {
        self.shared.silent.store(on, SeqCst);
    }

    pub fn limit(&self, capacity: &Arc<Capacity>) {
        *self.shared.capacity.lock().expect("no panic under the lock") = Some(Arc::clone(capacity));
    }

    /// The TTL of answers from now on.
    pub fn set_ttl(&self, ttl: u32) {
        self.shared.ttl.store(ttl, SeqCst);
    }

    /// Closes port and connections: whoever asks is refused.
    pub fn close(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        drop(TcpStream::connect(self.address.dns()));
        self.shared.open().drain(..).for_each(|stream| stream.shutdown(Shutdown::Both).unwrap_or_default());
        self.loops.drain(..).for_each(|handle| handle.join().expect("a loop does not panic"));
    }

    /// Opens the port, at the start and after [`Source::close`].
    pub fn open(&mut self) {
        self.shared.stopped.store(false, SeqCst);
        let udp = UdpSocket::bind(self.address.dns()).expect("a UDP socket for the upstream");
        udp.set_read_timeout(Some(LOOK)).expect("a positive time");
        let tcp = time::until("a TCP socket for the upstream", || TcpListener::bind(self.address.dns()).ok());
        let (for_udp, for_tcp) = (Arc::clone(&self.shared), Arc::clone(&self.shared));
        self.loops.push(thread::spawn(move || for_udp.serve_datagrams(&udp)));
        self.loops.push(thread::spawn(move || for_tcp.accept(&tcp)));
    }

    /// Every query that came at or after the moment.
    pub fn since(&self, moment: Instant) -> Vec<Arrival> {
        let arrivals = self.shared.arrivals.lock().expect("no panic under the lock");
        arrivals.iter().filter(|arrival| arrival.at >= moment).cloned().collect()
    }

    /// How long after the moment the first question of a client was answered.
    pub fn first_answer_after(&self, moment: Instant) -> Option<Duration> {
        let found = self.since(moment).into_iter().find(|arrival| arrival.answered && arrival.is_question());
        found.map(|arrival| arrival.at - moment)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.close();
    }
}

impl Capacity {
    pub fn new(rate: u32) -> Arc<Capacity> {
        Arc::new(Capacity { rate: f64::from(rate), bucket: Mutex::new((0.0, time::now())) })
    }

    /// Whether there is room for one more; a tenth of a second of it can be saved up.
    fn take(&self, now: Instant) -> bool {
        let mut bucket = self.bucket.lock().expect("no panic under the lock");
        let filled = bucket.0 + self.rate * now.saturating_duration_since(bucket.1).as_secs_f64();
        let room = filled.min(self.rate / 10.0);
        let fits = room >= 1.0;
        *bucket = (if fits { room - 1.0 } else { room }, now);
        fits
    }
}

impl Shared {
    fn serve_datagrams(&self, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        while !self.stopped.load(SeqCst) {
            let Ok((length, peer)) = socket.recv_from(&mut buffer) else { continue };
            if let Some(answer) = Message::parse(&buffer[..length]).and_then(|query| self.answer(&query, false)) {
                // A reply to a socket that is closed by now is nobody's loss.
                drop(socket.send_to(&answer, peer));
            }
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stopped.load(SeqCst) {
                return;
            }
            let (Ok(mut stream), shared) = (stream, Arc::clone(self)) else { continue };
            self.open().push(stream.try_clone().expect("a second handle"));
            thread::spawn(move || {
                while let Some(query) = read_framed(&mut stream).and_then(|bytes| Message::parse(&bytes)) {
                    if let Some(answer) = shared.answer(&query, true)
                        && stream.write_all(&framed(&answer)).is_err()
                    {
                        return;
                    }
                }
            });
        }
    }

    /// Writes the query down and says what is sent, if anything.
    fn answer(&self, query: &Message, tcp: bool) -> Option<Vec<u8>> {
        let (now, question) = (time::now(), query.questions.first()?);
        let room = || self.capacity.lock().expect("no panic under the lock").as_ref().is_none_or(|all| all.take(now));
        let answered = !self.silent.load(SeqCst) && room();
        let arrival = Arrival { at: now, name: question.name.to_ascii_lowercase(), tcp, answered };
        self.arrivals.lock().expect("no panic under the lock").push(arrival);
        let answer = Answer::to(query).rcode(NOERROR);
        let answer = match question.kind {
            A => answer.own(A, self.ttl.load(SeqCst), &data(A)),
            _ => answer,
        };
        answered.then(|| answer.bytes())
    }

    fn open(&self) -> MutexGuard<'_, Vec<TcpStream>> {
        self.open.lock().expect("no panic under the lock")
    }
}

/// The most arrivals within any second.
pub fn busiest_second(arrivals: &[Arrival]) -> usize {
    let mut times: Vec<Instant> = arrivals.iter().map(|arrival| arrival.at).collect();
    times.sort_unstable();
    let mut first = 0;
    let counts = times.iter().enumerate().map(|(last, at)| {
        while *at - times[first] >= Duration::from_secs(1) {
            first += 1;
        }
        last - first + 1
    });
    counts.max().unwrap_or(0)
}

/// How often each question of a client came.
pub fn by_name(arrivals: &[Arrival]) -> HashMap<&str, usize> {
    let mut counts = HashMap::new();
    for arrival in arrivals.iter().filter(|arrival| arrival.is_question()) {
        *counts.entry(arrival.name.as_str()).or_default() += 1;
    }
    counts
}
