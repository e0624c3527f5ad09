//! What rooms report against the text that Prometheus reads.

use super::*;
use mesh_types::{ModelId, TenantId, Version};

fn sample(stages: &StageTimings, fault: Option<FaultSource>) -> RequestSample<'_> {
    let total = Duration::from_millis(2);
    RequestSample {
        tenant: "acme",
        target: "digits",
        arm: "v1",
        version: 1,
        fault,
        total,
        stages,
        answers: None,
    }
}

#[test]
fn requests_are_counted_by_outcome_and_timed_when_answered() {
    let metrics = Metrics::new();
    let stages = StageTimings {
        queue: Duration::from_micros(30),
        ..StageTimings::default()
    };
    for fault in [None, None, Some(FaultSource::TenantLimit)] {
        metrics.request_started();
        metrics.request_finished(&sample(&stages, fault));
    }
    let text = metrics.encode_prometheus().unwrap();
    let labels = "tenant=\"acme\",endpoint=\"digits\",arm=\"v1\",version=\"1\"";
    for line in [
        format!("mesh_requests_total{{{labels},outcome=\"ok\"}} 2"),
        format!("mesh_requests_total{{{labels},outcome=\"tenant_limit\"}} 1"),
        format!("mesh_request_duration_seconds_count{{{labels}}} 2"),
        "mesh_stage_seconds_count{stage=\"queue\"} 2".to_owned(),
        "mesh_requests_in_flight 0".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_batch_counts_its_rows_and_busy_time_and_unloading_removes_the_gauges() {
    let metrics = Metrics::new();
    let model = ModelVersionKey {
        tenant: TenantId::parse("acme").unwrap(),
        model: ModelId::parse("digits").unwrap(),
        version: Version::FIRST,
    };
    let device = DeviceId::cpu(0);
    let busy = Duration::from_millis(500);
    metrics.batch_executed(&BatchSample {
        device,
        model: &model,
        rows: 7,
        requests: 3,
        failed: true,
        busy,
    });
    metrics.set_queue_length(device, &model, 4);
    let text = metrics.encode_prometheus().unwrap();
    assert!(
        text.contains("mesh_batch_rows_total{device=\"cpu:0\",model=\"acme/digits/1\"} 7"),
        "{text}"
    );
    assert!(
        text.contains("mesh_device_busy_seconds_total{device=\"cpu:0\",model=\"acme/digits/1\"} 0.5"),
        "{text}"
    );
    assert!(
        text.contains("mesh_batch_failures_total{device=\"cpu:0\",model=\"acme/digits/1\"} 1"),
        "{text}"
    );
    assert!(
        text.contains("mesh_queue_length{device=\"cpu:0\",model=\"acme/digits/1\"} 4"),
        "{text}"
    );
    metrics.model_unloaded(device, &model);
    assert!(!metrics.encode_prometheus().unwrap().contains("mesh_queue_length{"));
}

#[test]
fn the_live_snapshot_tells_refused_from_failed() {
    let metrics = Metrics::new();
    let stages = StageTimings::default();
    for fault in [
        None,
        Some(FaultSource::TenantLimit),
        Some(FaultSource::Model),
        Some(FaultSource::Client),
    ] {
        metrics.request_started();
        metrics.request_finished(&sample(&stages, fault));
    }
    let live = metrics.live();
    let [series] = live.series.as_slice() else {
        panic!("one series")
    };
    assert_eq!((series.ok, series.refused, series.errors), (1, 1, 2));
}
