//! `cargo xtask test`: everything that can be tested, in phases that are timed.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    chromium,
    commands::{self, cargo},
    demo::{self, Digits},
    deny,
    environment::{self, Environment},
    fuzz,
    interrupt::Interrupt,
    node::{Node, NodeSettings, PATIENCE, Ports},
    packages, prerequisites, process,
    programs::Programs,
    web,
};

/// Requests per second beside the browser test, so that its charts have something to show.
const BROWSER_TRAFFIC: u32 = 20;

/// Runs every test, each target of `tests/fuzz` for so many seconds; with arguments, only the Rust tests that they choose.
pub(crate) fn run(fuzz_seconds: u32, rest: &[String]) -> anyhow::Result<()> {
    let mut phases = Phases::default();
    let result = all(fuzz_seconds, rest, &mut phases);
    phases.print();
    result
}

fn all(fuzz_seconds: u32, rest: &[String], phases: &mut Phases) -> anyhow::Result<()> {
    let environment = phases.run("prerequisites and libtorch", || {
        prerequisites::check_node()?;
        prerequisites::check_python()?;
        commands::setup()
    })?;
    phases.run("test models of PyTorch", || packages::provide().map(drop))?;
    phases.run("admin web app, build", web::build)?;
    if rest.is_empty() {
        phases.run("admin web app, tests", web_tests)?;
    }
    phases.run("Rust, build", || {
        cargo(&environment, &["build", "--workspace", "--bins", "--tests"])
    })?;
    phases.run("Rust, tests", || rust_tests(&environment, rest))?;
    if rest.is_empty() {
        phases.run("licences, bans, sources, advisories", deny::run)?;
        phases.run("Rust, examples in documentation", || {
            cargo(&environment, &["test", "--workspace", "--doc", "--quiet"])
        })?;
        if fuzz_seconds > 0 {
            phases.run("decoders, fuzzed", || fuzz::run_all(fuzz_seconds))?;
        }
        phases.run("browser", || {
            browser(environment.clone(), &environment::target()?.join("browser"))
        })?;
    }
    Ok(())
}

fn web_tests() -> anyhow::Result<()> {
    let mut command = process::command("npm", &web::folder()?);
    // CI keeps the runner from waiting for changes.
    process::run(command.args(["test"]).env("CI", "true"))
}

fn rust_tests(environment: &Environment, rest: &[String]) -> anyhow::Result<()> {
    let runner: &[&str] = if prerequisites::answers("cargo", &["nextest", "--version"]) {
        &["nextest", "run"]
    } else {
        &["test", "--bins", "--lib", "--tests"]
    };
    let mut arguments: Vec<&str> = [runner, &["--workspace"]].concat();
    arguments.extend(rest.iter().map(String::as_str));
    cargo(environment, &arguments)
}

/// The browser test alone, with what it needs built before.
pub(crate) fn browser_alone() -> anyhow::Result<()> {
    prerequisites::check_node()?;
    let environment = commands::setup()?;
    web::build()?;
    cargo(&environment, &["build", "--workspace", "--bins", "--tests"])?;
    browser(environment, &environment::target()?.join("browser"))
}

/// A browser against a mesh of its own, which the demo's own code prepares and keeps busy.
fn browser(environment: Environment, folder: &Path) -> anyhow::Result<()> {
    let chromium = chromium::provide()?;
    let test = environment::root()?.join("tests/browser");
    web::install(&test, "the browser test")?;
    // A run of its own: nothing is left of the last one.
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let interrupt = Interrupt::listen()?;
    let programs = Programs::debug(environment)?;
    let digits = Digits::provide(&programs, &folder.join("digits"))?;
    let settings = NodeSettings {
        programs: &programs,
        folder,
        ports: Ports::of(0)?,
        options: &[],
        under: &[],
        patience: PATIENCE,
    };
    let node = Node::start(&settings, &interrupt)?;
    let keys = demo::declare(&node, &digits)?;
    let mut command = process::command("node", &test);
    command
        .args(["run.mjs", "--out"])
        .arg(folder.join("pages"))
        .env("MESH_CHROMIUM", chromium)
        .env("MESH_ADMIN_URL", node.admin_url())
        .env("MESH_ADMIN_TOKEN", node.admin_token()?)
        .env("MESH_URL", node.url())
        .env("MESH_API_KEY", keys.first().context("no key was made")?);
    let plan = demo::Plan {
        node: &node,
        digits: &digits,
        keys: &keys,
        rate: BROWSER_TRAFFIC,
        bound: None,
        interrupt: &interrupt,
        quiet: true,
    };
    let tested = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| demo::send(&plan));
        let tested = process::run(&mut command);
        interrupt.stop();
        let sent = traffic.join();
        tested.and_then(|()| sent.map_or_else(|_| Ok(()), |sent| sent.map(drop)))
    });
    let stopped = node.stop();
    tested?;
    stopped
}

/// What was run, and how long it took.
#[derive(Debug, Default)]
struct Phases {
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    fn run<T>(&mut self, name: &'static str, phase: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        eprintln!("== {name}");
        let began = Instant::now();
        let result = phase().with_context(|| format!("in the phase '{name}'"));
        self.done.push((name, began.elapsed()));
        result
    }

    fn print(&self) {
        for (name, took) in &self.done {
            eprintln!("{name:36} {:7.1} s", took.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_that_fails_is_named_and_timed() {
        let mut phases = Phases::default();
        phases.run("one", || Ok(())).unwrap();
        let error = phases
            .run("two", || -> anyhow::Result<()> { anyhow::bail!("no") })
            .unwrap_err();
        assert_eq!(format!("{error:#}"), "in the phase 'two': no");
        let names: Vec<_> = phases.done.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["one", "two"]);
    }
}
