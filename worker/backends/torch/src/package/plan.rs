//! How a configuration's inputs become a package's call, and what comes back the configuration's outputs.
//!
//! Invariant: what a call is made with is of the types and extents that the code was compiled for.

use mesh_backend::{BackendError, Binding, Signature, Source, Step, ValueType};
use mesh_types::{ModelConfig, TensorSpec};
use tch::Tensor;

use super::{
    extents::{self, Limits},
    source::{self, Contract},
};
use crate::module::Failure;

/// How the configuration's inputs become a call's, and what it gives the configuration's outputs.
#[derive(Debug)]
pub(super) struct Plan {
    /// For each tensor that the code takes, the input of the configuration.
    inputs: Vec<usize>,
    /// What their extents must be.
    limits: Limits,
    /// For each output of the configuration, which of the tensors it is that the code gives.
    results: Vec<usize>,
    /// How many it gives.
    pub(super) gives: usize,
}

impl Plan {
    pub(super) fn of(contract: &Contract, config: &ModelConfig) -> Result<Self, BackendError> {
        // How many rows it takes is known only once it is known which inputs have any.
        let signature = Signature {
            max_rows: None,
            ..contract.signature.clone()
        };
        let binding = Binding::of(&signature, config)?;
        let mut inputs = Vec::new();
        binding.arguments.iter().for_each(|source| flatten(source, &mut inputs));
        let leaves = ways(&signature.result);
        let place = |way: &Vec<Step>| leaves.iter().position(|leaf| leaf == way);
        let results: Option<Vec<usize>> = binding.results.iter().map(place).collect();
        let of_config: Option<Vec<&TensorSpec>> = inputs.iter().map(|input| config.input.get(*input)).collect();
        let (Some(results), Some(specs), true) = (results, of_config, inputs.len() == contract.inputs.len()) else {
            return Err(BackendError::Load(
                "the package's inputs and outputs cannot be told".to_owned(),
            ));
        };
        let given = specs
            .iter()
            .zip(&contract.inputs)
            .map(|(spec, extents)| extents::Input {
                name: &spec.name,
                has_rows: config.has_rows(spec),
                extents,
            });
        let given: Vec<extents::Input<'_>> = given.collect();
        let with_rows = given.iter().filter(|input| input.has_rows);
        let most = source::max_rows(with_rows.map(|input| input.extents));
        if let Some(most) = most.filter(|most| config.max_batch_size > *most) {
            return Err(BackendError::Load(format!(
                "the configuration does not fit {signature}: max_batch_size is {}, but the model takes at most {most} rows",
                config.max_batch_size
            )));
        }
        Ok(Self {
            limits: Limits::of(&given)?,
            inputs,
            results,
            gives: leaves.len(),
        })
    }

    /// The call's tensors, whose extents are what they must be.
    pub(super) fn arguments<'a>(&self, inputs: &'a [Option<Tensor>]) -> Result<Vec<&'a Tensor>, Failure> {
        let given = self.inputs.iter().map(|input| inputs.get(*input)?.as_ref());
        let given: Option<Vec<&Tensor>> = given.collect();
        let given = given.ok_or_else(|| Failure::of_input("an input is missing"))?;
        let extents: Vec<Vec<i64>> = given.iter().map(|tensor| tensor.size()).collect();
        self.limits.check(&extents).map_err(Failure::of_input)?;
        Ok(given)
    }

    /// The configuration's outputs of the tensors that the code gave.
    pub(super) fn results(&self, mut given: Vec<Option<Tensor>>) -> Result<Vec<Tensor>, Failure> {
        let count = given.len();
        let take = |(output, place): (usize, &usize)| {
            let tensor = given.get_mut(*place).and_then(Option::take);
            tensor.ok_or_else(|| {
                let text = format!("the package returned {count} tensors, and this is number {place}");
                Failure::of_output(output, text)
            })
        };
        self.results.iter().enumerate().map(take).collect()
    }
}

fn flatten(source: &Source, inputs: &mut Vec<usize>) {
    match source {
        Source::Input(input) => inputs.push(*input),
        Source::Absent | Source::Parameters => {}
        Source::List(members) | Source::Tuple(members) => members.iter().for_each(|member| flatten(member, inputs)),
        Source::Dict(members) => members.iter().for_each(|(_, member)| flatten(member, inputs)),
    }
}

/// The ways to all tensors of a result, in its order.
fn ways(value: &ValueType) -> Vec<Vec<Step>> {
    let behind = |step: Step, value: &ValueType| {
        let ways = ways(value).into_iter();
        ways.map(move |way| std::iter::once(step.clone()).chain(way).collect())
            .collect::<Vec<Vec<Step>>>()
    };
    match value {
        ValueType::Tuple(items) => {
            let items = items.iter().enumerate();
            items
                .flat_map(|(index, item)| behind(Step::Index(index), item))
                .collect()
        }
        ValueType::Record(fields) => {
            let fields = fields.iter();
            fields
                .flat_map(|(key, field)| behind(Step::Key(key.clone()), field))
                .collect()
        }
        _ => vec![Vec::new()],
    }
}
