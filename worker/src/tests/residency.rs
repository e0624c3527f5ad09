//! Who gives way, whatever a device holds.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

const SECOND: Duration = Duration::from_secs(1);

fn guards() -> impl Strategy<Value = u8> {
    0..5u8
}

fn holdings() -> impl Strategy<Value = Vec<(u64, u64, usize, u8, u32)>> {
    proptest::collection::vec((0..50u64, 0..20u64, 1..4usize, guards(), 0..10u32), 0..12)
}

fn held(now: Instant, raw: &[(u64, u64, usize, u8, u32)]) -> Vec<Holding<usize>> {
    let one = |(key, (weights, peak, instances, guard, worth)): (usize, &(u64, u64, usize, u8, u32))| Holding {
        key,
        size: Size {
            instances: *instances,
            weights: *weights,
            peak: *peak,
        },
        guard: match guard {
            0 => Guard::Busy,
            1 => Guard::Pinned,
            2 => Guard::Leaving,
            3 => Guard::Until(now + SECOND * *worth),
            _ => Guard::Free(f64::from(*worth)),
        },
    };
    raw.iter().enumerate().map(one).collect()
}

proptest! {
    #[test]
    fn only_who_may_go_goes_no_more_than_must_and_then_there_is_room(
        raw in holdings(),
        bytes in 0..400u64,
        slots in 1..5usize,
        weights in 0..80u64,
        peak in 0..20u64,
    ) {
        let (now, budget) = (Instant::now(), Budget { bytes, slots });
        let held = held(now, &raw);
        let newcomer = Size { instances: 1, weights, peak };
        let taken = |without: &BTreeSet<usize>, leaving: bool| {
            let stays = held.iter().filter(|holding| {
                !without.contains(&holding.key) && (leaving || holding.guard != Guard::Leaving)
            });
            budget.taken(stays.map(|holding| holding.size).chain([newcomer]))
        };
        match choose(budget, &held, newcomer) {
            Choice::Room => prop_assert!(taken(&BTreeSet::new(), true) <= bytes),
            Choice::Evict(victims) => {
                let victims: BTreeSet<usize> = victims.into_iter().collect();
                prop_assert!(!victims.is_empty());
                for key in &victims {
                    prop_assert!(matches!(held[*key].guard, Guard::Free(_)));
                    let mut fewer = victims.clone();
                    fewer.remove(key);
                    prop_assert!(taken(&fewer, false) > bytes, "{key} need not go");
                }
                prop_assert!(taken(&victims, false) <= bytes);
            }
            Choice::Later(until) => {
                prop_assert!(taken(&BTreeSet::new(), true) > bytes);
                let untils = held.iter().filter_map(|holding| match holding.guard {
                    Guard::Until(at) => Some(at),
                    _ => None,
                });
                prop_assert!(until.is_none() || until == untils.min());
            }
            Choice::Never(_) => {
                let unpinned = held.iter().filter(|holding| holding.guard != Guard::Pinned);
                let unpinned = unpinned.map(|holding| holding.key).collect();
                prop_assert!(taken(&unpinned, true) > bytes);
            }
        }
    }

    /// Where all are alike in size, who goes is worth no more than who stays.
    #[test]
    fn of_equals_in_size_the_least_worth_go(worths in proptest::collection::vec(0..1_000u32, 1..20), room in 1..20u64) {
        let size = Size { instances: 1, weights: 10, peak: 0 };
        let held: Vec<Holding<usize>> = worths
            .iter()
            .enumerate()
            .map(|(key, worth)| Holding { key, size, guard: Guard::Free(f64::from(*worth)) })
            .collect();
        let budget = Budget { bytes: room * 10, slots: 1 };
        if let Choice::Evict(victims) = choose(budget, &held, size) {
            let victims: BTreeSet<usize> = victims.into_iter().collect();
            let stay = worths.iter().enumerate().filter(|(key, _)| !victims.contains(key));
            let least = stay.map(|(_, worth)| *worth).min().unwrap_or(u32::MAX);
            prop_assert!(victims.iter().all(|key| worths[*key] <= least));
        }
    }
}

#[test]
fn only_as_many_batches_count_as_run_at_once() {
    let size = |instances, weights, peak| Size {
        instances,
        weights,
        peak,
    };
    let budget = Budget { bytes: 0, slots: 2 };
    let sizes = [size(1, 10, 5), size(1, 10, 100), size(2, 10, 7)];
    assert_eq!(budget.taken(sizes.into_iter()), 40 + 100 + 7);
    assert_eq!(
        budget.taken([size(1, 10, 5)].into_iter()),
        15,
        "one instance runs one batch"
    );
}

#[test]
fn worth_grows_with_recent_use_reload_time_and_the_users_weights() {
    let now = Instant::now();
    let used = |users: &[(&str, u32, u64)]| {
        let mut usage = Usage::default();
        for (name, weight, ago) in users {
            usage.note(now - SECOND * u32::try_from(*ago).unwrap(), &tenant(name), *weight);
        }
        usage
    };
    let at = now;
    let reload = Duration::from_millis(100);
    let worth = |users: &[(&str, u32, u64)], reload| used(users).worth(at, reload);
    assert!(worth(&[("a", 1, 2)], reload) > worth(&[("a", 1, 4)], reload));
    let (heavy, light) = (worth(&[("a", 2, 4)], reload), worth(&[("a", 1, 2)], reload));
    assert!((heavy - light).abs() < 1e-9, "twice the weight is worth half the age");
    let slow = worth(&[("a", 1, 8)], reload * 4);
    assert!(
        (slow - light).abs() < 1e-9,
        "four times the reload is worth four times the age"
    );
    assert!(worth(&[("a", 1, 2), ("b", 1, 2)], reload) > light, "of two users");
    assert_eq!(worth(&[], reload), 0.0);
    assert!(worth(&[("a", 1, 0)], reload).is_finite());
}

#[test]
fn as_many_users_as_the_bound_count_and_of_more_the_oldest_is_forgotten() {
    let now = Instant::now();
    let mut usage = Usage::default();
    for number in 0..=MAX_USERS {
        let at = now + SECOND * u32::try_from(number).unwrap();
        usage.note(at, &tenant(&format!("t{number}")), 1);
    }
    assert_eq!(usage.users.len(), MAX_USERS);
    assert!(usage.users.iter().all(|user| user.tenant.as_str() != "t0"));
    assert_eq!(usage.last(), Some(now + SECOND * u32::try_from(MAX_USERS).unwrap()));
}
