//! Any number of answers to a request, over both wires: each when it is there, with its request's id, and one end.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use futures::StreamExt;
use mesh_e2e::{
    counted,
    python::{conformance, run},
};
use mesh_harness::{
    Answer, Caller, GrpcCaller, Mesh, MeshOptions, ServeOptions, Text, eventually, identity, repeat_int32,
};
use mesh_protocol::grpc::messages::{
    InferParameter, ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse,
    infer_parameter::ParameterChoice, model_infer_request::InferInputTensor,
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

/// A model that fails once a request has had two answers.
fn failing() -> Value {
    let mut model = repeat_int32();
    model["config"]["parameters"]["fail_after"] = json!(2);
    model
}

fn mock_llm() -> Value {
    let tensor = |name: &str, datatype: &str, optional: bool| json!({"name": name, "data_type": datatype, "dims": [1], "optional": optional});
    let config = json!({
        "max_batch_size": 0,
        "model_transaction_policy": {"decoupled": true},
        "input": [tensor("text_input", "TYPE_STRING", false), tensor("max_tokens", "TYPE_INT32", true),
            tensor("stream", "TYPE_BOOL", true)],
        "output": [{"name": "text_output", "data_type": "TYPE_STRING", "dims": [1]}],
        "parameters": {"builtin": "mock_llm"},
    });
    json!({"format": "builtin", "config": config})
}

/// A mesh in which a tenant has the models, ready.
async fn mesh() -> anyhow::Result<(Mesh, Caller, GrpcCaller)> {
    with_threads(1).await
}

/// A generation occupies the thread that it runs on: whether another request runs beside it is a matter of how many there are.
async fn with_threads(threads: u32) -> anyhow::Result<(Mesh, Caller, GrpcCaller)> {
    let mesh = Mesh::start_with(MeshOptions {
        serve: ServeOptions {
            threads_per_device: Some(Text(threads.to_string())),
            ..ServeOptions::default()
        },
        ..MeshOptions::default()
    })
    .await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    for (name, model) in [
        ("repeat_int32", repeat_int32()),
        ("failing", failing()),
        ("mock_llm", mock_llm()),
        ("plain", identity()),
    ] {
        admin.publish("acme", name, &model).await?;
        caller.until_ready(name).await?;
    }
    let grpc = mesh.grpc(caller.key()).await?;
    Ok((mesh, caller, grpc))
}

fn le(numbers: &[u32]) -> bytes::Bytes {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// A request for as many answers as there are values, each so many milliseconds after the one before.
fn repeat(model: &str, id: &str, values: &[u32], delay: u32) -> ModelInferRequest {
    let input = |name: &str, datatype: &str, length: usize| InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: vec![i64::try_from(length).unwrap_or(0)],
        ..InferInputTensor::default()
    };
    ModelInferRequest {
        model_name: model.into(),
        id: id.into(),
        inputs: vec![
            input("IN", "INT32", values.len()),
            input("DELAY", "UINT32", values.len()),
            input("WAIT", "UINT32", 1),
        ],
        raw_input_contents: vec![le(values), le(&vec![delay; values.len()]), le(&[0])],
        ..ModelInferRequest::default()
    }
}

fn with_empty_final(mut request: ModelInferRequest) -> ModelInferRequest {
    let value = InferParameter {
        parameter_choice: Some(ParameterChoice::BoolParam(true)),
    };
    let name = "triton_enable_empty_final_response".to_owned();
    request.parameters.insert(name, value);
    request
}

fn is_final(response: &ModelInferResponse) -> bool {
    let told = response.parameters.get("triton_final_response");
    told.and_then(|told| told.parameter_choice.clone()) == Some(ParameterChoice::BoolParam(true))
}

fn number(response: &ModelInferResponse, output: usize) -> anyhow::Result<u32> {
    let raw = response.raw_output_contents.get(output).context("no such output")?;
    Ok(u32::from_le_bytes(raw.as_ref().try_into()?))
}

/// What came over a stream: the id, the value and whether it is the last; or the id and the error.
type Heard = Vec<(String, Result<(Option<u32>, bool), String>)>;

/// All that comes over a stream.
async fn heard(grpc: &GrpcCaller, requests: Vec<ModelInferRequest>) -> anyhow::Result<Heard> {
    let mut answers = grpc.stream(requests).await?;
    let mut heard = Vec::new();
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        let response = answer.infer_response.context("an answer names its request")?;
        let said = if answer.error_message.is_empty() {
            Ok((number(&response, 0).ok(), is_final(&response)))
        } else {
            Err(answer.error_message)
        };
        heard.push((response.id, said));
    }
    Ok(heard)
}

#[tokio::test]
async fn a_stream_has_each_answer_with_its_requests_id_and_its_end_where_it_is_asked_for() -> anyhow::Result<()> {
    let (_mesh, _caller, grpc) = mesh().await?;
    let got = heard(&grpc, vec![repeat("repeat_int32", "a", &[7, 8, 9], 0)]).await?;
    let value = |id: &str, value: u32| (id.to_owned(), Ok((Some(value), false)));
    assert_eq!(got, [value("a", 7), value("a", 8), value("a", 9)]);
    let end = |id: &str| (id.to_owned(), Ok((None, true)));
    let got = heard(&grpc, vec![with_empty_final(repeat("repeat_int32", "b", &[5], 0))]).await?;
    assert_eq!(got, [value("b", 5), end("b")]);
    let none = heard(&grpc, vec![repeat("repeat_int32", "c", &[], 0)]).await?;
    assert_eq!(none, []);
    let none = heard(&grpc, vec![with_empty_final(repeat("repeat_int32", "d", &[], 0))]).await?;
    assert_eq!(none, [end("d")]);
    let broken = vec![
        with_empty_final(repeat("failing", "e", &[1, 2, 3], 0)),
        repeat("no-such-model", "f", &[1], 0),
        repeat("repeat_int32", "g", &[6], 0),
    ];
    let got = heard(&grpc, broken).await?;
    let of = |id: &str| {
        got.iter()
            .filter(|(known, _)| known == id)
            .map(|(_, said)| said.clone())
            .collect::<Vec<_>>()
    };
    let failed = of("e");
    assert_eq!(failed[..2], [Ok((Some(1), false)), Ok((Some(2), false))]);
    ensure!(failed.len() == 3, "the error is the end: {failed:?}");
    assert!(
        failed[2].as_ref().unwrap_err().contains("after 2 answers"),
        "{failed:?}"
    );
    assert!(of("f")[0].as_ref().unwrap_err().contains("Request for unknown model"));
    assert_eq!(of("g"), [Ok((Some(6), false))], "the stream goes on");
    Ok(())
}

#[tokio::test]
async fn answers_come_when_they_are_there_and_hold_up_no_other_request() -> anyhow::Result<()> {
    let (_mesh, _caller, grpc) = with_threads(2).await?;
    let began = Instant::now();
    let slow = repeat("repeat_int32", "slow", &[1, 2, 3], 400);
    let plain = ModelInferRequest {
        model_name: "plain".into(),
        id: "plain".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![le(&[1.5f32.to_bits()])],
        ..ModelInferRequest::default()
    };
    let mut answers = grpc.stream(vec![slow, plain]).await?;
    let mut ids = Vec::new();
    let mut first = None;
    while let Some(answer) = answers.next().await {
        let response = answer?.infer_response.context("no response")?;
        first.get_or_insert(began.elapsed());
        ids.push(response.id);
    }
    ensure!(began.elapsed() >= Duration::from_millis(1_200), "the delays are kept");
    ensure!(
        first.context("nothing came")? < Duration::from_millis(1_200),
        "the first does not wait for the last"
    );
    ensure!(
        ids.iter().filter(|id| *id == "slow").count() == 3 && ids.last().is_some_and(|id| id == "slow"),
        "{ids:?}"
    );
    Ok(())
}

#[tokio::test]
async fn who_has_room_for_one_answer_is_told_where_to_call() -> anyhow::Result<()> {
    let (_mesh, caller, grpc) = mesh().await?;
    let refused = grpc.infer(repeat("repeat_int32", "", &[1], 0)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    let text = "ModelInfer RPC doesn't support models with decoupled transaction policy";
    assert!(refused.message().starts_with(text), "{refused}");
    let body = json!({"inputs": [
        {"name": "IN", "datatype": "INT32", "shape": [1], "data": [1]},
        {"name": "DELAY", "datatype": "UINT32", "shape": [1], "data": [0]},
        {"name": "WAIT", "datatype": "UINT32", "shape": [1], "data": [0]},
    ]});
    let answer = caller.infer("repeat_int32", &body).await?;
    assert_eq!(answer.status, StatusCode::NOT_IMPLEMENTED);
    let text = "HTTP end point doesn't support models with decoupled transaction policy";
    assert!(answer.error()?.starts_with(text), "{}", answer.error()?);
    let columns = json!({"inputs": {"IN": [1], "DELAY": [0], "WAIT": [0]}});
    let v1 = Answer::of(caller.post("/v1/models/repeat_int32:predict").json(&columns)).await?;
    assert_eq!(v1.status, StatusCode::NOT_IMPLEMENTED, "{}", v1.error()?);
    // What is not decoupled is called as ever, over a stream too.
    caller.ask("plain", &[1.0]).await?.ok()?;
    let asked = ModelConfigRequest {
        name: "repeat_int32".into(),
        ..ModelConfigRequest::default()
    };
    let told: ModelConfigResponse = grpc.ask("ModelConfig", asked).await?.into_inner();
    let policy = told.config.and_then(|config| config.model_transaction_policy);
    assert!(policy.is_some_and(|policy| policy.decoupled));
    let config = Answer::of(caller.get("/v2/models/repeat_int32/config"))
        .await?
        .ok()?
        .json()?;
    assert_eq!(config["model_transaction_policy"], json!({"decoupled": true}));
    Ok(())
}

fn events(body: &str) -> anyhow::Result<Vec<Value>> {
    let events = body.split_terminator("\n\n");
    events
        .map(|event| {
            let data = event.strip_prefix("data: ").context("no event")?;
            Ok(serde_json::from_str(data)?)
        })
        .collect()
}

#[tokio::test]
async fn generate_stream_has_an_event_for_each_answer_and_generate_is_for_exactly_one() -> anyhow::Result<()> {
    let (_mesh, caller, _grpc) = mesh().await?;
    let generate = |path: &str, body: Value| {
        let request = caller.post(&format!("/v2/models/{path}")).json(&body);
        Answer::of(request)
    };
    let whole = |answer: &Answer| String::from_utf8_lossy(&answer.body).into_owned();
    let said = json!({"id": "7", "text_input": "one two", "max_tokens": 3, "stream": true});
    let answer = generate("mock_llm/generate_stream", said.clone()).await?.ok()?;
    assert_eq!(answer.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert!(answer.header("traceparent").is_some() && answer.header("x-mesh-version") == Some("1"));
    let heard = events(&whole(&answer))?;
    let texts: Vec<_> = heard.iter().map(|event| event["text_output"].as_str()).collect();
    assert_eq!(texts, [Some("one"), Some(" two"), Some(" one")]);
    assert!(
        heard
            .iter()
            .all(|event| event["id"] == "7" && event["model_name"] == "mock_llm")
    );

    let once = json!({"text_input": "one two", "stream": false});
    let one = generate("mock_llm/generate", once.clone()).await?.ok()?.json()?;
    assert_eq!(one["text_output"], "one two");
    assert_eq!(
        events(&whole(&generate("mock_llm/generate_stream", once).await?.ok()?))?.len(),
        1
    );
    for tokens in [0, 3] {
        let mut body = said.clone();
        body["max_tokens"] = json!(tokens);
        let refused = generate("mock_llm/generate", body).await?;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        let text = "generate expects model to produce exactly 1 response";
        assert!(refused.error()?.contains(text), "{}", refused.error()?);
    }
    let mut none = said.clone();
    none["max_tokens"] = json!(0);
    let none = generate("mock_llm/generate_stream", none).await?.ok()?;
    assert_eq!(whole(&none), "");

    let values = |count: usize| json!({"IN": vec![5; count], "DELAY": vec![0; count], "WAIT": 0});
    let broken = generate("failing/generate_stream", values(3)).await?.ok()?;
    let heard = events(&whole(&broken))?;
    assert_eq!((heard.len(), &heard[1]["IDX"]), (3, &json!(1)), "{heard:?}");
    assert!(
        heard[2]["error"]
            .as_str()
            .is_some_and(|error| error.contains("after 2 answers"))
    );
    let uneven = json!({"IN": [1], "DELAY": [1, 1], "WAIT": 0});
    let refused = generate("repeat_int32/generate_stream", uneven).await?;
    assert_eq!(
        refused.status,
        StatusCode::BAD_REQUEST,
        "nothing was answered: the status says so"
    );
    assert!(refused.error()?.contains("shape to match"));
    Ok(())
}

#[tokio::test]
async fn generate_with_no_answer_or_several_counts_as_refused_and_for_the_model_as_done() -> anyhow::Result<()> {
    let (mesh, caller, _grpc) = mesh().await?;
    for (tokens, status) in [(0, 400), (1, 200), (3, 400)] {
        let body = json!({"text_input": "one two", "max_tokens": tokens, "stream": true});
        let answer = Answer::of(caller.post("/v2/models/mock_llm/generate").json(&body)).await?;
        assert_eq!(answer.status.as_u16(), status, "{tokens}");
    }
    let metrics = mesh.metrics().await?;
    let of = |outcome: &str| {
        let outcome = format!("outcome=\"{outcome}\"");
        counted(&metrics, "mesh_requests_total", &["endpoint=\"mock_llm\"", &outcome])
    };
    assert_eq!((of("client"), of("ok")), (2.0, 1.0));
    // The model has done what it should. Whom several answers were too many for leaves it, which may be after its last.
    let told = statistics(&caller, "mock_llm", |told| {
        told["inference_stats"]["success"]["count"] != 0
    })
    .await?;
    assert_eq!(told["inference_stats"]["fail"]["count"], 0);
    Ok(())
}

/// A version's statistics, as they are once something holds of them.
async fn statistics(caller: &Caller, model: &str, holds: fn(&Value) -> bool) -> anyhow::Result<Value> {
    eventually("the statistics", || async {
        let answer = Answer::of(caller.get(&format!("/v2/models/{model}/stats")))
            .await?
            .ok()?;
        let told = answer.json()?["model_stats"][0].clone();
        Ok(holds(&told).then_some(told))
    })
    .await
}

#[tokio::test]
async fn statistics_and_metrics_count_a_request_once_and_its_answers_by_their_place() -> anyhow::Result<()> {
    let (mesh, caller, grpc) = mesh().await?;
    heard(
        &grpc,
        vec![
            repeat("repeat_int32", "a", &[1, 2], 5),
            repeat("repeat_int32", "b", &[1], 5),
        ],
    )
    .await?;
    let told = statistics(&caller, "repeat_int32", |told| told["inference_count"] == 2).await?;
    let places = told["response_stats"].as_object().context("no response_stats")?;
    let count = |place: &str, what: &str| places[place][what]["count"].as_u64();
    assert_eq!(places.keys().collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(
        (count("0", "success"), count("1", "success"), count("2", "success")),
        (Some(2), Some(1), Some(0))
    );
    assert_eq!(
        (count("1", "empty_response"), count("2", "empty_response")),
        (Some(1), Some(1))
    );
    ensure!(
        places["0"]["compute_infer"]["ns"].as_u64() >= Some(10_000_000),
        "two delays: {places:?}"
    );
    assert_eq!(told["inference_stats"]["success"]["count"], 2);
    heard(&grpc, vec![repeat("failing", "c", &[1, 2, 3], 0)]).await?;
    let told = statistics(&caller, "failing", |told| told["inference_stats"]["fail"]["count"] == 1).await?;
    assert_eq!(told["response_stats"]["2"]["fail"]["count"], 1);
    let plain = statistics(&caller, "plain", |_| true).await?;
    assert_eq!(plain["response_stats"], json!({}));
    let metrics = mesh.metrics().await?;
    let labels = ["tenant=\"acme\"", "endpoint=\"repeat_int32\""];
    assert_eq!(counted(&metrics, "mesh_requests_total", &labels), 2.0);
    assert_eq!(counted(&metrics, "mesh_answers_total", &labels), 3.0);
    assert_eq!(
        counted(&metrics, "mesh_time_to_first_answer_seconds_count", &labels),
        2.0
    );
    Ok(())
}

#[tokio::test]
async fn who_leaves_has_the_generation_stop_and_gives_back_what_it_held() -> anyhow::Result<()> {
    let (mesh, caller, grpc) = mesh().await?;
    let long = || repeat("repeat_int32", "long", &[1; 600], 50);
    let mut answers = grpc.stream(vec![long()]).await?;
    answers.next().await.context("no answer")??;
    drop(answers);
    let cancelled = |told: &Value| {
        let places = told["response_stats"].as_object();
        let counts = places.into_iter().flat_map(|places| places.values());
        counts
            .filter_map(|place| place["cancel"]["count"].as_u64())
            .sum::<u64>()
            == 1
    };
    statistics(&caller, "repeat_int32", cancelled).await?;
    let values = json!({"IN": vec![1; 600], "DELAY": vec![50; 600], "WAIT": 0});
    let request = caller.post("/v2/models/repeat_int32/generate_stream").json(&values);
    let mut response = request.send().await?;
    response.chunk().await?.context("no event")?;
    drop(response);
    statistics(&caller, "repeat_int32", |told| {
        let places = told["response_stats"].as_object();
        let counts = places.into_iter().flat_map(|places| places.values());
        counts
            .filter_map(|place| place["cancel"]["count"].as_u64())
            .sum::<u64>()
            == 2
    })
    .await?;
    eventually("nothing is in flight", || async {
        let metrics = mesh.metrics().await?;
        Ok(metrics
            .lines()
            .any(|line| line == "mesh_requests_in_flight 0")
            .then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_reader_that_does_not_read_fails_and_another_tenant_is_served_meanwhile() -> anyhow::Result<()> {
    let (mesh, caller, _) = mesh().await?;
    let other = mesh.tenant("globex").await?;
    mesh.admin()?
        .model("acme", "repeat_int32", json!({"grants": ["globex"]}))
        .await?;
    other.until_ready("repeat_int32").await?;
    // Far more than the sockets between take in.
    let words = "word ".repeat(4_000);
    let body = json!({"text_input": words, "max_tokens": 1_000_000, "stream": true});
    let request = caller.post("/v2/models/mock_llm/generate_stream").json(&body);
    let mut stuck = request.send().await?;
    stuck.chunk().await?.context("no event")?;
    let over = other
        .post("/v2/models/repeat_int32/generate")
        .json(&json!({"IN": [3], "DELAY": [0], "WAIT": [0]}));
    let served = Answer::of(over).await?.ok()?.json()?;
    assert_eq!(served["OUT"], 3);
    statistics(&caller, "mock_llm", |told| {
        told["inference_stats"]["fail"]["count"] == 1
    })
    .await?;
    let mut rest = Vec::new();
    while let Some(chunk) = stuck.chunk().await? {
        rest.extend_from_slice(&chunk);
        ensure!(rest.len() < 1 << 30, "it does not end");
    }
    let rest = String::from_utf8_lossy(&rest);
    let last = rest.trim_end().rsplit("\n\n").next().context("nothing")?;
    ensure!(last.contains("read too slowly"), "{last}");
    Ok(())
}

#[tokio::test]
async fn a_deadline_ends_a_generation_with_an_error() -> anyhow::Result<()> {
    let (_mesh, caller, _grpc) = mesh().await?;
    let values = json!({"IN": vec![1; 600], "DELAY": vec![50; 600], "WAIT": 0});
    let request = caller.post("/v2/models/repeat_int32/generate_stream").json(&values);
    let began = Instant::now();
    let answer = Answer::of(request.header("x-request-timeout-ms", 400)).await?.ok()?;
    ensure!(began.elapsed() < Duration::from_secs(20), "it ends at its deadline");
    let heard = events(&String::from_utf8_lossy(&answer.body))?;
    let last = heard.last().context("nothing")?;
    ensure!(
        heard.len() > 1 && last["error"].as_str().is_some_and(|error| error.contains("deadline")),
        "{last}"
    );
    Ok(())
}

#[tokio::test]
async fn a_foreign_decoupled_model_answers_like_one_that_is_not_there() -> anyhow::Result<()> {
    let (mesh, _caller, _) = mesh().await?;
    let other = mesh.tenant("globex").await?;
    let grpc = mesh.grpc(other.key()).await?;
    let asked = |model: &str| vec![repeat(model, "a", &[1], 0)];
    let (foreign, unknown) = (
        heard(&grpc, asked("repeat_int32")).await?,
        heard(&grpc, asked("repeat_int33")).await?,
    );
    let text = |heard: &Heard| match heard.as_slice() {
        [(_, Err(error))] => Ok(error.clone()),
        other => bail!("{other:?}"),
    };
    assert_eq!(text(&foreign)?.replace("int32", "int33"), text(&unknown)?);
    Ok(())
}

#[tokio::test]
async fn an_unmodified_triton_client_follows_many_answers() -> anyhow::Result<()> {
    let (mesh, caller, _) = mesh().await?;
    let (http, grpc, key) = (
        mesh.addresses().http.to_string(),
        mesh.addresses().grpc.to_string(),
        caller.key().to_owned(),
    );
    let all_hold = tokio::task::spawn_blocking(move || {
        let python = mesh_e2e::python::python(Path::new(env!("CARGO_TARGET_TMPDIR")), "requirements.txt")?;
        let told = run(Command::new(&python)
            .arg(conformance().join("triton_decoupled.py"))
            .env("MESH_HTTP", &http)
            .env("MESH_GRPC", &grpc)
            .env("MESH_KEY", &key))?;
        ensure!(told.contains("checks hold"), "{told}");
        anyhow::Ok(())
    });
    all_hold.await?
}
