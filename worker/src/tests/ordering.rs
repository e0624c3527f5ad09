//! Answers that leave in the order of the batches, and what does not wait for them.

use futures::FutureExt;

use super::{
    rig::{FAR, Rig, named, with_rig},
    *,
};

const HANGING: &str = "hang_on_negative";
const NAME: &str = "ordered";

/// A model whose values below zero are held up, and whose answers leave in order.
fn ordered(change: impl FnOnce(&mut DynamicBatching)) -> LoadSpec {
    let mut batching = DynamicBatching {
        preserve_ordering: true,
        // Brief batches would wait for the one that hangs, on a clock that stands still.
        right_size: Some(false),
        ..DynamicBatching::default()
    };
    change(&mut batching);
    named(NAME, HANGING, |config| config.dynamic_batching = Some(batching))
}

fn threads(threads_per_device: u16, queue: usize) -> WorkerConfig {
    WorkerConfig {
        threads_per_device,
        queue,
        ..WorkerConfig::default()
    }
}

/// Once so many requests have been answered by the model, held back or not.
async fn until_answered(rig: &Rig, requests: u64) {
    // Brief batches wait for each other, and for one that hangs until it is late: that time has to pass.
    rig.advance(Duration::from_millis(100));
    rig.until_statistics(|device| device.models[&key(NAME)].success.count == requests)
        .await;
}

#[test]
fn answers_of_later_batches_are_held_back_only_where_that_is_asked_for() {
    for preserve_ordering in [true, false] {
        with_rig(&threads(2, 100), |mut rig| async move {
            rig.load(ordered(|batching| batching.preserve_ordering = preserve_ordering))
                .await;
            let first = rig.hang(NAME).await;
            let mut second = rig.submit(NAME, &[1.0]);
            until_answered(&rig, 1).await;
            let held = (&mut second).now_or_never().is_none();
            assert_eq!(held, preserve_ordering);
            rig.release();
            first.await.unwrap();
            if held {
                second.await.unwrap();
            }
            rig
        });
    }
}

#[test]
fn as_many_answers_as_the_queues_bound_are_held_back_and_with_one_more_the_tenant_is_refused() {
    const QUEUE: usize = 3;
    with_rig(&threads(2, QUEUE), |mut rig| async move {
        rig.load(ordered(|_| {})).await;
        let first = rig.hang(NAME).await;
        let mut held = Vec::new();
        for answered in 1..=3 {
            held.push(rig.submit(NAME, &[1.0]));
            until_answered(&rig, answered).await;
        }
        assert_eq!(held.len(), QUEUE);
        let refused = rig.submit(NAME, &[1.0]).await.unwrap_err();
        assert_eq!(refused.message, "Exceeds maximum queue size");
        let mut other = job(NAME, &[2.0], FAR);
        other.tenant = TenantId::parse("other").unwrap();
        rig.worker.submit(CPU, other).unwrap().await.unwrap();
        rig.release();
        first.await.unwrap();
        for reply in held {
            reply.await.unwrap();
        }
        assert_eq!(rig.infer(NAME, 1.0).await.unwrap(), 1.0, "there is room again");
        rig
    });
}

#[test]
fn who_is_refused_or_too_late_is_told_at_once_whatever_went_before() {
    with_rig(&threads(1, 2), |mut rig| async move {
        rig.load(ordered(|_| {})).await;
        let hung = rig.hang(NAME).await;
        let behind = rig.submit(NAME, &[1.0]);
        rig.settled().await;
        let soon = job(NAME, &[2.0], Duration::from_secs(9));
        let expires = rig.worker.submit(CPU, soon).unwrap();
        let waits = rig.submit(NAME, &[3.0]);
        for _ in 0..1_000 {
            let refused = rig.submit(NAME, &[4.0]).await.unwrap_err();
            assert_eq!(refused.message, "Exceeds maximum queue size");
        }
        rig.advance(Duration::from_secs(10));
        assert_eq!(expires.await.unwrap_err().class, FaultClass::DeadlineExceeded);
        rig.release();
        for reply in [hung, behind, waits] {
            reply.await.unwrap();
        }
        rig
    });
}

#[test]
fn who_came_first_and_still_waits_for_a_batch_holds_up_nobody() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        let mut spec = ordered(|batching| batching.max_queue_delay_microseconds = 600_000_000);
        let mut config = ModelConfig::clone(&spec.config);
        config.max_batch_size = 2;
        spec.config = Arc::new(config);
        rig.load(spec).await;
        let mut first = rig.submit(NAME, &[1.0]);
        rig.settled().await;
        // Its deadline is nearer, and it fills a batch by itself.
        let hurried = job(NAME, &[2.0, 3.0], FAR / 2);
        let outcome = rig.worker.submit(CPU, hurried).unwrap().await.unwrap();
        assert_eq!(outcome.timings.batch_rows, 2);
        assert!((&mut first).now_or_never().is_none(), "it waits for company");
        rig.advance(Duration::from_secs(601));
        first.await.unwrap();
        rig
    });
}

#[test]
fn a_batch_that_is_taken_apart_or_hangs_or_is_left_by_some_leaves_the_line_whole() {
    with_rig(&threads(2, 100), |mut rig| async move {
        rig.load(ordered(|_| {})).await;
        let first = rig.hang(NAME).await;
        let gone = rig.submit(NAME, &[1.0]);
        until_answered(&rig, 1).await;
        let stays = rig.submit(NAME, &[2.0]);
        until_answered(&rig, 2).await;
        drop(gone);
        rig.advance(Duration::from_secs(30));
        let fault = first.await.unwrap_err();
        assert!(fault.message.contains("took too long"), "{fault}");
        stays.await.unwrap();
        rig.load(named("failing", "fail_on_negative", |config| {
            config.dynamic_batching = Some(DynamicBatching {
                preserve_ordering: true,
                max_queue_delay_microseconds: 600_000_000,
                ..DynamicBatching::default()
            });
        }))
        .await;
        let values = [1.0, -2.0, 3.0, 4.0, 5.0, 6.0, 7.0, -8.0];
        let replies = values.map(|value| rig.submit("failing", &[value]));
        for (value, reply) in values.iter().zip(replies) {
            assert_eq!(reply.await.is_err(), *value < 0.0, "{value}");
        }
        rig
    });
}
