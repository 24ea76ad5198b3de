//! Histograms with fixed buckets: one kind for a single writer, one for many.
//!
//! Values are integers (nanoseconds, bytes), so recording is a comparison and two additions; the exposition divides.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The upper limits of buckets, each inclusive; values above the last are in the `+Inf` bucket.
#[derive(Debug)]
pub struct Bounds {
    /// The limits, rising, in the recorded unit.
    pub limits: &'static [u64],
    /// How many recorded units are one exposed unit: 1e9 for seconds from nanoseconds, 1 for bytes.
    pub per_unit: f64,
}

const TIME_BUCKETS: usize = 16;
const SHORTEST: u64 = 250_000;

/// 0.25 ms, doubled fifteen times, up to 8.192 s.
pub static TIMES: Bounds = Bounds { limits: &time_limits(), per_unit: 1e9 };

/// Sizes of messages, up to 64,000 bytes.
pub static SIZES: Bounds = Bounds {
    limits: &[0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16_000, 32_000, 48_000, 64_000],
    per_unit: 1.0,
};

/// Five powers of ten from 0.25 ms, for the health probe.
pub static HEALTH: Bounds =
    Bounds { limits: &[250_000, 2_500_000, 25_000_000, 250_000_000, 2_500_000_000], per_unit: 1e9 };

const fn time_limits() -> [u64; TIME_BUCKETS] {
    let mut limits = [SHORTEST; TIME_BUCKETS];
    let mut power = 1;
    while power < TIME_BUCKETS {
        limits[power] = limits[power - 1] * 2;
        power += 1;
    }
    limits
}

/// A number with one writer: no read-modify-write, so no locked bus and no shared line.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    #[inline]
    pub(super) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations in the buckets of [`TIMES`], for one writer.
#[derive(Debug, Default)]
pub(super) struct Times {
    buckets: [Cell; TIME_BUCKETS + 1],
    sum: Cell,
}

impl Times {
    #[inline]
    pub(super) fn record(&self, elapsed: Duration) {
        let nanos = nanoseconds(elapsed);
        // A value belongs to the first limit that is not below it; the limits double, so its index is a bit length.
        let over = nanos.saturating_sub(1) / SHORTEST;
        let index = (u64::BITS - over.leading_zeros()) as usize;
        self.buckets[index.min(TIME_BUCKETS)].add(1);
        self.sum.add(nanos);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::of(&TIMES, self.buckets.iter().map(Cell::get), self.sum.get())
    }
}

/// Sizes in the buckets of [`SIZES`], for one writer.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    buckets: [Cell; 15],
    sum: Cell,
}

impl Sizes {
    #[inline]
    pub(super) fn record(&self, size: usize) {
        let size = size as u64;
        self.buckets[bucket(&SIZES, size)].add(1);
        self.sum.add(size);
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::of(&SIZES, self.buckets.iter().map(Cell::get), self.sum.get())
    }
}

/// A histogram that any thread may record in. For what happens per upstream exchange or less often, not per query.
#[derive(Debug)]
pub struct SharedHistogram {
    bounds: &'static Bounds,
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl SharedHistogram {
    /// An empty one.
    pub fn new(bounds: &'static Bounds) -> SharedHistogram {
        let buckets = (0..=bounds.limits.len()).map(|_| AtomicU64::new(0)).collect();
        SharedHistogram { bounds, buckets, sum: AtomicU64::new(0) }
    }

    /// Records a duration; the bounds must be in nanoseconds.
    pub fn record(&self, elapsed: Duration) {
        self.record_units(nanoseconds(elapsed));
    }

    /// Records a value in the unit of the bounds.
    pub fn record_units(&self, value: u64) {
        self.buckets[bucket(self.bounds, value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// What was recorded until now.
    pub fn snapshot(&self) -> Snapshot {
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        Snapshot::of(self.bounds, counts, self.sum.load(Ordering::Relaxed))
    }
}

/// A histogram at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    bounds: &'static Bounds,
    counts: Vec<u64>,
    sum: u64,
}

impl Snapshot {
    fn of(bounds: &'static Bounds, counts: impl Iterator<Item = u64>, sum: u64) -> Snapshot {
        Snapshot { bounds, counts: counts.collect(), sum }
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, in the exposed unit.
    pub fn sum(&self) -> f64 {
        self.sum as f64 / self.bounds.per_unit
    }

    /// Every limit in the exposed unit with the number of values up to it; the `+Inf` bucket is [`Snapshot::count`].
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let running = self.counts.iter().scan(0, |total, count| {
            *total += count;
            Some(*total)
        });
        self.bounds.limits.iter().map(|&limit| limit as f64 / self.bounds.per_unit).zip(running)
    }

    /// Adds what another one with the same bounds recorded.
    pub(super) fn merge(&mut self, other: &Snapshot) {
        debug_assert!(std::ptr::eq(self.bounds, other.bounds), "one metric has one set of bounds");
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.wrapping_add(other.sum);
    }
}

#[inline]
fn bucket(bounds: &Bounds, value: u64) -> usize {
    // Most messages are small, so looking from the low end is over after two or three comparisons.
    bounds.limits.iter().position(|&limit| value <= limit).unwrap_or(bounds.limits.len())
}

#[inline]
fn nanoseconds(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_where_a_search_would_put_them() {
        let limits = TIMES.limits.iter().copied();
        let around = limits.flat_map(|limit| [limit - 1, limit, limit + 1]).chain([0, 1, u64::MAX]);
        for nanos in around {
            let times = Times::default();
            times.record(Duration::from_nanos(nanos));
            let wanted = TIMES.limits.partition_point(|&limit| limit < nanos);
            let found = times.snapshot().counts.iter().position(|&count| count == 1);
            assert_eq!(found, Some(wanted), "{nanos} ns");
        }
    }

    #[test]
    fn limits_are_those_of_the_dashboards() {
        let text = |bounds: &'static Bounds| {
            let limits = SharedHistogram::new(bounds).snapshot().cumulative().map(|(le, _)| le.to_string()).collect();
            let limits: Vec<String> = limits;
            limits.join(" ")
        };
        assert_eq!(
            text(&TIMES),
            "0.00025 0.0005 0.001 0.002 0.004 0.008 0.016 0.032 0.064 0.128 0.256 0.512 1.024 2.048 4.096 8.192"
        );
        assert_eq!(text(&HEALTH), "0.00025 0.0025 0.025 0.25 2.5");
        assert_eq!(text(&SIZES), "0 100 200 300 400 511 1023 2047 4095 8291 16000 32000 48000 64000");
    }

    #[test]
    fn a_shared_one_counts_cumulatively() {
        let histogram = SharedHistogram::new(&HEALTH);
        for millis in [0, 1, 20, 3000] {
            histogram.record(Duration::from_millis(millis));
        }
        let snapshot = histogram.snapshot();
        let counts: Vec<u64> = snapshot.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [1, 2, 3, 3, 3]);
        assert_eq!((snapshot.count(), snapshot.sum()), (4, 3.021));
    }
}
