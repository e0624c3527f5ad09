//! What the rest of the mesh holds: reads go straight to the store, writes to the single writer.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_actors::{Permits, Supervised};
use mesh_policies::SigningKey;
use mesh_resources::{Kind, Resource, ResourceKey, Spec};
use mesh_types::TenantId;
use parking_lot::Mutex;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, timeout_at},
};

use crate::{
    Artifacts, Author, Change, RegistryError, StorageError, Store, StoreError, Watch,
    actor::{BetweenWrites, CheckMessage, Parcel, RegistryActor, WriteMessage},
    draft::{prefix, read, resource_key, store_key},
    journal::{Head, Place},
    ledger::Request,
};

/// The most items of one page; who asks for more gets this many.
pub const MAX_PAGE: usize = 1_000;
/// The most writes that wait at once.
pub const MAX_PENDING_WRITES: usize = 64;
/// How long a write waits for a writer that is being rebuilt.
const WRITER_WAIT: Duration = Duration::from_secs(2);

/// A part of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// The resources, in the order of their names; a model's versions by number.
    pub items: Vec<Resource>,
    /// What to list after for the next part; none: this was the last.
    pub next: Option<ResourceKey>,
}

/// What has changed since a revision.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Changes {
    /// The revision that it is told at.
    pub revision: u64,
    /// What was written, as it is now.
    pub written: Vec<Resource>,
    /// What is there no more.
    pub gone: Vec<ResourceKey>,
}

/// The registry, as everyone but its owner sees it.
#[derive(Clone)]
pub struct RegistryHandle {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) artifacts: Artifacts,
    pub(crate) place: Place,
    pub(crate) secrets: Vec<(&'static str, PathBuf)>,
    pub(crate) signer: Option<SigningKey>,
    pub(crate) head: Arc<Mutex<Head>>,
    pub(crate) permits: Permits,
    pub(crate) writer: Supervised<RegistryActor>,
    pub(crate) up: watch::Receiver<u64>,
}

impl std::fmt::Debug for RegistryHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let revision = *self.inner.store.revision().borrow();
        f.debug_struct("RegistryHandle").field("revision", &revision).finish()
    }
}

impl RegistryHandle {
    /// One resource, with its revision and times.
    pub fn get(&self, key: &ResourceKey) -> Result<Option<Resource>, RegistryError> {
        let key = store_key(key);
        let stored = self.inner.store.get(&key)?;
        Ok(stored.map(|stored| read(&key, &stored)).transpose()?)
    }

    /// The resources of a kind, or of a tenant's, after a key; at most `limit` and at most [`MAX_PAGE`].
    pub fn list(
        &self,
        kind: Kind,
        tenant: Option<&TenantId>,
        after: Option<&ResourceKey>,
        limit: usize,
    ) -> Result<Page, RegistryError> {
        let after = after.map(store_key);
        let prefix = prefix(kind, tenant.map(TenantId::as_str));
        let page = self
            .inner
            .store
            .list(&prefix, after.as_deref(), limit.clamp(1, MAX_PAGE))?;
        let items: Result<Vec<Resource>, StorageError> =
            page.entries.iter().map(|(key, stored)| read(key, stored)).collect();
        let items = items?;
        let last = items.last().filter(|_| page.more);
        let next = last.and_then(|resource| resource.key().ok());
        Ok(Page { items, next })
    }

    /// Everything, at one revision.
    pub fn all(&self) -> Result<(u64, Vec<Resource>), RegistryError> {
        let mut resources = Vec::new();
        let revision = self.each(|resource| resources.push(resource))?;
        Ok((revision, resources))
    }

    /// Shows every resource, all of one revision, which it answers. Writes wait meanwhile.
    pub fn each(&self, mut show: impl FnMut(Resource)) -> Result<u64, RegistryError> {
        let mut unreadable = None;
        let revision = self.inner.store.visit(&mut |key, stored| match read(key, &stored) {
            Ok(resource) if unreadable.is_none() => show(resource),
            Ok(_) => {}
            Err(error) => drop(unreadable.get_or_insert(error)),
        })?;
        match unreadable {
            Some(error) => Err(error.into()),
            None => Ok(revision),
        }
    }

    /// What has changed since a revision, at the last one; none where that is further back than is remembered: then
    /// [`Self::all`] tells.
    pub fn changes(&self, after: u64) -> Result<Option<Changes>, RegistryError> {
        let changed = match self.inner.store.changed(after) {
            Ok(changed) => changed,
            Err(StoreError::TooOld { .. } | StoreError::NotYet { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut changes = Changes {
            revision: changed.revision,
            ..Changes::default()
        };
        for (key, stored) in changed.entries {
            match stored {
                Some(stored) => changes.written.push(read(&key, &stored)?),
                None => match resource_key(&key) {
                    Some(key) => changes.gone.push(key),
                    // Nothing that is gone may be overlooked.
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(changes))
    }

    /// Writes all changes or none; durable once answered. Answers for each change the resource as it was written, or as it
    /// was before it was taken away. A caller that goes away does not undo its write.
    pub async fn write(&self, by: Author, changes: Vec<Change>) -> Result<Vec<Resource>, RegistryError> {
        self.ask(Request::of(by, changes), WriteMessage).await
    }

    /// Writes into the audit log that something happened that changes no resource, such as a backup; durable once answered.
    pub async fn note(&self, by: Author, event: &str) -> Result<(), RegistryError> {
        let request = Request {
            event: Some(event.to_owned()),
            ..Request::of(by, Vec::new())
        };
        self.ask(request, WriteMessage).await.map(drop)
    }

    /// Signs all that was written, unless the last write was such a signature.
    pub(crate) async fn seal(&self, by: Author) -> Result<(), RegistryError> {
        let request = Request {
            seal: true,
            ..Request::of(by, Vec::new())
        };
        self.ask(request, WriteMessage).await.map(drop)
    }

    /// What [`Self::write`] would answer or refuse, without writing.
    pub async fn check(&self, by: Author, changes: Vec<Change>) -> Result<Vec<Resource>, RegistryError> {
        let request = Request::of(by, changes);
        self.ask(request, |parcel| CheckMessage(WriteMessage(parcel))).await
    }

    /// Sends a write in a message until a writer has taken it out, and waits for its answer.
    async fn ask<M>(
        &self,
        request: Request,
        message: impl Fn(Arc<Mutex<Option<Parcel>>>) -> M,
    ) -> Result<Vec<Resource>, RegistryError>
    where
        M: actix::Message<Result = ()> + Send + 'static,
        RegistryActor: actix::Handler<M>,
    {
        let permit = self.inner.permits.try_acquire().ok_or(RegistryError::Busy)?;
        let (answer, answered) = oneshot::channel();
        let parcel = Arc::new(Mutex::new(Some(Parcel {
            request,
            answer,
            permit,
        })));
        let unseen = || parcel.lock().is_some().then(|| message(parcel.clone()));
        self.send(unseen).await?;
        answered.await.map_err(|_| RegistryError::Unanswered)?
    }

    /// Removes artifacts that no model version refers to and that are older than this; how many were removed. None while a
    /// backup is being read, which may hold them.
    pub async fn remove_unreferenced_artifacts(&self, older_than: Duration) -> Result<usize, RegistryError> {
        let (answer, answered) = oneshot::channel();
        let (store, artifacts) = (self.inner.store.clone(), self.inner.artifacts.clone());
        // On the writer's thread: no version can begin to refer to one meanwhile.
        let holds = self.inner.place.holds.clone();
        let run = move || {
            let Some(_alone) = holds.alone() else {
                let _ = answer.send(Ok(0));
                return;
            };
            let uploaded_before = SystemTime::now()
                .checked_sub(older_than)
                .unwrap_or(SystemTime::UNIX_EPOCH);
            let referenced = referenced(&*store);
            let removed = referenced.and_then(|set| Ok(artifacts.remove_unreferenced(&set, uploaded_before)?));
            let _ = answer.send(removed);
        };
        let mut once = Some(BetweenWrites(Box::new(run)));
        self.send(|| once.take()).await?;
        answered.await.map_err(|_| RegistryError::Unanswered)?
    }

    /// The last revision, told anew after each write.
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.inner.store.revision()
    }

    /// Which keys changed after a revision, and those to come.
    pub fn watch(&self, after: u64) -> Result<Watch, RegistryError> {
        self.inner.store.watch(after).map_err(RegistryError::Watch)
    }

    /// The files of models.
    pub fn artifacts(&self) -> &Artifacts {
        &self.inner.artifacts
    }

    /// Puts a message into the writer's mailbox; waits a while for a writer that is being rebuilt, and then sends what
    /// `next` makes, unless it makes nothing because a writer died with it.
    pub(crate) async fn send<M>(&self, mut next: impl FnMut() -> Option<M>) -> Result<(), RegistryError>
    where
        M: actix::Message<Result = ()> + Send + 'static,
        RegistryActor: actix::Handler<M>,
    {
        let deadline = Instant::now() + WRITER_WAIT;
        let mut up = self.inner.up.clone();
        loop {
            up.borrow_and_update();
            let address = self.inner.writer.address().clone();
            if let Some(address) = address.filter(|address| address.connected()) {
                let message = next().ok_or(RegistryError::Unanswered)?;
                if address.send(message).await.is_ok() {
                    return Ok(());
                }
            } else if !matches!(timeout_at(deadline, up.changed()).await, Ok(Ok(()))) {
                return Err(RegistryError::Down);
            }
        }
    }
}

fn referenced(store: &dyn Store) -> Result<BTreeSet<String>, RegistryError> {
    let state = store.state()?;
    let versions = prefix(Kind::ModelVersion, None);
    let mut referenced = BTreeSet::new();
    for (key, stored) in state.entries.iter().filter(|(key, _)| key.starts_with(&versions)) {
        if let Spec::ModelVersion(spec) = read(key, stored)?.spec {
            referenced.extend(spec.artifact.map(|artifact| artifact.sha256));
        }
    }
    Ok(referenced)
}
