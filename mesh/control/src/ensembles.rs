//! Ensembles among the models: each is compiled after those that its steps name, with the versions that they now lead to.
//!
//! An ensemble is ready while every version that its steps lead to is, but for steps that may fail. What a label or a default leads to is decided by the
//! step's model as for any caller, so an ensemble moves to a new version of a step only once that is ready. A version whose graph
//! was changed goes on with the former one until the new one is ready, as long as that can answer and is called alike.
//!
//! Invariant: models that name each other in a circle are compiled all the same; their ensembles are not ready and say why.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_policies::{
    ModelEntry, VersionEntry, VersionPhase,
    graph::{Outline, Plan, StepVersionEntry, Wanted},
};
use mesh_types::{ArtifactFormat, ModelVersionKey, TenantId};

use crate::{
    records::{ModelName, ModelRecord, Records, VersionRecord, is_called_alike},
    standing::{Standing, Standings},
};

type Models = BTreeMap<ModelName, Arc<ModelEntry>>;

/// Compiles every model by `compile`, those without ensembles first and then each after what it needs. Standings of ensembles
/// are added on the way. `previous` are the models as they were.
pub(crate) fn in_order(
    records: &Records,
    standings: &mut Standings,
    previous: &Models,
    mut compile: impl FnMut(&ModelName, &ModelRecord, &Standings) -> Arc<ModelEntry>,
) -> Models {
    let mut models = Models::new();
    let mut waiting: Vec<(&ModelName, &ModelRecord)> = Vec::new();
    for (name, record) in &records.models {
        if record.versions.values().any(is_ensemble) {
            waiting.push((name, record));
        } else {
            models.insert(name.clone(), compile(name, record, standings));
        }
    }
    let mut add = |models: &mut Models, name: &ModelName, record: &ModelRecord| {
        for version in record.versions.values().filter(|version| is_ensemble(version)) {
            let around = Around {
                records,
                standings,
                models,
            };
            let before = previous
                .get(name)
                .and_then(|entry| entry.versions.get(&version.key.version));
            let standing = around.standing(version, before.map(AsRef::as_ref));
            standings.insert(ModelVersionKey::clone(&version.key), standing);
        }
        models.insert(name.clone(), compile(name, record, standings));
    };
    // Each round adds at least one model, or does without more of what is named. What is kept off names nothing that must be there: its
    // graph is only shown.
    let mut heed: &[fn(&VersionRecord) -> bool] = &[is_ensemble, |version| is_ensemble(version) && version.is_wanted()];
    while let Some((which, rest)) = heed.split_first() {
        let before = waiting.len();
        waiting.retain(|(name, record)| {
            let ready = needs(records, name, record, *which)
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
            heed = rest;
        }
    }
    // What is left goes in a circle.
    for (name, record) in waiting {
        add(&mut models, name, record);
    }
    models
}

fn is_ensemble(version: &VersionRecord) -> bool {
    version.format == ArtifactFormat::Ensemble
}

/// The models that these of a model's versions name, as their owner sees them.
fn needs(
    records: &Records,
    name: &ModelName,
    record: &ModelRecord,
    which: fn(&VersionRecord) -> bool,
) -> BTreeSet<ModelName> {
    let ensembles = record.versions.values().filter(|version| which(version));
    let named = ensembles.flat_map(|version| Outline::models(&version.config));
    named
        .filter_map(|(namespace, model, _)| records.callable(&name.0, namespace.as_ref(), &model).cloned())
        .collect()
}

/// What a version's graph is compiled from.
struct Around<'a> {
    records: &'a Records,
    standings: &'a Standings,
    models: &'a Models,
}

/// Why an ensemble does not answer now.
struct Waits {
    /// Its plan, if its graph holds together.
    plan: Option<Arc<Plan>>,
    reason: String,
    /// Whether its steps only wait for devices to be undrained.
    rests: bool,
    /// Where the step that it waits for is on its way.
    phase: VersionPhase,
}

impl Around<'_> {
    fn standing(&self, version: &VersionRecord, before: Option<&VersionEntry>) -> Standing {
        let waits = match self.plan(version) {
            Ok(plan) => return Standing::of_ensemble(version, Some(plan), None, (false, VersionPhase::Settled)),
            Err(waits) => waits,
        };
        if let Some((former, plan)) = self.former(version, before) {
            let reason = format!("its graph as it was before answers: {}", waits.reason);
            return Standing::of_ensemble(&former, Some(plan), Some(reason), (false, VersionPhase::Settled));
        }
        Standing::of_ensemble(version, waits.plan, Some(waits.reason), (waits.rests, waits.phase))
    }

    /// The plan of what is declared, if it is ready.
    fn plan(&self, version: &VersionRecord) -> Result<Arc<Plan>, Waits> {
        let owner = &version.key.tenant;
        let plan = Plan::compile(&version.key, &version.config, |wanted| self.resolve(owner, &wanted));
        let plan = plan.map_err(|problems| {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            let more = match problems.len() {
                0 | 1 => String::new(),
                count => format!(" (and {} more problems)", count - 1),
            };
            Waits {
                plan: None,
                reason: format!("{first}{more}"),
                rests: false,
                phase: VersionPhase::Settled,
            }
        })?;
        let steps = plan.outline.calls.iter().zip(&plan.entries);
        let mut needed = steps.filter(|(call, _)| !call.soft);
        let Some((call, entry)) = needed.clone().find(|(_, entry)| !entry.is_ready()) else {
            return Ok(Arc::new(plan));
        };
        let reason = entry.unavailable_reason.as_deref().unwrap_or("it is loading");
        let reason = format!(
            "step '{}' is not ready: model '{}' version {}: {reason}",
            call.name, entry.key.model, entry.key.version
        );
        let phase = entry.phase;
        let rests = needed.all(|(_, entry)| self.standings.get(&*entry.key).is_some_and(Standing::holds));
        Err(Waits {
            plan: Some(Arc::new(plan)),
            reason,
            rests,
            phase,
        })
    }

    /// What answered before the version's graph was changed, if it still can. It is compiled anew, so that what was taken away since,
    /// such as a grant, is gone from it too; a version of a step that is leaving is as good as long as it is there.
    fn former(&self, version: &VersionRecord, before: Option<&VersionEntry>) -> Option<(VersionRecord, Arc<Plan>)> {
        let before = before.filter(|before| before.is_ready() && version.is_wanted())?;
        if before.config == version.config || !is_called_alike(&before.config, &version.config) {
            return None;
        }
        let former = VersionRecord {
            config: before.config.clone(),
            ..version.clone()
        };
        let plan = Plan::compile(&former.key, &former.config, |wanted| {
            let mut found = self.resolve(&former.key.tenant, &wanted)?;
            let standing = self.standings.get(&*found.entry.key);
            if let Some(standing) = standing.filter(|_| !found.entry.is_ready()) {
                found.entry = standing.able.clone();
            }
            Ok(found)
        });
        let plan = plan.ok().filter(|plan| plan.ready)?;
        Some((former, Arc::new(plan)))
    }

    /// The version that a step means now, as the ensemble's owner sees it.
    fn resolve(&self, owner: &TenantId, wanted: &Wanted<'_>) -> Result<StepVersionEntry, String> {
        let model = wanted.model;
        let name = self.records.callable(owner, wanted.namespace, model);
        let name = name.ok_or_else(|| format!("there is no model '{model}' here: create it, or have it granted"))?;
        let known = self.models.get(name);
        let known = known.ok_or_else(|| format!("model '{model}' and this one are ensembles of each other"))?;
        let entry = known.resolve(wanted.version).ok_or_else(|| match wanted.version {
            mesh_types::VersionSelector::Version(version) => format!("model '{model}' has no version {version}"),
            mesh_types::VersionSelector::Label(label) => format!("model '{model}' has no label '{label}'"),
            mesh_types::VersionSelector::Default => format!("model '{model}' has no version"),
        })?;
        if entry.config.is_decoupled() {
            let version = entry.key.version;
            return Err(format!(
                "model '{model}' version {version} gives any number of answers, and a step has one"
            ));
        }
        let record = self.records.models.get(name);
        let grants = record.map(|record| record.spec.grants.iter().cloned());
        Ok(StepVersionEntry {
            entry: entry.clone(),
            callers: grants.into_iter().flatten().chain([name.0.clone()]).collect(),
        })
    }
}
