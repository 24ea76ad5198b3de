//! Quotas: how many entries one route may have of one class, and which go when there are more.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::key::Key;

/// A smaller CAPACITY counts as this many, as in CoreDNS.
const SMALLEST: usize = 1024;

/// The quota of one route and class. Entries queue up in the order in which they were stored; the oldest goes first,
/// unless it was used since: then it queues up again. A scan of names that nobody asks twice so passes through without
/// touching what is in use.
#[derive(Debug)]
pub struct Quota {
    capacity: usize,
    entries: AtomicUsize,
    evictions: AtomicU64,
    queue: Mutex<VecDeque<Key>>,
}

/// What to do with the entry at the head of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is not there any more: forget its key.
    Gone,
    /// It was used: let it queue up again.
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
            evictions: AtomicU64::new(0),
            queue: Mutex::new(VecDeque::new()),
        }
    }

    /// How many entries exist now.
    pub fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// How many entries have had to go for others so far.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    pub(super) fn added(&self) {
        self.entries.fetch_add(1, Relaxed);
    }

    pub(super) fn removed(&self) {
        self.entries.fetch_sub(1, Relaxed);
    }

    pub(super) fn evicted(&self) {
        self.evictions.fetch_add(1, Relaxed);
    }

    /// Queues the key of a new entry up and makes room for it: `turn` looks at one key and says what became of it.
    pub(super) fn enqueue(&self, key: Key, mut turn: impl FnMut(&Key, bool) -> Turn) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.push_back(key);
        // Each entry gets at most one more round for each of its uses; after that the head has to go.
        let mut patience = queue.len();
        while self.entries() > self.capacity || queue.len() > 2 * self.capacity {
            let Some(head) = queue.pop_front() else { break };
            match turn(&head, patience == 0) {
                Turn::Gone => {}
                Turn::Again => queue.push_back(head),
                Turn::Removed => self.evicted(),
            }
            patience = patience.saturating_sub(1);
        }
    }
}
