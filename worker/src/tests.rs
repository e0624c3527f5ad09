//! The worker on the built-in models, faults included.

use std::{sync::Arc, time::Duration};

use actix::System;
use bytes::Bytes;
use mesh_actors::Tasks;
use mesh_backend::LoadSpec;
use mesh_backend_builtin::BuiltinBackend;
use mesh_types::{
    ArtifactFormat, Clock, DataType, Deadline, DeviceId, DynamicBatching, Fault, FaultClass, InferJob, ModelConfig,
    ModelId, ModelVersionKey, ParameterValue, RequestId, Shape, SystemClock, TenantId, Tensor, TensorSpec,
    TraceContext, Version,
};

use crate::{BatchObserver, ModelState, Unobserved, Worker, WorkerConfig, WorkerHandle};

const CPU: DeviceId = DeviceId::cpu(0);

fn spec(builtin: &str, batching: Option<DynamicBatching>) -> LoadSpec {
    let tensor = |name: &str| TensorSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        dims: vec![1],
        allow_ragged_batch: false,
    };
    let parameters = [
        ("builtin".to_owned(), ParameterValue::String(builtin.into())),
        ("busy_us".to_owned(), ParameterValue::Int(20_000)),
    ];
    let config = ModelConfig {
        max_batch_size: 8,
        input: vec![tensor("x")],
        output: vec![tensor("y")],
        dynamic_batching: batching,
        parameters: parameters.into_iter().collect(),
        ..ModelConfig::default()
    };
    LoadSpec {
        key: key(builtin),
        config: Arc::new(config),
        artifact: None,
        format: ArtifactFormat::Builtin,
    }
}

fn key(builtin: &str) -> ModelVersionKey {
    let model = ModelId::parse(builtin).unwrap();
    ModelVersionKey {
        tenant: TenantId::parse("t").unwrap(),
        model,
        version: Version::FIRST,
    }
}

fn job(builtin: &str, values: &[f32], timeout: Duration) -> InferJob {
    let rows = u32::try_from(values.len()).unwrap();
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let tensor = Tensor::new(
        Arc::from("x"),
        DataType::Fp32,
        Shape::from_slice(&[u64::from(rows), 1]),
        Bytes::from(data),
    );
    InferJob {
        standing: mesh_types::Standing::default(),
        request: RequestId(1),
        tenant: TenantId::parse("t").unwrap(),
        version: Arc::new(key(builtin)),
        inputs: vec![tensor.unwrap()],
        outputs: Vec::new(),
        rows,
        deadline: Deadline::after(SystemClock.now(), timeout),
        trace: TraceContext::default(),
    }
}

fn unobserved() -> Arc<dyn BatchObserver> {
    Arc::new(Unobserved)
}

const LONG: Duration = Duration::from_secs(60);

async fn infer(worker: &WorkerHandle, builtin: &str, values: &[f32]) -> Result<Vec<f32>, Fault> {
    let outcome = worker.submit(CPU, job(builtin, values, LONG))?.await?;
    let floats = outcome.outputs[0]
        .data
        .chunks_exact(4)
        .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()));
    Ok(floats.collect())
}

fn with_worker<F: Future<Output = ()>>(config: &WorkerConfig, test: impl FnOnce(WorkerHandle) -> F) {
    System::new().block_on(async {
        let tasks = Tasks::new();
        let backends: Vec<Arc<dyn mesh_backend::Backend>> = vec![Arc::new(BuiltinBackend::new())];
        let worker = Worker::start(config, backends, &unobserved(), Arc::new(SystemClock), &tasks).unwrap();
        test(worker.handle()).await;
        assert!(tasks.end(Duration::from_secs(10)).await.is_empty());
    });
}

fn batching() -> Option<DynamicBatching> {
    Some(DynamicBatching::default())
}

#[test]
fn each_request_gets_its_own_rows_back_from_shared_batches() {
    with_worker(
        &WorkerConfig {
            threads_per_device: 2,
            ..WorkerConfig::default()
        },
        |worker| async move {
            worker.load(CPU, spec("identity", batching())).await.unwrap();
            let replies: Vec<_> = (0..500u16)
                .map(|number| {
                    let value = f32::from(number);
                    (
                        value,
                        worker
                            .submit(CPU, job("identity", &[value, value + 0.5], LONG))
                            .unwrap(),
                    )
                })
                .collect();
            let mut largest = 0;
            for (value, reply) in replies {
                let outcome = reply.await.unwrap();
                let expected: Vec<u8> = [value, value + 0.5]
                    .iter()
                    .flat_map(|value| value.to_le_bytes())
                    .collect();
                assert_eq!(outcome.outputs[0].data, expected);
                assert_eq!(outcome.outputs[0].shape.as_slice(), [2, 1]);
                largest = largest.max(outcome.timings.batch_rows);
            }
            assert_eq!(
                largest, 8,
                "requests should have shared batches up to the model's maximum"
            );
        },
    );
}

#[test]
fn a_panic_and_an_error_fail_their_batch_only() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        for model in ["panic_on_negative", "fail_on_negative"] {
            worker.load(CPU, spec(model, batching())).await.unwrap();
            for _ in 0..3 {
                assert_eq!(infer(&worker, model, &[1.0]).await.unwrap(), [1.0]);
                let fault = infer(&worker, model, &[-1.0]).await.unwrap_err();
                assert_eq!(fault.class, FaultClass::Internal, "{fault}");
            }
        }
    });
}

#[test]
fn a_model_that_does_not_load_says_why_and_takes_no_jobs() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        let fault = worker.load(CPU, spec("nothing", None)).await.unwrap_err();
        assert!(fault.message.contains("no built-in model 'nothing'"), "{fault}");
        let report = worker.report();
        let model = &report.devices[0].models[0];
        assert_eq!(model.state, ModelState::Unavailable);
        assert!(model.reason.as_deref().unwrap().contains("nothing"));
        assert_eq!(
            infer(&worker, "nothing", &[1.0]).await.unwrap_err().class,
            FaultClass::Unavailable
        );
    });
}

#[test]
fn a_full_queue_refuses_one_more_with_tritons_words() {
    let config = WorkerConfig {
        queue: 4,
        ..WorkerConfig::default()
    };
    with_worker(&config, |worker| async move {
        worker.load(CPU, spec("busy", None)).await.unwrap();
        let replies: Vec<_> = (0..30)
            .filter_map(|_| worker.submit(CPU, job("busy", &[1.0], LONG)).ok())
            .collect();
        let (mut answered, mut refused) = (0, 0);
        for reply in replies {
            match reply.await {
                Ok(_) => answered += 1,
                Err(fault) => {
                    assert_eq!(fault.message, "Exceeds maximum queue size");
                    refused += 1;
                }
            }
        }
        assert!(answered >= 4 && refused > 0, "{answered} answered, {refused} refused");
    });
}

#[test]
fn arrivals_past_their_bound_are_refused_at_once() {
    let config = WorkerConfig {
        arrivals: 2,
        ..WorkerConfig::default()
    };
    System::new().block_on(async {
        let tasks = Tasks::new();
        let worker = Worker::start(&config, Vec::new(), &unobserved(), Arc::new(SystemClock), &tasks).unwrap();
        let worker = worker.handle();
        // Faster than any actor drains: of many at once at least one meets a full queue, and each is answered or refused.
        let mut refused = 0;
        let mut replies = Vec::new();
        for _ in 0..10_000 {
            match worker.submit(CPU, job("identity", &[1.0], LONG)) {
                Ok(reply) => replies.push(reply),
                Err(fault) => {
                    assert_eq!(fault.class, FaultClass::Unavailable);
                    refused += 1;
                }
            }
        }
        assert!(refused > 0);
        drop(replies);
        tasks.end(Duration::from_secs(10)).await;
    });
}

#[test]
fn a_deadline_that_passes_in_the_queue_is_answered_and_a_dropped_reply_is_never_run() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        worker.load(CPU, spec("busy", None)).await.unwrap();
        let mut replies: Vec<_> = (0..3)
            .map(|_| worker.submit(CPU, job("busy", &[1.0], LONG)).unwrap())
            .collect();
        let late = worker
            .submit(CPU, job("busy", &[1.0], Duration::from_millis(1)))
            .unwrap();
        let dropped = worker.submit(CPU, job("busy", &[1.0], LONG)).unwrap();
        drop(dropped);
        replies.push(worker.submit(CPU, job("busy", &[1.0], LONG)).unwrap());
        assert_eq!(late.await.unwrap_err().class, FaultClass::DeadlineExceeded);
        for reply in replies {
            reply.await.unwrap();
        }
    });
}

#[test]
fn unloading_finishes_what_was_accepted_and_loading_again_works() {
    with_worker(
        &WorkerConfig {
            threads_per_device: 2,
            ..WorkerConfig::default()
        },
        |worker| async move {
            for _ in 0..5 {
                worker.load(CPU, spec("identity", batching())).await.unwrap();
                let replies: Vec<_> = (0..200)
                    .map(|_| worker.submit(CPU, job("identity", &[1.0], LONG)).unwrap())
                    .collect();
                worker.unload(CPU, &key("identity")).await.unwrap();
                for reply in replies {
                    reply.await.unwrap();
                }
                assert!(worker.report().devices[0].models.is_empty());
                assert_eq!(
                    infer(&worker, "identity", &[1.0]).await.unwrap_err().class,
                    FaultClass::Unavailable
                );
            }
        },
    );
}

/// A backend whose model takes its thread with it when it is unloaded.
struct DeadlyBackend(BuiltinBackend);

struct DeadlyModel(Box<dyn mesh_backend::LoadedModel>);

impl Drop for DeadlyModel {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "takes the thread along");
    }
}

impl mesh_backend::LoadedModel for DeadlyModel {
    fn execute(
        &mut self,
        batch: &mesh_backend::BatchInputs<'_>,
    ) -> Result<mesh_backend::BatchOutputs, mesh_backend::BackendError> {
        self.0.execute(batch)
    }

    fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes()
    }
}

impl mesh_backend::Backend for DeadlyBackend {
    fn name(&self) -> &'static str {
        "deadly"
    }

    fn devices(&self) -> Vec<mesh_backend::DeviceInfo> {
        self.0.devices()
    }

    fn formats(&self) -> &'static [ArtifactFormat] {
        self.0.formats()
    }

    fn load(
        &self,
        spec: &LoadSpec,
        device: DeviceId,
    ) -> Result<Box<dyn mesh_backend::LoadedModel>, mesh_backend::BackendError> {
        let model = self.0.load(spec, device)?;
        let deadly = spec.key.model.as_str() == "add_sub";
        Ok(if deadly { Box::new(DeadlyModel(model)) } else { model })
    }
}

#[test]
fn a_device_thread_that_dies_is_replaced_and_every_request_is_answered() {
    System::new().block_on(async {
        let tasks = Tasks::new();
        let backends: Vec<Arc<dyn mesh_backend::Backend>> = vec![Arc::new(DeadlyBackend(BuiltinBackend::new()))];
        let config = WorkerConfig::default();
        let worker = Worker::start(&config, backends, &unobserved(), Arc::new(SystemClock), &tasks).unwrap();
        let worker = worker.handle();
        let mut deadly = spec("add_sub", batching());
        let mut config = ModelConfig::clone(&deadly.config);
        config.input.push(TensorSpec {
            name: "x2".into(),
            ..config.input[0].clone()
        });
        config.output.push(TensorSpec {
            name: "y2".into(),
            ..config.output[0].clone()
        });
        deadly.config = Arc::new(config);
        worker.load(CPU, spec("identity", batching())).await.unwrap();
        worker.load(CPU, deadly).await.unwrap();
        let replies: Vec<_> = (0..200)
            .map(|_| worker.submit(CPU, job("identity", &[1.0], LONG)).unwrap())
            .collect();
        // The thread dies of this; whoever asked is told, one way or the other.
        let _ = worker.unload(CPU, &key("add_sub")).await;
        for reply in replies {
            if let Err(fault) = reply.await {
                assert_eq!(fault.class, FaultClass::Unavailable, "{fault}");
            }
        }
        let mut reports = worker.watch(CPU).unwrap();
        let deadline = std::time::Instant::now() + LONG;
        loop {
            match infer(&worker, "identity", &[7.0]).await {
                Ok(values) => {
                    assert_eq!(values, [7.0]);
                    break;
                }
                Err(fault) => assert_eq!(fault.class, FaultClass::Unavailable, "{fault}"),
            }
            assert!(std::time::Instant::now() < deadline, "the device did not come back");
            let _ = tokio::time::timeout(Duration::from_millis(20), reports.changed()).await;
        }
        assert!(
            worker.report().devices[0]
                .models
                .iter()
                .all(|model| model.key != key("add_sub")),
            "what was unloaded stays unloaded"
        );
        tasks.end(Duration::from_secs(10)).await;
    });
}

#[test]
fn more_loads_at_once_than_a_device_takes_are_each_loaded_or_refused() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        let names: Vec<String> = (0..300).map(|number| format!("identity-{number}")).collect();
        let load = |name: &String| {
            let (worker, mut spec) = (worker.clone(), spec("identity", batching()));
            spec.key = key(name);
            async move { worker.load(CPU, spec).await }
        };
        let loads: Vec<_> = names.iter().map(load).collect();
        let all = tokio::time::timeout(LONG, futures::future::join_all(loads)).await;
        let mut ready = 0;
        for result in all.expect("a load was never answered") {
            match result {
                Ok(()) => ready += 1,
                Err(fault) => assert_eq!(fault.class, FaultClass::Unavailable, "{fault}"),
            }
        }
        let is_ready = |model: &&crate::ModelReport| model.state == ModelState::Ready;
        let reported = worker.report().devices[0].models.iter().filter(is_ready).count();
        assert!(ready > 0 && reported >= ready, "{ready} loaded, {reported} reported");
        // Nobody is left out after such a flood.
        worker.load(CPU, spec("identity", batching())).await.unwrap();
        assert_eq!(infer(&worker, "identity", &[1.0]).await.unwrap(), [1.0]);
    });
}

#[test]
fn a_device_that_is_gone_for_good_answers_what_waits_and_all_that_comes() {
    System::new().block_on(async {
        let tasks = Tasks::new();
        let backends: Vec<Arc<dyn mesh_backend::Backend>> = vec![Arc::new(BuiltinBackend::new())];
        let config = WorkerConfig::default();
        let worker = Worker::start(&config, backends, &unobserved(), Arc::new(SystemClock), &tasks).unwrap();
        let handle = worker.handle();
        handle.load(CPU, spec("identity", batching())).await.unwrap();
        assert!(tasks.end(Duration::from_secs(10)).await.is_empty());
        let reply = handle.submit(CPU, job("identity", &[1.0], LONG)).unwrap();
        let answer = tokio::time::timeout(LONG, reply).await.expect("never answered");
        assert_eq!(answer.unwrap_err().class, FaultClass::Unavailable);
        worker.stop();
        let reply = handle.submit(CPU, job("identity", &[1.0], LONG)).unwrap();
        let answer = tokio::time::timeout(LONG, reply).await.expect("never answered");
        assert_eq!(answer.unwrap_err().class, FaultClass::Unavailable);
    });
}

#[test]
fn a_worker_without_devices_does_not_start() {
    System::new().block_on(async {
        let config = WorkerConfig {
            cpu_devices: 0,
            ..WorkerConfig::default()
        };
        let started = Worker::start(&config, Vec::new(), &unobserved(), Arc::new(SystemClock), &Tasks::new());
        assert!(started.is_err());
    });
}
