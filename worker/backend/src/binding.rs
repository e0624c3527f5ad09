//! A model's configuration beside its signature: which input is which argument, and which part of the result is which output.
//!
//! Owns Triton's naming rules for TorchScript, extended to containers. For inputs, the first that applies to all of them:
//! 1. every name is an argument's, or that of a tensor inside one (`name__0` in a list or tuple, `name.key` in a dictionary);
//! 2. the one argument is a dictionary, and the names are its keys;
//! 3. every name ends in `__<index>`: the place among the arguments;
//! 4. the configuration's order is that of the arguments.
//!
//! An argument of type `Dict[str, str]` is no input's: it is the request's parameters, where the configuration hands them on.
//!
//! For outputs: keys of a dictionary, then `<any>__<index>` (and what follows inside containers), then the order.
//!
//! Invariants: an argument that is not bound has a default or may be none; every problem says what would be right.

use mesh_types::{DataType, ModelConfig, TensorSpec};

use crate::{
    BackendError,
    naming::{bind_results, places_of},
    signature::{Argument, Signature, ValueType},
};

/// How an argument is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Of the input with this place in the configuration.
    Input(usize),
    /// Left out: its default, or none.
    Absent,
    /// Of the request's parameters.
    Parameters,
    /// A list of these.
    List(Vec<Source>),
    /// A tuple of these.
    Tuple(Vec<Source>),
    /// A dictionary, or a named tuple, of these.
    Dict(Vec<(String, Source)>),
}

/// A step into a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The element at this place.
    Index(usize),
    /// The value of this key.
    Key(String),
}

/// A configuration put beside a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// For each argument.
    pub arguments: Vec<Source>,
    /// For each output of the configuration the way into the result.
    pub results: Vec<Vec<Step>>,
    /// The inputs that are numbers, and lists of numbers, to the model.
    pub plain: Vec<usize>,
}

impl Binding {
    /// Puts a configuration beside a signature; an error says all that does not fit.
    pub fn of(signature: &Signature, config: &ModelConfig) -> Result<Self, BackendError> {
        let mut problems = Vec::new();
        let mut plain = Vec::new();
        let arguments = bind_arguments(signature, config, &mut plain, &mut problems);
        if config.request_parameters.is_some() && !arguments.contains(&Source::Parameters) {
            let problem = "request_parameters are given to an argument of type Dict[str, str], and there is none";
            problems.push(problem.to_owned());
        }
        let results = bind_results(&signature.result, &config.output, &mut problems);
        for (rows, most) in signature.max_rows.iter().map(|most| (config.max_batch_size, *most)) {
            if rows > most {
                problems.push(format!(
                    "max_batch_size is {rows}, but the model takes at most {most} rows"
                ));
            }
        }
        if problems.is_empty() {
            return Ok(Self {
                arguments,
                results,
                plain,
            });
        }
        let text = problems.join("; ");
        Err(BackendError::Load(format!(
            "the configuration does not fit {signature}: {text}"
        )))
    }
}

/// A part of an argument, as far as the names of inputs lead to it.
#[derive(Debug, Default)]
struct Part {
    input: Option<usize>,
    members: Vec<(Step, Part)>,
}

impl Part {
    fn at(&mut self, path: &[Step]) -> Option<&mut Self> {
        let Some((step, rest)) = path.split_first() else {
            return Some(self);
        };
        let place = self.members.iter().position(|(known, _)| known == step);
        let place = place.unwrap_or_else(|| {
            self.members.push((step.clone(), Self::default()));
            self.members.len() - 1
        });
        self.members.get_mut(place).and_then(|(_, part)| part.at(rest))
    }

    fn take(&mut self, step: &Step) -> Self {
        let place = self.members.iter().position(|(known, _)| known == step);
        place.map(|place| self.members.swap_remove(place).1).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.input.is_none() && self.members.is_empty()
    }
}

fn bind_arguments(
    signature: &Signature,
    config: &ModelConfig,
    plain: &mut Vec<usize>,
    problems: &mut Vec<String>,
) -> Vec<Source> {
    let places = match places_of(&signature.arguments, &config.input) {
        Ok(places) => places,
        Err(problem) => {
            problems.push(problem);
            return Vec::new();
        }
    };
    let mut parts: Vec<Part> = signature.arguments.iter().map(|_| Part::default()).collect();
    for (input, (argument, path)) in places.into_iter().enumerate() {
        let part = parts.get_mut(argument).and_then(|part| part.at(&path));
        match part {
            Some(part) if part.is_empty() => part.input = Some(input),
            _ => {
                let name = config.input.get(input).map_or("", |spec| &spec.name);
                problems.push(format!("input '{name}' is an argument that another input is as well"));
            }
        }
    }
    let mut builder = Builder {
        config,
        plain,
        problems,
    };
    let arguments = signature.arguments.iter().zip(parts);
    arguments
        .map(|(argument, part)| builder.argument(argument, part))
        .collect()
}

/// Makes sources, and notes what is missing or of the wrong kind.
struct Builder<'a> {
    config: &'a ModelConfig,
    plain: &'a mut Vec<usize>,
    problems: &'a mut Vec<String>,
}

impl Builder<'_> {
    fn argument(&mut self, argument: &Argument, part: Part) -> Source {
        let may_lack = argument.default.is_some() || argument.value.may_be_none();
        if argument.value.is_parameters() {
            let input = part.input.and_then(|input| self.config.input.get(input));
            if let Some(spec) = input {
                let problem = format!(
                    "input '{}' is argument '{}' ({}), which is the request's parameters and no input",
                    spec.name, argument.name, argument.value
                );
                self.problems.push(problem);
            }
            return self.parameters(&argument.name, &argument.value, may_lack);
        }
        self.source(&argument.name, &argument.value, part, may_lack)
    }

    fn parameters(&mut self, name: &str, value: &ValueType, may_lack: bool) -> Source {
        if self.config.request_parameters.is_some() {
            return Source::Parameters;
        }
        if !may_lack {
            self.problems.push(format!(
                "argument '{name}' ({value}) is the request's parameters: add request_parameters: {{}} to the configuration"
            ));
        }
        Source::Absent
    }

    fn source(&mut self, name: &str, value: &ValueType, mut part: Part, may_lack: bool) -> Source {
        if part.is_empty() {
            if !may_lack {
                self.missing(name, value);
            }
            return Source::Absent;
        }
        if let Some(input) = part.input {
            self.check_leaf(input, name, value, may_lack);
            return Source::Input(input);
        }
        match value.present() {
            ValueType::List { item, .. } => {
                let count = part.members.len();
                let items = (0..count).map(|index| {
                    let member = part.take(&Step::Index(index));
                    self.source(&format!("{name}__{index}"), item, member, false)
                });
                Source::List(items.collect())
            }
            ValueType::Tuple(items) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    let member = part.take(&Step::Index(index));
                    self.source(&format!("{name}__{index}"), item, member, item.may_be_none())
                });
                Source::Tuple(items.collect())
            }
            ValueType::Record(fields) => {
                let fields = fields.iter().map(|(key, field)| {
                    let member = part.take(&Step::Key(key.clone()));
                    let source = self.source(&format!("{name}.{key}"), field, member, field.may_be_none());
                    (key.clone(), source)
                });
                Source::Dict(fields.collect())
            }
            ValueType::Dict { value, .. } => {
                let entries = part.members.into_iter().filter_map(|(step, member)| {
                    let Step::Key(key) = step else { return None };
                    // A key that a request leaves out is not in its dictionary.
                    let source = self.source(&format!("{name}.{key}"), value, member, true);
                    Some((key, source))
                });
                Source::Dict(entries.collect())
            }
            _ => Source::Absent,
        }
    }

    fn missing(&mut self, name: &str, value: &ValueType) {
        let problem = match value.present() {
            ValueType::Other(text) => format!("argument '{name}' is {text}, which no input can be, and has no default"),
            value => {
                let leaves: Vec<String> = value
                    .leaves(name)
                    .into_iter()
                    .map(|(name, _)| format!("'{name}'"))
                    .collect();
                format!("argument '{name}' ({value}) has no input; add {}", leaves.join(", "))
            }
        };
        self.problems.push(problem);
    }

    fn check_leaf(&mut self, input: usize, name: &str, value: &ValueType, may_lack: bool) {
        let Some(spec) = self.config.input.get(input) else {
            return;
        };
        if !value.is_leaf() {
            let leaves: Vec<String> = value
                .leaves(name)
                .into_iter()
                .map(|(name, _)| format!("'{name}'"))
                .collect();
            let problem = format!(
                "input '{}' is {value}; give its tensors as {}",
                spec.name,
                leaves.join(", ")
            );
            self.problems.push(problem);
            return;
        }
        if spec.optional && !may_lack {
            let problem = format!(
                "input '{}' is optional, but forward cannot do without '{name}'",
                spec.name
            );
            self.problems.push(problem);
        }
        match value.present() {
            ValueType::Tensor { datatype, dims } => self.check_tensor(spec, *datatype, dims.as_deref()),
            plain => {
                self.plain.push(input);
                self.check_plain(spec, plain);
            }
        }
    }

    fn check_tensor(&mut self, spec: &TensorSpec, datatype: Option<DataType>, dims: Option<&[i64]>) {
        if let Some(datatype) = datatype.filter(|datatype| *datatype != spec.datatype) {
            let problem = format!("input '{}' is {}, the model takes {datatype}", spec.name, spec.datatype);
            self.problems.push(problem);
        }
        let Some(dims) = dims else { return };
        let wire = self.config.wire_dims(spec);
        let row = usize::from(self.config.has_rows(spec));
        // What the model was built for must be what is let in: it does not look again.
        let fits = wire.len() == dims.len() && wire.iter().zip(dims).all(|(ours, its)| *its == -1 || ours == its);
        if !fits {
            let right = dims.get(row..).unwrap_or_default();
            let problem = format!(
                "input '{}' has dims {:?}, the model takes {right:?}",
                spec.name, spec.dims
            );
            self.problems.push(if row == 1 && dims.first().is_some_and(|rows| *rows != -1) {
                let rows = dims.first().copied().unwrap_or(1);
                format!("input '{}' has rows, but the model takes exactly {rows}: export it with a dynamic batch dimension, or set max_batch_size to 0", spec.name)
            } else {
                problem
            });
        }
    }

    fn check_plain(&mut self, spec: &TensorSpec, value: &ValueType) {
        let (of, many) = match value {
            ValueType::List { item, .. } => (&**item, true),
            value => (value, false),
        };
        let (right, fits) = match of {
            ValueType::Int => (DataType::Int64, is_whole(spec.datatype)),
            ValueType::Float => (DataType::Fp32, is_floating(spec.datatype)),
            _ => (DataType::Bool, spec.datatype == DataType::Bool),
        };
        let dims = if many {
            spec.dims.len() == 1
        } else {
            matches!(spec.dims.as_slice(), [] | [1])
        };
        if fits && dims && !self.config.has_rows(spec) {
            return;
        }
        let extent = if many { -1 } else { 1 };
        let unbatched = if self.config.batches() { ", unbatched: true" } else { "" };
        self.problems.push(format!(
            "input '{}' is {value}: make it {{datatype: {right}, dims: [{extent}]{unbatched}}}",
            spec.name
        ));
    }
}

const fn is_whole(datatype: DataType) -> bool {
    matches!(
        datatype,
        DataType::Int64 | DataType::Int32 | DataType::Int16 | DataType::Int8 | DataType::Uint8
    )
}

const fn is_floating(datatype: DataType) -> bool {
    matches!(
        datatype,
        DataType::Fp64 | DataType::Fp32 | DataType::Fp16 | DataType::Bf16
    )
}

#[cfg(test)]
#[path = "binding_tests.rs"]
mod tests;
