//! The small commands: set-up, environment, lints, fuzzing.

use anyhow::bail;

use crate::{
    environment::{self, Environment},
    libtorch, prerequisites, process, web,
};

/// Makes libtorch available and says what cargo must be told.
pub(crate) fn setup() -> anyhow::Result<Environment> {
    prerequisites::check_rust()?;
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

/// Fuzzes one target of tests/fuzz, or lists them.
pub(crate) fn fuzz(target: Option<&str>, seconds: u32) -> anyhow::Result<()> {
    if !prerequisites::answers("cargo", &["fuzz", "--version"]) {
        bail!("cargo-fuzz is not installed: cargo install cargo-fuzz");
    }
    let folder = environment::root()?.join("tests/fuzz");
    let mut command = process::command("cargo", &folder);
    // cargo-fuzz asks for sanitizers, which stable Rust keeps behind this.
    command.env("RUSTC_BOOTSTRAP", "1");
    match target {
        Some(target) => command
            .args(["fuzz", "run", "--fuzz-dir", ".", target])
            .args([format!("corpus/{target}"), format!("seeds/{target}")])
            .args(["--".to_owned(), format!("-max_total_time={seconds}")]),
        None => command.args(["fuzz", "list", "--fuzz-dir", "."]),
    };
    if let Some(target) = target {
        std::fs::create_dir_all(folder.join("corpus").join(target))?;
    }
    process::run(&mut command)
}

/// Builds the admin web app.
pub(crate) fn build_web() -> anyhow::Result<()> {
    web::build()
}

/// Runs cargo at the root, with what it needs to find libtorch.
pub(crate) fn cargo(environment: &Environment, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = environment::cargo();
    command
        .args(arguments)
        .envs(environment.variables.iter().cloned())
        .current_dir(environment::root()?);
    process::run(&mut command)
}
