//! One TCP connection: questions in, as fast as they may be taken on; replies out, in the order they become ready.
//!
//! Everything that is not a complete message costs the client time, not memory: bytes are kept only as they arrive, an
//! unfinished message has a deadline, an idle connection holds no buffers and goes when its place is needed. What a
//! connection holds beyond a little is noted, and when all hold too much, those that stand still are ended.

use super::inbox::{Front, Long, framed, front};
use super::limits::Place;
use super::listeners::Listening;
use super::local::{Busy, Local, Ticket};
use super::memory::FREE;
use super::outbox::{Outbox, Slot};
use super::tether::Tether;
use crate::dns::Protocol;
use crate::observe::{Event, Level};
use crate::resolve::{Awaited, Client};
use crate::sys::clock;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// Octets of replies at which a connection is no longer read.
const ENOUGH: usize = 64 << 10;
/// Octets of replies at which a connection is given up: its client asks and does not read.
const TOO_MUCH: usize = 512 << 10;
/// Rounds of reading and writing before other tasks have their turn.
const ROUNDS: usize = 8;
/// An idle connection keeps buffers up to this size.
const SMALL: usize = 512;
/// Between two looks at replies that the kernel has taken and the client has not.
const LOOK: Duration = Duration::from_millis(50);

/// Starts the task of one connection.
pub(crate) fn spawn(local: &Rc<Local>, listening: &Rc<Listening>, socket: TcpStream, peer: SocketAddr, place: Place) {
    let id = local.next_stream();
    let address = match listening.is_wildcard().then(|| socket.local_addr()) {
        Some(Ok(address)) => SocketAddr::new(address.ip().to_canonical(), address.port()),
        _ => listening.address,
    };
    let tether = Tether::new(listening, socket, peer.ip(), place);
    if listening.is_closing() {
        // It waited in the queue while others were told.
        tether.finish(local.draining.get());
    }
    local.streams.borrow_mut().insert(id, tether.clone());
    local.counts().set(Level::TcpConnections, local.streams.borrow().len());
    let now = clock::now();
    let mut stream = Stream {
        local: local.clone(),
        outbox: tether.outbox.clone(),
        tether,
        id,
        client: Client { peer, protocol: Protocol::Tcp, listen: 0, local: address },
        unread: Vec::new(),
        long: None,
        end: None,
        asked: 0,
        started: None,
        write_since: None,
        lingering: None,
        looked: now,
        idle: None,
        last_message: now,
        timer: Box::pin(tokio::time::sleep_until(now.into())),
        _busy: local.busy(),
    };
    tokio::task::spawn_local(async move {
        let reason = poll_fn(|cx| stream.poll(cx)).await;
        stream.local.count(reason);
        if reason == Event::TcpClosedShutdown {
            stream.tether.part().await;
        }
        stream.tether.end(reason);
    });
}

struct Stream {
    local: Rc<Local>,
    tether: Rc<Tether>,
    id: u64,
    client: Client,
    outbox: Rc<Outbox>,
    /// Bytes that came and are not asked yet: the beginning of a message, or messages that may not be asked yet.
    unread: Vec<u8>,
    /// A message that is too long and not over yet.
    long: Option<Long>,
    /// Why no more is read, once that is so. The connection ends when everything asked is answered.
    end: Option<Event>,
    /// Whole messages so far.
    asked: u32,
    /// When the unfinished message at the front of `unread` began.
    started: Option<Instant>,
    /// Since when replies are on their way to the kernel.
    write_since: Option<Instant>,
    /// Since when the kernel has all replies, and more of them than costs nothing are still there.
    lingering: Option<Instant>,
    /// When that was looked at.
    looked: Instant,
    /// Since when this connection is in the worker's list of idle ones.
    idle: Option<Instant>,
    /// When the last whole message came or the last reply was written.
    last_message: Instant,
    timer: Pin<Box<Sleep>>,
    _busy: Busy,
}

impl Stream {
    /// Goes as far as it can. Ready with the reason when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let now = clock::now();
        self.outbox.wake_later(cx);
        let finishing = self.tether.bell.poll(cx);
        let mut moved = false;
        for round in 0.. {
            if let Some(reason) = self.tether.evicted() {
                return Poll::Ready(reason);
            }
            let wrote = match self.poll_write(cx, now) {
                Ok(wrote) => wrote,
                Err(event) => return Poll::Ready(event),
            };
            let read = match self.poll_read(cx, now, finishing) {
                Ok(read) => read,
                Err(event) => return Poll::Ready(event),
            };
            moved |= wrote;
            if !wrote && !read {
                break;
            }
            if round == ROUNDS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        if self.outbox.octets() > TOO_MUCH {
            return Poll::Ready(Event::TcpClosedUnread);
        }
        self.look(now);
        self.tether.settle(&self.local, self.unread.capacity(), moved);
        if let Some(reason) = self.tether.evicted() {
            return Poll::Ready(reason);
        }
        if let Some(reason) = self.end
            && self.is_answered()
            && self.lingering.is_none()
        {
            return Poll::Ready(reason);
        }
        self.poll_deadline(cx, now)
    }

    /// Writes what is ready, all of it in one go where the kernel takes it. True if anything went.
    fn poll_write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Event> {
        let mut progress = false;
        loop {
            if self.outbox.is_written() {
                let more = self.outbox.advance();
                self.write_since = more.then_some(now);
                if !more {
                    self.outbox.shrink(FREE);
                    return Ok(progress);
                }
            }
            match self.tether.poll_write(cx) {
                Poll::Pending => return Ok(progress),
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Err(Event::TcpClosedError),
            }
            progress = true;
            self.last_message = now;
        }
    }

    /// Asks what waits and reads more, unless enough is under way. True if bytes came or were asked.
    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant, finishing: bool) -> Result<bool, Event> {
        let before = self.asked;
        let waiting = std::mem::take(&mut self.unread);
        let taken = self.ask_all(&waiting, now)?;
        match taken {
            0 => self.unread = waiting,
            _ => self.keep(&waiting[taken..]),
        }
        self.note_front(self.asked != before, now);
        if self.is_full() {
            // The rest of the message waits in the kernel because of us, not of the client.
            self.started = None;
        }
        if self.end.is_some() || self.is_full() {
            return Ok(taken > 0);
        }
        let local = self.local.clone();
        let mut scratch = local.read.borrow_mut();
        let bytes = match self.tether.poll_read(cx, &mut scratch, finishing) {
            Poll::Pending => {
                // What comes before the end is asked; a message under way may still be finished.
                let over = self.is_answered() || self.is_between() && self.tether.listening.is_late(now);
                self.end = (finishing && over).then_some(Event::TcpClosedShutdown);
                return Ok(taken > 0);
            }
            Poll::Ready(Err(_)) => return Err(Event::TcpClosedError),
            Poll::Ready(Ok(n)) => &scratch[..n],
        };
        if bytes.is_empty() {
            self.end = Some(Event::TcpClosedByClient);
            self.note_front(false, now);
            return Ok(true);
        }
        let before = self.asked;
        let taken = if self.unread.is_empty() { self.ask_all(bytes, now)? } else { 0 };
        self.keep(&bytes[taken..]);
        self.note_front(self.asked != before, now);
        Ok(true)
    }

    /// Keeps what is not asked yet, in no more memory than it needs.
    fn keep(&mut self, bytes: &[u8]) {
        self.unread.reserve_exact(bytes.len());
        self.unread.extend_from_slice(bytes);
    }

    /// Asks the whole messages at the front of `bytes`, as many as may be under way, and returns how many octets are done
    /// with.
    fn ask_all(&mut self, bytes: &[u8], now: Instant) -> Result<usize, Event> {
        let mut at = 0;
        while self.end.is_none() && !self.is_full() {
            if let Some(long) = &mut self.long {
                at += long.pass(&bytes[at..]);
                let Some(header) = long.over() else { break };
                self.long = None;
                // What is left must not pass for a shorter query: a header that promises a question is malformed.
                self.ask(&header, now);
                continue;
            }
            match front(&bytes[at..]) {
                Front::Unfinished => break,
                Front::Whole([]) => return Err(Event::TcpClosedMalformed),
                Front::Whole(message) => {
                    self.ask(message, now);
                    at += framed(message.len());
                }
                Front::Long(long) => {
                    self.long = Some(long);
                    at += Long::FOUND;
                }
            }
        }
        Ok(at)
    }

    fn ask(&mut self, message: &[u8], now: Instant) {
        let local = self.local.clone();
        self.asked = self.asked.saturating_add(1);
        self.last_message = now;
        if self.asked >= self.tether.listening.times(&self.local.limits).messages {
            self.end = Some(Event::TcpClosedQueries);
        }
        let mut snapshot = self.tether.listening.snapshot.borrow_mut();
        let (resolver, listen) = snapshot.load(self.tether.listening.address);
        self.client.listen = listen;
        let out = &mut local.reply.borrow_mut()[..];
        let mut awaited = match local.take(local.answer(resolver, now, message, &self.client, out)) {
            Ok(0) => return,
            Ok(length) => return self.outbox.put(&out[..length]),
            Err(awaited) => awaited,
        };
        match local.admit(&mut awaited) {
            None => {
                let length = Local::shed(awaited, out);
                self.outbox.put(&out[..length]);
            }
            Some(ticket) => self.wait(awaited, message, ticket),
        }
    }

    /// Gives what is awaited a task, which hands its reply over when there is one.
    fn wait(&self, awaited: Awaited, message: &[u8], ticket: Ticket) {
        let (local, slot) = (self.local.clone(), Slot::new(&self.outbox));
        let (question, tether) = (Local::question(message), Rc::downgrade(&self.tether));
        tokio::task::spawn_local(async move {
            let reply = local.resolve(awaited, &question).await;
            slot.put(&reply);
            if let Some(tether) = tether.upgrade() {
                tether.settle_reply(&local);
            }
            drop(ticket);
        });
    }

    /// Notes when the unfinished message at the front began. After the end, nobody wants what is left.
    fn note_front(&mut self, moved: bool, now: Instant) {
        if self.end.is_some() {
            (self.unread, self.long) = (Vec::new(), None);
        }
        if self.is_between() || !matches!((&self.long, front(&self.unread)), (Some(_), _) | (None, Front::Unfinished)) {
            self.started = None;
        } else if moved || self.started.is_none() {
            self.started = Some(now);
        }
    }

    /// Too much under way to take on more.
    fn is_full(&self) -> bool {
        self.outbox.inflight() >= self.local.limits.per_connection || self.outbox.octets() >= ENOUGH
    }

    /// Nothing of a message came yet.
    fn is_between(&self) -> bool {
        self.unread.is_empty() && self.long.is_none()
    }

    /// Looks whether the client has what the kernel took for it, and at what waits to be read while nothing is.
    fn look(&mut self, now: Instant) {
        if self.is_full() {
            self.tether.look();
        }
        let lingers = self.tether.is_queued() && self.outbox.octets() == 0;
        self.lingering = lingers.then(|| self.lingering.unwrap_or(now));
        self.looked = now;
    }

    /// Nothing asked, nothing in flight, nothing to be written.
    fn is_answered(&self) -> bool {
        self.outbox.inflight() == 0 && self.outbox.octets() == 0 && self.is_between()
    }

    /// Ends what took too long, and sees to it that the next deadline is not missed.
    fn poll_deadline(&mut self, cx: &mut Context<'_>, mut now: Instant) -> Poll<Event> {
        loop {
            let idle = self.is_answered();
            self.list_idle(idle);
            let times = self.tether.listening.times(&self.local.limits);
            let reading = self.started.map(|since| (since + times.read, Event::TcpClosedSlow));
            let writing = self.write_since.map(|since| (since + times.write, Event::TcpClosedUnread));
            let idle = idle.then(|| (self.last_message + self.idle_time(times.read, times.idle), Event::TcpClosedIdle));
            let lingering = self.lingering.map(|since| (since + times.write, Event::TcpClosedUnread));
            let last = [reading, writing, lingering, idle].into_iter().flatten().min_by_key(|(at, _)| *at);
            let look = self.lingering.map(|_| self.looked + LOOK);
            let Some(at) = last.map(|(at, _)| at).into_iter().chain(look).min() else { return Poll::Pending };
            if let Some((at, reason)) = last
                && at <= now
            {
                return Poll::Ready(reason);
            }
            if at <= now {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            // A timer that is early costs one look; moving it for every message would cost more.
            if self.timer.is_elapsed() || self.timer.deadline() > at.into() {
                self.timer.as_mut().reset(at.into());
            }
            std::task::ready!(self.timer.as_mut().poll(cx));
            now = clock::now();
        }
    }

    /// How long this connection may be idle. The first message must come as soon as any other has to be finished.
    fn idle_time(&self, read: Duration, idle: Duration) -> Duration {
        self.local.places.idle(if self.asked == 0 { idle.min(read) } else { idle })
    }

    /// Enters the connection into the list of idle ones, or takes it out. Idle ones hold no large buffers.
    fn list_idle(&mut self, idle: bool) {
        let since = idle.then_some(self.last_message);
        if since == self.idle {
            return;
        }
        let mut list = self.local.idle.borrow_mut();
        if let Some(since) = self.idle.take() {
            list.leave(since, self.id);
        }
        if let Some(since) = since {
            list.enter(since, self.id, &self.tether);
            self.idle = Some(since);
            if self.unread.capacity() > SMALL {
                self.unread = Vec::new();
            }
            self.outbox.shrink(SMALL);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(since) = self.idle {
            self.local.idle.borrow_mut().leave(since, self.id);
        }
        self.outbox.close();
        self.tether.forget(&self.local);
        self.local.streams.borrow_mut().remove(&self.id);
        self.local.counts().set(Level::TcpConnections, self.local.streams.borrow().len());
    }
}
