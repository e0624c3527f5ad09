//! The journal on a disk that loses what was not fsynced.

use std::ops::ControlFlow;

use jiff::Timestamp;

use super::*;
use crate::testing::{Dice, LossyFiles, admin, key};

const FOLDER: &str = "/j";

fn record(revision: u64) -> Record {
    let change = RecordedChange {
        key: key("Tenant/acme"),
        before: None,
        after: None,
        record: None,
    };
    Record::new(revision, Timestamp::UNIX_EPOCH, admin(), vec![change])
}

fn place(files: &LossyFiles) -> Place {
    Place::new(Arc::new(files.clone()), Path::new(FOLDER), SealKey::derive(b"key"))
}

fn segments_of(segment_bytes: u64) -> JournalLimits {
    JournalLimits {
        segment_bytes,
        ..JournalLimits::default()
    }
}

fn open_known(files: &LossyFiles, limits: JournalLimits, known: u64) -> Result<(Journal, u64), StorageError> {
    let mut told = 0;
    let place = place(files);
    let base = Journal::base(&place)?;
    let journal = Journal::open(place, limits, &base, known, &mut |record, head| {
        assert_eq!((record.revision, head.revision), (told + 1, told + 1));
        told += 1;
        ControlFlow::Continue(())
    })?;
    Ok((journal, told))
}

fn open(files: &LossyFiles) -> Result<(Journal, u64), StorageError> {
    open_known(files, JournalLimits::default(), 0)
}

fn append(journal: &mut Journal) -> Result<(), StorageError> {
    let next = record(journal.head().revision + 1);
    journal.append(&[next]).map(drop)
}

#[test]
fn what_was_appended_is_there_after_the_power_went() {
    let files = LossyFiles::default();
    let (mut journal, _) = open(&files).unwrap();
    for _ in 0..3 {
        append(&mut journal).unwrap();
    }
    let head = journal.head();
    files.crash(|_| 0);
    let (journal, told) = open(&files).unwrap();
    assert_eq!((told, journal.head()), (3, head));
}

#[test]
fn several_writes_in_one_append_cost_one_fsync() {
    let files = LossyFiles::default();
    let (mut journal, _) = open(&files).unwrap();
    append(&mut journal).unwrap();
    let before = files.syncs();
    journal.append(&[record(2), record(3), record(4)]).unwrap();
    assert_eq!(files.syncs(), before + 1);
    drop(journal);
    assert_eq!(open(&files).unwrap().1, 4);
}

#[test]
fn a_torn_end_is_cut_off_wherever_it_is_torn() {
    let mut frame_length = 1;
    let mut at = 0;
    while at < frame_length {
        let files = LossyFiles::default();
        let (mut journal, _) = open(&files).unwrap();
        append(&mut journal).unwrap();
        // Neither the append nor the cut that would undo it reach the disk.
        files.fail_syncs(usize::MAX);
        files.fail_cuts(usize::MAX);
        assert!(append(&mut journal).is_err());
        files.crash(|lost| {
            frame_length = frame_length.max(lost);
            at.min(lost)
        });
        files.fail_syncs(0);
        files.fail_cuts(0);
        let (mut journal, told) = open(&files).unwrap();
        assert_eq!(told, 1, "torn after {at} bytes");
        append(&mut journal).unwrap();
        drop(journal);
        assert_eq!(open(&files).unwrap().1, 2);
        at += 1;
    }
    assert!(frame_length > 100, "{frame_length}");
}

#[test]
fn a_torn_segment_without_a_write_is_removed() {
    for at in 0..frame::HEADER_BYTES {
        let files = LossyFiles::default();
        let (mut journal, _) = open(&files).unwrap();
        append(&mut journal).unwrap();
        let torn = Path::new(FOLDER).join(frame::segment_name(2));
        let header = frame::header(journal.head());
        files.create(&torn).unwrap();
        files.edit(&torn, |bytes| bytes.extend_from_slice(&header[..at]));
        let (mut journal, told) = open(&files).unwrap();
        assert_eq!(told, 1);
        append(&mut journal).unwrap();
        drop(journal);
        assert_eq!(open(&files).unwrap().1, 2);
    }
}

#[test]
fn an_append_whose_fsync_failed_never_happened() {
    let files = LossyFiles::default();
    let (mut journal, _) = open(&files).unwrap();
    append(&mut journal).unwrap();
    for (syncs, cuts) in [(1, 0), (2, 0), (1, 1)] {
        files.fail_syncs(syncs);
        files.fail_cuts(cuts);
        let head = journal.head();
        assert!(append(&mut journal).is_err());
        assert_eq!(journal.head(), head);
    }
    files.fail_syncs(0);
    append(&mut journal).unwrap();
    files.crash(|lost| lost);
    let (journal, told) = open(&files).unwrap();
    assert_eq!((told, journal.head().revision), (2, 2));
}

#[test]
fn a_segment_that_could_not_be_begun_is_begun_again() {
    let files = LossyFiles::default();
    let limits = segments_of(1);
    let (mut journal, _) = open_known(&files, limits, 0).unwrap();
    append(&mut journal).unwrap();
    for failing in 1..=4 {
        files.fail_syncs(failing);
        assert!(append(&mut journal).is_err());
        files.fail_syncs(0);
        append(&mut journal).unwrap();
    }
    files.crash(|_| 0);
    assert_eq!(open(&files).unwrap().1, 5);
}

#[test]
fn a_segment_ends_at_its_bound_and_not_a_byte_before() {
    let files = LossyFiles::default();
    let (mut journal, _) = open(&files).unwrap();
    append(&mut journal).unwrap();
    append(&mut journal).unwrap();
    let two = files.read(&files.paths()[0]).unwrap().len() as u64;
    for (segment_bytes, segments) in [(two, 1), (two - 1, 2)] {
        let files = LossyFiles::default();
        let (mut journal, _) = open_known(&files, segments_of(segment_bytes), 0).unwrap();
        append(&mut journal).unwrap();
        append(&mut journal).unwrap();
        assert_eq!(files.paths().len(), segments);
        files.crash(|_| 0);
        assert_eq!(open(&files).unwrap().1, 2);
    }
}

#[test]
fn a_frame_of_the_bound_passes_and_one_byte_more_does_not() {
    let frame = frame::encode(&vec![1; MAX_FRAME_BYTES]).unwrap();
    assert_eq!(frame::read(&frame).unwrap().0.len(), MAX_FRAME_BYTES);
    assert!(frame::encode(&vec![1; MAX_FRAME_BYTES + 1]).is_err());
}

/// Three segments of three writes each.
fn three_segments() -> LossyFiles {
    let files = LossyFiles::default();
    let (mut journal, _) = open(&files).unwrap();
    append(&mut journal).unwrap();
    let one = files.read(&files.paths()[0]).unwrap().len() as u64 - frame::HEADER_BYTES as u64;
    let files = LossyFiles::default();
    let limits = segments_of(frame::HEADER_BYTES as u64 + 3 * one + one / 2);
    let (mut journal, _) = open_known(&files, limits, 0).unwrap();
    for _ in 0..9 {
        append(&mut journal).unwrap();
    }
    assert_eq!(files.paths().len(), 3);
    files
}

#[test]
fn any_flipped_bit_is_an_error_that_names_segment_and_offset() {
    let mut dice = Dice(7);
    for _ in 0..300 {
        let files = three_segments();
        let path = files.paths()[dice.below(3)].clone();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let (mut at, mut length) = (0, 0);
        files.edit(&path, |bytes| {
            length = bytes.len();
            at = dice.below(length);
            bytes[at] ^= 1 << dice.below(8);
        });
        let before = files.read(&path).unwrap();
        match open_known(&files, JournalLimits::default(), 9).err() {
            Some(StorageError::Journal { segment, offset, .. }) => {
                assert_eq!(segment, name);
                assert!(offset <= at as u64, "{offset} {at}");
            }
            // The last frame may be torn; that it was acknowledged is known from elsewhere.
            Some(StorageError::JournalBehind { journal: 8, index: 9 }) => assert!(name.ends_with("7.journal")),
            other => panic!("{name} at {at} of {length}: {other:?}"),
        }
        assert_eq!(files.read(&path).unwrap(), before, "nothing was changed");
    }
}

#[test]
fn a_missing_segment_is_an_error() {
    for (missing, wanted) in [(0, "segments before it end at 0"), (1, "segments before it end at 3")] {
        let files = three_segments();
        files.remove(&files.paths()[missing]).unwrap();
        let error = open(&files).err().unwrap().to_string();
        assert!(error.contains(wanted), "{error}");
    }
    let files = three_segments();
    files.remove(&files.paths()[2]).unwrap();
    let behind = StorageError::JournalBehind { journal: 6, index: 9 };
    assert_eq!(open_known(&files, JournalLimits::default(), 9).err(), Some(behind));
}

#[test]
fn an_edited_record_with_its_checksum_made_right_breaks_the_chain() {
    let files = three_segments();
    let path = files.paths()[1].clone();
    files.edit(&path, |bytes| {
        let (payload, length) = frame::read(&bytes[frame::HEADER_BYTES..]).unwrap();
        let text = String::from_utf8(payload.to_vec()).unwrap();
        let edited = text.replace("admin:root", "admin:boot");
        assert_ne!(text, edited);
        let frame = frame::encode(edited.as_bytes()).unwrap();
        bytes.splice(frame::HEADER_BYTES..frame::HEADER_BYTES + length, frame);
    });
    let error = open(&files).err().unwrap();
    assert!(
        matches!(&error, StorageError::Journal { offset, why, .. }
            if *offset == frame::HEADER_BYTES as u64 && why.contains("the hash of revision 4")),
        "{error}"
    );
}

#[test]
fn a_walk_from_the_middle_reads_no_segment_before_it() {
    let files = three_segments();
    files.edit(&files.paths()[0].clone(), Vec::clear);
    let mut told = Vec::new();
    let walked = walk(&files, Path::new(FOLDER), Start::At(6), &mut |record, _| {
        told.push(record.revision);
        ControlFlow::Continue(())
    });
    assert_eq!(walked.unwrap().segments, 2);
    assert_eq!(told, [4, 5, 6, 7, 8, 9]);
}

#[test]
fn a_segment_is_written_byte_for_byte_as_version_2_wrote_it_and_reads() {
    let files = LossyFiles::default();
    let (mut journal, _) = open(&files).unwrap();
    journal.append(&[record(1), record(2)]).unwrap();
    append(&mut journal).unwrap();
    let path = files.paths()[0].clone();
    assert!(path.ends_with("00000000000000000001.journal"));
    assert_eq!(
        files.read(&path).unwrap(),
        include_bytes!("../../tests/golden/segment.v2.journal")
    );
    assert_eq!(open(&files).unwrap().1, 3);
}

#[test]
fn a_segment_of_version_1_is_read_and_gone_on_with() {
    let files = LossyFiles::default();
    let path = Path::new(FOLDER).join("00000000000000000001.journal");
    let mut file = files.create(&path).unwrap();
    file.write(include_bytes!("../../tests/golden/segment.v1.journal"))
        .unwrap();
    let (mut journal, read) = open(&files).unwrap();
    assert_eq!(read, 3);
    append(&mut journal).unwrap();
    assert_eq!(open(&files).unwrap().1, 4);
    // It is held to its hashes, too.
    files.edit(&path, |bytes| {
        let at = bytes.windows(5).position(|part| part == b"admin").unwrap();
        bytes[at] ^= 1;
    });
    assert!(open(&files).is_err());
}
