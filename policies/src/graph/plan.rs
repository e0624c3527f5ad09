//! A graph with the versions that its steps run: what a request of an ensemble follows.
//!
//! Made whenever a snapshot is, so that a request resolves no label: all its steps are of one snapshot.

use std::{collections::BTreeSet, sync::Arc};

use mesh_types::{ModelConfig, ModelConfigError, ModelVersionKey, TenantId};

use super::outline::{Outline, Wanted};
use crate::snapshot::VersionEntry;

/// How deep ensembles may lie within each other; 1 is one whose steps are plain models.
pub const MAX_NESTING: usize = 4;
/// The most steps of an ensemble, those of ensembles within it included.
pub const MAX_TOTAL_STEPS: usize = 256;

/// What a request of an ensemble follows.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The graph.
    pub outline: Outline,
    /// The version that each call runs, by the call's place.
    pub entries: Vec<Arc<VersionEntry>>,
    /// Who may call it, where a step runs a model of another tenant than the ensemble's owner; none is whoever may call the
    /// ensemble.
    pub callers: Option<BTreeSet<TenantId>>,
    /// Whether all its steps would run now but for those that may fail, and it is meant to be served.
    pub ready: bool,
    depth: usize,
    total_steps: usize,
}

/// A version that a step names, and who may call it.
#[derive(Debug, Clone)]
pub struct StepVersionEntry {
    /// The version.
    pub entry: Arc<VersionEntry>,
    /// Its owner and the tenants that it is granted to.
    pub callers: BTreeSet<TenantId>,
}

impl Plan {
    /// Puts the plan of a version together. A step may run the owner's own models and those granted to the owner; whoever is
    /// granted the ensemble may use the owner's models through it, but a grant is not handed on: where a step runs a third
    /// tenant's model, only tenants that may call that model may call the ensemble.
    pub fn compile(
        key: &ModelVersionKey,
        config: &ModelConfig,
        mut resolve: impl FnMut(Wanted<'_>) -> Result<StepVersionEntry, String>,
    ) -> Result<Self, Vec<ModelConfigError>> {
        let mut steps: Vec<StepVersionEntry> = Vec::new();
        let salt = format!("{}/{}", key.tenant, key.model);
        let outline = Outline::compile(config, &salt, |wanted| {
            let found = resolve(wanted)?;
            let signature = found.entry.config.clone();
            steps.push(found);
            Ok(signature)
        })?;
        let inner = |of: fn(&Self) -> usize| steps.iter().filter_map(move |step| step.entry.plan.as_deref()).map(of);
        let depth = 1 + inner(|plan| plan.depth).max().unwrap_or(0);
        let total_steps = steps.len() + inner(|plan| plan.total_steps).sum::<usize>();
        let problem = |problem: String| {
            vec![ModelConfigError {
                field: "graph".to_owned(),
                problem,
            }]
        };
        if depth > MAX_NESTING {
            return Err(problem(format!(
                "ensembles lie {depth} deep within each other, at most {MAX_NESTING} may"
            )));
        }
        if total_steps > MAX_TOTAL_STEPS {
            let text =
                format!("{total_steps} steps with those of ensembles within it, at most {MAX_TOTAL_STEPS} are allowed");
            return Err(problem(text));
        }
        let mut callers: Option<BTreeSet<TenantId>> = None;
        let mut only = |allowed: &BTreeSet<TenantId>| {
            callers = Some(match callers.take() {
                Some(known) => known.intersection(allowed).cloned().collect(),
                None => allowed.clone(),
            });
        };
        for step in &steps {
            if step.entry.key.tenant != key.tenant {
                only(&step.callers);
            }
            if let Some(inner) = step.entry.plan.as_ref().and_then(|plan| plan.callers.as_ref()) {
                only(inner);
            }
        }
        // What a step makes that may fail is missing then, as the graph expects.
        let mut needed = outline.calls.iter().zip(&steps).filter(|(call, _)| !call.soft);
        Ok(Self {
            ready: needed.all(|(_, step)| step.entry.is_ready()),
            outline,
            entries: steps.into_iter().map(|step| step.entry).collect(),
            callers,
            depth,
            total_steps,
        })
    }

    /// The same, not to be served.
    #[must_use]
    pub fn kept_off(&self) -> Self {
        Self {
            ready: false,
            ..self.clone()
        }
    }

    /// Whether this tenant may call it, given that it may call the ensemble.
    pub fn admits(&self, tenant: &TenantId) -> bool {
        self.callers.as_ref().is_none_or(|callers| callers.contains(tenant))
    }

    /// The versions it runs, those of ensembles within it included.
    pub fn versions(&self) -> impl Iterator<Item = &Arc<VersionEntry>> {
        // Bounded: ensembles lie at most MAX_NESTING deep.
        let mut open: Vec<&Arc<VersionEntry>> = self.entries.iter().collect();
        std::iter::from_fn(move || {
            let next = open.pop()?;
            open.extend(next.plan.iter().flat_map(|plan| &plan.entries));
            Some(next)
        })
    }
}
