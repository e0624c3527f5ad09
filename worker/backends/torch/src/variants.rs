//! Other forms of a module beside the original: which agree with it, which are faster, and which one is kept.
//!
//! Every form runs on the same inputs, in turns with the original so that a busy machine is unfair to none, and its first runs,
//! which profile and compile, do not count. A form is kept only if every output agrees within the tolerance on every sample,
//! if it is not slower at any size, and if it is faster over all of them. A module whose own outputs change from run to run
//! (it draws numbers, or keeps a state) is left as it is, because nothing can be said of the others.

use std::time::Duration;

use mesh_backend::{BackendError, BatchInputs, BatchOutputs};
use mesh_types::{Attempt, Clock, Difference, Precision, Variant, VariantReport, VariantTime, Verdict};

use crate::{
    difference::difference,
    fault,
    model::{Runner, Way},
    module::Module,
};

/// Runs of a form at a size that do not count.
const UNCOUNTED: usize = 3;
/// Runs that count, unless they take long.
const COUNTED: usize = 15;
/// What the runs of one form at one size may take together before fewer than [`COUNTED`] do.
const LONG: Duration = Duration::from_millis(400);
/// What all comparing may take; forms that have not run at every size by then are not kept.
const PATIENCE: Duration = Duration::from_secs(30);
/// A form is as fast as the original within this: what repeated measurements differ by.
const NOISE: f64 = 0.03;

/// What came of comparing.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// What runs from now on; none for the original.
    pub(crate) chosen: Option<Runner>,
    pub(crate) variants: Vec<VariantReport>,
    pub(crate) remark: String,
}

/// One form under trial.
struct Trial {
    variant: Variant,
    runner: Option<Runner>,
    failed: Option<Verdict>,
    difference: Option<Difference>,
    tolerance: f64,
    times: Vec<VariantTime>,
}

impl Trial {
    fn of(original: &Module, variant: Variant, tolerance: f64) -> Self {
        let made = original.variant(variant);
        let failed = made.as_ref().err().map(|failure| fault::sentence(&failure.text));
        Self {
            variant,
            runner: made.ok().map(|module| Runner::Module(module, variant)),
            failed: failed.map(Verdict::Failed),
            difference: None,
            tolerance,
            times: Vec::new(),
        }
    }

    fn give_up(&mut self, verdict: Verdict) {
        self.runner = None;
        self.failed = Some(verdict);
    }

    /// The forms' time in parts of the original's, over all sizes; none if it is slower at one.
    fn gain(&self, original: &[VariantTime]) -> Option<f64> {
        self.runner.as_ref()?;
        if self.times.len() != original.len() || original.is_empty() {
            return None;
        }
        let ratios = self
            .times
            .iter()
            .zip(original)
            .map(|(own, original)| own.took.as_secs_f64() / original.took.as_secs_f64().max(f64::MIN_POSITIVE));
        let mut product = 1.0;
        let mut count = 0;
        for ratio in ratios {
            if ratio > 1.0 + NOISE {
                return None;
            }
            product *= ratio;
            count += 1;
        }
        Some(product.powf(1.0 / f64::from(count.max(1))))
    }
}

/// Compares the forms that the configuration allows.
pub(crate) fn compare(way: &Way, original: &Runner, samples: &[BatchInputs<'_>], clock: &dyn Clock) -> Compared {
    let Runner::Module(module, _) = original else {
        return Compared::default();
    };
    let options = way.config.optimization.unwrap_or_default();
    let mut wanted = Vec::new();
    if options.freeze == Attempt::Auto {
        wanted.extend([Variant::Frozen, Variant::Optimized]);
    }
    match options.precision {
        Precision::Fp32 => {}
        Precision::Bf16 => wanted.push(Variant::Bf16),
        Precision::Fp16 => wanted.push(Variant::Fp16),
    }
    let trials = wanted
        .into_iter()
        .map(|variant| Trial::of(module, variant, options.tolerance(variant)));
    let mut bench = Bench {
        way,
        original,
        clock,
        ends: clock.now() + PATIENCE,
        trials: trials.collect(),
        times: Vec::new(),
    };
    for sample in samples {
        if let Err(remark) = bench.at(sample) {
            return bench.unsettled(remark);
        }
    }
    bench.settle()
}

struct Bench<'a> {
    way: &'a Way,
    original: &'a Runner,
    clock: &'a dyn Clock,
    ends: std::time::Instant,
    trials: Vec<Trial>,
    /// The original's.
    times: Vec<VariantTime>,
}

impl Bench<'_> {
    /// Runs all forms on one sample; an error says why nothing can be said of them.
    fn at(&mut self, sample: &BatchInputs<'_>) -> Result<(), String> {
        let (way, clock, ends) = (self.way, self.clock, self.ends);
        let reference = match warmed(way, self.original, sample) {
            Ok(outputs) => outputs,
            // A size for which there is no memory is not used.
            Err(BackendError::OutOfMemory(_)) if sample.rows > 1 => return Ok(()),
            Err(error) => return Err(format!("not compared: {error}")),
        };
        let again = way
            .run(self.original, sample)
            .map_err(|error| format!("not compared: {error}"))?;
        if difference(&reference, &again).is_none_or(|found| found.relative > 0.0) {
            return Err("not compared: the model's outputs change from run to run".to_owned());
        }
        for trial in &mut self.trials {
            let Some(runner) = &trial.runner else { continue };
            if clock.now() >= ends {
                trial.give_up(Verdict::Failed("there was no time left to compare it".to_owned()));
                continue;
            }
            match warmed(way, runner, sample) {
                Ok(outputs) => trial.judge(difference(&reference, &outputs)),
                Err(error) => trial.give_up(Verdict::Failed(error.to_string())),
            }
        }
        self.time(sample);
        Ok(())
    }

    /// Times the forms that are left, in turns.
    fn time(&mut self, sample: &BatchInputs<'_>) {
        let mut original = Vec::with_capacity(COUNTED);
        let mut others: Vec<Vec<Duration>> = self.trials.iter().map(|_| Vec::with_capacity(COUNTED)).collect();
        let mut spent = Duration::ZERO;
        while original.len() < COUNTED && (spent < LONG || original.is_empty()) {
            let Some(took) = timed(self.way, self.original, sample, self.clock) else {
                return;
            };
            spent += took;
            original.push(took);
            for (trial, times) in self.trials.iter_mut().zip(&mut others) {
                let Some(runner) = &trial.runner else { continue };
                match timed(self.way, runner, sample, self.clock) {
                    Some(took) => times.push(took),
                    None => trial.give_up(Verdict::Failed("it ran once and then failed".to_owned())),
                }
            }
        }
        let time = |times: Vec<Duration>| VariantTime {
            rows: sample.rows,
            took: median(times),
        };
        self.times.push(time(original));
        for (trial, times) in self.trials.iter_mut().zip(others) {
            if trial.runner.is_some() {
                trial.times.push(time(times));
            }
        }
    }

    /// Chooses the fastest of those that are worth it.
    fn settle(mut self) -> Compared {
        let gains = self
            .trials
            .iter()
            .enumerate()
            .filter_map(|(at, trial)| Some((at, trial.gain(&self.times)?)));
        let best = gains
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .filter(|(_, gain)| *gain < 1.0 - NOISE);
        let chosen = best.and_then(|(at, _)| self.trials.get_mut(at)?.runner.take().map(|runner| (at, runner)));
        let place = chosen.as_ref().map(|(at, _)| *at);
        Compared {
            variants: self.reports(place),
            remark: String::new(),
            chosen: chosen.map(|(_, runner)| runner),
        }
    }

    fn unsettled(self, remark: String) -> Compared {
        Compared {
            variants: self.reports(None),
            remark,
            chosen: None,
        }
    }

    fn reports(&self, chosen: Option<usize>) -> Vec<VariantReport> {
        let original = VariantReport {
            variant: Variant::Original,
            verdict: if chosen.is_none() {
                Verdict::Chosen
            } else {
                Verdict::Slower
            },
            difference: None,
            tolerance: None,
            times: self.times.clone(),
        };
        let others = self.trials.iter().enumerate().map(|(at, trial)| VariantReport {
            variant: trial.variant,
            verdict: match &trial.failed {
                _ if chosen == Some(at) => Verdict::Chosen,
                Some(verdict) => verdict.clone(),
                None => Verdict::Slower,
            },
            difference: trial.difference,
            tolerance: Some(trial.tolerance),
            times: trial.times.clone(),
        });
        std::iter::once(original).chain(others).collect()
    }
}

impl Trial {
    /// Takes in how far its outputs are from the original's on one sample.
    fn judge(&mut self, found: Option<Difference>) {
        let Some(found) = found else {
            self.give_up(Verdict::Differs);
            return;
        };
        let worst = self.difference.get_or_insert_with(Difference::default);
        worst.absolute = worst.absolute.max(found.absolute);
        worst.relative = worst.relative.max(found.relative);
        if worst.relative > self.tolerance {
            self.give_up(Verdict::Differs);
        }
    }
}

/// The outputs of a form that has profiled and compiled.
fn warmed(way: &Way, runner: &Runner, sample: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
    for _ in 1..UNCOUNTED {
        way.run(runner, sample)?;
    }
    way.run(runner, sample)
}

fn timed(way: &Way, runner: &Runner, sample: &BatchInputs<'_>, clock: &dyn Clock) -> Option<Duration> {
    let began = clock.now();
    way.run(runner, sample).ok()?;
    Some(clock.now().saturating_duration_since(began))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
#[path = "variants_tests.rs"]
mod tests;
