//! What changed lately: a bounded memory that watchers read from.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{Batch, StoreError};

/// The most changes that are remembered; whole revisions are forgotten, the oldest first.
pub const HISTORY_EVENTS: usize = 4_096;

/// One key changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// In this revision.
    pub revision: u64,
    /// This key.
    pub key: String,
    /// Whether it was taken away.
    pub deleted: bool,
}

#[derive(Debug)]
struct Memory {
    events: VecDeque<Event>,
    /// Every change after this revision is remembered.
    oldest: u64,
}

/// The memory and the last revision; clones are the same.
#[derive(Debug, Clone)]
pub(super) struct History {
    memory: Arc<Mutex<Memory>>,
    revision: Arc<watch::Sender<u64>>,
}

impl History {
    pub(super) fn from(revision: u64) -> Self {
        let memory = Memory {
            events: VecDeque::new(),
            oldest: revision,
        };
        Self {
            memory: Arc::new(Mutex::new(memory)),
            revision: Arc::new(watch::Sender::new(revision)),
        }
    }

    pub(super) fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    pub(super) fn receiver(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Remembers a batch and tells the watchers.
    pub(super) fn note(&self, revision: u64, batch: &Batch) {
        let mut memory = self.memory.lock();
        memory.events.extend(batch.writes.iter().map(|write| Event {
            revision,
            key: write.key.clone(),
            deleted: write.value.is_none(),
        }));
        while memory.events.len() > HISTORY_EVENTS {
            let Some(dropped) = memory.events.front().map(|event| event.revision) else {
                break;
            };
            while memory.events.front().is_some_and(|event| event.revision == dropped) {
                memory.events.pop_front();
            }
            memory.oldest = dropped;
        }
        drop(memory);
        self.revision.send_replace(revision);
    }

    /// Forgets everything: the store became something else.
    pub(super) fn forget(&self, revision: u64) {
        let mut memory = self.memory.lock();
        memory.events.clear();
        memory.oldest = revision;
        drop(memory);
        self.revision.send_replace(revision);
    }

    fn after(&self, asked: u64) -> Result<Vec<Event>, StoreError> {
        let memory = self.memory.lock();
        if asked < memory.oldest {
            return Err(StoreError::TooOld {
                asked,
                oldest: memory.oldest,
            });
        }
        let from = memory.events.partition_point(|event| event.revision <= asked);
        Ok(memory.events.range(from..).cloned().collect())
    }

    /// The keys that changed after a revision.
    pub(super) fn changed(&self, after: u64) -> Result<BTreeSet<String>, StoreError> {
        self.check(after)?;
        Ok(self.after(after)?.into_iter().map(|event| event.key).collect())
    }

    fn check(&self, after: u64) -> Result<(), StoreError> {
        let newest = self.revision();
        if after > newest {
            return Err(StoreError::NotYet { asked: after, newest });
        }
        Ok(())
    }

    pub(super) fn watch(&self, after: u64) -> Result<Watch, StoreError> {
        self.check(after)?;
        self.after(after)?;
        Ok(Watch {
            history: self.clone(),
            after,
            revision: self.receiver(),
        })
    }
}

/// Reads the changes after a revision, then those to come.
#[derive(Debug)]
pub struct Watch {
    history: History,
    after: u64,
    revision: watch::Receiver<u64>,
}

impl Watch {
    /// The next changes, in order and not empty; waits for one. A watcher that fell behind what is remembered is told so.
    pub async fn next(&mut self) -> Result<Vec<Event>, StoreError> {
        loop {
            self.revision.borrow_and_update();
            let events = self.history.after(self.after)?;
            if let Some(last) = events.last() {
                self.after = last.revision;
                return Ok(events);
            }
            // The history, and with it the sender, is held by this watch.
            let _ = self.revision.changed().await;
        }
    }
}
