//! The pipeline against devices made for the test: each refusal, and that whatever ends a call gives everything back.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use actix::System;
use bytes::Bytes;
use mesh_policies::{
    ApiKeyEntry, Arm, Credentials, Limiter, Limits, MeshSnapshot, ModelEntry, Pepper, Rate, Route, Scope, Target,
    TenantEntry, TenantLimits, VersionEntry, access::Attempts, generate_api_key, limits::Unit,
};
use mesh_telemetry::{LiveSeries, Telemetry};
use mesh_types::{
    ArtifactFormat, DataType, DeviceId, EndpointId, Fault, FaultClass, FaultSource, InferJob, InferRequest, JobOutcome,
    Label, ManualClock, ModelConfig, ModelId, ModelVersionKey, ParameterValue, RequestId, Retry, ServiceClass, Shape,
    StageTimings, SystemClock, TenantId, TenantShare, Tensor, TensorSpec, TraceContext, Version, VersionSelector,
};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::{Answer, Call, Credential, Regions, Room, RouterActor, RouterHandle, RouterParts, WorkerReply, Workers};

#[path = "cache/recall_tests.rs"]
mod cache;
#[path = "driver_tests.rs"]
mod driver;
#[path = "graph/tests.rs"]
mod graph;
#[path = "level_tests.rs"]
mod level;
#[path = "manage_tests.rs"]
mod manage;

const LONG: Duration = Duration::from_secs(60);

type Sender = oneshot::Sender<Result<JobOutcome, Fault>>;

/// Keeps jobs until the test answers them.
struct FakeWorkers {
    jobs: Mutex<Vec<(DeviceId, InferJob, Sender)>>,
    count: watch::Sender<usize>,
    full: Mutex<bool>,
    panics: Mutex<bool>,
}

impl Workers for FakeWorkers {
    fn submit(&self, device: DeviceId, job: InferJob) -> Result<WorkerReply, Fault> {
        if *self.full.lock() {
            return Err(Fault::unavailable(FaultSource::Device, "Exceeds maximum queue size"));
        }
        assert!(!std::mem::take(&mut *self.panics.lock()), "told to");
        let (answer, answered) = oneshot::channel();
        self.jobs.lock().push((device, job, answer));
        self.count.send_modify(|count| *count += 1);
        Ok(Box::pin(async move {
            answered.await.unwrap_or_else(|_| Err(Fault::internal("dropped")))
        }))
    }
}

fn outcome(job: &InferJob, outputs: &[&str]) -> JobOutcome {
    let echo = |name: &&str| Tensor {
        name: Arc::from(*name),
        ..job.inputs[0].clone()
    };
    JobOutcome {
        outputs: outputs.iter().map(echo).collect(),
        timings: StageTimings {
            queue: Duration::from_millis(1),
            compute_infer: Duration::from_millis(2),
            batch_rows: 8,
            ..StageTimings::default()
        },
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn version(model: &str, number: u32, ready_on: Vec<DeviceId>) -> Arc<VersionEntry> {
    let spec = |name: &str| TensorSpec::new(name, DataType::Int32, &[2]);
    Arc::new(VersionEntry {
        key: Arc::new(ModelVersionKey {
            tenant: tenant("acme"),
            model: ModelId::parse(model).unwrap(),
            version: Version::new(number).unwrap(),
        }),
        config: Arc::new(ModelConfig {
            max_batch_size: 8,
            input: vec![spec("x")],
            output: vec![spec("y"), spec("z")],
            ..ModelConfig::default()
        }),
        format: ArtifactFormat::Builtin,
        digest: None,
        ready_on,
        plan: None,
        unavailable_reason: None,
        phase: Default::default(),
    })
}

fn model(name: &str, numbers: &[u32], ready_on: &[DeviceId]) -> Arc<ModelEntry> {
    let versions: BTreeMap<_, _> = numbers
        .iter()
        .map(|number| {
            (
                Version::new(*number).unwrap(),
                version(name, *number, ready_on.to_vec()),
            )
        })
        .collect();
    Arc::new(ModelEntry {
        grants: Arc::default(),
        owner: tenant("acme"),
        model: ModelId::parse(name).unwrap(),
        labels: [(Label::parse("stable").unwrap(), Version::FIRST)].into(),
        versions,
        default: None,
    })
}

fn route(arms: &[(&str, u32, u32)], timeout: Option<Duration>) -> Target {
    let of = model("digits", &[1, 2], &[DeviceId::cpu(0)]);
    let arms = arms.iter().map(|(name, number, hundredths)| Arm {
        name: Arc::from(*name),
        version: of.versions.get(&Version::new(*number).unwrap()).cloned(),
        model: of.clone(),
        hundredths: *hundredths,
    });
    Target::Endpoint(Arc::new(Route {
        endpoint: EndpointId::parse("split").unwrap(),
        arms: arms.collect(),
        unit: Some("user".to_owned()),
        salt: "salt".to_owned(),
        timeout,
        class: ServiceClass::default(),
        cache: None,
    }))
}

/// A mesh of tenants with a key each; every one may call what `targets` says.
struct Bed {
    router: RouterHandle,
    parts: RouterParts,
    workers: Arc<FakeWorkers>,
    credentials: Credentials,
    keys: HashMap<&'static str, String>,
}

fn entry(name: &str, limits: TenantLimits, targets: &[(&str, Target)]) -> TenantEntry {
    TenantEntry {
        id: tenant(name),
        created: 0,
        suspended: false,
        limits,
        share: TenantShare {
            weight: 3,
            isolated: true,
        },
        targets: targets
            .iter()
            .map(|(name, target)| ((*name).to_owned(), target.clone()))
            .collect(),
    }
}

fn usual_targets() -> Vec<(&'static str, Target)> {
    vec![
        ("digits", Target::Model(model("digits", &[1, 2], &[DeviceId::cpu(0)]))),
        ("loading", Target::Model(model("loading", &[1], &[]))),
        ("split", route(&[("control", 1, 5_000), ("treatment", 2, 5_000)], None)),
    ]
}

impl Bed {
    fn with(limits: TenantLimits, max_in_flight: usize) -> Self {
        Self::with_regions(limits, max_in_flight, Arc::default())
    }

    fn with_regions(limits: TenantLimits, max_in_flight: usize, regions: Arc<Regions>) -> Self {
        let (mut keys, pepper) = (HashMap::new(), Pepper::from_bytes([7; 32]));
        let mut credentials = Credentials::new(pepper.clone());
        for (name, of) in [
            ("acme", "acme"),
            ("globex", "globex"),
            ("asleep", "asleep"),
            ("blind", "acme"),
        ] {
            let key = generate_api_key("test", &mut rand::rng());
            let scopes = [Scope::Infer].into_iter().filter(|_| name != "blind");
            credentials = credentials.with_key(ApiKeyEntry {
                groups: [].into(),
                id: key.id,
                tenant: tenant(of),
                hash: pepper.hash(&key.secret),
                scopes: scopes.collect(),
                expires: None,
                revoked: false,
            });
            keys.insert(name, format!("Bearer {}", key.text));
        }
        let workers = Arc::new(FakeWorkers {
            jobs: Mutex::default(),
            count: watch::Sender::new(0),
            full: Mutex::new(false),
            panics: Mutex::new(false),
        });
        let clock = Arc::new(SystemClock);
        let parts = RouterParts {
            attempts: Arc::new(Attempts::new(clock.clone())),
            cache: Arc::default(),
            sequences: Arc::default(),
            regions,
            client_settings: false,
            snapshots: Arc::default(),
            // Its time stands still.
            limiter: Arc::new(Limiter::new(Arc::new(ManualClock::at(0)))),
            workers: workers.clone(),
            gates: Arc::default(),
            telemetry: Telemetry::local(),
            clock,
            default_timeout: LONG,
            max_in_flight,
        };
        let router = RouterActor::start_here(parts.clone());
        let bed = Self {
            router,
            parts,
            workers,
            credentials,
            keys,
        };
        bed.publish(limits, &usual_targets());
        bed
    }

    fn new() -> Self {
        Self::with(TenantLimits::default(), 100)
    }

    fn publish(&self, limits: TenantLimits, targets: &[(&str, Target)]) {
        let mut asleep = entry("asleep", limits.clone(), targets);
        asleep.suspended = true;
        let tenants = [
            entry("acme", limits, targets),
            entry("globex", TenantLimits::default(), &[]),
            asleep,
        ];
        let snapshot = MeshSnapshot::new(1, self.credentials.clone(), tenants);
        self.parts.snapshots.store(Arc::new(snapshot));
    }

    fn call(&self, who: &str, name: &str) -> Call {
        let data: Vec<u8> = [1i32, -2].iter().flat_map(|value| value.to_le_bytes()).collect();
        let x = Tensor::new(
            Arc::from("x"),
            DataType::Int32,
            Shape::from_slice(&[1, 2]),
            Bytes::from(data),
        );
        Call {
            request: InferRequest {
                id: Some("mine".to_owned()),
                model: name.to_owned(),
                inputs: vec![x.unwrap()],
                ..InferRequest::default()
            },
            bytes: 100,
            credential: Credential::from_header(self.keys.get(who).map(String::as_str)),
            unit: None,
            room: Room::One("one answer only"),
            timeout: None,
            trace_parent: None,
            request_id: RequestId(7),
            received: Instant::now(),
            decode: Duration::from_micros(5),
        }
    }

    /// Runs a call whose job the device answers at once.
    async fn answered(&self, call: Call) -> Answer {
        let (answer, ()) = tokio::join!(self.router.infer(call), async {
            self.job().await;
            self.answer_all();
        });
        answer
    }

    /// Waits until a job is on a device.
    async fn job(&self) {
        self.jobs(1).await;
    }

    async fn jobs(&self, wanted: usize) {
        self.workers
            .count
            .subscribe()
            .wait_for(|count| *count >= wanted)
            .await
            .unwrap();
    }

    fn answer_all(&self) {
        for (_, job, answer) in self.workers.jobs.lock().drain(..) {
            let outcome = outcome(&job, &["y", "z"]);
            let _ = answer.send(Ok(outcome));
        }
    }

    async fn refusal(&self, call: Call) -> Fault {
        let answer = self.router.infer(call).await;
        answer.account.finish(Duration::ZERO);
        answer.result.unwrap_err()
    }

    fn is_at_rest(&self) -> bool {
        let metrics = self.parts.telemetry.metrics();
        self.router.in_flight() == 0
            && self.parts.limiter.in_flight(&tenant("acme")) == 0
            && metrics.in_flight() == 0
            && self.router.on_devices() == 0
    }

    fn series(&self) -> Vec<LiveSeries> {
        self.parts.telemetry.metrics().live().series
    }
}

fn run<F: Future<Output = ()>>(test: F) {
    System::with_tokio_rt(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap()
    })
    .block_on(test);
}

#[test]
fn a_call_is_answered_with_its_arm_its_timings_and_a_series() {
    run(async {
        let bed = Bed::new();
        let answer = bed.answered(bed.call("acme", "split")).await;
        let completed = answer.result.unwrap();
        let arm = completed.arm.as_deref().unwrap();
        let number = if arm == "control" { 1 } else { 2 };
        assert_eq!(completed.response.version.get(), number);
        assert_eq!(completed.response.model, "split");
        assert_eq!(completed.response.id.as_deref(), Some("mine"));
        assert_eq!(completed.timings.decode, Duration::from_micros(5));
        assert_eq!(completed.timings.compute_infer, Duration::from_millis(2));
        assert_eq!(completed.timings.batch_rows, 8);
        assert_ne!(answer.account.trace(), TraceContext::default());
        answer.account.finish(Duration::from_micros(3));
        assert!(bed.is_at_rest());
        let series = bed.series();
        assert_eq!(series.len(), 1);
        assert_eq!(
            (series[0].tenant.as_ref(), series[0].target.as_ref()),
            ("acme", "split")
        );
        assert_eq!((series[0].arm.as_ref(), series[0].version), (arm, number));
    });
}

#[test]
fn a_job_carries_the_tenants_share_and_what_the_request_says_of_itself() {
    run(async {
        let bed = Bed::new();
        let mut call = bed.call("acme", "split");
        for (name, value) in [
            ("priority", ParameterValue::Int(2)),
            ("timeout", ParameterValue::Int(1_000)),
            ("service_class", ParameterValue::String("batch".into())),
        ] {
            call.request.parameters.insert(name.to_owned(), value);
        }
        let mut answering = Box::pin(bed.router.infer(call));
        // The call goes nowhere by itself: it is looked at while its job is waited for.
        tokio::select! {
            biased;
            _ = &mut answering => panic!("nothing was answered yet"),
            () = bed.job() => {}
        }
        let standing = bed.workers.jobs.lock()[0].1.standing;
        assert_eq!(
            standing.share,
            TenantShare {
                weight: 3,
                isolated: true
            }
        );
        assert_eq!((standing.class, standing.priority), (ServiceClass::Batch, 2));
        assert_eq!(standing.queue_timeout, Some(Duration::from_millis(1)));
        drop(answering);
        let mut call = bed.call("acme", "split");
        let wrong = ParameterValue::String("high".into());
        call.request.parameters.insert("priority".to_owned(), wrong);
        let fault = bed.refusal(call).await;
        assert_eq!(fault.class, FaultClass::InvalidArgument);
        assert!(fault.message.contains("'priority'"), "{}", fault.message);
    });
}

#[test]
fn callers_without_a_right_are_refused_before_anything_is_looked_up() {
    run(async {
        let bed = Bed::new();
        for (who, class) in [
            ("nobody", FaultClass::Unauthenticated),
            ("asleep", FaultClass::PermissionDenied),
            ("blind", FaultClass::InsufficientScope),
        ] {
            let known = bed.refusal(bed.call(who, "digits")).await;
            assert_eq!(known.class, class, "{who}: {known}");
            assert_eq!(known, bed.refusal(bed.call(who, "nonsense")).await);
        }
        let mut forged = bed.call("acme", "digits");
        forged.credential = Credential::from_header(Some("Bearer mesh_test_0_0_0"));
        assert_eq!(bed.refusal(forged).await.class, FaultClass::Unauthenticated);
        assert!(bed.workers.jobs.lock().is_empty() && bed.is_at_rest());
    });
}

#[test]
fn foreign_and_unknown_names_and_versions_answer_alike() {
    run(async {
        let bed = Bed::new();
        let unknown = |name: &str| Fault::unknown_model(name);
        // Another tenant's model, and one that nobody has.
        assert_eq!(bed.refusal(bed.call("globex", "digits")).await, unknown("digits"));
        assert_eq!(bed.refusal(bed.call("acme", "nonsense")).await, unknown("nonsense"));
        for name in ["digits", "split"] {
            for selector in ["3", "canary"] {
                let mut call = bed.call("acme", name);
                call.request.version = VersionSelector::parse(selector).unwrap();
                assert_eq!(bed.refusal(call).await, unknown(name));
                let selector = VersionSelector::parse(selector).unwrap();
                let call = bed.call("acme", name);
                let described = bed.router.describe(&call.credential, name, &selector);
                assert_eq!(described.unwrap_err(), unknown(name));
            }
        }
        let foreign = bed.call("globex", "digits");
        let described = bed
            .router
            .describe(&foreign.credential, "digits", &VersionSelector::Default);
        assert_eq!(described.unwrap_err(), unknown("digits"));
        // What a caller made up is no label.
        for series in bed.series() {
            let exists = &*series.tenant == "acme" && ["digits", "split"].contains(&&*series.target);
            assert!(exists || series.target.is_empty(), "{series:?}");
        }
    });
}

#[test]
fn inputs_and_outputs_that_do_not_fit_are_refused() {
    run(async {
        let bed = Bed::new();
        let mut unnamed = bed.call("acme", "digits");
        unnamed.request.inputs.clear();
        let mut misnamed = bed.call("acme", "digits");
        misnamed.request.outputs = vec!["w".to_owned()];
        for call in [unnamed, misnamed] {
            let fault = bed.refusal(call).await;
            assert_eq!(
                (fault.class, fault.source),
                (FaultClass::InvalidArgument, FaultSource::Client)
            );
        }
        assert!(bed.is_at_rest());
    });
}

#[test]
fn a_version_that_is_ready_nowhere_and_a_full_device_are_unavailable() {
    run(async {
        let bed = Bed::new();
        let fault = bed.refusal(bed.call("acme", "loading")).await;
        assert_eq!(
            (fault.class, fault.source),
            (FaultClass::Unavailable, FaultSource::Model)
        );
        *bed.workers.full.lock() = true;
        let fault = bed.refusal(bed.call("acme", "digits")).await;
        assert_eq!(
            (fault.class, fault.source),
            (FaultClass::Unavailable, FaultSource::Device)
        );
        assert!(bed.is_at_rest());
    });
}

#[test]
fn as_many_calls_as_the_router_takes_pass_and_one_more_does_not() {
    run(async {
        let bed = Bed::with(TenantLimits::default(), 3);
        let mut calls: Vec<_> = (0..3)
            .map(|_| Box::pin(bed.router.infer(bed.call("acme", "digits"))))
            .collect();
        tokio::select! {
            biased;
            _ = futures::future::join_all(&mut calls) => panic!("nothing was answered yet"),
            () = bed.jobs(3) => {}
        }
        let fault = bed.refusal(bed.call("acme", "digits")).await;
        assert_eq!((fault.class, fault.retry), (FaultClass::Unavailable, Retry::Now));
        // A caller that leaves makes room, and its job is cancelled.
        drop(calls.pop());
        let cancelled = |(_, _, answer): &(DeviceId, InferJob, Sender)| answer.is_closed();
        assert_eq!(bed.workers.jobs.lock().iter().filter(|job| cancelled(job)).count(), 1);
        assert_eq!((bed.router.in_flight(), bed.router.on_devices()), (2, 2));
        assert_eq!(bed.parts.limiter.in_flight(&tenant("acme")), 2);
        calls.push(Box::pin(bed.router.infer(bed.call("acme", "digits"))));
        let (answers, ()) = tokio::join!(futures::future::join_all(calls), async {
            bed.jobs(4).await;
            bed.answer_all();
        });
        for answer in answers {
            assert!(answer.result.is_ok());
            answer.account.finish(Duration::ZERO);
        }
        assert!(bed.is_at_rest());
    });
}

#[test]
fn a_tenants_limits_hold_and_say_when_to_come_back() {
    run(async {
        let limits = Limits::default().with_rate(Unit::Requests, Rate::new(1, 1)).into();
        let bed = Bed::with(limits, 100);
        let answer = bed.answered(bed.call("acme", "digits")).await;
        assert!(answer.result.is_ok());
        drop(answer);
        let fault = bed.refusal(bed.call("acme", "digits")).await;
        assert_eq!(
            (fault.class, fault.source),
            (FaultClass::RateLimited, FaultSource::TenantLimit)
        );
        let Retry::After(wait) = fault.retry else {
            panic!("{:?}", fault.retry);
        };
        assert!(
            wait <= Duration::from_secs(1) && wait > Duration::from_millis(100),
            "{wait:?}"
        );
        // To be told what a model is costs nothing.
        let call = bed.call("acme", "digits");
        let described = bed
            .router
            .describe(&call.credential, "digits", &VersionSelector::Default)
            .unwrap();
        assert!(described.ready);
        assert_eq!(
            described
                .versions
                .iter()
                .map(|version| version.get())
                .collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(bed.is_at_rest());
    });
}

#[test]
fn a_deadline_is_answered_although_the_device_never_answers() {
    run(async {
        let bed = Bed::new();
        let began = tokio::time::Instant::now();
        // The default; the route's own; the caller's; and the caller's where the route allows less.
        bed.publish(
            TenantLimits::default(),
            &[
                ("digits", usual_targets().remove(0).1),
                ("split", route(&[("all", 1, 10_000)], Some(Duration::from_secs(10)))),
            ],
        );
        for (name, asked, seconds) in [
            ("digits", None, 60),
            ("split", None, 10),
            ("digits", Some(2), 2),
            ("split", Some(20), 10),
            ("digits", Some(1_000), 60),
        ] {
            let mut call = bed.call("acme", name);
            call.timeout = asked.map(Duration::from_secs);
            call.received = tokio::time::Instant::now().into_std();
            let began = tokio::time::Instant::now();
            let fault = bed.refusal(call).await;
            assert_eq!(fault.class, FaultClass::DeadlineExceeded);
            let waited = began.elapsed();
            let expected = Duration::from_secs(seconds);
            assert!(
                waited >= expected && waited < expected + Duration::from_secs(1),
                "{name} {asked:?}: {waited:?}"
            );
            assert!(bed.is_at_rest());
        }
        assert!(began.elapsed() >= Duration::from_secs(142));
        assert!(bed.workers.jobs.lock().iter().all(|(_, _, answer)| answer.is_closed()));
    });
}

#[test]
fn a_call_whose_time_has_passed_never_reaches_a_device() {
    run(async {
        let bed = Bed::new();
        let mut call = bed.call("acme", "digits");
        call.timeout = Some(Duration::ZERO);
        assert_eq!(bed.refusal(call).await.class, FaultClass::DeadlineExceeded);
        assert!(bed.workers.jobs.lock().is_empty() && bed.is_at_rest());
    });
}

#[test]
fn a_request_under_way_keeps_the_snapshot_it_began_with() {
    run(async {
        let bed = Bed::new();
        let (answer, ()) = tokio::join!(bed.router.infer(bed.call("acme", "digits")), async {
            bed.job().await;
            bed.publish(TenantLimits::default(), &[]);
            bed.answer_all();
        });
        assert_eq!(answer.result.as_ref().unwrap().response.version.get(), 2);
        drop(answer);
        let fault = bed.refusal(bed.call("acme", "digits")).await;
        assert_eq!(fault, Fault::unknown_model("digits"));
    });
}

#[test]
fn a_unit_keeps_its_arm_and_a_parameter_goes_before_the_header() {
    run(async {
        let bed = Bed::new();
        let mut arms = HashMap::new();
        for round in 0..3 {
            for user in 0..20i64 {
                let mut call = bed.call("acme", "split");
                // As a parameter first, then as a header; a header beside a parameter says nothing.
                if round < 2 {
                    call.request
                        .parameters
                        .insert("user".to_owned(), ParameterValue::Int(user));
                }
                call.unit = Some(if round == 1 {
                    "other".to_owned()
                } else {
                    user.to_string()
                });
                let before = *bed.workers.count.borrow();
                let (answer, ()) = tokio::join!(bed.router.infer(call), async {
                    bed.jobs(before + 1).await;
                    bed.answer_all();
                });
                let arm = answer.result.as_ref().unwrap().arm.clone().unwrap();
                assert_eq!(*arms.entry(user).or_insert_with(|| arm.clone()), arm);
            }
        }
        let controls = arms.values().filter(|arm| &***arm == "control").count();
        assert!(controls > 0 && controls < 20, "{controls} of 20 in one arm");
    });
}

#[test]
fn outputs_come_in_the_order_asked_for() {
    run(async {
        let bed = Bed::new();
        let mut call = bed.call("acme", "digits");
        call.request.outputs = vec!["z".to_owned(), "y".to_owned()];
        let answer = bed.answered(call).await;
        let outputs = &answer.result.as_ref().unwrap().response.outputs;
        let names: Vec<_> = outputs.iter().map(|tensor| &*tensor.name).collect();
        assert_eq!(names, ["z", "y"]);
    });
}

#[test]
fn calls_spread_over_the_devices_where_the_version_is_ready() {
    run(async {
        let bed = Bed::new();
        let devices = [DeviceId::cpu(0), DeviceId::cpu(1), DeviceId::cpu(2)];
        bed.publish(
            TenantLimits::default(),
            &[("digits", Target::Model(model("digits", &[1], &devices)))],
        );
        let calls = (0..9).map(|_| bed.router.infer(bed.call("acme", "digits")));
        let (answers, ()) = tokio::join!(futures::future::join_all(calls), async {
            bed.jobs(9).await;
            for device in devices {
                let on = bed.workers.jobs.lock().iter().filter(|(on, ..)| *on == device).count();
                assert_eq!(on, 3, "{device}");
            }
            bed.answer_all();
        });
        answers
            .into_iter()
            .for_each(|answer| answer.account.finish(Duration::ZERO));
        assert!(bed.is_at_rest());
    });
}

#[test]
fn an_account_is_told_once_however_the_request_ends() {
    run(async {
        let bed = Bed::new();
        // Finished, dropped by the door, and dropped while it waits.
        bed.answered(bed.call("acme", "digits"))
            .await
            .account
            .finish(Duration::ZERO);
        let before = *bed.workers.count.borrow();
        let (answer, ()) = tokio::join!(bed.router.infer(bed.call("acme", "digits")), async {
            bed.jobs(before + 1).await;
            bed.answer_all();
        });
        drop(answer);
        let waits = bed.router.infer(bed.call("acme", "digits"));
        tokio::select! {
            biased;
            _ = waits => panic!("nothing was answered yet"),
            () = bed.jobs(before + 2) => {}
        }
        assert!(bed.is_at_rest());
        let [series] = bed.series().try_into().unwrap();
        assert_eq!((series.ok, series.refused + series.errors), (1, 2));
    });
}

#[test]
fn a_router_that_panics_answers_and_goes_on() {
    run(async {
        let bed = Bed::new();
        for _ in 0..3 {
            *bed.workers.panics.lock() = true;
            let fault = bed.refusal(bed.call("acme", "digits")).await;
            assert_eq!((fault.class, fault.source), (FaultClass::Internal, FaultSource::Mesh));
            assert!(bed.is_at_rest());
            let before = *bed.workers.count.borrow();
            let (answer, ()) = tokio::join!(bed.router.infer(bed.call("acme", "digits")), async {
                bed.jobs(before + 1).await;
                bed.answer_all();
            });
            assert!(answer.result.is_ok());
            answer.account.finish(Duration::ZERO);
            assert!(bed.is_at_rest());
        }
        // Each told once, as what it was, under what was known of it.
        let told = |series: &LiveSeries| {
            (
                series.tenant.as_ref() == "acme",
                series.ok,
                series.errors,
                series.refused,
            )
        };
        assert_eq!(bed.series().iter().map(told).collect::<Vec<_>>(), [(true, 3, 3, 0)]);
    });
}

#[path = "stream_tests.rs"]
mod streams;
