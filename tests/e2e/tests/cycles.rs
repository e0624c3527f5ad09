//! Models of libtorch that come and go through the whole mesh leave its memory as it was.

use std::path::{Path, PathBuf};

use anyhow::Context;
use mesh_backend_torch::host_heap;
use mesh_client::Input;
use mesh_harness::{Mesh, MeshOptions, vector};
use mesh_node::{ServeOptions, Text};
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};

/// A model's weights are a square of so many numbers a side: 1 MiB, so that 200 that leak would double what the process takes.
const SIDE: i64 = 512;
/// Loads, each of which sends another model away.
const CYCLES: usize = 200;
/// Of these, the first, in which caches fill and the allocators get what they keep.
const SETTLING: usize = 10;
/// Cycles, first and last ones, of whose memory the least is compared.
const LOOKED_AT: usize = 30;
/// What libtorch may have more of in the end, in bytes: less than one model's weights for each fifty loads.
const MORE: u64 = 1 << 20;

/// As the program has it: what libtorch allocates is then all that the C library's allocator has, and can be told to the byte.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Writes a model that gives back `factor * x`, by way of a full matrix.
fn trace(folder: &Path, name: &str, factor: f64) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    let weights = Tensor::eye(SIDE, (Kind::Float, Device::Cpu)) * factor;
    let mut forward = |inputs: &[Tensor]| inputs.iter().map(|x| x.matmul(&weights)).collect();
    let example = Tensor::zeros([2, SIDE], (Kind::Float, Device::Cpu));
    CModule::create_by_tracing("Wide", "forward", &[example], &mut forward)?.save(&path)?;
    Ok(path)
}

fn config() -> Value {
    let mut config = vector(SIDE, SIDE);
    config["max_batch_size"] = json!(2);
    config["residency"] = json!({"load": "ON_DEMAND"});
    config
}

/// Memory of this process, and so of the mesh in it, that is in use: in bytes.
fn resident() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(pages * 4_096)
}

#[tokio::test]
async fn two_hundred_loads_of_models_that_send_each_other_away_leave_memory_as_it_was() -> anyhow::Result<()> {
    let models = tempfile::tempdir()?;
    let serve = ServeOptions {
        // Room for one of the two.
        cpu_memory: Some(Text("1800KiB".to_owned())),
        ..ServeOptions::default()
    };
    let mesh = Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    let names = ["two", "three"];
    for (name, factor) in names.into_iter().zip([2.0, 3.0]) {
        let file = trace(models.path(), name, factor)?;
        let artifact = admin.upload(std::fs::read(&file)?).await?;
        let spec = json!({"format": "torchscript", "artifact": artifact, "config": config()});
        admin.publish_only("acme", name, &spec).await?;
        admin.until_state("acme", name, 1, "STANDBY").await?;
    }
    let client = caller.client()?;
    let mut numbers = vec![0.0_f32; usize::try_from(SIDE)?];
    numbers[1] = 5.0;
    let (mut taken, mut in_use) = (Vec::with_capacity(CYCLES), Vec::with_capacity(CYCLES));
    for cycle in 0..CYCLES {
        let (name, wanted) = if cycle % 2 == 0 { ("two", 10.0) } else { ("three", 15.0) };
        let x = Input::new("x", [1, SIDE.try_into()?], &numbers)?;
        let answer = client.model(name).infer([x]).await?;
        let row = answer.output("y")?.values::<f32>()?;
        assert_eq!((row[0], row[1]), (0.0, wanted), "cycle {cycle}");
        taken.push(resident()?);
        in_use.push(host_heap().context("the allocator tells nothing")?.in_use);
    }
    let metrics = mesh.metrics().await?;
    let loads: f64 = names
        .iter()
        .map(|name| {
            let model = format!("acme/{name}/1");
            mesh_e2e::counted(&metrics, "mesh_model_evictions_total", &[&model])
        })
        .sum();
    assert!(loads >= (CYCLES - 1) as f64, "{loads} models left memory");
    // At one moment there also is what has been let go of and not yet given back: the least of some moments has little of it.
    let least = |cycles: &[u64]| cycles.iter().copied().min().unwrap_or_default();
    let first_and_last = |cycles: &[u64]| {
        let settled = &cycles[SETTLING..SETTLING + LOOKED_AT];
        (least(settled), least(&cycles[CYCLES - LOOKED_AT..]))
    };
    let (settled, after) = first_and_last(&in_use);
    assert!(
        after < settled + MORE,
        "{settled} and then {after} bytes of libtorch's are in use"
    );
    let (settled, after) = first_and_last(&taken);
    assert!(
        after * 100 < settled * 103,
        "{settled} and then {after} bytes are resident"
    );
    Ok(())
}
