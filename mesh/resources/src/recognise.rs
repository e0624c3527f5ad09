//! What kind of model a file is, by what it holds.
//!
//! Both kinds that libtorch runs are zip files; which one it is follows from the names of their members. Reads the end of the
//! file and a bounded part of its directory, and nothing else; answers none for whatever it does not know.

use std::io::{Read, Seek, SeekFrom};

use mesh_types::ArtifactFormat;

/// How far from its end a zip file's last record may begin: the record, and the longest comment.
pub(crate) const TAIL_BYTES: u64 = 22 + 65_535;
/// How much of the directory is read.
const DIRECTORY_BYTES: u64 = 4 << 20;
pub(crate) const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const LOCATOR_BYTES: usize = 20;
const RECORD_BYTES: u64 = 56;
pub(crate) const ENTRY: &[u8] = b"PK\x01\x02";
/// Every compiled model is in a folder of this name.
const COMPILED: &str = "data/aotinductor/";
/// Every TorchScript archive has it, and what `torch.save` writes has not.
const CONSTANTS: &str = "constants.pkl";

/// The kind of a file; none where it is of no kind that is known.
pub fn recognise(file: &mut (impl Read + Seek)) -> std::io::Result<Option<ArtifactFormat>> {
    let length = file.seek(SeekFrom::End(0))?;
    let tail = part(file, length.saturating_sub(TAIL_BYTES), TAIL_BYTES)?;
    let Found::At(found) = directory(file, length, &tail)? else {
        return Ok(None);
    };
    let directory = part(file, found.begin, found.size.min(DIRECTORY_BYTES))?;
    Ok(kind(&directory))
}

pub(crate) fn part(file: &mut (impl Read + Seek), from: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where an archive's directory is, and how many entries its end says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) begin: u64,
    pub(crate) size: u64,
    pub(crate) entries: u64,
}

/// What the end of a file says of it as an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    NoArchive,
    /// It says what readers of archives take in different ways: its last record is cut or has something behind it, is not right behind
    /// the directory, or disagrees with the one for large files.
    Ambiguous,
    At(Directory),
}

impl Found {
    /// A directory that ends where this record begins: whoever looks for it from either end finds the same.
    fn right_before(directory: Option<Directory>, record: u64) -> Self {
        let ends = |found: &Directory| found.begin.checked_add(found.size) == Some(record);
        directory.filter(ends).map_or(Self::Ambiguous, Self::At)
    }
}

/// Looks for the directory of a file of this length by its last bytes.
pub(crate) fn directory(file: &mut (impl Read + Seek), length: u64, tail: &[u8]) -> std::io::Result<Found> {
    let Some(end) = tail.windows(END.len()).rposition(|window| window == END) else {
        return Ok(Found::NoArchive);
    };
    let whole = half(tail, end + 20).is_some_and(|comment| end + 22 + usize::from(comment) == tail.len());
    if !whole {
        return Ok(Found::Ambiguous);
    }
    let at = length.saturating_sub((tail.len() - end) as u64);
    let (Some(entries), Some(size), Some(begin)) = (half(tail, end + 10), word(tail, end + 12), word(tail, end + 16))
    else {
        return Ok(Found::Ambiguous);
    };
    let said = Directory {
        begin: begin.into(),
        size: size.into(),
        entries: entries.into(),
    };
    // The numbers of a large file are in another record, which a third one finds. libtorch writes both for files of any size.
    let locator = end
        .checked_sub(LOCATOR_BYTES)
        .filter(|at| tail.get(*at..).is_some_and(|rest| rest.starts_with(LOCATOR_64)));
    let Some(locator) = locator else {
        return Ok(Found::right_before(Some(said), at));
    };
    let Some(place) = long(tail, locator + 8) else {
        return Ok(Found::Ambiguous);
    };
    let record = part(file, place, RECORD_BYTES)?;
    let is_there = place.checked_add(RECORD_BYTES + LOCATOR_BYTES as u64) == Some(at);
    let agrees = |found: &Directory| {
        (size == u32::MAX || found.size == said.size)
            && (begin == u32::MAX || found.begin == said.begin)
            && (entries == u16::MAX || found.entries == said.entries)
    };
    let large = is_there.then(|| large(&record)).flatten().filter(agrees);
    Ok(Found::right_before(large, place))
}

/// What the record of large files says. It has no more than its own fields, and is of one disk.
fn large(record: &[u8]) -> Option<Directory> {
    let is_whole = record.starts_with(END_64) && long(record, 4)? == RECORD_BYTES - 12;
    let is_one_disk = long(record, 16)? == 0 && long(record, 24)? == long(record, 32)?;
    (is_whole && is_one_disk).then_some(Directory {
        entries: long(record, 32)?,
        size: long(record, 40)?,
        begin: long(record, 48)?,
    })
}

fn kind(directory: &[u8]) -> Option<ArtifactFormat> {
    let (mut rest, mut script) = (directory, false);
    while rest.starts_with(ENTRY) {
        let lengths = [28, 30, 32].map(|at| half(rest, at).map(usize::from));
        let [Some(name), Some(extra), Some(comment)] = lengths else {
            break;
        };
        let Some(text) = rest.get(46..46 + name) else { break };
        let text = String::from_utf8_lossy(text);
        if text.contains(COMPILED) {
            return Some(ArtifactFormat::TorchAoti);
        }
        script |= text == CONSTANTS || text.ends_with("/constants.pkl");
        rest = rest.get(46 + name + extra + comment..).unwrap_or_default();
    }
    script.then_some(ArtifactFormat::TorchScript)
}

pub(crate) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(crate) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A zip file of empty members, with its numbers in the usual record or in that of large files.
    fn zip(names: &[&str], large: bool) -> Vec<u8> {
        let mut bytes = b"members".to_vec();
        let begin = bytes.len();
        for name in names {
            let mut entry = [ENTRY, &[0; 42]].concat();
            entry[28..30].copy_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
            entry[30] = 3;
            entry.extend_from_slice(name.as_bytes());
            entry.extend_from_slice(b"xyz");
            bytes.extend(entry);
        }
        let size = bytes.len() - begin;
        if large {
            let record = bytes.len();
            let mut end = [END_64, &[0; 52]].concat();
            end[4..12].copy_from_slice(&44_u64.to_le_bytes());
            end[24..32].copy_from_slice(&(names.len() as u64).to_le_bytes());
            end[32..40].copy_from_slice(&(names.len() as u64).to_le_bytes());
            end[40..48].copy_from_slice(&(size as u64).to_le_bytes());
            end[48..56].copy_from_slice(&(begin as u64).to_le_bytes());
            bytes.extend(end);
            let mut locator = [LOCATOR_64, &[0; 16]].concat();
            locator[8..16].copy_from_slice(&(record as u64).to_le_bytes());
            bytes.extend(locator);
        }
        let mut end = [END, &[0; 18]].concat();
        let number = |value: usize| if large { u32::MAX } else { u32::try_from(value).unwrap() };
        end[10..12].copy_from_slice(&u16::try_from(names.len()).unwrap().to_le_bytes());
        end[12..16].copy_from_slice(&number(size).to_le_bytes());
        end[16..20].copy_from_slice(&number(begin).to_le_bytes());
        bytes.extend(end);
        bytes
    }

    fn found(bytes: Vec<u8>) -> Option<ArtifactFormat> {
        recognise(&mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn members_tell_the_kinds_apart() {
        for large in [false, true] {
            let script = ["m/data.pkl", "m/code/__torch__.py", "m/constants.pkl"];
            assert_eq!(found(zip(&script, large)), Some(ArtifactFormat::TorchScript));
            let package = ["m/archive_format", "m/data/aotinductor/model/a.wrapper.so"];
            assert_eq!(found(zip(&package, large)), Some(ArtifactFormat::TorchAoti));
            assert_eq!(found(zip(&["m/data.pkl", "m/byteorder"], large)), None);
        }
    }

    #[test]
    fn whatever_else_is_of_no_known_kind() {
        let whole = zip(&["m/constants.pkl"], true);
        for length in 0..whole.len() {
            let _ = found(whole[..length].to_vec());
        }
        assert_eq!(found(b"not a zip file".to_vec()), None);
        assert_eq!(found(Vec::new()), None);
        let mut odd = zip(&["m/constants.pkl"], false);
        let length = odd.len();
        odd[length - 6..length - 2].copy_from_slice(&[0xFF, 0xFF, 0xFF, 0x7F]);
        assert_eq!(found(odd), None);
    }

    #[test]
    fn of_a_file_whose_end_can_be_read_in_two_ways_no_directory_is_believed() {
        let place = |bytes: &[u8]| {
            let tail = &bytes[bytes.len().saturating_sub(1_000)..];
            directory(&mut Cursor::new(bytes), bytes.len() as u64, tail).unwrap()
        };
        for large in [false, true] {
            let fine = zip(&["m/constants.pkl", "m/x"], large);
            let Found::At(found) = place(&fine) else {
                panic!("not found")
            };
            assert_eq!((found.begin, found.entries), (7, 2));
            // Something in front, which moves the directory but not what is said of it.
            let moved = [&b"PK"[..], &fine].concat();
            // Something behind, and an end of which too little is there.
            let behind = [&fine[..], b"x"].concat();
            let cut = [&fine[..], END, &[0; 17]].concat();
            // Something between the directory and its end.
            let end = if large { 98 } else { 22 };
            let (before, after) = fine.split_at(fine.len() - end);
            let between = [before, b"x", after].concat();
            for bytes in [moved, behind, cut, between] {
                assert_eq!(place(&bytes), Found::Ambiguous, "large: {large}");
            }
            // A comment is behind the end, and is said.
            let mut commented = [&fine[..], b"xy"].concat();
            commented[fine.len() - 2] = 2;
            assert_eq!(place(&commented), Found::At(found));
        }
        // What is said twice is said alike.
        let mut twice = zip(&["m/constants.pkl"], true);
        let end = twice.len() - 22;
        twice[end + 16..end + 20].copy_from_slice(&7_u32.to_le_bytes());
        assert!(matches!(place(&twice), Found::At(_)));
        twice[end + 16..end + 20].copy_from_slice(&8_u32.to_le_bytes());
        assert_eq!(place(&twice), Found::Ambiguous);
    }
}
