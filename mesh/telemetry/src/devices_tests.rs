//! Readings against the text that comes of them.

use mesh_types::{ModelId, Version};

use super::*;
use crate::Metrics;

/// Devices that read as they are told.
struct Told(Mutex<Vec<DeviceReading>>);

impl DeviceSource for Told {
    fn devices(&self) -> Vec<DeviceReading> {
        self.0.lock().clone()
    }
}

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(crate) fn model(name: &str) -> ModelReading {
    ModelReading {
        model: ModelVersionKey {
            tenant: tenant("acme"),
            model: ModelId::parse(name).unwrap(),
            version: Version::FIRST,
        },
        quarantined: true,
        executions: 5,
        cancelled: 1,
        expired: 2,
        rejected: 3,
        crashed: 4,
        out_of_memory: 6,
        non_finite: 7,
        loads: 8,
        load_time: Duration::from_millis(500),
        load_failures: 9,
        evictions: 10,
        idle_unloads: 11,
        predicted: Duration::from_millis(1_500),
        prediction_error: Duration::from_millis(250),
        sequences: Some(SequenceReading {
            seated: 11,
            backlog: 12,
            ended: 13,
            idle: 14,
            not_begun: 15,
            lost: 16,
            closed: 17,
        }),
    }
}

pub(crate) fn device(index: u16, models: Vec<ModelReading>, tenants: &[(&str, u64)]) -> DeviceReading {
    DeviceReading {
        device: DeviceId::cpu(index),
        threads: 2,
        abandoned: 1,
        draining: index == 1,
        sequence_state_bytes: 99,
        budget: (index == 0).then_some(1_024),
        resident: 1,
        standby: 2,
        models,
        tenants: tenants
            .iter()
            .map(|(name, seconds)| (tenant(name), Duration::from_secs(*seconds)))
            .collect(),
        other_tenants: Duration::ZERO,
    }
}

fn text_of(devices: Vec<DeviceReading>) -> String {
    let metrics = Metrics::new();
    let source: Arc<dyn DeviceSource> = Arc::new(Told(Mutex::new(devices)));
    metrics.read_devices_from(&source);
    metrics.encode_prometheus().unwrap()
}

#[test]
fn everything_read_is_written_and_tenants_time_adds_up_over_devices() {
    let text = text_of(vec![
        device(0, vec![model("digits")], &[("acme", 2)]),
        device(1, Vec::new(), &[("acme", 1), ("globex", 4)]),
    ]);
    let labels = "{device=\"cpu:0\",model=\"acme/digits/1\"";
    for line in [
        "mesh_tenant_device_seconds_total{tenant=\"acme\"} 3".to_owned(),
        "mesh_tenant_device_seconds_total{tenant=\"globex\"} 4".to_owned(),
        format!("mesh_requests_not_run_total{labels},reason=\"cancelled\"}} 1"),
        format!("mesh_requests_not_run_total{labels},reason=\"expired\"}} 2"),
        format!("mesh_requests_not_run_total{labels},reason=\"rejected\"}} 3"),
        format!("mesh_model_executions_total{labels}}} 5"),
        format!("mesh_model_crashes_total{labels}}} 4"),
        format!("mesh_model_out_of_memory_total{labels}}} 6"),
        format!("mesh_model_non_finite_total{labels}}} 7"),
        format!("mesh_batch_predicted_seconds_total{labels}}} 1.5"),
        format!("mesh_batch_prediction_error_seconds_total{labels}}} 0.25"),
        format!("mesh_model_quarantined{labels}}} 1"),
        format!("mesh_sequences{labels},state=\"seated\"}} 11"),
        format!("mesh_sequences{labels},state=\"backlog\"}} 12"),
        format!("mesh_sequences_ended_total{labels},reason=\"ended\"}} 13"),
        format!("mesh_sequences_ended_total{labels},reason=\"idle\"}} 14"),
        format!("mesh_sequences_ended_total{labels},reason=\"not_begun\"}} 15"),
        format!("mesh_sequences_ended_total{labels},reason=\"lost\"}} 16"),
        format!("mesh_sequences_ended_total{labels},reason=\"closed\"}} 17"),
        "mesh_device_sequence_state_bytes{device=\"cpu:0\"} 99".to_owned(),
        "mesh_device_threads{device=\"cpu:0\"} 2".to_owned(),
        "mesh_device_abandoned_threads{device=\"cpu:0\"} 1".to_owned(),
        "mesh_device_draining{device=\"cpu:0\"} 0".to_owned(),
        "mesh_device_draining{device=\"cpu:1\"} 1".to_owned(),
        "# UNIT mesh_tenant_device_seconds seconds".to_owned(),
        "# TYPE mesh_model_quarantined gauge".to_owned(),
    ] {
        assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn each_kind_is_the_metric_of_its_name() {
    for (kind, name) in [
        (Kind::TenantSeconds, "mesh_tenant_device_seconds"),
        (Kind::NotRun, "mesh_requests_not_run"),
        (Kind::Predicted, "mesh_batch_predicted_seconds"),
        (Kind::Quarantined, "mesh_model_quarantined"),
        (Kind::Draining, "mesh_device_draining"),
        (Kind::SequencesEnded, "mesh_sequences_ended"),
        (Kind::SequenceStateBytes, "mesh_device_sequence_state_bytes"),
        (Kind::Evictions, "mesh_model_evictions"),
        (Kind::Models, "mesh_device_models"),
    ] {
        assert_eq!(FAMILIES[kind as usize].name, name);
    }
    assert_eq!(Kind::Models as usize + 1, FAMILIES.len());
}

#[test]
fn tenants_past_the_bound_are_added_up_and_the_last_within_it_is_not() {
    let names: Vec<String> = (0..=crate::MAX_TENANT_LABELS + 1)
        .map(|number| format!("t{number:04}"))
        .collect();
    let tenants: Vec<_> = names.iter().map(|name| (name.as_str(), 1)).collect();
    let mut told = device(0, Vec::new(), &tenants);
    told.other_tenants = Duration::from_secs(10);
    let text = text_of(vec![told]);
    let last = format!(
        "mesh_tenant_device_seconds_total{{tenant=\"t{:04}\"}} 1",
        crate::MAX_TENANT_LABELS - 1
    );
    assert!(text.contains(&last));
    assert!(
        text.contains("mesh_tenant_device_seconds_total{tenant=\"other\"} 12\n"),
        "two past it, and ten seconds"
    );
}

#[test]
fn without_devices_and_after_them_nothing_is_read() {
    let metrics = Metrics::new();
    assert!(!metrics.encode_prometheus().unwrap().contains("mesh_device_threads{"));
    let source: Arc<dyn DeviceSource> = Arc::new(Told(Mutex::new(vec![device(0, Vec::new(), &[])])));
    metrics.read_devices_from(&source);
    assert!(metrics.encode_prometheus().unwrap().contains("mesh_device_threads{"));
    drop(source);
    assert!(!metrics.encode_prometheus().unwrap().contains("mesh_device_threads{"));
}
