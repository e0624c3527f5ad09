//! The door as callers meet it: a real client over a real socket, with a real router behind it and workers made for the test.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::StreamExt;
use mesh_actors::{Readiness, Tasks};
use mesh_policies::{
    ApiKeyEntry, Credentials, Limiter, MeshSnapshot, ModelEntry, Pepper, Scope, Target, TenantEntry, TenantLimits,
    VersionEntry, access::Attempts, generate_api_key,
};
use mesh_protocol::grpc::messages::*;
use mesh_router::{RouterParts, WorkerReply, Workers};
use mesh_telemetry::Telemetry;
use mesh_types::{
    ArtifactFormat, DataType, DeviceId, Fault, FaultSource, InferJob, JobOutcome, ModelConfig, ModelId,
    ModelVersionKey, Retry, StageTimings, SystemClock, TenantId, Tensor, TensorSpec, Version,
};
use model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{mpsc, watch},
};
use tonic::{
    Code, Request, Response, Status, Streaming,
    client::Grpc,
    codec::CompressionEncoding,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{DoorError, GrpcDoor, GrpcDoorConfig};

mod flood;
mod limits;
mod serving;

const MAX_MESSAGE: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);
/// How an HTTP/2 connection begins, and its first, empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Answers with its input. `panics` does what its name says, on the router's own stack; `never` waits to be released, and
/// tells when it is waited for and when it is given up.
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
            "full" => {
                let wait = Retry::After(Duration::from_millis(37));
                Err(Fault::unavailable(FaultSource::Device, "Exceeds maximum queue size").with_retry(wait))
            }
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
    door: GrpcDoor,
    key: String,
    workers: Arc<FakeWorkers>,
    readiness: Readiness,
    tasks: Tasks,
    telemetry: Telemetry,
}

fn model(name: &str) -> Arc<ModelEntry> {
    let spec = |name: &str| TensorSpec::new(name, DataType::Int32, &[-1]);
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

fn snapshot() -> (MeshSnapshot, String) {
    let pepper = Pepper::from_bytes([7; 32]);
    let key = generate_api_key("test", &mut rand::rng());
    let tenant = TenantId::parse("acme").unwrap();
    let entry = ApiKeyEntry {
        groups: [].into(),
        id: key.id,
        tenant: tenant.clone(),
        hash: pepper.hash(&key.secret),
        scopes: [Scope::Infer].into_iter().collect(),
        expires: None,
        revoked: false,
    };
    let targets: HashMap<String, Target> = ["echo", "full", "never", "panics"]
        .map(|name| (name.to_owned(), Target::Model(model(name))))
        .into();
    let tenant = TenantEntry {
        id: tenant,
        created: 0,
        suspended: false,
        limits: TenantLimits::default(),
        share: mesh_types::TenantShare::default(),
        targets,
    };
    let credentials = Credentials::new(pepper).with_key(entry);
    (MeshSnapshot::new(1, credentials, [tenant]), key.text)
}

fn bed_with(change: impl FnOnce(&mut GrpcDoorConfig)) -> Bed {
    let (snapshot, key) = snapshot();
    let workers = Arc::new(FakeWorkers {
        waiting: watch::Sender::new(0),
        cancelled: watch::Sender::new(0),
        release: watch::Sender::new(false),
    });
    let (clock, telemetry) = (Arc::new(SystemClock), Telemetry::local());
    let parts = RouterParts {
        attempts: Arc::new(Attempts::new(clock.clone())),
        cache: Arc::default(),
        sequences: Arc::default(),
        regions: Arc::default(),
        client_settings: false,
        snapshots: Arc::new(ArcSwap::from_pointee(snapshot)),
        limiter: Arc::new(Limiter::new(clock.clone())),
        workers: workers.clone(),
        gates: Arc::default(),
        telemetry: telemetry.clone(),
        clock,
        default_timeout: Duration::from_secs(30),
        max_in_flight: 100,
    };
    let mut config = GrpcDoorConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        workers: 1,
        max_message_bytes: MAX_MESSAGE,
        ..GrpcDoorConfig::default()
    };
    change(&mut config);
    let (tasks, readiness) = (Tasks::new(), Readiness::default());
    let door = GrpcDoor::start(&config, &parts, readiness.clone(), &tasks).unwrap();
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
    bed_with(|_| {})
}

async fn until(count: &watch::Sender<usize>, least: usize) {
    let mut count = count.subscribe();
    let waited = tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= least)).await;
    waited.expect("not within 20 s").unwrap();
}

/// A client that sends what it is told, with the key unless told otherwise.
#[derive(Clone)]
struct Client {
    grpc: Grpc<Channel>,
    key: Option<String>,
    metadata: Vec<(&'static str, String)>,
}

impl Client {
    async fn new(bed: &Bed) -> Self {
        Self {
            grpc: Grpc::new(channel(bed).await),
            key: Some(bed.key.clone()),
            metadata: Vec::new(),
        }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.metadata.push((name, value.to_owned()));
        self
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(key) = &self.key {
            let value = format!("Bearer {key}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        for (name, value) in &self.metadata {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    async fn ask<Q, R>(&self, call: &'static str, message: Q) -> Result<Response<R>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let path = format!("/inference.GRPCInferenceService/{call}").parse().unwrap();
        self.ask_at(path, message).await
    }

    async fn ask_at<Q, R>(&self, path: http::uri::PathAndQuery, message: Q) -> Result<Response<R>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.unwrap();
        let asked = grpc.unary(self.request(message), path, ProstCodec::<Q, R>::default());
        tokio::time::timeout(PATIENCE, asked)
            .await
            .expect("no answer within 20 s")
    }

    async fn infer(&self, message: ModelInferRequest) -> Result<Response<ModelInferResponse>, Status> {
        self.ask("ModelInfer", message).await
    }

    async fn works(&self) {
        let answer = self.infer(ints("echo", &[1, -2])).await.unwrap().into_inner();
        assert_eq!(answer.raw_output_contents, [raw(&[1, -2])]);
    }

    async fn stream(
        &self,
        requests: mpsc::Receiver<ModelInferRequest>,
    ) -> Result<Streaming<ModelStreamInferResponse>, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.unwrap();
        let path = http::uri::PathAndQuery::from_static("/inference.GRPCInferenceService/ModelStreamInfer");
        let requests = futures::stream::unfold(requests, |mut requests| async move {
            let request = requests.recv().await?;
            Some((request, requests))
        });
        let answered = grpc
            .streaming(self.request(requests), path, ProstCodec::default())
            .await?;
        Ok(answered.into_inner())
    }
}

async fn channel(bed: &Bed) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", bed.door.addr())).unwrap();
    endpoint.connect().await.unwrap()
}

fn raw(numbers: &[i32]) -> Bytes {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect::<Vec<u8>>()
        .into()
}

fn ints(model: &str, numbers: &[i32]) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        id: "7".into(),
        inputs: vec![InferInputTensor {
            name: "INPUT0".into(),
            datatype: "INT32".into(),
            shape: vec![1, i64::try_from(numbers.len()).unwrap()],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw(numbers)],
        ..ModelInferRequest::default()
    }
}

async fn next(answers: &mut Streaming<ModelStreamInferResponse>) -> Result<ModelStreamInferResponse, Status> {
    let next = tokio::time::timeout(PATIENCE, answers.next()).await;
    next.expect("no answer within 20 s").expect("the stream ended")
}

#[actix_rt::test]
async fn a_prediction_carries_the_protocols_fields_and_the_meshs_metadata() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let traced = client
        .clone()
        .with("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
    let answer = traced.infer(ints("echo", &[1, -2])).await.unwrap();
    let value = |name: &str| answer.metadata().get(name).and_then(|value| value.to_str().ok());
    assert_eq!(value("x-request-id").map(str::len), Some(32));
    assert_eq!(value("x-mesh-version"), Some("1"));
    let parent = value("traceparent").unwrap();
    assert!(
        parent.starts_with(&format!("00-{trace}-")) && !parent.contains("00f067aa0ba902b7"),
        "{parent}"
    );
    let response = answer.get_ref();
    assert_eq!(
        (&*response.model_name, &*response.model_version, &*response.id),
        ("echo", "1", "7")
    );
    assert_eq!(
        (&*response.outputs[0].name, &*response.outputs[0].datatype),
        ("OUTPUT0", "INT32")
    );
    assert_eq!(response.outputs[0].shape, [1, 2]);
    assert_eq!(response.raw_output_contents, [raw(&[1, -2])]);
    let mut typed = ints("echo", &[]);
    typed.raw_input_contents.clear();
    typed.inputs[0].shape = vec![1, 2];
    typed.inputs[0].contents = Some(InferTensorContents {
        int_contents: vec![1, -2],
        ..InferTensorContents::default()
    });
    typed.outputs = vec![InferRequestedOutputTensor {
        name: "OUTPUT0".into(),
        ..InferRequestedOutputTensor::default()
    }];
    let typed = client.infer(typed).await.unwrap().into_inner();
    assert_eq!(typed.raw_output_contents, response.raw_output_contents);
}

#[actix_rt::test]
async fn every_refusal_has_its_code_and_the_connection_goes_on() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let code = |answer: Result<Response<ModelInferResponse>, Status>| answer.unwrap_err().code();
    let mut wrong = ints("echo", &[1]);
    wrong.inputs[0].datatype = "FP32".into();
    assert_eq!(code(client.infer(wrong).await), Code::InvalidArgument);
    let mut unread = ints("echo", &[1]);
    unread.raw_input_contents.push(Bytes::new());
    assert_eq!(code(client.infer(unread).await), Code::InvalidArgument);
    let unknown = client.infer(ints("nobody", &[1])).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("Request for unknown model"));
    assert!(unknown.metadata().contains_key("x-request-id"));
    let stranger = Client {
        key: None,
        ..client.clone()
    };
    assert_eq!(code(stranger.infer(ints("echo", &[1])).await), Code::Unauthenticated);
    let full = client.infer(ints("full", &[1])).await.unwrap_err();
    assert_eq!(full.code(), Code::Unavailable);
    assert_eq!(full.metadata().get("grpc-retry-pushback-ms").unwrap(), "37");
    assert_eq!(code(client.infer(ints("panics", &[1])).await), Code::Internal);
    let malformed = client.clone().with("x-request-timeout-ms", "0");
    assert_eq!(code(malformed.infer(ints("echo", &[1])).await), Code::InvalidArgument);
    for call in ["SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "Nothing"] {
        let refused = client
            .ask::<_, ServerLiveResponse>(call, ServerLiveRequest {})
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{call}");
    }
    for call in ["TraceSetting", "LogSettings"] {
        let refused = stranger.ask::<_, ServerLiveResponse>(call, ServerLiveRequest {}).await;
        assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated, "{call}");
    }
    let path = http::uri::PathAndQuery::from_static("/other.Service/Call");
    let other = client.ask_at::<_, ServerLiveResponse>(path, ServerLiveRequest {}).await;
    assert_eq!(other.unwrap_err().code(), Code::Unimplemented);
    client.works().await;
}

#[actix_rt::test]
async fn a_message_at_the_bound_passes_and_one_beyond_it_does_not() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let around = prost::Message::encoded_len(&ints("echo", &[0; 10_000])) - 40_000;
    let sized = |bytes: usize| {
        let mut message = ints("echo", &vec![0; (bytes - around) / 4]);
        let missing = bytes - prost::Message::encoded_len(&message);
        message.id = "i".repeat(message.id.len() + missing);
        assert_eq!(prost::Message::encoded_len(&message), bytes);
        message
    };
    assert!(client.infer(sized(MAX_MESSAGE)).await.is_ok());
    let refused = client.infer(sized(MAX_MESSAGE + 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    let packed = Client {
        grpc: client.grpc.clone().send_compressed(CompressionEncoding::Gzip),
        ..client.clone()
    };
    assert!(packed.infer(sized(MAX_MESSAGE)).await.is_ok());
    let bomb = packed.infer(sized(MAX_MESSAGE + 1)).await.unwrap_err();
    assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb}");
    client.works().await;
}

#[actix_rt::test]
async fn who_packs_gets_packed_answers_and_nobody_else() {
    let bed = bed();
    let client = Client::new(&bed).await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let accepts = client.grpc.clone().accept_compressed(encoding);
        let plain = Client {
            grpc: accepts.clone(),
            ..client.clone()
        };
        let answer = plain.infer(ints("echo", &[1, -2])).await.unwrap();
        assert!(!answer.metadata().contains_key("grpc-encoding"));
        let packed = Client {
            grpc: accepts.send_compressed(encoding),
            ..client.clone()
        };
        let answer = packed.infer(ints("echo", &[1, -2])).await.unwrap();
        assert!(answer.metadata().contains_key("grpc-encoding"));
        assert_eq!(answer.get_ref().raw_output_contents, [raw(&[1, -2])]);
    }
}

#[actix_rt::test]
async fn a_deadline_of_either_kind_ends_the_call_and_what_it_waits_for() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let own = client.clone().with("x-request-timeout-ms", "50");
    let late = own.infer(ints("never", &[1])).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    until(&bed.workers.cancelled, 1).await;
    let protocols = client.clone().with("grpc-timeout", "50m");
    // This client keeps the protocol's deadline too, and may be the first to say so.
    let late = protocols.infer(ints("never", &[1])).await.unwrap_err();
    assert!(
        matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{late}"
    );
    until(&bed.workers.cancelled, 2).await;
}

#[actix_rt::test]
async fn a_caller_that_leaves_cancels_its_call() {
    let bed = bed();
    let client = Client::new(&bed).await;
    {
        let call = client.infer(ints("never", &[1]));
        tokio::select! {
            _ = call => panic!("answered"),
            () = until(&bed.workers.waiting, 1) => {}
        }
    }
    until(&bed.workers.cancelled, 1).await;
    client.works().await;
    // So does a connection that goes.
    let gone = Client::new(&bed).await;
    {
        let call = gone.infer(ints("never", &[1]));
        tokio::select! {
            _ = call => panic!("answered"),
            () = until(&bed.workers.waiting, 2) => {}
        }
    }
    drop(gone);
    until(&bed.workers.cancelled, 2).await;
}

#[actix_rt::test]
async fn a_stream_answers_in_order_and_goes_on_after_an_error() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let (send, requests) = mpsc::channel(8);
    let mut answers = client.stream(requests).await.unwrap();
    for number in 0..5 {
        let model = if number == 2 { "full" } else { "echo" };
        let mut message = ints(model, &[number]);
        message.id = number.to_string();
        send.send(message).await.unwrap();
    }
    for number in 0..5 {
        let answer = next(&mut answers).await.unwrap();
        let response = answer.infer_response.unwrap();
        assert_eq!(response.id, number.to_string());
        assert!(response.parameters.contains_key("triton_final_response"));
        if number == 2 {
            assert!(
                answer.error_message.contains("maximum queue size"),
                "{}",
                answer.error_message
            );
        } else {
            assert_eq!(
                (&*answer.error_message, response.raw_output_contents),
                ("", vec![raw(&[number])])
            );
        }
    }
    drop(send);
    assert!(answers.next().await.is_none(), "it ends when its requests do");
}

#[actix_rt::test]
async fn a_stream_has_as_many_requests_under_way_as_allowed_and_not_one_more() {
    let bed = bed_with(|config| config.max_stream_requests = 2);
    let client = Client::new(&bed).await;
    let (send, requests) = mpsc::channel(8);
    let mut answers = client.stream(requests).await.unwrap();
    for number in 0..3 {
        send.send(ints("never", &[number])).await.unwrap();
    }
    until(&bed.workers.waiting, 2).await;
    // Another call goes all the way, on the same thread: the third request has had its chance.
    client.works().await;
    assert_eq!(*bed.workers.waiting.borrow(), 2);
    bed.workers.release.send_replace(true);
    for number in 0..3 {
        let response = next(&mut answers).await.unwrap().infer_response.unwrap();
        assert_eq!(response.raw_output_contents, [raw(&[number])]);
    }
    assert_eq!(*bed.workers.waiting.borrow(), 3);
}

#[actix_rt::test]
async fn a_stream_is_refused_as_a_whole_ends_at_its_deadline_and_is_cancelled_when_dropped() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let stranger = Client {
        key: None,
        ..client.clone()
    };
    let (_send, requests) = mpsc::channel(1);
    assert_eq!(
        stranger.stream(requests).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let hurried = client.clone().with("grpc-timeout", "50m");
    let (_send, requests) = mpsc::channel(1);
    let mut answers = hurried.stream(requests).await.unwrap();
    assert_eq!(next(&mut answers).await.unwrap_err().code(), Code::DeadlineExceeded);
    let strict = client.clone().with("triton_grpc_error", "true");
    let (send, requests) = mpsc::channel(1);
    let mut answers = strict.stream(requests).await.unwrap();
    send.send(ints("full", &[1])).await.unwrap();
    assert_eq!(next(&mut answers).await.unwrap_err().code(), Code::Unavailable);
    let (send, requests) = mpsc::channel(1);
    let answers = client.stream(requests).await.unwrap();
    send.send(ints("never", &[1])).await.unwrap();
    until(&bed.workers.waiting, 1).await;
    drop((send, answers));
    until(&bed.workers.cancelled, 1).await;
}

#[actix_rt::test]
async fn what_is_said_about_the_server_and_its_models() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let open = Client {
        key: None,
        ..client.clone()
    };
    let live: Response<ServerLiveResponse> = open.ask("ServerLive", ServerLiveRequest {}).await.unwrap();
    assert!(live.get_ref().live);
    let ready = || async {
        let answer = open
            .ask::<_, ServerReadyResponse>("ServerReady", ServerReadyRequest {})
            .await;
        answer.unwrap().into_inner().ready
    };
    assert!(ready().await);
    let guard = bed.readiness.register("models");
    assert!(!ready().await);
    drop(guard);
    let server: Response<ServerMetadataResponse> = open.ask("ServerMetadata", ServerMetadataRequest {}).await.unwrap();
    assert_eq!(server.get_ref().name, "mesh");
    assert!(
        server
            .get_ref()
            .extensions
            .iter()
            .any(|extension| extension == "statistics")
    );
    let named = ModelMetadataRequest {
        name: "echo".into(),
        version: "1".into(),
    };
    let metadata: ModelMetadataResponse = client.ask("ModelMetadata", named.clone()).await.unwrap().into_inner();
    assert_eq!(
        (metadata.versions, &*metadata.platform),
        (vec!["1".to_owned()], "mesh_builtin")
    );
    assert_eq!(metadata.inputs[0].shape, [-1, -1]);
    let closed = open
        .ask::<_, ModelMetadataResponse>("ModelMetadata", named)
        .await
        .unwrap_err();
    assert_eq!(closed.code(), Code::Unauthenticated);
    let asked = ModelConfigRequest {
        name: "echo".into(),
        version: String::new(),
    };
    let config: ModelConfigResponse = client.ask("ModelConfig", asked).await.unwrap().into_inner();
    assert_eq!(config.config.unwrap().max_batch_size, 8);
    let asked = ModelReadyRequest {
        name: "echo".into(),
        version: "9".into(),
    };
    let unknown = client
        .ask::<_, ModelReadyResponse>("ModelReady", asked)
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let all = ModelStatisticsRequest::default();
    let statistics: ModelStatisticsResponse = client.ask("ModelStatistics", all).await.unwrap().into_inner();
    assert_eq!(statistics.model_stats.len(), 4);
    let asked = RepositoryIndexRequest::default();
    let index: RepositoryIndexResponse = client.ask("RepositoryIndex", asked).await.unwrap().into_inner();
    let names: Vec<&str> = index.models.iter().map(|model| &*model.name).collect();
    assert_eq!(names, ["echo", "full", "never", "panics"]);
    assert!(index.models.iter().all(|model| model.state == "READY"));
    let asked = RepositoryModelLoadRequest::default();
    let refused = client
        .ask::<_, RepositoryModelLoadResponse>("RepositoryModelLoad", asked)
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
}

#[actix_rt::test]
async fn health_is_told_and_followed() {
    use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
    let bed = bed();
    let mut client = HealthClient::new(channel(&bed).await);
    let of = |service: &str| HealthCheckRequest {
        service: service.into(),
    };
    let status = client
        .check(of("inference.GRPCInferenceService"))
        .await
        .unwrap()
        .into_inner()
        .status;
    assert_eq!(status, i32::from(ServingStatus::Serving));
    assert_eq!(client.check(of("other")).await.unwrap_err().code(), Code::NotFound);
    let mut told = client.watch(of("")).await.unwrap().into_inner();
    let mut next = async || told.next().await.unwrap().unwrap().status;
    assert_eq!(next().await, i32::from(ServingStatus::Serving));
    let guard = bed.readiness.register("models");
    assert_eq!(next().await, i32::from(ServingStatus::NotServing));
    drop(guard);
    assert_eq!(next().await, i32::from(ServingStatus::Serving));
    let mut unknown = client.watch(of("other")).await.unwrap().into_inner();
    let status = unknown.next().await.unwrap().unwrap().status;
    assert_eq!(status, i32::from(ServingStatus::ServiceUnknown));
}

#[actix_rt::test]
async fn reflection_names_the_services() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let bed = bed();
    let mut client = ServerReflectionClient::new(channel(&bed).await);
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut told = client
        .server_reflection_info(futures::stream::iter([ask]))
        .await
        .unwrap()
        .into_inner();
    let answer = told.next().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(services)) = answer else {
        panic!("{answer:?}");
    };
    let names: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
    assert!(
        names.iter().any(|name| name == "inference.GRPCInferenceService"),
        "{names:?}"
    );
    for more in [
        "grpc.health.v1.Health",
        "tensorflow.serving.PredictionService",
        "tensorflow.serving.ModelService",
    ] {
        assert!(names.iter().any(|name| name == more), "{names:?}");
    }
}

#[actix_rt::test]
async fn a_stop_finishes_what_is_under_way_and_takes_no_more() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let (_send, requests) = mpsc::channel(1);
    let mut idle = client.stream(requests).await.unwrap();
    let call = client.infer(ints("never", &[1]));
    let stop = async {
        until(&bed.workers.waiting, 1).await;
        let (stopped, ()) = futures::join!(bed.door.stop(PATIENCE), async {
            assert_eq!(next(&mut idle).await.unwrap_err().code(), Code::Unavailable);
            bed.workers.release.send_replace(true);
        });
        stopped
    };
    let (answer, stopped) = futures::join!(call, stop);
    assert!(answer.is_ok() && stopped);
    let address = format!("http://{}", bed.door.addr());
    assert!(Endpoint::from_shared(address).unwrap().connect().await.is_err());
    assert!(bed.tasks.end(Duration::from_secs(5)).await.is_empty());
}

#[actix_rt::test]
async fn a_client_that_says_nothing_does_not_hold_up_the_end() {
    let bed = bed();
    let mut silent = tokio::net::TcpStream::connect(bed.door.addr()).await.unwrap();
    silent.write_all(PREFACE).await.unwrap();
    // Its settings have been taken in once ours are here.
    silent.read_u8().await.unwrap();
    assert!(bed.door.stop(PATIENCE).await);
}

#[actix_rt::test]
async fn a_connection_without_a_call_is_closed_in_time_whatever_it_said() {
    let bed = bed_with(|config| config.first_call_timeout = Duration::from_millis(20));
    for said in [&b""[..], &PREFACE[..7], PREFACE] {
        is_closed(&bed, said).await;
    }
}

#[actix_rt::test]
async fn a_connection_whose_call_takes_long_is_not_idle() {
    let bed = bed_with(|config| {
        config.idle_timeout = Duration::from_millis(20);
        config.first_call_timeout = Duration::from_millis(200);
    });
    let client = Client::new(&bed).await;
    let (answer, ()) = futures::join!(client.infer(ints("never", &[1])), async {
        until(&bed.workers.waiting, 1).await;
        // By then more time has passed than a connection may be idle.
        is_closed(&bed, PREFACE).await;
        bed.workers.release.send_replace(true);
    });
    assert!(answer.is_ok());
}

#[actix_rt::test]
async fn who_does_not_answer_pings_is_closed_and_who_does_keeps_its_call() {
    let bed = bed_with(|config| {
        config.ping_interval = Duration::from_millis(20);
        config.ping_timeout = Duration::from_millis(400);
    });
    let client = Client::new(&bed).await;
    let (answer, ()) = futures::join!(client.infer(ints("never", &[1])), async {
        until(&bed.workers.waiting, 1).await;
        // It reads and says nothing: nothing but a ping that is not answered ends it this early.
        is_closed(&bed, PREFACE).await;
        bed.workers.release.send_replace(true);
    });
    assert!(
        answer.is_ok(),
        "by then its connection has been asked as long as the other"
    );
}

/// A connection that says this and no more is closed.
async fn is_closed(bed: &Bed, said: &[u8]) {
    let mut silent = tokio::net::TcpStream::connect(bed.door.addr()).await.unwrap();
    silent.write_all(said).await.unwrap();
    let mut all = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, silent.read_to_end(&mut all)).await;
    closed.expect("not closed within 20 s").unwrap();
}

#[actix_rt::test]
async fn a_connection_more_than_allowed_is_closed_and_has_a_place_once_one_is_gone() {
    let bed = bed_with(|config| config.max_connections_per_worker = 1);
    let first = Client::new(&bed).await;
    first.works().await;
    let second = Endpoint::from_shared(format!("http://{}", bed.door.addr()))
        .unwrap()
        .connect_lazy();
    let second = Client {
        grpc: Grpc::new(second),
        ..first.clone()
    };
    let mut grpc = second.grpc.clone();
    let refused = match grpc.ready().await {
        Ok(()) => second.infer(ints("echo", &[1])).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    drop((first, second, grpc));
    let bound = tokio::time::Instant::now() + PATIENCE;
    loop {
        let endpoint = Endpoint::from_shared(format!("http://{}", bed.door.addr())).unwrap();
        if let Ok(channel) = endpoint.connect().await {
            let client = Client {
                grpc: Grpc::new(channel),
                key: Some(bed.key.clone()),
                metadata: Vec::new(),
            };
            let mut grpc = client.grpc.clone();
            if grpc.ready().await.is_ok() && client.infer(ints("echo", &[1])).await.is_ok() {
                return;
            }
        }
        assert!(tokio::time::Instant::now() < bound, "no place within 20 s");
    }
}

#[actix_rt::test]
async fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let first = bed();
    let config = GrpcDoorConfig {
        listen: address,
        ..GrpcDoorConfig::default()
    };
    let parts = RouterParts {
        attempts: Arc::new(Attempts::new(Arc::new(SystemClock))),
        cache: Arc::default(),
        sequences: Arc::default(),
        regions: Arc::default(),
        client_settings: false,
        snapshots: Arc::default(),
        limiter: Arc::new(Limiter::new(Arc::new(SystemClock))),
        workers: first.workers,
        gates: Arc::default(),
        telemetry: Telemetry::local(),
        clock: Arc::new(SystemClock),
        default_timeout: PATIENCE,
        max_in_flight: 1,
    };
    let refused = GrpcDoor::start(&config, &parts, Readiness::default(), &Tasks::new());
    assert!(matches!(refused, Err(DoorError::Bind { .. })), "{refused:?}");
}
