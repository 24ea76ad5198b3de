//! Servers that answer over connections and not over UDP, as behind a filter: they go on being used, and UDP is tried
//! now and then.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// From one try over UDP to the next: twice as long each time, since trouble that ends is not a filter.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30);
/// How exact it is known when something came over UDP, in milliseconds.
const GRAIN: u64 = 50;
/// The bits of the number of tries beside their time.
const TRIES: u64 = 0xff;

/// Whether UDP to an upstream brings nothing although connections do.
#[derive(Debug)]
pub(crate) struct Silence {
    /// When UDP is to be tried again, in milliseconds since `epoch`, and behind it in [`TRIES`] how often it was tried;
    /// 0 while it is not silent.
    next: AtomicU64,
    /// When something came over UDP, as milliseconds since `epoch`; 0: never.
    heard: AtomicU64,
    epoch: Instant,
}

impl Silence {
    pub(crate) fn new(now: Instant) -> Silence {
        Silence { next: AtomicU64::new(0), heard: AtomicU64::new(0), epoch: now }
    }

    /// A connection has brought what UDP has not since `asked`. It may be one question's fault, so this begins only if
    /// nothing else came over UDP meanwhile, and UDP is to be tried at once.
    pub(crate) fn begin(&self, asked: Instant, now: Instant) {
        let heard = self.heard.load(Relaxed);
        if heard == 0 || heard + GRAIN < self.millis(asked) {
            let _ = self.next.compare_exchange(0, self.millis(now) * (TRIES + 1), Relaxed, Relaxed);
        }
    }

    /// Something has come over UDP.
    pub(crate) fn end(&self, now: Instant) {
        // Reading first keeps the line shared between workers while all is well.
        let at = self.millis(now);
        if at >= self.heard.load(Relaxed) + GRAIN {
            self.heard.store(at, Relaxed);
        }
        if self.is_on() {
            self.next.store(0, Relaxed);
        }
    }

    /// Whether questions go over connections.
    pub(crate) fn is_on(&self) -> bool {
        self.next.load(Relaxed) != 0
    }

    /// Whether UDP is to be tried now; who is told so has to. With `rarely` it is then left alone for the longest pause.
    pub(crate) fn is_due(&self, rarely: bool, now: Instant) -> bool {
        let at = self.millis(now);
        let take = |word: u64| {
            let (next, tries) = (word / (TRIES + 1), word & TRIES);
            let growing = *PAUSES.start() * (1 << tries.min(5));
            let pause = if rarely { *PAUSES.end() } else { growing.min(*PAUSES.end()) };
            let next_word = (at + pause.as_millis() as u64) * (TRIES + 1) + (tries + 1).min(TRIES);
            (word != 0 && at >= next).then_some(next_word)
        };
        self.next.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// Never 0.
    fn millis(&self, now: Instant) -> u64 {
        let millis = now.saturating_duration_since(self.epoch).as_millis();
        1 + u64::try_from(millis).unwrap_or(u64::MAX).min(u64::MAX >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn udp_is_tried_at_once_and_then_more_and_more_seldom_until_something_comes() {
        let start = clock::now();
        let silence = Silence::new(start);
        assert!(!silence.is_on() && !silence.is_due(false, start));
        silence.begin(start, start);
        assert!(silence.is_on());
        let mut now = start;
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert!(silence.is_due(false, now) && !silence.is_due(false, now));
            silence.begin(now, now);
            now += pause * SECOND;
            assert!(!silence.is_due(false, now - Duration::from_millis(1)), "{pause}");
        }
        silence.end(now);
        assert!(!silence.is_on() && !silence.is_due(false, now + 60 * SECOND));
        silence.begin(now + SECOND, now + SECOND);
        assert!(silence.is_due(true, now + SECOND) && !silence.is_due(true, now + 30 * SECOND));
        assert!(silence.is_due(true, now + 31 * SECOND));
    }

    #[test]
    fn one_question_without_answer_is_no_silence() {
        let start = clock::now();
        let silence = Silence::new(start);
        silence.end(start + SECOND);
        silence.begin(start, start + 2 * SECOND);
        assert!(!silence.is_on(), "others were answered meanwhile");
        silence.begin(start + 2 * SECOND, start + 4 * SECOND);
        assert!(silence.is_on());
    }
}
