//! Export against a real OTLP/gRPC collector in this process.

use std::time::SystemTime;

use mesh_types::{StageTimings, TraceContext};
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
    metrics::v1::{NumberDataPoint, metric::Data, number_data_point::Value},
};
use tokio::{net::TcpListener, sync::mpsc};
use tonic::{
    Request, Response,
    transport::{Server, server::TcpIncoming},
};

use super::*;
use crate::{
    BatchSpan, DeviceReading, DeviceSource, RequestSpan, Telemetry, TelemetryConfig,
    devices::tests::{device, model},
};

struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (String, mpsc::UnboundedReceiver<ExportTraceServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = mpsc::unbounded_channel();
    let service = TraceServiceServer::new(Collector(sender));
    #[expect(clippy::disallowed_methods, reason = "the collector lives as long as the test")]
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    (address, receiver)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requests_stages_and_its_batch_reach_the_collector_linked() {
    let (endpoint, mut received) = collector().await;
    let otlp = OtlpConfig {
        endpoint,
        service_name: "mesh-test".into(),
        sample_ratio: 0.0,
    };
    let telemetry = Telemetry::start(&TelemetryConfig { otlp: Some(otlp) }).unwrap();
    let parent: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        .parse()
        .unwrap();
    let request = telemetry.spans().begin(Some(parent));
    assert_eq!(request.trace_id, parent.trace_id);
    let batch = telemetry.spans().begin_batch(&[request]).unwrap();
    let stages = StageTimings {
        decode: Duration::from_micros(5),
        queue: Duration::from_micros(10),
        batch_trace: Some(batch),
        ..StageTimings::default()
    };
    let (ended, total) = (SystemTime::now(), Duration::from_millis(1));
    let members = [request];
    telemetry.spans().batch(&BatchSpan {
        context: batch,
        model: "a/m/1",
        device: "cpu:0",
        rows: 1,
        ended,
        busy: total,
        members: &members,
    });
    telemetry.spans().request(&RequestSpan {
        context: request,
        parent: Some(parent),
        target: "digits",
        tenant: "acme",
        version: 1,
        request_id: 7,
        ended,
        total,
        stages: &stages,
        answers: None,
        error: None,
    });
    tokio::task::spawn_blocking(move || telemetry.flush()).await.unwrap();
    let export = received.recv().await.unwrap();
    let spans: Vec<_> = export
        .resource_spans
        .into_iter()
        .flat_map(|r| r.scope_spans)
        .flat_map(|s| s.spans)
        .collect();
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let (infer, queue, batch_span) = (find("infer"), find("queue"), find("batch"));
    assert_eq!(infer.parent_span_id, parent.span_id.to_be_bytes());
    assert_eq!(infer.trace_id, parent.trace_id.to_be_bytes());
    assert_eq!(queue.parent_span_id, infer.span_id);
    assert_eq!(infer.links.first().unwrap().span_id, batch_span.span_id);
    assert_eq!(batch_span.links.first().unwrap().span_id, infer.span_id);
}

struct MetricCollector(mpsc::UnboundedSender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for MetricCollector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

struct OneDevice;

impl DeviceSource for OneDevice {
    fn devices(&self) -> Vec<DeviceReading> {
        vec![device(0, vec![model("digits")], &[("acme", 3)])]
    }
}

fn points(export: ExportMetricsServiceRequest, name: &str) -> Vec<NumberDataPoint> {
    let scopes = export.resource_metrics.into_iter().flat_map(|r| r.scope_metrics);
    let metrics = scopes.flat_map(|s| s.metrics).filter(|metric| metric.name == name);
    let of = |data| match data {
        Some(Data::Sum(sum)) => sum.data_points,
        Some(Data::Gauge(gauge)) => gauge.data_points,
        _ => Vec::new(),
    };
    metrics.flat_map(|metric| of(metric.data)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_devices_say_reaches_the_collector_with_its_labels() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut received) = mpsc::unbounded_channel();
    let service = MetricsServiceServer::new(MetricCollector(sender));
    #[expect(clippy::disallowed_methods, reason = "the collector lives as long as the test")]
    tokio::spawn(
        Server::builder()
            .add_service(service)
            .serve_with_incoming(TcpIncoming::from(listener)),
    );
    let otlp = OtlpConfig {
        endpoint,
        service_name: "mesh-test".into(),
        sample_ratio: 0.0,
    };
    let telemetry = Telemetry::start(&TelemetryConfig { otlp: Some(otlp) }).unwrap();
    let source: Arc<dyn DeviceSource> = Arc::new(OneDevice);
    telemetry.metrics().read_devices_from(&source);
    tokio::task::spawn_blocking(move || telemetry.flush()).await.unwrap();
    let export = received.recv().await.unwrap();
    let one = |name: &str| {
        let points = points(export.clone(), name);
        let [point] = points.as_slice() else {
            panic!("{name}: {points:?}")
        };
        let labels: Vec<String> = point.attributes.iter().map(|label| label.key.clone()).collect();
        (point.value, labels)
    };
    let tenant = vec!["tenant".to_owned()];
    assert_eq!(one("mesh.tenant.device_time"), (Some(Value::AsDouble(3.0)), tenant));
    let device = vec!["device".to_owned()];
    assert_eq!(one("mesh.device.threads"), (Some(Value::AsDouble(2.0)), device));
    assert_eq!(
        points(export.clone(), "mesh.requests.not_run").len(),
        3,
        "one for each reason"
    );
}

#[tokio::test]
async fn an_endpoint_that_is_no_address_is_refused_with_its_text() {
    let otlp = OtlpConfig {
        endpoint: "not a url".into(),
        service_name: "mesh".into(),
        sample_ratio: 1.0,
    };
    let error = Telemetry::start(&TelemetryConfig { otlp: Some(otlp) }).unwrap_err();
    assert!(error.to_string().contains("'not a url'"), "{error}");
}

#[test]
fn without_an_exporter_nothing_is_sampled_and_the_callers_trace_goes_on() {
    let telemetry = Telemetry::local();
    let parent: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        .parse()
        .unwrap();
    let context = telemetry.spans().begin(Some(parent));
    assert_eq!(context.trace_id, parent.trace_id);
    assert!(!context.sampled);
    assert!(telemetry.spans().begin_batch(&[context]).is_none());
}
