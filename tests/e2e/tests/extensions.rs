//! The extensions of inference, on both wires: what they change, and that they change nothing else.

use mesh_harness::{Answer, Caller, Mesh, builtin};
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
