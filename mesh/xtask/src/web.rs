//! The admin web app: built with npm when its sources have changed, by one run at a time.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

use crate::{environment, prerequisites, process};

/// Folders and files beside the sources that are no part of the app.
const NOT_SOURCES: &[&str] = &["node_modules", "dist", "Cargo.toml", "build.rs", "lib.rs", "fixture"];

/// The app's folder.
pub(crate) fn folder() -> anyhow::Result<PathBuf> {
    Ok(environment::root()?.join("admin-ui/web"))
}

/// Builds the app unless what is there was built from the very same sources.
pub(crate) fn build() -> anyhow::Result<()> {
    let folder = folder()?;
    let _lock = lock("web")?;
    let stamp = stamp_path("web-dist")?;
    let digest = digest(&folder)?;
    if folder.join("dist/index.html").is_file() && fs::read_to_string(&stamp).is_ok_and(|built| built == digest) {
        eprintln!("the admin web app is up to date");
        return Ok(());
    }
    prerequisites::check_node()?;
    install(&folder, "web")?;
    process::run(process::command("npm", &folder).args(["run", "build"]))?;
    ensure!(
        folder.join("dist/index.html").is_file(),
        "npm run build left no dist/index.html"
    );
    fs::write(stamp, digest).context("cannot write the stamp of the web app")
}

/// Installs a folder's packages exactly as its lock file says, unless they are there.
pub(crate) fn install(folder: &Path, name: &str) -> anyhow::Result<()> {
    let lock_file = fs::read(folder.join("package-lock.json")).context("there is no package-lock.json")?;
    let digest = hex(&Sha256::digest(&lock_file));
    // Within the folder that it speaks of: whoever removes that removes this too.
    let stamp = folder.join("node_modules/.mesh-installed");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == digest) {
        return Ok(());
    }
    process::run(process::command("npm", folder).args(["ci", "--no-audit", "--no-fund"]))
        .with_context(|| format!("the packages of {name} cannot be installed"))?;
    fs::create_dir_all(folder.join("node_modules"))?;
    fs::write(stamp, digest).context("cannot write the stamp of the packages")
}

/// Holds other runs off until dropped.
pub(crate) fn lock(name: &str) -> anyhow::Result<File> {
    let lock = File::create(stamp_path(&format!("{name}.lock"))?)?;
    if lock.try_lock().is_err() {
        eprintln!("another run is at the same ({name}); waiting for it");
        lock.lock()?;
    }
    Ok(lock)
}

fn stamp_path(name: &str) -> anyhow::Result<PathBuf> {
    let folder = environment::target()?.join("xtask");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.join(name))
}

/// One digest of all sources: their paths and what they hold.
fn digest(folder: &Path) -> anyhow::Result<String> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        hasher.update(file.strip_prefix(folder)?.as_os_str().as_encoded_bytes());
        hasher.update([0]);
        hasher.update(Sha256::digest(&bytes));
    }
    Ok(hex(&hasher.finalize()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if NOT_SOURCES.iter().any(|other| name == *other) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_follows_sources_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("src/main.tsx", "a");
        write("package-lock.json", "{}");
        let before = digest(folder.path()).unwrap();
        write("dist/index.html", "built");
        write("node_modules/x/index.js", "fetched");
        write("src/lib.rs", "//! Rust.");
        assert_eq!(digest(folder.path()).unwrap(), before);
        write("src/main.tsx", "b");
        assert_ne!(digest(folder.path()).unwrap(), before);
        write("src/main.tsx", "a");
        fs::rename(folder.path().join("src/main.tsx"), folder.path().join("src/other.tsx")).unwrap();
        assert_ne!(digest(folder.path()).unwrap(), before);
    }

    /// Folders with packages of npm's.
    const INSTALLED: [&str; 3] = ["admin-ui/web", "tests/browser", "tests/conformance/provider"];
    /// Licences that what is built with or tested with may have, as the lock files say them.
    const LICENCES: [&str; 9] = [
        "MIT",
        "MIT-0",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "0BSD",
        "ISC",
        "MPL-2.0",
        "(MIT OR CC0-1.0)",
    ];

    #[test]
    fn packages_of_lock_files_have_licences_that_are_allowed() {
        for path in INSTALLED {
            let file = environment::root().unwrap().join(path).join("package-lock.json");
            let lock: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
            let packages = lock["packages"].as_object().unwrap();
            assert!(packages.len() > 1, "{path}: no packages");
            for (name, package) in packages {
                let licence = package["license"].as_str().unwrap_or("none");
                assert!(LICENCES.contains(&licence), "{path}: {name} has the licence {licence}");
            }
        }
    }

    #[test]
    fn lock_files_name_no_registry() {
        for path in INSTALLED {
            let folder = environment::root().unwrap().join(path);
            let text = fs::read_to_string(folder.join("package-lock.json")).unwrap();
            assert!(
                !text.contains("\"resolved\": \"http"),
                "{path}: npm install --omit-lockfile-registry-resolved"
            );
        }
    }

    #[test]
    fn installing_without_a_lock_file_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let error = install(folder.path(), "x").unwrap_err().to_string();
        assert!(error.contains("package-lock.json"), "{error}");
    }
}
