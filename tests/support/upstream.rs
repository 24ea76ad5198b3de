//! A scripted upstream: a resolver on one loopback address, over UDP, TCP and, where it is asked for, TLS, that picks
//! what to do from the first label of the question (see `answer`) and records every query it gets.

use std::collections::HashMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread;
use std::time::Instant;

use rustls::ServerConfig;

use super::address::Address;
use super::answer::{self, Act, Arrival};
use super::certificates::Identity;
use super::line::{Input, Line};
use super::message::Message;
use super::time;

/// The port that speaks DNS over TLS.
const TLS: u16 = 5853;

/// One query as it reached the upstream.
#[derive(Clone, Debug)]
pub struct Seen {
    pub message: Message,
    /// TCP or TLS.
    pub tcp: bool,
    pub tls: bool,
    /// Counts TCP connections from 1; 0 for UDP.
    pub connection: usize,
    pub peer: SocketAddr,
    pub at: Instant,
}

/// The running upstream; it ends with this value.
pub struct Upstream {
    address: Address,
    identity: Option<Identity>,
    shared: Arc<Shared>,
}

/// What happens to TCP connections before anything is read from them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    #[default]
    Open,
    /// They end with RST.
    Reset,
    /// They are held, and nothing is read: no TLS handshake, no answer.
    Mute,
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
    /// Like which label every name is answered that has no change of its own.
    change_all: Option<String>,
    released: bool,
    /// Nothing that comes over UDP is seen.
    deaf: bool,
    door: Door,
    open: Vec<(usize, Weak<Line>)>,
}

impl Upstream {
    pub fn start() -> Upstream {
        Upstream::on(Address::fresh())
    }

    /// The same, and over TLS with a certificate of its own.
    pub fn with_tls() -> Upstream {
        let mut upstream = Upstream::start();
        let identity = Identity::of(upstream.address.ip());
        let listener = TcpListener::bind(upstream.tls_address()).expect("a TLS socket for the scripted upstream");
        let (shared, config) = (Arc::clone(&upstream.shared), Arc::clone(&identity.config));
        thread::spawn(move || shared.accept(&listener, Some(&config)));
        upstream.identity = Some(identity);
        upstream
    }

    /// Starts on an address the test chose.
    pub fn on(address: Address) -> Upstream {
        let udp = UdpSocket::bind(address.dns()).expect("a UDP socket for the scripted upstream");
        let tcp = TcpListener::bind(address.dns()).expect("a TCP socket for the scripted upstream");
        let shared = Arc::new(Shared::default());
        let (for_udp, for_tcp) = (Arc::clone(&shared), Arc::clone(&shared));
        thread::spawn(move || for_udp.serve_udp(&udp));
        thread::spawn(move || for_tcp.accept(&tcp, None));
        Upstream { address, identity: None, shared }
    }

    /// `IP:port`, as a Corefile's `forward` takes it.
    pub fn address(&self) -> SocketAddr {
        self.address.dns()
    }

    /// `IP:port` of DNS over TLS, to be written behind `tls://`.
    pub fn tls_address(&self) -> SocketAddr {
        self.address.port(TLS)
    }

    /// The file with the certificate of the authority that vouches for this upstream.
    pub fn authority(&self) -> PathBuf {
        self.identity.as_ref().expect("started with TLS").authority()
    }

    /// From now on connections fare like this.
    pub fn door(&self, door: Door) {
        self.lock().door = door;
    }

    /// From now on UDP is filtered on the way here, or no longer.
    pub fn filter_udp(&self, filtered: bool) {
        self.lock().deaf = filtered;
    }

    /// From now on the name is answered like this label.
    pub fn change(&self, name: &str, label: &str) {
        self.lock().changes.insert(name.to_ascii_lowercase(), label.to_owned());
    }

    /// From now on every name, those of checks included, is answered like this label, or like its own again.
    pub fn change_all(&self, label: Option<&str>) {
        self.lock().change_all = label.map(str::to_owned);
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
        let open = std::mem::take(&mut self.lock().open);
        open.iter().filter_map(|(_, line)| line.upgrade()).for_each(|line| line.close());
    }

    /// Closes the ports for good; whoever asks is refused.
    pub fn close_ports(&self) {
        self.stop();
        let tls = || self.identity.is_some() && TcpStream::connect(self.tls_address()).is_ok();
        time::until("closed ports", || {
            let open = UdpSocket::bind(self.address()).is_err() || TcpStream::connect(self.address()).is_ok() || tls();
            (!open).then_some(())
        });
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

    fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the loops; a failure means they are gone already.
        if let Ok(waker) = UdpSocket::bind((self.address.ip(), 0)) {
            waker.send_to(&[], self.address()).unwrap_or_default();
        }
        drop(TcpStream::connect(self.address()));
        if self.identity.is_some() {
            drop(TcpStream::connect(self.tls_address()));
        }
        self.hang_up();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().expect("no panic under the lock")
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop();
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
            if self.state.lock().expect("no panic under the lock").deaf {
                continue;
            }
            let Some(message) = Message::parse(&buffer[..length]).filter(|message| message.questions.len() == 1) else {
                continue;
            };
            for act in self.note(Seen { message, tcp: false, tls: false, connection: 0, peer, at: time::now() }, 1) {
                // A reply to a socket that is closed by now is nobody's loss.
                match act {
                    Act::Send(bytes) | Act::Trickle(_, bytes) => drop(socket.send_to(&bytes, peer)),
                    Act::SendFromOtherPort(bytes) => {
                        let ip = socket.local_addr().expect("a bound socket").ip();
                        let other = UdpSocket::bind((ip, 0)).expect("another port");
                        drop(other.send_to(&bytes, peer));
                    }
                    Act::Later(..) | Act::Hold(_) => {
                        let (shared, socket) = (Arc::clone(self), socket.try_clone().expect("a second handle"));
                        thread::spawn(move || drop(socket.send_to(&shared.when_due(act), peer)));
                    }
                    Act::Close | Act::Reset | Act::Part(_) => {}
                }
            }
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, tls: Option<&Arc<ServerConfig>>) {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let Ok(stream) = stream else { continue };
            let Ok(peer) = stream.peer_addr() else { continue };
            let number = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
            let line = Line::new(stream, tls);
            match self.state.lock().expect("no panic under the lock").door {
                Door::Open => {}
                Door::Reset => {
                    line.will_reset();
                    continue;
                }
                Door::Mute => {
                    held.push(line);
                    continue;
                }
            }
            let (shared, secure) = (Arc::clone(self), tls.is_some());
            thread::spawn(move || shared.serve(&Arc::new(line), number, peer, secure));
        }
    }

    fn serve(self: &Arc<Self>, line: &Arc<Line>, connection: usize, peer: SocketAddr, tls: bool) {
        let (mut input, mut count) = (Input::of(line), 0);
        self.state.lock().expect("no panic under the lock").open.push((connection, Arc::downgrade(line)));
        'connection: while let Some(message) = read_framed(&mut input).and_then(|bytes| Message::parse(&bytes)) {
            count += 1;
            for act in self.note(Seen { message, tcp: true, tls, connection, peer, at: time::now() }, count) {
                match act {
                    Act::Send(bytes) | Act::SendFromOtherPort(bytes) => line.write(&framed(&bytes)),
                    Act::Part(octets) => line.write(&octets),
                    Act::Later(..) | Act::Hold(_) | Act::Trickle(..) => self.write_when_due(line, act),
                    Act::Close => line.close(),
                    Act::Reset => {
                        line.will_reset();
                        break 'connection;
                    }
                }
            }
        }
        self.state.lock().expect("no panic under the lock").open.retain(|(number, _)| *number != connection);
    }

    /// Waits on a thread of its own, which does not keep the connection open.
    fn write_when_due(self: &Arc<Self>, line: &Arc<Line>, act: Act) {
        let (shared, line) = (Arc::clone(self), Arc::downgrade(line));
        thread::spawn(move || {
            let pause = if let Act::Trickle(pause, _) = act { Some(pause) } else { None };
            let bytes = framed(&shared.when_due(act));
            let Some(line) = line.upgrade() else { return };
            match pause {
                Some(pause) => line.trickle(&bytes, pause),
                None => line.write(&bytes),
            }
        });
    }

    /// Records the query, the one of this number on its connection, and decides what to do with it.
    fn note(&self, seen: Seen, on_connection: usize) -> Vec<Act> {
        let name = seen.message.questions[0].name.to_ascii_lowercase();
        let mut state = self.state.lock().expect("no panic under the lock");
        let count = state.counts.entry(name.clone()).or_default();
        *count += 1;
        let count = *count;
        let label = state.changes.get(&name).or(state.change_all.as_ref()).cloned();
        let label = label.unwrap_or_else(|| name.split('.').next().unwrap_or_default().to_owned());
        let acts = answer::acts(&label, &Arrival { message: &seen.message, tcp: seen.tcp, count, on_connection });
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
            Act::Send(bytes) | Act::SendFromOtherPort(bytes) | Act::Trickle(_, bytes) | Act::Part(bytes) => bytes,
            Act::Close | Act::Reset => Vec::new(),
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
