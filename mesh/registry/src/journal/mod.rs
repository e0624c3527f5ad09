//! The journal: every write, appended and fsynced before it is acknowledged. The truth, and the audit log.
//!
//! Owns the segments in one folder. Each begins with a header that names its first revision and the hash of all before;
//! then come frames, one per fsync, each with its length and a CRC-32; in a frame, one line per write: the hash
//! `SHA-256(hash before || told)` in hexadecimal, a space, what is told of the write as JSON, a tab, and the records that the
//! write left, which the former names by their digests. Beside the segments lie snapshots, so
//! that an opening reads the newest and what follows it, and old segments can go. Knows no index and no rules.
//!
//! Invariants: revisions have no gap; nothing goes that the two newest snapshots do not cover; a frame that is not whole at the very end was never acknowledged and is cut off with a
//! message; anything else that does not check is an error that names segment and offset; a frame whose fsync failed is cut
//! off before anything else is written.

mod compaction;
mod frame;
mod holds;
mod record;
pub(crate) mod snapshot;
mod walk;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use self::record::SignedHead;
pub(crate) use self::{
    compaction::begins,
    holds::{Hold, Holds},
    record::{FIRST_LINE_VERSION, Record, RecordedChange, chain, digest, read_told, signed_text},
    snapshot::Base,
    walk::{Head, Start, Step, walk},
};
use crate::{Appending, Files, SealKey, StorageError};

/// A segment is ended before it grows past this.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// The largest frame: what is longer is not read.
pub const MAX_FRAME_BYTES: usize = 32 << 20;
/// So many segments end before a snapshot is written; about what an opening reads beside the snapshot.
pub const SNAPSHOT_SEGMENTS: usize = 4;
/// So many segments that a snapshot covers are kept as the audit log's history.
pub const ARCHIVED_SEGMENTS: usize = 16;

/// The bounds of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLimits {
    /// A segment is ended before it grows past this; a frame that is longer has a segment of its own.
    pub segment_bytes: u64,
    /// So many segments end before a snapshot is written; 0 is taken as 1.
    pub snapshot_segments: usize,
    /// So many segments that the newest snapshot covers are kept as history; more where an older snapshot needs them.
    pub archived_segments: usize,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            snapshot_segments: SNAPSHOT_SEGMENTS,
            archived_segments: ARCHIVED_SEGMENTS,
        }
    }
}

/// Whether a file with this name is a segment.
pub(crate) fn is_segment(name: &str) -> bool {
    frame::first_of(name).is_some()
}

/// Where a journal is, and how its files are read and checked. Clones are the same place.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) folder: Arc<Path>,
    pub(crate) key: SealKey,
    pub(crate) holds: Holds,
}

impl Place {
    pub(crate) fn new(files: Arc<dyn Files>, folder: &Path, key: SealKey) -> Self {
        Self {
            files,
            folder: folder.into(),
            key,
            holds: Holds::default(),
        }
    }

    pub(crate) fn names(&self) -> Result<Vec<String>, StorageError> {
        let names = self.files.names(&self.folder);
        names.map_err(StorageError::io("list the journal's segments"))
    }

    fn sync(&self) -> Result<(), StorageError> {
        let synced = self.files.sync_folder(&self.folder);
        synced.map_err(StorageError::io("fsync the journal's folder"))
    }
}

/// The journal, open to be appended to.
pub(crate) struct Journal {
    place: Place,
    limits: JournalLimits,
    head: Head,
    active: Option<Active>,
    mend: Mend,
    /// Segments that ended since the newest snapshot.
    sealed: usize,
    /// So many call for a snapshot.
    due_at: usize,
    /// A snapshot was written, and what it made superfluous is still there.
    must_trim: bool,
    /// Writes that the opening read.
    read: u64,
}

/// The segments at one moment.
pub(crate) struct Extent {
    /// The last write in them.
    pub(crate) head: Head,
    /// Their names in order, and how much of each; none: all of it.
    pub(crate) segments: Vec<(String, Option<u64>)>,
    /// Keeps them there.
    pub(crate) hold: Hold,
}

struct Active {
    name: String,
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
    /// Makes the folder, and finds where to begin.
    pub(crate) fn base(place: &Place) -> Result<Base, StorageError> {
        let made = place.files.make_folder(&place.folder);
        made.map_err(StorageError::io("make the journal's folder"))?;
        snapshot::newest(place)
    }

    /// Reads the journal after its base, tells each write, cuts off a torn end, and is ready to append. A journal that ends
    /// before the revision that is known to be acknowledged is left as it is, and is an error.
    pub(crate) fn open(
        place: Place,
        limits: JournalLimits,
        base: &Base,
        acknowledged: u64,
        visit: &mut Step<'_>,
    ) -> Result<Self, StorageError> {
        let walked = walk(&*place.files, &place.folder, Start::After(base.head), visit)?;
        let acknowledged = acknowledged.max(base.head.revision);
        if walked.head.revision < acknowledged {
            return Err(StorageError::JournalBehind {
                journal: walked.head.revision,
                index: acknowledged,
            });
        }
        let due_at = limits.snapshot_segments.max(1);
        let mut journal = Self {
            place,
            limits,
            head: walked.head,
            active: None,
            mend: Mend::Nothing,
            sealed: walked.segments.saturating_sub(1),
            due_at,
            // A process may have ended between a snapshot and what follows it.
            must_trim: true,
            read: walked.records,
        };
        snapshot::tidy(&journal.place, base)?;
        if let Some(last) = walked.last {
            journal.take_up(last)?;
        }
        Ok(journal)
    }

    /// Goes on in the last segment, after cutting off what is torn.
    fn take_up(&mut self, last: walk::Last) -> Result<(), StorageError> {
        let path = self.place.folder.join(&last.name);
        if last.whole < last.length {
            tracing::warn!(
                segment = last.name,
                offset = last.whole,
                bytes = last.length - last.whole,
                "registry: the journal ended in a write that was never acknowledged: cut off"
            );
        }
        if last.whole == 0 {
            let removed = self.place.files.remove(&path);
            removed.map_err(StorageError::io("remove a torn segment"))?;
            return self.place.sync();
        }
        let file = self.place.files.append(&path);
        let mut file = file.map_err(StorageError::io("open the journal"))?;
        if last.whole < last.length {
            file.cut(last.whole)
                .map_err(StorageError::io("cut the journal's torn end"))?;
        }
        // What was read may still be in the page cache only; what comes after must not outlive it.
        file.sync().map_err(StorageError::io("fsync the journal"))?;
        self.active = Some(Active {
            name: last.name,
            file,
            length: last.whole,
        });
        self.place.sync()
    }

    /// The last write.
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// How many writes the opening read: those after the newest snapshot.
    pub(crate) fn writes_read(&self) -> u64 {
        self.read
    }

    /// The segments as they are now, and that they stay.
    pub(crate) fn extent(&self) -> Result<Extent, StorageError> {
        let hold = self.place.holds.hold();
        let mut names = self.place.names()?;
        names.retain(|name| frame::first_of(name).is_some());
        names.sort();
        if let Mend::Remove(path) = &self.mend {
            names.retain(|name| !path.ends_with(name));
        }
        let length = |name: &String| {
            let active = self.active.as_ref().filter(|active| active.name == *name);
            active.map(|active| active.length)
        };
        Ok(Extent {
            head: self.head,
            segments: names.iter().map(|name| (name.clone(), length(name))).collect(),
            hold,
        })
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
        let name = frame::segment_name(self.head.revision + 1);
        let path = self.place.folder.join(&name);
        let header = frame::header(self.head);
        let begun = self.place.files.create(&path).and_then(|mut file| {
            file.write(&header)?;
            file.sync()?;
            self.place.files.sync_folder(&self.place.folder)?;
            Ok(file)
        });
        match begun {
            Ok(file) => {
                let before = self.active.replace(Active {
                    name,
                    file,
                    length: header.len() as u64,
                });
                self.sealed += usize::from(before.is_some());
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
                match self.place.files.remove(path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(StorageError::io("remove a failed segment")(error));
                    }
                    _ => {}
                }
                self.place.sync()?;
            }
        }
        self.mend = Mend::Nothing;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
