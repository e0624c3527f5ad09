//! A request's own parameters and forwarded headers, as they reach models: over every wire, through graphs, and never mixed.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use futures::StreamExt;
use mesh_e2e::python::{conformance, run};
use mesh_harness::{Answer, Caller, GrpcCaller, Mesh, MeshOptions, ServeOptions, Text, batched, fp32};
use mesh_protocol::grpc::messages::{
    InferParameter, ModelInferRequest, ModelInferResponse, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};
use tempfile::TempDir;
use tokio::task::JoinSet;

/// A model that answers with the parameters of its request, and how many rows it ran with.
fn echo(rule: &Value) -> Value {
    let output = |name: &str, datatype: &str| json!({"name": name, "datatype": datatype, "dims": [1]});
    let config = json!({
        "max_batch_size": 8,
        "input": [fp32("x", &[1])],
        "output": [output("said", "BYTES"), output("rows", "INT32")],
        "request_parameters": rule,
        "parameters": {"builtin": "echo_parameters"},
    });
    json!({"format": "builtin", "config": config})
}

/// Writes a module that multiplies by the parameter `scale`, and leaves its input as it is without.
fn scaling() -> anyhow::Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let (traced, path) = (folder.path().join("traced.pt"), folder.path().join("scaling.pt"));
    let example = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
    let mut forward = |inputs: &[Tensor]| inputs.iter().map(Tensor::alias_copy).collect();
    CModule::create_by_tracing("Scale", "forward", &[example], &mut forward)?.save(&traced)?;
    // What tracing cannot say is written into the module's code, which is text.
    let code = "class Scale(Module):\n  __parameters__ = []\n  __buffers__ = []\n  def forward(self: __torch__.Scale, x: Tensor, \
                given: Dict[str, str]) -> Tensor:\n    if torch.__contains__(given, \"scale\"):\n      y = torch.mul(x, \
                float(given[\"scale\"]))\n    else:\n      y = x\n    return y\n";
    let mut archive = zip::ZipArchive::new(std::fs::File::open(traced)?)?;
    let mut writer = zip::ZipWriter::new(std::fs::File::create(&path)?);
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let (name, mut content) = (entry.name().to_owned(), Vec::new());
        entry.read_to_end(&mut content)?;
        if name.ends_with(".debug_pkl") {
            continue;
        }
        writer.start_file(&name, options)?;
        let is_code = Path::new(&name).extension().is_some_and(|end| end == "py");
        writer.write_all(if is_code { code.as_bytes() } else { &content })?;
    }
    writer.finish()?;
    Ok((folder, path))
}

async fn mesh() -> anyhow::Result<Mesh> {
    let serve = ServeOptions {
        forward_headers: Some(Text("x-tag".to_owned())),
        ..ServeOptions::default()
    };
    Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await
}

async fn with_echo(mesh: &Mesh, rule: &Value) -> anyhow::Result<(Caller, GrpcCaller)> {
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "echo", &echo(rule)).await?;
    caller.until_ready("echo").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    Ok((caller, grpc))
}

fn body(parameters: &Value) -> Value {
    json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}],
        "parameters": parameters,
    })
}

/// What an answer over HTTP says that its model was given, and with how many rows it ran.
fn heard(answer: &Answer) -> anyhow::Result<(Value, u64)> {
    let answer = answer.clone().ok()?.json()?;
    let said = answer["outputs"][0]["data"][0].as_str().context("no text")?;
    let rows = answer["outputs"][1]["data"][0].as_u64().context("no rows")?;
    Ok((serde_json::from_str(said)?, rows))
}

fn message(model: &str, parameters: &[(&str, ParameterChoice)]) -> ModelInferRequest {
    let given = |(name, choice): &(&str, ParameterChoice)| {
        let parameter_choice = Some(choice.clone());
        ((*name).to_owned(), InferParameter { parameter_choice })
    };
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![1.0_f32.to_le_bytes().to_vec().into()],
        parameters: parameters.iter().map(given).collect(),
        ..ModelInferRequest::default()
    }
}

fn heard_over_grpc(response: &ModelInferResponse) -> anyhow::Result<Value> {
    let raw = response.raw_output_contents.first().context("no output")?;
    Ok(serde_json::from_slice(raw.get(4..).context("no text")?)?)
}

#[tokio::test]
async fn parameters_reach_a_model_as_texts_over_every_wire() -> anyhow::Result<()> {
    let mesh = mesh().await?;
    let (caller, grpc) = with_echo(&mesh, &json!({})).await?;
    let said =
        json!({"text": "a\u{0}b", "int": -5, "big": u64::MAX, "double": 0.1, "whole": 2.0, "yes": true, "priority": 1});
    let texts = json!({"text": "a\u{0}b", "int": "-5", "big": "18446744073709551615", "double": "0.1", "whole": "2.0", "yes": "true"});
    let answer = caller.infer("echo", &body(&said)).await?;
    assert_eq!(heard(&answer)?.0, texts);
    let choices = [
        ("text", ParameterChoice::StringParam("a\u{0}b".into())),
        ("int", ParameterChoice::Int64Param(-5)),
        ("big", ParameterChoice::Uint64Param(u64::MAX)),
        ("double", ParameterChoice::DoubleParam(0.1)),
        ("whole", ParameterChoice::DoubleParam(2.0)),
        ("yes", ParameterChoice::BoolParam(true)),
        ("timeout", ParameterChoice::Int64Param(60_000_000)),
    ];
    let message = message("echo", &choices);
    let response = grpc.infer(message.clone()).await?.into_inner();
    assert_eq!(heard_over_grpc(&response)?, texts);
    let mut stream = grpc.stream(vec![message]).await?;
    let streamed = stream.next().await.context("nothing came")??;
    let streamed = streamed.infer_response.context("no response")?;
    assert_eq!(heard_over_grpc(&streamed)?, texts);
    // What is no input of `generate` is a parameter, there or within `parameters`.
    let asked = json!({"x": 1.0, "int": -5, "parameters": {"yes": true, "double": 0.1}});
    for path in ["generate", "generate_stream"] {
        let request = caller.post(&format!("/v2/models/echo/{path}")).json(&asked);
        let answer = Answer::of(request).await?.ok()?;
        let text = String::from_utf8(answer.body.to_vec())?;
        let object: Value = serde_json::from_str(text.trim().trim_start_matches("data: "))?;
        let said: Value = serde_json::from_str(object["said"].as_str().context("no text")?)?;
        assert_eq!(said, json!({"int": "-5", "yes": "true", "double": "0.1"}), "{path}");
    }
    // Headers are parameters like any others.
    let tagged = caller.post("/v2/models/echo/infer").header("X-Tag", "t");
    let answer = Answer::of(tagged.json(&body(&json!({"int": 1})))).await?;
    assert_eq!(heard(&answer)?.0, json!({"int": "1", "x-tag": "t"}));
    let response = grpc.with("x-tag", "t").infer(self::message("echo", &[])).await?;
    assert_eq!(heard_over_grpc(&response.into_inner())?, json!({"x-tag": "t"}));
    Ok(())
}

#[tokio::test]
async fn a_model_is_given_no_more_than_the_bounds_and_refuses_more_by_its_number() -> anyhow::Result<()> {
    let mesh = mesh().await?;
    let (caller, grpc) = with_echo(&mesh, &json!({"defaults": {"tone": "plain"}})).await?;
    let answer = caller.infer("echo", &body(&json!({}))).await?;
    assert_eq!(heard(&answer)?.0, json!({"tone": "plain"}));
    let fits = "v".repeat(4_096 - "tone".len() - "plain".len() - 1);
    let answer = caller.infer("echo", &body(&json!({"n": fits}))).await?;
    assert_eq!(heard(&answer)?.0["n"], fits);
    let long = format!("{fits}v");
    let refused = caller.infer("echo", &body(&json!({"n": long}))).await?;
    let text = "2 parameters of 4097 bytes, but they are compared with other requests' for model 'echo': at most 64 of 4096 bytes";
    assert_eq!(refused.status.as_u16(), 400);
    assert!(refused.error()?.starts_with(text), "{}", refused.error()?);
    let choice = ParameterChoice::StringParam(long.clone());
    let status = grpc
        .infer(message("echo", &[("n", choice)]))
        .await
        .expect_err("too long");
    assert_eq!(
        (status.code(), status.message()),
        (tonic::Code::InvalidArgument, &*refused.error()?)
    );
    // Who has use for some names only is told nothing of the others, and refuses none of them.
    let few = echo(&json!({"names": ["n"]}));
    mesh.admin()?.publish("acme", "few", &few).await?;
    caller.until_ready("few").await?;
    let answer = caller.infer("few", &body(&json!({"n": 1, "other": long}))).await?;
    assert_eq!(heard(&answer)?.0, json!({"n": "1"}));
    Ok(())
}

#[tokio::test]
async fn requests_of_two_tenants_with_other_parameters_never_meet_and_with_equal_ones_do() -> anyhow::Result<()> {
    const REQUESTS: usize = 2_000;
    const WIDTH: usize = 16;
    let mesh = Mesh::start().await?;
    let owner = mesh.tenant("acme").await?;
    let other = mesh.tenant("globex").await?;
    let admin = mesh.admin()?;
    admin
        .publish("acme", "echo", &batched(echo(&json!({})), 8, 2_000))
        .await?;
    admin.model("acme", "echo", json!({"grants": ["globex"]})).await?;
    owner.until_ready("echo").await?;
    other.until_ready("echo").await?;
    let mut lanes = JoinSet::new();
    for lane in 0..WIDTH {
        let caller = if lane % 2 == 0 { owner.clone() } else { other.clone() };
        lanes.spawn(async move {
            let mut company = [0_u64; 4];
            for request in 0..REQUESTS / WIDTH {
                // Two say what is theirs alone, one what both say, one nothing.
                let kind = (request + lane / 2) % 4;
                let said = match kind {
                    0 => json!({"who": lane % 2}),
                    1 => json!({"who": lane % 2, "lane": lane}),
                    2 => json!({"language": "fr", "tone": "warm"}),
                    _ => json!({}),
                };
                let (heard, rows) = heard(&caller.infer("echo", &body(&said)).await?)?;
                let texts = said.as_object().context("an object")?.iter();
                let texts: BTreeMap<_, _> = texts
                    .map(|(name, value)| {
                        (
                            name.clone(),
                            value.as_str().map_or_else(|| value.to_string(), str::to_owned),
                        )
                    })
                    .collect();
                ensure!(heard == json!(texts), "{heard} for {said}");
                // Who is alone with what it says runs alone.
                ensure!(kind != 1 || rows == 1, "{said} ran with {rows} rows");
                if let Some(most) = company.get_mut(kind) {
                    *most = (*most).max(rows);
                }
            }
            anyhow::Ok(company)
        });
    }
    let mut most = [0; 4];
    while let Some(company) = lanes.join_next().await {
        for (most, seen) in most.iter_mut().zip(company??) {
            *most = seen.max(*most);
        }
    }
    ensure!(most[2] > 1 && most[3] > 1, "equal ones share batches: {most:?}");
    Ok(())
}

#[tokio::test]
async fn the_steps_of_an_ensemble_are_given_what_their_models_take() -> anyhow::Result<()> {
    let mesh = mesh().await?;
    let (caller, grpc) = with_echo(&mesh, &json!({})).await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "few", &echo(&json!({"names": ["tone"]}))).await?;
    caller.until_ready("few").await?;
    let text = |name: &str| json!({"name": name, "datatype": "BYTES", "dims": [1]});
    let step = |model: &str, output: &str| json!({"model_name": model, "input_map": {"x": "x"}, "output_map": {"said": output}});
    let graph = json!({"format": "ensemble", "config": {
        "max_batch_size": 8,
        "input": [fp32("x", &[1])],
        "output": [text("all"), text("some")],
        "ensemble_scheduling": {"step": [step("echo", "all"), step("few", "some")]},
    }});
    admin.publish_only("acme", "two", &graph).await?;
    caller.until_ready("two").await?;
    let asked = body(&json!({"tone": "warm", "n": 1, "priority": 1}));
    let answer = caller.infer("two", &asked).await?.ok()?.json()?;
    let said = |at: usize| anyhow::Ok(answer["outputs"][at]["data"][0].as_str().context("no text")?.to_owned());
    assert_eq!(
        (said(0)?, said(1)?),
        (r#"{"n":"1","tone":"warm"}"#.to_owned(), r#"{"tone":"warm"}"#.to_owned())
    );
    let response = grpc.with("x-tag", "t").infer(message("two", &[])).await?.into_inner();
    assert_eq!(heard_over_grpc(&response)?, json!({"x-tag": "t"}));
    // An ensemble has no model to be given anything.
    let mut own = graph;
    own["config"]["request_parameters"] = json!({});
    let refused = admin.publish_only("acme", "three", &own).await.unwrap_err().to_string();
    ensure!(refused.contains("request_parameters"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn an_unmodified_triton_client_gives_parameters_to_models() -> anyhow::Result<()> {
    let mesh = mesh().await?;
    let (caller, _) = with_echo(&mesh, &json!({})).await?;
    let (_folder, file) = scaling()?;
    let config = json!({
        "max_batch_size": 8,
        "input": [fp32("x", &[2])],
        "output": [fp32("y", &[2])],
        "request_parameters": {"names": ["scale"]},
    });
    mesh.admin()?
        .publish_torchscript("acme", "scaling", &file, &config)
        .await?;
    caller.until_ready("scaling").await?;
    let (http, grpc) = (mesh.addresses().http.to_string(), mesh.addresses().grpc.to_string());
    let key = caller.key().to_owned();
    let all_hold = tokio::task::spawn_blocking(move || {
        let python = mesh_e2e::python::python(Path::new(env!("CARGO_TARGET_TMPDIR")), "requirements.txt")?;
        let told = run(Command::new(python)
            .arg(conformance().join("triton_parameters.py"))
            .env("MESH_HTTP", &http)
            .env("MESH_GRPC", &grpc)
            .env("MESH_KEY", &key))?;
        ensure!(told.contains("checks hold"), "{told}");
        anyhow::Ok(())
    });
    all_hold.await?
}
