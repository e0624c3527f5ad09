//! The store on sled: indexed state on disk that survives a restart without reading the journal into memory again.
//!
//! sled's flush does not reach the disk for certain, and it may panic on a damaged file; neither matters, because the journal
//! is the truth: every value carries a checksum, a panic is caught and is an error, and whoever opens a store compares it.
//! Records and the last revision are in one tree, so that one batch of sled writes both or neither.

use std::{
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Batch, Changed, State, Store, StoreError, StorePage, Stored, Watch, check, history::History};

/// Before every record's key. What else is in the tree sorts apart from it.
const RECORDS: &str = "r/";
/// The last revision and its mark.
const LAST: &str = "last";
const REVISION_BYTES: usize = 8;
const CRC_BYTES: usize = 4;
/// sled writes out on its own this often.
const FLUSH_EVERY_MS: u64 = 500;
/// The most bytes of pages that sled keeps in memory; reads of what is not among them go to its file.
const CACHE_BYTES: u64 = 32 << 20;
/// How often, and how far apart, a database that is locked is tried again: five seconds in all.
const LOCK_TRIES: usize = 250;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Everything in a sled database.
#[derive(Debug)]
pub struct SledStore {
    database: ::sled::Db,
    history: History,
    /// Taken to write by a batch, so that a reader of several keys sees one revision.
    gate: RwLock<()>,
}

impl SledStore {
    /// Opens or makes the database in a folder.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        guarded("open", || {
            let config = ::sled::Config::new()
                .path(folder)
                .flush_every_ms(Some(FLUSH_EVERY_MS))
                .cache_capacity(CACHE_BYTES)
                .mode(::sled::Mode::LowSpace);
            let database = unlocked(|| config.open())?;
            let last = database.get(LAST)?;
            Ok((database, last))
        })
        .and_then(|(database, last)| {
            let revision = last.map_or(Ok(0), |bytes| decode(&bytes).map(|last| last.revision))?;
            Ok(Self {
                database,
                history: History::from(revision),
                gate: RwLock::default(),
            })
        })
    }

    fn stored(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let bytes = guarded("read", || self.database.get(record_key(key)))?;
        bytes.map(|bytes| decode(&bytes)).transpose()
    }

    fn entries(&self, from: &str, inclusive: bool) -> ::sled::Iter {
        let from = record_key(from);
        let bound = if inclusive {
            Bound::Included(from)
        } else {
            Bound::Excluded(from)
        };
        self.database.range((bound, Bound::Unbounded))
    }

    fn each(&self, visit: &mut dyn FnMut(&str, Stored)) -> Result<(), StoreError> {
        let mut entries = self.entries("", true);
        while let Some((key, stored)) = next(&mut entries)? {
            visit(&key, stored);
        }
        Ok(())
    }

    /// Whether this is exactly what it holds.
    pub(crate) fn is(&self, state: &State) -> Result<bool, StoreError> {
        let last = self.last()?;
        let mut expected = state.entries.iter();
        let mut same = (last.revision, &last.value) == (state.revision, &state.mark);
        self.each(&mut |key, stored| {
            let next = expected.next();
            same &= next.is_some_and(|(known, value)| known == key && *value == stored);
        })?;
        Ok(same && expected.next().is_none())
    }

    /// The last revision, and as its value the mark of its batch.
    pub(crate) fn last(&self) -> Result<Stored, StoreError> {
        let none = Stored {
            revision: 0,
            value: Vec::new(),
        };
        let bytes = guarded("read", || self.database.get(LAST))?;
        bytes.map_or(Ok(none), |bytes| decode(&bytes))
    }

    fn apply(&self, mut batch: ::sled::Batch, revision: u64, mark: &[u8]) -> Result<(), StoreError> {
        batch.insert(LAST, encode(revision, mark));
        guarded("write", || self.database.apply_batch(batch))
    }
}

impl Store for SledStore {
    fn get(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        self.stored(key)
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<StorePage, StoreError> {
        let _gate = self.gate.read();
        let after = after.filter(|after| *after >= prefix);
        let mut entries = self.entries(after.unwrap_or(prefix), after.is_none());
        let mut page = StorePage::default();
        while let Some((key, stored)) = next(&mut entries)? {
            if !key.starts_with(prefix) {
                break;
            }
            if page.entries.len() == limit {
                page.more = true;
                break;
            }
            page.entries.push((key, stored));
        }
        Ok(page)
    }

    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        let _gate = self.gate.write();
        let revision = self.history.revision() + 1;
        let mut changes = ::sled::Batch::default();
        for write in &batch.writes {
            check(write, self.stored(&write.key)?.map(|stored| stored.revision))?;
            match &write.value {
                Some(value) => changes.insert(record_key(&write.key).as_str(), encode(revision, value)),
                None => changes.remove(record_key(&write.key).as_str()),
            }
        }
        self.apply(changes, revision, &batch.mark)?;
        self.history.note(revision, batch);
        Ok(revision)
    }

    fn state(&self) -> Result<State, StoreError> {
        let _gate = self.gate.read();
        let last = self.last()?;
        let mut state = State {
            revision: last.revision,
            mark: last.value,
            ..State::default()
        };
        self.each(&mut |key, stored| drop(state.entries.insert(key.to_owned(), stored)))?;
        Ok(state)
    }

    fn visit(&self, visit: &mut dyn FnMut(&str, Stored)) -> Result<u64, StoreError> {
        let _gate = self.gate.read();
        self.each(visit)?;
        Ok(self.last()?.revision)
    }

    fn changed(&self, after: u64) -> Result<Changed, StoreError> {
        let _gate = self.gate.read();
        let keys = self.history.changed(after)?.into_iter();
        let entry = |key: String| {
            let stored = self.stored(&key)?;
            Ok((key, stored))
        };
        Ok(Changed {
            revision: self.history.revision(),
            entries: keys.map(entry).collect::<Result<_, StoreError>>()?,
        })
    }

    fn restore(&self, state: &State) -> Result<(), StoreError> {
        let current = self.state()?;
        let _gate = self.gate.write();
        let mut changes = ::sled::Batch::default();
        for key in current.entries.keys().filter(|key| !state.entries.contains_key(*key)) {
            changes.remove(record_key(key).as_str());
        }
        for (key, stored) in &state.entries {
            if current.entries.get(key) != Some(stored) {
                changes.insert(record_key(key).as_str(), encode(stored.revision, &stored.value));
            }
        }
        self.apply(changes, state.revision, &state.mark)?;
        self.history.forget(state.revision);
        Ok(())
    }

    fn watch(&self, after: u64) -> Result<Watch, StoreError> {
        self.history.watch(after)
    }

    fn revision(&self) -> watch::Receiver<u64> {
        self.history.receiver()
    }

    fn flush(&self) -> Result<(), StoreError> {
        guarded("write", || self.database.flush()).map(drop)
    }
}

fn record_key(key: &str) -> String {
    format!("{RECORDS}{key}")
}

fn next(entries: &mut ::sled::Iter) -> Result<Option<(String, Stored)>, StoreError> {
    let Some((key, value)) = guarded("read", || entries.next().transpose())? else {
        return Ok(None);
    };
    let key = std::str::from_utf8(&key).map_err(|_| StoreError::Damaged("a key is no text"))?;
    let key = key
        .strip_prefix(RECORDS)
        .ok_or(StoreError::Damaged("a key is not a record's"))?;
    Ok(Some((key.to_owned(), decode(&value)?)))
}

/// revision, CRC-32 of revision and value, value.
fn encode(revision: u64, value: &[u8]) -> Vec<u8> {
    let revision = revision.to_be_bytes();
    let mut bytes = Vec::with_capacity(REVISION_BYTES + CRC_BYTES + value.len());
    bytes.extend_from_slice(&revision);
    bytes.extend_from_slice(&checksum(&revision, value).to_be_bytes());
    bytes.extend_from_slice(value);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Stored, StoreError> {
    let parts = bytes
        .split_first_chunk::<REVISION_BYTES>()
        .and_then(|(revision, rest)| Some((revision, rest.split_first_chunk::<CRC_BYTES>()?)));
    let (revision, (crc, value)) = parts.ok_or(StoreError::Damaged("a value is cut off"))?;
    if checksum(revision, value) != u32::from_be_bytes(*crc) {
        return Err(StoreError::Damaged("a value is not what was written"));
    }
    Ok(Stored {
        revision: u64::from_be_bytes(*revision),
        value: value.to_vec(),
    })
}

fn checksum(revision: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(revision);
    hasher.update(value);
    hasher.finalize()
}

/// Opens a database, and waits for one of this process that is still being closed: sled gives its lock back on a thread of its
/// own, some time after its last handle is gone. Its error for a held lock has no kind, only a text.
fn unlocked<T>(mut open: impl FnMut() -> ::sled::Result<T>) -> ::sled::Result<T> {
    for _ in 0..LOCK_TRIES {
        match open() {
            Err(::sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => wait(LOCK_PAUSE),
            other => return other,
        }
    }
    open()
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when a file's lock is given back"
)]
fn wait(pause: Duration) {
    std::thread::sleep(pause);
}

/// Runs a call into sled; an error or a panic of sled is an error.
fn guarded<T>(doing: &'static str, call: impl FnOnce() -> ::sled::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            tracing::error!(doing, %error, "registry: the index failed");
            Err(StoreError::Engine(doing))
        }
        Err(_) => Err(StoreError::Engine(doing)),
    }
}
