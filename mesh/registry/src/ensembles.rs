//! What an ensemble may be made of: models that are there and callable, versions that fit, no circle; and what may not change
//! under it.
//!
//! An ensemble sees models as its owner does. What its steps name is what they would lead to now: a label's version, a declared
//! default, or the highest version that is not kept off the devices. What lies below an ensemble matters as much as its own steps:
//! how deep, how much, and to whom it is granted; so whatever changes a model is asked of all ensembles above it.
//!
//! An ensemble that is kept off the devices asks nothing of anybody: what it names may change, go, and name it in turn. What is wrong
//! with it by then is said when it is loaded again, which is a write of it.

use std::{collections::BTreeSet, sync::Arc};

use mesh_policies::graph::{MAX_NESTING, MAX_TOTAL_STEPS, Outline, Reach, StepReach, Wanted};
use mesh_resources::{Kind, ModelSpec, ModelVersionSpec, Problem, Resource, ResourceKey, Spec, VersionRef};
use mesh_types::{
    ArtifactFormat, ModelConfig, ModelConfigError, ModelId, ModelVersionKey, TenantId, Version, VersionSelector,
};

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
    name: Name,
    config: Arc<ModelConfig>,
    /// And not kept off: what runs nothing reaches nothing.
    is_ensemble: bool,
    /// Its owner and the tenants that it is granted to.
    callers: BTreeSet<TenantId>,
    /// What it reaches itself.
    reach: Reach,
}

impl Found {
    fn step(&self) -> StepReach<'_> {
        StepReach {
            owner: &self.name.0,
            model: &self.name.1,
            callers: &self.callers,
            stateful: self.config.sequence_batching.is_some(),
            within: &self.reach,
        }
    }
}

/// How far below an ensemble is looked: past either bound it is refused anyway.
struct Left {
    nesting: usize,
    steps: usize,
}

impl Rules<'_> {
    /// What is wrong with an ensemble.
    pub(crate) fn ensemble(&self, key: &ResourceKey, spec: &ModelVersionSpec) -> Result<Vec<Problem>, RegistryError> {
        let Some(version) = key.as_version() else {
            return Ok(Vec::new());
        };
        let own: Name = (version.tenant, version.model);
        let (mut steps, mut failed) = (Vec::new(), None);
        let salt = format!("{}/{}", own.0, own.1);
        let outline = Outline::compile(&spec.config, &salt, |wanted| {
            // One that is kept off itself needs nothing that runs.
            let may_rest = spec.unloaded || wanted.soft;
            match self.step(&own, &wanted, may_rest) {
                Ok(Ok(found)) => {
                    let config = found.config.clone();
                    steps.push(found);
                    Ok(config)
                }
                Ok(Err(problem)) => Err(problem),
                Err(error) => {
                    failed.get_or_insert(error);
                    Err("the registry cannot be read".to_owned())
                }
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let mut problems = match outline {
            Ok(outline) => self.below(&own, &outline, &mut steps)?,
            Err(problems) => problems,
        };
        if let Some(problem) = self.circle(&own, &spec.config)? {
            problems.push(problem);
        }
        let named = |error: ModelConfigError| Problem::new(format!("spec.config.{}", error.field), error.problem);
        Ok(problems.into_iter().map(named).collect())
    }

    /// What is wrong with what an ensemble's steps lead to, once they fit.
    fn below(
        &self,
        own: &Name,
        outline: &Outline,
        steps: &mut [Found],
    ) -> Result<Vec<ModelConfigError>, RegistryError> {
        let mut left = Left {
            nesting: MAX_NESTING,
            steps: MAX_TOTAL_STEPS,
        };
        for found in steps.iter_mut() {
            self.look_below(found, &mut left)?;
        }
        let mut problems = self.not_handed_on(own, outline, steps)?;
        let reached: Vec<StepReach<'_>> = steps.iter().map(Found::step).collect();
        problems.extend(Reach::of(&own.0, &reached).problem());
        problems.extend(Reach::shared_state(outline, &reached));
        Ok(problems)
    }

    /// Fills in what a version reaches. A step that leads nowhere is its own ensemble's to mend.
    fn look_below(&self, found: &mut Found, left: &mut Left) -> Result<(), RegistryError> {
        if !found.is_ensemble || left.nesting == 0 {
            return Ok(());
        }
        let mut steps = Vec::new();
        left.nesting -= 1;
        for (namespace, model, version) in Outline::models(&found.config) {
            let wanted = Wanted {
                step: "",
                model: &model,
                namespace: namespace.as_ref(),
                version: &version,
                soft: false,
            };
            let Ok(mut inner) = self.step(&found.name, &wanted, true)? else {
                continue;
            };
            // One past the bound is enough to say so.
            if left.steps == 0 {
                steps.push(inner);
                break;
            }
            left.steps -= 1;
            self.look_below(&mut inner, left)?;
            steps.push(inner);
        }
        left.nesting += 1;
        let reached: Vec<StepReach<'_>> = steps.iter().map(Found::step).collect();
        found.reach = Reach::of(&found.name.0, &reached);
        Ok(())
    }

    /// The version that a step leads to now, or what is wrong with the step. `may_rest` is whether it may be kept off the devices.
    fn step(&self, own: &Name, wanted: &Wanted<'_>, may_rest: bool) -> Result<Result<Found, String>, RegistryError> {
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
            (None, VersionSelector::Default) => self.highest(&owner, model, &found, may_rest)?,
            (None, _) => None,
        };
        let Some(spec) = spec else {
            return Ok(Err(match selector {
                VersionSelector::Version(version) => format!("model '{model}' has no version {version}"),
                VersionSelector::Label(label) => format!("model '{model}' has no label '{label}'"),
                VersionSelector::Default => format!("model '{model}' has no version: publish one first"),
            }));
        };
        if let Some(version) = version.filter(|_| spec.unloaded && !may_rest) {
            let text = format!(
                "version {version} of model '{model}' is kept off the devices: set its unloaded to false, or name another"
            );
            return Ok(Err(text));
        }
        if spec.config.is_decoupled() {
            let text = format!(
                "model '{model}' gives any number of answers (it is decoupled), and a step has one: name another model"
            );
            return Ok(Err(text));
        }
        Ok(Ok(Found {
            callers: found.grants.iter().cloned().chain([owner.clone()]).collect(),
            name: (owner, model.clone()),
            is_ensemble: asks(&spec),
            config: Arc::new(spec.config),
            reach: Reach::default(),
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

    /// The highest version that is not kept off the devices, by itself or by its model's policy; where it may be, and all are, the
    /// highest of them.
    fn highest(
        &self,
        owner: &TenantId,
        model: &ModelId,
        of: &ModelSpec,
        may_rest: bool,
    ) -> Result<Option<ModelVersionSpec>, RegistryError> {
        let versions = self.draft.list(&versions_of(owner, model))?;
        let rests = versions.last().cloned().filter(|_| may_rest);
        let number = |resource: &Resource| Some(resource.key().ok()?.as_version()?.version);
        let loaded = |resource: Resource| match (number(&resource), resource.spec) {
            (Some(number), Spec::ModelVersion(spec)) if !spec.unloaded => Some((number, spec)),
            _ => None,
        };
        // The store keeps them in the order of their numbers.
        let newest: Vec<(Version, ModelVersionSpec)> = versions.into_iter().rev().filter_map(loaded).collect();
        let kept = of
            .version_policy
            .as_ref()
            .and_then(|policy| policy.kept(newest.iter().map(|(number, _)| *number)));
        // What a label names stays in any case.
        let stays = |number: &Version| {
            kept.as_ref().is_none_or(|kept| kept.contains(number)) || of.labels.values().any(|label| label == number)
        };
        let highest = newest.into_iter().find(|(number, _)| stays(number));
        Ok(highest.map(|(_, spec)| spec).or_else(|| match rests?.spec {
            Spec::ModelVersion(spec) => Some(spec),
            _ => None,
        }))
    }

    /// A grant of the ensemble does not hand on another tenant's grant, however deep below it that was given.
    fn not_handed_on(
        &self,
        own: &Name,
        outline: &Outline,
        steps: &[Found],
    ) -> Result<Vec<ModelConfigError>, RegistryError> {
        let model = self.draft.get(&ResourceKey::model(&own.0, &own.1))?;
        let Some(Spec::Model(model)) = model.map(|resource| resource.spec) else {
            return Ok(Vec::new());
        };
        let mut problems = Vec::new();
        for (call, found) in outline.calls.iter().zip(steps) {
            let itself = |tenant: &&TenantId| found.name.0 == own.0 || found.callers.contains(*tenant);
            let refused = model.grants.iter().find(|tenant| !itself(tenant));
            let below = model.grants.iter().find(|tenant| !found.reach.admits(tenant));
            let problem = match (refused, below) {
                (Some(tenant), _) => format!(
                    "model '{}' is {}'s and is not granted to '{tenant}', to whom this model is: a grant is not handed on",
                    call.model, found.name.0
                ),
                (None, Some(tenant)) => format!(
                    "model '{}' runs a model that is not granted to '{tenant}', to whom this model is: a grant is not handed on",
                    call.model
                ),
                (None, None) => continue,
            };
            problems.push(ModelConfigError {
                field: format!("{}.model", call.place),
                problem,
            });
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
                    && asks(spec)
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

    /// The ensembles that a change of a model or of one of its versions could break, however far above it they are; all tenants':
    /// the model may be granted.
    pub(crate) fn affected_ensembles(&self, change: &Changed) -> Result<Vec<Resource>, RegistryError> {
        let (model, own) = match change.key.kind {
            Kind::Model => (change.key.name.clone(), change.key.tenant.clone()),
            Kind::ModelVersion => match change.key.as_version() {
                Some(version) => (version.model.to_string(), None),
                None => return Ok(Vec::new()),
            },
            _ => return Ok(Vec::new()),
        };
        let mut open: Vec<(Resource, BTreeSet<ModelId>)> = Vec::new();
        for resource in self.draft.list_with(&prefix(Kind::ModelVersion, None), MARK)? {
            if let Spec::ModelVersion(spec) = &resource.spec
                && asks(spec)
            {
                let models = Outline::models(&spec.config).into_iter().map(|(_, model, _)| model);
                let models = models.collect();
                open.push((resource, models));
            }
        }
        // Its own ensembles too: whom the model is granted to matters to them.
        let is_own =
            |resource: &Resource| own.is_some() && resource.metadata.tenant == own && model_of(resource) == model;
        let (mut found, mut names) = (Vec::new(), BTreeSet::from([model.clone()]));
        // By names alone, which may be another tenant's model of that name. Each round finds at least one, or is the last.
        loop {
            let before = found.len();
            for (resource, models) in std::mem::take(&mut open) {
                let is_above = models.iter().any(|model| names.contains(model.as_str()));
                if is_above {
                    names.insert(model_of(&resource).to_owned());
                }
                if is_above || is_own(&resource) {
                    found.push(resource);
                } else {
                    open.push((resource, models));
                }
            }
            if found.len() == before {
                return Ok(found);
            }
        }
    }
}

/// Whether it is an ensemble of which others must take care.
fn asks(spec: &ModelVersionSpec) -> bool {
    spec.format == ArtifactFormat::Ensemble && !spec.unloaded
}

/// Whether it is an ensemble that is kept off the devices and says what it said before: no more is asked of it than if it were not
/// there.
pub(crate) fn is_put_away(before: Option<&Resource>, after: &ModelVersionSpec) -> bool {
    let same = |before: &Resource| matches!(&before.spec, Spec::ModelVersion(spec) if spec.config == after.config);
    after.format == ArtifactFormat::Ensemble && after.unloaded && before.is_some_and(same)
}

/// The model that a version is one of.
fn model_of(version: &Resource) -> &str {
    version.metadata.name.split('/').next().unwrap_or_default()
}

/// The prefix of the store's keys of a model's versions.
fn versions_of(owner: &TenantId, model: &ModelId) -> String {
    format!("{}{model}/", prefix(Kind::ModelVersion, Some(owner.as_str())))
}
