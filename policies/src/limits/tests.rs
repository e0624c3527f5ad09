//! What the limits promise: exact bounds, honest waits, and that no snapshot refills a bucket.

use std::{sync::Arc, thread, time::Duration};

use mesh_types::{Fault, FaultClass, FaultSource, ManualClock, ModelId, Retry, TenantId};
use proptest::prelude::*;

use super::{
    Admission, Budgets, Charge, LimitError, Limiter, Limits, MAX_SUBJECTS, MAX_TENANTS, MAX_TOKEN_SUBJECTS, Now, Rate,
    TenantLimits, Unit, Who,
};

const REQUESTS: &str = "requests";
const CONCURRENCY: &str = "concurrency";
const KEY: &str = "key:k";
const BY_KEY: Who<'_> = Who {
    credential: KEY,
    subject: "k",
};

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn limiter() -> (Arc<ManualClock>, Limiter) {
    // 2026-11-26 00:00:00.
    let clock = Arc::new(ManualClock::at(20_783 * 86_400));
    let limiter = Limiter::new(Arc::clone(&clock) as Arc<dyn mesh_types::Clock>);
    (clock, limiter)
}

fn rate(per_second: u64, burst: u64) -> TenantLimits {
    Limits::default()
        .with_rate(Unit::Requests, Rate::new(per_second, burst))
        .into()
}

fn at_once(concurrency: u32) -> TenantLimits {
    Limits {
        concurrency: Some(concurrency),
        ..Limits::default()
    }
    .into()
}

fn both(concurrency: u32, per_second: u64, burst: u64) -> TenantLimits {
    Limits {
        concurrency: Some(concurrency),
        ..Limits::default()
    }
    .with_rate(Unit::Requests, Rate::new(per_second, burst))
    .into()
}

fn admit(limiter: &Limiter, tenant: &TenantId, limits: &TenantLimits) -> Result<Admission, LimitError> {
    limiter.caller(tenant, limits, BY_KEY)?.admit(limiter.now())
}

/// Admits and charges a request of the endpoint `e` and the model `owner/m`.
fn charged(limiter: &Limiter, limits: &TenantLimits, rows: u32, bytes: u64) -> Result<Admission, LimitError> {
    let (owner, model) = (tenant("owner"), ModelId::parse("m").unwrap());
    let charge = Charge {
        endpoint: Some("e"),
        model: (&owner, &model),
        rows,
        input_bytes: bytes,
    };
    admit(limiter, &tenant("acme"), limits)?.charge(&charge, limiter.now())
}

fn told(error: LimitError) -> (&'static str, u64, Duration) {
    match error {
        LimitError::Reached {
            rule,
            limit,
            retry_after,
        } => (rule.name(), limit, retry_after),
        other => panic!("{other}"),
    }
}

fn rule(error: &LimitError) -> &'static str {
    error.rule().unwrap().name()
}

/// How many requests in a row pass now.
fn passing(limiter: &Limiter, tenant: &TenantId, limits: &TenantLimits) -> u32 {
    passing_at_most(limiter, tenant, limits, u32::MAX)
}

fn passing_at_most(limiter: &Limiter, tenant: &TenantId, limits: &TenantLimits, most: u32) -> u32 {
    let mut passed = 0;
    while passed < most && admit(limiter, tenant, limits).is_ok() {
        passed += 1;
    }
    passed
}

#[test]
fn a_burst_of_n_passes_and_n_plus_1_does_not() {
    let (_, limiter) = limiter();
    for burst in [1_u32, 2, 20] {
        let tenant = tenant(&format!("burst-{burst}"));
        assert_eq!(passing(&limiter, &tenant, &rate(10, u64::from(burst))), burst);
    }
}

#[test]
fn who_waits_as_long_as_told_is_let_in_and_a_nanosecond_earlier_is_not() {
    let (clock, limiter) = limiter();
    let (acme, limits) = (tenant("acme"), rate(10, 3));
    passing(&limiter, &acme, &limits);
    clock.advance(Duration::from_millis(30));
    let (rule, limit, wait) = told(admit(&limiter, &acme, &limits).unwrap_err());
    assert_eq!((rule, limit), (REQUESTS, 10));
    assert_eq!(wait, Duration::from_millis(70));
    clock.advance(wait - Duration::from_nanos(1));
    assert!(admit(&limiter, &acme, &limits).is_err());
    clock.advance(Duration::from_nanos(1));
    assert!(admit(&limiter, &acme, &limits).is_ok());
}

#[test]
fn over_time_the_sustained_rate_passes_after_the_burst() {
    let (clock, limiter) = limiter();
    let (acme, limits) = (tenant("acme"), rate(10, 5));
    let mut passed = passing(&limiter, &acme, &limits);
    for _ in 0..1_000 {
        clock.advance(Duration::from_millis(10));
        passed += passing(&limiter, &acme, &limits);
    }
    assert_eq!(passed, 5 + 10 * 10);
    clock.advance(Duration::from_secs(3_600));
    assert_eq!(
        passing(&limiter, &acme, &limits),
        5,
        "a pause saves up the burst and no more"
    );
}

#[test]
fn n_requests_at_once_pass_and_n_plus_1_does_not_until_one_ends() {
    let (_, limiter) = limiter();
    let (acme, limits) = (tenant("acme"), at_once(3));
    let mut held: Vec<Admission> = (0..3).map(|_| admit(&limiter, &acme, &limits).unwrap()).collect();
    let error = admit(&limiter, &acme, &limits).unwrap_err();
    let (rule, limit, _) = told(error);
    assert_eq!((rule, limit), (CONCURRENCY, 3));
    assert_eq!(limiter.in_flight(&acme), 3);
    held.pop();
    assert_eq!(limiter.in_flight(&acme), 2);
    let again = admit(&limiter, &acme, &limits);
    assert!(again.is_ok());
    assert!(admit(&limiter, &acme, &limits).is_err());
    drop((held, again));
    assert_eq!(limiter.in_flight(&acme), 0);
}

#[test]
fn a_limit_of_none_at_once_lets_nobody_in() {
    let (_, limiter) = limiter();
    assert!(admit(&limiter, &tenant("acme"), &at_once(0)).is_err());
}

#[test]
fn a_lowered_limit_counts_what_is_already_running() {
    let (_, limiter) = limiter();
    let acme = tenant("acme");
    let held: Vec<Admission> = (0..3)
        .map(|_| admit(&limiter, &acme, &TenantLimits::default()).unwrap())
        .collect();
    assert!(admit(&limiter, &acme, &at_once(3)).is_err());
    assert!(admit(&limiter, &acme, &at_once(4)).is_ok());
    drop(held);
}

#[test]
fn a_refusal_holds_no_place_and_costs_no_token() {
    let (_, limiter) = limiter();
    let acme = tenant("acme");
    let both = both(1, 1, 2);
    let held = admit(&limiter, &acme, &both).unwrap();
    for _ in 0..10 {
        assert_eq!(rule(&admit(&limiter, &acme, &both).unwrap_err()), CONCURRENCY);
    }
    drop(held);
    assert!(admit(&limiter, &acme, &both).is_ok(), "the second token is still there");
    for _ in 0..10 {
        assert_eq!(rule(&admit(&limiter, &acme, &both).unwrap_err()), REQUESTS);
    }
    assert_eq!(limiter.in_flight(&acme), 0);
}

#[test]
fn one_tenants_use_is_not_anothers() {
    let (_, limiter) = limiter();
    passing(&limiter, &tenant("acme"), &rate(1, 5));
    assert_eq!(passing(&limiter, &tenant("globex"), &rate(1, 5)), 5);
}

#[test]
fn no_snapshot_refills_an_unchanged_limit() {
    let (_, limiter) = limiter();
    let acme = tenant("acme");
    passing(&limiter, &acme, &rate(1, 5));
    // Every snapshot brings the limits anew, and a limit of another kind may change beside it.
    assert!(admit(&limiter, &acme, &rate(1, 5)).is_err());
    let beside = both(9, 1, 5);
    assert!(admit(&limiter, &acme, &beside).is_err());
    // Nor does taking the limit away and setting it again.
    assert!(admit(&limiter, &acme, &TenantLimits::default()).is_ok());
    limiter.retain(|_| true);
    assert!(admit(&limiter, &acme, &rate(1, 5)).is_err());
}

#[test]
fn a_changed_limit_takes_over_the_share_that_was_left() {
    for (spent, expected) in [(0, 100), (5, 50), (10, 0)] {
        let (_, limiter) = limiter();
        let acme = tenant("acme");
        for _ in 0..spent {
            assert!(admit(&limiter, &acme, &rate(1, 10)).is_ok());
        }
        // Without a request under the former limit there is no bucket, and the new one begins full.
        assert_eq!(passing(&limiter, &acme, &rate(1, 100)), expected, "after {spent} of 10");
    }
    let (clock, limiter) = limiter();
    let acme = tenant("acme");
    passing(&limiter, &acme, &rate(1, 10));
    assert!(admit(&limiter, &acme, &rate(100, 10)).is_err());
    clock.advance(Duration::from_millis(10));
    assert_eq!(
        passing(&limiter, &acme, &rate(100, 10)),
        1,
        "the new rate counts at once"
    );
}

#[test]
fn the_widest_rates_neither_overflow_nor_refuse_and_change_into_each_other() {
    let (_, limiter) = limiter();
    let widest = [
        rate(u64::MAX, u64::MAX),
        rate(1, u64::MAX),
        rate(u64::MAX, 1),
        rate(0, 0),
    ];
    let bursts = [u64::MAX, u64::MAX, 1, 1];
    for (index, limits) in widest.iter().enumerate() {
        let own = tenant(&format!("own-{index}"));
        assert!(admit(&limiter, &own, limits).is_ok(), "{limits:?}");
        let left = passing_at_most(&limiter, &own, limits, 1_000);
        assert_eq!(left, u32::try_from(bursts[index].saturating_sub(1).min(1_000)).unwrap());
        // Whatever is left of a burst is a large share of the widest.
        assert!(
            admit(&limiter, &own, &rate(1, u64::MAX)).is_ok() || left == 0,
            "{limits:?}"
        );
    }
}

#[test]
fn zero_counts_as_one() {
    let (_, limiter) = limiter();
    assert_eq!(passing(&limiter, &tenant("acme"), &rate(0, 0)), 1);
}

#[test]
fn tenants_that_are_gone_are_forgotten_once_nothing_of_theirs_runs() {
    let (_, limiter) = limiter();
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let held = admit(&limiter, &acme, &at_once(1)).unwrap();
    passing(&limiter, &globex, &rate(1, 1));
    limiter.retain(|_| false);
    assert_eq!(limiter.tracked(), 1, "acme still runs a request");
    assert!(admit(&limiter, &acme, &at_once(1)).is_err());
    drop(held);
    limiter.retain(|tenant| tenant.as_str() == "acme");
    assert_eq!(limiter.tracked(), 1);
    limiter.retain(|_| false);
    assert_eq!(limiter.tracked(), 0);
}

#[test]
fn a_tenant_by_an_old_name_begins_at_nothing_while_the_old_one_still_runs() {
    let (_, limiter) = limiter();
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let held = admit(&limiter, &acme, &at_once(1)).unwrap();
    let others = admit(&limiter, &globex, &at_once(1)).unwrap();
    assert!(!limiter.take_forgot());
    limiter.renew(|tenant| tenant.as_str() == "acme");
    assert!(limiter.take_forgot() && !limiter.take_forgot());
    let first = admit(&limiter, &acme, &at_once(1)).unwrap();
    assert!(admit(&limiter, &globex, &at_once(1)).is_err());
    // What ends of the old one is none of the new one's.
    drop(held);
    assert!(admit(&limiter, &acme, &at_once(1)).is_err());
    drop((first, others));
    assert!(admit(&limiter, &acme, &at_once(1)).is_ok());
}

#[test]
fn as_many_tenants_as_the_bound_are_tracked_and_one_more_is_not() {
    let (_, limiter) = limiter();
    for index in 0..MAX_TENANTS {
        assert!(admit(&limiter, &tenant(&format!("t{index}")), &TenantLimits::default()).is_ok());
    }
    let error = admit(&limiter, &tenant("newcomer"), &TenantLimits::default()).unwrap_err();
    assert_eq!(Fault::from(error).class, FaultClass::Unavailable);
    assert!(admit(&limiter, &tenant("t0"), &TenantLimits::default()).is_ok());
    limiter.retain(|tenant| tenant.as_str() != "t0");
    assert!(admit(&limiter, &tenant("newcomer"), &TenantLimits::default()).is_ok());
}

#[test]
fn the_fault_is_the_tenants_limit_with_the_very_wait() {
    let (clock, limiter) = limiter();
    let acme = tenant("acme");
    passing(&limiter, &acme, &rate(3, 1));
    clock.advance(Duration::from_millis(1));
    let error = admit(&limiter, &acme, &rate(3, 1)).unwrap_err();
    let (_, _, wait) = told(error);
    let fault = Fault::from(error);
    assert_eq!(fault.class, FaultClass::RateLimited);
    assert_eq!(fault.source, FaultSource::TenantLimit);
    assert_eq!(fault.retry, Retry::After(wait));
    assert_eq!(
        fault.message,
        "the limit 'requests' of 3 a second is reached: try again in 333 ms"
    );
}

#[test]
fn many_threads_never_hold_more_than_the_limit() {
    let (_, limiter) = limiter();
    let acme = tenant("acme");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let admission = admit(&limiter, &acme, &at_once(3));
                    assert!(limiter.in_flight(&acme) <= 3);
                    drop(admission);
                }
            });
        }
    });
    assert_eq!(limiter.in_flight(&acme), 0);
}

#[test]
fn many_threads_share_one_burst() {
    let (_, limiter) = limiter();
    let acme = tenant("acme");
    let passed: u32 = thread::scope(|scope| {
        let one = || {
            (0..100)
                .filter(|_| admit(&limiter, &acme, &rate(1, 250)).is_ok())
                .count()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(one)).collect();
        let counts = threads.into_iter().map(|thread| thread.join().unwrap());
        counts.map(|count| u32::try_from(count).unwrap()).sum()
    });
    assert_eq!(passed, 250);
}

proptest! {
    /// Within any stretch of time no more than burst + rate * time pass, whatever the pauses, and an error tells the truth.
    #[test]
    fn no_pattern_of_calls_beats_the_bucket(
        per_second in 1_u64..2_000, burst in 1_u64..50, pauses in proptest::collection::vec(0_u64..20_000_000, 1..200),
    ) {
        let (clock, limiter) = limiter();
        let (acme, limits) = (tenant("acme"), rate(per_second, burst));
        let mut passed = Vec::new();
        let mut now = 0_u64;
        for pause in pauses {
            clock.advance(Duration::from_nanos(pause));
            now += pause;
            match admit(&limiter, &acme, &limits) {
                Ok(_) => passed.push(now),
                Err(error) => {
                    let (_, _, wait) = told(error);
                    prop_assert!(wait > Duration::ZERO);
                    prop_assert!(wait <= Duration::from_nanos(1_000_000_000_u64.div_ceil(per_second)), "{wait:?}");
                }
            }
        }
        for (first, start) in passed.iter().enumerate() {
            for (last, end) in passed.iter().enumerate().skip(first) {
                let count = (last - first + 1) as u64;
                prop_assert!(count * 1_000_000_000 <= burst * 1_000_000_000 + (end - start) * per_second);
            }
        }
    }

    /// Switching between two limits at every call never lets more pass than the wider of them would.
    #[test]
    fn changing_limits_back_and_forth_gains_nothing(
        first in 1_u64..50, second in 1_u64..50, calls in proptest::collection::vec(any::<bool>(), 1..300),
    ) {
        let (_, limiter) = limiter();
        let acme = tenant("acme");
        let limits = |one: &bool| if *one { rate(1, first) } else { rate(1, second) };
        let passed = calls.iter().filter(|one| admit(&limiter, &acme, &limits(one)).is_ok()).count();
        prop_assert!(passed as u64 <= first.max(second));
    }
}

mod budgets;
mod subjects;
mod units;
