//! Gates: bounds that hold whatever happens to other gates, and places that are given back by whoever leaves.

use futures::FutureExt as _;
use mesh_types::{ModelId, ServiceClass, TenantShare, Version};

use super::*;

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn version(number: u32) -> Arc<ModelVersionKey> {
    Arc::new(ModelVersionKey {
        tenant: tenant("acme"),
        model: ModelId::parse("pipe").unwrap(),
        version: Version::new(number).unwrap(),
    })
}

fn gate(bound: u32) -> Arc<Gate> {
    Gates::default().of(&version(1), 0, bound).unwrap()
}

const NOW: Standing = standing(ServiceClass::Interactive, 1);

const fn standing(class: ServiceClass, weight: u32) -> Standing {
    Standing {
        share: TenantShare {
            weight,
            isolated: false,
        },
        class,
        priority: 0,
        queue_timeout: None,
    }
}

#[test]
fn a_step_without_a_bound_has_no_gate_and_one_with_has_one_for_all() {
    let gates = Gates::default();
    assert!(gates.of(&version(1), 0, 0).is_none());
    let (one, other) = (
        gates.of(&version(1), 0, 2).unwrap(),
        gates.of(&version(1), 0, 2).unwrap(),
    );
    assert!(Arc::ptr_eq(&one, &other));
    assert!(!Arc::ptr_eq(&one, &gates.of(&version(1), 1, 2).unwrap()));
    drop((one, other));
    let _kept = gates.of(&version(2), 0, 1).unwrap();
    assert_eq!(gates.len(), 1, "those that nobody uses are forgotten");
}

#[test]
fn a_gate_that_somebody_is_in_outlives_the_coming_of_others() {
    let gates = Gates::default();
    let inside = gates.of(&version(1), 0, 1).unwrap().try_pass().unwrap();
    let _other = gates.of(&version(2), 0, 1).unwrap();
    assert!(
        gates.of(&version(1), 0, 1).unwrap().try_pass().is_none(),
        "its place is taken"
    );
    drop(inside);
    assert!(gates.of(&version(1), 0, 1).unwrap().try_pass().is_some());
}

#[tokio::test]
async fn the_bound_passes_and_one_more_waits_until_a_place_is_given_back() {
    let (gate, acme) = (gate(2), tenant("acme"));
    let first = gate.try_pass().unwrap();
    let _second = gate.try_pass().unwrap();
    assert!(gate.try_pass().is_none());
    let waiting = gate.pass(&acme, &NOW);
    tokio::pin!(waiting);
    assert!(waiting.as_mut().now_or_never().is_none());
    drop(first);
    assert!(gate.try_pass().is_none(), "it was handed on");
    let _third = waiting.now_or_never().unwrap().unwrap();
    assert!(gate.try_pass().is_none());
}

#[tokio::test]
async fn a_place_that_was_handed_to_who_left_goes_on_to_the_next() {
    let (gate, acme) = (gate(1), tenant("acme"));
    let inside = gate.try_pass().unwrap();
    let (mut leaves, mut called, mut stays) = (
        Box::pin(gate.pass(&acme, &NOW)),
        Box::pin(gate.pass(&acme, &NOW)),
        Box::pin(gate.pass(&acme, &NOW)),
    );
    for waiting in [&mut leaves, &mut called, &mut stays] {
        assert!(waiting.as_mut().now_or_never().is_none());
    }
    drop(leaves);
    drop(inside);
    // It was called and has not looked yet.
    drop(called);
    let place = stays.now_or_never().unwrap().unwrap();
    drop(place);
    assert!(gate.try_pass().is_some());
}

#[tokio::test]
async fn a_flood_of_one_tenant_neither_refuses_nor_holds_up_another() {
    let (gate, flood, other) = (gate(1), tenant("flood"), tenant("other"));
    let inside = gate.try_pass().unwrap();
    let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(gate.pass(&flood, &NOW))).collect();
    for one in &mut waiting {
        assert!(one.as_mut().now_or_never().is_none());
    }
    let refused = gate.pass(&flood, &NOW).now_or_never().unwrap().unwrap_err();
    assert!(
        refused
            .message
            .contains("1 requests are in this step and 1024 of yours wait"),
        "{refused}"
    );
    let mut late = Box::pin(gate.pass(&other, &NOW));
    assert!(late.as_mut().now_or_never().is_none(), "not refused");
    drop(inside);
    let place = waiting[0].as_mut().now_or_never().unwrap().unwrap();
    assert!(late.as_mut().now_or_never().is_none(), "one turn of the other's");
    drop(place);
    assert!(late.now_or_never().unwrap().is_ok(), "and then its own");
}

#[tokio::test]
async fn an_interactive_request_goes_before_those_of_the_batch_class() {
    let (gate, acme) = (gate(1), tenant("acme"));
    let inside = gate.try_pass().unwrap();
    let batch = standing(ServiceClass::Batch, 9);
    let (mut later, mut first) = (Box::pin(gate.pass(&acme, &batch)), Box::pin(gate.pass(&acme, &NOW)));
    assert!(later.as_mut().now_or_never().is_none() && first.as_mut().now_or_never().is_none());
    drop(inside);
    let place = first.now_or_never().unwrap().unwrap();
    assert!(later.as_mut().now_or_never().is_none());
    drop(place);
    assert!(later.now_or_never().unwrap().is_ok());
}
