//! Models that come and go within a device's memory.

use mesh_types::{LoadPolicy, ResidencyPolicy, TenantId};

use super::{
    rig::{FAR, named, with_rig},
    *,
};

const KIB: u64 = 1024;

/// A device with room for so many models of a KiB.
fn room_for(models: u64) -> WorkerConfig {
    WorkerConfig {
        cpu_memory: Some(models * KIB),
        ..WorkerConfig::default()
    }
}

/// A model of so many KiB, with a residency of its own.
fn sized(name: &str, kib: u64, residency: ResidencyPolicy) -> LoadSpec {
    named(name, "identity", |config| {
        let bytes = ParameterValue::Uint(kib * KIB);
        config.parameters.insert("weights_bytes".into(), bytes);
        config.residency = Some(residency);
    })
}

fn one(name: &str) -> LoadSpec {
    sized(name, 1, ResidencyPolicy::default())
}

fn on_demand(name: &str) -> LoadSpec {
    let load = LoadPolicy::OnDemand;
    let residency = ResidencyPolicy {
        load,
        ..ResidencyPolicy::default()
    };
    sized(name, 1, residency)
}

/// Past the time for which a fresh model stays.
const LATER: Duration = Duration::from_secs(60);

#[test]
fn a_request_for_a_model_that_stands_by_waits_while_one_load_is_under_way() {
    with_rig(&room_for(8), |mut rig| async move {
        rig.load(on_demand("m")).await;
        let report = rig.report("m");
        assert_eq!(
            (report.state, report.memory_bytes, report.proven),
            (ModelState::Standby, 0, false)
        );
        assert!(report.reason.unwrap().contains("on demand"));
        assert!(!rig.seen.lock().loads.contains_key("m"));
        rig.hold_loads();
        let replies: Vec<_> = (0..20u16).map(|value| rig.submit("m", &[f32::from(value)])).collect();
        rig.entered().await;
        rig.until_state("m", ModelState::Waking).await;
        rig.free_loads();
        for (value, reply) in (0..20u16).zip(replies) {
            assert_eq!(reply.await.unwrap().outputs[0].data, f32::from(value).to_le_bytes()[..]);
        }
        assert_eq!(rig.seen.lock().loads["m"], 1, "one load for all");
        let report = rig.report("m");
        assert!(report.state == ModelState::Ready && report.proven);
        rig
    });
}

#[test]
fn a_request_that_cannot_wait_for_the_load_fails_by_its_deadline_and_the_load_goes_on() {
    with_rig(&room_for(8), |mut rig| async move {
        rig.load(on_demand("m")).await;
        rig.hold_loads();
        let soon = rig
            .worker
            .submit(CPU, job("m", &[1.0], Duration::from_secs(5)))
            .unwrap();
        rig.entered().await;
        let patient = rig.worker.submit(CPU, job("m", &[2.0], FAR)).unwrap();
        rig.settled().await;
        rig.advance(Duration::from_secs(60));
        rig.settled().await;
        let fault = soon.await.unwrap_err();
        assert_eq!(fault.class, FaultClass::DeadlineExceeded, "{fault}");
        rig.free_loads();
        assert!(patient.await.is_ok());
        rig
    });
}

#[test]
fn a_load_that_fails_tells_those_who_wait_why() {
    with_rig(&room_for(8), |rig| async move {
        let broken = named("m", "nothing", |config| {
            config.residency = Some(ResidencyPolicy {
                load: LoadPolicy::OnDemand,
                ..ResidencyPolicy::default()
            });
        });
        rig.load(broken).await;
        let fault = rig.infer("m", 1.0).await.unwrap_err();
        assert!(fault.message.contains("no built-in model 'nothing'"), "{fault}");
        assert_eq!(rig.report("m").state, ModelState::Unavailable);
        let fault = rig.infer("m", 1.0).await.unwrap_err();
        assert!(
            fault.message.contains("no built-in model 'nothing'"),
            "and so it stays: {fault}"
        );
        rig
    });
}

#[test]
fn who_was_used_longest_ago_gives_way_and_comes_back() {
    with_rig(&room_for(2), |rig| async move {
        for name in ["a", "b"] {
            rig.load(one(name)).await;
            assert!(rig.infer(name, 1.0).await.is_ok());
            rig.advance(LATER);
        }
        assert!(rig.infer("a", 1.0).await.is_ok());
        rig.load(one("c")).await;
        let report = rig.report("c");
        assert_eq!(
            report.state,
            ModelState::Standby,
            "nobody leaves for one that nobody has asked for"
        );
        assert!(report.reason.unwrap().contains("no room"));
        rig.advance(LATER);
        assert_eq!(rig.infer("c", 3.0).await.unwrap(), 3.0);
        let report = rig.report("b");
        assert_eq!((report.state, report.memory_bytes), (ModelState::Standby, 0));
        assert!(report.reason.unwrap().contains("left memory for 'c'"));
        assert!(report.proven);
        assert_eq!(rig.report("a").state, ModelState::Ready);
        rig.advance(LATER);
        assert_eq!(rig.infer("b", 4.0).await.unwrap(), 4.0);
        assert_eq!(rig.seen.lock().alive.values().sum::<usize>(), 2);
        assert_eq!(rig.statistics("b").evictions, 1);
        assert_eq!(rig.statistics("b").loads.count, 2);
        rig
    });
}

#[test]
fn who_is_pinned_or_busy_stays_and_a_model_for_which_there_is_never_room_says_so_in_figures() {
    with_rig(&room_for(2), |mut rig| async move {
        let pinned = ResidencyPolicy {
            pinned: true,
            ..ResidencyPolicy::default()
        };
        rig.load(sized("pinned", 1, pinned)).await;
        let busy = named("busy", "hang_on_negative", |config| {
            config
                .parameters
                .insert("weights_bytes".into(), ParameterValue::Uint(KIB));
        });
        rig.load(busy).await;
        rig.load(one("m")).await;
        rig.advance(LATER);
        let hung = rig.hang("busy").await;
        let waits = rig.submit("m", &[1.0]);
        rig.settled().await;
        assert_eq!(rig.report("m").state, ModelState::Waking);
        rig.release();
        hung.await.unwrap();
        assert!(waits.await.is_ok());
        assert_eq!(
            (rig.report("pinned").state, rig.report("busy").state),
            (ModelState::Ready, ModelState::Standby)
        );
        rig.load(sized("large", 2, ResidencyPolicy::default())).await;
        let fault = rig.infer("large", 1.0).await.unwrap_err();
        assert!(
            fault.message.contains("budget is 2 KiB, of which 1 KiB are pinned"),
            "{fault}"
        );
        let fault = rig
            .worker
            .load(CPU, sized("huge", 3, ResidencyPolicy::default()))
            .await
            .unwrap_err();
        assert!(
            fault.message.contains("it needs 3 KiB") && fault.message.contains("budget is 2 KiB"),
            "{fault}"
        );
        assert_eq!(rig.report("huge").state, ModelState::Unavailable);
        rig
    });
}

#[test]
fn a_tenant_is_not_told_how_much_others_have_pinned() {
    with_rig(&room_for(5), |rig| async move {
        let pinned = ResidencyPolicy {
            pinned: true,
            ..ResidencyPolicy::default()
        };
        let mut foreign = sized("theirs", 3, pinned);
        foreign.key.tenant = TenantId::parse("globex").unwrap();
        rig.load(foreign).await;
        rig.load(sized("ours", 1, pinned)).await;
        rig.load(sized("large", 2, ResidencyPolicy::default())).await;
        let fault = rig.infer("large", 1.0).await.unwrap_err();
        let ours =
            "it needs 2 KiB on this device, whose budget is 5 KiB, beside what is pinned, 1 KiB of it by this tenant";
        assert!(fault.message.contains(ours), "{fault}");
        let told = [fault.message.to_string(), rig.report("large").reason.unwrap()];
        for sum in ["3 KiB", "4 KiB"] {
            assert!(!told.iter().any(|text| text.contains(sum)), "{told:?}");
        }
        // Their sum is still what an admin of the mesh can read there.
        let devices = rig.worker.report().devices;
        assert!(devices[0].models.iter().any(|model| model.memory_bytes >= 3 * KIB));
        rig
    });
}

#[test]
fn a_file_that_is_larger_than_the_budget_is_not_even_read() {
    with_rig(&room_for(2), |rig| async move {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![0; 2 * 1024 + 1]).unwrap();
        let mut large = one("large");
        large.artifact = Some(path.clone());
        let fault = rig.worker.load(CPU, large.clone()).await.unwrap_err();
        assert!(fault.message.contains("budget is 2 KiB"), "{fault}");
        assert!(!rig.seen.lock().loads.contains_key("large"));
        std::fs::write(&path, vec![0; 2 * 1024]).unwrap();
        rig.load(large).await;
        rig
    });
}

#[test]
fn a_fresh_model_stays_for_a_while_so_that_a_device_does_not_only_load() {
    let config = room_for(1);
    with_rig(&config, |rig| async move {
        let slow = |name: &str| {
            let mut spec = one(name);
            let mut config = ModelConfig::clone(&spec.config);
            // On the rig's clock a load takes no time but what a test lets pass.
            config.residency = None;
            spec.config = Arc::new(config);
            spec
        };
        rig.hold_loads();
        let worker = rig.worker.clone();
        let load = worker.load(CPU, slow("a"));
        let watch = async {
            rig.until_state("a", ModelState::Loading).await;
            rig.clock.advance(Duration::from_secs(10));
            rig.free_loads();
            rig
        };
        let (loaded, rig) = futures::join!(load, watch);
        loaded.unwrap();
        assert!(rig.report("a").load_time.unwrap() <= Duration::from_secs(10));
        rig
    });
}

#[test]
fn a_model_that_nobody_uses_leaves_after_its_time_and_comes_back_on_demand() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        let idle = ResidencyPolicy {
            idle_seconds: 60,
            ..ResidencyPolicy::default()
        };
        rig.load(sized("m", 1, idle)).await;
        rig.advance(Duration::from_secs(59));
        assert!(rig.infer("m", 1.0).await.is_ok());
        rig.advance(Duration::from_secs(59));
        rig.settled().await;
        assert_eq!(rig.report("m").state, ModelState::Ready, "used in between");
        rig.advance(Duration::from_secs(1));
        rig.until_state("m", ModelState::Standby).await;
        assert!(rig.report("m").reason.unwrap().contains("60 s without a request"));
        rig.until("m", |report| report.is_some_and(|report| report.memory_bytes == 0))
            .await;
        assert_eq!(rig.infer("m", 2.0).await.unwrap(), 2.0);
        assert_eq!(
            (rig.statistics("m").idle_unloads, rig.statistics("m").evictions),
            (1, 0)
        );
        rig
    });
}

#[test]
fn a_hint_loads_a_model_before_its_requests_come() {
    with_rig(&room_for(1), |rig| async move {
        rig.load(one("a")).await;
        rig.load(on_demand("b")).await;
        rig.advance(LATER);
        rig.worker.warm_up(CPU, &key("b")).await.unwrap();
        assert_eq!(
            (rig.report("a").state, rig.report("b").state),
            (ModelState::Standby, ModelState::Ready)
        );
        rig.worker.warm_up(CPU, &key("b")).await.unwrap();
        assert_eq!(rig.seen.lock().loads["b"], 1);
        let fault = rig.worker.warm_up(CPU, &key("nobody")).await.unwrap_err();
        assert_eq!(fault.class, FaultClass::Unavailable);
        rig
    });
}

#[test]
fn a_model_that_stands_by_can_be_unloaded_and_one_that_waits_is_finished_first() {
    with_rig(&room_for(2), |mut rig| async move {
        rig.load(on_demand("a")).await;
        rig.worker.unload(CPU, &key("a")).await.unwrap();
        assert!(rig.worker.report().devices[0].models.is_empty());
        rig.load(on_demand("b")).await;
        rig.hold_loads();
        let reply = rig.submit("b", &[5.0]);
        rig.entered().await;
        let worker = rig.worker.clone();
        let b = key("b");
        let unload = worker.unload(CPU, &b);
        let watch = async {
            rig.until_state("b", ModelState::Unloading).await;
            rig.free_loads();
            rig
        };
        let (unloaded, rig) = futures::join!(unload, watch);
        unloaded.unwrap();
        assert!(reply.await.is_ok());
        assert_eq!(rig.seen.lock().alive["b"], 0);
        rig
    });
}

#[test]
fn the_memory_of_the_largest_batches_counts_as_well() {
    with_rig(&room_for(8), |rig| async move {
        let with_peak = |name: &str| {
            named(name, "identity", |config| {
                config
                    .parameters
                    .insert("weights_bytes".into(), ParameterValue::Uint(KIB));
                config
                    .parameters
                    .insert("scratch_bytes".into(), ParameterValue::Uint(4 * KIB));
            })
        };
        // One thread runs one batch: 4 KiB of scratch leave room for 4 models.
        for number in 0..5 {
            rig.load(with_peak(&format!("m-{number}"))).await;
        }
        let resident = |number: usize| rig.report(&format!("m-{number}")).state == ModelState::Ready;
        let all: Vec<bool> = (0..5).map(resident).collect();
        assert_eq!(all, [true, true, true, true, false]);
        rig
    });
}

#[test]
fn what_a_model_costs_is_known_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let config = WorkerConfig {
        latency_folder: Some(folder.path().to_owned()),
        ..room_for(8)
    };
    let costly = || {
        named("m", "identity", |config| {
            config
                .parameters
                .insert("weights_bytes".into(), ParameterValue::Uint(2 * KIB));
            config
                .parameters
                .insert("scratch_bytes".into(), ParameterValue::Uint(7 * KIB));
            let load = LoadPolicy::OnDemand;
            config.residency = Some(ResidencyPolicy {
                load,
                ..ResidencyPolicy::default()
            });
        })
    };
    with_rig(&config, |rig| async move {
        rig.load(costly()).await;
        assert_eq!(rig.report("m").load_time, None, "nobody has loaded it yet");
        rig.worker.warm_up(CPU, &key("m")).await.unwrap_err();
        rig
    });
    // With more memory its load is tried, and measured.
    let larger = WorkerConfig {
        cpu_memory: Some(64 * KIB),
        ..config.clone()
    };
    with_rig(&larger, |rig| async move {
        rig.load(costly()).await;
        rig.worker.warm_up(CPU, &key("m")).await.unwrap();
        rig
    });
    with_rig(&config, |rig| async move {
        let refused = rig.worker.load(CPU, costly()).await.unwrap_err();
        assert!(refused.message.contains("9 KiB"), "{refused}");
        assert_eq!(rig.seen.lock().loads.get("m"), None, "it is not even tried");
        rig
    });
}
