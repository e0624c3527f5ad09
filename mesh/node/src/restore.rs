//! `mesh restore`: a data folder from a backup, offline.
//!
//! Everything is unpacked and checked in a folder within the data folder, on the same disk, and put in place by renaming only
//! after all of it held. The pepper comes last: a folder with records but without it is refused by `mesh serve`, as is one in
//! which the unpacking still lies.

use std::{
    fmt,
    fs::{self, DirBuilder, File},
    io::{self, BufReader},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use mesh_registry::{BackupError, NamedSecret, RegistryConfig, SealKey, Unpacked, unpack};

use crate::{
    data::{ARTIFACTS, AUDIT_KEY, OWNERS_FOLDER, PEPPER, REGISTRY, RESTORING, pepper_of, seal_key},
    whole::write_whole,
};

/// How much of the backup is read at once.
const READ_BYTES: usize = 1 << 20;

/// What `mesh restore` is told.
#[derive(Debug, Clone, Args)]
pub struct RestoreOptions {
    /// The backup, as `mesh backup` wrote it.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The data folder to fill; it must be new or empty.
    #[arg(long, env = "MESH_DATA", value_name = "DIR")]
    pub data: PathBuf,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The folder holds something.
    #[error("{0} is not empty: restore into a new or empty folder")]
    NotEmpty(String),
    /// The backup cannot be used.
    #[error("nothing was restored from {file}: {error}")]
    Backup {
        /// The backup.
        file: String,
        /// What is wrong with it.
        error: BackupError,
    },
    /// The operating system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: String,
        /// Why not.
        source: io::Error,
    },
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RestoreError {
    let path = path.display().to_string();
    move |source| RestoreError::Io { what, path, source }
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    data: PathBuf,
    found: Unpacked,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unpacked {
            revision,
            created,
            files,
            bytes,
            ..
        } = &self.found;
        let data = self.data.display();
        write!(
            f,
            "restored {files} files of {bytes} bytes into {data}: revision {revision}, backed up at {created}\n\
             start it with: mesh serve --data {data}"
        )
    }
}

/// Fills a new or empty data folder from a backup.
pub fn restore(options: &RestoreOptions) -> Result<Restored, RestoreError> {
    let RestoreOptions { file, data } = options;
    let backup = File::open(file).map_err(failed("open the backup", file))?;
    let made = make_empty(data)?;
    let staging = data.join(RESTORING);
    let done = fill(backup, file, &staging, data);
    if done.is_err() {
        // Of no use, and what is left of it would only stand in the way; the error says what was wrong.
        let _ = fs::remove_dir_all(&staging);
        if made {
            let _ = fs::remove_dir(data);
        }
    }
    done.map(|found| Restored {
        data: data.clone(),
        found,
    })
}

/// Makes the folder if it is not there, which is answered; what a restore that was ended left unchecked is taken away.
fn make_empty(data: &Path) -> Result<bool, RestoreError> {
    let make = |path: &Path| {
        let made = DirBuilder::new().recursive(true).mode(OWNERS_FOLDER).create(path);
        made.map_err(failed("make the folder", path))
    };
    let made = !data.exists();
    if made {
        make(data)?;
    }
    let names: Result<Vec<_>, _> = fs::read_dir(data)
        .and_then(Iterator::collect)
        .map_err(failed("list", data));
    let staging = data.join(RESTORING);
    let (left, others): (Vec<_>, Vec<_>) = names?.iter().map(fs::DirEntry::path).partition(|path| *path == staging);
    if !others.is_empty() {
        return Err(RestoreError::NotEmpty(data.display().to_string()));
    }
    if !left.is_empty() {
        fs::remove_dir_all(&staging).map_err(failed("remove", &staging))?;
    }
    make(&staging)?;
    Ok(made)
}

fn key_of(secrets: &[NamedSecret]) -> Option<SealKey> {
    let (_, bytes) = secrets.iter().find(|(name, _)| name == PEPPER)?;
    pepper_of(bytes).map(|pepper| seal_key(&pepper))
}

fn fill(backup: File, file: &Path, staging: &Path, data: &Path) -> Result<Unpacked, RestoreError> {
    let registry = RegistryConfig::new(staging.join(REGISTRY)).with_artifacts(staging.join(ARTIFACTS));
    let mut reader = BufReader::with_capacity(READ_BYTES, backup);
    let found = unpack(&mut reader, &registry, &key_of).map_err(|error| RestoreError::Backup {
        file: file.display().to_string(),
        error,
    })?;
    let ours = |(name, _): &&NamedSecret| [PEPPER, AUDIT_KEY].contains(&name.as_str());
    for (name, bytes) in found.secrets.iter().filter(ours) {
        let path = staging.join(name);
        write_whole(&path, bytes).map_err(failed("write", &path))?;
    }
    let sync = |folder: &Path| File::open(folder).and_then(|folder| folder.sync_all());
    sync(staging).map_err(failed("fsync", staging))?;
    for part in [ARTIFACTS, REGISTRY, AUDIT_KEY, PEPPER] {
        let (from, place) = (staging.join(part), data.join(part));
        // A backup of an older mesh has no such key.
        if part == AUDIT_KEY && !from.exists() {
            continue;
        }
        fs::rename(from, &place).map_err(failed("put in place", &place))?;
    }
    sync(data).map_err(failed("fsync", data))?;
    fs::remove_dir(staging).map_err(failed("remove", staging))?;
    sync(data).map_err(failed("fsync", data))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(file: &Path, data: &Path) -> RestoreOptions {
        RestoreOptions {
            file: file.to_path_buf(),
            data: data.to_path_buf(),
        }
    }

    #[test]
    fn a_folder_that_holds_anything_is_refused_and_left_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (file, data) = (folder.path().join("backup.tar"), folder.path().join("data"));
        fs::write(&file, "no backup").unwrap();
        fs::create_dir(&data).unwrap();
        fs::write(data.join("pepper"), "mine").unwrap();
        let error = restore(&options(&file, &data)).unwrap_err();
        assert!(error.to_string().contains("is not empty"), "{error}");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 1);
        assert_eq!(fs::read(data.join("pepper")).unwrap(), b"mine");
    }

    #[test]
    fn what_is_no_backup_is_refused_by_name_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (file, data) = (folder.path().join("backup.tar"), folder.path().join("data"));
        fs::write(&file, vec![b'x'; 5_000]).unwrap();
        let error = restore(&options(&file, &data)).unwrap_err().to_string();
        assert!(
            error.contains("backup.tar") && error.contains("manifest.json"),
            "{error}"
        );
        assert!(!data.exists());
        fs::create_dir(&data).unwrap();
        // What an ended restore left is no reason to refuse.
        fs::create_dir(data.join(RESTORING)).unwrap();
        fs::write(data.join(RESTORING).join("half"), "half").unwrap();
        assert!(matches!(
            restore(&options(&file, &data)),
            Err(RestoreError::Backup { .. })
        ));
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    }

    #[test]
    fn a_backup_that_is_not_there_makes_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let error = restore(&options(&folder.path().join("none.tar"), &data)).unwrap_err();
        assert!(error.to_string().contains("none.tar"), "{error}");
        assert!(!data.exists());
    }
}
