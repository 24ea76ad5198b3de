//! An upstream that answers when it is told to.

use dnslet::dns::{header, question};
use std::collections::{HashSet, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

/// Holds every question until it is released, in the order they came. A repeated question counts once.
pub(super) struct Upstream {
    inner: Arc<Inner>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Inner {
    socket: UdpSocket,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    releases: usize,
    waiting: VecDeque<(Vec<u8>, Vec<Copy>)>,
    released: HashSet<Vec<u8>>,
}

/// A question as it came, and from where.
type Copy = (SocketAddr, Vec<u8>);

impl Upstream {
    pub(super) fn start() -> Upstream {
        let inner = Arc::new(Inner { socket: UdpSocket::bind("127.0.0.1:0").unwrap(), held: Mutex::default() });
        let other = inner.clone();
        let thread = thread::spawn(move || other.run());
        Upstream { inner, thread: Some(thread) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.inner.socket.local_addr().unwrap()
    }

    /// Lets so many questions go, those that wait first.
    pub(super) fn release(&self, n: usize) {
        let mut held = self.inner.held.lock().unwrap();
        held.releases += n;
        self.inner.go(&mut held);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // An empty datagram is the end.
        self.inner.socket.send_to(&[], self.address()).unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Inner {
    fn run(&self) {
        let mut buffer = [0; 4096];
        loop {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else { continue };
            if length == 0 {
                return;
            }
            let message = buffer[..length].to_vec();
            let asked = message[header::LENGTH..question::question_end(&message).unwrap()].to_ascii_lowercase();
            let mut held = self.held.lock().unwrap();
            if held.released.contains(&asked) {
                self.answer(&message, from);
            } else if let Some((_, copies)) = held.waiting.iter_mut().find(|(known, _)| *known == asked) {
                copies.push((from, message));
            } else {
                held.waiting.push_back((asked, vec![(from, message)]));
            }
            self.go(&mut held);
        }
    }

    fn go(&self, held: &mut Held) {
        while held.releases > 0
            && let Some((asked, copies)) = held.waiting.pop_front()
        {
            held.releases -= 1;
            held.released.insert(asked);
            for (from, message) in copies {
                self.answer(&message, from);
            }
        }
    }

    /// NODATA.
    fn answer(&self, query: &[u8], to: SocketAddr) {
        let mut reply = query[..question::question_end(query).unwrap()].to_vec();
        reply[2] |= header::QR;
        reply[3] = header::RA;
        reply[6..header::LENGTH].fill(0);
        self.socket.send_to(&reply, to).unwrap();
    }
}
