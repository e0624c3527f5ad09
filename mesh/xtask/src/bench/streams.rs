//! Open-loop streams: requests that begin when they are due, several streams at the same time, each a program of its own.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::bench::{Bench, models::Body};

/// One stream.
#[derive(Debug, Clone)]
pub(crate) struct Stream<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'a str,
    /// A file of keys, one on each line; requests bear them in turn.
    pub(crate) keys: &'a Path,
    pub(crate) body: &'a Body,
    /// Requests per second.
    pub(crate) rate: f64,
    /// The deadline that each request names, and within which its answer is good.
    pub(crate) deadline_ms: u64,
    pub(crate) warm_up: f64,
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
}

/// Latencies of one kind of answer, in microseconds from when the requests were due.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Latencies {
    pub(crate) count: u64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// What a stream met.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Met {
    pub(crate) good_per_second: f64,
    pub(crate) good_share: f64,
    /// Answers with status 200.
    pub(crate) ok: Latencies,
    /// Answers with status 429 or 503.
    pub(crate) refused: Latencies,
    /// Answers by status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) broken: u64,
}

/// The most requests of a stream on their way at a time; deadlines keep them below.
const CONNECTIONS: &str = "1024";

impl Stream<'_> {
    fn start(&self, bench: &Bench) -> anyhow::Result<Child> {
        let mut command = bench.programs.command(&bench.programs.load());
        command
            .arg("open")
            .args(["--address", &self.address.to_string(), "--path", self.path])
            .arg("--tokens")
            .arg(self.keys)
            .arg("--body")
            .arg(&self.body.file)
            .args(["--header", &format!("x-request-timeout-ms: {}", self.deadline_ms)])
            .args(["--within-ms", &self.deadline_ms.to_string()])
            .args(["--rate", &self.rate.to_string(), "--seed", &self.seed.to_string()])
            .args(["--warm-up", &self.warm_up.to_string()])
            .args(["--seconds", &self.seconds.to_string()])
            .args(["--connections", CONNECTIONS]);
        for header in &self.body.headers {
            command.args(["--header", header]);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().context("the load generator does not start")
    }
}

/// Sends all streams at the same time; what each met, in their order.
pub(crate) fn meet(bench: &Bench, streams: &[Stream<'_>]) -> anyhow::Result<Vec<Met>> {
    let started: Vec<anyhow::Result<Child>> = streams.iter().map(|stream| stream.start(bench)).collect();
    // All are waited for before any failure is told: none is left behind.
    let ended: Vec<anyhow::Result<Met>> = started.into_iter().map(|child| end(child?)).collect();
    ended.into_iter().collect()
}

fn end(child: Child) -> anyhow::Result<Met> {
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the load generator failed: {}", said.trim());
    let met: Met = serde_json::from_slice(&output.stdout)?;
    if met.broken > 0 {
        bail!("{} connections broke", met.broken);
    }
    Ok(met)
}
