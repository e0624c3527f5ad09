//! Other people's programs for Node, as a lock file pins them.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;

use crate::python::{conformance, run};

/// What a folder of a test's own sources needs to be installed.
const LISTED: [&str; 2] = ["package.json", "package-lock.json"];

/// A folder with the packages that the lock file in a folder of [`conformance`] pins, made in `folder` once for each content of it.
pub fn packages(folder: &Path, of: &str) -> anyhow::Result<PathBuf> {
    let sources = conformance().join(of);
    let wanted = std::fs::read(sources.join("package-lock.json")).with_context(|| format!("no packages of {of}"))?;
    let installed = folder.join(format!("conformance-{of}"));
    let done = installed.join("lock.installed");
    // Another test, in a process of its own, may be about to make it as well.
    let lock = File::create(folder.join(format!("conformance-{of}.lock")))?;
    lock.lock()?;
    if std::fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(installed);
    }
    std::fs::create_dir_all(&installed)?;
    for name in LISTED {
        std::fs::copy(sources.join(name), installed.join(name))?;
    }
    run(Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(&installed))?;
    std::fs::write(done, wanted)?;
    Ok(installed)
}
