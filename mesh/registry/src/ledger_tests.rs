//! The ledger over a store that fails after the journal has a write.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mesh_types::ManualClock;

use crate::{
    Artifacts, Batch, Change, Changed, MAX_RESOURCES, MemoryStore, RegistryConfig, RegistryError, State, StorageError,
    Store, StoreError, StorePage, Stored, Watch,
    ledger::{Answer, Ledger, LedgerParts, Request},
    registry::reopen,
    testing::{LossyFiles, START, admin, config, key, tenant},
};

#[derive(Default)]
struct Failing {
    store: MemoryStore,
    failing: AtomicUsize,
}

impl Store for Failing {
    fn get(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        self.store.get(key)
    }
    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<StorePage, StoreError> {
        self.store.list(prefix, after, limit)
    }
    fn commit(&self, batch: &Batch) -> Result<u64, StoreError> {
        let take = |failing: usize| failing.checked_sub(1);
        match self.failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
            Ok(_) => Err(StoreError::Engine("write")),
            Err(_) => self.store.commit(batch),
        }
    }
    fn state(&self) -> Result<State, StoreError> {
        self.store.state()
    }
    fn visit(&self, visit: &mut dyn FnMut(&str, Stored)) -> Result<u64, StoreError> {
        self.store.visit(visit)
    }
    fn changed(&self, after: u64) -> Result<Changed, StoreError> {
        self.store.changed(after)
    }
    fn restore(&self, state: &State) -> Result<(), StoreError> {
        self.store.restore(state)
    }
    fn watch(&self, after: u64) -> Result<Watch, StoreError> {
        self.store.watch(after)
    }
    fn revision(&self) -> tokio::sync::watch::Receiver<u64> {
        self.store.revision()
    }
    fn flush(&self) -> Result<(), StoreError> {
        self.store.flush()
    }
}

fn write(ledger: &mut Ledger, names: &[&str]) -> Vec<Answer> {
    let request = |name: &&str| Request {
        by: admin(),
        changes: vec![Change::put(tenant(name))],
        event: None,
        seal: false,
    };
    ledger.commit(names.iter().map(request).collect())
}

#[test]
fn a_write_that_the_store_refused_is_found_in_the_journal_when_it_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Failing::default());
    let config = RegistryConfig {
        files: Arc::new(LossyFiles::default()),
        ..config(folder.path())
    };
    let place = config.place();
    let parts = LedgerParts {
        store: store.clone(),
        artifacts: Artifacts::open(&folder.path().join("artifacts"), 1).unwrap(),
        clock: Arc::new(ManualClock::at(START)),
        head: Arc::default(),
        max_resources: MAX_RESOURCES,
        signer: None,
        required_signers: Vec::new(),
    };
    let mut ledger = reopen(&config, &place, &parts).unwrap();
    assert!(write(&mut ledger, &["a"])[0].is_ok());
    store.failing.store(1, Ordering::SeqCst);
    let answers = write(&mut ledger, &["b", "c"]);
    assert_eq!(
        answers,
        [Err(RegistryError::Unanswered), Err(RegistryError::Unanswered)]
    );
    assert!(ledger.is_broken());
    let refused = write(&mut ledger, &["d"]);
    assert_eq!(refused, [Err(RegistryError::NotRecorded(StorageError::Failed))]);
    drop(ledger);

    let mut ledger = reopen(&config, &place, &parts).unwrap();
    assert_eq!(parts.head.lock().revision, 3);
    assert_eq!(
        store.state().unwrap().entries.len(),
        3,
        "a, and b and c from the journal"
    );
    let written = write(&mut ledger, &["d"]).remove(0).unwrap();
    assert_eq!(written[0].metadata.revision, Some(4));
    assert!(store.get(&key("Tenant/d").to_string()).unwrap().is_some());
}
