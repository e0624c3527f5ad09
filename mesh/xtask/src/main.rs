//! Developer commands: set-up, tests, lints, the demo, the bench.
//!
//! Owns what a fresh machine lacks: libtorch, fetched once into the user's cache folder, the built web app, and the environment
//! that cargo needs. Each command checks only what it needs, and says what to install. Not part of the running mesh: it
//! starts one and speaks to it through its own command line and doors.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command talks to its terminal"
)]

mod bench;
mod chromium;
mod commands;
mod demo;
mod deny;
mod environment;
mod fuzz;
mod interrupt;
mod libtorch;
mod node;
mod packages;
mod prerequisites;
mod process;
mod programs;
mod sbom;
mod test;
mod web;

use std::process::ExitCode;

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
    /// Make the test models that only PyTorch can make, and link them as .packages. Safe to run again.
    #[command(
        long_about = "Make the test models that only PyTorch can make, and link them as .packages. Safe to run again.\n\n\
        Installs PyTorch into the user's cache folder (once, about 5 GB), and compiles each model with AOTInductor for this\n\
        processor. The tests of the libtorch backend and the bench need them."
    )]
    Packages,
    /// Build the admin web app, unless it was built from the same sources.
    BuildWeb,
    /// Start a mesh with two tenants, two trained models, a 90/10 split and steady traffic. Ctrl-C stops it.
    #[command(
        long_about = "Start a mesh with two tenants, two trained models, a 90/10 split and steady traffic.\n\n\
        Builds what is missing, trains two digit classifiers, starts `mesh serve`, declares everything through the mesh's own\n\
        command line, prints addresses and lines to paste, and sends held-out digits until Ctrl-C. Everything is kept, so the\n\
        second start takes seconds; remove the folder to begin anew."
    )]
    Demo(demo::DemoArguments),
    /// Run every test.
    #[command(long_about = "Run every test, in phases that are timed:\n\n\
        1. prerequisites: Rust, a C++ compiler, Node.js with npm, Python 3 with pip and venv; libtorch is fetched,\n   \
        and PyTorch to make test models with\n\
        2. the admin web app: its build with type check, and its own tests\n\
        3. every Rust test of the workspace (with cargo-nextest where it is installed), Python clients among them, and the\n   \
        examples in the documentation\n\
        4. licences, bans, sources and advisories of the dependencies, with cargo-deny\n\
        5. every target of tests/fuzz fuzzed for a minute, as many at a time as there are processors\n\
        6. the admin web app in Chromium, against a mesh set up as the demo's\n\n\
        With arguments, only the Rust tests that they choose: cargo xtask test -p mesh-router limits")]
    Test {
        /// For how long each target of tests/fuzz is fuzzed; 0 leaves that out.
        #[arg(long, value_name = "SECONDS", env = "MESH_FUZZ_SECONDS", default_value_t = 60)]
        fuzz_seconds: u32,
        /// Handed on to the test runner, such as a part of a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Run the test of the admin web app in Chromium alone.
    TestBrowser,
    /// Check formatting, lints and licences.
    Lint,
    /// Check licences, bans, sources and, where their database can be reached, advisories of everything that is built from.
    Deny,
    /// Write what the mesh is made of as a bill of materials (CycloneDX, JSON).
    Sbom(sbom::SbomArguments),
    /// Measure the mesh beside the least that is possible, both in the same run.
    Bench(bench::BenchArguments),
    /// Fuzz what reads bytes from outside; without a target, list the targets.
    Fuzz(fuzz::FuzzArguments),
}

fn main() -> ExitCode {
    match perform(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup => commands::setup().map(drop),
        Command::Env => commands::env(),
        Command::Packages => packages::provide().map(drop),
        Command::BuildWeb => commands::build_web(),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test { fuzz_seconds, rest } => test::run(fuzz_seconds, &rest),
        Command::TestBrowser => test::browser_alone(),
        Command::Lint => commands::lint(),
        Command::Deny => deny::run(),
        Command::Sbom(arguments) => sbom::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::*;

    #[test]
    fn how_long_decoders_are_fuzzed_is_said_before_what_is_handed_on() {
        // Whatever the environment of the one who runs this test says.
        let command = Arguments::command().mut_subcommand("test", |test| {
            test.mut_arg("fuzz_seconds", |seconds| seconds.env(None::<&'static str>))
        });
        let test = |given: &[&str]| {
            let all = [&["xtask", "test"], given].concat();
            let matches = command.clone().try_get_matches_from(all).unwrap();
            match Arguments::from_arg_matches(&matches).unwrap().command {
                Command::Test { fuzz_seconds, rest } => (fuzz_seconds, rest),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(test(&[]), (60, vec![]));
        assert_eq!(test(&["--fuzz-seconds", "5"]), (5, vec![]));
        let rest = ["-p", "mesh-router", "limits"];
        assert_eq!(test(&rest), (60, rest.map(str::to_owned).to_vec()));
    }
}
