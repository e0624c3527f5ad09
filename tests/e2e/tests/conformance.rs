//! A real Triton client in Python speaks to the mesh, and finds nothing amiss.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
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

/// The commands of one program in the examples of a document, with the lines that they go on in.
fn commands(document: &str, program: &str) -> Vec<String> {
    let (mut found, mut goes_on) = (Vec::<String>::new(), false);
    for line in blocks(document, "console").iter().flat_map(|block| block.lines()) {
        let begun = line.strip_prefix("$ ");
        match (begun, found.last_mut()) {
            (Some(command), _) => {
                goes_on = command.starts_with(program);
                found.extend(goes_on.then(|| command.to_owned()));
            }
            // Another line of it, or what it prints, which begins where it begins.
            (None, Some(command)) if goes_on && line.starts_with(' ') => {
                command.push('\n');
                command.push_str(line);
            }
            _ => goes_on = false,
        }
    }
    found
}

/// A folder to look for programs in, with a grpcurl; empty where there is one.
fn grpcurl() -> anyhow::Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir()?;
    if Command::new("grpcurl").arg("-version").output().is_ok() {
        return Ok(folder);
    }
    let python = mesh_e2e::python::python(Path::new(env!("CARGO_TARGET_TMPDIR")), "requirements-reflection.txt")?;
    let (program, script) = (folder.path().join("grpcurl"), conformance().join("grpcurl.py"));
    let text = format!("#!/bin/sh\nexec '{}' '{}' \"$@\"\n", python.display(), script.display());
    std::fs::write(&program, text)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

#[tokio::test]
async fn what_the_documentation_says_to_call_with_grpcurl_runs_as_it_stands() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    for name in ["m", "digits"] {
        mesh.admin()?.publish("acme", name, &identity()).await?;
        caller.until_ready(name).await?;
    }
    let mut all = Vec::new();
    for name in ["CLIENTS.md", "README.md"] {
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../router").join(name);
        all.extend(commands(&std::fs::read_to_string(document)?, "grpcurl"));
    }
    let (grpc, key) = (mesh.addresses().grpc.to_string(), caller.key().to_owned());
    let all_run = tokio::task::spawn_blocking(move || {
        let folder = grpcurl()?;
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", folder.path().display());
        let shell = |command: &str| {
            let command = command.replace("127.0.0.1:8001", &grpc);
            run(Command::new("bash")
                .args(["-euc", &command])
                .env("PATH", &path)
                .env("KEY", &key)
                .env("MESH_API_KEY", &key))
        };
        let mut called = Vec::new();
        for command in &all {
            let told = shell(command)?;
            let word = command.split_whitespace().next_back().context("an empty command")?;
            called.push(word.trim_start_matches("inference.GRPCInferenceService/"));
            if word == "list" {
                ensure!(
                    told.lines().any(|line| line == "inference.GRPCInferenceService"),
                    "{told}"
                );
                continue;
            }
            let answer: Value = serde_json::from_str(&told)?;
            match answer["rawOutputContents"][0].as_str() {
                Some(raw) => {
                    let wanted = [0.0_f32, 5.0, 13.0, 9.0].map(f32::to_le_bytes).concat();
                    ensure!(STANDARD.decode(raw)? == wanted, "{told}");
                }
                None => ensure!(answer["name"] == "digits", "{told}"),
            }
            // Another call, another field or no key, and it is none.
            for (right, wrong) in [
                (word, "inference.GRPCInferenceService/Nothing"),
                ("name\"", "named\""),
                ("authorization", "authorisation"),
            ] {
                let command = command.replace(right, wrong);
                ensure!(shell(&command).is_err(), "it passes where it is wrong: {command}");
            }
        }
        ensure!(called == ["ModelInfer", "list", "ModelMetadata"], "{called:?}");
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

/// A model of a repository whose inputs and outputs are rows of any length.
fn any_length(backend: &str, datatype: &str) -> String {
    let tensor = |name: &str| format!("[ {{ name: \"{name}\" data_type: TYPE_{datatype} dims: [ -1 ] }} ]");
    format!(
        "backend: \"{backend}\"\nmax_batch_size: 8\ninput {}\noutput {}\n",
        tensor("x"),
        tensor("y")
    )
}

const ONE_STEP: &str = r#"
platform: "ensemble"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] } ]
ensemble_scheduling {
  step [ { model_name: "step" model_version: -1 input_map { key: "x" value: "x" } output_map { key: "y" value: "y" } } ]
}
"#;

const SEQUENCE: &str = r#"
backend: "sequence"
max_batch_size: 8
input [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] },
    { name: "READY" control [ { kind: CONTROL_SEQUENCE_READY int32_false_true: [ 0, 1 ] } ] }
  ]
}
"#;

#[tokio::test]
async fn every_way_of_an_unmodified_triton_client_does_all_that_the_table_says() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    let mut loaded = Vec::new();
    let add = |name: &str, config: &str| {
        std::fs::create_dir_all(root.path().join(name).join("1"))?;
        std::fs::write(root.path().join(name).join("config.pbtxt"), config)
    };
    for datatype in DataType::ALL {
        let (name, word) = (
            format!("identity_{}", datatype.as_str().to_lowercase()),
            datatype.as_str(),
        );
        add(
            &name,
            &any_length("identity", if word == "BYTES" { "STRING" } else { word }),
        )?;
        loaded.push(Text(name));
    }
    add("simple_sequence", SEQUENCE)?;
    loaded.push(Text("simple_sequence".to_owned()));
    add("step", &any_length("identity", "FP32"))?;
    add("chain", ONE_STEP)?;
    let serve = ServeOptions {
        compat: Some(Text("triton".to_owned())),
        model_repository: Some(root.path().to_path_buf()),
        model_control_mode: Some(Text("explicit".to_owned())),
        load_model: Some(loaded.clone()),
        allow_client_shm: true,
        ..ServeOptions::default()
    };
    let mesh = Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await?;
    for Text(name) in &loaded {
        mesh.stranger().until_ready(name).await?;
    }
    let (http, grpc) = (mesh.addresses().http.to_string(), mesh.addresses().grpc.to_string());
    let told = tokio::task::spawn_blocking(move || {
        run(Command::new(python()?)
            .arg(conformance().join("triton_matrix.py"))
            .env("MESH_HTTP", &http)
            .env("MESH_GRPC", &grpc))
    });
    let told = told.await??;
    let (done, last) = told.trim_end().rsplit_once('\n').context("it says nothing")?;
    ensure!(last.ends_with("checks hold"), "{told}");
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../router/PROTOCOL.md");
    let tables = blocks(&std::fs::read_to_string(table)?, "text");
    ensure!(tables == [format!("{done}\n")], "what was done:\n{done}");
    Ok(())
}
