//! One TCP connection: questions in, as fast as they may be taken on; replies out, in the order they become ready.
//!
//! Everything that is not a complete message costs the client time, not memory: bytes are kept only as they arrive, an
//! unfinished message has a deadline, an idle connection holds no buffers and goes when its place is needed.

use super::limits::Place;
use super::listeners::Listening;
use super::local::{Bell, Busy, Local, Ticket};
use super::outbox::{Outbox, Slot};
use crate::dns::Protocol;
use crate::observe::{Event, Level};
use crate::resolve::{Client, Miss, Verdict};
use crate::sys::clock;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
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

/// Starts the task of one connection.
pub(crate) fn spawn(local: &Rc<Local>, listening: &Rc<Listening>, socket: TcpStream, peer: SocketAddr, place: Place) {
    let id = local.next_stream();
    let tether = Rc::new(Tether {
        listening: listening.clone(),
        bell: Bell::default(),
        place: RefCell::new(Some(place)),
        evicted: Cell::new(false),
    });
    if listening.is_closing() {
        // It waited in the queue while others were told.
        tether.finish(local.draining.get());
    }
    local.streams.borrow_mut().insert(id, tether.clone());
    local.counts().set(Level::TcpConnections, local.streams.borrow().len());
    let address = match listening.is_wildcard().then(|| socket.local_addr()) {
        Some(Ok(address)) => SocketAddr::new(address.ip().to_canonical(), address.port()),
        _ => listening.address,
    };
    let now = clock::now();
    let mut stream = Stream {
        local: local.clone(),
        tether,
        id,
        socket,
        client: Client { peer, protocol: Protocol::Tcp, listen: 0, local: address },
        outbox: Rc::default(),
        unread: Vec::new(),
        writing: Vec::new(),
        written: 0,
        end: None,
        asked: 0,
        started: None,
        write_since: None,
        idle: None,
        last_message: now,
        timer: Box::pin(tokio::time::sleep_until(now.into())),
        _busy: local.busy(),
    };
    tokio::task::spawn_local(async move {
        let reason = poll_fn(|cx| stream.poll(cx)).await;
        stream.local.count(reason);
    });
}

/// How the rest of the worker reaches a connection.
pub(crate) struct Tether {
    listening: Rc<Listening>,
    bell: Bell,
    place: RefCell<Option<Place>>,
    evicted: Cell<bool>,
}

struct Stream {
    local: Rc<Local>,
    tether: Rc<Tether>,
    id: u64,
    socket: TcpStream,
    client: Client,
    outbox: Rc<Outbox>,
    /// Bytes that came and are not asked yet: the beginning of a message, or messages that may not be asked yet.
    unread: Vec<u8>,
    /// Replies on their way, `written` octets of them with the kernel.
    writing: Vec<u8>,
    written: usize,
    /// Why no more is read, once that is so. The connection ends when everything asked is answered.
    end: Option<Event>,
    /// Whole messages so far.
    asked: u32,
    /// When the unfinished message at the front of `unread` began.
    started: Option<Instant>,
    /// When `writing` was begun.
    write_since: Option<Instant>,
    /// Since when this connection is in the worker's list of idle ones.
    idle: Option<Instant>,
    /// When the last whole message came or the last reply was written.
    last_message: Instant,
    timer: Pin<Box<Sleep>>,
    _busy: Busy,
}

impl Tether {
    /// Ends the connection and frees its place at once.
    pub(crate) fn evict(&self) {
        self.evicted.set(true);
        self.place.borrow_mut().take();
        self.bell.ring();
    }

    /// Ends the connection when what it has asked is answered, if its address (or every one) is being closed.
    pub(crate) fn finish(&self, draining: bool) {
        if draining || self.listening.is_closing() {
            self.bell.ring();
        }
    }
}

impl Stream {
    /// Goes as far as it can. Ready with the reason when the connection is over.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let now = clock::now();
        self.outbox.wake_later(cx);
        let finishing = self.tether.bell.poll(cx);
        if self.tether.evicted.get() {
            return Poll::Ready(Event::TcpClosedPressure);
        }
        for round in 0.. {
            let wrote = match self.poll_write(cx, now) {
                Ok(wrote) => wrote,
                Err(event) => return Poll::Ready(event),
            };
            let read = match self.poll_read(cx, now, finishing) {
                Ok(read) => read,
                Err(event) => return Poll::Ready(event),
            };
            if !wrote && !read {
                break;
            }
            if round == ROUNDS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        if self.backlog() > TOO_MUCH {
            return Poll::Ready(Event::TcpClosedUnread);
        }
        if let Some(reason) = self.end
            && self.is_answered()
        {
            return Poll::Ready(reason);
        }
        self.poll_deadline(cx, now)
    }

    /// Writes what is ready, all of it in one go where the kernel takes it. True if anything went.
    fn poll_write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Event> {
        let mut progress = false;
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.written = 0;
                self.outbox.swap(&mut self.writing);
                self.write_since = (!self.writing.is_empty()).then_some(now);
                if self.writing.is_empty() {
                    return Ok(progress);
                }
            }
            match Pin::new(&mut self.socket).poll_write(cx, &self.writing[self.written..]) {
                Poll::Pending => return Ok(progress),
                Poll::Ready(Ok(n)) => self.written += n,
                Poll::Ready(Err(_)) => return Err(Event::TcpClosedError),
            }
            progress = true;
            self.last_message = now;
        }
    }

    /// Asks what waits and reads more, unless enough is under way. True if bytes came or were asked.
    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant, finishing: bool) -> Result<bool, Event> {
        let waiting = std::mem::take(&mut self.unread);
        let asked = self.ask_all(&waiting, now)?;
        self.unread = waiting;
        self.unread.drain(..asked);
        self.note_front(asked > 0, now);
        if self.is_full() {
            // The rest of the message waits in the kernel because of us, not of the client.
            self.started = None;
        }
        if self.end.is_some() || self.is_full() {
            return Ok(asked > 0);
        }
        let local = self.local.clone();
        let mut scratch = local.read.borrow_mut();
        let mut buffer = ReadBuf::new(&mut scratch);
        match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
            Poll::Pending => {
                // What came before the end was announced is asked; a message under way may still be finished.
                self.end = (finishing && self.unread.is_empty()).then_some(Event::TcpClosedShutdown);
                return Ok(asked > 0);
            }
            Poll::Ready(Err(_)) => return Err(Event::TcpClosedError),
            Poll::Ready(Ok(())) => {}
        }
        let bytes = buffer.filled();
        if bytes.is_empty() {
            self.end = Some(Event::TcpClosedByClient);
            self.note_front(false, now);
            return Ok(true);
        }
        let asked = if self.unread.is_empty() { self.ask_all(bytes, now)? } else { 0 };
        self.unread.extend_from_slice(&bytes[asked..]);
        self.note_front(asked > 0, now);
        Ok(true)
    }

    /// Asks the whole messages at the front of `bytes`, as many as may be under way, and returns their octets.
    fn ask_all(&mut self, bytes: &[u8], now: Instant) -> Result<usize, Event> {
        let mut at = 0;
        while let Some(message) = front(&bytes[at..])
            && self.end.is_none()
            && !self.is_full()
        {
            if message.is_empty() {
                return Err(Event::TcpClosedMalformed);
            }
            self.ask(message, now);
            at += 2 + message.len();
            if self.asked >= self.tether.listening.times(&self.local.limits).messages {
                self.end = Some(Event::TcpClosedQueries);
            }
        }
        Ok(at)
    }

    fn ask(&mut self, message: &[u8], now: Instant) {
        let local = self.local.clone();
        self.asked = self.asked.saturating_add(1);
        self.last_message = now;
        let mut snapshot = self.tether.listening.snapshot.borrow_mut();
        let (resolver, listen) = snapshot.load(self.tether.listening.address);
        self.client.listen = listen;
        let out = &mut local.reply.borrow_mut()[..];
        let length = match local.answer(resolver, now, message, &self.client, out) {
            Verdict::Reply(length) => length,
            Verdict::Silence => return,
            Verdict::Refresh(length, refresh) => {
                local.refresh(refresh);
                length
            }
            Verdict::Miss(mut miss) => match local.admit(&mut miss) {
                None => Local::shed(miss, out),
                Some(ticket) => return self.wait(miss, message, ticket),
            },
        };
        self.outbox.put(&out[..length]);
    }

    /// Gives a miss a task, which hands its reply over when there is one.
    fn wait(&self, miss: Miss, message: &[u8], ticket: Ticket) {
        let (local, slot) = (self.local.clone(), Slot::new(&self.outbox));
        let question = Local::question(message);
        tokio::task::spawn_local(async move {
            let reply = local.resolve(miss, &question).await;
            slot.put(&reply);
            drop(ticket);
        });
    }

    /// Notes when the unfinished message at the front began. After the end, nobody wants what is left.
    fn note_front(&mut self, moved: bool, now: Instant) {
        if self.end.is_some() {
            self.unread = Vec::new();
        }
        if self.unread.is_empty() || front(&self.unread).is_some() {
            self.started = None;
        } else if moved || self.started.is_none() {
            self.started = Some(now);
        }
    }

    /// Too much under way to take on more.
    fn is_full(&self) -> bool {
        self.outbox.inflight() >= self.local.limits.per_connection || self.backlog() >= ENOUGH
    }

    /// Octets of replies that the kernel has not taken.
    fn backlog(&self) -> usize {
        self.outbox.octets() + self.writing.len() - self.written
    }

    /// Nothing asked, nothing in flight, nothing to be written.
    fn is_answered(&self) -> bool {
        self.outbox.inflight() == 0 && self.outbox.octets() == 0 && self.writing.is_empty() && self.unread.is_empty()
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
            let Some((at, reason)) = [reading, writing, idle].into_iter().flatten().min_by_key(|(at, _)| *at) else {
                return Poll::Pending;
            };
            if at <= now {
                return Poll::Ready(reason);
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
            for buffer in [&mut self.unread, &mut self.writing] {
                if buffer.capacity() > SMALL {
                    *buffer = Vec::new();
                }
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
        self.local.streams.borrow_mut().remove(&self.id);
        self.local.counts().set(Level::TcpConnections, self.local.streams.borrow().len());
    }
}

/// The message at the front of `bytes`, if it is whole (RFC 1035 section 4.2.2).
fn front(bytes: &[u8]) -> Option<&[u8]> {
    let length = u16::from_be_bytes(*bytes.first_chunk::<2>()?);
    bytes.get(2..2 + usize::from(length))
}
