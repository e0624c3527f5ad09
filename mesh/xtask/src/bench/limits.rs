//! What it costs a request to be let in, in instructions, and what a tenant with two keys takes, in memory: with the limits that tenants
//! usually have, with every limit there is, and with none; and with a hundred thousand tenants known beside one.
//!
//! The program (`policies/examples/limit_cost.rs`) needs no mesh: the rows are soon measured.

use std::{path::Path, process::Command};

use anyhow::Context;

use crate::{
    bench::{callgrind, table::Row},
    commands, environment,
    environment::Environment,
    prerequisites, process,
};

const KNOWN: &str = "100000";
const UNIT: &str = "1/request";
/// Two amounts, so that what does not grow with requests falls out of their difference.
const FEW: u32 = 1_000;
const MANY: u32 = 11_000;
/// The most memory that a tenant should take.
const MOST_BYTES: f64 = 2_048.0;

/// The rows.
pub(crate) fn rows(environment: &Environment) -> anyhow::Result<Vec<Row>> {
    eprintln!("limits: instructions and memory");
    let arguments = ["build", "--release", "-p", "mesh-policies", "--example", "limit_cost"];
    commands::cargo(environment, &arguments)?;
    let program = environment::target()?.join("release/examples/limit_cost");
    let mut rows = Vec::new();
    let memory = |kind: &str| -> anyhow::Result<f64> {
        let printed = process::output(Command::new(&program).args([kind, KNOWN, "0"]))?;
        printed.trim().parse().context("the program printed something else")
    };
    for kind in ["none", "usual", "all"] {
        let name = format!("limits, {kind}: memory of a tenant with two keys, {KNOWN} known");
        let note = "beside the most that it should be for the usual ones";
        rows.push(Row::pair(name, "bytes", (memory(kind)?, MOST_BYTES), note));
    }
    if !prerequisites::answers("valgrind", &["--version"]) {
        rows.push(Row::missing("limits: instructions", UNIT, "valgrind is not installed"));
        return Ok(rows);
    }
    let cost = |kind: &str, tenants: &str| -> anyhow::Result<f64> {
        let file = environment::target()?.join("callgrind.out.limits");
        let count = |requests: u32| counted(&program, &file, &[kind, tenants, &requests.to_string()]);
        Ok((count(MANY)? - count(FEW)?) / f64::from(MANY - FEW))
    };
    let (none, usual) = (cost("none", "1")?, cost("usual", "1")?);
    for (name, limited) in [
        ("limits, usual, with the key: instructions", usual),
        (
            "limits, all of four subjects, with the key: instructions",
            cost("all", "1")?,
        ),
    ] {
        rows.push(Row::pair(
            name.to_owned(),
            UNIT,
            (limited, none),
            "beside the key and no limit at all",
        ));
    }
    let name = format!("limits, usual, one of {KNOWN} tenants: instructions");
    let note = "beside one tenant; aim 1.10 or less";
    rows.push(Row::pair(name, UNIT, (cost("usual", KNOWN)?, usual), note));
    Ok(rows)
}

fn counted(program: &Path, file: &Path, arguments: &[&str]) -> anyhow::Result<f64> {
    let mut command = Command::new("valgrind");
    command
        .args(["-q", "--tool=callgrind"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(arguments);
    process::output(&mut command)?;
    callgrind::total(file)
}
