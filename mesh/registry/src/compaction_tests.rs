//! Compaction: what it leaves opens with all that was acknowledged, wherever the power goes and whatever is damaged.

use std::{path::Path, sync::Arc};

use mesh_types::ManualClock;

use crate::{
    Artifacts, Author, Change, Files as _, JournalLimits, MAX_RESOURCES, MemoryStore, RegistryConfig, RegistryError,
    SealKey, State, StorageError, Store as _,
    audit::verify,
    journal::{Base, Head, Journal, Place, begins, snapshot},
    ledger::{Ledger, LedgerParts, Request},
    registry::reopen,
    testing::{Bench, Dice, LossyFiles, START, admin, config, key, settled, tenant},
};

/// A segment for each write, a snapshot after two, and one segment of history.
const TINY: JournalLimits = JournalLimits {
    segment_bytes: 1,
    snapshot_segments: 2,
    archived_segments: 1,
};

/// A writer with an index in memory, over files that can lose their power.
struct Desk {
    ledger: Ledger,
    place: Place,
    store: Arc<MemoryStore>,
    head: Arc<parking_lot::Mutex<Head>>,
    _folder: tempfile::TempDir,
}

impl Desk {
    fn open_after(
        files: &LossyFiles,
        journal: JournalLimits,
        key: SealKey,
        known: Head,
    ) -> Result<Self, RegistryError> {
        let folder = tempfile::tempdir().unwrap();
        let config = RegistryConfig {
            files: Arc::new(files.clone()),
            journal,
            key,
            folder: "/r".into(),
            ..config(folder.path())
        };
        let store = Arc::new(MemoryStore::default());
        let parts = LedgerParts {
            store: store.clone(),
            artifacts: Artifacts::open(&folder.path().join("artifacts"), 1).unwrap(),
            clock: Arc::new(ManualClock::at(START)),
            head: Arc::new(parking_lot::Mutex::new(known)),
            max_resources: MAX_RESOURCES,
            signer: None,
            required_signers: Vec::new(),
        };
        let place = config.place();
        Ok(Self {
            ledger: reopen(&config, &place, &parts)?,
            place,
            store,
            head: parts.head,
            _folder: folder,
        })
    }

    /// The same by somebody who knows what was acknowledged, as an index does.
    fn open_known(files: &LossyFiles, revision: u64) -> Result<Self, RegistryError> {
        let known = Head {
            revision,
            ..Default::default()
        };
        Self::open_after(files, TINY, SealKey::derive(b"key"), known)
    }

    fn open_with(files: &LossyFiles, journal: JournalLimits, key: SealKey) -> Result<Self, RegistryError> {
        Self::open_after(files, journal, key, Head::default())
    }

    fn open(files: &LossyFiles) -> Result<Self, RegistryError> {
        Self::open_with(files, TINY, SealKey::derive(b"key"))
    }

    /// One write, and what the writer does after it; whether it was acknowledged.
    fn put(&mut self, name: &str) -> bool {
        let request = Request {
            by: admin(),
            changes: vec![Change::put(tenant(name))],
            event: None,
            seal: false,
        };
        let done = self.ledger.commit(vec![request]).remove(0).is_ok();
        self.ledger.compact_if_due();
        done
    }

    fn state(&self) -> State {
        self.store.state().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.place.names().unwrap();
        names.sort();
        names
    }

    fn snapshots(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| snapshot::revision_of(name).is_some());
        names
    }

    fn verify(&self) -> Result<crate::AuditSummary, StorageError> {
        verify(&self.place, Some(*self.head.lock()), None)
    }
}

fn filled(writes: usize) -> (LossyFiles, State) {
    let files = LossyFiles::default();
    let mut desk = Desk::open(&files).unwrap();
    for index in 0..writes {
        assert!(desk.put(&format!("t{index}")));
    }
    let state = desk.state();
    (files, state)
}

fn in_journal(name: &str) -> std::path::PathBuf {
    Path::new("/r/journal").join(name)
}

#[test]
fn at_whichever_step_of_a_compaction_the_power_goes_every_acknowledged_write_is_there() {
    const WRITES: usize = 9;
    let (mut steps, mut cut_short) = (0, 0);
    loop {
        for (torn, names_stay) in [(0, false), (1, false), (2, false), (0, true), (1, true), (2, true)] {
            let files = LossyFiles::default();
            let mut desk = Desk::open(&files).unwrap();
            files.dark_after(Some(steps));
            let acknowledged = (0..WRITES).take_while(|index| desk.put(&format!("t{index}"))).count();
            let was_dark = files.is_dark();
            drop(desk);
            let keep = |lost: usize| [0, lost / 2, lost][torn];
            if names_stay {
                files.crash_keeping_names(keep);
            } else {
                files.crash(keep);
            }
            files.dark_after(None);
            let at = format!("after {steps} steps, torn {torn}, names stay: {names_stay}");
            let mut desk = Desk::open(&files).unwrap_or_else(|error| panic!("{at}: {error}"));
            let found = desk.state().entries.len();
            assert!(
                (acknowledged..=acknowledged + 1).contains(&found),
                "{at}: {found} of {acknowledged}"
            );
            for index in 0..acknowledged {
                let there = desk.store.get(&key(&format!("Tenant/t{index}")).to_string()).unwrap();
                assert_eq!(there.map(|stored| stored.revision), Some(index as u64 + 1), "{at}");
            }
            desk.verify().unwrap_or_else(|error| panic!("{at}: {error}"));
            assert!(desk.names().iter().all(|name| !name.ends_with(".new")), "{at}");
            for index in 0..5 {
                assert!(desk.put(&format!("more{index}")), "{at}");
            }
            let state = desk.state();
            desk.verify().unwrap_or_else(|error| panic!("{at}: {error}"));
            files.crash(|_| 0);
            assert_eq!(Desk::open(&files).unwrap().state(), state, "{at}");
            cut_short += usize::from(was_dark);
            if !was_dark {
                assert_eq!(acknowledged, WRITES);
            }
        }
        steps += 1;
        if cut_short < 6 * steps {
            break;
        }
    }
    println!("{steps} places to lose power at, six ways each");
    assert!(steps > 70, "{steps}");
}

#[test]
fn an_opening_reads_the_snapshot_and_what_follows_however_much_was_written() {
    for writes in [10, 100, 400] {
        let (files, state) = filled(writes);
        let place = Desk::open(&files).unwrap().place;
        let base = Journal::base(&place).unwrap();
        let mut told = 0;
        let journal = Journal::open(place.clone(), TINY, &base, 0, &mut |_, _| {
            told += 1;
            std::ops::ControlFlow::Continue(())
        });
        let read = journal.unwrap().writes_read();
        assert_eq!(read, told, "nothing that the snapshot covers is read");
        assert_eq!(base.head.revision + read, writes as u64);
        assert!(read <= TINY.snapshot_segments as u64 + 1, "{read} of {writes}");
        assert!(place.names().unwrap().len() <= 10, "{:?}", place.names());
        assert_eq!(Desk::open(&files).unwrap().state(), state);
    }
}

#[test]
fn a_snapshot_is_written_when_so_many_segments_have_ended_and_not_one_before() {
    let files = LossyFiles::default();
    let mut desk = Desk::open(&files).unwrap();
    // Two ended segments, and the third that the third write began.
    for (write, snapshots) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 1), (6, 2)] {
        assert!(desk.put(&format!("t{write}")));
        assert_eq!(
            desk.snapshots().len(),
            snapshots,
            "after write {write}: {:?}",
            desk.names()
        );
    }
    assert_eq!(desk.snapshots(), [snapshot::name(3), snapshot::name(6)]);
}

#[test]
fn an_opening_compacts_what_a_mesh_without_snapshots_left() {
    let folder = tempfile::tempdir().unwrap();
    let with = |snapshot_segments| RegistryConfig {
        journal: JournalLimits {
            snapshot_segments,
            ..TINY
        },
        ..config(folder.path())
    };
    actix::System::new().block_on(async {
        let bench = Bench::open(with(usize::MAX)).unwrap();
        for index in 0..12 {
            let change = Change::put(tenant(&format!("t{index}")));
            bench.registry.handle().write(admin(), vec![change]).await.unwrap();
        }
        let all = bench.registry.handle().all().unwrap();
        bench.close().await;
        let bench = Bench::open(with(2)).unwrap();
        let place = with(2).place();
        assert_eq!(Journal::base(&place).unwrap().head.revision, 12);
        assert_eq!(bench.registry.handle().all().unwrap(), all);
        bench.close().await;
    });
}

#[test]
fn the_audit_log_says_where_it_begins_and_is_whole_from_there() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let bench = Bench::open(RegistryConfig {
            journal: JournalLimits {
                archived_segments: 4,
                ..TINY
            },
            ..config(folder.path())
        })
        .unwrap();
        let registry = bench.registry.handle();
        for index in 0..20 {
            let change = Change::put(tenant(&format!("t{index}")));
            registry.write(admin(), vec![change]).await.unwrap();
        }
        registry.note(Author::mesh("test"), "backup").await.unwrap();
        settled(&registry).await;
        let page = registry.audit(0, 100).unwrap();
        let revisions: Vec<u64> = page.entries.iter().map(|entry| entry.revision).collect();
        assert!(page.begins > 1, "{}", page.begins);
        assert_eq!(revisions, (page.begins..=21).collect::<Vec<_>>());
        // Four segments of one write each lie behind the newest snapshot, and what follows it.
        assert!(revisions.len() >= 4 && revisions.len() <= 4 + 4, "{revisions:?}");
        let last = page.entries.last().unwrap();
        assert_eq!((last.event.as_deref(), last.changes.len()), (Some("backup"), 0));
        let summary = registry.verify_audit().unwrap();
        assert_eq!((summary.begins, summary.entries), (page.begins, revisions.len() as u64));
        assert_eq!((summary.revision, &summary.head), (21, &last.hash));
        bench.close().await;
    });
}

#[test]
fn nothing_is_taken_away_under_a_reader_and_it_is_after() {
    let files = LossyFiles::default();
    let mut desk = Desk::open(&files).unwrap();
    let hold = desk.place.holds.hold();
    for index in 0..30 {
        assert!(desk.put(&format!("t{index}")));
    }
    assert_eq!(begins(&desk.place).unwrap(), 1);
    drop(hold);
    assert!(desk.put("after"));
    assert!(begins(&desk.place).unwrap() > 20);
}

/// Every way to damage a file: each byte flipped, and cut anywhere.
fn damages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let flips = (0..bytes.len()).map(|at| {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << (at % 8);
        damaged
    });
    let cuts = (0..bytes.len()).step_by(7).map(|at| bytes[..at].to_vec());
    flips.chain(cuts).collect()
}

#[test]
fn a_damaged_snapshot_is_made_good_from_the_one_before_and_its_segments() {
    let (files, state) = filled(9);
    let newest = Desk::open(&files).unwrap().snapshots().pop().unwrap();
    let path = in_journal(&newest);
    let whole = files.read(&path).unwrap();
    for damaged in damages(&whole).into_iter().step_by(5) {
        let (files, _) = filled(9);
        files.edit(&path, |bytes| *bytes = damaged);
        let mut desk = Desk::open(&files).unwrap();
        assert_eq!(desk.state(), state);
        let aside = format!("{newest}.damaged");
        assert!(
            desk.names().contains(&aside) && !desk.names().contains(&newest),
            "{:?}",
            desk.names()
        );
        desk.verify().unwrap();
        for index in 0..12 {
            assert!(desk.put(&format!("more{index}")));
        }
        let state = desk.state();
        files.crash(|_| 0);
        assert_eq!(Desk::open(&files).unwrap().state(), state);
    }
}

#[test]
fn the_first_snapshot_damaged_is_made_good_from_the_whole_journal() {
    let (files, state) = filled(4);
    files.edit(&in_journal(&snapshot::name(3)), Vec::clear);
    assert_eq!(Desk::open(&files).unwrap().state(), state);
}

#[test]
fn damaged_snapshots_without_their_segments_are_an_error_that_names_the_file_and_change_nothing() {
    let (files, _) = filled(30);
    let snapshots = Desk::open(&files).unwrap().snapshots();
    assert_eq!(snapshots.len(), 2);
    for snapshot in &snapshots {
        files.edit(&in_journal(snapshot), |bytes| bytes[20] ^= 1);
    }
    let before: Vec<_> = files.paths().iter().map(|path| files.read(path).unwrap()).collect();
    let error = Desk::open(&files).err().unwrap();
    assert!(
        matches!(&error, RegistryError::Storage(StorageError::SnapshotDamaged { file, .. }) if *file == snapshots[1]),
        "{error}"
    );
    assert!(
        error.to_string().contains("restore the data folder from a backup"),
        "{error}"
    );
    let after: Vec<_> = files.paths().iter().map(|path| files.read(path).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn a_snapshot_made_without_the_key_is_refused_even_where_segments_could_stand_in() {
    let (files, mut state) = filled(4);
    let forger = SealKey::derive(b"another");
    let path = in_journal(&snapshot::name(3));
    let (head, _) = snapshot::decode(&files.read(&path).unwrap(), &SealKey::derive(b"key")).unwrap();
    state.entries.pop_last();
    state.entries.pop_last();
    files.edit(&path, |bytes| *bytes = snapshot::encode(head, &state, &forger).unwrap());
    let error = Desk::open(&files).err().unwrap();
    let forged = StorageError::SnapshotForged {
        file: snapshot::name(3),
    };
    assert_eq!(error, RegistryError::Storage(forged));
    assert!(error.to_string().contains("wrong signature"), "{error}");
}

#[test]
fn a_signed_snapshot_of_another_history_does_not_meet_the_segments() {
    let (files, _) = filled(4);
    let (others, _) = {
        let files = LossyFiles::default();
        let mut desk = Desk::open(&files).unwrap();
        for name in ["x", "y", "z", "w"] {
            assert!(desk.put(name));
        }
        (files, ())
    };
    let path = in_journal(&snapshot::name(3));
    let foreign = others.read(&path).unwrap();
    files.edit(&path, |bytes| *bytes = foreign);
    let error = Desk::open(&files).err().unwrap();
    assert!(
        matches!(&error, RegistryError::Storage(StorageError::Journal { .. })),
        "{error}"
    );
}

#[test]
fn edited_history_is_found_out_although_no_opening_reads_it() {
    let mut dice = Dice(13);
    for _ in 0..60 {
        let (files, state) = filled(30);
        let desk = Desk::open(&files).unwrap();
        let first = desk
            .names()
            .into_iter()
            .find(|name| name.ends_with(".journal"))
            .unwrap();
        files.edit(&in_journal(&first), |bytes| {
            let at = dice.below(bytes.len());
            bytes[at] ^= 1 << dice.below(8);
        });
        assert_eq!(Desk::open(&files).unwrap().state(), state, "not needed to open");
        assert!(
            matches!(desk.verify(), Err(StorageError::Journal { .. })),
            "{:?}",
            desk.verify()
        );
    }
}

#[test]
fn a_missing_segment_after_the_snapshot_is_an_error() {
    let (files, _) = filled(8);
    files.remove(&in_journal("00000000000000000007.journal")).unwrap();
    let error = Desk::open(&files).err().unwrap().to_string();
    assert!(error.contains("segments before it end at 6"), "{error}");
}

#[test]
fn a_snapshot_reads_back_and_is_written_byte_for_byte_as_version_1_wrote_it() {
    let (files, _) = filled(3);
    let written = files.read(&in_journal(&snapshot::name(3))).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1.snapshot");
    let bytes = std::fs::read(golden).unwrap();
    // The records are the same; the hash that they are at is that of the journal's lines, which have a second version.
    let records = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        text.lines().skip(1).take(3).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(records(&written), records(&bytes));
    let (head, state) = snapshot::decode(&bytes, &SealKey::derive(b"key")).unwrap();
    assert_eq!(head.revision, 3);
    assert_eq!(snapshot::encode(head, &state, &SealKey::derive(b"key")).unwrap(), bytes);
    for damaged in damages(&bytes) {
        let wrong = snapshot::decode(&damaged, &SealKey::derive(b"key"));
        assert!(matches!(wrong, Err(snapshot::Fault::Damaged(_))), "{wrong:?}");
    }
}

#[test]
fn a_compaction_that_fails_stops_no_write_and_is_tried_again() {
    let fresh = LossyFiles::default();
    let mut desk = Desk::open(&fresh).unwrap();
    assert!(desk.put("t1") && desk.put("t2"));
    let request = |name: &str| Request {
        by: admin(),
        changes: vec![Change::put(tenant(name))],
        event: None,
        seal: false,
    };
    assert!(desk.ledger.commit(vec![request("t3")])[0].is_ok());
    fresh.fail_syncs(1);
    desk.ledger.compact_if_due();
    assert_eq!(desk.snapshots(), Vec::<String>::new());
    desk.ledger.compact_if_due();
    assert_eq!(desk.snapshots(), Vec::<String>::new(), "not at once again");
    assert!(desk.put("t4"));
    assert_eq!(desk.snapshots(), [snapshot::name(4)]);
    fresh.crash(|_| 0);
    assert_eq!(Desk::open(&fresh).unwrap().state().entries.len(), 4);
}

#[test]
fn a_base_without_any_file_is_the_beginning() {
    let files = LossyFiles::default();
    let place = Place::new(Arc::new(files), Path::new("/j"), SealKey::default());
    let Base { head, state, .. } = Journal::base(&place).unwrap();
    assert_eq!((head.revision, state), (0, State::default()));
    assert_eq!(begins(&place).unwrap(), 1);
}

/// Every file and its bytes.
fn contents(files: &LossyFiles) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let read = |path: std::path::PathBuf| {
        let bytes = files.read(&path).unwrap();
        (path, bytes)
    };
    files.paths().into_iter().map(read).collect()
}

#[test]
fn whichever_file_is_damaged_all_that_was_acknowledged_is_there_or_it_is_refused_and_left_as_it_is() {
    let mut dice = Dice(17);
    let (mut whole, mut refused) = (0, 0);
    for round in 0..400 {
        let writes = 10 + dice.below(12);
        let (files, state) = filled(writes);
        for _ in 0..=dice.below(2) {
            let paths = files.paths();
            let path = paths[dice.below(paths.len())].clone();
            match dice.below(4) {
                0 => files.remove(&path).unwrap(),
                1 => files.edit(&path, |bytes| bytes.truncate(dice.below(bytes.len().max(1)))),
                _ => files.edit(&path, |bytes| {
                    let at = dice.below(bytes.len());
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << dice.below(8);
                    }
                }),
            }
        }
        let before = contents(&files);
        match Desk::open_known(&files, writes as u64) {
            Ok(mut desk) => {
                assert_eq!(desk.state(), state, "round {round}");
                assert!(desk.put("more"), "round {round}");
                whole += 1;
            }
            Err(RegistryError::Storage(
                StorageError::Journal { .. }
                | StorageError::JournalBehind { .. }
                | StorageError::SnapshotDamaged { .. },
            )) => {
                assert!(contents(&files) == before, "round {round}: changed although refused");
                refused += 1;
            }
            Err(other) => panic!("round {round}: {other}"),
        }
    }
    println!("{whole} opened whole, {refused} were refused");
    assert!(whole > 100 && refused > 50, "{whole} {refused}");
}
