//! Instructions per request in the scheduler alone, by part: `worker/scheduler/examples/cost.rs` under callgrind.
//!
//! Two runs with different numbers of requests, of which the difference counts: setting up falls out. Parts are of two kinds:
//! the calls of a device's turn, each with everything below it, and the files of the scheduler, each with what it calls of the
//! standard library and the allocator.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{
    bench::{
        Bench,
        profile::{self, Own, Profile},
        table::Row,
    },
    commands, environment, prerequisites, process,
};

const UNIT: &str = "1/request";
const FEW: usize = 2_000;
const MANY: usize = 12_000;
/// The calls of a device's turn: functions of the example.
const CALLS: [(&str, &str); 3] = [
    ("offer", "cost::offer"),
    ("poll", "cost::poll"),
    ("finished", "cost::finished"),
];

const SCHEDULER: Own<'_> = Own {
    krate: "mesh_scheduler",
    sources: "worker/scheduler/src/",
};

/// Tenants that are known, and those among them who call.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    known: usize,
    active: usize,
}

const ONE: Crowd = Crowd { known: 1, active: 1 };
const CROWD: Crowd = Crowd {
    known: 10_000,
    active: 100,
};

/// The rows; without valgrind one that says so.
pub(crate) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let name = "scheduler, 100 of 10,000 tenants";
    if !prerequisites::answers("valgrind", &["--version"]) {
        return Ok(vec![Row::missing(name, UNIT, "valgrind is not installed")]);
    }
    let program = program(bench)?;
    eprintln!("scheduling: instructions with one tenant, and with 100 of 10,000");
    let one = per_request(bench, &program, ONE)?;
    let crowd = per_request(bench, &program, CROWD)?;
    let note = "beside one tenant alone";
    let mut rows = vec![Row::pair(
        format!("{name}: all"),
        UNIT,
        (crowd.total(), one.total()),
        note,
    )];
    for (call, function) in CALLS {
        let of = |profile: &PerRequest| profile.calls.get(function).copied().unwrap_or(0.0);
        rows.push(Row::pair(
            format!("  in {call}()"),
            UNIT,
            (of(&crowd), of(&one)),
            "with all below it",
        ));
    }
    let mut parts: Vec<&String> = crowd.parts.keys().collect();
    parts.sort_by(|one, other| {
        let of = |part: &String| crowd.parts.get(part).copied().unwrap_or(0.0);
        of(other).total_cmp(&of(one))
    });
    for part in parts {
        let of = |profile: &PerRequest| profile.parts.get(part).copied().unwrap_or(0.0);
        rows.push(Row::pair(
            format!("  of {part}"),
            UNIT,
            (of(&crowd), of(&one)),
            "what is done there, and for it",
        ));
    }
    Ok(rows)
}

fn program(bench: &Bench) -> anyhow::Result<PathBuf> {
    let arguments = ["build", "--release", "-p", "mesh-scheduler", "--example", "cost"];
    commands::cargo(&bench.programs.environment, &arguments)?;
    Ok(environment::target()?.join("release/examples/cost"))
}

/// Instructions per request.
#[derive(Debug)]
struct PerRequest {
    calls: BTreeMap<&'static str, f64>,
    parts: BTreeMap<String, f64>,
}

impl PerRequest {
    fn total(&self) -> f64 {
        self.calls.values().sum()
    }
}

fn per_request(bench: &Bench, program: &Path, crowd: Crowd) -> anyhow::Result<PerRequest> {
    let few = count(bench, program, FEW, crowd)?;
    let many = count(bench, program, MANY, crowd)?;
    #[expect(clippy::cast_precision_loss, reason = "some thousand requests")]
    let per_request = |many: u64, few: u64| (many as f64 - few as f64) / (MANY - FEW) as f64;
    let mut calls = BTreeMap::new();
    for (_, function) in CALLS {
        let of = |profile: &Profile| {
            profile
                .calls
                .iter()
                .find(|(name, _)| name.starts_with(function))
                .map(|(_, count)| *count)
        };
        let (Some(many), Some(few)) = (of(&many), of(&few)) else {
            anyhow::bail!("callgrind saw no {function}");
        };
        calls.insert(function, per_request(many, few));
    }
    let mut parts = BTreeMap::new();
    for (file, count) in &many.files {
        let before = few.files.get(file).copied().unwrap_or(0);
        parts.insert(file.clone(), per_request(*count, before));
    }
    Ok(PerRequest { calls, parts })
}

fn count(bench: &Bench, program: &Path, requests: usize, crowd: Crowd) -> anyhow::Result<Profile> {
    let file = bench.folder.join("callgrind.out.scheduling");
    let mut command = Command::new("valgrind");
    command
        .args(["-q", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args([requests, crowd.known, crowd.active].map(|number| number.to_string()));
    let printed = process::output(&mut command)?;
    ensure!(
        printed.trim() == format!("served {requests}"),
        "of {requests} requests: {}",
        printed.trim()
    );
    let text = std::fs::read_to_string(&file).context("callgrind wrote nothing")?;
    profile::read(&text, SCHEDULER).context("callgrind's output cannot be read")
}
