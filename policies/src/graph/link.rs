//! From a flat list of steps and the signatures of their models to an [`Outline`]: names, types, batches.
//!
//! Gathers every problem it can; what follows from an earlier one is left out.

use std::{collections::HashMap, sync::Arc};

use mesh_types::{MAX_GRAPH_TENSORS, ModelConfig, ModelConfigError, Sources, TensorSpec};

use super::{
    certain,
    condition::Condition,
    flat::{Flat, FlatCall, FlatKind, RouteRef},
    order,
    outline::{Bound, Call, Choice, Input, Made, Outline, Output, Route, TensorInfo, Way},
};

/// Links the steps.
pub(super) fn link(
    config: &ModelConfig,
    salt: &str,
    flat: &Flat,
    signatures: &[Arc<ModelConfig>],
) -> Result<Outline, Vec<ModelConfigError>> {
    let mut linker = Linker {
        config,
        flat,
        signatures,
        tensors: Vec::new(),
        by_name: HashMap::new(),
        problems: Vec::new(),
    };
    linker.inputs();
    for at in 0..flat.calls.len() {
        linker.batch(at);
        linker.makes(at);
    }
    let calls: Vec<Call> = (0..flat.calls.len()).filter_map(|at| linker.call(at)).collect();
    let choices: Vec<Choice> = (0..flat.choices.len())
        .filter_map(|at| linker.choice(at, salt))
        .collect();
    let outputs = linker.outputs();
    let (tensors, mut problems) = (linker.tensors, linker.problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut outline = Outline {
        tensors,
        calls,
        choices,
        outputs,
    };
    order::order(&mut outline, flat, &mut problems);
    if problems.is_empty() {
        prune(&mut outline, flat, signatures, &mut problems);
        certain::check(&outline, flat, &mut problems);
    }
    if problems.is_empty() {
        Ok(outline)
    } else {
        Err(problems)
    }
}

struct Linker<'a> {
    config: &'a ModelConfig,
    flat: &'a Flat,
    signatures: &'a [Arc<ModelConfig>],
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    problems: Vec<ModelConfigError>,
}

fn dims(dims: &[i64]) -> String {
    let parts: Vec<String> = dims.iter().map(i64::to_string).collect();
    format!("[{}]", parts.join(","))
}

/// Whether some shape fits both.
fn compatible(a: &[i64], b: &[i64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || *a == -1 || *b == -1)
}

impl Linker<'_> {
    fn say(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.problems.push(ModelConfigError {
            field: field.into(),
            problem: problem.into(),
        });
    }

    fn inputs(&mut self) {
        for spec in &self.config.input {
            self.by_name.insert(spec.name.clone(), self.tensors.len());
            self.tensors.push(TensorInfo {
                name: Arc::from(spec.name.as_str()),
                datatype: spec.datatype,
                dims: self.config.wire_dims(spec),
                makers: Vec::new(),
                optional: spec.optional,
            });
        }
    }

    /// A request of the graph's largest batch must fit each step.
    fn batch(&mut self, at: usize) {
        let (Some(call), Some(signature)) = (self.flat.calls.get(at), self.signatures.get(at)) else {
            return;
        };
        let (own, its) = (self.config.max_batch_size, signature.max_batch_size);
        if own > its {
            let problem = format!(
                "max_batch_size is {own} here, but model '{}' takes at most {its}",
                call.model
            );
            let field = format!("{}.{}", call.place, call.words.model);
            self.say(field, problem);
        }
    }

    /// What a call makes becomes tensors of the graph.
    fn makes(&mut self, at: usize) {
        let (Some(call), Some(signature)) = (self.flat.calls.get(at), self.signatures.get(at)) else {
            return;
        };
        for (output, name) in &call.outputs {
            let field = format!("{}.{}.{output}", call.place, call.words.outputs);
            let Some(spec) = signature.output.iter().find(|spec| spec.name == *output) else {
                let problem = unknown("output", &call.model, output, &signature.output);
                self.say(field, problem);
                continue;
            };
            let wire = signature.wire_dims(spec);
            match self.by_name.get(name).copied() {
                None if self.tensors.len() >= MAX_GRAPH_TENSORS => {
                    self.say(field, format!("more than {MAX_GRAPH_TENSORS} tensors"));
                }
                None => {
                    self.by_name.insert(name.clone(), self.tensors.len());
                    self.tensors.push(TensorInfo {
                        name: Arc::from(name.as_str()),
                        datatype: spec.datatype,
                        dims: wire,
                        makers: vec![at],
                        optional: false,
                    });
                }
                Some(tensor) => self.makes_too(at, tensor, spec, &wire, field),
            }
        }
    }

    /// A tensor may be made by several calls of which at most one ever runs.
    fn makes_too(&mut self, at: usize, tensor: usize, spec: &TensorSpec, wire: &[i64], field: String) {
        let flat = self.flat;
        let Some(info) = self.tensors.get_mut(tensor) else {
            return;
        };
        let other = info.makers.iter().find(|other| !exclusive(flat, at, **other));
        let problem = match (info.makers.is_empty(), other.and_then(|other| flat.calls.get(*other))) {
            (true, _) => Some(format!("'{}' is an input of the graph: choose another name", info.name)),
            (false, Some(other)) => Some(format!(
                "'{}' is made by step '{}' as well: only steps on different routes of one switch or splitter may make the \
                 same tensor",
                info.name, other.name
            )),
            (false, None) if info.datatype != spec.datatype => Some(format!(
                "is {}, but '{}' is {} on another route",
                spec.datatype, info.name, info.datatype
            )),
            (false, None) if info.dims.len() != wire.len() => Some(format!(
                "has the shape {}, but '{}' has {} on another route",
                dims(wire),
                info.name,
                dims(&info.dims)
            )),
            (false, None) => None,
        };
        if let Some(problem) = problem {
            self.say(field, problem);
            return;
        }
        info.makers.push(at);
        for (known, new) in info.dims.iter_mut().zip(wire) {
            if *known != *new {
                *known = -1;
            }
        }
    }

    fn call(&mut self, at: usize) -> Option<Call> {
        let (call, signature) = (self.flat.calls.get(at)?, self.signatures.get(at)?.clone());
        for name in call.inputs.keys() {
            if !signature.input.iter().any(|spec| spec.name == *name) {
                let problem = unknown("input", &call.model, name, &signature.input);
                self.say(format!("{}.{}.{name}", call.place, call.words.inputs), problem);
            }
        }
        let inputs = signature
            .input
            .iter()
            .map(|spec| self.input(call, &signature, spec))
            .collect();
        let made = |(output, name): (&String, &String)| {
            Some(Made {
                name: Arc::from(output.as_str()),
                tensor: *self.by_name.get(name)?,
            })
        };
        let outputs = call.outputs.iter().filter_map(made).collect();
        let when = self.bind(call.when.as_ref(), &format!("{}.when", call.place));
        Some(Call {
            name: call.name.clone(),
            place: call.place.clone(),
            model: call.model.clone(),
            namespace: call.namespace.clone(),
            version: call.version.selector().clone(),
            inputs,
            outputs,
            ask: Vec::new(),
            when,
            route: call.route.map(route),
            soft: call.dependency == mesh_types::Dependency::Soft,
            max_inflight: call.max_inflight,
            level: 0,
        })
    }

    fn input(&mut self, call: &FlatCall, signature: &ModelConfig, spec: &TensorSpec) -> Input {
        let own = Sources::from(spec.name.as_str());
        let mapped = call.inputs.get(&spec.name);
        let sources = mapped.unwrap_or(&own);
        let field = format!("{}.{}.{}", call.place, call.words.inputs, spec.name);
        let wire = signature.wire_dims(spec);
        let mut from = Vec::with_capacity(sources.0.len());
        for name in &sources.0 {
            let Some(tensor) = self.by_name.get(name).copied() else {
                if mapped.is_none() && spec.optional {
                    continue;
                }
                let problem = if mapped.is_some() {
                    format!("there is no tensor '{name}': it is no input of the graph and no step makes it")
                } else {
                    format!("model '{}' needs it: map it to a tensor of the graph", call.model)
                };
                self.say(&field, problem);
                continue;
            };
            let Some(info) = self.tensors.get(tensor) else { continue };
            if info.datatype != spec.datatype {
                let problem = format!(
                    "'{name}' is {}, but model '{}' takes {}",
                    info.datatype, call.model, spec.datatype
                );
                self.say(&field, problem);
            } else if !compatible(&info.dims, &wire) {
                let (has, takes) = (dims(&info.dims), dims(&wire));
                let problem = format!("'{name}' has the shape {has}, but model '{}' takes {takes}", call.model);
                self.say(&field, problem);
            }
            from.push(tensor);
        }
        Input {
            name: Arc::from(spec.name.as_str()),
            from,
            optional: spec.optional,
        }
    }

    fn choice(&mut self, at: usize, salt: &str) -> Option<Choice> {
        let choice = self.flat.choices.get(at)?;
        let when = self.bind(choice.when.as_ref(), &format!("{}.when", choice.place));
        let way = match &choice.kind {
            FlatKind::Switch(conditions) => {
                let bind = |(index, condition): (usize, &Option<Condition>)| {
                    self.bind(condition.as_ref(), &format!("{}.switch[{index}].when", choice.place))
                };
                Way::Switch(conditions.iter().enumerate().map(bind).collect())
            }
            FlatKind::Splitter {
                hundredths,
                unit,
                salt: own,
            } => Way::Splitter {
                hundredths: hundredths.clone(),
                unit: unit.clone(),
                salt: own.clone().unwrap_or_else(|| format!("{salt}/{}", choice.name)),
            },
        };
        Some(Choice {
            name: choice.name.clone(),
            way,
            when,
            route: choice.route.map(route),
        })
    }

    fn bind(&mut self, condition: Option<&Condition>, field: &str) -> Option<Bound> {
        let condition = condition?;
        let (mut tensors, mut datatypes) = (Vec::new(), Vec::new());
        for named in condition.names() {
            let found = self.by_name.get(&*named.name).copied();
            let Some((tensor, info)) = found.and_then(|tensor| Some((tensor, self.tensors.get(tensor)?))) else {
                let problem = format!(
                    "at character {}: there is no tensor '{}': it is no input of the graph and no step makes it",
                    named.at, named.name
                );
                self.say(field, problem);
                return None;
            };
            tensors.push(tensor);
            datatypes.push(info.datatype);
        }
        if let Err(error) = condition.check(&datatypes) {
            self.say(field, error.to_string());
        }
        Some(Bound {
            condition: condition.clone(),
            tensors,
        })
    }

    fn outputs(&mut self) -> Vec<Output> {
        let form = self.flat.form;
        let is_output = |name: &String| self.config.output.iter().any(|spec| spec.name == *name);
        let strange = |field: &str, name: &String| ModelConfigError {
            field: format!("{form}.{field}"),
            problem: format!("'{name}' is no output of the configuration"),
        };
        let unknown_maps = self.flat.outputs.keys().filter(|name| !is_output(name));
        let mut problems: Vec<_> = unknown_maps.map(|name| strange("outputs", name)).collect();
        let unknown_options = self.flat.optional.iter().filter(|name| !is_output(name));
        problems.extend(unknown_options.map(|name| strange("optional_outputs", name)));
        self.problems.extend(problems);
        let config = self.config;
        config
            .output
            .iter()
            .enumerate()
            .map(|(index, spec)| self.output(index, spec))
            .collect()
    }

    fn output(&mut self, index: usize, spec: &TensorSpec) -> Output {
        let own = Sources::from(spec.name.as_str());
        let mapped = self.flat.outputs.get(&spec.name);
        let field = match mapped {
            Some(_) => format!("{}.outputs.{}", self.flat.form, spec.name),
            None => format!("output[{index}].name"),
        };
        let wire = self.config.wire_dims(spec);
        let mut from = Vec::new();
        for name in &mapped.unwrap_or(&own).0 {
            let Some(tensor) = self.by_name.get(name).copied() else {
                self.say(&field, format!("there is no tensor '{name}': no step makes it"));
                continue;
            };
            let Some(info) = self.tensors.get(tensor) else { continue };
            if info.datatype != spec.datatype {
                let problem = format!(
                    "'{name}' is {}, but the output is declared {}",
                    info.datatype, spec.datatype
                );
                self.say(&field, problem);
            } else if !compatible(&info.dims, &wire) {
                let (has, declared) = (dims(&info.dims), dims(&wire));
                self.say(
                    &field,
                    format!("'{name}' has the shape {has}, but the output is declared {declared}"),
                );
            }
            from.push(tensor);
        }
        Output {
            name: Arc::from(spec.name.as_str()),
            from,
            optional: self.flat.optional.contains(&spec.name),
            dims: wire,
        }
    }
}

fn unknown(what: &str, model: &mesh_types::ModelId, name: &str, specs: &[TensorSpec]) -> String {
    let known: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    format!("model '{model}' has no {what} '{name}': it has {}", known.join(", "))
}

fn route(route: RouteRef) -> Route {
    Route {
        choice: route.choice,
        route: route.route,
    }
}

/// The routes that a call lies in, from the innermost outwards.
fn chain(flat: &Flat, call: usize) -> impl Iterator<Item = RouteRef> {
    let first = flat.calls.get(call).and_then(|call| call.route);
    std::iter::successors(first, |route| flat.choices.get(route.choice)?.route)
}

/// Whether at most one of two calls ever runs: they lie on different routes of one choice.
fn exclusive(flat: &Flat, a: usize, b: usize) -> bool {
    chain(flat, a).any(|a| chain(flat, b).any(|b| a.choice == b.choice && a.route != b.route))
}

/// What nobody uses is not asked for, and a step of which nobody uses anything is a mistake.
fn prune(outline: &mut Outline, flat: &Flat, signatures: &[Arc<ModelConfig>], problems: &mut Vec<ModelConfigError>) {
    let needed = outline.needed(0..outline.outputs.len());
    let mut used = vec![false; outline.tensors.len()];
    let of_outputs = outline.outputs.iter().flat_map(|output| output.from.clone());
    let of_calls = (0..outline.calls.len()).flat_map(|call| outline.waits_for(call));
    for tensor in of_outputs.chain(of_calls).collect::<Vec<_>>() {
        if let Some(used) = used.get_mut(tensor) {
            *used = true;
        }
    }
    for (at, call) in outline.calls.iter_mut().enumerate() {
        if needed & (1 << at.min(63)) == 0 {
            let place = flat.calls.get(at).map(|call| call.place.clone()).unwrap_or_default();
            problems.push(ModelConfigError {
                field: place,
                problem: format!(
                    "no output of the graph needs step '{}': leave it out, or use what it makes",
                    call.name
                ),
            });
        }
        call.outputs
            .retain(|made| used.get(made.tensor).copied().unwrap_or(false));
        let all = signatures.get(at).map_or(0, |signature| signature.output.len());
        if call.outputs.len() < all {
            call.ask = call.outputs.iter().map(|made| made.name.to_string()).collect();
        }
    }
}
