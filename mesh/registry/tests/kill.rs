//! SIGKILL in the middle of writes: every acknowledged write is there afterwards, and the chain is whole.
//!
//! The test runs its own program again as the victim, which writes until it is killed and prints what was acknowledged.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use mesh_actors::Tasks;
use mesh_registry::{Author, Change, JournalLimits, Registry, RegistryConfig, RegistryHandle, SealKey};
use mesh_resources::{Resource, ResourceKey, TenantSpec};

const ROUNDS: usize = 50;
const WRITERS: usize = 3;

fn tenant(name: &str) -> Resource {
    Resource::new(&key(name), TenantSpec::default())
}

fn key(name: &str) -> ResourceKey {
    ResourceKey::tenant(&name.parse().unwrap())
}

/// So small that every round has several snapshots and takes segments away.
fn config(folder: &Path) -> RegistryConfig {
    let config = RegistryConfig {
        journal: JournalLimits {
            segment_bytes: 1_000,
            snapshot_segments: 2,
            archived_segments: 2,
        },
        ..RegistryConfig::new(folder)
    };
    config.with_key(SealKey::derive(b"kill"))
}

async fn write_for_ever(registry: RegistryHandle, prefix: String) {
    for index in 0_usize.. {
        let name = format!("{prefix}-{index}");
        let written = registry
            .write(Author::mesh("victim"), vec![Change::put(tenant(&name))])
            .await
            .unwrap();
        let mut out = std::io::stdout().lock();
        writeln!(out, "\nacknowledged {} {name}", written[0].metadata.revision.unwrap()).unwrap();
        out.flush().unwrap();
    }
}

/// The victim. Told by standard input where to write and under which name; alone it does nothing.
#[test]
#[ignore = "the victim of the test beside it"]
fn victim() {
    let mut input = String::new();
    std::io::stdin().lock().read_line(&mut input).unwrap();
    let Some((folder, round)) = input.trim().split_once(' ') else {
        return;
    };
    actix::System::new().block_on(async {
        let tasks = Tasks::new();
        let registry = Registry::open(config(folder.as_ref()), &tasks).unwrap();
        let write = |writer: usize| write_for_ever(registry.handle(), format!("t{round}-{writer}"));
        tokio::join!(write(0), write(1), write(2));
    });
}

/// Starts a victim, kills it after so many acknowledgements, and tells what it was promised.
fn kill_one(folder: &Path, round: usize, after: usize) -> Vec<(u64, String)> {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    writeln!(victim.stdin.take().unwrap(), "{} {round}", folder.display()).unwrap();
    let mut promised = Vec::new();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    for line in lines {
        let line = line.unwrap();
        if let Some((revision, name)) = line.strip_prefix("acknowledged ").and_then(|rest| rest.split_once(' ')) {
            promised.push((revision.parse().unwrap(), name.to_owned()));
        }
        if promised.len() == after {
            victim.kill().unwrap();
        }
    }
    assert!(!victim.wait().unwrap().success(), "it was killed");
    promised
}

#[test]
fn a_killed_process_loses_no_acknowledged_write() {
    let folder = tempfile::tempdir().unwrap();
    let (mut kept, mut most_unpromised, mut begins) = (0, 0, 1);
    for round in 0..ROUNDS {
        let promised = kill_one(folder.path(), round, 1 + round * 7 % 40);
        assert!(promised.len() > round * 7 % 40, "{promised:?}");
        actix::System::new().block_on(async {
            let tasks = Tasks::new();
            let registry = Registry::open(config(folder.path()), &tasks).unwrap();
            let handle = registry.handle();
            for (revision, name) in &promised {
                let found = handle.get(&key(name)).unwrap();
                assert_eq!(
                    found.and_then(|found| found.metadata.revision),
                    Some(*revision),
                    "{name}"
                );
            }
            kept += promised.len() as u64;
            let summary = handle.verify_audit().unwrap();
            let entries = summary.revision;
            begins = summary.begins;
            assert!(entries >= kept);
            most_unpromised = entries - kept;
            assert_eq!(handle.all().unwrap().1.len() as u64, entries);
            assert!(tasks.end(Duration::from_secs(5)).await.is_empty());
            registry.close().unwrap();
        });
    }
    println!(
        "{ROUNDS} kills, {kept} acknowledged writes, all there; {most_unpromised} more were written but not yet told; \
         the log begins at {begins}"
    );
    assert!(begins > kept / 2, "compaction was in the middle of it");
    assert!(most_unpromised <= (ROUNDS * WRITERS * 2) as u64);
}
