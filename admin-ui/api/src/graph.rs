//! An ensemble's graph as it stands: its steps, what each leads to now, and what they have done.
//!
//! Reads the snapshot that requests follow, so that what is shown is what runs. Decides nothing.

use std::time::Duration;

use actix_web::HttpResponse;
use mesh_policies::{
    VersionEntry,
    graph::{Call, Outline, Plan, Route, show},
};
use mesh_resources::VersionRef;
use mesh_telemetry::{EnsembleReading, StepReading};
use mesh_types::{ModelId, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{AdminState, error::ApiError, trial};

/// Which version of a model.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphQuery {
    version: Option<String>,
}

/// An ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GraphView {
    /// The owner.
    #[schema(value_type = String)]
    tenant: TenantId,
    /// The model.
    #[schema(value_type = String)]
    model: ModelId,
    /// The version.
    version: u32,
    /// Whether it would take a call now.
    ready: bool,
    /// Why not, or why what answers is not what was declared.
    reason: Option<String>,
    /// The tensors that come with a request.
    inputs: Vec<GraphTensor>,
    /// The steps that call models, in the order of writing.
    steps: Vec<GraphStepView>,
    /// Switches and splitters.
    choices: Vec<GraphChoice>,
    /// The tensors of an answer.
    outputs: Vec<GraphOutput>,
    /// Since the mesh started; null before the first request.
    numbers: Option<GraphNumbers>,
    /// The graph as text; empty where it does not hold together.
    text: String,
    /// The graph in the language of Graphviz; empty where it does not hold together.
    dot: String,
}

/// A tensor.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GraphTensor {
    name: String,
    datatype: String,
    /// On the wire; -1 is any.
    shape: Vec<i64>,
}

/// An output of an ensemble.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GraphOutput {
    name: String,
    /// The tensors to take the first of.
    from: Vec<String>,
    /// Whether an answer may lack it.
    optional: bool,
}

/// A tensor and its name in a model's signature.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GraphWire {
    /// In the model's signature.
    name: String,
    /// In the graph; of several the first that there is.
    tensors: Vec<String>,
}

/// A route that a step lies in.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GraphRoute {
    /// The switch or splitter.
    choice: String,
    /// Its place among the routes.
    route: usize,
    /// When it is taken.
    when: String,
}

/// A step that calls a model.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GraphStepView {
    name: String,
    /// The model as the step names it, such as `digits@stable`.
    model: String,
    /// Whose model it leads to.
    #[schema(value_type = String)]
    owner: TenantId,
    /// The version that it leads to now.
    version: u32,
    /// Whether that would run now.
    ready: bool,
    /// Why not.
    reason: Option<String>,
    /// How many steps must come before it at least.
    level: usize,
    inputs: Vec<GraphWire>,
    outputs: Vec<GraphWire>,
    /// The condition on which it runs.
    when: Option<String>,
    /// Whether its failure only means that what it makes is missing.
    soft: bool,
    /// The most requests in it at once; 0 is without bound.
    max_inflight_requests: u32,
    route: Option<GraphRoute>,
    /// Since the mesh started; null before the first request.
    numbers: Option<GraphStepNumbers>,
}

/// A switch or a splitter.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GraphChoice {
    name: String,
    /// `switch` or `splitter`.
    #[schema(value_type = String)]
    kind: &'static str,
    /// The condition on which any route is taken.
    when: Option<String>,
    /// When each route is taken.
    routes: Vec<String>,
    route: Option<GraphRoute>,
}

/// What an ensemble has done.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GraphNumbers {
    /// Requests that were answered.
    ok: u64,
    /// Requests that failed.
    failed: u64,
    /// Given up because the caller left, or what it was a step of ended.
    cancelled: u64,
    /// Of those that were answered.
    mean_ms: Option<f64>,
    /// The part of it in which no step was waited for.
    mean_compose_ms: Option<f64>,
}

/// What a step has done.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct GraphStepNumbers {
    ok: u64,
    failed: u64,
    /// Given up because the request ended.
    cancelled: u64,
    /// Requests in which it was not needed.
    left_out: u64,
    /// Of those that ended well or failed.
    mean_ms: Option<f64>,
}

/// Shows an ensemble as it stands.
pub(crate) fn graph(
    state: &AdminState,
    tenant: &TenantId,
    model: &ModelId,
    query: &GraphQuery,
) -> Result<HttpResponse, ApiError> {
    let wanted = query.version.as_deref().map(str::parse::<VersionRef>).transpose();
    let wanted = wanted.map_err(|error| ApiError::invalid(format!("version: {error}")))?;
    let (key, _) = trial::resolve(state, tenant, model, wanted.as_ref())?;
    let parts = &state.inner.parts;
    let entry = parts.fleet.ensemble(&key);
    let entry = entry.ok_or_else(|| {
        let text = format!("a graph of {key}: it is no ensemble, or was only just written");
        ApiError::not_found(text)
    })?;
    let reading = parts.telemetry.metrics().ensemble_reading(&key);
    Ok(HttpResponse::Ok().json(view(&entry, reading.as_ref())))
}

fn view(entry: &VersionEntry, reading: Option<&EnsembleReading>) -> GraphView {
    let mut view = GraphView {
        tenant: entry.key.tenant.clone(),
        model: entry.key.model.clone(),
        version: entry.key.version.get(),
        ready: entry.is_ready(),
        reason: entry.unavailable_reason.clone(),
        inputs: Vec::new(),
        steps: Vec::new(),
        choices: Vec::new(),
        outputs: Vec::new(),
        numbers: reading.map(numbers),
        text: String::new(),
        dot: String::new(),
    };
    let Some(plan) = &entry.plan else { return view };
    let outline = &plan.outline;
    let given = outline.tensors.iter().filter(|tensor| tensor.makers.is_empty());
    view.inputs = given
        .map(|tensor| GraphTensor {
            name: tensor.name.to_string(),
            datatype: tensor.datatype.to_string(),
            shape: tensor.dims.clone(),
        })
        .collect();
    let counted = |at: usize| reading.and_then(|reading| reading.steps.get(at));
    let steps = outline.calls.iter().zip(&plan.entries).enumerate();
    view.steps = steps
        .map(|(at, (call, entry))| step(outline, call, entry, counted(at)))
        .collect();
    view.choices = outline
        .choices
        .iter()
        .map(|choice| self::choice(outline, choice))
        .collect();
    let output = |output: &mesh_policies::graph::Output| GraphOutput {
        name: output.name.to_string(),
        from: names(outline, &output.from),
        optional: output.optional,
    };
    view.outputs = outline.outputs.iter().map(output).collect();
    let note = |at: usize| note(plan, at);
    view.text = show::text(outline, &note);
    view.dot = show::dot(outline, &entry.key.to_string(), &note);
    view
}

fn note(plan: &Plan, at: usize) -> String {
    let Some(entry) = plan.entries.get(at) else {
        return String::new();
    };
    let state = if entry.is_ready() { "" } else { ", not ready" };
    format!("version {}{state}", entry.key.version)
}

fn names(outline: &Outline, tensors: &[usize]) -> Vec<String> {
    let infos = tensors.iter().filter_map(|tensor| outline.tensors.get(*tensor));
    infos.map(|tensor| tensor.name.to_string()).collect()
}

fn route(outline: &Outline, route: Option<Route>) -> Option<GraphRoute> {
    let route = route?;
    let choice = outline.choices.get(route.choice)?;
    Some(GraphRoute {
        choice: choice.name.to_string(),
        route: route.route,
        when: show::way(choice, route.route),
    })
}

fn step(outline: &Outline, call: &Call, entry: &VersionEntry, counted: Option<&StepReading>) -> GraphStepView {
    let input = |input: &mesh_policies::graph::Input| GraphWire {
        name: input.name.to_string(),
        tensors: names(outline, &input.from),
    };
    let made = |made: &mesh_policies::graph::Made| GraphWire {
        name: made.name.to_string(),
        tensors: names(outline, &[made.tensor]),
    };
    GraphStepView {
        name: call.name.to_string(),
        model: show::model(call),
        owner: entry.key.tenant.clone(),
        version: entry.key.version.get(),
        ready: entry.is_ready(),
        reason: entry.unavailable_reason.clone(),
        level: call.level,
        inputs: call.inputs.iter().map(input).collect(),
        outputs: call.outputs.iter().map(made).collect(),
        when: call.when.as_ref().map(|when| when.condition.text().to_owned()),
        soft: call.soft,
        max_inflight_requests: call.max_inflight,
        route: route(outline, call.route),
        numbers: counted.map(|counted| GraphStepNumbers {
            ok: counted.ok,
            failed: counted.failed,
            cancelled: counted.cancelled,
            left_out: counted.left_out,
            mean_ms: mean_ms(counted.total, counted.ok + counted.failed),
        }),
    }
}

fn choice(outline: &Outline, choice: &mesh_policies::graph::Choice) -> GraphChoice {
    GraphChoice {
        name: choice.name.to_string(),
        kind: match choice.way {
            mesh_policies::graph::Way::Switch(_) => "switch",
            mesh_policies::graph::Way::Splitter { .. } => "splitter",
        },
        when: choice.when.as_ref().map(|when| when.condition.text().to_owned()),
        routes: (0..choice.routes()).map(|at| show::way(choice, at)).collect(),
        route: route(outline, choice.route),
    }
}

fn numbers(reading: &EnsembleReading) -> GraphNumbers {
    GraphNumbers {
        ok: reading.ok,
        failed: reading.failed,
        cancelled: reading.cancelled,
        mean_ms: mean_ms(reading.total, reading.ok),
        mean_compose_ms: mean_ms(reading.compose, reading.ok),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn mean_ms(total: Duration, count: u64) -> Option<f64> {
    (count > 0).then(|| total.as_secs_f64() * 1_000.0 / count as f64)
}
