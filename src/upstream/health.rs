//! What is known about whether an upstream answers, and when it may be probed.
//!
//! Three things are kept apart. *Lost*: queries in a row that brought nothing in time, with no answer between; from
//! [`SUSPECT`] on the upstream is asked after the others, within the time that a few queries take. *Failed checks* in
//! a row: above `max_fails` it is down and passed by. *SERVFAIL*: a moving share of its answers; one that answers
//! nearly everything with it is asked after those that do not. An answer clears the first two at once.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::dns::Rcode;

/// So many queries in a row without answer make an upstream suspect.
pub(crate) const SUSPECT: u32 = 3;
/// The whole of a share.
const WHOLE: u32 = 1 << 16;
/// A share of SERVFAIL above this sets an upstream back.
const MOSTLY: u32 = WHOLE / 5 * 4;
/// One answer is this part of the moving share.
const WINDOW: u32 = 16;
/// An upstream that is down gets no more than one probe in this time.
const PROBE_PAUSE: std::ops::Range<Duration> = Duration::from_millis(1000)..Duration::from_millis(1250);
/// After a query that was a probe, checks have the next turn for this long.
const CHECKS_FIRST: u64 = 500;
/// Recoveries that no check has seen are told no more often than this, in milliseconds.
const TELL_PAUSE: u64 = 1000;

/// The health of one upstream, shared by all pools that use it.
#[derive(Debug)]
pub(crate) struct Health {
    /// Failed checks in a row.
    fails: AtomicU32,
    /// Queries in a row that brought nothing in time.
    lost: AtomicU32,
    /// Share of SERVFAIL in [`WHOLE`] parts.
    servfail: AtomicU32,
    /// Whether checks are under way.
    checking: AtomicBool,
    /// Whether it has answered after being suspect, where nobody checks, and that was not told yet.
    untold: AtomicBool,
    /// From when on that may be told again, in milliseconds since `epoch`.
    telling: AtomicU64,
    /// From when on it may be probed, in milliseconds since `epoch`, times two; odd if the last probe was a query.
    probe: AtomicU64,
    /// Since when it is down, as far as the log was told.
    down: Mutex<Option<Instant>>,
    epoch: Instant,
}

/// Who probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prober {
    /// A check.
    Check,
    /// A client's query where checks are made as well: they take turns, because a query may be for a name that the
    /// upstream never answers.
    Query,
    /// A client's query where nothing else finds out.
    LoneQuery,
}

impl Health {
    pub(crate) fn new(now: Instant) -> Health {
        Health {
            fails: AtomicU32::new(0),
            lost: AtomicU32::new(0),
            servfail: AtomicU32::new(0),
            checking: AtomicBool::new(false),
            untold: AtomicBool::new(false),
            telling: AtomicU64::new(0),
            probe: AtomicU64::new(0),
            down: Mutex::new(None),
            epoch: now,
        }
    }

    /// Failed checks in a row.
    pub(crate) fn fails(&self) -> u32 {
        self.fails.load(Relaxed)
    }

    /// Whether the last queries brought nothing.
    pub(crate) fn is_suspect(&self) -> bool {
        self.lost.load(Relaxed) >= SUSPECT
    }

    /// Whether it is not known to answer.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.fails() != 0 || self.is_suspect()
    }

    /// Whether it answers nearly everything with SERVFAIL.
    pub(crate) fn mostly_fails(&self) -> bool {
        self.servfail.load(Relaxed) > MOSTLY
    }

    /// A response came. Whether that is a recovery: checks had failed before; or, where no checks are made, queries in
    /// a row had brought nothing. A name that is never answered looks like the latter, so that counts once a second.
    #[must_use]
    pub(crate) fn answered(&self, checked: bool, now: Instant) -> bool {
        // Reading first keeps the line shared between workers while all is well.
        let lost = if self.lost.load(Relaxed) != 0 { self.lost.swap(0, Relaxed) } else { 0 };
        let recovered = self.fails() != 0 && self.fails.swap(0, Relaxed) != 0;
        if checked || recovered {
            return recovered;
        }
        if lost >= SUSPECT {
            self.untold.store(true, Relaxed);
        }
        self.untold.load(Relaxed) && self.tell(now)
    }

    /// Whether it is time to tell what was not told yet; it then is.
    fn tell(&self, now: Instant) -> bool {
        let at = self.millis(now);
        let told = self.telling.fetch_update(Relaxed, Relaxed, |from| (at >= from).then_some(at + TELL_PAUSE)).is_ok();
        if told {
            self.untold.store(false, Relaxed);
        }
        told
    }

    /// The response to a query had this RCODE. Two workers that write at once lose one, which does no harm.
    pub(crate) fn rcode(&self, rcode: Rcode) {
        let before = self.servfail.load(Relaxed);
        let share = match rcode {
            Rcode::SERVFAIL => before + (WHOLE - before) / WINDOW,
            // One that was set back is asked so rarely that a single better answer has to do.
            _ if before > MOSTLY => WHOLE / 2,
            _ => before - before.div_ceil(WINDOW),
        };
        if share != before {
            self.servfail.store(share, Relaxed);
        }
    }

    /// A query brought nothing in time. How many in a row that makes.
    pub(crate) fn lost(&self) -> u32 {
        // Far above any limit it stays where it is.
        let more = |lost: u32| lost.checked_add(1);
        self.lost.fetch_update(Relaxed, Relaxed, more).map_or(u32::MAX, |before| before + 1)
    }

    /// A check failed.
    pub(crate) fn failed(&self) {
        let _ = self.fails.fetch_update(Relaxed, Relaxed, |fails| fails.checked_add(1));
    }

    /// Somebody passes it by from now on. Whether that is a change; not if it has answered meanwhile.
    #[must_use]
    pub(crate) fn went_down(&self, now: Instant) -> bool {
        let mut down = self.down();
        let changes = down.is_none() && self.fails() != 0;
        if changes {
            *down = Some(now);
        }
        changes
    }

    /// It has answered. How long it was down, if it was.
    pub(crate) fn came_back(&self, now: Instant) -> Option<Duration> {
        self.down().take().map(|since| now.saturating_duration_since(since))
    }

    fn down(&self) -> MutexGuard<'_, Option<Instant>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether checks may begin; if so they are under way until [`Health::checks_end`].
    pub(crate) fn checks_begin(&self) -> bool {
        !self.checking.load(Relaxed) && !self.checking.swap(true, Relaxed)
    }

    pub(crate) fn checks_end(&self) {
        self.checking.store(false, Relaxed);
    }

    /// How long there is no probe yet.
    pub(crate) fn until_probe(&self, now: Instant) -> Duration {
        Duration::from_millis((self.probe.load(Relaxed) / 2).saturating_sub(self.millis(now)))
    }

    /// Whether `prober` may probe; if so the next one has to wait.
    pub(crate) fn may_probe(&self, prober: Prober, now: Instant) -> bool {
        let at = self.millis(now);
        let take = |word: u64| {
            let yields = prober == Prober::Query && word % 2 == 1;
            (at >= word / 2 + if yields { CHECKS_FIRST } else { 0 }).then(|| self.next_probe(prober, at))
        };
        self.probe.fetch_update(Relaxed, Relaxed, take).is_ok()
    }

    /// A check is made that needs no leave, or there was reason enough for one: the next probe has to wait.
    pub(crate) fn probed(&self, now: Instant) {
        self.probe.store(self.next_probe(Prober::Check, self.millis(now)), Relaxed);
    }

    fn next_probe(&self, prober: Prober, at: u64) -> u64 {
        // With jitter, so that the nodes of a cluster do not probe in step.
        let pause = rand::rng().random_range(PROBE_PAUSE).as_millis() as u64;
        (at + pause) * 2 + u64::from(prober != Prober::Check)
    }

    fn millis(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.epoch).as_millis().try_into().unwrap_or(u64::MAX / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn three_lost_queries_in_a_row_make_a_suspect_and_one_answer_clears_it() {
        let now = clock::now();
        let health = Health::new(now);
        assert_eq!((health.lost(), health.lost()), (1, 2));
        assert!(!health.answered(true, now), "nothing to recover from");
        assert_eq!((health.lost(), health.lost()), (1, 2));
        assert!(!health.is_suspect());
        health.lost();
        assert!(health.is_suspect() && health.is_doubtful());
        assert!(!health.answered(true, now));
        assert!(!health.is_doubtful());
        health.failed();
        assert!(health.is_doubtful());
        assert!(health.answered(true, now), "a check had failed");
        assert!(!health.is_doubtful() && !health.answered(true, now));
    }

    #[test]
    fn without_checks_an_answer_after_lost_queries_is_a_recovery_once_a_second() {
        let now = clock::now();
        let health = Health::new(now);
        let lose = |count: u32| (0..count).for_each(|_| _ = health.lost());
        lose(2);
        assert!(!health.answered(false, now), "it was not suspect");
        lose(3);
        assert!(health.answered(false, now) && !health.answered(false, now));
        lose(3);
        assert!(!health.answered(false, now + 999 * MS), "too early");
        assert!(health.answered(false, now + 1000 * MS), "but not forgotten");
        assert!(!health.answered(false, now + 5000 * MS));
        lose(3);
        assert!(!health.answered(true, now + 5000 * MS), "checks would have seen it");
        health.failed();
        assert!(health.answered(false, now + 5000 * MS), "those of somebody else have");
    }

    #[test]
    fn it_goes_down_once_and_comes_back_once() {
        let now = clock::now();
        let health = Health::new(now);
        assert!(!health.went_down(now), "it has answered before anybody could tell");
        health.failed();
        assert!(health.went_down(now) && !health.went_down(now + MS));
        assert!(health.answered(true, now));
        assert_eq!((health.came_back(now + 5 * MS), health.came_back(now + 6 * MS)), (Some(5 * MS), None));
    }

    #[test]
    fn only_nearly_nothing_but_servfail_sets_an_upstream_back() {
        let health = Health::new(clock::now());
        let after = |count: usize, rcode| (0..count).for_each(|_| health.rcode(rcode));
        for _ in 0..100 {
            after(3, Rcode::SERVFAIL);
            after(1, Rcode::NXDOMAIN);
        }
        assert!(!health.mostly_fails(), "three of four");
        after(30, Rcode::SERVFAIL);
        assert!(health.mostly_fails());
        after(1000, Rcode::SERVFAIL);
        after(1, Rcode::NOERROR);
        assert!(!health.mostly_fails(), "it can answer");
        after(1000, Rcode::NOERROR);
        assert_eq!(health.servfail.load(Relaxed), 0, "and is not written to any more");
    }

    #[test]
    fn one_probe_a_second_whoever_makes_it() {
        let start = clock::now();
        let health = Health::new(start);
        let (mut probes, mut last) = (Vec::new(), None);
        // Both are there all the time; a check is never later than a query by more than its turn.
        for at in 0..60_000 {
            let now = start + at * MS;
            for prober in [Prober::Query, Prober::Check] {
                if health.may_probe(prober, now) {
                    probes.push(prober);
                    let pause = last.map(|last| at - last);
                    assert!(pause.is_none_or(|pause| (1000..=1250).contains(&pause)), "{pause:?}");
                    last = Some(at);
                }
            }
        }
        assert!((48..=60).contains(&probes.len()), "{}", probes.len());
        assert!(probes.windows(2).all(|pair| pair[0] != pair[1]), "in turn: {probes:?}");
    }

    #[test]
    fn without_checks_queries_go_on_probing() {
        let start = clock::now();
        for (prober, fewest) in [(Prober::Query, 34), (Prober::LoneQuery, 48)] {
            let health = Health::new(start);
            let probes = (0..60_000).filter(|at| health.may_probe(prober, start + *at * MS)).count();
            assert!((fewest..=60).contains(&probes), "{probes}");
        }
    }
}
