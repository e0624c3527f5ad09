//! The records at one revision, indexed by what compiling and planning ask.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_policies::graph::Outline;
use mesh_resources::{
    ArtifactRef, ClientCertificateSpec, EndpointSpec, IssuerSpec, ModelSpec, ModelVersionSpec, Resource, Spec,
    VersionRef,
};
use mesh_types::{
    ArtifactFormat, DeviceId, DeviceKind, EndpointId, InstanceGroup, InstanceKind, KeyId, ModelConfig, ModelId,
    ModelVersionKey, TenantId, Version, VersionSelector,
};

use crate::{
    compact::{KeyRecord, Plans, TenantRecord},
    since::Since,
};

/// A model's full name: its owner and its own.
pub type ModelName = (TenantId, ModelId);

/// Everything that was declared, at one revision.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// The revision.
    pub revision: u64,
    /// Tenants.
    pub tenants: BTreeMap<TenantId, TenantRecord>,
    /// Models with their versions.
    pub models: BTreeMap<ModelName, ModelRecord>,
    /// Endpoints.
    pub endpoints: BTreeMap<(TenantId, EndpointId), EndpointSpec>,
    /// API keys.
    pub keys: BTreeMap<(TenantId, KeyId), KeyRecord>,
    /// Callers that are known by their certificates.
    pub certificates: BTreeMap<(TenantId, KeyId), ClientCertificateSpec>,
    /// Issuers of tokens, by the name of their record.
    pub issuers: BTreeMap<String, IssuerSpec>,
    /// Policies' texts, by name.
    pub policies: BTreeMap<String, Arc<str>>,
    /// Versions that a label, a default, an endpoint or a step of an ensemble names.
    named: BTreeSet<(ModelName, Version)>,
    /// What is other than at the revision before, where that is known.
    pub(crate) since: Option<Since>,
    pub(crate) plans: Plans,
}

/// A model and its versions.
#[derive(Debug, Clone, Default)]
pub struct ModelRecord {
    /// What was declared of the model.
    pub spec: ModelSpec,
    /// Its versions.
    pub versions: BTreeMap<Version, VersionRecord>,
    /// Whether it was declared itself, and not only versions of it.
    pub(crate) is_declared: bool,
}

/// One version. Shared parts are shared with every snapshot compiled from it.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionRecord {
    /// Which one.
    pub key: Arc<ModelVersionKey>,
    /// How it is called and run.
    pub config: Arc<ModelConfig>,
    /// The kind of file.
    pub format: ArtifactFormat,
    /// Its file.
    pub artifact: Option<ArtifactRef>,
    /// The file's SHA-256, as requests carry it.
    pub digest: Option<Arc<str>>,
    /// Whether it is kept off the devices.
    pub unloaded: bool,
    /// Whether its model's version policy keeps it off them.
    pub left_out: bool,
}

impl VersionRecord {
    fn new(key: ModelVersionKey, spec: ModelVersionSpec) -> Self {
        Self {
            key: Arc::new(key),
            config: Arc::new(spec.config),
            format: spec.format,
            digest: spec
                .artifact
                .as_ref()
                .map(|artifact| Arc::from(artifact.sha256.as_str())),
            artifact: spec.artifact,
            unloaded: spec.unloaded,
            left_out: false,
        }
    }

    /// Whether it belongs on devices.
    pub(crate) fn is_wanted(&self) -> bool {
        !self.unloaded && !self.left_out
    }

    /// Whether a device that has this has all of the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.format == other.format && self.artifact == other.artifact && self.config == other.config
    }

    /// Whether a device that has loaded the other has loaded this: only what needs no load may differ.
    pub(crate) fn runs_as(&self, other: &Self) -> bool {
        self.format == other.format && self.artifact == other.artifact && self.config.loads_as(&other.config)
    }

    /// Whether requests that fit the one fit the other, so that one may take the other's place while it serves.
    pub(crate) fn is_called_as(&self, other: &Self) -> bool {
        is_called_alike(&self.config, &other.config)
    }

    /// The devices that it belongs on. Without a wish it goes to all GPUs, or to all CPU devices where there are none.
    pub(crate) fn placement(&self, devices: &[DeviceId]) -> Vec<DeviceId> {
        match self.format {
            ArtifactFormat::Builtin => return of_kind(devices, DeviceKind::Cpu),
            // Its steps are on devices, each where it belongs.
            ArtifactFormat::Ensemble => return Vec::new(),
            _ => {}
        }
        let any = [InstanceGroup::default()];
        let groups = match self.config.instance_group.as_slice() {
            [] => &any,
            groups => groups,
        };
        let mut placed: Vec<DeviceId> = groups.iter().flat_map(|group| in_group(group, devices)).collect();
        placed.sort_unstable();
        placed.dedup();
        placed
    }
}

/// Whether requests that fit the one configuration fit the other.
pub(crate) fn is_called_alike(one: &ModelConfig, other: &ModelConfig) -> bool {
    one.max_batch_size == other.max_batch_size
        && one.input == other.input
        && one.output == other.output
        && one.is_decoupled() == other.is_decoupled()
}

fn of_kind(devices: &[DeviceId], kind: DeviceKind) -> Vec<DeviceId> {
    devices.iter().copied().filter(|device| device.kind == kind).collect()
}

fn in_group(group: &InstanceGroup, devices: &[DeviceId]) -> Vec<DeviceId> {
    let wished = |device: &DeviceId| group.gpus.is_empty() || group.gpus.contains(&device.index);
    let gpus = || -> Vec<DeviceId> { of_kind(devices, DeviceKind::Cuda).into_iter().filter(wished).collect() };
    match group.kind {
        InstanceKind::KindCpu => of_kind(devices, DeviceKind::Cpu),
        InstanceKind::KindGpu => gpus(),
        InstanceKind::KindAuto => match gpus() {
            none if none.is_empty() => of_kind(devices, DeviceKind::Cpu),
            found => found,
        },
    }
}

impl Records {
    /// Sorts the resources into their places. What has no readable key cannot have been written, and is left out.
    pub fn index(revision: u64, resources: impl IntoIterator<Item = Resource>) -> Self {
        let mut records = Self::default();
        resources.into_iter().for_each(|resource| records.take_in(resource));
        records.at(revision)
    }

    /// Sorts a resource into its place.
    pub(crate) fn take_in(&mut self, resource: Resource) {
        if self.add(resource).is_none() {
            tracing::error!("a record's key does not fit its kind: it is left out");
        }
    }

    /// The same once all are in their places, at this revision.
    pub(crate) fn at(mut self, revision: u64) -> Self {
        self.revision = revision;
        self.apply_policies();
        self
    }

    /// Leaves out the versions that no policy keeps, except those that something names. An ensemble that is left out names
    /// nothing, and what one names may be an ensemble that names something itself.
    pub(crate) fn apply_policies(&mut self) {
        let versions = self.models.values_mut().flat_map(|model| model.versions.values_mut());
        versions.for_each(|version| version.left_out = false);
        self.named = self.named();
        // Each round names at least one more version, or is the last.
        loop {
            self.leave_out();
            let further = self.named_by_steps();
            if further.is_empty() {
                return;
            }
            self.named.extend(further);
        }
    }

    fn leave_out(&mut self) {
        let named = &self.named;
        for (name, model) in &mut self.models {
            let Some(policy) = &model.spec.version_policy else {
                continue;
            };
            let newest = model.versions.values().rev().filter(|version| !version.unloaded);
            let Some(kept) = policy.kept(newest.map(|version| version.key.version)) else {
                continue;
            };
            for (number, version) in &mut model.versions {
                version.left_out = !kept.contains(number) && !named.contains(&(name.clone(), *number));
            }
        }
    }

    /// The versions that steps of ensembles name by number, and nothing that is known of so far. Labels and defaults name theirs.
    fn named_by_steps(&self) -> BTreeSet<(ModelName, Version)> {
        let ensembles = self
            .versions()
            .filter(|version| version.is_wanted() && version.format == ArtifactFormat::Ensemble);
        let mut further = BTreeSet::new();
        for ensemble in ensembles {
            for (namespace, model, selector) in Outline::models(&ensemble.config) {
                let name = self.callable(&ensemble.key.tenant, namespace.as_ref(), &model);
                if let (Some(name), VersionSelector::Version(version)) = (name, selector) {
                    further.insert((name.clone(), version));
                }
            }
        }
        further.retain(|named| !self.named.contains(named));
        further
    }

    fn named(&self) -> BTreeSet<(ModelName, Version)> {
        let mut named = BTreeSet::new();
        for (name, model) in &self.models {
            named.extend(model.spec.labels.values().map(|version| (name.clone(), *version)));
            if let Some(VersionSelector::Version(version)) =
                model.spec.default_version.as_ref().map(VersionRef::selector)
            {
                named.insert((name.clone(), *version));
            }
        }
        for ((tenant, _), endpoint) in &self.endpoints {
            for arm in &endpoint.arms {
                if let Some(VersionSelector::Version(version)) = arm.version.as_ref().map(VersionRef::selector) {
                    let of_arm =
                        |(name, _): &(&ModelName, &ModelRecord)| name.1 == arm.model && self.may_call(tenant, name);
                    let own = (tenant.clone(), arm.model.clone());
                    let granted = || self.models.iter().find(of_arm).map(|(name, _)| name.clone());
                    let owner = Some(own).filter(|own| self.models.contains_key(own)).or_else(granted);
                    named.extend(owner.map(|name| (name, *version)));
                }
            }
        }
        named
    }

    /// Whether requests may be led to it that another version of its model answers: something names it, or it is the newest.
    pub(crate) fn displaces(&self, key: &ModelVersionKey) -> bool {
        let name = (key.tenant.clone(), key.model.clone());
        let Some(model) = self.models.get(&name).filter(|model| model.versions.len() > 1) else {
            return false;
        };
        let mut wanted = model.versions.values().rev().filter(|version| version.is_wanted());
        let newest = wanted.next().is_some_and(|newest| newest.key.version == key.version);
        newest || self.named.contains(&(name, key.version))
    }

    pub(crate) fn add(&mut self, resource: Resource) -> Option<()> {
        let key = resource.key().ok()?;
        let name = key.name.as_str();
        match resource.spec {
            Spec::Tenant(spec) => {
                let created = resource.metadata.created.map_or(0, |created| created.as_microsecond());
                let tenant = self.plans.tenant(created, spec);
                self.tenants.insert(TenantId::parse(name).ok()?, tenant);
            }
            Spec::Issuer(spec) => drop(self.issuers.insert(key.name, spec)),
            Spec::ApiKey(spec) => {
                // Its tenant's name is there once.
                let tenant = key.tenant?;
                let known = self.tenants.get_key_value(&tenant).map(|(known, _)| known.clone());
                let name = (known.unwrap_or(tenant), KeyId::parse(name).ok()?);
                self.keys.insert(name, spec.into());
            }
            Spec::ClientCertificate(spec) => {
                drop(self.certificates.insert((key.tenant?, KeyId::parse(name).ok()?), spec));
            }
            Spec::Model(spec) => {
                let name = (key.tenant?, ModelId::parse(name).ok()?);
                let model = self.models.entry(name).or_default();
                (model.spec, model.is_declared) = (spec, true);
            }
            Spec::ModelVersion(spec) => {
                let key = key.as_version()?;
                let name = (key.tenant.clone(), key.model.clone());
                let version = VersionRecord::new(key, spec);
                let versions = &mut self.models.entry(name).or_default().versions;
                versions.insert(version.key.version, version);
            }
            Spec::Endpoint(spec) => {
                let name = (key.tenant?, EndpointId::parse(name).ok()?);
                self.endpoints.insert(name, spec);
            }
            Spec::Policy(spec) => drop(self.policies.insert(key.name, Arc::from(spec.cedar))),
            // Who administers is the admin door's business.
            Spec::AdminToken(_) => {}
        }
        Some(())
    }

    /// Every version.
    pub fn versions(&self) -> impl Iterator<Item = &VersionRecord> {
        self.models.values().flat_map(|model| model.versions.values())
    }

    /// The version of this key.
    pub fn version(&self, key: &ModelVersionKey) -> Option<&VersionRecord> {
        let name = (key.tenant.clone(), key.model.clone());
        self.models.get(&name)?.versions.get(&key.version)
    }

    /// The model that a tenant means by a name: its own, or else one granted to it; one of `namespace` only, if that is said.
    pub(crate) fn callable(
        &self,
        tenant: &TenantId,
        namespace: Option<&TenantId>,
        model: &ModelId,
    ) -> Option<&ModelName> {
        let of = |owner: &TenantId| {
            self.models
                .get_key_value(&(owner.clone(), model.clone()))
                .map(|(name, _)| name)
        };
        if let Some(namespace) = namespace {
            return of(namespace).filter(|name| self.may_call(tenant, name));
        }
        let granted = |name: &&ModelName| name.1 == *model && self.may_call(tenant, name);
        of(tenant).or_else(|| self.models.keys().find(granted))
    }

    /// Whether the tenant may call the model: its own, or one granted to it.
    pub(crate) fn may_call(&self, tenant: &TenantId, model: &ModelName) -> bool {
        self.models
            .get(model)
            .is_some_and(|record| model.0 == *tenant || record.spec.grants.contains(tenant))
    }
}
