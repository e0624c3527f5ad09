//! An OTLP/gRPC collector in this process: what the mesh pushes, to be waited for and looked at.
//!
//! Invariants: what arrives is kept in bounded channels and taken in order; nothing waits longer than [`PATIENCE`].

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{KeyValue, any_value::Value},
    metrics::v1::{ResourceMetrics, metric::Data, number_data_point},
    resource::v1::Resource,
    trace::v1::Span,
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet, time::timeout};
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

use crate::PATIENCE;

/// Exports that may wait to be looked at; a mesh that sends more is kept waiting.
const MAX_EXPORTS: usize = 1_024;

/// Attributes by name, each as text.
type Attributes = BTreeMap<String, String>;

/// A span as it arrived.
#[derive(Debug, Clone)]
pub struct ExportedSpan {
    /// The span.
    pub span: Span,
    /// The attributes of whom it is from.
    pub resource: Attributes,
}

impl ExportedSpan {
    /// The span's attributes.
    pub fn attributes(&self) -> Attributes {
        attributes(&self.span.attributes)
    }
}

/// A running collector; it ends with its drop.
#[derive(Debug)]
pub struct Collector {
    endpoint: String,
    spans: mpsc::Receiver<ExportTraceServiceRequest>,
    metrics: mpsc::Receiver<ExportMetricsServiceRequest>,
    /// The latest export of metrics; counters only grow, so it holds all that was before it.
    seen: Vec<ResourceMetrics>,
    _server: JoinSet<Result<(), tonic::transport::Error>>,
}

struct Spans(mpsc::Sender<ExportTraceServiceRequest>);

struct Metrics(mpsc::Sender<ExportMetricsServiceRequest>);

fn ended<T>(_: T) -> Status {
    Status::unavailable("the test has ended")
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.map_err(ended)?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Metrics {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.map_err(ended)?;
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    /// A collector on a free port.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let ((span_sender, spans), (metric_sender, metrics)) = (mpsc::channel(MAX_EXPORTS), mpsc::channel(MAX_EXPORTS));
        let mut server = JoinSet::new();
        server.spawn(
            Server::builder()
                .add_service(TraceServiceServer::new(Spans(span_sender)))
                .add_service(MetricsServiceServer::new(Metrics(metric_sender)))
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        Ok(Self {
            endpoint,
            spans,
            metrics,
            seen: Vec::new(),
            _server: server,
        })
    }

    /// Where it is, as `otlp_endpoint` takes it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Takes spans in until there are enough; fails if they do not come.
    pub async fn spans_until(&mut self, enough: impl Fn(&[ExportedSpan]) -> bool) -> anyhow::Result<Vec<ExportedSpan>> {
        let mut all = Vec::new();
        while !enough(&all) {
            let Ok(export) = timeout(PATIENCE, self.spans.recv()).await else {
                let names: Vec<&str> = all.iter().map(|span: &ExportedSpan| span.span.name.as_str()).collect();
                bail!("no more spans came within {PATIENCE:?} than {names:?}");
            };
            for from in export.context("the collector has ended")?.resource_spans {
                let resource = of(from.resource.as_ref());
                let spans = from.scope_spans.into_iter().flat_map(|scope| scope.spans);
                all.extend(spans.map(|span| ExportedSpan {
                    span,
                    resource: resource.clone(),
                }));
            }
        }
        Ok(all)
    }

    /// Takes metrics in until a counter of this name has come to this value at the point with these attributes (others may be
    /// there too); answers the attributes of whom it is from, and the value.
    pub async fn counter_until(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        at_least: i64,
    ) -> anyhow::Result<(Attributes, i64)> {
        loop {
            // What has been seen stays: one export may hold several of the points that a test asks for.
            for from in &self.seen {
                match value(from, name, labels) {
                    Some(value) if value >= at_least => return Ok((of(from.resource.as_ref()), value)),
                    _ => {}
                }
            }
            let export = timeout(PATIENCE, self.metrics.recv()).await;
            let export = export.with_context(|| format!("{name} {labels:?} did not come to {at_least}"))?;
            self.seen = export.context("the collector has ended")?.resource_metrics;
        }
    }
}

/// The value of a counter's point with (at least) these attributes.
fn value(from: &ResourceMetrics, name: &str, labels: &[(&str, &str)]) -> Option<i64> {
    let metrics = from.scope_metrics.iter().flat_map(|scope| &scope.metrics);
    let sum = metrics
        .filter(|metric| metric.name == name)
        .find_map(|metric| match &metric.data {
            Some(Data::Sum(sum)) => Some(sum),
            _ => None,
        })?;
    let point = sum.data_points.iter().find(|point| {
        let has = attributes(&point.attributes);
        labels
            .iter()
            .all(|(name, value)| has.get(*name).is_some_and(|has| has == value))
    })?;
    match point.value? {
        number_data_point::Value::AsInt(value) => Some(value),
        number_data_point::Value::AsDouble(_) => None,
    }
}

fn of(resource: Option<&Resource>) -> Attributes {
    resource.map_or_else(Attributes::new, |resource| attributes(&resource.attributes))
}

fn attributes(pairs: &[KeyValue]) -> Attributes {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}
