//! The bytes of a segment: its name, its header and its frames.

use super::{Head, MAX_FRAME_BYTES};
use crate::StorageError;

const SEGMENT_MAGIC: [u8; 8] = *b"MESHJNL1";
const FRAME_MAGIC: [u8; 4] = *b"MFR1";
const HASH_BYTES: usize = 32;
const SUFFIX: &str = ".journal";
/// Magic, first revision, hash of all before, CRC-32 of these.
pub(super) const HEADER_BYTES: usize = 8 + 8 + HASH_BYTES + 4;
/// Magic, length, CRC-32 of length and payload.
const FRAME_HEADER_BYTES: usize = 4 + 4 + 4;

/// The name of the segment that begins with this revision.
pub(super) fn segment_name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// The first revision of the segment with this name, if it is one's.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let first = name.strip_suffix(SUFFIX)?.parse().ok()?;
    (segment_name(first) == name).then_some(first)
}

/// The header of the segment that follows the head.
pub(super) fn header(head: Head) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    bytes.extend_from_slice(&SEGMENT_MAGIC);
    bytes.extend_from_slice(&(head.revision + 1).to_be_bytes());
    bytes.extend_from_slice(&head.hash);
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_be_bytes());
    bytes
}

/// The head that a segment follows.
pub(super) fn read_header(bytes: &[u8]) -> Result<Head, &'static str> {
    let header = bytes.get(..HEADER_BYTES).ok_or("its header is cut off")?;
    let (body, crc) = header.split_last_chunk::<4>().ok_or("its header is cut off")?;
    if crc32fast::hash(body) != u32::from_be_bytes(*crc) {
        return Err("its header's checksum is wrong");
    }
    let body = body.strip_prefix(&SEGMENT_MAGIC).ok_or("it is no segment")?;
    let (first, hash) = body.split_first_chunk::<8>().ok_or("its header is cut off")?;
    let hash = <[u8; HASH_BYTES]>::try_from(hash).map_err(|_| "its header is cut off")?;
    let revision = u64::from_be_bytes(*first)
        .checked_sub(1)
        .ok_or("it begins at revision 0")?;
    Ok(Head { revision, hash })
}

/// A frame around a payload.
pub(super) fn encode(payload: &[u8]) -> Result<Vec<u8>, StorageError> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= MAX_FRAME_BYTES);
    let length = length.ok_or(StorageError::Io {
        doing: "append a write to the journal: it is too large",
        kind: std::io::ErrorKind::FileTooLarge,
    })?;
    let length = length.to_be_bytes();
    let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&FRAME_MAGIC);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&checksum(length, payload).to_be_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// The payload of the frame that begins here, and how long the frame is.
pub(super) fn read(bytes: &[u8]) -> Result<(&[u8], usize), &'static str> {
    let rest = bytes.strip_prefix(&FRAME_MAGIC).ok_or("there is no frame here")?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or("the frame is cut off")?;
    let (crc, rest) = rest.split_first_chunk::<4>().ok_or("the frame is cut off")?;
    let payload_bytes = u32::from_be_bytes(*length) as usize;
    if payload_bytes > MAX_FRAME_BYTES {
        return Err("the frame's length is more than a frame's can be");
    }
    let payload = rest.get(..payload_bytes).ok_or("the frame is cut off")?;
    if checksum(*length, payload) != u32::from_be_bytes(*crc) {
        return Err("the frame's checksum is wrong");
    }
    Ok((payload, FRAME_HEADER_BYTES + payload_bytes))
}

/// Whether a whole frame begins anywhere in these bytes.
pub(super) fn any_in(bytes: &[u8]) -> bool {
    let starts = bytes.windows(FRAME_MAGIC.len()).enumerate();
    starts
        .filter(|(_, window)| *window == FRAME_MAGIC)
        .any(|(at, _)| bytes.get(at..).is_some_and(|rest| read(rest).is_ok()))
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}
