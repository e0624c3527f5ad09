//! The way back from a backup: every byte is checked against the sealed list before anything can be used.
//!
//! What comes is written into empty folders, file by file in the order of the list, hashed on the way and fsynced. Then the
//! journal is checked as an opening and an audit would: the snapshot's seal, its records, and the chain of hashes. The caller
//! puts the folders in place only after that.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    manifest::{Kind, Listed, MANIFEST, MAX_MANIFEST_BYTES, Manifest, SEAL, kind},
    tar::{self, BLOCK},
};
use crate::{
    DiskFiles, Files as _, RegistryConfig, SealKey, StorageError,
    audit::{hex, unhex, verify},
    draft::read,
    journal::{Place, snapshot},
};

const OWNER_ONLY: u32 = 0o600;
const CHUNK: usize = 256 << 10;
/// The most zeros after the end of an archive.
pub(super) const MAX_FILLING: u64 = 1 << 20;

/// Why a backup was not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackupError {
    /// The operating system refused.
    #[error("could not {doing}: {kind}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// Its answer.
        kind: io::ErrorKind,
    },
    /// It ends too early.
    #[error("the backup ends in the middle of {file}: it is not whole. Use another copy of it")]
    Cut {
        /// Which of its files.
        file: String,
    },
    /// A file is not what was backed up.
    #[error("{file} in the backup is damaged: {why}. Use another copy of it")]
    Damaged {
        /// Which of its files.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is whole, but not made with the secret that is in it.
    #[error(
        "the backup's list {MANIFEST} has a wrong signature: it is damaged, or somebody changed it or the secrets. Use another copy of it"
    )]
    Forged,
    /// What is in the journal's files does not fit together.
    #[error("the records in the backup cannot be used: {0}")]
    Records(#[from] StorageError),
}

fn failed(doing: &'static str) -> impl FnOnce(io::Error) -> BackupError {
    move |error| BackupError::Io {
        doing,
        kind: error.kind(),
    }
}

fn damaged(file: &str, why: impl Into<String>) -> BackupError {
    BackupError::Damaged {
        file: file.to_owned(),
        why: why.into(),
    }
}

/// A secret by its name.
pub type NamedSecret = (String, Vec<u8>);
/// The key that follows from a backup's secrets, if what is needed is among them.
pub type KeyOf<'a> = dyn Fn(&[NamedSecret]) -> Option<SealKey> + 'a;

/// What was in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacked {
    /// The last write.
    pub revision: u64,
    /// When it was made.
    pub created: Timestamp,
    /// How many files.
    pub files: usize,
    /// How many bytes these have.
    pub bytes: u64,
    /// The secrets, by name; written nowhere yet.
    pub secrets: Vec<NamedSecret>,
}

/// Reads a backup into the folders of a registry that is not there yet, and checks all of it. `key_of` answers the key that
/// follows from the secrets, if they are all there. On an error, what was written is of no use.
pub fn unpack(from: &mut dyn Read, into: &RegistryConfig, key_of: &KeyOf<'_>) -> Result<Unpacked, BackupError> {
    let mut archive = Archive { from };
    let (text, seal) = (archive.manifest()?, archive.seal()?);
    let manifest = Manifest::read(&text)?;
    let place = Place::new(Arc::new(DiskFiles), &into.journal_folder(), SealKey::default());
    for folder in [&*place.folder, &*into.artifacts] {
        DiskFiles.make_folder(folder).map_err(failed("make a folder"))?;
    }
    let (mut secrets, mut key) = (Vec::new(), None);
    for listed in &manifest.files {
        let path = match kind(&listed.name) {
            Some(Kind::Secret(name)) => {
                let bytes = archive.small(listed)?;
                secrets.push((name.to_owned(), bytes));
                continue;
            }
            Some(Kind::Journal(name)) => place.folder.join(name),
            Some(Kind::Artifact(name)) => into.artifacts.join(name),
            None => continue,
        };
        if key.is_none() {
            // From here on everything is known to be what was listed by who had the secrets.
            key = Some(checked_key(&secrets, &text, &seal, key_of)?);
        }
        archive.file(listed, &path)?;
    }
    archive.end()?;
    for folder in [&*place.folder, &*into.artifacts] {
        DiskFiles.sync_folder(folder).map_err(failed("fsync a folder"))?;
    }
    let key = key.ok_or(BackupError::Forged)?;
    check_records(&Place { key, ..place }, &manifest)?;
    Ok(Unpacked {
        revision: manifest.revision,
        created: manifest.created,
        files: manifest.files.len(),
        bytes: manifest.files.iter().map(|listed| listed.bytes).sum(),
        secrets,
    })
}

fn checked_key(secrets: &[NamedSecret], text: &[u8], seal: &[u8], key_of: &KeyOf<'_>) -> Result<SealKey, BackupError> {
    let key = key_of(secrets).ok_or_else(|| damaged(MANIFEST, "a secret that is needed is not in it"))?;
    if key.holds(text, seal) {
        Ok(key)
    } else {
        Err(BackupError::Forged)
    }
}

/// The journal as an opening and an audit would check it, and that every record can be read.
fn check_records(place: &Place, manifest: &Manifest) -> Result<(), BackupError> {
    let file = snapshot::name(manifest.revision);
    let (head, state) = snapshot::read(place, &file)?.map_err(|fault| fault.of(&file))?;
    if Some(head) != manifest.head() {
        return Err(StorageError::JournalReplaced {
            revision: manifest.revision,
        }
        .into());
    }
    for (key, stored) in &state.entries {
        read(key, stored)?;
    }
    verify(place, Some(head), None)?;
    Ok(())
}

/// The archive, read from beginning to end.
struct Archive<'a> {
    from: &'a mut dyn Read,
}

impl Archive<'_> {
    fn exactly(&mut self, buffer: &mut [u8], file: &str) -> Result<(), BackupError> {
        self.from.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Cut { file: file.to_owned() },
            _ => failed("read the backup")(error),
        })
    }

    /// The size of the file that comes now, which must have this name.
    fn header(&mut self, file: &str) -> Result<u64, BackupError> {
        let mut block = [0; BLOCK];
        self.exactly(&mut block, file)?;
        match tar::read(&block).map_err(|why| damaged(file, why))? {
            Some((name, bytes)) if name == file => Ok(bytes),
            Some((name, _)) => Err(damaged(file, format!("'{name}' is in its place"))),
            None => Err(BackupError::Cut { file: file.to_owned() }),
        }
    }

    fn padding(&mut self, bytes: u64, file: &str) -> Result<(), BackupError> {
        let mut padding = vec![1; tar::padding(bytes)];
        self.exactly(&mut padding, file)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(damaged(file, "what follows it is not empty"));
        }
        Ok(())
    }

    fn whole(&mut self, file: &str, most: u64) -> Result<Vec<u8>, BackupError> {
        let bytes = self.header(file)?;
        if bytes > most {
            return Err(damaged(file, format!("it has {bytes} bytes, at most {most} are read")));
        }
        let mut whole = vec![0; usize::try_from(bytes).unwrap_or(0)];
        self.exactly(&mut whole, file)?;
        self.padding(bytes, file)?;
        Ok(whole)
    }

    fn manifest(&mut self) -> Result<Vec<u8>, BackupError> {
        self.whole(MANIFEST, MAX_MANIFEST_BYTES)
    }

    fn seal(&mut self) -> Result<[u8; 32], BackupError> {
        let text = self.whole(SEAL, 64)?;
        let seal = std::str::from_utf8(&text).ok().and_then(unhex);
        seal.ok_or_else(|| damaged(SEAL, "it is no signature"))
    }

    fn listed_header(&mut self, listed: &Listed) -> Result<(), BackupError> {
        let bytes = self.header(&listed.name)?;
        if bytes != listed.bytes {
            let why = format!("it has {bytes} bytes, not {}", listed.bytes);
            return Err(damaged(&listed.name, why));
        }
        Ok(())
    }

    /// A file that is bounded by the list, in memory.
    fn small(&mut self, listed: &Listed) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        self.copy(listed, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn file(&mut self, listed: &Listed, path: &Path) -> Result<(), BackupError> {
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(OWNER_ONLY).open(path);
        let mut file: File = made.map_err(failed("make a file"))?;
        self.copy(listed, &mut |piece| file.write_all(piece))?;
        file.sync_all().map_err(failed("fsync a file"))
    }

    fn copy(&mut self, listed: &Listed, to: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), BackupError> {
        self.listed_header(listed)?;
        let (mut left, mut hasher) = (listed.bytes, Sha256::new());
        let mut buffer = vec![0; CHUNK];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            let piece = buffer.get_mut(..most).unwrap_or_default();
            self.exactly(piece, &listed.name)?;
            hasher.update(&*piece);
            to(piece).map_err(failed("write a file"))?;
            left -= piece.len() as u64;
        }
        self.padding(listed.bytes, &listed.name)?;
        if hex(&hasher.finalize()) != listed.sha256 {
            return Err(damaged(
                &listed.name,
                "its SHA-256 is not the one that manifest.json lists",
            ));
        }
        Ok(())
    }

    /// Nothing but zeros may follow, and at least as many as end an archive.
    fn end(&mut self) -> Result<(), BackupError> {
        const FILE: &str = "the archive's end";
        let mut end = [1; tar::END];
        self.exactly(&mut end, FILE)?;
        let mut rest = end.to_vec();
        // tar fills its last record up; more than that is not the end of an archive.
        let mut more = (&mut *self.from).take(MAX_FILLING + 1);
        more.read_to_end(&mut rest).map_err(failed("read the backup"))?;
        if rest.iter().any(|byte| *byte != 0) || more.limit() == 0 {
            return Err(damaged(FILE, "something follows that is not in the list"));
        }
        Ok(())
    }
}
