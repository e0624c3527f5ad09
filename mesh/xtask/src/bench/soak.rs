//! Mixed valid, hostile and cancelled traffic over minutes: every valid request is answered, and nothing of the others stays.
//!
//! Memory is compared once it has settled with what it is at the end; file descriptors and threads with what they were before,
//! a while after the last caller has gone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::{
    bench::{Bench, memory::ends, samples::resident_mib, table::Row},
    node::{Node, document, write_secret},
    process,
};

const EVERY: Duration = Duration::from_secs(1);
/// Until what callers left behind must be gone: the longest that a door waits for a request's head.
const REST: Duration = Duration::from_secs(90);
/// Memory may grow by so much of what it was.
const MOST_GROWTH: f64 = 0.05;
const TENANT: &str = "soak";
const MODEL: &str = "echo";
const CONFIG: &str = "parameters: {builtin: identity}
max_batch_size: 64
input: [{name: x, datatype: FP32, dims: [-1]}]
output: [{name: y, datatype: FP32, dims: [-1]}]
";

#[derive(Debug, Deserialize)]
struct Summary {
    valid: u64,
    answered: u64,
    hostile: u64,
    left: u64,
    failures: Vec<String>,
}

/// What a process has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    files: usize,
    threads: usize,
}

impl Held {
    fn of(pid: u32) -> anyhow::Result<Self> {
        let count = |what: &str| {
            let entries = fs::read_dir(format!("/proc/{pid}/{what}"));
            entries.map(Iterator::count).context("there is no /proc to look into")
        };
        Ok(Self {
            files: count("fd")?,
            threads: count("task")?,
        })
    }
}

/// The rows; an error where a valid request was not answered or something stayed.
pub(crate) fn rows(bench: &Bench, minutes: f64) -> anyhow::Result<Vec<Row>> {
    let node = bench.start("soak", &[], crate::node::PATIENCE)?;
    let keys = declare(bench, &node)?;
    // What the first requests open for good is not a leak.
    soak(bench, &node, &keys, 5.0)?;
    settle(bench, &node, None)?;
    let before = Held::of(node.pid())?;
    let seconds = minutes * 60.0;
    eprintln!("soak: {seconds:.0} s of mixed traffic");
    let (summary, samples) = watched(bench, &node, &keys, seconds)?;
    let after = settle(bench, &node, Some(before))?;
    node.stop()?;
    let (settled, end) = ends(&samples).context("the traffic was too short to watch the memory")?;
    ensure!(
        summary.answered == summary.valid && summary.failures.is_empty() && summary.valid > 0,
        "{} of {} valid requests were answered: {:?}",
        summary.answered,
        summary.valid,
        summary.failures
    );
    ensure!(
        after.files <= before.files && after.threads <= before.threads,
        "something stayed: {before:?} before, {after:?} after"
    );
    ensure!(
        end <= settled * (1.0 + MOST_GROWTH),
        "memory grew from {settled:.1} to {end:.1} MiB"
    );
    let note = format!(
        "growth over {minutes} min of {} valid requests, all answered, {} hostile connections, {} callers who left; beside the \
         memory at the start of it",
        summary.valid, summary.hostile, summary.left
    );
    let name = "mesh, mixed and hostile: memory".to_owned();
    Ok(vec![Row::pair(name, "MiB", (end - settled, settled), &note)])
}

fn declare(bench: &Bench, node: &Node) -> anyhow::Result<PathBuf> {
    let is_there = |tenant: &serde_json::Value| tenant["metadata"]["name"] == TENANT;
    if !node.list("tenants", None)?.iter().any(is_there) {
        node.apply(&document("Tenant", None, TENANT, "{}"))?;
        let config = bench.folder.join("soak.yaml");
        fs::write(&config, CONFIG).with_context(|| format!("cannot write {}", config.display()))?;
        let mut publish = node.cli(&["model", "publish", "--format", "builtin", "--wait"]);
        publish
            .args(["--tenant", TENANT, "--model", MODEL, "--config"])
            .arg(config);
        process::output(&mut publish)?;
    }
    let path = bench.folder.join("soak-key");
    write_secret(&path, &node.key(TENANT)?)?;
    Ok(path)
}

fn soak(bench: &Bench, node: &Node, keys: &Path, seconds: f64) -> anyhow::Result<Summary> {
    let mut command = Command::new(bench.programs.load());
    command
        .args(["soak", "--model", MODEL, "--seconds", &seconds.to_string()])
        .args(["--address", &format!("127.0.0.1:{}", node.ports.inference)])
        .args(["--grpc-address", &format!("127.0.0.1:{}", node.ports.grpc)])
        .arg("--tokens")
        .arg(keys);
    Ok(serde_json::from_str(&process::output(&mut command)?)?)
}

fn watched(bench: &Bench, node: &Node, keys: &Path, seconds: f64) -> anyhow::Result<(Summary, Vec<f64>)> {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = || {
            let mut samples = vec![resident_mib(node.pid())?];
            while !is_over.load(Ordering::Acquire) && !bench.interrupt.wait(EVERY) {
                samples.push(resident_mib(node.pid())?);
            }
            anyhow::Ok(samples)
        };
        let watcher = thread::Builder::new().spawn_scoped(scope, watch)?;
        let summary = soak(bench, node, keys, seconds);
        is_over.store(true, Ordering::Release);
        let samples = watcher.join().ok().context("the memory was not watched to the end")?;
        Ok((summary?, samples?))
    })
}

/// Waits until nothing more goes, or as little is there as before; answers what is there.
fn settle(bench: &Bench, node: &Node, before: Option<Held>) -> anyhow::Result<Held> {
    let mut held = Held::of(node.pid())?;
    let (mut waited, mut still) = (Duration::ZERO, 0);
    while waited < REST && !bench.interrupt.wait(EVERY) {
        waited += EVERY;
        let now = Held::of(node.pid())?;
        still = if now == held { still + 1 } else { 0 };
        held = now;
        let done = match before {
            Some(before) => now.files <= before.files && now.threads <= before.threads,
            None => still >= 10,
        };
        if done {
            break;
        }
    }
    Ok(held)
}
