//! A graph that holds together: every name resolved to a place in a list, types agreed, no cycle.
//!
//! Owns the shape that runs follow and people are shown. Made by [`Outline::compile`] only, so whoever holds one need not check
//! anything again: each index is within its list.

use std::sync::Arc;

use mesh_types::{DataType, Dependency, ModelConfig, ModelConfigError, ModelId, TenantId, VersionSelector};

use super::{condition::Condition, flat, link};

/// The longest chain of steps that wait for each other, switches and splitters included.
pub const MAX_DEPTH: usize = 32;
/// The most steps that may run side by side.
pub const MAX_WIDTH: usize = 16;

/// A model that a step names.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The step.
    pub step: &'a str,
    /// Its model.
    pub model: &'a ModelId,
    /// Whose, if the step says so.
    pub namespace: Option<&'a TenantId>,
    /// Which version.
    pub version: &'a VersionSelector,
    /// Whether the step may fail.
    pub soft: bool,
}

/// A tensor of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its element type.
    pub datatype: DataType,
    /// Its extents on the wire, the batch dimension included; -1 is any.
    pub dims: Vec<i64>,
    /// The calls that make it: none for the graph's inputs, several only on different routes of a choice.
    pub makers: Vec<usize>,
    /// Whether it is an input that a request may leave out.
    pub optional: bool,
}

/// A condition, and which tensors its names are.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The condition.
    pub condition: Condition,
    /// The tensor of each name, by the name's place in the condition.
    pub tensors: Vec<usize>,
}

/// A route of a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Which choice.
    pub choice: usize,
    /// Which of its routes.
    pub route: usize,
}

/// An input of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its name in the model's signature.
    pub name: Arc<str>,
    /// The tensors to take the first of.
    pub from: Vec<usize>,
    /// Whether the model can do without it.
    pub optional: bool,
}

/// An output of a call that somebody uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// Its name in the model's signature.
    pub name: Arc<str>,
    /// What it is in the graph.
    pub tensor: usize,
}

/// A step that calls a model.
#[derive(Debug, Clone)]
pub struct Call {
    /// The step's name.
    pub name: Arc<str>,
    /// Where it is written.
    pub place: String,
    /// The model.
    pub model: ModelId,
    /// Whose, if the step says so.
    pub namespace: Option<TenantId>,
    /// Which version.
    pub version: VersionSelector,
    /// In the order of the model's inputs.
    pub inputs: Vec<Input>,
    /// What is used of what it makes.
    pub outputs: Vec<Made>,
    /// The outputs to ask for; empty asks for all.
    pub ask: Vec<String>,
    /// It is left out where this does not hold.
    pub when: Option<Bound>,
    /// The route it lies in.
    pub route: Option<Route>,
    /// Whether its failure only means that what it makes is missing.
    pub soft: bool,
    /// The most requests in it at once; 0 is without bound.
    pub max_inflight: u32,
    /// How many steps must come before it at least.
    pub level: usize,
}

/// How a choice is made.
#[derive(Debug, Clone)]
pub enum Way {
    /// The first that holds; none always holds.
    Switch(Vec<Option<Bound>>),
    /// By weight.
    Splitter {
        /// Of each route, in hundredths of a percent.
        hundredths: Vec<u32>,
        /// What always goes the same way.
        unit: Option<String>,
        /// What units are drawn with.
        salt: String,
    },
}

/// A switch or a splitter.
#[derive(Debug, Clone)]
pub struct Choice {
    /// The step's name.
    pub name: Arc<str>,
    /// How it is made.
    pub way: Way,
    /// No route is taken where this does not hold.
    pub when: Option<Bound>,
    /// The route it lies in.
    pub route: Option<Route>,
}

/// An output of the graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub name: Arc<str>,
    /// The tensors to take the first of.
    pub from: Vec<usize>,
    /// Whether an answer may lack it.
    pub optional: bool,
    /// Its extents on the wire as they are declared; -1 is any.
    pub dims: Vec<i64>,
}

impl Output {
    /// Whether a tensor of this shape is as declared.
    pub fn fits(&self, shape: &[u64]) -> bool {
        let fits = |(extent, declared): (&u64, &i64)| *declared < 0 || u64::try_from(*declared) == Ok(*extent);
        shape.len() == self.dims.len() && shape.iter().zip(&self.dims).all(fits)
    }
}

/// A graph that holds together.
#[derive(Debug, Clone)]
pub struct Outline {
    /// The tensors; the graph's inputs come first, in the configuration's order.
    pub tensors: Vec<TensorInfo>,
    /// The calls, in the order of writing.
    pub calls: Vec<Call>,
    /// The switches and splitters; one within a route comes after the one it lies in.
    pub choices: Vec<Choice>,
    /// In the order of the configuration.
    pub outputs: Vec<Output>,
}

impl Outline {
    /// Reads, links and checks a graph. `salt` is what splitters' units are drawn with where they do not say; `signature` finds
    /// how the model of a step is called, or says why not.
    pub fn compile(
        config: &ModelConfig,
        salt: &str,
        mut signature: impl FnMut(Wanted<'_>) -> Result<Arc<ModelConfig>, String>,
    ) -> Result<Self, Vec<ModelConfigError>> {
        let flat = flat::flatten(config)?;
        let (mut signatures, mut problems) = (Vec::with_capacity(flat.calls.len()), Vec::new());
        for call in &flat.calls {
            let wanted = Wanted {
                step: &call.name,
                model: &call.model,
                namespace: call.namespace.as_ref(),
                version: call.version.selector(),
                soft: call.dependency == Dependency::Soft,
            };
            match signature(wanted) {
                Ok(found) => signatures.push(found),
                Err(problem) => problems.push(ModelConfigError {
                    field: format!("{}.{}", call.place, call.words.model),
                    problem,
                }),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        link::link(config, salt, &flat, &signatures)
    }

    /// The models that a configuration's steps name; none where its form cannot be read.
    pub fn models(config: &ModelConfig) -> Vec<(Option<TenantId>, ModelId, VersionSelector)> {
        let flat = flat::flatten(config);
        let calls = flat.map(|flat| flat.calls).unwrap_or_default().into_iter();
        let named = |call: flat::FlatCall| (call.namespace, call.model, call.version.selector().clone());
        calls.map(named).collect()
    }

    /// Whether at most one of two calls ever runs: they lie on different routes of one choice.
    pub(super) fn exclusive(&self, a: usize, b: usize) -> bool {
        self.chain(a)
            .any(|a| self.chain(b).any(|b| a.choice == b.choice && a.route != b.route))
    }

    /// The routes that a call lies in, from the innermost outwards.
    fn chain(&self, call: usize) -> impl Iterator<Item = Route> {
        let first = self.calls.get(call).and_then(|call| call.route);
        std::iter::successors(first, |route| self.choices.get(route.choice)?.route)
    }

    /// The calls and choices that a tensor's presence hangs on, as masks of their places: what must be decided for it.
    pub(super) fn needed(&self, outputs: impl Iterator<Item = usize>) -> u64 {
        let mut mask = 0_u64;
        let mut open: Vec<usize> = outputs
            .filter_map(|at| self.outputs.get(at))
            .flat_map(|output| output.from.iter().copied())
            .collect();
        while let Some(tensor) = open.pop() {
            let Some(info) = self.tensors.get(tensor) else { continue };
            for call in &info.makers {
                let bit = 1_u64 << (*call).min(63);
                if mask & bit == 0 {
                    mask |= bit;
                    open.extend(self.waits_for(*call));
                }
            }
        }
        mask
    }

    /// How many calls, choices and outputs look at each tensor.
    pub(super) fn uses(&self) -> Vec<u32> {
        let mut uses = vec![0_u32; self.tensors.len()];
        let of_calls = self.calls.iter().flat_map(Call::looks_at);
        let of_choices = self.choices.iter().flat_map(Choice::looks_at);
        let of_outputs = self.outputs.iter().flat_map(|output| output.from.iter().copied());
        for tensor in of_calls.chain(of_choices).chain(of_outputs) {
            if let Some(uses) = uses.get_mut(tensor) {
                *uses += 1;
            }
        }
        uses
    }

    /// The tensors that must be decided before a call can start.
    pub(super) fn waits_for(&self, call: usize) -> Vec<usize> {
        let Some(call) = self.calls.get(call) else {
            return Vec::new();
        };
        let of = |bound: &Bound| bound.tensors.clone();
        let mut tensors: Vec<usize> = call.inputs.iter().flat_map(|input| input.from.clone()).collect();
        tensors.extend(call.when.iter().flat_map(of));
        let mut route = call.route;
        while let Some(choice) = route.and_then(|route| self.choices.get(route.choice)) {
            tensors.extend(choice.tensors());
            route = choice.route;
        }
        tensors
    }
}

impl Call {
    /// The tensors of its inputs and of its condition, each as often as it is named.
    pub(super) fn looks_at(&self) -> impl Iterator<Item = usize> {
        let inputs = self.inputs.iter().flat_map(|input| &input.from);
        let condition = self.when.iter().flat_map(|when| &when.tensors);
        inputs.chain(condition).copied()
    }
}

impl Choice {
    /// How many routes it has.
    pub fn routes(&self) -> usize {
        match &self.way {
            Way::Switch(conditions) => conditions.len(),
            Way::Splitter { hundredths, .. } => hundredths.len(),
        }
    }

    /// Whether it always takes one of its routes.
    pub fn is_exhaustive(&self) -> bool {
        self.when.is_none()
            && match &self.way {
                Way::Switch(conditions) => conditions.last().is_some_and(Option::is_none),
                Way::Splitter { .. } => true,
            }
    }

    /// The tensors that its conditions name.
    pub fn tensors(&self) -> Vec<usize> {
        self.looks_at().collect()
    }

    pub(super) fn looks_at(&self) -> impl Iterator<Item = usize> {
        let conditions: &[Option<Bound>] = match &self.way {
            Way::Switch(conditions) => conditions,
            Way::Splitter { .. } => &[],
        };
        let bound = conditions.iter().flatten().chain(&self.when);
        bound.flat_map(|bound| bound.tensors.iter().copied())
    }
}
