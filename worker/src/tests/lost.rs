//! Devices whose threads or actor are lost.

use super::*;

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

/// A worker whose threads die when a model is unloaded from them.
fn deadly_worker(tasks: &Tasks) -> Worker {
    let backends: Vec<Arc<dyn mesh_backend::Backend>> = vec![Arc::new(DeadlyBackend(BuiltinBackend::new()))];
    let config = WorkerConfig::default();
    Worker::start(&config, backends, &unobserved(), Arc::new(SystemClock), tasks).unwrap()
}

/// Loads a model that takes its thread along when it is unloaded.
async fn load_deadly(worker: &WorkerHandle) {
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
    worker.load(CPU, deadly).await.unwrap();
}

/// The thread dies of this; whoever asked is told, one way or the other.
async fn unload_deadly(worker: &WorkerHandle) {
    let _ = worker.unload(CPU, &key("add_sub")).await;
}

#[test]
fn a_device_thread_that_dies_is_replaced_and_every_request_is_answered() {
    System::new().block_on(async {
        let tasks = Tasks::new();
        let deadly = deadly_worker(&tasks);
        let worker = deadly.handle();
        worker.load(CPU, spec("identity", batching())).await.unwrap();
        load_deadly(&worker).await;
        let replies: Vec<_> = (0..200)
            .map(|_| worker.submit(CPU, job("identity", &[1.0], LONG)).unwrap())
            .collect();
        unload_deadly(&worker).await;
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

/// The same model under another name.
fn renamed(mut spec: LoadSpec, name: &str) -> LoadSpec {
    spec.key = key(name);
    spec
}

#[test]
fn a_thread_that_dies_takes_its_sequences_with_it_and_they_may_begin_anew() {
    use crate::sequences::tests::{self as stateful, FIRST, LAST, NEXT, values};
    let kept = serde_json::json!({"control_input": stateful::controls("TYPE_UINT64"),
        "max_sequence_idle_microseconds": 3_600_000_000_u64});
    System::new().block_on(async {
        let tasks = Tasks::new();
        let deadly = deadly_worker(&tasks);
        let worker = deadly.handle();
        worker
            .load(CPU, renamed(stateful::sum_state(), "outside"))
            .await
            .unwrap();
        let inside = renamed(stateful::spec("sequence_sum", 4, &kept), "inside");
        worker.load(CPU, inside).await.unwrap();
        let step = async |model: &str, flags: (bool, bool), value: i32| {
            let job = InferJob {
                version: Arc::new(key(model)),
                ..stateful::job("a", mesh_types::CorrelationId::Number(1), flags, &[value])
            };
            worker
                .submit(CPU, job)?
                .await
                .map(|outcome| values(&outcome.outputs)[0])
        };
        for (model, sum) in [("outside", 105), ("inside", 5)] {
            assert_eq!(step(model, FIRST, 5).await, Ok(sum));
        }
        assert_eq!(worker.statistics().devices[0].sequence_state_bytes, 4);
        load_deadly(&worker).await;
        unload_deadly(&worker).await;
        let mut reports = worker.watch(CPU).unwrap();
        for model in ["outside", "inside"] {
            let deadline = std::time::Instant::now() + LONG;
            let lost = loop {
                let fault = step(model, NEXT, 1).await.unwrap_err();
                if fault.class != FaultClass::Unavailable {
                    break fault;
                }
                assert!(std::time::Instant::now() < deadline, "the device did not come back");
                let _ = tokio::time::timeout(Duration::from_millis(20), reports.changed()).await;
            };
            assert_eq!(lost.class, FaultClass::InvalidArgument, "{lost}");
            assert!(
                lost.message.contains("the instance that held its state is gone"),
                "{lost}"
            );
        }
        assert_eq!(worker.statistics().devices[0].sequence_state_bytes, 0);
        for (model, sum, last) in [("outside", 102, 103), ("inside", 2, 3 + 1)] {
            assert_eq!(step(model, FIRST, 2).await, Ok(sum));
            assert_eq!(step(model, LAST, 1).await, Ok(last));
        }
        assert_eq!(worker.statistics().devices[0].sequence_state_bytes, 0);
        tasks.end(Duration::from_secs(10)).await;
    });
}
