//! Ensembles among the models: each is compiled after those that its steps name, with the versions that they now lead to.
//!
//! An ensemble is ready while every version that its steps lead to is, but for steps that may fail. What a label or a default leads to is decided by the
//! step's model as for any caller, so an ensemble moves to a new version of a step only once that is ready.
//!
//! Invariant: models that name each other in a circle are compiled all the same; their ensembles are not ready and say why.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_policies::{
    ModelEntry,
    graph::{Outline, Plan, StepVersionEntry, Wanted},
};
use mesh_types::{ArtifactFormat, ModelVersionKey, TenantId};

use crate::{
    records::{ModelName, ModelRecord, Records, VersionRecord},
    standing::{Standing, Standings},
};

type Models = BTreeMap<ModelName, Arc<ModelEntry>>;

/// Compiles every model by `compile`, those without ensembles first and then each after what it needs. Standings of ensembles
/// are added on the way.
pub(crate) fn in_order(
    records: &Records,
    standings: &mut Standings,
    mut compile: impl FnMut(&ModelName, &ModelRecord, &Standings) -> ModelEntry,
) -> Models {
    let mut models = Models::new();
    let mut waiting: Vec<(&ModelName, &ModelRecord, BTreeSet<ModelName>)> = Vec::new();
    for (name, record) in &records.models {
        if record.versions.values().any(is_ensemble) {
            waiting.push((name, record, needs(records, name, record)));
        } else {
            models.insert(name.clone(), Arc::new(compile(name, record, standings)));
        }
    }
    let mut add = |models: &mut Models, name: &ModelName, record: &ModelRecord| {
        for version in record.versions.values().filter(|version| is_ensemble(version)) {
            let standing = standing(records, standings, models, version);
            standings.insert(ModelVersionKey::clone(&version.key), standing);
        }
        models.insert(name.clone(), Arc::new(compile(name, record, standings)));
    };
    // Each round adds at least one model, or what is left goes in a circle.
    loop {
        let before = waiting.len();
        waiting.retain(|(name, record, needs)| {
            let ready = needs
                .iter()
                .all(|need| models.contains_key(need) || !records.models.contains_key(need));
            if ready {
                add(&mut models, name, record);
            }
            !ready
        });
        if waiting.is_empty() {
            return models;
        }
        if waiting.len() == before {
            for (name, record, _) in waiting {
                add(&mut models, name, record);
            }
            return models;
        }
    }
}

fn is_ensemble(version: &VersionRecord) -> bool {
    version.format == ArtifactFormat::Ensemble
}

/// The models that a model's ensembles name, as their owner sees them.
fn needs(records: &Records, name: &ModelName, record: &ModelRecord) -> BTreeSet<ModelName> {
    let ensembles = record.versions.values().filter(|version| is_ensemble(version));
    let named = ensembles.flat_map(|version| Outline::models(&version.config));
    named
        .filter_map(|(namespace, model, _)| records.callable(&name.0, namespace.as_ref(), &model).cloned())
        .collect()
}

fn standing(records: &Records, standings: &Standings, models: &Models, version: &VersionRecord) -> Standing {
    let owner = &version.key.tenant;
    let plan = Plan::compile(&version.key, &version.config, |wanted| {
        resolve(records, models, owner, &wanted)
    });
    let plan = match plan {
        Ok(plan) => plan,
        Err(problems) => {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            let more = match problems.len() {
                0 | 1 => String::new(),
                count => format!(" (and {} more problems)", count - 1),
            };
            return Standing::of_ensemble(version, None, Some(format!("{first}{more}")), false);
        }
    };
    let steps = plan.outline.calls.iter().zip(&plan.entries);
    let mut needed = steps.filter(|(call, _)| !call.soft);
    let Some((call, entry)) = needed.clone().find(|(_, entry)| !entry.is_ready()) else {
        return Standing::of_ensemble(version, Some(Arc::new(plan)), None, false);
    };
    let reason = entry.unavailable_reason.as_deref().unwrap_or("it is loading");
    let text = format!(
        "step '{}' is not ready: model '{}' version {}: {reason}",
        call.name, entry.key.model, entry.key.version
    );
    let rests = needed.all(|(_, entry)| standings.get(&*entry.key).is_some_and(Standing::holds));
    Standing::of_ensemble(version, Some(Arc::new(plan)), Some(text), rests)
}

/// The version that a step means now, as the ensemble's owner sees it.
fn resolve(
    records: &Records,
    models: &Models,
    owner: &TenantId,
    wanted: &Wanted<'_>,
) -> Result<StepVersionEntry, String> {
    let model = wanted.model;
    let name = records.callable(owner, wanted.namespace, model);
    let name = name.ok_or_else(|| format!("there is no model '{model}' here: create it, or have it granted"))?;
    let known = models.get(name);
    let known = known.ok_or_else(|| format!("model '{model}' and this one are ensembles of each other"))?;
    let entry = known.resolve(wanted.version).ok_or_else(|| match wanted.version {
        mesh_types::VersionSelector::Version(version) => format!("model '{model}' has no version {version}"),
        mesh_types::VersionSelector::Label(label) => format!("model '{model}' has no label '{label}'"),
        mesh_types::VersionSelector::Default => format!("model '{model}' has no version"),
    })?;
    let grants = records
        .models
        .get(name)
        .map(|record| record.spec.grants.iter().cloned());
    Ok(StepVersionEntry {
        entry: entry.clone(),
        callers: grants.into_iter().flatten().chain([name.0.clone()]).collect(),
    })
}
