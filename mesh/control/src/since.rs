//! Records that follow others: what a change of them leaves as it was.
//!
//! Owns the way from the records of one revision to those of a later one without reading all of them, and what was written on the way
//! ([`Since`]), so that a key that is revoked among 200,000 costs one key. Does not compile.
//!
//! Invariant: records that have followed are those that would have been read at that revision (property test in `since_tests`); where that is
//! not certain, they do not follow and are read anew.

use std::collections::BTreeSet;

use mesh_registry::Changes;
use mesh_resources::{Kind, Resource, ResourceKey, Spec};
use mesh_types::{EndpointId, KeyId, ModelId, TenantId};

use crate::records::Records;

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
            match key.kind {
                // Whether what is left of a model is one cannot be told from here.
                Kind::Model | Kind::ModelVersion => return false,
                Kind::Endpoint => models_change = true,
                _ => {}
            }
            since.note(&key);
            if self.take(&key).is_none() {
                return false;
            }
        }
        for resource in changes.written {
            let Ok(key) = resource.key() else { return false };
            since.note(&key);
            models_change |= matches!(key.kind, Kind::Model | Kind::ModelVersion | Kind::Endpoint);
            self.note_grants(&resource, &key, &mut since);
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
    fn note_grants(&self, resource: &Resource, key: &ResourceKey, since: &mut Since) {
        let Spec::Model(spec) = &resource.spec else { return };
        since.tenants.extend(spec.grants.iter().cloned());
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
            Kind::Model | Kind::ModelVersion => return None,
        }
        Some(())
    }
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
