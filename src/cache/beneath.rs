//! Names that are known to have names beneath them: whoever denies one of these does not mean what is beneath it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// For so long after the end of an answer it is still known that there was one.
const MEMORY: Duration = Duration::from_secs(3600);

/// Places in the table, 256 KiB in all. Sixteen bits of a hash are one place.
const PLACES: usize = 1 << 16;

/// A set that forgets by time only, in a table that never grows.
///
/// A name has four places, and each holds the latest time until which a name there is known. One that was noted is
/// therefore known until its time is over, whatever comes after it. Where there are very many, names that were never
/// noted seem to be known as well: with 5000 one in 200. Then denials are used less often, never wrongly.
#[derive(Debug, Default)]
pub struct Beneath(OnceLock<Table>);

#[derive(Debug)]
struct Table {
    began: Instant,
    /// Seconds since `began`; 0: never.
    until: Box<[AtomicU32]>,
}

impl Beneath {
    /// Notes by the keyed hash of a name that there was an answer for a name beneath it, which may be used for `lifetime`.
    pub fn note(&self, hash: u64, lifetime: Duration, now: Instant) {
        let table = self.0.get_or_init(|| Table {
            began: now,
            until: std::iter::repeat_with(AtomicU32::default).take(PLACES).collect(),
        });
        let until = table.seconds(now).saturating_add(whole(lifetime + MEMORY)).saturating_add(1);
        for place in places(hash) {
            table.until[place].fetch_max(until, Relaxed);
        }
    }

    /// Whether it was noted and its time is not over.
    pub fn knows(&self, hash: u64, now: Instant) -> bool {
        self.0.get().is_some_and(|table| {
            let now = table.seconds(now);
            places(hash).all(|place| table.until[place].load(Relaxed) > now)
        })
    }
}

impl Table {
    fn seconds(&self, now: Instant) -> u32 {
        whole(now.saturating_duration_since(self.began))
    }
}

fn whole(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn places(hash: u64) -> impl Iterator<Item = usize> {
    (0..4).map(move |part| (hash >> (16 * part)) as usize % PLACES)
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use super::*;
    use crate::sys::clock;

    #[test]
    fn what_is_noted_is_known_until_its_time_is_over_whatever_else_is_noted() {
        let (beneath, keyed, now) = (Beneath::default(), RandomState::new(), clock::now());
        assert!(!beneath.knows(7, now));
        beneath.note(7, Duration::from_secs(30), now);
        for name in 0..200_000 {
            beneath.note(keyed.hash_one(name), Duration::ZERO, now);
        }
        assert!(beneath.knows(7, now + Duration::from_secs(3630)));
        assert!(!beneath.knows(7, now + Duration::from_secs(3631)), "one of its places has no later time");
    }

    #[test]
    fn a_shorter_time_does_not_take_from_a_longer_one() {
        let (beneath, now) = (Beneath::default(), clock::now());
        beneath.note(7, Duration::from_secs(600), now);
        beneath.note(7, Duration::ZERO, now + Duration::from_secs(10));
        assert!(beneath.knows(7, now + Duration::from_secs(4200)));
    }

    #[test]
    fn few_names_are_taken_for_others() {
        let (beneath, keyed, now) = (Beneath::default(), RandomState::new(), clock::now());
        (0..5_000).for_each(|name| beneath.note(keyed.hash_one(name), Duration::ZERO, now));
        let mistaken = (5_000..25_000).filter(|name| beneath.knows(keyed.hash_one(name), now)).count();
        assert!(mistaken < 400, "{mistaken} of 20000");
    }
}
