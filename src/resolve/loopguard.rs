//! Loop detection: a name that only we know must not come back (RFC 9520 section 2, "forwarding loops").

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use crate::dns::{Name, Query, Type};

/// So many arrivals more than probes were sent, and the probe must have come back.
const TOLERATED: u32 = 1;

/// Watches one route for its own probe.
#[derive(Debug)]
pub struct LoopGuard {
    name: Name,
    sent: AtomicU32,
    arrived: AtomicU32,
    detected: AtomicBool,
}

impl LoopGuard {
    /// A guard with a fresh name below `zone` from the system's random source, so that nobody else can ask for it.
    pub fn new(zone: &Name) -> LoopGuard {
        let (high, low) = (rand::random::<u64>(), rand::random::<u64>());
        let name = Name::parse(&format!("{high}.{low}.{zone}")).unwrap_or_else(|_| short_name(high));
        LoopGuard { name, sent: AtomicU32::new(0), arrived: AtomicU32::new(0), detected: AtomicBool::new(false) }
    }

    /// The name to ask for, with type HINFO, at one of the route's own addresses.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Notes that a probe is about to be sent.
    pub fn sending(&self) {
        self.sent.fetch_add(1, Relaxed);
    }

    /// Notes a query that misses; most are not the probe.
    pub fn saw(&self, query: &Query<'_>) {
        if query.qtype == Type::HINFO && query.name() == self.name.as_wire() {
            let arrived = self.arrived.fetch_add(1, Relaxed) + 1;
            if arrived > self.sent.load(Relaxed) + TOLERATED {
                self.detected.store(true, Relaxed);
            }
        }
    }

    /// Whether what this route forwards comes back to us.
    pub fn detected(&self) -> bool {
        self.detected.load(Relaxed)
    }
}

/// For a zone so long that nothing fits below it.
fn short_name(random: u64) -> Name {
    Name::parse(&random.to_string()).expect("twenty digits are a label")
}
