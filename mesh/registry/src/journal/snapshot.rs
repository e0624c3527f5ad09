//! The snapshot: everything that is there after one write, so that an opening need not read what led to it.
//!
//! Owns the file and how one is found. A line of JSON says the revision, the hash of the journal up to it and how many
//! records follow; then one line per record; the last line is a seal of all before, and a CRC-32 of that and the seal. A
//! snapshot is written under another name, fsynced and only then renamed, so that one that has its name is whole.
//!
//! Invariants: one that does not check is never used: a wrong checksum is damage, which the segments that it stands for can
//! make good; a wrong seal under a right checksum is a forgery, which nothing makes good.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Head, Place, frame};
use crate::{
    RECORD_VERSION, State, StorageError, Stored,
    audit::{hex, unhex},
    record::check_version,
    seal::{SEAL_BYTES, SealKey},
};

const SUFFIX: &str = ".snapshot";
/// What a snapshot is called until it is whole.
const UNFINISHED: &str = ".snapshot.new";
/// What one is called that did not check and that segments stood in for.
const DAMAGED: &str = ".snapshot.damaged";
/// The last line: the seal, a space, the CRC-32, the line's end.
const END_BYTES: usize = SEAL_CHARS + 1 + 8 + 1;
const SEAL_CHARS: usize = 2 * SEAL_BYTES;
/// How much is written at once.
const WRITE_BYTES: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// The version of this shape.
    v: u32,
    revision: u64,
    hash: String,
    records: usize,
}

#[derive(Serialize)]
struct WrittenEntry<'a> {
    key: &'a str,
    revision: u64,
    record: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadEntry {
    key: String,
    revision: u64,
    record: Box<RawValue>,
}

/// What is wrong with a snapshot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its bytes are not what was written.
    Damaged(String),
    /// Somebody without the key made it.
    Forged,
}

impl Fault {
    /// What is said of it where nothing can stand in for it.
    pub(crate) fn of(self, file: &str) -> StorageError {
        let file = file.to_owned();
        match self {
            Self::Damaged(why) => StorageError::SnapshotDamaged { file, why },
            Self::Forged => StorageError::SnapshotForged { file },
        }
    }
}

/// The name of the snapshot up to a revision.
pub(crate) fn name(revision: u64) -> String {
    format!("{revision:020}{SUFFIX}")
}

/// The revision of the snapshot with this name, if it is one's.
pub(crate) fn revision_of(file: &str) -> Option<u64> {
    let revision = file.strip_suffix(SUFFIX)?.parse().ok()?;
    (name(revision) == file).then_some(revision)
}

/// The bytes of a snapshot of what is there after the head.
pub(crate) fn encode(head: Head, state: &State, key: &SealKey) -> Result<Vec<u8>, StorageError> {
    let unreadable = |name: &str| {
        let key = name.to_owned();
        move |error: serde_json::Error| StorageError::Record {
            key,
            error: crate::RecordError::Unreadable(error.to_string()),
        }
    };
    let header = Header {
        v: RECORD_VERSION,
        revision: head.revision,
        hash: hex(&head.hash),
        records: state.entries.len(),
    };
    let mut bytes = serde_json::to_vec(&header).map_err(unreadable("snapshot"))?;
    bytes.push(b'\n');
    for (name, stored) in &state.entries {
        let entry = WrittenEntry {
            key: name,
            revision: stored.revision,
            record: serde_json::from_slice(&stored.value).map_err(unreadable(name))?,
        };
        serde_json::to_writer(&mut bytes, &entry).map_err(unreadable(name))?;
        bytes.push(b'\n');
    }
    let seal = hex(&key.seal(&bytes));
    bytes.extend_from_slice(seal.as_bytes());
    let end = format!(" {:08x}\n", crc32fast::hash(&bytes));
    bytes.extend_from_slice(end.as_bytes());
    Ok(bytes)
}

fn damaged(why: impl Into<String>) -> Fault {
    Fault::Damaged(why.into())
}

/// Reads a snapshot after its checksum and its seal held.
pub(crate) fn decode(bytes: &[u8], key: &SealKey) -> Result<(Head, State), Fault> {
    let at = bytes
        .len()
        .checked_sub(END_BYTES)
        .ok_or_else(|| damaged("it is cut off"))?;
    let (body, end) = bytes.split_at(at);
    let (signed, crc) = bytes.split_at(at + SEAL_CHARS);
    if format!(" {:08x}\n", crc32fast::hash(signed)).as_bytes() != crc {
        return Err(damaged("its checksum is wrong, or it is cut off"));
    }
    let seal = std::str::from_utf8(end).ok().and_then(|end| end.get(..SEAL_CHARS));
    let seal = seal.and_then(unhex).ok_or_else(|| damaged("its seal cannot be read"))?;
    if !key.holds(body, &seal) {
        return Err(Fault::Forged);
    }
    let mut lines = body.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    check_version(first).map_err(|error| damaged(error.to_string()))?;
    let header: Header = serde_json::from_slice(first).map_err(|error| damaged(error.to_string()))?;
    let hash = unhex(&header.hash).ok_or_else(|| damaged("its hash cannot be read"))?;
    let mut entries = BTreeMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let entry: ReadEntry = serde_json::from_slice(line).map_err(|error| damaged(error.to_string()))?;
        let value = entry.record.get().as_bytes().to_vec();
        let revision = entry.revision;
        entries.insert(entry.key, Stored { revision, value });
    }
    if entries.len() != header.records {
        return Err(damaged(format!(
            "it has {} records of {}",
            entries.len(),
            header.records
        )));
    }
    let head = Head {
        revision: header.revision,
        hash,
    };
    let state = State {
        revision: head.revision,
        mark: if head == Head::default() {
            Vec::new()
        } else {
            hash.to_vec()
        },
        entries,
    };
    Ok((head, state))
}

/// Reads the snapshot with this name; its name and what it says must agree.
pub(crate) fn read(place: &Place, file: &str) -> Result<Result<(Head, State), Fault>, StorageError> {
    let bytes = place.files.read(&place.folder.join(file));
    let bytes = bytes.map_err(StorageError::io("read a snapshot of the journal"))?;
    Ok(decode(&bytes, &place.key).and_then(|(head, state)| {
        if name(head.revision) == file {
            return Ok((head, state));
        }
        Err(damaged(format!("it is the snapshot of revision {}", head.revision)))
    }))
}

/// Writes a snapshot; durable on return.
pub(crate) fn write(place: &Place, revision: u64, bytes: &[u8]) -> Result<(), StorageError> {
    let whole = place.folder.join(name(revision));
    let unfinished = whole.with_extension("snapshot.new");
    let files = &*place.files;
    let written = remove_if_there(place, &unfinished).and_then(|()| {
        let mut file = files.create(&unfinished)?;
        for part in bytes.chunks(WRITE_BYTES) {
            file.write(part)?;
        }
        file.sync()?;
        files.rename(&unfinished, &whole)?;
        files.sync_folder(&place.folder)
    });
    written.map_err(StorageError::io("write a snapshot of the journal"))
}

fn remove_if_there(place: &Place, path: &std::path::Path) -> std::io::Result<()> {
    match place.files.remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where an opening begins.
#[derive(Debug, Default)]
pub(crate) struct Base {
    /// The write that it begins after; revision 0: at the beginning of everything.
    pub(crate) head: Head,
    /// What is there after it.
    pub(crate) state: State,
    /// Newer snapshots that did not check.
    pub(super) damaged: Vec<String>,
}

/// The newest snapshot that checks. Where none does, or an older one must do, the segments after it must be there.
pub(crate) fn newest(place: &Place) -> Result<Base, StorageError> {
    let names = place.names()?;
    let mut snapshots: Vec<u64> = names.iter().filter_map(|name| revision_of(name)).collect();
    snapshots.sort_unstable_by(|a, b| b.cmp(a));
    let mut base = Base::default();
    let mut first_fault = None;
    for revision in snapshots {
        let file = name(revision);
        match read(place, &file)? {
            Ok((head, state)) => {
                (base.head, base.state) = (head, state);
                break;
            }
            Err(Fault::Forged) => return Err(Fault::Forged.of(&file)),
            Err(fault @ Fault::Damaged(_)) => {
                base.damaged.push(file.clone());
                first_fault.get_or_insert_with(|| fault.of(&file));
            }
        }
    }
    let Some(fault) = first_fault else {
        return Ok(base);
    };
    let next = base.head.revision + 1;
    let follows = names
        .iter()
        .filter_map(|name| frame::first_of(name))
        .any(|first| first <= next);
    if !follows {
        return Err(fault);
    }
    tracing::warn!(
        %fault,
        from = next,
        "registry: the newest snapshot is damaged: reading the segments that it stands for instead"
    );
    Ok(base)
}

/// After an opening: what a compaction left half done is taken away, and damaged snapshots are put aside; the last ones are
/// kept, for whoever wants to know why.
pub(super) fn tidy(place: &Place, base: &Base) -> Result<(), StorageError> {
    let failed = || StorageError::io("tidy the journal's folder");
    let mut changed = false;
    for file in place.names()? {
        let stale = file.ends_with(DAMAGED) && !base.damaged.is_empty();
        if file.ends_with(UNFINISHED) || stale {
            place.files.remove(&place.folder.join(file)).map_err(failed())?;
            changed = true;
        }
    }
    for file in &base.damaged {
        let path = place.folder.join(file);
        let aside = path.with_extension("snapshot.damaged");
        place.files.rename(&path, &aside).map_err(failed())?;
        changed = true;
    }
    if changed { place.sync() } else { Ok(()) }
}
