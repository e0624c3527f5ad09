//! TorchScript through the whole mesh: uploaded, loaded, batched, replaced.

use std::path::{Path, PathBuf};

use mesh_harness::{Mesh, MeshOptions, vector};
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};

/// Writes a model that gives back `x * factor` for rows of three numbers.
fn trace(folder: &Path, name: &str, factor: f64) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    let mut forward = |inputs: &[Tensor]| inputs.iter().map(|x| x * factor).collect();
    let example = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
    CModule::create_by_tracing("Scale", "forward", &[example], &mut forward)?.save(&path)?;
    Ok(path)
}

fn rows(data: &[f64]) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [data.len() / 3, 3], "data": data}]})
}

#[tokio::test]
async fn a_traced_model_answers_before_and_after_a_restart_and_two_versions_differ() -> anyhow::Result<()> {
    let models = tempfile::tempdir()?;
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    let config = vector(3, 3);
    for (name, factor) in [("two.pt", 2.0), ("three.pt", 3.0)] {
        let file = trace(models.path(), name, factor)?;
        admin.publish_torchscript("acme", "scale", &file, &config).await?;
    }
    caller.until_answers("scale/versions/2", &rows(&[0.0; 3])).await?;
    let two = caller.infer("scale/versions/1", &rows(&[1.0, 2.0, 3.0])).await?.ok()?;
    assert_eq!(two.numbers(0)?, [2.0, 4.0, 6.0]);
    let three = caller
        .infer("scale/versions/2", &rows(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
        .await?
        .ok()?;
    assert_eq!(three.numbers(0)?, [3.0, 6.0, 9.0, 12.0, 15.0, 18.0]);
    let key = caller.key().to_owned();
    let data = mesh.stop().await?;
    let again = Mesh::start_with(MeshOptions {
        data: Some(data),
        ..MeshOptions::default()
    })
    .await?;
    let answer = again
        .caller(&key)
        .infer("scale/versions/1", &rows(&[1.0, 2.0, 3.0]))
        .await?
        .ok()?;
    assert_eq!(answer.numbers(0)?, [2.0, 4.0, 6.0]);
    Ok(())
}

#[tokio::test]
async fn a_file_that_is_no_model_is_unavailable_and_says_so() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    let artifact = admin.upload(b"not a model".to_vec()).await?;
    let spec = json!({"format": "torchscript", "artifact": artifact, "config": vector(3, 3)});
    let version = admin.publish_only("acme", "broken", &spec).await?;
    let failed = admin.until_state("acme", "broken", version, "FAILED").await?;
    let reason = failed["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("failed to load"), "{reason}");
    assert!(!reason.contains("/tmp"), "no path is shown: {reason}");
    let answer = caller.infer("broken", &rows(&[1.0, 2.0, 3.0])).await?;
    assert_eq!(answer.status.as_u16(), 503);
    Ok(())
}
