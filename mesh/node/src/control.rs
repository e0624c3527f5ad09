//! `mesh serve --model-control-mode explicit`: the models of the repository are loaded and unloaded at the inference doors.
//!
//! Owns the way from what a caller asks to what the registry holds and the devices have: a load brings the model's folder in, or
//! what was sent instead of it, and waits until control has brought it where it belongs; an unload keeps its versions off the
//! devices. Everything is written by the registry's one writer, in the tenant's name, and so in the audit log.
//!
//! Invariants: a change has its turn ([`Turns`]) until all of it is over; what was sent lies in a folder of its own, which goes with
//! the change; a message names no path.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use mesh_control::{ControllerHandle, Unsettled};
use mesh_import::{Plan, Said, Weight, carry_out, plan_said};
use mesh_policies::snapshot::VersionPhase;
use mesh_policies::{MeshSnapshot, Target};
use mesh_registry::{Author, Change as Put, MAX_PAGE, RegistryError, RegistryHandle};
use mesh_resources::{Kind, Resource, Spec};
use mesh_router::{Change, ChangeOrder, Controlled, Load, ModelControl, RepositoryEntry, state_of};
use mesh_types::{Fault, FaultClass, FaultSource, ModelId, ModelVersionKey, TenantId, Version};
use tokio::time::timeout_at;

use crate::{
    repository::Records,
    sent,
    signature::ConfinedFiles,
    turns::{Held, Turns},
};

/// The repository.
#[derive(Clone)]
pub(crate) struct Repository {
    inner: Arc<Inner>,
}

struct Inner {
    registry: RegistryHandle,
    root: PathBuf,
    tenant: TenantId,
    /// Where what was sent lies while it is read.
    sent: PathBuf,
    files: ConfinedFiles,
    control: ControllerHandle,
    snapshots: Arc<ArcSwap<MeshSnapshot>>,
    turns: Turns,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository")
            .field("tenant", &self.inner.tenant)
            .finish_non_exhaustive()
    }
}

/// What a repository is made of.
pub(crate) struct RepositoryParts {
    pub(crate) registry: RegistryHandle,
    pub(crate) root: PathBuf,
    pub(crate) tenant: TenantId,
    pub(crate) sent: PathBuf,
    pub(crate) files: ConfinedFiles,
    pub(crate) control: ControllerHandle,
    pub(crate) snapshots: Arc<ArcSwap<MeshSnapshot>>,
}

impl Repository {
    pub(crate) fn new(parts: RepositoryParts) -> Self {
        Self {
            inner: Arc::new(Inner {
                registry: parts.registry,
                root: parts.root,
                tenant: parts.tenant,
                sent: parts.sent,
                files: parts.files,
                control: parts.control,
                snapshots: parts.snapshots,
                turns: Turns::default(),
            }),
        }
    }
}

impl ModelControl for Repository {
    fn tenant(&self) -> &TenantId {
        &self.inner.tenant
    }

    fn change(&self, order: ChangeOrder) -> Controlled<()> {
        let inner = self.inner.clone();
        async move { inner.in_time(order).await }.boxed()
    }

    fn index(&self) -> Controlled<Vec<RepositoryEntry>> {
        let inner = self.inner.clone();
        async move {
            let read = tokio::task::spawn_blocking(move || inner.entries());
            read.await
                .map_err(|_| Fault::internal("the repository could not be read"))?
        }
        .boxed()
    }
}

impl Inner {
    async fn in_time(&self, order: ChangeOrder) -> Result<(), Fault> {
        let held = self.turns.enter()?;
        let (what, name) = (verb(&order.change), shown(&order.model));
        let deadline = tokio::time::Instant::from_std(order.deadline.instant());
        let begun = std::time::Instant::now();
        tracing::info!(model = name, tenant = %self.tenant, request = %order.request, "to {what} a model is asked for");
        let change = self
            .turns
            .take(&order.model, held.clone(), self.carry_out(&order, held));
        let changed = match timeout_at(deadline, change).await {
            Ok(changed) => changed,
            Err(_) => Err(Fault::deadline("before the model was where it belongs; it goes on")),
        };
        tell(what, &name, begun.elapsed(), &changed);
        changed
    }

    async fn carry_out(&self, order: &ChangeOrder, held: Held) -> Result<(), Fault> {
        match &order.change {
            Change::Load(load) => self.load(order, load, held).await,
            Change::Unload { dependents } => self.unload(order, *dependents).await,
        }
    }

    async fn load(&self, order: &ChangeOrder, load: &Load, held: Held) -> Result<(), Fault> {
        let name = &order.model;
        let failed = |problem: &str| Fault::invalid(format!("failed to load '{}', {problem}", shown(name)));
        let folder = sent::folder(&self.sent, name, load)
            .await
            .map_err(|problem| failed(&problem))?;
        let plan = self
            .read(name, load, folder.as_ref().map(|folder| folder.path()), held)
            .await?;
        let keys = kept(&plan, &self.tenant);
        let mut records = Records::new(self.registry.clone(), self.author(order));
        let report = carry_out(&plan, &self.tenant, false, &mut records).await;
        let report = report.map_err(|error| Fault::unavailable(FaultSource::Mesh, error.to_string()))?;
        if let Some(note) = report.refused.first() {
            return Err(failed(&note.right));
        }
        self.leave_out(&plan, order).await?;
        self.settled(&keys, name).await.map_err(|problem| failed(&problem))
    }

    /// Reads the model, and those of its steps that are not loaded.
    async fn read(&self, name: &str, load: &Load, sent: Option<&Path>, held: Held) -> Result<Plan, Fault> {
        let root = sent.unwrap_or(&self.root).to_path_buf();
        let (name, config) = (name.to_owned(), load.config.clone());
        let (registry, tenant) = (self.registry.clone(), self.tenant.clone());
        let files = self.files.clone();
        let read = tokio::task::spawn_blocking(move || {
            let _held = held;
            let said = config.as_deref().map(|config| Said { model: &name, config });
            read_with_steps(&root, &name, (said, &files), &|step| {
                is_loaded(&registry, &tenant, step)
            })
        });
        read.await.map_err(|_| Fault::internal("reading the model failed"))?
    }

    /// Keeps versions off the devices whose folders are gone.
    async fn leave_out(&self, plan: &Plan, order: &ChangeOrder) -> Result<(), Fault> {
        for model in plan.models.iter().filter(|model| model.name.as_str() == order.model) {
            let gone = |version: &ModelVersionKey| model.versions.iter().all(|there| there.number != version.version);
            self.keep_off(&model.name, order, gone).await?;
        }
        Ok(())
    }

    async fn unload(&self, order: &ChangeOrder, dependents: bool) -> Result<(), Fault> {
        let failed = |problem: &str| Fault::invalid(format!("failed to unload '{}', {problem}", shown(&order.model)));
        let none = || Fault::not_found(format!("failed to unload '{}', it is not loaded", shown(&order.model)));
        let model = ModelId::parse(&order.model).map_err(|_| none())?;
        let versions = self
            .versions(&model)
            .map_err(|_| failed("the registry cannot be read"))?;
        if versions.is_empty() {
            return Err(none());
        }
        self.keep_off(&model, order, |_| true).await?;
        let steps: BTreeSet<ModelId> = versions.iter().flat_map(|(_, resource)| steps_of(resource)).collect();
        for step in steps.iter().filter(|_| dependents) {
            match self.keep_off(step, order, |_| true).await {
                // Another ensemble runs it, and says so by its name: it stays.
                Err(fault) if fault.class == FaultClass::InvalidArgument => {
                    tracing::info!(%step, %fault, "a step is needed elsewhere: it stays loaded");
                }
                kept_off => kept_off?,
            }
        }
        self.settled(&BTreeSet::new(), "")
            .await
            .map_err(|problem| failed(&problem))
    }

    fn versions(&self, model: &ModelId) -> Result<Vec<(ModelVersionKey, Resource)>, RegistryError> {
        versions_of(&self.registry, &self.tenant, model)
    }

    async fn keep_off(
        &self,
        model: &ModelId,
        order: &ChangeOrder,
        which: impl Fn(&ModelVersionKey) -> bool,
    ) -> Result<(), Fault> {
        let broken = |error: RegistryError| {
            let text = format!("failed to unload '{model}', {error}");
            match error {
                RegistryError::Invalid(_) => Fault::invalid(text),
                _ => Fault::unavailable(FaultSource::Mesh, text),
            }
        };
        let mut changes = Vec::new();
        for (_, mut resource) in self
            .versions(model)
            .map_err(broken)?
            .into_iter()
            .filter(|(key, _)| which(key))
        {
            if let Spec::ModelVersion(spec) = &mut resource.spec
                && !spec.unloaded
            {
                spec.unloaded = true;
                changes.push(Put::put(resource));
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.registry
            .write(self.author(order), changes)
            .await
            .map(drop)
            .map_err(broken)
    }

    fn author(&self, order: &ChangeOrder) -> Author {
        Author {
            who: format!("tenant {}", self.tenant),
            source: order.door.to_owned(),
            request: Some(order.request.to_string()),
            from: None,
        }
    }

    /// Waits until what the registry holds now can be called, and these versions are where they belong or failed to get there.
    async fn settled(&self, keys: &BTreeSet<ModelVersionKey>, name: &str) -> Result<(), String> {
        let revision = *self.registry.revision().borrow();
        let mut told = self.control.unsettled();
        loop {
            let over = outcome(&told.borrow_and_update(), revision, keys);
            match over {
                Some(Ok(())) => return self.is_callable(name),
                Some(Err(reason)) => return Err(reason),
                None => told
                    .changed()
                    .await
                    .map_err(|_| "the server is shutting down".to_owned())?,
            }
        }
    }

    /// Why an ensemble cannot be called though its steps are where they belong.
    fn is_callable(&self, name: &str) -> Result<(), String> {
        let snapshot = self.snapshots.load();
        let target = snapshot
            .tenant(self.tenant.as_str())
            .and_then(|tenant| tenant.target(name));
        let Some(Target::Model(model)) = target else {
            return Ok(());
        };
        let newest = model.versions.values().next_back();
        match newest.filter(|newest| newest.config.ensemble_scheduling.is_some() && !newest.is_ready()) {
            Some(ensemble) => Err(ensemble.unavailable_reason.clone().unwrap_or_default()),
            None => Ok(()),
        }
    }

    fn entries(&self) -> Result<Vec<RepositoryEntry>, Fault> {
        let unreadable = |problem: String| {
            tracing::warn!(problem, "the model repository cannot be read");
            Fault::unavailable(FaultSource::Mesh, "the model repository cannot be read")
        };
        let names = mesh_import::models(&self.root).map_err(|error| unreadable(error.to_string()))?;
        let snapshot = self.snapshots.load();
        let tenant = snapshot.tenant(self.tenant.as_str());
        let mut held: BTreeMap<String, Vec<(Version, bool)>> = BTreeMap::new();
        each_version(&self.registry, &self.tenant, |key, resource| {
            let unloaded = matches!(&resource.spec, Spec::ModelVersion(spec) if spec.unloaded);
            held.entry(key.model.to_string())
                .or_default()
                .push((key.version, unloaded));
        })
        .map_err(|error| unreadable(error.to_string()))?;
        let mut entries = Vec::new();
        for name in names {
            let Some(versions) = held.remove(&name) else {
                entries.push(RepositoryEntry {
                    name,
                    version: None,
                    ready: false,
                    state: state_of(false, VersionPhase::Settled),
                    reason: "not loaded".to_owned(),
                });
                continue;
            };
            let target = tenant.and_then(|tenant| tenant.target(&name));
            entries.extend(versions.into_iter().map(|version| entry(&name, version, target)));
        }
        Ok(entries)
    }
}

fn entry(name: &str, (version, unloaded): (Version, bool), target: Option<&Target>) -> RepositoryEntry {
    let shown = match target {
        Some(Target::Model(model)) => model.versions.get(&version),
        _ => None,
    };
    let ready = shown.is_some_and(|entry| entry.is_ready());
    let reason = match shown.and_then(|entry| entry.unavailable_reason.clone()) {
        _ if ready => None,
        _ if unloaded => Some("unloaded".to_owned()),
        reason => reason,
    };
    let phase = shown.map(|entry| entry.phase).unwrap_or_default();
    RepositoryEntry {
        name: name.to_owned(),
        version: Some(version),
        ready,
        state: state_of(ready, phase),
        reason: reason.unwrap_or_default(),
    }
}

fn tell(what: &str, model: &str, took: Duration, changed: &Result<(), Fault>) {
    match changed {
        Ok(()) => tracing::info!(model, ?took, "{what} done"),
        Err(fault) => tracing::warn!(model, ?took, %fault, "{what} failed"),
    }
}

fn verb(change: &Change) -> &'static str {
    match change {
        Change::Load(_) => "load",
        Change::Unload { .. } => "unload",
    }
}

/// A caller's text, as long as a name may be.
fn shown(name: &str) -> String {
    name.chars()
        .filter(|character| !character.is_control())
        .take(100)
        .collect()
}

fn outcome(told: &Unsettled, revision: u64, keys: &BTreeSet<ModelVersionKey>) -> Option<Result<(), String>> {
    if told.revision < revision {
        return None;
    }
    if let Some(reason) = keys.iter().find_map(|key| told.failed.get(key)) {
        return Some(Err(reason.clone()));
    }
    keys.is_disjoint(&told.pending).then_some(Ok(()))
}

/// The versions that a plan's policies keep on the devices.
fn kept(plan: &Plan, tenant: &TenantId) -> BTreeSet<ModelVersionKey> {
    let mut keys = BTreeSet::new();
    for model in &plan.models {
        let kept = model
            .policy
            .kept(model.versions.iter().rev().map(|version| version.number));
        let versions = model.versions.iter().map(|version| version.number);
        let versions = versions.filter(|number| kept.as_ref().is_none_or(|kept| kept.contains(number)));
        keys.extend(versions.map(|version| ModelVersionKey {
            tenant: tenant.clone(),
            model: model.name.clone(),
            version,
        }));
    }
    keys
}

fn steps_of(resource: &Resource) -> Vec<ModelId> {
    let Spec::ModelVersion(spec) = &resource.spec else {
        return Vec::new();
    };
    let steps = spec
        .config
        .ensemble_scheduling
        .iter()
        .flat_map(|ensemble| &ensemble.step);
    steps.map(|step| step.model_name.clone()).collect()
}

fn versions_of(
    registry: &RegistryHandle,
    tenant: &TenantId,
    model: &ModelId,
) -> Result<Vec<(ModelVersionKey, Resource)>, RegistryError> {
    let mut found = Vec::new();
    each_version(registry, tenant, |key, resource| {
        if key.model == *model {
            found.push((key, resource));
        }
    })?;
    Ok(found)
}

/// Looks at every version of a tenant's models, in the order of their names.
fn each_version(
    registry: &RegistryHandle,
    tenant: &TenantId,
    mut look: impl FnMut(ModelVersionKey, Resource),
) -> Result<(), RegistryError> {
    let mut after = None;
    loop {
        let page = registry.list(Kind::ModelVersion, Some(tenant), after.as_ref(), MAX_PAGE)?;
        for resource in page.items {
            if let Some(key) = resource.key().ok().and_then(|key| key.as_version()) {
                look(key, resource);
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}

fn is_loaded(registry: &RegistryHandle, tenant: &TenantId, model: &str) -> bool {
    let Ok(model) = ModelId::parse(model) else { return false };
    let versions = versions_of(registry, tenant, &model).unwrap_or_default();
    versions
        .iter()
        .any(|(_, resource)| matches!(&resource.spec, Spec::ModelVersion(spec) if !spec.unloaded))
}

/// Plans a model, and with it the models of its steps that are not loaded, however deep.
fn read_with_steps(
    root: &Path,
    name: &str,
    (said, files): (Option<Said<'_>>, &ConfinedFiles),
    is_loaded: &dyn Fn(&str) -> bool,
) -> Result<Plan, Fault> {
    let unreadable = |error: mesh_import::FolderError| {
        tracing::warn!(%error, "the model repository cannot be read");
        Fault::unavailable(
            FaultSource::Mesh,
            format!("failed to load '{}', its folder cannot be read", shown(name)),
        )
    };
    let there = mesh_import::models(root).map_err(unreadable)?;
    if !there.iter().any(|known| known == name) {
        let text = format!(
            "failed to load '{}', there is no such model in the repository",
            shown(name)
        );
        return Err(Fault::not_found(text));
    }
    let mut names = BTreeSet::from([name.to_owned()]);
    loop {
        let only: Vec<String> = names.iter().cloned().collect();
        let mut plan = plan_said(root, &only, said, files).map_err(unreadable)?;
        if let Some(note) = plan.notes.iter().find(|note| note.weight == Weight::Refused) {
            let text = format!("failed to load '{}', {}: {}", shown(name), note.what, note.right);
            return Err(Fault::invalid(text));
        }
        let steps = plan.models.iter().flat_map(|model| model.steps());
        let further = steps.filter(|step| there.iter().any(|known| known == step) && !is_loaded(step));
        let before = names.len();
        let further: Vec<String> = further.map(str::to_owned).collect();
        names.extend(further);
        if names.len() == before {
            plan.models.iter_mut().for_each(|model| model.loads = true);
            return Ok(plan);
        }
    }
}
