//! When API keys were last used, from one start of the node to the next.
//!
//! Owns the file `key-uses` in the data folder: read once before anything is served, and written once a minute where something
//! changed and when the node ends. Requests only touch a number in memory, and nothing here ever waits for them or they for it;
//! no record and no snapshot changes by a use. A file that is damaged or cannot be written costs what it would have told and
//! nothing else, so no backup holds it.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use mesh_actors::{ShutdownSignal, Tasks};
use mesh_policies::{
    Credentials, KeyBook, MeshSnapshot,
    access::{MAX_REMEMBERED_BYTES, Remembered},
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{data::DataFolder, whole::write_whole};

/// The most that is forgotten of a node that is killed.
const WRITE_INTERVAL: Duration = Duration::from_secs(60);

type Snapshots = Arc<ArcSwap<MeshSnapshot>>;

/// The snapshots as they begin, with the task that keeps their keys' uses. The books are those of issuers that a former start has kept.
pub(crate) fn start(data: &DataFolder, books: Vec<Arc<KeyBook>>, tasks: &Tasks) -> Snapshots {
    let file = data.key_uses();
    let snapshots = Arc::new(ArcSwap::from_pointee(before_the_first(&file, books)));
    keep(file, snapshots.clone(), tasks);
    snapshots
}

/// The snapshot before the first: nobody gets in by it, and it knows what the last start knew of keys.
fn before_the_first(file: &Path, books: Vec<Arc<KeyBook>>) -> MeshSnapshot {
    MeshSnapshot::new(0, Credentials::remembering(read(file)).with_kept_books(books), [])
}

fn read(file: &Path) -> Remembered {
    let bytes = File::open(file).and_then(|file| {
        let mut bytes = Vec::new();
        let most = u64::try_from(MAX_REMEMBERED_BYTES).unwrap_or(u64::MAX);
        file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    match bytes.map(|bytes| Remembered::read(&bytes)) {
        Ok(Ok(uses)) => uses,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the last uses of API keys cannot be read and are counted anew");
            Remembered::default()
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Remembered::default(),
        Err(error) => {
            tracing::warn!(%error, "the last uses of API keys cannot be read and are counted anew");
            Remembered::default()
        }
    }
}

/// Writes the uses down once a minute, and a last time when the tasks end: after the doors.
fn keep(file: PathBuf, snapshots: Snapshots, tasks: &Tasks) {
    tasks.spawn("last uses of keys", move |signal| {
        write_now_and_then(file, snapshots, signal)
    });
}

async fn write_now_and_then(file: PathBuf, snapshots: Snapshots, mut signal: ShutdownSignal) {
    let mut ticks = interval_at(Instant::now() + WRITE_INTERVAL, WRITE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut written = Vec::new();
    loop {
        let last = tokio::select! {
            () = signal.ended() => true,
            _ = ticks.tick() => false,
        };
        let (file, snapshots, before) = (file.clone(), snapshots.clone(), std::mem::take(&mut written));
        let work = move || write(&file, &snapshots.load(), before);
        // Off this thread: a disk may take its time.
        written = tokio::task::spawn_blocking(work).await.unwrap_or_default();
        if last {
            return;
        }
    }
}

/// Writes what is known now, unless the file says it already; answers what it says then.
fn write(file: &Path, snapshot: &MeshSnapshot, before: Vec<u8>) -> Vec<u8> {
    // Before the first snapshot no key is known, and what was known is still in the file.
    if snapshot.revision == 0 {
        return before;
    }
    let bytes = snapshot.credentials.uses().to_bytes();
    if bytes == before {
        return before;
    }
    match write_whole(file, &bytes) {
        Ok(_) => bytes,
        Err(error) => {
            tracing::warn!(%error, "the last uses of API keys cannot be written; they are tried again in a minute");
            before
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_policies::{ApiKeyEntry, Pepper, Presented, Scope, Scopes, generate_api_key};
    use mesh_types::{KeyId, TenantId};

    use super::*;

    const NOW: i64 = 1_800_000_030;
    const MINUTE: i64 = 1_800_000_000;

    struct Bed {
        _folder: tempfile::TempDir,
        file: PathBuf,
        entry: ApiKeyEntry,
        text: String,
    }

    impl Bed {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let key = generate_api_key("live", &mut rand::rng());
            let entry = ApiKeyEntry {
                id: key.id.clone(),
                tenant: TenantId::parse("acme").unwrap(),
                hash: Pepper::default().hash(&key.secret),
                scopes: Scopes::from_iter([Scope::Infer]),
                expires: None,
                revoked: false,
                groups: Default::default(),
            };
            Self {
                file: folder.path().join("key-uses"),
                _folder: folder,
                entry,
                text: key.text,
            }
        }

        /// The first snapshot of a start, compiled as control does it.
        fn start(&self) -> MeshSnapshot {
            let before = before_the_first(&self.file, Vec::new());
            let last_use = before.credentials.last_use(&self.entry);
            let credentials = Credentials::new(Pepper::default()).with_used_key(self.entry.clone(), last_use);
            MeshSnapshot::new(1, credentials, [])
        }

        fn last_used(&self, snapshot: &MeshSnapshot) -> Option<i64> {
            snapshot.credentials.last_used(&self.entry.tenant, &self.entry.id)
        }

        fn used(&self) -> MeshSnapshot {
            let snapshot = self.start();
            let asked = snapshot.credentials.authenticate(Presented::Bearer(&self.text), NOW);
            asked.unwrap();
            snapshot
        }
    }

    #[test]
    fn uses_are_there_after_a_restart_and_nothing_is_written_where_nothing_changed() {
        let bed = Bed::new();
        assert_eq!(bed.last_used(&bed.start()), None);
        let snapshot = bed.used();
        let written = write(&bed.file, &snapshot, Vec::new());
        assert_eq!(bed.last_used(&bed.start()), Some(MINUTE));
        let other = KeyId::parse("other").unwrap();
        assert_eq!(snapshot.credentials.last_used(&bed.entry.tenant, &other), None);
        std::fs::remove_file(&bed.file).unwrap();
        assert_eq!(write(&bed.file, &snapshot, written.clone()), written);
        assert!(!bed.file.exists(), "it was written although nothing had changed");
    }

    #[test]
    fn a_damaged_file_costs_what_it_knew_and_an_early_end_costs_nothing() {
        let bed = Bed::new();
        write(&bed.file, &bed.used(), Vec::new());
        // A node that ends before control has looked at any record.
        write(&bed.file, &before_the_first(&bed.file, Vec::new()), Vec::new());
        assert_eq!(bed.last_used(&bed.start()), Some(MINUTE));
        let mut bytes = std::fs::read(&bed.file).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&bed.file, bytes).unwrap();
        assert_eq!(bed.last_used(&bed.start()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn uses_are_written_within_a_minute_and_at_the_end() {
        let bed = Bed::new();
        let snapshots: Snapshots = Arc::new(ArcSwap::from_pointee(bed.used()));
        let tasks = Tasks::new();
        keep(bed.file.clone(), snapshots.clone(), &tasks);
        tokio::time::sleep(WRITE_INTERVAL + Duration::from_secs(1)).await;
        assert_eq!(bed.last_used(&bed.start()), Some(MINUTE));
        let again = snapshots
            .load()
            .credentials
            .authenticate(Presented::Bearer(&bed.text), NOW + 60);
        again.unwrap();
        assert!(tasks.end(Duration::from_secs(5)).await.is_empty());
        assert_eq!(bed.last_used(&bed.start()), Some(MINUTE + 60));
    }
}
