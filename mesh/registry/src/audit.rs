//! The journal, read as the audit log: who changed what, when, and from what to what.

use jiff::Timestamp;
use mesh_resources::ResourceKey;
use serde::{Deserialize, Serialize};

use crate::{Author, journal::Record};

/// One write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The revision that it became.
    pub revision: u64,
    /// When.
    pub time: Timestamp,
    /// By whom.
    pub by: Author,
    /// What.
    pub changes: Vec<AuditChange>,
    /// The hash of this entry and all before it, in hexadecimal.
    pub hash: String,
}

/// One change of a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditChange {
    /// Which resource.
    pub key: ResourceKey,
    /// SHA-256 of its record before; none: it was not there.
    pub before: Option<String>,
    /// SHA-256 of its record after; none: it was taken away.
    pub after: Option<String>,
}

/// What a check of the whole audit log found: it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSummary {
    /// How many writes.
    pub entries: u64,
    /// The last revision.
    pub revision: u64,
    /// The hash of all, in hexadecimal. Kept elsewhere, it proves later that nothing before it was changed.
    pub head: String,
    /// In how many segments.
    pub segments: usize,
}

impl AuditEntry {
    pub(crate) fn new(record: Record, hash: &[u8]) -> Self {
        let change = |change: crate::journal::RecordedChange| AuditChange {
            key: change.key,
            before: change.before,
            after: change.after,
        };
        Self {
            revision: record.revision,
            time: record.time,
            by: record.by,
            changes: record.changes.into_iter().map(change).collect(),
            hash: hex(hash),
        }
    }
}

/// Lowercase hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}
