//! The extensions of inference, on both wires: what they change, and that they change nothing else.

#![expect(clippy::too_many_lines, reason = "a test tells one story, or is one table")]

use anyhow::Context;
use mesh_harness::{Answer, Caller, Mesh, MeshOptions, ServeOptions, Text, builtin, identity};
use mesh_protocol::grpc::messages::{
    InferParameter, ModelInferRequest,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use serde_json::{Value, json};

/// A model of one vector that gives back what it gets, whose values stand for something.
fn animals() -> Value {
    let mut model = builtin("identity", &json!({}));
    model["config"]["output"][0]["labels"] = json!(["cat", "dog", "owl"]);
    model
}

async fn with_animals(mesh: &Mesh) -> anyhow::Result<Caller> {
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "animals", &animals()).await?;
    caller.until_ready("animals").await?;
    Ok(caller)
}

fn row(numbers: &[f32], output: &Value) -> Value {
    json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, numbers.len()], "data": numbers}],
        "outputs": [output],
    })
}

/// What a raw request is answered with: its JSON, and the bytes behind it.
async fn raw(caller: &Caller, model: &str, body: Vec<u8>) -> anyhow::Result<(Value, Vec<u8>)> {
    let request = caller.post(&format!("/v2/models/{model}/infer"));
    let request = request.header("inference-header-content-length", "0").body(body);
    let answer = Answer::of(request).await?;
    if !answer.status.is_success() {
        return Ok((
            json!({"status": answer.status.as_u16(), "error": answer.error()?}),
            Vec::new(),
        ));
    }
    let length: usize = answer
        .header("inference-header-content-length")
        .context("no length")?
        .parse()?;
    let (head, bytes) = answer.body.split_at(length);
    Ok((serde_json::from_slice(head)?, bytes.to_vec()))
}

#[tokio::test]
async fn a_body_of_raw_bytes_is_a_models_only_input() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = with_animals(&mesh).await?;
    let admin = mesh.admin()?;
    let text = |name: &str| json!({"name": name, "datatype": "BYTES", "dims": [1]});
    let words = json!({"max_batch_size": 4, "input": [text("x")], "output": [text("y")], "parameters": {"builtin": "identity"}});
    let open = |name: &str| json!({"name": name, "datatype": "INT32", "dims": [-1, -1]});
    let square = json!({"max_batch_size": 0, "input": [open("x")], "output": [open("y")], "parameters": {"builtin": "identity"}});
    let two = json!({"max_batch_size": 4, "input": [text("x"), text("z")], "output": [text("y"), text("w")],
        "parameters": {"builtin": "identity"}});
    for (name, config) in [("words", words), ("square", square), ("two", two)] {
        let model = json!({"format": "builtin", "config": config});
        admin.publish("acme", name, &model).await?;
        caller.until_ready(name).await?;
    }
    let numbers: Vec<u8> = [1.5_f32, f32::NAN, -0.0]
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect();
    let (head, bytes) = raw(&caller, "animals", numbers.clone()).await?;
    let output = &head["outputs"][0];
    assert_eq!(
        (&output["datatype"], &output["shape"]),
        (&json!("FP32"), &json!([1, 3]))
    );
    assert_eq!(bytes, numbers);
    let (head, bytes) = raw(&caller, "words", b"a text".to_vec()).await?;
    assert_eq!(
        (&head["outputs"][0]["shape"], texts(&bytes)),
        (&json!([1, 1]), vec!["a text".to_owned()])
    );
    for (model, bytes, text) in [
        (
            "square",
            8,
            "can not be deduced because there are more than one variable-sized dimension",
        ),
        (
            "two",
            8,
            "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'two' model configuration",
        ),
        ("animals", 7, "input 'x' holds 7 bytes"),
    ] {
        let (told, _) = raw(&caller, model, vec![0; bytes]).await?;
        assert_eq!(told["status"], 400, "{model}: {told}");
        assert!(
            told["error"].as_str().is_some_and(|error| error.contains(text)),
            "{model}: {told}"
        );
    }
    let (told, _) = raw(&caller, "none", vec![0; 4]).await?;
    assert_eq!(told["status"], 404);
    Ok(())
}

/// The texts of a tensor of texts.
fn texts(mut data: &[u8]) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some((prefix, rest)) = data.split_first_chunk::<4>() {
        let (text, after) = rest.split_at(u32::from_le_bytes(*prefix) as usize);
        texts.push(String::from_utf8_lossy(text).into_owned());
        data = after;
    }
    texts
}

#[tokio::test]
async fn classes_have_the_labels_of_their_output_on_both_wires() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = with_animals(&mesh).await?;
    let right = json!(["9.500000:2:owl", "0.250000:0:cat", "-1.000000:1:dog"]);
    for count in [json!(3), json!(1000), json!("3")] {
        let body = row(
            &[0.25, -1.0, 9.5],
            &json!({"name": "y", "parameters": {"classification": count}}),
        );
        let answer = caller.infer("animals", &body).await?.ok()?.json()?;
        let output = &answer["outputs"][0];
        assert_eq!(
            (&output["datatype"], &output["shape"]),
            (&json!("BYTES"), &json!([1, 3]))
        );
        assert_eq!(output["data"], right);
    }
    for (output, text) in [
        (
            json!({"name": "y", "parameters": {"classification": 0}}),
            "whole number of 1 or more",
        ),
        (
            json!({"name": "none", "parameters": {"classification": 1}}),
            "unexpected inference output",
        ),
    ] {
        let answer = caller.infer("animals", &row(&[1.0], &output)).await?;
        assert_eq!(answer.status.as_u16(), 400);
        assert!(answer.error()?.contains(text), "{}", answer.error()?);
    }
    let grpc = mesh.grpc(caller.key()).await?;
    let two = InferParameter {
        parameter_choice: Some(ParameterChoice::Int64Param(2)),
    };
    let message = ModelInferRequest {
        model_name: "animals".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 3],
            ..InferInputTensor::default()
        }],
        outputs: vec![InferRequestedOutputTensor {
            name: "y".into(),
            parameters: [("classification".to_owned(), two)].into(),
        }],
        raw_input_contents: vec![
            [0.25_f32, -1.0, 9.5]
                .iter()
                .flat_map(|number| number.to_le_bytes())
                .collect(),
        ],
        ..ModelInferRequest::default()
    };
    let answer = grpc.infer(message).await?.into_inner();
    assert_eq!(
        (answer.outputs[0].datatype.as_str(), &answer.outputs[0].shape),
        ("BYTES", &vec![1, 2])
    );
    assert_eq!(
        texts(&answer.raw_output_contents[0]),
        ["9.500000:2:owl", "0.250000:0:cat"]
    );
    Ok(())
}

/// A model that gives a text back.
fn parrot() -> Value {
    let tensor = |name: &str| json!({"name": name, "datatype": "BYTES", "dims": [1]});
    let config = json!({
        "max_batch_size": 4,
        "input": [tensor("text_input")],
        "output": [tensor("text_output")],
        "parameters": {"builtin": "identity"},
    });
    json!({"format": "builtin", "config": config})
}

#[tokio::test]
async fn a_text_is_generated_as_an_object_and_as_events() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, other) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    mesh.admin()?.publish("acme", "parrot", &parrot()).await?;
    caller.until_ready("parrot").await?;
    let body = json!({"id": "7", "text_input": "say \"hi\"\n", "parameters": {"temperature": 0, "stream": true}});
    let right = json!({"id": "7", "model_name": "parrot", "model_version": "1", "text_output": "say \"hi\"\n"});
    let whole = Answer::of(caller.post("/v2/models/parrot/generate").json(&body))
        .await?
        .ok()?;
    assert_eq!(whole.json()?, right);
    let events = Answer::of(caller.post("/v2/models/parrot/versions/1/generate_stream").json(&body)).await?;
    let events = events.ok()?;
    assert_eq!(events.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(events.body, format!("data: {right}\n\n").as_bytes());
    for kind in ["generate", "generate_stream"] {
        // A foreign model is one that is not there, to the byte.
        let refused = |name: &'static str| {
            let request = other.post(&format!("/v2/models/{name}/{kind}"));
            async move { Answer::of(request.json(&json!({"text_input": "x"}))).await }
        };
        let (foreign, none) = (refused("parrot").await?, refused("none").await?);
        assert_eq!((foreign.status.as_u16(), none.status.as_u16()), (404, 404));
        assert_eq!(foreign.error()?.replace("parrot", "none"), none.error()?);
        let path = format!("/v2/models/parrot/{kind}");
        let many = Answer::of(caller.post(&path).json(&json!({"text_input": ["a", "b"]}))).await?;
        assert_eq!(many.status.as_u16(), 400);
        assert!(
            many.error()?.contains("unexpected shape for input 'text_input'"),
            "{}",
            many.error()?
        );
        let stranger = Answer::of(mesh.stranger().post(&path).json(&body)).await?;
        assert_eq!(stranger.status.as_u16(), 401);
    }
    Ok(())
}

/// A request for a model of one vector, over gRPC, with these parameters.
fn with_parameters(model: &str, parameters: &[(&str, ParameterChoice)]) -> ModelInferRequest {
    let value = |choice: &ParameterChoice| InferParameter {
        parameter_choice: Some(choice.clone()),
    };
    ModelInferRequest {
        model_name: model.into(),
        parameters: parameters
            .iter()
            .map(|(name, choice)| ((*name).to_owned(), value(choice)))
            .collect(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![1.0_f32.to_le_bytes().to_vec().into()],
        ..ModelInferRequest::default()
    }
}

#[tokio::test]
async fn priority_and_timeout_are_checked_alike_on_both_wires_at_their_bounds() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let mut model = identity();
    model["config"]["dynamic_batching"] = json!({
        "priority_levels": 2, "default_priority_level": 2,
        "default_queue_policy": {"default_timeout_microseconds": 5_000_000, "allow_timeout_override": true},
    });
    mesh.admin()?.publish("acme", "levels", &model).await?;
    caller.until_ready("levels").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    let most = u64::MAX;
    let cases = [
        (json!(0), ParameterChoice::Int64Param(0), true),
        (json!(1), ParameterChoice::Uint64Param(1), true),
        (json!(i64::MAX), ParameterChoice::Int64Param(i64::MAX), true),
        (json!(most), ParameterChoice::Uint64Param(most), true),
        (json!(-1), ParameterChoice::Int64Param(-1), false),
        (json!(1.0), ParameterChoice::DoubleParam(1.0), false),
        (json!("1"), ParameterChoice::StringParam("1".into()), false),
        (json!(true), ParameterChoice::BoolParam(true), false),
    ];
    for name in ["priority", "timeout"] {
        for (in_json, choice, is_right) in &cases {
            // A timeout of a microsecond may well be over.
            if *is_right && name == "timeout" && *in_json == json!(1) {
                continue;
            }
            let mut body = row(&[1.0], &json!({"name": "y"}));
            body["parameters"] = json!({name: in_json});
            let answer = caller.infer("levels", &body).await?;
            let over_grpc = grpc.infer(with_parameters("levels", &[(name, choice.clone())])).await;
            if *is_right {
                answer.ok()?;
                over_grpc?;
                continue;
            }
            assert_eq!(answer.status.as_u16(), 400, "{name} {in_json}");
            let status = over_grpc.expect_err("it is wrong");
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert_eq!(answer.error()?, status.message());
            assert!(status.message().contains(&format!("'{name}'")), "{}", status.message());
        }
    }
    for name in ["triton_x", "headers"] {
        let mut body = row(&[1.0], &json!({"name": "y"}));
        body["parameters"] = json!({name: "x"});
        let answer = caller.infer("levels", &body).await?;
        let choice = ParameterChoice::StringParam("x".into());
        let status = grpc
            .infer(with_parameters("levels", &[(name, choice)]))
            .await
            .expect_err("it is reserved");
        assert_eq!(
            (answer.status.as_u16(), status.code()),
            (400, tonic::Code::InvalidArgument)
        );
        assert_eq!(answer.error()?, status.message());
    }
    Ok(())
}

#[tokio::test]
async fn headers_are_forwarded_where_the_operator_says_so_and_reach_conditions() -> anyhow::Result<()> {
    let serve = ServeOptions {
        forward_headers: Some(Text("x-tier|priority".to_owned())),
        ..ServeOptions::default()
    };
    let mesh = Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "plain", &identity()).await?;
    caller.until_ready("plain").await?;
    // Without the header, the step and so its output are left out.
    let graph = json!({
        "format": "ensemble",
        "config": {
            "max_batch_size": 8,
            "input": [{"name": "x", "datatype": "FP32", "dims": [-1]}],
            "output": [{"name": "y", "datatype": "FP32", "dims": [-1]}],
            "graph": {
                "steps": [{"name": "only", "model": "plain", "outputs": {"y": "y"}, "when": "parameters.x-tier == \"gold\""}],
                "optional_outputs": ["y"],
            },
        },
    });
    admin.publish_only("acme", "tiers", &graph).await?;
    caller.until_ready("tiers").await?;
    let body = row(&[1.0], &json!({"name": "y"}));
    let outputs = |answer: &Answer| Ok::<_, anyhow::Error>(answer.json()?["outputs"].as_array().map_or(0, Vec::len));
    let ask = |tier: Option<&str>, body: &Value| {
        let request = caller.post("/v2/models/tiers/infer").json(body);
        Answer::of(match tier {
            Some(tier) => request.header("X-Tier", tier),
            None => request,
        })
    };
    assert_eq!(outputs(&ask(Some("gold"), &body).await?.ok()?)?, 1);
    assert_eq!(outputs(&ask(Some("iron"), &body).await?.ok()?)?, 0);
    assert_eq!(outputs(&ask(None, &body).await?.ok()?)?, 0);
    // Who says it otherwise as well is refused, and so is a header that would mean something else.
    let mut both = body.clone();
    both["parameters"] = json!({"x-tier": "gold"});
    let refused = ask(Some("iron"), &both).await?;
    assert_eq!(refused.status.as_u16(), 400);
    assert!(refused.error()?.contains("x-tier"), "{}", refused.error()?);
    let refused = Answer::of(
        caller
            .post("/v2/models/tiers/infer")
            .json(&body)
            .header("priority", "u=1"),
    )
    .await?;
    assert_eq!(refused.status.as_u16(), 400);
    let generated = caller.post("/v2/models/tiers/generate").json(&json!({"x": 1.0}));
    let generated = Answer::of(generated.header("x-tier", "gold")).await?.ok()?;
    assert_eq!(generated.json()?["y"], json!(1.0));
    // Over gRPC it is metadata.
    let grpc = mesh.grpc(caller.key()).await?;
    let with = grpc.with("x-tier", "gold");
    let answers =
        |answer: tonic::Response<mesh_protocol::grpc::messages::ModelInferResponse>| answer.into_inner().outputs.len();
    assert_eq!(answers(with.infer(with_parameters("tiers", &[])).await?), 1);
    assert_eq!(answers(grpc.infer(with_parameters("tiers", &[])).await?), 0);
    let mut stream = with
        .stream(vec![with_parameters("tiers", &[]), with_parameters("tiers", &[])])
        .await?;
    for _ in 0..2 {
        let answer = stream.message().await?.expect("two answers");
        assert_eq!(answer.infer_response.expect("an answer").outputs.len(), 1);
    }
    let own = ParameterChoice::StringParam("gold".into());
    let refused = with
        .infer(with_parameters("tiers", &[("x-tier", own)]))
        .await
        .expect_err("it is said twice");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    Ok(())
}
