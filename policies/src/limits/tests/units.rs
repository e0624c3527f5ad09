//! Every unit and scope at its bound and one past it; device time trued up; budgets; shadow; what callers are told.

use super::*;
use crate::limits::{Marks, Notice};

const DAY: u64 = 86_400;

fn with(unit: Unit, per_second: u64, burst: u64) -> Limits {
    Limits::default().with_rate(unit, Rate::new(per_second, burst))
}

fn device(ms_per_second: u64, ms: u64) -> TenantLimits {
    with(Unit::DeviceTime, ms_per_second * 1_000, ms * 1_000).into()
}

/// A request that runs for so long, to its end.
fn run(limiter: &Limiter, limits: &TenantLimits, time: Duration) -> Result<(), LimitError> {
    let admission = charged(limiter, limits, 1, 0)?;
    let meter = admission.meter().unwrap();
    meter.began();
    meter.ran(time);
    Ok(())
}

#[test]
fn rows_and_bytes_pass_up_to_the_bound_and_one_more_does_not() {
    for (unit, name) in [(Unit::Rows, "rows"), (Unit::InputBytes, "input-bytes")] {
        let (clock, limiter) = limiter();
        let limits = TenantLimits::from(with(unit, 10, 20));
        let ask = |amount: u32| match unit {
            Unit::Rows => charged(&limiter, &limits, amount, 0),
            _ => charged(&limiter, &limits, 1, u64::from(amount)),
        };
        assert!(ask(15).is_ok());
        assert_eq!(told(ask(6).unwrap_err()), (name, 10, Duration::from_millis(100)));
        assert!(ask(5).is_ok(), "a refusal has taken nothing");
        clock.advance(Duration::from_secs(2));
        let beyond = ask(21).unwrap_err();
        assert_eq!(rule(&beyond), name);
        assert_eq!(Fault::from(beyond).class, FaultClass::TooLarge, "it would never fit");
        assert!(ask(20).is_ok());
    }
}

#[test]
fn a_refusal_of_the_second_step_gives_back_what_the_first_has_taken() {
    let (_, limiter) = limiter();
    let limits: TenantLimits = with(Unit::Requests, 1, 2).with_rate(Unit::Rows, Rate::new(1, 5)).into();
    for _ in 0..9 {
        assert!(charged(&limiter, &limits, 6, 0).is_err());
    }
    assert_eq!(limiter.in_flight(&tenant("acme")), 0);
    assert_eq!(limiter.usage(&tenant("acme")).unwrap().daily, [0; 4]);
    assert!(charged(&limiter, &limits, 4, 0).is_ok());
    assert!(charged(&limiter, &limits, 1, 0).is_ok());
    assert_eq!(rule(&charged(&limiter, &limits, 0, 0).unwrap_err()), REQUESTS);
}

#[test]
fn a_key_an_endpoint_and_a_model_are_limited_apart() {
    let (_, limiter) = limiter();
    let (owner, model) = (tenant("owner"), ModelId::parse("m").unwrap());
    let three = with(Unit::Requests, 1, 3);
    for (limits, name) in [
        (TenantLimits::default().with_key(KEY, three, None), "key-requests"),
        (
            TenantLimits::default().with_endpoint("e", three, None),
            "endpoint-requests",
        ),
        (
            TenantLimits::default().with_model(&owner, &model, three, None),
            "model-requests",
        ),
    ] {
        for _ in 0..3 {
            assert!(charged(&limiter, &limits, 1, 1).is_ok(), "{name}");
        }
        assert_eq!(rule(&charged(&limiter, &limits, 1, 1).unwrap_err()), name);
    }
    let another = TenantLimits::default().with_key("key:other", three, None);
    assert!(
        charged(&limiter, &another, 1, 1).is_ok(),
        "another key's limit is not this one's"
    );
    // Concurrency too, and each place comes back.
    let one = Limits {
        concurrency: Some(1),
        ..Limits::default()
    };
    let limits = TenantLimits::default().with_model(&owner, &model, one, None);
    let held = charged(&limiter, &limits, 1, 1).unwrap();
    assert_eq!(
        rule(&charged(&limiter, &limits, 1, 1).unwrap_err()),
        "model-concurrency"
    );
    drop(held);
    assert!(charged(&limiter, &limits, 1, 1).is_ok());
}

#[test]
fn what_waits_is_bounded_until_it_waits_no_longer() {
    let limits: TenantLimits = Limits {
        queued_rows: Some(10),
        queued_bytes: Some(100),
        ..Limits::default()
    }
    .into();
    let (_, limiter) = limiter();
    let first = charged(&limiter, &limits, 6, 50).unwrap();
    assert_eq!(rule(&charged(&limiter, &limits, 5, 0).unwrap_err()), "queued-rows");
    assert_eq!(rule(&charged(&limiter, &limits, 1, 51).unwrap_err()), "queued-bytes");
    let second = charged(&limiter, &limits, 4, 50).unwrap();
    assert!(charged(&limiter, &limits, 1, 0).is_err());
    let meter = first.meter().unwrap();
    meter.began();
    meter.began();
    let third = charged(&limiter, &limits, 6, 50).unwrap();
    assert!(charged(&limiter, &limits, 1, 0).is_err());
    drop(first);
    assert!(
        charged(&limiter, &limits, 1, 0).is_err(),
        "it had left the queue before"
    );
    drop((second, third));
    assert!(charged(&limiter, &limits, 10, 100).is_ok());
    assert!(matches!(
        charged(&limiter, &limits, 11, 0),
        Err(LimitError::Beyond { .. })
    ));
}

#[test]
fn device_time_is_estimated_first_and_then_what_it_was() {
    let (clock, limiter) = limiter();
    let limits = device(100, 50);
    // Nothing is known of its cost: one is let through, and pays what it took.
    run(&limiter, &limits, Duration::from_millis(200)).unwrap();
    let (name, limit, wait) = told(run(&limiter, &limits, Duration::ZERO).unwrap_err());
    assert_eq!((name, limit), ("device-ms", 100));
    // 150 of debt, and room for the estimate, which is a whole burst.
    assert_eq!(wait, Duration::from_secs(2));
    clock.advance(wait);
    assert_eq!(limiter.usage(&tenant("acme")).unwrap().daily[3], 200_000);
    // What is given back counts at once.
    run(&limiter, &limits, Duration::from_millis(1)).unwrap();
    run(&limiter, &limits, Duration::from_millis(1)).unwrap_err();
    clock.advance(Duration::from_millis(10));
    run(&limiter, &limits, Duration::from_millis(1)).unwrap();
    assert_eq!(limiter.usage(&tenant("acme")).unwrap().daily[3], 202_000);
}

#[test]
fn who_leaves_pays_for_what_ran_and_for_nothing_else() {
    let (_, limiter) = limiter();
    let limits = device(1_000, 100);
    let acme = tenant("acme");
    // Left before it ran.
    drop(charged(&limiter, &limits, 10, 0).unwrap());
    assert_eq!(limiter.usage(&acme).unwrap().daily[3], 0);
    // Left while it ran: the job still holds its meter.
    let admission = charged(&limiter, &limits, 1, 0).unwrap();
    let meter = admission.meter().unwrap();
    drop(admission);
    assert_eq!(limiter.in_flight(&acme), 0, "its place is free at once");
    meter.ran(Duration::from_millis(40));
    meter.ran(Duration::from_millis(30));
    drop(meter);
    assert_eq!(limiter.usage(&acme).unwrap().daily[3], 70_000);
    assert!(
        run(&limiter, &limits, Duration::ZERO).is_err(),
        "30 of 100 are left and 70 are expected"
    );
}

#[test]
fn in_the_long_run_no_more_device_time_is_used_than_the_rate() {
    let (clock, limiter) = limiter();
    let limits = device(100, 100);
    let mut used = 0;
    for step in 0..100_000_u64 {
        clock.advance(Duration::from_millis(1));
        let cost = 3 + step % 7;
        if run(&limiter, &limits, Duration::from_millis(cost)).is_ok() {
            used += cost;
        }
    }
    // 100 seconds at 100 ms, and a burst of 100.
    assert!((9_900..=10_110).contains(&used), "{used}");
}

fn budget(unit: Unit, soft: Option<u64>, hard: Option<u64>, monthly: bool) -> Budgets {
    let mut budgets = Budgets::default();
    let marks = if monthly {
        &mut budgets.monthly
    } else {
        &mut budgets.daily
    };
    marks[unit as usize] = Marks { soft, hard };
    budgets
}

fn with_budget(budgets: Budgets) -> TenantLimits {
    TenantLimits::new(Limits::default(), budgets, None)
}

#[test]
fn a_budget_lasts_to_its_hard_mark_and_begins_anew_with_its_window() {
    for (monthly, name, rest) in [(false, "daily-rows", DAY), (true, "monthly-rows", 5 * DAY)] {
        let (clock, limiter) = limiter();
        let limits = with_budget(budget(Unit::Rows, None, Some(10), monthly));
        clock.advance(Duration::from_secs(100));
        assert!(charged(&limiter, &limits, 10, 0).is_ok());
        let (rule, limit, wait) = told(charged(&limiter, &limits, 1, 0).unwrap_err());
        assert_eq!((rule, limit, wait), (name, 10, Duration::from_secs(rest - 100)));
        clock.advance(wait - Duration::from_secs(1));
        assert!(charged(&limiter, &limits, 1, 0).is_err());
        clock.advance(Duration::from_secs(1));
        assert!(charged(&limiter, &limits, 10, 0).is_ok());
        assert!(matches!(
            charged(&limiter, &limits, 11, 0),
            Err(LimitError::Beyond { .. })
        ));
    }
}

#[test]
fn a_soft_mark_is_told_once_in_its_window_and_refuses_nobody() {
    let (clock, limiter) = limiter();
    let limits = with_budget(budget(Unit::Requests, Some(2), Some(9), false));
    let passed = |limits: &TenantLimits| {
        let admission = charged(&limiter, limits, 1, 0).unwrap();
        let names: Vec<_> = admission.told().passed.iter().map(|rule| rule.name()).collect();
        (names, admission.caller().notice(limiter.now()).warning)
    };
    assert_eq!(passed(&limits), (vec![], String::new()));
    assert_eq!(
        passed(&limits),
        (vec!["daily-requests"], "\"daily-requests\";used=2;soft=2".to_owned())
    );
    assert_eq!(passed(&limits), (vec![], "\"daily-requests\";used=3;soft=2".to_owned()));
    clock.advance(Duration::from_secs(DAY));
    assert_eq!(passed(&limits).0, Vec::<&str>::new());
    assert_eq!(passed(&limits).0, ["daily-requests"]);
}

#[test]
fn use_is_kept_and_taken_over() {
    let (clock, before) = limiter();
    let limits = with_budget(budget(Unit::Requests, None, Some(5), false));
    for _ in 0..4 {
        drop(charged(&before, &limits, 2, 3).unwrap());
    }
    let changed = before.changed_usage();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].usage.daily, [4, 8, 12, 0]);
    assert!(before.changed_usage().is_empty(), "nothing has changed since");
    before.keep_again(&changed);
    assert_eq!(before.changed_usage(), changed);
    let after = Limiter::new(clock as Arc<dyn mesh_types::Clock>);
    after.restore_usage(changed);
    assert!(charged(&after, &limits, 1, 0).is_ok());
    assert_eq!(rule(&charged(&after, &limits, 1, 0).unwrap_err()), "daily-requests");
}

#[test]
fn in_shadow_nobody_is_refused_and_every_refusal_is_told() {
    let (_, limiter) = limiter();
    let shadow: TenantLimits = Limits {
        shadow: true,
        concurrency: Some(1),
        ..with(Unit::Requests, 1, 3).with_rate(Unit::Rows, Rate::new(1, 5))
    }
    .into();
    let shadowed = |rows| {
        let admission = charged(&limiter, &shadow, rows, 0).unwrap();
        let names: Vec<_> = admission.told().shadowed.iter().map(|rule| rule.name()).collect();
        (names, admission)
    };
    let (none, first) = shadowed(3);
    assert!(none.is_empty());
    assert_eq!(shadowed(1).0, ["concurrency"]);
    drop(first);
    // Nothing was taken of the one above, nor of this one: 2 rows and 2 requests are left.
    assert_eq!(shadowed(3).0, ["rows"]);
    assert_eq!(limiter.in_flight(&tenant("acme")), 0);
    assert!(shadowed(1).0.is_empty());
    assert!(shadowed(1).0.is_empty());
    assert_eq!(shadowed(1).0, ["requests"]);
    // Callers do not see it.
    assert_eq!(shadowed(1).1.caller().notice(limiter.now()), Notice::default());
    // The use is what it was.
    assert_eq!(limiter.usage(&tenant("acme")).unwrap().daily[0], 7);
    let budgets = Budgets {
        shadow: true,
        ..budget(Unit::Requests, None, Some(7), false)
    };
    let admission = charged(&limiter, &with_budget(budgets), 1, 0).unwrap();
    assert_eq!(admission.told().shadowed[0].name(), "daily-requests");
}

#[test]
fn callers_are_told_what_is_left_and_when_it_is_whole_again() {
    let (clock, limiter) = limiter();
    let limits = Limits {
        concurrency: Some(7),
        ..with(Unit::Requests, 2, 5).with_rate(Unit::Rows, Rate::new(10, 100))
    };
    let limits = TenantLimits::new(limits, budget(Unit::Requests, None, Some(50), false), Some("abc=")).with_endpoint(
        "e",
        with(Unit::InputBytes, 1, 8),
        None,
    );
    clock.advance(Duration::from_secs(10));
    let admission = charged(&limiter, &limits, 3, 4).unwrap();
    let notice = admission.caller().notice(limiter.now());
    assert_eq!(
        notice.policy.to_vec(),
        [
            "\"requests\";q=5;w=3;pk=:abc=:, \"concurrency\";q=7;qu=\"concurrent-requests\";pk=:abc=:, \
             \"daily-requests\";q=50;w=86400;pk=:abc=:",
            "\"endpoint-input-bytes\";q=8;qu=\"content-bytes\";w=8",
        ]
    );
    assert_eq!(
        notice.state,
        "\"requests\";r=4;t=1, \"concurrency\";r=6, \"endpoint-input-bytes\";r=4;t=4, \"daily-requests\";r=49;t=86390"
    );
    assert_eq!(
        notice.own_policy.to_vec(),
        ["\"rows\";q=100;qu=\"rows\";w=10;pk=:abc=:"]
    );
    assert_eq!(notice.own_state, "\"rows\";r=97;t=1");
    clock.advance(Duration::from_millis(250));
    assert!(
        admission
            .caller()
            .notice(limiter.now())
            .state
            .starts_with("\"requests\";r=4;t=1,")
    );
    drop(admission);
    clock.advance(Duration::from_millis(250));
    let admission = charged(&limiter, &limits, 1, 0).unwrap();
    assert!(
        admission
            .caller()
            .notice(limiter.now())
            .state
            .starts_with("\"requests\";r=4;t=1, \"concurrency\";r=6")
    );
}

#[test]
fn as_many_limited_subjects_as_the_bound_have_counters_and_those_at_rest_make_room() {
    let (clock, limiter) = limiter();
    let key = |index: usize| {
        let (name, one) = (format!("key:{index}"), with(Unit::Requests, 1, 1));
        let limits = TenantLimits::default().with_key(&name, one, None);
        let who = Who {
            credential: &name,
            subject: "",
        };
        let caller = limiter.caller(&tenant("acme"), &limits, who).unwrap();
        caller.admit(limiter.now()).map(drop)
    };
    for index in 0..MAX_SUBJECTS {
        assert!(key(index).is_ok());
    }
    let error = key(MAX_SUBJECTS).unwrap_err();
    assert_eq!(
        Fault::from(error).class,
        FaultClass::Unavailable,
        "the mesh's bound is not the tenant's limit"
    );
    assert!(key(0).is_err());
    clock.advance(Duration::from_secs(1));
    assert!(key(MAX_SUBJECTS).is_ok(), "all others are whole again");
    assert!(key(MAX_SUBJECTS).is_err());
}

/// Of requests at these times in nanoseconds, one after the other, those that one exact bucket lets through: what nobody asks for while
/// it is full is lost to it too, as where a busy machine lets no thread run for a while.
fn passed_by_one_bucket(times: &[u64], rate: u64, burst: u64) -> u64 {
    const ONE: u128 = 1_000_000_000;
    let full = u128::from(burst) * ONE;
    let (mut left, mut last, mut passed) = (full, 0, 0);
    for time in times {
        left = full.min(left + u128::from(time - last) * u128::from(rate));
        last = *time;
        if left >= ONE {
            left -= ONE;
            passed += 1;
        }
    }
    passed
}

/// Over threads that come as fast as they can, in real time: no more than the bound, and no more than 1 % less than one bucket lets through.
#[test]
fn the_rate_is_met_on_one_and_on_eight_threads() {
    const RATE: u64 = 20_000;
    const BURST: u64 = 2_000;
    for threads in [1_usize, 8] {
        let limiter = Limiter::new(Arc::new(mesh_types::SystemClock));
        let limits: TenantLimits = with(Unit::Requests, RATE, BURST).into();
        let acme = tenant("acme");
        let began = limiter.now().instant;
        let since = |now: Now| u64::try_from(now.instant.duration_since(began).as_nanos()).unwrap();
        let ask = || {
            let (mut passed, mut all, mut last, mut used_up) = (Vec::new(), Vec::new(), 0, false);
            // To the first refusal after that: then all is taken, however seldom threads were let run.
            while last < 500_000_000 || !used_up {
                let now = limiter.now();
                last = since(now);
                all.push(last);
                let caller = limiter.caller(&acme, &limits, BY_KEY).unwrap();
                used_up = caller.admit(now).is_err();
                if !used_up {
                    passed.push(last);
                }
            }
            (passed, all)
        };
        let asked: Vec<(Vec<u64>, Vec<u64>)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let (passed, all): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        let [mut passed, mut all] = [passed.concat(), all.concat()];
        passed.sort_unstable();
        all.sort_unstable();
        let last = *all.last().unwrap();
        let (count, most) = (passed.len() as u64, BURST + RATE * last / 1_000_000_000);
        assert!(count <= most, "{threads} threads: {count} of {most}");
        let exact = passed_by_one_bucket(&all, RATE, BURST);
        assert!(count * 100 >= exact * 99, "{threads} threads: {count} of {exact}");
        for (first, start) in passed.iter().enumerate().step_by(97) {
            for (end, at) in passed.iter().enumerate().skip(first) {
                let allowed = u128::from(BURST) * 1_000_000_000 + u128::from(at - start) * u128::from(RATE);
                // Whoever read the time before another may come after it: as many as there are threads.
                let slack = threads as u128 * 1_000_000_000;
                assert!(
                    (end - first + 1) as u128 * 1_000_000_000 <= allowed + slack,
                    "{threads} threads at {at}"
                );
            }
        }
    }
}

/// The same in time that threads move on themselves, where every window can be looked at and each token must be found.
#[test]
fn not_a_token_is_lost_or_found_twice_between_threads() {
    for threads in [1_u32, 8] {
        let (clock, limiter) = limiter();
        let limits: TenantLimits = with(Unit::Requests, 1_000, 50).into();
        let acme = tenant("acme");
        let ask = |share: u32| (0..share).filter(|_| admit(&limiter, &acme, &limits).is_ok()).count();
        let mut passed = 0;
        for _ in 0..200 {
            passed += thread::scope(|scope| {
                let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| ask(400 / threads))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
            });
            clock.advance(Duration::from_millis(10));
        }
        assert_eq!(passed, 50 + 199 * 10, "{threads} threads");
    }
}
