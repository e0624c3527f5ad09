//! Facts about compiling: who may call what, and that nothing moves to what is not ready.

use mesh_policies::{Target, VersionPhase};
use mesh_resources::{Isolation, Spec, TenantSpec};
use mesh_types::{DeviceId, TenantShare, VersionSelector};
use proptest::prelude::*;

use crate::{Compiled, ModelState, Trouble, compile, samples::*};

fn one(name: &str, ready: bool) -> Vec<(String, bool)> {
    vec![(name.to_owned(), ready)]
}

#[test]
fn a_tenant_calls_its_endpoints_its_models_and_what_was_granted_and_nothing_else() {
    let records = records(
        1,
        &[
            a_tenant("acme"),
            a_tenant("globex"),
            a_model("acme", "own", &[], &["globex"]),
            a_model("acme", "secret", &[], &[]),
            a_version("acme/own/1", false),
            a_version("acme/secret/1", false),
            an_endpoint("acme", "front", &[("a", "own", "1", 100.0)]),
        ],
    );
    let compiled = compiled(&records, &ready(&["acme/own/1", "acme/secret/1"]), &Compiled::default());
    for name in ["front", "own", "secret"] {
        assert_eq!(answers(&compiled, "acme", name).len(), 1, "{name}");
    }
    assert_eq!(answers(&compiled, "globex", "own"), one("own/1", true));
    for foreign in ["secret", "front"] {
        assert_eq!(answers(&compiled, "globex", foreign), [], "{foreign}");
    }
    assert_eq!(compiled.snapshot.revision, 1);
}

#[test]
fn where_a_version_is_on_its_way_follows_from_what_is_wanted_and_what_is_there() {
    let phase = |reported: Option<ModelState>, unloaded: bool| {
        let all = [
            a_tenant("acme"),
            a_model("acme", "m", &[], &[]),
            a_version("acme/m/1", unloaded),
        ];
        let report = match reported {
            Some(state) => report(&[("acme/m/1", state)]),
            None => ready(&[]),
        };
        let compiled = compiled(&records(1, &all), &report, &Compiled::default());
        match compiled.snapshot.tenant("acme").unwrap().target("m").unwrap() {
            Target::Model(model) => model.versions.values().next().unwrap().phase,
            Target::Endpoint(_) => unreachable!(),
        }
    };
    for (reported, wanted, unwanted) in [
        (None, VersionPhase::Loading, VersionPhase::Settled),
        (
            Some(ModelState::Loading),
            VersionPhase::Loading,
            VersionPhase::Unloading,
        ),
        (Some(ModelState::Ready), VersionPhase::Settled, VersionPhase::Unloading),
        (
            Some(ModelState::Standby),
            VersionPhase::Settled,
            VersionPhase::Unloading,
        ),
        (
            Some(ModelState::Unloading),
            VersionPhase::Unloading,
            VersionPhase::Unloading,
        ),
        (
            Some(ModelState::Unavailable),
            VersionPhase::Settled,
            VersionPhase::Settled,
        ),
    ] {
        assert_eq!(
            (phase(reported, false), phase(reported, true)),
            (wanted, unwanted),
            "{reported:?}"
        );
    }
}

#[test]
fn a_tenants_weight_and_isolation_reach_the_snapshot() {
    let mut declared = a_tenant("acme");
    declared.spec = Spec::Tenant(TenantSpec {
        weight: 7,
        isolation: Isolation::Isolated,
        ..TenantSpec::default()
    });
    let records = records(1, &[declared, a_tenant("globex")]);
    let compiled = compiled(&records, &ready(&[]), &Compiled::default());
    let share = |name: &str| compiled.snapshot.tenant(name).unwrap().share;
    assert_eq!(
        share("acme"),
        TenantShare {
            weight: 7,
            isolated: true
        }
    );
    assert_eq!(share("globex"), TenantShare::default());
}

#[test]
fn an_endpoint_hides_a_model_of_its_name_and_an_own_model_a_granted_one() {
    let records = records(
        1,
        &[
            a_tenant("acme"),
            a_tenant("globex"),
            a_model("acme", "m", &[], &["globex"]),
            a_version("acme/m/1", false),
            a_model("globex", "m", &[], &[]),
            a_version("globex/m/7", false),
            an_endpoint("acme", "m", &[("a", "m", "", 100.0)]),
        ],
    );
    let compiled = compiled(&records, &ready(&["acme/m/1", "globex/m/7"]), &Compiled::default());
    let target = |caller: &str| compiled.snapshot.tenant(caller).unwrap().target("m").unwrap();
    assert!(matches!(target("acme"), Target::Endpoint(_)));
    assert_eq!(answers(&compiled, "globex", "m"), one("m/7", true));
}

#[test]
fn a_label_moves_once_its_new_version_is_ready() {
    let at = |revision, stable| {
        records(
            revision,
            &[
                a_tenant("acme"),
                a_model("acme", "m", &[("stable", stable)], &[]),
                a_version("acme/m/1", false),
                a_version("acme/m/2", false),
                an_endpoint("acme", "front", &[("a", "m", "stable", 100.0)]),
            ],
        )
    };
    let first = compiled(&at(1, 1), &ready(&["acme/m/1"]), &Compiled::default());
    assert_eq!(answers(&first, "acme", "front"), one("m/1", true));
    let loading = report(&[("acme/m/1", ModelState::Ready), ("acme/m/2", ModelState::Loading)]);
    let second = compiled(&at(2, 2), &loading, &first);
    assert_eq!(answers(&second, "acme", "front"), one("m/1", true));
    let third = compiled(&at(2, 2), &ready(&["acme/m/1", "acme/m/2"]), &second);
    assert_eq!(answers(&third, "acme", "front"), one("m/2", true));
}

#[test]
fn a_version_taken_off_in_the_same_breath_serves_until_the_next_is_ready_and_then_is_free_to_go() {
    let at = |revision, stable, unloaded| {
        records(
            revision,
            &[
                a_tenant("acme"),
                a_model("acme", "m", &[("stable", stable)], &[]),
                a_version("acme/m/1", unloaded),
                a_version("acme/m/2", false),
            ],
        )
    };
    let by_label = |compiled: &Compiled| {
        let Some(Target::Model(model)) = compiled.snapshot.tenant("acme").unwrap().target("m") else {
            panic!("a model")
        };
        let version = model.resolve(&VersionSelector::parse("stable").unwrap()).unwrap();
        (version.key.version.get(), version.is_ready())
    };
    let first = compiled(&at(1, 1, false), &ready(&["acme/m/1"]), &Compiled::default());
    let second = compiled(&at(2, 2, true), &ready(&["acme/m/1"]), &first);
    assert_eq!(by_label(&second), (1, true));
    assert!(second.routed.contains(&key("acme/m/1")));
    let third = compiled(&at(2, 2, true), &ready(&["acme/m/1", "acme/m/2"]), &second);
    assert_eq!(by_label(&third), (2, true));
    assert!(!third.routed.contains(&key("acme/m/1")), "{:?}", third.routed);
}

#[test]
fn a_new_split_waits_as_a_whole_until_every_arm_is_ready() {
    let at = |revision, arms: &[(&str, &str, &str, f64)]| {
        records(
            revision,
            &[
                a_tenant("acme"),
                a_version("acme/m/1", false),
                a_version("acme/m/2", false),
                an_endpoint("acme", "front", arms),
            ],
        )
    };
    let split = [("a", "m", "1", 50.0), ("b", "m", "2", 50.0)];
    let first = compiled(
        &at(1, &[("a", "m", "1", 100.0)]),
        &ready(&["acme/m/1"]),
        &Compiled::default(),
    );
    let second = compiled(&at(2, &split), &ready(&["acme/m/1"]), &first);
    assert_eq!(answers(&second, "acme", "front"), one("m/1", true));
    let third = compiled(&at(2, &split), &ready(&["acme/m/1", "acme/m/2"]), &second);
    assert_eq!(answers(&third, "acme", "front").len(), 2);
}

#[test]
fn an_arm_without_a_share_holds_nothing_up() {
    let at = |revision, percent| {
        records(
            revision,
            &[
                a_tenant("acme"),
                a_version("acme/m/1", false),
                a_version("acme/m/2", false),
                an_endpoint(
                    "acme",
                    "front",
                    &[("a", "m", "1", percent), ("b", "m", "2", 100.0 - percent)],
                ),
            ],
        )
    };
    let first = compiled(&at(1, 100.0), &ready(&["acme/m/1"]), &Compiled::default());
    assert_eq!(answers(&first, "acme", "front"), one("m/1", true));
    let second = compiled(&at(2, 0.0), &ready(&["acme/m/2"]), &first);
    assert_eq!(answers(&second, "acme", "front"), one("m/2", true));
}

#[test]
fn what_was_taken_off_on_purpose_stops_at_once_and_says_so() {
    let at = |unloaded| {
        records(
            u64::from(unloaded) + 1,
            &[a_tenant("acme"), a_version("acme/m/1", unloaded)],
        )
    };
    let first = compiled(&at(false), &ready(&["acme/m/1"]), &Compiled::default());
    let second = compiled(&at(true), &ready(&["acme/m/1"]), &first);
    assert_eq!(answers(&second, "acme", "m"), one("m/1", false));
    let Some(Target::Model(model)) = second.snapshot.tenant("acme").unwrap().target("m") else {
        panic!("a model")
    };
    let reason = model.versions[&number(1)].unavailable_reason.as_deref().unwrap();
    assert!(reason.contains("unloaded"), "{reason}");
}

#[test]
fn a_version_of_which_an_older_file_is_loaded_is_not_ready() {
    let records = records(1, &[a_tenant("acme"), a_version("acme/m/1", false)]);
    let trouble = Trouble {
        stale: [key("acme/m/1")].into(),
        ..Trouble::default()
    };
    let pepper = mesh_policies::Pepper::from_bytes([7; 32]);
    let compiled = compile(&records, &ready(&["acme/m/1"]), &trouble, &pepper, &Compiled::default());
    assert_eq!(answers(&compiled, "acme", "m"), one("m/1", false));
    assert!(compiled.routed.is_empty());
}

#[test]
fn a_version_on_a_draining_device_only_is_not_ready_and_says_why() {
    let records = records(
        1,
        &[
            a_tenant("acme"),
            a_model("acme", "m", &[], &[]),
            a_version("acme/m/1", false),
        ],
    );
    let mut report = draining(ready(&["acme/m/1"]));
    let version = |report: &crate::FleetReport| {
        let compiled = compiled(&records, report, &Compiled::default());
        let tenant = compiled.snapshot.tenant("acme").unwrap();
        let Some(Target::Model(model)) = tenant.target("m") else {
            panic!()
        };
        model.versions[&number(1)].clone()
    };
    let drained = version(&report);
    assert!(!drained.is_ready());
    assert!(drained.unavailable_reason.as_deref().unwrap().contains("drained"));
    // Another device that has it serves alone.
    let mut second = ready(&["acme/m/1"]).devices.remove(0);
    second.device = DeviceId::cpu(1);
    report.devices.push(second);
    assert_eq!(version(&report).ready_on, [DeviceId::cpu(1)]);
    assert_eq!(version(&ready(&["acme/m/1"])).ready_on, [CPU]);
}

#[test]
fn what_waits_for_a_version_that_loads_still_waits_after_a_drain() {
    let resources = |label: u32, revision| {
        let all = [
            a_tenant("acme"),
            a_model("acme", "m", &[("stable", label)], &[]),
            a_version("acme/m/1", false),
            a_version("acme/m/2", false),
            an_endpoint("acme", "front", &[("a", "m", "stable", 100.0)]),
        ];
        records(revision, &all)
    };
    let report = report(&[("acme/m/1", ModelState::Ready), ("acme/m/2", ModelState::Loading)]);
    let first = compiled(&resources(1, 1), &report, &Compiled::default());
    let moved = resources(2, 2);
    let waiting = compiled(&moved, &report, &first);
    assert_eq!(answers(&waiting, "acme", "front"), one("m/1", true));
    let drained = compiled(&moved, &draining(report.clone()), &waiting);
    assert_eq!(answers(&drained, "acme", "front"), one("m/1", false));
    let undrained = compiled(&moved, &report, &drained);
    assert_eq!(
        answers(&undrained, "acme", "front"),
        one("m/1", true),
        "it did not move to what is not loaded yet"
    );
    let loaded = compiled(&moved, &ready(&["acme/m/1", "acme/m/2"]), &undrained);
    assert_eq!(answers(&loaded, "acme", "front"), one("m/2", true));
}

#[test]
fn a_quarantined_version_is_not_ready_and_says_why() {
    let records = records(1, &[a_tenant("acme"), a_version("acme/m/1", false)]);
    let report = report(&[("acme/m/1", ModelState::Quarantined)]);
    let compiled = compiled(&records, &report, &Compiled::default());
    assert_eq!(answers(&compiled, "acme", "m"), one("m/1", false));
    let tenant = compiled.snapshot.tenant("acme").unwrap();
    let Some(Target::Model(model)) = tenant.target("m") else {
        panic!()
    };
    let reason = model.versions[&number(1)].unavailable_reason.as_deref();
    assert_eq!(reason, Some("it broke"));
}

#[test]
fn the_reason_of_a_failed_load_is_kept() {
    let records = records(1, &[a_tenant("acme"), a_version("acme/m/1", false)]);
    let failed = report(&[("acme/m/1", ModelState::Unavailable)]);
    let compiled = compiled(&records, &failed, &Compiled::default());
    let Some(Target::Model(model)) = compiled.snapshot.tenant("acme").unwrap().target("m") else {
        panic!("a model")
    };
    assert_eq!(
        model.versions[&number(1)].unavailable_reason.as_deref(),
        Some("it broke")
    );
}

/// The report with this version standing by, as one that was warm before or not.
fn standing_by(mut report: crate::FleetReport, text: &str, proven: bool) -> crate::FleetReport {
    let of = |model: &&mut crate::ModelReport| model.key == key(text);
    let model = report.devices[0].models.iter_mut().find(of).unwrap();
    (model.state, model.proven) = (ModelState::Standby, proven);
    report
}

#[test]
fn what_stands_by_is_led_to_and_one_that_was_never_warm_displaces_nothing_that_was() {
    let resources = |stable: u32| {
        [
            a_tenant("acme"),
            a_model("acme", "m", &[("stable", stable)], &[]),
            a_version("acme/m/1", false),
            a_version("acme/m/2", false),
            an_endpoint("acme", "front", &[("a", "m", "stable", 100.0)]),
        ]
    };
    let both = ready(&["acme/m/1", "acme/m/2"]);
    let alone = standing_by(ready(&["acme/m/1"]), "acme/m/1", false);
    let first = compiled(&records(1, &resources(1)), &alone, &Compiled::default());
    assert_eq!(
        answers(&first, "acme", "front"),
        one("m/1", true),
        "though it never was warm"
    );
    assert_eq!(answers(&first, "acme", "m"), one("m/1", true));
    let served = compiled(&records(1, &resources(1)), &ready(&["acme/m/1"]), &first);
    let moved = records(2, &resources(2));
    let unproven = standing_by(both.clone(), "acme/m/2", false);
    let waits = compiled(&moved, &unproven, &served);
    assert_eq!(answers(&waits, "acme", "front"), one("m/1", true), "the label waits");
    assert_eq!(
        answers(&waits, "acme", "m"),
        one("m/1", true),
        "and so does the default"
    );
    let proven = standing_by(both, "acme/m/2", true);
    let moves = compiled(&moved, &proven, &waits);
    assert_eq!(answers(&moves, "acme", "front"), one("m/2", true));
    assert_eq!(answers(&moves, "acme", "m"), one("m/2", true));
}

#[test]
fn a_label_that_moves_at_once_waits_for_nothing() {
    let resources = |stable: u32| {
        let mut model = a_model("acme", "m", &[("stable", stable)], &[]);
        if let Spec::Model(spec) = &mut model.spec {
            spec.label_moves = mesh_resources::LabelMoves::AtOnce;
        }
        [
            a_tenant("acme"),
            model,
            a_version("acme/m/1", false),
            a_version("acme/m/2", false),
        ]
    };
    let there = ready(&["acme/m/1"]);
    let first = compiled(&records(1, &resources(1)), &there, &Compiled::default());
    let second = compiled(&records(2, &resources(2)), &there, &first);
    let Target::Model(model) = second.snapshot.tenant("acme").unwrap().target("m").unwrap() else {
        panic!("a model")
    };
    let found = model.resolve(&VersionSelector::parse("stable").unwrap()).unwrap();
    assert_eq!((found.key.version, found.is_ready()), (number(2), false));
}

#[test]
fn a_version_policy_leaves_out_what_nothing_names() {
    use mesh_resources::VersionPolicy;
    let wanted = |policy: VersionPolicy, labels: &[(&str, u32)]| {
        let mut model = a_model("acme", "m", labels, &[]);
        if let Spec::Model(spec) = &mut model.spec {
            spec.version_policy = Some(policy);
        }
        let mut resources = vec![a_tenant("acme"), model, a_version("acme/m/5", true)];
        resources.extend((1..=4).map(|number| a_version(&format!("acme/m/{number}"), false)));
        resources.push(an_endpoint("acme", "front", &[("a", "m", "2", 100.0)]));
        let records = records(1, &resources);
        let kept = records.versions().filter(|version| version.is_wanted());
        kept.map(|version| version.key.version.get()).collect::<Vec<u32>>()
    };
    let latest = |num_versions| VersionPolicy::Latest { num_versions };
    assert_eq!(wanted(VersionPolicy::All {}, &[]), [1, 2, 3, 4]);
    assert_eq!(wanted(latest(1), &[]), [2, 4], "an endpoint names 2, and 5 is kept off");
    assert_eq!(wanted(latest(2), &[("old", 1)]), [1, 2, 3, 4]);
    let specific = VersionPolicy::Specific {
        versions: vec![number(3)],
    };
    assert_eq!(wanted(specific, &[]), [2, 3]);
}

#[test]
fn a_policy_that_leaves_a_version_out_lets_it_serve_until_the_next_is_ready() {
    let resources = || {
        let mut model = a_model("acme", "m", &[], &[]);
        if let Spec::Model(spec) = &mut model.spec {
            spec.version_policy = Some(mesh_resources::VersionPolicy::Latest { num_versions: 1 });
        }
        vec![a_tenant("acme"), model, a_version("acme/m/1", false)]
    };
    let first = compiled(&records(1, &resources()), &ready(&["acme/m/1"]), &Compiled::default());
    let mut more = resources();
    more.push(a_version("acme/m/2", false));
    let waits = compiled(&records(2, &more), &ready(&["acme/m/1"]), &first);
    assert_eq!(answers(&waits, "acme", "m"), one("m/1", true));
    assert!(waits.routed.contains(&key("acme/m/1")), "so it is not unloaded");
    let both = ready(&["acme/m/1", "acme/m/2"]);
    let moved = compiled(&records(2, &more), &both, &waits);
    assert_eq!(answers(&moved, "acme", "m"), one("m/2", true));
    assert!(!moved.routed.contains(&key("acme/m/1")));
}

#[test]
fn an_arm_whose_model_is_gone_keeps_its_share() {
    let records = records(
        1,
        &[
            a_tenant("acme"),
            a_version("acme/m/1", false),
            an_endpoint("acme", "front", &[("a", "gone", "", 30.0), ("b", "m", "1", 70.0)]),
        ],
    );
    let compiled = compiled(&records, &ready(&["acme/m/1"]), &Compiled::default());
    assert_eq!(
        answers(&compiled, "acme", "front"),
        [("none".to_owned(), false), ("m/1".to_owned(), true)]
    );
}

/// A step of a model's life: the version that `stable` names, which versions are kept off, and how the devices stand.
type Step = (u32, [bool; 3], [u8; 3]);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        1..=3u32,
        proptest::array::uniform3(any::<bool>()),
        proptest::array::uniform3(0..3u8),
    );
    proptest::collection::vec(step, 1..12)
}

proptest! {
    /// Whatever is declared and reported in whatever order: a call by label is answered whenever the version that answered
    /// the step before could still answer and the new one is on its way; and what is led to is really there.
    #[test]
    fn nothing_that_serves_is_given_up_for_what_is_not_ready(steps in steps()) {
        let texts = ["acme/m/1", "acme/m/2", "acme/m/3"];
        let mut previous = Compiled::default();
        let mut before: Option<u32> = None;
        for (revision, (stable, unloaded, states)) in (1u64..).zip(steps) {
            let mut resources = vec![
                a_tenant("acme"),
                a_model("acme", "m", &[("stable", stable)], &[]),
                an_endpoint("acme", "front", &[("a", "m", "stable", 100.0)]),
            ];
            resources.extend(texts.iter().zip(unloaded).map(|(text, unloaded)| a_version(text, unloaded)));
            let states = states.map(|state| match state {
                0 => None,
                1 => Some(ModelState::Loading),
                _ => Some(ModelState::Ready),
            });
            let reported: Vec<_> = texts.iter().zip(states).filter_map(|(text, state)| Some((*text, state?))).collect();
            let now = compiled(&records(revision, &resources), &report(&reported), &previous);
            let is_ready = |version: u32| states[version as usize - 1] == Some(ModelState::Ready);
            let answer = answers(&now, "acme", "front");
            let (name, serves) = answer[0].clone();
            let version: u32 = name.trim_start_matches("m/").parse().unwrap();
            prop_assert!(!serves || is_ready(version), "led to {name}, which is not there");
            let declared = is_ready(stable) && !unloaded[stable as usize - 1];
            if declared {
                prop_assert_eq!((version, serves), (stable, true));
            } else if let Some(before) = before.filter(|before| is_ready(*before))
                && !unloaded[stable as usize - 1]
            {
                prop_assert_eq!((version, serves), (before, true));
            }
            for key in &now.routed {
                prop_assert!(is_ready(key.version.get()));
            }
            before = serves.then_some(version);
            previous = now;
        }
    }
}
