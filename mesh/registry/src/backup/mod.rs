//! A copy of everything while it is being used: the records, their history, the models' files and the secrets beside them.
//!
//! Owns the backup as a stream of bytes, an archive that begins with a sealed list of what is in it, and the way back
//! ([`unpack`]). What is in it is decided at one moment, between two writes: a snapshot of all records made for it, the
//! journal's segments as long as they are then, and each artifact that a record refers to. Nothing of it is taken away until
//! the stream is dropped, and no write waits for it.
//!
//! Invariants: a part of bounded size is in memory at a time, a segment or a piece of an artifact, and the snapshot; what does
//! not hash to what the list says ends the stream in an error, never in a backup that cannot be restored.

mod manifest;
mod restore;
mod tar;

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use jiff::Timestamp;
use mesh_resources::{ArtifactRef, Kind as ResourceKind, Spec};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use self::manifest::{Kind, Listed, MANIFEST, MAX_SECRET_BYTES, Manifest, SEAL};
pub use self::restore::{BackupError, KeyOf, NamedSecret, Unpacked, unpack};
use crate::{
    ArtifactError, Artifacts, RegistryError, RegistryHandle, State, StorageError,
    actor::ExtentMessage,
    audit::hex,
    draft::{prefix, read},
    handle::Inner,
    journal::{Extent, Hold, Place, digest, snapshot},
};

/// The most bytes that the stream gives at once.
const CHUNK: usize = 256 << 10;

/// A backup, to be read from beginning to end.
pub struct Backup {
    revision: u64,
    files: usize,
    length: u64,
    time: i64,
    parts: VecDeque<Part>,
    doing: Doing,
    place: Place,
    ended: bool,
    _hold: Hold,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup")
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// One file of the archive.
struct Part {
    listed: Listed,
    source: Source,
}

/// Where a file's bytes come from.
enum Source {
    Bytes(Vec<u8>),
    /// A segment as it was, up to here.
    Segment(String, u64),
    Artifact(PathBuf),
}

/// What the stream is in the middle of.
enum Doing {
    /// What is left of these.
    Bytes(Bytes),
    /// An artifact.
    File {
        file: File,
        left: u64,
        hasher: Sha256,
        listed: Listed,
    },
}

impl RegistryHandle {
    /// Begins a backup of everything that has been acknowledged by now.
    pub async fn backup(&self, now: Timestamp) -> Result<Backup, RegistryError> {
        let (answer, answered) = oneshot::channel();
        let mut once = Some(ExtentMessage(answer));
        self.send(|| once.take()).await?;
        let (state, extent) = answered.await.map_err(|_| RegistryError::Unanswered)??;
        let inner = self.inner.clone();
        let begun = tokio::task::spawn_blocking(move || begin(&inner, &state, extent, now));
        begun.await.map_err(|_| RegistryError::Unanswered)?
    }
}

/// Hashes what is not named by its hash, and writes the list.
fn begin(inner: &Inner, state: &State, extent: Extent, now: Timestamp) -> Result<Backup, RegistryError> {
    let place = inner.place.clone();
    let mut parts = VecDeque::new();
    for (name, path) in &inner.secrets {
        let secret = fs::read(path).map_err(StorageError::io("read a secret for a backup"))?;
        if secret.len() as u64 > MAX_SECRET_BYTES {
            let too_large = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(StorageError::io("take a secret into a backup")(too_large).into());
        }
        parts.push_back(Part::of_bytes(Kind::Secret(name), secret));
    }
    let whole = snapshot::encode(extent.head, state, &place.key)?;
    parts.push_back(Part::of_bytes(
        Kind::Journal(&snapshot::name(extent.head.revision)),
        whole,
    ));
    for (name, length) in extent.segments {
        let bytes = segment(&place, &name, length)?;
        let listed = Listed::of(Kind::Journal(&name), &bytes);
        let source = Source::Segment(name, listed.bytes);
        parts.push_back(Part { listed, source });
    }
    for artifact in referenced(state)? {
        parts.push_back(Part::of_artifact(&inner.artifacts, artifact)?);
    }
    let files = parts.iter().map(|part| part.listed.clone()).collect();
    let manifest = Manifest::new(now, extent.head, files);
    let manifest = serde_json::to_vec_pretty(&manifest).map_err(|error| StorageError::Io {
        doing: "write a backup's list",
        kind: io::Error::from(error).kind(),
    })?;
    let seal = hex(&place.key.seal(&manifest)).into_bytes();
    let files = parts.len();
    parts.push_front(Part::named(SEAL.to_owned(), seal));
    parts.push_front(Part::named(MANIFEST.to_owned(), manifest));
    Ok(Backup {
        revision: extent.head.revision,
        files,
        length: parts.iter().map(|part| tar::taken(part.listed.bytes)).sum::<u64>() + tar::END as u64,
        time: now.as_second(),
        parts,
        doing: Doing::Bytes(Bytes::new()),
        place,
        ended: false,
        _hold: extent.hold,
    })
}

/// A segment as it was when the backup began.
fn segment(place: &Place, name: &str, length: Option<u64>) -> Result<Vec<u8>, StorageError> {
    let bytes = place.files.read(&place.folder.join(name));
    let mut bytes = bytes.map_err(StorageError::io("read a segment for a backup"))?;
    if let Some(length) = length {
        bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    }
    Ok(bytes)
}

/// Every artifact that a record refers to, once.
fn referenced(state: &State) -> Result<Vec<ArtifactRef>, StorageError> {
    let versions = prefix(ResourceKind::ModelVersion, None);
    let mut found = BTreeMap::new();
    for (key, stored) in state
        .entries
        .range(versions.clone()..)
        .take_while(|(key, _)| key.starts_with(&versions))
    {
        if let Spec::ModelVersion(spec) = read(key, stored)?.spec
            && let Some(artifact) = spec.artifact
        {
            found.insert(artifact.sha256.clone(), artifact);
        }
    }
    Ok(found.into_values().collect())
}

impl Listed {
    fn of(kind: Kind<'_>, bytes: &[u8]) -> Self {
        Self {
            name: kind.file(),
            bytes: bytes.len() as u64,
            sha256: digest(bytes),
        }
    }
}

impl Part {
    fn of_bytes(kind: Kind<'_>, bytes: Vec<u8>) -> Self {
        Self::named(kind.file(), bytes)
    }

    fn named(name: String, bytes: Vec<u8>) -> Self {
        let listed = Listed {
            name,
            bytes: bytes.len() as u64,
            sha256: digest(&bytes),
        };
        Self {
            listed,
            source: Source::Bytes(bytes),
        }
    }

    fn of_artifact(artifacts: &Artifacts, artifact: ArtifactRef) -> Result<Self, ArtifactError> {
        artifacts.check_present(&artifact)?;
        let source = Source::Artifact(artifacts.path(&artifact)?);
        let listed = Listed {
            name: Kind::Artifact(&artifact.sha256).file(),
            bytes: artifact.bytes,
            sha256: artifact.sha256,
        };
        Ok(Self { listed, source })
    }
}

fn padded(mut bytes: Vec<u8>) -> Bytes {
    let padding = tar::padding(bytes.len() as u64);
    bytes.resize(bytes.len() + padding, 0);
    bytes.into()
}

impl Backup {
    /// The last write in it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// How many files it has, beside its list.
    pub fn files(&self) -> usize {
        self.files
    }

    /// How many bytes it has in all.
    pub fn bytes(&self) -> u64 {
        self.length
    }

    /// The next piece; none: that was all. After an error the backup is no good. Reads from disk.
    pub fn next_chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            match &mut self.doing {
                Doing::Bytes(rest) if !rest.is_empty() => {
                    return Ok(Some(rest.split_to(rest.len().min(CHUNK))));
                }
                Doing::Bytes(_) => {}
                Doing::File {
                    file,
                    left,
                    hasher,
                    listed,
                } => {
                    let piece = read_piece(file, *left)?;
                    hasher.update(&piece);
                    *left -= piece.len() as u64;
                    if !piece.is_empty() {
                        return Ok(Some(piece.into()));
                    }
                    let whole = *left == 0 && hex(&hasher.clone().finalize()) == listed.sha256;
                    if !whole {
                        tracing::error!(sha256 = listed.sha256, "backup: an artifact is damaged on disk");
                        return Err(ArtifactError::Damaged(listed.sha256.clone()).into());
                    }
                    let padding = vec![0; tar::padding(listed.bytes)];
                    self.doing = Doing::Bytes(padding.into());
                    continue;
                }
            }
            return match self.parts.pop_front() {
                Some(part) => self.begin_part(part).map(Some),
                None if self.ended => Ok(None),
                None => {
                    self.ended = true;
                    Ok(Some(vec![0; tar::END].into()))
                }
            };
        }
    }

    /// The header of a file; its bytes are next.
    fn begin_part(&mut self, Part { listed, source }: Part) -> Result<Bytes, RegistryError> {
        let header = tar::header(&listed.name, listed.bytes, self.time);
        self.doing = match source {
            Source::Bytes(bytes) => Doing::Bytes(padded(bytes)),
            Source::Segment(name, length) => {
                let bytes = segment(&self.place, &name, Some(length))?;
                if digest(&bytes) != listed.sha256 {
                    return Err(StorageError::Journal {
                        segment: name,
                        offset: 0,
                        why: "it changed while it was backed up".to_owned(),
                    }
                    .into());
                }
                Doing::Bytes(padded(bytes))
            }
            Source::Artifact(path) => Doing::File {
                file: open(&path)?,
                left: listed.bytes,
                hasher: Sha256::new(),
                listed,
            },
        };
        Ok(Bytes::copy_from_slice(&header))
    }
}

fn open(path: &Path) -> Result<File, StorageError> {
    File::open(path).map_err(StorageError::io("open an artifact for a backup"))
}

/// Some of what is left of a file; nothing at its end.
fn read_piece(file: &mut File, left: u64) -> Result<Vec<u8>, StorageError> {
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
    let mut piece = Vec::with_capacity(most);
    let read = file.take(most as u64).read_to_end(&mut piece);
    read.map_err(StorageError::io("read an artifact for a backup"))?;
    Ok(piece)
}

#[cfg(test)]
mod tests;
