//! What an ensemble reaches by way of its steps and of the ensembles within it: how deep they lie, how many steps there are, who
//! may call all of it, and which models keep a state.
//!
//! The same rules where an ensemble is written and where a snapshot is made of it. A step may run the owner's own models and those
//! granted to the owner; whoever is granted the ensemble may use the owner's models through it, but a grant is not handed on:
//! where a step runs a third tenant's model, only tenants that may call that model may call the ensemble.
//!
//! Invariant: no two steps of one request run the same stateful model: a sequence has one state in it, which the first would end.

use std::collections::BTreeSet;

use mesh_types::{ModelConfigError, ModelId, TenantId};

use super::outline::Outline;

/// How deep ensembles may lie within each other; 1 is one whose steps are plain models.
pub const MAX_NESTING: usize = 4;
/// The most steps of an ensemble, those of ensembles within it included.
pub const MAX_TOTAL_STEPS: usize = 256;

/// What a version reaches. A plain model's reach is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    depth: usize,
    total_steps: usize,
    /// None is whoever may call the ensemble.
    callers: Option<BTreeSet<TenantId>>,
    stateful: BTreeSet<(TenantId, ModelId)>,
}

/// The version that a step runs.
#[derive(Debug, Clone)]
pub struct StepReach<'a> {
    /// Whose model.
    pub owner: &'a TenantId,
    /// The model.
    pub model: &'a ModelId,
    /// Its owner and the tenants that it is granted to.
    pub callers: &'a BTreeSet<TenantId>,
    /// Whether it keeps a state for each sequence.
    pub stateful: bool,
    /// What it reaches itself.
    pub within: &'a Reach,
}

impl StepReach<'_> {
    fn states(&self) -> BTreeSet<(TenantId, ModelId)> {
        let own = self.stateful.then(|| (self.owner.clone(), self.model.clone()));
        self.within.stateful.iter().cloned().chain(own).collect()
    }
}

impl Reach {
    /// What an ensemble of this owner with these steps reaches.
    pub fn of(owner: &TenantId, steps: &[StepReach<'_>]) -> Self {
        let mut reach = Self {
            depth: 1 + steps.iter().map(|step| step.within.depth).max().unwrap_or(0),
            total_steps: steps.iter().map(|step| 1 + step.within.total_steps).sum(),
            callers: None,
            stateful: steps.iter().flat_map(StepReach::states).collect(),
        };
        for step in steps {
            if step.owner != owner {
                reach.only(step.callers);
            }
            if let Some(inner) = &step.within.callers {
                reach.only(inner);
            }
        }
        reach
    }

    fn only(&mut self, allowed: &BTreeSet<TenantId>) {
        self.callers = Some(match self.callers.take() {
            Some(known) => known.intersection(allowed).cloned().collect(),
            None => allowed.clone(),
        });
    }

    /// What is wrong with it, if anything is.
    pub fn problem(&self) -> Option<ModelConfigError> {
        let problem = if self.depth > MAX_NESTING {
            format!(
                "ensembles lie {} deep within each other, at most {MAX_NESTING} may",
                self.depth
            )
        } else if self.total_steps > MAX_TOTAL_STEPS {
            format!(
                "{} steps with those of ensembles within it, at most {MAX_TOTAL_STEPS} are allowed",
                self.total_steps
            )
        } else {
            return None;
        };
        Some(ModelConfigError {
            field: "graph".to_owned(),
            problem,
        })
    }

    /// Whether this tenant may call all of it, given that it may call the ensemble.
    pub fn admits(&self, tenant: &TenantId) -> bool {
        self.callers.as_ref().is_none_or(|callers| callers.contains(tenant))
    }

    /// The steps that would share the state of one model, if there are two of which not only one ever runs. `steps` are those of
    /// the graph's calls.
    pub fn shared_state(outline: &Outline, steps: &[StepReach<'_>]) -> Option<ModelConfigError> {
        let states: Vec<_> = steps.iter().map(StepReach::states).collect();
        for (at, (call, state)) in outline.calls.iter().zip(&states).enumerate() {
            let earlier = outline.calls.iter().zip(&states).enumerate().take(at);
            for (other_at, (other, others)) in earlier {
                let Some((_, model)) = state
                    .intersection(others)
                    .next()
                    .filter(|_| !outline.exclusive(at, other_at))
                else {
                    continue;
                };
                return Some(ModelConfigError {
                    field: call.place.clone(),
                    problem: format!(
                        "step '{}' runs the stateful model '{model}' too, in which a sequence has one state: give each a model of \
                         its own, or put them on different routes of a switch",
                        other.name
                    ),
                });
            }
        }
        None
    }
}
