//! The commands themselves.

use std::process::Command;

use anyhow::{Context, bail};

use crate::{
    environment::{self, Environment},
    libtorch, prerequisites,
};

/// Makes libtorch available and says what cargo must be told.
pub(crate) fn setup() -> anyhow::Result<Environment> {
    prerequisites::check_compiler()?;
    libtorch::provide()
}

/// Prints the environment as shell exports.
pub(crate) fn env() -> anyhow::Result<()> {
    for (name, value) in setup()?.variables {
        println!("export {name}='{}'", value.replace('\'', "'\\''"));
    }
    Ok(())
}

/// Runs every test of the workspace, and the examples in its documentation.
pub(crate) fn test(rest: &[String]) -> anyhow::Result<()> {
    let environment = setup()?;
    let nextest = prerequisites::answers("cargo", &["nextest", "--version"]);
    let runner: &[&str] = if nextest {
        &["nextest", "run"]
    } else {
        &["test", "--all-targets"]
    };
    let mut arguments: Vec<&str> = [runner, &["--workspace"]].concat();
    arguments.extend(rest.iter().map(String::as_str));
    cargo(&environment, &arguments)?;
    if rest.is_empty() {
        cargo(&environment, &["test", "--workspace", "--doc", "--quiet"])?;
    }
    Ok(())
}

/// Checks formatting, lints, and licences where `cargo-deny` is installed.
pub(crate) fn lint() -> anyhow::Result<()> {
    let environment = setup()?;
    cargo(&environment, &["fmt", "--all", "--check"])?;
    cargo(
        &environment,
        &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
    )?;
    if prerequisites::answers("cargo", &["deny", "--version"]) {
        return cargo(&environment, &["deny", "check", "bans", "licenses", "sources"]);
    }
    eprintln!("cargo-deny is not installed: licences are not checked (cargo install cargo-deny)");
    Ok(())
}

fn cargo(environment: &Environment, arguments: &[&str]) -> anyhow::Result<()> {
    let text = format!("cargo {}", arguments.join(" "));
    eprintln!("> {text}");
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(environment.variables.iter().cloned())
        .current_dir(environment::root()?);
    let status = command.status().with_context(|| format!("'{text}' does not start"))?;
    if status.success() {
        return Ok(());
    }
    bail!("'{text}' failed ({status})")
}
