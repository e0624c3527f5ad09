//! A real Triton client in Python speaks to the mesh, and finds nothing amiss.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::ensure;
use mesh_client::{Client, Input};
use mesh_e2e::{
    counted,
    python::{conformance, run},
};
use mesh_harness::{Answer, Mesh, MeshOptions, ServeOptions, Text, builtin, eventually, identity, repeat_int32};
use mesh_types::DataType;
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};

/// A Python with the client in it.
fn python() -> anyhow::Result<PathBuf> {
    mesh_e2e::python::python(Path::new(env!("CARGO_TARGET_TMPDIR")), "requirements.txt")
}

/// Two inputs and two outputs of whole numbers.
fn add_sub() -> Value {
    let tensor = |name: &str| json!({"name": name, "datatype": "INT32", "dims": [-1]});
    let config = json!({
        "max_batch_size": 8,
        "input": [tensor("a"), tensor("b")],
        "output": [tensor("sum"), tensor("difference")],
        "parameters": {"builtin": "add_sub"},
    });
    json!({"format": "builtin", "config": config})
}

#[tokio::test]
async fn an_unmodified_triton_client_finds_everything_in_order() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "plain", &identity()).await?;
    admin.publish("acme", "calculus", &add_sub()).await?;
    admin.endpoint("acme", "front", &[("main", "plain", "", 100.0)]).await?;
    let one = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    caller.until_answers("front", &one).await?;
    let (address, key) = (mesh.addresses().http.to_string(), caller.key().to_owned());
    let all_hold = tokio::task::spawn_blocking(move || {
        let python = python()?;
        for target in ["front", "calculus"] {
            let script = conformance().join("triton_http.py");
            let told = run(Command::new(&python)
                .arg(script)
                .env("MESH_URL", &address)
                .env("MESH_KEY", &key)
                .env("MESH_MODEL", target))?;
            ensure!(told.contains("checks hold"), "{target}: {told}");
        }
        anyhow::Ok(())
    });
    all_hold.await?
}

fn flag(name: &str, kind: &str) -> Value {
    json!({"name": name, "control": [{"kind": kind, "int32_false_true": [0, 1]}]})
}

fn model(builtin: &str, sequence: &Value) -> Value {
    let tensor = |name: &str| json!({"name": name, "data_type": "TYPE_INT32", "dims": [1]});
    let config = json!({
        "max_batch_size": 8,
        "input": [tensor("INPUT")],
        "output": [tensor("OUTPUT")],
        "instance_group": [{"count": 2}],
        "sequence_batching": sequence,
        "parameters": {"builtin": builtin},
    });
    json!({"format": "builtin", "config": config})
}

/// The models of Triton's clients for sequences.
fn simple() -> Value {
    let controls = [
        flag("START", "CONTROL_SEQUENCE_START"),
        flag("READY", "CONTROL_SEQUENCE_READY"),
    ];
    model(
        "sequence",
        &json!({"max_sequence_idle_microseconds": 5_000_000, "control_input": controls}),
    )
}

fn dyna(builtin: &str, corrid: &str) -> Value {
    let controls = json!([
        flag("START", "CONTROL_SEQUENCE_START"),
        flag("END", "CONTROL_SEQUENCE_END"),
        flag("READY", "CONTROL_SEQUENCE_READY"),
        {"name": "CORRID", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": corrid}]},
    ]);
    let oldest = json!({"max_candidate_sequences": 1024, "max_queue_delay_microseconds": 10_000});
    model(
        builtin,
        &json!({"max_sequence_idle_microseconds": 10_000_000, "oldest": oldest, "control_input": controls}),
    )
}

#[tokio::test]
async fn an_unmodified_triton_client_finds_its_sequences_in_order() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, other) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    let admin = mesh.admin()?;
    for (name, model) in [
        ("simple_sequence", simple()),
        ("simple_dyna_sequence", dyna("sequence", "TYPE_UINT64")),
        ("simple_string_dyna_sequence", dyna("sequence_sum", "TYPE_STRING")),
    ] {
        admin.publish("acme", name, &model).await?;
        admin.model("acme", name, json!({"grants": ["globex"]})).await?;
        other.until_ready(name).await?;
    }
    let (address, key) = (mesh.addresses().http.to_string(), caller.key().to_owned());
    let other = other.key().to_owned();
    let all_hold = tokio::task::spawn_blocking(move || {
        let told = run(Command::new(python()?)
            .arg(conformance().join("triton_sequences.py"))
            .env("MESH_URL", &address)
            .env("MESH_KEY", &key)
            .env("MESH_OTHER", &other))?;
        ensure!(told.contains("checks hold"), "{told}");
        anyhow::Ok(())
    });
    all_hold.await??;
    let metrics = mesh.metrics().await?;
    let ended = counted(&metrics, "mesh_sequences_ended_total", &["reason=\"ended\""]);
    ensure!(ended >= 11.0, "{ended} sequences ended");
    Ok(())
}

/// An identity of one datatype.
fn identity_of(datatype: &str) -> Value {
    let tensor = |name: &str| json!({"name": name, "datatype": datatype, "dims": [-1]});
    let config = json!({
        "max_batch_size": 8, "input": [tensor("x")], "output": [tensor("y")], "parameters": {"builtin": "identity"},
    });
    json!({"format": "builtin", "config": config})
}

#[tokio::test]
async fn an_unmodified_triton_client_finds_the_grpc_door_in_order() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, other) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    let admin = mesh.admin()?;
    for datatype in DataType::ALL {
        let name = format!("identity_{}", datatype.as_str().to_lowercase());
        admin.publish("acme", &name, &identity_of(datatype.as_str())).await?;
        caller.until_ready(&name).await?;
    }
    for (name, model) in [
        ("slow", builtin("busy", &json!({"busy_us": 300_000}))),
        ("simple_sequence", simple()),
        ("simple_dyna_sequence", dyna("sequence", "TYPE_UINT64")),
    ] {
        admin.publish("acme", name, &model).await?;
        caller.until_ready(name).await?;
    }
    let folder = tempfile::tempdir()?;
    let descriptors = folder.path().join("descriptors");
    std::fs::write(&descriptors, mesh_protocol::grpc::DESCRIPTORS)?;
    let (http, grpc) = (mesh.addresses().http.to_string(), mesh.addresses().grpc.to_string());
    let (key, other) = (caller.key().to_owned(), other.key().to_owned());
    let all_hold = tokio::task::spawn_blocking(move || {
        let told = run(Command::new(python()?)
            .arg(conformance().join("triton_grpc.py"))
            .env("MESH_URL", &http)
            .env("MESH_GRPC", &grpc)
            .env("MESH_KEY", &key)
            .env("MESH_OTHER", &other)
            .env("MESH_DESCRIPTORS", &descriptors))?;
        ensure!(told.contains("checks hold"), "{told}");
        anyhow::Ok(())
    });
    all_hold.await?
}

#[tokio::test]
async fn a_client_made_from_reflection_calls_what_it_learnt() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "plain", &identity()).await?;
    caller.until_ready("plain").await?;
    let (grpc, key) = (mesh.addresses().grpc.to_string(), caller.key().to_owned());
    let all_hold = tokio::task::spawn_blocking(move || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let python = mesh_e2e::python::python(folder, "requirements-reflection.txt")?;
        let told = run(Command::new(python)
            .arg(conformance().join("learnt_grpc.py"))
            .env("MESH_GRPC", &grpc)
            .env("MESH_KEY", &key)
            .env("MESH_MODEL", "plain"))?;
        ensure!(told.contains("checks hold"), "{told}");
        anyhow::Ok(())
    });
    all_hold.await?
}

/// A Python with KServe's client in it, which is half a gigabyte: it outlives the build.
fn kserve() -> anyhow::Result<PathBuf> {
    let folder = mesh_e2e::python::cache(Path::new(env!("CARGO_TARGET_TMPDIR")));
    mesh_e2e::python::python(&folder, "requirements-kserve.txt")
}

#[tokio::test]
async fn an_unmodified_kserve_client_finds_both_protocols_in_order() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    for (name, model) in [("plain", identity()), ("words", identity_of("BYTES"))] {
        admin.publish("acme", name, &model).await?;
        caller.until_ready(name).await?;
    }
    // It cannot be loaded, so it is there and never ready.
    admin
        .publish_only("acme", "late", &builtin("oom_above", &json!({})))
        .await?;
    eventually("late is there", || async {
        let answer = Answer::of(caller.get("/v2/models/late/ready")).await?;
        Ok((answer.status.as_u16() == 503).then_some(()))
    })
    .await?;
    let (http, grpc) = (
        format!("http://{}", mesh.addresses().http),
        mesh.addresses().grpc.to_string(),
    );
    let key = caller.key().to_owned();
    let all_hold = tokio::task::spawn_blocking(move || {
        let told = run(Command::new(kserve()?)
            .arg(conformance().join("kserve_client.py"))
            .env("MESH_URL", &http)
            .env("MESH_GRPC", &grpc)
            .env("MESH_KEY", &key))?;
        ensure!(told.contains("checks hold"), "{told}");
        anyhow::Ok(())
    });
    all_hold.await?
}

#[tokio::test]
async fn an_unmodified_client_of_tensorflow_serving_finds_its_calls_in_order() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    for datatype in DataType::ALL {
        let name = format!("identity_{}", datatype.as_str().to_lowercase());
        admin.publish("acme", &name, &identity_of(datatype.as_str())).await?;
    }
    for (name, width, labels) in [("classes", 3, json!(["cat", "dog", "owl"])), ("number", 1, json!([]))] {
        let mut model = identity();
        model["config"]["input"][0]["dims"] = json!([width]);
        model["config"]["output"][0]["dims"] = json!([width]);
        model["config"]["output"][0]["labels"] = labels;
        admin.publish("acme", name, &model).await?;
        caller.until_ready(name).await?;
    }
    let folder = tempfile::tempdir()?;
    let descriptors = folder.path().join("descriptors");
    std::fs::write(&descriptors, mesh_protocol::serving::DESCRIPTORS)?;
    let (grpc, key) = (mesh.addresses().grpc.to_string(), caller.key().to_owned());
    let all_hold = tokio::task::spawn_blocking(move || {
        let python = mesh_e2e::python::python(Path::new(env!("CARGO_TARGET_TMPDIR")), "requirements-serving.txt")?;
        let told = run(Command::new(python)
            .arg(conformance().join("serving_grpc.py"))
            .env("MESH_GRPC", &grpc)
            .env("MESH_KEY", &key)
            .env("MESH_DESCRIPTORS", &descriptors))?;
        ensure!(told.contains("checks hold"), "{told}");
        anyhow::Ok(())
    });
    all_hold.await?
}

/// The blocks of one language in a document, in their order.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let block = |rest: &str| rest.split_once("\n```").map(|(block, _)| format!("{block}\n"));
    document.split(&fence).skip(1).filter_map(block).collect()
}

#[tokio::test]
async fn what_the_documentation_says_how_to_call_runs_as_it_stands() -> anyhow::Result<()> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../router/CLIENTS.md");
    let document = std::fs::read_to_string(document)?;
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "m", &identity()).await?;
    caller.until_ready("m").await?;
    mesh.admin()?.publish("acme", "repeat_int32", &repeat_int32()).await?;
    caller.until_ready("repeat_int32").await?;
    // What is there for Rust is written out here, word for word.
    let key = caller.key();
    let rust = r#"
let client = Client::http("http://127.0.0.1:8000").api_key(&key).build()?;
let answer = client.model("m").infer([Input::new("x", [1, 4], &[0.0_f32, 5.0, 13.0, 9.0])?]).await?;
println!("{:?}", answer.output("y")?.values::<f32>()?);
"#;
    ensure!(
        blocks(&document, "rust").iter().any(|block| block.contains(rust)),
        "the Rust is other"
    );
    let client = Client::http(&format!("http://{}", mesh.addresses().http))
        .api_key(key)
        .build()?;
    let x = Input::new("x", [1, 4], &[0.0_f32, 5.0, 13.0, 9.0])?;
    let answer = client.model("m").infer([x]).await?;
    assert_eq!(*answer.output("y")?.values::<f32>()?, [0.0, 5.0, 13.0, 9.0]);
    let here = document
        .replace("127.0.0.1:8000", &mesh.addresses().http.to_string())
        .replace("127.0.0.1:8001", &mesh.addresses().grpc.to_string());
    let key = key.to_owned();
    let all_run = tokio::task::spawn_blocking(move || {
        let (shell, scripts) = (blocks(&here, "bash"), blocks(&here, "python"));
        ensure!((shell.len(), scripts.len()) == (2, 5), "the document has other blocks");
        for block in shell {
            let told = run(Command::new("bash").args(["-euc", &block]).env("MESH_API_KEY", &key))?;
            let answer: Value = serde_json::from_str(&told)?;
            let numbers = answer.pointer("/outputs/0/data").or(answer.pointer("/predictions/0"));
            ensure!(numbers == Some(&json!([0.0, 5.0, 13.0, 9.0])), "{told}");
        }
        let (triton, kserve) = (python()?, kserve()?);
        for block in scripts {
            let python = if block.contains("kserve") { &kserve } else { &triton };
            let told = run(Command::new(python).args(["-c", &block]).env("MESH_API_KEY", &key))?;
            let numbers = told.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
            let numbers: Vec<f32> = numbers.filter_map(|number| number.parse().ok()).collect();
            ensure!(numbers == [0.0, 5.0, 13.0, 9.0], "{told}");
        }
        anyhow::Ok(())
    });
    all_run.await?
}

#[tokio::test]
async fn an_unmodified_triton_client_finds_its_tensors_in_shared_memory() -> anyhow::Result<()> {
    let serve = ServeOptions {
        allow_client_shm: true,
        ..ServeOptions::default()
    };
    let mesh = Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await?;
    let (caller, other) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    let admin = mesh.admin()?;
    for (name, model) in [("calculus", add_sub()), ("text", identity_of("BYTES"))] {
        admin.publish("acme", name, &model).await?;
        admin.model("acme", name, json!({"grants": ["globex"]})).await?;
        caller.until_ready(name).await?;
        other.until_ready(name).await?;
    }
    let (http, grpc) = (mesh.addresses().http.to_string(), mesh.addresses().grpc.to_string());
    let (key, other) = (caller.key().to_owned(), other.key().to_owned());
    let all_hold = tokio::task::spawn_blocking(move || {
        let told = run(Command::new(python()?)
            .arg(conformance().join("triton_shared_memory.py"))
            .env("MESH_URL", &http)
            .env("MESH_GRPC", &grpc)
            .env("MESH_KEY", &key)
            .env("MESH_OTHER", &other))?;
        ensure!(told.contains("checks hold"), "{told}");
        anyhow::Ok(())
    });
    all_hold.await?
}

/// `x * factor` for rows of three numbers, as a TorchScript file.
fn scaled(path: &Path, factor: f64) -> anyhow::Result<()> {
    let mut forward = |inputs: &[Tensor]| inputs.iter().map(|x| x * factor).collect();
    let example = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
    CModule::create_by_tracing("Scale", "forward", &[example], &mut forward)?.save(path)?;
    Ok(())
}

/// What the repository holds whose models are loaded and unloaded.
const REPOSITORY: [(&str, &str); 3] = [
    (
        "simple",
        r#"
backend: "add_sub"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] }, { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] }, { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] } ]
"#,
    ),
    (
        "scale",
        r#"
platform: "pytorch_libtorch"
max_batch_size: 8
input [ { name: "INPUT__0" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 3 ] } ]
"#,
    ),
    (
        "chain",
        r#"
platform: "ensemble"
max_batch_size: 8
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 3 ] } ]
ensemble_scheduling {
  step [ {
    model_name: "scale" model_version: -1
    input_map { key: "INPUT__0" value: "IN" } output_map { key: "OUTPUT__0" value: "OUT" }
  } ]
}
"#,
    ),
];

#[tokio::test]
async fn an_unmodified_triton_client_loads_changes_and_unloads_the_models_of_its_repository() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    for (name, config) in REPOSITORY {
        std::fs::create_dir_all(root.path().join(name).join("1"))?;
        std::fs::write(root.path().join(name).join("config.pbtxt"), config)?;
    }
    scaled(&root.path().join("scale/1/model.pt"), 2.0)?;
    let sent = tempfile::tempdir()?;
    let file = sent.path().join("sent.pt");
    scaled(&file, 10.0)?;
    let serve = ServeOptions {
        compat: Some(Text("triton".to_owned())),
        model_repository: Some(root.path().to_path_buf()),
        model_control_mode: Some(Text("explicit".to_owned())),
        ..ServeOptions::default()
    };
    let mesh = Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await?;
    let other = mesh.tenant("globex").await?.key().to_owned();
    let (http, grpc) = (mesh.addresses().http.to_string(), mesh.addresses().grpc.to_string());
    let all_hold = tokio::task::spawn_blocking(move || {
        let told = run(Command::new(python()?)
            .arg(conformance().join("triton_control.py"))
            .env("MESH_HTTP", &http)
            .env("MESH_GRPC", &grpc)
            .env("MESH_OTHER", &other)
            .env("MESH_FILE", &file))?;
        ensure!(told.contains("checks hold"), "{told}");
        anyhow::Ok(())
    });
    all_hold.await?
}
