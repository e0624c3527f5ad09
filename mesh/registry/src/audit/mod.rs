//! The journal, read as the audit log: who changed what, when, from where, and from what to what.
//!
//! Owns the entries as they are shown, the check of the whole log, and, in `export`, its form for others to check. Writes
//! nothing: a signed head is an entry that the writer makes when it is told to ([`RegistryHandle::sign_audit`]).
//!
//! Invariants: nothing that is told here holds a record, only its digest; what does not check is named by the first revision
//! that does not.

mod export;
mod heads;

use std::{collections::BTreeMap, ops::ControlFlow};

use jiff::Timestamp;
use mesh_policies::PublicKey;
use mesh_resources::ResourceKey;
use serde::{Deserialize, Serialize};

pub use self::export::{
    AuditExport, ExportEntry, ExportError, ExportHeader, ExportItem, ExportPart, ExportSummary, MAX_EXPORT_BYTES,
    MAX_EXPORT_LINE, verify_export,
};
use self::heads::Heads;
use crate::{
    Author, MAX_PAGE, RegistryConfig, RegistryError, RegistryHandle, SignedHead, StorageError,
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
    /// A signature of everything before it, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<SignedHead>,
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
    /// How many signed heads are among the entries.
    pub heads: u64,
    /// The last revision that a signature is of; none: nothing is signed yet.
    pub signed: Option<u64>,
    /// Whose signatures the log must hold, where that is known.
    pub key: Option<PublicKey>,
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
            head: record.head,
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
    /// before, that each snapshot is signed and meets the log, and that the signed heads hold. Reads from disk.
    pub fn verify_audit(&self) -> Result<AuditSummary, RegistryError> {
        let _hold = self.inner.place.holds.hold();
        let head = *self.inner.head.lock();
        Ok(verify(&self.inner.place, Some(head), self.audit_key())?)
    }

    /// Whose signatures the log's heads have.
    pub fn audit_key(&self) -> Option<PublicKey> {
        self.inner.signer.as_ref().map(mesh_policies::SigningKey::public)
    }

    /// Signs everything that is in the log by now, as an entry of the log; nothing happens where that was done last, or where
    /// the registry has no key.
    pub async fn sign_audit(&self, by: Author) -> Result<(), RegistryError> {
        self.seal(by).await
    }
}

/// Checks the audit log of a registry that need not be open, and changes nothing. Without the index it cannot be known
/// whether the log's end was cut off: its last signed head, kept elsewhere, tells.
pub fn verify_audit_folder(config: &RegistryConfig, key: Option<PublicKey>) -> Result<AuditSummary, RegistryError> {
    Ok(verify(&config.place(), None, key)?)
}

/// Checks the journal in a folder, up to the head that it must have if one is given.
pub(crate) fn verify(place: &Place, head: Option<Head>, key: Option<PublicKey>) -> Result<AuditSummary, StorageError> {
    let known = snapshots(place)?;
    let (mut entries, mut wrong, mut heads) = (0, None, Heads::new(key));
    let differs = |next: Head| known.get(&next.revision).is_some_and(|hash| *hash != next.hash);
    let walked = walk(&*place.files, &place.folder, Start::At(1), &mut |record, next| {
        entries += 1;
        let forged = heads.take(&record, next).err().map(|why| StorageError::HeadForged {
            revision: next.revision,
            why,
        });
        let replaced = differs(next).then_some(StorageError::JournalReplaced {
            revision: next.revision,
        });
        wrong = forged.or(replaced);
        if wrong.is_none() && head.is_none_or(|head| next.revision < head.revision) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    })?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    // What the first segment follows may be what a snapshot says, too.
    if walked.segments > 0 && differs(walked.base) {
        return Err(StorageError::JournalReplaced {
            revision: walked.base.revision,
        });
    }
    let newest = known.last_key_value().map(|(revision, hash)| Head {
        revision: *revision,
        hash: *hash,
    });
    let found = if walked.segments == 0 {
        newest.unwrap_or_default()
    } else {
        walked.head
    };
    meets(found, head.or(newest.filter(|newest| newest.revision > found.revision)))?;
    Ok(AuditSummary {
        entries,
        begins: begins(place)?,
        revision: found.revision,
        head: hex(&found.hash),
        segments: walked.segments,
        heads: heads.count,
        signed: heads.signed,
        key,
    })
}

/// The hashes that the signed snapshots say, by revision.
fn snapshots(place: &Place) -> Result<BTreeMap<u64, [u8; 32]>, StorageError> {
    let names = place.names()?;
    let files = names.iter().filter(|file| snapshot::revision_of(file).is_some());
    let mut known = BTreeMap::new();
    for file in files {
        let (head, _) = snapshot::read(place, file)?.map_err(|fault| fault.of(file))?;
        known.insert(head.revision, head.hash);
    }
    Ok(known)
}

/// Whether what was found is what must be there.
fn meets(found: Head, wanted: Option<Head>) -> Result<(), StorageError> {
    match wanted {
        Some(wanted) if found.revision < wanted.revision => Err(StorageError::JournalBehind {
            journal: found.revision,
            index: wanted.revision,
        }),
        Some(wanted) if found != wanted => Err(StorageError::JournalReplaced {
            revision: wanted.revision,
        }),
        _ => Ok(()),
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
