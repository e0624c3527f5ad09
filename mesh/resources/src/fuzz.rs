//! The body of this crate's fuzz target, here so that ordinary tests run it too. Not for use by the mesh.

use std::{
    collections::HashSet,
    io::Cursor,
    path::{Component, Path},
};

use crate::{
    MAX_ARCHIVE_ENTRIES, MAX_ARCHIVE_RATIO, archive_problem, recognise,
    recognise::{END, ENTRY, Found, directory, half, long, word},
};

/// The most that may come out of an archive here.
const MOST: u64 = 1 << 20;
/// What is said of an archive is shorter than this.
const MOST_CHARS: usize = 1_000;

/// A file, whole: refused in a few words, or no archive, or one whose entries, read again by nothing but their number, are within the
/// bounds and lead nowhere else.
pub fn archive(data: &[u8]) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("what is in memory cannot be read: {error}");
    recognise(&mut Cursor::new(data)).map_err(failed)?;
    if let Some(text) = archive_problem(&mut Cursor::new(data), MOST).map_err(failed)? {
        let plain = !text.is_empty() && text.chars().count() < MOST_CHARS;
        return plain.then_some(()).ok_or_else(|| format!("a message: {text}"));
    }
    // Inputs are shorter than the longest comment.
    let tail = data.get(data.len().saturating_sub(1 << 16)..).unwrap_or_default();
    match directory(&mut Cursor::new(data), data.len() as u64, tail).map_err(failed)? {
        Found::NoArchive => Ok(()),
        Found::Ambiguous => Err("an end that can be read in two ways is no problem".to_owned()),
        Found::At(found) => {
            let begin = usize::try_from(found.begin).map_err(|_| "a directory beyond the file")?;
            entries(data, begin, found.entries)?;
            // Some readers count back from the end, as if something had been put in front of the archive.
            let end = data.windows(END.len()).rposition(|window| window == END);
            let other = end.zip(usize::try_from(found.size).ok());
            let other = other.and_then(|(end, size)| end.checked_sub(size)).unwrap_or(begin);
            let is_one = data.get(other..).is_some_and(|rest| rest.starts_with(ENTRY));
            if other != begin && is_one && found.entries > 0 && entries(data, other, found.entries).is_ok() {
                return Err(format!("there are entries at {begin} and at {other}"));
            }
            Ok(())
        }
    }
}

/// Reads so many entries, one behind the other.
fn entries(data: &[u8], mut at: usize, count: u64) -> Result<(), String> {
    let cut = || "an entry is cut short".to_owned();
    let (mut names, mut bytes) = (HashSet::new(), 0_u64);
    for _ in 0..count {
        if !data.get(at..).is_some_and(|rest| rest.starts_with(ENTRY)) {
            return Err(format!("no entry at {at}"));
        }
        let lengths = [28, 30, 32].map(|field| half(data, at + field).map(usize::from));
        let [Some(name), Some(extra), Some(comment)] = lengths else {
            return Err(cut());
        };
        let text = data.get(at + 46..at + 46 + name).ok_or_else(cut)?;
        let text = std::str::from_utf8(text).map_err(|_| "a name that is no text")?;
        let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
        if text.is_empty() || !Path::new(text).components().all(plain) || !names.insert(text) {
            return Err(format!("the name {text:?} passes"));
        }
        bytes = bytes.saturating_add(match word(data, at + 24).ok_or_else(cut)? {
            u32::MAX => large(data.get(at + 46 + name..).unwrap_or_default()).ok_or_else(cut)?,
            size => size.into(),
        });
        at += 46 + name + extra + comment;
    }
    let most = MOST.min((data.len() as u64).saturating_mul(MAX_ARCHIVE_RATIO));
    let within = names.len() <= MAX_ARCHIVE_ENTRIES && bytes <= most;
    within
        .then_some(())
        .ok_or_else(|| format!("{} entries of {bytes} bytes pass", names.len()))
}

/// The size in the extra field for it, which may not be the first.
fn large(mut fields: &[u8]) -> Option<u64> {
    while half(fields, 0)? != 1 {
        fields = fields.get(4 + usize::from(half(fields, 2)?)..)?;
    }
    long(fields, 4)
}
