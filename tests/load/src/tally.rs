//! What came back in an open loop, by kind of answer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::run::{HIGHEST_NANOSECONDS, float, micros};

/// The moments of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// When it was due.
    pub(crate) due: Instant,
    /// When its first byte was sent.
    pub(crate) sent: Instant,
    /// When the last byte of its answer was read.
    pub(crate) answered: Instant,
}

/// What came back.
#[derive(Debug)]
pub struct OpenOutcome {
    ok: Times,
    refused: Times,
    other: Times,
    /// From due to sent, of all.
    late: Histogram<u64>,
    good: u64,
    statuses: BTreeMap<u16, u64>,
    pub(crate) broken: u64,
    answer_bytes: usize,
    counted: Duration,
}

#[derive(Debug)]
struct Times {
    from_due: Histogram<u64>,
    from_sent: Histogram<u64>,
}

/// Latencies in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// How many.
    pub count: u64,
    /// Half took at most so long from when they were due.
    pub p50_us: f64,
    /// Nine in ten.
    pub p90_us: f64,
    /// Ninety-nine in a hundred.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Half took at most so long from when they were sent.
    pub sent_p50_us: f64,
    /// Ninety-nine in a hundred.
    pub sent_p99_us: f64,
}

/// An outcome in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenSummary {
    /// Requests that were due, per second.
    pub offered_per_second: f64,
    /// Answers with status 200 in time, per second.
    pub good_per_second: f64,
    /// Those, over all that were due.
    pub good_share: f64,
    /// Answers with status 200.
    pub ok: Latencies,
    /// Answers with status 429 or 503.
    pub refused: Latencies,
    /// Answers with another status.
    pub other: Latencies,
    /// Half were sent at most so many microseconds after they were due.
    pub late_p50_us: f64,
    /// Ninety-nine in a hundred.
    pub late_p99_us: f64,
    /// Connections that ended in the middle; their requests are in no other figure.
    pub broken: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Bytes of the last body with status 200.
    pub answer_bytes: usize,
    /// How long was counted.
    pub seconds: f64,
}

impl Times {
    fn empty() -> anyhow::Result<Self> {
        Ok(Self {
            from_due: Histogram::new_with_bounds(1, HIGHEST_NANOSECONDS, 3)?,
            from_sent: Histogram::new_with_bounds(1, HIGHEST_NANOSECONDS, 3)?,
        })
    }

    fn record(&mut self, timing: Timing) {
        self.from_due
            .saturating_record(nanoseconds(timing.answered - timing.due));
        self.from_sent
            .saturating_record(nanoseconds(timing.answered - timing.sent));
    }

    fn latencies(&self) -> Latencies {
        let due = |q: f64| micros(self.from_due.value_at_quantile(q));
        let sent = |q: f64| micros(self.from_sent.value_at_quantile(q));
        Latencies {
            count: self.from_due.len(),
            p50_us: due(0.50),
            p90_us: due(0.90),
            p99_us: due(0.99),
            max_us: micros(self.from_due.max()),
            sent_p50_us: sent(0.50),
            sent_p99_us: sent(0.99),
        }
    }
}

impl OpenOutcome {
    pub(crate) fn empty(counted: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            ok: Times::empty()?,
            refused: Times::empty()?,
            other: Times::empty()?,
            late: Histogram::new_with_bounds(1, HIGHEST_NANOSECONDS, 3)?,
            good: 0,
            statuses: BTreeMap::new(),
            broken: 0,
            answer_bytes: 0,
            counted,
        })
    }

    pub(crate) fn record(&mut self, status: u16, bytes: usize, timing: Timing, within: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        self.late.saturating_record(nanoseconds(timing.sent - timing.due));
        match status {
            200 => {
                self.answer_bytes = bytes;
                self.good += u64::from(timing.answered - timing.due <= within);
                self.ok.record(timing);
            }
            429 | 503 => self.refused.record(timing),
            _ => self.other.record(timing),
        }
    }

    /// The outcome in numbers.
    pub fn summary(&self) -> OpenSummary {
        let seconds = self.counted.as_secs_f64().max(f64::MIN_POSITIVE);
        let all: u64 = self.statuses.values().sum::<u64>() + self.broken;
        let late = |q: f64| micros(self.late.value_at_quantile(q));
        OpenSummary {
            offered_per_second: float(all) / seconds,
            good_per_second: float(self.good) / seconds,
            good_share: float(self.good) / float(all.max(1)),
            ok: self.ok.latencies(),
            refused: self.refused.latencies(),
            other: self.other.latencies(),
            late_p50_us: late(0.50),
            late_p99_us: late(0.99),
            broken: self.broken,
            statuses: self.statuses.clone(),
            answer_bytes: self.answer_bytes,
            seconds: self.counted.as_secs_f64(),
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_by_its_status_and_from_when_it_was_due() {
        let mut outcome = OpenOutcome::empty(Duration::from_secs(2)).unwrap();
        let due = Instant::now();
        let timing = |sent: u64, answered: u64| Timing {
            due,
            sent: due + Duration::from_millis(sent),
            answered: due + Duration::from_millis(answered),
        };
        let within = Duration::from_millis(10);
        outcome.record(200, 7, timing(4, 10), within);
        outcome.record(200, 7, timing(4, 11), within);
        outcome.record(503, 3, timing(0, 1), within);
        outcome.record(429, 3, timing(0, 1), within);
        outcome.record(504, 3, timing(0, 30), within);
        let summary = outcome.summary();
        let counts = (summary.ok.count, summary.refused.count, summary.other.count);
        assert_eq!(counts, (2, 2, 1));
        // The one that came a millisecond too late is no good, though its status is.
        assert!((summary.good_per_second - 0.5).abs() < 1e-9, "{summary:?}");
        assert!((summary.good_share - 0.2).abs() < 1e-9, "{summary:?}");
        assert!((summary.ok.max_us / 11_000.0 - 1.0).abs() < 0.01, "{summary:?}");
        assert!((summary.ok.sent_p50_us / 6_000.0 - 1.0).abs() < 0.01, "{summary:?}");
        assert!((summary.late_p99_us / 4_000.0 - 1.0).abs() < 0.01, "{summary:?}");
        assert_eq!(summary.answer_bytes, 7);
    }
}
