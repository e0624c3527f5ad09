//! How long a batch takes, by its rows: learnt for one model and one shape on one device.
//!
//! Owns a mean and a 99th percentile at a few sizes, both monotone in the size (isotonic regression), with straight lines
//! between. Seeded by the warm-up sweep, fed by every batch, and learnt anew when what it says is off for a while: a device
//! that another process shares slows down at all sizes together. Knows no clock: durations come in, durations go out.
//!
//! The percentile follows stochastic approximation (Robbins and Monro, 1951): one outlier moves it by one step, however far
//! out it lies, because on a shared machine single executions of a hundred times the usual are nothing that a prediction
//! should follow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most sizes that are learnt: enough for 65,536 rows in steps of a half.
const MAX_POINTS: usize = 40;
/// What a new observation weighs at least: the mean follows the last twenty.
const MIN_GAIN: f64 = 0.05;
/// How far a batch may lie off what was said, in the mean of the last ones, before everything is learnt anew.
const DRIFT: f64 = 0.2;
/// What an observation weighs in that mean, and at most how far off it counts: one outlier is no drift.
const DRIFT_GAIN: f64 = 0.3;
const DRIFT_MISS: f64 = 2.5;
/// So many observations in a row must find the mean off.
const DRIFT_PATIENCE: u32 = 8;
/// What two durations may differ by without telling anything, in nanoseconds: a thread that is put aside for a moment.
const JITTER: f64 = 100_000.0;
/// After learning anew, so many observations move all sizes and not only their own.
const SETTLING: u32 = 20;
/// After so many observations of other sizes a size's own few are old: one that took less weighs as much as all of them, or what the
/// size took in a bad moment would keep it out of use for good.
const STALE_AFTER: u32 = 24;
/// A size that has been seen so often is known well enough.
const SEEN_OFTEN: u32 = 8;
/// A batch takes at most so many times as long as its rows' part of a smaller one would say.
const MOST_DISPROPORTION: f64 = 2.0;
/// The 99th percentile is at most so many times the mean: a machine that stands still is no property of the model.
const LONGEST_TAIL: f64 = 5.0;
/// No batch takes longer than a day, in nanoseconds: what says so is broken, and sums of durations must not overflow.
const LONGEST: f64 = 86_400e9;
/// What it costs to form a batch and to hand it over, in nanoseconds: more batches mean more of it.
const HANDLING: f64 = 50_000.0;
/// The percentile of a size that has been seen a few times only, as a multiple of the mean.
const EARLY_TAIL: f64 = 1.25;

/// How much of the best rate is enough for a size to be taken, and to be kept: where the rate is flat, noise must not move the
/// size to and fro.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Enough {
    /// Of the best rate, so much makes a size the one to take.
    take: f64,
    /// So much lets it stay.
    keep: f64,
}

impl Enough {
    /// For one tenant, which only makes itself wait.
    pub const ALONE: Self = Self { take: 0.97, keep: 0.94 };
    /// Where several tenants use the device: each waits for the others' batches, and smaller ones are worth a little of the rate.
    pub const IN_COMPANY: Self = Self { take: 0.92, keep: 0.89 };
}

/// What is known of one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Point {
    rows: u32,
    /// Nanoseconds.
    mean: f64,
    /// Mean absolute deviation, nanoseconds.
    deviation: f64,
    /// 99th percentile, nanoseconds.
    tail: f64,
    seen: u32,
    /// When it was seen last, in observations of all sizes.
    #[serde(skip)]
    seen_at: u32,
    /// The mean and the tail made monotone over the sizes.
    #[serde(skip)]
    fitted: (f64, f64),
}

/// The latency model of one model, shape and device.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    points: Vec<Point>,
    /// The mean miss of the last batches, less one: 0.5 where they took half as long again as was said.
    #[serde(skip)]
    bias: f64,
    #[serde(skip)]
    suspicious: u32,
    #[serde(skip)]
    settling: u32,
    #[serde(skip)]
    relearned: u32,
    /// Observations of all sizes so far.
    #[serde(skip)]
    observations: u32,
}

/// The size that an observation of so many rows is learnt at: the next of 1, 2, 3, 4, 6, 8, 12, 16, 24 ..
fn bucket(rows: u32) -> u32 {
    let rows = rows.max(1);
    let power = rows.checked_next_power_of_two().unwrap_or(u32::MAX);
    let between = power / 4 * 3;
    if power >= 4 && rows <= between { between } else { power }
}

/// The smallest size of more rows that is learnt.
pub(crate) fn next_above(rows: u32) -> u32 {
    bucket(rows.saturating_add(1))
}

/// The largest size of fewer rows that is learnt; one row where there is none.
pub(crate) fn next_below(rows: u32) -> u32 {
    let most = rows.saturating_sub(1).max(1);
    let power = 1 << most.ilog2();
    let between = power / 2 * 3;
    if power >= 2 && between <= most { between } else { power }
}

fn nanoseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e9
}

fn duration(nanoseconds: f64) -> Duration {
    Duration::from_secs_f64(nanoseconds.clamp(0.0, LONGEST) / 1e9)
}

impl Latency {
    /// Whether anything is known.
    pub fn is_known(&self) -> bool {
        !self.points.is_empty()
    }

    /// How often it was learnt anew.
    pub fn relearned(&self) -> u32 {
        self.relearned
    }

    /// The mean of a batch of so many rows; none while nothing is known.
    pub fn mean(&self, rows: u32) -> Option<Duration> {
        self.at(rows, |point| point.fitted.0).map(duration)
    }

    /// The 99th percentile.
    pub fn tail(&self, rows: u32) -> Option<Duration> {
        self.at(rows, |point| point.fitted.1).map(duration)
    }

    /// The most rows of which the tail is within `room`; 0 where not even one row's is, and `max` while nothing is known.
    pub fn rows_within(&self, room: Duration, max: u32) -> u32 {
        let fits = |rows: u32| self.tail(rows).is_none_or(|tail| tail <= room);
        if fits(max) {
            return max;
        }
        // The tail is monotone: search for the last size that fits.
        let (mut fitting, mut breaking) = (0, max);
        while breaking - fitting > 1 {
            let middle = fitting + (breaking - fitting) / 2;
            if fits(middle) {
                fitting = middle;
            } else {
                breaking = middle;
            }
        }
        fitting
    }

    /// The smallest size at which the rate is `enough` of the best there is up to `max` rows: more than that only makes requests
    /// wait longer. The `current` one stays as long as it is nearly as good and no smaller one is good.
    pub fn efficient_rows(&self, max: u32, current: Option<u32>, enough: Enough) -> u32 {
        let rate = |rows: u32, mean: f64| f64::from(rows) / (mean + HANDLING);
        let known = || {
            let within = self.points.iter().filter(|point| point.rows < max);
            let sizes = within.map(|point| (point.rows, point.fitted.0));
            sizes.chain(self.at(max, |point| point.fitted.0).map(|mean| (max, mean)))
        };
        let best = known().map(|(rows, mean)| rate(rows, mean)).fold(0.0, f64::max);
        let good = |(rows, mean): &(u32, f64)| {
            let needed = if current == Some(*rows) {
                enough.keep
            } else {
                enough.take
            };
            rate(*rows, *mean) >= best * needed
        };
        known().find(good).map_or(max, |(rows, _)| rows)
    }

    /// A batch of so many rows has taken so long.
    pub fn observe(&mut self, rows: u32, took: Duration) {
        self.observations = self.observations.wrapping_add(1);
        let took = nanoseconds(took).clamp(1.0, LONGEST);
        let said = self.at(rows, |point| point.fitted.0);
        let drifting = said.is_some_and(|said| self.is_drifting(said, took));
        let said = self.at(rows, |point| point.fitted.0);
        let size = bucket(rows);
        // What it would have taken at the size that it is learnt at.
        let scale = match (self.at(size, |point| point.fitted.0), said) {
            (Some(there), Some(here)) if size != rows && here > 0.0 => there / here,
            _ if size != rows => f64::from(size) / f64::from(rows.max(1)),
            _ => 1.0,
        };
        self.learn(size, took * scale, !drifting);
        self.fit();
    }

    /// The warm-up's measurements: sizes and what one batch of each took.
    pub fn seed(&mut self, sweep: &[(u32, Duration)]) {
        for (rows, took) in sweep {
            self.learn(*rows, nanoseconds(*took).max(1.0), true);
        }
        self.fit();
    }

    /// After it was read back: what is derived is derived again.
    pub(crate) fn restored(mut self) -> Self {
        self.points.truncate(MAX_POINTS);
        let sound = |point: &Point| {
            let values = [point.mean, point.deviation, point.tail];
            point.rows > 0 && values.iter().all(|value| (0.0..=LONGEST).contains(value))
        };
        self.points.retain(sound);
        self.points.sort_by_key(|point| point.rows);
        self.points.dedup_by_key(|point| point.rows);
        // What was learnt before a restart is a start, not a certainty.
        self.points.iter_mut().for_each(|point| point.seen = point.seen.min(4));
        self.fit();
        self
    }

    fn at(&self, rows: u32, of: impl Fn(&Point) -> f64) -> Option<f64> {
        let after = self.points.partition_point(|point| point.rows < rows);
        match (
            after.checked_sub(1).and_then(|before| self.points.get(before)),
            self.points.get(after),
        ) {
            (_, Some(exact)) if exact.rows == rows => Some(of(exact)),
            (Some(low), Some(high)) => {
                let part = f64::from(rows - low.rows) / f64::from(high.rows - low.rows);
                Some(of(low) + part * (of(high) - of(low)))
            }
            // Below what was seen: no batch is known to take less. Beyond it: as many times as long.
            (None, Some(first)) => Some(of(first)),
            (Some(last), None) => Some(of(last) * f64::from(rows) / f64::from(last.rows)),
            (None, None) => None,
        }
    }

    fn learn(&mut self, rows: u32, took: f64, steady: bool) {
        let place = match self.points.binary_search_by_key(&rows, |point| point.rows) {
            Ok(place) => place,
            Err(_) if self.points.len() >= MAX_POINTS => return,
            Err(place) => {
                let point = Point {
                    rows,
                    mean: took,
                    deviation: took * (EARLY_TAIL - 1.0) / 3.0,
                    tail: took * EARLY_TAIL,
                    seen: 0,
                    seen_at: self.observations,
                    fitted: (took, took * EARLY_TAIL),
                };
                self.points.insert(place, point);
                place
            }
        };
        let Some(point) = self.points.get_mut(place) else {
            return;
        };
        let mut moved = 1.0;
        // Only where it takes less: a size that is thought to take too little is used, and soon put right.
        let stale =
            took < point.mean && point.seen < SEEN_OFTEN && self.observations.wrapping_sub(point.seen_at) > STALE_AFTER;
        point.seen_at = self.observations;
        if steady {
            if stale {
                point.seen = point.seen.min(1);
            }
            point.seen = point.seen.saturating_add(1);
            let gain = (1.0 / f64::from(point.seen)).max(MIN_GAIN);
            // How far out an outlier lies is nobody's business: the mean and the deviation take no more of it than this.
            let far = (point.deviation * 6.0).max(point.mean * 0.1);
            let tame = took.min(point.mean + far);
            let before = point.mean;
            point.mean += gain * (tame - point.mean);
            point.deviation += gain * ((tame - point.mean).abs() - point.deviation);
            moved = point.mean / before.max(1.0);
            if stale || self.settling > 0 {
                point.tail *= moved;
            }
        }
        // The further the tail is from the mean, the longer its steps: what one bad minute has put there is soon gone.
        let spread = (point.tail - point.mean) * 0.1;
        let step = (point.deviation * 0.5).max(spread).max(point.mean * 0.002);
        point.tail += if took > point.tail { step * 0.99 } else { -step * 0.01 };
        point.tail = point.tail.max(point.mean);
        if self.settling > 0 {
            self.settling -= 1;
            self.scale_all_but(Some(place), moved);
        }
    }

    /// Sizes that are not seen must not be left behind where those that are seen go up and down again.
    fn scale_all_but(&mut self, place: Option<usize>, factor: f64) {
        for (index, point) in self.points.iter_mut().enumerate() {
            if Some(index) != place {
                point.mean *= factor;
                point.tail *= factor;
                point.deviation *= factor;
            }
        }
    }

    /// Whether batches have been off by more than a fifth lately; while they are, no size's mean is learnt by itself, and when
    /// they stay so, all sizes are scaled at once.
    fn is_drifting(&mut self, said: f64, took: f64) -> bool {
        let miss = ((took + JITTER) / (said + JITTER)).min(DRIFT_MISS) - 1.0;
        self.bias += DRIFT_GAIN * (miss - self.bias);
        if self.bias.abs() <= DRIFT {
            self.suspicious = 0;
            return false;
        }
        self.suspicious += 1;
        if self.suspicious >= DRIFT_PATIENCE {
            self.scale_all_but(None, 1.0 + self.bias);
            for point in &mut self.points {
                point.seen = point.seen.min(1);
                point.tail = point.mean * EARLY_TAIL;
            }
            (self.suspicious, self.bias, self.settling) = (0, 0.0, SETTLING);
            self.relearned = self.relearned.saturating_add(1);
            self.fit();
        }
        true
    }

    /// A size that is seldom seen cannot take out of all proportion longer than a smaller one.
    fn keep_proportion(&mut self) {
        // Nanoseconds a row at the best of the smaller sizes, means and tails.
        let mut least: Option<(f64, f64)> = None;
        for point in &mut self.points {
            let rows = f64::from(point.rows);
            if let Some((mean, tail)) = least {
                let allowed = |per_row: f64| per_row * rows * MOST_DISPROPORTION + JITTER;
                point.mean = point.mean.min(allowed(mean));
                point.tail = point.tail.min(allowed(tail)).max(point.mean);
            }
            point.tail = point.tail.min(point.mean * LONGEST_TAIL + JITTER);
            let (mean, tail) = (point.mean / rows, point.tail / rows);
            least = Some(least.map_or((mean, tail), |known| (known.0.min(mean), known.1.min(tail))));
        }
    }

    /// Makes the means monotone by pooling adjacent violators, and the tails by never going down.
    fn fit(&mut self) {
        self.keep_proportion();
        let mut pools: Vec<(f64, f64, usize)> = Vec::with_capacity(self.points.len());
        for point in &self.points {
            let mut pool = (point.mean, f64::from(point.seen.clamp(1, 1_000)), 1);
            while let Some(last) = pools.last().copied().filter(|last| last.0 > pool.0) {
                let weight = last.1 + pool.1;
                pool = ((last.0 * last.1 + pool.0 * pool.1) / weight, weight, last.2 + pool.2);
                pools.pop();
            }
            pools.push(pool);
        }
        let means = pools
            .iter()
            .flat_map(|(mean, _, count)| std::iter::repeat_n(*mean, *count));
        let mut tail = 0.0_f64;
        for (point, mean) in self.points.iter_mut().zip(means) {
            tail = tail.max(point.tail).max(mean);
            point.fitted = (mean, tail);
        }
    }
}

#[cfg(test)]
#[path = "latency_tests.rs"]
mod tests;
