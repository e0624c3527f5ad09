//! Rows of a device that is asked for more than it can do: who is served, how much of it is in time, and how fast the rest is
//! told so.
//!
//! Everything is in terms of the device's own peak, found in the same round by a closed loop. Every request names a deadline
//! of ten batches, or of [`LEAST_DEADLINE_MS`] where that is more.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    bench::{
        Bench,
        load::{Aim, Amount, Floor, send},
        models::{self, Body, ENCODER},
        samples::Batches,
        streams::{Met, Stream, meet},
        table::{Row, median},
    },
    node::Node,
};

/// The tenants beside the model's owner.
pub(crate) const POLITE: [&str; 2] = ["polite-1", "polite-2"];
const PATH: &str = "/v2/models/encoder/infer";
const BATCHES_IN_DEADLINE: f64 = 10.0;
const LEAST_DEADLINE_MS: f64 = 250.0;
/// Of the peak, what each polite tenant asks for.
const POLITE_PART: f64 = 0.1;
const FLOOD_PARTS: f64 = 3.0;
const OVERLOAD_PARTS: f64 = 2.0;
/// A p99 over fewer answers says little: a stream of polite tenants is given the time for so many.
const ENOUGH: f64 = 400.0;
/// Time for queues to reach what they stay at.
const WARM_UP: f64 = 2.0;
/// Connections of the closed loop that finds the peak.
const PEAK_CONCURRENCY: usize = 64;
/// Small requests per second to the empty handler, while the mesh is overloaded.
const PROBES: f64 = 50.0;

/// A mesh with an encoder that its owner and the polite tenants call.
#[derive(Debug)]
pub(crate) struct Overload<'a> {
    bench: &'a Bench,
    node: &'a Node,
    /// The flooding tenant's key, and those of the polite ones.
    owner: PathBuf,
    polite: PathBuf,
    body: Body,
    deadline_ms: u64,
    /// What the device can do, in requests per second.
    peak: f64,
}

impl<'a> Overload<'a> {
    /// Declares what is missing and finds the peak.
    pub(crate) fn prepare(bench: &'a Bench, node: &'a Node) -> anyhow::Result<Self> {
        let owner = models::declare(node, &bench.folder, &[&ENCODER])?;
        models::grant(node, &ENCODER, &POLITE)?;
        let polite = models::keys(node, &POLITE, "polite")?;
        let mut overload = Self {
            bench,
            node,
            owner,
            polite,
            body: models::body(&bench.folder, &ENCODER)?,
            deadline_ms: 0,
            peak: 0.0,
        };
        // The first is for the mesh to learn what batches take.
        overload.closed()?;
        let before = Batches::of(node, &ENCODER)?;
        overload.peak = overload.closed()?;
        let batch = Batches::of(node, &ENCODER)?.since(before).mean_ms();
        overload.deadline_ms = deadline(batch).context("the mesh counted no batches")?;
        eprintln!(
            "the encoder's peak: {:.0} requests/s; deadlines of {} ms",
            overload.peak, overload.deadline_ms
        );
        Ok(overload)
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.node.ports.inference))
    }

    /// Requests per second of the closed loop.
    fn closed(&self) -> anyhow::Result<f64> {
        let aim = Aim {
            address: self.address(),
            path: PATH,
            keys: &self.owner,
            body: &self.body,
            grpc: false,
        };
        let amount = Amount {
            concurrency: PEAK_CONCURRENCY,
            warm_up: WARM_UP,
            seconds: self.bench.seconds * 2.0,
            requests: None,
        };
        Ok(send(self.bench, &aim, amount)?.requests_per_second)
    }

    fn stream<'b>(&'b self, keys: &'b Path, parts: f64, (warm_up, seconds): (f64, f64), seed: u32) -> Stream<'b> {
        Stream {
            address: self.address(),
            path: PATH,
            keys,
            body: &self.body,
            rate: self.peak * parts,
            deadline_ms: self.deadline_ms,
            warm_up,
            seconds,
            seed: u64::from(seed),
        }
    }

    /// A flood of so many seconds.
    pub(crate) fn flood(&self, seconds: f64) -> Stream<'_> {
        self.stream(&self.owner, FLOOD_PARTS, (0.0, seconds), 0)
    }

    /// The mesh's process.
    pub(crate) fn pid(&self) -> u32 {
        self.node.pid()
    }

    /// Two polite tenants alone, and beside one that floods. The flood's client needs processors too, which it would not take
    /// from the mesh if it ran elsewhere: so the polite tenants are also measured while that client floods the empty handler.
    pub(crate) fn fairness(&self) -> anyhow::Result<Vec<Row>> {
        let parts = POLITE_PART * 2.0;
        let seconds = (ENOUGH / (self.peak * parts)).max(self.bench.seconds);
        let floor = Floor::start(self.bench, 256, &[])?;
        let (mut alone, mut elsewhere, mut beside) = (Vec::new(), Vec::new(), Vec::new());
        let mut batches = Vec::new();
        for round in 0..self.bench.rounds {
            eprintln!("fairness, round {round}: two polite tenants alone, then beside a flood");
            let polite = self.stream(&self.polite, parts, (WARM_UP, seconds), round);
            alone.extend(meet(self.bench, std::slice::from_ref(&polite))?);
            // The flood is there before the polite tenants are counted, and until they are done.
            let flood = self.stream(&self.owner, FLOOD_PARTS, (0.0, WARM_UP + seconds + 1.0), round + 1_000);
            let away = Stream {
                address: floor.address,
                ..flood.clone()
            };
            let (polite_then, _) = self.both(&polite, &away)?;
            let before = Batches::of(self.node, &ENCODER)?;
            let (polite, flood) = self.both(&polite, &flood)?;
            batches.push(Batches::of(self.node, &ENCODER)?.since(before));
            let streams = [
                ("alone", alone.last()),
                ("flood elsewhere", Some(&polite_then)),
                ("beside the flood", Some(&polite)),
                ("flood", Some(&flood)),
            ];
            told(&streams, batches.last());
            elsewhere.push(polite_then);
            beside.push(polite);
        }
        floor.running.stop()?;
        let batch = median(batches.iter().map(|batches| batches.mean_ms()).collect());
        Ok(fairness_rows(&alone, &elsewhere, &beside, batch))
    }

    fn both(&self, one: &Stream<'_>, other: &Stream<'_>) -> anyhow::Result<(Met, Met)> {
        let met = meet(self.bench, &[one.clone(), other.clone()])?;
        let [one, other]: [Met; 2] = met.try_into().ok().context("two streams have not met two")?;
        Ok((one, other))
    }

    /// What is answered in time at twice the peak, and how fast the rest is refused.
    pub(crate) fn goodput(&self) -> anyhow::Result<Vec<Row>> {
        let seconds = self.bench.seconds * 5.0;
        let floor = Floor::start(self.bench, 256, &[])?;
        let (mut peaks, mut overloaded, mut probes) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..self.bench.rounds {
            eprintln!("goodput, round {round}: the peak, and twice as much");
            if round % 2 == 0 {
                peaks.push(self.closed()?);
            }
            let load = self.stream(&self.owner, OVERLOAD_PARTS, (WARM_UP, seconds), round);
            let probe = Stream {
                address: floor.address,
                rate: PROBES,
                ..load.clone()
            };
            let before = Batches::of(self.node, &ENCODER)?;
            let (load, probe) = self.both(&load, &probe)?;
            let batches = Batches::of(self.node, &ENCODER)?.since(before);
            told(&[("overload", Some(&load)), ("probe", Some(&probe))], Some(&batches));
            overloaded.push(load);
            probes.push(probe);
            if round % 2 == 1 {
                peaks.push(self.closed()?);
            }
        }
        floor.running.stop()?;
        let good = of(&overloaded, |met| met.good_per_second);
        let refused = of(&overloaded, |met| met.refused.count as f64);
        let name = |figure: &str| format!("encoder, at 2x its peak: {figure}");
        let noise = "of refusals, beside the empty handler's answers at the same time";
        let p50 = (
            of(&overloaded, |met| met.refused.p50_us),
            of(&probes, |met| met.ok.p50_us),
        );
        let p99 = (
            of(&overloaded, |met| met.refused.p99_us),
            of(&probes, |met| met.ok.p99_us),
        );
        let note = format!("in time ({} ms), beside the closed loop's peak", self.deadline_ms);
        Ok(vec![
            Row::pair(name("goodput"), "1/s", (good, median(peaks)), &note),
            Row::single(name("refused"), "1/s", refused / seconds, "with status 429 or 503"),
            Row::pair(name("refusals p50"), "us", p50, noise),
            Row::pair(name("refusals p99"), "us", p99, noise),
        ])
    }
}

/// The figures of a round, for whoever watches.
fn told(streams: &[(&str, Option<&Met>)], batches: Option<&Batches>) {
    for (name, met) in streams {
        let Some(Met {
            good_per_second,
            good_share,
            ok,
            refused,
            statuses,
            ..
        }) = met
        else {
            continue;
        };
        eprintln!(
            "  {name}: {good_per_second:.1}/s in time ({:.1} %), p50 {:.1} ms, p99 {:.1} ms; refused within p50 {:.2} ms, \
            p99 {:.2} ms; {statuses:?}",
            good_share * 100.0,
            ok.p50_us / 1e3,
            ok.p99_us / 1e3,
            refused.p50_us / 1e3,
            refused.p99_us / 1e3,
        );
    }
    if let Some(batches) = batches {
        eprintln!(
            "  batches: {:.1} rows in {:.1} ms",
            batches.mean_rows(),
            batches.mean_ms()
        );
    }
}

fn of(side: &[Met], figure: fn(&Met) -> f64) -> f64 {
    median(side.iter().map(figure).collect())
}

fn fairness_rows(alone: &[Met], elsewhere: &[Met], beside: &[Met], batch: f64) -> Vec<Row> {
    let p99 = |side: &[Met]| of(side, |met| met.ok.p99_us) / 1e3;
    let p50 = |side: &[Met]| of(side, |met| met.ok.p50_us) / 1e3;
    let in_time = |side: &[Met]| of(side, |met| met.good_share);
    let name = |figure: &str| format!("encoder, flooded at 3x: polite {figure}");
    let bound = |p99: f64| 1.25 * p99 + batch;
    let text = |p99: f64, whose: &str| format!("beside 1.25 x p99 {whose} ({p99:.1} ms) + one batch ({batch:.1} ms)");
    let same = "beside the same two tenants alone";
    let (p99_alone, p99_elsewhere) = (p99(alone), p99(elsewhere));
    vec![
        Row::pair(name("p50"), "ms", (p50(beside), p50(alone)), same),
        Row::pair(name("p99"), "ms", (p99(beside), p99_alone), same),
        Row::pair(
            name("p99, bound"),
            "ms",
            (p99(beside), bound(p99_alone)),
            &text(p99_alone, "alone"),
        ),
        Row::pair(
            name("p99, bound'"),
            "ms",
            (p99(beside), bound(p99_elsewhere)),
            &text(p99_elsewhere, "while the flood goes elsewhere"),
        ),
        Row::pair(name("in time"), "1", (in_time(beside), in_time(alone)), same),
    ]
}

/// The deadline of requests, by the mean time of a batch at the peak.
fn deadline(batch_ms: f64) -> Option<u64> {
    let milliseconds = (batch_ms * BATCHES_IN_DEADLINE).max(LEAST_DEADLINE_MS).ceil();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to be a small positive number"
    )]
    (batch_ms.is_finite() && milliseconds < 3_600_000.0).then_some(milliseconds as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_ten_batches_and_at_least_a_quarter_of_a_second() {
        assert_eq!(deadline(10.0), Some(250));
        assert_eq!(deadline(40.2), Some(402));
        assert_eq!(deadline(f64::NAN), None);
    }
}
