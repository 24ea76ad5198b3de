//! Quotas: how many entries one route may have of one class, and which go when there are more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::key::Key;

/// A smaller CAPACITY counts as this many, as in CoreDNS.
const SMALLEST: usize = 1024;
/// Keys of entries that are gone may stay in a queue up to this many, or a quarter of the entries there are.
const LEFTOVERS: usize = 256;
/// Keys looked at for each new one while there are more: at least one in five is a leftover then.
const SWEEP: usize = 8;

/// The quota of one route and class. Entries queue up in the order in which they were stored; the oldest goes first,
/// unless it was used since: then it queues up again. A scan of names that nobody asks twice so passes through without
/// touching what is in use.
#[derive(Debug)]
pub struct Quota {
    capacity: usize,
    entries: AtomicUsize,
    /// Octets of the entries, keys and bookkeeping included.
    octets: AtomicU64,
    evictions: AtomicU64,
    queue: Mutex<VecDeque<Key>>,
    share: Option<Arc<Share>>,
}

/// A part of the cache's octets that several quotas have in common.
#[derive(Debug)]
pub(super) struct Share {
    most: u64,
    used: AtomicU64,
}

/// What to do with the entry at the head of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is not there any more: forget its key.
    Gone,
    /// It stays: let it queue up again.
    Again,
    /// It has been removed.
    Removed,
}

impl Quota {
    /// A quota of CAPACITY entries.
    pub fn new(capacity: usize) -> Quota {
        Quota {
            capacity: capacity.max(SMALLEST),
            entries: AtomicUsize::new(0),
            octets: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            queue: Mutex::new(VecDeque::new()),
            share: None,
        }
    }

    /// The same, whose entries also count against a share.
    pub(super) fn sharing(capacity: usize, share: &Arc<Share>) -> Quota {
        Quota { share: Some(share.clone()), ..Quota::new(capacity) }
    }

    /// How many entries exist now.
    pub fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// How many entries have had to go for others so far.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    pub(super) fn share(&self) -> Option<&Arc<Share>> {
        self.share.as_ref()
    }

    /// Octets of the entries that exist now.
    pub(super) fn octets(&self) -> u64 {
        self.octets.load(Relaxed)
    }

    pub(super) fn added(&self) {
        self.entries.fetch_add(1, Relaxed);
    }

    /// An entry that counted `before` octets counts `after`.
    pub(super) fn weighed(&self, before: u64, after: u64) {
        for sum in [Some(&self.octets), self.share.as_ref().map(|share| &share.used)].into_iter().flatten() {
            sum.fetch_add(after, Relaxed);
            sum.fetch_sub(before, Relaxed);
        }
    }

    pub(super) fn removed(&self) {
        self.entries.fetch_sub(1, Relaxed);
    }

    pub(super) fn evicted(&self) {
        self.evictions.fetch_add(1, Relaxed);
    }

    /// Queues the key of a new entry up and makes room for it: `turn` looks at one key and says what became of it.
    /// `alive` says whether a key still has its entry.
    pub(super) fn enqueue(&self, key: Key, alive: impl Fn(&Key) -> bool, mut turn: impl FnMut(&Key, bool) -> Turn) {
        let mut queue = self.queue();
        for _ in 0..SWEEP {
            if queue.len() <= self.entries() + LEFTOVERS.max(self.entries() / 4) {
                break;
            }
            let Some(head) = queue.pop_front() else { break };
            if alive(&head) {
                queue.push_back(head);
            }
        }
        queue.push_back(key);
        // Each entry gets at most one more round for each of its uses; after that the head has to go.
        let mut patience = queue.len();
        while self.entries() > self.capacity || queue.len() > 2 * self.capacity {
            if !self.step(&mut queue, patience == 0, &mut turn) {
                break;
            }
            patience = patience.saturating_sub(1);
        }
    }

    /// Removes the oldest entry that was not used since it was stored or had its last turn. `false` when there is none
    /// to remove.
    pub(super) fn evict(&self, mut turn: impl FnMut(&Key, bool) -> Turn) -> bool {
        let mut queue = self.queue();
        let (before, mut patience) = (self.evictions(), queue.len());
        while self.evictions() == before {
            if !self.step(&mut queue, patience == 0, &mut turn) {
                return false;
            }
            patience = patience.saturating_sub(1);
        }
        true
    }

    /// Keys in the queue.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queue().len()
    }

    /// Gives the head its turn; `false` when there is none.
    fn step(&self, queue: &mut VecDeque<Key>, now: bool, turn: &mut impl FnMut(&Key, bool) -> Turn) -> bool {
        let Some(head) = queue.pop_front() else { return false };
        match turn(&head, now) {
            Turn::Gone => {}
            Turn::Again => queue.push_back(head),
            Turn::Removed => self.evicted(),
        }
        true
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Key>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    pub(super) fn new(most: u64) -> Arc<Share> {
        Arc::new(Share { most, used: AtomicU64::new(0) })
    }

    /// Whether so many octets more are too many.
    pub(super) fn is_short_of(&self, octets: u64) -> bool {
        self.used.load(Relaxed) + octets > self.most
    }

    pub(super) fn most(&self) -> u64 {
        self.most
    }
}
