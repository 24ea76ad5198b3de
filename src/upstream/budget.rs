//! How much leaves this process for upstreams in all.
//!
//! One question may be sent six times, which is right while few need it. When many do, an upstream is in trouble, and
//! sending more makes it worse: further tries are paid from what first tries bring in, so that they stay a fraction
//! of the traffic. The cap on packets a second, where one is set, is for networks that drop what is above theirs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Further tries that may be made each second, however few first tries there are.
const RETRIES_PER_SECOND: u64 = 50;
/// The most further tries that can be saved up.
const SAVED_RETRIES: u64 = 1000;
/// As many first tries pay for one further try.
const FIRSTS_PER_RETRY: u64 = 5;
/// The part of what is saved that is left for tries at upstreams that were not asked yet: with half a dozen to choose
/// from, a question that the first one loses is still answered.
const RESERVE: u64 = 4;
/// The part of a second's packets that may leave at once.
const BURST: u64 = 10;
const SECOND: u64 = 1_000_000_000;

/// The limits of all upstreams together; shared by all workers.
#[derive(Debug)]
pub(crate) struct Budget {
    epoch: Instant,
    retries: Bucket,
    packets: Option<Bucket>,
    paced: AtomicU64,
}

impl Budget {
    /// At most `pps` packets a second; 0: as many as there are.
    pub(crate) fn new(pps: u32, now: Instant) -> Budget {
        let pps = u64::from(pps);
        Budget {
            epoch: now,
            retries: Bucket::new(RETRIES_PER_SECOND, SAVED_RETRIES),
            packets: (pps != 0).then(|| Bucket::new(pps, (pps / BURST).max(2))),
            paced: AtomicU64::new(0),
        }
    }

    /// A question is sent for the first time.
    pub(crate) fn first(&self, now: Instant) {
        self.retries.give(self.retries.price / FIRSTS_PER_RETRY, self.at(now));
    }

    /// Whether a question may be sent once more to an upstream that has got it; that has then been paid for. One in the
    /// background leaves half.
    pub(crate) fn again(&self, background: bool, now: Instant) -> bool {
        let left = self.retries.left(background).max(self.retries.depth / RESERVE);
        self.retries.take(self.retries.price, left, self.at(now))
    }

    /// Whether a question may be sent to another upstream as well; that has then been paid for. One in the background
    /// leaves half.
    pub(crate) fn elsewhere(&self, background: bool, now: Instant) -> bool {
        let price = self.retries.price / FIRSTS_PER_RETRY;
        self.retries.take(price, self.retries.left(background), self.at(now))
    }

    /// Whether a packet may be sent; it has then been paid for. One in the background leaves half.
    pub(crate) fn packet(&self, background: bool, now: Instant) -> bool {
        let take = |packets: &Bucket| packets.take(packets.price, packets.left(background), self.at(now));
        self.packets.as_ref().is_none_or(take)
    }

    /// Whether [`Budget::packet`] would say yes.
    pub(crate) fn has_packet(&self, background: bool, now: Instant) -> bool {
        let has = |packets: &Bucket| packets.has(packets.price, packets.left(background), self.at(now));
        self.packets.as_ref().is_none_or(has)
    }

    /// A question was not sent, because [`Budget::packet`] said no.
    pub(crate) fn pace(&self) {
        self.paced.fetch_add(1, Relaxed);
    }

    /// How many were not.
    pub(crate) fn paced(&self) -> u64 {
        self.paced.load(Relaxed)
    }

    fn at(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_nanos().try_into().unwrap_or(u64::MAX)
    }
}

/// What fills with time, up to a depth. All amounts are nanoseconds: what costs a fiftieth of a second can be had fifty
/// times a second. Its level follows from when it is full again, so one word is all its state.
#[derive(Debug)]
struct Bucket {
    /// When it is full again if nothing more is taken.
    full_at: AtomicU64,
    price: u64,
    depth: u64,
}

impl Bucket {
    /// A full one, from which `rate` can be taken each second and `depth` at once.
    fn new(rate: u64, depth: u64) -> Bucket {
        let price = SECOND / rate;
        Bucket { full_at: AtomicU64::new(0), price, depth: price * depth }
    }

    /// What one in the background leaves.
    fn left(&self, background: bool) -> u64 {
        if background { self.depth / 2 } else { 0 }
    }

    fn has(&self, amount: u64, left: u64, at: u64) -> bool {
        self.level(self.full_at.load(Relaxed).max(at), at) >= amount + left
    }

    fn take(&self, amount: u64, left: u64, at: u64) -> bool {
        let take = |full_at: u64| {
            let full_at = full_at.max(at);
            (self.level(full_at, at) >= amount + left).then_some(full_at + amount)
        };
        self.full_at.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    fn level(&self, full_at: u64, at: u64) -> u64 {
        (at + self.depth).saturating_sub(full_at)
    }

    fn give(&self, amount: u64, at: u64) {
        // A full bucket is not written to: the workers share the line.
        let give = |full_at: u64| (full_at > at).then(|| full_at.saturating_sub(amount).max(at));
        let _ = self.full_at.fetch_update(Relaxed, Relaxed, give);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sys::clock;

    const MS: Duration = Duration::from_millis(1);

    fn count(mut take: impl FnMut() -> bool) -> u64 {
        (0..100_000).take_while(|_| take()).count() as u64
    }

    /// What can be saved for more than tries at other upstreams.
    const SAVED: u64 = SAVED_RETRIES - SAVED_RETRIES / RESERVE;

    #[test]
    fn further_tries_are_paid_by_first_ones_and_by_time() {
        let start = clock::now();
        let budget = Budget::new(0, start);
        assert_eq!(count(|| budget.again(false, start)), SAVED);
        (0..100).for_each(|_| budget.first(start));
        assert_eq!(count(|| budget.again(false, start)), 20);
        assert_eq!(count(|| budget.again(false, start + 1000 * MS)), RETRIES_PER_SECOND);
        let late = start + 3_600_000 * MS;
        (0..100).for_each(|_| budget.first(late));
        assert_eq!(count(|| budget.again(false, late)), SAVED, "no more than that is saved up");
    }

    #[test]
    fn whoever_was_not_asked_yet_can_be_however_many_tries_are_refused() {
        let start = clock::now();
        let budget = Budget::new(0, start);
        let mut again = 0;
        for _ in 0..100_000 {
            budget.first(start);
            again += count(|| budget.again(false, start));
            assert!(budget.elsewhere(false, start));
        }
        assert!(again <= SAVED, "each question's own share went to its try elsewhere: {again}");
        let many = count(|| budget.elsewhere(false, start));
        assert!(many <= SAVED_RETRIES / RESERVE * FIRSTS_PER_RETRY, "a third and a fourth are bounded: {many}");
        assert!(!budget.elsewhere(false, start) && !budget.again(false, start));
    }

    #[test]
    fn what_nobody_waits_for_leaves_half() {
        let start = clock::now();
        let budget = Budget::new(1000, start);
        assert_eq!(count(|| budget.again(true, start)), SAVED_RETRIES / 2);
        assert!(!budget.elsewhere(true, start));
        assert_eq!(count(|| budget.again(false, start)), SAVED_RETRIES / 4);
        assert_eq!(count(|| budget.packet(true, start)), 50);
        assert!(!budget.has_packet(true, start) && budget.has_packet(false, start));
        assert_eq!(count(|| budget.packet(false, start)), 50);
        assert!(!budget.has_packet(false, start));
    }

    #[test]
    fn packets_keep_to_their_rate_and_their_burst() {
        let start = clock::now();
        let unlimited = Budget::new(0, start);
        assert_eq!(count(|| unlimited.packet(true, start)), 100_000);
        for pps in [1, 7, 1000, 30_000] {
            let budget = Budget::new(pps, start);
            let sent: u64 = (0..1000).map(|at| count(|| budget.packet(false, start + at * MS))).sum();
            let most = u64::from(pps) + (u64::from(pps) / BURST).max(2);
            // Once a millisecond, so what came in during the last one is not counted.
            let fewest = most - 2 - u64::from(pps) / 1000;
            assert!((fewest..=most).contains(&sent), "{sent} of {pps}");
        }
    }

    #[test]
    fn a_clock_read_before_another_thread_paid_is_no_harm() {
        let start = clock::now();
        let budget = Budget::new(1000, start + 50 * MS);
        assert_eq!(count(|| budget.packet(false, start + 1000 * MS)), 100);
        assert!(!budget.packet(false, start));
        budget.first(start);
    }
}
