//! Devices: what they have done, as numbers that people read, and whether they take requests.
//!
//! Owns the arithmetic (means, fractions, who used the most) and the two commands. Keeps no numbers: the assembler of the
//! program says how devices stand ([`DeviceFacts`]), and the door's own ticks say how busy they were of late.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use actix_web::HttpResponse;
use mesh_types::{DeviceId, DeviceIdError, DeviceKind, TenantId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    AdminState, HeldModel,
    auth::Caller,
    error::ApiError,
    loaded::LoadView,
    overview::WINDOW_TICKS,
    parts::{DeviceFacts, ModelFacts, ModelNumbers, SequenceNumbers},
};

/// Tenants of a device that are named; the time of the others is added up.
pub(crate) const MAX_TENANTS_SHOWN: usize = 20;

/// One device, and what it has done since the mesh started.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct DeviceDetail {
    /// Which, such as `cpu:0`.
    #[schema(value_type = String)]
    device: DeviceId,
    /// `cpu` or `cuda`.
    #[schema(value_type = String)]
    kind: DeviceKind,
    /// At most so many executions at once.
    threads: usize,
    /// Threads given up because an execution hangs on them.
    abandoned_threads: usize,
    /// Whether it takes no new requests.
    draining: bool,
    /// Requests accepted and not yet answered: waiting and being executed.
    in_flight: u64,
    /// Sequences of stateful models that are open on it; a device that is drained waits a while for them to end.
    open_sequences: u64,
    /// Memory of the host that their states take.
    sequence_state_bytes: u64,
    /// How long it has been there.
    up_seconds: f64,
    /// How long its threads were busy, all together.
    busy_seconds: f64,
    /// The share of its threads' time that they were busy, from 0 to 1, since the start.
    busy_fraction: f64,
    /// The same over about the last ten seconds; null in the first second.
    recent_busy_fraction: Option<f64>,
    /// Memory of its models.
    memory_bytes: u64,
    /// The most that they may take, their largest batches included; null: no bound.
    budget_bytes: Option<u64>,
    /// What it holds or is about to.
    models: Vec<ModelDetail>,
    /// Who used its time, the most first; at most 20.
    tenants: Vec<TenantTime>,
    /// The time of all others.
    other_tenants_seconds: f64,
}

/// A model version on a device, and what it has done since it was loaded.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ModelDetail {
    #[serde(flatten)]
    held: HeldModel,
    /// Requests that waited when the last batch was taken.
    queue_length: u64,
    /// Requests answered with outputs.
    requests: u64,
    /// Requests that the model or the device failed.
    failed: u64,
    /// Rows answered with outputs.
    rows: u64,
    /// Executions, those that failed included.
    executions: u64,
    /// Rows in an execution that ended well.
    mean_batch_rows: Option<f64>,
    /// Of requests answered with outputs, from their arrival on the device.
    mean_latency_ms: Option<f64>,
    /// The part of it that they waited.
    mean_queue_ms: Option<f64>,
    /// The part of it that the model ran.
    mean_compute_ms: Option<f64>,
    /// Requests whose caller went before they ran.
    cancelled: u64,
    /// Requests whose deadline passed before they ran.
    expired: u64,
    /// Requests that were refused.
    rejected: u64,
    /// Requests whose answer held NaN or infinity, where that is looked for.
    non_finite: u64,
    /// Batches that ended in a crash.
    crashed: u64,
    /// Executions that found no memory.
    out_of_memory: u64,
    /// Loads that ended well.
    loads: u64,
    /// Loads that failed.
    load_failures: u64,
    /// How often it left memory for another's sake.
    evictions: u64,
    /// How often it left memory because it was idle.
    idle_unloads: u64,
    /// By how much batches' durations differ from what is foretold, as a share of it; null before the first.
    prediction_error: Option<f64>,
    /// What loading it came to; null where it has not been loaded yet.
    load: Option<LoadView>,
    /// Its sequences; null where it keeps no state.
    sequences: Option<SequenceNumbers>,
}

/// A tenant's share of a device.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct TenantTime {
    /// Which.
    #[schema(value_type = String)]
    tenant: TenantId,
    /// The device's time that its rows took.
    seconds: f64,
}

/// How busy devices were of late, kept a tick at a time.
#[derive(Debug, Default)]
pub(crate) struct BusyWindow(VecDeque<(Instant, BTreeMap<DeviceId, Duration>)>);

impl BusyWindow {
    /// Takes in how long each device has been busy so far.
    pub(crate) fn tick(&mut self, busy: &[(DeviceId, Duration)], now: Instant) {
        self.0.push_back((now, busy.iter().copied().collect()));
        // As many spans as ticks need one moment more.
        if self.0.len() > WINDOW_TICKS + 1 {
            self.0.pop_front();
        }
    }

    /// How long threads of the device were busy per second; none before there is a span to speak of.
    pub(crate) fn rate(&self, device: DeviceId) -> Option<f64> {
        let ((from, before), (to, after)) = (self.0.front()?, self.0.back()?);
        let busy = |moment: &BTreeMap<DeviceId, Duration>| moment.get(&device).copied().unwrap_or_default();
        ratio(
            busy(after).saturating_sub(busy(before)),
            to.saturating_duration_since(*from),
        )
    }
}

/// One span as a share of another; none of nothing.
fn ratio(part: Duration, whole: Duration) -> Option<f64> {
    (!whole.is_zero()).then(|| part.as_secs_f64() / whole.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn mean(total: f64, count: u64) -> Option<f64> {
    (count > 0).then(|| total / count as f64)
}

fn mean_ms(total: Duration, count: u64) -> Option<f64> {
    mean(total.as_secs_f64() * 1_000.0, count)
}

impl From<ModelFacts> for ModelDetail {
    fn from(facts: ModelFacts) -> Self {
        let ModelFacts {
            held,
            waiting,
            numbers,
            load,
        } = facts;
        let ModelNumbers {
            requests,
            failed,
            rows,
            executions,
            ended_well,
            latency,
            queue,
            compute,
            cancelled,
            expired,
            rejected,
            non_finite,
            crashed,
            out_of_memory,
            loads,
            load_failures,
            evictions,
            idle_unloads,
            predicted,
            prediction_error,
            sequences,
        } = numbers;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let all_rows = rows as f64;
        Self {
            held,
            queue_length: waiting,
            requests,
            failed,
            rows,
            executions,
            mean_batch_rows: mean(all_rows, ended_well),
            mean_latency_ms: mean_ms(latency, requests),
            mean_queue_ms: mean_ms(queue, requests),
            mean_compute_ms: mean_ms(compute, requests),
            cancelled,
            expired,
            rejected,
            non_finite,
            crashed,
            out_of_memory,
            loads,
            load_failures,
            evictions,
            idle_unloads,
            prediction_error: ratio(prediction_error, predicted),
            load: LoadView::of(&load),
            sequences,
        }
    }
}

/// What is shown of a device, with its recent rate of busy time.
fn detail(facts: DeviceFacts, rate: Option<f64>) -> DeviceDetail {
    let threads = u32::try_from(facts.threads).unwrap_or(u32::MAX);
    // A batch counts when it ends, so a rate may be above what there is.
    let of_threads = |rate: f64| (rate / f64::from(threads.max(1))).clamp(0.0, 1.0);
    let mut tenants = facts.tenants;
    tenants.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let others = tenants.split_off(tenants.len().min(MAX_TENANTS_SHOWN));
    let others: Duration = others.into_iter().map(|(_, time)| time).sum();
    let models: Vec<ModelDetail> = facts.models.into_iter().map(ModelDetail::from).collect();
    DeviceDetail {
        device: facts.device,
        kind: facts.device.kind,
        threads: facts.threads,
        abandoned_threads: facts.abandoned,
        draining: facts.draining,
        in_flight: facts.in_flight,
        open_sequences: models
            .iter()
            .filter_map(|model| model.sequences)
            .map(|known| known.open)
            .sum(),
        sequence_state_bytes: facts.sequence_state_bytes,
        up_seconds: facts.up.as_secs_f64(),
        busy_seconds: facts.busy.as_secs_f64(),
        busy_fraction: ratio(facts.busy, facts.up).map_or(0.0, of_threads),
        recent_busy_fraction: rate.map(of_threads),
        budget_bytes: facts.budget,
        memory_bytes: models.iter().filter_map(|model| model.held.memory_bytes).sum(),
        models,
        tenants: tenants
            .into_iter()
            .map(|(tenant, time)| TenantTime {
                tenant,
                seconds: time.as_secs_f64(),
            })
            .collect(),
        other_tenants_seconds: (others + facts.other_tenants).as_secs_f64(),
    }
}

fn details(state: &AdminState) -> Vec<DeviceDetail> {
    let facts = state.inner.parts.fleet.inspect();
    let tick = state.inner.ticks.borrow().clone();
    facts
        .into_iter()
        .map(|facts| {
            let rate = tick.busy.get(&facts.device).copied();
            detail(facts, rate)
        })
        .collect()
}

/// Answers every device.
pub(crate) fn list(state: &AdminState) -> HttpResponse {
    HttpResponse::Ok().json(details(state))
}

/// Lets a device take no new requests, or take them again; an entry of the audit trail if that is a change.
pub(crate) async fn drain(
    state: &AdminState,
    caller: &Caller,
    device: &str,
    draining: bool,
) -> Result<HttpResponse, ApiError> {
    let device: DeviceId = device
        .parse()
        .map_err(|error: DeviceIdError| ApiError::invalid(error.to_string()))?;
    let parts = &state.inner.parts;
    let unknown = || ApiError::not_found(format!("device {device}"));
    let known = parts.fleet.inspect().into_iter().find(|known| known.device == device);
    if known.ok_or_else(unknown)?.draining != draining {
        let event = if draining { "drain" } else { "undrain" };
        parts
            .registry
            .note(caller.author(), &format!("{event} {device}"))
            .await?;
        parts.fleet.drain(device, draining).await?;
        tracing::info!(who = %caller.who, %device, event, "a device's draining changed");
    }
    let shown = details(state).into_iter().find(|shown| shown.device == device);
    Ok(HttpResponse::Ok().json(shown.ok_or_else(unknown)?))
}

#[cfg(test)]
#[path = "devices_tests.rs"]
mod tests;
