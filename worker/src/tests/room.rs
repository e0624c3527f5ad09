//! Loads that have to wait for room, do not fit, or come while something else changes.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its system")]

use mesh_types::{InstanceGroup, InstanceKind, LoadPolicy, ResidencyPolicy};

use super::{
    rig::{Rig, named, with_rig},
    *,
};
use crate::loading::{BUSY_PATIENCE, HINT_PATIENCE};

const KIB: u64 = 1024;
/// Past the time for which a fresh model stays.
const LATER: Duration = Duration::from_secs(60);

fn room_for(kib: u64) -> WorkerConfig {
    WorkerConfig {
        cpu_memory: Some(kib * KIB),
        threads_per_device: 1,
        ..WorkerConfig::default()
    }
}

fn sized(name: &str, builtin: &str, kib: u64) -> LoadSpec {
    named(name, builtin, |config| {
        let bytes = ParameterValue::Uint(kib * KIB);
        config.parameters.insert("weights_bytes".into(), bytes);
    })
}

fn on_demand(name: &str, kib: u64) -> LoadSpec {
    changed(sized(name, "identity", kib), |config| {
        let load = LoadPolicy::OnDemand;
        config.residency = Some(ResidencyPolicy {
            load,
            ..ResidencyPolicy::default()
        });
    })
}

fn changed(mut spec: LoadSpec, change: impl FnOnce(&mut ModelConfig)) -> LoadSpec {
    let mut config = ModelConfig::clone(&spec.config);
    change(&mut config);
    spec.config = Arc::new(config);
    spec
}

/// The same as another artifact would be: it must be loaded anew.
fn anew(spec: LoadSpec) -> LoadSpec {
    changed(spec, |config| {
        config.parameters.insert("round".into(), ParameterValue::Uint(2));
    })
}

fn instances(spec: LoadSpec, count: u32) -> LoadSpec {
    changed(spec, |config| {
        config.instance_group = vec![InstanceGroup {
            count,
            kind: InstanceKind::KindCpu,
            gpus: Vec::new(),
        }];
    })
}

fn state(rig: &Rig, model: &str) -> ModelState {
    rig.report(model).state
}

#[test]
fn a_device_that_is_restarted_while_a_model_loads_still_loads_models() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        let deadly = named("deadly", "identity", |config| {
            config.parameters.insert("deadly".into(), ParameterValue::Bool(true));
        });
        rig.load(deadly).await;
        rig.hold_loads();
        let worker = rig.worker.clone();
        let loading = actix::spawn(async move { worker.load(CPU, sized("m", "identity", 1)).await });
        rig.entered().await;
        // The dying actor waits for its loader, which is let go once it has been given up.
        let (worker, free) = (rig.worker.clone(), rig.freer());
        let freeing = std::thread::spawn(move || {
            let begun = std::time::Instant::now();
            while worker.statistics().devices[0].abandoned == 0 && begun.elapsed() < Duration::from_secs(5) {
                std::thread::yield_now();
            }
            free();
        });
        let _ = rig.worker.unload(CPU, &key("deadly")).await;
        freeing.join().unwrap();
        // The load has gone with its actor; the next one must not.
        let _ = loading.await.unwrap();
        let begun = std::time::Instant::now();
        while let Err(fault) = rig.worker.load(CPU, sized("m", "identity", 1)).await {
            assert!(fault.message.contains("restarted"), "{fault}");
            assert!(begun.elapsed() < LONG, "the device does not come back");
        }
        assert_eq!(rig.worker.statistics().devices[0].abandoned, 0);
        rig
    });
}

#[test]
fn what_does_not_fit_beside_the_file_that_it_replaces_is_refused_in_figures_and_the_former_serves_on() {
    with_rig(&room_for(3), |rig| async move {
        rig.load(sized("m", "identity", 2)).await;
        let refused = rig.worker.load(CPU, anew(sized("m", "identity", 2))).await.unwrap_err();
        assert!(
            refused.message.contains("beside the 2 KiB of it that are there") && refused.message.contains("3 KiB"),
            "{refused}"
        );
        assert_eq!(rig.infer("m", 1.0).await.unwrap(), 1.0);
        assert!(rig.report("m").reason.unwrap().contains("the former one serves on"));
        // Others are not held up by it.
        rig.load(sized("n", "identity", 1)).await;
        assert_eq!(state(&rig, "n"), ModelState::Ready);
        rig
    });
}

#[test]
fn a_load_that_fits_passes_one_that_waits_and_busy_models_give_way_after_a_while() {
    with_rig(&room_for(4), |mut rig| async move {
        rig.load(sized("busy", "hang_on_negative", 3)).await;
        rig.load(on_demand("large", 3)).await;
        rig.load(on_demand("small", 1)).await;
        rig.advance(LATER);
        let hung = rig.hang("busy").await;
        let next = rig.submit("busy", &[2.0]);
        let large = rig.submit("large", &[1.0]);
        rig.settled().await;
        assert_eq!(state(&rig, "large"), ModelState::Waking);
        // It is loaded, though the one thread that it comes to is taken.
        let small = rig.submit("small", &[3.0]);
        let begun = std::time::Instant::now();
        while !rig.seen.lock().loads.contains_key("small") {
            assert!(begun.elapsed() < LONG, "the small one does not pass");
            rig.settled().await;
        }
        assert_eq!(state(&rig, "busy"), ModelState::Ready, "what is used stays");
        rig.advance(BUSY_PATIENCE);
        rig.until("busy", |report| {
            report.is_some_and(|report| report.state != ModelState::Ready)
        })
        .await;
        rig.release();
        hung.await.unwrap();
        small.await.unwrap();
        large.await.unwrap();
        // The one that gave way comes back for what still waits for it.
        rig.advance(LATER);
        rig.settled().await;
        next.await.unwrap();
        rig
    });
}

#[test]
fn a_hint_waits_for_room_for_so_long_and_says_so() {
    with_rig(&room_for(1), |mut rig| async move {
        rig.load(on_demand("m", 1)).await;
        rig.hold_loads();
        let worker = rig.worker.clone();
        let loading = actix::spawn(async move { worker.load(CPU, sized("x", "identity", 1)).await });
        rig.entered().await;
        let worker = rig.worker.clone();
        let hint = actix::spawn(async move { worker.warm_up(CPU, &key("m")).await });
        rig.until_state("m", ModelState::Waking).await;
        rig.advance(HINT_PATIENCE);
        let refused = hint.await.unwrap().unwrap_err();
        assert!(refused.message.contains("no room for it within 60 s"), "{refused}");
        assert_eq!(state(&rig, "m"), ModelState::Standby);
        rig.free_loads();
        loading.await.unwrap().unwrap();
        rig
    });
}

#[test]
fn of_a_model_that_nobody_has_measured_one_instance_shows_what_the_others_take() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, "small").unwrap();
    with_rig(&room_for(8), |rig| async move {
        let mut spec = instances(sized("m", "identity", 3), 3);
        spec.artifact = Some(path.clone());
        let refused = rig.worker.load(CPU, spec.clone()).await.unwrap_err();
        assert!(refused.message.contains("3 instances of 3 KiB"), "{refused}");
        assert_eq!(rig.seen.lock().loads["m"], 1);
        let mut fewer = instances(sized("n", "identity", 3), 2);
        fewer.artifact = Some(path);
        rig.load(fewer).await;
        assert_eq!(rig.report("n").memory_bytes, 6 * KIB);
        rig
    });
}

#[test]
fn another_file_for_a_model_that_stands_by_is_taken_over_without_a_load() {
    with_rig(&room_for(8), |rig| async move {
        rig.load(on_demand("m", 1)).await;
        rig.load(anew(on_demand("m", 2))).await;
        assert_eq!(
            (state(&rig, "m"), rig.seen.lock().loads.get("m").copied()),
            (ModelState::Standby, None)
        );
        assert_eq!(rig.infer("m", 1.0).await.unwrap(), 1.0);
        assert_eq!((rig.report("m").memory_bytes, rig.seen.lock().loads["m"]), (2 * KIB, 1));
        rig
    });
}

#[test]
fn another_file_is_loaded_after_the_one_that_fails_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (broken, good) = (folder.path().join("broken"), folder.path().join("good"));
    std::fs::write(&broken, "broken").unwrap();
    std::fs::write(&good, "good").unwrap();
    with_rig(&room_for(8), |mut rig| async move {
        let of = |path: &std::path::Path| {
            let mut spec = on_demand("m", 1);
            spec.artifact = Some(path.to_owned());
            spec
        };
        rig.load(of(&broken)).await;
        rig.hold_loads();
        let waits = rig.submit("m", &[1.0]);
        rig.entered().await;
        let again = rig.ask_for(of(&good));
        rig.settled().await;
        rig.free_loads();
        again.await.unwrap();
        waits.await.unwrap();
        rig
    });
}

#[test]
fn instances_that_are_asked_for_while_a_model_loads_come_after_it_and_those_that_are_too_many_go() {
    let config = WorkerConfig {
        threads_per_device: 3,
        ..room_for(64)
    };
    for (before, after) in [(1, 2), (2, 1)] {
        with_rig(&config, |mut rig| async move {
            // The actor is there: one that starts loads what is wanted by itself.
            rig.settled().await;
            rig.hold_loads();
            let loading = rig.ask_for(instances(sized("m", "identity", 1), before));
            rig.entered().await;
            let again = rig.ask_for(instances(sized("m", "identity", 1), after));
            rig.settled().await;
            rig.free_loads();
            loading.await.unwrap();
            again.await.unwrap();
            rig.until("m", |report| {
                report.is_some_and(|report| report.memory_bytes == u64::from(after) * KIB)
            })
            .await;
            let begun = std::time::Instant::now();
            while rig.seen.lock().alive["m"] != after as usize {
                assert!(begun.elapsed() < LONG, "{:?}", rig.seen.lock().alive);
                rig.settled().await;
            }
            rig
        });
    }
}

#[test]
fn a_hint_is_a_use() {
    with_rig(&room_for(2), |rig| async move {
        for name in ["a", "b", "c"] {
            rig.load(on_demand(name, 1)).await;
        }
        rig.infer("a", 1.0).await.unwrap();
        rig.advance(LATER);
        rig.worker.warm_up(CPU, &key("c")).await.unwrap();
        rig.advance(LATER);
        rig.infer("b", 1.0).await.unwrap();
        assert_eq!(
            (state(&rig, "a"), state(&rig, "c")),
            (ModelState::Standby, ModelState::Ready)
        );
        rig
    });
}

/// A model whose load takes so many KiB for a time, and so many more if it is optimised.
fn passing(spec: LoadSpec, load: u64, optimize: u64) -> LoadSpec {
    changed(spec, |config| {
        for (name, kib) in [("passing_load", load), ("passing_optimize", optimize)] {
            config.parameters.insert(name.into(), ParameterValue::Uint(kib * KIB));
        }
    })
}

#[test]
fn what_a_load_takes_for_a_time_is_kept_for_it_until_it_is_over() {
    with_rig(&room_for(10), |mut rig| async move {
        rig.hold_loads();
        let worker = rig.worker.clone();
        let first = passing(sized("m", "identity", 4), 4, 0);
        let loading = actix::spawn(async move { worker.load(CPU, first).await });
        rig.entered().await;
        // There would be room beside the model, and is none beside its load.
        rig.load(sized("n", "identity", 4)).await;
        assert_eq!(state(&rig, "n"), ModelState::Standby);
        rig.free_loads();
        loading.await.unwrap().unwrap();
        assert_eq!(rig.infer("n", 1.0).await.unwrap(), 1.0);
        assert_eq!(
            [state(&rig, "m"), state(&rig, "n")],
            [ModelState::Ready; 2],
            "both fit once none is loaded"
        );
        rig
    });
}

#[test]
fn a_model_is_optimised_where_the_budget_has_room_for_that_and_loaded_as_it_is_where_it_has_none() {
    with_rig(&room_for(10), |rig| async move {
        rig.load(passing(sized("m", "identity", 4), 0, 6)).await;
        // Nobody has asked for it yet, so none leaves memory to have it optimised.
        rig.load(passing(sized("n", "identity", 4), 0, 6)).await;
        assert_eq!([state(&rig, "m"), state(&rig, "n")], [ModelState::Ready; 2]);
        assert_eq!(rig.seen.lock().optimized, ["m"]);
        assert_eq!(rig.seen.lock().left_as_they_were, ["n"]);
        rig.load(passing(on_demand("asked", 2), 0, 8)).await;
        rig.load(passing(on_demand("large", 9), 3, 9)).await;
        rig.advance(LATER);
        assert_eq!(rig.infer("asked", 1.0).await.unwrap(), 1.0);
        assert_eq!(rig.seen.lock().optimized, ["m", "asked"]);
        assert_eq!([state(&rig, "m"), state(&rig, "n")], [ModelState::Standby; 2]);
        // A budget that is large enough for a model is large enough to load it.
        rig.advance(LATER);
        assert_eq!(rig.infer("large", 2.0).await.unwrap(), 2.0);
        assert_eq!(rig.seen.lock().left_as_they_were, ["n", "large"]);
        rig
    });
}
