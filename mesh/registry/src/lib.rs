//! What should be true: versioned records, a journal that is the truth, artifacts, and the single writer.
//!
//! Owns how resources are kept. A write goes through one actor: it is checked (revisions, the resource's own problems, what
//! it refers to), appended to a hash-chained [journal](JournalLimits) and fsynced, and only then acknowledged and applied to
//! the [`Store`] that everything reads. Also keeps the files of models, by what they hold ([`Artifacts`]), and makes a
//! [`Backup`] of everything while it is being used. Decides nothing about what follows from a resource at run time.
//!
//! Invariants: the journal is the truth and also the audit log, and what it cannot take is not done; the index is compared with it at every opening and made anew
//! where it differs; damage before the journal's tail is an error that names the place, never a silent loss; what an opening
//! reads is bounded by a signed snapshot and what follows it; only this crate names sled.

mod actor;
mod artifacts;
mod audit;
mod backup;
mod change;
mod code;
mod draft;
mod ensembles;
mod error;
mod files;
mod handle;
mod journal;
mod ledger;
mod policies;
mod record;
mod registry;
mod rules;
mod seal;
mod store;

pub use artifacts::{ArtifactError, Artifacts, DEFAULT_MAX_ARTIFACT_BYTES, MAX_UPLOADS, Upload};
pub use audit::{
    AuditChange, AuditEntry, AuditExport, AuditPage, AuditSummary, ExportEntry, ExportError, ExportHeader, ExportItem,
    ExportPart, ExportSummary, MAX_EXPORT_BYTES, MAX_EXPORT_LINE, verify_audit_folder, verify_export,
};
pub use backup::{Backup, BackupError, KeyOf, NamedSecret, Unpacked, unpack};
pub use change::{Author, Change, Expected, MAX_AUTHOR_TEXT, MAX_CHANGES};
pub use error::{RegistryError, StorageError};
pub use files::{Appending, DiskFiles, Files};
pub use handle::{Changes, MAX_PAGE, MAX_PENDING_WRITES, Page, RegistryHandle};
pub use journal::{ARCHIVED_SEGMENTS, JournalLimits, MAX_FRAME_BYTES, SEGMENT_BYTES, SNAPSHOT_SEGMENTS, SignedHead};
pub use ledger::{MAX_RESOURCE_BYTES, MAX_RESOURCES, MAX_WRITE_BYTES};
pub use record::{RECORD_VERSION, RecordError};
pub use registry::{Registry, RegistryConfig};
pub use seal::SealKey;
pub use store::{
    Batch, Changed, Event, HISTORY_EVENTS, MemoryStore, SledStore, State, Store, StoreError, StorePage, Stored, Watch,
    Write,
};
#[cfg(test)]
mod audit_tests;
#[cfg(test)]
mod code_tests;
#[cfg(test)]
mod compaction_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod ensembles_tests;
#[cfg(test)]
mod ledger_tests;
#[cfg(test)]
mod record_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
