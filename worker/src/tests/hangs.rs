//! Executions that do not come back.

use super::{
    rig::{FAR, named, with_rig},
    *,
};
use crate::{crew::MAX_ABANDONED, thread::LOAD_LIMIT};

const LIMIT: Duration = Duration::from_secs(30);
const HANGING: &str = "hang_on_negative";

#[test]
fn a_hung_execution_is_answered_and_its_thread_replaced() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(spec(HANGING, batching())).await;
        rig.load(spec("identity", batching())).await;
        let hung = rig.hang(HANGING).await;
        let behind = rig.submit("identity", &[1.0]);
        let waiting = rig.submit("identity", &[2.0]);
        // Handed over now; once the batch is long overdue, nobody is.
        rig.settled().await;
        rig.advance(LIMIT - Duration::from_millis(1));
        let early = rig.submit("nobody", &[1.0]).await;
        assert!(early.is_err() && rig.worker.statistics().devices[0].abandoned == 0);
        rig.hold_loads();
        rig.advance(Duration::from_millis(1));
        for reply in [hung, behind] {
            let fault = reply.await.unwrap_err();
            assert_eq!(fault.class, FaultClass::Unavailable, "{fault}");
            assert!(fault.message.contains("took too long"), "{fault}");
        }
        for model in [HANGING, "identity"] {
            rig.until_state(model, ModelState::Loading).await;
            assert!(rig.report(model).reason.unwrap().contains("loaded again"));
        }
        assert!(rig.infer("identity", 3.0).await.is_err(), "not ready meanwhile");
        rig.free_loads();
        for model in [HANGING, "identity"] {
            rig.until_state(model, ModelState::Ready).await;
        }
        assert_eq!(rig.report(HANGING).reason, None);
        drop(waiting);
        assert_eq!(rig.infer("identity", 3.0).await.unwrap(), 3.0);
        assert_eq!(rig.infer(HANGING, 3.0).await.unwrap(), 3.0);
        let device = rig.worker.statistics().devices.remove(0);
        assert_eq!(device.abandoned, 1);
        let statistics = rig.statistics(HANGING);
        assert_eq!((statistics.fail.count, statistics.crashed), (1, 1));
        // The old thread comes back: nobody hears what it says.
        rig.release();
        rig.until_statistics(|device| device.abandoned == 0).await;
        rig.until_statistics(|device| device.models[&key(HANGING)].success.count == 1)
            .await;
        assert_eq!(rig.infer(HANGING, 4.0).await.unwrap(), 4.0);
        rig
    });
}

#[test]
fn the_models_own_bound_counts_before_the_workers() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        let spec = named(HANGING, HANGING, |config| {
            config.execution = Some(mesh_types::ExecutionPolicy {
                timeout_microseconds: 5_000,
                ..mesh_types::ExecutionPolicy::default()
            });
        });
        rig.load(spec).await;
        let hung = rig.hang(HANGING).await;
        rig.advance(Duration::from_millis(5));
        assert!(hung.await.is_err());
        rig
    });
}

#[test]
fn a_model_with_another_thread_serves_on_while_one_hangs() {
    let config = WorkerConfig {
        threads_per_device: 2,
        ..WorkerConfig::default()
    };
    with_rig(&config, |mut rig| async move {
        // Brief batches would wait for the one that hangs, on a clock that stands still.
        let at_once = DynamicBatching {
            right_size: Some(false),
            ..DynamicBatching::default()
        };
        rig.load(spec(HANGING, Some(at_once))).await;
        let hung = rig.hang(HANGING).await;
        assert_eq!(rig.infer(HANGING, 1.0).await.unwrap(), 1.0);
        rig.hold_loads();
        rig.advance(LIMIT);
        assert!(hung.await.is_err());
        assert_eq!(rig.report(HANGING).state, ModelState::Ready);
        assert_eq!(rig.infer(HANGING, 2.0).await.unwrap(), 2.0, "while the other loads");
        rig.free_loads();
        rig.until(HANGING, |report| {
            report.is_some_and(|report| report.memory_bytes == 2_000)
        })
        .await;
        rig
    });
}

#[test]
fn as_many_threads_as_the_bound_are_replaced_and_with_one_more_the_device_is_unavailable_until_they_come_back() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        // Two hangs each, so that none is quarantined.
        let name = |number: usize| format!("hang-{}", number / 2);
        for number in (0..=MAX_ABANDONED).step_by(2) {
            rig.load(named(&name(number), HANGING, |_| {})).await;
        }
        for number in 0..=MAX_ABANDONED {
            rig.until_state(&name(number), ModelState::Ready).await;
            let hung = rig.hang(&name(number)).await;
            rig.advance(LIMIT);
            assert!(hung.await.is_err());
            rig.until_statistics(|device| device.abandoned == number + 1).await;
        }
        rig.until_state(&name(0), ModelState::Unavailable).await;
        let reason = rig.report(&name(0)).reason.unwrap();
        assert!(reason.contains("lost too many threads"), "{reason}");
        let refused = rig.worker.load(CPU, spec("identity", None)).await.unwrap_err();
        assert!(refused.message.contains("lost too many threads"), "{refused}");
        rig.release();
        rig.until_statistics(|device| device.abandoned == 0).await;
        rig.load(spec("identity", None)).await;
        assert_eq!(rig.infer("identity", 1.0).await.unwrap(), 1.0);
        rig.load(named(&name(0), HANGING, |_| {})).await;
        assert_eq!(rig.infer(&name(0), 1.0).await.unwrap(), 1.0);
        rig
    });
}

#[test]
fn a_model_that_hangs_again_and_again_is_quarantined() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(spec(HANGING, batching())).await;
        for _ in 0..crate::quarantine::MAX_CRASHES {
            rig.until_state(HANGING, ModelState::Ready).await;
            let hung = rig.hang(HANGING).await;
            rig.advance(LIMIT);
            assert!(hung.await.is_err());
            rig.release();
        }
        rig.until_state(HANGING, ModelState::Quarantined).await;
        assert!(rig.report(HANGING).reason.unwrap().contains("an execution hung"));
        rig
    });
}

#[test]
fn a_probe_that_waited_behind_another_models_hang_is_lost_and_the_next_request_is_one() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(named("probed", HANGING, |_| {})).await;
        rig.load(named("other", HANGING, |_| {})).await;
        for _ in 0..crate::quarantine::MAX_CRASHES {
            rig.until_state("probed", ModelState::Ready).await;
            let hung = rig.hang("probed").await;
            rig.advance(LIMIT);
            assert!(hung.await.is_err());
            rig.release();
        }
        rig.until_state("probed", ModelState::Quarantined).await;
        rig.until_state("other", ModelState::Ready).await;
        rig.advance(crate::quarantine::COOL_DOWN);
        rig.until_state("probed", ModelState::Ready).await;
        let hung = rig.hang("other").await;
        let probe = rig.submit("probed", &[1.0]);
        rig.settled().await;
        let refused = rig.infer("probed", 1.0).await.unwrap_err();
        assert!(refused.message.contains("probation"), "{refused}");
        rig.advance(LIMIT);
        for reply in [hung, probe] {
            let fault = reply.await.unwrap_err();
            assert!(fault.message.contains("took too long"), "{fault}");
        }
        rig.release();
        rig.until(
            "probed",
            |report| matches!(report, Some(report) if report.memory_bytes > 0),
        )
        .await;
        assert_eq!(rig.infer("probed", 2.0).await.unwrap(), 2.0);
        rig
    });
}

#[test]
fn a_worker_stops_though_a_thread_hangs_that_was_given_up() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(spec(HANGING, batching())).await;
        let hung = rig.hang(HANGING).await;
        rig.advance(LIMIT);
        assert!(hung.await.is_err());
        // The rig stops the worker, which joins the thread in its place and not the one that hangs.
        let answer = rig.worker.submit(CPU, job(HANGING, &[1.0], FAR)).unwrap();
        drop(answer);
        rig
    });
}

#[test]
fn a_load_that_hangs_fails_and_the_models_beside_it_serve_on() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(spec("identity", batching())).await;
        rig.hold_loads();
        let worker = rig.worker.clone();
        let load = worker.load(CPU, named("slow", "identity", |_| {}));
        let watch = async {
            rig.entered().await;
            rig.advance(LOAD_LIMIT - Duration::from_millis(1));
            rig.settled().await;
            assert_eq!(rig.worker.statistics().devices[0].abandoned, 0);
            assert_eq!(rig.infer("identity", 1.0).await.unwrap(), 1.0, "while the other loads");
            rig.advance(Duration::from_millis(1));
            rig
        };
        let (loaded, rig) = futures::join!(load, watch);
        let fault = loaded.unwrap_err();
        assert!(fault.message.contains("loading took too long"), "{fault}");
        assert_eq!(rig.report("slow").state, ModelState::Unavailable);
        assert_eq!(rig.worker.statistics().devices[0].abandoned, 1);
        assert_eq!(rig.infer("identity", 1.0).await.unwrap(), 1.0);
        rig.free_loads();
        rig.until_statistics(|device| device.abandoned == 0).await;
        rig.load(named("slow", "identity", |_| {})).await;
        rig
    });
}
