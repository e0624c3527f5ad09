//! A model run on zeros, to learn what its outputs are.
//!
//! A file of TorchScript says no types and extents, but shows them when it runs. It runs twice, with other numbers of rows and other
//! extents where the configuration leaves them open: what differs between the outputs is open there as well. Runs the author's code,
//! as loading it anywhere does. Does not measure, and keeps nothing.
//!
//! Invariants: only what two runs agree on is told; an extent of nothing (what a model finds in zeros) says nothing, and is open.

use std::{path::Path, sync::Arc};

use mesh_backend::BackendError;
use mesh_types::{ArtifactFormat, ModelConfig, TensorSpec};
use tch::{Device, Tensor};

use crate::{
    TorchOptions, element, fault,
    lane::Lane,
    model::{Runner, Way},
    shim::InferenceMode,
};

/// What open extents are in the first and the second run, in the order in which it is tried: many models take any, those of images and
/// sounds not too few.
const EXTENTS: [(i64, i64); 3] = [(5, 7), (64, 96), (224, 256)];

/// An output as a run has shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    kind: tch::Kind,
    extents: Vec<i64>,
}

/// What the outputs are that the configuration names.
pub(crate) fn outputs(
    path: &Path,
    format: ArtifactFormat,
    config: &ModelConfig,
    options: &TorchOptions,
) -> Result<Vec<TensorSpec>, BackendError> {
    if config.sequence_batching.is_some() {
        let text = "a model of sequences is not run to learn what its outputs are";
        return Err(BackendError::Unsupported(text.to_owned()));
    }
    let device = Device::Cpu;
    let mut way = Way::new(device, Lane::to(device), Arc::new(config.clone()));
    let runner = way.runner(path, format, options)?;
    let (few, more) = rows(config);
    let is_open = |spec: &TensorSpec| spec.dims.contains(&-1);
    let tries = if config.input.iter().any(is_open) {
        EXTENTS.len()
    } else {
        1
    };
    let mut first_problem = None;
    for (small, large) in EXTENTS.into_iter().take(tries) {
        let both = run(&way, &runner, few, small).and_then(|one| Ok((one, run(&way, &runner, more, large)?)));
        match both {
            Ok((one, other)) => return agreed(config, (&one, few), (&other, more)),
            Err(error) => {
                first_problem.get_or_insert(error);
            }
        }
    }
    Err(first_problem.unwrap_or_else(|| BackendError::Output("the model was not run".to_owned())))
}

/// Two numbers of rows that a batch may have; the same where it has one.
fn rows(config: &ModelConfig) -> (u32, u32) {
    match config.max_batch_size {
        0 | 1 => (1, 1),
        2 => (1, 2),
        _ => (2, 3),
    }
}

fn run(way: &Way, runner: &Runner, rows: u32, open: i64) -> Result<Vec<Seen>, BackendError> {
    let _inference = InferenceMode::begin();
    let failed = |error: tch::TchError| fault::execution(&error);
    let config = &way.config;
    let zeros = |spec: &TensorSpec| {
        let extents = spec.dims.iter().map(|dim| if *dim == -1 { open } else { *dim });
        let rows = config.has_rows(spec).then_some(i64::from(rows));
        let shape: Vec<i64> = rows.into_iter().chain(extents).collect();
        Tensor::f_zeros(&shape, (element::kind_of(spec.datatype)?, Device::Cpu)).map_err(failed)
    };
    let inputs = config.input.iter().map(|spec| zeros(spec).map(Some));
    let inputs: Vec<Option<Tensor>> = inputs.collect::<Result<_, _>>()?;
    let outputs = runner
        .call(&inputs, &config.default_parameters())
        .map_err(|failure| fault::call(&failure, config))?;
    let seen = |tensor: Tensor| {
        let kind = tensor.f_kind().map_err(failed)?;
        // Asking the kind first has shown that the tensor is a real one, whose size cannot fail.
        Ok(Seen {
            kind,
            extents: tensor.size(),
        })
    };
    outputs.into_iter().map(seen).collect()
}

fn agreed(
    config: &ModelConfig,
    (one, few): (&[Seen], u32),
    (other, more): (&[Seen], u32),
) -> Result<Vec<TensorSpec>, BackendError> {
    let all = config.output.iter().zip(one.iter().zip(other));
    all.map(|(spec, (one, other))| {
        let wrong = |problem: String| BackendError::Output(format!("'{}' {problem}", spec.name));
        let datatype = element::datatype_of(one.kind)
            .filter(|_| one.kind == other.kind)
            .ok_or_else(|| wrong(format!("is {:?}, which no tensor of the protocol is", one.kind)))?;
        if one.extents.len() != other.extents.len() {
            return Err(wrong("has now more and now fewer extents".to_owned()));
        }
        let batches = config.batches();
        let has_rows = one.extents.first() == Some(&i64::from(few)) && other.extents.first() == Some(&i64::from(more));
        if batches && !has_rows {
            let text = format!(
                "has the shape {:?} for {few} rows: write max_batch_size: 0",
                one.extents
            );
            return Err(wrong(text));
        }
        let extents = one.extents.iter().zip(&other.extents).skip(usize::from(batches));
        let dims: Vec<i64> = extents
            .map(|(one, other)| if one == other && *one != 0 { *one } else { -1 })
            .collect();
        Ok(TensorSpec::new(&spec.name, datatype, &dims))
    })
    .collect()
}
