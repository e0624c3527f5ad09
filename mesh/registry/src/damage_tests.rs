//! A registry whose files were damaged, or whose power went, opens with all that was acknowledged, or says what is wrong.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_resources::Resource;

use crate::{
    Change, JournalLimits, RegistryConfig, RegistryError, SledStore, StorageError, Store as _,
    testing::{Bench, Dice, LossyFiles, admin, config, tenant},
};

const WRITES: usize = 40;

fn small_segments(folder: &Path) -> RegistryConfig {
    RegistryConfig {
        journal: JournalLimits {
            segment_bytes: 4_000,
            // What these tests damage is the truth; what compaction leaves of it has tests of its own.
            snapshot_segments: usize::MAX,
            ..JournalLimits::default()
        },
        ..config(folder)
    }
}

/// A registry with some writes, closed; and what is in it.
async fn made(folder: &Path) -> Vec<Resource> {
    let bench = Bench::open(small_segments(folder)).unwrap();
    let registry = bench.registry.handle();
    for index in 0..WRITES {
        let change = Change::put(tenant(&format!("t{}", index % 25)));
        registry.write(admin(), vec![change]).await.unwrap();
    }
    let all = registry.all().unwrap();
    assert_eq!(all.0, WRITES as u64);
    bench.close().await;
    all.1
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else if fs::metadata(&path).unwrap().len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Flips bits of a file, cuts it, or takes it away.
fn damage(path: &Path, dice: &mut Dice) -> String {
    let mut bytes = fs::read(path).unwrap();
    let length = bytes.len();
    let what = match dice.below(8) {
        0 => {
            fs::remove_file(path).unwrap();
            return "taken away".to_owned();
        }
        1 | 2 => {
            bytes.truncate(dice.below(length));
            format!("cut to {}", bytes.len())
        }
        _ => {
            // Most of sled's file is empty; what is written is at its beginning.
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            let at = dice.below(end);
            bytes[at] ^= 1 << dice.below(8);
            format!("bit flipped at {at} of {length}")
        }
    };
    fs::write(path, bytes).unwrap();
    what
}

#[test]
fn a_damaged_index_is_made_anew_with_everything_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("template");
    let mut dice = Dice(11);
    actix::System::new().block_on(async {
        let all = made(&template).await;
        let mut moved_aside = 0;
        for round in 0..60 {
            let damaged = folder.path().join(format!("round-{round}"));
            copy(&template, &damaged);
            let files = files_below(&damaged.join("index"));
            let path = &files[dice.below(files.len())];
            let what = damage(path, &mut dice);
            let bench = Bench::open(small_segments(&damaged)).unwrap();
            let registry = bench.registry.handle();
            assert_eq!(registry.all().unwrap(), (WRITES as u64, all.clone()), "{what}");
            registry.write(admin(), vec![Change::put(tenant("new"))]).await.unwrap();
            bench.close().await;
            moved_aside += usize::from(damaged.join("index.broken").exists());
        }
        println!("60 damaged, {moved_aside} moved aside and made anew, the others caught up or were unhurt");
        assert!(moved_aside > 0);
    });
}

#[test]
fn a_damaged_journal_opens_whole_or_says_what_is_wrong_and_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let template = folder.path().join("template");
    let mut dice = Dice(5);
    actix::System::new().block_on(async {
        let all = made(&template).await;
        let (mut whole, mut refused) = (0, 0);
        for round in 0..80 {
            let damaged = folder.path().join(format!("round-{round}"));
            copy(&template, &damaged);
            let files = files_below(&damaged.join("journal"));
            assert!(files.len() > 2);
            // Half of them hit the last segment.
            let index = if dice.below(2) == 0 {
                files.len() - 1
            } else {
                dice.below(files.len())
            };
            let unacknowledged = dice.below(4) == 0;
            let what = if unacknowledged {
                // What a power loss in the middle of an append leaves.
                let mut bytes = fs::read(&files[files.len() - 1]).unwrap();
                let begun = bytes[52..52 + dice.below(200)].to_vec();
                bytes.extend(begun);
                fs::write(&files[files.len() - 1], bytes).unwrap();
                "begun".to_owned()
            } else {
                damage(&files[index], &mut dice)
            };
            let left: Vec<Vec<u8>> = files_below(&damaged.join("journal"))
                .iter()
                .map(|path| fs::read(path).unwrap())
                .collect();
            match Bench::open(small_segments(&damaged)) {
                Ok(bench) => {
                    assert_eq!(bench.registry.handle().all().unwrap().1, all, "{what}");
                    assert!(unacknowledged, "{what}");
                    whole += 1;
                    bench.close().await;
                }
                Err(RegistryError::Storage(StorageError::Journal { .. } | StorageError::JournalBehind { .. })) => {
                    let now: Vec<Vec<u8>> = files_below(&damaged.join("journal"))
                        .iter()
                        .map(|path| fs::read(path).unwrap())
                        .collect();
                    assert!(left == now, "changed although refused: {what}");
                    refused += 1;
                }
                Err(other) => panic!("{what}: {other}"),
            }
        }
        println!("{whole} opened whole, {refused} were refused");
        assert!(whole > 10 && refused > 40);
    });
}

#[test]
fn a_missing_or_older_index_catches_up_and_a_foreign_one_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    actix::System::new().block_on(async {
        let all = made(&at("a")).await;
        fs::remove_dir_all(at("a").join("index")).unwrap();
        let bench = Bench::open(small_segments(&at("a"))).unwrap();
        assert_eq!(bench.registry.handle().all().unwrap(), (WRITES as u64, all.clone()));
        bench.close().await;

        copy(&at("a").join("index"), &at("older"));
        let bench = Bench::open(small_segments(&at("a"))).unwrap();
        let registry = bench.registry.handle();
        registry
            .write(admin(), vec![Change::delete(all[0].key().unwrap())])
            .await
            .unwrap();
        registry.write(admin(), vec![Change::put(tenant("new"))]).await.unwrap();
        let all = registry.all().unwrap();
        bench.close().await;
        fs::remove_dir_all(at("a").join("index")).unwrap();
        copy(&at("older"), &at("a").join("index"));
        let bench = Bench::open(small_segments(&at("a"))).unwrap();
        assert_eq!(bench.registry.handle().all().unwrap(), all);
        bench.close().await;

        // Edited behind the registry's back, at the same revision.
        let store = SledStore::open(&at("a").join("index")).unwrap();
        let mut state = store.state().unwrap();
        state.entries.pop_first();
        store.restore(&state).unwrap();
        store.flush().unwrap();
        drop(store);
        let bench = Bench::open(small_segments(&at("a"))).unwrap();
        assert_eq!(bench.registry.handle().all().unwrap(), all);
        bench.close().await;
        assert!(at("a").join("index.broken").exists());
    });
}

#[test]
fn power_loss_takes_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut dice = Dice(3);
    let files = LossyFiles::default();
    actix::System::new().block_on(async {
        let (mut acknowledged, mut begins) = (Vec::new(), 1);
        for round in 0..40_usize {
            let bench = Bench::open(RegistryConfig {
                files: Arc::new(files.clone()),
                // Compaction happens in the middle of it.
                journal: JournalLimits {
                    segment_bytes: 700,
                    snapshot_segments: 2,
                    archived_segments: 1,
                },
                ..config(folder.path())
            })
            .unwrap();
            let registry = bench.registry.handle();
            for resource in &acknowledged {
                let resource: &Resource = resource;
                assert_eq!(registry.get(&resource.key().unwrap()).unwrap().as_ref(), Some(resource));
            }
            let found = registry.verify_audit().unwrap();
            assert!(found.revision >= acknowledged.len() as u64);
            begins = begins.max(found.begins);
            for index in 0..dice.below(8) {
                // Some fail: fsync, and the cut that would undo the append.
                files.fail_syncs(if dice.below(3) == 0 { 1 + dice.below(3) } else { 0 });
                files.fail_cuts(dice.below(2));
                let change = Change::put(tenant(&format!("t{round}-{index}")));
                if let Ok(mut written) = registry.write(admin(), vec![change]).await {
                    acknowledged.append(&mut written);
                }
            }
            files.fail_syncs(0);
            files.fail_cuts(0);
            files.crash(|lost| dice.below(lost + 1));
            bench.close().await;
            if dice.below(4) == 0 {
                fs::remove_dir_all(folder.path().join("index")).unwrap();
            }
        }
        println!(
            "{} writes were acknowledged over 40 losses of power, the log begins at {begins}",
            acknowledged.len()
        );
        assert!(acknowledged.len() > 60 && begins > 20);
    });
}

#[test]
fn an_index_from_before_the_snapshot_becomes_what_the_journal_says() {
    let folder = tempfile::tempdir().unwrap();
    let (registry, older) = (folder.path().join("registry"), folder.path().join("older"));
    let tiny = || RegistryConfig {
        journal: JournalLimits {
            segment_bytes: 700,
            snapshot_segments: 2,
            archived_segments: 0,
        },
        ..config(&registry)
    };
    actix::System::new().block_on(async {
        let mut all = Vec::new();
        for (round, names) in [0..3, 3..40].into_iter().enumerate() {
            let bench = Bench::open(tiny()).unwrap();
            let handle = bench.registry.handle();
            for index in names {
                let change = Change::put(tenant(&format!("t{index}")));
                handle.write(admin(), vec![change]).await.unwrap();
            }
            all = handle.all().unwrap().1;
            bench.close().await;
            if round == 0 {
                copy(&registry.join("index"), &older);
            }
        }
        fs::remove_dir_all(registry.join("index")).unwrap();
        copy(&older, &registry.join("index"));
        let bench = Bench::open(tiny()).unwrap();
        assert!(
            bench.registry.handle().audit(0, 1).unwrap().begins > 3,
            "its revision is history"
        );
        assert_eq!(bench.registry.handle().all().unwrap(), (40, all));
        bench.close().await;
        assert!(
            !registry.join("index.broken").exists(),
            "it was no reason to put it aside"
        );
    });
}
