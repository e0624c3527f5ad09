//! The files of models, by what they hold: named by their SHA-256, so that a name can never mean something else later.
//!
//! An upload is written to a file of its own, fsynced, and only then renamed to its digest; a file is hashed again before it is
//! loaded. What nothing refers to is removed on request, but not before it had time to be referred to. Uploads that a former
//! process left unfinished are removed at opening.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use bytes::Bytes;
use mesh_actors::{Permit, Permits};
use mesh_resources::{ArtifactRef, archive_problem, recognise};
use mesh_types::{ArtifactFormat, Fault, FaultClass, FaultSource};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;

use crate::{DiskFiles, Files as _, audit::hex};

/// The largest artifact, unless configured otherwise.
pub const DEFAULT_MAX_ARTIFACT_BYTES: u64 = 16 << 30;
/// The most uploads at once.
pub const MAX_UPLOADS: usize = 8;
const INCOMING: &str = "incoming";
const READ_BYTES: usize = 1 << 20;

/// What is wrong with an artifact.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArtifactError {
    /// Longer than may be.
    #[error("the artifact is longer than {max} bytes, the most that is allowed")]
    TooLarge {
        /// The bound.
        max: u64,
    },
    /// Not what its sender says it is.
    #[error("the artifact's SHA-256 is {got}, not {expected} as was said: send it again")]
    Differs {
        /// What was said.
        expected: String,
        /// What came.
        got: String,
    },
    /// Not there.
    #[error("there is no artifact {0}: upload it first")]
    Missing(String),
    /// There, but of another size.
    #[error("artifact {sha256} has {got} bytes, not {expected}")]
    Size {
        /// Its digest.
        sha256: String,
        /// What was said.
        expected: u64,
        /// What is there.
        got: u64,
    },
    /// What is on disk is not what was uploaded.
    #[error("artifact {0} is damaged on disk: upload it again")]
    Damaged(String),
    /// As many uploads run as may.
    #[error("{MAX_UPLOADS} uploads at once are allowed: try again when one has ended")]
    Busy,
    /// The operating system refused.
    #[error("the artifact store could not {doing}: {kind}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        kind: io::ErrorKind,
    },
}

impl ArtifactError {
    fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            tracing::error!(doing, %error, "artifacts: the operating system refused");
            Self::Io {
                doing,
                kind: error.kind(),
            }
        }
    }
}

impl From<ArtifactError> for Fault {
    fn from(error: ArtifactError) -> Self {
        let message = error.to_string();
        match error {
            ArtifactError::TooLarge { .. } => Self::new(FaultClass::TooLarge, FaultSource::Client, message),
            ArtifactError::Differs { .. } | ArtifactError::Size { .. } => Self::invalid(message),
            ArtifactError::Missing(_) => Self::not_found(message),
            ArtifactError::Busy => Self::unavailable(FaultSource::Mesh, message),
            ArtifactError::Damaged(_) | ArtifactError::Io { .. } => Self::internal(message),
        }
    }
}

/// The store; clones are the same.
#[derive(Debug, Clone)]
pub struct Artifacts {
    folder: Arc<Path>,
    max_bytes: u64,
    uploads: Permits,
}

impl Artifacts {
    /// Opens or makes the store in a folder, and removes unfinished uploads.
    pub fn open(folder: &Path, max_bytes: u64) -> Result<Self, ArtifactError> {
        let incoming = folder.join(INCOMING);
        let make = |folder| DiskFiles.make_folder(folder);
        make(folder)
            .and_then(|()| make(&incoming))
            .map_err(ArtifactError::io("make its folder"))?;
        for name in DiskFiles
            .names(&incoming)
            .map_err(ArtifactError::io("list unfinished uploads"))?
        {
            tracing::info!("artifacts: removing an unfinished upload");
            fs::remove_file(incoming.join(name)).map_err(ArtifactError::io("remove an unfinished upload"))?;
        }
        Ok(Self {
            folder: folder.into(),
            max_bytes,
            uploads: Permits::new(MAX_UPLOADS),
        })
    }

    /// Begins an upload; dropped unfinished, it leaves nothing.
    pub async fn begin(&self) -> Result<Upload, ArtifactError> {
        let permit = self.uploads.try_acquire().ok_or(ArtifactError::Busy)?;
        let failed = || ArtifactError::io("begin an upload");
        let incoming = self.folder.join(INCOMING);
        let made = tokio::task::spawn_blocking(move || NamedTempFile::new_in(incoming));
        let temporary = made.await.map_err(|error| failed()(error.into()))?.map_err(failed())?;
        let file = temporary.as_file().try_clone().map_err(failed())?;
        Ok(Upload {
            folder: self.folder.clone(),
            max_bytes: self.max_bytes,
            temporary,
            file: tokio::fs::File::from_std(file),
            hasher: Sha256::new(),
            bytes: 0,
            _permit: permit,
        })
    }

    pub(crate) fn path(&self, artifact: &ArtifactRef) -> Result<PathBuf, ArtifactError> {
        // The digest becomes a file's name: nothing else may.
        if artifact.is_well_formed() {
            return Ok(self.folder.join(&artifact.sha256));
        }
        Err(ArtifactError::Missing("of that name".to_owned()))
    }

    /// Whether it is there, by name and size.
    pub fn check_present(&self, artifact: &ArtifactRef) -> Result<(), ArtifactError> {
        let got = match fs::metadata(self.path(artifact)?) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArtifactError::Missing(artifact.sha256.clone()));
            }
            Err(error) => return Err(ArtifactError::io("look for an artifact")(error)),
        };
        if got != artifact.bytes {
            return Err(ArtifactError::Size {
                sha256: artifact.sha256.clone(),
                expected: artifact.bytes,
                got,
            });
        }
        Ok(())
    }

    /// What kind of model its file is, where it is of a kind that is known.
    pub(crate) fn kind(&self, artifact: &ArtifactRef) -> Result<Option<ArtifactFormat>, ArtifactError> {
        let file = File::open(self.path(artifact)?);
        let kind = file.and_then(|mut file| recognise(&mut file));
        kind.map_err(ArtifactError::io("read an artifact"))
    }

    /// What is wrong with its file as an archive, if it is one: what comes out of it may be as large as an artifact may.
    pub(crate) fn archive_problem(&self, artifact: &ArtifactRef) -> Result<Option<String>, ArtifactError> {
        let file = File::open(self.path(artifact)?);
        let found = file.and_then(|mut file| archive_problem(&mut file, self.max_bytes));
        found.map_err(ArtifactError::io("read an artifact"))
    }

    /// The file, after it was hashed and is what its name says. Reads all of it: call it off the request path.
    pub fn path_verified(&self, artifact: &ArtifactRef) -> Result<PathBuf, ArtifactError> {
        self.check_present(artifact)?;
        let path = self.path(artifact)?;
        let got = hash_file(&path).map_err(ArtifactError::io("read an artifact"))?;
        if got != artifact.sha256 {
            return Err(ArtifactError::Damaged(artifact.sha256.clone()));
        }
        Ok(path)
    }

    /// Removes what is not in the set and was uploaded before then; how many were.
    pub fn remove_unreferenced(
        &self,
        referenced: &BTreeSet<String>,
        uploaded_before: SystemTime,
    ) -> Result<usize, ArtifactError> {
        let failed = || ArtifactError::io("remove unreferenced artifacts");
        let mut removed = 0;
        for name in DiskFiles.names(&self.folder).map_err(failed())? {
            if name == INCOMING || referenced.contains(&name) {
                continue;
            }
            let path = self.folder.join(&name);
            let uploaded = fs::metadata(&path).and_then(|metadata| metadata.modified());
            if uploaded.map_err(failed())? < uploaded_before {
                fs::remove_file(&path).map_err(failed())?;
                removed += 1;
            }
        }
        DiskFiles.sync_folder(&self.folder).map_err(failed())?;
        Ok(removed)
    }
}

fn hash_file(path: &Path) -> io::Result<String> {
    let (mut file, mut hasher) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Ok(hex(&hasher.finalize()));
        };
        hasher.update(part);
    }
}

/// An upload under way.
#[derive(Debug)]
pub struct Upload {
    folder: Arc<Path>,
    max_bytes: u64,
    temporary: NamedTempFile,
    file: tokio::fs::File,
    hasher: Sha256,
    bytes: u64,
    _permit: Permit,
}

impl Upload {
    /// Adds bytes.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), ArtifactError> {
        let length = self.bytes.saturating_add(bytes.len() as u64);
        if length > self.max_bytes {
            return Err(ArtifactError::TooLarge { max: self.max_bytes });
        }
        self.hasher.update(&bytes);
        let written = self.file.write_all(&bytes).await;
        written.map_err(ArtifactError::io("write an upload"))?;
        self.bytes = length;
        Ok(())
    }

    /// Ends it: durable and under its digest, which must be the expected one if one is given.
    pub async fn finish(mut self, expected: Option<&str>) -> Result<ArtifactRef, ArtifactError> {
        let sha256 = hex(&self.hasher.finalize());
        if let Some(expected) = expected.filter(|expected| !expected.eq_ignore_ascii_case(&sha256)) {
            return Err(ArtifactError::Differs {
                expected: expected.chars().take(64).collect(),
                got: sha256,
            });
        }
        let failed = || ArtifactError::io("keep an upload");
        self.file.flush().await.map_err(failed())?;
        self.file.sync_all().await.map_err(failed())?;
        let (temporary, folder, name) = (self.temporary, self.folder, sha256.clone());
        let kept = tokio::task::spawn_blocking(move || {
            temporary.persist(folder.join(name)).map_err(|error| error.error)?;
            DiskFiles.sync_folder(&folder)
        });
        kept.await.map_err(|error| failed()(error.into()))?.map_err(failed())?;
        Ok(ArtifactRef {
            sha256,
            bytes: self.bytes,
        })
    }
}

#[cfg(test)]
mod tests;
