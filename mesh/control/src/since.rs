//! Records that follow others: what a change of them leaves as it was.
//!
//! Owns the way from the records of one revision to those of a later one without reading all of them, and what was written on the way
//! ([`Since`]), so that a key that is revoked among 200,000 costs one key. Does not compile.
//!
//! Invariant: records that have followed are those that would have been read at that revision (property test in `since_tests`); where that is
//! not certain, they do not follow and are read anew.

use std::collections::{BTreeSet, btree_map::Entry};

use mesh_registry::Changes;
use mesh_resources::{Kind, ModelSpec, ResourceKey, Spec};
use mesh_types::{EndpointId, KeyId, ModelId, ModelVersionKey, TenantId};

use crate::records::{ModelName, Records};

/// What was written since a revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Since {
    /// The revision.
    pub(crate) revision: u64,
    /// API keys that were written or are gone.
    pub(crate) keys: BTreeSet<(TenantId, KeyId)>,
    /// Tenants of which something was written: their own record, or one of a key, an endpoint or a model of theirs.
    pub(crate) tenants: BTreeSet<TenantId>,
    /// Whether callers that are known by their certificates were.
    pub(crate) certificates: bool,
    /// Whether issuers were.
    pub(crate) issuers: bool,
}

impl Records {
    /// Becomes what the records are after these changes; false, and good for nothing, where they must be read anew for that.
    pub(crate) fn follow(&mut self, changes: Changes) -> bool {
        let mut since = Since {
            revision: self.revision,
            ..Since::default()
        };
        let mut models_change = false;
        for key in changes.gone {
            models_change |= is_of_models(key.kind);
            since.note(&key);
            self.note_grants(None, &key, &mut since);
            if self.take(&key).is_none() {
                return false;
            }
        }
        for resource in changes.written {
            let Ok(key) = resource.key() else { return false };
            since.note(&key);
            models_change |= is_of_models(key.kind);
            self.note_grants(Some(&resource.spec), &key, &mut since);
            if self.add(resource).is_none() {
                return false;
            }
        }
        if models_change {
            self.apply_policies();
        }
        self.revision = changes.revision;
        self.since = Some(since);
        true
    }

    /// Who may call a model, and who could: limits that it has are theirs too.
    fn note_grants(&self, after: Option<&Spec>, key: &ResourceKey, since: &mut Since) {
        if key.kind != Kind::Model {
            return;
        }
        if let Some(Spec::Model(spec)) = after {
            since.tenants.extend(spec.grants.iter().cloned());
        }
        let (Some(tenant), Ok(model)) = (key.tenant.clone(), ModelId::parse(&key.name)) else {
            return;
        };
        if let Some(before) = self.models.get(&(tenant, model)) {
            since.tenants.extend(before.spec.grants.iter().cloned());
        }
    }

    /// Takes out what has this key; none where no key of its kind reads so.
    fn take(&mut self, key: &ResourceKey) -> Option<()> {
        let name = key.name.as_str();
        let credential = || Some((key.tenant.clone()?, KeyId::parse(name).ok()?));
        match key.kind {
            Kind::Tenant => drop(self.tenants.remove(&TenantId::parse(name).ok()?)),
            Kind::Issuer => drop(self.issuers.remove(name)),
            Kind::ApiKey => drop(self.keys.remove(&credential()?)),
            Kind::ClientCertificate => drop(self.certificates.remove(&credential()?)),
            Kind::Endpoint => {
                let endpoint = EndpointId::parse(name).ok()?;
                self.endpoints.remove(&(key.tenant.clone()?, endpoint));
            }
            Kind::Policy => drop(self.policies.remove(name)),
            Kind::AdminToken => {}
            Kind::Model => self.take_model((key.tenant.clone()?, ModelId::parse(name).ok()?)),
            Kind::ModelVersion => self.take_version(&key.as_version()?),
        }
        Some(())
    }

    fn take_model(&mut self, name: ModelName) {
        if let Entry::Occupied(mut entry) = self.models.entry(name) {
            let model = entry.get_mut();
            (model.spec, model.is_declared) = (ModelSpec::default(), false);
            if entry.get().versions.is_empty() {
                entry.remove();
            }
        }
    }

    fn take_version(&mut self, key: &ModelVersionKey) {
        let name = (key.tenant.clone(), key.model.clone());
        if let Entry::Occupied(mut entry) = self.models.entry(name) {
            entry.get_mut().versions.remove(&key.version);
            if entry.get().versions.is_empty() && !entry.get().is_declared {
                entry.remove();
            }
        }
    }
}

/// Whether what it declares decides which versions are kept on devices.
const fn is_of_models(kind: Kind) -> bool {
    matches!(kind, Kind::Model | Kind::ModelVersion | Kind::Endpoint)
}

impl Since {
    fn note(&mut self, key: &ResourceKey) {
        self.tenants.extend(key.tenant.clone());
        match key.kind {
            Kind::Tenant => self.tenants.extend(TenantId::parse(&key.name).ok()),
            Kind::ApiKey => {
                let name = key.tenant.clone().zip(KeyId::parse(&key.name).ok());
                self.keys.extend(name);
            }
            Kind::ClientCertificate => self.certificates = true,
            Kind::Issuer => self.issuers = true,
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "since_tests.rs"]
mod tests;
