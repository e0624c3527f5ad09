//! Where things are, and the environment handed to cargo.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use serde::Deserialize;

use crate::process;

/// The repository's root.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .map(Path::to_path_buf)
        .context("xtask is not in mesh/xtask of the repository")
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Cargo's target folder.
pub(crate) fn target() -> anyhow::Result<PathBuf> {
    #[derive(Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let mut command = cargo();
    command
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root()?);
    let metadata: Metadata = serde_json::from_str(&process::output(&mut command)?)?;
    Ok(metadata.target_directory)
}

/// The user's cache folder for the mesh (XDG base directories).
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from) {
        Some(folder) if folder.is_absolute() => folder,
        _ => {
            PathBuf::from(std::env::var_os("HOME").context("HOME is not set: set it or XDG_CACHE_HOME")?).join(".cache")
        }
    };
    Ok(base.join("mesh"))
}

/// What cargo is told about libtorch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    pub(crate) variables: Vec<(&'static str, String)>,
}

impl Environment {
    /// For a libtorch in this folder.
    pub(crate) fn of(libtorch: &Path) -> Self {
        let library_path = with_front(&libtorch.join("lib"), std::env::var("LD_LIBRARY_PATH").ok().as_deref());
        Self {
            variables: vec![
                ("LIBTORCH", libtorch.display().to_string()),
                ("LD_LIBRARY_PATH", library_path),
            ],
        }
    }

    /// For the libtorch inside a Python installation, which the bindings find by themselves.
    pub(crate) fn of_python(library_folder: &Path) -> Self {
        let library_path = with_front(library_folder, std::env::var("LD_LIBRARY_PATH").ok().as_deref());
        Self {
            variables: vec![
                ("LIBTORCH_USE_PYTORCH", "1".to_owned()),
                ("LD_LIBRARY_PATH", library_path),
            ],
        }
    }
}

fn with_front(front: &Path, rest: Option<&str>) -> String {
    let front = front.display();
    match rest {
        Some(rest) if !rest.is_empty() => format!("{front}:{rest}"),
        _ => front.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_folder_comes_first() {
        assert_eq!(with_front(Path::new("/a"), Some("/b:/c")), "/a:/b:/c");
        assert_eq!(with_front(Path::new("/a"), Some("")), "/a");
        assert_eq!(with_front(Path::new("/a"), None), "/a");
    }
}
