//! Tenants beside each other on a real device: who pays, who goes first, and in which order answers leave.

use std::collections::BTreeMap;

use futures::future::join_all;
use mesh_types::ServiceClass;

use super::{
    rig::{FAR, named, when_full, with_rig},
    *,
};

fn of(tenant: &str, builtin: &str, value: f32, timeout: Duration) -> InferJob {
    InferJob {
        tenant: TenantId::parse(tenant).unwrap(),
        ..job(builtin, &[value], timeout)
    }
}

/// The busy model: a millisecond a batch, whatever its rows.
fn busy(change: impl FnOnce(&mut ModelConfig)) -> LoadSpec {
    let mut spec = spec("busy", batching());
    let mut config = ModelConfig::clone(&spec.config);
    config.max_batch_size = 4;
    config
        .parameters
        .insert("busy_us".to_owned(), ParameterValue::Int(2_000));
    change(&mut config);
    spec.config = Arc::new(config);
    spec
}

#[test]
fn what_tenants_are_charged_adds_up_to_the_time_that_the_device_was_busy() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        worker.load(CPU, busy(|_| {})).await.unwrap();
        let tenants = ["a", "b", "c"];
        let jobs = (0..60).map(|index| of(tenants[index % 3], "busy", 1.0, LONG));
        let replies: Vec<_> = jobs.map(|job| worker.submit(CPU, job).unwrap()).collect();
        for reply in join_all(replies).await {
            reply.unwrap();
        }
        // Unloading hears all news first.
        worker.unload(CPU, &key("busy")).await.unwrap();
        let device = &worker.statistics().devices[0];
        assert_eq!(device.tenants.values().sum::<Duration>(), device.busy);
        assert_eq!(device.tenants.len(), 3);
        let times: BTreeMap<_, _> = device.tenants.iter().collect();
        let (least, most) = (times.values().min().unwrap(), times.values().max().unwrap());
        assert!(**most < **least * 3, "{times:?}");
    });
}

#[test]
fn a_flood_does_not_keep_another_tenant_waiting() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        worker.load(CPU, busy(|_| {})).await.unwrap();
        let flood: Vec<_> = (0..400)
            .map(|_| worker.submit(CPU, of("flood", "busy", 1.0, LONG)).unwrap())
            .collect();
        let polite = worker.submit(CPU, of("polite", "busy", 2.0, LONG)).unwrap();
        polite.await.unwrap();
        let statistics = worker.statistics();
        let done = statistics.devices[0].models[&key("busy")].success.count;
        // A hundred batches wait; it was in one of the next few.
        assert!(done < 60, "{done} of the flood went before it");
        drop(flood);
    });
}

#[test]
fn interactive_requests_go_before_those_of_the_batch_class() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        worker.load(CPU, busy(|_| {})).await.unwrap();
        let background = |index: usize| {
            let mut job = of(["a", "b"][index % 2], "busy", 1.0, LONG);
            job.standing.class = ServiceClass::Batch;
            job
        };
        let waiting: Vec<_> = (0..400)
            .map(|index| worker.submit(CPU, background(index)).unwrap())
            .collect();
        let urgent: Vec<_> = (0..8)
            .map(|_| worker.submit(CPU, of("a", "busy", 2.0, LONG)).unwrap())
            .collect();
        for reply in join_all(urgent).await {
            reply.unwrap();
        }
        let done = worker.statistics().devices[0].models[&key("busy")].success.count;
        assert!(done < 80, "{done}");
        drop(waiting);
    });
}

#[test]
fn an_isolated_tenant_is_alone_in_its_batches() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(named("identity", "identity", when_full)).await;
        // Eight rows are a full batch, and whoever is not in one waits for it.
        let submit = |tenant: &str| {
            let mut job = of(tenant, "identity", 1.0, FAR);
            job.standing.share.isolated = tenant.starts_with("alone");
            rig.worker.submit(CPU, job).unwrap()
        };
        let shared: Vec<_> = (0..8).map(|index| submit(["a", "b"][index % 2])).collect();
        for reply in shared {
            assert_eq!(reply.await.unwrap().timings.batch_rows, 8, "others share");
        }
        let tenants = ["alone-1", "a", "alone-2", "b", "alone-1", "a", "alone-2", "alone-1"];
        let replies = tenants.map(submit);
        rig.settled().await;
        rig.advance(Duration::from_secs(601));
        for (tenant, reply) in tenants.into_iter().zip(replies) {
            let rows = match tenant {
                "alone-2" => 2,
                _ => 3,
            };
            assert_eq!(reply.await.unwrap().timings.batch_rows, rows, "{tenant}");
        }
        rig
    });
}

#[test]
fn memory_is_cleared_from_an_isolated_tenants_first_request_on() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(named("identity", "identity", |_| {})).await;
        let submit = |isolated| {
            let mut job = of("a", "identity", 1.0, FAR);
            job.standing.share.isolated = isolated;
            rig.worker.submit(CPU, job).unwrap()
        };
        submit(false).await.unwrap();
        assert_eq!(rig.seen.lock().cleared, 0);
        for _ in 0..3 {
            submit(true).await.unwrap();
            submit(false).await.unwrap();
            assert_eq!(rig.seen.lock().cleared, 1, "once, for good");
        }
        rig
    });
}

#[test]
fn a_request_that_would_be_late_is_refused_at_once_with_the_time_to_come_back() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        worker.load(CPU, busy(|_| {})).await.unwrap();
        let waiting: Vec<_> = (0..200)
            .map(|_| worker.submit(CPU, of("a", "busy", 1.0, LONG)).unwrap())
            .collect();
        // Fifty batches of two milliseconds wait.
        let late = worker
            .submit(CPU, of("a", "busy", 1.0, Duration::from_millis(20)))
            .unwrap();
        let fault = late.await.unwrap_err();
        assert_eq!(fault.class, FaultClass::Unavailable, "{fault}");
        assert!(matches!(fault.retry, Retry::After(wait) if wait > Duration::from_millis(1)));
        let done = worker.statistics().devices[0].models[&key("busy")].success.count;
        assert!(done < 100, "the refusal did not wait for the queue");
        drop(waiting);
    });
}

#[test]
fn answers_leave_in_order_where_that_is_asked_for() {
    let config = WorkerConfig {
        threads_per_device: 2,
        ..WorkerConfig::default()
    };
    with_worker(&config, |worker| async move {
        let ordered = |config: &mut ModelConfig| {
            config.dynamic_batching = Some(DynamicBatching {
                preserve_ordering: true,
                ..DynamicBatching::default()
            });
        };
        worker.load(CPU, busy(ordered)).await.unwrap();
        let order = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let waits = (0..60_u32).map(|index| {
            // The nearest deadline goes into a batch first, which here is who came first.
            let reply = worker.submit(CPU, of("a", "busy", 1.0, LONG)).unwrap();
            let order = order.clone();
            async move {
                reply.await.unwrap();
                order.lock().push(index);
            }
        });
        join_all(waits).await;
        assert!(order.lock().is_sorted(), "{:?}", order.lock());
    });
}

#[test]
fn what_was_learnt_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    // Runs one batch that takes so many microseconds; how long it was foretold to take.
    let run = |busy_us: i64, latency_folder: Option<&std::path::Path>| {
        let config = WorkerConfig {
            latency_folder: latency_folder.map(std::path::Path::to_owned),
            ..WorkerConfig::default()
        };
        System::new().block_on(async {
            let tasks = Tasks::new();
            let backends: Vec<Arc<dyn mesh_backend::Backend>> = vec![Arc::new(BuiltinBackend::new())];
            let worker = Worker::start(&config, backends, &unobserved(), Arc::new(SystemClock), &tasks).unwrap();
            let handle = worker.handle();
            let takes = |config: &mut ModelConfig| {
                config
                    .parameters
                    .insert("busy_us".to_owned(), ParameterValue::Int(busy_us));
            };
            handle.load(CPU, busy(takes)).await.unwrap();
            handle.submit(CPU, of("a", "busy", 1.0, LONG)).unwrap().await.unwrap();
            // Answers come a moment before their batch is in the books.
            let prediction = loop {
                let prediction = handle.statistics().models()[&key("busy")].prediction;
                if prediction.batches > 0 {
                    break prediction;
                }
                tokio::task::yield_now().await;
            };
            assert!(tasks.end(Duration::from_secs(10)).await.is_empty());
            tokio::task::spawn_blocking(|| worker.stop()).await.unwrap();
            prediction.predicted
        })
    };
    let slow = Duration::from_millis(40);
    assert!(run(40_000, Some(folder.path())) >= slow / 2, "as warm-up measured it");
    let written = std::fs::read_to_string(folder.path().join("latency-cpu-0.json")).unwrap();
    assert!(written.contains("t/busy/1"), "{written}");
    // The same model takes next to no time now, as its warm-up shows: what was learnt before counts.
    let remembered = run(1, Some(folder.path()));
    assert!(remembered >= slow / 2, "{remembered:?}");
    let forgotten = run(1, None);
    assert!(forgotten < remembered, "{forgotten:?} and {remembered:?}");
}
