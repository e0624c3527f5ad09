//! Decoupled models on a device: answers before the end, bounds, hangs, and who else is served meanwhile.

use std::{future::poll_fn, time::Instant};

use mesh_types::{Answers, ExecutionPolicy, ModelTransactionPolicy};

use super::*;
use crate::{JobReply, ModelStatistics};

/// `repeat_int32` whose executions hang after so long without an answer.
fn repeat(limit: Duration) -> LoadSpec {
    let plain = spec("repeat_int32", None);
    let int = |name: &str, dims: i64| TensorSpec::new(name, DataType::Int32, &[dims]);
    let uint = |name: &str, dims: i64| TensorSpec::new(name, DataType::Uint32, &[dims]);
    let config = ModelConfig {
        max_batch_size: 0,
        input: vec![int("IN", -1), uint("DELAY", -1), uint("WAIT", 1)],
        output: vec![int("OUT", 1), uint("IDX", 1)],
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: true }),
        execution: Some(ExecutionPolicy {
            timeout_microseconds: u64::try_from(limit.as_micros()).unwrap(),
            ..ExecutionPolicy::default()
        }),
        ..ModelConfig::clone(&plain.config)
    };
    LoadSpec {
        config: Arc::new(config),
        ..plain
    }
}

fn ask(worker: &WorkerHandle, delays: &[u32]) -> (Answers, JobReply) {
    let tensor = |name: &str, datatype: DataType, numbers: &[u32]| {
        let shape = Shape::from_slice(&[u64::try_from(numbers.len()).unwrap()]);
        let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Tensor::new(Arc::from(name), datatype, shape, Bytes::from(data)).unwrap()
    };
    let (sender, answers) = mesh_types::answers();
    let values: Vec<u32> = (0..u32::try_from(delays.len()).unwrap()).collect();
    let job = InferJob {
        inputs: vec![
            tensor("IN", DataType::Int32, &values),
            tensor("DELAY", DataType::Uint32, delays),
            tensor("WAIT", DataType::Uint32, &[0]),
        ],
        answers: Some(sender),
        ..job("repeat_int32", &[1.0], LONG)
    };
    (answers, worker.submit(CPU, job).unwrap())
}

/// The first byte of each answer that is there by the end, and the end.
async fn heard((mut answers, mut reply): (Answers, JobReply)) -> (Vec<u8>, Result<(), Fault>) {
    let mut values = Vec::new();
    let end = poll_fn(|context| {
        while let std::task::Poll::Ready(outputs) = answers.poll_next(context) {
            values.push(outputs[0].data[0]);
        }
        std::pin::Pin::new(&mut reply).poll(context)
    })
    .await;
    while let std::task::Poll::Ready(outputs) =
        answers.poll_next(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    {
        values.push(outputs[0].data[0]);
    }
    (values, end.map(drop))
}

/// The model's numbers, once they are so.
async fn until(worker: &WorkerHandle, wanted: fn(&ModelStatistics) -> bool) -> ModelStatistics {
    let deadline = Instant::now() + LONG;
    loop {
        let numbers = worker.statistics().models().remove(&key("repeat_int32")).unwrap();
        if wanted(&numbers) {
            return numbers;
        }
        assert!(Instant::now() < deadline, "{numbers:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn answers_go_before_the_end_and_are_counted() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        worker.load(CPU, repeat(LONG)).await.unwrap();
        assert_eq!(heard(ask(&worker, &[0, 0, 0])).await, (vec![0, 1, 2], Ok(())));
        assert_eq!(heard(ask(&worker, &[])).await, (vec![], Ok(())));
        let refused = worker.submit(CPU, job("repeat_int32", &[1.0], LONG)).unwrap().await;
        assert!(refused.unwrap_err().message.contains("over a stream"));
        // A batch is counted once it is answered.
        let numbers = until(&worker, |numbers| numbers.fail.count == 1).await;
        let counts: Vec<_> = numbers.responses.iter().map(|sums| sums.success.count).collect();
        assert_eq!(counts, [1, 1, 1, 0]);
        assert_eq!((numbers.success.count, numbers.fail.count), (2, 1));
        assert_eq!(numbers.prediction.batches, 0, "nothing is foretold of a generation");
    });
}

#[test]
fn a_generation_that_answers_does_not_hang_and_one_that_falls_silent_does() {
    let limit = Duration::from_millis(400);
    with_worker(&WorkerConfig::default(), |worker| async move {
        worker.load(CPU, repeat(limit)).await.unwrap();
        let began = Instant::now();
        let (values, end) = heard(ask(&worker, &[100; 8])).await;
        assert_eq!((values.len(), end), (8, Ok(())));
        assert!(began.elapsed() > limit, "the whole took longer than the bound");
        let (values, end) = heard(ask(&worker, &[0, 30_000])).await;
        assert_eq!(values, [0]);
        assert!(end.unwrap_err().message.contains("took too long"));
        // The thread is replaced, and the model comes back.
        let deadline = Instant::now() + LONG;
        while heard(ask(&worker, &[0])).await != (vec![0], Ok(())) {
            assert!(Instant::now() < deadline, "it does not come back");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn while_a_generation_goes_on_another_thread_serves_and_nothing_waits_behind_it() {
    let config = WorkerConfig {
        threads_per_device: 2,
        ..WorkerConfig::default()
    };
    with_worker(&config, |worker| async move {
        worker.load(CPU, repeat(LONG)).await.unwrap();
        worker.load(CPU, spec("identity", batching())).await.unwrap();
        let generation = ask(&worker, &[50; 40]);
        for value in 0..20_u8 {
            let value = f32::from(value);
            assert_eq!(infer(&worker, "identity", &[value]).await.unwrap(), [value]);
        }
        let numbers = worker.statistics().models().remove(&key("repeat_int32")).unwrap();
        assert_eq!(numbers.success.count, 0, "it still goes on");
        drop(generation);
        until(&worker, |numbers| numbers.cancelled == 1).await;
    });
}
