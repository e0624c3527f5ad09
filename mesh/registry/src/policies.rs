//! What a policy may say, and that policies never lock everybody out.
//!
//! A write of policies or admin tokens must leave an admin who may edit every policy that there would be: a policy that forbids
//! that could otherwise never be taken back. Asked of the draft, like every rule.

use jiff::Timestamp;
use mesh_authz::{Holder, Policies, Thing};
use mesh_policies::authorization::{Action, decide};
use mesh_resources::{Kind, PolicySpec, Problem, Resource, Spec};

use crate::{
    RegistryError,
    draft::prefix,
    rules::{Changed, Rules, is_admin, named},
};

/// What is wrong with a policy's text, each with its line and column.
pub(crate) fn text(spec: &PolicySpec) -> Vec<Problem> {
    match mesh_authz::check(&spec.cedar) {
        Ok(_) => Vec::new(),
        Err(problems) => problems
            .into_iter()
            .map(|problem| Problem::new("spec.cedar", problem.to_string()))
            .collect(),
    }
}

impl Rules<'_> {
    /// Whether all policies can be asked together, and an admin could still change each of them.
    pub(crate) fn policies_hold(&self, now: Timestamp, changes: &[Changed]) -> Result<Vec<Problem>, RegistryError> {
        let touches = |change: &&Changed| matches!(change.key.kind, Kind::Policy | Kind::AdminToken);
        let Some(touching) = changes.iter().find(touches) else {
            return Ok(Vec::new());
        };
        let policies = self.draft.list(&prefix(Kind::Policy, None))?;
        // A text that is written now and is wrong says so itself, with every problem in it.
        if policies.is_empty() || written_badly(changes) {
            return Ok(Vec::new());
        }
        let texts = policies.iter().filter_map(|policy| match &policy.spec {
            Spec::Policy(spec) => Some((policy.metadata.name.as_str(), spec.cedar.as_str())),
            _ => None,
        });
        let problem = |text: String| {
            let field = if touching.key.kind == Kind::Policy {
                "spec.cedar"
            } else {
                "spec"
            };
            Ok(vec![named(Problem::new(field, text), &touching.key, changes.len())])
        };
        let judge = match Policies::compile(texts) {
            Ok(judge) => judge,
            Err(error) => return problem(error.to_string()),
        };
        let tokens = self.draft.list(&prefix(Kind::AdminToken, None))?;
        let may_edit_all = |token: &Resource| {
            let Spec::AdminToken(spec) = &token.spec else {
                return false;
            };
            let holder = Holder::of_token(&token.metadata.name, spec);
            policies
                .iter()
                .filter_map(|policy| policy.key().ok())
                .all(|key| decide(&judge, &holder.subject(), Action::PolicyEdit, &Thing::of(&key).object()).allowed)
        };
        if tokens.iter().filter(|token| is_admin(token, now)).any(may_edit_all) {
            return Ok(Vec::new());
        }
        problem(
            "with this, no admin could do policy:edit to every policy any more, so nobody could take it back: leave one out of \
             what is forbidden"
                .to_owned(),
        )
    }
}

fn written_badly(changes: &[Changed]) -> bool {
    let written = changes.iter().filter_map(|change| change.after.as_ref());
    let mut texts = written.filter_map(|resource| match &resource.spec {
        Spec::Policy(spec) => Some(spec),
        _ => None,
    });
    texts.any(|spec| !text(spec).is_empty())
}
