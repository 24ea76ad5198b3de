//! The load generator: sixteen connected sockets, each with a loopback address of its own, driven by one spinning
//! thread. Either a fixed number of queries is kept in flight (saturation), or queries leave on a fixed timetable
//! whatever the server does, and latency counts from the time a query was due, so a stall is seen by all it delays.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dnslet::sys::clock;

use crate::histogram::Histogram;
use crate::sys::{self, BATCH, Batch};
use crate::workload::{Expect, Workload};

const CLIENTS: usize = 16;
/// Slots per client, and how far the rest of the ID is shifted to number their generations.
const SLOT_BITS: u16 = 11;
const SLOTS: u16 = 1 << SLOT_BITS;
/// An answer that has not come by then is lost.
const PATIENCE: Duration = Duration::from_secs(1);
const SWEEP_EVERY: u64 = 50_000_000;

/// When queries leave.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// So many in flight at any time.
    Window(usize),
    /// So many each second.
    PerSecond(u64),
}

/// How long it goes on.
#[derive(Clone, Copy)]
pub(crate) enum Length {
    /// Each query of the order once, all of them measured.
    Once,
    /// `ramp` unmeasured, then `measure`.
    For { ramp: Duration, measure: Duration },
}

/// One run against one server.
pub(crate) struct Plan<'a> {
    pub(crate) target: SocketAddr,
    pub(crate) work: &'a Workload,
    pub(crate) order: &'a [u32],
    pub(crate) pace: Pace,
    pub(crate) length: Length,
    /// The server only turns the QR bit: its answers are taken as they are.
    pub(crate) echo: bool,
}

/// What came of it. `answered` counts answers that arrived while measuring; the other counts and the latencies are of
/// the queries that left while measuring.
pub(crate) struct Outcome<R> {
    pub(crate) answered: u64,
    pub(crate) lost: u64,
    pub(crate) wrong: u64,
    pub(crate) elapsed: Duration,
    pub(crate) latency: Histogram,
    /// What `probe` said when measuring began and when it ended.
    pub(crate) before: R,
    pub(crate) after: R,
}

/// Runs `plan`, calling `probe` at both ends of the measured time.
pub(crate) fn run<R>(plan: &Plan<'_>, mut probe: impl FnMut() -> io::Result<R>) -> io::Result<Outcome<R>> {
    let mut run = Run::new(plan)?;
    let (ramp, end) = match plan.length {
        Length::Once => (0, u64::MAX),
        Length::For { ramp, measure } => (ramp.as_nanos() as u64, (ramp + measure).as_nanos() as u64),
    };
    run.sending = true;
    while run.now() < ramp {
        run.turn()?;
    }
    run.measuring = true;
    run.answered = 0;
    let before = probe()?;
    let began = run.now();
    while run.now() < end && !run.finished() {
        run.turn()?;
    }
    let ended = run.now();
    let after = probe()?;
    let answered = run.answered;
    run.sending = false;
    while run.in_flight() > 0 {
        run.turn()?;
    }
    Ok(Outcome {
        answered,
        lost: run.lost,
        wrong: run.wrong,
        elapsed: Duration::from_nanos(ended - began),
        latency: run.latency,
        before,
        after,
    })
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    clients: Vec<Client>,
    start: Instant,
    swept: u64,
    issued: u64,
    sending: bool,
    measuring: bool,
    answered: u64,
    lost: u64,
    wrong: u64,
    latency: Histogram,
}

struct Client {
    socket: UdpSocket,
    incoming: Batch,
    outgoing: Batch,
    slots: Box<[Slot]>,
    free: Vec<u16>,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    live: bool,
    counted: bool,
    generation: u8,
    question: u32,
    /// When the query left, or was due, in nanoseconds since the start.
    since: u64,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan<'a>) -> io::Result<Self> {
        let clients = (0..CLIENTS).map(|i| Client::new(i, plan.target)).collect::<io::Result<_>>()?;
        Ok(Self {
            plan,
            clients,
            start: clock::now(),
            swept: 0,
            issued: 0,
            sending: false,
            measuring: false,
            answered: 0,
            lost: 0,
            wrong: 0,
            latency: Histogram::new(),
        })
    }

    fn now(&self) -> u64 {
        (clock::now() - self.start).as_nanos() as u64
    }

    fn in_flight(&self) -> usize {
        self.clients.iter().map(Client::in_flight).sum()
    }

    fn exhausted(&self) -> bool {
        matches!(self.plan.length, Length::Once) && self.issued >= self.plan.order.len() as u64
    }

    fn finished(&self) -> bool {
        self.exhausted() && self.in_flight() == 0
    }

    /// One round over all clients: send what is due, take what has come.
    fn turn(&mut self) -> io::Result<()> {
        if let Pace::PerSecond(rate) = self.plan.pace {
            self.send_due(rate)?;
        }
        let mut idle = true;
        for i in 0..self.clients.len() {
            if self.clients[i].in_flight() > 0 {
                idle &= self.take(i)? == 0;
            }
            if let Pace::Window(window) = self.plan.pace {
                self.top_up(i, (window / CLIENTS).max(1))?;
            }
        }
        let now = self.now();
        if now - self.swept > SWEEP_EVERY {
            self.swept = now;
            self.sweep(now);
        }
        // The upstream shares this core, and with a window nothing is late while it works.
        if idle && matches!(self.plan.pace, Pace::Window(_)) {
            sys::yield_core();
        }
        Ok(())
    }

    fn send_due(&mut self, rate: u64) -> io::Result<()> {
        while self.sending && !self.exhausted() {
            let due = self.issued * 1_000_000_000 / rate;
            if due > self.now() {
                break;
            }
            let i = self.issued as usize % CLIENTS;
            if !self.queue(i, due) {
                // No slot is free: 2,048 queries of this client went unanswered within a second.
                self.issued += 1;
                self.lost += u64::from(self.measuring);
            }
            self.clients[i].flush()?;
        }
        Ok(())
    }

    fn top_up(&mut self, i: usize, window: usize) -> io::Result<()> {
        let now = self.now();
        while self.sending && self.clients[i].in_flight() < window && !self.exhausted() {
            if !self.queue(i, now) {
                break;
            }
        }
        self.clients[i].flush()
    }

    /// Puts the next query into client `i`'s batch; false when the client has no room.
    fn queue(&mut self, i: usize, since: u64) -> bool {
        let client = &mut self.clients[i];
        if client.outgoing.len() == BATCH {
            return false;
        }
        let Some(index) = client.free.pop() else { return false };
        let question = self.plan.order[self.issued as usize % self.plan.order.len()];
        self.issued += 1;
        let slot = &mut client.slots[usize::from(index)];
        let generation = slot.generation.wrapping_add(1) & ((1 << (16 - SLOT_BITS)) - 1);
        *slot = Slot { live: true, counted: self.measuring, generation, question, since };
        let wire = &self.plan.work.questions[question as usize].wire;
        let buffer = client.outgoing.push(wire.len());
        buffer.copy_from_slice(wire);
        buffer[..2].copy_from_slice(&(u16::from(generation) << SLOT_BITS | index).to_be_bytes());
        true
    }

    fn take(&mut self, i: usize) -> io::Result<usize> {
        let Client { incoming, socket, .. } = &mut self.clients[i];
        let count = incoming.receive(socket, false)?;
        let now = self.now();
        for n in 0..count {
            let client = &mut self.clients[i];
            let message = client.incoming.received(n);
            let Some(index) = client.waiting_for(message) else {
                // Late, repeated or somebody else's: not an answer to anything that is waited for.
                self.wrong += u64::from(self.measuring);
                continue;
            };
            let slot = client.slots[usize::from(index)];
            let question = &self.plan.work.questions[slot.question as usize];
            let right = is_answer(message, &question.wire, (!self.plan.echo).then_some(question.expect));
            client.release(index);
            self.answered += u64::from(right);
            if slot.counted {
                self.wrong += u64::from(!right);
                self.latency.record(now.saturating_sub(slot.since));
            }
        }
        Ok(count)
    }

    fn sweep(&mut self, now: u64) {
        for client in &mut self.clients {
            for index in 0..SLOTS {
                let slot = client.slots[usize::from(index)];
                if slot.live && now.saturating_sub(slot.since) > PATIENCE.as_nanos() as u64 {
                    client.release(index);
                    self.lost += u64::from(slot.counted);
                }
            }
        }
    }
}

impl Client {
    fn new(i: usize, target: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(sys::client_address(i))?;
        socket.connect(target)?;
        Ok(Self {
            socket,
            incoming: Batch::connected(),
            outgoing: Batch::connected(),
            slots: vec![Slot::default(); usize::from(SLOTS)].into(),
            free: (0..SLOTS).rev().collect(),
        })
    }

    fn in_flight(&self) -> usize {
        usize::from(SLOTS) - self.free.len()
    }

    /// The slot whose query has this message's ID.
    fn waiting_for(&self, message: &[u8]) -> Option<u16> {
        let id = u16::from_be_bytes([*message.first()?, *message.get(1)?]);
        let index = id & (SLOTS - 1);
        let slot = self.slots[usize::from(index)];
        (slot.live && u16::from(slot.generation) == id >> SLOT_BITS).then_some(index)
    }

    fn release(&mut self, index: u16) {
        self.slots[usize::from(index)].live = false;
        self.free.push(index);
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.outgoing.len() > 0 {
            // What the kernel does not take stays in its slot and is counted as lost in time.
            self.outgoing.flush(&self.socket)?;
        }
        Ok(())
    }
}

/// Whether `message` is a response to `query` with the RCODE and kind of answer expected; without an expectation,
/// whether it is a response to it at all. The ID has been compared already.
fn is_answer(message: &[u8], query: &[u8], expect: Option<Expect>) -> bool {
    let echoed = message.len() >= query.len() && message[2] & 0x80 != 0 && message[12..query.len()] == query[12..];
    let Some(expect) = expect else { return echoed };
    let seen = match (message.get(3).map(|flags| flags & 0x0f), message.get(6..8)) {
        (Some(3), _) => Expect::NxDomain,
        (Some(0), Some([0, 0])) => Expect::NoData,
        (Some(0), _) => Expect::Positive,
        _ => return false,
    };
    echoed && seen == expect
}
