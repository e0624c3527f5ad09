//! `cargo xtask bench`: what the mesh costs, each figure beside the least that is possible, both from the same run.
//!
//! Owns the rows and their order. The two sides of a row take turns within each round, and medians over the rounds are
//! compared, so that a noisy neighbour meets both.

mod callgrind;
mod load;
mod models;
mod rows;
mod table;

use std::{num::NonZeroUsize, path::PathBuf, thread::available_parallelism};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::{
    commands, environment,
    interrupt::Interrupt,
    node::{Node, NodeSettings, PATIENCE, Ports},
    programs::Programs,
};

/// Groups of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Group {
    /// A small perceptron, where the mesh's own cost shows, beside the empty handler.
    Mlp,
    /// A compute-bound encoder, beside libtorch alone.
    Encoder,
    /// Where a request's time goes.
    Stages,
    /// Instructions of a request, under valgrind.
    Instructions,
}

/// What can be said about a bench.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    /// Only these rows; may be given again.
    #[arg(long, value_name = "ROW")]
    only: Vec<Group>,
    /// Write the rows to a file as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds; each row is the median over them.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Take the programs that the last optimised build left.
    #[arg(long)]
    no_build: bool,
}

/// What every row works with.
#[derive(Debug)]
pub(crate) struct Bench {
    programs: Programs,
    folder: PathBuf,
    rounds: u32,
    seconds: f64,
    /// Threads of the inference door and of the empty handler.
    workers: NonZeroUsize,
    interrupt: Interrupt,
}

/// Measures, prints a table, and writes JSON if asked to.
pub(crate) fn run(arguments: &BenchArguments) -> anyhow::Result<()> {
    ensure!(
        (0.1..=600.0).contains(&arguments.seconds),
        "--seconds is within 0.1 to 600, got {}",
        arguments.seconds
    );
    let environment = commands::setup()?;
    let programs = if arguments.no_build {
        Programs::built(environment)?
    } else {
        Programs::release(environment)?
    };
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let bench = Bench {
        programs,
        folder: environment::target()?.join("bench"),
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        workers: NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN),
        interrupt: Interrupt::listen()?,
    };
    let wanted = |group| arguments.only.is_empty() || arguments.only.contains(&group);
    let mut rows = Vec::new();
    models::trace(&bench)?;
    if wanted(Group::Mlp) || wanted(Group::Encoder) || wanted(Group::Stages) {
        let node = bench.start("node", &[], PATIENCE)?;
        let key = models::declare(&node, &bench.folder, &[&models::MLP, &models::ENCODER])?;
        let target = rows::Target {
            bench: &bench,
            node: &node,
            key: &key,
        };
        if wanted(Group::Mlp) {
            rows.extend(target.mlp()?);
        }
        if wanted(Group::Encoder) {
            rows.extend(target.encoder()?);
        }
        if wanted(Group::Stages) {
            rows.extend(target.stages()?);
        }
        node.stop()?;
    }
    if wanted(Group::Instructions) {
        rows.push(callgrind::row(&bench)?);
    }
    println!("{}", table::text(&rows));
    if let Some(path) = &arguments.json {
        let json = serde_json::to_vec_pretty(&rows)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

impl Bench {
    /// Starts a mesh, under another program if given.
    fn start(&self, name: &str, under: &[String], patience: std::time::Duration) -> anyhow::Result<Node> {
        let options = ["--http-workers".to_owned(), self.workers.to_string()];
        let options = [&options[..], &["--log".to_owned(), "warn".to_owned()]].concat();
        let settings = NodeSettings {
            programs: &self.programs,
            folder: &self.folder.join(name),
            ports: Ports::of(0)?,
            options: &options,
            under,
            patience,
        };
        Node::start(&settings, &self.interrupt)
    }
}
