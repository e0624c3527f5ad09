//! A latency histogram that many threads write and one reads: log-linear buckets, one atomic each.
//!
//! Each power of two of microseconds is cut in eight, so a quantile is off by at most 12.5 %. Snapshots subtract, which
//! gives the distribution of a window without ever resetting what others may be reading.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

const SUB_BUCKETS: usize = 8;
/// 2^27 us is 134 s; what takes longer counts in the last bucket.
const OCTAVES: usize = 28;
const BUCKETS: usize = OCTAVES * SUB_BUCKETS;

/// Counts by latency.
#[derive(Debug)]
pub struct LatencyHistogram {
    buckets: Box<[AtomicU64]>,
}

/// What a histogram held at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LatencySnapshot {
    counts: Vec<u64>,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

fn bucket_of(latency: Duration) -> usize {
    let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
    let octave = microseconds.ilog2();
    // The three bits below the leading one; under 8 us there are fewer, and they are scaled up.
    let below = microseconds - (1 << octave);
    let sub = if octave >= 3 {
        below >> (octave - 3)
    } else {
        below << (3 - octave)
    };
    let index = usize::try_from(octave).unwrap_or(OCTAVES) * SUB_BUCKETS + usize::try_from(sub).unwrap_or(0);
    index.min(BUCKETS - 1)
}

/// The upper edge of a bucket, in microseconds.
fn upper_edge(bucket: usize) -> f64 {
    let octave = i32::try_from(bucket / SUB_BUCKETS).unwrap_or(0);
    let sub = u32::try_from(bucket % SUB_BUCKETS).unwrap_or(0);
    2f64.powi(octave) * (1.0 + f64::from(sub + 1) / 8.0)
}

impl LatencyHistogram {
    /// Counts one.
    pub fn record(&self, latency: Duration) {
        if let Some(bucket) = self.buckets.get(bucket_of(latency)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What it holds now.
    pub fn snapshot(&self) -> LatencySnapshot {
        LatencySnapshot {
            counts: self
                .buckets
                .iter()
                .map(|bucket| bucket.load(Ordering::Relaxed))
                .collect(),
        }
    }
}

impl LatencySnapshot {
    /// What was counted after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |index: usize| earlier.counts.get(index).copied().unwrap_or(0);
        let counts = self
            .counts
            .iter()
            .enumerate()
            .map(|(index, count)| count.saturating_sub(before(index)));
        Self {
            counts: counts.collect(),
        }
    }

    /// Both together.
    pub fn add(&mut self, other: &Self) {
        if self.counts.len() < other.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The latency in milliseconds that the fraction `q` (0 to 1) stays at or below; none where nothing was counted.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts are far below 2^52"
        )]
        let rank = ((total as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(upper_edge(bucket) / 1_000.0);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_an_eighth() {
        let histogram = LatencyHistogram::default();
        for microseconds in 1..=10_000 {
            histogram.record(Duration::from_micros(microseconds));
        }
        let snapshot = histogram.snapshot();
        for (q, exact) in [(0.5, 5.0), (0.99, 9.9), (1.0, 10.0)] {
            let measured = snapshot.quantile_ms(q).unwrap();
            assert!((exact..=exact * 1.125).contains(&measured), "q {q}: {measured}");
        }
    }

    #[test]
    fn a_window_is_the_difference_of_two_snapshots() {
        let histogram = LatencyHistogram::default();
        histogram.record(Duration::from_secs(1));
        let before = histogram.snapshot();
        histogram.record(Duration::from_millis(1));
        let window = histogram.snapshot().since(&before);
        assert_eq!(window.count(), 1);
        assert!(window.quantile_ms(0.99).unwrap() < 1.2);
    }

    #[test]
    fn the_shortest_and_the_longest_have_a_bucket() {
        let histogram = LatencyHistogram::default();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.snapshot().count(), 2);
        assert_eq!(LatencySnapshot::default().quantile_ms(0.5), None);
    }
}
