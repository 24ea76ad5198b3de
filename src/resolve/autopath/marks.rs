//! Which clients walk a search list themselves.
//!
//! `a.b.svc.cluster.local` is the first name for a pod in namespace `b` that looks for `a`. It is the second for a pod
//! elsewhere that looks for `a.b` and was told that the first of its own list does not exist; for that one a walk to `a`
//! would be wrong. So whoever gets no answer from a walk has the later names of that list marked, and asks for them plainly.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use crate::cache::KeyRef;
use crate::sys::clock;

/// How long a mark holds, in seconds: a stub asks for the next name at once, unless it has to ask again for a lost packet.
const HOLDS: u32 = 15;

/// Clients share this many regions, so that one who looks for many missing names hinders few others,
const REGIONS: usize = 128;
/// and the names of a region share this many marks.
const MARKS: usize = 256;

/// Marks of names and clients, whatever the type, in a table that never grows. Those that meet at one mark are taken for each other, which
/// makes an answer a plain one and never a wrong one.
pub struct Walks {
    /// Until when each mark holds, in seconds since `start`.
    until: Box<[AtomicU32]>,
    clients: RandomState,
    start: Instant,
}

impl Walks {
    /// The client may ask for this name itself for some time.
    pub(super) fn mark(&self, client: IpAddr, name: &KeyRef<'_>, now: Instant) {
        self.until[self.place(client, name)].store(self.seconds(now) + HOLDS, Relaxed);
    }

    /// Whether the client may be asking for this name because it walks the list itself.
    pub(super) fn is_marked(&self, client: IpAddr, name: &KeyRef<'_>, now: Instant) -> bool {
        self.until[self.place(client, name)].load(Relaxed) > self.seconds(now)
    }

    fn place(&self, client: IpAddr, name: &KeyRef<'_>) -> usize {
        let client = self.clients.hash_one(client.to_canonical());
        // Each client has its own order of marks, so that two are not taken for each other name by name.
        let mark = (name.hash() ^ client.rotate_left(32)) as usize % MARKS;
        (client as usize % REGIONS) * MARKS + mark
    }

    fn seconds(&self, now: Instant) -> u32 {
        // One second is added, so that no mark is one that was never set.
        u32::try_from(now.saturating_duration_since(self.start).as_secs() + 1).unwrap_or(u32::MAX - HOLDS)
    }
}

impl Default for Walks {
    fn default() -> Walks {
        let until = (0..REGIONS * MARKS).map(|_| AtomicU32::new(0)).collect();
        Walks { until, clients: RandomState::new(), start: clock::now() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::Cache;

    #[test]
    fn a_mark_is_for_one_client_and_name_and_a_while() {
        let (walks, cache) = (Walks::default(), Cache::new(1 << 16));
        let names: Vec<[u8; 8]> = (0..100_u64).map(u64::to_be_bytes).collect();
        let [one, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let marked = |client, now| {
            let marked =
                names.iter().enumerate().filter(|(_, name)| walks.is_marked(client, &cache.key(1, *name), now));
            marked.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let now = clock::now();
        assert!(marked(one, now).is_empty());
        walks.mark(one, &cache.key(1, &names[7]), now);
        let holds = Duration::from_secs(HOLDS.into());
        for later in [Duration::ZERO, holds - Duration::from_secs(1)] {
            assert!(marked(one, now + later).contains(&7));
        }
        assert!(marked(one, now + holds).is_empty());
        assert!(marked(one, now).len() < 10 && marked(other, now).len() < 10, "few share a mark");
    }
}
