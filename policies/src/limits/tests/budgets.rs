//! Budgets of each subject of a token: apart from each other, of as many as the bound and of nobody past it, kept by name.

use super::*;
use crate::limits::{Marks, Scope, TenantUsage, TokenSubject, Usage};

const DAY: Duration = Duration::from_secs(86_400);

fn token(subject: &str) -> Who<'_> {
    Who {
        credential: "jwt:https://idp.test",
        subject,
    }
}

fn of(marks: Marks, unit: Unit, monthly: bool) -> Budgets {
    let mut budgets = Budgets::default();
    let window = if monthly {
        &mut budgets.monthly
    } else {
        &mut budgets.daily
    };
    window[unit as usize] = marks;
    budgets
}

fn hard(unit: Unit, hard: u64, monthly: bool) -> TenantLimits {
    let marks = Marks {
        soft: None,
        hard: Some(hard),
    };
    each(of(marks, unit, monthly))
}

fn each(budgets: Budgets) -> TenantLimits {
    TenantLimits::default().with_token_subjects(Limits::default(), budgets)
}

fn ask(limiter: &Limiter, limits: &TenantLimits, who: Who<'_>, rows: u32) -> Result<Admission, LimitError> {
    let (owner, model) = (tenant("owner"), ModelId::parse("m").unwrap());
    let charge = Charge {
        endpoint: None,
        model: (&owner, &model),
        rows,
        input_bytes: 3,
    };
    let caller = limiter.caller(&tenant("acme"), limits, who)?;
    caller.admit(limiter.now())?.charge(&charge, limiter.now())
}

/// What each subject has used, by name.
fn used(limiter: &Limiter) -> Vec<(String, Usage)> {
    let all = limiter.usage_of_subjects(&tenant("acme"));
    let mut all: Vec<_> = all
        .into_iter()
        .map(|(name, usage)| (format!("{} {}", name.issuer, name.subject), usage))
        .collect();
    all.sort_by(|one, other| one.0.cmp(&other.0));
    all
}

#[test]
fn each_subject_has_its_own_budget_until_its_window_ends_and_no_other_caller_meets_it() {
    for (monthly, name, windows) in [(false, "subject-daily-rows", 1), (true, "subject-monthly-rows", 5)] {
        let (clock, limiter) = limiter();
        let limits = hard(Unit::Rows, 10, monthly);
        assert!(limits.is_limited());
        let elsewhere = Who {
            credential: "jwt:https://other.test",
            ..token("ann")
        };
        for who in [token("ann"), token("bob"), elsewhere] {
            assert!(ask(&limiter, &limits, who, 10).is_ok(), "{who:?}");
            let refused = ask(&limiter, &limits, who, 1).map(drop).unwrap_err();
            assert_eq!(told(refused), (name, 10, DAY * windows));
            assert_eq!(refused.rule().unwrap().scope, Scope::Token);
            let beyond = ask(&limiter, &limits, who, 11).map(drop).unwrap_err();
            assert!(matches!(beyond, LimitError::Beyond { limit: 10, .. }));
        }
        assert!(ask(&limiter, &limits, BY_KEY, 11).is_ok());
        clock.advance(DAY * windows);
        assert!(ask(&limiter, &limits, token("ann"), 10).is_ok());
    }
}

#[test]
fn a_soft_mark_of_a_subject_is_told_to_it_alone_and_what_is_left_is_its_own() {
    let (_, limiter) = limiter();
    let marks = Marks {
        soft: Some(2),
        hard: Some(5),
    };
    let limits = each(of(marks, Unit::Requests, false));
    let passed = |who| {
        let admission = ask(&limiter, &limits, who, 1).unwrap();
        let names: Vec<_> = admission.told().passed.iter().map(|rule| rule.name()).collect();
        (names, admission.caller().notice(limiter.now()))
    };
    assert_eq!(passed(token("ann")).0, Vec::<&str>::new());
    let (names, notice) = passed(token("ann"));
    assert_eq!(names, ["subject-daily-requests"]);
    assert_eq!(notice.warning, "\"subject-daily-requests\";used=2;soft=2");
    assert_eq!(notice.state, "\"subject-daily-requests\";r=3;t=86400");
    assert_eq!(notice.policy.to_vec(), ["\"subject-daily-requests\";q=5;w=86400"]);
    assert_eq!(passed(token("ann")).0, Vec::<&str>::new());
    let (names, notice) = passed(token("bob"));
    assert_eq!((names, notice.warning), (vec![], String::new()));
    assert_eq!(notice.state, "\"subject-daily-requests\";r=4;t=86400");
}

#[test]
fn what_a_refusal_took_comes_back_and_device_time_is_what_it_was() {
    let (_, limiter) = limiter();
    let limits = hard(Unit::Rows, 10, false);
    assert!(ask(&limiter, &limits, token("ann"), 11).is_err());
    assert_eq!(used(&limiter), []);
    let admission = ask(&limiter, &limits, token("ann"), 2).unwrap();
    let meter = admission.meter().unwrap();
    drop(admission);
    meter.began();
    meter.ran(Duration::from_millis(7));
    drop(meter);
    let (name, usage) = used(&limiter).remove(0);
    assert_eq!(name, "https://idp.test ann");
    assert_eq!((usage.daily, usage.monthly), ([1, 2, 3, 7_000], [1, 2, 3, 7_000]));
    assert_eq!(limiter.usage(&tenant("acme")).unwrap().daily, usage.daily);
}

#[test]
fn as_many_subjects_as_the_bound_are_counted_and_nobody_past_it_is_let_in_before_a_window_ends() {
    for (monthly, windows) in [(false, 1), (true, 5)] {
        let (clock, limiter) = limiter();
        let limits = hard(Unit::Requests, 2, monthly);
        let name = |index: usize| format!("user-{index}");
        for index in 0..MAX_TOKEN_SUBJECTS {
            assert!(ask(&limiter, &limits, token(&name(index)), 1).is_ok());
        }
        let past = name(MAX_TOKEN_SUBJECTS);
        let full = LimitError::Full("subjects of tokens with budgets");
        let refused = || ask(&limiter, &limits, token(&past), 1).map(drop);
        assert_eq!(refused(), Err(full));
        assert_eq!(Fault::from(full).class, FaultClass::Unavailable);
        assert!(ask(&limiter, &limits, token(&name(0)), 1).is_ok());
        assert!(ask(&limiter, &limits, token(&name(0)), 1).is_err());
        clock.advance(DAY * windows - Duration::from_secs(1));
        limiter.retain(|_| true);
        assert_eq!(refused(), Err(full));
        // In shadow nobody is refused for want of room.
        let marks = Marks {
            soft: None,
            hard: Some(2),
        };
        let shadow = each(Budgets {
            shadow: true,
            ..of(marks, Unit::Requests, monthly)
        });
        assert!(ask(&limiter, &shadow, token(&past), 1).is_ok());
        clock.advance(Duration::from_secs(1));
        assert_eq!(refused(), Ok(()));
    }
}

#[test]
fn use_of_subjects_is_told_once_kept_by_name_and_taken_over() {
    let (clock, before) = limiter();
    let limits = hard(Unit::Requests, 3, true);
    for who in [token("ann"), token("ann"), token("bob")] {
        drop(ask(&before, &limits, who, 1).unwrap());
    }
    let kept = before.changed_usage();
    let subjects: Vec<&TokenSubject> = kept.iter().filter_map(|usage| usage.subject.as_ref()).collect();
    assert_eq!((kept.len(), subjects.len()), (3, 2));
    assert_eq!(before.changed_usage(), []);
    before.keep_again(&kept);
    assert_eq!(before.changed_usage().len(), 3);
    drop(ask(&before, &limits, token("bob"), 1).unwrap());
    assert_eq!(before.changed_usage().len(), 2, "the tenant's and bob's");
    assert!(
        subjects
            .iter()
            .all(|subject| before.is_counted(&tenant("acme"), Some(subject)))
    );

    let after = Limiter::new(clock.clone());
    after.restore_usage(kept.clone());
    assert_eq!(used(&after).len(), 2);
    assert!(ask(&after, &limits, token("ann"), 1).is_ok());
    let refused = ask(&after, &limits, token("ann"), 1).map(drop).unwrap_err();
    assert_eq!(rule(&refused), "subject-monthly-requests");

    // What was used in a month that is over is nothing any more, and takes no room.
    clock.advance(5 * DAY);
    let later = Limiter::new(clock);
    later.restore_usage(kept);
    assert_eq!(used(&later), []);
    assert!(!later.is_counted(
        &tenant("acme"),
        Some(&TokenSubject {
            issuer: "https://idp.test".into(),
            subject: "ann".into()
        })
    ));
}

#[test]
fn as_many_subjects_as_the_bound_are_taken_over_and_one_more_is_not() {
    let (_, limiter) = limiter();
    let usage = |index: usize| TenantUsage {
        tenant: tenant("acme"),
        subject: Some(TokenSubject {
            issuer: "https://idp.test".into(),
            subject: format!("user-{index}").into(),
        }),
        usage: Usage {
            day: 20_783,
            month: 682,
            daily: [1; 4],
            monthly: [1; 4],
        },
    };
    limiter.restore_usage((0..=MAX_TOKEN_SUBJECTS).map(usage));
    assert_eq!(used(&limiter).len(), MAX_TOKEN_SUBJECTS);
    // One that is there is brought up to date.
    limiter.restore_usage([usage(0)]);
    assert_eq!(used(&limiter)[0].1.daily, [2; 4]);
}

#[test]
fn who_has_no_budget_is_not_counted_by_name() {
    let (_, limiter) = limiter();
    let limits = TenantLimits::default().with_token_subjects(
        Limits::default().with_rate(Unit::Requests, Rate::new(1, 5)),
        Budgets::default(),
    );
    drop(ask(&limiter, &limits, token("ann"), 1).unwrap());
    drop(ask(&limiter, &hard(Unit::Requests, 3, true), BY_KEY, 1).unwrap());
    assert_eq!(used(&limiter), []);
}
