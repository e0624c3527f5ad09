//! Triton model repositories: served as they are, and brought into a mesh that serves.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Parser as _;
use mesh_harness::{Admin, Mesh, MeshOptions, ServeOptions};
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};
use tempfile::TempDir;

/// `x * factor + term` for rows of three numbers.
fn trace(path: &Path, factor: f64, term: f64) -> anyhow::Result<()> {
    fs::create_dir_all(path.parent().context("no folder")?)?;
    let mut forward = |inputs: &[Tensor]| inputs.iter().map(|x| x * factor + term).collect();
    let example = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
    Ok(CModule::create_by_tracing("Line", "forward", &[example], &mut forward)?.save(path)?)
}

const LINE: &str = r#"
platform: "pytorch_libtorch"
max_batch_size: 8
input [ { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
dynamic_batching { max_queue_delay_microseconds: 100 }
model_warmup {
  name: "one"
  inputs { key: "INPUT__0" value: { data_type: TYPE_FP32 dims: [ 3 ] input_data_file: "row" } }
}
"#;

const CHAIN: &str = r#"
name: "chain"
platform: "ensemble"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 3 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "double" model_version: -1
      input_map { key: "INPUT__0" value: "IN" } output_map { key: "OUTPUT__0" value: "doubled" }
    },
    {
      model_name: "shift" model_version: -1
      input_map { key: "INPUT__0" value: "doubled" } output_map { key: "OUTPUT__0" value: "OUT" }
    }
  ]
}
"#;

/// Two traced models, an ensemble of them, and one that cannot run here.
fn repository() -> anyhow::Result<TempDir> {
    let root = tempfile::tempdir()?;
    let path = |name: &str| root.path().join(name);
    for (name, factor, term) in [("double", 2.0, 0.0), ("shift", 1.0, 1.0)] {
        trace(&path(&format!("{name}/1/model.pt")), factor, term)?;
        fs::write(path(&format!("{name}/config.pbtxt")), LINE)?;
        fs::create_dir(path(&format!("{name}/warmup")))?;
        fs::write(path(&format!("{name}/warmup/row")), [0_u8; 12])?;
        fs::write(path(&format!("{name}/labels.txt")), "one\ntwo\nthree\n")?;
    }
    fs::create_dir_all(path("chain/1"))?;
    fs::write(path("chain/config.pbtxt"), CHAIN)?;
    fs::create_dir_all(path("densenet_onnx/1"))?;
    fs::write(
        path("densenet_onnx/config.pbtxt"),
        "name: \"densenet_onnx\"\n\nbackend: \"onnxruntime\"\n",
    )?;
    Ok(root)
}

fn serving(root: &Path) -> MeshOptions {
    MeshOptions {
        serve: ServeOptions {
            model_repository: Some(root.to_path_buf()),
            ..ServeOptions::default()
        },
        ..MeshOptions::default()
    }
}

fn row(input: &str, data: &[f64]) -> Value {
    json!({"inputs": [{"name": input, "datatype": "FP32", "shape": [1, 3], "data": data}]})
}

async fn version(admin: &Admin, name: &str, number: u32) -> anyhow::Result<Value> {
    admin
        .get(&format!("/tenants/default/models/{name}/versions/{number}"))
        .await
}

#[tokio::test]
async fn a_repository_is_served_as_it_is_and_the_next_start_brings_in_what_is_new() -> anyhow::Result<()> {
    let root = repository()?;
    let mesh = Mesh::start_with(serving(root.path())).await?;
    let admin = mesh.admin()?;
    let key = admin.key("default").await?;
    let caller = mesh.caller(&key);
    caller.until_let_in().await?;
    let chained = caller.infer("chain", &row("IN", &[1.0, 2.0, 3.0])).await?.ok()?;
    assert_eq!(chained.numbers(0)?, [3.0, 5.0, 7.0]);
    let doubled = caller
        .infer("double/versions/1", &row("INPUT__0", &[1.0, 2.0, 3.0]))
        .await?
        .ok()?;
    assert_eq!(doubled.numbers(0)?, [2.0, 4.0, 6.0]);
    assert_eq!(
        caller
            .infer("densenet_onnx", &row("x", &[0.0; 3]))
            .await?
            .status
            .as_u16(),
        404
    );
    let first = version(admin, "double", 1).await?;
    let labels = &first["spec"]["config"]["output"][0]["labels"];
    assert_eq!(labels, &json!(["one", "two", "three"]));
    let token = admin.token().to_owned();
    let data = mesh.stop().await?;

    trace(&root.path().join("double/2/model.pt"), 4.0, 0.0)?;
    let again = MeshOptions {
        data: Some(data),
        ..serving(root.path())
    };
    let mesh = Mesh::start_with(again).await?.with_token(&token);
    assert_eq!(
        version(mesh.admin()?, "double", 1).await?,
        first,
        "what is the same was not written again"
    );
    let caller = mesh.caller(&key);
    let answer = caller.infer("double", &row("INPUT__0", &[1.0, 2.0, 3.0])).await?.ok()?;
    assert_eq!(answer.numbers(0)?, [4.0, 8.0, 12.0]);
    let chained = caller.infer("chain", &row("IN", &[1.0, 2.0, 3.0])).await?.ok()?;
    assert_eq!(chained.numbers(0)?, [5.0, 9.0, 13.0]);
    mesh.stop().await.map(drop)
}

#[tokio::test]
async fn what_a_package_says_of_itself_need_not_be_written() -> anyhow::Result<()> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.packages/perceptron.pt2");
    let root = tempfile::tempdir()?;
    let version = root.path().join("perceptron/1");
    fs::create_dir_all(&version)?;
    fs::copy(made, version.join("model.pt2")).context("run `cargo xtask packages`")?;
    let mesh = Mesh::start_with(serving(root.path())).await?;
    let caller = mesh.caller(&mesh.admin()?.key("default").await?);
    caller.until_let_in().await?;
    let metadata = caller
        .get("/v2/models/perceptron")
        .send()
        .await?
        .json::<Value>()
        .await?;
    let input = metadata["inputs"][0].clone();
    assert_eq!(
        (&input["datatype"], &input["shape"]),
        (&json!("FP32"), &json!([-1, 30])),
        "{metadata}"
    );
    // A package does not say what its outputs are, so it was run.
    let output = &metadata["outputs"][0];
    assert_eq!(
        (&output["datatype"], &output["shape"]),
        (&json!("FP32"), &json!([-1, 2]))
    );
    let data = vec![0.5; 60];
    let body = json!({"inputs": [{"name": input["name"], "datatype": "FP32", "shape": [2, 30], "data": data}]});
    let answer = caller.infer("perceptron", &body).await?.ok()?;
    assert_eq!(answer.numbers(0)?.len(), 4);
    mesh.stop().await.map(drop)
}

#[tokio::test]
async fn outputs_that_are_not_written_are_learnt_by_running_the_model() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    trace(&root.path().join("line/1/model.pt"), 2.0, 1.0)?;
    let inputs = "max_batch_size: 4 input [ { name: 'INPUT__0' data_type: TYPE_FP32 dims: [ -1 ] } ]";
    fs::write(root.path().join("line/config.pbtxt"), inputs)?;
    let mesh = Mesh::start_with(serving(root.path())).await?;
    let admin = mesh.admin()?;

    // The same by hand.
    let (file, config) = (root.path().join("line/1/model.pt"), root.path().join("model.yaml"));
    fs::write(
        &config,
        "max_batch_size: 4\ninput: [{name: INPUT__0, datatype: FP32, dims: [-1]}]\n",
    )?;
    let url = format!("http://{}", mesh.addresses().admin);
    let line = [
        "mesh",
        "model",
        "publish",
        "--wait",
        "--tenant",
        "default",
        "--model",
        "published",
        "--config",
    ];
    let paths = [config.display().to_string(), file.display().to_string()];
    let cli = mesh_cli::Cli::try_parse_from(line.into_iter().chain(paths.iter().map(String::as_str)))?;
    let mesh_cli::Command::Model(mesh_cli::ModelCommand::Publish(args)) = cli.command else {
        anyhow::bail!("it is another command")
    };
    let globals = globals(admin, url);
    let published = run(move |terminal| mesh_cli::publish(&args, &globals, &mesh_node::Files, terminal)).await?;
    assert_eq!(published.code, 0, "{}", published.err);
    let found = "found by the model's file: output OUTPUT__0 FP32 [-1]";
    assert!(published.err.contains(found), "{}", published.err);

    let caller = mesh.caller(&admin.key("default").await?);
    caller.until_let_in().await?;
    for model in ["line", "published"] {
        let metadata = caller.get(&format!("/v2/models/{model}")).send().await?;
        let metadata = metadata.json::<Value>().await?;
        let output = json!([{"name": "OUTPUT__0", "datatype": "FP32", "shape": [-1, -1]}]);
        assert_eq!(metadata["outputs"], output, "{model}");
        let answer = caller.infer(model, &row("INPUT__0", &[1.0, 2.0, 3.0])).await?.ok()?;
        assert_eq!(answer.numbers(0)?, [3.0, 5.0, 7.0], "{model}");
    }
    mesh.stop().await.map(drop)
}

#[tokio::test]
async fn a_repository_that_is_not_there_ends_the_start() {
    let refused = Mesh::start_with(serving(Path::new("/nonexistent"))).await;
    let error = refused.map(drop).unwrap_err().to_string();
    assert!(
        error.starts_with("cannot use the model repository: cannot read /nonexistent"),
        "{error}"
    );
}

struct Ran {
    code: u8,
    out: String,
    err: String,
}

/// Runs `mesh model import` for the tenant `acme`.
async fn import(admin: &Admin, url: String, folder: PathBuf, dry_run: bool) -> anyhow::Result<Ran> {
    let globals = globals(admin, url);
    let args = mesh_cli::ImportArgs {
        folder,
        tenant: "acme".parse()?,
        models: Vec::new(),
        dry_run,
    };
    run(move |terminal| mesh_cli::import(&args, &globals, &mesh_node::Files, terminal)).await
}

fn globals(admin: &Admin, url: String) -> mesh_cli::GlobalOptions {
    mesh_cli::GlobalOptions {
        admin_url: url,
        admin_token: Some(admin.token().to_owned()),
        admin_token_from: None,
        url: String::new(),
        api_key: None,
        trust: mesh_cli::TrustOptions::default(),
    }
}

/// Runs a command on a thread of its own.
async fn run(command: impl FnOnce(&mut mesh_cli::Terminal<'_>) -> u8 + Send + 'static) -> anyhow::Result<Ran> {
    let run = move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = mesh_cli::Terminal {
            out: &mut out,
            err: &mut err,
            input: &mut std::io::empty(),
            interactive: false,
        };
        let code = command(&mut terminal);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran {
            code,
            out: text(out),
            err: text(err),
        }
    };
    Ok(tokio::task::spawn_blocking(run).await?)
}

#[tokio::test]
async fn a_repository_is_brought_into_a_mesh_that_serves_once() -> anyhow::Result<()> {
    let root = repository()?;
    let scripted = root.path().join("bare/1/model.pt");
    trace(&scripted, 1.0, 0.0)?;
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    let url = || format!("http://{}", mesh.addresses().admin);
    let tried = import(admin, url(), root.path().to_path_buf(), true).await?;
    assert_eq!(tried.code, 5, "{}", tried.err);
    assert!(tried.out.contains("3 models would be in acme"), "{}", tried.out);
    assert_eq!(admin.get("/models?tenant=acme").await?["items"], json!([]));
    let ran = import(admin, url(), root.path().to_path_buf(), false).await?;
    assert_eq!(ran.code, 5, "{}", ran.err);
    for part in [
        "  densenet_onnx: backend 'onnxruntime' is not supported (config.pbtxt:3): export the model to TorchScript or .pt2\n",
        "  bare: it has no configuration, and its file does not say enough (config.pbtxt): write max_batch_size: 8 input [ { name: ",
        "error: 2 of 5 models were skipped\n",
    ] {
        assert!(ran.err.contains(part), "{part} in {}", ran.err);
    }
    assert!(ran.out.contains("created   ModelVersion/acme/chain/1\n"), "{}", ran.out);
    caller.until_answers("chain", &row("IN", &[0.0; 3])).await?;
    let chained = caller.infer("chain", &row("IN", &[1.0, 2.0, 3.0])).await?.ok()?;
    assert_eq!(chained.numbers(0)?, [3.0, 5.0, 7.0]);
    let again = import(admin, url(), root.path().to_path_buf(), false).await?;
    assert!(
        again
            .out
            .ends_with("3 models are in acme as the repository says; wrote 0 resources\n"),
        "{}",
        again.out
    );
    mesh.stop().await.map(drop)
}
