//! What a backup says of itself, first of all: which files come, how long they are and their SHA-256.

use std::collections::BTreeSet;

use jiff::Timestamp;
use mesh_resources::ArtifactRef;
use serde::{Deserialize, Serialize};

use super::BackupError;
use crate::{
    RECORD_VERSION,
    audit::{hex, unhex},
    journal::{Head, is_segment, snapshot},
};

/// The first file.
pub(super) const MANIFEST: &str = "manifest.json";
/// The second: the seal of the first, in hexadecimal.
pub(super) const SEAL: &str = "manifest.seal";
/// The largest manifest that is read.
pub(super) const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// The largest secret.
pub(super) const MAX_SECRET_BYTES: u64 = 4 << 10;

/// The list of what follows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// The version of this shape.
    pub(super) v: u32,
    pub(super) created: Timestamp,
    /// The last write in it.
    pub(super) revision: u64,
    hash: String,
    pub(super) files: Vec<Listed>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// What a file of a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// What the registry's owner needs, by name.
    Secret(&'a str),
    /// A file of the journal's folder.
    Journal(&'a str),
    /// A model's file, by its SHA-256.
    Artifact(&'a str),
}

impl Kind<'_> {
    pub(super) fn file(self) -> String {
        match self {
            Self::Secret(name) => format!("secrets/{name}"),
            Self::Journal(name) => format!("journal/{name}"),
            Self::Artifact(name) => format!("artifacts/{name}"),
        }
    }

    /// Secrets first: the key comes from them.
    fn rank(self) -> u8 {
        match self {
            Self::Secret(_) => 0,
            Self::Journal(_) => 1,
            Self::Artifact(_) => 2,
        }
    }
}

/// What the file with this name is. Only what a backup writes is one: no name leads out of the folder.
pub(super) fn kind(name: &str) -> Option<Kind<'_>> {
    let (folder, file) = name.split_once('/')?;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match folder {
        "secrets" if !file.is_empty() && file.len() <= 64 && file.bytes().all(plain) => Some(Kind::Secret(file)),
        "journal" if is_segment(file) || snapshot::revision_of(file).is_some() => Some(Kind::Journal(file)),
        "artifacts" if unhex(file).is_some() => Some(Kind::Artifact(file)),
        _ => None,
    }
}

impl Manifest {
    pub(super) fn new(created: Timestamp, head: Head, files: Vec<Listed>) -> Self {
        Self {
            v: RECORD_VERSION,
            created,
            revision: head.revision,
            hash: hex(&head.hash),
            files,
        }
    }

    /// The last write in it.
    pub(super) fn head(&self) -> Option<Head> {
        Some(Head {
            revision: self.revision,
            hash: unhex(&self.hash)?,
        })
    }

    /// Reads a manifest whose list makes sense; that it is whole is known only once its seal is checked.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, BackupError> {
        let wrong = |why: String| BackupError::Damaged {
            file: MANIFEST.to_owned(),
            why,
        };
        crate::record::check_version(bytes).map_err(|error| wrong(error.to_string()))?;
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))?;
        let (mut names, mut rank) = (BTreeSet::new(), 0);
        for listed in &manifest.files {
            let kind = kind(&listed.name).filter(|kind| kind.rank() >= rank && names.insert(&listed.name));
            let kind = kind.ok_or_else(|| wrong(format!("'{}' has no place there", listed.name)))?;
            rank = kind.rank();
            let named = match kind {
                Kind::Artifact(sha256) => sha256 == listed.sha256,
                Kind::Secret(_) => listed.bytes <= MAX_SECRET_BYTES,
                Kind::Journal(_) => true,
            };
            let artifact = ArtifactRef {
                sha256: listed.sha256.clone(),
                bytes: listed.bytes,
            };
            if !named || !artifact.is_well_formed() {
                return Err(wrong(format!("what it says of '{}' cannot be", listed.name)));
            }
        }
        let snapshot = Kind::Journal(&snapshot::name(manifest.revision)).file();
        if manifest.head().is_none() || !names.contains(&snapshot) {
            return Err(wrong(format!("it has no snapshot of revision {}", manifest.revision)));
        }
        Ok(manifest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_backup_writes_are_taken() {
        assert_eq!(kind("secrets/pepper"), Some(Kind::Secret("pepper")));
        let digest = "ab".repeat(32);
        assert_eq!(kind(&format!("artifacts/{digest}")), Some(Kind::Artifact(&digest)));
        let segment = "00000000000000000001.journal";
        assert_eq!(kind(&format!("journal/{segment}")), Some(Kind::Journal(segment)));
        for name in [
            "pepper",
            "/etc/passwd",
            "../x",
            "secrets/..",
            "secrets/../pepper",
            "secrets/",
            "journal/1.journal",
            "journal/../x",
            "artifacts/abc",
            "artifacts/../../x",
            "index/db",
        ] {
            assert_eq!(kind(name), None, "{name}");
        }
    }

    #[test]
    fn a_list_out_of_order_twice_or_without_a_snapshot_is_refused() {
        let listed = |name: &str| Listed {
            name: name.to_owned(),
            bytes: 1,
            sha256: "ab".repeat(32),
        };
        let snapshot = format!("journal/{}", snapshot::name(7));
        let head = Head {
            revision: 7,
            hash: [1; 32],
        };
        let read = |names: &[&str]| {
            let files = names.iter().map(|name| listed(name)).collect();
            let bytes = serde_json::to_vec(&Manifest::new(Timestamp::UNIX_EPOCH, head, files)).unwrap();
            Manifest::read(&bytes)
        };
        let artifact = format!("artifacts/{}", "ab".repeat(32));
        assert_eq!(
            read(&["secrets/pepper", &snapshot, &artifact]).unwrap().head(),
            Some(head)
        );
        for names in [
            vec![],
            vec!["secrets/pepper"],
            vec![&*snapshot, "secrets/pepper"],
            vec![&*snapshot, &*snapshot],
            vec![&*snapshot, "artifacts/../x"],
        ] {
            assert!(matches!(read(&names), Err(BackupError::Damaged { .. })), "{names:?}");
        }
        for (bytes, passes) in [(MAX_SECRET_BYTES, true), (MAX_SECRET_BYTES + 1, false)] {
            let secret = Listed {
                bytes,
                ..listed("secrets/pepper")
            };
            let list = Manifest::new(Timestamp::UNIX_EPOCH, head, vec![secret, listed(&snapshot)]);
            let bytes = serde_json::to_vec(&list).unwrap();
            assert_eq!(Manifest::read(&bytes).is_ok(), passes);
        }
        let other = format!("artifacts/{}", "cd".repeat(32));
        assert!(read(&[&snapshot, &other]).is_err());
    }
}
