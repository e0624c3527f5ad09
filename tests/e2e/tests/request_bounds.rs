//! How large a request of a model may be where its owner says so: the same number over every way of asking, and nobody else's business.

use anyhow::ensure;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use mesh_harness::{Answer, Caller, Mesh, eventually, identity};
use mesh_protocol::grpc::messages::{ModelInferRequest, model_infer_request::InferInputTensor};
use prost::Message as _;
use serde_json::json;
use std::io::Write as _;
use tonic::Code;

/// The bound of the model `small`; a model has a first one of half of it.
const BOUND: usize = 600;

/// A body of exactly so many bytes.
fn body(bytes: usize) -> Vec<u8> {
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    let mut body = body.to_string().into_bytes();
    body.resize(bytes, b' ');
    body
}

/// A message of exactly so many bytes.
fn message(model: &str, bytes: usize) -> ModelInferRequest {
    let mut message = ModelInferRequest {
        model_name: model.into(),
        id: "x".repeat(200),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![1.0_f32.to_le_bytes().to_vec().into()],
        ..ModelInferRequest::default()
    };
    let missing = bytes - message.encoded_len();
    message.id.push_str(&"x".repeat(missing));
    assert_eq!(message.encoded_len(), bytes);
    message
}

async fn ask(caller: &Caller, model: &str, body: Vec<u8>) -> anyhow::Result<Answer> {
    Answer::of(caller.post(&format!("/v2/models/{model}/infer")).body(body)).await
}

async fn status(caller: &Caller, model: &str, bytes: usize) -> anyhow::Result<u16> {
    Ok(ask(caller, model, body(bytes)).await?.status.as_u16())
}

async fn bed() -> anyhow::Result<(Mesh, Caller)> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    for (model, bound) in [("small", Some(BOUND)), ("smaller", Some(BOUND / 2)), ("any", None)] {
        admin.publish("acme", model, &identity()).await?;
        admin.model("acme", model, json!({"max_request_bytes": bound})).await?;
        caller.until_ready(model).await?;
    }
    let halves = [("one", "small", "", 50.0), ("other", "smaller", "", 50.0)];
    admin.endpoint("acme", "bounded", &halves).await?;
    let halves = [("one", "small", "", 50.0), ("other", "any", "", 50.0)];
    admin.endpoint("acme", "half", &halves).await?;
    caller.until_ready("half").await?;
    eventually("the bounds hold", || async {
        let refused =
            status(&caller, "small", BOUND + 1).await? == 413 && status(&caller, "smaller", BOUND).await? == 413;
        Ok(refused.then_some(()))
    })
    .await?;
    Ok((mesh, caller))
}

#[tokio::test]
async fn a_model_takes_so_many_bytes_and_not_one_more_over_each_wire() -> anyhow::Result<()> {
    let (mesh, caller) = bed().await?;
    ask(&caller, "small", body(BOUND)).await?.ok()?;
    let refused = ask(&caller, "small", body(BOUND + 1)).await?;
    ensure!(refused.status == 413, "{refused:?}");
    ensure!(
        refused.error()?.contains("600 bytes, the most that this model takes"),
        "{}",
        refused.error()?
    );
    ask(&caller, "any", body(BOUND + 1)).await?.ok()?;
    // In pieces that say no length, and packed, which counts as it unfolds.
    for (bytes, expected) in [(BOUND, 200), (BOUND + 1, 413)] {
        let pieces: Vec<Result<Bytes, std::io::Error>> = body(bytes)
            .chunks(100)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let pieces = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
        let request = caller.post("/v2/models/small/infer").body(pieces);
        ensure!(Answer::of(request).await?.status == expected, "{bytes} in pieces");
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        packed.write_all(&body(bytes))?;
        let request = caller.post("/v2/models/small/infer").header("content-encoding", "gzip");
        let answer = Answer::of(request.body(packed.finish()?)).await?;
        ensure!(answer.status == expected, "{bytes} packed: {answer:?}");
    }
    let grpc = mesh.grpc(caller.key()).await?;
    for grpc in [grpc.clone(), grpc.packed()] {
        grpc.infer(message("small", BOUND)).await?;
        let refused = grpc.infer(message("small", BOUND + 1)).await;
        let refused = refused.err().map(|status| (status.code(), status.message().to_owned()));
        let text = "the request has 601 bytes, and model 'small' takes 600 at most";
        ensure!(
            refused == Some((Code::ResourceExhausted, text.to_owned())),
            "{refused:?}"
        );
        grpc.infer(message("any", BOUND + 1)).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_endpoint_takes_what_the_arm_that_answers_takes() -> anyhow::Result<()> {
    let (_mesh, caller) = bed().await?;
    // More than any of its arms takes is refused before it is read, and in between it is the arm's to say.
    ensure!(status(&caller, "bounded", BOUND + 1).await? == 413);
    for (endpoint, bytes, small, large) in [("bounded", BOUND, "other", "one"), ("half", BOUND + 1, "one", "other")] {
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..200 {
            let answer = ask(&caller, endpoint, body(bytes)).await?;
            match answer.status.as_u16() {
                200 => {
                    ensure!(
                        answer.header("x-mesh-arm") == Some(large),
                        "{answer:?} though {small} is smaller"
                    );
                    taken += 1;
                }
                413 => refused += 1,
                _ => anyhow::bail!("{answer:?}"),
            }
            if taken > 0 && refused > 0 {
                break;
            }
        }
        ensure!(taken > 0 && refused > 0, "{endpoint}: {taken} taken, {refused} refused");
    }
    Ok(())
}

#[tokio::test]
async fn a_bound_tells_nobody_else_of_its_model() -> anyhow::Result<()> {
    let (mesh, _caller) = bed().await?;
    let globex = mesh.tenant("globex").await?;
    for bytes in [BOUND, BOUND + 1] {
        let (foreign, absent) = (
            ask(&globex, "small", body(bytes)).await?,
            ask(&globex, "absent", body(bytes)).await?,
        );
        let text = |answer: &Answer, name: &str| String::from_utf8_lossy(&answer.body).replace(name, "NAME");
        ensure!(
            foreign.status == 404 && absent.status == 404,
            "{foreign:?} and {absent:?}"
        );
        ensure!(text(&foreign, "small") == text(&absent, "absent"));
        ensure!(status(&mesh.stranger(), "small", bytes).await? == 401);
    }
    let refused = mesh
        .admin()?
        .model("acme", "small", json!({"max_request_bytes": 0}))
        .await;
    ensure!(refused.is_err_and(|error| format!("{error:#}").contains("spec.max_request_bytes")));
    Ok(())
}
