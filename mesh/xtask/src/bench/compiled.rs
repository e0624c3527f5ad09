//! The same PyTorch module as TorchScript and as a package of AOTInductor, each through the mesh and beside libtorch alone.

use std::path::Path;

use crate::{
    bench::{
        Bench,
        load::{Aim, send},
        models::{self, Model, TENANT},
        rows::{Target, alone},
        table::{Row, median},
    },
    packages,
};

/// A perceptron of 30-64-32-2, as PyTorch made it.
const CONFIG: &str = "\
max_batch_size: 64
input: [{name: x, datatype: FP32, dims: [30]}]
output: [{name: y, datatype: FP32, dims: [2]}]
dynamic_batching: {}
";
const KINDS: [(&str, Model); 2] = [
    ("TorchScript", model("perceptron-script", "perceptron.pt")),
    (".pt2", model("perceptron-package", "perceptron.pt2")),
];
const CONCURRENCY: usize = 64;

const fn model(name: &'static str, made: &'static str) -> Model {
    Model {
        name,
        row: &[30],
        config: CONFIG,
        made: Some(made),
    }
}

/// Rows per second of both kinds.
pub(crate) fn rows(bench: &Bench, target: &Target<'_>) -> anyhow::Result<Vec<Row>> {
    packages::provide()?;
    let models: Vec<&Model> = KINDS.iter().map(|(_, model)| model).collect();
    models::declare(target.node, &bench.folder, &models)?;
    let mut rows = Vec::new();
    for (kind, model) in &KINDS {
        rows.push(row(bench, target, kind, model)?);
    }
    Ok(rows)
}

fn row(bench: &Bench, target: &Target<'_>, kind: &str, model: &Model) -> anyhow::Result<Row> {
    let body = models::body(&bench.folder, model)?;
    let path = format!("/v2/models/{}/infer", model.name);
    let mesh = Aim {
        address: target.address(),
        path: &path,
        keys: target.keys,
        body: &body,
        grpc: false,
    };
    let file = models::file(&bench.folder, model);
    eprintln!("perceptron as {kind}: looking for libtorch's best setting");
    let tried = ["--batches", "1,8,32,64", "--threads", "1", "--instances", "1,2"];
    let best = alone_of(bench, &file, &tried, 1.0)?;
    let (batch, instances) = (best.batch.to_string(), best.instances.to_string());
    let setting = ["--batches", &batch, "--threads", "1", "--instances", &instances];
    eprintln!("perceptron as {kind}, {CONCURRENCY} at a time");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        // Who goes first takes turns.
        if round % 2 == 0 {
            ours.push(send(bench, &mesh, target.amount(CONCURRENCY))?.requests_per_second);
        }
        theirs.push(alone_of(bench, &file, &setting, bench.seconds)?.rows_per_second);
        if round % 2 == 1 {
            ours.push(send(bench, &mesh, target.amount(CONCURRENCY))?.requests_per_second);
        }
    }
    let name = format!("perceptron as {kind}, {CONCURRENCY} at a time: rows");
    let note = format!("beside libtorch alone: batch {batch}, {instances} instances; tenant {TENANT}");
    Ok(Row::pair(name, "1/s", (median(ours), median(theirs)), &note))
}

fn alone_of(bench: &Bench, file: &Path, setting: &[&str], seconds: f64) -> anyhow::Result<super::rows::Measured> {
    let setting = [&["--output-shape", "2"], setting].concat();
    alone(bench, file, &[30], &setting, seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_of_the_same_module_and_called_alike() {
        let [(_, script), (_, package)] = &KINDS;
        assert_eq!((script.row, script.config), (package.row, package.config));
        let made = |model: &Model| model.made.and_then(|made| made.split_once('.')).map(|(name, _)| name);
        assert_eq!(made(script), made(package));
        assert_ne!(script.made, package.made);
    }
}
