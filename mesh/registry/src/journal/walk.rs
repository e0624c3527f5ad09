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

/// Told each write; may end the walk.
pub(crate) type Step<'a> = dyn FnMut(Record, Head) -> ControlFlow<()> + 'a;

/// What was found.
pub(crate) struct Walked {
    /// The last write that was told.
    pub(crate) head: Head,
    /// How many segments were read.
    pub(crate) segments: usize,
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

/// Tells every write, beginning with the segment that holds `from`.
pub(crate) fn walk(files: &dyn Files, folder: &Path, from: u64, visit: &mut Step<'_>) -> Result<Walked, StorageError> {
    let names = files
        .names(folder)
        .map_err(StorageError::io("list the journal's segments"))?;
    let mut segments: Vec<(u64, String)> = names
        .into_iter()
        .filter_map(|name| Some((frame::first_of(&name)?, name)))
        .collect();
    segments.sort();
    let start = segments.partition_point(|(first, _)| *first <= from).saturating_sub(1);
    let mut walked = Walked {
        head: Head::default(),
        segments: 0,
        last: None,
    };
    let count = segments.len();
    for (index, (first, name)) in segments.into_iter().enumerate().skip(start) {
        let bytes = files
            .read(&folder.join(&name))
            .map_err(StorageError::io("read a segment of the journal"))?;
        let mut segment = Segment {
            name: &name,
            bytes: &bytes,
            is_last: index + 1 == count,
            // The first one read says what it follows; from there on, each must follow the one before.
            follows: (index > start || start == 0).then_some(walked.head),
        };
        walked.segments += 1;
        let (flow, whole) = segment.read(first, &mut walked.head, visit)?;
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
    follows: Option<Head>,
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

    fn read(
        &mut self,
        first: u64,
        head: &mut Head,
        visit: &mut Step<'_>,
    ) -> Result<(ControlFlow<()>, u64), StorageError> {
        let header = match frame::read_header(self.bytes) {
            Ok(header) => header,
            Err(_) if self.may_be_torn(0) => return Ok((ControlFlow::Continue(()), 0)),
            Err(why) => return Err(self.damaged(0, why)),
        };
        if header.revision + 1 != first {
            return Err(self.damaged(0, "it is not the segment that its name says"));
        }
        if let Some(follows) = self.follows
            && follows != header
        {
            let why = format!(
                "it follows revision {}, but the segments before it end at {}, or were changed",
                header.revision, follows.revision
            );
            return Err(self.damaged(0, why));
        }
        *head = header;
        let mut offset = frame::HEADER_BYTES;
        while offset < self.bytes.len() {
            let (payload, length) = match frame::read(self.bytes.get(offset..).unwrap_or_default()) {
                Ok(frame) => frame,
                Err(_) if self.may_be_torn(offset) => break,
                Err(why) => return Err(self.damaged(offset, why)),
            };
            for line in payload.split_inclusive(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let (next, record) = read_line(*head, line).map_err(|why| self.damaged(offset, why))?;
                *head = next;
                if visit(record, next).is_break() {
                    return Ok((ControlFlow::Break(()), offset as u64));
                }
            }
            offset += length;
        }
        Ok((ControlFlow::Continue(()), offset as u64))
    }
}
