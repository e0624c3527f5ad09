//! What the split promises: exact shares, stickiness, movement only where weight moved, independence, no gap.

use std::{collections::HashSet, sync::Arc};

use mesh_types::{EndpointId, Label, TenantId, Version, VersionSelector};
use proptest::prelude::*;

use super::{Arm, Route, WHOLE, point, slot};
use crate::snapshot::tests::model;

const SALT: &str = "00112233445566778899aabbccddeeff";

fn acme() -> TenantId {
    TenantId::parse("acme").unwrap()
}

fn route_salted(weights: &[u32], salt: &str) -> Route {
    let entry = Arc::new(model("digits", &[(1, true)]));
    let arm = |(index, hundredths): (usize, &u32)| Arm {
        name: Arc::from(index.to_string()),
        version: None,
        model: Arc::clone(&entry),
        hundredths: *hundredths,
    };
    Route {
        endpoint: EndpointId::parse("digits").unwrap(),
        arms: weights.iter().enumerate().map(arm).collect(),
        unit: Some("user".into()),
        salt: salt.into(),
        timeout: None,
        cache: None,
        class: mesh_types::ServiceClass::default(),
    }
}

fn route(weights: &[u32]) -> Route {
    route_salted(weights, SALT)
}

/// The index of the chosen arm.
fn arm_of(route: &Route, user: &str) -> Option<usize> {
    route
        .choose(&acme(), Some(user), 0)
        .map(|arm| arm.name.parse().unwrap())
}

#[test]
fn the_point_of_a_unit_is_the_first_eight_bytes_of_sha_256() {
    // printf '<salt>\0acme\0user\0u1' | sha256sum
    assert_eq!(point(SALT, &acme(), "user", "u1"), 0xd079_bc86_03cb_c79c);
    assert_eq!(slot(0xd079_bc86_03cb_c79c), 8143);
    assert_eq!(point("s", &acme(), "user", "ü"), 0x0b3a_a7af_4f3d_026a);
    assert_eq!(slot(0x0b3a_a7af_4f3d_026a), 438);
}

#[test]
fn every_slot_has_the_same_share_and_the_ends_are_in_range() {
    assert_eq!(slot(0), 0);
    assert_eq!(slot(u64::MAX), WHOLE - 1);
    // The first point of each slot is in it, and the one before is not.
    for wanted in 1..WHOLE {
        let first = (u128::from(wanted) << 64).div_ceil(u128::from(WHOLE));
        let first = u64::try_from(first).unwrap();
        assert_eq!((slot(first - 1), slot(first)), (wanted - 1, wanted));
    }
}

#[test]
fn shares_are_as_weighted_within_five_standard_deviations() {
    let weights = [5_000, 3_000, 1_990, 10];
    let route = route(&weights);
    let units = 200_000_u32;
    let mut counts = [0_u32; 4];
    for user in 0..units {
        counts[arm_of(&route, &format!("user-{user}")).unwrap()] += 1;
    }
    for (count, weight) in counts.iter().zip(weights) {
        let share = f64::from(weight) / f64::from(WHOLE);
        let expected = f64::from(units) * share;
        let deviation = (expected * (1.0 - share)).sqrt();
        assert!(
            (f64::from(*count) - expected).abs() < 5.0 * deviation,
            "{counts:?} of {weights:?}"
        );
    }
}

#[test]
fn a_unit_stays_whatever_the_random_number_and_a_route_without_units_follows_it() {
    let mut route = route(&[5_000, 5_000]);
    let name = |route: &Route, random| {
        route
            .choose(&acme(), Some("u1"), random)
            .map(|arm| arm.name.to_string())
    };
    assert_eq!(name(&route, 0), name(&route, u64::MAX));
    assert_eq!(&*route.choose(&acme(), None, 0).unwrap().name, "0");
    assert_eq!(&*route.choose(&acme(), None, u64::MAX).unwrap().name, "1");
    route.unit = None;
    assert_ne!(name(&route, 0), name(&route, u64::MAX));
}

#[test]
fn moving_weight_between_neighbours_moves_units_only_that_way() {
    let (before, after) = (route(&[9_000, 1_000]), route(&[5_000, 5_000]));
    let mut moved = 0;
    for user in 0..20_000 {
        let user = format!("user-{user}");
        match (arm_of(&before, &user), arm_of(&after, &user)) {
            (Some(0), Some(1)) => moved += 1,
            (from, to) => assert_eq!(from, to, "{user}"),
        }
    }
    assert!((7_600..8_400).contains(&moved), "{moved} of 20000 moved, 8000 expected");
}

#[test]
fn two_salts_two_tenants_and_two_unit_names_split_independently() {
    let tenths = [1_000; 10];
    let first = route(&tenths);
    let other_salt = route_salted(&tenths, "ffeeddccbbaa99887766554433221100");
    let mut other_unit = route(&tenths);
    other_unit.unit = Some("session".into());
    let globex = TenantId::parse("globex").unwrap();
    for (what, second, tenant) in [
        ("salt", &other_salt, acme()),
        ("unit name", &other_unit, acme()),
        ("tenant", &first, globex),
    ] {
        let units = 100_000;
        let mut table = [[0_f64; 10]; 10];
        for user in 0..units {
            let user = format!("user-{user}");
            let arm = second.choose(&tenant, Some(&user), 0).unwrap();
            table[arm_of(&first, &user).unwrap()][arm.name.parse::<usize>().unwrap()] += 1.0;
        }
        let rows: Vec<f64> = table.iter().map(|row| row.iter().sum()).collect();
        let columns: Vec<f64> = (0..10)
            .map(|column| table.iter().map(|row| row[column]).sum())
            .collect();
        let mut chi_square = 0.0;
        for (row, in_row) in table.iter().zip(&rows) {
            for (observed, in_column) in row.iter().zip(&columns) {
                let expected = in_row * in_column / f64::from(units);
                chi_square += (observed - expected).powi(2) / expected;
            }
        }
        // 81 degrees of freedom: 137 is exceeded once in ten thousand times; the same split twice gives 900000.
        assert!(chi_square < 137.0, "{what}: {chi_square}");
    }
}

#[test]
fn a_part_of_one_name_never_counts_as_the_start_of_the_next() {
    let points = [
        point("s", &acme(), "user", "u1"),
        point("s", &acme(), "use", "ru1"),
        point("sa", &TenantId::parse("cme").unwrap(), "user", "u1"),
    ];
    assert_eq!(points.iter().collect::<HashSet<_>>().len(), points.len());
}

#[test]
fn weights_short_of_the_whole_leave_the_rest_without_an_arm() {
    let short = route(&[9_999]);
    assert!(short.arm_at(u64::MAX).is_none());
    assert!(short.arm_at(0).is_some());
    assert!(route(&[]).arm_at(0).is_none());
    assert!(route(&[WHOLE]).arm_at(u64::MAX).is_some());
}

#[test]
fn a_pin_finds_the_first_arm_whose_model_has_the_version() {
    let mut route = route(&[5_000, 5_000]);
    let mut second = model("letters", &[(1, true), (2, false)]);
    second
        .labels
        .insert(Label::parse("canary").unwrap(), Version::new(2).unwrap());
    route.arms[1].model = Arc::new(second);
    let pin = |text: &str| {
        let (arm, version) = route.pinned(&VersionSelector::parse(text).unwrap())?;
        Some((arm.name.to_string(), version.key.to_string()))
    };
    assert_eq!(pin("1"), Some(("0".into(), "acme/digits/1".into())));
    assert_eq!(pin("2"), Some(("1".into(), "acme/letters/2".into())));
    assert_eq!(pin("canary"), Some(("1".into(), "acme/letters/2".into())));
    assert_eq!(pin("3"), None);
    assert!(route.pinned(&VersionSelector::Default).is_none());
}

#[test]
fn a_pin_prefers_the_arm_that_answers_with_the_version() {
    let mut route = route(&[9_000, 1_000]);
    let shared = Arc::new(model("digits", &[(1, true), (2, true)]));
    for (arm, number) in route.arms.iter_mut().zip([1, 2]) {
        arm.model = shared.clone();
        arm.version = shared.versions.get(&Version::new(number).unwrap()).cloned();
    }
    let pin = |text: &str| {
        let (arm, version) = route.pinned(&VersionSelector::parse(text).unwrap())?;
        Some((arm.name.to_string(), version.key.version.get()))
    };
    assert_eq!(pin("1"), Some(("0".into(), 1)));
    assert_eq!(pin("2"), Some(("1".into(), 2)));
}

/// Weights that add up to the whole, some of them zero.
fn whole_weights() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(0..=WHOLE, 0..15).prop_map(|mut cuts| {
        cuts.extend([0, WHOLE]);
        cuts.sort_unstable();
        cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
    })
}

proptest! {
    #[test]
    fn whole_weights_give_every_point_one_arm_and_never_one_without_weight(
        weights in whole_weights(), random in any::<u64>(), unit in ".{0,40}",
    ) {
        let route = route(&weights);
        for arm in [
            route.arm_at(random), route.arm_at(0), route.arm_at(u64::MAX), route.choose(&acme(), Some(&unit), random),
        ] {
            prop_assert!(arm.is_some_and(|arm| arm.hundredths > 0));
        }
    }

    #[test]
    fn an_arm_owns_exactly_its_slots(weights in whole_weights()) {
        let route = route(&weights);
        let mut owned = vec![0_u32; weights.len()];
        for slot in 0..WHOLE {
            let point = (u128::from(slot) << 64).div_ceil(u128::from(WHOLE));
            let arm = route.arm_at(u64::try_from(point).unwrap()).unwrap();
            owned[arm.name.parse::<usize>().unwrap()] += 1;
        }
        prop_assert_eq!(owned, weights);
    }

    #[test]
    fn raising_the_last_arm_never_takes_a_unit_from_it(
        weights in whole_weights(), more in 0..=WHOLE, random in any::<u64>(),
    ) {
        let last = weights.len() - 1;
        let mut raised = weights.clone();
        let mut left = more;
        for weight in raised[..last].iter_mut().rev() {
            let taken = left.min(*weight);
            *weight -= taken;
            left -= taken;
        }
        raised[last] += more - left;
        let (before, after) = (route(&weights), route(&raised));
        let (from, to) = (before.arm_at(random).unwrap(), after.arm_at(random).unwrap());
        prop_assert!(from.name == to.name || *to.name == *last.to_string());
    }
}
