//! Opens a registry: the lock, the journal, the index that is compared with it, and the writer's thread.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use actix::Arbiter;
use mesh_actors::{Permits, RestartPolicy, Tasks, supervise};
use mesh_policies::{PublicKey, SigningKey};
use mesh_types::{Clock, SystemClock};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{
    Artifacts, DEFAULT_MAX_ARTIFACT_BYTES, DiskFiles, Files, JournalLimits, MAX_RESOURCES, RegistryError,
    RegistryHandle, SealKey, SledStore, State, StorageError, Store, Stored,
    actor::{OpenLedger, RegistryActor},
    draft::store_key,
    handle::{Inner, MAX_PENDING_WRITES},
    journal::{Base, Head, Journal, Place, Record},
    ledger::{Ledger, LedgerParts},
};

const LOCK: &str = "lock";
const JOURNAL: &str = "journal";
const INDEX: &str = "index";
/// Where an index that cannot be used is kept, for whoever wants to know why. One is kept.
const BROKEN_INDEX: &str = "index.broken";

/// Where a registry is and what it may hold.
#[derive(Clone)]
pub struct RegistryConfig {
    /// The journal and the index.
    pub folder: PathBuf,
    /// The files of models.
    pub artifacts: PathBuf,
    /// The largest of these.
    pub max_artifact_bytes: u64,
    /// The most resources.
    pub max_resources: usize,
    /// The bounds of the journal.
    pub journal: JournalLimits,
    /// What snapshots and backups are signed with. The default is known to everybody: it tells damage, but no forgery.
    pub key: SealKey,
    /// What the heads of the audit log are signed with; none: they are not signed.
    pub audit_key: Option<SigningKey>,
    /// Whose signature a model version with a file needs, whatever its tenant; empty: nobody's.
    pub required_signers: Vec<PublicKey>,
    /// Files that the registry's owner needs to use what is in it, by name: a backup holds them.
    pub secrets: Vec<(&'static str, PathBuf)>,
    /// What the journal's files are written through.
    pub files: Arc<dyn Files>,
    /// Where times come from.
    pub clock: Arc<dyn Clock>,
}

impl RegistryConfig {
    /// A registry in this folder, with the default bounds; its artifacts are in a folder of it.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let folder = folder.into();
        Self {
            artifacts: folder.join("artifacts"),
            folder,
            max_artifact_bytes: DEFAULT_MAX_ARTIFACT_BYTES,
            max_resources: MAX_RESOURCES,
            journal: JournalLimits::default(),
            key: SealKey::default(),
            audit_key: None,
            required_signers: Vec::new(),
            secrets: Vec::new(),
            files: Arc::new(DiskFiles),
            clock: Arc::new(SystemClock),
        }
    }

    /// The same with the artifacts elsewhere.
    #[must_use]
    pub fn with_artifacts(mut self, folder: impl Into<PathBuf>) -> Self {
        self.artifacts = folder.into();
        self
    }

    /// The same with this key for snapshots and backups.
    #[must_use]
    pub fn with_key(mut self, key: SealKey) -> Self {
        self.key = key;
        self
    }

    /// The same with this key for the heads of the audit log.
    #[must_use]
    pub fn with_audit_key(mut self, key: SigningKey) -> Self {
        self.audit_key = Some(key);
        self
    }

    /// The same with a file that backups hold too.
    #[must_use]
    pub fn with_secret(mut self, name: &'static str, path: impl Into<PathBuf>) -> Self {
        self.secrets.push((name, path.into()));
        self
    }

    pub(crate) fn journal_folder(&self) -> PathBuf {
        self.folder.join(JOURNAL)
    }

    pub(crate) fn place(&self) -> Place {
        Place::new(self.files.clone(), &self.journal_folder(), self.key)
    }
}

/// The owner of a registry; when it is dropped, the writer ends.
pub struct Registry {
    handle: RegistryHandle,
    arbiter: Option<Arbiter>,
    _lock: File,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("handle", &self.handle).finish()
    }
}

impl Registry {
    /// Opens or makes a registry, within an actix system. Reads the newest snapshot of the journal and what follows it: call
    /// it at the start of the program.
    pub fn open(config: RegistryConfig, tasks: &Tasks) -> Result<Self, RegistryError> {
        DiskFiles
            .make_folder(&config.folder)
            .map_err(StorageError::io("make its folder"))?;
        let lock = lock(&config.folder)?;
        let artifacts = Artifacts::open(&config.artifacts, config.max_artifact_bytes)?;
        let place = config.place();
        let Opened {
            journal,
            store,
            resources,
            signed,
        } = open_both(&config, &place)?;
        let head = Arc::new(Mutex::new(journal.head()));
        let parts = LedgerParts {
            store: store.clone(),
            artifacts: artifacts.clone(),
            clock: config.clock.clone(),
            head: head.clone(),
            max_resources: config.max_resources,
            signer: config.audit_key.clone(),
            required_signers: config.required_signers.clone(),
        };
        let mut ledger = Ledger::new(parts.clone(), journal, resources).signed_at(signed);
        ledger.compact_if_due();
        let first = Mutex::new(Some(ledger));
        let (secrets, signer) = (config.secrets.clone(), config.audit_key.clone());
        let reopened = place.clone();
        let reopen: OpenLedger = Arc::new(move || reopen(&config, &reopened, &parts));
        let arbiter = Arbiter::new();
        let (up, observed) = watch::channel(0);
        let make = move |lifeline| RegistryActor::new(first.lock().take(), reopen.clone(), up.clone(), lifeline);
        let writer = supervise("registry", RestartPolicy::default(), arbiter.handle(), tasks, make);
        let inner = Inner {
            store,
            artifacts,
            place,
            secrets,
            signer,
            head,
            permits: Permits::new(MAX_PENDING_WRITES),
            writer,
            up: observed,
        };
        let handle = RegistryHandle { inner: Arc::new(inner) };
        Ok(Self {
            handle,
            arbiter: Some(arbiter),
            _lock: lock,
        })
    }

    /// What others hold.
    pub fn handle(&self) -> RegistryHandle {
        self.handle.clone()
    }

    /// Ends the writer, waits until its thread is gone, and writes the index out, so that the next start has nothing to catch
    /// up with. End the tasks first: they would rebuild the writer.
    pub fn close(mut self) -> Result<(), RegistryError> {
        if let Some(arbiter) = self.arbiter.take() {
            arbiter.stop();
            if arbiter.join().is_err() {
                tracing::warn!("registry: the writer's thread ended in a panic");
            }
        }
        self.handle.inner.store.flush()?;
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(arbiter) = &self.arbiter {
            arbiter.stop();
        }
    }
}

fn lock(folder: &Path) -> Result<File, StorageError> {
    let failed = || StorageError::io("lock its folder");
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(folder.join(LOCK));
    let file = file.map_err(failed())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StorageError::Locked),
        Err(TryLockError::Error(error)) => Err(failed()(error)),
    }
}

/// What the journal says should be in the index.
#[derive(Default)]
struct Folded {
    state: State,
    /// The hash of the index's own revision, as the journal has it.
    hash_at: Option<[u8; 32]>,
    /// The last revision that is a signed head; 0: none was read.
    signed: u64,
}

/// The index and the journal, once the first is what the second says.
struct Opened {
    journal: Journal,
    store: Arc<dyn Store>,
    resources: usize,
    signed: u64,
}

impl Folded {
    /// What is there before any write is read.
    fn from(base: &mut Base, index_revision: u64) -> Self {
        let hash = base.head.hash;
        Self {
            state: std::mem::take(&mut base.state),
            hash_at: (index_revision == base.head.revision).then_some(hash),
            signed: 0,
        }
    }

    fn add(&mut self, record: Record, head: Head, index_revision: u64) {
        for change in record.changes {
            let key = store_key(&change.key);
            match change.record {
                Some(record) => {
                    let value = record.get().as_bytes().to_vec();
                    let revision = head.revision;
                    self.state.entries.insert(key, Stored { revision, value });
                }
                None => drop(self.state.entries.remove(&key)),
            }
        }
        if record.head.is_some() {
            self.signed = head.revision;
        }
        self.state.revision = head.revision;
        self.state.mark = head.hash.to_vec();
        if head.revision == index_revision {
            self.hash_at = Some(head.hash);
        }
    }
}

fn read_journal(
    config: &RegistryConfig,
    place: &Place,
    index_revision: u64,
) -> Result<(Journal, Folded, Head), StorageError> {
    let mut base = Journal::base(place)?;
    let mut folded = Folded::from(&mut base, index_revision);
    let journal = Journal::open(
        place.clone(),
        config.journal,
        &base,
        index_revision,
        &mut |record, head| {
            folded.add(record, head, index_revision);
            ControlFlow::Continue(())
        },
    )?;
    tracing::info!(
        revision = journal.head().revision,
        snapshot = base.head.revision,
        writes_read = journal.writes_read(),
        "registry: read the journal"
    );
    Ok((journal, folded, base.head))
}

/// Opens the index and the journal, and makes the first what the second says.
fn open_both(config: &RegistryConfig, place: &Place) -> Result<Opened, RegistryError> {
    let folder = config.folder.join(INDEX);
    let was_there = folder.exists();
    let opened = SledStore::open(&folder).and_then(|store| Ok((store.last()?, store)));
    let known = opened.as_ref().map_or(0, |(last, _)| last.revision);
    let (journal, Folded { state, hash_at, signed }, base) = read_journal(config, place, known)?;
    let resources = state.entries.len();
    // Entry by entry: both at once would be twice what is there.
    let compared = opened.and_then(|(last, store)| Ok((store.is(&state)?, last, store)));
    let store = match compared {
        Ok((is_same, index, store)) if is_same || (index.revision == 0 && state.revision == 0) => store,
        Ok((_, index, store)) => {
            // Of an index older than the snapshot it is not known what it followed; it becomes what the journal says.
            let older = index.revision < base.revision;
            let follows = older || hash_at.is_some_and(|hash| index.revision == 0 || index.value == hash);
            if index.revision == state.revision || !follows {
                drop(store);
                rebuild(&folder, &state, "it differs from the journal")?
            } else {
                let missing = state.revision - index.revision;
                if was_there {
                    tracing::warn!(missing, "registry: the index is behind the journal: catching up");
                } else {
                    tracing::warn!(
                        revision = state.revision,
                        "registry: the index is missing: made from the journal"
                    );
                }
                store.restore(&state)?;
                store
            }
        }
        Err(error) => rebuild(&folder, &state, &error.to_string())?,
    };
    Ok(Opened {
        journal,
        store: Arc::new(store),
        resources,
        signed,
    })
}

/// Moves the index aside and makes it anew.
fn rebuild(folder: &Path, state: &State, why: &str) -> Result<SledStore, RegistryError> {
    tracing::warn!(
        why,
        revision = state.revision,
        "registry: the index cannot be used: moved aside and made anew from the journal"
    );
    let failed = || StorageError::io("move the broken index aside");
    let aside = folder.with_file_name(BROKEN_INDEX);
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(failed())?;
    }
    fs::rename(folder, &aside).map_err(failed())?;
    let store = SledStore::open(folder)?;
    store.restore(state)?;
    store.flush()?;
    Ok(store)
}

/// Opens the journal again after a writer died, and makes the store, which others hold, what it says.
pub(crate) fn reopen(config: &RegistryConfig, place: &Place, parts: &LedgerParts) -> Result<Ledger, RegistryError> {
    let known = parts.head.lock().revision;
    let (journal, folded, _) = read_journal(config, place, known)?;
    if parts.store.state()? != folded.state {
        tracing::warn!(
            revision = folded.state.revision,
            "registry: the index lacks what the journal has: catching up"
        );
        parts.store.restore(&folded.state)?;
    }
    Ok(Ledger::new(parts.clone(), journal, folded.state.entries.len()).signed_at(folded.signed))
}
