//! The closed loop: connections that each keep exactly one request on its way.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::connection::Connection;

/// The most connections of one run.
pub const MAX_CONCURRENCY: usize = 4_096;
/// How often a connection may break before the run ends.
pub(crate) const MAX_BREAKS: u64 = 100;
pub(crate) const HIGHEST_NANOSECONDS: u64 = 120_000_000_000;

/// What is sent, where, and for how long.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub address: SocketAddr,
    /// Requests, sent in turn.
    pub requests: Vec<Bytes>,
    /// Connections, each with one request on its way.
    pub concurrency: usize,
    /// Time before anything is counted.
    pub warm_up: Duration,
    /// Time that is counted.
    pub duration: Duration,
    /// Ends the run after so many counted answers, if given.
    pub max_requests: Option<u64>,
}

/// What came back.
#[derive(Debug)]
pub struct Outcome {
    /// Nanoseconds from the first byte sent to the last byte read, of answers with status 200.
    pub latency: Histogram<u64>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections that ended in the middle and were made anew.
    pub broken: u64,
    /// Bytes of the last body.
    pub answer_bytes: usize,
    /// How long was counted.
    pub counted: Duration,
}

/// An outcome in numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Answers with status 200, per second.
    pub requests_per_second: f64,
    /// Answers with status 200.
    pub ok: u64,
    /// Answers with another status.
    pub not_ok: u64,
    /// Connections that ended in the middle.
    pub broken: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Half of the answers took at most so many microseconds.
    pub p50_us: f64,
    /// Nine in ten took at most so many.
    pub p90_us: f64,
    /// Ninety-nine in a hundred took at most so many.
    pub p99_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Bytes of a body.
    pub answer_bytes: usize,
    /// How long was counted.
    pub seconds: f64,
}

impl Outcome {
    pub(crate) fn empty() -> anyhow::Result<Self> {
        Ok(Self {
            latency: Histogram::new_with_bounds(1, HIGHEST_NANOSECONDS, 3)?,
            statuses: BTreeMap::new(),
            broken: 0,
            answer_bytes: 0,
            counted: Duration::ZERO,
        })
    }

    pub(crate) fn add(&mut self, other: &Self) -> anyhow::Result<()> {
        self.latency.add(&other.latency)?;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.broken += other.broken;
        self.answer_bytes = self.answer_bytes.max(other.answer_bytes);
        self.counted = self.counted.max(other.counted);
        Ok(())
    }

    /// Counts one answer.
    pub(crate) fn count(&mut self, status: u16, bytes: usize, took: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        self.answer_bytes = bytes;
        if status == 200 {
            let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            self.latency.saturating_record(nanoseconds.max(1));
        }
    }

    /// The outcome in numbers.
    pub fn summary(&self) -> Summary {
        let ok = self.latency.len();
        let all: u64 = self.statuses.values().sum();
        let quantile = |q: f64| micros(self.latency.value_at_quantile(q));
        let seconds = self.counted.as_secs_f64();
        Summary {
            requests_per_second: if seconds > 0.0 { float(ok) / seconds } else { 0.0 },
            ok,
            not_ok: all - ok,
            broken: self.broken,
            statuses: self.statuses.clone(),
            p50_us: quantile(0.50),
            p90_us: quantile(0.90),
            p99_us: quantile(0.99),
            max_us: micros(self.latency.max()),
            answer_bytes: self.answer_bytes,
            seconds,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

pub(crate) fn micros(nanoseconds: u64) -> f64 {
    float(nanoseconds) / 1_000.0
}

/// Runs the load on the current thread.
pub async fn run(load: &Load) -> anyhow::Result<Outcome> {
    ensure!(
        (1..=MAX_CONCURRENCY).contains(&load.concurrency),
        "concurrency is 1 to {MAX_CONCURRENCY}, got {}",
        load.concurrency
    );
    ensure!(!load.requests.is_empty(), "there is no request to send");
    let begin = Instant::now();
    let mut connections: FuturesUnordered<_> = (0..load.concurrency)
        .map(|index| one_connection(load, index, begin))
        .collect();
    let mut outcome = Outcome::empty()?;
    while let Some(one) = connections.next().await {
        outcome.add(&one?)?;
    }
    Ok(outcome)
}

async fn one_connection(load: &Load, index: usize, begin: Instant) -> anyhow::Result<Outcome> {
    let mut outcome = Outcome::empty()?;
    let mut connection = Connection::open(load.address).await?;
    let counted_from = begin + load.warm_up;
    let end = counted_from + load.duration;
    let share = load.max_requests.map(|max| share(max, load.concurrency, index));
    let (mut sent_at, mut counted) = (Instant::now(), 0);
    // Connections begin at different requests, so that the server sees all of them at any time.
    for request in load.requests.iter().cycle().skip(index % load.requests.len()) {
        if sent_at >= end || share.is_some_and(|share| counted >= share) {
            break;
        }
        match connection.exchange(request).await {
            Ok((status, bytes)) => {
                let now = Instant::now();
                if sent_at >= counted_from {
                    counted += 1;
                    outcome.count(status, bytes, now - sent_at);
                }
                sent_at = now;
            }
            Err(error) => {
                outcome.broken += 1;
                if outcome.broken > MAX_BREAKS {
                    bail!(error.context(format!("a connection broke more than {MAX_BREAKS} times")));
                }
                connection = Connection::open(load.address)
                    .await
                    .context("after a connection broke")?;
                sent_at = Instant::now();
            }
        }
    }
    outcome.counted = sent_at.saturating_duration_since(counted_from);
    Ok(outcome)
}

/// This connection's part of a bound on all.
pub(crate) fn share(max: u64, concurrency: usize, index: usize) -> u64 {
    let (all, index) = (
        u64::try_from(concurrency).unwrap_or(1).max(1),
        u64::try_from(index).unwrap_or(0),
    );
    max / all + u64::from(index < max % all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_sum_to_the_bound() {
        for (max, concurrency) in [(10, 3), (2, 5), (0, 1), (64, 64)] {
            let sum: u64 = (0..concurrency).map(|index| share(max, concurrency, index)).sum();
            assert_eq!(sum, max);
        }
    }

    #[test]
    fn quantiles_count_answers_with_200_only() {
        let mut outcome = Outcome::empty().unwrap();
        for nanoseconds in [1_000, 2_000, 3_000, 400_000] {
            outcome.latency.record(nanoseconds).unwrap();
        }
        outcome.statuses = BTreeMap::from([(200, 4), (503, 2)]);
        outcome.counted = Duration::from_secs(2);
        let summary = outcome.summary();
        assert_eq!((summary.ok, summary.not_ok), (4, 2));
        assert!((summary.requests_per_second - 2.0).abs() < 1e-9, "{summary:?}");
        assert!((summary.p50_us - 2.0).abs() < 0.01, "{summary:?}");
        assert!((summary.max_us - 400.0).abs() < 1.0, "{summary:?}");
    }
}
