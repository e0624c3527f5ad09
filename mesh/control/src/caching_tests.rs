//! When what an endpoint's cache holds is void: with each change of what its arms answer with, and with no other.

use mesh_policies::{CacheRule, Target};
use mesh_resources::{CacheSpec, Resource, Spec};

use crate::{Compiled, ModelState, samples::*};

const BOTH: [&str; 2] = ["acme/m/1", "acme/m/2"];

/// The endpoint `front` on the label `stable`, with a cache of so many seconds, or none.
fn front(ttl_seconds: Option<u64>) -> Resource {
    let mut front = an_endpoint("acme", "front", &[("a", "m", "stable", 100.0)]);
    if let Spec::Endpoint(spec) = &mut front.spec {
        spec.cache = ttl_seconds.map(|ttl_seconds| CacheSpec {
            ttl_seconds,
            max_entry_bytes: 1_000,
        });
    }
    front
}

/// A model with two versions behind it; the first one's file is of this digit, and kept off the devices if so said.
fn town(stable: u32, (digit, unloaded): (u8, bool), front: Resource) -> Vec<Resource> {
    vec![
        a_tenant("acme"),
        a_model("acme", "m", &[("stable", stable)], &[]),
        a_version_of("acme/m/1", unloaded, digit),
        a_version("acme/m/2", false),
        front,
    ]
}

fn rule(compiled: &Compiled) -> Option<CacheRule> {
    match compiled.snapshot.tenant("acme").unwrap().target("front").unwrap() {
        Target::Endpoint(route) => route.cache,
        Target::Model(_) => unreachable!(),
    }
}

fn serial(compiled: &Compiled) -> u64 {
    rule(compiled).unwrap().serial
}

/// The same town with this in it, as it is compiled after `before`.
fn after(before: &Compiled, revision: u64, town: &[Resource]) -> Compiled {
    compiled(&records(revision, town), &ready(&BOTH), before)
}

#[test]
fn an_endpoint_has_a_cache_only_if_it_says_so() {
    let first = after(&Compiled::default(), 1, &town(1, (0, false), front(None)));
    assert_eq!(rule(&first), None);
    let second = after(&first, 2, &town(1, (0, false), front(Some(60))));
    let rule = rule(&second).unwrap();
    assert_eq!((rule.ttl.as_secs(), rule.max_entry_bytes), (60, 1_000));
}

#[test]
fn what_changes_no_answer_leaves_the_serial_and_each_change_of_one_raises_it() {
    let base = || town(1, (0, false), front(Some(60)));
    let first = after(&Compiled::default(), 1, &base());
    let mut other = base();
    other.push(a_tenant("globex"));
    other.push(a_model("acme", "elsewhere", &[], &[]));
    let second = after(&first, 2, &other);
    assert_eq!(serial(&second), serial(&first), "nothing of it has changed");
    // Each is a change of the one before.
    let mut last = second;
    for (revision, what, town) in [
        (3, "a label that moves", town(2, (0, false), front(Some(60)))),
        (4, "and moves back", town(1, (0, false), front(Some(60)))),
        (5, "another time", town(1, (0, false), front(Some(61)))),
    ] {
        let next = after(&last, revision, &town);
        assert!(serial(&next) > serial(&last), "{what}");
        last = next;
    }
    let off = after(&last, 6, &town(1, (0, false), front(None)));
    assert_eq!(rule(&off), None);
    let on = after(&off, 7, &town(1, (0, false), front(Some(61))));
    assert!(serial(&on) > serial(&last), "off and on again");
    // Gone and there again, it is another endpoint.
    let mut gone = base();
    gone.pop();
    let without = after(&on, 8, &gone);
    let again = after(&without, 9, &town(1, (0, false), front(Some(61))));
    assert!(serial(&again) > serial(&on));
}

#[test]
fn another_file_and_what_was_off_the_devices_begin_anew() {
    let first = after(&Compiled::default(), 1, &town(1, (0, false), front(Some(60))));
    let replaced = after(&first, 2, &town(1, (5, false), front(Some(60))));
    assert!(serial(&replaced) > serial(&first), "another file");
    // Unloaded by its record, and loaded again.
    let off = after(&replaced, 3, &town(1, (5, true), front(Some(60))));
    let on = after(&off, 4, &town(1, (5, false), front(Some(60))));
    assert!(serial(&on) > serial(&replaced), "unloaded and loaded");
    // Gone from its device by itself, and back.
    let same = records(4, &town(1, (5, false), front(Some(60))));
    let broken = report(&[("acme/m/1", ModelState::Unavailable), ("acme/m/2", ModelState::Ready)]);
    let lost = compiled(&same, &broken, &on);
    let back = compiled(&same, &ready(&BOTH), &lost);
    assert!(serial(&back) > serial(&on), "it was reloaded");
}

#[test]
fn serials_of_endpoints_are_each_others_neighbours_and_not_each_others() {
    let mut two = town(1, (0, false), front(Some(60)));
    let mut side = front(Some(60));
    side.metadata.name = "side".to_owned();
    two.push(side);
    let first = after(&Compiled::default(), 1, &two);
    let serial_of = |compiled: &Compiled, name: &str| match compiled.snapshot.tenant("acme").unwrap().target(name) {
        Some(Target::Endpoint(route)) => route.cache.unwrap().serial,
        _ => unreachable!(),
    };
    let mut changed = town(1, (0, false), front(Some(61)));
    changed.push(two.pop().unwrap());
    let second = after(&first, 2, &changed);
    assert!(serial_of(&second, "front") > serial_of(&first, "front"));
    assert_eq!(serial_of(&second, "side"), serial_of(&first, "side"));
}
