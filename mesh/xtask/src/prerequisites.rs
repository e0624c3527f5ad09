//! What must be installed before anything can be built, and what to install where it is not.
//!
//! Each command checks only what it needs.

use std::process::{Command, Stdio};

use anyhow::{bail, ensure};

const MIN_RUST: (u32, u32) = (1, 92);
const MIN_NODE: (u32, u32) = (20, 19);

/// Whether a program starts and answers.
pub(crate) fn answers(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// The C++ compiler that `CXX` names, or the usual one.
pub(crate) fn cxx() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned())
}

/// Checks for a C++ compiler: libtorch's bindings are C++.
pub(crate) fn check_compiler() -> anyhow::Result<()> {
    let cxx = cxx();
    if answers(&cxx, &["--version"]) {
        return Ok(());
    }
    bail!(
        "no C++ compiler: '{cxx}' does not start. Install one (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++; \
         Arch: pacman -S gcc), or set CXX"
    )
}

/// Checks that the compiler is as new as the workspace says.
pub(crate) fn check_rust() -> anyhow::Result<()> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let said = version_of(&rustc, &["--version"]);
    ensure!(
        said.as_deref().and_then(version).is_some_and(|found| found >= MIN_RUST),
        "Rust {}.{} or later is needed, found {}: rustup update stable",
        MIN_RUST.0,
        MIN_RUST.1,
        said.as_deref().map_or("none", str::trim)
    );
    Ok(())
}

/// Checks for Node.js and npm: the admin web app is built with them.
pub(crate) fn check_node() -> anyhow::Result<()> {
    let said = version_of("node", &["--version"]);
    let new_enough = said.as_deref().and_then(version).is_some_and(|found| found >= MIN_NODE);
    if new_enough && answers("npm", &["--version"]) {
        return Ok(());
    }
    let found = match (&said, new_enough) {
        (Some(_), true) => "no npm",
        (Some(said), false) => said.trim(),
        (None, _) => "none",
    };
    bail!(
        "Node.js {}.{} or later with npm is needed to build the admin web app, found {found}. Install it (Debian 13, Ubuntu 25.04 \
         and later: apt-get install nodejs npm; Fedora: dnf install nodejs npm; Arch: pacman -S nodejs npm; elsewhere a version \
         manager such as nvm or fnm)",
        MIN_NODE.0,
        MIN_NODE.1,
    )
}

/// Checks for Python with pip and venv: unmodified Python clients are run against the mesh.
pub(crate) fn check_python() -> anyhow::Result<()> {
    let fine = answers(
        "python3",
        &["-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))"],
    );
    if fine && answers("python3", &["-m", "pip", "--version"]) {
        return Ok(());
    }
    bail!(
        "Python 3.9 or later with pip and venv is needed to run Python clients against the mesh. Install it (Debian, Ubuntu: \
         apt-get install python3 python3-pip python3-venv; Fedora: dnf install python3 python3-pip; Arch: pacman -S python python-pip)"
    )
}

fn version_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let said = output.status.success().then_some(output.stdout)?;
    String::from_utf8(said).ok()
}

/// The first two numbers of a version within a text: `rustc 1.95.0 (..)`, `v20.19.2`.
fn version(text: &str) -> Option<(u32, u32)> {
    let from = text.find(|c: char| c.is_ascii_digit())?;
    let mut parts = text.get(from..)?.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_does_not_answer() {
        assert!(answers("cargo", &["--version"]));
        assert!(!answers("no-such-program-anywhere", &["--version"]));
    }

    #[test]
    fn versions_are_read_out_of_what_programs_say() {
        assert_eq!(version("rustc 1.95.0 (59807616e 2026-04-14)\n"), Some((1, 95)));
        assert_eq!(version("v20.19.2\n"), Some((20, 19)));
        assert!(version("v9.11.1").unwrap() < MIN_NODE);
        assert_eq!(version("none"), None);
        assert_eq!(version("7"), None);
    }

    #[test]
    fn the_compiler_that_builds_this_is_new_enough() {
        check_rust().unwrap();
    }
}
