//! libtorch: the user's own if there is one, else a CPU-only one cut from published wheels.
//!
//! The wheels' versions and digests are pinned in [`pins`]; what is fetched is verified, unpacked beside its final place and
//! moved there in one step, under a lock, so that two runs at once and a run cut short both end well.

mod assemble;
pub(crate) mod fetch;
mod index;
mod pins;

pub(crate) use fetch::digest;
pub(crate) use pins::{CARGO_DENY, CARGO_DENY_VERSION, LIBTORCH_VERSION, WHEELS as LIBTORCH_WHEELS};

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail, ensure};

use crate::environment::{self, Environment};

/// Finds or fetches libtorch, and links it as `.libtorch` at the root for plain cargo.
pub(crate) fn provide() -> anyhow::Result<Environment> {
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        return python();
    }
    let link = environment::root()?.join(".libtorch");
    // cargo sets LIBTORCH to the link by the repository's own configuration: that is not the user's word.
    let own = std::env::var_os("LIBTORCH")
        .map(PathBuf::from)
        .filter(|path| *path != link);
    let libtorch = match own {
        Some(path) => {
            check_version(&path)?;
            path
        }
        None => cached()?,
    };
    put_link(&link, &libtorch)?;
    Ok(Environment::of(&libtorch))
}

fn python() -> anyhow::Result<Environment> {
    let code =
        "import torch, os; print(torch.__version__); print(os.path.join(os.path.dirname(torch.__file__), 'lib'))";
    let output = Command::new("python3")
        .args(["-c", code])
        .output()
        .context("LIBTORCH_USE_PYTORCH is set, but python3 does not start")?;
    ensure!(
        output.status.success(),
        "LIBTORCH_USE_PYTORCH is set, but python3 cannot import torch"
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let (version, folder) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    ensure_version(version, "of python3")?;
    Ok(Environment::of_python(Path::new(folder)))
}

fn check_version(folder: &Path) -> anyhow::Result<()> {
    ensure!(
        folder.join("lib").is_dir(),
        "LIBTORCH is {}, but there is no lib folder in it",
        folder.display()
    );
    match std::fs::read_to_string(folder.join("build-version")) {
        Ok(version) => ensure_version(version.trim(), "that LIBTORCH names"),
        // Some distributions leave it out; the bindings do without as well.
        Err(_) => Ok(()),
    }
}

fn ensure_version(version: &str, whose: &str) -> anyhow::Result<()> {
    let number = version.split('+').next().unwrap_or_default();
    if number == LIBTORCH_VERSION {
        return Ok(());
    }
    bail!("the libtorch {whose} is {version}; the mesh needs {LIBTORCH_VERSION}")
}

fn cached() -> anyhow::Result<PathBuf> {
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "libtorch is fetched for Linux on x86-64 only; elsewhere set LIBTORCH to libtorch {LIBTORCH_VERSION}"
    );
    let cache = environment::cache()?;
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let lock = File::create(cache.join("libtorch.lock"))?;
    if lock.try_lock().is_err() {
        eprintln!("another run is fetching libtorch; waiting for it");
        lock.lock()?;
    }
    let folder = cache.join(format!("libtorch-{LIBTORCH_VERSION}-cpu"));
    if assemble::is_complete(&folder) {
        return Ok(folder);
    }
    assemble::assemble(&cache, &folder)?;
    Ok(folder)
}

/// Points the link at the folder, replacing it in one step.
pub(crate) fn put_link(link: &Path, folder: &Path) -> anyhow::Result<()> {
    if std::fs::read_link(link).is_ok_and(|target| target == folder) {
        return Ok(());
    }
    let fresh = link.with_extension(format!("new-{}", std::process::id()));
    std::os::unix::fs::symlink(folder, &fresh).with_context(|| format!("cannot make the link {}", link.display()))?;
    std::fs::rename(&fresh, link)
        .with_context(|| format!("cannot replace {}; remove it if it is not a link", link.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_refused_by_name() {
        assert!(ensure_version("2.11.0+cu130", "x").is_ok());
        let error = ensure_version("2.4.1", "that LIBTORCH names").unwrap_err().to_string();
        assert!(error.contains("2.4.1") && error.contains(LIBTORCH_VERSION), "{error}");
    }

    #[test]
    fn the_link_is_replaced_and_left_alone_when_right() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join(".libtorch");
        for target in ["/a", "/b", "/b"] {
            put_link(&link, Path::new(target)).unwrap();
            assert_eq!(std::fs::read_link(&link).unwrap(), Path::new(target));
        }
    }

    #[test]
    fn a_folder_without_libraries_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            check_version(folder.path())
                .unwrap_err()
                .to_string()
                .contains("no lib folder")
        );
    }
}
