//! The store: one for all zones, bounded in octets.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use quick_cache::sync::Cache as Quick;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::beneath::Beneath;
use super::entry::Entry;
use super::key::{HashedAlready, Key, KeyRef};
use super::quota::{Quota, Share, Turn};
use super::settings::Settings;

/// What one entry costs beside its own octets: the key's and the table's bookkeeping, measured.
const OVERHEAD: usize = 160;

/// Negative entries take at most this part of all octets: made-up names cost nothing to ask for and each is denied, so
/// without a bound a flood of them would push out what exists.
const DENIAL_PART: u64 = 4;

/// The responses of all zones. Look-ups take one shard lock and allocate nothing.
pub struct Cache {
    quick: Quick<Key, Arc<Entry>, Octets, HashedAlready, Evictions>,
    hasher: RandomState,
    quotas: Mutex<HashMap<u64, [Weak<Quota>; 2]>>,
    denials: Arc<Share>,
    denials_refused: AtomicU64,
    beneath: Beneath,
}

#[derive(Clone)]
struct Octets;

#[derive(Clone)]
struct Evictions;

impl Cache {
    /// A cache of at most `budget` octets, keys and bookkeeping included.
    pub fn new(budget: usize) -> Arc<Cache> {
        let options = OptionsBuilder::new()
            .estimated_items_capacity((budget / 1024).clamp(1024, 1 << 16))
            .weight_capacity(budget as u64)
            .build()
            .expect("both capacities are given");
        let quick = Quick::with_options(options, Octets, HashedAlready::default(), Evictions);
        let denials = Share::new(budget as u64 / DENIAL_PART);
        let (hasher, quotas) = (RandomState::new(), Mutex::default());
        let (denials_refused, beneath) = (AtomicU64::new(0), Beneath::default());
        Arc::new(Cache { quick, hasher, quotas, denials, denials_refused, beneath })
    }

    /// The key of a question of a route. The hash is keyed with a secret of this process, so nobody outside can aim at
    /// one bucket.
    pub fn key<'a>(&self, route: u64, octets: &'a [u8]) -> KeyRef<'a> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(route);
        hasher.write(octets);
        KeyRef { hash: hasher.finish(), route, octets }
    }

    /// The quotas of a route for positive and negative entries, by its fingerprint: the same ones as before where an
    /// unchanged route is compiled again.
    pub fn quotas(&self, route: u64, settings: Option<&Settings>) -> [Arc<Quota>; 2] {
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some([success, denial]) = quotas.get(&route)
            && let (Some(success), Some(denial)) = (success.upgrade(), denial.upgrade())
        {
            return [success, denial];
        }
        quotas.retain(|_, known| known.iter().all(|quota| quota.strong_count() > 0));
        let capacity = |of: fn(&Settings) -> usize| settings.map_or(0, of);
        let fresh = [
            Arc::new(Quota::new(capacity(|settings| settings.success.capacity))),
            Arc::new(Quota::sharing(capacity(|settings| settings.denial.capacity), &self.denials)),
        ];
        quotas.insert(route, [Arc::downgrade(&fresh[0]), Arc::downgrade(&fresh[1])]);
        fresh
    }

    /// The entry of a key, fresh or not.
    pub fn get(&self, key: &KeyRef<'_>) -> Option<Arc<Entry>> {
        let entry = self.quick.get(key)?;
        entry.used();
        Some(entry)
    }

    /// Stores an entry in the place of one with the same key, whose popularity it inherits. A negative one that has no
    /// place in the share of its kind is not stored.
    pub fn store(&self, key: Key, entry: Arc<Entry>) {
        let old = self.quick.peek(&key.as_ref());
        if let Some(old) = &old {
            entry.inherit(old);
        }
        let quota = entry.quota().clone();
        let queued = old.as_ref().is_some_and(|old| Arc::ptr_eq(old.quota(), &quota));
        // Octets count for as long as somebody holds the entry.
        drop(old);
        let octets = key.len() + entry.footprint() + OVERHEAD;
        // Before it is stored: a cache that is full would push out anything else for it.
        if quota.share().is_some_and(|share| !self.make_room(share, &quota, octets as u64)) {
            self.denials_refused.fetch_add(1, Relaxed);
            return self.remove(&key.as_ref());
        }
        entry.weigh(octets);
        self.quick.insert(key.clone(), entry);
        if !queued {
            quota.enqueue(key, |key| self.quick.peek(&key.as_ref()).is_some(), |key, now| self.turn(key, now));
        }
    }

    /// Removes the entry of a key.
    pub fn remove(&self, key: &KeyRef<'_>) {
        self.quick.remove(key);
    }

    /// The names that are known to have names beneath them.
    pub fn beneath(&self) -> &Beneath {
        &self.beneath
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.quick.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.quick.is_empty()
    }

    /// How many octets are in use, and how many may be.
    pub fn octets(&self) -> (u64, u64) {
        (self.quick.weight(), self.quick.capacity())
    }

    /// How many negative entries have found no place in the share of their kind so far.
    pub fn denials_refused(&self) -> u64 {
        self.denials_refused.load(Relaxed)
    }

    /// Makes room for so many octets in a share: what goes is the oldest unused entry of the quota that has most of it,
    /// which in a flood is the one that is to have another. `false` when that does not help.
    fn make_room(&self, share: &Arc<Share>, quota: &Arc<Quota>, octets: u64) -> bool {
        while share.is_short_of(octets) {
            let has_most = quota.octets() > share.most() / 2;
            let victim = if has_most { quota.clone() } else { self.largest(share).unwrap_or_else(|| quota.clone()) };
            if !victim.evict(|key, now| self.turn(key, now)) {
                return !share.is_short_of(octets);
            }
        }
        true
    }

    /// The quota with the most octets of a share.
    fn largest(&self, share: &Arc<Share>) -> Option<Arc<Quota>> {
        let quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let known = quotas.values().flatten().filter_map(Weak::upgrade);
        known
            .filter(|quota| quota.share().is_some_and(|own| Arc::ptr_eq(own, share)))
            .max_by_key(|quota| quota.octets())
    }

    /// Gives the entry at the head of a quota's queue its turn: it stays if it was used, unless it has to go `now`.
    fn turn(&self, key: &Key, now: bool) -> Turn {
        let Some(entry) = self.quick.peek(&key.as_ref()) else { return Turn::Gone };
        if !now && entry.forgive() {
            return Turn::Again;
        }
        self.quick.remove(&key.as_ref());
        Turn::Removed
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("entries", &self.len()).field("octets", &self.octets()).finish()
    }
}

impl Weighter<Key, Arc<Entry>> for Octets {
    fn weight(&self, key: &Key, entry: &Arc<Entry>) -> u64 {
        (key.len() + entry.footprint() + OVERHEAD) as u64
    }
}

impl Lifecycle<Key, Arc<Entry>> for Evictions {
    type RequestState = ();

    fn on_evict(&self, _state: &mut (), _key: Key, entry: Arc<Entry>) {
        entry.quota().evicted();
    }
}
