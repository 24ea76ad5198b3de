//! Entries: a response, when it was stored, and what has been asked of it since.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::dns::Response;

use super::lifetime::{Class, Lifetime};
use super::quota::Quota;
use super::settings::Prefetch;

/// How often a use is remembered: an entry that was used often survives so many rounds of its quota.
const MOST_USES: u8 = 3;

/// The part of `retry_after` that is a time; above it are the low bits of a count.
const MILLIS: u64 = (1 << 48) - 1;

/// A kept response.
#[derive(Debug)]
pub struct Entry {
    /// The response, TTLs as the upstream sent them.
    pub response: Response,
    /// Its class.
    pub class: Class,
    /// When it was stored.
    pub stored: Instant,
    /// For how long from then it is fresh.
    pub lifetime: Duration,
    /// How many queries one reply from it saves its client.
    saves: u8,
    uses: AtomicU8,
    hits: AtomicU32,
    last_hit: AtomicU64,
    refreshing: AtomicBool,
    retry_after: AtomicU64,
    /// Octets that count against the quota.
    weight: AtomicU32,
    quota: Arc<Quota>,
}

impl Entry {
    /// An entry that counts against `quota` for as long as it exists.
    pub fn new(response: Response, lifetime: &Lifetime, stored: Instant, quota: &Arc<Quota>) -> Entry {
        quota.added();
        Entry {
            response,
            class: lifetime.class,
            stored,
            lifetime: lifetime.duration,
            saves: 0,
            uses: AtomicU8::new(0),
            hits: AtomicU32::new(0),
            last_hit: AtomicU64::new(0),
            refreshing: AtomicBool::new(false),
            retry_after: AtomicU64::new(0),
            weight: AtomicU32::new(0),
            quota: quota.clone(),
        }
    }

    /// The same, where one reply from it saves its client so many queries.
    pub fn saving(mut self, queries: usize) -> Entry {
        self.saves = u8::try_from(queries).unwrap_or(u8::MAX);
        self
    }

    /// How many queries one reply from it saves its client.
    pub fn saves(&self) -> u8 {
        self.saves
    }

    /// Whole seconds of life left; zero once it has ended.
    pub fn remaining(&self, now: Instant) -> u32 {
        u32::try_from(self.seconds().saturating_sub(self.age(now).as_secs())).unwrap_or(u32::MAX)
    }

    /// Whether its life has not ended yet.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.age(now) < self.lifetime
    }

    /// How long ago its life ended; zero while it is fresh.
    pub fn expired_for(&self, now: Instant) -> Duration {
        self.age(now).saturating_sub(self.lifetime)
    }

    /// The whole lifetime in seconds, as a TTL.
    pub fn seconds(&self) -> u64 {
        self.lifetime.as_secs()
    }

    /// How many octets it occupies.
    pub fn footprint(&self) -> usize {
        self.response.footprint() + size_of::<Entry>()
    }

    /// Notes a use. A shared write only while the entry is new to fame, so that hot entries stay readable by all.
    pub(super) fn used(&self) {
        let uses = self.uses.load(Relaxed);
        if uses < MOST_USES {
            self.uses.store(uses + 1, Relaxed);
        }
    }

    /// Takes one noted use away; `false` when there was none left.
    pub(super) fn forgive(&self) -> bool {
        self.uses.fetch_update(Relaxed, Relaxed, |uses| uses.checked_sub(1)).is_ok()
    }

    /// From now on it counts this many octets against its quota, until it is dropped.
    pub(super) fn weigh(&self, octets: usize) {
        let octets = u32::try_from(octets).unwrap_or(u32::MAX);
        let before = self.weight.swap(octets, Relaxed);
        self.quota.weighed(before.into(), octets.into());
    }

    pub(super) fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }

    /// Counts a hit for prefetching and says whether the entry has become worth a refresh.
    pub fn wants_prefetch(&self, now: Instant, prefetch: &Prefetch) -> bool {
        let at = self.millis(now);
        let last = self.last_hit.swap(at, Relaxed);
        let pause = Duration::from_millis(at.saturating_sub(last));
        let hits = if pause > prefetch.duration {
            self.hits.store(1, Relaxed);
            1
        } else {
            self.hits.fetch_add(1, Relaxed) + 1
        };
        if hits < prefetch.amount {
            return false;
        }
        let share = self.seconds() * u64::from(prefetch.percentage);
        u64::from(self.remaining(now)) <= share.div_ceil(100)
    }

    /// Carries the popularity of the entry that this one replaces.
    pub fn inherit(&self, old: &Entry) {
        self.uses.store(old.uses.load(Relaxed), Relaxed);
        self.hits.store(old.hits.load(Relaxed), Relaxed);
    }

    /// Elects one refresher: `true` for the first caller until [`Entry::refresh_ended`], and not while a pause after a
    /// failed refresh lasts.
    pub fn try_refresh(&self, now: Instant, recoveries: u64) -> bool {
        !self.refresh_paused(now, recoveries) && !self.refreshing.swap(true, Relaxed)
    }

    /// Ends a refresh; after a failed one there is a `pause` before the next (RFC 8767 section 5). `recoveries`, how
    /// often an upstream has recovered by now, is remembered with it.
    pub fn refresh_ended(&self, now: Instant, pause: Option<Duration>, recoveries: u64) {
        if let Some(pause) = pause {
            let until = self.millis(now).saturating_add(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
            self.retry_after.store(until.min(MILLIS) | recoveries << MILLIS.count_ones(), Relaxed);
        }
        self.refreshing.store(false, Relaxed);
    }

    /// Whether a pause after a failed refresh lasts: it ends early when an upstream recovers.
    pub fn refresh_paused(&self, now: Instant, recoveries: u64) -> bool {
        let retry_after = self.retry_after.load(Relaxed);
        retry_after >> MILLIS.count_ones() == recoveries & (u64::MAX >> MILLIS.count_ones())
            && self.millis(now) < retry_after & MILLIS
    }

    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.stored)
    }

    fn millis(&self, now: Instant) -> u64 {
        u64::try_from(self.age(now).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.weigh(0);
        self.quota.removed();
    }
}
