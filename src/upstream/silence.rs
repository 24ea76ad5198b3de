//! Servers that answer over connections and not over UDP, as behind a filter: they go on being used, and UDP is tried
//! now and then.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// From one try over UDP to the next.
const PAUSE: Duration = Duration::from_secs(30);

/// Whether UDP to an upstream brings nothing although connections do.
#[derive(Debug)]
pub(crate) struct Silence {
    /// When UDP is to be tried again, in milliseconds since `epoch`; 0 while it is not silent.
    next: AtomicU64,
    epoch: Instant,
}

impl Silence {
    pub(crate) fn new(now: Instant) -> Silence {
        Silence { next: AtomicU64::new(0), epoch: now }
    }

    /// A connection has brought what UDP did not. It may be one question's fault, so UDP is to be tried at once.
    pub(crate) fn begin(&self, now: Instant) {
        let _ = self.next.compare_exchange(0, self.millis(now), Relaxed, Relaxed);
    }

    /// Something has come over UDP.
    pub(crate) fn end(&self) {
        // Reading first keeps the line shared between workers while all is well.
        if self.is_on() {
            self.next.store(0, Relaxed);
        }
    }

    /// Whether questions go over connections.
    pub(crate) fn is_on(&self) -> bool {
        self.next.load(Relaxed) != 0
    }

    /// Whether UDP is to be tried now; who is told so has to, and nobody else for a while.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        let at = self.millis(now);
        let take = |next: u64| (next != 0 && at >= next).then(|| at + PAUSE.as_millis() as u64);
        self.next.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// Never 0.
    fn millis(&self, now: Instant) -> u64 {
        1 + now.saturating_duration_since(self.epoch).as_millis().try_into().unwrap_or(u64::MAX / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn udp_is_tried_at_once_and_then_seldom_until_something_comes() {
        let start = clock::now();
        let silence = Silence::new(start);
        assert!(!silence.is_on() && !silence.is_due(start));
        silence.begin(start);
        assert!(silence.is_on());
        assert!(silence.is_due(start) && !silence.is_due(start));
        silence.begin(start);
        assert!(!silence.is_due(start + PAUSE - Duration::from_millis(1)), "it is known already");
        assert!(silence.is_due(start + PAUSE) && !silence.is_due(start + PAUSE));
        silence.end();
        assert!(!silence.is_on() && !silence.is_due(start + PAUSE * 2));
    }
}
