//! Warm-up: a model runs on zeros at growing batch sizes before it takes jobs, and is measured on the way; then on the records
//! of its configuration.
//!
//! The first calls of a TorchScript model profile and compile and take up to ten thousand times as long as the later ones,
//! so each size runs several times and the first runs do not count. Sizes double until one takes longer than
//! [`LONG_RUN`]; the largest always runs, because what does not fit should be known before a caller finds out. One of the
//! runs that do not count is measured for the memory that it takes.
//!
//! The best of the counted runs counts, and not their median: warm-up runs beside live traffic and below it in priority, so
//! what makes a run longer is mostly not the model.

use std::time::{Duration, Instant};

use mesh_backend::{AnswerSink, BackendError, BatchInput, BatchInputs, BatchOutputs, LoadedModel, Next, Requests};
use mesh_types::{Clock, ModelConfig, Shape, Tensor};

use crate::{batch, order::Profile, pulse::Pulse, samples, thread::LOAD_LIMIT};

/// Runs at each size that do not count: the profiling run and the compiling run.
const UNCOUNTED: usize = 2;
/// Runs at each size that count.
const COUNTED: usize = 3;
/// A run that takes longer ends the doubling, and counts for its size alone.
const LONG_RUN: Duration = Duration::from_millis(250);

/// The most sizes at which variants of a model are compared, and the most bytes of one size's inputs.
const SAMPLE_SIZES: usize = 4;
const SAMPLE_BYTES: usize = 64 * 1024 * 1024;

/// The answers of a decoupled model that a run of its warm-up waits for.
const WARM_ANSWERS: usize = 8;

/// What warm-up runs with.
pub(crate) struct Stove<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) pulse: &'a Pulse,
    /// How long one execution may take.
    pub(crate) limit: Duration,
    /// Told of each batch size, and of each record by its name, before it runs; false ends the warm-up.
    pub(crate) step: &'a dyn Fn(Step<'_>) -> bool,
}

/// A part of a warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    Rows(u32),
    Record(&'a str),
}

/// How thoroughly an instance is warmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// Run and measured.
    Measured,
    /// Only run: another instance of the model was measured before.
    Repeated,
}

/// Runs the model at each size, then on its records. Out of memory beyond the smallest size is no error: the profile says so.
pub(crate) fn warm(
    stove: &Stove<'_>,
    model: &mut dyn LoadedModel,
    config: &ModelConfig,
    sweep: Sweep,
) -> Result<Profile, BackendError> {
    let profile = match sizes(stove, model, config, sweep) {
        // On guessed shapes a failure says nothing about the model.
        Err(error) if !is_telling(config) && error != ended() => {
            tracing::warn!(%error, "warm-up failed on guessed shapes");
            Profile::default()
        }
        swept => swept?,
    };
    records(stove, model, config)?;
    Ok(profile)
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
    let samples: Vec<BatchInputs<'_>> = data.iter().map(|(rows, data)| batch_of(config, *rows, data)).collect();
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

fn sizes(
    stove: &Stove<'_>,
    model: &mut dyn LoadedModel,
    config: &ModelConfig,
    sweep: Sweep,
) -> Result<Profile, BackendError> {
    let max = config.max_batch_size.max(1);
    let mut profile = Profile::default();
    let mut rows = 1;
    loop {
        if !(stove.step)(Step::Rows(rows)) {
            return Err(ended());
        }
        match measure(stove, model, config, (rows, sweep)) {
            Ok((took, peak)) => {
                profile.sizes.push((rows, took));
                profile.peak = profile.peak.max(peak);
            }
            Err(error) if error.is_out_of_memory() && rows > 1 => {
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

/// The best of the runs that count, and the memory that one took at its peak.
fn measure(
    stove: &Stove<'_>,
    model: &mut dyn LoadedModel,
    config: &ModelConfig,
    (rows, sweep): (u32, Sweep),
) -> Result<(Duration, u64), BackendError> {
    let zeros = zeros(config, rows);
    let inputs = batch_of(config, rows, &zeros);
    for _ in 1..UNCOUNTED {
        timed(stove, || execute(model, config, &inputs))?;
    }
    let ((outputs, peak), _) = timed(stove, || {
        if config.is_decoupled() {
            return execute(model, config, &inputs).map(|outputs| (outputs, None));
        }
        model.execute_measured(&inputs)
    })?;
    // Where the runtime cannot tell: what goes in and comes out is there at once, at least.
    let peak = peak.unwrap_or_else(|| at_least(&inputs, &outputs));
    drop(outputs);
    let counted = if sweep == Sweep::Measured { COUNTED } else { 1 };
    let mut best: Option<Duration> = None;
    for _ in 0..counted {
        let took = timed(stove, || execute(model, config, &inputs))?.1;
        best = Some(best.map_or(took, |best| best.min(took)));
        if took > LONG_RUN {
            break;
        }
    }
    Ok((best.unwrap_or_default(), peak))
}

/// One run on zeros.
pub(crate) fn touch(model: &mut dyn LoadedModel, config: &ModelConfig, rows: u32) -> Result<(), BackendError> {
    let zeros = zeros(config, rows);
    execute(model, config, &batch_of(config, rows, &zeros)).map(drop)
}

/// One run; of a decoupled model as far as its first [`WARM_ANSWERS`], of which the last is the output.
fn execute(
    model: &mut dyn LoadedModel,
    config: &ModelConfig,
    inputs: &BatchInputs<'_>,
) -> Result<BatchOutputs, BackendError> {
    if !config.is_decoupled() {
        return model.execute(inputs);
    }
    let mut nobody = Nobody::default();
    let rows = &[inputs.rows];
    model.generate(&Requests { inputs, rows }, &mut nobody)?;
    match nobody.failed {
        Some(error) => Err(error),
        None => Ok(BatchOutputs { outputs: nobody.last }),
    }
}

/// Takes a few answers, for nobody.
#[derive(Default)]
struct Nobody {
    taken: usize,
    last: Vec<Tensor>,
    failed: Option<BackendError>,
}

impl AnswerSink for Nobody {
    fn answer(&mut self, request: usize, outputs: Vec<Tensor>) -> Next {
        self.taken += 1;
        self.last = outputs;
        if self.is_wanted(request) {
            Next::More
        } else {
            Next::Stop
        }
    }

    fn is_wanted(&self, _: usize) -> bool {
        self.taken < WARM_ANSWERS && self.failed.is_none()
    }

    fn end(&mut self, _: usize) {}

    fn fail(&mut self, _: usize, error: BackendError) {
        self.failed.get_or_insert(error);
    }
}

fn zeros(config: &ModelConfig, rows: u32) -> Vec<(Shape, Vec<u8>)> {
    (0..config.input.len())
        .map(|index| batch::zeros(config, index, rows))
        .collect()
}

fn batch_of<'a>(config: &'a ModelConfig, rows: u32, data: &'a [(Shape, Vec<u8>)]) -> BatchInputs<'a> {
    let inputs = config.input.iter().zip(data).map(|(spec, (shape, data))| BatchInput {
        spec,
        shape: shape.clone(),
        parts: vec![data.as_slice()],
    });
    BatchInputs {
        rows,
        inputs: inputs.collect(),
        parameters: None,
    }
}

fn at_least(inputs: &BatchInputs<'_>, outputs: &BatchOutputs) -> u64 {
    let ins = inputs.inputs.iter().map(BatchInput::byte_len);
    let outs = outputs.outputs.iter().map(|output| output.data.len());
    u64::try_from(ins.chain(outs).sum::<usize>()).unwrap_or(u64::MAX)
}

/// Runs the configuration's records. A failure says which.
fn records(stove: &Stove<'_>, model: &mut dyn LoadedModel, config: &ModelConfig) -> Result<(), BackendError> {
    for record in &config.model_warmup {
        let named = |error: BackendError| error.within(&format!("warm-up record '{}'", record.name));
        let data = samples::of(config, record).map_err(|problem| named(BackendError::InvalidInput(problem)))?;
        let inputs = config.input.iter().zip(&data).map(|(spec, sample)| match sample {
            Some((shape, data)) => BatchInput {
                spec,
                shape: shape.clone(),
                parts: vec![data.as_slice()],
            },
            None => BatchInput::absent(spec),
        });
        let inputs = BatchInputs {
            rows: record.rows(),
            inputs: inputs.collect(),
            parameters: None,
        };
        for _ in 0..record.runs() {
            if !(stove.step)(Step::Record(&record.name)) {
                return Err(ended());
            }
            timed(stove, || execute(model, config, &inputs)).map_err(named)?;
        }
    }
    Ok(())
}

fn timed<T>(stove: &Stove<'_>, run: impl FnOnce() -> Result<T, BackendError>) -> Result<(T, Duration), BackendError> {
    let began: Instant = stove.clock.now();
    stove.pulse.begin(began, stove.limit, None);
    let result = run();
    stove.pulse.end();
    result.map(|value| (value, stove.clock.now().saturating_duration_since(began)))
}

fn ended() -> BackendError {
    BackendError::Load("the load was given up".to_owned())
}

/// Whether warm-up can know the inputs' shapes; where it cannot, its failure says nothing about the model.
fn is_telling(config: &ModelConfig) -> bool {
    config.input.iter().all(|spec| spec.dims.iter().all(|dim| *dim > 0))
}

#[cfg(test)]
#[path = "tests/warm.rs"]
mod tests;
