//! One write as the journal holds it, and the chain of hashes over all.

use jiff::Timestamp;
use mesh_resources::ResourceKey;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::Head;
use crate::{Author, RECORD_VERSION, RecordError, StorageError, audit::hex, record::check_version};

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
}

/// One change: the digests of the record before and after, and the whole of the latter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RecordedChange {
    pub(crate) key: ResourceKey,
    pub(crate) before: Option<String>,
    pub(crate) after: Option<String>,
    pub(crate) record: Option<Box<RawValue>>,
}

impl Record {
    pub(crate) fn new(revision: u64, time: Timestamp, by: Author, changes: Vec<RecordedChange>) -> Self {
        Self {
            v: RECORD_VERSION,
            revision,
            time,
            by,
            changes,
            event: None,
        }
    }

    pub(crate) fn with_event(self, event: Option<String>) -> Self {
        Self { event, ..self }
    }
}

/// SHA-256 of a record, in hexadecimal.
pub(crate) fn digest(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn chain(before: &[u8; 32], record: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(before);
    hasher.update(record);
    hasher.finalize().into()
}

/// The lines of writes that follow the head, and the head after each.
pub(super) fn lines(head: Head, records: &[Record]) -> Result<(Vec<Head>, Vec<u8>), StorageError> {
    let (mut heads, mut payload) = (Vec::with_capacity(records.len()), Vec::new());
    let mut hash = head.hash;
    for record in records {
        let line = serde_json::to_vec(record).map_err(|error| StorageError::Record {
            key: format!("revision {}", record.revision),
            error: RecordError::Unreadable(error.to_string()),
        })?;
        hash = chain(&hash, &line);
        heads.push(Head {
            revision: record.revision,
            hash,
        });
        payload.extend_from_slice(hex(&hash).as_bytes());
        payload.push(b' ');
        payload.extend_from_slice(&line);
        payload.push(b'\n');
    }
    Ok((heads, payload))
}

/// Reads a line that follows the head, and checks that it does.
pub(super) fn read_line(head: Head, line: &[u8]) -> Result<(Head, Record), String> {
    let mut parts = line.splitn(2, |byte| *byte == b' ');
    let (Some(written), Some(json)) = (parts.next(), parts.next()) else {
        return Err("a line is no write".to_owned());
    };
    let hash = chain(&head.hash, json);
    if hex(&hash).as_bytes() != written {
        return Err(format!(
            "the hash of revision {} does not follow from what is written: it was changed",
            head.revision + 1
        ));
    }
    check_version(json).map_err(|error| error.to_string())?;
    let record: Record = serde_json::from_slice(json).map_err(|error| format!("a write cannot be read: {error}"))?;
    if record.revision != head.revision + 1 {
        return Err(format!("revision {} follows {}", record.revision, head.revision));
    }
    let revision = record.revision;
    Ok((Head { revision, hash }, record))
}
