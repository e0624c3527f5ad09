//! What a request costs where thousands of tenants are known and a hundred call, beside one tenant that calls alone.
//!
//! In processor time of the mesh's process, of all its threads, over the answers of a closed loop: unlike answers per second
//! it hardly depends on who else uses the machine.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

use crate::{
    bench::{
        Bench,
        load::{Aim, Amount, send},
        models::{self, Body, MLP},
        samples::processor_ns,
        table::{Row, median},
    },
    node::{Node, document},
};

const KNOWN: usize = 10_000;
const ACTIVE: usize = 100;
const CONCURRENCIES: [usize; 2] = [1, 16];
/// Tenants in one call of the command line.
const AT_ONCE: usize = 250;

fn name(index: usize) -> String {
    format!("known-{index}")
}

/// The rows.
pub(crate) fn rows(bench: &Bench, node: &Node) -> anyhow::Result<Vec<Row>> {
    let one = models::declare(node, &bench.folder, &[&MLP])?;
    declare_known(node)?;
    // Spread over all that are known.
    let names: Vec<String> = (0..ACTIVE).map(|index| name(index * (KNOWN / ACTIVE))).collect();
    let active: Vec<&str> = names.iter().map(String::as_str).collect();
    models::grant(node, &MLP, &active)?;
    let many = models::keys(node, &active, "active")?;
    let body = models::body(&bench.folder, &MLP)?;
    let mut rows = Vec::new();
    for concurrency in CONCURRENCIES {
        eprintln!("{ACTIVE} of {KNOWN} tenants, {concurrency} requests at a time");
        let measure = |keys: &Path| cost(bench, node, keys, &body, concurrency);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..bench.rounds {
            if round % 2 == 0 {
                ours.push(measure(&many)?);
            }
            theirs.push(measure(&one)?);
            if round % 2 == 1 {
                ours.push(measure(&many)?);
            }
        }
        let name = format!("mlp, {concurrency} at a time, {ACTIVE} of {KNOWN} tenants");
        let note = "processor time of the mesh, beside one tenant alone";
        rows.push(Row::pair(name, "ns/request", (median(ours), median(theirs)), note));
    }
    Ok(rows)
}

fn declare_known(node: &Node) -> anyhow::Result<()> {
    let there = node.list("tenants", None)?.len();
    if there > KNOWN {
        return Ok(());
    }
    eprintln!("declaring {KNOWN} tenants");
    for start in (0..KNOWN).step_by(AT_ONCE) {
        let mut text = String::new();
        for index in start..(start + AT_ONCE).min(KNOWN) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}", document("Tenant", None, &name(index), "{}"));
        }
        node.apply(&text)?;
    }
    Ok(())
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
