//! How often the same kind of line may be written, and what to say about those that were not.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// How often lines of a kind may be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// Lines that may come at once.
    burst: u32,
    /// How long one place in the burst takes to come back.
    refill: Duration,
    /// How long left-out lines are counted before the count is written.
    pub(super) window: Duration,
    /// Whether the count is a line like others: it takes a place, nothing comes between, and it shows how things stand,
    /// that is the last line and not the first.
    counts: bool,
}

/// For the lines of one place in the source.
pub(super) const CALL_SITE: Pace =
    Pace { burst: 20, refill: Duration::from_millis(500), window: Duration::from_secs(10), counts: false };

/// For the lines about one thing: after the first few, one a minute.
pub(super) const SUBJECT: Pace =
    Pace { burst: 6, refill: Duration::from_secs(60), window: Duration::from_secs(60), counts: true };

/// Kinds that are told apart. One that has been silent for long makes room.
const MAX_KINDS: usize = 1024;

/// A token bucket for each kind of line. `S` is what is kept of the first line that was left out.
#[derive(Debug)]
pub(super) struct Limiter<K, S> {
    kinds: HashMap<K, Bucket<S>>,
}

#[derive(Debug)]
struct Bucket<S> {
    pace: &'static Pace,
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
    /// the one of its kind to be shown.
    pub(super) fn admit(&mut self, kind: K, pace: &'static Pace, now: Instant, sample: impl FnOnce() -> S) -> bool {
        if self.kinds.len() >= MAX_KINDS && !self.kinds.contains_key(&kind) {
            self.kinds.retain(|_, bucket| !bucket.is_idle(now));
            if self.kinds.len() >= MAX_KINDS {
                return false;
            }
        }
        let full = || Bucket { pace, tokens: pace.burst, filled: now, left_out: None };
        self.kinds.entry(kind).or_insert_with(full).admit(now, sample)
    }

    /// The kinds of which lines were left out for a whole window: how many, in which time, and one of them.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(u64, Duration, S)> {
        self.kinds.values_mut().filter_map(|bucket| bucket.due(now)).collect()
    }
}

impl<S> Bucket<S> {
    fn admit(&mut self, now: Instant, sample: impl FnOnce() -> S) -> bool {
        self.refill(now);
        let waits = self.pace.counts && self.left_out.is_some();
        if self.tokens > 0 && !waits {
            self.tokens -= 1;
            return true;
        }
        match &mut self.left_out {
            None => self.left_out = Some(LeftOut { since: now, count: 1, sample: sample() }),
            Some(left_out) => {
                left_out.count += 1;
                if self.pace.counts {
                    left_out.sample = sample();
                }
            }
        }
        false
    }

    fn due(&mut self, now: Instant) -> Option<(u64, Duration, S)> {
        let window = self.pace.window;
        let left_out = self.left_out.take_if(|left_out| now.saturating_duration_since(left_out.since) >= window)?;
        if self.pace.counts {
            self.refill(now);
            self.tokens = self.tokens.saturating_sub(1);
        }
        Some((left_out.count, window, left_out.sample))
    }

    /// Whether it is as good as new.
    fn is_idle(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.tokens == self.pace.burst && self.left_out.is_none()
    }

    fn refill(&mut self, now: Instant) {
        let Pace { burst, refill, .. } = *self.pace;
        let places = now.saturating_duration_since(self.filled).as_nanos() / refill.as_nanos();
        match u32::try_from(places).ok().filter(|&places| places <= burst) {
            Some(places) => {
                self.tokens = (self.tokens + places).min(burst);
                self.filled += refill * places;
            }
            None => {
                self.tokens = burst;
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
        let mut admitted = |at: u64| {
            (0..100).filter(|_| limiter.admit("kind", &CALL_SITE, start + Duration::from_millis(at), || ())).count()
        };
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
            limiter.admit("kind", &CALL_SITE, start, || line);
        }
        assert!(limiter.admit("other", &CALL_SITE, start, || 0), "kinds do not share");
        let window = CALL_SITE.window;
        assert_eq!(limiter.due(start + window - Duration::from_millis(1)), []);
        assert_eq!(limiter.due(start + window), [(37, window, 20)]);
        assert_eq!(limiter.due(start + window * 2), []);
    }

    #[test]
    fn one_thing_has_a_line_a_minute_after_the_first_few_and_the_last_word_is_told() {
        let (mut limiter, start, second) = (Limiter::new(), clock::now(), Duration::from_secs(1));
        let (mut lines, mut told) = (Vec::new(), 0);
        // It changes every other second for ten minutes.
        for at in 0..660 {
            let now = start + second * at;
            if at < 600 && at % 2 == 0 && limiter.admit("to", &SUBJECT, now, || at) {
                lines.push(at);
            }
            for (count, window, last) in limiter.due(now) {
                assert!(count <= 31 && window == SUBJECT.window && at - last <= 61, "{count} until {last} at {at}");
                lines.push(at);
                told = told.max(last);
            }
        }
        assert_eq!(&lines[..6], &[0, 2, 4, 6, 8, 10], "the first few");
        assert!(lines.windows(2).skip(5).all(|pair| pair[1] - pair[0] >= 60), "{lines:?}");
        assert_eq!(told, 598, "nobody is left with an old word");
    }

    #[test]
    fn kinds_that_are_silent_make_room() {
        let (mut limiter, start) = (Limiter::new(), clock::now());
        for kind in 0..MAX_KINDS {
            assert!(limiter.admit(kind, &SUBJECT, start, || ()));
        }
        assert!(!limiter.admit(MAX_KINDS, &SUBJECT, start, || ()), "all of them are in use");
        assert!(limiter.admit(MAX_KINDS, &SUBJECT, start + SUBJECT.refill, || ()));
        assert_eq!(limiter.kinds.len(), 1);
    }
}
