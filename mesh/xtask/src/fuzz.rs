//! `cargo xtask fuzz`: libFuzzer on one target of tests/fuzz, through cargo-fuzz where it is installed and without it otherwise.
//!
//! Without it the same instrumentation is asked of the compiler here, but for the sanitizers: those need a standard library of
//! their own.

use std::path::Path;

use anyhow::{Context, ensure};

use crate::{environment, prerequisites, process};

/// What makes a program tell libFuzzer which ways its input takes.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Fuzzes one target for so long, or lists them.
pub(crate) fn run(target: Option<&str>, seconds: u32) -> anyhow::Result<()> {
    let folder = environment::root()?.join("tests/fuzz");
    let known = targets(&folder)?;
    let Some(target) = target else {
        known.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    ensure!(
        known.iter().any(|name| name == target),
        "no target '{target}': it is one of {}",
        known.join(", ")
    );
    std::fs::create_dir_all(folder.join("corpus").join(target))?;
    let mut command = process::command("cargo", &folder);
    // Both ask the compiler for what stable Rust keeps behind this.
    command.env("RUSTC_BOOTSTRAP", "1");
    let through_cargo_fuzz = prerequisites::answers("cargo", &["fuzz", "--version"]);
    if through_cargo_fuzz {
        command.args(["fuzz", "run", "--fuzz-dir", ".", target]);
    } else {
        eprintln!("cargo-fuzz is not installed: fuzzing without sanitizers (cargo install cargo-fuzz)");
        // With a target named, what runs while building is not instrumented.
        let host = host(&folder)?;
        command.env("RUSTFLAGS", COVERAGE);
        command.args(["run", "--release", "--target", &host, "--bin", target, "--"]);
    }
    command.args([format!("corpus/{target}"), format!("seeds/{target}")]);
    if through_cargo_fuzz {
        command.arg("--");
    }
    process::run(command.arg(format!("-max_total_time={seconds}")))
}

fn targets(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder.join("fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn host(folder: &Path) -> anyhow::Result<String> {
    let told = process::output(process::command("rustc", folder).arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say for which host it is")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_and_another_is_refused_with_their_names() {
        let names = targets(&environment::root().unwrap().join("tests/fuzz")).unwrap();
        assert!(
            names.len() >= 7 && names.iter().any(|name| name == "infer_json"),
            "{names:?}"
        );
        let error = run(Some("no-such-target"), 1).unwrap_err().to_string();
        assert!(error.contains("infer_json"), "{error}");
    }
}
