//! What is asked over gRPC is what is asked over HTTP: the same answers, refusals, statistics and index.

use anyhow::Context;
use bytes::Bytes;
use futures::StreamExt;
use mesh_harness::{Answer, Caller, GrpcCaller, Mesh, builtin, eventually, identity};
use mesh_protocol::grpc::messages::{
    InferParameter, InferTensorContents, ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelStatistics,
    ModelStatisticsRequest, ModelStatisticsResponse, RepositoryIndexRequest, RepositoryIndexResponse,
    RepositoryModelLoadRequest, RepositoryModelLoadResponse, infer_parameter::ParameterChoice,
    model_infer_request::InferInputTensor,
};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// An identity of one datatype.
fn identity_of(datatype: &str) -> Value {
    let tensor = |name: &str| json!({"name": name, "datatype": datatype, "dims": [-1]});
    let config = json!({
        "max_batch_size": 8, "input": [tensor("x")], "output": [tensor("y")], "parameters": {"builtin": "identity"},
    });
    json!({"format": "builtin", "config": config})
}

struct Case {
    datatype: &'static str,
    json: Option<Value>,
    typed: Option<InferTensorContents>,
    raw: Vec<u8>,
}

fn typed(fill: impl FnOnce(&mut InferTensorContents)) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    fill(&mut contents);
    contents
}

fn le<T: Copy, const SIZE: usize>(numbers: &[T], bytes: fn(T) -> [u8; SIZE]) -> Vec<u8> {
    numbers.iter().flat_map(|number| bytes(*number)).collect()
}

/// Two elements of every datatype, in every form that it has.
fn cases() -> Vec<Case> {
    let of = |datatype, json: Value, typed, raw| Case {
        datatype,
        json: Some(json),
        typed: Some(typed),
        raw,
    };
    let raw_only = |datatype| Case {
        datatype,
        json: None,
        typed: None,
        raw: vec![0, 60, 0, 192],
    };
    let (signed, most, halves) = (json!([1, -2]), u64::MAX, json!([1.5, -2.25]));
    let ints = typed(|contents| contents.int_contents = vec![1, -2]);
    let uints = |most: u32| typed(|contents| contents.uint_contents = vec![1, most]);
    let bools = typed(|contents| contents.bool_contents = vec![true, false]);
    let int64 = typed(|contents| contents.int64_contents = vec![1, -2]);
    let uint64 = typed(|contents| contents.uint64_contents = vec![1, most]);
    let fp32 = typed(|contents| contents.fp32_contents = vec![1.5, -2.25]);
    let fp64 = typed(|contents| contents.fp64_contents = vec![1.5, -2.25]);
    let bytes = typed(|contents| contents.bytes_contents = vec!["a".into(), "ä".into()]);
    let raw_bytes = b"\x01\0\0\0a\x02\0\0\0\xc3\xa4".to_vec();
    vec![
        of("BOOL", json!([true, false]), bools, vec![1, 0]),
        of("INT8", signed.clone(), ints.clone(), vec![1, 254]),
        of("INT16", signed.clone(), ints.clone(), vec![1, 0, 254, 255]),
        of("INT32", signed.clone(), ints, le(&[1, -2], i32::to_le_bytes)),
        of("INT64", signed, int64, le(&[1, -2], i64::to_le_bytes)),
        of("UINT8", json!([1, 255]), uints(255), vec![1, 255]),
        of("UINT16", json!([1, 65_535]), uints(65_535), vec![1, 0, 255, 255]),
        of(
            "UINT32",
            json!([1, u32::MAX]),
            uints(u32::MAX),
            le(&[1, u32::MAX], u32::to_le_bytes),
        ),
        of("UINT64", json!([1, most]), uint64, le(&[1, most], u64::to_le_bytes)),
        of("FP32", halves.clone(), fp32, le(&[1.5, -2.25], f32::to_le_bytes)),
        of("FP64", halves, fp64, le(&[1.5, -2.25], f64::to_le_bytes)),
        of("BYTES", json!(["a", "ä"]), bytes, raw_bytes),
        raw_only("FP16"),
        raw_only("BF16"),
    ]
}

fn message(model: &str, datatype: &str, contents: Option<InferTensorContents>, raw: Vec<Bytes>) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: datatype.into(),
            shape: vec![1, 2],
            contents,
            ..InferInputTensor::default()
        }],
        raw_input_contents: raw,
        ..ModelInferRequest::default()
    }
}

fn floats(model: &str, numbers: [f32; 2]) -> ModelInferRequest {
    message(model, "FP32", None, vec![le(&numbers, f32::to_le_bytes).into()])
}

/// The raw bytes of the one output, asked for over HTTP as binary data.
async fn over_http(caller: &Caller, model: &str, head: &Value, raw: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut head = head.clone();
    head["parameters"] = json!({"binary_data_output": true});
    let head = serde_json::to_vec(&head)?;
    let length = head.len();
    let request = caller
        .post(&format!("/v2/models/{model}/infer"))
        .header("Inference-Header-Content-Length", length)
        .body([head, raw.to_vec()].concat());
    let answer = Answer::of(request).await?.ok()?;
    let json: usize = answer
        .header("inference-header-content-length")
        .context("no binary data")?
        .parse()?;
    Ok(answer.body[json..].to_vec())
}

/// The values as version 1 of the protocol writes them, which knows the short fractions too.
fn by_version_1(datatype: &str, raw: &[u8], json: Option<&Value>) -> Value {
    let short = |widened: fn(u16) -> f32| {
        let (numbers, _) = raw.as_chunks::<2>();
        json!([numbers
            .iter()
            .map(|raw| widened(u16::from_le_bytes(*raw)))
            .collect::<Vec<f32>>()])
    };
    match datatype {
        "FP16" => short(|bits| half::f16::from_bits(bits).to_f32()),
        "BF16" => short(|bits| half::bf16::from_bits(bits).to_f32()),
        _ => json!([json]),
    }
}

/// The raw bytes of what version 1 answers: its values sent on as an input of version 2, or the bits of its short fractions.
async fn through_version_1(caller: &Caller, model: &str, datatype: &str, rows: &Value) -> anyhow::Result<Vec<u8>> {
    let asked = json!({"instances": rows});
    let answer = Answer::of(caller.post(&format!("/v1/models/{model}:predict")).json(&asked)).await?;
    let values = answer.ok()?.json()?["predictions"][0].clone();
    if matches!(datatype, "FP16" | "BF16") {
        let bits = |number: &Value| {
            let number = number.as_f64().unwrap_or(f64::NAN);
            match datatype {
                "FP16" => half::f16::from_f64(number).to_le_bytes(),
                _ => half::bf16::from_f64(number).to_le_bytes(),
            }
        };
        return Ok(values.as_array().context("no values")?.iter().flat_map(bits).collect());
    }
    let head = json!({"inputs": [{"name": "x", "datatype": datatype, "shape": [1, 2], "data": values}]});
    over_http(caller, model, &head, &[]).await
}

#[tokio::test]
async fn one_request_in_five_forms_has_one_answer_to_the_byte() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    for case in cases() {
        let model = format!("same-{}", case.datatype.to_lowercase());
        mesh.admin()?
            .publish("acme", &model, &identity_of(case.datatype))
            .await?;
        caller.until_ready(&model).await?;
        let Case {
            datatype,
            json,
            typed,
            raw,
        } = case;
        let input = |more: Value| {
            let mut input = json!({"name": "x", "datatype": datatype, "shape": [1, 2]});
            for (name, value) in more.as_object().into_iter().flatten() {
                input[name] = value.clone();
            }
            json!({"inputs": [input]})
        };
        let mut answers = Vec::new();
        if let Some(data) = &json {
            answers.push(over_http(&caller, &model, &input(json!({"data": data})), &[]).await?);
        }
        let rows = by_version_1(datatype, &raw, json.as_ref());
        answers.push(through_version_1(&caller, &model, datatype, &rows).await?);
        let binary = input(json!({"parameters": {"binary_data_size": raw.len()}}));
        answers.push(over_http(&caller, &model, &binary, &raw).await?);
        let mut asked = vec![message(&model, datatype, None, vec![raw.clone().into()])];
        asked.extend(typed.map(|typed| message(&model, datatype, Some(typed), Vec::new())));
        for message in asked {
            for client in [&grpc, &grpc.packed()] {
                let answer = client.infer(message.clone()).await?.into_inner();
                assert_eq!(answer.outputs[0].datatype, datatype);
                answers.extend(answer.raw_output_contents.iter().map(|bytes| bytes.to_vec()));
            }
        }
        for answer in answers {
            assert_eq!(answer, raw, "{datatype}");
        }
    }
    Ok(())
}

/// What both doors say to the same wrong request.
async fn both(caller: &Caller, grpc: &GrpcCaller, model: &str, datatype: &str) -> anyhow::Result<(u16, Code)> {
    let body = json!({"inputs": [{"name": "x", "datatype": datatype, "shape": [1, 2], "data": [1, 2]}]});
    let http = caller.infer(model, &body).await?;
    let raw = if datatype == "FP32" { vec![0; 8] } else { vec![0; 2] };
    let status = grpc.infer(message(model, datatype, None, vec![raw.into()])).await;
    let status = status.err().context("no refusal")?;
    assert_eq!(http.error()?, status.message());
    Ok((http.status.as_u16(), status.code()))
}

#[tokio::test]
async fn refusals_are_the_same_in_words_and_kind() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, other) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    mesh.admin()?.publish("acme", "plain", &identity()).await?;
    caller.until_ready("plain").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    assert_eq!(
        both(&caller, &grpc, "plain", "INT8").await?,
        (400, Code::InvalidArgument)
    );
    assert_eq!(both(&caller, &grpc, "none", "FP32").await?, (404, Code::NotFound));
    let foreign = mesh.grpc(other.key()).await?;
    assert_eq!(both(&other, &foreign, "plain", "FP32").await?, (404, Code::NotFound));
    let stranger = GrpcCaller::connect(mesh.addresses().grpc, None).await?;
    let unknown = both(&mesh.stranger(), &stranger, "plain", "FP32").await?;
    assert_eq!(unknown, (401, Code::Unauthenticated));
    Ok(())
}

/// A mesh with two models of one tenant, one of which is granted to the other tenant.
async fn shared() -> anyhow::Result<(Mesh, Caller, Caller)> {
    let mesh = Mesh::start().await?;
    let (caller, other) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    let admin = mesh.admin()?;
    for model in ["plain", "shared"] {
        admin.publish("acme", model, &identity()).await?;
        caller.until_ready(model).await?;
    }
    admin.model("acme", "shared", json!({"grants": ["globex"]})).await?;
    other.until_ready("shared").await?;
    Ok((mesh, caller, other))
}

async fn statistics(client: &GrpcCaller, name: &str) -> Result<Vec<ModelStatistics>, Status> {
    let asked = ModelStatisticsRequest {
        name: name.into(),
        version: String::new(),
    };
    let answer = client
        .ask::<_, ModelStatisticsResponse>("ModelStatistics", asked)
        .await?;
    Ok(answer.into_inner().model_stats)
}

#[tokio::test]
async fn statistics_are_the_same_at_both_doors_and_end_at_the_tenant() -> anyhow::Result<()> {
    let (mesh, caller, other) = shared().await?;
    let (grpc, foreign) = (mesh.grpc(caller.key()).await?, mesh.grpc(other.key()).await?);
    for _ in 0..3 {
        grpc.infer(floats("shared", [1.0, 2.0])).await?;
    }
    // The thread adds a batch after its answers have left.
    let counted = eventually("the requests are counted", || async {
        let counted = statistics(&grpc, "shared").await?.remove(0);
        Ok((counted.inference_count == 3).then_some(counted))
    })
    .await?;
    let success = counted
        .inference_stats
        .and_then(|all| all.success)
        .context("no success")?;
    assert_eq!(success.count, 3);
    assert!(success.ns > 0 && counted.last_inference > 0 && !counted.batch_stats.is_empty());
    let json = Answer::of(caller.get("/v2/models/shared/stats")).await?.ok()?.json()?;
    assert_eq!(
        json["model_stats"][0]["inference_stats"]["success"],
        json!({"count": 3, "ns": success.ns})
    );
    let all = Answer::of(caller.get("/v2/models/stats")).await?.ok()?.json()?;
    assert_eq!(all["model_stats"].as_array().map(Vec::len), Some(2));
    assert_eq!(statistics(&foreign, "").await?.len(), 1);
    let refused = statistics(&foreign, "plain").await;
    assert_eq!(refused.map_err(|status| status.code()), Err(Code::NotFound));
    Ok(())
}

async fn names(client: &GrpcCaller) -> anyhow::Result<Vec<String>> {
    let index = client.ask::<_, RepositoryIndexResponse>("RepositoryIndex", RepositoryIndexRequest::default());
    let models = index.await?.into_inner().models.into_iter();
    Ok(models.map(|model| format!("{} {}", model.name, model.state)).collect())
}

#[tokio::test]
async fn index_and_configuration_are_the_same_at_both_doors_and_nothing_is_changed_there() -> anyhow::Result<()> {
    let (mesh, caller, other) = shared().await?;
    let (grpc, foreign) = (mesh.grpc(caller.key()).await?, mesh.grpc(other.key()).await?);
    assert_eq!(names(&grpc).await?, ["plain READY", "shared READY"]);
    assert_eq!(names(&foreign).await?, ["shared READY"]);
    let index = other.post("/v2/repository/index").body("{\"ready\":true}");
    assert_eq!(
        Answer::of(index).await?.ok()?.json()?,
        json!([{"name": "shared", "version": "1", "state": "READY", "reason": ""}])
    );
    let asked = ModelConfigRequest {
        name: "plain".into(),
        version: String::new(),
    };
    let config = grpc.ask::<_, ModelConfigResponse>("ModelConfig", asked).await?;
    let json = Answer::of(caller.get("/v2/models/plain/config")).await?.ok()?.json()?;
    assert_eq!(json, serde_json::to_value(config.into_inner().config)?);
    for name in ["plain", "none"] {
        let asked = RepositoryModelLoadRequest {
            model_name: name.into(),
            ..RepositoryModelLoadRequest::default()
        };
        let refused = grpc
            .ask::<_, RepositoryModelLoadResponse>("RepositoryModelLoad", asked)
            .await;
        let refused = refused.err().context("loaded")?;
        assert_eq!(refused.code(), Code::PermissionDenied);
        let load = caller.post(&format!("/v2/repository/models/{name}/load"));
        let over_http = Answer::of(load).await?;
        assert_eq!(
            (over_http.status.as_u16(), &*over_http.error()?),
            (403, refused.message())
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_keeps_its_order_over_many_requests() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    mesh.admin()?.publish("acme", "plain", &identity()).await?;
    caller.until_ready("plain").await?;
    let requests = (0..200_u8).map(|number| floats("plain", [f32::from(number), 0.0]));
    let mut answers = grpc.stream(requests.collect()).await?;
    for number in 0..200_u8 {
        let answer = answers.next().await.context("too few answers")??;
        let response = answer.infer_response.context(answer.error_message)?;
        assert_eq!(
            response.raw_output_contents[0],
            le(&[f32::from(number), 0.0], f32::to_le_bytes)
        );
    }
    assert!(answers.next().await.is_none());
    Ok(())
}

/// One of twenty steps of a sequence whose values are summed.
fn step(at: i32) -> ModelInferRequest {
    let mut message = message("stateful", "INT32", None, vec![at.to_le_bytes().to_vec().into()]);
    message.inputs[0].name = "INPUT".into();
    message.inputs[0].shape = vec![1, 1];
    let choices = [
        ("sequence_id", ParameterChoice::StringParam("7".into())),
        ("sequence_start", ParameterChoice::BoolParam(at == 0)),
        ("sequence_end", ParameterChoice::BoolParam(at == 19)),
    ];
    let given = |(name, choice): (&str, _)| {
        let parameter_choice = Some(choice);
        (name.to_owned(), InferParameter { parameter_choice })
    };
    message.parameters = choices.map(given).into();
    message
}

#[tokio::test]
async fn a_sequence_may_be_sent_over_a_stream_without_waiting_for_its_answers() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    let tensor = |name: &str| json!({"name": name, "data_type": "TYPE_INT32", "dims": [1]});
    let flag = |name: &str, kind: &str| json!({"name": name, "control": [{"kind": kind, "int32_false_true": [0, 1]}]});
    let controls = json!([
        flag("START", "CONTROL_SEQUENCE_START"),
        flag("END", "CONTROL_SEQUENCE_END"),
        flag("READY", "CONTROL_SEQUENCE_READY"),
        {"name": "CORRID", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_STRING"}]},
    ]);
    let config = json!({
        "max_batch_size": 8, "input": [tensor("INPUT")], "output": [tensor("OUTPUT")],
        "sequence_batching": {"max_sequence_idle_microseconds": 5_000_000, "control_input": controls},
        "parameters": {"builtin": "sequence_sum"},
    });
    let spec = json!({"format": "builtin", "config": config});
    mesh.admin()?.publish("acme", "stateful", &spec).await?;
    caller.until_ready("stateful").await?;
    let mut answers = grpc.stream((0..20).map(step).collect()).await?;
    let mut sums = Vec::new();
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        let response = answer.infer_response.context(answer.error_message)?;
        sums.push(i32::from_le_bytes(response.raw_output_contents[0][..].try_into()?));
    }
    let expected: Vec<i32> = (0..20).map(|at| at * (at + 1) / 2).collect();
    assert_eq!((sums.len(), &sums[..19]), (20, &expected[..19]));
    Ok(())
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way() -> anyhow::Result<()> {
    let mut mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    let slow = builtin("busy", &json!({"busy_us": 300_000}));
    mesh.admin()?.publish("acme", "slow", &slow).await?;
    caller.until_ready("slow").await?;
    let (answer, stopped) = futures::join!(grpc.infer(floats("slow", [1.0, 2.0])), async {
        eventually("the request is on its way", || async {
            let metrics = mesh.metrics().await?;
            Ok(metrics
                .lines()
                .any(|line| line == "mesh_requests_in_flight 1")
                .then_some(()))
        })
        .await?;
        mesh.begin_stop();
        anyhow::Ok(())
    });
    stopped?;
    assert_eq!(answer?.into_inner().raw_output_contents.len(), 1);
    mesh.join().await
}
