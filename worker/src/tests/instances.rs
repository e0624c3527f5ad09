//! How many threads a model lives on.

use mesh_types::{InstanceGroup, InstanceKind, MAX_INSTANCES};

use super::{
    rig::{named, with_rig},
    *,
};
use crate::thread::MAX_OUTSTANDING;

fn instances(name: &str, count: u32) -> LoadSpec {
    named(name, "identity", |config| {
        config.instance_group = vec![InstanceGroup {
            count,
            kind: InstanceKind::KindCpu,
            gpus: Vec::new(),
        }];
    })
}

#[test]
fn a_model_lives_on_as_many_threads_as_it_has_instances_and_runs_on_no_other() {
    let config = WorkerConfig {
        threads_per_device: 2,
        ..WorkerConfig::default()
    };
    with_rig(&config, |rig| async move {
        for (name, count) in [("one", 1), ("default", 0), ("three", 3)] {
            rig.load(instances(name, count)).await;
        }
        assert_eq!(rig.worker.statistics().devices[0].threads, 3, "more were started");
        for (name, count) in [("one", 1), ("default", 2), ("three", 3)] {
            assert_eq!(rig.seen.lock().loads[name], count, "{name}");
            assert_eq!(rig.report(name).memory_bytes, 1_000 * count as u64);
            let replies: Vec<_> = (0..300).map(|_| rig.submit(name, &[1.0])).collect();
            for reply in replies {
                reply.await.unwrap();
            }
            assert_eq!(rig.seen.lock().threads[name].len(), count, "{name}");
        }
        assert_eq!(rig.seen.lock().threads["one"].first().unwrap(), "cpu:0-0");
        rig
    });
}

#[test]
fn the_most_instances_are_loaded_and_one_more_changes_nothing() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(instances("most", MAX_INSTANCES)).await;
        rig.load(instances("more", MAX_INSTANCES + 1)).await;
        let seen = rig.seen.lock();
        assert_eq!((seen.loads["most"], seen.loads["more"]), (32, 32));
        drop(seen);
        assert_eq!(rig.worker.statistics().devices[0].threads, 32);
        rig
    });
}

#[test]
fn threads_that_keep_to_one_processor_serve_all_the_same() {
    let config = WorkerConfig {
        pin_threads: true,
        threads_per_device: 2,
        ..WorkerConfig::default()
    };
    with_rig(&config, |rig| async move {
        rig.load(instances("identity", 3)).await;
        assert_eq!(rig.infer("identity", 1.0).await.unwrap(), 1.0);
        rig
    });
}

#[test]
fn an_unload_that_finds_its_thread_full_is_done_once_there_is_room() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(spec("identity", batching())).await;
        rig.hold_loads();
        let names: Vec<String> = (0..MAX_OUTSTANDING).map(|number| format!("other-{number}")).collect();
        let load = |name: &String| {
            let (worker, spec) = (rig.worker.clone(), named(name, "identity", |_| {}));
            async move { worker.load(CPU, spec).await }
        };
        let loads = futures::future::join_all(names.iter().map(load));
        let unload = async {
            rig.until(names.last().unwrap(), |report| report.is_some()).await;
            let identity = key("identity");
            let unloaded = rig.worker.unload(CPU, &identity);
            let freed = async {
                rig.until_state("identity", ModelState::Unloading).await;
                rig.free_loads();
            };
            futures::join!(unloaded, freed).0
        };
        let (loaded, unloaded) = futures::join!(loads, unload);
        unloaded.unwrap();
        assert!(loaded.iter().all(Result::is_ok), "as many orders as a thread takes");
        assert_eq!(rig.seen.lock().alive["identity"], 0, "the thread has let go of it");
        rig
    });
}

#[test]
fn a_device_takes_as_many_models_as_its_bound_and_not_one_more() {
    use crate::models::MAX_MODELS;
    with_rig(&WorkerConfig::default(), |rig| async move {
        for number in 0..MAX_MODELS {
            rig.load(named(&format!("m-{number}"), "identity", |config| {
                config.max_batch_size = 1;
            }))
            .await;
        }
        let fault = rig.worker.load(CPU, spec("identity", None)).await.unwrap_err();
        assert!(fault.message.contains("1024 models"), "{fault}");
        rig.worker.unload(CPU, &key("m-7")).await.unwrap();
        rig.load(spec("identity", None)).await;
        rig
    });
}
