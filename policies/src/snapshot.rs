//! The snapshot: everything that decides requests at one revision, immutable and shared.
//!
//! Owns the shape that control compiles records and worker reports into. A router takes one `Arc` of it per request, so a
//! request sees one configuration from its credential to its version. Does not compile, publish or store.
//!
//! Invariants: an empty snapshot knows no tenant and no credential, so it refuses everything; a tenant reaches only what is
//! in its own `targets`, so a foreign name and an absent one are the same miss.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use mesh_types::{
    ArtifactFormat, DeviceId, Label, ModelConfig, ModelId, ModelVersionKey, TenantId, TenantShare, Version,
    VersionSelector,
};

use crate::{
    RequestBounds,
    access::{AuthError, Credentials, Origin, Presented, Principal, Scope},
    authorization::{Action, Authorization},
    graph::Plan,
    limits::TenantLimits,
    tenants::Tenants,
    traffic::Route,
};

/// All that decides requests, at one revision.
#[derive(Debug, Clone, Default)]
pub struct MeshSnapshot {
    /// The revision of the records it was compiled from.
    pub revision: u64,
    /// Who may come in.
    pub credentials: Credentials,
    /// Who may call what.
    pub authorization: Authorization,
    /// How large requests may be.
    pub request_bounds: RequestBounds,
    tenants: Tenants,
    ensembles: HashMap<ModelVersionKey, Arc<VersionEntry>>,
}

impl MeshSnapshot {
    /// Puts the parts together; of two entries for one tenant the later stays.
    pub fn new(revision: u64, credentials: Credentials, tenants: impl IntoIterator<Item = TenantEntry>) -> Self {
        Self::of(revision, credentials, tenants.into_iter().collect())
    }

    /// The same with tenants that another snapshot may share.
    pub fn of(revision: u64, credentials: Credentials, tenants: Tenants) -> Self {
        Self {
            revision,
            credentials,
            authorization: Authorization::default(),
            request_bounds: RequestBounds::default(),
            tenants,
            ensembles: HashMap::new(),
        }
    }

    /// All tenants, for a snapshot that follows this one.
    pub fn all_tenants(&self) -> &Tenants {
        &self.tenants
    }

    /// The same with these ensembles, for who looks at them from outside; requests reach them by their tenants' targets.
    #[must_use]
    pub fn with_ensembles(mut self, ensembles: impl IntoIterator<Item = Arc<VersionEntry>>) -> Self {
        let by_key = |entry: Arc<VersionEntry>| (ModelVersionKey::clone(&entry.key), entry);
        self.ensembles = ensembles.into_iter().map(by_key).collect();
        self
    }

    /// The same with these rules of who may call what.
    #[must_use]
    pub fn with_authorization(self, authorization: Authorization) -> Self {
        Self { authorization, ..self }
    }

    /// The same with these bounds on requests.
    #[must_use]
    pub fn with_request_bounds(self, request_bounds: RequestBounds) -> Self {
        Self { request_bounds, ..self }
    }

    /// What the caller calls by the name. A name that it may not call is as good as none, and nothing tells them apart.
    // Whole in a profile: the bench says what part of a request this is.
    #[inline(never)]
    pub fn callable<'a>(&self, principal: &Principal, tenant: &'a TenantEntry, name: &str) -> Option<&'a Target> {
        let target = tenant.target(name)?;
        let may = self.authorization.may_call(principal, tenant, name, target);
        may.then_some(target)
    }

    /// Whether a name that may lead nowhere yet is one that the caller may call: a repository's model that is not loaded is none of
    /// its tenant's targets, and still a model of that tenant.
    pub fn may_name(&self, principal: &Principal, tenant: &TenantEntry, name: &str) -> bool {
        match tenant.target(name) {
            Some(target) => self.authorization.may_call(principal, tenant, name, target),
            None => self.authorization.may(principal, Action::Infer, &tenant.id, name),
        }
    }

    /// Whether the caller may load and unload a model of its tenant's repository, loaded or not.
    pub fn may_load(&self, principal: &Principal, tenant: &TenantEntry, name: &str) -> bool {
        self.authorization.may(principal, Action::Load, &tenant.id, name)
    }

    /// A version that is an ensemble, ready or not.
    pub fn ensemble(&self, key: &ModelVersionKey) -> Option<&Arc<VersionEntry>> {
        self.ensembles.get(key)
    }

    /// The tenant of this name, if there is one.
    pub fn tenant(&self, id: &str) -> Option<&Arc<TenantEntry>> {
        self.tenants.get(id)
    }

    /// Every tenant, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<TenantEntry>> {
        self.tenants.iter()
    }

    /// Who is calling, with the right to infer, and the tenant it belongs to.
    ///
    /// A credential whose tenant is gone is as good as none; that of a suspended tenant says so.
    pub fn caller(&self, presented: Presented<'_>, now_unix: i64) -> Result<(Principal, &Arc<TenantEntry>), AuthError> {
        self.caller_from(presented, now_unix, None)
    }

    /// The same, where wrong tokens are counted for where they come from, and not checked beyond a bound.
    pub fn caller_from(
        &self,
        presented: Presented<'_>,
        now_unix: i64,
        origin: Option<Origin<'_>>,
    ) -> Result<(Principal, &Arc<TenantEntry>), AuthError> {
        let principal = self.credentials.authenticate_from(presented, now_unix, origin)?;
        let tenant = self.tenant(principal.tenant.as_str()).ok_or(AuthError::Invalid)?;
        if tenant.suspended {
            return Err(AuthError::TenantSuspended);
        }
        principal.require(Scope::Infer)?;
        Ok((principal, tenant))
    }
}

/// One tenant: its limits and all it may call.
#[derive(Debug, Clone)]
pub struct TenantEntry {
    /// The tenant.
    pub id: TenantId,
    /// When its record was made, in microseconds since 1970: one that is made anew under an old name has another.
    pub created: i64,
    /// Refused entirely, but not forgotten.
    pub suspended: bool,
    /// How much it may ask for.
    pub limits: TenantLimits,
    /// What it is entitled to on a busy device.
    pub share: TenantShare,
    /// What each name means to this tenant: its own endpoints first, then its own models, then those granted to it.
    pub targets: HashMap<String, Target>,
}

impl TenantEntry {
    /// What this tenant calls by the name, if anything.
    pub fn target(&self, name: &str) -> Option<&Target> {
        self.targets.get(name)
    }
}

/// What a name leads to.
#[derive(Debug, Clone)]
pub enum Target {
    /// An endpoint with its split.
    Endpoint(Arc<Route>),
    /// A model, called directly.
    Model(Arc<ModelEntry>),
}

/// A model with its versions.
#[derive(Debug, Clone)]
pub struct ModelEntry {
    /// The tenant that owns it; not always the one that calls it.
    pub owner: TenantId,
    /// The model.
    pub model: ModelId,
    /// The other tenants that may call it.
    pub grants: Arc<BTreeSet<TenantId>>,
    /// Its versions.
    pub versions: BTreeMap<Version, Arc<VersionEntry>>,
    /// Its labels.
    pub labels: BTreeMap<Label, Version>,
    /// The version that a call without one gets; none leaves it to [`ModelEntry::resolve`].
    pub default: Option<Version>,
}

impl ModelEntry {
    /// The version that a caller means, if the model has it.
    ///
    /// Without a declared default, a call that names no version gets the newest version that is ready somewhere, and the
    /// newest of all while none is: a version that is still loading never displaces one that serves.
    pub fn resolve(&self, selector: &VersionSelector) -> Option<&Arc<VersionEntry>> {
        match selector {
            VersionSelector::Version(version) => self.versions.get(version),
            VersionSelector::Label(label) => self.versions.get(self.labels.get(label)?),
            VersionSelector::Default => match self.default {
                Some(version) => self.versions.get(&version),
                None => self.newest_ready().or_else(|| self.versions.values().next_back()),
            },
        }
    }

    fn newest_ready(&self) -> Option<&Arc<VersionEntry>> {
        self.versions.values().rev().find(|version| version.is_ready())
    }
}

/// Where a version is on its way, while it is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VersionPhase {
    /// On none.
    #[default]
    Settled,
    /// It is being brought to a device, or is about to be.
    Loading,
    /// It is leaving its devices.
    Unloading,
}

/// One version of a model, and where it is ready.
#[derive(Debug, Clone)]
pub struct VersionEntry {
    /// Which one.
    pub key: Arc<ModelVersionKey>,
    /// How it is called.
    pub config: Arc<ModelConfig>,
    /// What kind of file it is.
    pub format: ArtifactFormat,
    /// SHA-256 of its file; none where it has none.
    pub digest: Option<Arc<str>>,
    /// Devices that would run it now.
    pub ready_on: Vec<DeviceId>,
    /// What an ensemble runs, if its graph holds together; none for other formats.
    pub plan: Option<Arc<Plan>>,
    /// Why it is ready nowhere, or why what answers is not what is declared, in words for its owner.
    pub unavailable_reason: Option<String>,
    /// Where it is on its way, while it is not ready.
    pub phase: VersionPhase,
}

impl VersionEntry {
    /// Whether any device would run it now, or all its steps.
    pub fn is_ready(&self) -> bool {
        !self.ready_on.is_empty() || self.plan.as_ref().is_some_and(|plan| plan.ready)
    }

    /// Whether its requests belong to sequences, because it or a step of it keeps a state.
    pub fn is_stateful(&self) -> bool {
        self.config.sequence_batching.is_some() || self.plan.as_ref().is_some_and(|plan| !plan.stateful.is_empty())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A version of `acme/<model>`, ready on one device or on none.
    pub(crate) fn version(model: &str, number: u32, ready: bool) -> Arc<VersionEntry> {
        Arc::new(VersionEntry {
            key: Arc::new(ModelVersionKey {
                tenant: TenantId::parse("acme").unwrap(),
                model: ModelId::parse(model).unwrap(),
                version: Version::new(number).unwrap(),
            }),
            config: Arc::new(ModelConfig::default()),
            format: ArtifactFormat::Builtin,
            digest: None,
            ready_on: if ready { vec![DeviceId::cpu(0)] } else { Vec::new() },
            plan: None,
            unavailable_reason: None,
            phase: VersionPhase::Settled,
        })
    }

    /// The model `acme/<model>` with these versions and readiness.
    pub(crate) fn model(model: &str, versions: &[(u32, bool)]) -> ModelEntry {
        ModelEntry {
            owner: TenantId::parse("acme").unwrap(),
            model: ModelId::parse(model).unwrap(),
            grants: Arc::default(),
            versions: versions
                .iter()
                .map(|(number, ready)| (Version::new(*number).unwrap(), version(model, *number, *ready)))
                .collect(),
            labels: BTreeMap::new(),
            default: None,
        }
    }

    fn number(found: Option<&Arc<VersionEntry>>) -> Option<u32> {
        found.map(|version| version.key.version.get())
    }

    #[test]
    fn an_empty_snapshot_lets_nobody_in() {
        let empty = MeshSnapshot::default();
        assert!(empty.tenant("acme").is_none());
        assert_eq!(empty.caller(Presented::None, 0).unwrap_err(), AuthError::Missing);
        let key = "mesh_live_0123456789ab_0000000000000000000000000000000000000000000_00000000";
        assert_eq!(empty.caller(Presented::Bearer(key), 0).unwrap_err(), AuthError::Invalid);
    }

    #[test]
    fn numbers_and_labels_resolve_exactly_or_not_at_all() {
        let mut entry = model("digits", &[(1, true), (3, true)]);
        for (label, number) in [("stable", 1), ("lost", 2)] {
            entry
                .labels
                .insert(Label::parse(label).unwrap(), Version::new(number).unwrap());
        }
        let ask = |text: &str| number(entry.resolve(&VersionSelector::parse(text).unwrap()));
        assert_eq!(ask("1"), Some(1));
        assert_eq!(ask("3"), Some(3));
        assert_eq!(ask("2"), None);
        assert_eq!(ask("stable"), Some(1));
        assert_eq!(ask("canary"), None);
        assert_eq!(ask("lost"), None, "a label to a version that is gone");
    }

    #[test]
    fn a_declared_default_stands_even_when_it_is_not_ready() {
        let mut entry = model("digits", &[(1, false), (2, true)]);
        entry.default = Some(Version::FIRST);
        assert_eq!(number(entry.resolve(&VersionSelector::Default)), Some(1));
    }

    #[test]
    fn without_a_default_a_loading_version_never_displaces_a_ready_one() {
        let ask = |versions: &[(u32, bool)]| number(model("digits", versions).resolve(&VersionSelector::Default));
        assert_eq!(ask(&[(1, true), (2, true), (3, false)]), Some(2));
        assert_eq!(ask(&[(1, false), (2, false)]), Some(2));
        assert_eq!(ask(&[]), None);
    }

    #[test]
    fn a_tenant_is_found_by_text_and_sees_only_its_own_targets() {
        let entry = |id: &str, name: &str| TenantEntry {
            id: TenantId::parse(id).unwrap(),
            created: 0,
            suspended: false,
            limits: TenantLimits::default(),
            share: TenantShare::default(),
            targets: HashMap::from([(name.to_owned(), Target::Model(Arc::new(model(name, &[(1, true)]))))]),
        };
        let snapshot = MeshSnapshot::new(
            7,
            Credentials::default(),
            [entry("acme", "digits"), entry("globex", "cats")],
        );
        let acme = snapshot.tenant("acme").unwrap();
        assert!(acme.target("digits").is_some());
        assert!(acme.target("cats").is_none());
        assert_eq!(snapshot.tenants().count(), 2);
    }
}
