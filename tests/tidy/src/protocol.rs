//! The tables of the protocols and of the rules of security, and the threat model: what is called done names tests, and the tests
//! that are named exist.

use std::collections::BTreeSet;

use crate::Source;

/// The states that a row may have; what follows the word explains it.
const STATES: [&str; 5] = ["done", "partly", "refused", "in work", "no"];

/// The names of tests in a source: Rust's functions that are marked as such, and Python's, which check what they say.
fn tests_of(text: &str) -> Vec<&str> {
    let (mut names, mut is_test) = (Vec::new(), false);
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[") {
            is_test |= line.contains("test]") || line.contains("test(");
            continue;
        }
        let line = line.trim_start_matches("async ");
        let rust = line.strip_prefix("fn ").filter(|_| is_test);
        let name = rust.or_else(|| line.strip_prefix("def "));
        names.extend(name.and_then(|name| name.split(['(', '<']).next()));
        is_test = false;
    }
    names
}

/// A row's cells, if the line is a row.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inside = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<&str> = inside.split('|').map(str::trim).collect();
    (!cells.iter().all(|cell| cell.starts_with("---"))).then_some(cells)
}

/// Everything in the table that does not hold.
pub fn breaches(table: &str, sources: &[Source]) -> Vec<String> {
    let known: BTreeSet<&str> = sources.iter().flat_map(|source| tests_of(&source.text)).collect();
    let mut breaches = Vec::new();
    for (number, line) in (1..).zip(table.lines()) {
        let Some(cells) = cells(line) else { continue };
        let [_, state, tests] = cells.as_slice() else {
            breaches.push(format!("line {number}: a row has three cells, not {}", cells.len()));
            continue;
        };
        if *state == "state" {
            continue;
        }
        let word = STATES
            .iter()
            .find(|word| state.split([';', ':', ',']).next() == Some(**word));
        let said = word.or_else(|| STATES.iter().find(|word| state.starts_with(&format!("{word} "))));
        let Some(said) = said else {
            breaches.push(format!("line {number}: '{state}' begins with none of {STATES:?}"));
            continue;
        };
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if named.is_empty() && !matches!(*said, "in work" | "no") {
            breaches.push(format!("line {number}: '{said}' and no test"));
        }
        for name in named.iter().filter(|name| !known.contains(**name)) {
            breaches.push(format!("line {number}: there is no test '{name}'"));
        }
    }
    breaches
}

/// The tests that the threat model names and that do not exist. A name there is in backticks, in the last cell of a row.
pub fn missing_tests(document: &str, sources: &[Source]) -> Vec<String> {
    let known: BTreeSet<&str> = sources.iter().flat_map(|source| tests_of(&source.text)).collect();
    let (mut missing, mut named) = (Vec::new(), 0);
    for (number, line) in (1..).zip(document.lines()) {
        let Some(cells) = cells(line) else { continue };
        let [_, _, tests] = cells.as_slice() else { continue };
        let names = tests.split('`').skip(1).step_by(2);
        for name in names.filter(|name| name.matches('_').count() > 1) {
            named += 1;
            if !known.contains(name) {
                missing.push(format!("line {number}: there is no test '{name}'"));
            }
        }
    }
    if named == 0 {
        missing.push("the document names no test".to_owned());
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rows: &str) -> usize {
        let sources = [
            (
                "a.rs",
                "#[test]\nfn one_holds() {}\nfn five() {}\n    #[tokio::test]\n    #[expect(x)]\n    async fn two_hold() {}\n",
            ),
            ("a.py", "def three(x):\nasync def four():\n"),
        ];
        let sources = sources.map(|(path, text)| Source {
            path: path.into(),
            text: text.into(),
        });
        breaches(&format!("| what | state | tests |\n|---|---|---|\n{rows}"), &sources).len()
    }

    #[test]
    fn rows_with_tests_that_exist_pass_and_others_do_not() {
        assert_eq!(
            check("| a | done; so | `one_holds`, `two_hold` |\n| b | partly: c | `three`, `four` |\n"),
            0
        );
        assert_eq!(
            check("| a | in work; until then refused | |\n| b | no | |\n| c | refused with 501 | `three` |\n"),
            0
        );
        assert_eq!(check("| a | done | `five` |"), 1);
        assert_eq!(check("| a | done | |"), 1);
        assert_eq!(check("| a | nearly | `three` |"), 1);
        assert_eq!(check("| a | done |"), 1);
    }

    #[test]
    fn a_threat_names_tests_that_exist() {
        let sources = [Source {
            path: "a.rs".into(),
            text: "#[test]\nfn it_is_so_here() {}\nfn not_a_test_here() {}".to_owned(),
        }];
        let found = |row: &str| missing_tests(row, &sources).len();
        assert_eq!(found("| **S** x | y | `it_is_so_here` |"), 0);
        assert_eq!(found("| **S** x | y | `it_is_so_here`, `not_a_test_here` |"), 1);
        assert_eq!(found("| x | `0600` | nothing |"), 1, "a document without any is none");
    }
}
