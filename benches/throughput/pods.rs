//! Pods that look names up, on a timetable or so many at a time: sixteen of them, each with a socket and a loopback
//! address of its own, four to a namespace, driven by one thread that never sleeps. A lookup counts from the time it was
//! due until its stub resolver has a result.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dnslet::sys::clock;

use crate::histogram::Histogram;
use crate::load::Pace;
use crate::stub::{Lookup, Name, Next, Search};
use crate::sys::{self, BATCH, Batch};
use crate::workload::NAMESPACES;

const PODS: usize = 16;
/// Lookups a pod may have under way. An ID is made of the slot, the family, and how often the slot was used.
const SLOT_BITS: u16 = 8;
const SLOTS: u16 = 1 << SLOT_BITS;
/// A lookup that has no result by then is lost.
const PATIENCE: Duration = Duration::from_secs(2);
const SWEEP_EVERY: u64 = 50_000_000;

/// One run against one agent: each name once, as long as there is time.
pub(crate) struct Plan<'a> {
    pub(crate) target: SocketAddr,
    pub(crate) names: &'a [Name],
    /// Of lookups, not of queries.
    pub(crate) pace: Pace,
    /// Lookups that begin in this time are not measured.
    pub(crate) ramp: Duration,
    /// How long it goes on then.
    pub(crate) measure: Duration,
}

/// What came of it. `finished` and `queries` are of the measured time; latencies and failures of the lookups that
/// began in it.
pub(crate) struct Outcome<R> {
    pub(crate) finished: u64,
    pub(crate) queries: u64,
    /// Lost, or with another result than expected.
    pub(crate) failed: u64,
    pub(crate) latency: Histogram,
    /// What `probe` said when measuring began and when it ended.
    pub(crate) before: R,
    pub(crate) after: R,
}

/// Runs `plan`, calling `probe` at both ends of the measured time.
pub(crate) fn run<R>(plan: &Plan<'_>, mut probe: impl FnMut() -> io::Result<R>) -> io::Result<Outcome<R>> {
    let searches: Vec<_> = (0..NAMESPACES).map(Search::of).collect();
    let mut run = Run::new(plan, &searches)?;
    let ramp = plan.ramp.as_nanos() as u64;
    while run.now() < ramp {
        run.turn()?;
    }
    (run.finished, run.queries) = (0, 0);
    let before = probe()?;
    let end = ramp + plan.measure.as_nanos() as u64;
    while run.now() < end {
        run.turn()?;
    }
    run.over = true;
    let after = probe()?;
    let (finished, queries) = (run.finished, run.queries);
    while run.under_way > 0 {
        run.turn()?;
    }
    Ok(Outcome { finished, queries, failed: run.failed, latency: run.latency, before, after })
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    searches: &'a [Search],
    pods: Vec<Pod<'a>>,
    start: Instant,
    swept: u64,
    issued: usize,
    /// No lookup begins any more.
    over: bool,
    under_way: usize,
    finished: u64,
    queries: u64,
    failed: u64,
    latency: Histogram,
}

struct Pod<'a> {
    socket: UdpSocket,
    incoming: Batch,
    outgoing: Batch,
    slots: Box<[Slot<'a>]>,
    free: Vec<u16>,
}

#[derive(Clone, Copy)]
struct Slot<'a> {
    /// The lookup, and when it was due, in nanoseconds since the start.
    lookup: Option<(Lookup<'a>, u64)>,
    uses: u16,
}

impl<'a> Run<'a> {
    fn new(plan: &'a Plan<'a>, searches: &'a [Search]) -> io::Result<Self> {
        Ok(Self {
            plan,
            searches,
            pods: (0..PODS).map(|i| Pod::new(i, plan.target)).collect::<io::Result<_>>()?,
            start: clock::now(),
            swept: 0,
            issued: 0,
            over: false,
            under_way: 0,
            finished: 0,
            queries: 0,
            failed: 0,
            latency: Histogram::new(),
        })
    }

    fn now(&self) -> u64 {
        (clock::now() - self.start).as_nanos() as u64
    }

    /// When the next lookup should have begun, if that has come.
    fn due(&self, now: u64) -> Option<u64> {
        if self.over || self.issued == self.plan.names.len() {
            return None;
        }
        let due = match self.plan.pace {
            Pace::PerSecond(rate) => self.issued as u64 * 1_000_000_000 / rate,
            Pace::Window(window) if self.under_way < window => now,
            Pace::Window(_) => return None,
        };
        (due <= now).then_some(due)
    }

    fn measures(&self, since: u64) -> bool {
        since >= self.plan.ramp.as_nanos() as u64
    }

    /// Starts what is due and takes what has come.
    fn turn(&mut self) -> io::Result<()> {
        let now = self.now();
        while let Some(due) = self.due(now) {
            self.begin(due);
        }
        let mut idle = true;
        for i in 0..PODS {
            idle &= self.take(i)? == 0;
            self.pods[i].flush()?;
        }
        if now - self.swept > SWEEP_EVERY {
            self.swept = now;
            self.give_up_late(now);
        }
        if idle {
            // The upstream shares this core, and a lookup may wait for it.
            sys::yield_core();
        }
        Ok(())
    }

    fn begin(&mut self, due: u64) {
        let i = self.issued % PODS;
        let lookup = Lookup::new(&self.plan.names[self.issued], &self.searches[i % NAMESPACES]);
        self.issued += 1;
        let pod = &mut self.pods[i];
        let Some(index) = pod.free.pop() else {
            // 256 lookups of this pod have no result within two seconds.
            self.failed += u64::from(self.measures(due));
            return;
        };
        pod.slots[usize::from(index)].lookup = Some((lookup, due));
        self.under_way += 1;
        self.ask(i, index);
    }

    /// Queues the queries of both families for the current name.
    fn ask(&mut self, i: usize, index: u16) {
        let pod = &mut self.pods[i];
        let slot = &mut pod.slots[usize::from(index)];
        let Some((lookup, _)) = &slot.lookup else { return };
        slot.uses = slot.uses.wrapping_add(1);
        // What finds no room in the batch is lost in time, and counted.
        if pod.outgoing.len() + 2 <= BATCH {
            for family in 0..2 {
                let id = slot.uses << (SLOT_BITS + 1) | index << 1 | family;
                lookup.write_query(family.into(), id, pod.outgoing.push(lookup.query_length()));
            }
            self.queries += 2;
        }
    }

    fn take(&mut self, i: usize) -> io::Result<usize> {
        let Pod { incoming, socket, .. } = &mut self.pods[i];
        let count = incoming.receive(socket, false)?;
        let now = self.now();
        for n in 0..count {
            let Pod { incoming, slots, .. } = &mut self.pods[i];
            let message = incoming.received(n);
            let Some(id) = message.first_chunk().map(|id| u16::from_be_bytes(*id)) else { continue };
            let index = id >> 1 & (SLOTS - 1);
            let slot = &mut slots[usize::from(index)];
            if slot.uses << (SLOT_BITS + 1) != id & !(2 * SLOTS - 1) {
                continue;
            }
            let Some((lookup, since)) = &mut slot.lookup else { continue };
            let since = *since;
            match lookup.hear(usize::from(id & 1), message) {
                Next::Wait => {}
                Next::Ask => self.ask(i, index),
                Next::Done { right } => self.end(i, index, since, now, right),
            }
        }
        Ok(count)
    }

    fn end(&mut self, i: usize, index: u16, since: u64, now: u64, right: bool) {
        self.pods[i].slots[usize::from(index)].lookup = None;
        self.pods[i].free.push(index);
        self.under_way -= 1;
        self.finished += u64::from(right);
        if self.measures(since) {
            self.failed += u64::from(!right);
            self.latency.record(now.saturating_sub(since));
        }
    }

    fn give_up_late(&mut self, now: u64) {
        for i in 0..PODS {
            for index in 0..SLOTS {
                let since = self.pods[i].slots[usize::from(index)].lookup.map_or(u64::MAX, |(_, since)| since);
                if now.saturating_sub(since) > PATIENCE.as_nanos() as u64 {
                    self.end(i, index, since, now, false);
                }
            }
        }
    }
}

impl Pod<'_> {
    fn new(i: usize, target: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(sys::client_address(i))?;
        socket.connect(target)?;
        Ok(Self {
            socket,
            incoming: Batch::connected(),
            outgoing: Batch::connected(),
            slots: vec![Slot { lookup: None, uses: 0 }; usize::from(SLOTS)].into(),
            free: (0..SLOTS).rev().collect(),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.outgoing.len() > 0 {
            // What the kernel does not take is lost in time, and counted.
            self.outgoing.flush(&self.socket)?;
        }
        Ok(())
    }
}
