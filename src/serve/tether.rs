//! What is known of one connection outside its task: how to end it, and how much memory it holds.

use super::limits::Place;
use super::listeners::Listening;
use super::local::{Bell, Local};
use super::memory::FREE;
use super::outbox::Outbox;
use crate::observe::{Event, Level};
use crate::sys::sockopt;
use socket2::SockRef;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read};
use std::net::{IpAddr, Shutdown};
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What the kernel spends on a piece of a reply beside its octets, at most.
const OVERHEAD: usize = 1 << 10;
/// How long a client that was told of the end has to end too.
const PARTING: Duration = Duration::from_millis(200);
/// Octets that are read at once, and thrown away, meanwhile.
const READ: usize = 512;

/// How the rest of the worker reaches a connection. Lives no longer than its task.
pub(crate) struct Tether {
    pub(crate) listening: Rc<Listening>,
    pub(crate) bell: Bell,
    pub(crate) outbox: Rc<Outbox>,
    /// `None` once it has been ended from outside.
    socket: RefCell<Option<TcpStream>>,
    /// The client's address.
    pub(crate) source: IpAddr,
    place: RefCell<Option<Place>>,
    evicted: Cell<Option<Event>>,
    /// Octets of memory for what came and is not asked yet.
    unread: Cell<usize>,
    /// Octets in the socket's queues as last seen, and what was written since.
    queued: Cell<usize>,
    /// The place in line among those that hold much.
    turn: Cell<Option<u64>>,
}

impl Tether {
    pub(crate) fn new(listening: &Rc<Listening>, socket: TcpStream, source: IpAddr, place: Place) -> Rc<Self> {
        Rc::new(Self {
            listening: listening.clone(),
            bell: Bell::default(),
            outbox: Rc::default(),
            socket: RefCell::new(Some(socket)),
            source,
            place: RefCell::new(Some(place)),
            evicted: Cell::new(None),
            unread: Cell::new(0),
            queued: Cell::new(0),
            turn: Cell::new(None),
        })
    }

    /// Ends the connection, and frees its place and what it holds at once: its task may have to wait for many others that
    /// take more meanwhile. Not to be called from within its own reading and writing.
    pub(crate) fn evict(&self, reason: Event) {
        self.end(reason);
        self.socket.take();
        self.evicted.set(Some(reason));
        self.place.borrow_mut().take();
        self.outbox.close();
        self.bell.ring();
    }

    /// Why it has been ended, if it has.
    pub(crate) fn evicted(&self) -> Option<Event> {
        self.evicted.get()
    }

    /// Ends the connection when what it has asked is answered, if its address (or every one) is being closed.
    pub(crate) fn finish(&self, draining: bool) {
        if draining || self.listening.is_closing() {
            self.bell.ring();
        }
    }

    /// Reads what there is into `buffer`. 0 is the end. The runtime may not have heard yet of what came last; `at_last` asks
    /// the kernel for that too.
    pub(crate) fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8], at_last: bool) -> Poll<io::Result<usize>> {
        let socket = self.socket.borrow();
        let socket = socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        loop {
            let outcome = match socket.poll_read_ready(cx)? {
                Poll::Pending if !at_last => return Poll::Pending,
                Poll::Pending => match (&*SockRef::from(socket)).read(buffer) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                    outcome => outcome,
                },
                Poll::Ready(()) => socket.try_read(buffer),
            };
            match outcome {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    /// Tells the client that no more is answered, and waits a little for it to end too. A query that crosses this would
    /// otherwise have the kernel reset the connection, and throw away replies that are on their way. The client asks it again
    /// on another connection (RFC 7766 section 6.2.4).
    pub(crate) async fn part(&self) {
        let told = self.socket.borrow().as_ref().map(|socket| SockRef::from(socket).shutdown(Shutdown::Write));
        if !matches!(told, Some(Ok(()))) {
            return;
        }
        let ended = poll_fn(|cx| {
            loop {
                match ready!(self.poll_read(cx, &mut [0; READ], false)) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Poll::Ready(()),
                }
            }
        });
        // One that does not look at its connection is not waited for any longer.
        let _ = timeout(PARTING, ended).await;
    }

    /// Writes what is on its way in the outbox, as much as the kernel takes.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.socket.borrow();
        let socket = socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        loop {
            ready!(socket.poll_write_ready(cx))?;
            match self.outbox.write(|octets| socket.try_write(octets)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
                Ok(n) => {
                    self.queued.set(self.queued.get() + n + OVERHEAD);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Whether more waits in the socket than costs nothing. Asks the kernel only if that may be so.
    pub(crate) fn is_queued(&self) -> bool {
        if self.queued.get() > FREE {
            self.look();
        }
        self.queued.get() > FREE
    }

    /// Asks the kernel what waits in the socket, in both directions.
    pub(crate) fn look(&self) {
        // A kernel that does not tell leaves what was written.
        if let Some(socket) = &*self.socket.borrow()
            && let Ok(queues) = sockopt::queues(socket.as_fd())
        {
            self.queued.set(queues.receive + queues.send);
        }
    }

    /// Before the socket closes. What waits in it is not kept for a client that was given up.
    pub(crate) fn end(&self, reason: Event) {
        if matches!(reason, Event::TcpClosedByClient | Event::TcpClosedQueries | Event::TcpClosedShutdown) {
            return;
        }
        self.look();
        if let Some(socket) = &*self.socket.borrow()
            && self.queued.get() > 0
        {
            // Fails only if the client has gone already.
            let _ = sockopt::reset_on_close(socket.as_fd());
        }
    }

    /// Notes how much memory the connection takes, `unread` octets of it for what came and is not asked. If all take too
    /// much, others give way, or this one.
    pub(crate) fn settle(self: &Rc<Self>, local: &Local, unread: usize, moved: bool) {
        self.unread.set(unread);
        if !self.note(local, moved) {
            return;
        }
        loop {
            let first = local.memory.borrow().first();
            let Some(first) = first else { break };
            let before = first.excess();
            // It may have been read since it was looked at.
            first.look();
            if first.excess() < before {
                first.note(local, false);
            } else {
                first.evict(Event::TcpClosedMemory);
                local.memory.borrow_mut().forget(first.turn.take());
            }
        }
        self.tell(local);
    }

    /// The same, when a reply was put into the outbox.
    pub(crate) fn settle_reply(self: &Rc<Self>, local: &Local) {
        self.settle(local, self.unread.get(), false);
    }

    /// Nothing of the connection is left.
    pub(crate) fn forget(&self, local: &Local) {
        if let Some(turn) = self.turn.take() {
            local.memory.borrow_mut().forget(Some(turn));
            self.tell(local);
        }
    }

    /// Notes what it holds. False if that is nothing, and was nothing before.
    fn note(self: &Rc<Self>, local: &Local, moved: bool) -> bool {
        let (turn, excess) = (self.turn.get(), self.excess());
        if self.evicted.get().is_some() || (turn.is_none() && excess == 0) {
            return false;
        }
        self.turn.set(local.memory.borrow_mut().note(turn, moved, excess, self.source, self));
        true
    }

    fn tell(&self, local: &Local) {
        local.counts().set(Level::TcpHeld, local.memory.borrow().held());
    }

    /// Octets held beyond those that cost nothing.
    fn excess(&self) -> usize {
        (self.outbox.capacity() + self.unread.get() + self.queued.get()).saturating_sub(FREE)
    }
}
