//! `cargo xtask bench`: what the mesh costs, each figure beside the least that is possible, both from the same run.
//!
//! Owns the rows and their order. The two sides of a row take turns within each round, and medians over the rounds are
//! compared, so that a noisy neighbour meets both.

mod callgrind;
mod compiled;
mod crowd;
mod json;
mod limits;
mod load;
mod loading;
mod memory;
mod models;
mod overload;
mod profile;
mod residents;
mod rows;
mod samples;
mod scheduling;
mod soak;
mod streams;
mod table;
mod tenants;
mod wires;

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
    /// One PyTorch module as TorchScript and as a compiled package, beside libtorch alone.
    Compiled,
    /// A classifier of three steps, beside the one module that is all three.
    Ensemble,
    /// gRPC beside HTTP with binary tensors, the same model at 64 at a time.
    Wires,
    /// Reading and writing a large tensor in JSON; needs no mesh.
    Json,
    /// What limits cost a request and a tenant; needs no mesh.
    Limits,
    /// Where a request's time goes.
    Stages,
    /// Two polite tenants beside one that asks for three times what the device can do.
    Fairness,
    /// What is answered in time at twice the peak, and how fast the rest is refused.
    Goodput,
    /// Memory over a flood.
    Memory,
    /// Mixed valid, hostile and cancelled traffic: whether every valid request is answered and nothing stays.
    Soak,
    /// What a request costs where 10,000 tenants are known and 100 call.
    Tenants,
    /// Memory, start and revocation where 100,000 tenants with 200,000 keys are declared.
    Crowd,
    /// What a request costs where 1,000 models are declared and 50 are in memory.
    Models,
    /// What others notice of a large model that is loaded beside them, and what its first request takes.
    Loading,
    /// Instructions of a request, under valgrind.
    Instructions,
    /// Instructions of a request in the scheduler alone, by part, under valgrind.
    Scheduling,
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
    /// Minutes of the flood, and of the mixed traffic, over which memory is watched.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
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
    /// Of the flood over which memory is watched.
    minutes: f64,
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
    ensure!(
        (0.5..=600.0).contains(&arguments.minutes),
        "--minutes is within 0.5 to 600, got {}",
        arguments.minutes
    );
    let environment = commands::setup()?;
    if arguments.only.as_slice() == [Group::Json] {
        let rows = json::rows(&environment, arguments.rounds)?;
        return told(arguments, &rows);
    }
    if arguments.only.as_slice() == [Group::Limits] {
        let rows = limits::rows(&environment)?;
        return told(arguments, &rows);
    }
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
        minutes: arguments.minutes,
        workers: NonZeroUsize::new(cores / 2).unwrap_or(NonZeroUsize::MIN),
        interrupt: Interrupt::listen()?,
    };
    let mut rows = Vec::new();
    let measured = measure(&bench, &arguments.only, &mut rows);
    // What was measured before something failed is told nevertheless.
    told(arguments, &rows)?;
    measured
}

fn told(arguments: &BenchArguments, rows: &[table::Row]) -> anyhow::Result<()> {
    println!("{}", table::text(rows));
    if let Some(path) = &arguments.json {
        let json = serde_json::to_vec_pretty(rows)?;
        std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn measure(bench: &Bench, only: &[Group], rows: &mut Vec<table::Row>) -> anyhow::Result<()> {
    let wanted = |group| only.is_empty() || only.contains(&group);
    models::trace(bench)?;
    let at_full = [Group::Mlp, Group::Wires, Group::Encoder, Group::Compiled, Group::Stages];
    if at_full.into_iter().any(wanted) {
        at_full_speed(bench, &wanted, rows)?;
    }
    if wanted(Group::Ensemble) {
        composed(bench, rows)?;
    }
    if wanted(Group::Fairness) || wanted(Group::Goodput) || wanted(Group::Memory) {
        overloaded(bench, &wanted, rows)?;
    }
    if wanted(Group::Soak) {
        rows.extend(soak::rows(bench, bench.minutes)?);
    }
    if wanted(Group::Tenants) {
        let node = bench.start("tenants", &[], PATIENCE)?;
        rows.extend(tenants::rows(bench, &node)?);
        node.stop()?;
    }
    if wanted(Group::Crowd) {
        rows.extend(crowd::rows(bench)?);
    }
    if wanted(Group::Models) {
        rows.extend(residents::rows(bench)?);
    }
    if wanted(Group::Loading) {
        rows.extend(loading::rows(bench)?);
    }
    if wanted(Group::Json) {
        rows.extend(json::rows(&bench.programs.environment, bench.rounds)?);
    }
    if wanted(Group::Limits) {
        rows.extend(limits::rows(&bench.programs.environment)?);
    }
    if wanted(Group::Instructions) {
        rows.extend(callgrind::rows(bench)?);
    }
    if wanted(Group::Scheduling) {
        rows.extend(scheduling::rows(bench)?);
    }
    Ok(())
}

fn at_full_speed(bench: &Bench, wanted: &impl Fn(Group) -> bool, rows: &mut Vec<table::Row>) -> anyhow::Result<()> {
    let node = bench.start("node", &[], PATIENCE)?;
    let keys = models::declare(&node, &bench.folder, &[&models::MLP, &models::ENCODER])?;
    let target = rows::Target {
        bench,
        node: &node,
        keys: &keys,
    };
    if wanted(Group::Mlp) {
        rows.extend(target.mlp()?);
    }
    if wanted(Group::Wires) {
        rows.extend(wires::rows(&target)?);
    }
    if wanted(Group::Encoder) {
        rows.extend(target.encoder()?);
    }
    if wanted(Group::Compiled) {
        rows.extend(compiled::rows(bench, &target)?);
    }
    if wanted(Group::Stages) {
        rows.extend(target.stages()?);
    }
    node.stop()
}

fn composed(bench: &Bench, rows: &mut Vec<table::Row>) -> anyhow::Result<()> {
    let node = bench.start("ensemble", &[], PATIENCE)?;
    let parts = [&models::NORMALISE, &models::CLASSIFY, &models::POST, &models::COMPOSED];
    let keys = models::declare(&node, &bench.folder, &parts)?;
    models::compose(&node)?;
    let target = rows::Target {
        bench,
        node: &node,
        keys: &keys,
    };
    rows.extend(target.ensemble()?);
    node.stop()
}

fn overloaded(bench: &Bench, wanted: &impl Fn(Group) -> bool, rows: &mut Vec<table::Row>) -> anyhow::Result<()> {
    let node = bench.start("overload", &[], PATIENCE)?;
    let overload = overload::Overload::prepare(bench, &node)?;
    if wanted(Group::Fairness) {
        rows.extend(overload.fairness()?);
    }
    if wanted(Group::Goodput) {
        rows.extend(overload.goodput()?);
    }
    if wanted(Group::Memory) {
        rows.push(memory::row(bench, &overload, bench.minutes)?);
    }
    node.stop()
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
