//! Facts about planning, in time that the tests move.

use std::time::{Duration, Instant};

use mesh_types::{DeviceId, InstanceGroup, InstanceKind};

use crate::{
    Compiled, FleetReport, MAX_ATTEMPTS, MAX_MOVES, MAX_UNLOADS, ModelState, Records, UNROUTED_REST,
    plan::{Books, Move, Plan},
    samples::*,
};

/// One turn of control without its I/O.
fn turn(books: &mut Books, records: &Records, report: &FleetReport, now: Instant) -> Plan {
    books.review(records, report, now);
    let trouble = books.trouble(records, report, &[CPU]);
    let pepper = mesh_policies::Pepper::from_bytes([7; 32]);
    let compiled = crate::compile(records, report, &trouble, &pepper, &Compiled::default());
    books.published(&compiled, report, now);
    books.plan(records, report, &[CPU], now)
}

fn loads(plan: &Plan) -> Vec<String> {
    let load = |next: &Move| match next {
        Move::Load(_, record) => Some(record.key.to_string()),
        Move::WarmUp(..) | Move::Unload(..) => None,
    };
    plan.moves.iter().filter_map(load).collect()
}

fn unloads(plan: &Plan) -> Vec<String> {
    let unload = |next: &Move| match next {
        Move::Unload(_, key) => Some(key.to_string()),
        Move::Load(..) | Move::WarmUp(..) => None,
    };
    plan.moves.iter().filter_map(unload).collect()
}

fn warm_ups(plan: &Plan) -> Vec<String> {
    let warm_up = |next: &Move| match next {
        Move::WarmUp(_, key) => Some(key.to_string()),
        Move::Load(..) | Move::Unload(..) => None,
    };
    plan.moves.iter().filter_map(warm_up).collect()
}

#[test]
fn what_is_wanted_and_not_there_is_loaded_once() {
    let (mut books, now) = (Books::default(), Instant::now());
    let records = records(1, &[a_version("acme/m/1", false), a_version("acme/m/2", true)]);
    assert_eq!(loads(&turn(&mut books, &records, &ready(&[]), now)), ["acme/m/1"]);
    assert_eq!(turn(&mut books, &records, &ready(&[]), now), Plan::default());
    assert!(!books.is_settled(&records, &ready(&[]), &[CPU]));
    books.loaded(&(CPU, key("acme/m/1")), Ok(()), now);
    assert_eq!(turn(&mut books, &records, &ready(&["acme/m/1"]), now), Plan::default());
    assert!(books.is_settled(&records, &ready(&["acme/m/1"]), &[CPU]));
}

#[test]
fn as_many_moves_as_allowed_are_under_way_and_not_one_more() {
    let (mut books, now) = (Books::default(), Instant::now());
    let resources: Vec<_> = (1..=MAX_MOVES + 1)
        .map(|n| a_version(&format!("acme/m/{n}"), false))
        .collect();
    let records = records(1, &resources);
    assert_eq!(turn(&mut books, &records, &ready(&[]), now).moves.len(), MAX_MOVES);
    assert_eq!(turn(&mut books, &records, &ready(&[]), now).moves.len(), 0);
    books.loaded(&(CPU, key("acme/m/1")), Ok(()), now);
    assert_eq!(turn(&mut books, &records, &ready(&["acme/m/1"]), now).moves.len(), 1);
}

#[test]
fn loads_that_wait_for_memory_do_not_keep_models_from_being_unloaded_and_unloads_have_a_bound_of_their_own() {
    let (mut books, now) = (Books::default(), Instant::now());
    let name = |n: usize| format!("acme/m/{n}");
    let wanted: Vec<_> = (1..=MAX_MOVES).map(|n| a_version(&name(n), false)).collect();
    let all = records(1, &wanted);
    assert_eq!(turn(&mut books, &all, &ready(&[]), now).moves.len(), MAX_MOVES);
    // What is there and not wanted any more, one more than may leave at once.
    let leaving: Vec<String> = (1..=MAX_UNLOADS + 1).map(|n| format!("acme/old/{n}")).collect();
    let there: Vec<&str> = leaving.iter().map(String::as_str).collect();
    assert_eq!(turn(&mut books, &all, &ready(&there), now).moves, []);
    let later = now + UNROUTED_REST * 2;
    assert_eq!(
        unloads(&turn(&mut books, &all, &ready(&there), later)).len(),
        MAX_UNLOADS
    );
    assert_eq!(unloads(&turn(&mut books, &all, &ready(&there), later)).len(), 0);
    books.unloaded(&(CPU, key("acme/old/1")), Ok(()), later);
}

#[test]
fn a_draining_device_is_given_nothing_new_and_keeps_what_it_has() {
    let (mut books, now) = (Books::default(), Instant::now());
    let records = records(1, &[a_version("acme/m/1", false), a_version("acme/m/2", false)]);
    let drained = draining(ready(&["acme/m/1"]));
    assert_eq!(turn(&mut books, &records, &drained, now), Plan::default());
    let later = now + UNROUTED_REST * 2;
    assert_eq!(turn(&mut books, &records, &drained, later).moves, []);
    assert!(
        books.is_settled(&records, &drained, &[CPU]),
        "it does not keep the mesh from being ready"
    );
    let undrained = ready(&["acme/m/1"]);
    assert_eq!(loads(&turn(&mut books, &records, &undrained, later)), ["acme/m/2"]);
}

#[test]
fn what_no_longer_is_wanted_leaves_a_draining_device_too() {
    let (mut books, now) = (Books::default(), Instant::now());
    let records = records(1, &[a_version("acme/m/1", true)]);
    let drained = draining(ready(&["acme/m/1"]));
    turn(&mut books, &records, &drained, now);
    let plan = turn(&mut books, &records, &drained, now + UNROUTED_REST);
    assert_eq!(unloads(&plan), ["acme/m/1"]);
}

#[test]
fn a_quarantined_version_is_there_it_is_not_loaded_again_and_can_be_unloaded() {
    let (mut books, now) = (Books::default(), Instant::now());
    let report = report(&[("acme/m/1", ModelState::Quarantined)]);
    let wanted = records(1, &[a_version("acme/m/1", false)]);
    assert_eq!(turn(&mut books, &wanted, &report, now), Plan::default());
    assert!(books.is_settled(&wanted, &report, &[CPU]));
    let unwanted = records(2, &[a_version("acme/m/1", true)]);
    turn(&mut books, &unwanted, &report, now);
    let plan = turn(&mut books, &unwanted, &report, now + UNROUTED_REST);
    assert_eq!(unloads(&plan), ["acme/m/1"]);
}

#[test]
fn a_failed_load_is_tried_again_at_a_growing_distance_and_a_bounded_number_of_times() {
    let (mut books, mut now) = (Books::default(), Instant::now());
    let records = records(1, &[a_version("acme/m/1", false)]);
    let place = (CPU, key("acme/m/1"));
    let mut waited = Duration::ZERO;
    for attempt in 1..=MAX_ATTEMPTS {
        assert_eq!(
            loads(&turn(&mut books, &records, &ready(&[]), now)).len(),
            1,
            "attempt {attempt}"
        );
        books.loaded(&place, Err("no such operator".to_owned()), now);
        assert!(
            books.is_settled(&records, &ready(&[]), &[CPU]),
            "a failure does not keep the mesh from being ready"
        );
        let plan = turn(&mut books, &records, &ready(&[]), now);
        assert_eq!(loads(&plan).len(), 0, "not before its time");
        if attempt < MAX_ATTEMPTS {
            let wait = plan.wake_at.unwrap().duration_since(now);
            assert!(wait > waited, "{wait:?} after {waited:?}");
            (now, waited) = (now + wait, wait);
        } else {
            assert_eq!(plan.wake_at, None);
        }
    }
    now += Duration::from_secs(86_400);
    assert_eq!(loads(&turn(&mut books, &records, &ready(&[]), now)).len(), 0);
    let reason = &books.trouble(&records, &ready(&[]), &[CPU]).reasons[&key("acme/m/1")];
    assert!(reason.starts_with("no such operator"), "{reason}");
    let view = books.view(&ready(&[]));
    assert_eq!(view.devices[0].models[0].state, ModelState::Unavailable);
    assert!(view.devices[0].models[0].reason.is_some());
}

#[test]
fn another_file_gives_a_failed_version_new_attempts() {
    let (mut books, now) = (Books::default(), Instant::now());
    let old = records(1, &[a_version_of("acme/m/1", false, 1)]);
    turn(&mut books, &old, &ready(&[]), now);
    books.loaded(&(CPU, key("acme/m/1")), Err("bad file".to_owned()), now);
    let new = records(2, &[a_version_of("acme/m/1", false, 2)]);
    assert_eq!(loads(&turn(&mut books, &new, &ready(&[]), now)), ["acme/m/1"]);
}

#[test]
fn a_version_goes_only_after_no_snapshot_has_led_to_it_for_a_while() {
    let (mut books, now) = (Books::default(), Instant::now());
    let wanted = records(1, &[a_tenant("acme"), a_version("acme/m/1", false)]);
    let off = records(2, &[a_tenant("acme"), a_version("acme/m/1", true)]);
    let there = ready(&["acme/m/1"]);
    assert_eq!(turn(&mut books, &wanted, &there, now), Plan::default());
    let plan = turn(&mut books, &off, &there, now);
    assert_eq!((plan.moves.len(), plan.wake_at), (0, Some(now + UNROUTED_REST)));
    assert_eq!(
        unloads(&turn(&mut books, &off, &there, now + UNROUTED_REST)),
        ["acme/m/1"]
    );
    books.unloaded(&(CPU, key("acme/m/1")), Ok(()), now + UNROUTED_REST);
    assert_eq!(
        turn(&mut books, &off, &ready(&[]), now + UNROUTED_REST),
        Plan::default()
    );
}

#[test]
fn a_version_wanted_again_in_time_stays() {
    let (mut books, now) = (Books::default(), Instant::now());
    let wanted = records(1, &[a_tenant("acme"), a_version("acme/m/1", false)]);
    let off = records(2, &[a_tenant("acme"), a_version("acme/m/1", true)]);
    let there = ready(&["acme/m/1"]);
    turn(&mut books, &off, &there, now);
    turn(&mut books, &wanted, &there, now + UNROUTED_REST / 2);
    let plan = turn(&mut books, &off, &there, now + UNROUTED_REST);
    assert_eq!(plan.moves.len(), 0, "the rest begins anew");
}

/// The version with one input of so many values.
fn called_with(text: &str, digit: u8, values: i64) -> mesh_resources::Resource {
    let mut resource = a_version_of(text, false, digit);
    if let mesh_resources::Spec::ModelVersion(spec) = &mut resource.spec {
        let spec = &mut spec.config;
        spec.input =
            serde_json::from_value(serde_json::json!([{"name": "x", "datatype": "FP32", "dims": [values]}])).unwrap();
    }
    resource
}

#[test]
fn a_version_that_is_called_otherwise_from_now_on_is_unloaded_and_then_loaded_anew() {
    let (mut books, now) = (Books::default(), Instant::now());
    let place = (CPU, key("acme/m/1"));
    let old = records(1, &[a_tenant("acme"), called_with("acme/m/1", 1, 1)]);
    let new = records(2, &[a_tenant("acme"), called_with("acme/m/1", 2, 2)]);
    let there = ready(&["acme/m/1"]);
    turn(&mut books, &old, &ready(&[]), now);
    books.loaded(&place, Ok(()), now);
    assert_eq!(turn(&mut books, &new, &there, now).moves.len(), 0);
    assert!(
        books
            .trouble(&new, &ready(&[]), &[CPU])
            .stale
            .contains(&key("acme/m/1"))
    );
    let later = now + UNROUTED_REST;
    assert_eq!(unloads(&turn(&mut books, &new, &there, later)), ["acme/m/1"]);
    books.unloaded(&place, Ok(()), later);
    assert_eq!(loads(&turn(&mut books, &new, &ready(&[]), later)), ["acme/m/1"]);
    assert!(books.trouble(&new, &ready(&[]), &[CPU]).stale.is_empty());
}

#[test]
fn a_version_whose_file_was_replaced_serves_on_until_the_new_one_has_taken_its_place() {
    let (mut books, now) = (Books::default(), Instant::now());
    let place = (CPU, key("acme/m/1"));
    let old = records(1, &[a_tenant("acme"), a_version_of("acme/m/1", false, 1)]);
    let new = records(2, &[a_tenant("acme"), a_version_of("acme/m/1", false, 2)]);
    let there = ready(&["acme/m/1"]);
    turn(&mut books, &old, &ready(&[]), now);
    books.loaded(&place, Ok(()), now);
    assert_eq!(turn(&mut books, &old, &there, now), Plan::default());
    assert_eq!(
        loads(&turn(&mut books, &new, &there, now)),
        ["acme/m/1"],
        "beside the old one"
    );
    let trouble = books.trouble(&new, &there, &[CPU]);
    assert!(trouble.stale.is_empty() && trouble.former.contains_key(&key("acme/m/1")));
    // It does not load: the old one serves on, and the new one is tried again a bounded number of times.
    let mut at = now;
    for _ in 1..MAX_ATTEMPTS {
        books.loaded(&place, Err("a broken file".into()), at);
        let plan = turn(&mut books, &new, &there, at);
        assert_eq!(plan.moves.len(), 0, "neither unloaded nor loaded at once");
        at = plan.wake_at.unwrap();
        assert_eq!(loads(&turn(&mut books, &new, &there, at)), ["acme/m/1"]);
    }
    books.loaded(&place, Err("a broken file".into()), at);
    let much_later = at + Duration::from_secs(86_400);
    assert_eq!(turn(&mut books, &new, &there, much_later), Plan::default());
    // Another file is tried at once.
    let third = records(3, &[a_tenant("acme"), a_version_of("acme/m/1", false, 3)]);
    assert_eq!(loads(&turn(&mut books, &third, &there, much_later)), ["acme/m/1"]);
    books.loaded(&place, Ok(()), much_later);
    assert!(books.trouble(&third, &there, &[CPU]).former.is_empty());
    assert_eq!(turn(&mut books, &third, &there, much_later), Plan::default());
}

#[test]
fn what_changes_without_a_load_is_told_to_the_device_and_the_version_stays_where_it_is() {
    let (mut books, now) = (Books::default(), Instant::now());
    let place = (CPU, key("acme/m/1"));
    let old = records(1, &[a_tenant("acme"), a_version("acme/m/1", false)]);
    let mut changed = a_version("acme/m/1", false);
    if let mesh_resources::Spec::ModelVersion(spec) = &mut changed.spec {
        spec.config.instance_group.push(InstanceGroup {
            count: 2,
            ..InstanceGroup::default()
        });
    }
    let new = records(2, &[a_tenant("acme"), changed]);
    turn(&mut books, &old, &ready(&[]), now);
    books.loaded(&place, Ok(()), now);
    let there = ready(&["acme/m/1"]);
    assert_eq!(loads(&turn(&mut books, &new, &there, now)), ["acme/m/1"]);
    assert!(
        books.trouble(&new, &there, &[CPU]).former.is_empty(),
        "what runs is what is declared"
    );
    books.loaded(&place, Ok(()), now);
    assert_eq!(turn(&mut books, &new, &there, now), Plan::default());
}

#[test]
fn what_stands_by_is_there_and_only_what_would_displace_another_version_is_warmed_first() {
    let (mut books, now) = (Books::default(), Instant::now());
    let resources = [
        a_tenant("acme"),
        a_version("acme/alone/1", false),
        a_version("acme/m/1", false),
        a_version("acme/m/2", false),
    ];
    let records = records(1, &resources);
    let states = [
        ("acme/alone/1", ModelState::Standby),
        ("acme/m/1", ModelState::Ready),
        ("acme/m/2", ModelState::Standby),
    ];
    let report = report(&states);
    let plan = turn(&mut books, &records, &report, now);
    assert_eq!((loads(&plan).len(), warm_ups(&plan)), (0, vec!["acme/m/2".to_owned()]));
    assert!(books.is_settled(&records, &report, &[CPU]));
    let place = (CPU, key("acme/m/2"));
    books.warmed(&place, Err("it broke".into()), now);
    let plan = turn(&mut books, &records, &report, now);
    assert!(
        plan.moves.is_empty() && plan.wake_at.is_some(),
        "tried again later: {plan:?}"
    );
}

#[test]
fn one_that_could_not_be_loaded_when_it_was_needed_is_tried_again_at_a_growing_distance() {
    let (mut books, now) = (Books::default(), Instant::now());
    let place = (CPU, key("acme/m/1"));
    let records = records(1, &[a_tenant("acme"), a_version("acme/m/1", false)]);
    turn(&mut books, &records, &ready(&[]), now);
    books.loaded(&place, Ok(()), now);
    let standby = report(&[("acme/m/1", ModelState::Standby)]);
    assert_eq!(turn(&mut books, &records, &standby, now), Plan::default());
    let broken = report(&[("acme/m/1", ModelState::Unavailable)]);
    let (mut at, mut waited) = (now, Duration::ZERO);
    for attempt in 1..MAX_ATTEMPTS {
        let plan = turn(&mut books, &records, &broken, at);
        assert!(plan.moves.is_empty(), "not at once");
        let wait = plan.wake_at.unwrap().duration_since(at);
        assert!(wait > waited, "attempt {attempt}");
        (at, waited) = (at + wait, wait);
        assert_eq!(loads(&turn(&mut books, &records, &broken, at)).len(), 1);
        // Declared again, which says nothing yet of whether it loads.
        books.loaded(&place, Ok(()), at);
        turn(&mut books, &records, &standby, at);
    }
    let plan = turn(&mut books, &records, &broken, at);
    assert_eq!((plan.moves.len(), plan.wake_at), (0, None), "not for ever");
    turn(&mut books, &records, &ready(&["acme/m/1"]), at);
    assert_eq!(
        loads(&turn(&mut books, &records, &ready(&[]), at)).len(),
        1,
        "forgiven once it was there"
    );
}

#[test]
fn versions_go_to_the_devices_that_they_ask_for() {
    let devices = [CPU, DeviceId::cuda(0), DeviceId::cuda(1)];
    let records = records(1, &[a_version("acme/m/1", false)]);
    let mut record = records.versions().next().unwrap().clone();
    assert_eq!(record.placement(&devices), [DeviceId::cuda(0), DeviceId::cuda(1)]);
    assert_eq!(record.placement(&[CPU]), [CPU]);
    let group = |kind, gpus: &[u16]| InstanceGroup {
        kind,
        gpus: gpus.to_vec(),
        ..InstanceGroup::default()
    };
    let mut with = |groups: Vec<InstanceGroup>| {
        let mut config = mesh_types::ModelConfig::clone(&record.config);
        config.instance_group = groups;
        record.config = config.into();
        record.placement(&devices)
    };
    assert_eq!(with(vec![group(InstanceKind::KindCpu, &[])]), [CPU]);
    assert_eq!(with(vec![group(InstanceKind::KindGpu, &[1])]), [DeviceId::cuda(1)]);
    assert_eq!(with(vec![group(InstanceKind::KindGpu, &[9])]), []);
    assert_eq!(
        with(vec![
            group(InstanceKind::KindGpu, &[1]),
            group(InstanceKind::KindCpu, &[])
        ]),
        [CPU, DeviceId::cuda(1)]
    );
}

#[test]
fn a_version_that_fits_no_device_says_so() {
    let mut resource = a_version("acme/m/1", false);
    if let mesh_resources::Spec::ModelVersion(spec) = &mut resource.spec {
        spec.config.instance_group = vec![InstanceGroup {
            kind: InstanceKind::KindGpu,
            ..InstanceGroup::default()
        }];
    }
    let records = records(1, &[resource]);
    let books = Books::default();
    assert!(books.trouble(&records, &ready(&[]), &[CPU]).reasons[&key("acme/m/1")].contains("instance_group"));
    assert!(books.is_settled(&records, &ready(&[]), &[CPU]), "nothing to wait for");
}
