//! Developer commands: `cargo xtask setup`, `env`, `test`, `lint`.
//!
//! Owns what a fresh machine lacks: libtorch, fetched once into the user's cache folder, and the environment that cargo needs
//! to build against it. Checks prerequisites and says what to install. Not part of the running mesh.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to its terminal"
)]

mod commands;
mod environment;
mod libtorch;
mod prerequisites;

use clap::{Parser, Subcommand};

/// Developer commands of the mesh.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch libtorch into the user's cache folder and link it as .libtorch. Safe to run again.
    Setup,
    /// Print the environment that cargo builds with, as shell exports.
    Env,
    /// Run every test.
    Test {
        /// Handed on to the test runner, such as a part of a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Check formatting, lints and licences.
    Lint,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Setup => commands::setup().map(drop),
        Command::Env => commands::env(),
        Command::Test { rest } => commands::test(&rest),
        Command::Lint => commands::lint(),
    }
}
