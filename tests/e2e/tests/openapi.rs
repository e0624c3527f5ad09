//! The OpenAPI documents hold on a running mesh: requests made from them get the statuses and bodies that they say, and their
//! examples are answered.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use mesh_e2e::python::{conformance, python, run};
use mesh_harness::{Answer, Caller, Mesh, identity, vector};
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};

/// Requests of each operation and kind; with the seed always the same ones.
const EXAMPLES: &str = "20";
const SEED: &str = "7";

/// A model of two inputs of different datatypes.
fn mixed() -> Value {
    let text = |name: &str| json!({"name": name, "datatype": "BYTES", "dims": [2]});
    let number = |name: &str| json!({"name": name, "datatype": "INT8", "dims": [2, -1]});
    let mut label = number("numbers-out");
    label["labels"] = json!(["cat", "dog"]);
    let config = json!({
        "max_batch_size": 4,
        "input": [text("words"), number("numbers")],
        "output": [text("words-out"), label],
        "parameters": {"builtin": "identity"},
    });
    json!({"format": "builtin", "config": config})
}

/// A TorchScript model that doubles rows of three numbers.
fn doubled(folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join("double.pt");
    let mut forward = |inputs: &[Tensor]| inputs.iter().map(|x| x * 2.0).collect();
    let example = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
    CModule::create_by_tracing("Double", "forward", &[example], &mut forward)?.save(&path)?;
    Ok(path)
}

async fn mesh_of_three(folder: &Path) -> anyhow::Result<(Mesh, Caller)> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "plain", &identity()).await?;
    admin.model("acme", "plain", json!({"labels": {"stable": 1}})).await?;
    admin.publish("acme", "mixed", &mixed()).await?;
    let file = doubled(folder)?;
    admin.publish_torchscript("acme", "torch", &file, &vector(3, 3)).await?;
    for model in ["plain", "mixed", "torch"] {
        caller.until_ready(model).await?;
    }
    Ok((mesh, caller))
}

/// How many requests for a model were answered well.
async fn answered(caller: &Caller, model: &str) -> anyhow::Result<u64> {
    let statistics = Answer::of(caller.get(&format!("/v2/models/{model}/stats")))
        .await?
        .ok()?
        .json()?;
    let count = &statistics["model_stats"][0]["inference_stats"]["success"]["count"];
    count.as_u64().context("no count")
}

/// Requests made from a document by somebody else's generator; each answer is held against it.
fn tried(python: &Path, base: &str, document: &str, key: &str) -> anyhow::Result<String> {
    let url = format!("{base}{document}");
    run(Command::new(python.with_file_name("schemathesis"))
        .arg("--config-file")
        .arg(conformance().join("schemathesis.toml"))
        .args(["run", &url, "--url", base, "--seed", SEED, "--max-examples", EXAMPLES])
        .args([
            "--phases",
            "examples,coverage,fuzzing",
            "--continue-on-failure",
            "--warnings",
            "off",
        ])
        .args(["--generation-database", "none", "--request-timeout", "20"])
        .args(["-H", &format!("Authorization: Bearer {key}")])
        .current_dir(env!("CARGO_TARGET_TMPDIR"))
        .env("NO_COLOR", "1"))
}

#[tokio::test]
async fn what_the_documents_say_holds_for_requests_made_from_them() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mesh, caller) = mesh_of_three(folder.path()).await?;
    let (base, key) = (format!("http://{}", mesh.addresses().http), caller.key().to_owned());
    let all = tokio::task::spawn_blocking(move || {
        let python = python(Path::new(env!("CARGO_TARGET_TMPDIR")), "requirements-openapi.txt")?;
        for document in ["", "/models/mixed", "/models/torch/versions/1"] {
            let told = tried(&python, &base, &format!("/v2{document}/openapi.json"), &key)?;
            println!("{told}");
            ensure!(told.contains(" passed"), "{document}: {told}");
        }
        anyhow::Ok(())
    });
    all.await??;
    for model in ["mixed", "torch"] {
        let answered = answered(&caller, model).await?;
        ensure!(answered > 0, "no request for {model} was one that it takes");
    }
    Ok(())
}

#[tokio::test]
async fn the_examples_of_models_are_answered_and_others_see_no_document() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (mesh, caller) = mesh_of_three(folder.path()).await?;
    let other = mesh.tenant("globex").await?;
    for model in ["plain", "mixed", "torch"] {
        let path = format!("/v2/models/{model}/openapi.json");
        let document = Answer::of(caller.get(&path)).await?.ok()?.json()?;
        let infer = &document["paths"][format!("/v2/models/{model}/infer")]["post"];
        let example = &infer["requestBody"]["content"]["application/json"]["example"];
        let answer = caller.infer(model, example).await?;
        ensure!(answer.status == 200, "{model}: {example}: {}", answer.error()?);
        let predict = format!("/v1/models/{model}:predict");
        let example = &document["paths"][&predict]["post"]["requestBody"]["content"]["application/json"]["example"];
        let answer = Answer::of(caller.post(&predict).json(example)).await?;
        ensure!(answer.status == 200, "{model}: {example}: {}", answer.error()?);
        let foreign = Answer::of(other.get(&path)).await?;
        let missing = Answer::of(other.get("/v2/models/nothing/openapi.json")).await?;
        assert_eq!(foreign.status, 404);
        assert_eq!(
            foreign.error()?.replace(model, ""),
            missing.error()?.replace("nothing", "")
        );
    }
    let labels = Answer::of(caller.get("/v2/models/mixed/openapi.json"))
        .await?
        .ok()?
        .json()?;
    let described = labels["components"]["schemas"]["Output1"]["description"]
        .as_str()
        .unwrap_or_default();
    ensure!(described.contains("cat, dog"), "{described}");
    Ok(())
}
