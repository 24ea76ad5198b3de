//! A scripted upstream: a resolver on one loopback address, UDP and TCP, that picks what to do from the first label of
//! the question (see `answer`) and records every query it gets.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use super::address::Address;
use super::answer::{self, Act};
use super::message::Message;
use super::time;

/// One query as it reached the upstream.
#[derive(Clone, Debug)]
pub struct Seen {
    pub message: Message,
    pub tcp: bool,
    /// Counts TCP connections from 1; 0 for UDP.
    pub connection: usize,
    pub peer: SocketAddr,
}

/// The running upstream; it ends with this value.
pub struct Upstream {
    address: Address,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    stopped: AtomicBool,
    connections: AtomicUsize,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    counts: HashMap<String, usize>,
    changes: HashMap<String, String>,
    released: bool,
    open: Vec<(usize, TcpStream)>,
}

impl Upstream {
    pub fn start() -> Upstream {
        Upstream::on(Address::fresh())
    }

    /// Starts on an address the test chose.
    pub fn on(address: Address) -> Upstream {
        let udp = UdpSocket::bind(address.dns()).expect("a UDP socket for the scripted upstream");
        let tcp = TcpListener::bind(address.dns()).expect("a TCP socket for the scripted upstream");
        let shared = Arc::new(Shared::default());
        let (for_udp, for_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || for_udp.serve_udp(&udp));
        thread::spawn(move || for_tcp.accept(&tcp));
        Upstream { address, shared }
    }

    /// `IP:port`, as a Corefile's `forward` takes it.
    pub fn address(&self) -> SocketAddr {
        self.address.dns()
    }

    /// From now on the name is answered like this label.
    pub fn change(&self, name: &str, label: &str) {
        self.lock().changes.insert(name.to_ascii_lowercase(), label.to_owned());
    }

    /// Sends what `hold` answers kept back, now and from now on.
    pub fn release(&self) {
        self.lock().released = true;
        self.shared.changed.notify_all();
    }

    /// Every query seen for the name, in order.
    pub fn seen(&self, name: &str) -> Vec<Seen> {
        let wanted = |seen: &&Seen| seen.message.questions[0].name.eq_ignore_ascii_case(name);
        self.lock().seen.iter().filter(wanted).cloned().collect()
    }

    /// How many queries there were for the name.
    pub fn count(&self, name: &str) -> usize {
        self.lock().counts.get(&name.to_ascii_lowercase()).copied().unwrap_or(0)
    }

    /// Every query seen, whatever the name.
    pub fn all(&self) -> Vec<Seen> {
        self.lock().seen.clone()
    }

    /// How many TCP connections were opened so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Closes every TCP connection that is open now.
    pub fn hang_up(&self) {
        for (_, stream) in self.lock().open.drain(..) {
            stream.shutdown(Shutdown::Both).unwrap_or_default();
        }
    }

    /// Waits until the name has been asked for `count` times.
    #[track_caller]
    pub fn wait_for(&self, name: &str, count: usize) {
        let name = name.to_ascii_lowercase();
        let enough = |state: &mut State| state.counts.get(&name).copied().unwrap_or(0) < count;
        let (state, late) = self
            .shared
            .changed
            .wait_timeout_while(self.lock(), time::PATIENCE, enough)
            .expect("no panic under the lock");
        let seen = state.counts.get(&name).copied().unwrap_or(0);
        assert!(!late.timed_out(), "the upstream saw {seen} of {count} queries for {name}");
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().expect("no panic under the lock")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes both loops; a failure means they are gone already.
        if let Ok(waker) = UdpSocket::bind((self.address.ip(), 0)) {
            waker.send_to(&[], self.address.dns()).unwrap_or_default();
        }
        drop(TcpStream::connect(self.address.dns()));
        self.hang_up();
        self.release();
    }
}

impl Shared {
    fn serve_udp(self: &Arc<Self>, socket: &UdpSocket) {
        let mut buffer = [0; 65_535];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let Some(message) = Message::parse(&buffer[..length]).filter(|message| message.questions.len() == 1) else {
                continue;
            };
            for act in self.note(Seen { message, tcp: false, connection: 0, peer }) {
                // A reply to a socket that is closed by now is nobody's loss.
                match act {
                    Act::Send(bytes) => drop(socket.send_to(&bytes, peer)),
                    Act::SendFromOtherPort(bytes) => {
                        let ip = socket.local_addr().expect("a bound socket").ip();
                        let other = UdpSocket::bind((ip, 0)).expect("another port");
                        drop(other.send_to(&bytes, peer));
                    }
                    Act::Later(..) | Act::Hold(_) => {
                        let (shared, socket) = (Arc::clone(self), socket.try_clone().expect("a second handle"));
                        thread::spawn(move || drop(socket.send_to(&shared.when_due(act), peer)));
                    }
                    Act::Close => {}
                }
            }
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let (Ok(stream), shared) = (stream, Arc::clone(self)) else { continue };
            let number = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
            thread::spawn(move || shared.serve_stream(stream, number));
        }
    }

    fn serve_stream(self: &Arc<Self>, mut stream: TcpStream, connection: usize) {
        let peer = stream.peer_addr().expect("a connected stream");
        let handle = stream.try_clone().expect("a second handle");
        self.state.lock().expect("no panic under the lock").open.push((connection, handle));
        while let Some(message) = read_framed(&mut stream).and_then(|bytes| Message::parse(&bytes)) {
            for act in self.note(Seen { message, tcp: true, connection, peer }) {
                match act {
                    Act::Send(bytes) | Act::SendFromOtherPort(bytes) => drop(stream.write_all(&framed(&bytes))),
                    Act::Later(..) | Act::Hold(_) => {
                        let (shared, mut stream) = (Arc::clone(self), stream.try_clone().expect("a second handle"));
                        thread::spawn(move || drop(stream.write_all(&framed(&shared.when_due(act)))));
                    }
                    Act::Close => drop(stream.shutdown(Shutdown::Both)),
                }
            }
        }
        self.state.lock().expect("no panic under the lock").open.retain(|(number, _)| *number != connection);
    }

    /// Records the query and decides what to do with it.
    fn note(&self, seen: Seen) -> Vec<Act> {
        let name = seen.message.questions[0].name.to_ascii_lowercase();
        let mut state = self.state.lock().expect("no panic under the lock");
        let count = state.counts.entry(name.clone()).or_default();
        *count += 1;
        let count = *count;
        let label = state.changes.get(&name).cloned();
        let label = label.unwrap_or_else(|| name.split('.').next().unwrap_or_default().to_owned());
        let acts = answer::acts(&label, &seen.message, seen.tcp, count);
        state.seen.push(seen);
        self.changed.notify_all();
        acts
    }

    /// The bytes of a late answer, once it is due.
    fn when_due(&self, act: Act) -> Vec<u8> {
        match act {
            Act::Later(delay, bytes) => {
                time::pass(delay);
                bytes
            }
            Act::Hold(bytes) => {
                let state = self.state.lock().expect("no panic under the lock");
                let waited = self.changed.wait_while(state, |state| !state.released);
                drop(waited);
                bytes
            }
            Act::Send(bytes) | Act::SendFromOtherPort(bytes) => bytes,
            Act::Close => Vec::new(),
        }
    }
}

/// A message with its two-octet length (RFC 1035 section 4.2.2).
pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).expect("a message of at most 65535 octets");
    [&length.to_be_bytes()[..], message].concat()
}

/// Reads one message with its length; `None` at the end of the stream or on a time-out.
pub fn read_framed(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}
