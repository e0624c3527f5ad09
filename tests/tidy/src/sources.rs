//! What a source file may hold: its length, its module documentation, and words that have no place in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The most lines of a file outside tests.
const MAX_LINES: usize = 500;
/// Words that mark unfinished work. Written apart, so that this file does not hold them.
const UNFINISHED: &[&str] = &[
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("FIX", "ME"),
];
/// Words that only some folders may hold.
const AT_HOME: &[(&str, &[&str])] = &[
    (concat!("unsafe", " {"), &["worker/backends/", "mesh/protocol/tests/"]),
    (concat!("std::", "env::var"), &["mesh/node/", "mesh/xtask/", "tests/"]),
];

/// One source file.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its path from the root, with forward slashes.
    pub path: String,
    /// What it holds.
    pub text: String,
}

fn root() -> anyhow::Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    Ok(root.context("tidy is not in tests/tidy")?.to_path_buf())
}

/// A file of the workspace, by its path from the root.
pub fn workspace_file(path: &str) -> anyhow::Result<String> {
    fs::read_to_string(root()?.join(path)).with_context(|| path.to_owned())
}

/// The scripts of other people's clients; tests run them, and they name what they check.
pub fn conformance_scripts() -> anyhow::Result<Vec<Source>> {
    let root = root()?;
    let mut scripts = Vec::new();
    for entry in fs::read_dir(root.join("tests/conformance"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "py") {
            scripts.push(Source {
                path: relative(&root, &path),
                text: fs::read_to_string(&path)?,
            });
        }
    }
    Ok(scripts)
}

/// Every Rust source of the workspace.
pub fn workspace_sources() -> anyhow::Result<Vec<Source>> {
    let root = root()?;
    let (mut folders, mut sources) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            if path.is_dir() && !path.is_symlink() {
                let skipped = name.starts_with('.') || name == "target" || name == "node_modules";
                folders.extend((!skipped).then_some(path));
            } else if name.ends_with(".rs") {
                sources.push(Source {
                    path: relative(&root, &path),
                    text: fs::read_to_string(&path)?,
                });
            }
        }
    }
    Ok(sources)
}

fn relative(root: &Path, path: &Path) -> String {
    let relative: PathBuf = path.strip_prefix(root).unwrap_or(path).components().collect();
    relative.to_string_lossy().replace('\\', "/")
}

fn is_test(path: &str) -> bool {
    path.starts_with("tests/") || path.contains("/tests/") || path.ends_with("tests.rs")
}

/// Everything in a file that breaks a law.
pub fn breaches(source: &Source) -> Vec<String> {
    let Source { path, text } = source;
    let mut breaches = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES && !is_test(path) {
        breaches.push(format!("{path} has {lines} lines, at most {MAX_LINES} are allowed"));
    }
    if !text.starts_with("//!") {
        breaches.push(format!("{path} does not open with //! saying what it owns"));
    }
    for word in UNFINISHED.iter().filter(|word| text.contains(**word)) {
        breaches.push(format!("{path} holds '{word}'"));
    }
    for (word, homes) in AT_HOME {
        if text.contains(word) && !homes.iter().any(|home| path.starts_with(home)) {
            breaches.push(format!("{path} holds '{word}', which is at home in {homes:?}"));
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, text: &str) -> usize {
        breaches(&Source {
            path: path.into(),
            text: text.into(),
        })
        .len()
    }

    #[test]
    fn a_file_of_500_lines_passes_and_of_501_does_not() {
        let lines = |count: usize| format!("//! X.\n{}", "//\n".repeat(count - 1));
        assert_eq!(check("a/src/x.rs", &lines(500)), 0);
        assert_eq!(check("a/src/x.rs", &lines(501)), 1);
        assert_eq!(check("a/src/x_tests.rs", &lines(501)), 0);
    }

    #[test]
    fn missing_documentation_and_words_out_of_place_are_breaches() {
        assert_eq!(check("a/src/x.rs", "fn f() {}"), 1);
        assert_eq!(check("a/src/x.rs", &format!("//! X.\n{}", UNFINISHED[0])), 1);
        for (word, homes) in AT_HOME {
            assert_eq!(check("a/src/x.rs", &format!("//! X.\n{word}")), 1);
            assert_eq!(check(&format!("{}x.rs", homes[0]), &format!("//! X.\n{word}")), 0);
        }
    }
}
