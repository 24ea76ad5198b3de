//! One connection that carries many questions at once: a task that owns the stream, gives each question an ID that
//! nobody else on the connection has (RFC 7766 section 6.2.1), and hands out the answers in whatever order they come.
//!
//! Several questions that wait leave in one write, each with its length before it (RFC 7766 section 8). The task ends
//! when the connection has been idle for too long, is too old, is closed by the peer, or answers nobody any more;
//! it returns the questions that are then unanswered.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rand::RngExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Sleep, sleep_until};

use super::accept;
use super::tcp::{Load, Request};
use crate::dns::header::set_id;
use crate::sys::clock;
use crate::upstream::failure::{Failure, Leg, Stage};
use crate::upstream::tally::{Mismatch, Tally};

/// The largest message with its length.
const LARGEST: usize = 2 + u16::MAX as usize;
/// What is read at once at least.
const READ_SIZE: usize = 16 * 1024;
/// Questions that leave in one write at most.
const BATCH: usize = 256;
/// How often questions nobody waits for any more are taken out of the table.
const SWEEP: Duration = Duration::from_secs(1);
/// As many questions in a row without any answer mean that the connection is dead.
const SILENT_LIMIT: usize = 3;
/// A message that has begun must be complete after this long: what comes behind it cannot be seen before.
const STALL_LIMIT: Duration = Duration::from_millis(1500);
/// As many wrong messages in a row mean that the peer has lost its senses.
const WRONG_LIMIT: usize = 64;

/// How long a connection lives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// It is closed after this long without traffic.
    pub(crate) idle: Duration,
    /// It takes no new questions after this time.
    pub(crate) until: Option<Instant>,
}

/// How a connection ended, and what it leaves behind.
pub(crate) struct End {
    /// What to tell those who cannot be helped.
    pub(crate) failure: Failure,
    /// Questions sent without an answer.
    pub(crate) unanswered: Vec<Request>,
}

/// The state of one connection over any stream.
pub(crate) struct Connection<S> {
    stream: S,
    queue: UnboundedReceiver<Request>,
    /// Whether no more questions will come.
    draining: bool,
    load: Arc<Load>,
    tally: Arc<Tally>,
    leg: Leg,
    lifetime: Lifetime,
    table: HashMap<u16, Pending>,
    batch: Vec<Request>,
    out: Vec<u8>,
    written: usize,
    unflushed: bool,
    input: Vec<u8>,
    /// The part of `input` that holds octets not yet understood.
    filled: std::ops::Range<usize>,
    /// When the message that is not complete yet began.
    begun: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// When the last whole message passed in either direction.
    active: Instant,
    silent: usize,
    wrong: usize,
}

struct Pending {
    request: Request,
    sent: Instant,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(crate) fn new(
        stream: S,
        queue: UnboundedReceiver<Request>,
        load: Arc<Load>,
        tally: Arc<Tally>,
        leg: Leg,
        lifetime: Lifetime,
    ) -> Connection<S> {
        let now = clock::now();
        let first = (now + lifetime.idle).min(now + SWEEP);
        Connection {
            stream,
            queue,
            draining: false,
            load,
            tally,
            leg: Leg { stage: Stage::Read, ..leg },
            lifetime,
            table: HashMap::new(),
            batch: Vec::new(),
            out: Vec::new(),
            written: 0,
            unflushed: false,
            input: vec![0; READ_SIZE],
            filled: 0..0,
            begun: None,
            timer: Box::pin(sleep_until(first.into())),
            active: now,
            silent: 0,
            wrong: 0,
        }
    }

    /// Serves until the connection ends. Questions still in the queue then are left in it.
    pub(crate) async fn serve(mut self) -> (End, UnboundedReceiver<Request>) {
        let failure = std::future::poll_fn(|cx| self.poll(cx, clock::now())).await;
        let unanswered = self.table.into_values().map(|pending| pending.request).collect();
        (End { failure, unanswered }, self.queue)
    }

    fn poll(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Failure> {
        loop {
            if let Err(error) = self.send(cx, now).and_then(|()| self.read(cx, now)) {
                return Poll::Ready(Failure::from_io(&error, self.leg));
            }
            if self.draining && self.table.is_empty() {
                return Poll::Ready(Failure::Closed(self.leg, None));
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if self.tick(now) {
                return Poll::Ready(Failure::Timeout(self.leg));
            }
        }
    }

    /// Writes what waits in the queue, until the queue is empty or the peer does not take more.
    fn send(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<()> {
        loop {
            let more = self.take(cx, now);
            self.write(cx)?;
            if !more || !self.out.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes what waits in the queue into the table and the write buffer. Whether that buffer is full.
    fn take(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let was_idle = self.table.is_empty();
        while !self.draining && self.out.len() < LARGEST {
            match self.queue.poll_recv_many(cx, &mut self.batch, BATCH) {
                Poll::Pending => break,
                Poll::Ready(0) => self.draining = true,
                Poll::Ready(_) => {
                    let mut batch = std::mem::take(&mut self.batch);
                    batch.drain(..).for_each(|request| self.enter(request, now));
                    self.batch = batch;
                }
            }
        }
        if was_idle && !self.table.is_empty() && self.timer.deadline().into_std() > now + SWEEP {
            self.timer.as_mut().reset((now + SWEEP).into());
        }
        self.out.len() >= LARGEST
    }

    fn enter(&mut self, request: Request, now: Instant) {
        if request.reply.is_closed() {
            self.load.leave();
            return;
        }
        let mut random = rand::rng();
        // The load is bounded far below 65536, so a free ID is found in a draw or two.
        let mut id: u16 = random.random();
        while self.table.contains_key(&id) {
            id = random.random();
        }
        let length = u16::try_from(request.query.len()).expect("a query was a message, so it has a 16-bit length");
        self.out.extend_from_slice(&length.to_be_bytes());
        let start = self.out.len();
        self.out.extend_from_slice(&request.query);
        set_id(&mut self.out[start..], id);
        self.active = now;
        self.table.insert(id, Pending { request, sent: now });
    }

    fn write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while self.written < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[self.written..]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::BrokenPipe.into()),
                Poll::Ready(result) => self.written += result?,
            }
            self.unflushed = true;
        }
        self.out.clear();
        self.written = 0;
        if self.unflushed
            && let Poll::Ready(result) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            result?;
            self.unflushed = false;
        }
        Ok(())
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Instant) -> io::Result<()> {
        loop {
            self.make_room();
            let mut buffer = ReadBuf::new(&mut self.input[self.filled.end..]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return Ok(()),
                Poll::Ready(result) => result?,
            }
            let count = buffer.filled().len();
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.filled.end += count;
            while let Some(end) = self.whole_message() {
                let start = self.filled.start + 2;
                self.filled.start = end;
                self.begun = None;
                self.hand_out(start..end, now);
            }
            if !self.filled.is_empty() {
                self.begun.get_or_insert(now);
            }
            if self.wrong >= WRONG_LIMIT {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }

    /// Where the first message of `filled` ends, once it is there completely.
    fn whole_message(&self) -> Option<usize> {
        let filled = &self.input[self.filled.clone()];
        let length = usize::from(u16::from_be_bytes([*filled.first()?, *filled.get(1)?]));
        (filled.len() >= 2 + length).then_some(self.filled.start + 2 + length)
    }

    /// Moves what is left to the front and makes sure that the largest message fits behind it when one has begun.
    fn make_room(&mut self) {
        if self.filled.is_empty() {
            self.filled = 0..0;
        }
        if self.input.len() - self.filled.end >= READ_SIZE / 2 {
            return;
        }
        self.input.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        if self.input.len() - self.filled.end < READ_SIZE / 2 {
            self.input.resize((self.input.len() * 2).min(LARGEST + READ_SIZE), 0);
        }
    }

    fn hand_out(&mut self, message: std::ops::Range<usize>, now: Instant) {
        let message = &self.input[message];
        let Some((high, low)) = message.first().zip(message.get(1)) else {
            self.tally.mismatch(Mismatch::Short);
            self.wrong += 1;
            return;
        };
        let id = u16::from_be_bytes([*high, *low]);
        let pending = self.table.get(&id).ok_or(Mismatch::Id);
        match pending.and_then(|pending| accept(&pending.request.query, id, message)) {
            Ok(answer) => self.settle(id, Ok(answer), now),
            // On a connection of our own this is what the upstream has to say, and nothing better will come.
            Err(reason @ Mismatch::Malformed) => {
                self.tally.mismatch(reason);
                self.settle(id, Err(Failure::Malformed(self.leg)), now);
            }
            Err(reason) => {
                self.tally.mismatch(reason);
                self.wrong += 1;
            }
        }
    }

    fn settle(&mut self, id: u16, result: Result<Vec<u8>, Failure>, now: Instant) {
        let pending = self.table.remove(&id).expect("it was just looked up");
        self.load.answered();
        self.active = now;
        self.silent = 0;
        self.wrong = 0;
        // Whoever asked may have been answered by another upstream meanwhile.
        let _ = pending.request.reply.send(result);
    }

    /// Sweeps the table, ends what is idle or old, and sets the timer anew. Whether the connection is dead.
    fn tick(&mut self, now: Instant) -> bool {
        let before = self.table.len();
        let load = &self.load;
        self.table.retain(|_, pending| {
            let abandoned = pending.request.reply.is_closed() && now.duration_since(pending.sent) >= SWEEP;
            if abandoned {
                load.leave();
            }
            !abandoned
        });
        self.silent += before - self.table.len();
        let old = self.lifetime.until.is_some_and(|until| until <= now);
        let idle = self.table.is_empty() && now.duration_since(self.active) >= self.lifetime.idle;
        if old || idle {
            self.queue.close();
        }
        let next = if self.table.is_empty() && !old && !idle { self.active + self.lifetime.idle } else { now + SWEEP };
        let next = self.lifetime.until.filter(|until| *until > now).map_or(next, |until| next.min(until));
        self.timer.as_mut().reset(next.into());
        self.silent >= SILENT_LIMIT || self.stall(now)
    }

    /// Whether a message has begun too long ago. One of the questions before it has then had its chance, and by now a
    /// second one elsewhere; those after it are to be asked again.
    fn stall(&mut self, now: Instant) -> bool {
        let Some(begun) = self.begun.filter(|begun| now.duration_since(*begun) >= STALL_LIMIT) else { return false };
        self.table.values_mut().for_each(|pending| pending.request.again &= pending.sent > begun);
        true
    }
}
