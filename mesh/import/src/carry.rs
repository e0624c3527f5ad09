//! Carries a plan out: what differs is written, model by model, and what is the same is left.
//!
//! A model and its versions are one write, so that none is half there. What admins have set beside an import stays: labels,
//! grants, the default version, descriptions, and whether a version is kept off the devices.

use std::{fmt, future::Future, path::Path};

use mesh_resources::{ArtifactRef, ModelSpec, ModelVersionSpec, Resource, ResourceKey, Spec};
use mesh_types::{ModelVersionKey, TenantId};

use crate::{
    note::{Note, Weight},
    plan::{Plan, Planned},
};

/// Why something was not written.
#[derive(Debug)]
pub enum Setback<E> {
    /// This model cannot be written; the others may.
    Model(String),
    /// Nothing more can be.
    All(E),
}

impl<E> From<E> for Setback<E> {
    fn from(error: E) -> Self {
        Self::All(error)
    }
}

/// Where models are brought to.
pub trait Target {
    /// What ends it all.
    type Error;
    /// A resource, with its revision.
    fn find(&mut self, key: &ResourceKey) -> impl Future<Output = Result<Option<Resource>, Self::Error>>;
    /// Stores a file that has this digest.
    fn upload(&mut self, file: &Path, artifact: &ArtifactRef)
    -> impl Future<Output = Result<(), Setback<Self::Error>>>;
    /// Writes resources, all or none; each that has a revision only if it still has it.
    fn write(&mut self, resources: Vec<Resource>) -> impl Future<Output = Result<(), Setback<Self::Error>>>;
    /// Hears what became of a resource.
    fn tell(&mut self, outcome: &Outcome) -> Result<(), Self::Error>;
}

/// What becomes of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say what they are")]
pub enum Action {
    Created,
    Changed,
    Unchanged,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
        })
    }
}

/// What became of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub key: ResourceKey,
    /// What.
    pub action: Action,
}

/// What an import came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Models that are there now as the repository says.
    pub models: usize,
    /// Resources that were written, or would be.
    pub written: usize,
    /// Why models were refused where they are written.
    pub refused: Vec<Note>,
}

/// Writes what differs. A trial works everything out and writes nothing.
pub async fn carry_out<T: Target>(
    plan: &Plan,
    tenant: &TenantId,
    trial: bool,
    target: &mut T,
) -> Result<Report, T::Error> {
    let mut report = Report::default();
    for model in &plan.models {
        match one(model, tenant, trial, target).await {
            Ok(outcomes) => {
                report.models += 1;
                for outcome in &outcomes {
                    report.written += usize::from(outcome.action != Action::Unchanged);
                    target.tell(outcome)?;
                }
            }
            Err(Setback::Model(problem)) => {
                let name = model.name.as_str();
                let note = Note::new(Weight::Refused, name, "the mesh refuses it", None, problem);
                report.refused.push(note);
            }
            Err(Setback::All(error)) => return Err(error),
        }
    }
    Ok(report)
}

async fn one<T: Target>(
    model: &Planned,
    tenant: &TenantId,
    trial: bool,
    target: &mut T,
) -> Result<Vec<Outcome>, Setback<T::Error>> {
    let (mut outcomes, mut changed, mut files) = (Vec::new(), Vec::new(), Vec::new());
    let key = ResourceKey::model(tenant, &model.name);
    let before = target.find(&key).await?;
    let spec = match before.as_ref().map(|before| &before.spec) {
        Some(Spec::Model(spec)) => spec.clone(),
        _ => ModelSpec::default(),
    };
    let spec = ModelSpec {
        version_policy: Some(model.policy.clone()),
        ..spec
    };
    outcomes.push(differing(key, before, spec, &mut changed));
    for version in &model.versions {
        let key = ResourceKey::version(&ModelVersionKey {
            tenant: tenant.clone(),
            model: model.name.clone(),
            version: version.number,
        });
        let before = target.find(&key).await?;
        let mut spec = version.spec.clone();
        let mut has_file = false;
        if let Some(Spec::ModelVersion(before)) = before.as_ref().map(|before| &before.spec) {
            keep_own(&mut spec, before, model.loads);
            has_file = before.artifact == spec.artifact;
        }
        if let (false, Some(file), Some(artifact)) = (has_file, &version.file, &spec.artifact) {
            files.push((file, artifact.clone()));
        }
        outcomes.push(differing(key, before, spec, &mut changed));
    }
    if trial {
        return Ok(outcomes);
    }
    for (file, artifact) in files {
        target.upload(file, &artifact).await?;
    }
    if !changed.is_empty() {
        target.write(changed).await?;
    }
    Ok(outcomes)
}

/// What an admin has said of a version stays.
fn keep_own(spec: &mut ModelVersionSpec, before: &ModelVersionSpec, loads: bool) {
    spec.unloaded = before.unloaded && !loads;
    spec.description.clone_from(&before.description);
}

fn differing(
    key: ResourceKey,
    before: Option<Resource>,
    spec: impl Into<Spec>,
    changed: &mut Vec<Resource>,
) -> Outcome {
    let mut after = Resource::new(&key, spec);
    let action = match &before {
        None => Action::Created,
        Some(before) if before.spec == after.spec => Action::Unchanged,
        Some(_) => Action::Changed,
    };
    if action != Action::Unchanged {
        after.metadata.revision = before.and_then(|before| before.metadata.revision);
        changed.push(after);
    }
    Outcome { key, action }
}

#[cfg(test)]
#[path = "carry_tests.rs"]
mod tests;
