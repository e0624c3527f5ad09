//! A store in memory, for tests, and as the plainest reading of the contract.

use std::ops::Bound;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::{Batch, Changed, State, Store, StoreError, StorePage, Stored, Watch, check, history::History};

/// Everything in a map.
#[derive(Debug)]
pub struct MemoryStore {
    state: RwLock<State>,
    history: History,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            state: RwLock::default(),
            history: History::from(0),
        }
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        Ok(self.state.read().entries.get(key).cloned())
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<StorePage, StoreError> {
        let state = self.state.read();
        let from = after
            .filter(|after| *after >= prefix)
            .map_or(Bound::Included(prefix), Bound::Excluded);
        let mut matching = state
            .entries
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix));
        let entries = matching
            .by_ref()
            .take(limit)
            .map(|(key, stored)| (key.clone(), stored.clone()))
            .collect();
        Ok(StorePage {
            entries,
            more: matching.next().is_some(),
        })
    }

    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        let mut state = self.state.write();
        for write in &batch.writes {
            check(write, state.entries.get(&write.key).map(|stored| stored.revision))?;
        }
        let revision = state.revision + 1;
        for write in &batch.writes {
            match &write.value {
                Some(value) => {
                    let value = value.clone();
                    state.entries.insert(write.key.clone(), Stored { revision, value });
                }
                None => {
                    state.entries.remove(&write.key);
                }
            }
        }
        state.revision = revision;
        state.mark.clone_from(&batch.mark);
        self.history.note(revision, batch);
        Ok(revision)
    }

    fn state(&self) -> Result<State, StoreError> {
        Ok(self.state.read().clone())
    }

    fn visit(&self, visit: &mut dyn FnMut(&str, Stored)) -> Result<u64, StoreError> {
        let state = self.state.read();
        for (key, stored) in &state.entries {
            visit(key, stored.clone());
        }
        Ok(state.revision)
    }

    fn changed(&self, after: u64) -> Result<Changed, StoreError> {
        let state = self.state.read();
        let keys = self.history.changed(after)?.into_iter();
        let entry = |key: String| {
            let stored = state.entries.get(&key).cloned();
            (key, stored)
        };
        Ok(Changed {
            revision: state.revision,
            entries: keys.map(entry).collect(),
        })
    }

    fn restore(&self, state: &State) -> Result<(), StoreError> {
        let mut current = self.state.write();
        *current = state.clone();
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
        Ok(())
    }
}
