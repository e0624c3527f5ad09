//! The audit log for others: as lines that anybody can check who has the public key.
//!
//! An export is a first line, which says what the first entry follows, and a line for each entry: its hash, and the bytes that
//! the hash is over, as they are. No entry is left out between the first and the last. An entry of the first version, whose
//! hash was over the record as well, cannot be checked by itself: the next signature vouches for its hash only.

use std::{io::BufRead, ops::ControlFlow};

use jiff::Timestamp;
use mesh_policies::PublicKey;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Heads, hex, unhex};
use crate::{
    MAX_PAGE, RegistryError, RegistryHandle,
    journal::{FIRST_LINE_VERSION, Head, Record, Start, begins, chain, read_told, walk},
};

/// What the first line calls the form.
const FORMAT: &str = "mesh-audit/1";
/// A part of an export ends once its entries have more bytes than this.
pub const MAX_EXPORT_BYTES: usize = 4 << 20;
/// The longest line of an export that is read: 256 changes with the longest names take a tenth of it.
pub const MAX_EXPORT_LINE: usize = 1 << 20;

/// What part of the log is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuditExport {
    /// Entries after this revision.
    pub after: u64,
    /// Entries from the first on that is not before this time.
    pub since: Option<Timestamp>,
    /// The most entries; at most [`MAX_PAGE`].
    pub limit: usize,
}

/// The first line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportHeader {
    /// The form of what follows.
    pub format: String,
    /// Whose signatures are in it, as the mesh says; who checks it knows better.
    pub public_key: Option<PublicKey>,
    /// The revision that the first entry follows.
    pub follows: u64,
    /// The hash of that revision, in hexadecimal.
    pub hash: String,
}

/// One entry of an export.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportEntry {
    /// `SHA-256(hash before || entry)`, in hexadecimal.
    pub hash: String,
    /// What is told of a write: the very bytes that the hash is over.
    pub entry: Box<RawValue>,
}

/// One entry, and what one would have to read it for.
#[derive(Debug, Clone, Serialize)]
pub struct ExportItem {
    /// Its revision.
    pub revision: u64,
    /// When it was written.
    pub time: Timestamp,
    /// Whether it signs what is before it.
    pub signs: bool,
    /// The line.
    pub line: ExportEntry,
}

/// A part of an export.
#[derive(Debug)]
pub struct ExportPart {
    /// What its first entry follows.
    pub header: ExportHeader,
    /// The entries, the oldest first.
    pub entries: Vec<ExportItem>,
    /// What to ask for entries after, to get the next; none: these are the last.
    pub next: Option<u64>,
}

impl RegistryHandle {
    /// A part of the log in the form of an export. Reads from disk.
    pub fn export_audit(&self, wanted: AuditExport) -> Result<ExportPart, RegistryError> {
        let place = &self.inner.place;
        let _hold = place.holds.hold();
        let last = self.inner.head.lock().revision;
        let limit = wanted.limit.clamp(1, MAX_PAGE);
        let after = wanted.after.max(begins(place)?.saturating_sub(1));
        let (mut entries, mut bytes, mut follows) = (Vec::<ExportItem>::new(), 0, None);
        if after < last {
            let mut before: Option<Head> = None;
            let walked = walk(
                &*place.files,
                &place.folder,
                Start::At(after + 1),
                &mut |record, head| {
                    let early = head.revision <= after || wanted.since.is_some_and(|since| record.time < since);
                    if !early || !entries.is_empty() {
                        if entries.is_empty() {
                            follows = before;
                        }
                        bytes += record.told.len();
                        entries.extend(exported(&record, head));
                    }
                    before = Some(head);
                    let full = entries.len() == limit || bytes > MAX_EXPORT_BYTES;
                    if full || head.revision >= last {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                },
            )?;
            // Nothing was read before the first entry: it follows what its segment follows.
            let base = if entries.is_empty() { walked.head } else { walked.base };
            follows = follows.or(Some(base));
        }
        let follows = follows.unwrap_or_else(|| *self.inner.head.lock());
        let end = entries.last().map(|item| item.revision);
        Ok(ExportPart {
            header: ExportHeader {
                format: FORMAT.to_owned(),
                public_key: self.audit_key(),
                follows: follows.revision,
                hash: hex(&follows.hash),
            },
            entries,
            next: end.filter(|end| *end < last),
        })
    }
}

/// A write in the form of an export; what was told is JSON, so none is ever left out.
fn exported(record: &Record, head: Head) -> Option<ExportItem> {
    Some(ExportItem {
        revision: head.revision,
        time: record.time,
        signs: record.head.is_some(),
        line: ExportEntry {
            hash: hex(&head.hash),
            entry: RawValue::from_string(record.told.clone()).ok()?,
        },
    })
}

/// What is wrong with an export, and where first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct ExportError {
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// What an export that holds is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportSummary {
    /// How many entries.
    pub entries: u64,
    /// The first and the last revision; none where there are no entries.
    pub revisions: Option<(u64, u64)>,
    /// How many signed heads.
    pub heads: u64,
    /// The last revision that a signature is of: what is after it is not proved yet.
    pub signed: Option<u64>,
    /// Whose signatures they are.
    pub key: Option<PublicKey>,
    /// Entries of the first version, whose content is not proved.
    pub unproved: u64,
}

/// Checks an export: that each entry follows from the one before, and that each signature is by this key; without a key, by
/// the one that the signature names, which proves no more than that the export fits together.
pub fn verify_export(from: &mut dyn BufRead, key: Option<PublicKey>) -> Result<ExportSummary, ExportError> {
    let mut lines = Lines { from, line: 0 };
    let header = lines.next()?.ok_or_else(|| lines.wrong("the file is empty"))?;
    let header: ExportHeader = serde_json::from_slice(&header)
        .map_err(|error| lines.wrong(format!("this is not the first line of an export: {error}")))?;
    if header.format != FORMAT {
        let why = format!("the form is '{}', and '{FORMAT}' is read here", header.format);
        return Err(lines.wrong(why));
    }
    let hash = unhex(&header.hash).ok_or_else(|| lines.wrong("the hash is not 64 lowercase hexadecimal digits"))?;
    let mut head = Head {
        revision: header.follows,
        hash,
    };
    let (mut heads, mut summary) = (Heads::after(key, head), ExportSummary::default());
    while let Some(line) = lines.next()? {
        let (next, record) = follow(head, &line).map_err(|why| lines.wrong(why))?;
        let taken = heads.take(&record, next);
        taken.map_err(|why| {
            lines.wrong(format!(
                "the signature in revision {} does not hold: {why}",
                next.revision
            ))
        })?;
        summary.entries += 1;
        summary.unproved += u64::from(record.v == FIRST_LINE_VERSION);
        let first = summary.revisions.map_or(next.revision, |(first, _)| first);
        summary.revisions = Some((first, next.revision));
        head = next;
    }
    Ok(ExportSummary {
        heads: heads.count,
        signed: heads.signed,
        key: heads.last_key,
        ..summary
    })
}

/// The entry of a line, which must follow the head.
fn follow(head: Head, line: &[u8]) -> Result<(Head, Record), String> {
    let revision = head.revision + 1;
    let entry: ExportEntry =
        serde_json::from_slice(line).map_err(|error| format!("where revision {revision} should be: {error}"))?;
    let told = entry.entry.get().as_bytes();
    let record = read_told(told)?;
    if record.revision != revision {
        return Err(format!("revision {} follows {}", record.revision, head.revision));
    }
    let written = unhex(&entry.hash).ok_or_else(|| format!("the hash of revision {revision} is no hash"))?;
    if record.v != FIRST_LINE_VERSION && chain(&head.hash, told) != written {
        return Err(format!(
            "the hash of revision {revision} does not follow from what is written: it was changed"
        ));
    }
    Ok((
        Head {
            revision,
            hash: written,
        },
        record,
    ))
}

struct Lines<'a> {
    from: &'a mut dyn BufRead,
    line: u64,
}

impl Lines<'_> {
    fn wrong(&self, why: impl Into<String>) -> ExportError {
        ExportError {
            line: self.line,
            why: why.into(),
        }
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, ExportError> {
        self.line += 1;
        let mut line = Vec::new();
        let mut most = std::io::Read::take(&mut *self.from, MAX_EXPORT_LINE as u64 + 1);
        let read = most.read_until(b'\n', &mut line);
        read.map_err(|error| self.wrong(format!("cannot be read: {error}")))?;
        if line.is_empty() {
            return Ok(None);
        }
        let content = line.strip_suffix(b"\n").unwrap_or(&line);
        if content.len() > MAX_EXPORT_LINE {
            return Err(self.wrong(format!("longer than {MAX_EXPORT_LINE} bytes")));
        }
        Ok(Some(content.to_vec()))
    }
}
