//! What a request costs where a thousand models are declared and fifty are in memory, beside a mesh that has one.
//!
//! In processor time of the mesh's process, as for many tenants. Two meshes stand side by side and take turns.

use std::{fmt::Write as _, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::{
    bench::{
        Bench,
        load::{Aim, Amount, send},
        models::{self, Body, MLP, TENANT},
        samples::processor_ns,
        table::{Row, median},
    },
    node::{Node, PATIENCE, document},
};

const DECLARED: usize = 1_000;
const RESIDENT: usize = 50;
const CONCURRENCIES: [usize; 2] = [1, 16];
/// Models in one call of the command line; each is two resources.
const AT_ONCE: usize = 100;
/// How long the models may take to be there.
const LOADING: Duration = Duration::from_secs(600);

/// The rows.
pub(crate) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let one = bench.start("one-model", &[], PATIENCE)?;
    let many = bench.start("many-models", &[], PATIENCE)?;
    let keys = models::declare(&one, &bench.folder, &[&MLP])?;
    let many_keys = models::declare(&many, &bench.folder, &[&MLP])?;
    declare_others(bench, &many)?;
    let body = models::body(&bench.folder, &MLP)?;
    let mut rows = Vec::new();
    for concurrency in CONCURRENCIES {
        eprintln!("{RESIDENT} of {DECLARED} models, {concurrency} requests at a time");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..bench.rounds {
            if round % 2 == 0 {
                ours.push(cost(bench, &many, &many_keys, &body, concurrency)?);
            }
            theirs.push(cost(bench, &one, &keys, &body, concurrency)?);
            if round % 2 == 1 {
                ours.push(cost(bench, &many, &many_keys, &body, concurrency)?);
            }
        }
        let name = format!("mlp, {concurrency} at a time, {RESIDENT} of {DECLARED} models in memory");
        let note = "processor time of the mesh, beside a mesh with one model";
        rows.push(Row::pair(name, "ns/request", (median(ours), median(theirs)), note));
    }
    one.stop()?;
    many.stop()?;
    Ok(rows)
}

/// The same file again and again under other names: some in memory, most on demand.
fn declare_others(bench: &Bench, node: &Node) -> anyhow::Result<()> {
    if node.list("models", Some(TENANT))?.len() < DECLARED {
        eprintln!("declaring {DECLARED} models");
        let versions = node.list("versions", Some(TENANT))?;
        let of_mlp = |item: &&Value| item.pointer("/metadata/name").and_then(Value::as_str) == Some("mlp/1");
        let version = versions
            .iter()
            .find(of_mlp)
            .context("the bench's model is not listed")?;
        let spec = version.get("spec").context("the version has no spec")?;
        for start in (1..DECLARED).step_by(AT_ONCE) {
            let mut text = String::new();
            for index in start..(start + AT_ONCE).min(DECLARED) {
                let name = format!("other-{index}");
                let mut spec = spec.clone();
                if index >= RESIDENT {
                    let config = spec.pointer_mut("/config").and_then(Value::as_object_mut);
                    let residency = serde_json::json!({"load": "ON_DEMAND"});
                    config
                        .context("the version has no config")?
                        .insert("residency".to_owned(), residency);
                }
                // Writing to a String cannot fail.
                let _ = write!(text, "{}", document("Model", Some(TENANT), &name, "{}"));
                let version = format!("{name}/1");
                let _ = write!(
                    text,
                    "{}",
                    document("ModelVersion", Some(TENANT), &version, &spec.to_string())
                );
            }
            node.apply(&text)?;
        }
    }
    let deadline = std::time::Instant::now() + LOADING;
    loop {
        let metrics = node.metrics()?;
        let of = |state: &str| {
            figure(
                &metrics,
                &format!("mesh_device_models{{device=\"cpu:0\",state=\"{state}\"}} "),
            )
        };
        if (of("resident"), of("standby")) == (Some(RESIDENT), Some(DECLARED - RESIDENT)) {
            return Ok(());
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "the models are not there: {:?} in memory, {:?} standing by",
            of("resident"),
            of("standby")
        );
        ensure!(!bench.interrupt.wait(Duration::from_millis(250)), "interrupted");
    }
}

fn figure(metrics: &str, name: &str) -> Option<usize> {
    metrics
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .trim()
        .parse()
        .ok()
}

/// Nanoseconds of processor time per answer.
fn cost(bench: &Bench, node: &Node, keys: &Path, body: &Body, concurrency: usize) -> anyhow::Result<f64> {
    let aim = Aim {
        address: SocketAddr::from(([127, 0, 0, 1], node.ports.inference)),
        path: "/v2/models/mlp/infer",
        keys,
        body,
        grpc: false,
    };
    let amount = |seconds: f64| Amount {
        concurrency,
        warm_up: 0.0,
        seconds,
        requests: None,
    };
    send(bench, &aim, amount(0.2))?;
    let before = processor_ns(node.pid())?;
    let sent = send(bench, &aim, amount(bench.seconds))?;
    let spent = processor_ns(node.pid())? - before;
    #[expect(clippy::cast_precision_loss, reason = "answers of some seconds")]
    let answers = sent.ok as f64;
    Ok(spent / answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_read_out_of_the_metrics() {
        let text = "a 1\nmesh_device_models{device=\"cpu:0\",state=\"standby\"} 950\n";
        assert_eq!(
            figure(text, "mesh_device_models{device=\"cpu:0\",state=\"standby\"} "),
            Some(950)
        );
        assert_eq!(figure(text, "b "), None);
    }
}
