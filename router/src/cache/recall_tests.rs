//! Requests of an endpoint with a cache: found, shared, handed over, and never found where they must not be.

use mesh_policies::CacheRule;
use mesh_types::ModelTransactionPolicy;

use super::*;
use crate::{
    CacheOutcome,
    cache::recall::{MAX_KEYED_BYTES, Remembered},
};

/// An endpoint with one arm on the second version, and its cache.
fn cached(serial: u64) -> Target {
    let Target::Endpoint(route) = route(&[("only", 2, 10_000)], None) else {
        panic!("an endpoint")
    };
    let rule = CacheRule {
        ttl: LONG,
        max_entry_bytes: 10_000,
        serial,
    };
    Target::Endpoint(Arc::new(Route {
        cache: Some(rule),
        ..Route::clone(&route)
    }))
}

fn bed(limits: TenantLimits, serial: u64) -> Bed {
    let bed = Bed::with(limits.clone(), 100);
    bed.publish(
        limits,
        &[
            ("split", cached(serial)),
            ("plain", route(&[("only", 2, 10_000)], None)),
        ],
    );
    bed
}

fn outcome_of(answer: Answer) -> Option<CacheOutcome> {
    let Answer { result, account } = answer;
    account.finish(Duration::ZERO);
    result.unwrap().cached
}

/// The answer without a device: none is asked.
async fn found(bed: &Bed, call: Call) -> Answer {
    let before = *bed.workers.count.borrow();
    let answer = bed.router.infer(call).await;
    assert_eq!(*bed.workers.count.borrow(), before, "a device was asked");
    answer
}

#[test]
fn an_equal_request_is_found_and_answers_the_same_bytes() {
    run(async {
        let bed = bed(TenantLimits::default(), 1);
        let first = bed.answered(bed.call("acme", "split")).await;
        let mut call = bed.call("acme", "split");
        call.request.id = Some("another".to_owned());
        let second = found(&bed, call).await;
        let (one, other) = (first.result.as_ref().unwrap(), second.result.as_ref().unwrap());
        assert_eq!(one.response.outputs, other.response.outputs);
        assert_eq!(other.response.id.as_deref(), Some("another"));
        assert_eq!((other.arm.as_deref(), other.response.version.get()), (Some("only"), 2));
        assert_eq!(outcome_of(first), Some(CacheOutcome::Miss));
        assert_eq!(outcome_of(second), Some(CacheOutcome::Hit));
        assert!(bed.is_at_rest());
        // Both count as requests of the arm.
        let series = bed.series();
        let counted: u64 = series.iter().filter(|one| &*one.arm == "only").map(|one| one.ok).sum();
        assert_eq!(counted, 2);
        let call = bed.call("acme", "split");
        let numbers = bed
            .router
            .statistics(&call.credential, Some("split"), &VersionSelector::Default);
        let numbers = numbers.unwrap().remove(0).numbers;
        assert_eq!((numbers.cache_hit.count, numbers.cache_miss.count), (1, 1));
        assert_eq!(
            numbers.success.count, 1,
            "of a device that counts nothing, and the one that was found"
        );
    });
}

#[test]
fn a_request_that_is_found_counts_against_limits() {
    run(async {
        let limits = Limits::default().with_rate(Unit::Requests, Rate::new(1, 2));
        let bed = bed(limits.into(), 1);
        bed.answered(bed.call("acme", "split"))
            .await
            .account
            .finish(Duration::ZERO);
        found(&bed, bed.call("acme", "split"))
            .await
            .account
            .finish(Duration::ZERO);
        let refused = bed.refusal(bed.call("acme", "split")).await;
        assert_eq!(refused.class, FaultClass::RateLimited);
    });
}

#[test]
fn equal_requests_at_once_are_computed_once() {
    run(async {
        let bed = bed(TenantLimits::default(), 1);
        let calls = (0..3).map(|_| bed.router.infer(bed.call("acme", "split")));
        let (answers, ()) = tokio::join!(futures::future::join_all(calls), async {
            bed.job().await;
            bed.answer_all();
        });
        assert_eq!(*bed.workers.count.borrow(), 1);
        let mut outcomes: Vec<_> = answers
            .into_iter()
            .filter_map(outcome_of)
            .map(CacheOutcome::as_str)
            .collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, ["hit", "hit", "miss"]);
        assert!(bed.is_at_rest());
        assert_eq!(bed.parts.cache.flights.len(), 0);
    });
}

#[test]
fn a_leader_that_leaves_or_fails_hands_over() {
    run(async {
        let bed = bed(TenantLimits::default(), 1);
        // One leaves.
        let mut leaving = Box::pin(bed.router.infer(bed.call("acme", "split")));
        tokio::select! {
            _ = &mut leaving => panic!("nobody answers"),
            () = bed.job() => {}
        }
        let mut waiting = Box::pin(bed.router.infer(bed.call("acme", "split")));
        let last = bed.router.infer(bed.call("acme", "split"));
        tokio::select! {
            _ = &mut waiting => panic!("nobody answers"),
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
        drop(leaving);
        bed.workers.jobs.lock().clear();
        let ((next, last), ()) = tokio::join!(futures::future::join(waiting, last), async {
            bed.jobs(2).await;
            // It fails, and the last one is not answered with that.
            for (_, _, answer) in bed.workers.jobs.lock().drain(..) {
                let _ = answer.send(Err(Fault::internal("the model failed")));
            }
            bed.jobs(3).await;
            bed.answer_all();
        });
        assert!(
            next.result
                .as_ref()
                .is_err_and(|fault| fault.message.contains("the model failed"))
        );
        next.account.finish(Duration::ZERO);
        assert_eq!(outcome_of(last), Some(CacheOutcome::Miss));
        assert!(bed.is_at_rest());
    });
}

#[test]
fn who_waits_keeps_its_own_deadline() {
    run(async {
        let bed = bed(TenantLimits::default(), 1);
        let leading = bed.router.infer(bed.call("acme", "split"));
        let mut hurried = bed.call("acme", "split");
        hurried.timeout = Some(Duration::from_millis(50));
        let waiting = async {
            bed.job().await;
            let refused = bed.refusal(hurried).await;
            bed.answer_all();
            refused
        };
        let (led, refused) = tokio::join!(leading, waiting);
        assert_eq!(refused.class, FaultClass::DeadlineExceeded);
        assert_eq!(outcome_of(led), Some(CacheOutcome::Miss));
    });
}

#[test]
fn a_refusal_of_the_device_is_nobodys_answer() {
    run(async {
        let bed = bed(TenantLimits::default(), 1);
        *bed.workers.full.lock() = true;
        let refused = bed.refusal(bed.call("acme", "split")).await;
        assert_eq!(refused.class, FaultClass::Unavailable);
        *bed.workers.full.lock() = false;
        let answered = bed.answered(bed.call("acme", "split")).await;
        assert_eq!(outcome_of(answered), Some(CacheOutcome::Miss));
        assert!(bed.is_at_rest());
    });
}

#[test]
fn what_is_another_request_another_serial_or_purged_is_computed() {
    run(async {
        let bed = bed(TenantLimits::default(), 1);
        let mut asked = 0;
        let mut computed = async |change: &dyn Fn(&mut Call)| {
            let mut call = bed.call("acme", "split");
            change(&mut call);
            asked += 1;
            let (answer, ()) = tokio::join!(bed.router.infer(call), async {
                bed.jobs(asked).await;
                bed.answer_all();
            });
            outcome_of(answer)
        };
        let miss = Some(CacheOutcome::Miss);
        assert_eq!(computed(&|_| {}).await, miss);
        assert_eq!(
            computed(&|call| call.request.outputs = vec!["y".to_owned()]).await,
            miss
        );
        let parameter = |call: &mut Call| drop(call.request.parameters.insert("mine".to_owned(), true.into()));
        assert_eq!(computed(&parameter).await, miss);
        let data = Bytes::from(vec![0; 8]);
        assert_eq!(computed(&|call| call.request.inputs[0].data = data.clone()).await, miss);
        bed.publish(TenantLimits::default(), &[("split", cached(2))]);
        assert_eq!(computed(&|_| {}).await, miss);
        let purged = bed
            .parts
            .cache
            .purge(&tenant("acme"), &EndpointId::parse("split").unwrap());
        assert_eq!(purged.entries, 1);
        assert_eq!(computed(&|_| {}).await, miss);
        // What no cache is asked for says nothing of one.
        let pinned = VersionSelector::Version(Version::new(2).unwrap());
        assert_eq!(computed(&|call| call.request.version = pinned.clone()).await, None);
        let sequence = |call: &mut Call| {
            let parameters = [
                ("sequence_id", 7_i64.into()),
                ("sequence_start", ParameterValue::Bool(true)),
            ];
            call.request
                .parameters
                .extend(parameters.map(|(name, value)| (name.to_owned(), value)));
        };
        assert_eq!(computed(&sequence).await, None);
    });
}

#[test]
fn so_many_bytes_of_inputs_are_looked_for_and_with_one_more_none() {
    run(async {
        let (bed, target) = (bed(TenantLimits::default(), 1), cached(1));
        let mut call = bed.call("acme", "split");
        let mut other = call.request.inputs[0].clone();
        other.data = Bytes::from(vec![0; 8]);
        call.request.inputs[0].data = Bytes::from(vec![0; MAX_KEYED_BYTES - 8]);
        call.request.inputs.push(other);
        assert!(Remembered::of(&target, &call).is_some());
        call.request.inputs[1].data = Bytes::from(vec![0; 9]);
        assert!(Remembered::of(&target, &call).is_none());
    });
}

#[test]
fn who_comes_after_a_purge_does_not_wait_for_who_came_before() {
    run(async {
        let bed = bed(TenantLimits::default(), 1);
        let before = bed.router.infer(bed.call("acme", "split"));
        let after = async {
            bed.job().await;
            let endpoint = EndpointId::parse("split").unwrap();
            bed.parts.cache.purge(&tenant("acme"), &endpoint);
            let (after, ()) = tokio::join!(bed.router.infer(bed.call("acme", "split")), async {
                bed.jobs(2).await;
                bed.answer_all();
            });
            after
        };
        let (before, after) = tokio::join!(before, after);
        assert_eq!(outcome_of(before), Some(CacheOutcome::Miss));
        assert_eq!(outcome_of(after), Some(CacheOutcome::Miss));
        assert_eq!(bed.parts.cache.usage().entries, 1, "that of the one after it");
    });
}

#[test]
fn a_model_with_any_number_of_answers_is_never_remembered() {
    run(async {
        let bed = bed(TenantLimits::default(), 1);
        let Target::Endpoint(endpoint) = cached(1) else {
            panic!("an endpoint")
        };
        let mut streams = Route::clone(&endpoint);
        for arm in &mut streams.arms {
            let plain = arm.version.take().unwrap();
            arm.version = Some(Arc::new(VersionEntry {
                config: Arc::new(ModelConfig {
                    model_transaction_policy: Some(ModelTransactionPolicy { decoupled: true }),
                    ..ModelConfig::clone(&plain.config)
                }),
                ..VersionEntry::clone(&plain)
            }));
        }
        bed.publish(
            TenantLimits::default(),
            &[("split", Target::Endpoint(Arc::new(streams)))],
        );
        for asked in 1..=2 {
            let mut call = bed.call("acme", "split");
            call.room = Room::Many;
            let (answer, ()) = tokio::join!(bed.router.infer(call), async {
                bed.jobs(asked).await;
                for (_, job, end) in bed.workers.jobs.lock().drain(..) {
                    let answers = job.answers.as_ref().unwrap();
                    answers.give(outcome(&job, &["y"]).outputs).unwrap();
                    let _ = end.send(Ok(outcome(&job, &[])));
                }
            });
            let mut answers = answer.into_many().unwrap();
            assert!(answers.next().await.unwrap().is_ok() && answers.next().await.is_none());
        }
        assert_eq!(bed.parts.cache.usage().entries, 0);
    });
}

#[test]
fn an_endpoint_without_a_cache_and_a_model_itself_are_computed_each_time() {
    run(async {
        let bed = bed(TenantLimits::default(), 1);
        for asked in 1..=2 {
            let (answer, ()) = tokio::join!(bed.router.infer(bed.call("acme", "plain")), async {
                bed.jobs(asked).await;
                bed.answer_all();
            });
            assert_eq!(outcome_of(answer), None);
        }
        assert_eq!(bed.parts.cache.usage().entries, 0);
    });
}

#[test]
fn two_tenants_with_equal_endpoints_on_one_model_share_nothing() {
    run(async {
        let bed = bed(TenantLimits::default(), 1);
        let targets = [("split", cached(1))];
        let tenants = ["acme", "globex"].map(|name| entry(name, TenantLimits::default(), &targets));
        bed.parts
            .snapshots
            .store(Arc::new(MeshSnapshot::new(1, bed.credentials.clone(), tenants)));
        for (asked, who) in ["acme", "globex"].into_iter().enumerate() {
            let (answer, ()) = tokio::join!(bed.router.infer(bed.call(who, "split")), async {
                bed.jobs(asked + 1).await;
                bed.answer_all();
            });
            assert_eq!(outcome_of(answer), Some(CacheOutcome::Miss), "{who}");
            assert_eq!(
                outcome_of(found(&bed, bed.call(who, "split")).await),
                Some(CacheOutcome::Hit)
            );
        }
    });
}
