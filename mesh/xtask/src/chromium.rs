//! A browser for the browser test: one that is there, or on Debian as root its own package.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{prerequisites, process};

const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Finds Chromium, or installs it where that needs nobody's leave.
pub(crate) fn provide() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("MESH_CHROMIUM").map(PathBuf::from) {
        ensure!(
            named.is_file(),
            "MESH_CHROMIUM is {}, but there is no such file",
            named.display()
        );
        return Ok(named);
    }
    if let Some(found) = find() {
        return Ok(found);
    }
    let is_root = process::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    if is_root && prerequisites::answers("apt-get", &["--version"]) {
        eprintln!("no Chromium: installing Debian's");
        let apt = |arguments: &[&str]| {
            process::run(
                Command::new("apt-get")
                    .args(arguments)
                    .env("DEBIAN_FRONTEND", "noninteractive"),
            )
        };
        apt(&["update"])?;
        apt(&["install", "-y", "--no-install-recommends", "chromium"])?;
    }
    find().context(
        "the browser test needs Chromium. Install it (Debian: apt-get install chromium; Fedora: dnf install chromium; \
         Arch: pacman -S chromium), or set MESH_CHROMIUM to the program",
    )
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.push(PathBuf::from("/usr/bin"));
    find_in(&folders)
}

fn find_in(folders: &[PathBuf]) -> Option<PathBuf> {
    let in_folder = |folder: &Path, name: &&str| Some(folder.join(name)).filter(|path| path.is_file());
    NAMES
        .iter()
        .find_map(|name| folders.iter().find_map(|folder| in_folder(folder, name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_that_is_anywhere_is_taken() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [first.path().to_path_buf(), second.path().to_path_buf()];
        assert_eq!(find_in(&folders), None);
        std::fs::write(first.path().join("google-chrome"), "").unwrap();
        std::fs::write(second.path().join("chromium"), "").unwrap();
        assert_eq!(find_in(&folders), Some(second.path().join("chromium")));
    }
}
