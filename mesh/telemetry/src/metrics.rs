//! Every metric and its name, once: what rooms report and what Prometheus reads.
//!
//! Names follow Prometheus' rules (base units, `_total`, `_seconds`). Labels are `tenant`, `endpoint`, `arm`, `version`,
//! `outcome`, `stage`, `device`, `model`, `reason`, `ensemble`, `step`, `door`, `certificate`, `rule`, `effect`, all bounded by [`crate::labels`] and [`crate::series`].

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use mesh_types::{DeviceId, FaultSource, ModelVersionKey, StageTimings, TenantId};
use parking_lot::RwLock;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::{
    answers::{self, AnswersSample},
    cache::CacheMetrics,
    certificates::Certificates,
    devices::{self, DeviceMetrics, DeviceSource},
    ensembles::{EnsembleMeter, EnsembleReading, Ensembles},
    issuers::Issuers,
    labels::{BoundedLabels, LabelText, OTHER},
    limits::{LimitEffect, LimitMetrics},
    models::ModelMetrics,
    series::{LiveSnapshot, OUTCOMES, SeriesTable, outcome_index},
    stages::StageHistograms,
    triton::{TritonMetrics, TritonSource},
};

/// The most distinct reasons for refusals before authentication.
const MAX_REASON_LABELS: usize = 64;

/// One finished request.
#[derive(Debug, Clone, Copy)]
pub struct RequestSample<'a> {
    /// Who called.
    pub tenant: &'a str,
    /// The endpoint or model called; empty if there is no such thing (a caller's text must not become a label).
    pub target: &'a str,
    /// The arm chosen; empty where there was no split.
    pub arm: &'a str,
    /// The version chosen; 0 if none.
    pub version: u32,
    /// Whose fault it was, if it failed.
    pub fault: Option<FaultSource>,
    /// From the first byte to the answer.
    pub total: Duration,
    /// Where the time went.
    pub stages: &'a StageTimings,
    /// The answers of a decoupled model; none of any other.
    pub answers: Option<AnswersSample>,
}

/// One finished batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchSample<'a> {
    /// Where it ran.
    pub device: DeviceId,
    /// What ran.
    pub model: &'a ModelVersionKey,
    /// Rows.
    pub rows: u32,
    /// Requests.
    pub requests: u32,
    /// Whether it failed.
    pub failed: bool,
    /// How long the device was busy.
    pub busy: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: LabelText,
}

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    pub(crate) registry: RwLock<Registry>,
    pub(crate) requests: SeriesTable,
    in_flight: AtomicI64,
    stages: StageHistograms,
    models: ModelMetrics,
    reasons: BoundedLabels,
    refused: Family<ReasonLabels, Counter>,
    devices: DeviceMetrics,
    triton: TritonMetrics,
    pub(crate) ensembles: Ensembles,
    certificates: Certificates,
    issuers: Issuers,
    cache: CacheMetrics,
    limits: LimitMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let metrics = Self {
            registry: RwLock::default(),
            requests: SeriesTable::new(),
            in_flight: AtomicI64::new(0),
            stages: StageHistograms::default(),
            models: ModelMetrics::default(),
            reasons: BoundedLabels::new(MAX_REASON_LABELS),
            refused: Family::default(),
            devices: DeviceMetrics::default(),
            triton: TritonMetrics::default(),
            ensembles: Ensembles::default(),
            certificates: Certificates::default(),
            issuers: Issuers::default(),
            cache: CacheMetrics::default(),
            limits: LimitMetrics::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.registry.write();
        self.models.register(&mut registry);
        self.certificates.register(&mut registry);
        self.issuers.register(&mut registry);
        self.cache.register(&mut registry);
        self.limits.register(&mut registry);
        registry.register(
            "mesh_refused",
            "Requests refused before they had a tenant, by reason",
            self.refused.clone(),
        );
    }

    /// A request has begun; call [`Self::request_finished`] once for it.
    pub fn request_started(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request has ended without anything to report (its caller left before it had a tenant).
    pub fn request_abandoned(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request has ended.
    pub fn request_finished(&self, sample: &RequestSample<'_>) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let series = self
            .requests
            .series(sample.tenant, sample.target, sample.arm, sample.version);
        if let Some(outcome) = series.outcomes.get(outcome_index(sample.fault)) {
            outcome.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(answers) = sample.answers {
            series.answers.add(answers);
        }
        if sample.fault.is_some() {
            return;
        }
        series.latency.record(sample.total);
        let nanoseconds = u64::try_from(sample.total.as_nanos()).unwrap_or(u64::MAX);
        series.latency_sum_ns.fetch_add(nanoseconds, Ordering::Relaxed);
        self.stages.record(sample.stages);
    }

    /// A request was refused before it had a tenant. Reasons are the mesh's own words, never the caller's.
    pub fn refused(&self, reason: &str) {
        self.refused
            .get_or_create(&ReasonLabels {
                reason: self.reasons.admit(reason),
            })
            .inc();
    }

    /// An issuer's keys were fetched: so many, at this Unix second.
    pub fn issuer_fetched(&self, issuer: &str, keys: usize, unix_seconds: i64) {
        self.issuers.fetched(issuer, keys, unix_seconds);
    }

    /// They could not be fetched; the reason is one of a few words.
    pub fn issuer_failed(&self, issuer: &str, reason: &'static str) {
        self.issuers.failed(issuer, reason);
    }

    /// They are no longer fetched.
    pub fn issuer_gone(&self, issuer: &str) {
        self.issuers.gone(issuer);
    }

    /// A tenant's limit has refused a request, or would have, or has warned of it.
    pub fn limit(&self, tenant: &str, rule: &'static str, effect: LimitEffect) {
        self.limits.count(self.requests.tenants(), tenant, rule, effect);
    }

    /// The files of a door's certificate have changed, and were put in place or refused.
    pub fn certificate_changed(&self, door: &'static str, renewed: bool) {
        self.certificates.changed(door, renewed);
    }

    /// A request of an endpoint with a response cache, and how it was answered.
    pub fn asked_cache(&self, tenant: &str, endpoint: &str, outcome: &'static str) {
        self.cache.asked(tenant, endpoint, outcome);
    }

    /// What the response cache holds now.
    pub fn cache_holds(&self, entries: usize, bytes: usize) {
        self.cache.holds(entries, bytes);
    }

    /// A request of a caller that is known by its certificate.
    pub fn known_by_certificate(&self, tenant: &str, certificate: &str) {
        self.certificates.called(tenant, certificate);
    }

    /// When the certificate ends that a door serves with, in Unix seconds.
    pub fn certificate_expires(&self, door: &'static str, unix_seconds: i64) {
        self.certificates.expires(door, unix_seconds);
    }

    /// A batch has been executed.
    pub fn batch_executed(&self, sample: &BatchSample<'_>) {
        self.models
            .executed(sample.device, sample.model, sample.rows, sample.busy, sample.failed);
        self.devices.was_busy(sample.device, sample.busy);
    }

    /// How many requests wait for this model on this device.
    pub fn set_queue_length(&self, device: DeviceId, model: &ModelVersionKey, length: usize) {
        self.models.set_queue_length(device, model, length);
    }

    /// How many requests waited for this model on this device when it was last said.
    pub fn queue_length(&self, device: DeviceId, model: &ModelVersionKey) -> u64 {
        self.models.queue_length(device, model)
    }

    /// From where devices are read whenever metrics are; the first call counts, and does not keep the source alive.
    pub fn read_devices_from(&self, source: &Arc<dyn DeviceSource>) {
        self.devices.read_from(source);
    }

    /// Writes metrics by the names of Triton's server too, read from here whenever metrics are; those of the models of `home`
    /// without a namespace. The first call counts, and does not keep the source alive.
    pub fn tell_as_triton(&self, source: &Arc<dyn TritonSource>, home: TenantId) {
        self.triton.read_from(source, home);
    }

    /// The values of the metrics of devices now.
    pub(crate) fn device_values(&self) -> BTreeMap<(usize, devices::Labels), f64> {
        self.devices.read(self.models.names(), self.requests.tenants())
    }

    /// How much memory this model takes on this device.
    pub fn set_model_memory(&self, device: DeviceId, model: &ModelVersionKey, bytes: u64) {
        self.models.set_memory(device, model, bytes);
    }

    /// The model is gone from the device: its gauges go too.
    pub fn model_unloaded(&self, device: DeviceId, model: &ModelVersionKey) {
        self.models.unloaded(device, model);
    }

    /// Where an ensemble's requests and steps are counted.
    pub fn ensemble<'a>(
        &self,
        key: &ModelVersionKey,
        steps: impl Iterator<Item = &'a str> + Clone,
    ) -> Arc<EnsembleMeter> {
        self.ensembles.of(key, steps)
    }

    /// What an ensemble has done; none if it has not been asked yet.
    pub fn ensemble_reading(&self, key: &ModelVersionKey) -> Option<EnsembleReading> {
        self.ensembles.reading(key)
    }

    /// Drops all that was counted of these tenants, be it theirs or of what they own: one that comes by an old name begins at nothing.
    /// What several are counted together under stays.
    pub fn forget(&self, is_gone: impl Fn(&str) -> bool) {
        let is_gone = |tenant: &str| tenant != OTHER && is_gone(tenant);
        let tenants = self.requests.forget(is_gone);
        self.limits.forget(&tenants);
        self.cache.forget(is_gone);
        self.certificates.forget(is_gone);
        self.models.forget(is_gone);
        self.ensembles.forget(is_gone);
        self.devices.forget(is_gone);
    }

    /// Requests being worked on.
    pub fn in_flight(&self) -> i64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The numbers behind the overview page.
    pub fn live(&self) -> LiveSnapshot {
        let series = self.requests.all().iter().map(|series| series.live()).collect();
        LiveSnapshot {
            series,
            in_flight: self.in_flight(),
            busy: self.devices.busy(),
        }
    }

    /// Everything, in the OpenMetrics text format.
    pub fn encode_prometheus(&self) -> Result<String, std::fmt::Error> {
        let mut text = self.encode_lines(None)?;
        self.triton.encode(&self.models, &mut text)?;
        encode(&mut text, &self.registry.read())?;
        Ok(text)
    }

    /// What is not in the registry, without the format's end mark. Of requests those of one tenant alone, where one is named: they are
    /// most of the text.
    pub(crate) fn encode_lines(&self, only: Option<&str>) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        self.encode_requests(only, &mut text)?;
        self.stages.encode(&mut text)?;
        devices::encode(&self.device_values(), &mut text)?;
        self.ensembles.encode(&mut text)?;
        Ok(text)
    }

    // The series keep their own atomics, which the overview reads too; their text is written here, before the registry's
    // (which ends in the format's end mark).
    fn encode_requests(&self, only: Option<&str>, text: &mut String) -> std::fmt::Result {
        let mut all = self.requests.all();
        all.retain(|series| only.is_none_or(|only| &*series.key.tenant == only));
        writeln!(
            text,
            "# HELP mesh_requests Requests by tenant, endpoint, arm, version and outcome.\n# TYPE mesh_requests counter"
        )?;
        for series in &all {
            for (index, outcome) in OUTCOMES.iter().enumerate() {
                let count = series.outcome(index);
                if count > 0 {
                    writeln!(
                        text,
                        "mesh_requests_total{{{},outcome=\"{outcome}\"}} {count}",
                        labels_text(&series.key)
                    )?;
                }
            }
        }
        writeln!(
            text,
            "# HELP mesh_request_duration_seconds Time to answer.\n# TYPE mesh_request_duration_seconds summary\n# UNIT mesh_request_duration_seconds seconds"
        )?;
        for series in &all {
            let (labels, latency) = (labels_text(&series.key), series.latency.snapshot());
            let sum = Duration::from_nanos(series.latency_sum_ns.load(Ordering::Relaxed)).as_secs_f64();
            for q in [0.5, 0.9, 0.99] {
                if let Some(milliseconds) = latency.quantile_ms(q) {
                    writeln!(
                        text,
                        "mesh_request_duration_seconds{{{labels},quantile=\"{q}\"}} {}",
                        milliseconds / 1_000.0
                    )?;
                }
            }
            writeln!(text, "mesh_request_duration_seconds_sum{{{labels}}} {sum}")?;
            writeln!(
                text,
                "mesh_request_duration_seconds_count{{{labels}}} {}",
                latency.count()
            )?;
        }
        answers::encode(&all, text)?;
        writeln!(
            text,
            "# HELP mesh_requests_in_flight Requests being worked on.\n# TYPE mesh_requests_in_flight gauge"
        )?;
        writeln!(text, "mesh_requests_in_flight {}", self.in_flight())
    }
}

// Every value has passed the grammar of names (or is ours), so nothing needs escaping.
pub(crate) fn labels_text(key: &crate::series::SeriesKey) -> String {
    let (tenant, target, arm, version) = (&key.tenant, &key.target, &key.arm, key.version);
    format!("tenant=\"{tenant}\",endpoint=\"{target}\",arm=\"{arm}\",version=\"{version}\"")
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
