//! Limits of each subject of a token: apart from each other, of as many as the bound and of nobody past it, and exact.

use super::*;
use crate::limits::Scope;

const ISSUER: &str = "jwt:https://idp.test";

fn token(subject: &str) -> Who<'_> {
    Who {
        credential: ISSUER,
        subject,
    }
}

fn each(limits: Limits) -> TenantLimits {
    TenantLimits::default().with_token_subjects(limits, Budgets::default())
}

fn requests(per_second: u64, burst: u64) -> Limits {
    Limits::default().with_rate(Unit::Requests, Rate::new(per_second, burst))
}

fn ask(limiter: &Limiter, limits: &TenantLimits, who: Who<'_>) -> Result<Admission, LimitError> {
    limiter.caller(&tenant("acme"), limits, who)?.admit(limiter.now())
}

#[test]
fn each_subject_of_a_token_is_limited_apart_and_no_other_caller_is() {
    let (_, limiter) = limiter();
    let limits = each(requests(1, 2));
    let elsewhere = Who {
        credential: "jwt:https://other.test",
        ..token("ann")
    };
    // Names that would read alike if issuer and subject were written one after the other.
    let shifted = Who {
        credential: "jwt:https://idp.testa",
        subject: "nn",
    };
    for who in [token("ann"), token("bob"), elsewhere, shifted, token("")] {
        for _ in 0..2 {
            assert!(ask(&limiter, &limits, who).is_ok(), "{who:?}");
        }
        let refused = ask(&limiter, &limits, who).unwrap_err();
        assert_eq!(told(refused), ("subject-requests", 1, Duration::from_secs(1)));
        assert_eq!(refused.rule().unwrap().scope, Scope::Token);
    }
    let certificate = Who {
        credential: "cert:billing",
        subject: "billing",
    };
    for who in [BY_KEY, certificate] {
        for _ in 0..5 {
            assert!(ask(&limiter, &limits, who).is_ok(), "{who:?}");
        }
    }
}

#[test]
fn a_subject_meets_its_own_limits_and_its_tenants_and_sees_both() {
    let (_, limiter) = limiter();
    let limits = TenantLimits::new(requests(1, 3), Budgets::default(), Some("abc="))
        .with_token_subjects(requests(1, 2), Budgets::default());
    let notice = |who| ask(&limiter, &limits, who).unwrap().caller().notice(limiter.now());
    let of_ann = notice(token("ann"));
    assert_eq!(
        of_ann.policy.to_vec(),
        ["\"requests\";q=3;w=3;pk=:abc=:", "\"subject-requests\";q=2;w=2"]
    );
    assert_eq!(of_ann.state, "\"requests\";r=2;t=1, \"subject-requests\";r=1;t=1");
    assert_eq!(
        notice(token("bob")).state,
        "\"requests\";r=1;t=2, \"subject-requests\";r=1;t=1"
    );
    assert!(ask(&limiter, &limits, token("ann")).is_ok());
    // Nothing is left of the tenant's, and something of the subject's.
    assert_eq!(rule(&ask(&limiter, &limits, token("bob")).unwrap_err()), REQUESTS);
}

#[test]
fn every_unit_and_place_of_a_subject_is_given_back_or_trued_up() {
    let (clock, limiter) = limiter();
    let limits = each(
        Limits {
            concurrency: Some(1),
            queued_rows: Some(4),
            ..Limits::default()
        }
        .with_rate(Unit::DeviceTime, Rate::new(1_000_000, 100_000)),
    );
    let model = ModelId::parse("m").unwrap();
    let run = |subject: &'static str, rows, time| {
        let owner = tenant("owner");
        let charge = Charge {
            endpoint: None,
            model: (&owner, &model),
            rows,
            input_bytes: 0,
        };
        let admission = ask(&limiter, &limits, token(subject))?.charge(&charge, limiter.now())?;
        let meter = admission.meter().unwrap();
        meter.began();
        meter.ran(time);
        Ok::<_, LimitError>(admission)
    };
    let held = run("ann", 1, Duration::from_millis(1)).unwrap();
    let refused = run("ann", 1, Duration::ZERO).map(drop).unwrap_err();
    assert_eq!(rule(&refused), "subject-concurrency");
    assert!(run("bob", 1, Duration::ZERO).is_ok());
    drop(held);
    let refused = run("ann", 5, Duration::ZERO).map(drop).unwrap_err();
    assert_eq!(rule(&refused), "subject-queued-rows");
    drop(run("ann", 1, Duration::from_millis(300)).unwrap());
    assert_eq!(
        rule(&run("ann", 1, Duration::ZERO).map(drop).unwrap_err()),
        "subject-device-ms"
    );
    assert!(run("bob", 1, Duration::ZERO).is_ok());
    clock.advance(Duration::from_secs(1));
    assert!(run("ann", 1, Duration::ZERO).is_ok());
}

#[test]
fn as_many_subjects_of_tokens_as_the_bound_have_counters_and_nobody_past_it_is_let_in() {
    let (clock, limiter) = limiter();
    let limits = each(requests(1, 2)).with_key(KEY, requests(1, 2), None);
    let name = |index: usize| format!("user-{index}");
    for index in 0..MAX_TOKEN_SUBJECTS {
        assert!(ask(&limiter, &limits, token(&name(index))).is_ok());
    }
    let past = name(MAX_TOKEN_SUBJECTS);
    let refused = || ask(&limiter, &limits, token(&past)).unwrap_err();
    assert_eq!(refused(), LimitError::Full("subjects of tokens"));
    assert_eq!(Fault::from(refused()).class, FaultClass::Unavailable);
    // Those who are known keep their own account, and what admins have declared has room of its own.
    assert!(ask(&limiter, &limits, token(&name(0))).is_ok());
    assert_eq!(
        rule(&ask(&limiter, &limits, token(&name(0))).unwrap_err()),
        "subject-requests"
    );
    assert!(ask(&limiter, &limits, BY_KEY).is_ok());
    // Whoever has all back makes room: looked for at most once in the time that a refusal names.
    clock.advance(Duration::from_millis(999));
    assert_eq!(refused(), LimitError::Full("subjects of tokens"));
    clock.advance(Duration::from_millis(1));
    assert_eq!(
        refused(),
        LimitError::Full("subjects of tokens"),
        "looked a millisecond ago"
    );
    clock.advance(Duration::from_millis(99));
    assert!(ask(&limiter, &limits, token(&past)).is_ok());
    // The one that had taken two was not forgotten.
    assert!(ask(&limiter, &limits, token(&name(0))).is_ok());
    assert!(ask(&limiter, &limits, token(&name(0))).is_err());
}

/// A second of a device each second.
fn device_time() -> TenantLimits {
    each(Limits::default().with_rate(Unit::DeviceTime, Rate::new(1_000, 1_000)))
}

fn charged(limiter: &Limiter, limits: &TenantLimits, who: Who<'_>) -> Result<Admission, LimitError> {
    let (owner, model) = (tenant("owner"), ModelId::parse("m").unwrap());
    let charge = Charge {
        endpoint: None,
        model: (&owner, &model),
        rows: 1,
        input_bytes: 0,
    };
    ask(limiter, limits, who)?.charge(&charge, limiter.now())
}

/// A subject's caller leaves, and nothing is known of it any more; then a device has run five seconds for it.
fn run_for_nobody(clock: &ManualClock, limiter: &Limiter, limits: &TenantLimits, who: Who<'_>) {
    let admission = charged(limiter, limits, who).unwrap();
    let meter = admission.meter().unwrap();
    drop(admission);
    clock.advance(Duration::from_secs(10));
    limiter.retain(|_| true);
    meter.ran(Duration::from_secs(5));
}

#[test]
fn who_is_forgotten_while_a_device_runs_for_it_owes_what_that_took() {
    let ((clock, limiter), limits) = (limiter(), device_time());
    run_for_nobody(&clock, &limiter, &limits, token("ann"));
    let refused = charged(&limiter, &limits, token("ann")).map(drop).unwrap_err();
    assert_eq!(rule(&refused), "subject-device-ms");
}

#[test]
fn who_was_forgotten_while_a_device_ran_for_it_is_forgotten_again_once_that_is_paid() {
    let ((clock, limiter), limits) = (limiter(), device_time());
    run_for_nobody(&clock, &limiter, &limits, token("s0"));
    clock.advance(Duration::from_secs(7_200));
    // It takes no place of those that are as many as may be known at a time.
    let others = (1..=MAX_TOKEN_SUBJECTS).map(|number| format!("s{number}"));
    let held: Result<Vec<_>, _> = others.map(|name| charged(&limiter, &limits, token(&name))).collect();
    assert_eq!(held.map(|held| held.len()), Ok(MAX_TOKEN_SUBJECTS));
}

#[test]
fn a_limit_in_shadow_refuses_nobody_past_the_bound_either() {
    let (_, limiter) = limiter();
    let limits = each(Limits {
        shadow: true,
        concurrency: Some(1),
        ..requests(1, 1)
    });
    let all = (0..=MAX_TOKEN_SUBJECTS).map(|number| format!("s{number}"));
    let held: Result<Vec<_>, _> = all.map(|name| ask(&limiter, &limits, token(&name))).collect();
    assert_eq!(held.map(|held| held.len()), Ok(MAX_TOKEN_SUBJECTS + 1));
}

proptest! {
    /// However calls of subjects are mixed, each is let in exactly as if it were alone.
    #[test]
    fn subjects_are_limited_as_if_each_were_alone(
        per_second in 1_u64..500, burst in 1_u64..10,
        calls in proptest::collection::vec((0_u64..20_000_000, 0_usize..4), 1..200),
    ) {
        let (clock, limiter) = limiter();
        let (mixed, alone) = (each(requests(per_second, burst)), TenantLimits::from(requests(per_second, burst)));
        let names = ["ann", "bob", "cy", "di"];
        for (pause, index) in calls {
            clock.advance(Duration::from_nanos(pause));
            let among = ask(&limiter, &mixed, token(names[index])).map(drop);
            let apart = admit(&limiter, &tenant(names[index]), &alone).map(drop);
            let waits = |error: LimitError| { let (_, limit, wait) = told(error); (limit, wait) };
            prop_assert_eq!(among.map_err(waits), apart.map_err(waits));
        }
    }
}
