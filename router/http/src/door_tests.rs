//! The door as callers meet it: over a real socket, with a real router behind it and workers made for the test.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use mesh_actors::{Readiness, Tasks};
use mesh_policies::{
    ApiKeyEntry, Arm, Credentials, GeneratedKey, Limiter, Limits, MeshSnapshot, ModelEntry, Pepper, Rate, Route, Scope,
    Target, TenantEntry, TenantLimits, VersionEntry,
    access::Attempts,
    generate_api_key,
    limits::{Budgets, Unit},
};
use mesh_router::{RouterParts, WorkerReply, Workers};
use mesh_telemetry::Telemetry;
use mesh_types::{
    ArtifactFormat, Clock, DataType, DeviceId, EndpointId, Fault, FaultSource, InferJob, JobOutcome, ManualClock,
    ModelConfig, ModelId, ModelVersionKey, StageTimings, SystemClock, TenantId, Tensor, TensorSpec, Version,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use crate::{DoorError, HttpDoor, HttpDoorConfig, MetricsDoor, body::DRAIN_BYTES};

mod extensions;
mod http2;
mod http2_abuse;
mod pace;
mod smuggling;
mod views;

const MAX_BODY: usize = 64 * 1024;
const GOOD: &str = r#"{"id":"7","inputs":[{"name":"INPUT0","datatype":"INT32","shape":[1,2],"data":[1,-2]}]}"#;

// Answers with its input; `panics` does what its name says, on the router's own stack; `never` waits for ever, and tells when it is waited for and when it is given up.
struct FakeWorkers {
    waiting: watch::Sender<usize>,
    cancelled: watch::Sender<usize>,
    release: watch::Sender<bool>,
}

struct TellsOfDrop(watch::Sender<usize>);

impl Drop for TellsOfDrop {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

impl Workers for FakeWorkers {
    fn submit(&self, _: DeviceId, job: InferJob) -> Result<WorkerReply, Fault> {
        let echo = move || {
            let outputs = job.inputs.iter().map(|tensor| Tensor {
                name: Arc::from("OUTPUT0"),
                ..tensor.clone()
            });
            Ok(JobOutcome {
                outputs: outputs.collect(),
                timings: StageTimings::default(),
            })
        };
        match job.version.model.as_str() {
            "panics" => panic!("told to"),
            "full" => Err(Fault::unavailable(FaultSource::Device, "Exceeds maximum queue size")),
            "never" => {
                self.waiting.send_modify(|count| *count += 1);
                let (given_up, mut release) = (TellsOfDrop(self.cancelled.clone()), self.release.subscribe());
                Ok(Box::pin(async move {
                    let _given_up = given_up;
                    let _ = release.wait_for(|released| *released).await;
                    echo()
                }))
            }
            _ => Ok(Box::pin(async move { echo() })),
        }
    }
}

struct Bed {
    door: HttpDoor,
    key: String,
    workers: Arc<FakeWorkers>,
    readiness: Readiness,
    tasks: Tasks,
    telemetry: Telemetry,
}

fn model(name: &str, datatype: DataType) -> Arc<ModelEntry> {
    let spec = |name: &str| TensorSpec::new(name, datatype, &[-1]);
    let (owner, model) = (TenantId::parse("acme").unwrap(), ModelId::parse(name).unwrap());
    let version = VersionEntry {
        key: Arc::new(ModelVersionKey {
            tenant: owner.clone(),
            model: model.clone(),
            version: Version::FIRST,
        }),
        config: Arc::new(ModelConfig {
            max_batch_size: 8,
            input: vec![spec("INPUT0")],
            output: vec![spec("OUTPUT0")],
            ..ModelConfig::default()
        }),
        format: ArtifactFormat::Builtin,
        digest: None,
        ready_on: vec![DeviceId::cpu(0)],
        plan: None,
        unavailable_reason: None,
        phase: Default::default(),
    };
    Arc::new(ModelEntry {
        grants: Arc::default(),
        owner,
        model,
        versions: [(Version::FIRST, Arc::new(version))].into(),
        labels: Default::default(),
        default: None,
    })
}

fn key() -> GeneratedKey {
    generate_api_key("test", &mut rand::rng())
}

/// What holds: a tenant with this key, and models whose tensors are of this datatype.
fn snapshot(limits: TenantLimits, key: &GeneratedKey, datatype: DataType) -> MeshSnapshot {
    let pepper = Pepper::from_bytes([7; 32]);
    let tenant = TenantId::parse("acme").unwrap();
    let entry = ApiKeyEntry {
        groups: [].into(),
        id: key.id.clone(),
        tenant: tenant.clone(),
        hash: pepper.hash(&key.secret),
        scopes: [Scope::Infer].into_iter().collect(),
        expires: None,
        revoked: false,
    };
    let mut targets: HashMap<String, Target> = ["echo", "full", "never", "panics"]
        .map(|name| (name.to_owned(), Target::Model(model(name, datatype))))
        .into();
    let echo = model("echo", datatype);
    let arm = Arm {
        name: Arc::from("control"),
        version: echo.versions.values().next().cloned(),
        model: echo,
        hundredths: 10_000,
    };
    let route = Route {
        endpoint: EndpointId::parse("split").unwrap(),
        arms: vec![arm],
        unit: None,
        salt: "s".into(),
        timeout: None,
        cache: None,
        class: mesh_types::ServiceClass::default(),
    };
    targets.insert("split".into(), Target::Endpoint(Arc::new(route)));
    let tenant = TenantEntry {
        id: tenant,
        created: 0,
        suspended: false,
        limits,
        share: mesh_types::TenantShare::default(),
        targets,
    };
    MeshSnapshot::new(1, Credentials::new(pepper).with_key(entry), [tenant])
}

fn bed_with(limits: TenantLimits, change: impl FnOnce(&mut HttpDoorConfig)) -> Bed {
    bed_at(Arc::new(SystemClock), limits, change)
}

fn bed_at(clock: Arc<dyn Clock>, limits: TenantLimits, change: impl FnOnce(&mut HttpDoorConfig)) -> Bed {
    let key = key();
    let snapshots = Arc::new(ArcSwap::from_pointee(snapshot(limits, &key, DataType::Int32)));
    bed_by(snapshots, clock, key.text, change)
}

fn bed_by(
    snapshots: Arc<ArcSwap<MeshSnapshot>>,
    clock: Arc<dyn Clock>,
    key: String,
    change: impl FnOnce(&mut HttpDoorConfig),
) -> Bed {
    let workers = Arc::new(FakeWorkers {
        waiting: watch::Sender::new(0),
        cancelled: watch::Sender::new(0),
        release: watch::Sender::new(false),
    });
    let telemetry = Telemetry::local();
    let parts = RouterParts {
        attempts: Arc::new(Attempts::new(clock.clone())),
        cache: Arc::default(),
        sequences: Arc::default(),
        regions: Arc::default(),
        client_settings: false,
        snapshots,
        limiter: Arc::new(Limiter::new(clock.clone())),
        workers: workers.clone(),
        gates: Arc::default(),
        telemetry: telemetry.clone(),
        clock,
        default_timeout: Duration::from_secs(30),
        max_in_flight: 100,
    };
    let mut config = HttpDoorConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        workers: 1,
        max_body_bytes: MAX_BODY,
        ..HttpDoorConfig::default()
    };
    change(&mut config);
    let (tasks, readiness) = (Tasks::new(), Readiness::default());
    let door = HttpDoor::start(config, parts, readiness.clone(), &tasks).unwrap();
    Bed {
        door,
        key,
        workers,
        readiness,
        tasks,
        telemetry,
    }
}

fn bed() -> Bed {
    bed_with(TenantLimits::default(), |_| {})
}

struct Reply {
    status: u16,
    headers: HashMap<String, String>,
    body: Bytes,
}

impl Reply {
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

// One connection, spoken by hand, so that what is sent is exactly what is written here.
struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
    key: String,
}

impl Client {
    async fn new(bed: &Bed) -> Self {
        Self::to(bed.door.addr(), &bed.key).await
    }

    async fn to(address: SocketAddr, key: &str) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            buffer: Vec::new(),
            key: key.to_owned(),
        }
    }

    async fn raw(&mut self, bytes: &[u8]) -> Reply {
        self.stream.write_all(bytes).await.unwrap();
        self.reply().await
    }

    async fn get(&mut self, path: &str) -> Reply {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {}\r\n\r\n",
            self.key
        );
        self.raw(head.as_bytes()).await
    }

    fn post_bytes(&self, path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
        let (key, length) = (&self.key, body.len());
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {key}\r\n{headers}content-length: {length}\r\n\r\n"
        );
        [head.as_bytes(), body].concat()
    }

    async fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Reply {
        let bytes = self.post_bytes(path, headers, body);
        self.raw(&bytes).await
    }

    async fn works(&mut self) {
        let reply = self.post("/v2/models/echo/infer", "", GOOD.as_bytes()).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
    }

    async fn reply(&mut self) -> Reply {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            self.read().await;
        };
        let head = String::from_utf8(self.buffer[..head_end].to_vec()).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pairs = lines.filter_map(|line| line.split_once(": "));
        let headers: HashMap<String, String> = pairs
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
        while self.buffer.len() < head_end + length {
            self.read().await;
        }
        let body = Bytes::copy_from_slice(&self.buffer[head_end..head_end + length]);
        self.buffer.drain(..head_end + length);
        Reply { status, headers, body }
    }

    // Until the other side has closed, with nothing more to say.
    async fn is_closed(&mut self) {
        let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read_buf(&mut self.buffer)).await;
        assert_eq!(read.expect("not closed within 20 s").unwrap(), 0, "more was said");
    }

    async fn read(&mut self) {
        let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read_buf(&mut self.buffer)).await;
        assert_ne!(
            read.expect("no answer within 20 s").unwrap(),
            0,
            "the connection was closed"
        );
    }
}

#[actix_web::test]
async fn a_prediction_carries_the_protocols_fields_and_the_meshs_headers() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let reply = client.post("/v2/models/split/infer", "", GOOD.as_bytes()).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert_eq!(
        reply.json(),
        serde_json::json!({"id": "7", "model_name": "split", "model_version": "1",
            "outputs": [{"name": "OUTPUT0", "datatype": "INT32", "shape": [1, 2], "data": [1, -2]}]})
    );
    assert_eq!(reply.header("x-mesh-arm"), Some("control"));
    assert_eq!(reply.header("x-mesh-version"), Some("1"));
    assert_eq!(reply.header("x-request-id").map(str::len), Some(32));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let direct = client
        .post("/v2/models/echo/versions/1/infer", "", GOOD.as_bytes())
        .await;
    assert_eq!((direct.status, direct.header("x-mesh-arm")), (200, None));
}

#[actix_web::test]
async fn a_trace_goes_on_and_a_malformed_one_is_begun_anew() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let header = format!("traceparent: 00-{trace}-00f067aa0ba902b7-01\r\n");
    let reply = client.post("/v2/models/echo/infer", &header, GOOD.as_bytes()).await;
    let parent = reply.header("traceparent").unwrap();
    assert!(parent.starts_with(&format!("00-{trace}-")), "{parent}");
    assert!(!parent.contains("00f067aa0ba902b7"), "the span is the mesh's own");
    let reply = client
        .post("/v2/models/echo/infer", "traceparent: nonsense\r\n", GOOD.as_bytes())
        .await;
    assert_eq!((reply.status, reply.header("traceparent").unwrap().len()), (200, 55));
}

#[actix_web::test]
async fn binary_tensors_go_in_and_out_small_and_large() {
    let bed = bed_with(TenantLimits::default(), |config| config.max_body_bytes = 1024 * 1024);
    let mut client = Client::new(&bed).await;
    for elements in [3_usize, 100_000] {
        let size = elements * 4;
        let json = format!(
            r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{{"name":"INPUT0","datatype":"INT32","shape":[1,{elements}],"parameters":{{"binary_data_size":{size}}}}}]}}"#
        );
        let tensor: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let header = format!("inference-header-content-length: {}\r\n", json.len());
        let reply = client
            .post("/v2/models/echo/infer", &header, &[json.as_bytes(), &tensor].concat())
            .await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-type"), Some("application/octet-stream"));
        let json_bytes: usize = reply
            .header("inference-header-content-length")
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(&reply.body[json_bytes..], &tensor[..]);
        let json: serde_json::Value = serde_json::from_slice(&reply.body[..json_bytes]).unwrap();
        assert_eq!(json["outputs"][0]["parameters"]["binary_data_size"], size);
    }
}

#[actix_web::test]
async fn metadata_and_health_answer_with_and_without_credentials() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let server = client.get("/v2?any=query").await;
    assert_eq!(server.json()["name"], "mesh");
    assert_eq!(
        server.json()["extensions"],
        serde_json::json!(mesh_protocol::EXTENSIONS)
    );
    assert_eq!(client.get("/v2/health/live").await.status, 200);
    let alive = client.raw(b"GET / HTTP/1.1\r\nhost: mesh\r\n\r\n").await;
    assert_eq!(
        (alive.status, alive.json()),
        (200, serde_json::json!({"status": "alive"}))
    );
    assert_eq!(client.get("/v2/health/ready").await.status, 200);
    let guard = bed.readiness.register("models");
    assert_eq!(client.get("/v2/health/ready").await.status, 503);
    drop(guard);
    assert_eq!(
        client.get("/v2/models/echo").await.json(),
        serde_json::json!({"name": "echo", "versions": ["1"], "platform": "mesh_builtin",
            "inputs": [{"name": "INPUT0", "datatype": "INT32", "shape": [-1, -1]}],
            "outputs": [{"name": "OUTPUT0", "datatype": "INT32", "shape": [-1, -1]}]})
    );
    let ready = client.get("/v2/models/echo/versions/1/ready").await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, serde_json::json!({"name": "echo", "ready": true}))
    );
    assert_eq!(client.get("/v2/models/echo/versions/9/ready").await.status, 404);
    let open = client.raw(b"GET /v2 HTTP/1.1\r\nhost: mesh\r\n\r\n").await;
    assert_eq!(open.status, 200);
    let closed = client.raw(b"GET /v2/models/echo HTTP/1.1\r\nhost: mesh\r\n\r\n").await;
    assert_eq!(
        (closed.status, closed.header("www-authenticate")),
        (401, Some("Bearer realm=\"mesh\""))
    );
}

#[actix_web::test]
async fn documents_are_open_where_they_name_no_model_and_the_page_asks_nobody_else() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let key = std::mem::take(&mut client.key);
    let document = client.raw(b"GET /v2/openapi.json HTTP/1.1\r\nhost: mesh\r\n\r\n").await;
    assert_eq!(
        (document.status, document.json()["openapi"].as_str()),
        (200, Some("3.1.0"))
    );
    assert!(!document.json().to_string().contains("echo"), "a model is named");
    let page = client
        .raw(b"GET /v2/docs?model=echo HTTP/1.1\r\nhost: mesh\r\n\r\n")
        .await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    let script = client.raw(b"GET /v2/docs/docs.js HTTP/1.1\r\nhost: mesh\r\n\r\n").await;
    let style = client
        .raw(b"GET /v2/docs/docs.css HTTP/1.1\r\nhost: mesh\r\n\r\n")
        .await;
    for (file, media) in [(&page, "text/html"), (&script, "text/javascript"), (&style, "text/css")] {
        assert_eq!(file.status, 200);
        assert!(file.header("content-type").unwrap().starts_with(media));
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        let text = String::from_utf8(file.body.to_vec()).unwrap();
        for foreign in [
            "http://",
            "https://",
            "innerHTML",
            "eval(",
            "localStorage",
            "sessionStorage",
            "document.cookie",
        ] {
            assert!(!text.contains(foreign), "{media} holds {foreign}");
        }
    }
    assert!(!text.contains("<style") && !text.contains(" style=") && !text.contains("onclick"));
    let closed = client
        .raw(b"GET /v2/models/echo/openapi.json HTTP/1.1\r\nhost: mesh\r\n\r\n")
        .await;
    assert_eq!(closed.status, 401);
    client.key = key;
    assert_eq!(client.get("/v2/models/nobody/openapi.json").await.status, 404);
}

#[actix_web::test]
async fn the_example_of_a_models_document_is_answered() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    for version in ["", "/versions/1"] {
        let document = client
            .get(&format!("/v2/models/echo{version}/openapi.json"))
            .await
            .json();
        let path = format!("/v2/models/echo{version}/infer");
        let example = &document["paths"][&path]["post"]["requestBody"]["content"]["application/json"]["example"];
        let reply = client.post(&path, "", example.to_string().as_bytes()).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
    }
}

#[actix_web::test]
async fn what_is_not_there_answers_in_the_error_form() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let missing = client.get("/v2/else").await;
    assert_eq!((missing.status, missing.error()), (404, "Not Found".into()));
    let verb = client.get("/v2/models/echo/infer").await;
    assert_eq!(
        (verb.status, verb.error(), verb.header("allow")),
        (405, "Method Not Allowed".into(), Some("POST"))
    );
    let unknown = client.post("/v2/models/nobody/infer", "", GOOD.as_bytes()).await;
    assert_eq!(unknown.status, 404);
    assert!(
        unknown.error().contains("Request for unknown model"),
        "{}",
        unknown.error()
    );
    client.works().await;
}

#[actix_web::test]
async fn a_missing_or_wrong_credential_is_challenged() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let good = client.key.clone();
    client.key = format!("{good}x");
    let wrong = client.post("/v2/models/echo/infer", "", GOOD.as_bytes()).await;
    assert_eq!(wrong.status, 401);
    assert!(
        wrong
            .header("www-authenticate")
            .unwrap()
            .contains("error=\"invalid_token\"")
    );
    assert!(!wrong.error().contains(&good));
    client.key.clone_from(&good);
    let twice = client
        .post(
            "/v2/models/echo/infer",
            &format!("authorization: Bearer {good}\r\n"),
            GOOD.as_bytes(),
        )
        .await;
    assert_eq!(twice.status, 400, "two credentials are a malformed one");
    assert!(
        twice
            .header("www-authenticate")
            .unwrap()
            .contains("error=\"invalid_request\"")
    );
    client.key = "two words".to_owned();
    let malformed = client.post("/v2/models/echo/infer", "", GOOD.as_bytes()).await;
    assert_eq!(malformed.status, 400);
    client.key = good;
    client.works().await;
}

#[actix_web::test]
async fn every_hostile_input_is_refused_precisely_and_the_connection_lives_on() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let deep = format!(
        r#"{{"inputs":[{{"name":"INPUT0","datatype":"INT32","shape":[1],"data":{}}}]}}"#,
        "[".repeat(10_000) + &"]".repeat(10_000)
    );
    let many: Vec<String> = (0..65)
        .map(|at| format!(r#"{{"name":"x{at}","datatype":"INT8","shape":[1],"data":[1]}}"#))
        .collect();
    let many = format!(r#"{{"inputs":[{}]}}"#, many.join(","));
    let input = |rest: &str| format!(r#"{{"inputs":[{{"name":"INPUT0","datatype":"INT32",{rest}}}]}}"#);
    let sized = input(r#""shape":[1,2],"parameters":{"binary_data_size":8}"#);
    let cut_short = [sized.as_bytes(), &[0; 7]].concat();
    let length = format!("inference-header-content-length: {}\r\n", sized.len());
    let gzip = "content-encoding: gzip\r\n";
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("", Vec::new(), 400, "EOF while parsing"),
        ("", b"\xff\xfe".to_vec(), 400, "failed to parse the request JSON"),
        ("", deep.into(), 400, "nested otherwise"),
        ("", many.into(), 400, "at most 64"),
        ("", input(r#""shape":[-1],"data":[1]"#).into(), 400, "extent -1"),
        (
            "",
            input(r#""shape":[4294967296,4294967296],"data":[1]"#).into(),
            400,
            "overflows",
        ),
        (
            "",
            input(r#""shape":[1,2],"data":[1]"#).into(),
            400,
            "has 1 elements in 'data', its shape needs 2",
        ),
        (
            "",
            input(r#""shape":[1,1],"data":[2147483648]"#).into(),
            400,
            "2147483648 is not from",
        ),
        ("", sized.clone().into(), 400, "needs the header"),
        (&length, cut_short, 400, "only 7 bytes"),
        (
            "inference-header-content-length: 99999\r\n",
            sized.clone().into(),
            400,
            "the body has only",
        ),
        (
            "inference-header-content-length: -5\r\n",
            sized.clone().into(),
            400,
            "whole number",
        ),
        (
            "inference-header-content-length: 0\r\n",
            sized.into(),
            400,
            "input 'INPUT0' holds",
        ),
        (
            "x-request-timeout-ms: soon\r\n",
            GOOD.into(),
            400,
            "x-request-timeout-ms",
        ),
        ("content-encoding: br\r\n", GOOD.into(), 415, "'br' is not supported"),
        (gzip, GOOD.into(), 400, "not valid gzip"),
        (
            "",
            GOOD.replace("INPUT0", "OTHER").into(),
            400,
            "unexpected inference input",
        ),
        ("", GOOD.replace("INT32", "INT64").into(), 400, "data-type is 'INT64'"),
    ];
    for (headers, body, status, text) in cases {
        let reply = client.post("/v2/models/echo/infer", headers, &body).await;
        assert_eq!(reply.status, status, "{text}: {:?}", reply.body);
        assert!(reply.error().contains(text), "'{text}' is not in '{}'", reply.error());
        client.works().await;
    }
    let label = client
        .post("/v2/models/echo/versions/No%20Such/infer", "", GOOD.as_bytes())
        .await;
    assert_eq!(label.status, 400);
    client.works().await;
}

#[actix_web::test]
async fn a_body_at_the_bound_is_read_and_one_byte_more_is_413_for_both_framings() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let padded = |bytes: usize| {
        let mut body = GOOD.as_bytes().to_vec();
        body.resize(bytes, b' ');
        body
    };
    let at_bound = client.post("/v2/models/echo/infer", "", &padded(MAX_BODY)).await;
    assert_eq!(at_bound.status, 200);
    let beyond = client.post("/v2/models/echo/infer", "", &padded(MAX_BODY + 1)).await;
    assert_eq!((beyond.status, beyond.header("connection")), (413, Some("close")));
    assert!(beyond.error().contains("larger than 65536 bytes"), "{}", beyond.error());

    let mut client = Client::new(&bed).await;
    client.works().await;
    let chunked = |body: &[u8]| {
        let head = format!(
            "POST /v2/models/echo/infer HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
            bed.key,
            body.len()
        );
        [head.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
    };
    assert_eq!(client.raw(&chunked(&padded(MAX_BODY))).await.status, 200);
    assert_eq!(client.raw(&chunked(&padded(MAX_BODY + 1))).await.status, 413);
    Client::new(&bed).await.works().await;
}

#[actix_web::test]
async fn a_refused_body_of_which_little_is_left_leaves_the_connection_usable() {
    const SMALL: usize = 1_000;
    let bed = bed_with(TenantLimits::default(), |config| config.max_body_bytes = SMALL);
    let mut client = Client::new(&bed).await;
    for bytes in [SMALL + 1, DRAIN_BYTES] {
        let refused = client.post("/v2/models/echo/infer", "", &vec![b' '; bytes]).await;
        assert_eq!((refused.status, refused.header("connection")), (413, None), "{bytes}");
        client.works().await;
    }
    // In pieces, of which only the first is there when it is refused.
    let head = format!(
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
        bed.key
    );
    let piece = format!("{:x}\r\n{}\r\n", SMALL + 1, " ".repeat(SMALL + 1));
    client
        .stream
        .write_all(format!("{head}{piece}").as_bytes())
        .await
        .unwrap();
    let refused = client.raw(format!("{piece}0\r\n\r\n").as_bytes()).await;
    assert_eq!((refused.status, refused.header("connection")), (413, None));
    client.works().await;
}

#[actix_web::test]
async fn a_refused_body_of_which_much_is_left_or_late_closes_the_connection_and_says_so() {
    const SMALL: usize = 1_000;
    let bed = bed_with(TenantLimits::default(), |config| {
        config.max_body_bytes = SMALL;
        config.body_timeout = Duration::from_millis(50);
    });
    let mut client = Client::new(&bed).await;
    client.works().await;
    let far = client
        .post("/v2/models/echo/infer", "", &vec![b' '; DRAIN_BYTES + 1])
        .await;
    assert_eq!((far.status, far.header("connection")), (413, Some("close")));
    client.is_closed().await;

    let mut client = Client::new(&bed).await;
    let mut bytes = client.post_bytes("/v2/models/echo/infer", "", &[b' '; SMALL + 1]);
    bytes.truncate(bytes.len() - 1);
    let late = client.raw(&bytes).await;
    assert_eq!((late.status, late.header("connection")), (413, Some("close")));
    client.is_closed().await;

    let mut client = Client::new(&bed).await;
    let head = format!(
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {}\r\ntransfer-encoding: chunked\r\n\r\n",
        bed.key
    );
    let endless = format!("{head}{:x}\r\n{}", 16 * DRAIN_BYTES, " ".repeat(4 * DRAIN_BYTES));
    let endless = client.raw(endless.as_bytes()).await;
    assert_eq!((endless.status, endless.header("connection")), (413, Some("close")));
    Client::new(&bed).await.works().await;
}

#[actix_web::test]
async fn a_huge_declared_body_is_refused_before_it_is_sent() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let head = format!(
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {}\r\ncontent-length: 1099511627776\r\n\r\n",
        bed.key
    );
    assert_eq!(client.raw(head.as_bytes()).await.status, 413);
}

#[actix_web::test]
async fn a_body_that_does_not_arrive_is_given_up() {
    let bed = bed_with(TenantLimits::default(), |config| {
        config.body_timeout = Duration::from_millis(50);
    });
    let mut client = Client::new(&bed).await;
    let mut bytes = client.post_bytes("/v2/models/echo/infer", "", GOOD.as_bytes());
    bytes.truncate(bytes.len() - 5);
    let reply = client.raw(&bytes).await;
    assert_eq!((reply.status, reply.header("connection")), (408, Some("close")));
}

#[actix_web::test]
async fn ambiguous_framing_and_endless_heads_are_refused() {
    let bed = bed();
    let both = "POST /v2/models/echo/infer HTTP/1.1\r\nhost: mesh\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let two =
        "POST /v2/models/echo/infer HTTP/1.1\r\nhost: mesh\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!";
    let space = "GET /v2 HTTP/1.1\r\nhost : mesh\r\n\r\n";
    let long = format!(
        "GET /v2 HTTP/1.1\r\nhost: mesh\r\nx-long: {}\r\n\r\n",
        "x".repeat(200_000)
    );
    let many = format!("GET /v2 HTTP/1.1\r\nhost: mesh\r\n{}\r\n", "x-many: 1\r\n".repeat(200));
    for hostile in [both, two, space, &long, &many] {
        let mut client = Client::new(&bed).await;
        let status = client.raw(hostile.as_bytes()).await.status;
        assert!((400..500).contains(&status), "{status}: {hostile:.60}");
    }
    Client::new(&bed).await.works().await;
}

#[actix_web::test]
async fn compressed_bodies_are_read() {
    use std::io::Write;
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(GOOD.as_bytes()).unwrap();
    let reply = client
        .post(
            "/v2/models/echo/infer",
            "content-encoding: gzip\r\n",
            &gzip.finish().unwrap(),
        )
        .await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
}

#[actix_web::test]
async fn limits_and_full_queues_say_when_to_come_back() {
    let limits = Limits::default().with_rate(Unit::Requests, Rate::new(1, 1));
    let bed = bed_with(limits.into(), |_| {});
    let mut client = Client::new(&bed).await;
    client.works().await;
    let limited = client.post("/v2/models/echo/infer", "", GOOD.as_bytes()).await;
    assert_eq!((limited.status, limited.header("retry-after")), (429, Some("1")));
    let bed = self::bed();
    let mut client = Client::new(&bed).await;
    let full = client.post("/v2/models/full/infer", "", GOOD.as_bytes()).await;
    assert_eq!((full.status, full.header("retry-after")), (503, Some("1")));
    assert!(full.error().contains("Exceeds maximum queue size"));
    client.works().await;
}

/// Time stands still: every number is what it must be.
#[actix_web::test]
async fn headers_of_limits_are_exact() {
    let limits = Limits {
        concurrency: Some(9),
        ..Limits::default()
    }
    .with_rate(Unit::Requests, Rate::new(2, 3))
    .with_rate(Unit::Rows, Rate::new(1, 8));
    let limits = TenantLimits::new(limits, Budgets::default(), Some("cHsdsRa894xx"));
    let bed = bed_at(Arc::new(ManualClock::at(0)), limits, |_| {});
    let mut client = Client::new(&bed).await;
    for (left, whole) in [(2, 1), (1, 1), (0, 2)] {
        let reply = client.post("/v2/models/echo/infer", "", GOOD.as_bytes()).await;
        assert_eq!(reply.status, 200);
        let state = format!("\"requests\";r={left};t={whole}, \"concurrency\";r=9");
        assert_eq!(reply.header("ratelimit"), Some(&*state));
        assert_eq!(
            reply.header("ratelimit-policy"),
            Some(
                "\"requests\";q=3;w=2;pk=:cHsdsRa894xx:, \"concurrency\";q=9;qu=\"concurrent-requests\";pk=:cHsdsRa894xx:"
            )
        );
        assert!(
            reply
                .header("x-mesh-limit")
                .is_some_and(|state| state.starts_with("\"rows\";r="))
        );
    }
    let refused = client.post("/v2/models/echo/infer", "", GOOD.as_bytes()).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")));
    assert_eq!(refused.header("retry-after-ms"), Some("500"));
    assert_eq!(
        refused.error(),
        "the limit 'requests' of 2 a second is reached: try again in 500 ms"
    );
    assert_eq!(
        refused.header("ratelimit"),
        Some("\"requests\";r=0;t=2, \"concurrency\";r=9")
    );
}

#[actix_web::test]
async fn a_panic_in_the_router_is_an_error_of_its_own_request_only() {
    let bed = bed();
    let (mut client, mut other) = (Client::new(&bed).await, Client::new(&bed).await);
    let mut waiting = bed.workers.waiting.subscribe();
    let bytes = other.post_bytes("/v2/models/never/infer", "", GOOD.as_bytes());
    other.stream.write_all(&bytes).await.unwrap();
    waiting.wait_for(|count| *count == 1).await.unwrap();
    for _ in 0..3 {
        let broken = client.post("/v2/models/panics/infer", "", GOOD.as_bytes()).await;
        assert_eq!(
            (broken.status, broken.error()),
            (500, "the router failed on this request".into())
        );
        client.works().await;
    }
    // What was on a device all the while is answered.
    bed.workers.release.send_replace(true);
    assert_eq!(other.reply().await.status, 200);
}

#[actix_web::test]
async fn a_timeout_is_the_callers_to_choose() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let late = client
        .post(
            "/v2/models/never/infer",
            "x-request-timeout-ms: 30\r\n",
            GOOD.as_bytes(),
        )
        .await;
    assert_eq!(late.status, 504, "{:?}", late.body);
    client.works().await;
}

#[actix_web::test]
async fn timeouts_and_priorities_that_are_no_whole_numbers_are_refused_by_name() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    for wrong in ["soon", "1.5", "-1", "0x10", "0", "86400001", "1, 2"] {
        let header = format!("x-request-timeout-ms: {wrong}\r\n");
        let reply = client.post("/v2/models/echo/infer", &header, GOOD.as_bytes()).await;
        let named = reply
            .error()
            .contains("the header x-request-timeout-ms must be a whole number");
        assert!(
            reply.status == 400 && named,
            "{wrong}: {} {}",
            reply.status,
            reply.error()
        );
        client.works().await;
    }
    let with = |name: &str, value: &str| GOOD.replacen('{', &format!(r#"{{"parameters":{{"{name}":{value}}},"#), 1);
    for name in ["timeout", "priority"] {
        for wrong in ["-1", "1.5", "1e3", "true", "\"1\"", "\"high\""] {
            let body = with(name, wrong);
            let reply = client.post("/v2/models/echo/infer", "", body.as_bytes()).await;
            let error = reply.error();
            let named = error.contains(&format!("'{name}'")) && error.contains("whole number");
            assert!(reply.status == 400 && named, "{name} {wrong}: {} {error}", reply.status);
            client.works().await;
        }
        for right in ["0", "1", "18446744073709551615"] {
            let body = with(name, right);
            let reply = client.post("/v2/models/echo/infer", "", body.as_bytes()).await;
            assert_eq!(reply.status, 200, "{name} {right}: {:?}", reply.body);
        }
    }
}

#[actix_web::test]
async fn a_caller_that_leaves_cancels_its_job() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let (mut waiting, mut cancelled) = (bed.workers.waiting.subscribe(), bed.workers.cancelled.subscribe());
    let bytes = client.post_bytes("/v2/models/never/infer", "", GOOD.as_bytes());
    client.stream.write_all(&bytes).await.unwrap();
    waiting.wait_for(|count| *count == 1).await.unwrap();
    drop(client);
    tokio::time::timeout(Duration::from_secs(10), cancelled.wait_for(|count| *count == 1))
        .await
        .expect("the job was not cancelled")
        .unwrap();
}

#[actix_web::test]
async fn a_stop_lets_the_requests_under_way_end_and_takes_no_more() {
    let bed = bed();
    let mut client = Client::new(&bed).await;
    let mut waiting = bed.workers.waiting.subscribe();
    let bytes = client.post_bytes("/v2/models/never/infer", "", GOOD.as_bytes());
    client.stream.write_all(&bytes).await.unwrap();
    waiting.wait_for(|count| *count == 1).await.unwrap();
    let (door, address) = (bed.door.clone(), bed.door.addr());
    let stop = async move { door.stop(Duration::from_secs(20)).await };
    let finish = async {
        bed.workers.release.send_replace(true);
        client.reply().await.status
    };
    let (stopped, status) = futures::join!(stop, finish);
    assert_eq!((stopped, status), (true, 200));
    assert!(
        TcpStream::connect(address).await.is_err(),
        "a stopped door takes no connection"
    );
}

#[actix_web::test]
async fn operators_scrape_and_probe_on_a_door_of_their_own_and_both_doors_end_with_their_tasks() {
    let bed = bed();
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let metrics = MetricsDoor::start(any_port, None, Telemetry::local(), bed.readiness.clone(), &bed.tasks).unwrap();
    let mut client = Client::to(metrics.addr(), "").await;
    let scrape = client.raw(b"GET /metrics HTTP/1.1\r\nhost: mesh\r\n\r\n").await;
    assert_eq!(scrape.status, 200);
    assert!(
        scrape
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    assert!(scrape.body.ends_with(b"# EOF\n"));
    assert_eq!(client.get("/health/ready").await.status, 200);
    bed.readiness.end();
    assert_eq!(client.get("/health/ready").await.status, 503);
    let taken = MetricsDoor::start(
        metrics.addr(),
        None,
        Telemetry::local(),
        Readiness::default(),
        &bed.tasks,
    );
    assert!(
        matches!(taken, Err(DoorError::Bind { .. })),
        "an address can be taken once"
    );
    drop(client);
    assert!(bed.tasks.end(Duration::from_secs(20)).await.is_empty());
    assert!(TcpStream::connect(metrics.addr()).await.is_err());
    assert!(TcpStream::connect(bed.door.addr()).await.is_err());
}
