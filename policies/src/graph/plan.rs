//! A graph with the versions that its steps run: what a request of an ensemble follows.
//!
//! Made whenever a snapshot is, so that a request resolves no label: all its steps are of one snapshot.

use std::{
    any::Any,
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use mesh_types::{ModelConfig, ModelConfigError, ModelVersionKey, TenantId};

use super::{
    outline::{Outline, Wanted},
    reach::{Reach, StepReach},
};
use crate::snapshot::VersionEntry;

/// What a request of an ensemble follows.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The graph.
    pub outline: Outline,
    /// The version that each call runs, by the call's place.
    pub entries: Vec<Arc<VersionEntry>>,
    /// Whether all its steps would run now but for those that may fail, and it is meant to be served.
    pub ready: bool,
    /// The steps that keep a state for each sequence, those of ensembles within it included, as in `step 'a': step 'b'`.
    pub stateful: Vec<(String, Arc<VersionEntry>)>,
    /// What it reaches, and so who may call it.
    pub reach: Reach,
    /// For each output the calls that it hangs on, as a mask of their places.
    pub(super) needed: Vec<u64>,
    /// How many look at each tensor.
    pub(super) uses: Vec<u32>,
    fitted: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// A version that a step names, and who may call it.
#[derive(Debug, Clone)]
pub struct StepVersionEntry {
    /// The version.
    pub entry: Arc<VersionEntry>,
    /// Its owner and the tenants that it is granted to.
    pub callers: BTreeSet<TenantId>,
}

impl StepVersionEntry {
    fn reach<'a>(&'a self, plain: &'a Reach) -> StepReach<'a> {
        StepReach {
            owner: &self.entry.key.tenant,
            model: &self.entry.key.model,
            callers: &self.callers,
            stateful: self.entry.config.sequence_batching.is_some(),
            within: self.entry.plan.as_ref().map_or(plain, |plan| &plan.reach),
        }
    }
}

/// The steps that keep a state. Bounded as the steps are.
fn stateful(outline: &Outline, steps: &[StepVersionEntry]) -> Vec<(String, Arc<VersionEntry>)> {
    let mut stateful = Vec::new();
    for (call, step) in outline.calls.iter().zip(steps) {
        let within = step.entry.plan.iter().flat_map(|plan| &plan.stateful);
        stateful.extend(within.map(|(path, entry)| (format!("step '{}': {path}", call.name), entry.clone())));
        if step.entry.config.sequence_batching.is_some() {
            stateful.push((format!("step '{}'", call.name), step.entry.clone()));
        }
    }
    stateful
}

impl Plan {
    /// Puts the plan of a version together.
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
        let plain = Reach::default();
        let reached: Vec<StepReach<'_>> = steps.iter().map(|step| step.reach(&plain)).collect();
        let reach = Reach::of(&key.tenant, &reached);
        let problem = reach.problem().or_else(|| Reach::shared_state(&outline, &reached));
        if let Some(problem) = problem {
            return Err(vec![problem]);
        }
        // What a step makes that may fail is missing then, as the graph expects.
        let mut needed = outline.calls.iter().zip(&steps).filter(|(call, _)| !call.soft);
        Ok(Self {
            ready: needed.all(|(_, step)| step.entry.is_ready()),
            stateful: stateful(&outline, &steps),
            needed: (0..outline.outputs.len())
                .map(|output| outline.needed(std::iter::once(output)))
                .collect(),
            uses: outline.uses(),
            fitted: OnceLock::new(),
            outline,
            entries: steps.into_iter().map(|step| step.entry).collect(),
            reach,
        })
    }

    /// What whoever drives its runs keeps beside it: made when it is first asked for, and gone with the plan. None where something
    /// else is kept already.
    pub fn fitted<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) -> Option<Arc<T>> {
        let kept = self.fitted.get_or_init(|| Arc::new(make()));
        Arc::downcast(kept.clone()).ok()
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
        self.reach.admits(tenant)
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
