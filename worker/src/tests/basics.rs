//! Loading, batching, queues and unloading.

use super::{
    rig::{named, with_rig},
    *,
};

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
fn a_deadline_that_cannot_be_met_is_refused_and_a_dropped_reply_is_never_run() {
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
        // Warm-up has shown that one request alone takes about that long, and three wait before it.
        let fault = late.await.unwrap_err();
        assert_eq!(fault.class, FaultClass::Unavailable);
        assert!(matches!(fault.retry, Retry::After(_)), "{fault:?}");
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

#[test]
fn a_drained_device_finishes_what_it_has_and_takes_nothing_new() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        worker.load(CPU, spec("busy", None)).await.unwrap();
        let accepted = worker.submit(CPU, job("busy", &[1.0], LONG)).unwrap();
        worker.drain(CPU, true).unwrap();
        let fault = worker.submit(CPU, job("busy", &[1.0], LONG)).unwrap_err();
        assert_eq!((fault.class, fault.retry), (FaultClass::Unavailable, Retry::Now));
        accepted.await.unwrap();
        let report = &worker.report().devices[0];
        assert!(report.draining && report.models[0].state == ModelState::Ready);
        worker.drain(CPU, false).unwrap();
        assert!(!worker.report().devices[0].draining);
        assert_eq!(infer(&worker, "busy", &[2.0]).await.unwrap(), [2.0]);
        assert!(worker.drain(DeviceId::cpu(9), true).is_err());
    });
}

#[test]
fn preferred_sizes_are_kept_to_as_the_readme_says() {
    let cases = [(vec![4, 8], 0, [6; 6]), (vec![2, 4], 1_000, [4, 4, 4, 4, 2, 2])];
    for (preferred_batch_size, max_queue_delay_microseconds, expected) in cases {
        with_rig(&WorkerConfig::default(), |mut rig| async move {
            // Brief batches would wait for the one that hangs, on a clock that stands still.
            let at_once = |config: &mut ModelConfig| {
                config.dynamic_batching = Some(DynamicBatching {
                    right_size: Some(false),
                    ..DynamicBatching::default()
                });
            };
            rig.load(named("slow", "hang_on_negative", at_once)).await;
            let preferring = |config: &mut ModelConfig| {
                config.dynamic_batching = Some(DynamicBatching {
                    preferred_batch_size,
                    max_queue_delay_microseconds,
                    ..DynamicBatching::default()
                });
            };
            rig.load(named("identity", "identity", preferring)).await;
            let hung = rig.hang("slow").await;
            let behind = rig.submit("slow", &[1.0]);
            rig.settled().await;
            // The thread has all that it takes; these wait, and longer than the delay.
            let waiting: Vec<_> = (0..6).map(|_| rig.submit("identity", &[1.0])).collect();
            rig.settled().await;
            rig.advance(Duration::from_millis(2));
            rig.settled().await;
            rig.release();
            hung.await.unwrap();
            behind.await.unwrap();
            for (reply, rows) in waiting.into_iter().zip(expected) {
                assert_eq!(reply.await.unwrap().timings.batch_rows, rows);
            }
            rig
        });
    }
}
