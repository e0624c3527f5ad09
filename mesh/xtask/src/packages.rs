//! The test models that only PyTorch can make: each module as TorchScript and as a package compiled by AOTInductor.
//!
//! Owns a Python with PyTorch of libtorch's version, and what it makes, both in the user's cache folder: PyTorch takes 5 GB and
//! two minutes, the models a few more, and neither changes from clone to clone. The models are made anew when the script
//! that makes them, or the processor that they are compiled for, is another one. Linked as `.packages` for the tests.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use sha2::{Digest as _, Sha256};

use crate::{
    environment,
    libtorch::{self, LIBTORCH_VERSION},
    prerequisites, process,
};

const SCRIPT: &str = "worker/backends/torch/packages/make.py";
/// Makes the stateful one, with weights from a package that needs nothing but its file.
const STATEFUL_SCRIPT: &str = "worker/backends/torch/packages/silero.py";
const SILERO: &str = "silero-vad==6.2.3";
/// Where the models are linked, from the repository's root.
pub(crate) const LINK: &str = ".packages";
/// The oldest Python that there is a PyTorch of this version for.
const MIN_PYTHON: &str = "3.10";

/// Provides the models and links their folder; safe to run again.
pub(crate) fn provide() -> anyhow::Result<PathBuf> {
    prerequisites::check_python()?;
    prerequisites::check_compiler()?;
    let (root, cache) = (environment::root()?, environment::cache()?);
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let lock = File::create(cache.join("packages.lock"))?;
    if lock.try_lock().is_err() {
        eprintln!("another run is making the test models; waiting for it");
        lock.lock()?;
    }
    let python = python(&cache)?;
    let script = root.join(SCRIPT);
    let folder = cache.join(format!("packages-{}", made_by(&script)?));
    let done = folder.join("done");
    if !done.exists() {
        eprintln!("making the test models with PyTorch {LIBTORCH_VERSION} (once, a few minutes)");
        let mut command = Command::new(&python);
        // What is compiled on the way stays out of shared temporary folders.
        let scratch = folder.join("scratch");
        command
            .args(["-W", "ignore"])
            .arg(&script)
            .arg(&folder)
            .env("TORCHINDUCTOR_CACHE_DIR", &scratch);
        process::run(&mut command).context("the test models cannot be made; a C++ compiler with OpenMP is needed")?;
        fs::remove_dir_all(&scratch).ok();
        fs::write(&done, "")?;
    }
    stateful(&python, &root, &cache, &folder.join("silero"))?;
    libtorch::put_link(&root.join(LINK), &folder)?;
    Ok(folder)
}

/// Makes the stateful model with real weights, unless this script has made it.
fn stateful(python: &Path, root: &Path, cache: &Path, folder: &Path) -> anyhow::Result<()> {
    let script = root.join(STATEFUL_SCRIPT);
    let (digest, stamp) = (libtorch::digest(&script)?, folder.join("made-by"));
    if fs::read_to_string(&stamp).is_ok_and(|known| known == digest) {
        return Ok(());
    }
    let package = cache.join(SILERO.replace("==", "-"));
    let installed = package.join("installed");
    if !installed.exists() {
        let mut install = Command::new(python);
        install.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]);
        process::run(install.arg("--target").arg(&package).arg(SILERO))
            .context("the package cannot be installed: pip needs to reach a package index that has it")?;
        fs::write(installed, "")?;
    }
    eprintln!("making the stateful test model of {SILERO}");
    let mut command = Command::new(python);
    command.args(["-W", "ignore"]).arg(&script).arg(folder).arg(&package);
    process::run(&mut command).context("the stateful test model cannot be made")?;
    fs::write(stamp, digest)?;
    Ok(())
}

/// A Python with PyTorch, in a virtual environment of its own.
fn python(cache: &Path) -> anyhow::Result<PathBuf> {
    let requirements = format!("torch=={LIBTORCH_VERSION}\nnumpy\n");
    let environment = cache.join(format!("python-torch-{LIBTORCH_VERSION}"));
    let (python, done) = (
        environment.join("bin/python"),
        environment.join("requirements.installed"),
    );
    let works = || prerequisites::answers(&python.to_string_lossy(), &["-c", "import torch"]);
    if fs::read_to_string(&done).is_ok_and(|installed| installed == requirements) && works() {
        return Ok(python);
    }
    let new_enough = format!(
        "import sys; sys.exit(sys.version_info < ({}))",
        MIN_PYTHON.replace('.', ", ")
    );
    ensure!(
        prerequisites::answers("python3", &["-c", &new_enough]),
        "PyTorch {LIBTORCH_VERSION} needs Python {MIN_PYTHON} or later: install one that 'python3' starts"
    );
    eprintln!(
        "installing PyTorch {LIBTORCH_VERSION} into {} (once, about 5 GB)",
        environment.display()
    );
    process::run(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment),
    )?;
    let mut install = Command::new(&python);
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-cache-dir",
    ]);
    process::run(install.args(requirements.lines()))
        .context("PyTorch cannot be installed: pip needs to reach a package index that has it")?;
    fs::write(done, requirements)?;
    Ok(python)
}

/// What the models follow from: the script, PyTorch's version, and what this processor can do.
fn made_by(script: &Path) -> anyhow::Result<String> {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let can = processor
        .lines()
        .find(|line| line.starts_with("flags") || line.starts_with("Features"));
    let text = format!(
        "{}\n{LIBTORCH_VERSION}\n{}\n{}",
        libtorch::digest(script)?,
        std::env::consts::ARCH,
        can.unwrap_or_default()
    );
    let digest: String = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digest.chars().take(16).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_script_makes_other_models() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("make.py");
        fs::write(&script, "one").unwrap();
        let one = made_by(&script).unwrap();
        assert_eq!(one, made_by(&script).unwrap());
        fs::write(&script, "two").unwrap();
        assert_ne!(one, made_by(&script).unwrap());
        assert!(made_by(&folder.path().join("none.py")).is_err());
    }
}
