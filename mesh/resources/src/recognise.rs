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
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
pub(crate) const ENTRY: &[u8] = b"PK\x01\x02";
/// Every compiled model is in a folder of this name.
const COMPILED: &str = "data/aotinductor/";
/// Every TorchScript archive has it, and what `torch.save` writes has not.
const CONSTANTS: &str = "constants.pkl";

/// The kind of a file; none where it is of no kind that is known.
pub fn recognise(file: &mut (impl Read + Seek)) -> std::io::Result<Option<ArtifactFormat>> {
    let length = file.seek(SeekFrom::End(0))?;
    let tail = part(file, length.saturating_sub(TAIL_BYTES), TAIL_BYTES)?;
    let Some((begin, size)) = directory(file, &tail)? else {
        return Ok(None);
    };
    let directory = part(file, begin, size.min(DIRECTORY_BYTES))?;
    Ok(kind(&directory))
}

pub(crate) fn part(file: &mut (impl Read + Seek), from: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(from))?;
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where the directory begins, and its size.
pub(crate) fn directory(file: &mut (impl Read + Seek), tail: &[u8]) -> std::io::Result<Option<(u64, u64)>> {
    let Some(end) = tail.windows(END.len()).rposition(|window| window == END) else {
        return Ok(None);
    };
    let (size, begin) = (word(tail, end + 12), word(tail, end + 16));
    let (Some(size), Some(begin)) = (size, begin) else {
        return Ok(None);
    };
    if size != u32::MAX && begin != u32::MAX {
        return Ok(Some((begin.into(), size.into())));
    }
    // Of a large file the numbers are in another record, which a third one finds.
    let locator = end
        .checked_sub(20)
        .filter(|at| tail.get(*at..).is_some_and(|rest| rest.starts_with(LOCATOR_64)));
    let Some(record) = locator.and_then(|at| long(tail, at + 8)) else {
        return Ok(None);
    };
    let record = part(file, record, 56)?;
    if !record.starts_with(END_64) {
        return Ok(None);
    }
    Ok(long(&record, 48).zip(long(&record, 40)))
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
            end[40..48].copy_from_slice(&(size as u64).to_le_bytes());
            end[48..56].copy_from_slice(&(begin as u64).to_le_bytes());
            bytes.extend(end);
            let mut locator = [LOCATOR_64, &[0; 16]].concat();
            locator[8..16].copy_from_slice(&(record as u64).to_le_bytes());
            bytes.extend(locator);
        }
        let mut end = [END, &[0; 18]].concat();
        let number = |value: usize| if large { u32::MAX } else { u32::try_from(value).unwrap() };
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
}
