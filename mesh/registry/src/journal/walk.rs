//! Reads the journal from a revision on and checks all that it reads.

use std::{ops::ControlFlow, path::Path};

use super::{frame, record::Record, record::read_line};
use crate::{Files, StorageError};

/// The last write of a journal, or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Head {
    /// Its revision; 0: there is none yet.
    pub(crate) revision: u64,
    /// The hash of it and all before.
    pub(crate) hash: [u8; 32],
}

/// Where a walk begins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    /// At the segment that holds this revision, or at the first one. What that follows is believed.
    At(u64),
    /// After this write, which is known from elsewhere: what follows must follow it, and what is before it is not told.
    After(Head),
}

/// Told each write; may end the walk.
pub(crate) type Step<'a> = dyn FnMut(Record, Head) -> ControlFlow<()> + 'a;

/// What was found.
pub(crate) struct Walked {
    /// The last write that was read; where none was, what the walk began after.
    pub(crate) head: Head,
    /// What the first segment that was read follows.
    pub(crate) base: Head,
    /// How many segments were read.
    pub(crate) segments: usize,
    /// How many writes were read, told or not.
    pub(crate) records: u64,
    /// The last segment; none if there is none, or if the walk ended before it.
    pub(super) last: Option<Last>,
}

/// The last segment.
pub(super) struct Last {
    pub(super) name: String,
    pub(super) length: u64,
    /// How much of it is whole frames; 0: not even its header.
    pub(super) whole: u64,
}

/// Tells every write from there on.
pub(crate) fn walk(
    files: &dyn Files,
    folder: &Path,
    begin: Start,
    visit: &mut Step<'_>,
) -> Result<Walked, StorageError> {
    let names = files
        .names(folder)
        .map_err(StorageError::io("list the journal's segments"))?;
    let mut segments: Vec<(u64, String)> = names
        .into_iter()
        .filter_map(|name| Some((frame::first_of(&name)?, name)))
        .collect();
    segments.sort();
    let (from, known) = match begin {
        Start::At(from) => (from, None),
        Start::After(head) => (head.revision + 1, Some(head)),
    };
    let start = segments.partition_point(|(first, _)| *first <= from).saturating_sub(1);
    let head = known.unwrap_or_default();
    let mut walked = Walked {
        head,
        base: head,
        segments: 0,
        records: 0,
        last: None,
    };
    let count = segments.len();
    for (index, (first, name)) in segments.into_iter().enumerate().skip(start) {
        let bytes = files
            .read(&folder.join(&name))
            .map_err(StorageError::io("read a segment of the journal"))?;
        let segment = Segment {
            name: &name,
            bytes: &bytes,
            is_last: index + 1 == count,
            first,
            // The first one read may say what it follows, unless that is known; from there on, each follows the one before.
            follows: if index > start {
                Some(walked.head)
            } else {
                known.filter(|_| first >= from)
            },
            known,
        };
        walked.segments += 1;
        let (flow, whole) = segment.read(&mut walked, visit)?;
        if flow.is_break() {
            return Ok(walked);
        }
        if segment.is_last {
            let length = bytes.len() as u64;
            walked.last = Some(Last { name, length, whole });
        }
    }
    Ok(walked)
}

struct Segment<'a> {
    name: &'a str,
    bytes: &'a [u8],
    is_last: bool,
    first: u64,
    follows: Option<Head>,
    known: Option<Head>,
}

impl Segment<'_> {
    fn damaged(&self, offset: usize, why: impl Into<String>) -> StorageError {
        StorageError::Journal {
            segment: self.name.to_owned(),
            offset: offset as u64,
            why: why.into(),
        }
    }

    /// Whether a failure at this offset can be the end of a write that was never acknowledged.
    fn may_be_torn(&self, offset: usize) -> bool {
        let rest = self.bytes.get(offset..).unwrap_or_default();
        self.is_last && !frame::any_in(rest)
    }

    /// Whether it held writes that are known of: then its beginning was whole once.
    fn is_covered(&self) -> bool {
        self.known.is_some_and(|known| self.first <= known.revision)
    }

    /// What it follows; none where not even that was written.
    fn header(&self) -> Result<Option<Head>, StorageError> {
        let header = match frame::read_header(self.bytes) {
            Ok(header) => header,
            Err(_) if self.may_be_torn(0) && !self.is_covered() => return Ok(None),
            Err(why) => return Err(self.damaged(0, why)),
        };
        if header.revision + 1 != self.first {
            return Err(self.damaged(0, "it is not the segment that its name says"));
        }
        // Before the first write of all there is nothing.
        let nothing = (header.revision == 0).then(Head::default);
        if let Some(follows) = self.follows.or(nothing)
            && follows != header
        {
            let why = format!(
                "it follows revision {}, but the segments before it end at {}, or were changed",
                header.revision, follows.revision
            );
            return Err(self.damaged(0, why));
        }
        Ok(Some(header))
    }

    fn read(&self, walked: &mut Walked, visit: &mut Step<'_>) -> Result<(ControlFlow<()>, u64), StorageError> {
        let Some(header) = self.header()? else {
            return Ok((ControlFlow::Continue(()), 0));
        };
        walked.head = header;
        if walked.segments == 1 {
            walked.base = header;
        }
        let mut offset = frame::HEADER_BYTES;
        while offset < self.bytes.len() {
            let (payload, length) = match frame::read(self.bytes.get(offset..).unwrap_or_default()) {
                Ok(frame) => frame,
                Err(_) if self.may_be_torn(offset) => break,
                Err(why) => {
                    let first = walked.head.revision + 1;
                    return Err(self.damaged(offset, format!("{why}, where revision {first} should be")));
                }
            };
            for line in payload.split_inclusive(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let (next, record) = read_line(walked.head, line).map_err(|why| self.damaged(offset, why))?;
                walked.head = next;
                walked.records += 1;
                if self.is_before_known(next).map_err(|why| self.damaged(offset, why))? {
                    continue;
                }
                if visit(record, next).is_break() {
                    return Ok((ControlFlow::Break(()), offset as u64));
                }
            }
            offset += length;
        }
        Ok((ControlFlow::Continue(()), offset as u64))
    }

    /// Whether a write is not to be told; the known one must be what is known of it.
    fn is_before_known(&self, next: Head) -> Result<bool, String> {
        match self.known {
            Some(known) if known.revision == next.revision && known != next => Err(format!(
                "the hash of revision {} is not the one in its snapshot: one of the two was changed",
                next.revision
            )),
            Some(known) => Ok(next.revision <= known.revision),
            None => Ok(false),
        }
    }
}
