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
fn unloads_that_find_their_thread_full_are_done_once_there_is_room() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(spec("hang_on_negative", batching())).await;
        let names: Vec<String> = (0..2 * MAX_OUTSTANDING)
            .map(|number| format!("other-{number}"))
            .collect();
        for name in &names {
            rig.load(named(name, "identity", |_| {})).await;
        }
        let hung = rig.hang("hang_on_negative").await;
        let unload = |name: &String| {
            let (worker, key) = (rig.worker.clone(), key(name));
            async move { worker.unload(CPU, &key).await }
        };
        let unloads = futures::future::join_all(names.iter().map(unload));
        let freed = async {
            rig.until_state(names.last().unwrap(), ModelState::Unloading).await;
            rig.release();
        };
        let (unloaded, ()) = futures::join!(unloads, freed);
        assert!(unloaded.iter().all(Result::is_ok));
        hung.await.unwrap();
        let seen = rig.seen.lock();
        assert!(
            names.iter().all(|name| seen.alive[name] == 0),
            "the thread has let go of them"
        );
        drop(seen);
        rig
    });
}

#[test]
fn a_device_takes_as_many_models_as_its_bound_and_not_one_more() {
    use crate::models::MAX_MODELS;
    with_rig(&WorkerConfig::default(), |rig| async move {
        for number in 0..MAX_MODELS {
            rig.load(named(&format!("m-{number}"), "identity", |config| {
                config.residency = Some(mesh_types::ResidencyPolicy {
                    load: mesh_types::LoadPolicy::OnDemand,
                    ..mesh_types::ResidencyPolicy::default()
                });
            }))
            .await;
        }
        let fault = rig.worker.load(CPU, spec("identity", None)).await.unwrap_err();
        assert!(fault.message.contains("4096 models"), "{fault}");
        rig.worker.unload(CPU, &key("m-7")).await.unwrap();
        rig.load(spec("identity", None)).await;
        rig
    });
}
