//! Many models of libtorch in little memory: what the process takes stays within what the mesh was given, and everybody is answered.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context;
use mesh_backend_torch::host_heap;
use mesh_client::{Client, Input};
use mesh_harness::{Admin, Mesh, MeshOptions, vector};
use mesh_node::{ServeOptions, Text};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};

const TENANTS: usize = 8;
/// Of each tenant: 200 of all together.
const MODELS: usize = 25;
/// Models that the budget is for.
const ROOM: u64 = 20;
/// Requests of each tenant.
const STEPS: usize = 60;
/// Numbers that a model takes and gives; between them half as many.
const WIDE: i64 = 512;
const NARROW: i64 = WIDE / 2;
/// Both matrices of one model.
const WEIGHTS: u64 = 1 << 20;
/// What the mesh counts for its code, and a little more for batches.
const CODE: u64 = 150 << 10;

/// How often it is looked at what is in use.
const EVERY: Duration = Duration::from_micros(500);

/// As the program has it: what the C library's allocator hands out is then libtorch's alone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes that libtorch and what belongs to it have of the host's memory.
fn in_use() -> anyhow::Result<u64> {
    Ok(host_heap().context("the allocator tells nothing")?.in_use)
}

/// Looks at what is in use all the time, and keeps the most.
struct Watch {
    most: Arc<AtomicU64>,
    stop: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn begin() -> Self {
        let (most, (stop, stopped)) = (Arc::<AtomicU64>::default(), mpsc::channel());
        let seen = most.clone();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                seen.fetch_max(in_use().unwrap_or(u64::MAX), Ordering::AcqRel);
            }
        });
        Self { most, stop, thread }
    }

    fn end(self) -> anyhow::Result<u64> {
        drop(self.stop);
        self.thread.join().ok().context("the watch has panicked")?;
        Ok(self.most.load(Ordering::Acquire))
    }
}

/// A file whose model gives back `factor * x` for what lies in the first half of `x`, and zeros for the rest, by two full matrices.
fn trace(path: &Path, factor: f64) -> anyhow::Result<Vec<u8>> {
    let on = (Kind::Float, Device::Cpu);
    let narrow = Tensor::eye(WIDE, on).narrow(1, 0, NARROW).contiguous();
    let wide = (Tensor::eye(WIDE, on).narrow(0, 0, NARROW) * factor).contiguous();
    let mut forward = |inputs: &[Tensor]| inputs.iter().map(|x| x.matmul(&narrow).relu().matmul(&wide)).collect();
    let example = Tensor::zeros([2, WIDE], on);
    CModule::create_by_tracing("Hourglass", "forward", &[example], &mut forward)?.save(path)?;
    Ok(std::fs::read(path)?)
}

async fn publish(admin: &Admin, tenant: &str, model: &str, file: Vec<u8>) -> anyhow::Result<Value> {
    let artifact = admin.upload(file).await?;
    let mut config = vector(WIDE, WIDE);
    config["max_batch_size"] = json!(2);
    config["residency"] = json!({"load": "ON_DEMAND"});
    let spec = json!({"format": "torchscript", "artifact": artifact, "config": config});
    admin.publish_only(tenant, model, &spec).await?;
    Ok(spec)
}

/// What a model of a tenant multiplies by: no two have the same.
fn factor(tenant: usize, model: usize) -> f32 {
    (2 + tenant * MODELS + model) as f32
}

/// Asks once; the answer must be the model's own.
async fn ask(client: &Client, model: &str, factor: f32, x: f32) -> anyhow::Result<()> {
    let mut numbers = vec![0.0_f32; usize::try_from(WIDE)?];
    numbers[1] = x;
    let input = Input::new("x", [1, WIDE.try_into()?], &numbers)?;
    let answer = client.model(model).infer([input]).await?;
    let row = answer.output("y")?.values::<f32>()?;
    anyhow::ensure!(
        (row[0], row[1], row[2]) == (0.0, factor * x, 0.0),
        "{model} gives {:?} for {x}",
        &row[..3]
    );
    Ok(())
}

/// Asks for models of the tenant's, mostly the same one or the next, now and then another.
async fn walk(client: Client, tenant: usize) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(tenant as u64);
    let mut at = 0;
    for step in 0..STEPS {
        at = match random.random_range(0..10) {
            0..2 => random.random_range(0..MODELS),
            2..6 => (at + 1) % MODELS,
            _ => at,
        };
        let asked = ask(&client, &format!("m-{at}"), factor(tenant, at), (1 + step) as f32).await;
        asked.with_context(|| format!("step {step} of tenant {tenant}"))?;
    }
    Ok(())
}

fn figures(device: &Value, name: &str) -> Vec<u64> {
    let models = device["models"].as_array().into_iter().flatten();
    models.filter_map(|model| model[name].as_u64()).collect()
}

/// Publishes a model, has it answered once, and unloads it again: what libtorch takes once for all models is there then.
async fn come_and_go(admin: &Admin, client: &Client, file: Vec<u8>) -> anyhow::Result<()> {
    let mut spec = publish(admin, "t0", "first", file).await?;
    admin.until_state("t0", "first", 1, "STANDBY").await?;
    ask(client, "first", 1.0, 1.0).await?;
    spec["unloaded"] = json!(true);
    let metadata = json!({"tenant": "t0", "name": "first/1"});
    let unloaded = json!({"apiVersion": "mesh/v1", "kind": "ModelVersion", "metadata": metadata, "spec": spec});
    admin.apply(&[unloaded]).await?;
    admin.until_gone("t0", "first", 1).await
}

#[tokio::test]
async fn a_walk_over_two_hundred_models_stays_within_the_memory_for_twenty() -> anyhow::Result<()> {
    let budget = ROOM * (WEIGHTS + CODE);
    let serve = ServeOptions {
        cpu_memory: Some(Text(budget.to_string())),
        ..ServeOptions::default()
    };
    let mesh = Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await?;
    let admin = mesh.admin()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.pt");
    let mut clients = Vec::new();
    for tenant in 0..TENANTS {
        let name = format!("t{tenant}");
        clients.push(mesh.tenant(&name).await?.client()?);
        for model in 0..MODELS {
            let file = trace(&path, f64::from(factor(tenant, model)))?;
            publish(admin, &name, &format!("m-{model}"), file).await?;
        }
    }
    come_and_go(admin, &clients[0], trace(&path, 1.0)?).await?;
    let (start, last) = (in_use()?, clients[0].clone());
    let watch = Watch::begin();
    let walks = clients.into_iter().enumerate();
    let walks = walks.map(|(tenant, client)| walk(client, tenant));
    futures::future::try_join_all(walks).await?;
    // Once it is known of each what it takes, as many are there as the budget is for.
    for _ in 0..4 {
        for model in 0..ROOM as usize {
            ask(&last, &format!("m-{model}"), factor(0, model), 1.0).await?;
        }
    }
    let most = watch.end()?;
    let device = admin.get("/devices").await?[0].clone();
    let peak = figures(&device, "peak_bytes").into_iter().max().context("no peak")?;
    let there = figures(&device, "memory_bytes");
    println!(
        "{start} bytes at the start and {most} at most, with a budget of {budget} and batches of {peak}; {} models of {:?} in the end",
        there.len(),
        there.first()
    );
    assert!(
        most <= start + budget + peak,
        "{start} bytes were in use at the start and {most} at most, {} more than the budget of {budget} and one batch of {peak}",
        most.saturating_sub(start + budget + peak)
    );
    // Otherwise the budget would be kept to by wasting it, or the walk would not have left it.
    assert!(there.len() as u64 >= ROOM - 2, "{} models are in memory", there.len());
    let metrics = mesh.metrics().await?;
    let evictions = mesh_e2e::counted(&metrics, "mesh_model_evictions_total", &[]);
    assert!(evictions >= 100.0, "{evictions} models left memory");
    Ok(())
}
