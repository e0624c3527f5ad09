//! What must be installed before anything can be built, and what to install where it is not.

use std::process::{Command, Stdio};

use anyhow::bail;

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
        "no C++ compiler: '{cxx}' does not start. Install one (Debian: apt-get install g++; Fedora: dnf install gcc-c++), or set CXX"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_does_not_answer() {
        assert!(answers("cargo", &["--version"]));
        assert!(!answers("no-such-program-anywhere", &["--version"]));
    }
}
