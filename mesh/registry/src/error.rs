//! What can go wrong with the registry, and what callers are told of it.

use std::io;

use mesh_resources::{Problem, ResourceKey};
use mesh_types::{Fault, FaultClass, FaultSource};

use crate::{ArtifactError, Expected, RecordError, StoreError};

/// Why the registry did not do what it was asked.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RegistryError {
    /// The resource is not what the write expected.
    #[error("{key} is {}, the write expected {expected}: read it again and decide anew", at(*.found))]
    Conflict {
        /// The resource.
        key: ResourceKey,
        /// What was expected.
        expected: Expected,
        /// The revision that it has, if it is there.
        found: Option<u64>,
    },
    /// There is no such resource.
    #[error("there is no {0}")]
    NotFound(ResourceKey),
    /// The write is wrong in itself or with what is there.
    #[error("{}", joined(.0))]
    Invalid(Vec<Problem>),
    /// More than a stated bound.
    #[error("{got} {what}, at most {max} are allowed")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// How many there would be.
        got: usize,
        /// The bound.
        max: usize,
    },
    /// As many writes wait as may.
    #[error("too many writes at once: try again")]
    Busy,
    /// The writer is not there.
    #[error("the registry takes no writes now: try again later")]
    Down,
    /// The writer ended before it answered.
    #[error("the registry did not answer: the write may or may not have happened, read the resource to see")]
    Unanswered,
    /// Watching from a revision that is no longer remembered, or not there yet.
    #[error("{0}")]
    Watch(StoreError),
    /// The disk, or what is on it.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A write that the journal did not take: what cannot be audited is not done.
    #[error(
        "nothing was changed: the audit log cannot be written ({0}). Administration stops until it can; inference goes on"
    )]
    NotRecorded(StorageError),
    /// The artifact store.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
}

fn at(found: Option<u64>) -> String {
    found.map_or_else(|| "not there".to_owned(), |revision| format!("at revision {revision}"))
}

fn joined(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// What is wrong below the registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error("the registry could not {doing}: {kind}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        kind: io::ErrorKind,
    },
    /// The journal is damaged before its tail.
    #[error(
        "the journal is damaged in segment {segment} at byte {offset}: {why}. Nothing was changed; restore the segment from a copy"
    )]
    Journal {
        /// The segment's file name.
        segment: String,
        /// Where in it.
        offset: u64,
        /// What is wrong there.
        why: String,
    },
    /// A snapshot is damaged, and the segments that it stands for are gone.
    #[error(
        "the snapshot {file} of the journal is damaged: {why}. The segments that it stands for are gone: restore the data folder from a backup (mesh restore)"
    )]
    SnapshotDamaged {
        /// Its file name.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A snapshot is whole but was not made with this registry's key.
    #[error(
        "the snapshot {file} of the journal has a wrong signature: it was not written with this folder's pepper. Put the right pepper beside it, or restore the data folder from a backup (mesh restore)"
    )]
    SnapshotForged {
        /// Its file name.
        file: String,
    },
    /// The index knows of writes that the journal lacks.
    #[error(
        "the journal ends at revision {journal}, but revision {index} was acknowledged: segments or their ends are missing. Restore the journal from a copy"
    )]
    JournalBehind {
        /// The journal's last revision.
        journal: u64,
        /// The index's.
        index: u64,
    },
    /// The journal is whole, but it is not the one that was written.
    #[error(
        "the journal was replaced or rewritten: the hash of revision {revision} is not the one that was acknowledged"
    )]
    JournalReplaced {
        /// The revision.
        revision: u64,
    },
    /// A signature in the audit log is not one of what is before it.
    #[error("the audit log is not what was signed: the signature in revision {revision} does not hold: {why}")]
    HeadForged {
        /// The revision that has the signature.
        revision: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Another process has the folder.
    #[error("another process uses this registry: stop it first")]
    Locked,
    /// A record cannot be read.
    #[error("{key}: {error}")]
    Record {
        /// Which one.
        key: String,
        /// Why.
        error: RecordError,
    },
    /// The index failed.
    #[error(transparent)]
    Store(StoreError),
    /// An earlier write failed half way.
    #[error("the registry's disk failed in an earlier write: the writer is being opened anew")]
    Failed,
}

impl StorageError {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            tracing::error!(doing, %error, "registry: the operating system refused");
            Self::Io {
                doing,
                kind: error.kind(),
            }
        }
    }
}

impl From<StoreError> for StorageError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<StoreError> for RegistryError {
    fn from(error: StoreError) -> Self {
        Self::Storage(StorageError::Store(error))
    }
}

impl From<RegistryError> for Fault {
    fn from(error: RegistryError) -> Self {
        let message = error.to_string();
        match error {
            RegistryError::Conflict { .. } => Self::new(FaultClass::Conflict, FaultSource::Client, message),
            RegistryError::NotFound(_) => Self::not_found(message),
            RegistryError::Invalid(_) | RegistryError::Watch(_) => Self::invalid(message),
            RegistryError::TooMany { .. } => Self::new(FaultClass::TooLarge, FaultSource::Client, message),
            RegistryError::Busy | RegistryError::Down | RegistryError::NotRecorded(_) => {
                Self::unavailable(FaultSource::Mesh, message)
            }
            RegistryError::Unanswered => Self::new(FaultClass::Unavailable, FaultSource::Mesh, message),
            RegistryError::Artifact(error) => error.into(),
            RegistryError::Storage(_) => Self::internal(message),
        }
    }
}
