//! A door without a socket for tests: a real registry in a folder of its own, devices and a probe that answer by rote.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use actix_web::{App, body, cookie::Cookie, dev::Payload, http::Method, test, web};
use futures::future::BoxFuture;
use mesh_actors::Tasks;
use mesh_policies::{
    KeyAlgorithm, KeyLocation, Pepper, VersionEntry,
    access::{BookView, LeftOut, WhyLeftOut},
    generate_admin_token,
    graph::{Plan, StepVersionEntry},
    hash_secret,
};
use mesh_registry::{Author, Change, Expected, Registry, RegistryConfig, RegistryHandle};
use mesh_resources::{AdminRole, AdminTokenSpec, Resource, ResourceKey};
use mesh_telemetry::Telemetry;
use mesh_types::{
    ArtifactFormat, Clock, DataType, DeviceId, Difference, Fault, InferJob, JobOutcome, KeyId, LoadReport, ManualClock,
    ModelConfig, ModelId, ModelVersionKey, Parameters, StageTimings, TenantId, Tensor, Variant, VariantReport,
    VariantTime, Verdict, Version,
};
use serde_json::{Value, json};

use crate::{
    AdminParts, AdminState, AnswerCache, DeviceFacts, DeviceView, DoorsView, FleetView, HeldModel, IssuerView,
    KeyUseView, LoadState, ModelFacts, ModelNumbers, Probe, Purged, SequenceNumbers, SignIn, configure,
    devices::MAX_TENANTS_SHOWN,
};

/// One device with one model, used by more tenants than are named.
#[derive(Default)]
pub(crate) struct Fleet {
    draining: AtomicBool,
}

pub(crate) fn held() -> HeldModel {
    HeldModel {
        tenant: TenantId::parse("acme").unwrap(),
        model: ModelId::parse("digits").unwrap(),
        version: Version::FIRST,
        state: LoadState::Ready,
        reason: None,
        memory_bytes: Some(7),
        peak_bytes: Some(2),
        load_seconds: Some(0.5),
        progress: None,
    }
}

impl FleetView for Fleet {
    fn devices(&self) -> Vec<DeviceView> {
        vec![DeviceView {
            device: DeviceId::cpu(0),
            draining: self.draining.load(Ordering::SeqCst),
            models: vec![held()],
        }]
    }

    fn inspect(&self) -> Vec<DeviceFacts> {
        let second = Duration::from_secs(1);
        let numbers = ModelNumbers {
            requests: 4,
            rows: 12,
            executions: 3,
            ended_well: 2,
            latency: 8 * second,
            queue: 2 * second,
            compute: second,
            rejected: 5,
            predicted: 10 * second,
            prediction_error: second,
            sequences: Some(SequenceNumbers {
                open: 3,
                backlog: 1,
                idle: 2,
                ..SequenceNumbers::default()
            }),
            ..ModelNumbers::default()
        };
        let tenants = 1..=MAX_TENANTS_SHOWN + 1;
        let tenant = |number: usize| TenantId::parse(&format!("t{number}")).unwrap();
        vec![DeviceFacts {
            device: DeviceId::cpu(0),
            threads: 2,
            abandoned: 1,
            draining: self.draining.load(Ordering::SeqCst),
            in_flight: 3,
            sequence_state_bytes: 64,
            budget: Some(100),
            up: 100 * second,
            busy: 50 * second,
            models: vec![ModelFacts {
                held: held(),
                waiting: 6,
                numbers,
                load: load(),
            }],
            tenants: tenants.map(|number| (tenant(number), second * number as u32)).collect(),
            other_tenants: 2 * second,
        }]
    }

    fn ensemble(&self, key: &ModelVersionKey) -> Option<Arc<VersionEntry>> {
        (key.model.as_str() == "pipe").then(|| pipe(key))
    }

    fn drain(&self, _: DeviceId, draining: bool) -> BoxFuture<'static, Result<(), Fault>> {
        self.draining.store(draining, Ordering::SeqCst);
        Box::pin(std::future::ready(Ok(())))
    }

    fn warm_up(&self, version: ModelVersionKey) -> BoxFuture<'static, Result<Vec<DeviceId>, Fault>> {
        // Version 9 is broken.
        let answer = match version.version.get() {
            9 => Err(Fault::internal("it does not load")),
            _ => Ok(vec![DeviceId::cpu(0)]),
        };
        Box::pin(std::future::ready(answer))
    }
}

/// A model that was frozen.
fn load() -> LoadReport {
    let tried = |variant, verdict, micros| VariantReport {
        variant,
        verdict,
        difference: Some(Difference {
            absolute: 2e-7,
            relative: 1e-7,
        }),
        tolerance: Some(1e-5),
        times: vec![VariantTime {
            rows: 8,
            took: Duration::from_micros(micros),
        }],
    };
    LoadReport {
        chosen: Variant::Frozen,
        variants: vec![
            tried(Variant::Original, Verdict::Slower, 1_500),
            tried(Variant::Frozen, Verdict::Chosen, 1_000),
            tried(Variant::Optimized, Verdict::Failed("no kernel".into()), 0),
        ],
        ..LoadReport::plain("libtorch 2.11.0, TorchScript")
    }
}

/// An ensemble of one step and a switch of two, as the mesh would have compiled it.
fn pipe(key: &ModelVersionKey) -> Arc<VersionEntry> {
    let config: ModelConfig = serde_json::from_value(pipe_spec()["config"].clone()).unwrap();
    let step: Arc<ModelConfig> = Arc::new(serde_json::from_value(version_spec()["config"].clone()).unwrap());
    let entry = |key: ModelVersionKey, config: Arc<ModelConfig>, plan: Option<Arc<Plan>>| VersionEntry {
        key: Arc::new(key),
        config,
        format: ArtifactFormat::Ensemble,
        digest: None,
        ready_on: vec![DeviceId::cpu(0)],
        plan,
        unavailable_reason: None,
        phase: Default::default(),
    };
    let plan = Plan::compile(key, &config, |wanted| {
        let key = ModelVersionKey {
            model: wanted.model.clone(),
            ..key.clone()
        };
        Ok(StepVersionEntry {
            entry: Arc::new(entry(key, step.clone(), None)),
            callers: [].into(),
        })
    });
    Arc::new(entry(key.clone(), Arc::new(config), Some(Arc::new(plan.unwrap()))))
}

/// Answers each job with its first input as output `y`; version 9 is broken, and so is each with the parameter `broken`.
pub(crate) struct Echo;

/// An inference door whose certificate ends tomorrow, and two that speak no TLS.
pub(crate) struct Doors(Arc<ManualClock>);

impl DoorsView for Doors {
    fn shown(&self) -> Vec<(&'static str, Option<mesh_tls::Shown>)> {
        let (now, day) = (self.0.unix_seconds(), 86_400);
        let facts = |name: &str, until| mesh_tls::CertificateFacts {
            subject: format!("CN={name}"),
            issuer: "CN=authority".into(),
            names: vec![name.into()],
            more_names: 0,
            from: now - 60 * day,
            until,
            sha256: "0".repeat(64),
        };
        let shown = mesh_tls::Shown {
            certificate: facts("mesh.test", now + day),
            chain: 2,
            since: now - 3_600,
            renewals: 2,
            refused: None,
            oldest: mesh_tls::TlsVersion::V1_3,
            asks: mesh_tls::Asks::Optional,
            authorities: vec![facts("authority", now + 900 * day)],
            more_authorities: 0,
        };
        vec![("inference", Some(shown)), ("admin", None), ("metrics", None)]
    }
}

/// Remembers nothing but that three answers of an endpoint were forgotten, or five of a tenant.
pub(crate) struct Empty;

impl AnswerCache for Empty {
    fn purge(&self, _: &TenantId, endpoint: Option<&mesh_types::EndpointId>) -> Purged {
        let entries = if endpoint.is_some() { 3 } else { 5 };
        Purged { entries, bytes: 30 }
    }
}

impl Probe for Echo {
    fn infer(&self, job: InferJob, parameters: Parameters) -> BoxFuture<'static, Result<JobOutcome, Fault>> {
        let broken = job.version.version.get() == 9 || parameters.contains_key("broken");
        let answer = match job.inputs.first() {
            Some(input) if !broken => Ok(JobOutcome {
                outputs: vec![
                    Tensor::new("y".into(), DataType::Fp32, input.shape.clone(), input.data.clone()).unwrap(),
                ],
                timings: StageTimings::default(),
            }),
            _ => Err(Fault::internal("the model failed")),
        };
        Box::pin(std::future::ready(answer))
    }
}

pub(crate) struct Fixture {
    pub(crate) state: AdminState,
    pub(crate) registry: RegistryHandle,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) admin: String,
    pub(crate) viewer: String,
    pub(crate) tasks: Tasks,
    _registry: Registry,
    _folder: tempfile::TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) headers: actix_web::http::header::HeaderMap,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }
}

/// A request to be made.
pub(crate) struct Ask {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    cookie: Option<String>,
    body: Option<Vec<u8>>,
    payload: Option<Payload>,
}

impl Ask {
    pub(crate) fn new(method: Method, path: &str) -> Self {
        Self {
            method,
            path: format!("/admin/v1{path}"),
            headers: vec![("host", "mesh.test".into())],
            cookie: None,
            body: None,
            payload: None,
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn cookie(mut self, session: &str) -> Self {
        self.cookie = Some(session.to_owned());
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .bytes(body.to_string().as_bytes())
    }

    pub(crate) fn bytes(mut self, body: &[u8]) -> Self {
        self.body = Some(body.to_vec());
        self
    }

    /// A body that comes as it likes.
    pub(crate) fn payload(self, payload: Payload) -> Self {
        Self {
            payload: Some(payload),
            ..self
        }
    }
}

/// What the issuer `published` has published: one key, and one that is left out; its last fetch failed.
pub(crate) struct Published;

impl IssuerView for Published {
    fn fetched_keys(&self, issuer: &str, now_unix: i64) -> Option<BookView> {
        let left_out = LeftOut {
            key_id: Some("enc".into()),
            reason: WhyLeftOut::Use,
        };
        (issuer == "published").then(|| BookView {
            location: KeyLocation::KeySet("https://idp.test/keys".into()),
            keys: vec![(Some("k1".into()), KeyAlgorithm::ES256, "print".into())],
            left_out: vec![left_out],
            fetched: Some(now_unix - 60),
            next_fetch: Some(now_unix + 2),
            kept_until: Some(now_unix + 86_340),
            last_error: Some((now_unix - 1, "no answer within 5 s".into())),
        })
    }
}

/// The key `used` of `acme` was used 40 s ago, and no other ever.
pub(crate) struct Uses(Arc<ManualClock>);

impl KeyUseView for Uses {
    fn last_used(&self, tenant: &TenantId, key: &KeyId) -> Option<i64> {
        let minute = (self.0.unix_seconds() - 40) / 60 * 60;
        (tenant.as_str() == "acme" && key.as_str() == "used").then_some(minute)
    }
}

pub(crate) fn token(registry_pepper: &Pepper, role: AdminRole) -> (String, Resource) {
    let made = generate_admin_token(&mut rand::rng());
    let spec = AdminTokenSpec {
        hash: hash_secret(registry_pepper, &made.secret),
        role,
        tenant: None,
        groups: Vec::new(),
        expires: None,
    };
    (made.text, Resource::new(&ResourceKey::admin_token(&made.id), spec))
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::with(None).await
    }

    /// With a provider to sign in with.
    pub(crate) async fn with(sign_in: Option<SignIn>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::new();
        let opened = Registry::open(RegistryConfig::new(folder.path()), &tasks).unwrap();
        let registry = opened.handle();
        let pepper = Pepper::from_bytes([7; 32]);
        let ((admin, first), (viewer, second)) = (token(&pepper, AdminRole::Admin), token(&pepper, AdminRole::Viewer));
        let by = Author {
            who: "start".into(),
            source: "mesh".into(),
            request: None,
            from: None,
        };
        let changes = [first, second].map(|resource| Change::Put {
            resource,
            expected: Expected::Absent,
        });
        registry.write(by, changes.to_vec()).await.unwrap();
        let clock = Arc::new(ManualClock::at(1_900_000_000));
        let parts = AdminParts {
            registry: registry.clone(),
            telemetry: Telemetry::local(),
            fleet: Arc::new(Fleet::default()),
            doors: Arc::new(Doors(clock.clone())),
            issuers: Arc::new(Published),
            key_uses: Arc::new(Uses(clock.clone())),
            sign_in,
            probe: Arc::new(Echo),
            cache: Arc::new(Empty),
            pepper,
            clock: clock.clone() as Arc<dyn Clock>,
            limiter: Arc::new(mesh_policies::Limiter::new(clock.clone())),
        };
        Self {
            state: AdminState::start(parts, &tasks),
            registry,
            clock,
            admin,
            viewer,
            tasks,
            _registry: opened,
            _folder: folder,
        }
    }

    pub(crate) async fn send(&self, ask: Ask) -> Answer {
        let app = App::new()
            .app_data(web::Data::new(self.state.clone()))
            .configure(configure);
        let app = test::init_service(app).await;
        let peer = "192.0.2.1:4000".parse().unwrap();
        let mut request = test::TestRequest::with_uri(&ask.path)
            .method(ask.method)
            .peer_addr(peer);
        for header in ask.headers {
            request = request.insert_header(header);
        }
        if let Some(session) = ask.cookie {
            request = request.cookie(Cookie::new("mesh_session", session));
        }
        if let Some(body) = ask.body {
            request = request.set_payload(body);
        }
        let mut request = request.to_request();
        if let Some(payload) = ask.payload {
            *request.payload() = payload;
        }
        let response = test::call_service(&app, request).await;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let bytes = body::to_bytes(response.into_body()).await.unwrap_or_default();
        Answer {
            status,
            headers,
            // What is no JSON is text, as metrics are.
            body: serde_json::from_slice(&bytes).unwrap_or_else(|_| match bytes.is_empty() {
                true => Value::Null,
                false => String::from_utf8_lossy(&bytes).into(),
            }),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Ask::new(Method::GET, path).bearer(&self.admin)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Ask::new(Method::PUT, path).bearer(&self.admin).json(body))
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Ask::new(Method::POST, path).bearer(&self.admin).json(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Ask::new(Method::DELETE, path).bearer(&self.admin)).await
    }

    /// A tenant with two versions of a model and an endpoint over them.
    pub(crate) async fn demo(&self) {
        self.put("/tenants/acme", &tenant("acme")).await.is(201);
        for _ in 0..2 {
            self.post("/tenants/acme/models/digits/versions", &json!({"spec": version_spec()}))
                .await
                .is(201);
        }
        self.put("/tenants/acme/endpoints/read", &endpoint(90.0)).await.is(201);
    }

    pub(crate) async fn end(self) {
        assert!(self.tasks.end(Duration::from_secs(5)).await.is_empty());
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "a literal reads better than a reference to one"
)]
pub(crate) fn resource(kind: &str, tenant: Option<&str>, name: &str, spec: Value) -> Value {
    let mut metadata = json!({ "name": name });
    if let Some(tenant) = tenant {
        metadata["tenant"] = json!(tenant);
    }
    json!({"apiVersion": "mesh/v1", "kind": kind, "metadata": metadata, "spec": spec})
}

pub(crate) fn tenant(name: &str) -> Value {
    resource("Tenant", None, name, json!({}))
}

pub(crate) fn version_spec() -> Value {
    let tensor = |name: &str| json!([{"name": name, "datatype": "FP32", "dims": [2]}]);
    json!({"format": "builtin", "config": {"max_batch_size": 8, "input": tensor("x"), "output": tensor("y")}})
}

/// An ensemble over the demo's model.
pub(crate) fn pipe_spec() -> Value {
    let step = |name: &str, input: &str, output: &str| json!({"name": name, "model": "digits", "version": 1, "inputs": {"x": input}, "outputs": {"y": output}});
    let graph = json!({"steps": [
        step("first", "x", "mid"),
        {"name": "way", "switch": [
            {"when": "mid > 0", "steps": [step("up", "mid", "y")]}, {"steps": [step("down", "mid", "y")]},
        ]},
    ]});
    let mut spec = version_spec();
    spec["format"] = json!("ensemble");
    spec["config"]["graph"] = graph;
    spec
}

pub(crate) fn endpoint(first: f64) -> Value {
    resource(
        "Endpoint",
        Some("acme"),
        "read",
        json!({"arms": [
        {"name": "v1", "model": "digits", "version": "1", "weight": first},
        {"name": "v2", "model": "digits", "version": "2", "weight": 100.0 - first}]}),
    )
}
