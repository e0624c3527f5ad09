//! The journal, read as the audit log: who changed what, when, and from what to what.

use std::{collections::BTreeMap, ops::ControlFlow};

use jiff::Timestamp;
use mesh_resources::ResourceKey;
use serde::{Deserialize, Serialize};

use crate::{
    Author, MAX_PAGE, RegistryError, RegistryHandle, StorageError,
    journal::{Head, Place, Record, Start, begins, snapshot, walk},
};

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
    /// What happened that changed no resource, such as `backup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
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

/// A part of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// The writes, the oldest first.
    pub entries: Vec<AuditEntry>,
    /// The first revision that the log still holds; 1 until the first compaction takes segments away.
    pub begins: u64,
}

/// What a check of the whole audit log found: it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSummary {
    /// How many writes.
    pub entries: u64,
    /// The first revision that the log still holds.
    pub begins: u64,
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
            event: record.event,
            hash: hex(hash),
        }
    }
}

impl RegistryHandle {
    /// The writes after a revision, the oldest first; at most `limit` and at most [`MAX_PAGE`]. Reads from disk.
    pub fn audit(&self, after: u64, limit: usize) -> Result<AuditPage, RegistryError> {
        let place = &self.inner.place;
        let _hold = place.holds.hold();
        let (mut entries, limit) = (Vec::new(), limit.clamp(1, MAX_PAGE));
        let begins = begins(place)?;
        // What is being appended right now is not part of the log yet.
        let last = self.inner.head.lock().revision;
        if after >= last {
            return Ok(AuditPage { entries, begins });
        }
        let start = Start::At(after + 1);
        walk(&*place.files, &place.folder, start, &mut |record, head| {
            if record.revision > after && record.revision <= last {
                entries.push(AuditEntry::new(record, &head.hash));
            }
            if head.revision >= last || entries.len() == limit {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(AuditPage { entries, begins })
    }

    /// Reads the whole audit log and the snapshots, and checks that each entry is what was written and follows from the one
    /// before, and that each snapshot is signed and meets the log. Reads from disk.
    pub fn verify_audit(&self) -> Result<AuditSummary, RegistryError> {
        let _hold = self.inner.place.holds.hold();
        let head = *self.inner.head.lock();
        Ok(verify(&self.inner.place, head)?)
    }
}

/// Checks the journal in a folder up to the head that it must have.
pub(crate) fn verify(place: &Place, head: Head) -> Result<AuditSummary, StorageError> {
    let mut known = BTreeMap::new();
    for file in place
        .names()?
        .iter()
        .filter(|file| snapshot::revision_of(file).is_some())
    {
        let (head, _) = snapshot::read(place, file)?.map_err(|fault| fault.of(file))?;
        known.insert(head.revision, head.hash);
    }
    let newest = known.last_key_value().map(|(revision, hash)| Head {
        revision: *revision,
        hash: *hash,
    });
    let (mut entries, mut replaced) = (0, None);
    let differs = |next: Head| known.get(&next.revision).is_some_and(|hash| *hash != next.hash);
    let walked = walk(&*place.files, &place.folder, Start::At(1), &mut |_, next| {
        entries += 1;
        replaced = differs(next).then_some(next.revision);
        if replaced.is_none() && next.revision < head.revision {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    // What the first segment follows may be what a snapshot says, too.
    let base = (walked.segments > 0 && differs(walked.base)).then_some(walked.base.revision);
    if let Some(revision) = replaced.or(base) {
        return Err(StorageError::JournalReplaced { revision });
    }
    let found = if walked.segments == 0 {
        newest.unwrap_or_default()
    } else {
        walked.head
    };
    if found.revision < head.revision {
        return Err(StorageError::JournalBehind {
            journal: found.revision,
            index: head.revision,
        });
    }
    if found != head {
        return Err(StorageError::JournalReplaced {
            revision: head.revision,
        });
    }
    Ok(AuditSummary {
        entries,
        begins: begins(place)?,
        revision: found.revision,
        head: hex(&found.hash),
        segments: walked.segments,
    })
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

/// The 32 bytes that 64 lowercase hexadecimal digits say.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (to, [high, low]) in bytes.iter_mut().zip(pairs) {
        *to = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}
