//! Facts about devices as they are shown, and about draining them over the API.

use actix_web::http::Method;
use serde_json::json;

use super::*;
use crate::fixture_tests::{Ask, Fixture};

const SECOND: Duration = Duration::from_secs(1);

#[actix_web::test]
async fn a_device_is_shown_with_its_means_and_the_tenants_that_use_it_most() {
    let door = Fixture::new().await;
    let shown = door.get("/devices").await.is(200).body;
    let device = &shown[0];
    for (field, value) in [
        ("device", json!("cpu:0")),
        ("kind", json!("cpu")),
        ("threads", json!(2)),
        ("abandoned_threads", json!(1)),
        ("draining", json!(false)),
        ("in_flight", json!(3)),
        ("busy_seconds", json!(50.0)),
        ("busy_fraction", json!(0.25)),
        ("memory_bytes", json!(7)),
        ("open_sequences", json!(3)),
        ("sequence_state_bytes", json!(64)),
    ] {
        assert_eq!(device[field], value, "{field}");
    }
    let model = &device["models"][0];
    for (field, value) in [
        ("model", json!("digits")),
        ("state", json!("READY")),
        ("queue_length", json!(6)),
        ("requests", json!(4)),
        ("rows", json!(12)),
        ("mean_batch_rows", json!(6.0)),
        ("mean_latency_ms", json!(2_000.0)),
        ("mean_queue_ms", json!(500.0)),
        ("mean_compute_ms", json!(250.0)),
        ("rejected", json!(5)),
        ("prediction_error", json!(0.1)),
        (
            "sequences",
            json!({"open": 3, "backlog": 1, "ended": 0, "idle": 2, "not_begun": 0, "lost": 0, "closed": 0}),
        ),
    ] {
        assert_eq!(model[field], value, "{field}");
    }
    let tenants = device["tenants"].as_array().unwrap();
    assert_eq!(tenants.len(), MAX_TENANTS_SHOWN);
    assert_eq!(
        tenants[0],
        json!({"tenant": format!("t{}", MAX_TENANTS_SHOWN + 1), "seconds": 21.0})
    );
    assert_eq!(
        device["other_tenants_seconds"], 3.0,
        "the one that used the least, and those not counted"
    );
}

#[actix_web::test]
async fn as_many_tenants_as_the_bound_are_all_named() {
    let door = Fixture::new().await;
    let mut facts = door.state.inner.parts.fleet.inspect().remove(0);
    facts.tenants.truncate(MAX_TENANTS_SHOWN);
    facts.other_tenants = Duration::ZERO;
    let shown = detail(facts, None);
    assert_eq!(shown.tenants.len(), MAX_TENANTS_SHOWN);
    assert_eq!(shown.other_tenants_seconds, 0.0);
}

#[actix_web::test]
async fn an_admin_drains_a_device_and_the_trail_says_so_once() {
    let door = Fixture::new().await;
    // A browser may escape the colon.
    for path in ["/devices/cpu:0/drain", "/devices/cpu%3A0/drain"] {
        let shown = door.post(path, &json!({})).await.is(200).body;
        assert_eq!((&shown["device"], &shown["draining"]), (&json!("cpu:0"), &json!(true)));
    }
    assert_eq!(door.get("/devices").await.body[0]["draining"], true);
    let shown = door.post("/devices/cpu:0/undrain", &json!({})).await.is(200).body;
    assert_eq!(shown["draining"], false);
    let trail = door.get("/audit").await.body;
    let items = trail["items"].as_array().unwrap();
    let events: Vec<_> = items.iter().filter_map(|item| item["event"].as_str()).collect();
    assert_eq!(events, ["drain cpu:0", "undrain cpu:0"]);
}

#[actix_web::test]
async fn what_is_no_device_and_who_is_no_admin_is_refused() {
    let door = Fixture::new().await;
    door.post("/devices/cpu:1/drain", &json!({})).await.is(404);
    door.post("/devices/tpu/drain", &json!({})).await.is(400);
    for action in ["drain", "undrain"] {
        let ask = Ask::new(Method::POST, &format!("/devices/cpu:0/{action}"));
        door.send(ask.bearer(&door.viewer)).await.is(403);
    }
    let looked = Ask::new(Method::GET, "/devices").bearer(&door.viewer);
    assert_eq!(door.send(looked).await.is(200).body[0]["draining"], false);
}

#[test]
fn how_busy_a_device_is_follows_the_last_ticks_and_forgets_older_ones() {
    let (mut window, start, cpu) = (BusyWindow::default(), Instant::now(), DeviceId::cpu(0));
    window.tick(&[(cpu, SECOND)], start);
    assert_eq!(window.rate(cpu), None, "one moment is no span");
    // Two threads busy all the time, for as long as the window.
    let ticks = u32::try_from(WINDOW_TICKS).unwrap();
    for tick in 1..=ticks {
        window.tick(&[(cpu, SECOND + SECOND * 2 * tick)], start + SECOND * tick);
        assert_eq!(window.rate(cpu), Some(2.0));
    }
    // Then idle: each tick forgets one that was busy, and the last one is gone after as many.
    let busy = SECOND + SECOND * 2 * ticks;
    for tick in 1..=ticks {
        window.tick(&[(cpu, busy)], start + SECOND * (ticks + tick));
        let left = f64::from(ticks - tick) * 2.0 / f64::from(ticks);
        assert!((window.rate(cpu).unwrap() - left).abs() < 1e-9);
    }
    assert_eq!(window.rate(DeviceId::cpu(1)), Some(0.0));
}

#[test]
fn a_fraction_is_of_all_threads_and_never_above_one() {
    let facts = DeviceFacts {
        device: DeviceId::cpu(0),
        threads: 2,
        abandoned: 0,
        draining: false,
        in_flight: 0,
        sequence_state_bytes: 0,
        budget: None,
        up: Duration::ZERO,
        busy: SECOND,
        models: Vec::new(),
        tenants: Vec::new(),
        other_tenants: Duration::ZERO,
    };
    assert_eq!(detail(facts.clone(), Some(1.0)).recent_busy_fraction, Some(0.5));
    let over = detail(facts, Some(2.2));
    assert_eq!((over.recent_busy_fraction, over.busy_fraction), (Some(1.0), 0.0));
}
