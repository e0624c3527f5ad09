//! The numbers that a worker keeps.

use super::{
    rig::{FAR, named, when_full, with_rig},
    *,
};

#[test]
fn a_batch_counts_its_requests_rows_and_stages() {
    with_worker(&WorkerConfig::default(), |worker| async move {
        let before = std::time::SystemTime::now();
        worker
            .load(CPU, named("identity", "identity", when_full))
            .await
            .unwrap();
        let replies: Vec<_> = [&[1.0][..], &[2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0]]
            .map(|values| worker.submit(CPU, job("identity", values, LONG)).unwrap())
            .into();
        let mut infer = Duration::ZERO;
        for reply in replies {
            infer += reply.await.unwrap().timings.compute_infer;
        }
        let statistics = loop {
            // The numbers are written after the answers.
            let statistics = worker.statistics();
            if statistics.devices[0].models[&key("identity")].success.count > 0 {
                break statistics;
            }
            tokio::task::yield_now().await;
        };
        let device = &statistics.devices[0];
        let model = &device.models[&key("identity")];
        assert_eq!(
            (model.inference_count, model.execution_count),
            (8, 1),
            "warm-up does not count"
        );
        assert_eq!((model.success.count, model.fail.count, model.queue.count), (3, 0, 3));
        assert_eq!(model.compute_infer.count, 3);
        assert_eq!(model.compute_infer.total, infer);
        assert!(model.success.total >= model.queue.total + infer);
        assert_eq!(model.batch_sizes.keys().copied().collect::<Vec<_>>(), [8]);
        let size = model.batch_sizes[&8];
        assert_eq!((size.compute_infer.count, size.compute_infer.total), (1, infer / 3));
        assert!(device.busy >= infer / 3 && device.busy <= device.up);
        let since = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let last = u128::from(model.last_inference_ms);
        assert!(
            last + 1 >= since(before) && last <= since(std::time::SystemTime::now()),
            "{last}"
        );
        worker.unload(CPU, &key("identity")).await.unwrap();
        assert!(
            worker.statistics().models().is_empty(),
            "the numbers end with the model"
        );
    });
}

#[test]
fn requests_that_never_ran_are_counted_by_what_became_of_them() {
    let config = WorkerConfig {
        queue: 2,
        ..WorkerConfig::default()
    };
    with_rig(&config, |mut rig| async move {
        let model = "hang_on_negative";
        rig.load(spec(model, None)).await;
        let slow = rig.hang(model).await;
        let soon = |values: &[f32]| {
            rig.worker
                .submit(CPU, job(model, values, Duration::from_secs(9)))
                .unwrap()
        };
        // One behind the running one on its thread, two in the queue; one more is refused.
        let given = soon(&[1.0]);
        rig.settled().await;
        let expires = soon(&[2.0]);
        let leaves = rig.submit(model, &[3.0]);
        let full = rig.submit(model, &[4.0]).await.unwrap_err();
        assert_eq!(full.message, "Exceeds maximum queue size");
        drop(leaves);
        rig.advance(Duration::from_secs(10));
        rig.release();
        assert_eq!(slow.await.unwrap().outputs[0].data, (-1f32).to_le_bytes().to_vec());
        for late in [given, expires] {
            assert_eq!(late.await.unwrap_err().class, FaultClass::DeadlineExceeded);
        }
        rig.until_statistics(|device| {
            let model = &device.models[&key(model)];
            (model.cancelled, model.expired) == (1, 2)
        })
        .await;
        let statistics = rig.statistics(model);
        assert_eq!(
            (statistics.expired, statistics.rejected, statistics.success.count),
            (2, 1, 1)
        );
        assert_eq!((statistics.fail.count, statistics.execution_count), (0, 1));
        drop(rig.worker.submit(CPU, job(model, &[1.0], FAR)));
        rig
    });
}

#[test]
fn a_batch_that_ran_without_some_of_its_rows_teaches_nothing() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(named("slow", "hang_on_negative", |_| {})).await;
        let four = |config: &mut ModelConfig| {
            when_full(config);
            config.max_batch_size = 4;
        };
        rig.load(named("identity", "identity", four)).await;
        for (executions, leave, foretold) in [(1, true, 0), (2, false, 1)] {
            let hung = rig.hang("slow").await;
            // Formed with four rows, and it waits on the thread: three of its callers go, or none.
            let stays = rig.submit("identity", &[1.0]);
            let mut others: Vec<_> = (0..3).map(|_| rig.submit("identity", &[2.0])).collect();
            rig.settled().await;
            if leave {
                others.clear();
            }
            rig.release();
            hung.await.unwrap();
            assert_eq!(stays.await.unwrap().timings.batch_rows, if leave { 1 } else { 4 });
            rig.until_statistics(|device| device.models[&key("identity")].execution_count == executions)
                .await;
            assert_eq!(rig.statistics("identity").prediction.batches, foretold);
        }
        rig
    });
}
