//! Statements by whom and what they are about, so that a decision evaluates those that can concern it and no others.
//!
//! Owns the choice of where a statement lies: at the one entity that its scope names (`principal in Group::"acme/interns"`, else `resource ==
//! Model::"acme/digits"`, else `action == ..`), or with those that name none. A question reads what lies at the one who asks, at what it is
//! about, at the action and at all that these are in. Evaluates nothing itself, and changes no answer: a statement whose scope does not
//! fit is not satisfied, and its conditions are not looked at, by Cedar's own rules.
//!
//! Invariants: what is evaluated together or apart decides the same; a forbid anywhere counts before every permit, and an error anywhere
//! denies (a property test holds it against all statements in one set).

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    ActionConstraint, Authorizer, Decision, Entities, EntityUid, Policy, PolicyId, PolicySet, PolicySetError,
    PrincipalConstraint, Request, ResourceConstraint,
};

/// All statements.
#[derive(Default)]
pub(crate) struct Index {
    /// Those that name no entity.
    anywhere: PolicySet,
    at: HashMap<EntityUid, PolicySet>,
}

/// What the statements said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) allowed: bool,
    /// The statements that decided: forbids if there is one that fits, else permits.
    pub(crate) deciding: Vec<PolicyId>,
    pub(crate) error: Option<String>,
}

impl Index {
    /// Adds a statement; its name must be no other's.
    pub(crate) fn add(&mut self, policy: Policy) -> Result<(), Box<PolicySetError>> {
        let set = match anchor(&policy) {
            Some(anchor) => self.at.entry(anchor).or_default(),
            None => &mut self.anywhere,
        };
        set.add(policy).map_err(Box::new)
    }

    /// The same with all statements in one set.
    #[cfg(test)]
    pub(crate) fn in_one(&mut self) {
        for (_, set) in self.at.drain() {
            for policy in set.policies() {
                self.anywhere.add(policy.clone()).unwrap();
            }
        }
    }

    /// What is said to a request about these entities.
    pub(crate) fn ask(&self, authorizer: &Authorizer, request: &Request, entities: &Entities) -> Said {
        let of = [request.principal(), request.action(), request.resource()];
        let mut anchors: HashSet<&EntityUid> = of.into_iter().flatten().collect();
        for uid in of.into_iter().flatten() {
            anchors.extend(entities.ancestors(uid).into_iter().flatten());
        }
        let sets = anchors.into_iter().filter_map(|anchor| self.at.get(anchor));
        let (mut said, mut forbidden) = (Said::default(), Vec::new());
        for set in sets.chain([&self.anywhere]) {
            let response = authorizer.is_authorized(request, set, entities);
            let diagnostics = response.diagnostics();
            if let Some(error) = diagnostics.errors().next() {
                said.error.get_or_insert(error.to_string());
            }
            let deciding = match response.decision() {
                Decision::Allow => &mut said.deciding,
                Decision::Deny => &mut forbidden,
            };
            deciding.extend(diagnostics.reason().cloned());
        }
        if forbidden.is_empty() {
            said.allowed = !said.deciding.is_empty();
        } else {
            said.deciding = forbidden;
        }
        said
    }
}

/// The entity that a statement is about, if its scope names one: without it, or something in it, the statement does not fit.
fn anchor(policy: &Policy) -> Option<EntityUid> {
    let principal = match policy.principal_constraint() {
        PrincipalConstraint::In(uid) | PrincipalConstraint::Eq(uid) | PrincipalConstraint::IsIn(_, uid) => Some(uid),
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
    };
    let resource = || match policy.resource_constraint() {
        ResourceConstraint::In(uid) | ResourceConstraint::Eq(uid) | ResourceConstraint::IsIn(_, uid) => Some(uid),
        ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
    };
    let action = || match policy.action_constraint() {
        ActionConstraint::Eq(uid) => Some(uid),
        ActionConstraint::In(uids) => <[EntityUid; 1]>::try_from(uids).ok().map(|[uid]| uid),
        ActionConstraint::Any => None,
    };
    principal.or_else(resource).or_else(action)
}
