//! The load generator and the empty handler, as programs beside us.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::{
    bench::{Bench, models::Body},
    process::{self, Running},
};

/// How long the empty handler may take to listen; under valgrind it is slow.
const MAX_START: Duration = Duration::from_secs(120);
const LISTENING: &str = "listening on ";

/// Where to send, and as whom.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'a str,
    /// A file of keys, one on each line; requests bear them in turn.
    pub(crate) keys: &'a Path,
    pub(crate) body: &'a Body,
    /// Whether the path is a call over gRPC, and the body its message.
    pub(crate) grpc: bool,
}

/// How much to send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Amount {
    pub(crate) concurrency: usize,
    pub(crate) warm_up: f64,
    pub(crate) seconds: f64,
    pub(crate) requests: Option<u64>,
}

/// What the load generator found.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Summary {
    pub(crate) requests_per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) answer_bytes: usize,
    pub(crate) ok: u64,
    not_ok: u64,
    broken: u64,
}

/// Sends, and fails if anything was not answered with status 200: figures with errors in them compare nothing.
pub(crate) fn send(bench: &Bench, aim: &Aim<'_>, amount: Amount) -> anyhow::Result<Summary> {
    let mut command = bench.programs.command(&bench.programs.load());
    command
        .arg("run")
        .args(["--address", &aim.address.to_string(), "--path", aim.path])
        .arg("--tokens")
        .arg(aim.keys)
        .args(["--concurrency", &amount.concurrency.to_string()])
        .args([
            "--warm-up",
            &amount.warm_up.to_string(),
            "--seconds",
            &amount.seconds.to_string(),
        ])
        .arg("--body")
        .arg(&aim.body.file);
    if aim.grpc {
        command.arg("--grpc");
    }
    for header in &aim.body.headers {
        command.args(["--header", header]);
    }
    if let Some(requests) = amount.requests {
        command.args(["--requests", &requests.to_string()]);
    }
    let output = command.output().context("the load generator does not start")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the load generator failed: {}", said.trim());
    let summary: Summary = serde_json::from_slice(&output.stdout)?;
    if summary.not_ok > 0 || summary.broken > 0 {
        bail!(
            "{}: {} answers were fine, {} were not, {} connections broke",
            aim.path,
            summary.ok,
            summary.not_ok,
            summary.broken
        );
    }
    Ok(summary)
}

/// The empty handler, running.
#[derive(Debug)]
pub(crate) struct Floor {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
}

impl Floor {
    /// Starts it, under another program if given, to answer so many bytes.
    pub(crate) fn start(bench: &Bench, answer_bytes: usize, under: &[String]) -> anyhow::Result<Self> {
        let load = bench.programs.load();
        let mut command = match under.split_first() {
            Some((first, rest)) => {
                let mut command = bench.programs.command(Path::new(first));
                command.args(rest).arg(load);
                command
            }
            None => bench.programs.command(&load),
        };
        command
            .args(["floor", "--workers", &bench.workers.to_string()])
            .args(["--answer-bytes", &answer_bytes.to_string()]);
        let running = Running::start(&mut command, &bench.folder.join("floor.log"))?;
        let until = Instant::now() + MAX_START;
        loop {
            if let Some(address) = address(&running.printed()?) {
                return Ok(Self { running, address });
            }
            running.check()?;
            if Instant::now() > until || bench.interrupt.wait(Duration::from_millis(20)) {
                bail!("'{}' does not listen", process::text(&command));
            }
        }
    }
}

fn address(printed: &str) -> Option<SocketAddr> {
    let mut lines = printed.lines().filter_map(|line| line.strip_prefix(LISTENING));
    lines.next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_once_its_line_is_there() {
        assert_eq!(address("==1== Callgrind\nlistening on "), None);
        assert_eq!(
            address("x\nlistening on 127.0.0.1:81\n"),
            Some("127.0.0.1:81".parse().unwrap())
        );
    }
}
