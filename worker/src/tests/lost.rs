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
