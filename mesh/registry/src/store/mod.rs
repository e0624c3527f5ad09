//! Where records are read from: an ordered map with revisions, written all or nothing.
//!
//! Owns the [`Store`] contract; [`SledStore`] and [`MemoryStore`] keep it alike, held to one suite of tests. Knows no
//! resources: keys are texts and values are bytes. A store need not be durable on its own, for the journal is; it must be
//! whole: what a batch says is there together or not at all, together with the batch's mark.

mod history;
mod memory;
mod sled;

use std::collections::BTreeMap;

pub use self::{
    history::{Event, HISTORY_EVENTS, Watch},
    memory::MemoryStore,
    sled::SledStore,
};
use crate::Expected;

/// Why a store did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A write expected something else.
    #[error("'{key}' is at {found:?}, the write expected {expected}")]
    Conflict {
        /// The key.
        key: String,
        /// What was expected.
        expected: Expected,
        /// The revision that it has, if it is there.
        found: Option<u64>,
    },
    /// Watching from further back than is remembered.
    #[error(
        "changes since revision {asked} are no longer remembered, only those since {oldest}: read everything, then watch from there"
    )]
    TooOld {
        /// After which revision was asked.
        asked: u64,
        /// The oldest that can be asked.
        oldest: u64,
    },
    /// Watching from a revision that is not there yet.
    #[error("revision {asked} is not there yet, the newest is {newest}")]
    NotYet {
        /// After which revision was asked.
        asked: u64,
        /// The newest.
        newest: u64,
    },
    /// What is kept is not what was written.
    #[error("the index is damaged: {0}")]
    Damaged(&'static str),
    /// The engine below failed.
    #[error("the index failed to {0}")]
    Engine(&'static str),
}

/// A value and the revision of the batch that wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The revision.
    pub revision: u64,
    /// The value.
    pub value: Vec<u8>,
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StorePage {
    /// In the order of the keys' bytes.
    pub entries: Vec<(String, Stored)>,
    /// Whether there are more after the last.
    pub more: bool,
}

/// One write of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub key: String,
    /// What must be there before.
    pub expected: Expected,
    /// The value; none takes the key away.
    pub value: Option<Vec<u8>>,
}

/// Writes that happen together, as one revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The writes; a key at most once.
    pub writes: Vec<Write>,
    /// What the writer wants to find beside this revision.
    pub mark: Vec<u8>,
}

/// The whole of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The last revision.
    pub revision: u64,
    /// The mark of its batch.
    pub mark: Vec<u8>,
    /// Everything.
    pub entries: BTreeMap<String, Stored>,
}

/// What has changed since a revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// The last revision.
    pub revision: u64,
    /// Each key that was written since, once, with what it has at that revision; none: it is gone.
    pub entries: Vec<(String, Option<Stored>)>,
}

/// An ordered map with revisions. Each batch is one revision, one higher than the last.
pub trait Store: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &str) -> Result<Option<Stored>, StoreError>;
    /// Those keys that begin with the prefix and come after `after`, at most `limit`.
    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<StorePage, StoreError>;
    /// All or nothing; the revision that it became.
    fn commit(&self, batch: &Batch) -> Result<u64, StoreError>;
    /// Everything, at one revision.
    fn state(&self) -> Result<State, StoreError>;
    /// Shows every entry, in the order of their keys and all of one revision, which it answers. Nothing is written meanwhile.
    fn visit(&self, visit: &mut dyn FnMut(&str, Stored)) -> Result<u64, StoreError>;
    /// What has changed after a revision, all as it is at the last; [`StoreError::TooOld`] where that is not remembered.
    fn changed(&self, after: u64) -> Result<Changed, StoreError>;
    /// Becomes exactly this, all or nothing. What was watched before is forgotten.
    fn restore(&self, state: &State) -> Result<(), StoreError>;
    /// The changes after a revision, and those to come.
    fn watch(&self, after: u64) -> Result<Watch, StoreError>;
    /// The last revision, told anew after each batch.
    fn revision(&self) -> tokio::sync::watch::Receiver<u64>;
    /// Writes out what is still in memory; not relied upon.
    fn flush(&self) -> Result<(), StoreError>;

    /// Writes one value if what is there is as expected; the revision that it became.
    fn put(&self, key: &str, value: &[u8], expected: Expected) -> Result<u64, StoreError> {
        let write = Write {
            key: key.to_owned(),
            expected,
            value: Some(value.to_vec()),
        };
        self.commit(&Batch {
            writes: vec![write],
            mark: Vec::new(),
        })
    }
}

fn check(write: &Write, found: Option<u64>) -> Result<(), StoreError> {
    if write.expected.is_met_by(found) {
        return Ok(());
    }
    Err(StoreError::Conflict {
        key: write.key.clone(),
        expected: write.expected,
        found,
    })
}

#[cfg(test)]
mod tests;
