//! The rows that need a mesh running at full speed.

use std::{collections::BTreeMap, net::SocketAddr, path::Path};

use anyhow::Context;
use serde::Deserialize;

use crate::{
    bench::{
        Bench,
        load::{Aim, Amount, Floor, Summary, send},
        models::{self, COMPOSED, ENCODER, MLP, PIPE},
        table::{Row, median},
    },
    node::Node,
    process,
};

const CONCURRENCIES: [usize; 3] = [1, 16, 64];
const WARM_UP_SECONDS: f64 = 0.5;
const ENSEMBLE_CONCURRENCIES: [usize; 2] = [1, 16];
const COMPOSED_MODULE: &str = "beside the one module that is all three";
const EMPTY_HANDLER: &str = "beside the empty handler";

/// A figure's name, its unit, and where it is in a summary.
type Figure = (&'static str, &'static str, fn(&Summary) -> f64);

/// A mesh that is ready to be measured.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) bench: &'a Bench,
    pub(crate) node: &'a Node,
    pub(crate) keys: &'a Path,
}

/// libtorch alone at one setting.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Measured {
    pub(crate) batch: i64,
    intra_op_threads: u16,
    pub(crate) instances: u16,
    pub(crate) rows_per_second: f64,
}

#[derive(Debug, Deserialize)]
struct Alone {
    best: Measured,
}

impl Target<'_> {
    pub(crate) fn amount(&self, concurrency: usize) -> Amount {
        Amount {
            concurrency,
            warm_up: WARM_UP_SECONDS,
            seconds: self.bench.seconds,
            requests: None,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.node.ports.inference))
    }

    /// Requests per second and latencies of the perceptron, beside the empty handler.
    pub(crate) fn mlp(&self) -> anyhow::Result<Vec<Row>> {
        let body = models::body(&self.bench.folder, &MLP)?;
        let mesh = Aim {
            address: self.address(),
            path: "/v2/models/mlp/infer",
            keys: self.keys,
            body: &body,
            grpc: false,
        };
        let first = send(self.bench, &mesh, self.amount(1))?;
        let floor = Floor::start(self.bench, first.answer_bytes, &[])?;
        let empty = Aim {
            address: floor.address,
            ..mesh
        };
        let mut rows = Vec::new();
        for concurrency in CONCURRENCIES {
            eprintln!("mlp, {concurrency} at a time");
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..self.bench.rounds {
                // Who goes first takes turns.
                if round % 2 == 0 {
                    ours.push(send(self.bench, &mesh, self.amount(concurrency))?);
                }
                theirs.push(send(self.bench, &empty, self.amount(concurrency))?);
                if round % 2 == 1 {
                    ours.push(send(self.bench, &mesh, self.amount(concurrency))?);
                }
            }
            let figures: [Figure; 3] = [
                ("requests", "1/s", |summary| summary.requests_per_second),
                ("p50", "us", |summary| summary.p50_us),
                ("p99", "us", |summary| summary.p99_us),
            ];
            for (name, unit, figure) in figures {
                let of = |side: &[Summary]| median(side.iter().map(figure).collect());
                let name = format!("mlp, {concurrency} at a time: {name}");
                rows.push(Row::pair(name, unit, (of(&ours), of(&theirs)), EMPTY_HANDLER));
            }
        }
        floor.running.stop()?;
        Ok(rows)
    }

    /// Rows per second of the encoder, beside libtorch alone at its best.
    pub(crate) fn encoder(&self) -> anyhow::Result<Vec<Row>> {
        let body = models::body(&self.bench.folder, &ENCODER)?;
        let mesh = Aim {
            address: self.address(),
            path: "/v2/models/encoder/infer",
            keys: self.keys,
            body: &body,
            grpc: false,
        };
        eprintln!("encoder: looking for libtorch's best setting");
        let best = self.alone(
            &["--batches", "1,4,8,16,32", "--threads", "1,2", "--instances", "1,2"],
            1.0,
        )?;
        eprintln!("encoder, 64 at a time");
        let (batch, threads, instances) = (
            best.batch.to_string(),
            best.intra_op_threads.to_string(),
            best.instances.to_string(),
        );
        let setting = ["--batches", &batch, "--threads", &threads, "--instances", &instances];
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..self.bench.rounds {
            if round % 2 == 0 {
                ours.push(send(self.bench, &mesh, self.amount(64))?.requests_per_second);
            }
            theirs.push(self.alone(&setting, self.bench.seconds)?.rows_per_second);
            if round % 2 == 1 {
                ours.push(send(self.bench, &mesh, self.amount(64))?.requests_per_second);
            }
        }
        let note = format!("beside libtorch alone: batch {batch}, {threads} threads, {instances} instances");
        let name = "encoder, 64 at a time: rows".to_owned();
        Ok(vec![Row::pair(name, "1/s", (median(ours), median(theirs)), &note)])
    }

    /// A classifier as an ensemble of three modules, beside the one module that is all three: the same bytes in and out.
    pub(crate) fn ensemble(&self) -> anyhow::Result<Vec<Row>> {
        let body = models::body(&self.bench.folder, &COMPOSED)?;
        let path = format!("/v2/models/{PIPE}/infer");
        let composed = Aim {
            address: self.address(),
            path: "/v2/models/composed/infer",
            keys: self.keys,
            body: &body,
            grpc: false,
        };
        let ensemble = Aim {
            path: &path,
            ..composed
        };
        let mut rows = Vec::new();
        for concurrency in ENSEMBLE_CONCURRENCIES {
            eprintln!("ensemble, {concurrency} at a time");
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for round in 0..self.bench.rounds {
                if round % 2 == 0 {
                    ours.push(send(self.bench, &ensemble, self.amount(concurrency))?);
                }
                theirs.push(send(self.bench, &composed, self.amount(concurrency))?);
                if round % 2 == 1 {
                    ours.push(send(self.bench, &ensemble, self.amount(concurrency))?);
                }
            }
            let figures: [Figure; 2] = [
                ("requests", "1/s", |summary| summary.requests_per_second),
                ("p50", "us", |summary| summary.p50_us),
            ];
            for (name, unit, figure) in figures {
                let of = |side: &[Summary]| median(side.iter().map(figure).collect());
                let name = format!("ensemble of 3 steps, {concurrency} at a time: {name}");
                rows.push(Row::pair(name, unit, (of(&ours), of(&theirs)), COMPOSED_MODULE));
            }
        }
        Ok(rows)
    }

    fn alone(&self, setting: &[&str], seconds: f64) -> anyhow::Result<Measured> {
        alone(
            self.bench,
            &models::file(&self.bench.folder, &ENCODER),
            ENCODER.row,
            setting,
            seconds,
        )
    }

    /// The mean time of each stage, from the mesh's own metrics.
    pub(crate) fn stages(&self) -> anyhow::Result<Vec<Row>> {
        let body = models::body(&self.bench.folder, &MLP)?;
        let aim = Aim {
            address: self.address(),
            path: "/v2/models/mlp/infer",
            keys: self.keys,
            body: &body,
            grpc: false,
        };
        eprintln!("stages");
        send(self.bench, &aim, self.amount(1))?;
        let before = stages(&self.node.metrics()?);
        let sent = send(
            self.bench,
            &aim,
            Amount {
                warm_up: 0.0,
                ..self.amount(1)
            },
        )?;
        let after = stages(&self.node.metrics()?);
        let mut rows = Vec::new();
        let mut sum = 0.0;
        for (stage, (seconds, count)) in after {
            let (seconds_before, count_before) = before.get(&stage).copied().unwrap_or_default();
            let mean = (seconds - seconds_before) * 1e9 / (count - count_before).max(1.0);
            sum += mean;
            rows.push(Row::single(
                format!("stage {stage}"),
                "ns",
                mean,
                "mlp, 1 at a time, mean",
            ));
        }
        let (name, note) = ("stages, sum".to_owned(), "beside the client's p50");
        rows.push(Row::pair(name, "ns", (sum, sent.p50_us * 1_000.0), note));
        (rows.len() > 1).then_some(rows).context("the metrics name no stages")
    }
}

/// A model under libtorch alone, at the best of the settings.
pub(crate) fn alone(
    bench: &Bench,
    file: &Path,
    row: &[usize],
    setting: &[&str],
    seconds: f64,
) -> anyhow::Result<Measured> {
    let shape: Vec<String> = row.iter().map(usize::to_string).collect();
    let mut command = bench.programs.command(&bench.programs.workshop());
    command
        .arg("floor")
        .arg("--model")
        .arg(file)
        .args(["--shape", &shape.join(","), "--seconds", &seconds.to_string()])
        .args(setting);
    let alone: Alone = serde_json::from_str(&process::output(&mut command)?)?;
    Ok(alone.best)
}

/// Seconds and count of each stage.
fn stages(metrics: &str) -> BTreeMap<String, (f64, f64)> {
    let mut stages: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for line in metrics.lines() {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let Ok(value) = value.parse::<f64>() else { continue };
        let stage = |prefix: &str| Some(name.strip_prefix(prefix)?.strip_suffix("\"}")?.to_owned());
        if let Some(stage) = stage("mesh_stage_seconds_sum{stage=\"") {
            stages.entry(stage).or_default().0 = value;
        } else if let Some(stage) = stage("mesh_stage_seconds_count{stage=\"") {
            stages.entry(stage).or_default().1 = value;
        }
    }
    stages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_read_out_of_the_metrics() {
        let text = "# HELP mesh_stage_seconds x\nmesh_stage_seconds_sum{stage=\"queue\"} 0.5\n\
            mesh_stage_seconds_count{stage=\"queue\"} 10\nmesh_stage_seconds_bucket{le=\"1\",stage=\"queue\"} 9\n";
        assert_eq!(stages(text), BTreeMap::from([("queue".to_owned(), (0.5, 10.0))]));
    }
}
