//! What callers ask about models beside predictions: what versions have done, and which there are.
//!
//! Transport-free: both doors answer from here. Authenticated like any call, from one snapshot, and not counted against
//! limits. A caller sees what its names lead to and nothing else; what is unknown and what is another's answer alike.

use std::{collections::BTreeMap, sync::Arc};

use mesh_policies::{
    MeshSnapshot, Principal,
    snapshot::{Target, TenantEntry, VersionEntry, VersionPhase},
};
use mesh_types::{ArtifactFormat, ComputeTimes, Fault, TenantId, Times, Version, VersionSelector, VersionStatistics};

use crate::{Credential, RouterHandle, RouterParts, View, keys};

/// What one version has done.
#[derive(Debug, Clone)]
pub struct StatisticsEntry {
    /// The name that leads to it.
    pub name: String,
    /// The version.
    pub version: Version,
    /// Its numbers, those of all its callers.
    pub numbers: VersionStatistics,
}

impl IndexEntry {
    /// Its state, as the protocol names it.
    pub fn state(&self) -> &'static str {
        state_of(self.ready, self.phase)
    }
}

/// The state of a version, as the protocol names it.
pub fn state_of(ready: bool, phase: VersionPhase) -> &'static str {
    match phase {
        _ if ready => "READY",
        VersionPhase::Settled => "UNAVAILABLE",
        VersionPhase::Loading => "LOADING",
        VersionPhase::Unloading => "UNLOADING",
    }
}

/// One version in the index of what a caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexEntry {
    /// The name that leads to it.
    pub name: String,
    /// The version.
    pub version: Version,
    /// Whether it would take a call now.
    pub ready: bool,
    /// Where it is on its way, while it would not.
    pub phase: VersionPhase,
    /// Why not.
    pub reason: String,
}

impl RouterHandle {
    /// Refuses a credential that lets nobody in.
    pub fn authenticate(&self, credential: &Credential) -> Result<(), Fault> {
        let parts = self.parts();
        keys::caller(&parts.snapshots.load(), parts, credential)?;
        Ok(())
    }

    /// What versions have done: those of a name, or of all names that lead to models.
    pub fn statistics(
        &self,
        credential: &Credential,
        name: Option<&str>,
        selector: &VersionSelector,
    ) -> Result<Vec<StatisticsEntry>, Fault> {
        let parts = self.parts();
        let snapshot = parts.snapshots.load_full();
        let asker = caller(&snapshot, parts, credential)?;
        let found = match name {
            Some(name) => of_name(&asker, name, selector)?,
            None => of_models(&asker),
        };
        let counted = found.into_iter().map(|(name, entry)| StatisticsEntry {
            name,
            version: entry.key.version,
            numbers: with_cache(
                parts,
                &entry,
                match entry.format {
                    // It is on no device: its requests are counted where they travel.
                    ArtifactFormat::Ensemble => of_ensemble(parts, &entry),
                    _ => parts.workers.statistics(&entry.key),
                },
            ),
        });
        Ok(counted.collect())
    }

    /// The versions that the caller's names lead to, by name and version; only those that are ready, if so asked.
    pub fn index(&self, credential: &Credential, only_ready: bool) -> Result<Vec<IndexEntry>, Fault> {
        self.view().index(credential, only_ready)
    }
}

/// A page of the names that a caller may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesPage {
    /// Names of models and endpoints, in order.
    pub names: Vec<String>,
    /// Whether there are more behind the last one.
    pub more: bool,
}

impl View {
    /// So many of the names that the caller may call, in order: the first ones, or those behind a name.
    pub fn names(&self, credential: &Credential, behind: Option<&str>, most: usize) -> Result<NamesPage, Fault> {
        let asker = caller(self.snapshot(), self.parts(), credential)?;
        let is_on_page = |name: &&String| behind.is_none_or(|behind| name.as_str() > behind);
        let mut names: Vec<&String> = asker.tenant.targets.keys().filter(is_on_page).collect();
        names.sort_unstable();
        let is_callable = |name: &&String| {
            asker
                .target(name)
                .is_some_and(|target| !versions(asker.tenant, target).is_empty())
        };
        let mut callable = names.into_iter().filter(is_callable);
        let names = callable.by_ref().take(most).cloned().collect();
        let more = callable.next().is_some();
        Ok(NamesPage { names, more })
    }

    /// The versions that the caller's names lead to, by name and version; only those that are ready, if so asked.
    pub fn index(&self, credential: &Credential, only_ready: bool) -> Result<Vec<IndexEntry>, Fault> {
        let asker = caller(self.snapshot(), self.parts(), credential)?;
        let mut index = Vec::new();
        for (name, target) in asker.targets() {
            for (version, entry) in versions(asker.tenant, target) {
                let ready = entry.is_ready();
                if ready || !only_ready {
                    let reason = entry.unavailable_reason.as_deref().filter(|_| !ready);
                    index.push(IndexEntry {
                        name: name.clone(),
                        version,
                        ready,
                        phase: entry.phase,
                        reason: reason.unwrap_or_default().to_owned(),
                    });
                }
            }
        }
        index.sort_unstable_by(|one, other| (&one.name, one.version).cmp(&(&other.name, other.version)));
        Ok(index)
    }
}

/// With what the cache has answered of it.
fn with_cache(parts: &RouterParts, entry: &VersionEntry, mut numbers: VersionStatistics) -> VersionStatistics {
    parts.cache.add_to(&entry.key, &mut numbers);
    numbers
}

/// What an ensemble has done. The time of its steps is added up, also of those that ran side by side.
fn of_ensemble(parts: &RouterParts, entry: &VersionEntry) -> VersionStatistics {
    let Some(reading) = parts.telemetry.metrics().ensemble_reading(&entry.key) else {
        return VersionStatistics::default();
    };
    let times = |count, total| Times { count, total };
    let [queue, input, infer, output] = reading.on_devices.map(|total| times(reading.ok, total));
    VersionStatistics {
        last_inference_ms: reading.last_ms,
        inference_count: reading.rows,
        execution_count: reading.ok,
        success: times(reading.ok, reading.total),
        fail: times(reading.failed, reading.failed_total),
        queue,
        compute: ComputeTimes { input, infer, output },
        ..VersionStatistics::default()
    }
}

/// Who asks about names that may come to lead somewhere; keeps its snapshot for as long as that takes.
pub(crate) struct Namer {
    snapshot: Arc<MeshSnapshot>,
    principal: Principal,
    tenant: Arc<TenantEntry>,
}

impl Namer {
    pub(crate) fn new(parts: &RouterParts, credential: &Credential) -> Result<Self, Fault> {
        let snapshot = parts.snapshots.load_full();
        let (principal, tenant) = keys::caller(&snapshot, parts, credential)?;
        let tenant = tenant.clone();
        Ok(Self {
            snapshot,
            principal,
            tenant,
        })
    }

    pub(crate) fn tenant(&self) -> &TenantId {
        &self.tenant.id
    }

    /// Whether it may call what the name may come to lead to.
    pub(crate) fn may_name(&self, name: &str) -> bool {
        self.snapshot.may_name(&self.principal, &self.tenant, name)
    }

    /// Whether it may load and unload the model.
    pub(crate) fn may_load(&self, name: &str) -> bool {
        self.snapshot.may_load(&self.principal, &self.tenant, name)
    }
}

/// Who is asking, with what it may see.
struct Asker<'a> {
    snapshot: &'a MeshSnapshot,
    principal: Principal,
    tenant: &'a TenantEntry,
}

impl<'a> Asker<'a> {
    fn target(&self, name: &str) -> Option<&'a Target> {
        self.snapshot.callable(&self.principal, self.tenant, name)
    }

    /// The names that it may call, and what they lead to.
    fn targets(&self) -> impl Iterator<Item = (&'a String, &'a Target)> {
        let names = self.tenant.targets.keys();
        names.filter_map(|name| Some((name, self.target(name)?)))
    }
}

fn caller<'a>(snapshot: &'a MeshSnapshot, parts: &RouterParts, credential: &Credential) -> Result<Asker<'a>, Fault> {
    let (principal, tenant) = keys::caller(snapshot, parts, credential)?;
    Ok(Asker {
        snapshot,
        principal,
        tenant,
    })
}

/// Whether the tenant may call it: an ensemble may have steps that are not for everybody.
fn is_callable(tenant: &TenantEntry, entry: &VersionEntry) -> bool {
    entry.plan.as_ref().is_none_or(|plan| plan.admits(&tenant.id))
}

/// The versions that a name leads to: a model's own, or those that an endpoint's arms answer with.
fn versions(tenant: &TenantEntry, target: &Target) -> BTreeMap<Version, Arc<VersionEntry>> {
    let all: Vec<&Arc<VersionEntry>> = match target {
        Target::Model(model) => model.versions.values().collect(),
        Target::Endpoint(route) => route.arms.iter().filter_map(|arm| arm.version.as_ref()).collect(),
    };
    let mut versions: BTreeMap<Version, Arc<VersionEntry>> = BTreeMap::new();
    for entry in all.into_iter().filter(|entry| is_callable(tenant, entry)) {
        let known = versions.entry(entry.key.version).or_insert_with(|| entry.clone());
        // Arms may be of several models with equal numbers: one that is ready speaks for all.
        if !known.is_ready() {
            known.clone_from(entry);
        }
    }
    versions
}

type Named = (String, Arc<VersionEntry>);

fn of_name(asker: &Asker<'_>, name: &str, selector: &VersionSelector) -> Result<Vec<Named>, Fault> {
    let (tenant, unknown) = (asker.tenant, || Fault::unknown_model(name));
    let target = asker.target(name).ok_or_else(unknown)?;
    let found: Vec<Arc<VersionEntry>> = match (selector, target) {
        (VersionSelector::Default, target) => versions(tenant, target).into_values().collect(),
        (pinned, Target::Model(model)) => model.resolve(pinned).into_iter().cloned().collect(),
        (pinned, Target::Endpoint(route)) => route
            .pinned(pinned)
            .map(|(_, entry)| entry.clone())
            .into_iter()
            .collect(),
    };
    let found = found.into_iter().filter(|entry| is_callable(tenant, entry));
    let named: Vec<Named> = found.map(|entry| (name.to_owned(), entry)).collect();
    if named.is_empty() {
        return Err(unknown());
    }
    Ok(named)
}

/// Endpoints are left out: what their versions do is their models'.
fn of_models(asker: &Asker<'_>) -> Vec<Named> {
    let mut named: Vec<Named> = Vec::new();
    for (name, target) in asker.targets() {
        if matches!(target, Target::Model(_)) {
            let of_it = versions(asker.tenant, target).into_values();
            named.extend(of_it.map(|entry| (name.clone(), entry)));
        }
    }
    named
        .sort_unstable_by(|(one, entry), (other, another)| (one, entry.key.version).cmp(&(other, another.key.version)));
    named
}
