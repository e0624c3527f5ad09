//! `POST /apply`: many resources, all or none, with the difference of each.

use actix_web::HttpResponse;
use mesh_registry::Change;
use mesh_resources::{Problem, Resource};
use serde::Deserialize as _;

use crate::{
    AdminState,
    auth::Caller,
    error::ApiError,
    plan,
    wire::{Action, ApplyBody, ApplyResults},
};

/// The most resources of one request; the registry takes no more changes at once.
pub(crate) const MAX_RESOURCES: usize = 256;
/// How often a write is worked out anew when another came between.
pub(crate) const MAX_TRIES: usize = 3;

pub(crate) async fn apply(
    state: &AdminState,
    caller: &Caller,
    body: ApplyBody,
    dry_run: bool,
) -> Result<HttpResponse, ApiError> {
    let resources = read(body)?;
    for key in resources.iter().filter_map(|resource| resource.key().ok()) {
        caller.reaches(&key)?;
    }
    let mut tries = 1;
    loop {
        let steps = plan::steps(state, resources.clone())?;
        for step in &steps {
            step.check_right(state, caller)?;
        }
        let changes: Vec<Change> = steps.iter().filter_map(plan::Step::change).collect();
        let written = match write(state, caller, changes, dry_run).await {
            Err(error) if error.is_conflict() && tries < MAX_TRIES => {
                tries += 1;
                continue;
            }
            written => written.map_err(|error| error.map_problems(|problem| placed(&steps, problem)))?,
        };
        let results = steps.iter().map(|step| step.result(&written)).collect();
        return Ok(HttpResponse::Ok().json(ApplyResults { results }));
    }
}

/// Writes, or checks what would be written.
pub(crate) async fn write(
    state: &AdminState,
    caller: &Caller,
    changes: Vec<Change>,
    dry_run: bool,
) -> Result<Vec<Resource>, ApiError> {
    let registry = &state.inner.parts.registry;
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    if dry_run {
        registry.check(caller.author(), changes).await?;
        return Ok(Vec::new());
    }
    Ok(registry.write(caller.author(), changes).await?)
}

/// The registry names a resource by its key, or not at all where it is the only one that changes; callers want its place.
fn placed(steps: &[plan::Step], problem: Problem) -> Problem {
    let changing = || {
        steps
            .iter()
            .enumerate()
            .filter(|(_, step)| step.action != Action::Unchanged)
    };
    let named = steps.iter().enumerate().find_map(|(index, step)| {
        let field = problem.field.strip_prefix(&step.key.to_string())?.strip_prefix(' ')?;
        Some((index, field))
    });
    let only = || {
        changing()
            .next()
            .filter(|_| changing().count() == 1)
            .map(|(index, _)| (index, problem.field.as_str()))
    };
    match named.or_else(only) {
        Some((index, field)) => Problem::new(format!("resources[{index}].{field}"), problem.problem),
        None => problem,
    }
}

fn read(body: ApplyBody) -> Result<Vec<Resource>, ApiError> {
    let count = body.resources.len();
    if count > MAX_RESOURCES {
        return Err(ApiError::problem(
            "resources",
            format!("{count} resources; at most {MAX_RESOURCES} are written at once: split them"),
        ));
    }
    let (mut resources, mut problems) = (Vec::new(), Vec::new());
    for (index, value) in body.resources.into_iter().enumerate() {
        match Resource::deserialize(value) {
            Ok(resource) => resources.push(resource),
            Err(error) => problems.push(Problem::new(format!("resources[{index}]"), error.to_string())),
        }
    }
    if problems.is_empty() {
        return Ok(resources);
    }
    Err(ApiError::problems(problems))
}
