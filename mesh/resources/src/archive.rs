//! Whether a model's zip file keeps within bounds, by what its directory says, before anybody unpacks it.
//!
//! A model is code, and its file comes from whoever may publish: the bounds are on what reading it could take (entries, bytes
//! that come out, how much more these are than the file), and on names that lead elsewhere. What the members themselves hold
//! is looked at where they are unpacked, which holds each to the size that is said here. A file that is no zip is none of this
//! module's. There are readers of zip files that find the directory, or its entries, in other ways than this one: what they could
//! read otherwise is refused, or the bounds would hold for something else than is unpacked.

use std::{
    collections::HashSet,
    io::{Read, Seek, SeekFrom},
};

use crate::recognise::{ENTRY, Found, TAIL_BYTES, directory, half, long, part, word};

/// The most entries of an archive.
pub const MAX_ARCHIVE_ENTRIES: usize = 10_000;
/// The most that all entries together may be of the file's own size.
pub const MAX_ARCHIVE_RATIO: u64 = 100;
/// The longest name of an entry, in bytes.
pub const MAX_ENTRY_NAME: usize = 512;
/// How much of a name is told.
const MAX_SHOWN: usize = 64;
/// The largest directory: as many entries as may be, with the longest names.
const MAX_DIRECTORY_BYTES: u64 = 16 << 20;
/// The kind of a file, in the upper half of a Unix entry's attributes.
const FILE_KIND: u32 = 0xf000;
const REGULAR: u32 = 0x8000;
const FOLDER: u32 = 0x4000;
const MADE_ON_UNIX: u8 = 3;
/// The extra field of sizes that need eight bytes.
const LARGE: u16 = 1;

/// One entry, as the directory has it.
struct Entry<'a> {
    name: &'a [u8],
    bytes: u64,
    kind: u32,
}

/// What is wrong with an archive; none where nothing is, or where the file is no archive. All that comes out of it may have at
/// most `most` bytes.
pub fn archive_problem(file: &mut (impl Read + Seek), most: u64) -> std::io::Result<Option<String>> {
    let length = file.seek(SeekFrom::End(0))?;
    let tail = part(file, length.saturating_sub(TAIL_BYTES), TAIL_BYTES)?;
    let found = match directory(file, length, &tail)? {
        Found::NoArchive => return Ok(None),
        Found::Ambiguous => return Ok(Some("its directory is not where its end says".to_owned())),
        Found::At(found) => found,
    };
    if found.size > MAX_DIRECTORY_BYTES {
        let text = format!(
            "its directory has {} bytes, at most {MAX_DIRECTORY_BYTES} are read",
            found.size
        );
        return Ok(Some(text));
    }
    let listed = part(file, found.begin, found.size)?;
    Ok(problem_of(&listed, found.entries, length, most))
}

/// A name as it is told.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(MAX_SHOWN).collect()
}

fn problem_of(listed: &[u8], said: u64, length: u64, most: u64) -> Option<String> {
    let (mut rest, mut names, mut bytes) = (listed, HashSet::new(), 0_u64);
    while rest.starts_with(ENTRY) {
        let Some((entry, after)) = entry(rest) else {
            return Some("its directory is cut short".to_owned());
        };
        if let Some(why) = name_problem(entry.name) {
            return Some(format!("its entry {:?} {why}", shown(entry.name)));
        }
        if !matches!(entry.kind, 0 | REGULAR | FOLDER) {
            let name = shown(entry.name);
            return Some(format!(
                "its entry {name:?} is a link or a device: only files are taken"
            ));
        }
        if names.len() == MAX_ARCHIVE_ENTRIES {
            return Some(format!("it has more than {MAX_ARCHIVE_ENTRIES} entries"));
        }
        if !names.insert(entry.name) {
            let name = shown(entry.name);
            return Some(format!("it has two entries {name:?}: which one is meant is not known"));
        }
        bytes = bytes.saturating_add(entry.bytes);
        rest = after;
    }
    // Readers go by the number of entries or by the directory's size, and from its beginning or from the file's end: nothing is left over,
    // and no entry begins within another, so that all find the same ones.
    let begin = listed.windows(ENTRY.len()).filter(|window| *window == ENTRY);
    if !rest.is_empty() || names.len() as u64 != said || begin.count() != names.len() {
        return Some("its directory holds something else than the entries that are said".to_owned());
    }
    if bytes > most {
        return Some(format!(
            "it takes {bytes} bytes when it is unpacked, at most {most} are allowed"
        ));
    }
    if bytes > length.saturating_mul(MAX_ARCHIVE_RATIO) {
        return Some(format!(
            "it takes {bytes} bytes when it is unpacked, more than {MAX_ARCHIVE_RATIO} times its own {length}"
        ));
    }
    None
}

/// The entry that begins here, and what follows it.
fn entry(from: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    let [name, extra, comment] = [28, 30, 32].map(|at| half(from, at).map(usize::from));
    let (name, extra, comment) = (name?, extra?, comment?);
    let fields = from.get(46 + name..46 + name + extra)?;
    let bytes = match word(from, 24)? {
        u32::MAX => large(fields)?,
        bytes => bytes.into(),
    };
    let on_unix = from.get(5) == Some(&MADE_ON_UNIX);
    let kind = if on_unix { word(from, 38)? >> 16 & FILE_KIND } else { 0 };
    let entry = Entry {
        name: from.get(46..46 + name)?,
        bytes,
        kind,
    };
    Some((entry, from.get(46 + name + extra + comment..)?))
}

/// The size of an entry that needs eight bytes: the first number of its extra field.
fn large(mut fields: &[u8]) -> Option<u64> {
    loop {
        let (kind, length) = (half(fields, 0)?, usize::from(half(fields, 2)?));
        if kind == LARGE {
            return long(fields, 4);
        }
        fields = fields.get(4 + length..)?;
    }
}

/// Why a name may lead somewhere else than into the folder that it is unpacked in.
fn name_problem(name: &[u8]) -> Option<&'static str> {
    let Ok(text) = std::str::from_utf8(name) else {
        return Some("has a name that is no text");
    };
    if text.is_empty() || text.len() > MAX_ENTRY_NAME {
        return Some("has a name that is empty or longer than 512 bytes");
    }
    if text.starts_with('/') || text.contains(['\\', ':']) || text.chars().any(char::is_control) {
        return Some("has a name that is no plain path");
    }
    let mut parts = text.strip_suffix('/').unwrap_or(text).split('/');
    parts
        .any(|part| part.is_empty() || part == "." || part == "..")
        .then_some("has a name that leads elsewhere")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[derive(Clone)]
    struct Written {
        name: String,
        bytes: u64,
        mode: u32,
    }

    fn written(name: &str, bytes: u64) -> Written {
        Written {
            name: name.to_owned(),
            bytes,
            mode: 0o100_644,
        }
    }

    /// An archive of entries that claim these sizes, of so many bytes in all where it can be.
    fn zip(entries: &[Written], length: usize) -> Vec<u8> {
        let mut directory = Vec::new();
        for Written { name, bytes, mode } in entries {
            let mut entry = [ENTRY, &[0; 42]].concat();
            entry[5] = MADE_ON_UNIX;
            let large = u32::try_from(*bytes).ok().filter(|bytes| *bytes != u32::MAX);
            entry[24..28].copy_from_slice(&large.unwrap_or(u32::MAX).to_le_bytes());
            entry[28..30].copy_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
            entry[38..42].copy_from_slice(&(mode << 16).to_le_bytes());
            entry.extend_from_slice(name.as_bytes());
            if large.is_none() {
                entry[30..32].copy_from_slice(&16_u16.to_le_bytes());
                // Another field stands before it.
                entry.extend_from_slice(&[9, 9, 0, 0, 1, 0, 8, 0]);
                entry.extend_from_slice(&bytes.to_le_bytes());
            }
            directory.extend(entry);
        }
        let begin = length.saturating_sub(directory.len() + 22);
        let mut bytes = vec![b'x'; begin];
        bytes.extend(&directory);
        let mut end = [0; 22];
        end[..4].copy_from_slice(b"PK\x05\x06");
        end[10..12].copy_from_slice(&u16::try_from(entries.len()).unwrap().to_le_bytes());
        end[12..16].copy_from_slice(&u32::try_from(directory.len()).unwrap().to_le_bytes());
        end[16..20].copy_from_slice(&u32::try_from(begin).unwrap().to_le_bytes());
        bytes.extend(end);
        bytes
    }

    fn problem(bytes: Vec<u8>, most: u64) -> Option<String> {
        archive_problem(&mut Cursor::new(bytes), most).unwrap()
    }

    fn refused(entries: &[Written]) -> String {
        problem(zip(entries, 1_000), u64::MAX).unwrap_or_default()
    }

    #[test]
    fn entries_are_bounded() {
        let many = |count: usize| -> Vec<Written> { (0..count).map(|index| written(&index.to_string(), 0)).collect() };
        assert_eq!(problem(zip(&many(MAX_ARCHIVE_ENTRIES), 0), u64::MAX), None);
        let one_more = problem(zip(&many(MAX_ARCHIVE_ENTRIES + 1), 0), u64::MAX);
        assert!(one_more.is_some_and(|text| text.contains("more than 10000 entries")));
    }

    #[test]
    fn what_comes_out_is_bounded_in_all_and_beside_the_file() {
        let zip = |bytes| zip(&[written("a", 50), written("b", bytes)], 1_000);
        assert_eq!(zip(0).len(), 1_000);
        assert_eq!(problem(zip(49_950), 50_000), None);
        let over = problem(zip(49_951), 50_000);
        assert!(over.is_some_and(|text| text.contains("takes 50001 bytes")));
        assert_eq!(problem(zip(99_950), u64::MAX), None, "exactly 100 times");
        let over = problem(zip(99_951), u64::MAX);
        assert!(over.is_some_and(|text| text.contains("more than 100 times its own 1000")));
        for bytes in [u64::from(u32::MAX), u64::MAX] {
            assert!(problem(zip(bytes), u64::MAX).is_some(), "{bytes}: no overflow hides it");
        }
    }

    #[test]
    fn names_lead_nowhere_else() {
        for name in [
            "m/code/a.py",
            "m/data/0",
            "m/",
            "a..b",
            ".data/version",
            &"n".repeat(MAX_ENTRY_NAME),
        ] {
            assert_eq!(refused(&[written(name, 0)]), "", "{name}");
        }
        let long = "n".repeat(MAX_ENTRY_NAME + 1);
        for name in [
            "",
            "/etc/passwd",
            "../x",
            "m/../../x",
            "m//x",
            "m/./x",
            "m\\..\\x",
            "C:x",
            "m\0x",
            &long,
        ] {
            assert!(refused(&[written(name, 0)]).contains("has a name"), "{name}");
        }
        assert!(refused(&[written("a", 0), written("a", 0)]).contains("two entries"));
    }

    #[test]
    fn links_and_devices_are_no_members() {
        for (mode, passes) in [
            (0, true),
            (0o100_755, true),
            (0o040_755, true),
            (0o120_777, false),
            (0o060_600, false),
        ] {
            let entry = Written {
                mode,
                ..written("m/x", 0)
            };
            assert_eq!(refused(&[entry]).is_empty(), passes, "{mode:o}");
        }
    }

    #[test]
    fn what_is_no_archive_is_left_to_others_and_a_cut_directory_is_not() {
        assert_eq!(problem(b"no zip".to_vec(), 0), None);
        let mut cut = zip(&[written("a", 0), written("b", 0)], 0);
        // The second entry's name goes on beyond the directory.
        let second = 47 + 28;
        cut[second] = 200;
        assert!(problem(cut, 1).is_some_and(|text| text.contains("cut short")));
    }

    #[test]
    fn the_entries_that_are_said_are_those_that_are_there() {
        let whole = zip(&[written("a", 0), written("b", 0)], 0);
        let end = whole.len() - 22;
        // An end that says fewer and more, and a directory that ends early, so that nothing of it would be looked at.
        for (at, value) in [(10, 1), (10, 3), (12, 0), (12, 47), (16, 1)] {
            let mut bytes = whole.clone();
            bytes[end + at] = value;
            let problem = problem(bytes, u64::MAX).unwrap_or_default();
            assert!(problem.starts_with("its directory"), "{at} {value}: {problem}");
        }
        // An entry within another, where it has a comment.
        let mut hidden = whole.clone();
        hidden[32] = 47;
        hidden[end + 10] = 1;
        let problem = problem(hidden, u64::MAX).unwrap_or_default();
        assert!(problem.starts_with("its directory"), "{problem}");
        let behind = [&whole[..], b"PK\x05\x06"].concat();
        let problem = archive_problem(&mut Cursor::new(behind), u64::MAX).unwrap();
        assert!(problem.is_some(), "another end that is cut short");
    }
}
