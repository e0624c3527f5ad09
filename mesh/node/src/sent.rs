//! A model's files that came with a request: put into a folder as a repository has it, for as long as they are read.
//!
//! Invariants: a name leads nowhere else; the folder is gone when what holds it is dropped, and what a crash left is cleared
//! away at the next start.

use std::{fs, io, path::Path};

use mesh_router::Load;
use tempfile::TempDir;

/// Clears away what was left, and makes the folder that they are put into.
pub(crate) fn clear(within: &Path) -> io::Result<()> {
    match fs::remove_dir_all(within) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(within)
}

/// The folder of a model that is loaded with files; none where it has none. The error says what is wrong with them.
pub(crate) async fn folder(within: &Path, model: &str, load: &Load) -> Result<Option<TempDir>, String> {
    if load.files.is_empty() {
        return Ok(None);
    }
    if mesh_types::ModelId::parse(model).is_err() {
        return Err("there is no such model in the repository".to_owned());
    }
    let (within, model, files) = (within.to_path_buf(), model.to_owned(), load.files.clone());
    let written = tokio::task::spawn_blocking(move || {
        let root = tempfile::tempdir_in(within).map_err(|error| refused(&error))?;
        let model = root.path().join(model);
        for (name, bytes) in &files {
            let (version, file) = parts(name).ok_or_else(|| {
                let name: String = name.chars().take(60).collect();
                format!("'file:{name}' names no file of a version: write file:1/model.pt")
            })?;
            let version = model.join(version);
            fs::create_dir_all(&version).map_err(|error| refused(&error))?;
            fs::write(version.join(file), bytes).map_err(|error| refused(&error))?;
        }
        Ok(Some(root))
    });
    written.await.map_err(|_| "its files could not be written".to_owned())?
}

// What the system says of it may name a path.
fn refused(error: &io::Error) -> String {
    format!("its files could not be written: {}", error.kind())
}

/// The version and the file, if both are plain names.
fn parts(name: &str) -> Option<(&str, &str)> {
    let (version, file) = name.split_once('/')?;
    let digits = version.bytes().all(|byte| byte.is_ascii_digit()) && !version.starts_with('0');
    let plain = !file.contains(['/', '\\', '\0']) && !matches!(file, "" | "." | "..") && file.len() <= 255;
    (digits && !version.is_empty() && version.len() <= 10 && plain).then_some((version, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_of_a_version_is_one() {
        assert_eq!(parts("1/model.pt"), Some(("1", "model.pt")));
        for bad in [
            "model.pt",
            "/model.pt",
            "1/",
            "1/..",
            "../1/x",
            "1/../x",
            "1/a/b",
            "01/x",
            "x/y",
            "-1/x",
            "1//etc",
            "99999999999/x",
        ] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
