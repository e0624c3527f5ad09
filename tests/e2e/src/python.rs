//! Pythons with other people's clients in them, and scripts that use those.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

/// The folder of the scripts and of what they need.
pub fn conformance() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance")
}

/// Where what takes long to install is kept between builds: the folder that libtorch was provided in, or the build's own where that is
/// from elsewhere.
pub fn cache(build: &Path) -> PathBuf {
    let link = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.libtorch");
    let provided = std::fs::canonicalize(link).ok();
    let folder = provided.as_deref().and_then(Path::parent);
    folder.unwrap_or(build).to_path_buf()
}

/// A Python with what a file of [`conformance`] lists, made in `folder` once for each content of that file.
pub fn python(folder: &Path, requirements: &str) -> anyhow::Result<PathBuf> {
    let listed = conformance().join(requirements);
    let wanted = std::fs::read_to_string(&listed).with_context(|| format!("no {requirements}"))?;
    let name = requirements
        .trim_end_matches(".txt")
        .replace("requirements", "conformance");
    let venv = folder.join(format!("{name}-venv"));
    let (python, done) = (venv.join("bin/python"), venv.join("requirements.installed"));
    // Another test, in a process of its own, may be about to make it as well.
    let lock = File::create(folder.join(format!("{name}-venv.lock")))?;
    lock.lock()?;
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    run(Command::new(&python).args(install).arg(&listed))?;
    std::fs::write(done, wanted)?;
    Ok(python)
}

/// Runs a program to its end; what it printed, if it was content.
pub fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?} did not start"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed:\n{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
