//! A flood of arrivals: a device takes in some, serves, and takes in the next.

use std::sync::mpsc;

use mesh_types::DeviceId;
use parking_lot::Mutex;

use super::*;
use crate::{BatchRecord, dispatch::MAX_ADMITTED};

/// Holds the device's actor up while it hands over its first batch, and notes how many waited at each.
struct Holding {
    reached: tokio::sync::mpsc::UnboundedSender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
    waiting: Mutex<Vec<usize>>,
}

impl BatchObserver for Holding {
    fn begin(&self, _: &[TraceContext]) -> Option<TraceContext> {
        None
    }

    fn finished(&self, _: &BatchRecord<'_>) {}

    fn waiting(&self, _: DeviceId, _: &ModelVersionKey, requests: usize) {
        self.waiting.lock().push(requests);
        let _ = self.reached.send(());
        // An error once the test has let go of it for good.
        let _ = self.go_on.lock().recv();
    }
}

/// Submits all these at once, while the actor is held up; what they are answered, and how many waited at each batch.
fn flood(model: &'static str, requests: usize) -> (Vec<Result<(), Fault>>, Vec<usize>) {
    System::new().block_on(async {
        let tasks = Tasks::new();
        let (reached, mut reaches) = tokio::sync::mpsc::unbounded_channel();
        let (let_go, go_on) = mpsc::channel();
        let holding = Arc::new(Holding {
            reached,
            go_on: Mutex::new(go_on),
            waiting: Mutex::default(),
        });
        let observer: Arc<dyn BatchObserver> = holding.clone();
        let backends: Vec<Arc<dyn mesh_backend::Backend>> = vec![Arc::new(BuiltinBackend::new())];
        let config = WorkerConfig::default();
        let worker = Worker::start(&config, backends, &observer, Arc::new(SystemClock), &tasks).unwrap();
        let handle = worker.handle();
        // Each request is a batch.
        handle.load(CPU, spec("identity", None)).await.unwrap();
        let first = handle.submit(CPU, job("identity", &[1.0], LONG)).unwrap();
        reaches.recv().await.unwrap();
        let replies: Vec<_> = (0..requests)
            .map(|_| handle.submit(CPU, job(model, &[1.0], LONG)).unwrap())
            .collect();
        drop(let_go);
        first.await.unwrap();
        let mut answers = Vec::new();
        for reply in replies {
            let answer = tokio::time::timeout(LONG, reply).await.expect("never answered");
            answers.push(answer.map(|_| ()));
        }
        assert!(tasks.end(Duration::from_secs(10)).await.is_empty());
        worker.stop();
        let waiting = holding.waiting.lock().clone();
        (answers, waiting)
    })
}

#[test]
fn as_many_as_the_bound_are_taken_in_before_the_next_batch_and_one_more_is_not() {
    for requests in [MAX_ADMITTED - 1, MAX_ADMITTED, MAX_ADMITTED + 1] {
        let (answers, waiting) = flood("identity", requests);
        assert!(answers.iter().all(Result::is_ok));
        assert_eq!(waiting[0], 0);
        assert_eq!(waiting[1], requests.min(MAX_ADMITTED) - 1, "{requests}");
    }
}

#[test]
fn those_beyond_the_bound_need_no_other_event_to_be_taken_in() {
    // All are refused as they are taken in, so no batch wakes the device again.
    let (answers, waiting) = flood("nobody", MAX_ADMITTED * 3 + 1);
    assert!(answers.iter().all(Result::is_err));
    assert_eq!((answers.len(), waiting.len()), (MAX_ADMITTED * 3 + 1, 1));
}
