//! Listening sockets as they are handed in, what a worker keeps for each, and the taking in of connections.

use super::limits::{Limits, Refusal};
use super::local::{Bell, Local};
use super::stream;
use super::tether::Tether;
use crate::observe::Event;
use crate::resolve::{self, Resolver};
use crate::sys::clock;
use crate::sys::sockopt;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{self, IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};

/// The sockets of one listen address for one worker, bound by whoever starts the server.
#[derive(Debug)]
pub struct Listener {
    /// Index into `Routes.listens` of the snapshot in force. Later snapshots are asked by address.
    pub listen: u16,
    /// The address as in `Routes.listens`.
    pub local: SocketAddr,
    /// This worker's own socket (SO_REUSEPORT). A wildcard one must report local addresses, see [`sockopt::udp`].
    pub udp: Option<net::UdpSocket>,
    /// A duplicate of the address's listening socket.
    pub tcp: Option<net::TcpListener>,
}

/// From so long before its end on, a connection that is kept busy by its client is asked nothing more.
const LAST: Duration = Duration::from_secs(2);

/// What a worker keeps for one listen address.
pub(crate) struct Listening {
    pub(crate) address: SocketAddr,
    pub(crate) snapshot: RefCell<Snapshot>,
    pub(crate) udp_bell: Bell,
    pub(crate) tcp_bell: Bell,
    until: Cell<Option<Instant>>,
}

/// What the Corefile allows a connection.
pub(crate) struct Times {
    pub(crate) read: Duration,
    pub(crate) write: Duration,
    pub(crate) idle: Duration,
    /// How many messages it may carry.
    pub(crate) messages: u32,
}

/// The configuration in force for one listen address.
pub(crate) struct Snapshot {
    newest: arc_swap::Cache<Arc<resolve::Shared>, Arc<Resolver>>,
    /// The one last looked at. `newest` keeps it alive, so the address is not that of another one.
    seen: *const Resolver,
    /// The one in force here: the newest that has this address.
    held: Arc<Resolver>,
    listen: u16,
}

impl Listening {
    pub(crate) fn new(local: &Local, address: SocketAddr, listen: u16) -> Rc<Self> {
        Rc::new(Self {
            address,
            snapshot: RefCell::new(Snapshot::new(local.resolver.clone(), listen)),
            udp_bell: Bell::default(),
            tcp_bell: Bell::default(),
            until: Cell::new(None),
        })
    }

    /// Whether the socket takes datagrams for any local address.
    pub(crate) fn is_wildcard(&self) -> bool {
        self.address.ip().is_unspecified()
    }

    /// The times a connection has, as configured or by default.
    pub(crate) fn times(&self, limits: &Limits) -> Times {
        let snapshot = self.snapshot.borrow();
        let listens = &snapshot.held.routes().listens;
        let given = listens.get(usize::from(snapshot.listen)).map(|listen| listen.timeouts).unwrap_or_default();
        Times {
            read: given.read.unwrap_or(limits.read),
            write: given.write.unwrap_or(limits.write),
            idle: given.idle.unwrap_or(limits.idle),
            messages: given.queries().unwrap_or(u32::MAX),
        }
    }

    /// Tells the tasks of this address to finish, by `until` at the latest.
    pub(crate) fn close(&self, until: Instant) {
        self.until.set(Some(until));
        self.udp_bell.ring();
        self.tcp_bell.ring();
    }

    /// When a closing address ends at the latest.
    pub(crate) fn until(&self) -> Instant {
        self.until.get().unwrap_or_else(clock::now)
    }

    /// Whether there is just time to answer what was asked.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        now + LAST >= self.until()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.tcp_bell.rung()
    }
}

impl Listening {
    /// Lets go of a snapshot that is no longer in force.
    pub(crate) fn renew(&self) {
        self.snapshot.borrow_mut().load(self.address);
    }
}

impl Snapshot {
    fn new(shared: Arc<resolve::Shared>, listen: u16) -> Self {
        let mut newest = arc_swap::Cache::new(shared);
        let held = newest.load().clone();
        Self { newest, seen: Arc::as_ptr(&held), held, listen }
    }

    /// The resolver to ask and the index it knows `address` by. A new configuration without this address leaves the
    /// old one in force until the socket is taken away: what is still in its queue is answered as it was meant.
    pub(crate) fn load(&mut self, address: SocketAddr) -> (&Arc<Resolver>, u16) {
        let newest = self.newest.load();
        if Arc::as_ptr(newest) != self.seen {
            self.seen = Arc::as_ptr(newest);
            let listens = &newest.routes().listens;
            if let Some(listen) = listens.iter().position(|listen| listen.address == address) {
                (self.held, self.listen) = (newest.clone(), listen as u16);
            }
        }
        (&self.held, self.listen)
    }
}

/// Takes in connections until the listener closes, and then those that wait already.
pub(crate) async fn accept(local: Rc<Local>, listening: Rc<Listening>, listener: TcpListener) {
    loop {
        let accepted = poll_fn(|cx| next(cx, &listening, &listener)).await;
        match accepted {
            None => return accept_rest(&local, &listening, listener),
            Some(Ok((stream, peer))) => admit(&local, &listening, stream, peer),
            Some(Err(e)) => {
                if is_short(&e) {
                    local.count(Event::TcpRefusedResources);
                    close_idle(&local, |_| true);
                } else {
                    local.count(Event::TcpRefusedError);
                }
                // accept(2) also reports what happened to the connection; only a shortage or a broken listener repeats.
                if is_short(&e) || e.raw_os_error() != Some(libc::ECONNABORTED) {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Between two tries when connections cannot be accepted.
const PAUSE: Duration = Duration::from_millis(20);

fn next(
    cx: &mut Context<'_>,
    listening: &Listening,
    listener: &TcpListener,
) -> Poll<Option<io::Result<(TcpStream, SocketAddr)>>> {
    if listening.tcp_bell.poll(cx) { Poll::Ready(None) } else { listener.poll_accept(cx).map(Some) }
}

/// Takes in those that wait when the listener closes, also those that the runtime has not heard of yet: the kernel would
/// reset them.
fn accept_rest(local: &Rc<Local>, listening: &Rc<Listening>, listener: TcpListener) {
    let Ok(listener) = listener.into_std() else { return };
    loop {
        let accepted = listener.accept().and_then(|(stream, peer)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, peer))
        });
        match accepted {
            Ok((stream, peer)) => admit(local, listening, stream, peer),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) if e.raw_os_error() == Some(libc::ECONNABORTED) => local.count(Event::TcpRefusedError),
            Err(e) => {
                return local.count(if is_short(&e) { Event::TcpRefusedResources } else { Event::TcpRefusedError });
            }
        }
    }
}

/// Gives the connection a task, or turns it away with a reset.
fn admit(local: &Rc<Local>, listening: &Rc<Listening>, stream: TcpStream, peer: SocketAddr) {
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    let mut place = local.places.take(peer.ip());
    if matches!(place, Err(Refusal::Total)) && make_room_for(local, peer.ip()) {
        place = local.places.take(peer.ip());
    }
    match place {
        Ok(place) => {
            local.count(Event::TcpAccepted);
            expire(local, listening);
            stream::spawn(local, listening, stream, peer, place);
        }
        Err(refusal) => {
            local.count(match refusal {
                Refusal::Total => Event::TcpRefusedTotal,
                Refusal::Source => Event::TcpRefusedSource,
            });
            // Fails only if the client has gone already.
            let _ = sockopt::reset_on_close(stream.as_fd());
        }
    }
}

/// Makes room for a client when all places are taken. Who has many connections takes none away from one who has few. Who
/// has few gets one of a client with many, an idle one first: a few clients that finish no message, or read no reply, would
/// otherwise keep everybody out.
fn make_room_for(local: &Local, newcomer: IpAddr) -> bool {
    let has_few = |source| local.places.has_few(source);
    close_idle(local, |tether| !has_few(tether.source))
        || has_few(newcomer) && (close_unfinished(local) || close_idle(local, |_| true))
}

/// Closes the oldest of this worker's idle connections that `may` go, if there is one.
fn close_idle(local: &Local, may: impl Fn(&Tether) -> bool) -> bool {
    let oldest = local.idle.borrow_mut().take(may);
    oldest.inspect(|tether| tether.evict(Event::TcpClosedPressure)).is_some()
}

/// Closes the oldest connection with nothing in flight of the client that has most here, if that is many.
fn close_unfinished(local: &Local) -> bool {
    let streams = local.streams.borrow();
    let alive = || streams.iter().filter(|(_, tether)| tether.evicted().is_none());
    let mut sources: HashMap<IpAddr, usize> = HashMap::new();
    for (_, tether) in alive() {
        *sources.entry(tether.source).or_default() += 1;
    }
    let Some((heaviest, _)) = sources.into_iter().max_by_key(|(_, n)| *n) else { return false };
    if local.places.has_few(heaviest) {
        return false;
    }
    let gives_way = |tether: &Tether| tether.source == heaviest && tether.outbox.inflight() == 0;
    let oldest = alive().filter(|(_, tether)| gives_way(tether)).min_by_key(|(id, _)| **id);
    oldest.inspect(|(_, tether)| tether.evict(Event::TcpClosedPressure)).is_some()
}

/// Closes idle connections that have outstayed the time that is left now that places are short. Their own timers were
/// set when there was more.
fn expire(local: &Local, listening: &Listening) {
    let full = listening.times(&local.limits).idle;
    let idle = local.places.idle(full);
    if idle == full {
        return;
    }
    let Some(until) = clock::now().checked_sub(idle) else { return };
    loop {
        let oldest = local.idle.borrow_mut().take_oldest(until);
        match oldest {
            Some(tether) => tether.evict(Event::TcpClosedPressure),
            None => return,
        }
    }
}

fn is_short(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
