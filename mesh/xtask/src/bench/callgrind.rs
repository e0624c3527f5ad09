//! Instructions of a request, counted by valgrind: a figure that a busy machine does not move.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;

use crate::{
    bench::{
        Bench,
        load::{Aim, Amount, Floor, send},
        models::{self, MLP, TENANT},
        profile::{self, Own},
        table::Row,
    },
    node::document,
    prerequisites, process,
};

const NAME: &str = "mlp, 1 at a time: instructions";
const UNIT: &str = "1/request";
/// Under valgrind everything takes many times as long.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// Two amounts, so that what does not grow with requests falls out of their difference.
const FEW: u64 = 50;
const MANY: u64 = 250;

/// What a tenant usually has: more than the bench asks for, so that nothing is refused.
const LIMITS: &str = concat!(
    r#"{"limits": {"requests": {"per_second": 100000, "burst": 100000}, "device_ms": {"per_second": 100000, "burst": 100000}, "#,
    r#""concurrency": 1000}, "budgets": {"monthly": {"device_ms": {"hard": 1000000000}}}}"#
);
/// All that is asked about a caller: who it is, what it may call, how much it may use; and its bill. None is inlined. Each by the names
/// that it has with one and with the other of the compiler's ways to write symbols.
const LET_IN: [&[&str]; 6] = [
    &["mesh_router::keys::prove"],
    &[
        "mesh_policies::limits::Limiter::caller",
        "<mesh_policies::limits::Limiter>::caller",
    ],
    &[
        "mesh_policies::limits::Caller::admit",
        "<mesh_policies::limits::Caller>::admit",
    ],
    &[
        "mesh_policies::snapshot::MeshSnapshot::callable",
        "<mesh_policies::snapshot::MeshSnapshot>::callable",
    ],
    &[
        "mesh_policies::limits::<impl mesh_policies::limits::ticket::Admission>::charge",
        "<mesh_policies::limits::ticket::Admission>::charge",
    ],
    &[
        "core::ptr::drop_in_place<mesh_policies::limits::ticket::Admission>",
        "core::ptr::drop_in_place::<mesh_policies::limits::ticket::Admission>",
    ],
];
const POLICIES: Own<'_> = Own {
    krate: "mesh_policies",
    sources: "policies/src/",
};

/// The rows; without valgrind one says so.
pub(crate) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let tools = prerequisites::answers("valgrind", &["--version"])
        && prerequisites::answers("callgrind_control", &["--version"]);
    if !tools {
        return Ok(vec![Row::missing(NAME, UNIT, "valgrind is not installed")]);
    }
    eprintln!("instructions: starting the mesh under valgrind, which is slow");
    let body = models::body(&bench.folder, &MLP)?;
    let counts = Counts::new(bench, "mesh");
    let node = bench.start("callgrind", &counts.under(), PATIENCE)?;
    let keys = models::declare(&node, &bench.folder, &[&MLP])?;
    node.apply(&document("Tenant", None, TENANT, LIMITS))?;
    let aim = Aim {
        address: SocketAddr::from(([127, 0, 0, 1], node.ports.inference)),
        path: "/v2/models/mlp/infer",
        keys: &keys,
        body: &body,
        grpc: false,
    };
    let Counted {
        all: ours,
        answer_bytes,
        dumps,
    } = counts.per_request(bench, &aim, node.pid())?;
    node.stop()?;
    let let_in = of_functions(&dumps, &LET_IN)?;
    let counts = Counts::new(bench, "floor");
    let floor = Floor::start(bench, answer_bytes, &counts.under())?;
    let aim = Aim {
        address: floor.address,
        ..aim
    };
    let theirs = counts.per_request(bench, &aim, floor.running.pid())?.all;
    floor.running.stop()?;
    let note = "all threads, libtorch included; beside the empty handler";
    let of_these = "  who calls, what they may call, the usual limits";
    Ok(vec![
        Row::pair(NAME.to_owned(), UNIT, (ours, theirs), note),
        Row::pair(
            of_these.to_owned(),
            UNIT,
            (let_in, ours),
            "beside the whole request; aim 0.05 or less",
        ),
    ])
}

/// Instructions per request in some functions, with everything below them.
fn of_functions(dumps: &[PathBuf; 2], functions: &[&[&str]]) -> anyhow::Result<f64> {
    let sum = |dump: &PathBuf| -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(dump).with_context(|| format!("callgrind wrote no {}", dump.display()))?;
        let profile = profile::read(&text, POLICIES).context("callgrind's output cannot be read")?;
        let mut sum = 0.0;
        for names in functions {
            // A function that is not there has been inlined, and what it costs would be left out without a word.
            let count = names.iter().find_map(|name| profile.calls.get(*name));
            #[expect(
                clippy::cast_precision_loss,
                reason = "a sum of instructions of a few hundred requests"
            )]
            let count = *count.with_context(|| format!("callgrind saw no {}", names.join(" or ")))? as f64;
            sum += count;
        }
        Ok(sum)
    };
    let [few, many] = dumps;
    Ok((sum(many)? - sum(few)?) / requests_between())
}

fn requests_between() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few hundred requests")]
    let difference = (MANY - FEW) as f64;
    difference
}

/// What was counted of one program.
#[derive(Debug)]
struct Counted {
    /// Instructions per request.
    all: f64,
    answer_bytes: usize,
    /// What was written after few requests, and after many.
    dumps: [PathBuf; 2],
}

/// Where the counts of one program go.
#[derive(Debug)]
struct Counts {
    file: PathBuf,
}

impl Counts {
    fn new(bench: &Bench, name: &str) -> Self {
        Self {
            file: bench.folder.join(format!("callgrind.out.{name}")),
        }
    }

    fn under(&self) -> Vec<String> {
        let file = format!("--callgrind-out-file={}", self.file.display());
        // Counting begins when it is switched on: starting is faster without.
        let options = [
            "valgrind",
            "-q",
            "--tool=callgrind",
            "--instr-atstart=no",
            "--fair-sched=yes",
        ];
        options.into_iter().map(str::to_owned).chain([file]).collect()
    }

    fn per_request(&self, bench: &Bench, aim: &Aim<'_>, pid: u32) -> anyhow::Result<Counted> {
        let amount = |requests| Amount {
            concurrency: 1,
            warm_up: 0.0,
            seconds: PATIENCE.as_secs_f64(),
            requests: Some(requests),
        };
        send(bench, aim, amount(FEW))?;
        control(&["-i", "on"], pid)?;
        send(bench, aim, amount(FEW))?;
        let mut answer_bytes = 0;
        let dumps = [1, 2].map(|number| PathBuf::from(format!("{}.{number}", self.file.display())));
        for requests in [FEW, MANY] {
            control(&["-z"], pid)?;
            answer_bytes = send(bench, aim, amount(requests))?.answer_bytes;
            control(&["-d"], pid)?;
        }
        control(&["-i", "off"], pid)?;
        let [few, many] = &dumps;
        Ok(Counted {
            all: (total(many)? - total(few)?) / requests_between(),
            answer_bytes,
            dumps,
        })
    }
}

fn control(arguments: &[&str], pid: u32) -> anyhow::Result<()> {
    process::output(Command::new("callgrind_control").args(arguments).arg(pid.to_string())).map(drop)
}

/// The sum over a dump: the lines `totals:` of its parts.
pub(crate) fn total(dump: &Path) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(dump).with_context(|| format!("callgrind wrote no {}", dump.display()))?;
    totals(&text).context("callgrind wrote no totals")
}

fn totals(text: &str) -> Option<f64> {
    let values: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix("totals:")?.trim().parse().ok())
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_summed_over_the_parts() {
        assert_eq!(
            totals("events: Ir\nsummary: 5\n\ntotals: 12\nx\ntotals: 30\n"),
            Some(42.0)
        );
        assert_eq!(totals("events: Ir\n"), None);
    }
}
