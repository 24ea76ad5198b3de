//! How soon a server that ended is started again.

use std::time::{Duration, Instant};

/// A server that answered for this long was well: its end says nothing about the next one.
const WELL: Duration = Duration::from_secs(1);
/// The first wait after a server that was not well.
const FIRST: Duration = Duration::from_millis(50);
/// The longest wait.
const CEILING: Duration = Duration::from_secs(5);

/// Waits between starts: none after a server that was well, then doubling up to a ceiling.
#[derive(Debug, Default)]
pub(super) struct Pace {
    serving_since: Option<Instant>,
    next: Option<Duration>,
}

impl Pace {
    /// The server says that it serves.
    pub(super) fn serves(&mut self, now: Instant) {
        self.serving_since.get_or_insert(now);
    }

    /// The server ended; how long to wait before the next start.
    pub(super) fn ended(&mut self, now: Instant) -> Duration {
        let well = self.serving_since.take().is_some_and(|since| now.saturating_duration_since(since) >= WELL);
        let wait = if well { Duration::ZERO } else { self.next.unwrap_or_default() };
        self.next = Some((wait * 2).clamp(FIRST, CEILING));
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn a_server_that_was_well_is_replaced_at_once_however_often() {
        let (mut pace, start) = (Pace::default(), clock::now());
        for life in 0..50 {
            let begin = start + 2 * WELL * life;
            pace.serves(begin);
            pace.serves(begin + WELL / 2);
            assert_eq!(pace.ended(begin + WELL), Duration::ZERO);
        }
    }

    #[test]
    fn one_that_ends_at_once_waits_longer_each_time_up_to_the_ceiling() {
        let (mut pace, now) = (Pace::default(), clock::now());
        let waits: Vec<u128> = (0..10).map(|_| pace.ended(now).as_millis()).collect();
        assert_eq!(waits, [0, 50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        pace.serves(now);
        assert_eq!(pace.ended(now + WELL / 2), CEILING, "half a second is not well");
        pace.serves(now);
        assert_eq!(pace.ended(now + WELL), Duration::ZERO);
        assert_eq!(pace.ended(now), FIRST);
    }
}
