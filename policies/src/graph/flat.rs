//! From the two written forms to one flat list of calls and choices, and all checks that need no other model.
//!
//! Routes that lie within each other become a reference from each call to the route it lies in. Every problem names its place in
//! the form that it was written in.

use std::{collections::BTreeMap, sync::Arc};

use mesh_types::{
    Dependency, Graph, GraphStep, Label, MAX_CHOICES, MAX_INFLIGHT_REQUESTS, MAX_ROUTE_NESTING, MAX_ROUTES,
    MAX_SOURCES, MAX_STEPS, ModelConfig, ModelConfigError, ModelId, Sources, StepVersion, TenantId,
};

use super::condition::Condition;
use crate::traffic::WHOLE;

/// The longest name of a tensor, unit or salt.
const MAX_NAME: usize = 255;
const MAX_UNIT: usize = 64;

/// A route of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouteRef {
    /// Which choice.
    pub(super) choice: usize,
    /// Which of its routes.
    pub(super) route: usize,
}

/// What the fields of a step are called in the form that it was written in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    pub(super) model: &'static str,
    pub(super) inputs: &'static str,
    pub(super) outputs: &'static str,
}

const OWN: Words = Words {
    model: "model",
    inputs: "inputs",
    outputs: "outputs",
};
const TRITONS: Words = Words {
    model: "model_name",
    inputs: "input_map",
    outputs: "output_map",
};

/// A call of a model, as written.
#[derive(Debug, Clone)]
pub(super) struct FlatCall {
    pub(super) name: Arc<str>,
    pub(super) place: String,
    pub(super) words: Words,
    pub(super) model: ModelId,
    pub(super) namespace: Option<TenantId>,
    pub(super) version: StepVersion,
    pub(super) inputs: BTreeMap<String, Sources>,
    pub(super) outputs: BTreeMap<String, String>,
    pub(super) dependency: Dependency,
    pub(super) max_inflight: u32,
    pub(super) when: Option<Condition>,
    pub(super) route: Option<RouteRef>,
}

/// How a choice is made.
#[derive(Debug, Clone)]
pub(super) enum FlatKind {
    /// The first that holds; none always holds.
    Switch(Vec<Option<Condition>>),
    /// By weight, in hundredths of a percent.
    Splitter {
        hundredths: Vec<u32>,
        unit: Option<String>,
        salt: Option<String>,
    },
}

/// A switch or splitter, as written.
#[derive(Debug, Clone)]
pub(super) struct FlatChoice {
    pub(super) name: Arc<str>,
    pub(super) place: String,
    pub(super) kind: FlatKind,
    pub(super) when: Option<Condition>,
    pub(super) route: Option<RouteRef>,
}

/// A graph without its nesting.
#[derive(Debug, Default)]
pub(super) struct Flat {
    pub(super) calls: Vec<FlatCall>,
    pub(super) choices: Vec<FlatChoice>,
    pub(super) outputs: BTreeMap<String, Sources>,
    pub(super) optional: Vec<String>,
    /// The name of the form within the configuration.
    pub(super) form: &'static str,
    problems: Vec<ModelConfigError>,
}

/// Reads whichever form the configuration has.
pub(super) fn flatten(config: &ModelConfig) -> Result<Flat, Vec<ModelConfigError>> {
    let problem = |field: &str, problem: &str| {
        vec![ModelConfigError {
            field: field.into(),
            problem: problem.into(),
        }]
    };
    let (graph, form, list, words) = match (&config.graph, &config.ensemble_scheduling) {
        (Some(graph), None) => (graph.clone(), "graph", "graph.steps", OWN),
        (None, Some(tritons)) => (
            tritons.to_graph(),
            "ensemble_scheduling",
            "ensemble_scheduling.step",
            TRITONS,
        ),
        (Some(_), Some(_)) => {
            return Err(problem(
                "graph",
                "there is ensemble_scheduling as well: write one of them",
            ));
        }
        (None, None) => {
            return Err(problem(
                "graph",
                "an ensemble needs its steps: write graph, or Triton's ensemble_scheduling",
            ));
        }
    };
    let mut flat = Flat {
        outputs: graph.outputs.clone(),
        optional: graph.optional_outputs.clone(),
        form,
        ..Flat::default()
    };
    flat.check_graph(&graph);
    let within = Within {
        list: list.to_owned(),
        words,
        route: None,
        depth: 0,
        max_inflight: graph.max_inflight_requests,
    };
    flat.steps(&graph.steps, &within);
    flat.check_names();
    let problems = std::mem::take(&mut flat.problems);
    if problems.is_empty() { Ok(flat) } else { Err(problems) }
}

/// Where a list of steps stands.
struct Within {
    list: String,
    words: Words,
    route: Option<RouteRef>,
    depth: usize,
    max_inflight: u32,
}

impl Flat {
    fn say(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.problems.push(ModelConfigError {
            field: field.into(),
            problem: problem.into(),
        });
    }

    fn check_graph(&mut self, graph: &Graph) {
        let form = self.form;
        if graph.max_inflight_requests > MAX_INFLIGHT_REQUESTS {
            self.say(
                format!("{form}.max_inflight_requests"),
                format!("at most {MAX_INFLIGHT_REQUESTS}"),
            );
        }
        for (name, sources) in &graph.outputs {
            self.check_sources(format!("{form}.outputs.{name}"), sources);
        }
    }

    fn check_sources(&mut self, field: String, sources: &Sources) {
        let named = sources.0.iter().all(|name| (1..=MAX_NAME).contains(&name.len()));
        if !(1..=MAX_SOURCES).contains(&sources.0.len()) || !named {
            let problem = format!("1 to {MAX_SOURCES} names of tensors, each 1 to {MAX_NAME} bytes");
            self.say(field, problem);
        }
    }

    fn steps(&mut self, steps: &[GraphStep], within: &Within) {
        if steps.is_empty() {
            self.say(&within.list, "at least one step");
        }
        // One past the bound is enough to say so.
        for (index, step) in steps.iter().enumerate().take(MAX_STEPS + 1) {
            let place = format!("{}[{index}]", within.list);
            if Label::parse(&step.name).is_err() {
                let problem = "1 to 63 of a-z, 0-9, '-', '_' and '.', starting and ending with a letter or digit";
                self.say(format!("{place}.name"), problem);
            }
            let when = self.condition(step.when.as_deref(), format!("{place}.when"));
            match (&step.model, step.switch.is_empty(), step.splitter.is_empty()) {
                (Some(model), true, true) => self.call(step, model, when, place, within),
                (None, false, true) | (None, true, false) => self.choice(step, when, place, within),
                _ => self.say(place, "exactly one of model, switch and splitter"),
            }
        }
        if steps.len() > MAX_STEPS || self.calls.len() > MAX_STEPS {
            let problem = format!("more than {MAX_STEPS} steps: split it into ensembles that call each other");
            if !self.problems.iter().any(|known| known.problem == problem) {
                self.say(&within.list, problem);
            }
        }
    }

    fn condition(&mut self, text: Option<&str>, field: String) -> Option<Condition> {
        match Condition::parse(text?) {
            Ok(condition) => Some(condition),
            Err(error) => {
                self.say(field, error.to_string());
                None
            }
        }
    }

    fn call(&mut self, step: &GraphStep, model: &ModelId, when: Option<Condition>, place: String, within: &Within) {
        let words = within.words;
        if step.sticky_by.is_some() || step.salt.is_some() {
            self.say(&place, "sticky_by and salt belong to a splitter");
        }
        if step.max_inflight_requests > MAX_INFLIGHT_REQUESTS {
            self.say(
                format!("{place}.max_inflight_requests"),
                format!("at most {MAX_INFLIGHT_REQUESTS}"),
            );
        }
        for (name, sources) in &step.inputs {
            self.check_sources(format!("{place}.{}.{name}", words.inputs), sources);
        }
        if step.outputs.is_empty() {
            let problem = "a step makes at least one tensor: map an output of its model to a name in the graph";
            self.say(format!("{place}.{}", words.outputs), problem);
        }
        for (name, tensor) in &step.outputs {
            if !(1..=MAX_NAME).contains(&tensor.len()) {
                self.say(
                    format!("{place}.{}.{name}", words.outputs),
                    format!("1 to {MAX_NAME} bytes"),
                );
            }
        }
        self.calls.push(FlatCall {
            name: Arc::from(step.name.as_str()),
            words,
            model: model.clone(),
            namespace: step.namespace.clone(),
            version: step.version.clone(),
            inputs: step.inputs.clone(),
            outputs: step.outputs.clone(),
            dependency: step.dependency,
            max_inflight: match step.max_inflight_requests {
                0 => within.max_inflight,
                own => own,
            },
            when,
            route: within.route,
            place,
        });
    }

    fn choice(&mut self, step: &GraphStep, when: Option<Condition>, place: String, within: &Within) {
        let stray = step.namespace.is_some()
            || !step.version.is_default()
            || !step.inputs.is_empty()
            || !step.outputs.is_empty()
            || step.dependency != Dependency::Hard
            || step.max_inflight_requests > 0;
        if stray {
            let problem = "namespace, version, inputs, outputs, dependency and max_inflight_requests belong to a step \
                           with a model";
            self.say(&place, problem);
        }
        if within.depth >= MAX_ROUTE_NESTING {
            let problem = format!("switches and splitters lie at most {MAX_ROUTE_NESTING} deep within each other");
            self.say(place, problem);
            return;
        }
        if self.choices.len() >= MAX_CHOICES {
            self.say(place, format!("at most {MAX_CHOICES} switches and splitters"));
            return;
        }
        let (kind, field, routes): (FlatKind, _, Vec<&[GraphStep]>) = if step.switch.is_empty() {
            let kind = self.splitter(step, &place);
            let routes = step.splitter.iter().map(|route| route.steps.as_slice()).collect();
            (kind, "splitter", routes)
        } else {
            let kind = self.switch(step, &place);
            let routes = step.switch.iter().map(|route| route.steps.as_slice()).collect();
            (kind, "switch", routes)
        };
        if routes.len() > MAX_ROUTES {
            self.say(format!("{place}.{field}"), format!("at most {MAX_ROUTES} routes"));
            return;
        }
        let choice = self.choices.len();
        self.choices.push(FlatChoice {
            name: Arc::from(step.name.as_str()),
            place: place.clone(),
            kind,
            when,
            route: within.route,
        });
        for (route, steps) in routes.into_iter().enumerate() {
            let inner = Within {
                list: format!("{place}.{field}[{route}].steps"),
                words: within.words,
                route: Some(RouteRef { choice, route }),
                depth: within.depth + 1,
                max_inflight: within.max_inflight,
            };
            self.steps(steps, &inner);
        }
    }

    fn switch(&mut self, step: &GraphStep, place: &str) -> FlatKind {
        if step.sticky_by.is_some() || step.salt.is_some() {
            self.say(place, "sticky_by and salt belong to a splitter");
        }
        let last = step.switch.len().saturating_sub(1);
        let mut conditions = Vec::with_capacity(step.switch.len().min(MAX_ROUTES));
        for (index, route) in step.switch.iter().enumerate().take(MAX_ROUTES) {
            let field = format!("{place}.switch[{index}].when");
            if route.when.is_none() && index != last {
                self.say(
                    &field,
                    "only the last route may be without: the ones after it would never be taken",
                );
            }
            conditions.push(self.condition(route.when.as_deref(), field));
        }
        FlatKind::Switch(conditions)
    }

    fn splitter(&mut self, step: &GraphStep, place: &str) -> FlatKind {
        let before = self.problems.len();
        let mut hundredths = Vec::with_capacity(step.splitter.len().min(MAX_ROUTES));
        for (index, route) in step.splitter.iter().enumerate().take(MAX_ROUTES) {
            let percent = route.weight * 100.0;
            if !(0.0..=100.0).contains(&route.weight) || (percent - percent.round()).abs() >= 1e-6 {
                let problem = format!("{} is not 0 to 100 percent with at most two decimals", route.weight);
                self.say(format!("{place}.splitter[{index}].weight"), problem);
            }
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "float casts saturate, and the value is checked"
            )]
            hundredths.push(percent.round() as u32);
        }
        let sum: u32 = hundredths.iter().copied().fold(0, u32::saturating_add);
        if self.problems.len() == before && step.splitter.len() <= MAX_ROUTES && sum != WHOLE {
            let problem = format!("weights sum to {}, they must sum to 100", f64::from(sum) / 100.0);
            self.say(format!("{place}.splitter"), problem);
        }
        let well_formed = |unit: &String| {
            (1..=MAX_UNIT).contains(&unit.len())
                && unit
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
        };
        if !step.sticky_by.iter().all(well_formed) {
            let problem = format!("a unit is 1 to {MAX_UNIT} letters, digits, '_' and '-', such as user");
            self.say(format!("{place}.sticky_by"), problem);
        }
        if !step.salt.iter().all(|salt| (1..=MAX_UNIT).contains(&salt.len())) {
            self.say(format!("{place}.salt"), format!("1 to {MAX_UNIT} bytes"));
        }
        FlatKind::Splitter {
            hundredths,
            unit: step.sticky_by.clone(),
            salt: step.salt.clone(),
        }
    }

    fn check_names(&mut self) {
        let places = |flat: &Self| -> Vec<(Arc<str>, String)> {
            let calls = flat.calls.iter().map(|call| (call.name.clone(), call.place.clone()));
            let choices = flat
                .choices
                .iter()
                .map(|choice| (choice.name.clone(), choice.place.clone()));
            calls.chain(choices).collect()
        };
        let mut seen: BTreeMap<Arc<str>, String> = BTreeMap::new();
        for (name, place) in places(self) {
            if let Some(first) = seen.get(&name) {
                let problem = format!("'{name}' is the name of {first} already: each step needs a name of its own");
                self.say(format!("{place}.name"), problem);
            } else {
                seen.insert(name, place);
            }
        }
    }
}
