//! The worker on the built-in models, faults included.

use std::{sync::Arc, time::Duration};

use actix::System;
use bytes::Bytes;
use mesh_actors::Tasks;
use mesh_backend::LoadSpec;
use mesh_backend_builtin::BuiltinBackend;
use mesh_types::{
    ArtifactFormat, Clock, DataType, Deadline, DeviceId, DynamicBatching, Fault, FaultClass, InferJob, ModelConfig,
    ModelId, ModelVersionKey, ParameterValue, RequestId, Retry, Shape, SystemClock, TenantId, Tensor, TensorSpec,
    TraceContext, Version,
};

use crate::{BatchObserver, ModelState, Unobserved, Worker, WorkerConfig, WorkerHandle};

pub(crate) const CPU: DeviceId = DeviceId::cpu(0);

pub(crate) fn spec(builtin: &str, batching: Option<DynamicBatching>) -> LoadSpec {
    let tensor = |name: &str| TensorSpec::new(name, DataType::Fp32, &[1]);
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

pub(crate) fn key(builtin: &str) -> ModelVersionKey {
    let model = ModelId::parse(builtin).unwrap();
    ModelVersionKey {
        tenant: TenantId::parse("t").unwrap(),
        model,
        version: Version::FIRST,
    }
}

pub(crate) fn job(builtin: &str, values: &[f32], timeout: Duration) -> InferJob {
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
        sequence: None,
        request: RequestId(1),
        tenant: TenantId::parse("t").unwrap(),
        version: Arc::new(key(builtin)),
        inputs: vec![tensor.unwrap()],
        outputs: Vec::new(),
        rows,
        deadline: Deadline::after(SystemClock.now(), timeout),
        answers: None,
        trace: TraceContext::default(),
        meter: None,
        parameters: None,
    }
}

pub(crate) fn unobserved() -> Arc<dyn BatchObserver> {
    Arc::new(Unobserved)
}

pub(crate) const LONG: Duration = Duration::from_secs(60);

pub(crate) async fn infer(worker: &WorkerHandle, builtin: &str, values: &[f32]) -> Result<Vec<f32>, Fault> {
    let outcome = worker.submit(CPU, job(builtin, values, LONG))?.await?;
    let floats = outcome.outputs[0]
        .data
        .chunks_exact(4)
        .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()));
    Ok(floats.collect())
}

pub(crate) fn with_worker<F: Future<Output = ()>>(config: &WorkerConfig, test: impl FnOnce(WorkerHandle) -> F) {
    System::new().block_on(async {
        let tasks = Tasks::new();
        let backends: Vec<Arc<dyn mesh_backend::Backend>> = vec![Arc::new(BuiltinBackend::new())];
        let worker = Worker::start(config, backends, &unobserved(), Arc::new(SystemClock), &tasks).unwrap();
        test(worker.handle()).await;
        assert!(tasks.end(Duration::from_secs(10)).await.is_empty());
    });
}

pub(crate) fn batching() -> Option<DynamicBatching> {
    Some(DynamicBatching::default())
}

mod arrivals;
mod basics;
mod decoupled;
mod faults;
mod hangs;
mod instances;
mod loading;
mod lost;
pub(crate) mod metered;
mod ordering;
mod particular;
mod rig;
mod room;
mod sequences;
mod sharing;
mod standby;
mod statistics;
mod walk;
