//! The workshop: makes TorchScript models in Rust and measures libtorch alone.
//!
//! Owns the demo's digit classifiers, the bench's models and libtorch's own floor, so that neither the tests nor the demo
//! need Python. Not part of the running mesh.

mod bench_models;
mod digits;
mod floor;
mod package;
mod train;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Makes and measures TorchScript models.
#[derive(Debug, Parser)]
#[command(name = "torch-workshop", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train the two digit classifiers and write v1.pt, v2.pt, heldout.json and report.json.
    TrainDigits {
        /// The digits, 64 pixels and a label per line, gzipped.
        #[arg(long)]
        data: PathBuf,
        /// The folder to write to; made if it is not there.
        #[arg(long)]
        out: PathBuf,
    },
    /// Write the bench's models: mlp.pt (30-64-32-2), encoder.pt (4 layers, d=256, 64 tokens), and a classifier with that
    /// encoder as normalise.pt, classify.pt and post.pt and as composed.pt.
    TraceBench {
        /// The folder to write to; made if it is not there.
        #[arg(long)]
        out: PathBuf,
    },
    /// Measure a model under libtorch alone: rows per second by batch size and threads, as JSON on standard output.
    Floor(floor::FloorArguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::TrainDigits { data, out } => train::run(&data, &out),
        Command::TraceBench { out } => bench_models::run(&out),
        Command::Floor(arguments) => floor::run(&arguments),
    }
}
