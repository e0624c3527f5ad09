//! What an ensemble may be made of: models that are there and callable, versions that fit, no circle; and what may not change
//! under it.
//!
//! An ensemble sees models as its owner does. What its steps name is what they would lead to now: a label's version, a declared
//! default, or the highest version that is not kept off the devices.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_policies::graph::{MAX_TOTAL_STEPS, Outline, Wanted};
use mesh_resources::{Kind, ModelSpec, ModelVersionSpec, Problem, Resource, ResourceKey, Spec, VersionRef};
use mesh_types::{ArtifactFormat, ModelConfig, ModelConfigError, ModelId, ModelVersionKey, TenantId, VersionSelector};

use crate::{
    RegistryError,
    draft::prefix,
    rules::{Changed, Rules},
};

/// What stands in the record of every ensemble.
const MARK: &str = "\"ensemble\"";

/// A model by its owner and name.
type Name = (TenantId, ModelId);

/// A model that a step leads to.
struct Found {
    owner: TenantId,
    model: ModelSpec,
    config: Arc<ModelConfig>,
}

impl Rules<'_> {
    /// What is wrong with an ensemble.
    pub(crate) fn ensemble(&self, key: &ResourceKey, spec: &ModelVersionSpec) -> Result<Vec<Problem>, RegistryError> {
        let Some(version) = key.as_version() else {
            return Ok(Vec::new());
        };
        let own: Name = (version.tenant, version.model);
        let (mut steps, mut failed) = (BTreeMap::new(), None);
        let salt = format!("{}/{}", own.0, own.1);
        let outline = Outline::compile(&spec.config, &salt, |wanted| match self.step(&own, &wanted) {
            Ok(Ok(found)) => {
                let config = found.config.clone();
                steps.insert(wanted.step.to_owned(), found);
                Ok(config)
            }
            Ok(Err(problem)) => Err(problem),
            Err(error) => {
                failed.get_or_insert(error);
                Err("the registry cannot be read".to_owned())
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let mut problems = match outline {
            Ok(outline) => self.not_handed_on(&own, &outline, &steps)?,
            Err(problems) => problems,
        };
        if let Some(problem) = self.circle(&own, &spec.config)? {
            problems.push(problem);
        }
        let named = |error: ModelConfigError| Problem::new(format!("spec.config.{}", error.field), error.problem);
        Ok(problems.into_iter().map(named).collect())
    }

    /// The version that a step leads to now, or what is wrong with the step.
    fn step(&self, own: &Name, wanted: &Wanted<'_>) -> Result<Result<Found, String>, RegistryError> {
        let model = wanted.model;
        let Some((owner, found)) = self.callable_in(&own.0, wanted.namespace, model)? else {
            let text = format!("there is no model '{model}' here: create it, or have it granted");
            return Ok(Err(text));
        };
        let selector = match (wanted.version, found.default_version.as_ref()) {
            (VersionSelector::Default, Some(default)) => VersionRef::selector(default),
            (selector, _) => selector,
        };
        let version = match selector {
            VersionSelector::Version(version) => Some(*version),
            VersionSelector::Label(label) => found.labels.get(label).copied(),
            VersionSelector::Default => None,
        };
        let spec = match (version, selector) {
            (Some(version), _) => self.version_of(&ModelVersionKey {
                tenant: owner.clone(),
                model: model.clone(),
                version,
            })?,
            (None, VersionSelector::Default) => self.highest(&owner, model)?,
            (None, _) => None,
        };
        let Some(spec) = spec else {
            return Ok(Err(match selector {
                VersionSelector::Version(version) => format!("model '{model}' has no version {version}"),
                VersionSelector::Label(label) => format!("model '{model}' has no label '{label}'"),
                VersionSelector::Default => format!("model '{model}' has no version: publish one first"),
            }));
        };
        Ok(Ok(Found {
            owner,
            model: found,
            config: Arc::new(spec.config),
        }))
    }

    fn callable_in(
        &self,
        tenant: &TenantId,
        namespace: Option<&TenantId>,
        model: &ModelId,
    ) -> Result<Option<(TenantId, ModelSpec)>, RegistryError> {
        let Some(namespace) = namespace else {
            return self.callable(tenant, model);
        };
        let found = self.draft.get(&ResourceKey::model(namespace, model))?;
        Ok(match found.map(|resource| resource.spec) {
            Some(Spec::Model(spec)) if namespace == tenant || spec.grants.contains(tenant) => {
                Some((namespace.clone(), spec))
            }
            _ => None,
        })
    }

    fn version_of(&self, key: &ModelVersionKey) -> Result<Option<ModelVersionSpec>, RegistryError> {
        let found = self.draft.get(&ResourceKey::version(key))?;
        Ok(found.and_then(|resource| match resource.spec {
            Spec::ModelVersion(spec) => Some(spec),
            _ => None,
        }))
    }

    /// The highest version that is not kept off the devices.
    fn highest(&self, owner: &TenantId, model: &ModelId) -> Result<Option<ModelVersionSpec>, RegistryError> {
        let versions = self.draft.list(&versions_of(owner, model))?;
        let of = |resource: Resource| match resource.spec {
            Spec::ModelVersion(spec) if !spec.unloaded => Some(spec),
            _ => None,
        };
        // The store keeps them in the order of their numbers.
        Ok(versions.into_iter().rev().find_map(of))
    }

    /// A grant of the ensemble does not hand on another tenant's grant.
    fn not_handed_on(
        &self,
        own: &Name,
        outline: &Outline,
        steps: &BTreeMap<String, Found>,
    ) -> Result<Vec<ModelConfigError>, RegistryError> {
        let model = self.draft.get(&ResourceKey::model(&own.0, &own.1))?;
        let Some(Spec::Model(model)) = model.map(|resource| resource.spec) else {
            return Ok(Vec::new());
        };
        let mut problems = Vec::new();
        for call in &outline.calls {
            let Some(found) = steps.get(&*call.name).filter(|found| found.owner != own.0) else {
                continue;
            };
            let may = |tenant: &&TenantId| **tenant == found.owner || found.model.grants.contains(tenant);
            if let Some(tenant) = model.grants.iter().find(|tenant| !may(tenant)) {
                problems.push(ModelConfigError {
                    field: format!("{}.model", call.place),
                    problem: format!(
                        "model '{}' is {}'s and is not granted to '{tenant}', to whom this model is: a grant is not handed on",
                        call.model, found.owner
                    ),
                });
            }
        }
        Ok(problems)
    }

    /// Whether a model is, by way of others, a step of itself. By models and not by versions: what a label leads to can change.
    fn circle(&self, own: &Name, config: &ModelConfig) -> Result<Option<ModelConfigError>, RegistryError> {
        let problem = |problem: String| {
            Some(ModelConfigError {
                field: "graph".to_owned(),
                problem,
            })
        };
        let mut open = self.names(&own.0, config)?;
        let mut seen: BTreeSet<Name> = BTreeSet::new();
        while let Some(next) = open.pop() {
            if next == *own {
                let text = format!(
                    "model '{}' would be a step of itself: a step's model is another model",
                    own.1
                );
                return Ok(problem(text));
            }
            if !seen.insert(next.clone()) {
                continue;
            }
            if seen.len() > MAX_TOTAL_STEPS {
                return Ok(problem(format!("its steps lead to more than {MAX_TOTAL_STEPS} models")));
            }
            for resource in self.draft.list_with(&versions_of(&next.0, &next.1), MARK)? {
                if let Spec::ModelVersion(spec) = &resource.spec
                    && spec.format == ArtifactFormat::Ensemble
                {
                    open.extend(self.names(&next.0, &spec.config)?);
                }
            }
        }
        Ok(None)
    }

    /// The models that an ensemble of this owner names, as far as there are such.
    fn names(&self, owner: &TenantId, config: &ModelConfig) -> Result<Vec<Name>, RegistryError> {
        let mut names = Vec::new();
        for (namespace, model, _) in Outline::models(config) {
            if let Some((owner, _)) = self.callable_in(owner, namespace.as_ref(), &model)? {
                names.push((owner, model));
            }
        }
        Ok(names)
    }

    /// The ensembles that a change of a model or of one of its versions could break, all tenants': the model may be granted.
    pub(crate) fn affected_ensembles(&self, change: &Changed) -> Result<Vec<Resource>, RegistryError> {
        let (model, own) = match change.key.kind {
            Kind::Model => (change.key.name.clone(), change.key.tenant.clone()),
            Kind::ModelVersion => match change.key.as_version() {
                Some(version) => (version.model.to_string(), None),
                None => return Ok(Vec::new()),
            },
            _ => return Ok(Vec::new()),
        };
        let mut found = self.draft.list_with(&prefix(Kind::ModelVersion, None), MARK)?;
        found.retain(|resource| {
            let Spec::ModelVersion(spec) = &resource.spec else {
                return false;
            };
            // Its own ensembles too: whom the model is granted to matters to them.
            let is_own = own.is_some()
                && resource.metadata.tenant == own
                && resource.metadata.name.split('/').next() == Some(&model);
            let named = || {
                Outline::models(&spec.config)
                    .iter()
                    .any(|(_, name, _)| name.as_str() == model)
            };
            spec.format == ArtifactFormat::Ensemble && (is_own || named())
        });
        Ok(found)
    }
}

/// The prefix of the store's keys of a model's versions.
fn versions_of(owner: &TenantId, model: &ModelId) -> String {
    format!("{}{model}/", prefix(Kind::ModelVersion, Some(owner.as_str())))
}
