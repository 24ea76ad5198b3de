//! What the tasks of one worker share: buffers, counters, and the tickets for questions in flight. All of it stays on
//! the worker's thread.

use super::limits::{IdleList, Limits, Places};
use super::memory::Memory;
use super::tether::Tether;
use super::worker::Setup;
use crate::dns::{Rcode, header, question, reply};
use crate::observe::{self, Event, Level, Registry, counters};
use crate::resolve::{self, Awaited, Client, Miss, Resolver, Verdict};
use crate::sys::mmsg::Batch;
use metrics::Counter;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;
use tokio::sync::Notify;

/// The most octets of a message over TCP.
pub(crate) const MESSAGE: usize = 65_535;
/// Octets read from a connection at once.
const READ: usize = 16 << 10;

/// The shared things of one worker. Whoever borrows a buffer gives it back before the next await.
pub(crate) struct Local {
    index: usize,
    pub(crate) resolver: Arc<resolve::Shared>,
    pub(crate) limits: Limits,
    pub(crate) places: Arc<Places>,
    registry: Arc<Registry>,
    panics: Counter,
    pub(crate) batch: RefCell<Batch>,
    /// Where bytes of any connection are read into.
    pub(crate) read: RefCell<Box<[u8]>>,
    /// Where a reply for any connection is written.
    pub(crate) reply: RefCell<Box<[u8]>>,
    pub(crate) idle: RefCell<IdleList<Tether>>,
    /// What connections hold, as far as it is much.
    pub(crate) memory: RefCell<Memory<Tether>>,
    pub(crate) streams: RefCell<HashMap<u64, Rc<Tether>>>,
    last_stream: Cell<u64>,
    inflight: Cell<usize>,
    /// Tasks that wait for no question to be in flight.
    resting: RefCell<Vec<Waker>>,
    /// Tasks that a drain waits for.
    busy: Cell<usize>,
    quiet: Notify,
    pub(crate) draining: Cell<bool>,
}

/// A question in flight, for as long as it lives.
pub(crate) struct Ticket {
    local: Rc<Local>,
}

/// Something a drain waits for, for as long as it lives.
pub(crate) struct Busy {
    local: Rc<Local>,
}

impl Local {
    pub(crate) fn new(index: usize, setup: &Setup) -> Rc<Self> {
        Rc::new(Self {
            index,
            resolver: setup.resolver.clone(),
            limits: setup.limits.clone(),
            places: setup.places.clone(),
            registry: setup.registry.clone(),
            panics: setup.registry.counter(&counters::PANICS, &[]),
            batch: RefCell::new(Batch::new()),
            read: RefCell::new(vec![0; READ].into()),
            reply: RefCell::new(vec![0; MESSAGE].into()),
            idle: RefCell::new(IdleList::new()),
            memory: RefCell::new(Memory::new(setup.limits.octets)),
            streams: RefCell::default(),
            last_stream: Cell::new(0),
            inflight: Cell::new(0),
            resting: RefCell::default(),
            busy: Cell::new(0),
            quiet: Notify::new(),
            draining: Cell::new(false),
        })
    }

    /// This worker's own counters.
    pub(crate) fn counts(&self) -> &observe::Worker {
        self.registry.worker(self.index)
    }

    pub(crate) fn count(&self, event: Event) {
        self.counts().count(event);
    }

    /// Asks the resolver. A panic costs this question only.
    pub(crate) fn answer(
        &self,
        resolver: &Arc<Resolver>,
        now: Instant,
        message: &[u8],
        client: &Client,
        out: &mut [u8],
    ) -> Verdict {
        let verdict = catch_unwind(AssertUnwindSafe(|| resolver.answer(self.index, now, message, client, out)));
        verdict.unwrap_or_else(|_| match self.panicked(message, out) {
            0 => Verdict::Silence,
            length => Verdict::Reply(length),
        })
    }

    /// Sees to what a verdict wants done behind its reply: how long the reply is, nothing for silence, or what to wait for.
    #[expect(clippy::result_large_err, reason = "what is awaited is moved once, into its task")]
    pub(crate) fn take(self: &Rc<Self>, verdict: Verdict) -> Result<usize, Awaited> {
        match verdict {
            Verdict::Reply(length) => Ok(length),
            Verdict::Silence => Ok(0),
            Verdict::Miss(miss) => Err(Awaited::Miss(miss)),
            Verdict::Walk(walk) => Err(Awaited::Walk(walk)),
            Verdict::Refresh(length, refreshes) => {
                refreshes.into_iter().for_each(|refresh| self.refresh(refresh));
                Ok(length)
            }
        }
    }

    /// As much of a message as an error reply needs: header and question.
    pub(crate) fn question(message: &[u8]) -> Box<[u8]> {
        let end = question::question_end(message).unwrap_or(header::LENGTH);
        message[..end.min(message.len())].into()
    }

    /// Waits for the reply to a miss. Empty means silence. A panic costs this question only.
    pub(crate) async fn resolve(&self, awaited: Awaited, question: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let finished = {
            let mut resolution = pin!(awaited.resolve(&mut out));
            poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| resolution.as_mut().poll(cx))) {
                Ok(poll) => poll.map(Ok),
                Err(_) => Poll::Ready(Err(())),
            })
            .await
        };
        if finished.is_err() {
            out.clear();
            out.resize(reply::CLASSIC_SIZE, 0);
            let length = self.panicked(question, &mut out);
            out.truncate(length);
        }
        out
    }

    /// A ticket for a miss, which takes its place then and there. A refusal is counted.
    pub(crate) fn admit(self: &Rc<Self>, awaited: &mut Awaited) -> Option<Ticket> {
        self.admit_any().filter(|_| awaited.board())
    }

    /// A ticket for one more question in flight, unless there are too many. The refusal is counted.
    pub(crate) fn admit_any(self: &Rc<Self>) -> Option<Ticket> {
        if !self.places.wait() {
            self.count(Event::ShedWaiting);
            return None;
        }
        let inflight = self.inflight.get();
        self.inflight.set(inflight + 1);
        self.counts().set(Level::MissesInFlight, inflight + 1);
        self.busy.set(self.busy.get() + 1);
        Some(Ticket { local: self.clone() })
    }

    /// Writes the reply to a miss that is not admitted, and gives its length.
    pub(crate) fn shed(awaited: Awaited, out: &mut [u8]) -> usize {
        let mut reply = Vec::new();
        awaited.shed(&mut reply);
        let length = reply.len().min(out.len());
        out[..length].copy_from_slice(&reply[..length]);
        length
    }

    /// Lets a refresh run, if there is room for it.
    fn refresh(self: &Rc<Self>, refresh: Miss) {
        let mut refresh = Awaited::Miss(refresh);
        match self.admit(&mut refresh) {
            None => refresh.shed(&mut Vec::new()),
            Some(ticket) => {
                let local = self.clone();
                tokio::task::spawn_local(async move {
                    local.resolve(refresh, &[]).await;
                    drop(ticket);
                });
            }
        }
    }

    /// A number for a new connection.
    pub(crate) fn next_stream(&self) -> u64 {
        self.last_stream.set(self.last_stream.get() + 1);
        self.last_stream.get()
    }

    /// Makes a drain wait.
    pub(crate) fn busy(self: &Rc<Self>) -> Busy {
        self.busy.set(self.busy.get() + 1);
        Busy { local: self.clone() }
    }

    /// Whether no question is in flight.
    pub(crate) fn rests(&self) -> bool {
        self.inflight.get() == 0
    }

    /// The same; if not, the task is woken when it may be so.
    pub(crate) fn poll_rests(&self, cx: &Context<'_>) -> bool {
        let mut waiting = self.resting.borrow_mut();
        if !self.rests() && !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        self.rests()
    }

    /// Waits until no socket is read, no connection open and no question in flight.
    pub(crate) async fn quiet(&self) {
        while self.busy.get() > 0 {
            self.quiet.notified().await;
        }
    }

    fn panicked(&self, message: &[u8], out: &mut [u8]) -> usize {
        self.panics.increment(1);
        self.count(Event::FailedPanic);
        if message.len() < header::LENGTH {
            return 0;
        }
        let end = question::question_end(message).filter(|&end| end <= out.len()).unwrap_or(header::LENGTH);
        reply::write_unfit(message, end, Rcode::SERVFAIL, false, out)
    }

    fn rest(&self) {
        let busy = self.busy.get() - 1;
        self.busy.set(busy);
        if busy == 0 {
            self.quiet.notify_one();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.local.places.go_on();
        let inflight = self.local.inflight.get() - 1;
        self.local.inflight.set(inflight);
        self.local.counts().set(Level::MissesInFlight, inflight);
        if inflight == 0 {
            self.local.resting.take().into_iter().for_each(Waker::wake);
        }
        self.local.rest();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.local.rest();
    }
}

/// Tells one task of this thread that something is to be done. Once rung it stays rung.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.rung.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    pub(crate) fn rung(&self) -> bool {
        self.rung.get()
    }

    /// Whether it has been rung; if not, the task is woken when it is.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> bool {
        if !self.rung.get() {
            let mut waker = self.waker.borrow_mut();
            match &*waker {
                Some(known) if known.will_wake(cx.waker()) => {}
                _ => *waker = Some(cx.waker().clone()),
            }
        }
        self.rung.get()
    }
}
