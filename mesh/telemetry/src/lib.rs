//! What the mesh tells about itself: metrics, traces and logs, every name once.
//!
//! Owns the metric and span names, the bounds on label sets, Prometheus text, export over OTLP and the live numbers behind
//! the overview page. Does not decide what to measure where: rooms report plain samples ([`RequestSample`],
//! [`BatchSample`]) and this room turns them into counters, histograms and spans.
//!
//! Invariants: no label set grows past its named bound (what comes later is counted under `other`); a sample costs no
//! allocation once its series exists; nothing here ever blocks or fails a request.

mod answers;
mod cache;
mod certificates;
mod devices;
mod ensembles;
mod issuers;
mod labels;
mod latency;
mod limits;
mod logs;
mod metrics;
mod models;
mod otlp;
mod sampling;
mod series;
mod spans;
mod stages;
mod tenants;
mod triton;

use std::sync::Arc;

pub use answers::AnswersSample;
pub use devices::{DeviceReading, DeviceSource, ModelReading, SequenceReading};
pub use ensembles::{EnsembleMeter, EnsembleOutcome, EnsembleReading, MAX_ENSEMBLES, StepOutcome, StepReading};
pub use labels::OTHER;
pub use latency::{LatencyHistogram, LatencySnapshot};
pub use limits::LimitEffect;
pub use logs::{LogChangeError, LogFormat, LogSetupError, Logs, init_logs, logs};
pub use metrics::{BatchSample, Metrics, RequestSample};
pub use otlp::{OtlpConfig, TelemetryError};
pub use sampling::{MAX_TRACED_MODELS, TraceChangeError};
pub use series::{LiveSeries, LiveSnapshot, MAX_SERIES, MAX_TENANT_LABELS};
pub use spans::{BatchSpan, MAX_BATCH_LINKS, RequestSpan, SpanSink, StepSpan};
pub use stages::Stage;
pub use triton::{HostReading, TritonSource, VersionReading};

/// The media type of metrics as text.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How telemetry is set up.
#[derive(Debug, Clone, Default)]
pub struct TelemetryConfig {
    /// Where traces and metrics are pushed; none keeps them here.
    pub otlp: Option<OtlpConfig>,
}

/// A cheap handle that every room may hold.
#[derive(Clone, Debug)]
pub struct Telemetry {
    metrics: Arc<Metrics>,
    spans: SpanSink,
    exporters: Arc<otlp::Exporters>,
}

impl Telemetry {
    /// Starts telemetry. With OTLP configured it must be called within a tokio runtime, which then carries the connection.
    pub fn start(config: &TelemetryConfig) -> Result<Self, TelemetryError> {
        let metrics = Arc::new(Metrics::new());
        let Some(otlp) = &config.otlp else {
            let (spans, exporters) = (SpanSink::disabled(), otlp::Exporters::default());
            return Ok(Self {
                metrics,
                spans,
                exporters: Arc::new(exporters),
            });
        };
        let (spans, exporters) = otlp::start(otlp, &metrics)?;
        Ok(Self {
            metrics,
            spans,
            exporters: Arc::new(exporters),
        })
    }

    /// Telemetry that goes nowhere but can be read back.
    pub fn local() -> Self {
        Self {
            metrics: Arc::new(Metrics::new()),
            spans: SpanSink::disabled(),
            exporters: Arc::default(),
        }
    }

    /// Counters, gauges and histograms.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Where finished spans go.
    pub fn spans(&self) -> &SpanSink {
        &self.spans
    }

    /// Pushes what is pending, waiting a bounded time; the last act of a shutdown. Blocks: not for an async thread.
    pub fn flush(&self) {
        self.spans.flush();
        self.exporters.shutdown();
    }
}
