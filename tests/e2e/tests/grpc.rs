//! What is asked over gRPC is what is asked over HTTP: the same answers, refusals, statistics and index.

use std::{collections::BTreeSet, fmt::Debug, num::ParseFloatError};

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
use mesh_types::DataType;
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

/// A tensor of one row, in every form that can carry it.
struct Case {
    datatype: &'static str,
    elements: usize,
    /// Its list as version 2 has it in JSON, where nothing is a word for what is not finite.
    json: Option<String>,
    /// Its list as version 1 has it, where words are for infinities and for one NaN.
    rows: Option<String>,
    /// Its elements of a message, where none are for short fractions.
    typed: Option<InferTensorContents>,
    raw: Vec<u8>,
}

fn le<T: Copy, const SIZE: usize>(numbers: &[T], bytes: fn(T) -> [u8; SIZE]) -> Vec<u8> {
    numbers.iter().flat_map(|number| bytes(*number)).collect()
}

/// What JSON has words for, the same in both versions, and what fills the elements of a message.
fn said(datatype: &'static str, texts: &[String], raw: Vec<u8>, fill: impl FnOnce(&mut InferTensorContents)) -> Case {
    let list = format!("[{}]", texts.join(","));
    let mut typed = InferTensorContents::default();
    fill(&mut typed);
    Case {
        datatype,
        elements: texts.len(),
        json: Some(list.clone()),
        rows: Some(list),
        typed: Some(typed),
        raw,
    }
}

/// In as many digits as give the same number back.
fn written<T: Debug>(values: &[T]) -> Vec<String> {
    values.iter().map(|value| format!("{value:?}")).collect()
}

fn bools(values: &[bool]) -> Case {
    let raw = values.iter().map(|value| u8::from(*value)).collect();
    said("BOOL", &written(values), raw, |typed| {
        typed.bool_contents = values.to_vec();
    })
}

fn signed(datatype: &'static str, bytes: usize, numbers: &[i32]) -> Case {
    let raw = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes().into_iter().take(bytes));
    let raw = raw.collect();
    said(datatype, &written(numbers), raw, |typed| {
        typed.int_contents = numbers.to_vec();
    })
}

fn unsigned(datatype: &'static str, bytes: usize, numbers: &[u32]) -> Case {
    let raw = numbers
        .iter()
        .flat_map(|number| number.to_le_bytes().into_iter().take(bytes));
    let raw = raw.collect();
    said(datatype, &written(numbers), raw, |typed| {
        typed.uint_contents = numbers.to_vec();
    })
}

fn int64(numbers: &[i64]) -> Case {
    let raw = le(numbers, i64::to_le_bytes);
    said("INT64", &written(numbers), raw, |typed| {
        typed.int64_contents = numbers.to_vec();
    })
}

fn uint64(numbers: &[u64]) -> Case {
    let raw = le(numbers, u64::to_le_bytes);
    said("UINT64", &written(numbers), raw, |typed| {
        typed.uint64_contents = numbers.to_vec();
    })
}

/// Leaves each version's JSON what it has words for.
fn fractions(case: Case, numbers: &[f64]) -> Case {
    Case {
        json: case.json.filter(|_| numbers.iter().all(|number| number.is_finite())),
        rows: case.rows.map(|list| list.replace("inf", "Infinity")),
        ..case
    }
}

fn fp32(numbers: &[f32]) -> Case {
    let (raw, wide) = (le(numbers, f32::to_le_bytes), numbers.iter().copied().map(f64::from));
    let case = said("FP32", &written(numbers), raw, |typed| {
        typed.fp32_contents = numbers.to_vec();
    });
    fractions(case, &wide.collect::<Vec<f64>>())
}

fn fp64(numbers: &[f64]) -> Case {
    let raw = le(numbers, f64::to_le_bytes);
    let case = said("FP64", &written(numbers), raw, |typed| {
        typed.fp64_contents = numbers.to_vec();
    });
    fractions(case, numbers)
}

/// Short fractions by their bits: version 1 alone has words for them.
fn short(datatype: &'static str, bits: &[u16], widened: fn(u16) -> f32) -> Case {
    let numbers: Vec<f32> = bits.iter().map(|bits| widened(*bits)).collect();
    let case = fp32(&numbers);
    Case {
        datatype,
        json: None,
        typed: None,
        raw: le(bits, u16::to_le_bytes),
        ..case
    }
}

fn fp16(bits: &[u16]) -> Case {
    short("FP16", bits, |bits| half::f16::from_bits(bits).to_f32())
}

fn bf16(bits: &[u16]) -> Case {
    short("BF16", bits, |bits| half::bf16::from_bits(bits).to_f32())
}

/// Bytes, which JSON has as texts alone.
fn bytes(values: &[&[u8]]) -> anyhow::Result<Case> {
    let mut raw = Vec::new();
    for value in values {
        raw.extend_from_slice(&u32::try_from(value.len())?.to_le_bytes());
        raw.extend_from_slice(value);
    }
    let texts: Vec<String> = values
        .iter()
        .map(|value| json!(String::from_utf8_lossy(value)).to_string())
        .collect();
    let case = said("BYTES", &texts, raw, |typed| {
        typed.bytes_contents = values.iter().map(|value| value.to_vec().into()).collect();
    });
    let are_texts = values.iter().all(|value| std::str::from_utf8(value).is_ok());
    Ok(Case {
        json: case.json.filter(|_| are_texts),
        rows: case.rows.filter(|_| are_texts),
        ..case
    })
}

/// A NaN that is not the one that version 1 has a word for.
fn another_nan(case: Case) -> Case {
    Case { rows: None, ..case }
}

fn of_fractions() -> Vec<Case> {
    vec![
        fp32(&[1.5, -2.25]),
        fp32(&[
            0.0,
            -0.0,
            f32::MIN,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::from_bits(1),
            16_777_216.0,
            0.1,
        ]),
        fp32(&[f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0]),
        another_nan(fp32(&[-f32::NAN, f32::from_bits(0x7f80_0001)])),
        fp32(&[]),
        fp64(&[1.5, -2.25]),
        fp64(&[
            0.0,
            -0.0,
            f64::MIN,
            f64::MAX,
            f64::MIN_POSITIVE,
            f64::from_bits(1),
            2.0_f64.powi(53),
            0.1,
        ]),
        fp64(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]),
        another_nan(fp64(&[-f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001)])),
        fp64(&[]),
        fp16(&[0x3c00, 0xc000]),
        fp16(&[0, 0x8000, 0x7bff, 0xfbff, 0x0400, 1, 0x8001]),
        fp16(&[0x7e00, 0x7c00, 0xfc00]),
        another_nan(fp16(&[0xfe00, 0x7c01])),
        fp16(&[]),
        bf16(&[0x3f80, 0xc000]),
        bf16(&[0, 0x8000, 0x7f7f, 0xff7f, 0x0080, 1, 0x8001]),
        bf16(&[0x7fc0, 0x7f80, 0xff80]),
        another_nan(bf16(&[0xffc0, 0x7f81])),
        bf16(&[]),
    ]
}

/// Every datatype's everyday elements, the ends of its range, what is no number, and no elements at all.
fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = vec![
        bools(&[true, false]),
        bools(&[]),
        int64(&[1, -2]),
        int64(&[i64::MIN, -1, 0, i64::MAX]),
        int64(&[]),
        uint64(&[1, 2]),
        uint64(&[0, 1 << 63, u64::MAX]),
        uint64(&[]),
        bytes(&[b"a", "ä".as_bytes()])?,
        bytes(&[b""])?,
        bytes(&[
            b"",
            b"\0",
            b"a\0b",
            "\u{10ffff}\"\\\n[,]".as_bytes(),
            "\u{7f}\u{2028}".as_bytes(),
        ])?,
        bytes(&[b"\xff\0", b""])?,
        bytes(&[])?,
    ];
    for (datatype, bytes, least, most) in [
        ("INT8", 1, i8::MIN.into(), i8::MAX.into()),
        ("INT16", 2, i16::MIN.into(), i16::MAX.into()),
        ("INT32", 4, i32::MIN, i32::MAX),
    ] {
        for numbers in [&[1, -2][..], &[least, -1, 0, most], &[]] {
            cases.push(signed(datatype, bytes, numbers));
        }
    }
    for (datatype, bytes, most) in [
        ("UINT8", 1, u8::MAX.into()),
        ("UINT16", 2, u16::MAX.into()),
        ("UINT32", 4, u32::MAX),
    ] {
        for numbers in [&[1, 2][..], &[0, most / 2 + 1, most], &[]] {
            cases.push(unsigned(datatype, bytes, numbers));
        }
    }
    cases.extend(of_fractions());
    Ok(cases)
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

impl Case {
    /// The body of a request of version 2, whose input says so about its elements.
    fn body(&self, binary: bool, elements: &str) -> Vec<u8> {
        let Self {
            datatype,
            elements: count,
            ..
        } = self;
        let input = format!(r#"{{"name":"x","datatype":"{datatype}","shape":[1,{count}],{elements}}}"#);
        format!(r#"{{"parameters":{{"binary_data_output":{binary}}},"inputs":[{input}]}}"#).into_bytes()
    }

    fn message(
        &self,
        model: &str,
        contents: Option<InferTensorContents>,
        raw: Vec<Bytes>,
    ) -> anyhow::Result<ModelInferRequest> {
        let mut message = message(model, self.datatype, contents, raw);
        message.inputs[0].shape = vec![1, i64::try_from(self.elements)?];
        Ok(message)
    }
}

/// The raw bytes of the one output, asked for over HTTP as binary data.
async fn over_http(caller: &Caller, model: &str, head: Vec<u8>, raw: &[u8]) -> anyhow::Result<Vec<u8>> {
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

async fn over_http_as_json(caller: &Caller, model: &str, case: &Case, list: &str) -> anyhow::Result<Vec<u8>> {
    over_http(caller, model, case.body(true, &format!("\"data\":{list}")), &[]).await
}

/// What version 2 answers in JSON, sent on as an input.
async fn through_json(caller: &Caller, model: &str, case: &Case, list: &str) -> anyhow::Result<Vec<u8>> {
    let request = caller.post(&format!("/v2/models/{model}/infer"));
    let request = request.body(case.body(false, &format!("\"data\":{list}")));
    let answer = Answer::of(request).await?.ok()?;
    // As it stands: a parser may round what it reads.
    let text = std::str::from_utf8(&answer.body)?;
    let list = text
        .split_once("\"data\":")
        .and_then(|(_, rest)| rest.strip_suffix("}]}"));
    over_http_as_json(caller, model, case, list.with_context(|| text.to_owned())?).await
}

/// The raw bytes of what version 1 answers: its fractions as Rust reads them, all else sent on as an input of version 2.
async fn through_version_1(caller: &Caller, model: &str, case: &Case, rows: &str) -> anyhow::Result<Vec<u8>> {
    let request = caller.post(&format!("/v1/models/{model}:predict"));
    let request = request.body(format!("{{\"instances\":[{rows}]}}"));
    let answer = Answer::of(request).await?.ok()?;
    let text = std::str::from_utf8(&answer.body)?;
    let list = text
        .strip_prefix("{\"predictions\":[")
        .and_then(|rest| rest.strip_suffix("]}"));
    let list = list.with_context(|| text.to_owned())?;
    let numbers = list.trim_matches(['[', ']']).split(',').filter(|text| !text.is_empty());
    let read = |bytes: fn(&str) -> Result<Vec<u8>, ParseFloatError>| -> anyhow::Result<Vec<u8>> {
        let numbers: Result<Vec<_>, _> = numbers.map(bytes).collect();
        Ok(numbers?.concat())
    };
    match case.datatype {
        "FP32" => read(|text| Ok(text.parse::<f32>()?.to_le_bytes().to_vec())),
        "FP64" => read(|text| Ok(text.parse::<f64>()?.to_le_bytes().to_vec())),
        "FP16" => read(|text| Ok(half::f16::from_f32(text.parse()?).to_le_bytes().to_vec())),
        "BF16" => read(|text| Ok(half::bf16::from_f32(text.parse()?).to_le_bytes().to_vec())),
        _ => over_http_as_json(caller, model, case, list).await,
    }
}

/// The bytes that each form of a case comes back in, by the form.
async fn forms(
    caller: &Caller,
    grpc: &GrpcCaller,
    model: &str,
    case: &Case,
) -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
    let mut answers = Vec::new();
    if let Some(list) = &case.json {
        answers.push(("JSON", over_http_as_json(caller, model, case, list).await?));
        answers.push(("JSON both ways", through_json(caller, model, case, list).await?));
    }
    if let Some(rows) = &case.rows {
        answers.push(("version 1", through_version_1(caller, model, case, rows).await?));
    }
    let size = format!(r#""parameters":{{"binary_data_size":{}}}"#, case.raw.len());
    let binary = over_http(caller, model, case.body(true, &size), &case.raw).await?;
    answers.push(("binary data", binary));
    let mut asked = vec![("raw", case.message(model, None, vec![case.raw.clone().into()])?)];
    if let Some(typed) = &case.typed {
        asked.push(("typed", case.message(model, Some(typed.clone()), Vec::new())?));
    }
    for (form, message) in asked {
        for client in [grpc, &grpc.packed()] {
            let answer = client.infer(message.clone()).await?.into_inner();
            assert_eq!(answer.outputs[0].datatype, case.datatype);
            assert_eq!(answer.outputs[0].shape, message.inputs[0].shape, "{form}");
            let [bytes] = &answer.raw_output_contents[..] else {
                anyhow::bail!("{form}: {} outputs", answer.raw_output_contents.len());
            };
            answers.push((form, bytes.to_vec()));
        }
    }
    Ok(answers)
}

#[tokio::test]
async fn one_request_in_five_forms_has_one_answer_to_the_byte() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    let mut there = BTreeSet::new();
    for case in cases()? {
        let Case { datatype, elements, .. } = case;
        let model = format!("same-{}", datatype.to_lowercase());
        if there.insert(datatype) {
            mesh.admin()?.publish("acme", &model, &identity_of(datatype)).await?;
            caller.until_ready(&model).await?;
        }
        let answers = forms(&caller, &grpc, &model, &case).await;
        for (form, answer) in answers.with_context(|| format!("{datatype} {elements} {:?}", case.raw))? {
            assert_eq!(answer, case.raw, "{datatype} as {form}");
        }
    }
    assert_eq!(there.len(), DataType::ALL.len());
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
