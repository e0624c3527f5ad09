//! libtorch's own floor: rows per second of a model with nothing around it.

use std::{
    path::PathBuf,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use clap::Args;
use serde::Serialize;
use tch::{CModule, Device, Kind, Tensor};

use crate::package::Package;

/// What to measure.
#[derive(Debug, Clone, Args)]
pub(crate) struct FloorArguments {
    /// The TorchScript file, or the package (`.pt2`).
    #[arg(long)]
    model: PathBuf,
    /// Extents of one row that a package gives.
    #[arg(long, value_delimiter = ',')]
    output_shape: Vec<i64>,
    /// Extents of one row, such as 64,256.
    #[arg(long, value_delimiter = ',', required = true)]
    shape: Vec<i64>,
    /// Batch sizes to try.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 8, 16, 32, 64])]
    batches: Vec<i64>,
    /// Threads within one operation to try.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    threads: Vec<u16>,
    /// Copies of the model run side by side to try.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2])]
    instances: Vec<u16>,
    /// Seconds for each combination.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// One combination.
#[derive(Debug, Clone, Serialize)]
struct Measured {
    batch: i64,
    intra_op_threads: u16,
    instances: u16,
    rows_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Floor {
    best: Measured,
    all: Vec<Measured>,
}

/// Measures every combination and prints the best first.
pub(crate) fn run(arguments: &FloorArguments) -> anyhow::Result<()> {
    let duration = Duration::try_from_secs_f64(arguments.seconds).context("--seconds is a positive number")?;
    let mut all = Vec::new();
    for &intra_op_threads in &arguments.threads {
        for &instances in &arguments.instances {
            for &batch in &arguments.batches {
                let setting = Setting {
                    batch,
                    intra_op_threads,
                    instances,
                    duration,
                };
                all.push(measure(arguments, setting)?);
            }
        }
    }
    let best = all
        .iter()
        .max_by(|a, b| a.rows_per_second.total_cmp(&b.rows_per_second));
    let best = best
        .cloned()
        .context("nothing to measure: give at least one batch size, thread count and instance count")?;
    let text = serde_json::to_string(&Floor { best, all })?;
    #[expect(clippy::print_stdout, reason = "the command's answer")]
    {
        println!("{text}");
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct Setting {
    batch: i64,
    intra_op_threads: u16,
    instances: u16,
    duration: Duration,
}

fn measure(arguments: &FloorArguments, setting: Setting) -> anyhow::Result<Measured> {
    let start = Arc::new(Barrier::new(usize::from(setting.instances)));
    let rates: anyhow::Result<Vec<f64>> = std::thread::scope(|scope| {
        let one = |_| {
            let start = start.clone();
            scope.spawn(move || instance(arguments, setting, &start))
        };
        let threads: Vec<_> = (0..setting.instances).map(one).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a measuring thread panicked"))?)
            .collect()
    });
    let Setting {
        batch,
        intra_op_threads,
        instances,
        ..
    } = setting;
    Ok(Measured {
        batch,
        intra_op_threads,
        instances,
        rows_per_second: rates?.iter().sum(),
    })
}

fn instance(arguments: &FloorArguments, setting: Setting, start: &Barrier) -> anyhow::Result<f64> {
    tch::set_num_threads(i32::from(setting.intra_op_threads));
    let _no_grad = tch::no_grad_guard();
    let prepared = prepare(arguments, setting.batch);
    // Every instance comes here, also one that failed: the others wait for it.
    start.wait();
    let mut alone = prepared?;
    let began = Instant::now();
    let mut rows = 0.0;
    #[expect(clippy::cast_precision_loss, reason = "batch sizes are small")]
    while began.elapsed() < setting.duration {
        alone.call()?;
        rows += setting.batch as f64;
    }
    Ok(rows / began.elapsed().as_secs_f64())
}

/// A model with nothing around it.
enum Alone {
    Script(CModule, Tensor),
    Package(Package),
}

impl Alone {
    fn call(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Script(module, input) => drop(module.forward_ts(&[&*input])?),
            Self::Package(package) => package.call()?,
        }
        Ok(())
    }
}

fn prepare(arguments: &FloorArguments, batch: i64) -> anyhow::Result<Alone> {
    let (model, shape) = (&arguments.model, &arguments.shape);
    let mut alone = if model.extension().is_some_and(|end| end == "pt2") {
        Alone::Package(Package::open(model, shape, &arguments.output_shape, batch)?)
    } else {
        let module = CModule::load(model).with_context(|| format!("cannot load {}", model.display()))?;
        let input = Tensor::randn([&[batch], shape.as_slice()].concat(), (Kind::Float, Device::Cpu));
        Alone::Script(module, input)
    };
    // The first calls profile and compile.
    for _ in 0..5 {
        alone.call()?;
    }
    Ok(alone)
}
