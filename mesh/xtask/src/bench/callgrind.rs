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
        models::{self, MLP},
        table::Row,
    },
    prerequisites, process,
};

const NAME: &str = "mlp, 1 at a time: instructions";
const UNIT: &str = "1/request";
/// Under valgrind everything takes many times as long.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// Two amounts, so that what does not grow with requests falls out of their difference.
const FEW: u64 = 50;
const MANY: u64 = 250;

/// The row; without valgrind it says so.
pub(crate) fn row(bench: &Bench) -> anyhow::Result<Row> {
    let tools = prerequisites::answers("valgrind", &["--version"])
        && prerequisites::answers("callgrind_control", &["--version"]);
    if !tools {
        return Ok(Row::missing(NAME, UNIT, "valgrind is not installed"));
    }
    eprintln!("instructions: starting the mesh under valgrind, which is slow");
    let body = models::body(&bench.folder, &MLP)?;
    let counts = Counts::new(bench, "mesh");
    let node = bench.start("callgrind", &counts.under(), PATIENCE)?;
    let keys = models::declare(&node, &bench.folder, &[&MLP])?;
    let aim = Aim {
        address: SocketAddr::from(([127, 0, 0, 1], node.ports.inference)),
        path: "/v2/models/mlp/infer",
        keys: &keys,
        body: &body,
        grpc: false,
    };
    let (ours, answer_bytes) = counts.per_request(bench, &aim, node.pid())?;
    node.stop()?;
    let counts = Counts::new(bench, "floor");
    let floor = Floor::start(bench, answer_bytes, &counts.under())?;
    let aim = Aim {
        address: floor.address,
        ..aim
    };
    let (theirs, _) = counts.per_request(bench, &aim, floor.running.pid())?;
    floor.running.stop()?;
    let note = "all threads, libtorch included; beside the empty handler";
    Ok(Row::pair(NAME.to_owned(), UNIT, (ours, theirs), note))
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

    /// Instructions per request, and the bytes of an answer.
    fn per_request(&self, bench: &Bench, aim: &Aim<'_>, pid: u32) -> anyhow::Result<(f64, usize)> {
        let amount = |requests| Amount {
            concurrency: 1,
            warm_up: 0.0,
            seconds: PATIENCE.as_secs_f64(),
            requests: Some(requests),
        };
        send(bench, aim, amount(FEW))?;
        control(&["-i", "on"], pid)?;
        send(bench, aim, amount(FEW))?;
        let mut counts = [0.0; 2];
        let mut answer_bytes = 0;
        for (index, (requests, count)) in [FEW, MANY].into_iter().zip(&mut counts).enumerate() {
            control(&["-z"], pid)?;
            answer_bytes = send(bench, aim, amount(requests))?.answer_bytes;
            control(&["-d"], pid)?;
            let dump = PathBuf::from(format!("{}.{}", self.file.display(), index + 1));
            *count = total(&dump)?;
        }
        control(&["-i", "off"], pid)?;
        let [few, many] = counts;
        #[expect(clippy::cast_precision_loss, reason = "a few hundred requests")]
        let difference = (MANY - FEW) as f64;
        Ok(((many - few) / difference, answer_bytes))
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
