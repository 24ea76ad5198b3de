//! How often the same kind of line may be written, and what to say about those that were not.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Lines of a kind that may come at once.
const BURST: u32 = 20;

/// How long one place in the burst takes to come back.
const REFILL: Duration = Duration::from_millis(500);

/// How long left-out lines are counted before the count is written.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// Kinds that are told apart. Call sites are finite, so this is reached only if keys are made from data.
const MAX_KINDS: usize = 1024;

/// A token bucket for each kind of line. `S` is what is kept of the first line that was left out.
#[derive(Debug)]
pub(super) struct Limiter<K, S> {
    kinds: HashMap<K, Bucket<S>>,
}

#[derive(Debug)]
struct Bucket<S> {
    tokens: u32,
    filled: Instant,
    left_out: Option<LeftOut<S>>,
}

#[derive(Debug)]
struct LeftOut<S> {
    since: Instant,
    count: u64,
    sample: S,
}

impl<K: Hash + Eq, S> Limiter<K, S> {
    pub(super) fn new() -> Limiter<K, S> {
        Limiter { kinds: HashMap::new() }
    }

    /// Whether a line may be written now. If not it is counted, and `sample` is asked for what to show of it if it is
    /// the first of its kind to be left out.
    pub(super) fn admit(&mut self, kind: K, now: Instant, sample: impl FnOnce() -> S) -> bool {
        if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&kind) {
            return false;
        }
        let full = || Bucket { tokens: BURST, filled: now, left_out: None };
        let bucket = self.kinds.entry(kind).or_insert_with(full);
        bucket.refill(now);
        if bucket.tokens > 0 {
            bucket.tokens -= 1;
            return true;
        }
        let left_out = bucket.left_out.get_or_insert_with(|| LeftOut { since: now, count: 0, sample: sample() });
        left_out.count += 1;
        false
    }

    /// The kinds of which lines were left out for a whole window: how many, and the first of them.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(u64, S)> {
        let over = |left_out: &mut LeftOut<S>| now.saturating_duration_since(left_out.since) >= WINDOW;
        let due = self.kinds.values_mut().filter_map(|bucket| bucket.left_out.take_if(over));
        due.map(|left_out| (left_out.count, left_out.sample)).collect()
    }
}

impl<S> Bucket<S> {
    fn refill(&mut self, now: Instant) {
        let places = now.saturating_duration_since(self.filled).as_nanos() / REFILL.as_nanos();
        match u32::try_from(places).ok().filter(|&places| places <= BURST) {
            Some(places) => {
                self.tokens = (self.tokens + places).min(BURST);
                self.filled += REFILL * places;
            }
            None => {
                self.tokens = BURST;
                self.filled = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn a_burst_passes_then_one_line_each_half_second() {
        let (mut limiter, start) = (Limiter::new(), clock::now());
        let mut admitted =
            |at: u64| (0..100).filter(|_| limiter.admit("kind", start + Duration::from_millis(at), || ())).count();
        assert_eq!(admitted(0), 20);
        assert_eq!(admitted(499), 0);
        assert_eq!(admitted(500), 1);
        assert_eq!(admitted(1900), 2);
        assert_eq!(admitted(3_600_000), 20);
    }

    #[test]
    fn what_was_left_out_is_told_once_per_window() {
        let (mut limiter, start) = (Limiter::new(), clock::now());
        for line in 0..57 {
            limiter.admit("kind", start, || line);
        }
        assert!(limiter.admit("other", start, || 0), "kinds do not share");
        assert_eq!(limiter.due(start + WINDOW - Duration::from_millis(1)), []);
        assert_eq!(limiter.due(start + WINDOW), [(37, 20)]);
        assert_eq!(limiter.due(start + WINDOW * 2), []);
    }
}
