//! The journal: every write, appended and fsynced before it is acknowledged. The truth, and the audit log.
//!
//! Owns the segments in one folder. Each begins with a header that names its first revision and the hash of all before;
//! then come frames, one per fsync, each with its length and a CRC-32; in a frame, one line per write: the hash
//! `SHA-256(hash before || record)` in hexadecimal, a space, and the record as JSON. Knows no index and no rules.
//!
//! Invariants: revisions have no gap; a frame that is not whole at the very end was never acknowledged and is cut off with a
//! message; anything else that does not check is an error that names segment and offset; a frame whose fsync failed is cut
//! off before anything else is written.

mod frame;
mod record;
mod walk;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) use self::{
    record::{Record, RecordedChange, digest},
    walk::{Head, Step, walk},
};
use crate::{Appending, Files, StorageError};

/// A segment is ended before it grows past this.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// The largest frame: what is longer is not read.
pub const MAX_FRAME_BYTES: usize = 32 << 20;

/// The bounds of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLimits {
    /// A segment is ended before it grows past this; a frame that is longer has a segment of its own.
    pub segment_bytes: u64,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
        }
    }
}

/// The journal, open to be appended to.
pub(crate) struct Journal {
    files: Arc<dyn Files>,
    folder: PathBuf,
    limits: JournalLimits,
    head: Head,
    active: Option<Active>,
    mend: Mend,
}

struct Active {
    file: Box<dyn Appending>,
    /// Of what is acknowledged.
    length: u64,
}

/// What an append that failed left behind.
enum Mend {
    Nothing,
    /// The active segment is longer than what is acknowledged.
    Cut,
    /// A segment that holds nothing acknowledged.
    Remove(PathBuf),
}

impl Journal {
    /// Reads the whole journal, tells each write, cuts off a torn end, and is ready to append. A journal that ends before
    /// the revision that is known to be acknowledged is left as it is, and is an error.
    pub(crate) fn open(
        files: Arc<dyn Files>,
        folder: &Path,
        limits: JournalLimits,
        acknowledged: u64,
        visit: &mut Step<'_>,
    ) -> Result<Self, StorageError> {
        files
            .make_folder(folder)
            .map_err(StorageError::io("make the journal's folder"))?;
        let walked = walk(&*files, folder, 1, visit)?;
        if walked.head.revision < acknowledged {
            return Err(StorageError::JournalBehind {
                journal: walked.head.revision,
                index: acknowledged,
            });
        }
        let mut journal = Self {
            files,
            folder: folder.to_path_buf(),
            limits,
            head: walked.head,
            active: None,
            mend: Mend::Nothing,
        };
        if let Some(last) = walked.last {
            journal.take_up(&last)?;
        }
        Ok(journal)
    }

    /// Goes on in the last segment, after cutting off what is torn.
    fn take_up(&mut self, last: &walk::Last) -> Result<(), StorageError> {
        let path = self.folder.join(&last.name);
        if last.whole < last.length {
            tracing::warn!(
                segment = last.name,
                offset = last.whole,
                bytes = last.length - last.whole,
                "registry: the journal ended in a write that was never acknowledged: cut off"
            );
        }
        if last.whole == 0 {
            self.files
                .remove(&path)
                .map_err(StorageError::io("remove a torn segment"))?;
            return self.sync_folder();
        }
        let mut file = self.files.append(&path).map_err(StorageError::io("open the journal"))?;
        if last.whole < last.length {
            file.cut(last.whole)
                .map_err(StorageError::io("cut the journal's torn end"))?;
        }
        // What was read may still be in the page cache only; what comes after must not outlive it.
        file.sync().map_err(StorageError::io("fsync the journal"))?;
        self.active = Some(Active {
            file,
            length: last.whole,
        });
        self.sync_folder()
    }

    /// The last write.
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Appends writes as one frame, with one fsync. On an error none of them is in the journal.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<Vec<Head>, StorageError> {
        self.mended()?;
        let (heads, payload) = record::lines(self.head, records)?;
        let Some(head) = heads.last().copied() else {
            return Ok(heads);
        };
        let frame = frame::encode(&payload)?;
        let length = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        let full = |active: &Active| {
            let holds_frames = active.length > frame::HEADER_BYTES as u64;
            holds_frames && active.length.saturating_add(length) > self.limits.segment_bytes
        };
        if self.active.as_ref().is_none_or(full) {
            self.begin_segment()?;
        }
        let Some(active) = &mut self.active else {
            return Err(StorageError::Failed);
        };
        let written = active.file.write(&frame).and_then(|()| active.file.sync());
        if let Err(error) = written {
            self.mend = Mend::Cut;
            let failed = StorageError::io("append to the journal")(error);
            // Now if possible; else before the next append.
            let _ = self.mended();
            return Err(failed);
        }
        active.length += length;
        self.head = head;
        Ok(heads)
    }

    fn begin_segment(&mut self) -> Result<(), StorageError> {
        let path = self.folder.join(frame::segment_name(self.head.revision + 1));
        let header = frame::header(self.head);
        let begun = self.files.create(&path).and_then(|mut file| {
            file.write(&header)?;
            file.sync()?;
            self.files.sync_folder(&self.folder)?;
            Ok(file)
        });
        match begun {
            Ok(file) => {
                self.active = Some(Active {
                    file,
                    length: header.len() as u64,
                });
                Ok(())
            }
            Err(error) => {
                self.mend = Mend::Remove(path);
                let failed = StorageError::io("begin a segment of the journal")(error);
                let _ = self.mended();
                Err(failed)
            }
        }
    }

    /// Undoes what a failed append left behind.
    fn mended(&mut self) -> Result<(), StorageError> {
        match (&self.mend, &mut self.active) {
            (Mend::Nothing, _) => return Ok(()),
            (Mend::Cut, Some(active)) => {
                let cut = active.file.cut(active.length).and_then(|()| active.file.sync());
                cut.map_err(StorageError::io("cut off a failed append"))?;
            }
            (Mend::Cut, None) => {}
            (Mend::Remove(path), _) => {
                match self.files.remove(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(StorageError::io("remove a failed segment")(error));
                    }
                    _ => {}
                }
                self.sync_folder()?;
            }
        }
        self.mend = Mend::Nothing;
        Ok(())
    }

    fn sync_folder(&self) -> Result<(), StorageError> {
        let synced = self.files.sync_folder(&self.folder);
        synced.map_err(StorageError::io("fsync the journal's folder"))
    }
}

#[cfg(test)]
mod tests;
