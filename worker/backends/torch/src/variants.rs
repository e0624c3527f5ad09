//! Other forms of a module beside the original: which agree with it, which are faster, and which one is kept.
//!
//! One form at a time is in memory beside the original. It runs on the same inputs, in turns with the original so that a busy
//! machine is unfair to none, and its first runs, which profile and compile, do not count. A form is kept only if every output
//! agrees within the tolerance on every sample, if it is not slower at any size, and if it is faster over all of them. Where the
//! outputs cannot tell (they change from run to run, or hold no finite value) the module is left as it is.
//!
//! Invariant: what came of a bad moment, such as no memory or no time left, is not remembered as a finding.

use std::time::{Duration, Instant};

use mesh_backend::{BackendError, BatchInputs, BatchOutputs};
use mesh_types::{Attempt, Clock, Difference, Precision, Variant, VariantReport, VariantTime, Verdict};

use crate::{
    difference::{difference, tells_nothing},
    model::{Origin, Runner, Way},
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
    /// Whether it would come to the same at another moment.
    pub(crate) lasting: bool,
}

/// One form under trial.
struct Trial {
    variant: Variant,
    failed: Option<Verdict>,
    difference: Option<Difference>,
    tolerance: f64,
    times: Vec<VariantTime>,
    /// The original's, in turns with these.
    original: Vec<VariantTime>,
}

impl Trial {
    const fn of(variant: Variant, tolerance: f64) -> Self {
        Self {
            variant,
            failed: None,
            difference: None,
            tolerance,
            times: Vec::new(),
            original: Vec::new(),
        }
    }

    fn give_up(&mut self, verdict: Verdict) {
        self.failed = Some(verdict);
    }

    /// The forms' time in parts of the original's, over all sizes; none if it is slower at one.
    fn gain(&self) -> Option<f64> {
        if self.failed.is_some() || self.times.is_empty() {
            return None;
        }
        let ratios = self
            .times
            .iter()
            .zip(&self.original)
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

/// The forms that the configuration allows, and how far each may differ.
fn wanted(way: &Way) -> Vec<Trial> {
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
    let wanted = wanted.into_iter();
    wanted
        .map(|variant| Trial::of(variant, options.tolerance(variant)))
        .collect()
}

/// Compares the forms of a module.
pub(crate) fn compare(
    way: &Way,
    (origin, original): (&Origin, &Runner),
    samples: &[BatchInputs<'_>],
    clock: &dyn Clock,
) -> Compared {
    let mut bench = Bench {
        way,
        original,
        clock,
        ends: clock.now() + PATIENCE,
        lasting: true,
    };
    let mut trials = wanted(way);
    let mut last = None;
    for trial in &mut trials {
        // One at a time: the one before goes first.
        drop(last.take());
        match bench.attempt(origin, trial, samples) {
            Ok(runner) => last = runner,
            Err(remark) => {
                return Compared {
                    chosen: None,
                    variants: reports(&trials, None),
                    remark,
                    lasting: bench.lasting,
                };
            }
        }
    }
    bench.settle(origin, &trials, last)
}

struct Bench<'a> {
    way: &'a Way,
    original: &'a Runner,
    clock: &'a dyn Clock,
    ends: Instant,
    lasting: bool,
}

impl Bench<'_> {
    /// Makes a form and runs it on all samples; an error says why nothing can be said of any.
    fn attempt(
        &mut self,
        origin: &Origin,
        trial: &mut Trial,
        samples: &[BatchInputs<'_>],
    ) -> Result<Option<Runner>, String> {
        if !self.has_time(trial) {
            return Ok(None);
        }
        let runner = match self.way.form(origin, trial.variant) {
            Ok(runner) => runner,
            Err(error) => {
                self.failed(trial, &error);
                return Ok(None);
            }
        };
        for sample in samples {
            self.at(sample, trial, &runner)?;
            if trial.failed.is_some() {
                return Ok(None);
            }
        }
        Ok(Some(runner))
    }

    fn has_time(&mut self, trial: &mut Trial) -> bool {
        let has = self.clock.now() < self.ends;
        if !has {
            trial.give_up(Verdict::Failed("there was no time left to compare it".to_owned()));
            self.lasting = false;
        }
        has
    }

    /// Notes why a form is out, and whether that was the moment's fault.
    fn failed(&mut self, trial: &mut Trial, error: &BackendError) {
        self.lasting &= !error.is_out_of_memory();
        trial.give_up(Verdict::Failed(error.to_string()));
    }

    /// Runs a form on one sample; an error says why nothing can be said of any.
    fn at(&mut self, sample: &BatchInputs<'_>, trial: &mut Trial, runner: &Runner) -> Result<(), String> {
        if !self.has_time(trial) {
            return Ok(());
        }
        let reference = match warmed(self.way, self.original, sample) {
            Ok(outputs) => outputs,
            // A size for which there is no memory is not used.
            Err(error) if error.is_out_of_memory() && sample.rows > 1 => {
                self.lasting = false;
                return Ok(());
            }
            Err(error) => return Err(self.not_compared(&error)),
        };
        let again = self.way.run(self.original, sample);
        let again = again.map_err(|error| self.not_compared(&error))?;
        if difference(&reference, &again).is_none_or(|found| found.relative > 0.0) {
            return Err("not compared: the model's outputs change from run to run".to_owned());
        }
        if let Some(output) = tells_nothing(&reference) {
            return Err(format!(
                "not compared: '{output}' has no finite value on the inputs that were tried"
            ));
        }
        match warmed(self.way, runner, sample) {
            Ok(outputs) => trial.judge(difference(&reference, &outputs)),
            Err(error) => self.failed(trial, &error),
        }
        if trial.failed.is_none() {
            self.time(sample, trial, runner);
        }
        Ok(())
    }

    fn not_compared(&mut self, error: &BackendError) -> String {
        self.lasting &= !error.is_out_of_memory();
        format!("not compared: {error}")
    }

    /// Times a form and the original in turns.
    fn time(&mut self, sample: &BatchInputs<'_>, trial: &mut Trial, runner: &Runner) {
        let (mut original, mut own) = (Vec::with_capacity(COUNTED), Vec::with_capacity(COUNTED));
        let mut spent = Duration::ZERO;
        while original.len() < COUNTED && (spent < LONG || original.is_empty()) {
            let took = |runner: &Runner| timed(self.way, runner, sample, self.clock);
            let (Some(one), Some(other)) = (took(self.original), took(runner)) else {
                trial.give_up(Verdict::Failed(
                    "it, or the original, ran once and then failed".to_owned(),
                ));
                self.lasting = false;
                return;
            };
            spent += one;
            original.push(one);
            own.push(other);
        }
        let time = |times: Vec<Duration>| VariantTime {
            rows: sample.rows,
            took: median(times),
        };
        trial.original.push(time(original));
        trial.times.push(time(own));
    }

    /// Chooses the fastest of those that are worth it. Only the last one is still there; another is made again.
    fn settle(self, origin: &Origin, trials: &[Trial], last: Option<Runner>) -> Compared {
        let gains = trials
            .iter()
            .enumerate()
            .filter_map(|(at, trial)| Some((at, trial, trial.gain()?)));
        let best = gains
            .min_by(|a, b| a.2.total_cmp(&b.2))
            .filter(|(_, _, gain)| *gain < 1.0 - NOISE);
        let Some((at, trial, _)) = best else {
            return self.settled(trials, None);
        };
        let kept = last.filter(|runner| matches!(runner, Runner::Module(_, variant) if *variant == trial.variant));
        match kept.map_or_else(|| self.way.form(origin, trial.variant), Ok) {
            Ok(runner) => self.settled(trials, Some((at, runner))),
            Err(error) => Compared {
                remark: format!("the fastest form, {}, cannot be made again: {error}", trial.variant),
                lasting: false,
                ..self.settled(trials, None)
            },
        }
    }

    fn settled(&self, trials: &[Trial], chosen: Option<(usize, Runner)>) -> Compared {
        Compared {
            variants: reports(trials, chosen.as_ref().map(|(at, _)| *at)),
            chosen: chosen.map(|(_, runner)| runner),
            remark: String::new(),
            lasting: self.lasting,
        }
    }
}

fn reports(trials: &[Trial], chosen: Option<usize>) -> Vec<VariantReport> {
    // The original's times in turns with what was chosen, or else with what ran at most sizes.
    let beside = chosen.and_then(|at| trials.get(at));
    let beside = beside.or_else(|| trials.iter().rev().max_by_key(|trial| trial.original.len()));
    let original = VariantReport {
        variant: Variant::Original,
        verdict: if chosen.is_none() {
            Verdict::Chosen
        } else {
            Verdict::Slower
        },
        difference: None,
        tolerance: None,
        times: beside.map(|trial| trial.original.clone()).unwrap_or_default(),
    };
    let others = trials.iter().enumerate().map(|(at, trial)| VariantReport {
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
