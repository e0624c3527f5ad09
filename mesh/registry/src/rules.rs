//! What a resource may refer to, and what may not be taken away because something refers to it.
//!
//! Every rule is asked of the draft, that is of what would be there after the whole write: a tenant, its model, the model's
//! versions and the endpoint may come in one write, in any order.

use std::collections::BTreeSet;

use jiff::Timestamp;
use mesh_policies::PublicKey;
use mesh_resources::{
    AdminRole, CertificateIdentity, EndpointSpec, IssuerSpec, Kind, ModelSpec, ModelVersionSpec, Problem, Resource,
    ResourceKey, Spec, TenantBinding, VersionPolicy, VersionRef,
};
use mesh_types::{ArtifactFormat, ModelId, ModelVersionKey, TenantId, Version, VersionSelector};

use crate::{
    Artifacts, RegistryError,
    draft::{Draft, prefix},
    ensembles::is_put_away,
    policies,
};

/// A resource before and after a write.
pub(crate) struct Changed {
    pub(crate) key: ResourceKey,
    pub(crate) before: Option<Resource>,
    pub(crate) after: Option<Resource>,
}

/// Everything that would be wrong with what refers to what.
pub(crate) fn problems(rules: &Rules<'_>, now: Timestamp, changes: &[Changed]) -> Result<Vec<Problem>, RegistryError> {
    let mut problems = rules.an_admin_stays(now, changes)?;
    problems.extend(rules.policies_hold(now, changes)?);
    let written: BTreeSet<&ResourceKey> = changes.iter().map(|change| &change.key).collect();
    for change in changes {
        if let Some(resource) = &change.after {
            let found = rules.of(&change.key, resource, change.before.as_ref())?;
            problems.extend(
                found
                    .into_iter()
                    .map(|problem| named(problem, &change.key, changes.len())),
            );
        }
        for referrer in rules.affected(change)? {
            let key = referrer.key().map_err(|error| unreadable(&error))?;
            if written.contains(&key) {
                continue;
            }
            if let Some(problem) = rules.of(&key, &referrer, None)?.first() {
                let text = format!("{key} needs it ({problem}): change that first");
                problems.push(named(Problem::new("metadata.name", text), &change.key, changes.len()));
            }
        }
    }
    Ok(problems)
}

/// In a write of several resources, a problem says of which it is.
pub(crate) fn named(problem: Problem, key: &ResourceKey, of: usize) -> Problem {
    if of == 1 {
        return problem;
    }
    Problem::new(format!("{key} {}", problem.field), problem.problem)
}

fn unreadable(error: &mesh_resources::ResourceError) -> RegistryError {
    RegistryError::Invalid(vec![Problem::new("metadata", error.to_string())])
}

const fn described(kind: ArtifactFormat) -> &'static str {
    match kind {
        ArtifactFormat::TorchScript => "a TorchScript archive (format: torchscript)",
        ArtifactFormat::TorchAoti => "a package compiled by AOTInductor (format: torch_aoti)",
        ArtifactFormat::Builtin => "no file (format: builtin)",
        ArtifactFormat::Ensemble => "no file (format: ensemble)",
    }
}

pub(crate) struct Rules<'a> {
    pub(crate) draft: &'a Draft<'a>,
    pub(crate) artifacts: &'a Artifacts,
    /// Whose signature a version with a file needs, whatever its tenant; empty: nobody's.
    pub(crate) signers: &'a [PublicKey],
}

impl Rules<'_> {
    /// What is wrong with the references of one resource, which was something else `before` the write or was not there.
    fn of(
        &self,
        key: &ResourceKey,
        resource: &Resource,
        before: Option<&Resource>,
    ) -> Result<Vec<Problem>, RegistryError> {
        let mut problems = Vec::new();
        if let Some(tenant) = &key.tenant {
            self.tenant("metadata.tenant", tenant, &mut problems)?;
        }
        match (&resource.spec, &key.tenant) {
            (Spec::Issuer(spec), _) => {
                self.only_issuer(key, spec, &mut problems)?;
                if let TenantBinding::Tenant(tenant) = &spec.tenants {
                    self.tenant("spec.tenants.tenant", tenant, &mut problems)?;
                }
            }
            (Spec::ClientCertificate(spec), _) => self.only_holder(key, &spec.identity, &mut problems)?,
            (Spec::Model(spec), Some(tenant)) => self.model(tenant, &key.name, spec, &mut problems)?,
            (Spec::ModelVersion(spec), _) => self.version(key, (spec, before), &mut problems)?,
            (Spec::Endpoint(spec), Some(tenant)) => self.endpoint(tenant, spec, &mut problems)?,
            (Spec::AdminToken(spec), _) => {
                if let Some(tenant) = &spec.tenant {
                    self.tenant("spec.tenant", tenant, &mut problems)?;
                }
            }
            (Spec::Policy(spec), _) => problems.extend(policies::text(spec)),
            _ => {}
        }
        Ok(problems)
    }

    fn tenant(&self, field: &str, tenant: &TenantId, problems: &mut Vec<Problem>) -> Result<(), RegistryError> {
        if !self.draft.has(&ResourceKey::tenant(tenant))? {
            problems.push(Problem::new(
                field,
                format!("there is no tenant '{tenant}': create it first"),
            ));
        }
        Ok(())
    }

    /// Of two issuers with the same `iss` it would be chance whose keys a token is checked with.
    fn only_issuer(
        &self,
        key: &ResourceKey,
        spec: &IssuerSpec,
        problems: &mut Vec<Problem>,
    ) -> Result<(), RegistryError> {
        let same = |other: &Resource| {
            other.metadata.name != key.name && matches!(&other.spec, Spec::Issuer(known) if known.issuer == spec.issuer)
        };
        let others = self.draft.list(&prefix(Kind::Issuer, None))?;
        if let Some(other) = others.into_iter().find(same) {
            let text = format!(
                "Issuer/{} has the same issuer, and a token's iss must mean one: add the keys there, or change that first",
                other.metadata.name
            );
            problems.push(Problem::new("spec.issuer", text));
        }
        Ok(())
    }

    /// Of two callers with the same certificate it would be chance who calls.
    fn only_holder(
        &self,
        key: &ResourceKey,
        identity: &CertificateIdentity,
        problems: &mut Vec<Problem>,
    ) -> Result<(), RegistryError> {
        for other in self.draft.list(&prefix(Kind::ClientCertificate, None))? {
            let same = matches!(&other.spec, Spec::ClientCertificate(known) if known.identity == *identity);
            if same && other.key().map_err(|error| unreadable(&error))? != *key {
                let text =
                    "another record stands for the same certificate, and it must mean one caller: change that first";
                problems.push(Problem::new("spec.identity", text));
                break;
            }
        }
        Ok(())
    }

    /// Without any admin's token nobody could ever make one again: a write that ends one must leave another.
    fn an_admin_stays(&self, now: Timestamp, changes: &[Changed]) -> Result<Vec<Problem>, RegistryError> {
        let ended = |change: &&Changed| {
            let was = change.before.as_ref().is_some_and(|before| is_admin(before, now));
            was && !change.after.as_ref().is_some_and(|after| is_admin(after, now))
        };
        let Some(ended) = changes.iter().find(ended) else {
            return Ok(Vec::new());
        };
        let tokens = self.draft.list(&prefix(Kind::AdminToken, None))?;
        if tokens.iter().any(|token| is_admin(token, now)) {
            return Ok(Vec::new());
        }
        let (field, text) = match &ended.after {
            None => (
                "metadata.name",
                "this is the last admin's token: make another before deleting it",
            ),
            Some(_) => (
                "spec",
                "this is the last admin's token: make another before it becomes a viewer's or ends",
            ),
        };
        Ok(vec![named(Problem::new(field, text), &ended.key, changes.len())])
    }

    fn model(
        &self,
        tenant: &TenantId,
        name: &str,
        spec: &ModelSpec,
        problems: &mut Vec<Problem>,
    ) -> Result<(), RegistryError> {
        let Ok(model) = ModelId::parse(name) else {
            return Ok(());
        };
        for (label, version) in &spec.labels {
            if !self.has_version(tenant, &model, *version)? {
                let text = format!("there is no version {version} of model '{model}'");
                problems.push(Problem::new(format!("spec.labels.{label}"), text));
            }
        }
        if let Some(VersionSelector::Version(version)) = spec.default_version.as_ref().map(VersionRef::selector)
            && !self.has_version(tenant, &model, *version)?
        {
            let text = format!("there is no version {version} of model '{model}'");
            problems.push(Problem::new("spec.default_version", text));
        }
        if let Some(VersionPolicy::Specific { versions }) = &spec.version_policy {
            for (index, version) in versions.iter().enumerate() {
                if !self.has_version(tenant, &model, *version)? {
                    let text = format!("there is no version {version} of model '{model}'");
                    problems.push(Problem::new(
                        format!("spec.version_policy.specific.versions[{index}]"),
                        text,
                    ));
                }
            }
        }
        for (index, grant) in spec.grants.iter().enumerate() {
            self.tenant(&format!("spec.grants[{index}]"), grant, problems)?;
        }
        Ok(())
    }

    fn version(
        &self,
        key: &ResourceKey,
        (spec, before): (&ModelVersionSpec, Option<&Resource>),
        problems: &mut Vec<Problem>,
    ) -> Result<(), RegistryError> {
        if let Some(version) = key.as_version()
            && !self.draft.has(&ResourceKey::model(&version.tenant, &version.model))?
        {
            let text = format!("there is no model '{}': create it first", version.model);
            problems.push(Problem::new("metadata.name", text));
        }
        if spec.format == ArtifactFormat::Ensemble && !is_put_away(before, spec) {
            problems.extend(self.ensemble(key, spec)?);
        }
        let Some(artifact) = &spec.artifact else {
            return Ok(());
        };
        let kind = self
            .artifacts
            .check_present(artifact)
            .and_then(|()| self.artifacts.kind(artifact));
        match kind {
            Err(error) => problems.push(Problem::new("spec.artifact", error.to_string())),
            // A file of no kind that is known is left to the device, which says what is wrong with it.
            Ok(Some(kind)) if kind != spec.format => {
                let text = format!("the file is {}: say that, or upload the other file", described(kind));
                problems.push(Problem::new("spec.format", text));
            }
            Ok(_) => {
                let found = self.artifacts.archive_problem(artifact)?;
                problems
                    .extend(found.map(|text| Problem::new("spec.artifact", format!("the file is refused: {text}"))));
            }
        }
        self.signature(key, spec, problems)
    }

    fn endpoint(
        &self,
        tenant: &TenantId,
        spec: &EndpointSpec,
        problems: &mut Vec<Problem>,
    ) -> Result<(), RegistryError> {
        for (index, arm) in spec.arms.iter().enumerate() {
            let Some((owner, model)) = self.callable(tenant, &arm.model)? else {
                let text = format!("there is no model '{}' here: create it, or have it granted", arm.model);
                problems.push(Problem::new(format!("spec.arms[{index}].model"), text));
                continue;
            };
            let there = match arm.version.as_ref().map(VersionRef::selector) {
                Some(VersionSelector::Version(version)) => self.has_version(&owner, &arm.model, *version)?,
                Some(VersionSelector::Label(label)) => model.labels.contains_key(label),
                Some(VersionSelector::Default) | None => true,
            };
            if let (false, Some(version)) = (there, &arm.version) {
                let text = format!("model '{}' has no version or label '{version}'", arm.model);
                problems.push(Problem::new(format!("spec.arms[{index}].version"), text));
            }
        }
        Ok(())
    }

    pub(crate) fn has_version(
        &self,
        tenant: &TenantId,
        model: &ModelId,
        version: Version,
    ) -> Result<bool, RegistryError> {
        self.draft.has(&ResourceKey::version(&ModelVersionKey {
            tenant: tenant.clone(),
            model: model.clone(),
            version,
        }))
    }

    /// The tenant's own model of this name, or one granted to it; and whose it is.
    pub(crate) fn callable(
        &self,
        tenant: &TenantId,
        model: &ModelId,
    ) -> Result<Option<(TenantId, ModelSpec)>, RegistryError> {
        let own = self.draft.get(&ResourceKey::model(tenant, model))?;
        if let Some(Spec::Model(spec)) = own.map(|resource| resource.spec) {
            return Ok(Some((tenant.clone(), spec)));
        }
        for resource in self.draft.list(&prefix(Kind::Model, None))? {
            if let (Spec::Model(spec), Some(owner)) = (resource.spec, resource.metadata.tenant)
                && resource.metadata.name == model.as_str()
                && spec.grants.contains(tenant)
            {
                return Ok(Some((owner, spec)));
            }
        }
        Ok(None)
    }

    /// What may refer to something that this change takes away.
    fn affected(&self, change: &Changed) -> Result<Vec<Resource>, RegistryError> {
        let mut found = self.affected_ensembles(change)?;
        found.extend(self.affected_otherwise(change)?);
        Ok(found)
    }

    fn affected_otherwise(&self, change: &Changed) -> Result<Vec<Resource>, RegistryError> {
        let name = &change.key.name;
        match (change.key.kind, &change.before, &change.after) {
            (Kind::Tenant, Some(_), None) => self.of_tenant(name),
            (Kind::Model, Some(before), after) if takes_away(before, after.as_ref()) => {
                let mut found = self.endpoints_on(name)?;
                if after.is_none()
                    && let Some(tenant) = &change.key.tenant
                {
                    let versions = format!("{}{name}/", prefix(Kind::ModelVersion, Some(tenant.as_str())));
                    found.extend(self.draft.list(&versions)?);
                }
                Ok(found)
            }
            (Kind::ModelVersion, Some(_), None) => {
                let Some(version) = change.key.as_version() else {
                    return Ok(Vec::new());
                };
                let mut found = self.endpoints_on(version.model.as_str())?;
                found.extend(self.draft.get(&ResourceKey::model(&version.tenant, &version.model))?);
                Ok(found)
            }
            _ => Ok(Vec::new()),
        }
    }

    fn of_tenant(&self, tenant: &str) -> Result<Vec<Resource>, RegistryError> {
        let mut found = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| kind.is_namespaced()) {
            found.extend(self.draft.list(&prefix(kind, Some(tenant)))?);
        }
        found.extend(self.draft.list(&prefix(Kind::Issuer, None))?);
        found.extend(self.draft.list(&prefix(Kind::AdminToken, None))?);
        let granted = self.draft.list(&prefix(Kind::Model, None))?.into_iter();
        found.extend(granted.filter(|resource| {
            matches!(&resource.spec, Spec::Model(spec) if spec.grants.iter().any(|grant| grant.as_str() == tenant))
        }));
        Ok(found)
    }

    /// The endpoints of all tenants with an arm on a model of this name; it may be granted.
    fn endpoints_on(&self, model: &str) -> Result<Vec<Resource>, RegistryError> {
        let mut found = self.draft.list(&prefix(Kind::Endpoint, None))?;
        found.retain(|resource| {
            matches!(&resource.spec, Spec::Endpoint(spec) if spec.arms.iter().any(|arm| arm.model.as_str() == model))
        });
        Ok(found)
    }
}

/// Whether a resource is a token that an admin can sign in with.
pub(crate) fn is_admin(resource: &Resource, now: Timestamp) -> bool {
    matches!(&resource.spec, Spec::AdminToken(spec) if spec.role == AdminRole::Admin && spec.tenant.is_none()
        && spec.expires.is_none_or(|expires| expires > now))
}

/// Whether a model loses a label or a grant, or goes altogether.
fn takes_away(before: &Resource, after: Option<&Resource>) -> bool {
    let (Spec::Model(before), Some(Spec::Model(after))) = (&before.spec, after.map(|resource| &resource.spec)) else {
        return true;
    };
    let label_gone = before.labels.keys().any(|label| !after.labels.contains_key(label));
    label_gone || before.grants.iter().any(|grant| !after.grants.contains(grant))
}
