//! Metrics of devices, read from the devices' own numbers whenever somebody looks.
//!
//! Owns their names, and the way from a [`DeviceReading`] to lines of text and OTLP points. Counts nothing itself: devices
//! keep exact numbers anyway, so a second count on the way of every batch would only cost time and could disagree. A
//! model's counters begin at zero when it is declared, which readers of counters take for a restart.
//!
//! Invariants: the label sets of models and tenants are the bounded ones of [`crate::labels`], and what is past them is
//! added up under `other`; a source that is gone reads as no devices.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use mesh_types::{DeviceId, ModelVersionKey, TenantId};
use parking_lot::Mutex;

use crate::labels::{BoundedLabels, LabelText, OTHER};

/// What one model has done on one device since it was loaded.
#[derive(Debug, Clone)]
pub struct ModelReading {
    /// Which.
    pub model: ModelVersionKey,
    /// Whether it is kept from the device because it crashed again and again.
    pub quarantined: bool,
    /// Executions, those that failed included.
    pub executions: u64,
    /// Requests that left without having run because their caller went.
    pub cancelled: u64,
    /// Requests that left without having run because their deadline passed.
    pub expired: u64,
    /// Requests that left without having run because they were refused.
    pub rejected: u64,
    /// Batches that ended in a crash.
    pub crashed: u64,
    /// Executions that found no memory.
    pub out_of_memory: u64,
    /// Requests whose answer held NaN or infinity, where that is looked for.
    pub non_finite: u64,
    /// Loads that ended well.
    pub loads: u64,
    /// How long they took.
    pub load_time: Duration,
    /// Loads that failed.
    pub load_failures: u64,
    /// How often it left memory for another's sake.
    pub evictions: u64,
    /// How often it left memory because it was idle.
    pub idle_unloads: u64,
    /// What was foretold for its batches.
    pub predicted: Duration,
    /// By how much that was off, each batch's error taken as positive.
    pub prediction_error: Duration,
    /// Its sequences, where it is stateful.
    pub sequences: Option<SequenceReading>,
}

/// The sequences of one stateful model on one device.
#[derive(Debug, Clone, Copy, Default)]
pub struct SequenceReading {
    /// Open and in a seat.
    pub seated: u64,
    /// Waiting for a seat.
    pub backlog: u64,
    /// Ended by their callers.
    pub ended: u64,
    /// Ended because no request came for too long.
    pub idle: u64,
    /// Ended because their first request was not run.
    pub not_begun: u64,
    /// Ended because the instance that held their state is gone.
    pub lost: u64,
    /// Ended because their device was drained or their model unloaded.
    pub closed: u64,
}

/// What one device has done since it is there.
#[derive(Debug, Clone)]
pub struct DeviceReading {
    /// Which.
    pub device: DeviceId,
    /// Its threads.
    pub threads: usize,
    /// Threads given up because an execution hangs on them.
    pub abandoned: usize,
    /// Whether it takes no new requests.
    pub draining: bool,
    /// What the states of sequences take in the host's memory, in bytes.
    pub sequence_state_bytes: u64,
    /// The most bytes that models may take; none: no bound.
    pub budget: Option<u64>,
    /// Models in memory.
    pub resident: usize,
    /// Models that are declared and not in memory.
    pub standby: usize,
    /// Its models.
    pub models: Vec<ModelReading>,
    /// The device's time by tenant.
    pub tenants: Vec<(TenantId, Duration)>,
    /// The time of tenants that the device does not count one by one.
    pub other_tenants: Duration,
}

/// Reads the devices' numbers.
pub trait DeviceSource: Send + Sync {
    /// Every device, now. Must not wait.
    fn devices(&self) -> Vec<DeviceReading>;
}

/// One metric.
#[derive(Debug)]
pub(crate) struct Family {
    /// Without the `_total` that a counter's lines end in.
    pub(crate) name: &'static str,
    /// The name over OTLP.
    pub(crate) otlp: &'static str,
    pub(crate) help: &'static str,
    pub(crate) seconds: bool,
    pub(crate) gauge: bool,
}

const fn family(
    (name, otlp): (&'static str, &'static str),
    help: &'static str,
    (seconds, gauge): (bool, bool),
) -> Family {
    Family {
        name,
        otlp,
        help,
        seconds,
        gauge,
    }
}

const COUNT: (bool, bool) = (false, false);
const SECONDS: (bool, bool) = (true, false);
const GAUGE: (bool, bool) = (false, true);

/// Every metric of devices; [`Kind`] is its index.
#[rustfmt::skip]
pub(crate) const FAMILIES: [Family; 21] = [
    family(("mesh_tenant_device_seconds", "mesh.tenant.device_time"), "Device time used by each tenant's rows", SECONDS),
    family(("mesh_requests_not_run", "mesh.requests.not_run"), "Requests that left a device without having run, by reason", COUNT),
    family(("mesh_model_executions", "mesh.model.executions"), "Executions of models, failed ones included", COUNT),
    family(("mesh_model_crashes", "mesh.model.crashes"), "Batches that ended in a panic, a hung execution or a failed reload", COUNT),
    family(("mesh_model_out_of_memory", "mesh.model.out_of_memory"), "Executions that found no memory", COUNT),
    family(("mesh_model_non_finite", "mesh.model.non_finite"), "Requests whose answer held NaN or infinity, where that is looked for", COUNT),
    family(("mesh_batch_predicted_seconds", "mesh.batch.predicted"), "Duration foretold for batches", SECONDS),
    family(("mesh_batch_prediction_error_seconds", "mesh.batch.prediction_error"), "Difference of batches' durations from what was foretold, as positive", SECONDS),
    family(("mesh_model_quarantined", "mesh.model.quarantined"), "Whether a model is kept from a device because it crashed again and again", GAUGE),
    family(("mesh_device_threads", "mesh.device.threads"), "Threads of a device: at most so many executions at once", GAUGE),
    family(("mesh_device_abandoned_threads", "mesh.device.abandoned_threads"), "Threads given up because an execution hangs on them", GAUGE),
    family(("mesh_device_draining", "mesh.device.draining"), "Whether a device takes no new requests", GAUGE),
    family(("mesh_sequences", "mesh.sequences"), "Open sequences of stateful models: in a seat, or waiting for one", GAUGE),
    family(("mesh_sequences_ended", "mesh.sequences.ended"), "Sequences that are over, by reason", COUNT),
    family(("mesh_device_sequence_state_bytes", "mesh.device.sequence_state"), "Memory of the host that states of sequences take", GAUGE),
    family(("mesh_model_loads", "mesh.model.loads"), "Loads of models that ended well", COUNT),
    family(("mesh_model_load_seconds", "mesh.model.load_time"), "Time that loads took which ended well, warm-up included", SECONDS),
    family(("mesh_model_load_failures", "mesh.model.load_failures"), "Loads of models that failed", COUNT),
    family(("mesh_model_evictions", "mesh.model.evictions"), "Models that left memory, by reason", COUNT),
    family(("mesh_device_memory_budget_bytes", "mesh.device.memory_budget"), "The most bytes that models may take on a device", GAUGE),
    family(("mesh_device_models", "mesh.device.models"), "Models declared on a device, by whether they are in memory", GAUGE),
];

/// The place of each metric in [`FAMILIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    TenantSeconds,
    NotRun,
    Executions,
    Crashes,
    OutOfMemory,
    NonFinite,
    Predicted,
    PredictionError,
    Quarantined,
    Threads,
    Abandoned,
    Draining,
    Sequences,
    SequencesEnded,
    SequenceStateBytes,
    Loads,
    LoadSeconds,
    LoadFailures,
    Evictions,
    Budget,
    Models,
}

/// Names and values, in the order in which they are written.
pub(crate) type Labels = Vec<(&'static str, LabelText)>;

/// The devices' numbers, and how long each was busy.
#[derive(Default)]
pub(crate) struct DeviceMetrics {
    source: OnceLock<Weak<dyn DeviceSource>>,
    // One entry per device of this machine.
    busy: Mutex<BTreeMap<DeviceId, Duration>>,
    /// Of the time that devices count by tenants' names, what tenants had who are gone. As many as devices count.
    gone: Mutex<BTreeMap<(DeviceId, TenantId), Duration>>,
}

impl std::fmt::Debug for DeviceMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceMetrics").finish_non_exhaustive()
    }
}

/// Values by metric and labels.
struct Sums<'a> {
    models: &'a BoundedLabels,
    tenants: &'a BoundedLabels,
    values: BTreeMap<(usize, Labels), f64>,
}

impl DeviceMetrics {
    /// From where to read; only the first one counts. Held weakly: the devices may know this telemetry.
    pub(crate) fn read_from(&self, source: &Arc<dyn DeviceSource>) {
        let _ = self.source.set(Arc::downgrade(source));
    }

    fn leave_out_gone(&self, reading: &mut DeviceReading) {
        let gone = self.gone.lock();
        for (tenant, time) in &mut reading.tenants {
            let before = gone.get(&(reading.device, tenant.clone())).copied().unwrap_or_default();
            *time = time.saturating_sub(before);
        }
        reading.tenants.retain(|(_, time)| !time.is_zero());
    }

    pub(crate) fn was_busy(&self, device: DeviceId, time: Duration) {
        *self.busy.lock().entry(device).or_default() += time;
    }

    pub(crate) fn busy(&self) -> Vec<(DeviceId, Duration)> {
        self.busy.lock().iter().map(|(device, busy)| (*device, *busy)).collect()
    }

    /// Leaves out from now on what these tenants have had of devices' time.
    pub(crate) fn forget(&self, is_gone: impl Fn(&str) -> bool) {
        let Some(source) = self.source.get().and_then(Weak::upgrade) else {
            return;
        };
        let mut gone = self.gone.lock();
        for DeviceReading { device, tenants, .. } in source.devices() {
            let tenants = tenants.into_iter().filter(|(tenant, _)| is_gone(tenant.as_str()));
            gone.extend(tenants.map(|(tenant, time)| ((device, tenant), time)));
        }
    }

    /// Every value, by the index of its metric in [`FAMILIES`] and its labels.
    pub(crate) fn read(&self, models: &BoundedLabels, tenants: &BoundedLabels) -> BTreeMap<(usize, Labels), f64> {
        let devices = self.source.get().and_then(Weak::upgrade).map(|source| source.devices());
        let mut sums = Sums {
            models,
            tenants,
            values: BTreeMap::new(),
        };
        for mut device in devices.into_iter().flatten() {
            self.leave_out_gone(&mut device);
            sums.device(&device);
        }
        sums.values
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn count(count: u64) -> f64 {
    count as f64
}

impl Sums<'_> {
    fn add(&mut self, kind: Kind, labels: &[(&'static str, &LabelText)], value: f64) {
        let labels = labels.iter().map(|(name, text)| (*name, (*text).clone())).collect();
        *self.values.entry((kind as usize, labels)).or_default() += value;
    }

    fn device(&mut self, reading: &DeviceReading) {
        let device = LabelText::from(reading.device.to_string().as_str());
        let labels = [("device", &device)];
        self.add(Kind::Threads, &labels, count(reading.threads as u64));
        self.add(Kind::Abandoned, &labels, count(reading.abandoned as u64));
        self.add(Kind::Draining, &labels, f64::from(u8::from(reading.draining)));
        self.add(Kind::SequenceStateBytes, &labels, count(reading.sequence_state_bytes));
        if let Some(budget) = reading.budget {
            self.add(Kind::Budget, &labels, count(budget));
        }
        for (state, models) in [("resident", reading.resident), ("standby", reading.standby)] {
            let state = LabelText::from(state);
            self.add(
                Kind::Models,
                &[("device", &device), ("state", &state)],
                count(models as u64),
            );
        }
        for model in &reading.models {
            self.model(&device, model);
        }
        for (tenant, time) in &reading.tenants {
            let tenant = self.tenants.admit(tenant.as_str());
            self.add(Kind::TenantSeconds, &[("tenant", &tenant)], time.as_secs_f64());
        }
        if !reading.other_tenants.is_zero() {
            let other = LabelText::from(OTHER);
            let time = reading.other_tenants.as_secs_f64();
            self.add(Kind::TenantSeconds, &[("tenant", &other)], time);
        }
    }

    fn model(&mut self, device: &LabelText, reading: &ModelReading) {
        let model = self.models.admit(&reading.model.to_string());
        let labels = [("device", device), ("model", &model)];
        for (reason, requests) in [
            ("cancelled", reading.cancelled),
            ("expired", reading.expired),
            ("rejected", reading.rejected),
        ] {
            let reason = LabelText::from(reason);
            let labels = [("device", device), ("model", &model), ("reason", &reason)];
            self.add(Kind::NotRun, &labels, count(requests));
        }
        for (reason, times) in [("memory", reading.evictions), ("idle", reading.idle_unloads)] {
            let reason = LabelText::from(reason);
            let labels = [("device", device), ("model", &model), ("reason", &reason)];
            self.add(Kind::Evictions, &labels, count(times));
        }
        for (kind, value) in [
            (Kind::Loads, count(reading.loads)),
            (Kind::LoadSeconds, reading.load_time.as_secs_f64()),
            (Kind::LoadFailures, count(reading.load_failures)),
            (Kind::Executions, count(reading.executions)),
            (Kind::Crashes, count(reading.crashed)),
            (Kind::OutOfMemory, count(reading.out_of_memory)),
            (Kind::NonFinite, count(reading.non_finite)),
            (Kind::Predicted, reading.predicted.as_secs_f64()),
            (Kind::PredictionError, reading.prediction_error.as_secs_f64()),
            (Kind::Quarantined, f64::from(u8::from(reading.quarantined))),
        ] {
            self.add(kind, &labels, value);
        }
        reading.sequences.iter().for_each(|sequences| {
            self.sequences(device, &model, sequences);
        });
    }

    fn sequences(&mut self, device: &LabelText, model: &LabelText, reading: &SequenceReading) {
        let mut each = |kind, (name, value): (&'static str, &str), sequences: u64| {
            let value = LabelText::from(value);
            let labels = [("device", device), ("model", model), (name, &value)];
            self.add(kind, &labels, count(sequences));
        };
        each(Kind::Sequences, ("state", "seated"), reading.seated);
        each(Kind::Sequences, ("state", "backlog"), reading.backlog);
        for (reason, sequences) in [
            ("ended", reading.ended),
            ("idle", reading.idle),
            ("not_begun", reading.not_begun),
            ("lost", reading.lost),
            ("closed", reading.closed),
        ] {
            each(Kind::SequencesEnded, ("reason", reason), sequences);
        }
    }
}

/// Writes the values as Prometheus text, without the end mark.
pub(crate) fn encode(values: &BTreeMap<(usize, Labels), f64>, text: &mut String) -> std::fmt::Result {
    for (index, family) in FAMILIES.iter().enumerate() {
        let (name, kind) = (family.name, if family.gauge { "gauge" } else { "counter" });
        writeln!(text, "# HELP {name} {}.\n# TYPE {name} {kind}", family.help)?;
        if family.seconds {
            writeln!(text, "# UNIT {name} seconds")?;
        }
        let suffix = if family.gauge { "" } else { "_total" };
        for ((_, labels), value) in values.range((index, Vec::new())..(index + 1, Vec::new())) {
            // Every label has passed the grammar of names (or is ours), so nothing needs escaping.
            let labels: Vec<String> = labels
                .iter()
                .map(|(name, value)| format!("{name}=\"{}\"", value.0))
                .collect();
            writeln!(text, "{name}{suffix}{{{}}} {value}", labels.join(","))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "devices_tests.rs"]
pub(crate) mod tests;
