//! What is counted per model and device: batches, rows, busy time, requests that wait, memory.
//!
//! A batch of a small model takes less time than the texts of its labels, so the counters of a model are looked up once and
//! kept. Invariants: at most [`MAX_MODEL_LABELS`] models have labels, and as many are kept, of their own; the gauges of a
//! model that is gone are gone.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mesh_types::{DeviceId, ModelVersionKey};
use parking_lot::RwLock;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::labels::{BoundedLabels, LabelText, owner};

/// The most models that have a label of their own in the metrics of devices, and the most counters that are kept at hand.
pub(crate) const MAX_MODEL_LABELS: usize = 4_000;

type Seconds = Counter<f64, std::sync::atomic::AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    device: LabelText,
    model: LabelText,
}

/// One model's counters on one device.
#[derive(Debug)]
struct Counters {
    batches: Counter,
    rows: Counter,
    busy: Seconds,
    /// Made when it is first set: a model that never ran has none.
    queue_length: Gauge,
}

/// The counters of all models on all devices.
#[derive(Debug)]
pub(crate) struct ModelMetrics {
    names: BoundedLabels,
    kept: RwLock<HashMap<DeviceId, HashMap<ModelVersionKey, Arc<Counters>>>>,
    batches: Family<ModelLabels, Counter>,
    failures: Family<ModelLabels, Counter>,
    rows: Family<ModelLabels, Counter>,
    busy: Family<ModelLabels, Seconds>,
    queue_length: Family<ModelLabels, Gauge>,
    memory: Family<ModelLabels, Gauge>,
}

impl Default for ModelMetrics {
    fn default() -> Self {
        Self {
            names: BoundedLabels::new(MAX_MODEL_LABELS),
            kept: RwLock::default(),
            batches: Family::default(),
            failures: Family::default(),
            rows: Family::default(),
            busy: Family::default(),
            queue_length: Family::default(),
            memory: Family::default(),
        }
    }
}

impl ModelMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register("mesh_batches", "Batches executed", self.batches.clone());
        registry.register("mesh_batch_failures", "Batches that failed", self.failures.clone());
        registry.register("mesh_batch_rows", "Rows executed", self.rows.clone());
        registry.register_with_unit(
            "mesh_device_busy",
            "Time devices spent on batches",
            Unit::Seconds,
            self.busy.clone(),
        );
        registry.register(
            "mesh_queue_length",
            "Requests waiting for a batch",
            self.queue_length.clone(),
        );
        registry.register_with_unit(
            "mesh_model_memory",
            "Memory of loaded models",
            Unit::Bytes,
            self.memory.clone(),
        );
    }

    /// The names of models that are labels.
    pub(crate) fn names(&self) -> &BoundedLabels {
        &self.names
    }

    pub(crate) fn executed(&self, device: DeviceId, model: &ModelVersionKey, rows: u32, busy: Duration, failed: bool) {
        let counters = self.of(device, model);
        counters.batches.inc();
        counters.rows.inc_by(u64::from(rows));
        counters.busy.inc_by(busy.as_secs_f64());
        if failed {
            self.failures.get_or_create(&self.labels(device, model)).inc();
        }
    }

    pub(crate) fn set_queue_length(&self, device: DeviceId, model: &ModelVersionKey, length: usize) {
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        self.of(device, model).queue_length.set(length);
    }

    pub(crate) fn queue_length(&self, device: DeviceId, model: &ModelVersionKey) -> u64 {
        let known = self.queue_length.get(&self.labels(device, model));
        known.map_or(0, |length| u64::try_from(length.get()).unwrap_or(0))
    }

    pub(crate) fn set_memory(&self, device: DeviceId, model: &ModelVersionKey, bytes: u64) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        if !self.kept.read().contains_key(&device) {
            self.kept.write().entry(device).or_default();
        }
        self.memory.get_or_create(&self.labels(device, model)).set(bytes);
    }

    pub(crate) fn unloaded(&self, device: DeviceId, model: &ModelVersionKey) {
        let labels = self.labels(device, model);
        // What is kept goes first: a gauge that is kept and no longer in its family would be set and never read.
        let mut kept = self.kept.write();
        if let Some(models) = kept.get_mut(&device) {
            models.remove(model);
        }
        self.queue_length.remove(&labels);
        self.memory.remove(&labels);
    }

    /// Drops what was counted of these tenants' models. What is loaded of them yet is counted anew.
    pub(crate) fn forget(&self, is_gone: impl Fn(&str) -> bool) {
        let mut kept = self.kept.write();
        for models in kept.values_mut() {
            models.retain(|model, _| !is_gone(model.tenant.as_str()));
        }
        let gone = self.names.forget(|model| is_gone(owner(model)));
        for (device, model) in kept
            .keys()
            .flat_map(|device| gone.iter().map(move |model| (device, model)))
        {
            let labels = ModelLabels {
                device: LabelText::from(device.to_string().as_str()),
                model: LabelText(model.clone()),
            };
            self.batches.remove(&labels);
            self.failures.remove(&labels);
            self.rows.remove(&labels);
            self.busy.remove(&labels);
            self.queue_length.remove(&labels);
            self.memory.remove(&labels);
        }
    }

    fn of(&self, device: DeviceId, model: &ModelVersionKey) -> Arc<Counters> {
        let known = |kept: &HashMap<DeviceId, HashMap<ModelVersionKey, Arc<Counters>>>| {
            kept.get(&device).and_then(|models| models.get(model)).cloned()
        };
        if let Some(counters) = known(&self.kept.read()) {
            return counters;
        }
        let labels = self.labels(device, model);
        let mut kept = self.kept.write();
        if let Some(counters) = known(&kept) {
            return counters;
        }
        let counters = Arc::new(Counters {
            batches: self.batches.get_or_create(&labels).clone(),
            rows: self.rows.get_or_create(&labels).clone(),
            busy: self.busy.get_or_create(&labels).clone(),
            queue_length: self.queue_length.get_or_create(&labels).clone(),
        });
        let room = kept.values().map(HashMap::len).sum::<usize>() < MAX_MODEL_LABELS;
        // A device is known in any case: there what is gone is looked for.
        let here = kept.entry(device).or_default();
        if room {
            here.insert(model.clone(), counters.clone());
        }
        counters
    }

    fn labels(&self, device: DeviceId, model: &ModelVersionKey) -> ModelLabels {
        ModelLabels {
            device: LabelText::from(device.to_string().as_str()),
            model: self.names.admit(&model.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_types::{ModelId, TenantId, Version};

    fn model(number: u32) -> ModelVersionKey {
        ModelVersionKey {
            tenant: TenantId::parse("acme").unwrap(),
            model: ModelId::parse("digits").unwrap(),
            version: Version::new(number).unwrap(),
        }
    }

    fn kept(metrics: &ModelMetrics) -> usize {
        metrics.kept.read().values().map(HashMap::len).sum()
    }

    #[test]
    fn a_model_that_comes_back_is_read_again() {
        let (metrics, device) = (ModelMetrics::default(), DeviceId::cpu(0));
        metrics.set_queue_length(device, &model(1), 4);
        metrics.unloaded(device, &model(1));
        assert_eq!(metrics.queue_length(device, &model(1)), 0);
        metrics.set_queue_length(device, &model(1), 7);
        assert_eq!(metrics.queue_length(device, &model(1)), 7);
        assert_eq!(kept(&metrics), 1);
    }

    #[test]
    fn as_many_models_are_kept_as_have_labels_and_one_more_is_counted_all_the_same() {
        let (metrics, device) = (ModelMetrics::default(), DeviceId::cpu(0));
        for number in 1..=u32::try_from(MAX_MODEL_LABELS).unwrap() + 1 {
            metrics.executed(device, &model(number), 3, Duration::from_millis(1), false);
        }
        assert_eq!(kept(&metrics), MAX_MODEL_LABELS);
        let other = ModelLabels {
            device: LabelText::from("cpu:0"),
            model: LabelText::from(crate::labels::OTHER),
        };
        assert_eq!(metrics.rows.get(&other).map(|rows| rows.get()), Some(3));
    }
}
