//! Warm-up: a model runs on zeros at growing batch sizes before it takes jobs, and is measured on the way.
//!
//! The first calls of a TorchScript model profile and compile and take up to ten thousand times as long as the later ones,
//! so each size runs several times and the first runs do not count. Sizes double until one takes longer than
//! [`LONG_RUN`]; the largest always runs, because what does not fit should be known before a caller finds out.

use std::time::{Duration, Instant};

use mesh_backend::{BackendError, BatchInput, BatchInputs, LoadedModel};
use mesh_types::{Clock, ModelConfig, Shape};

use crate::{batch, order::Profile, pulse::Pulse, thread::LOAD_LIMIT};

/// Runs at each size that do not count: the profiling run and the compiling run.
const UNCOUNTED: usize = 2;
/// Runs at each size that count.
const COUNTED: usize = 3;
/// A run that takes longer ends the doubling, and counts for its size alone.
const LONG_RUN: Duration = Duration::from_millis(250);

/// The most sizes at which variants of a model are compared, and the most bytes of one size's inputs.
const SAMPLE_SIZES: usize = 4;
const SAMPLE_BYTES: usize = 64 * 1024 * 1024;

/// What warm-up runs with.
pub(crate) struct Stove<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) pulse: &'a Pulse,
    /// How long one execution may take.
    pub(crate) limit: Duration,
}

/// Runs the model at each size. Out of memory beyond the smallest size is no error: the profile says so.
pub(crate) fn warm(
    stove: &Stove<'_>,
    model: &mut dyn LoadedModel,
    config: &ModelConfig,
) -> Result<Profile, BackendError> {
    let max = config.max_batch_size.max(1);
    let mut profile = Profile::default();
    let mut rows = 1;
    loop {
        match measure(stove, model, config, rows) {
            Ok(took) => profile.sizes.push((rows, took)),
            Err(BackendError::OutOfMemory(_)) if rows > 1 => {
                profile.oom_rows = Some(rows);
                return Ok(profile);
            }
            Err(error) => return Err(error),
        }
        if rows == max {
            return Ok(profile);
        }
        let long = profile.sizes.last().is_some_and(|(_, took)| *took > LONG_RUN);
        rows = if long { max } else { rows.saturating_mul(2).min(max) };
    }
}

/// Lets the runtime try what would run faster at the sizes that matter: one row, the preferred ones and the largest.
pub(crate) fn optimize(stove: &Stove<'_>, model: &mut dyn LoadedModel, config: &ModelConfig) {
    if config.optimization.unwrap_or_default().is_off() {
        return;
    }
    let data: Vec<(u32, Vec<_>)> = sizes_that_matter(config)
        .into_iter()
        .map(|rows| (rows, batch::samples(config, rows)))
        .collect();
    let samples: Vec<BatchInputs<'_>> = data.iter().map(|(rows, data)| inputs_of(config, *rows, data)).collect();
    stove.pulse.begin(stove.clock.now(), LOAD_LIMIT, None);
    model.optimize(&samples, stove.clock);
    stove.pulse.end();
}

/// At most [`SAMPLE_SIZES`], ascending, those left out whose inputs would take too much memory.
fn sizes_that_matter(config: &ModelConfig) -> Vec<u32> {
    let max = config.max_batch_size.max(1);
    let preferred = config
        .dynamic_batching
        .iter()
        .flat_map(|batching| &batching.preferred_batch_size);
    let mut sizes: Vec<u32> = [1, max]
        .into_iter()
        .chain(preferred.copied())
        .filter(|rows| *rows <= max)
        .collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.retain(|rows| *rows == 1 || batch::sample_bytes(config, *rows) <= SAMPLE_BYTES);
    // Of too many, the smallest and the largest ones.
    if sizes.len() > SAMPLE_SIZES {
        let tail = sizes.split_off(sizes.len() - (SAMPLE_SIZES - 1));
        sizes.truncate(1);
        sizes.extend(tail);
    }
    sizes
}

fn inputs_of<'a>(config: &'a ModelConfig, rows: u32, data: &'a [(Shape, Vec<u8>)]) -> BatchInputs<'a> {
    let inputs = config.input.iter().zip(data).map(|(spec, (shape, data))| BatchInput {
        spec,
        shape: shape.clone(),
        parts: vec![data.as_slice()],
    });
    BatchInputs {
        rows,
        inputs: inputs.collect(),
    }
}

/// The median of the runs that count.
fn measure(
    stove: &Stove<'_>,
    model: &mut dyn LoadedModel,
    config: &ModelConfig,
    rows: u32,
) -> Result<Duration, BackendError> {
    let zeros: Vec<_> = (0..config.input.len())
        .map(|index| batch::zeros(config, index, rows))
        .collect();
    let inputs = inputs_of(config, rows, &zeros);
    for _ in 0..UNCOUNTED {
        timed(stove, model, &inputs)?;
    }
    let mut counted = Vec::with_capacity(COUNTED);
    while counted.len() < COUNTED {
        let took = timed(stove, model, &inputs)?;
        counted.push(took);
        if took > LONG_RUN {
            return Ok(took);
        }
    }
    counted.sort_unstable();
    Ok(counted.get(COUNTED / 2).copied().unwrap_or_default())
}

fn timed(stove: &Stove<'_>, model: &mut dyn LoadedModel, inputs: &BatchInputs<'_>) -> Result<Duration, BackendError> {
    let began: Instant = stove.clock.now();
    stove.pulse.begin(began, stove.limit, None);
    let result = model.execute(inputs);
    stove.pulse.end();
    result.map(|_| stove.clock.now().saturating_duration_since(began))
}

/// Whether warm-up can know the inputs' shapes; where it cannot, its failure says nothing about the model.
pub(crate) fn is_telling(config: &ModelConfig) -> bool {
    config.input.iter().all(|spec| spec.dims.iter().all(|dim| *dim > 0))
}

#[cfg(test)]
#[path = "tests/warm.rs"]
mod tests;
