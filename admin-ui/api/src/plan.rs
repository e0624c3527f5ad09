//! What a write would do, worked out before it is made: the difference of each resource, its secrets kept, its salt drawn.

use std::collections::HashSet;

use mesh_registry::{Change, Expected};
use mesh_resources::{Problem, REDACTED, Resource, ResourceKey, Spec};
use rand::RngExt as _;

use crate::{
    AdminState,
    auth::Caller,
    error::ApiError,
    wire::{Action, ApplyResult},
};

/// What happens to one resource.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) key: ResourceKey,
    pub(crate) action: Action,
    pub(crate) before: Option<Resource>,
    pub(crate) after: Resource,
    expected: Expected,
}

impl Step {
    /// What the registry is to do; nothing if nothing changes.
    pub(crate) fn change(&self) -> Option<Change> {
        (self.action != Action::Unchanged).then(|| Change::Put {
            resource: self.after.clone(),
            expected: self.expected,
        })
    }

    /// Refuses what the caller may not do: less right is needed where only a split or a label moves.
    pub(crate) fn check_right(&self, state: &AdminState, caller: &Caller) -> Result<(), ApiError> {
        let before = self.before.as_ref().map(|before| &before.spec);
        caller.may_to(state, mesh_authz::changing(before, &self.after.spec), &self.key)
    }

    /// What the caller is told, given what the registry wrote.
    pub(crate) fn result(&self, written: &[Resource]) -> ApplyResult {
        let ours = written
            .iter()
            .find(|resource| resource.key().is_ok_and(|key| key == self.key));
        let after = ours.unwrap_or(&self.after);
        ApplyResult {
            key: self.key.to_string(),
            action: self.action,
            revision: after.metadata.revision,
            before: self.before.as_ref().map(Resource::redacted),
            after: after.redacted(),
        }
    }
}

/// What a condition of the request says beyond the resource's own revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Whatever there is.
    None,
    /// It must not exist.
    Absent,
    /// It must have this revision.
    Revision(u64),
}

/// Works out one resource. `place` goes before the fields of its problems.
pub(crate) fn step(state: &AdminState, mut after: Resource, condition: Condition) -> Result<Step, ApiError> {
    let key = after.key()?;
    let before = state.inner.parts.registry.get(&key)?;
    let found = before.as_ref().and_then(|before| before.metadata.revision);
    let condition = match (condition, after.metadata.revision) {
        (Condition::None, Some(revision)) => Condition::Revision(revision),
        (condition, _) => condition,
    };
    check_condition(&key, condition, found)?;
    keep_secrets(&mut after, before.as_ref());
    fill_salt(&mut after, before.as_ref());
    after.metadata.created = None;
    after.metadata.updated = None;
    let action = match &before {
        None => Action::Created,
        Some(before) if before.spec == after.spec => Action::Unchanged,
        Some(_) => Action::Changed,
    };
    if let (Action::Unchanged, Some(before)) = (action, &before) {
        after.metadata = before.metadata.clone();
    }
    // The difference was worked out against what was found: only that may be replaced.
    let expected = found.map_or(Expected::Absent, Expected::Revision);
    Ok(Step {
        key,
        action,
        before,
        after,
        expected,
    })
}

fn check_condition(key: &ResourceKey, condition: Condition, found: Option<u64>) -> Result<(), ApiError> {
    match (condition, found) {
        (Condition::None, _) | (Condition::Absent, None) => Ok(()),
        (Condition::Absent, Some(found)) => Err(ApiError::conflict(format!(
            "{key} exists already, at revision {found}: read it and change that, or choose another name"
        ))),
        (Condition::Revision(expected), Some(found)) if expected == found => Ok(()),
        (Condition::Revision(expected), Some(found)) => Err(ApiError::conflict(format!(
            "{key} is at revision {found}, the change was made for revision {expected}: read it again and repeat the change"
        ))),
        (Condition::Revision(expected), None) => Err(ApiError::conflict(format!(
            "{key} does not exist any more, the change was made for revision {expected}: leave the revision out to create it"
        ))),
    }
}

/// A redacted secret stands for the one that is kept.
fn keep_secrets(after: &mut Resource, before: Option<&Resource>) {
    match (&mut after.spec, before.map(|before| &before.spec)) {
        (Spec::ApiKey(after), Some(Spec::ApiKey(before))) if after.hash == REDACTED => {
            after.hash.clone_from(&before.hash);
        }
        (Spec::AdminToken(after), Some(Spec::AdminToken(before))) if after.hash == REDACTED => {
            after.hash.clone_from(&before.hash);
        }
        (Spec::Issuer(after), Some(Spec::Issuer(before))) => {
            for key in after
                .keys
                .iter_mut()
                .filter(|key| key.secret_base64.as_deref() == Some(REDACTED))
            {
                let same = before
                    .keys
                    .iter()
                    .find(|kept| kept.key_id == key.key_id && kept.algorithm == key.algorithm);
                if let Some(same) = same {
                    key.secret_base64.clone_from(&same.secret_base64);
                }
            }
        }
        _ => {}
    }
}

/// An endpoint's split stays the same split until somebody names another salt.
fn fill_salt(after: &mut Resource, before: Option<&Resource>) {
    let Spec::Endpoint(after) = &mut after.spec else { return };
    if after.salt.is_some() {
        return;
    }
    after.salt = match before.map(|before| &before.spec) {
        Some(Spec::Endpoint(before)) if before.salt.is_some() => before.salt.clone(),
        _ => Some(format!("{:032x}", rand::rng().random::<u128>())),
    };
}

/// Works out many resources; every problem of every one is told at once.
pub(crate) fn steps(state: &AdminState, resources: Vec<Resource>) -> Result<Vec<Step>, ApiError> {
    let (mut steps, mut problems, mut seen) = (Vec::new(), Vec::new(), HashSet::new());
    for (index, resource) in resources.into_iter().enumerate() {
        let place = |problem: Problem| Problem::new(format!("resources[{index}].{}", problem.field), problem.problem);
        if resource.key().is_err() {
            problems.extend(resource.problems().into_iter().map(place));
            continue;
        }
        let step = step(state, resource, Condition::None)?;
        problems.extend(step.after.problems().into_iter().map(place));
        if !seen.insert(step.key.clone()) {
            problems.push(place(Problem::new("metadata", format!("{} is there twice", step.key))));
        }
        steps.push(step);
    }
    if problems.is_empty() {
        return Ok(steps);
    }
    Err(ApiError::problems(problems))
}
