//! Warm-up on a model whose durations are known.

use std::{collections::BTreeMap, sync::Arc};

use mesh_backend::BatchOutputs;
use mesh_types::{Attempt, DataType, DynamicBatching, ManualClock, Optimization, TensorSpec};

use super::*;

/// Takes so long for so many rows; the first runs of a size take a second more.
struct Timed {
    clock: Arc<ManualClock>,
    millis: fn(u32) -> Option<u64>,
    runs: BTreeMap<u32, usize>,
}

impl LoadedModel for Timed {
    fn execute(&mut self, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        let runs = self.runs.entry(batch.rows).or_default();
        *runs += 1;
        let cold = if *runs <= UNCOUNTED { 1_000 } else { 0 };
        let millis = (self.millis)(batch.rows).ok_or_else(|| BackendError::OutOfMemory("full".into()))?;
        self.clock.advance(Duration::from_millis(millis + cold));
        Ok(BatchOutputs { outputs: Vec::new() })
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}

fn profile(
    max_batch_size: u32,
    millis: fn(u32) -> Option<u64>,
) -> (Result<Profile, BackendError>, BTreeMap<u32, usize>) {
    let clock = Arc::new(ManualClock::at(0));
    let input = TensorSpec::new("x", DataType::Fp32, &[1]);
    let config = ModelConfig {
        max_batch_size,
        input: vec![input],
        ..ModelConfig::default()
    };
    let (pulse, limit) = (Pulse::default(), Duration::from_secs(30));
    let stove = Stove {
        clock: &*clock,
        pulse: &pulse,
        limit,
        step: &|_| true,
    };
    let mut model = Timed {
        clock: clock.clone(),
        millis,
        runs: BTreeMap::new(),
    };
    let profile = warm(&stove, &mut model, &config, Sweep::Measured);
    assert_eq!(pulse.due(), None, "no call is left open");
    (profile, model.runs)
}

fn sizes(profile: &Profile) -> Vec<(u32, u64)> {
    let millis = |took: &Duration| u64::try_from(took.as_millis()).unwrap();
    profile.sizes.iter().map(|(rows, took)| (*rows, millis(took))).collect()
}

#[test]
fn sizes_double_up_to_the_largest_and_cold_runs_do_not_count() {
    let (measured, runs) = profile(6, |rows| Some(u64::from(10 * rows)));
    assert_eq!(sizes(&measured.unwrap()), [(1, 10), (2, 20), (4, 40), (6, 60)]);
    assert!(runs.values().all(|runs| *runs == UNCOUNTED + COUNTED), "{runs:?}");
    let (measured, _) = profile(0, |_| Some(3));
    assert_eq!(
        sizes(&measured.unwrap()),
        [(1, 3)],
        "a model that does not batch has one size"
    );
}

#[test]
fn a_long_run_ends_the_doubling_but_the_largest_runs_all_the_same() {
    let long = u64::try_from(LONG_RUN.as_millis()).unwrap();
    assert_eq!(long, 250);
    let (measured, _) = profile(64, |rows| Some(if rows == 1 { 250 } else { 251 }));
    assert_eq!(sizes(&measured.unwrap()), [(1, 250), (2, 251), (64, 251)]);
}

#[test]
fn no_memory_for_a_larger_batch_is_said_and_for_the_smallest_is_an_error() {
    let (measured, _) = profile(8, |rows| (rows < 4).then_some(1));
    let measured = measured.unwrap();
    assert_eq!((sizes(&measured), measured.oom_rows), (vec![(1, 1), (2, 1)], Some(4)));
    let (measured, _) = profile(8, |_| None);
    assert!(matches!(measured, Err(BackendError::OutOfMemory(_))));
}

/// Remembers which sizes it was offered.
#[derive(Default)]
struct Offered(Vec<u32>);

impl LoadedModel for Offered {
    fn execute(&mut self, _: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        Ok(BatchOutputs { outputs: Vec::new() })
    }

    fn optimize(&mut self, samples: &[BatchInputs<'_>], _: &dyn Clock) {
        self.0 = samples.iter().map(|sample| sample.rows).collect();
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}

fn offered(change: impl FnOnce(&mut ModelConfig)) -> Vec<u32> {
    let (clock, pulse) = (ManualClock::at(0), Pulse::default());
    let stove = Stove {
        clock: &clock,
        pulse: &pulse,
        limit: Duration::from_secs(30),
        step: &|_| true,
    };
    let mut config = ModelConfig {
        max_batch_size: 64,
        input: vec![TensorSpec::new("x", DataType::Fp32, &[1])],
        ..ModelConfig::default()
    };
    change(&mut config);
    let mut model = Offered::default();
    optimize(&stove, &mut model, &config);
    assert_eq!(pulse.due(), None, "no call is left open");
    model.0
}

#[test]
fn forms_are_compared_at_one_row_the_preferred_sizes_and_the_largest() {
    let preferred = |sizes: &[u32]| {
        let batching = DynamicBatching {
            preferred_batch_size: sizes.to_vec(),
            ..DynamicBatching::default()
        };
        move |config: &mut ModelConfig| config.dynamic_batching = Some(batching)
    };
    assert_eq!(offered(|_| {}), [1, 64]);
    assert_eq!(offered(preferred(&[16, 8])), [1, 8, 16, 64]);
    assert_eq!(offered(preferred(&[4, 8, 16, 32])), [1, 16, 32, 64], "four at most");
    assert_eq!(offered(|config| config.max_batch_size = 0), [1]);
    let off = Optimization {
        freeze: Attempt::Off,
        ..Optimization::default()
    };
    assert!(offered(|config| config.optimization = Some(off)).is_empty());
    let row = i64::try_from(SAMPLE_BYTES / 4 / 64).unwrap();
    let wide = |extent: i64| move |config: &mut ModelConfig| config.input[0].dims = vec![extent];
    assert_eq!(offered(wide(row)), [1, 64]);
    assert_eq!(offered(wide(row + 1)), [1], "too much memory for the larger one");
}
