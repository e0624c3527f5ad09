//! Loading beside what serves: progress, records, replacements and changes that need no load.

use std::collections::BTreeMap;

use mesh_types::{LoadStage, ModelWarmup, WarmupInput};

use super::{
    rig::{named, when_full, with_rig},
    *,
};

fn warmed_by(name: &str, change: impl FnOnce(&mut WarmupInput)) -> ModelWarmup {
    let mut input = WarmupInput {
        data_type: DataType::Fp32,
        dims: vec![1],
        zero_data: false,
        random_data: false,
        input_data: None,
        input_data_file: None,
    };
    change(&mut input);
    ModelWarmup {
        name: name.into(),
        batch_size: 2,
        inputs: BTreeMap::from([("x".to_owned(), input)]),
        count: 3,
    }
}

#[test]
fn what_serves_is_not_held_up_by_a_load() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(spec("identity", batching())).await;
        rig.hold_loads();
        let worker = rig.worker.clone();
        let load = worker.load(CPU, named("slow", "identity", |_| {}));
        let watch = async {
            rig.entered().await;
            for number in 0..50u16 {
                assert_eq!(
                    rig.infer("identity", f32::from(number)).await.unwrap(),
                    f32::from(number)
                );
            }
            let report = rig.report("slow");
            assert_eq!(report.state, ModelState::Loading);
            let progress = report.progress.unwrap();
            assert_eq!(
                (progress.stage, progress.instance, progress.instances),
                (LoadStage::Loading, 1, 1)
            );
            rig.free_loads();
            rig
        };
        let (loaded, rig) = futures::join!(load, watch);
        loaded.unwrap();
        let report = rig.report("slow");
        assert!(report.proven && report.progress.is_none() && report.load_time.is_some());
        rig
    });
}

#[test]
fn as_many_models_load_at_once_as_the_configuration_says() {
    let config = WorkerConfig {
        parallel_loads: 3,
        ..WorkerConfig::default()
    };
    with_rig(&config, |mut rig| async move {
        rig.hold_loads();
        let names: Vec<String> = (0..5).map(|number| format!("m-{number}")).collect();
        let load = |name: &String| {
            let (worker, spec) = (rig.worker.clone(), named(name, "identity", |_| {}));
            async move { worker.load(CPU, spec).await }
        };
        let loads = futures::future::join_all(names.iter().map(load));
        let watch = async {
            for _ in 0..3 {
                rig.entered().await;
            }
            rig.settled().await;
            let stage = |name: &String| rig.report(name).progress.unwrap().stage;
            let stages: Vec<LoadStage> = names.iter().map(stage).collect();
            let waiting = stages.iter().filter(|stage| **stage == LoadStage::Waiting).count();
            assert_eq!(waiting, 2, "{stages:?}");
            rig.free_loads();
            rig
        };
        let (loaded, rig) = futures::join!(loads, watch);
        assert!(loaded.iter().all(Result::is_ok));
        rig
    });
}

#[test]
fn a_warm_up_record_runs_before_the_model_is_ready_and_one_that_fails_is_named() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        let fine = named("fine", "fail_on_negative", |config| {
            config.model_warmup = vec![warmed_by("good", |input| input.random_data = true)];
        });
        rig.load(fine).await;
        assert_eq!(rig.seen.lock().threads["fine"].len(), 1, "its random data are no zeros");
        let negative = (-1.0f32).to_le_bytes().to_vec();
        let bad = named("bad", "fail_on_negative", |config| {
            config.model_warmup = vec![
                warmed_by("good", |input| input.zero_data = true),
                warmed_by("below zero", |input| {
                    input.input_data = Some(mesh_types::Base64Bytes(negative.into()));
                }),
            ];
        });
        let fault = rig.worker.load(CPU, bad).await.unwrap_err();
        assert!(fault.message.contains("warm-up record 'below zero'"), "{fault}");
        assert!(fault.message.contains("a value is below zero"), "{fault}");
        let report = rig.report("bad");
        assert_eq!(report.state, ModelState::Unavailable);
        assert!(report.reason.unwrap().contains("below zero"));
        rig
    });
}

/// The model with a file of its own, which is broken or not.
fn with_file(folder: &tempfile::TempDir, name: &str, text: &str) -> LoadSpec {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let mut spec = spec("identity", batching());
    spec.artifact = Some(path);
    spec
}

#[test]
fn another_file_takes_the_place_of_what_serves_and_a_broken_one_does_not() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        let folder = tempfile::tempdir().unwrap();
        rig.load(with_file(&folder, "one", "fine")).await;
        let fault = rig
            .worker
            .load(CPU, with_file(&folder, "two", "broken"))
            .await
            .unwrap_err();
        assert!(fault.message.contains("the file is broken"), "{fault}");
        let report = rig.report("identity");
        assert_eq!(report.state, ModelState::Ready);
        assert!(report.reason.unwrap().contains("the former one serves on"));
        assert_eq!(rig.infer("identity", 1.0).await.unwrap(), 1.0);
        rig.hold_loads();
        let worker = rig.worker.clone();
        let load = worker.load(CPU, with_file(&folder, "three", "fine"));
        let watch = async {
            rig.entered().await;
            assert_eq!(rig.infer("identity", 2.0).await.unwrap(), 2.0, "while the other loads");
            rig.free_loads();
            rig
        };
        let (loaded, rig) = futures::join!(load, watch);
        loaded.unwrap();
        assert_eq!(rig.infer("identity", 3.0).await.unwrap(), 3.0);
        let seen = rig.seen.lock();
        assert_eq!((seen.loads["identity"], seen.alive["identity"]), (2, 1));
        drop(seen);
        assert_eq!(rig.report("identity").reason, None);
        rig
    });
}

#[test]
fn a_file_is_replaced_a_hundred_times_under_load_and_no_request_fails() {
    let config = WorkerConfig {
        threads_per_device: 2,
        ..WorkerConfig::default()
    };
    with_rig(&config, |rig| async move {
        let folder = tempfile::tempdir().unwrap();
        rig.load(with_file(&folder, "0", "fine")).await;
        let replace = async {
            for number in 1..=100 {
                rig.load(with_file(&folder, &number.to_string(), "fine")).await;
            }
        };
        let (done, mut answered) = (std::cell::Cell::new(false), 0);
        let replace = async {
            replace.await;
            done.set(true);
        };
        let calls = async {
            while !done.get() {
                let replies: Vec<_> = (0..16u16)
                    .map(|value| (value, rig.submit("identity", &[f32::from(value)])))
                    .collect();
                for (value, reply) in replies {
                    let outcome = reply.await.unwrap();
                    assert_eq!(outcome.outputs[0].data, f32::from(value).to_le_bytes()[..]);
                    answered += 1;
                }
            }
        };
        futures::join!(replace, calls);
        assert!(answered > 0);
        // The last one that was replaced is let go of by its threads in their own time.
        rig.until_statistics(|_| rig.seen.lock().alive["identity"] == 2).await;
        rig
    });
}

#[test]
fn instances_and_batching_change_without_a_load_of_what_is_there() {
    let config = WorkerConfig {
        threads_per_device: 2,
        ..WorkerConfig::default()
    };
    let instances = |count: u32| {
        named("identity", "identity", move |config| {
            config.instance_group = vec![mesh_types::InstanceGroup {
                count,
                ..mesh_types::InstanceGroup::default()
            }];
        })
    };
    with_rig(&config, |rig| async move {
        rig.load(instances(2)).await;
        rig.load(instances(1)).await;
        rig.until("identity", |report| {
            report.is_some_and(|report| report.memory_bytes == 1_000)
        })
        .await;
        rig.until_statistics(|_| rig.seen.lock().alive["identity"] == 1).await;
        assert_eq!(rig.seen.lock().loads["identity"], 2);
        assert_eq!(rig.infer("identity", 1.0).await.unwrap(), 1.0);
        rig.load(instances(3)).await;
        rig.until("identity", |report| {
            report.is_some_and(|report| report.memory_bytes == 3_000)
        })
        .await;
        assert_eq!(rig.seen.lock().loads["identity"], 4, "the one that was there stayed");
        // From now on a request waits for company.
        rig.load(named("identity", "identity", |config| {
            when_full(config);
            config.instance_group = vec![mesh_types::InstanceGroup {
                count: 3,
                ..mesh_types::InstanceGroup::default()
            }];
        }))
        .await;
        let replies: Vec<_> = (0..8).map(|_| rig.submit("identity", &[1.0])).collect();
        for reply in replies {
            assert_eq!(reply.await.unwrap().timings.batch_rows, 8);
        }
        assert_eq!(rig.seen.lock().loads["identity"], 4);
        rig
    });
}

#[test]
fn what_a_load_has_shown_is_written_soon_after_and_not_only_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = WorkerConfig {
        latency_folder: Some(folder.path().to_owned()),
        ..WorkerConfig::default()
    };
    with_rig(&config, |rig| async move {
        let spec = named("m", "identity", |_| {});
        // As whoever starts after this one was killed would read it.
        let known = || crate::memory::Memory::read(Some(folder.path()), CPU).cost(&spec);
        rig.load(spec.clone()).await;
        rig.settled().await;
        assert_eq!(known(), None);
        rig.advance(crate::memory::WRITE_AFTER);
        let begun = std::time::Instant::now();
        while known().is_none() {
            assert!(begun.elapsed() < LONG, "nothing is written");
            rig.settled().await;
        }
        rig
    });
}

#[cfg(target_os = "linux")]
#[test]
fn a_load_that_requests_begin_to_wait_for_goes_on_as_one_of_those() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        let base = rig::priority().unwrap();
        rig.load(named("m", "identity", |config| {
            config.residency = Some(mesh_types::ResidencyPolicy {
                load: mesh_types::LoadPolicy::OnDemand,
                ..mesh_types::ResidencyPolicy::default()
            });
        }))
        .await;
        rig.hold_loads();
        let worker = rig.worker.clone();
        let model = key("m");
        let mut hint = std::pin::pin!(worker.warm_up(CPU, &model));
        assert!(futures::poll!(hint.as_mut()).is_pending());
        rig.entered().await;
        let answer = rig.submit("m", &[1.0]);
        rig.settled().await;
        rig.free_loads();
        answer.await.unwrap();
        hint.await.unwrap();
        let lowered = |by: i32| (base + by).min(19);
        assert_eq!(rig.seen.lock().priorities, [lowered(10), lowered(5)]);
        rig
    });
}
