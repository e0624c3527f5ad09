//! Warm-up: a model runs on zeros at its smallest and largest batch before it takes jobs.
//!
//! The first calls of a TorchScript model profile and compile and take up to ten thousand times as long as the later ones.

use mesh_backend::{BackendError, BatchInput, BatchInputs, LoadedModel};
use mesh_types::ModelConfig;

use crate::batch;

/// Runs at each size: the profiling run, the compiling run, and one to see that it works.
const RUNS: usize = 3;

pub(crate) fn warm(model: &mut dyn LoadedModel, config: &ModelConfig) -> Result<(), BackendError> {
    let mut sizes = vec![1, config.max_batch_size.max(1)];
    sizes.dedup();
    for rows in sizes {
        let zeros: Vec<_> = (0..config.input.len())
            .map(|index| batch::zeros(config, index, rows))
            .collect();
        let inputs = config.input.iter().zip(&zeros).map(|(spec, (shape, data))| BatchInput {
            spec,
            shape: shape.clone(),
            parts: vec![data.as_slice()],
        });
        let inputs = BatchInputs {
            rows,
            inputs: inputs.collect(),
        };
        for _ in 0..RUNS {
            model.execute(&inputs)?;
        }
    }
    Ok(())
}

/// Whether warm-up can know the inputs' shapes; where it cannot, its failure says nothing about the model.
pub(crate) fn is_telling(config: &ModelConfig) -> bool {
    config.input.iter().all(|spec| spec.dims.iter().all(|dim| *dim > 0))
}
