//! Real forms of real modules, on clocks that say how long each took.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use mesh_backend::{Backend as _, BatchInput, LoadSpec, LoadedModel, Passing};
use mesh_types::{DataType, DeviceId, LoadReport, ModelConfig, Optimization, Shape, SystemClock};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;

use super::*;
use crate::{
    TorchBackend, TorchOptions,
    tests::{floats, load_spec, raw, scripted, spec, traced},
};

/// A clock that moves by what a function says of each question's number.
struct Told {
    began: Instant,
    asked: AtomicUsize,
    moved: std::sync::Mutex<Duration>,
    moves: fn(usize) -> u64,
}

impl Told {
    fn by(moves: fn(usize) -> u64) -> Self {
        Self {
            began: Instant::now(),
            asked: AtomicUsize::new(0),
            moved: std::sync::Mutex::default(),
            moves,
        }
    }
}

impl Clock for Told {
    fn now(&self) -> Instant {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let mut moved = self.moved.lock().unwrap();
        *moved += Duration::from_micros((self.moves)(number));
        self.began + *moved
    }

    fn unix_seconds(&self) -> i64 {
        0
    }
}

/// Whose run a question ends, by its number: the first asks when all must be over; then every trial asks whether there is time
/// for it and again for each sample, whose 15 rounds ask at the begin and the end of the original's run and of the form's.
fn ended(number: usize, samples: usize) -> Option<(usize, usize, usize)> {
    let (trial, within) = divided(number.checked_sub(1)?, 1 + samples * 61);
    let (sample, within) = divided(within.checked_sub(1)?, 61);
    let within = within.checked_sub(1)?;
    (within % 2 == 1).then_some((trial, sample, within % 4 / 2))
}

fn divided(number: usize, by: usize) -> (usize, usize) {
    (number / by, number % by)
}

/// What a run takes where the original takes so long and each of two forms so long, on one sample.
fn took(number: usize, original: u64, forms: [u64; 2]) -> u64 {
    ended(number, 1).map_or(0, |(trial, _, whose)| if whose == 0 { original } else { forms[trial] })
}

/// A product with a constant, which freezing leaves as it is.
fn product() -> (TempDir, PathBuf) {
    let weight = Tensor::arange_start(1, 9, (Kind::Float, Device::Cpu)).view([2, 4]) / 3.0;
    traced(&[Tensor::ones([2, 2], (Kind::Float, Device::Cpu))], &mut |inputs| {
        vec![inputs[0].matmul(&weight).sigmoid()]
    })
}

fn config(optimization: Optimization) -> ModelConfig {
    ModelConfig {
        max_batch_size: 8,
        input: vec![spec("x", DataType::Fp32, &[2])],
        output: vec![spec("y", DataType::Fp32, &[4])],
        optimization: Some(optimization),
        ..ModelConfig::default()
    }
}

fn with_samples<T>(config: &ModelConfig, sizes: &[u32], then: impl FnOnce(&[BatchInputs<'_>]) -> T) -> T {
    let data: Vec<Vec<u8>> = sizes
        .iter()
        .map(|rows| {
            raw(&(0..rows * 2)
                .map(|index| f32::from(u16::try_from(index).unwrap()) / 7.0)
                .collect::<Vec<f32>>())
        })
        .collect();
    let sample = |(rows, data): (&u32, &'_ Vec<u8>)| (*rows, Shape::from_slice(&[u64::from(*rows), 2]), data.clone());
    let all: Vec<_> = sizes.iter().zip(&data).map(sample).collect();
    let samples: Vec<BatchInputs<'_>> = all
        .iter()
        .map(|(rows, shape, data)| BatchInputs {
            rows: *rows,
            inputs: vec![BatchInput {
                spec: &config.input[0],
                shape: shape.clone(),
                parts: vec![data],
            }],
            parameters: None,
        })
        .collect();
    then(&samples)
}

fn optimized(
    path: PathBuf,
    config: &ModelConfig,
    sizes: &[u32],
    clock: &dyn Clock,
) -> (Box<dyn LoadedModel>, LoadReport) {
    let backend = TorchBackend::new(TorchOptions::default());
    let mut model = backend
        .load(&load_spec(Some(path), config.clone()), DeviceId::cpu(0))
        .unwrap();
    with_samples(config, sizes, |samples| model.optimize(samples, clock));
    let report = model.report();
    (model, report)
}

fn answer(model: &mut dyn LoadedModel, config: &ModelConfig) -> Vec<f32> {
    with_samples(config, &[3], |samples| {
        floats(&model.execute(&samples[0]).unwrap().outputs[0].data)
    })
}

#[test]
fn the_fastest_form_that_agrees_is_kept_and_the_report_says_why() {
    let (_folder, path) = product();
    let config = config(Optimization::default());
    // Original 10, frozen 5, optimized 8.
    let clock = Told::by(|number| took(number, 10, [5, 8]));
    let (mut model, report) = optimized(path.clone(), &config, &[4], &clock);
    assert_eq!(report.chosen, Variant::Frozen);
    let verdicts: Vec<_> = report
        .variants
        .iter()
        .map(|tried| (tried.variant, tried.verdict.clone()))
        .collect();
    assert_eq!(
        verdicts,
        [
            (Variant::Original, Verdict::Slower),
            (Variant::Frozen, Verdict::Chosen),
            (Variant::Optimized, Verdict::Slower)
        ]
    );
    let times: Vec<_> = report
        .variants
        .iter()
        .map(|tried| tried.times[0].took.as_micros())
        .collect();
    assert_eq!((times, report.variants[0].times[0].rows), (vec![10, 5, 8], 4));
    for tried in &report.variants[1..] {
        let found = tried.difference.unwrap();
        assert!(found.relative <= 1e-5 && tried.tolerance == Some(1e-5), "{tried:?}");
    }
    let (mut plain, _) = optimized(path, &self::config(off()), &[4], &SystemClock);
    let worst = answer(model.as_mut(), &config)
        .into_iter()
        .zip(answer(plain.as_mut(), &config))
        .map(|(a, b)| (a - b).abs());
    assert!(worst.fold(0.0, f32::max) <= 1e-5);
    assert!(model.memory_bytes() >= 32, "the weight: {}", model.memory_bytes());
}

fn off() -> Optimization {
    Optimization {
        freeze: Attempt::Off,
        ..Optimization::default()
    }
}

#[test]
fn what_is_not_faster_beyond_noise_is_not_kept() {
    let (_folder, path) = product();
    let config = config(Optimization::default());
    let clock = Told::by(|number| took(number, 1_000, [980, 1_010]));
    let (_, report) = optimized(path.clone(), &config, &[4], &clock);
    assert_eq!(report.chosen, Variant::Original);
    assert_eq!(report.variants[0].verdict, Verdict::Chosen);
    assert!(
        report.variants[1..]
            .iter()
            .all(|tried| tried.verdict == Verdict::Slower)
    );
    // Twice as fast on the first sample, a tenth slower on the second.
    let clock = Told::by(|number| match ended(number, 2) {
        None => 0,
        Some((_, _, 0)) => 1_000,
        Some((_, 0, _)) => 500,
        Some(_) => 1_100,
    });
    let (_, report) = optimized(path, &config, &[1, 4], &clock);
    assert_eq!(report.chosen, Variant::Original, "{report:?}");
    assert_eq!(report.variants[1].times.len(), 2, "{report:?}");
}

#[test]
fn a_form_that_differs_by_more_than_the_tolerance_is_not_kept() {
    let (_folder, path) = product();
    let strict = Optimization {
        freeze: Attempt::Off,
        precision: Precision::Bf16,
        tolerance: Some(1e-7),
    };
    let (_, report) = optimized(path.clone(), &config(strict), &[1, 8], &SystemClock);
    assert_eq!((report.chosen, report.variants.len()), (Variant::Original, 2));
    let tried = &report.variants[1];
    assert_eq!(
        (tried.variant, &tried.verdict, tried.tolerance),
        (Variant::Bf16, &Verdict::Differs, Some(1e-7))
    );
    assert!(tried.difference.unwrap().relative > 1e-7, "{tried:?}");
    // With its own tolerance it agrees, and gives what the configuration says.
    for precision in [Precision::Bf16, Precision::Fp16] {
        let own = Optimization {
            precision,
            tolerance: None,
            ..strict
        };
        let clock = Told::by(|number| took(number, 10, [1, 1]));
        let config = config(own);
        let (mut model, report) = optimized(path.clone(), &config, &[4], &clock);
        assert_ne!(report.chosen, Variant::Original, "{report:?}");
        let (mut plain, _) = optimized(path.clone(), &self::config(off()), &[4], &SystemClock);
        let pairs = answer(model.as_mut(), &config)
            .into_iter()
            .zip(answer(plain.as_mut(), &config));
        let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst > 0.0 && worst <= 3e-2, "{worst}");
    }
}

#[test]
fn whole_numbers_of_a_module_stay_such_in_another_precision() {
    let config = ModelConfig {
        input: vec![spec("x", DataType::Fp32, &[4])],
        output: vec![spec("y", DataType::Fp32, &[4])],
        ..config(Optimization {
            freeze: Attempt::Off,
            precision: Precision::Bf16,
            tolerance: None,
        })
    };
    let backend = TorchBackend::new(TorchOptions::default());
    let path = crate::conformance_tests::made("reordered", "pt");
    let mut model = backend
        .load(&load_spec(Some(path), config.clone()), DeviceId::cpu(0))
        .unwrap();
    let data = raw(&[0.0, 1.0, 2.0, 3.0]);
    let sample = BatchInputs {
        rows: 1,
        inputs: vec![BatchInput {
            spec: &config.input[0],
            shape: Shape::from_slice(&[1, 4]),
            parts: vec![&data],
        }],
        parameters: None,
    };
    model.optimize(&[sample], &Told::by(|number| took(number, 10, [1, 1])));
    assert_eq!(model.report().chosen, Variant::Bf16, "{:?}", model.report());
}

#[test]
fn nothing_is_tried_where_the_configuration_says_so() {
    let (_folder, path) = product();
    let clock = Told::by(|_| panic!("nothing is to be measured"));
    let (_, report) = optimized(path, &config(off()), &[1], &clock);
    assert!(report.variants.is_empty() && report.chosen == Variant::Original);
}

#[test]
fn a_module_that_draws_numbers_is_left_as_it_is() {
    let (_folder, path) = scripted("x: Tensor", "Tensor", "    return torch.add(x, torch.rand_like(x))\n");
    let config = ModelConfig {
        output: vec![spec("y", DataType::Fp32, &[2])],
        ..config(Optimization::default())
    };
    let (mut model, report) = optimized(path, &config, &[2], &SystemClock);
    assert_eq!(report.chosen, Variant::Original);
    assert!(report.remark.contains("outputs change from run to run"), "{report:?}");
    assert_eq!(answer(model.as_mut(), &config).len(), 6);
}

#[test]
fn a_module_that_fails_on_the_samples_is_left_as_it_is() {
    let (_folder, path) = scripted("x: Tensor", "Tensor", "    return torch.mm(x, x)\n");
    let config = ModelConfig {
        output: vec![spec("y", DataType::Fp32, &[2])],
        ..config(Optimization::default())
    };
    let (_, report) = optimized(path, &config, &[3], &SystemClock);
    assert!(
        report.remark.contains("not compared") && report.remark.contains("shapes cannot be multiplied"),
        "{report:?}"
    );
}

#[test]
fn a_version_that_comes_back_is_not_measured_again() {
    let (_folder, path) = product();
    let config = config(Optimization::default());
    let backend = TorchBackend::new(TorchOptions::default());
    let load = || {
        backend
            .load(&load_spec(Some(path.clone()), config.clone()), DeviceId::cpu(0))
            .unwrap()
    };
    let clock = Told::by(|number| took(number, 10, [5, 8]));
    let mut first = load();
    with_samples(&config, &[4], |samples| first.optimize(samples, &clock));
    let mut again = load();
    assert_eq!(
        again.report(),
        first.report(),
        "in its form from the beginning, and not made beside another"
    );
    let never = Told::by(|_| panic!("nothing is to be measured"));
    with_samples(&config, &[4], |samples| again.optimize(samples, &never));
    assert_eq!(again.report(), first.report());
    assert_eq!(again.report().chosen, Variant::Frozen);
    assert_eq!(answer(again.as_mut(), &config), answer(first.as_mut(), &config));
}

#[test]
fn what_a_bad_moment_came_to_is_measured_again() {
    let (_folder, path) = product();
    let config = config(Optimization::default());
    let backend = TorchBackend::new(TorchOptions::default());
    let load = || {
        backend
            .load(&load_spec(Some(path.clone()), config.clone()), DeviceId::cpu(0))
            .unwrap()
    };
    // All the time is gone when the first form asks whether there is any.
    let late = Told::by(|number| if number == 1 { 40_000_000 } else { 0 });
    let mut first = load();
    with_samples(&config, &[4], |samples| first.optimize(samples, &late));
    let verdicts = first.report().variants;
    assert!(
        matches!(&verdicts[1].verdict, Verdict::Failed(why) if why.contains("no time left")),
        "{verdicts:?}"
    );
    let mut again = load();
    let clock = Told::by(|number| took(number, 10, [5, 8]));
    with_samples(&config, &[4], |samples| again.optimize(samples, &clock));
    assert_eq!(again.report().chosen, Variant::Frozen);
}

#[test]
fn outputs_that_hold_no_finite_value_settle_nothing() {
    let (_folder, path) = scripted("x: Tensor", "Tensor", "    return torch.mul(x, float(\"nan\"))\n");
    let config = ModelConfig {
        output: vec![spec("y", DataType::Fp32, &[2])],
        ..config(Optimization::default())
    };
    let (_, report) = optimized(path, &config, &[2], &SystemClock);
    assert_eq!(report.chosen, Variant::Original);
    assert!(report.remark.contains("'y' has no finite value"), "{report:?}");
}

/// Memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

#[test]
fn one_form_at_a_time_is_in_memory_and_none_that_was_not_chosen_stays() {
    // 64 MiB of weights, which no form shares with another.
    let side = 4_096;
    let weight = Tensor::ones([side, side], (Kind::Float, Device::Cpu));
    let (_folder, path) = traced(&[Tensor::ones([1, side], (Kind::Float, Device::Cpu))], &mut |inputs| {
        vec![inputs[0].matmul(&weight)]
    });
    drop(weight);
    let wide = |name: &str| spec(name, DataType::Fp32, &[side]);
    let config = ModelConfig {
        input: vec![wide("x")],
        output: vec![wide("y")],
        ..config(Optimization {
            precision: Precision::Bf16,
            ..Optimization::default()
        })
    };
    let backend = TorchBackend::new(TorchOptions::default());
    let mut model = backend
        .load(&load_spec(Some(path), config.clone()), DeviceId::cpu(0))
        .unwrap();
    let (weights, before) = (64 * 1024 * 1024, resident());
    let data = raw(&vec![1.0; usize::try_from(side).unwrap()]);
    let sample = BatchInputs {
        rows: 1,
        inputs: vec![BatchInput {
            spec: &config.input[0],
            shape: Shape::from_slice(&[1, 4_096]),
            parts: vec![&data],
        }],
        parameters: None,
    };
    // None is faster, so the original stays.
    model.optimize(&[sample], &Told::by(|_| 10));
    assert_eq!(model.report().chosen, Variant::Original);
    assert_eq!(model.report().variants.len(), 4);
    // Other tests of the process hold something for a moment; a form that stays holds half of the weights or more.
    let settled = (0..100).any(|_| {
        crate::release::memory(mesh_types::DeviceKind::Cpu);
        std::thread::yield_now();
        resident() < before + weights / 4
    });
    assert!(settled, "{before} and then {} bytes", resident());
    assert!((weights..weights + 1_000_000).contains(&model.memory_bytes()));
}

#[test]
fn what_a_load_takes_for_a_time_is_foreseen_until_it_is_known_what_runs() {
    let (_folder, path) = product();
    let file = std::fs::metadata(&path).unwrap().len();
    let form = file + crate::module::CODE_BYTES;
    for (forms, passing) in [
        // The original stays: a load that knows that makes no other form.
        ([20, 20], Passing::default()),
        // A form is made of what is loaded.
        (
            [5, 8],
            Passing {
                load: form,
                optimize: 0,
            },
        ),
    ] {
        let backend = TorchBackend::new(TorchOptions::default());
        let clock = if forms[0] == 20 {
            Told::by(|number| took(number, 10, [20, 20]))
        } else {
            Told::by(|number| took(number, 10, [5, 8]))
        };
        let of = |optimization| load_spec(Some(path.clone()), config(optimization));
        let spec = of(Optimization::default());
        let unknown = Passing {
            load: 0,
            optimize: 2 * form,
        };
        assert_eq!(backend.passing(&spec, DeviceId::cpu(0)), unknown);
        assert_eq!(backend.passing(&of(off()), DeviceId::cpu(0)), Passing::default());
        let mut model = backend.load(&spec, DeviceId::cpu(0)).unwrap();
        with_samples(&spec.config, &[4], |samples| model.optimize(samples, &clock));
        assert_eq!(backend.passing(&spec, DeviceId::cpu(0)), passing);
        assert_eq!(backend.passing(&spec, DeviceId::cpu(1)), unknown);
        let package = LoadSpec {
            format: mesh_types::ArtifactFormat::TorchAoti,
            ..spec.clone()
        };
        assert_eq!(backend.passing(&package, DeviceId::cpu(1)), Passing::default());
        assert_eq!(backend.estimate(&spec), Some(form));
    }
}

#[test]
fn a_module_for_whose_forms_there_is_no_memory_says_so_and_is_measured_when_it_comes_back() {
    let (_folder, path) = product();
    let backend = TorchBackend::new(TorchOptions::default());
    let spec = load_spec(Some(path.clone()), config(Optimization::default()));
    let mut model = backend.load(&spec, DeviceId::cpu(0)).unwrap();
    model.leave_as_it_is("no room");
    assert_eq!(
        (model.report().remark.as_str(), model.report().chosen),
        ("no room", Variant::Original)
    );
    let mut again = backend.load(&spec, DeviceId::cpu(0)).unwrap();
    assert_eq!(again.report().remark, "");
    let clock = Told::by(|number| took(number, 10, [5, 8]));
    with_samples(&spec.config, &[4], |samples| again.optimize(samples, &clock));
    again.leave_as_it_is("no room");
    assert_eq!(
        (again.report().remark.as_str(), again.report().chosen),
        ("", Variant::Frozen)
    );
    // Where nothing was to be tried, nothing is said.
    let spec = load_spec(Some(path), config(off()));
    let mut plain = backend.load(&spec, DeviceId::cpu(0)).unwrap();
    plain.leave_as_it_is("no room");
    assert_eq!(plain.report().remark, "");
}
