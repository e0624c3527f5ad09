//! Checks a policy's text: it parses, type-checks against the schema, and each statement can apply to something.

use std::{fmt, str::FromStr, sync::LazyLock};

use cedar_policy::{Policy, PolicyId, PolicySet, Schema, ValidationMode, Validator};
use miette::Diagnostic;

use crate::{
    SCHEMA,
    bounds::{MAX_DEPTH, MAX_TOKENS, TooMuch, measure},
    place,
};

/// The longest text of one policy, in bytes.
pub const MAX_POLICY_BYTES: usize = 65_536;
/// The most problems that are told of one text.
pub const MAX_PROBLEMS: usize = 16;

/// What is wrong with a policy's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyProblem {
    /// On which line, from 1.
    pub line: usize,
    /// At which character of the line, from 1.
    pub column: usize,
    /// What is wrong, and what would be right where that is known.
    pub message: String,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// The schema as it is used; none only if the one in this crate cannot be read, which a test rules out.
pub(crate) static READ_SCHEMA: LazyLock<Option<Schema>> =
    LazyLock::new(|| Schema::from_cedarschema_str(SCHEMA).ok().map(|(schema, _)| schema));

/// A statement of a text.
pub(crate) struct Statement {
    pub(crate) policy: Policy,
    /// From 1, in the order of the text.
    pub(crate) number: usize,
    pub(crate) line: usize,
}

fn problem(text: &str, at: usize, message: impl Into<String>) -> PolicyProblem {
    let place = place::of(text, at);
    PolicyProblem {
        line: place.line,
        column: place.column,
        message: message.into(),
    }
}

/// A problem as the engine tells it, with its help.
fn told(text: &str, error: &(impl Diagnostic + ?Sized), otherwise: usize) -> PolicyProblem {
    let label = error.labels().and_then(|mut labels| labels.next());
    let at = label.as_ref().map_or(otherwise, miette::LabeledSpan::offset);
    let mut message = error.to_string();
    // Which statement it is in is said by the place, and its number is the engine's own.
    if let Some((_, rest)) = message
        .strip_prefix("for policy `")
        .and_then(|rest| rest.split_once("`, "))
    {
        message = rest.to_owned();
    }
    let label = label.as_ref().and_then(miette::LabeledSpan::label);
    if let Some(label) = label.filter(|label| !message.contains(label)) {
        message = format!("{message}: {label}");
    }
    if let Some(help) = error.help() {
        message = format!("{message} ({help})");
    }
    problem(text, at, message)
}

/// The statements of a text in their order.
pub(crate) fn statements(text: &str) -> Result<Vec<Statement>, Vec<PolicyProblem>> {
    if text.len() > MAX_POLICY_BYTES {
        let long = format!(
            "{} bytes; a policy has at most {MAX_POLICY_BYTES}: split it",
            text.len()
        );
        return Err(vec![problem(text, 0, long)]);
    }
    match measure(text) {
        Ok(()) => {}
        Err(TooMuch::Depth(at)) => {
            let deep = format!("brackets within brackets more than {MAX_DEPTH} deep: take them apart");
            return Err(vec![problem(text, at, deep)]);
        }
        Err(TooMuch::Tokens(at)) => {
            let long = format!("the statement has more than {MAX_TOKENS} words and signs: make several of it");
            return Err(vec![problem(text, at, long)]);
        }
    }
    let set = PolicySet::from_str(text).map_err(|errors| {
        let errors = errors.iter().take(MAX_PROBLEMS);
        errors.map(|error| told(text, error, 0)).collect::<Vec<_>>()
    })?;
    if set.num_of_templates() > 0 {
        let text_of = set.templates().next().map(ToString::to_string).unwrap_or_default();
        let at = text.find(text_of.trim()).unwrap_or(0);
        let template = "a template: write the principal or resource in the place of ?principal or ?resource";
        return Err(vec![problem(text, at, template)]);
    }
    if set.is_empty() {
        return Err(vec![problem(text, 0, "no statement: write permit (..) or forbid (..)")]);
    }
    let number = |policy: &Policy| {
        let id: &str = policy.id().as_ref();
        id.strip_prefix("policy")
            .and_then(|number| number.parse::<usize>().ok())
    };
    let mut policies: Vec<&Policy> = set.policies().collect();
    policies.sort_by_key(|policy| number(policy));
    let mut from = 0;
    let placed = policies.into_iter().enumerate().map(|(index, policy)| {
        // The engine keeps a statement's text as it was written.
        let written = policy.to_cedar().unwrap_or_default();
        let found = text.get(from..).and_then(|rest| rest.find(written.trim()));
        let at = found.map_or(from, |found| from + found);
        from = found.map_or(from, |found| from + found + written.trim().len());
        Statement {
            policy: policy.clone(),
            number: index + 1,
            line: place::of(text, at).line,
        }
    });
    Ok(placed.collect())
}

/// Everything that is wrong with a policy's text, or how many statements it has.
pub fn check(text: &str) -> Result<usize, Vec<PolicyProblem>> {
    let statements = statements(text)?;
    let Some(schema) = READ_SCHEMA.clone() else {
        return Err(vec![problem(text, 0, "the schema cannot be read")]);
    };
    let mut set = PolicySet::new();
    for statement in &statements {
        let id = PolicyId::new(statement.number.to_string());
        let added = set.add(statement.policy.new_id(id));
        added.map_err(|error| vec![problem(text, 0, error.to_string())])?;
    }
    let result = Validator::new(schema).validate(&set, ValidationMode::Strict);
    let mut problems: Vec<PolicyProblem> = Vec::new();
    problems.extend(result.validation_errors().map(|error| told(text, error, 0)));
    // What the engine only warns of (a statement that can never apply, letters that look like others) is a mistake too, and in
    // a statement that forbids a dangerous one.
    if problems.is_empty() {
        problems.extend(result.validation_warnings().map(|warning| told(text, warning, 0)));
    }
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems.dedup();
    problems.truncate(MAX_PROBLEMS);
    if problems.is_empty() {
        return Ok(statements.len());
    }
    Err(problems)
}
