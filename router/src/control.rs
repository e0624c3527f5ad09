//! To load and unload models of a model repository at the inference doors.
//!
//! Owns who may ask for it, and how long it may take; the repository itself stands behind [`ModelControl`]. A caller of any
//! other tenant than the repository's is answered as for a model that is not there. Each tenant has one repository, which bears its
//! name: whoever names none means its own, and whoever names another's is answered as for one that is not there.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_types::{Deadline, Fault, FaultClass, FaultSource, RequestId, TenantId, Version};

use crate::{Credential, IndexEntry, RouterHandle, manage::Namer};

/// How long a change may take where its caller does not say.
pub const CHANGE_TIMEOUT: Duration = Duration::from_secs(600);

/// What is asked to be done with a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// To be loaded, or loaded anew where what it is made of has changed.
    Load(Load),
    /// To be unloaded.
    Unload {
        /// Whether the models of an ensemble's steps go too.
        dependents: bool,
    },
}

/// What a model is made of, where that is not what the repository has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Its configuration, as the JSON of Triton's message.
    pub config: Option<String>,
    /// All of its files, by `<version>/<name>`.
    pub files: Vec<(String, Bytes)>,
}

/// A change that its caller may ask for.
#[derive(Debug, Clone)]
pub struct ChangeOrder {
    /// The repository that it names; empty: the caller's.
    pub repository: String,
    /// The model, as the caller wrote it.
    pub model: String,
    /// What is to be done.
    pub change: Change,
    /// Until when.
    pub deadline: Deadline,
    /// The mesh's number for the request.
    pub request: RequestId,
    /// Which door it came through.
    pub door: &'static str,
}

/// What a model repository answers, in time.
pub type Controlled<T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send>>;

/// A model repository whose models are loaded and unloaded on demand.
pub trait ModelControl: fmt::Debug + Send + Sync + 'static {
    /// Whose its models are.
    fn tenant(&self) -> &TenantId;
    /// Carries a change out; done once it can be seen.
    fn change(&self, order: ChangeOrder) -> Controlled<()>;
    /// All of its models, loaded or not, by name and version.
    fn index(&self) -> Controlled<Vec<RepositoryEntry>>;
}

/// One entry of a repository's index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryEntry {
    /// The model.
    pub name: String,
    /// Its version; none of a model that was never loaded.
    pub version: Option<Version>,
    /// Whether it would take a call now.
    pub ready: bool,
    /// Its state, as the protocol names it.
    pub state: &'static str,
    /// Why it would not.
    pub reason: String,
}

impl From<IndexEntry> for RepositoryEntry {
    fn from(entry: IndexEntry) -> Self {
        Self {
            version: Some(entry.version),
            ready: entry.ready,
            state: entry.state(),
            name: entry.name,
            reason: entry.reason,
        }
    }
}

impl RouterHandle {
    /// Loads or unloads a model, if the caller may. `timeout` is the caller's.
    pub async fn change_model(
        &self,
        control: Option<&Arc<dyn ModelControl>>,
        credential: &Credential,
        timeout: Option<Duration>,
        order: impl FnOnce(Deadline) -> Result<ChangeOrder, Fault>,
    ) -> Result<(), Fault> {
        let parts = self.parts();
        let namer = Namer::new(parts, credential)?;
        let Some(control) = control else {
            return Err(not_allowed());
        };
        let timeout = timeout.map_or(CHANGE_TIMEOUT, |timeout| timeout.min(CHANGE_TIMEOUT));
        let order = order(Deadline::after(parts.clock.now(), timeout))?;
        in_repository(&namer, &order.repository)?;
        // What a policy keeps from the caller is kept whether it is there or not, so that neither answer tells.
        if control.tenant() != namer.tenant() || !namer.may_name(&order.model) {
            return Err(Fault::unknown_model(&order.model));
        }
        if !namer.may_load(&order.model) {
            return Err(kept_from_loading());
        }
        control.change(order).await
    }

    /// The index as a caller sees it: its repository's, where it is the tenant of one, and else what its names lead to. Of the
    /// repository that it names, where it names one.
    pub async fn full_index(
        &self,
        control: Option<&Arc<dyn ModelControl>>,
        credential: &Credential,
        (repository, only_ready): (&str, bool),
    ) -> Result<Vec<RepositoryEntry>, Fault> {
        let namer = Namer::new(self.parts(), credential)?;
        in_repository(&namer, repository)?;
        let Some(control) = control.filter(|control| control.tenant() == namer.tenant()) else {
            let index = self.index(credential, only_ready)?;
            return Ok(index.into_iter().map(RepositoryEntry::from).collect());
        };
        let mut index = control.index().await?;
        index.retain(|entry| (entry.ready || !only_ready) && namer.may_name(&entry.name));
        Ok(index)
    }
}

/// Whether a repository that is named is the caller's own, which no name stands for too.
fn in_repository(namer: &Namer, repository: &str) -> Result<(), Fault> {
    let is_own = repository.is_empty() || repository == namer.tenant().as_str();
    is_own
        .then_some(())
        .ok_or_else(|| Fault::unknown_repository(repository))
}

fn not_allowed() -> Fault {
    Fault::new(
        FaultClass::PermissionDenied,
        FaultSource::Client,
        "explicit model load / unload is not allowed by this server: models are managed at its admin door, unless it serves \
         a repository with --model-control-mode explicit",
    )
}

fn kept_from_loading() -> Fault {
    Fault::new(
        FaultClass::PermissionDenied,
        FaultSource::Client,
        "a policy keeps this caller from loading and unloading this model (model:load): ask who administers the mesh",
    )
}
