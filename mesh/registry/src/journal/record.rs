//! One write as the journal holds it, and the chain of hashes over all.
//!
//! A line has two parts: what the audit log tells of the write, and the records that it left. The chain is over the first
//! part, which names the second by digests; so whoever has the first parts alone, which hold no secret, can check the chain.
//! Lines of the first version have one part, which the chain is over; they are still read.

use jiff::Timestamp;
use mesh_policies::{PublicKey, Signature};
use mesh_resources::ResourceKey;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::Head;
use crate::{Author, RecordError, StorageError, audit::hex};

/// The version of a line that is written.
pub(crate) const LINE_VERSION: u32 = 2;
/// The version whose lines have one part.
pub(crate) const FIRST_LINE_VERSION: u32 = 1;
/// Stands between the parts: JSON writes it as an escape within a text.
const BETWEEN: u8 = b'\t';

/// One write.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The version of this shape.
    pub(crate) v: u32,
    pub(crate) revision: u64,
    pub(crate) time: Timestamp,
    pub(crate) by: Author,
    pub(crate) changes: Vec<RecordedChange>,
    /// What happened that changed no resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<String>,
    /// Everything before it, signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) head: Option<SignedHead>,
    /// The part that the chain is over, as it was read; empty in what is about to be written.
    #[serde(skip)]
    pub(crate) told: String,
}

/// A signature of everything up to the write before the one that it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedHead {
    /// Whose signature it is.
    pub key: PublicKey,
    /// The signature of [`signed_text`].
    pub signature: Signature,
}

/// One change: the digests of the record before and after, and the whole of the latter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordedChange {
    pub(crate) key: ResourceKey,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<Box<RawValue>>,
}

impl Record {
    pub(crate) fn new(revision: u64, time: Timestamp, by: Author, changes: Vec<RecordedChange>) -> Self {
        Self {
            v: LINE_VERSION,
            revision,
            time,
            by,
            changes,
            event: None,
            head: None,
            told: String::new(),
        }
    }

    pub(crate) fn with_event(self, event: Option<String>) -> Self {
        Self { event, ..self }
    }

    pub(crate) fn with_head(self, head: Option<SignedHead>) -> Self {
        Self { head, ..self }
    }

    /// The same without the records, and these, in the order of the changes.
    fn parted(&self) -> (Self, Vec<Option<&RawValue>>) {
        let told = |change: &RecordedChange| RecordedChange {
            key: change.key.clone(),
            before: change.before.clone(),
            after: change.after.clone(),
            record: None,
        };
        let record = Self {
            v: self.v,
            revision: self.revision,
            time: self.time,
            by: self.by.clone(),
            changes: self.changes.iter().map(told).collect(),
            event: self.event.clone(),
            head: self.head.clone(),
            told: String::new(),
        };
        let records = self.changes.iter().map(|change| change.record.as_deref());
        (record, records.collect())
    }
}

/// SHA-256 of a record, in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// The hash of a write and all before it.
pub(crate) fn chain(before: &[u8; 32], told: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(before);
    hasher.update(told);
    hasher.finalize().into()
}

/// What a signature of a head is of: everything up to a revision, and when it was signed.
pub(crate) fn signed_text(head: Head, time: Timestamp) -> String {
    format!(
        "mesh audit head, version 1\nrevision {}\nhash {}\ntime {time}\n",
        head.revision,
        hex(&head.hash)
    )
}

/// The lines of writes that follow the head, and the head after each.
pub(super) fn lines(head: Head, records: &[Record]) -> Result<(Vec<Head>, Vec<u8>), StorageError> {
    let (mut heads, mut payload) = (Vec::with_capacity(records.len()), Vec::new());
    let mut hash = head.hash;
    for record in records {
        let failed = |error: serde_json::Error| StorageError::Record {
            key: format!("revision {}", record.revision),
            error: RecordError::Unreadable(error.to_string()),
        };
        let (told, kept) = record.parted();
        let told = serde_json::to_vec(&told).map_err(failed)?;
        hash = chain(&hash, &told);
        heads.push(Head {
            revision: record.revision,
            hash,
        });
        payload.extend_from_slice(hex(&hash).as_bytes());
        payload.push(b' ');
        payload.extend_from_slice(&told);
        payload.push(BETWEEN);
        serde_json::to_writer(&mut payload, &kept).map_err(failed)?;
        payload.push(b'\n');
    }
    Ok((heads, payload))
}

/// Reads a line that follows the head, and checks that it does.
pub(super) fn read_line(head: Head, line: &[u8]) -> Result<(Head, Record), String> {
    let next = head.revision + 1;
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    let (Some(written), Some(json)) = (parts.next(), parts.next()) else {
        return Err(format!("the line of revision {next} is no write"));
    };
    let mut parts = json.splitn(2, |byte| *byte == BETWEEN);
    let (told, kept) = (parts.next().unwrap_or_default(), parts.next());
    let hash = chain(&head.hash, told);
    if hex(&hash).as_bytes() != written {
        return Err(format!(
            "the hash of revision {next} does not follow from what is written: it was changed"
        ));
    }
    let mut record = read_told(told)?;
    match (record.v, kept) {
        (FIRST_LINE_VERSION, None) => record.told = retold(&record)?,
        (LINE_VERSION, Some(kept)) => {
            add_records(&mut record, kept)?;
            record.told = String::from_utf8_lossy(told).into_owned();
        }
        _ => return Err(format!("the line of revision {next} lacks a part, or has one too many")),
    }
    if record.revision != next {
        return Err(format!("revision {} follows {}", record.revision, head.revision));
    }
    Ok((Head { revision: next, hash }, record))
}

/// Reads what the chain is over.
pub(crate) fn read_told(told: &[u8]) -> Result<Record, String> {
    #[derive(Deserialize)]
    struct Probe {
        v: u32,
    }
    let unreadable = |error: serde_json::Error| format!("a write cannot be read: {error}");
    let Probe { v } = serde_json::from_slice(told).map_err(unreadable)?;
    if !(FIRST_LINE_VERSION..=LINE_VERSION).contains(&v) {
        return Err(format!(
            "a write has version {v}, this mesh reads up to version {LINE_VERSION}: use the mesh that wrote it, or a newer one"
        ));
    }
    serde_json::from_slice(told).map_err(unreadable)
}

/// A write of the first version as it is told: without what it holds.
fn retold(record: &Record) -> Result<String, String> {
    serde_json::to_string(&record.parted().0).map_err(|error| error.to_string())
}

/// Puts the records where they belong, each checked against its digest.
fn add_records(record: &mut Record, kept: &[u8]) -> Result<(), String> {
    let kept: Vec<Option<Box<RawValue>>> =
        serde_json::from_slice(kept).map_err(|error| format!("a write's records cannot be read: {error}"))?;
    let revision = record.revision;
    let changed = || format!("a record of revision {revision} is not the one that was written: it was changed");
    if kept.len() != record.changes.len() {
        return Err(changed());
    }
    for (change, kept) in record.changes.iter_mut().zip(kept) {
        let found = kept.as_ref().map(|kept| digest(kept.get().as_bytes()));
        if change.record.is_some() || found != change.after {
            return Err(changed());
        }
        change.record = kept;
    }
    Ok(())
}
