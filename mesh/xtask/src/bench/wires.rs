//! gRPC beside HTTP with binary tensors: the same model, the same row, as many at a time, in one run.

use std::net::SocketAddr;

use mesh_protocol::grpc::SERVICE;

use crate::bench::{
    load::{Aim, Summary, send},
    models::{self, MLP},
    rows::Target,
    table::{Row, median},
};

const CONCURRENCY: usize = 64;
const AIM: &str = "beside HTTP with binary tensors; aim 0.80 or more";
const LATENCY: &str = "beside HTTP with binary tensors";

/// Requests per second and latencies over gRPC, beside those over HTTP.
pub(crate) fn rows(target: &Target<'_>) -> anyhow::Result<Vec<Row>> {
    let (bench, keys) = (target.bench, target.keys);
    let (body, message) = (
        models::body(&bench.folder, &MLP)?,
        models::message(&bench.folder, &MLP)?,
    );
    let http = Aim {
        address: target.address(),
        path: "/v2/models/mlp/infer",
        keys,
        body: &body,
        grpc: false,
    };
    let call = format!("/{SERVICE}/ModelInfer");
    let grpc = Aim {
        address: SocketAddr::from(([127, 0, 0, 1], target.node.ports.grpc)),
        path: &call,
        body: &message,
        grpc: true,
        ..http
    };
    eprintln!("gRPC and HTTP, {CONCURRENCY} at a time");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        // Who goes first takes turns.
        if round % 2 == 0 {
            ours.push(send(bench, &grpc, target.amount(CONCURRENCY))?);
        }
        theirs.push(send(bench, &http, target.amount(CONCURRENCY))?);
        if round % 2 == 1 {
            ours.push(send(bench, &grpc, target.amount(CONCURRENCY))?);
        }
    }
    Ok(beside(&ours, &theirs))
}

fn beside(ours: &[Summary], theirs: &[Summary]) -> Vec<Row> {
    let row = |name: &str, unit, figure: fn(&Summary) -> f64, note| {
        let of = |side: &[Summary]| median(side.iter().map(figure).collect());
        let name = format!("gRPC, {CONCURRENCY} at a time: {name}");
        Row::pair(name, unit, (of(ours), of(theirs)), note)
    };
    vec![
        row("requests", "1/s", |summary| summary.requests_per_second, AIM),
        row("p50", "us", |summary| summary.p50_us, LATENCY),
        row("p99", "us", |summary| summary.p99_us, LATENCY),
    ]
}
