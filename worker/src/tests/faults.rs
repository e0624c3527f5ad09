//! Faults stay with the request and the model that cause them.

use mesh_types::{ExecutionPolicy, NonFinite};

use super::{
    rig::{Rig, named, retry_after, when_full, with_rig},
    *,
};
use crate::quarantine::{COOL_DOWN, MAX_CRASHES};

#[test]
fn a_panic_and_an_error_fail_their_request_only() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        for model in ["panic_on_negative", "fail_on_negative"] {
            rig.load(named(model, model, when_full)).await;
            let values = [1.0, 2.0, -3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
            let replies = values.map(|value| rig.submit(model, &[value]));
            for (value, reply) in values.iter().zip(replies) {
                match reply.await {
                    Ok(outcome) => assert_eq!(outcome.outputs[0].data, value.to_le_bytes().to_vec()),
                    Err(fault) => {
                        assert_eq!(fault.class, FaultClass::Internal, "{fault}");
                        assert!(*value < 0.0, "{value}: {fault}");
                    }
                }
            }
            rig.until_statistics(|device| device.models[&key(model)].fail.count == 1)
                .await;
            let statistics = rig.statistics(model);
            assert_eq!((statistics.success.count, statistics.execution_count), (7, 7));
        }
        assert_eq!(
            rig.seen.lock().loads["panic_on_negative"],
            5,
            "after each of four panics"
        );
        let notes = rig.notes();
        assert!(
            notes.iter().all(|note| note.rows == 8 && note.failed_requests == 1),
            "{notes:?}"
        );
        assert_eq!((notes[0].crashed, notes[1].crashed), (true, false));
        rig
    });
}

#[test]
fn batches_that_found_no_memory_are_not_formed_again() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        let mut rows = 8;
        let spec = named("oom_above", "oom_above", |config| {
            config.parameters.insert("rows".into(), ParameterValue::Int(3));
        });
        rig.load(spec).await;
        assert_eq!(rig.report("oom_above").warm_up.len(), 2, "sizes 1 and 2; 4 did not fit");
        for _ in 0..3 {
            let replies: Vec<_> = (0..8).map(|_| rig.submit("oom_above", &[1.0])).collect();
            rows = 0;
            for reply in replies {
                rows = rows.max(reply.await.unwrap().timings.batch_rows);
            }
        }
        assert_eq!(rows, 2);
        let fault = rig.submit("oom_above", &[1.0; 4]).await.unwrap_err();
        assert!(fault.message.contains("out of memory"), "{fault}");
        rig.until_statistics(|device| device.models[&key("oom_above")].out_of_memory == 1)
            .await;
        rig
    });
}

#[test]
fn memory_that_runs_out_after_warm_up_lowers_the_batches_too() {
    let config = WorkerConfig {
        // Time goes on in leaps while something may still run: none of them makes that too long.
        execution_timeout: Duration::from_secs(1_000_000),
        ..WorkerConfig::default()
    };
    with_rig(&config, |rig| async move {
        let model = "identity";
        let spec = named(model, model, |config| {
            when_full(config);
            config.parameters.insert("late_rows".into(), ParameterValue::Int(2));
        });
        rig.load(spec).await;
        assert_eq!(rig.report(model).warm_up.len(), 4, "warm-up saw nothing of it");
        let (mut found, mut rounds) = (Vec::new(), 0..8);
        // Until a round finds no more: what was learnt is kept to.
        while found.len() < 2 || found[found.len() - 1] != found[found.len() - 2] || found[found.len() - 1] == 0 {
            assert!(rounds.next().is_some(), "{found:?}");
            let replies: Vec<_> = (0..8).map(|_| rig.submit(model, &[1.0])).collect();
            rig.settled().await;
            // Those that are left over, and would wait for more.
            rig.advance(Duration::from_secs(601));
            for reply in replies {
                assert!(reply.await.unwrap().timings.batch_rows <= 2);
            }
            rig.settled().await;
            found.push(rig.statistics(model).out_of_memory);
        }
        rig
    });
}

#[test]
fn not_finite_answers_are_treated_as_the_configuration_says() {
    let cases = [
        (NonFinite::Pass, 0, 0),
        (NonFinite::Count, 1, 0),
        (NonFinite::Fail, 1, 1),
    ];
    with_rig(&WorkerConfig::default(), |rig| async move {
        for (index, (policy, counted, failed)) in cases.into_iter().enumerate() {
            let name = format!("nan-{index}");
            let spec = named(&name, "nan_on_negative", |config| {
                when_full(config);
                config.execution = Some(ExecutionPolicy {
                    non_finite_outputs: policy,
                    ..ExecutionPolicy::default()
                });
            });
            rig.load(spec).await;
            let good = rig.submit(&name, &[1.0; 7]);
            let bad = rig.submit(&name, &[-1.0]).await;
            assert_eq!(good.await.unwrap().timings.batch_rows, 8, "one batch");
            assert_eq!(bad.is_err(), failed == 1, "{policy:?}");
            rig.until_statistics(|device| device.models[&key(&name)].execution_count == 1)
                .await;
            let statistics = rig.statistics(&name);
            assert_eq!(
                (statistics.non_finite, statistics.fail.count),
                (counted, failed),
                "{policy:?}"
            );
        }
        rig
    });
}

/// One request after the other, so that each is a batch.
async fn crash(rig: &Rig, times: u32) {
    for _ in 0..times {
        let mut fault = rig.infer("panic_on_negative", -1.0).await.unwrap_err();
        // A probe's caller has its answer a moment before the device has heard how the probe went.
        while fault.message.contains("probation") {
            tokio::task::yield_now().await;
            fault = rig.infer("panic_on_negative", -1.0).await.unwrap_err();
        }
        assert_eq!(fault.class, FaultClass::Internal, "{fault}");
    }
}

#[test]
fn a_model_that_crashes_again_and_again_is_quarantined_and_tried_again() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        let model = "panic_on_negative";
        rig.load(spec(model, batching())).await;
        rig.load(spec("identity", batching())).await;
        crash(&rig, MAX_CRASHES - 1).await;
        assert_eq!(rig.infer(model, 1.0).await.unwrap(), 1.0, "one crash fewer does not");
        crash(&rig, MAX_CRASHES).await;
        rig.until_state(model, ModelState::Quarantined).await;
        let reason = rig.report(model).reason.unwrap();
        assert!(reason.contains("quarantined after crashes in a row"), "{reason}");
        let fault = rig.infer(model, 1.0).await.unwrap_err();
        assert_eq!((fault.class, retry_after(&fault)), (FaultClass::Unavailable, COOL_DOWN));
        assert_eq!(fault.message, reason);
        assert_eq!(rig.infer("identity", 1.0).await.unwrap(), 1.0, "other models serve on");
        let refused = rig.worker.load(CPU, spec(model, batching())).await.unwrap_err();
        assert_eq!(refused.message, reason);
        // The probe crashes: twice as long.
        rig.advance(COOL_DOWN);
        rig.until_state(model, ModelState::Ready).await;
        crash(&rig, 1).await;
        rig.until_state(model, ModelState::Quarantined).await;
        let fault = rig.infer(model, 1.0).await.unwrap_err();
        assert_eq!(retry_after(&fault), COOL_DOWN * 2);
        // The probe succeeds: trusted again.
        rig.advance(COOL_DOWN * 2);
        rig.until_state(model, ModelState::Ready).await;
        assert_eq!(rig.infer(model, 2.0).await.unwrap(), 2.0);
        crash(&rig, MAX_CRASHES - 1).await;
        assert_eq!(rig.infer(model, 2.0).await.unwrap(), 2.0);
        assert_eq!(rig.report(model).state, ModelState::Ready);
        rig
    });
}

#[test]
fn a_quarantined_model_can_be_unloaded_and_begins_anew() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        let model = "panic_on_negative";
        rig.load(spec(model, batching())).await;
        crash(&rig, MAX_CRASHES).await;
        rig.until_state(model, ModelState::Quarantined).await;
        rig.worker.unload(CPU, &key(model)).await.unwrap();
        rig.load(spec(model, batching())).await;
        assert_eq!(rig.infer(model, 1.0).await.unwrap(), 1.0);
        crash(&rig, MAX_CRASHES - 1).await;
        assert_eq!(rig.infer(model, 1.0).await.unwrap(), 1.0);
        rig
    });
}
