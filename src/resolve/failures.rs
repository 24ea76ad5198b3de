//! What is remembered of questions that could not be answered (RFC 9520): who asks again within the pause gets the same
//! failure at once, and no upstream is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache as Quick;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use crate::cache::{HashedAlready, Key, KeyRef};

use super::outcome::Outcome;

/// The pause after the first failure of a question (RFC 9520 section 3.2: at least one second).
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Who fails again within this time after a pause has ended fails on; later it counts as the first time.
const MEMORY: Duration = Duration::from_secs(30);

/// What one failure costs beside its key and its message: the table's bookkeeping.
const OVERHEAD: usize = 160;

/// The failures of all questions, bounded in octets; the same for all snapshots.
pub struct Failures {
    kept: Quick<Key, Arc<Remembered>, Octets, HashedAlready, Evictions>,
    evictions: Arc<AtomicU64>,
}

/// One question's failure.
struct Remembered {
    outcome: Arc<Outcome>,
    until: Instant,
    pause: Duration,
    /// Of a failure of the way to the upstreams: how often one of them had recovered by then.
    recoveries: Option<u64>,
}

#[derive(Clone)]
struct Octets;

/// Counts what found no room any more.
#[derive(Clone)]
struct Evictions(Arc<AtomicU64>);

impl Failures {
    /// A memory of at most `budget` octets.
    pub fn new(budget: usize) -> Arc<Failures> {
        let options = OptionsBuilder::new()
            .estimated_items_capacity((budget / 512).clamp(64, 1 << 14))
            .weight_capacity(budget as u64)
            .build()
            .expect("both capacities are given");
        let evictions = Arc::<AtomicU64>::default();
        let kept = Quick::with_options(options, Octets, HashedAlready::default(), Evictions(evictions.clone()));
        Arc::new(Failures { kept, evictions })
    }

    /// How the question failed, while its pause lasts. A failure of the way is void once an upstream has recovered
    /// since.
    pub(super) fn get(&self, key: &KeyRef<'_>, now: Instant, recoveries: u64) -> Option<Arc<Outcome>> {
        let known = self.kept.get(key)?;
        let void = known.recoveries.is_some_and(|then| then != recoveries);
        (now < known.until && !void).then(|| known.outcome.clone())
    }

    /// The question failed at `now`: for the first time a pause of one second begins, then of two, four, up to
    /// `longest`. `recoveries` is given where the way failed and not the answer.
    pub(super) fn note(
        &self,
        key: &Key,
        outcome: &Arc<Outcome>,
        longest: Duration,
        now: Instant,
        recoveries: Option<u64>,
    ) {
        let before = self.kept.peek(&key.as_ref()).filter(|known| now < known.until + MEMORY);
        let pause = before.map_or(FIRST_PAUSE, |known| known.pause * 2).min(longest);
        if !pause.is_zero() {
            let known = Remembered { outcome: outcome.clone(), until: now + pause, pause, recoveries };
            self.kept.insert(key.clone(), Arc::new(known));
        }
    }

    /// The question was answered.
    pub(super) fn forget(&self, key: &Key) {
        self.kept.remove(&key.as_ref());
    }

    /// All of them were due to somebody who is not asked any more.
    pub fn clear(&self) {
        self.kept.clear();
    }

    /// How many questions are remembered, those whose pause is over among them.
    pub fn len(&self) -> usize {
        self.kept.len()
    }

    /// How many failures have been given up for want of room so far.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

impl Weighter<Key, Arc<Remembered>> for Octets {
    fn weight(&self, key: &Key, known: &Arc<Remembered>) -> u64 {
        (key.len() + known.outcome.footprint() + size_of::<Remembered>() + OVERHEAD) as u64
    }
}

impl Lifecycle<Key, Arc<Remembered>> for Evictions {
    type RequestState = ();

    fn on_evict(&self, _state: &mut (), _key: Key, _known: Arc<Remembered>) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{Cause, Failed};
    use super::*;
    use crate::cache::Cache;
    use crate::dns::Ede;
    use crate::sys::clock;

    const LONGEST: Duration = Duration::from_secs(30);

    fn key(name: &str) -> Key {
        Cache::new(1 << 20).key(1, name.as_bytes()).to_key()
    }

    fn failure() -> Arc<Outcome> {
        Arc::new(Failed::new(Cause::Timeout, Ede::NO_REACHABLE_AUTHORITY, "i/o timeout").into())
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_start_anew_after_a_while() {
        let (failures, key, outcome) = (Failures::new(1 << 16), key("a"), failure());
        let mut now = clock::now();
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            failures.note(&key, &outcome, LONGEST, now, None);
            now += Duration::from_secs(pause);
            assert!(failures.get(&key.as_ref(), now - Duration::from_millis(1), 0).is_some(), "{pause}");
            assert!(failures.get(&key.as_ref(), now, 0).is_none(), "{pause}");
        }
        now += MEMORY;
        failures.note(&key, &outcome, LONGEST, now, None);
        assert!(failures.get(&key.as_ref(), now + FIRST_PAUSE, 0).is_none());
    }

    #[test]
    fn an_answer_ends_it_and_so_does_a_recovery_where_the_way_had_failed() {
        let (failures, key, outcome, now) = (Failures::new(1 << 16), key("a"), failure(), clock::now());
        failures.note(&key, &outcome, LONGEST, now, Some(7));
        assert!(failures.get(&key.as_ref(), now, 7).is_some());
        assert!(failures.get(&key.as_ref(), now, 8).is_none());
        failures.note(&key, &outcome, LONGEST, now, None);
        assert!(failures.get(&key.as_ref(), now, 9).is_some(), "an upstream's own failure is not about the way");
        failures.forget(&key);
        assert!(failures.get(&key.as_ref(), now, 9).is_none());
    }

    #[test]
    fn the_operator_may_shorten_the_pause_or_turn_it_off() {
        let (failures, key, outcome, now) = (Failures::new(1 << 16), key("a"), failure(), clock::now());
        failures.note(&key, &outcome, Duration::ZERO, now, None);
        assert!(failures.is_empty());
        failures.note(&key, &outcome, Duration::from_millis(500), now, None);
        assert!(failures.get(&key.as_ref(), now + Duration::from_millis(500), 0).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let (failures, outcome, now) = (Failures::new(1 << 16), failure(), clock::now());
        let cache = Cache::new(1 << 20);
        for number in 0..10_000_u32 {
            let key = cache.key(1, &number.to_be_bytes()).to_key();
            failures.note(&key, &outcome, LONGEST, now, None);
        }
        assert!(failures.len() < (1 << 16) / OVERHEAD, "{}", failures.len());
        assert_eq!(failures.evictions(), 10_000 - failures.len() as u64, "what had no room is counted");
        let roomy = Failures::new(1 << 16);
        for _ in 0..2 {
            roomy.note(&key("a"), &outcome, LONGEST, now, None);
        }
        roomy.forget(&key("a"));
        assert_eq!(roomy.evictions(), 0, "and nothing else is");
    }
}
