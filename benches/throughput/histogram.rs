//! A latency histogram: 64 steps to each power of two, so a value is known to within 1.6 %.

use std::time::Duration;

const STEP_BITS: u32 = 6;
const STEPS: u64 = 1 << STEP_BITS;
/// Values are kept up to 2^40 ns (18 minutes); nothing here takes longer.
const BUCKETS: usize = ((40 - STEP_BITS as usize) + 1) << STEP_BITS;

#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into(), total: 0 }
    }

    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[bucket(nanos).min(BUCKETS - 1)] += 1;
        self.total += 1;
    }

    /// The latency that the share `quantile` (0 to 1) of all values does not exceed; zero without values.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        let wanted = ((self.total as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        for (i, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper(i));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = 63 - nanos.leading_zeros() - STEP_BITS;
    ((u64::from(shift) << STEP_BITS) + (nanos >> shift)) as usize
}

/// The largest value that falls into bucket `i`.
fn upper(i: usize) -> u64 {
    let i = i as u64;
    if i < 2 * STEPS {
        return i;
    }
    let shift = (i >> STEP_BITS) - 1;
    ((i - (shift << STEP_BITS) + 1) << shift) - 1
}
