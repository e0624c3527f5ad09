//! What JSON costs: this project's reader and writer of a large tensor beside `serde_json` straight to and from numbers.
//!
//! Both sides run in one program (`mesh/protocol/examples/json_cost.rs`), which needs no mesh: the row is soon measured.

use anyhow::Context;

use crate::{bench::table::Row, commands, environment, environment::Environment, process};

/// The time of each side should be no more than that of the other.
const AIM: &str = "beside serde_json and numbers; aim 1.00 or less";
const ROUNDS: u32 = 20;

/// The rows, of so many times [`ROUNDS`] rounds.
pub(crate) fn rows(environment: &Environment, rounds: u32) -> anyhow::Result<Vec<Row>> {
    eprintln!("json: a tensor of 150,528 numbers");
    let arguments = ["build", "--release", "-p", "mesh-protocol", "--example", "json_cost"];
    commands::cargo(environment, &arguments)?;
    let program = environment::target()?.join("release/examples/json_cost");
    let mut command = std::process::Command::new(program);
    command.arg(rounds.saturating_mul(ROUNDS).to_string());
    figures(&process::output(&mut command)?)
}

fn figures(printed: &str) -> anyhow::Result<Vec<Row>> {
    let medians: [f64; 4] = serde_json::from_str(printed.trim()).context("the program printed something else")?;
    let [read, parsed, written, printed] = medians.map(|nanoseconds| nanoseconds / 1_000.0);
    let row = |name: &str, sides| Row::pair(name.to_owned(), "us", sides, AIM);
    Ok(vec![
        row("json, 150,528 FP32: read", (read, parsed)),
        row("json, 150,528 FP32: written", (written, printed)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_stands_beside_its_other() {
        let rows = figures("[3000,2000,500,1000]\n").unwrap();
        assert_eq!(
            rows.iter().map(|row| row.ratio).collect::<Vec<_>>(),
            [Some(1.5), Some(0.5)]
        );
        assert!(figures("nothing").is_err());
    }
}
