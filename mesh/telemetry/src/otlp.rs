//! Export over OTLP/gRPC: spans as they end, counters every [`METRICS_INTERVAL`].
//!
//! The exporters' queues are bounded by the SDK and drop when full; a collector that is slow or gone costs spans, never
//! requests. The OTLP metrics are read from the same atomics as the Prometheus text, so the two cannot disagree.

use std::{sync::Arc, time::Duration};

use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter, MeterProvider as _},
};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{BatchSpanProcessor, SpanProcessor as _},
};

use crate::{
    devices::FAMILIES,
    ensembles::{EnsembleOutcome, StepOutcome},
    metrics::Metrics,
    series::OUTCOMES,
    spans::SpanSink,
};

/// How often counters are pushed.
const METRICS_INTERVAL: Duration = Duration::from_secs(10);
/// How long one push may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where and how much is pushed.
#[derive(Debug, Clone)]
pub struct OtlpConfig {
    /// The collector's gRPC address, such as `http://localhost:4317`.
    pub endpoint: String,
    /// `service.name` of everything pushed.
    pub service_name: String,
    /// The share of requests (0 to 1) traced when the caller has not decided.
    pub sample_ratio: f64,
}

/// Why telemetry did not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter refused its settings.
    #[error("cannot export to the OTLP endpoint '{endpoint}': {source}")]
    Exporter {
        /// The address.
        endpoint: String,
        /// What the exporter says.
        source: ExporterBuildError,
    },
}

/// What must be ended at shutdown.
#[derive(Debug, Default)]
pub(crate) struct Exporters {
    meters: Option<SdkMeterProvider>,
}

impl Exporters {
    pub(crate) fn shutdown(&self) {
        if let Some(meters) = &self.meters {
            // As with spans: a collector that is gone must not keep the mesh from ending.
            let _ = meters.shutdown_with_timeout(EXPORT_TIMEOUT);
        }
    }
}

pub(crate) fn start(config: &OtlpConfig, metrics: &Arc<Metrics>) -> Result<(SpanSink, Exporters), TelemetryError> {
    let failed = |source| TelemetryError::Exporter {
        endpoint: config.endpoint.clone(),
        source,
    };
    let resource = Resource::builder()
        .with_service_name(config.service_name.clone())
        .build();
    let spans = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&config.endpoint)
        .with_timeout(EXPORT_TIMEOUT);
    let mut processor = BatchSpanProcessor::builder(spans.build().map_err(failed)?).build();
    processor.set_resource(&resource);
    let counters = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(&config.endpoint)
        .with_timeout(EXPORT_TIMEOUT);
    let reader = PeriodicReader::builder(counters.build().map_err(failed)?)
        .with_interval(METRICS_INTERVAL)
        .build();
    let meters = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_reader(reader)
        .build();
    observe(&meters, metrics);
    Ok((
        SpanSink::new(Box::new(processor), config.sample_ratio),
        Exporters { meters: Some(meters) },
    ))
}

fn observe(meters: &SdkMeterProvider, metrics: &Arc<Metrics>) {
    let meter = meters.meter("mesh");
    let source = metrics.clone();
    let requests = meter
        .u64_observable_counter("mesh.requests")
        .with_callback(move |observer| {
            for series in source.requests.all() {
                let key = &series.key;
                for (index, outcome) in OUTCOMES.iter().enumerate() {
                    let count = series.outcome(index);
                    if count == 0 {
                        continue;
                    }
                    observer.observe(
                        count,
                        &[
                            KeyValue::new("tenant", key.tenant.to_string()),
                            KeyValue::new("endpoint", key.target.to_string()),
                            KeyValue::new("arm", key.arm.to_string()),
                            KeyValue::new("version", i64::from(key.version)),
                            KeyValue::new("outcome", *outcome),
                        ],
                    );
                }
            }
        });
    requests.build();
    observe_devices(&meter, metrics);
    observe_ensembles(&meter, metrics);
    let source = metrics.clone();
    let in_flight = meter.i64_observable_gauge("mesh.requests.in_flight");
    in_flight
        .with_callback(move |observer| observer.observe(source.in_flight(), &[]))
        .build();
}

fn observe_ensembles(meter: &Meter, metrics: &Arc<Metrics>) {
    let label = |name: &'static str, text: &str| KeyValue::new(name, text.to_owned());
    let source = metrics.clone();
    let requests = meter.u64_observable_counter("mesh.ensemble.requests");
    let counted = move |observer: &dyn AsyncInstrument<u64>| {
        for (name, reading) in source.ensembles.readings() {
            for (outcome, count) in EnsembleOutcome::ALL.iter().zip(reading.counts()) {
                observer.observe(count, &[label("ensemble", &name), label("outcome", outcome.as_str())]);
            }
        }
    };
    requests.with_callback(counted).build();
    let source = metrics.clone();
    let compose = meter
        .f64_observable_counter("mesh.ensemble.compose_time")
        .with_unit("s");
    let composed = move |observer: &dyn AsyncInstrument<f64>| {
        for (name, reading) in source.ensembles.readings() {
            observer.observe(reading.compose.as_secs_f64(), &[label("ensemble", &name)]);
        }
    };
    compose.with_callback(composed).build();
    let source = metrics.clone();
    let steps = meter.u64_observable_counter("mesh.ensemble.steps");
    let stepped = move |observer: &dyn AsyncInstrument<u64>| {
        for (name, reading) in source.ensembles.readings() {
            for step in &reading.steps {
                for (outcome, count) in StepOutcome::ALL.iter().zip(step.counts()) {
                    let labels = [
                        label("ensemble", &name),
                        label("step", &step.step),
                        label("outcome", outcome.as_str()),
                    ];
                    observer.observe(count, &labels);
                }
            }
        }
    };
    steps.with_callback(stepped).build();
}

fn observe_devices(meter: &Meter, metrics: &Arc<Metrics>) {
    for (index, family) in FAMILIES.iter().enumerate() {
        let source = metrics.clone();
        let callback = move |observer: &dyn AsyncInstrument<f64>| {
            for ((of, labels), value) in source.device_values() {
                if of == index {
                    let labels: Vec<KeyValue> = labels
                        .iter()
                        .map(|(name, text)| KeyValue::new(*name, text.0.to_string()))
                        .collect();
                    observer.observe(value, &labels);
                }
            }
        };
        let unit = if family.seconds { "s" } else { "" };
        if family.gauge {
            let gauge = meter.f64_observable_gauge(family.otlp).with_unit(unit);
            gauge.with_description(family.help).with_callback(callback).build();
        } else {
            let counter = meter.f64_observable_counter(family.otlp).with_unit(unit);
            counter.with_description(family.help).with_callback(callback).build();
        }
    }
}

#[cfg(test)]
#[path = "otlp_tests.rs"]
mod tests;
