//! The judge: the built-in policies and those that were declared, ready to be asked.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use cedar_policy::{Authorizer, Context, Effect as Says, Entities, PolicyId, Request};
use mesh_policies::authorization::{Action, Because, Deciding, Effect, Judge, Object, Subject, Verdict};

use crate::{
    BUILTIN, BUILTIN_NAME, PolicyProblem,
    check::{READ_SCHEMA, statements},
    cost,
    entities::Types,
    index::{Index, Said},
};

/// The most statements of all declared policies together.
pub const MAX_STATEMENTS: usize = 1_024;
/// The most bytes of all declared policies together.
pub const MAX_SET_BYTES: usize = 1 << 20;

/// Why policies cannot be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A policy cannot be read.
    #[error("policy '{policy}', {problem}")]
    Policy {
        /// Which.
        policy: String,
        /// What is wrong with it.
        problem: PolicyProblem,
    },
    /// There are too many statements.
    #[error("more than {MAX_STATEMENTS} statements in all policies together: put some together with `in` and `||`")]
    TooMany,
    /// Their texts are too long.
    #[error("more than {MAX_SET_BYTES} bytes in all policies together: leave out comments, or put statements together")]
    TooLong,
    /// Two policies have one name.
    #[error("two policies are called '{0}'")]
    Twice(String),
    /// What is part of this program cannot be read.
    #[error("the built-in schema cannot be read")]
    Schema,
}

/// The policies of a mesh, ready to be asked.
pub struct Policies {
    index: Index,
    /// The hierarchy of actions.
    actions: Entities,
    types: Types,
    sources: HashMap<PolicyId, Deciding>,
    authorizer: Authorizer,
    /// See [`Judge::longest`].
    longest: Duration,
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies")
            .field("statements", &self.sources.len())
            .finish_non_exhaustive()
    }
}

impl Policies {
    /// The built-in policies and these, each by its name and text. Whether they type-check was asked when they were written.
    pub fn compile<'a>(declared: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CompileError> {
        let schema = READ_SCHEMA.as_ref().ok_or(CompileError::Schema)?;
        let mut policies = Self {
            index: Index::default(),
            actions: schema.action_entities().map_err(|_| CompileError::Schema)?,
            types: Types::read().ok_or(CompileError::Schema)?,
            sources: HashMap::new(),
            authorizer: Authorizer::new(),
            longest: Duration::ZERO,
        };
        policies.add(BUILTIN_NAME, BUILTIN)?;
        let (builtin, mut bytes) = (policies.sources.len(), 0);
        for (name, text) in declared {
            bytes += text.len();
            if bytes > MAX_SET_BYTES {
                return Err(CompileError::TooLong);
            }
            policies.add(name, text)?;
            if policies.sources.len() - builtin > MAX_STATEMENTS {
                return Err(CompileError::TooMany);
            }
        }
        Ok(policies)
    }

    /// The built-in policies alone.
    pub fn builtin() -> Result<Self, CompileError> {
        Self::compile([])
    }

    fn add(&mut self, name: &str, text: &str) -> Result<(), CompileError> {
        let unreadable = |problems: Vec<PolicyProblem>| CompileError::Policy {
            policy: name.to_owned(),
            problem: problems.into_iter().next().unwrap_or_else(|| PolicyProblem {
                line: 1,
                column: 1,
                message: "cannot be read".to_owned(),
            }),
        };
        let shared: Arc<str> = Arc::from(name);
        for statement in statements(text).map_err(unreadable)? {
            let own = statement.policy.annotation("id").filter(|_| name == BUILTIN_NAME);
            let shown = own.map_or_else(|| shared.clone(), Arc::from);
            self.longest += cost::of(&statement.policy);
            // No name of a resource holds this sign.
            let id = PolicyId::new(format!("{name}#{}", statement.number));
            let deciding = Deciding {
                policy: shown,
                statement: statement.number,
                line: statement.line,
                effect: match statement.policy.effect() {
                    Says::Permit => Effect::Permit,
                    Says::Forbid => Effect::Forbid,
                },
            };
            let twice = self.sources.insert(id.clone(), deciding).is_some();
            let added = self.index.add(statement.policy.new_id(id));
            if twice || added.is_err() {
                return Err(CompileError::Twice(name.to_owned()));
            }
        }
        Ok(())
    }

    /// The same, evaluated as one set.
    #[cfg(test)]
    pub(crate) fn in_one(mut self) -> Self {
        self.index.in_one();
        self
    }

    /// How the policies call who asks, such as `Mesh::Key::"acme/ci"`.
    pub fn name_of_subject(&self, subject: &Subject<'_>) -> String {
        self.types.subject(subject).to_string()
    }

    /// How the policies call what it is about.
    pub fn name_of_object(&self, object: &Object<'_>) -> String {
        self.types.object(object).to_string()
    }

    fn ask(&self, subject: &Subject<'_>, action: Action, object: &Object<'_>) -> Result<Said, String> {
        let entities = self
            .types
            .entities(subject, object)
            .map_err(|error| error.to_string())?;
        let entities = self.actions.clone().add_entities(entities, None);
        let entities = entities.map_err(|error| error.to_string())?;
        let (who, what) = (self.types.subject(subject), self.types.object(object));
        let request = Request::new(who, self.types.action(action), what, Context::empty(), None);
        let request = request.map_err(|error| error.to_string())?;
        Ok(self.index.ask(&self.authorizer, &request, &entities))
    }
}

impl Judge for Policies {
    fn longest(&self) -> Duration {
        self.longest
    }

    fn judge(&self, subject: &Subject<'_>, action: Action, object: &Object<'_>) -> Verdict {
        // What the table does not know together no policy can permit, however wide it is written.
        if !action.is_by(subject.kind) || !action.objects().contains(&object.kind) {
            return Verdict::denied(Because::NothingPermits);
        }
        let said = match self.ask(subject, action, object) {
            Ok(Said { error: Some(error), .. }) | Err(error) => return Verdict::denied(Because::Failed(error)),
            Ok(said) => said,
        };
        let sources = said.deciding.iter().filter_map(|id| self.sources.get(id));
        let mut deciding: Vec<Deciding> = sources.cloned().collect();
        deciding.sort_by(|one, other| (&one.policy, one.statement).cmp(&(&other.policy, other.statement)));
        let because = if deciding.is_empty() {
            Because::NothingPermits
        } else {
            Because::Policies(deciding)
        };
        Verdict {
            allowed: said.allowed,
            because,
        }
    }
}
