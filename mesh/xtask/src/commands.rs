//! The small commands: set-up, environment, lints.

use crate::{
    deny,
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

/// Checks formatting, lints, and what the dependencies are.
pub(crate) fn lint() -> anyhow::Result<()> {
    let environment = setup()?;
    cargo(&environment, &["fmt", "--all", "--check"])?;
    cargo(
        &environment,
        &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
    )?;
    deny::run()
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
