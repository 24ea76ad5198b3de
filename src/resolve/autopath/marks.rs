//! Which clients walk a search list themselves.
//!
//! `a.b.svc.cluster.local` is the first name for a pod in namespace `b` that looks for `a`. It is the second for a pod
//! elsewhere that looks for `a.b` and was told that the first of its own list does not exist; for that one a walk to `a`
//! would be wrong. So whoever gets no answer from a walk has the later names of that list marked, and asks for them plainly.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::cache::KeyRef;
use crate::sys::clock;

/// How long a mark holds, in seconds: a stub asks for the next name at once, unless it has to ask again for a lost packet.
const HOLDS: u32 = 15;

/// Clients share this many regions, so that one who looks for many missing names hinders few others,
const REGIONS: usize = 64;
/// a region has this many sets,
const SETS: usize = 256;
/// and a set this many marks.
const WAYS: usize = 8;

/// What a mark that is for every name of its set has in place of a name.
const EVERY: u32 = 0;

/// Marks of names and clients, in a table that never grows. A set that is full gets a mark for all of its names: they are
/// answered plainly, which is never wrong.
pub struct Walks {
    /// Each mark: which name, and in the lower half until when, in seconds since `start`.
    marks: Box<[AtomicU64]>,
    clients: RandomState,
    start: Instant,
}

impl Walks {
    /// The client may ask for this name itself for some time.
    pub(super) fn mark(&self, client: IpAddr, name: &KeyRef<'_>, now: Instant) {
        let (set, tag) = self.place(client, name);
        let (now, until) = (self.seconds(now), u64::from(self.seconds(now) + HOLDS));
        let place = |slot: &&AtomicU64| {
            let old = slot.load(Relaxed);
            let free = old as u32 <= now || (old >> 32) as u32 == tag;
            free && slot.compare_exchange(old, u64::from(tag) << 32 | until, Relaxed, Relaxed).is_ok()
        };
        if set.iter().find(place).is_none() {
            set[0].store(u64::from(EVERY) << 32 | until, Relaxed);
        }
    }

    /// Whether the client may be asking for this name because it walks the list itself.
    pub(super) fn is_marked(&self, client: IpAddr, name: &KeyRef<'_>, now: Instant) -> bool {
        let (set, tag) = self.place(client, name);
        let now = self.seconds(now);
        set.iter().map(|slot| slot.load(Relaxed)).any(|mark| {
            let about = (mark >> 32) as u32;
            mark as u32 > now && (about == tag || about == EVERY)
        })
    }

    /// The set of a name and client, and what the name is called there.
    fn place(&self, client: IpAddr, name: &KeyRef<'_>) -> (&[AtomicU64], u32) {
        let client = self.clients.hash_one(client.to_canonical());
        let both = self.clients.hash_one((client, name.hash()));
        let set = client as usize % REGIONS * SETS + both as usize % SETS;
        (&self.marks[set * WAYS..][..WAYS], ((both >> 32) as u32).max(EVERY + 1))
    }

    fn seconds(&self, now: Instant) -> u32 {
        // One second is added, so that no mark is one that was never set.
        u32::try_from(now.saturating_duration_since(self.start).as_secs() + 1).unwrap_or(u32::MAX - HOLDS)
    }
}

impl Default for Walks {
    fn default() -> Walks {
        let marks = (0..REGIONS * SETS * WAYS).map(|_| AtomicU64::new(0)).collect();
        Walks { marks, clients: RandomState::new(), start: clock::now() }
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
            assert_eq!(marked(one, now + later), [7]);
        }
        assert!(marked(one, now + holds).is_empty());
        assert!(marked(other, now).is_empty());
    }

    #[test]
    fn no_mark_is_lost_when_there_are_too_many() {
        let (walks, cache) = (Walks::default(), Cache::new(1 << 16));
        let names: Vec<[u8; 8]> = (0..5000_u64).map(u64::to_be_bytes).collect();
        let (client, now) = (IpAddr::from([10, 0, 0, 1]), clock::now());
        names.iter().for_each(|name| walks.mark(client, &cache.key(1, name), now));
        assert!(names.iter().all(|name| walks.is_marked(client, &cache.key(1, name), now)));
    }
}
