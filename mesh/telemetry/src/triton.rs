//! The metrics of Triton's server by its names, for dashboards and clients that read those.
//!
//! Owns the names, and the way from what devices counted to lines of text. Counts nothing: the numbers are those of the
//! statistics of versions, read when somebody looks, so that the two cannot disagree. Only what there is a number for is
//! written: nothing is said of power, and of a cache only for versions that were asked for through one.
//!
//! In this format the lines of a counter end in `_total`, which these names do not, so they are of an unknown type; a reader
//! takes them for the numbers that they are.
//!
//! Invariants: models have the bounded labels of [`crate::labels`], and what is past them is added up under `other`; a source
//! that is gone writes nothing.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, OnceLock, Weak},
};

use mesh_types::{DeviceId, ModelVersionKey, TenantId, Times, VersionStatistics};

use crate::{
    labels::{BoundedLabels, OTHER},
    models::ModelMetrics,
};

/// What one version has done, over all devices.
#[derive(Debug, Clone)]
pub struct VersionReading {
    /// Which.
    pub model: ModelVersionKey,
    /// The devices that know it.
    pub devices: Vec<DeviceId>,
    /// As the statistics tell it.
    pub numbers: VersionStatistics,
    /// Requests that left without having run because their caller went.
    pub cancelled: u64,
    /// Requests that left without having run because they were refused, or would have been late.
    pub rejected: u64,
}

/// The machine, as far as it says so.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HostReading {
    /// The share of its processors' time that was not idle since it was last asked, 0 to 1.
    pub utilization: Option<f64>,
    /// Its memory, in bytes: all, and what is in use.
    pub memory: Option<(u64, u64)>,
}

/// Reads what is told by these names.
pub trait TritonSource: Send + Sync {
    /// Every version, now. Must not wait.
    fn versions(&self) -> Vec<VersionReading>;
    /// The machine, now.
    fn host(&self) -> HostReading;
}

/// One metric: its name, what it says, and whether it is a gauge.
type Family = (&'static str, &'static str, bool);

/// Every metric of models, in the order in which [`of`] and [`of_cache`] give their values; between them the failures, by reason.
const FAMILIES: [Family; 14] = [
    ("nv_inference_request_success", "Requests that were answered", false),
    ("nv_inference_count", "Rows that were answered", false),
    ("nv_inference_exec_count", "Executions of the model", false),
    (
        "nv_inference_request_duration_us",
        "Time of requests that were answered, in microseconds",
        false,
    ),
    (
        "nv_inference_queue_duration_us",
        "Time that they waited, in microseconds",
        false,
    ),
    (
        "nv_inference_compute_input_duration_us",
        "Time in which their inputs were gathered, in microseconds",
        false,
    ),
    (
        "nv_inference_compute_infer_duration_us",
        "Time of the model on them, in microseconds",
        false,
    ),
    (
        "nv_inference_compute_output_duration_us",
        "Time in which their outputs were split, in microseconds",
        false,
    ),
    (
        "nv_inference_pending_request_count",
        "Requests that wait for a batch",
        true,
    ),
    (
        "nv_inference_request_failure",
        "Requests that were not answered, by reason",
        false,
    ),
    (
        "nv_cache_num_hits_per_model",
        "Requests that were answered from the response cache",
        false,
    ),
    (
        "nv_cache_num_misses_per_model",
        "Requests that the response cache was asked for in vain",
        false,
    ),
    (
        "nv_cache_hit_duration_per_model",
        "Time of answering from the response cache, in microseconds",
        false,
    ),
    (
        "nv_cache_miss_duration_per_model",
        "Time of asking the response cache in vain and of remembering the answer, in microseconds",
        false,
    ),
];
const PENDING: usize = 8;
const FAILURE: usize = 9;
const CACHE: usize = 10;

/// From where they are read, if they are.
#[derive(Default)]
pub(crate) struct TritonMetrics(OnceLock<(Weak<dyn TritonSource>, TenantId)>);

impl std::fmt::Debug for TritonMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TritonMetrics").finish_non_exhaustive()
    }
}

impl TritonMetrics {
    /// From where to read; the models of `home` are told without a namespace. Only the first call counts.
    pub(crate) fn read_from(&self, source: &Arc<dyn TritonSource>, home: TenantId) {
        let _ = self.0.set((Arc::downgrade(source), home));
    }

    /// Writes them, without the format's end mark; nothing where nobody reads them.
    pub(crate) fn encode(&self, models: &ModelMetrics, text: &mut String) -> std::fmt::Result {
        let Some((source, home)) = self.0.get() else {
            return Ok(());
        };
        let Some(source) = source.upgrade() else { return Ok(()) };
        let mut values = Values::default();
        for version in source.versions() {
            values.add(&version, home, models);
        }
        for (index, (name, help, gauge)) in FAMILIES.iter().enumerate() {
            head(text, name, help, *gauge)?;
            for ((_, labels), value) in values.0.range((index, String::new())..(index + 1, String::new())) {
                writeln!(text, "{name}{{{labels}}} {value}")?;
            }
        }
        host(source.host(), text)
    }
}

fn head(text: &mut String, name: &str, help: &str, gauge: bool) -> std::fmt::Result {
    let kind = if gauge { "gauge" } else { "unknown" };
    writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}")
}

fn host(host: HostReading, text: &mut String) -> std::fmt::Result {
    if let Some(utilization) = host.utilization {
        head(
            text,
            "nv_cpu_utilization",
            "Share of the processors' time that was not idle",
            true,
        )?;
        writeln!(text, "nv_cpu_utilization {utilization}")?;
    }
    if let Some((total, used)) = host.memory {
        head(text, "nv_cpu_memory_total_bytes", "The machine's memory", true)?;
        writeln!(text, "nv_cpu_memory_total_bytes {total}")?;
        head(
            text,
            "nv_cpu_memory_used_bytes",
            "The machine's memory that is in use",
            true,
        )?;
        writeln!(text, "nv_cpu_memory_used_bytes {used}")?;
    }
    Ok(())
}

/// Values by metric and labels.
#[derive(Default)]
struct Values(BTreeMap<(usize, String), u64>);

impl Values {
    fn add(&mut self, version: &VersionReading, home: &TenantId, models: &ModelMetrics) {
        let (labels, named) = labels(&version.model, home, models.names());
        for (index, value) in of(&version.numbers).into_iter().enumerate() {
            *self.0.entry((index, labels.clone())).or_default() += value;
        }
        for (index, value) in of_cache(&version.numbers).into_iter().flatten().enumerate() {
            *self.0.entry((CACHE + index, labels.clone())).or_default() += value;
        }
        // Those past the bound share one gauge, which tells of none of them.
        if named {
            let waiting = version
                .devices
                .iter()
                .map(|device| models.queue_length(*device, &version.model));
            self.0.insert((PENDING, labels.clone()), waiting.sum());
        }
        for (reason, requests) in [
            ("REJECTED", version.rejected),
            ("CANCELED", version.cancelled),
            ("BACKEND", version.numbers.fail.count),
        ] {
            let labels = format!("{labels},reason=\"{reason}\"");
            *self.0.entry((FAILURE, labels)).or_default() += requests;
        }
    }
}

fn micros(times: Times) -> u64 {
    times.nanoseconds() / 1_000
}

/// None where the version was never asked for through a cache.
fn of_cache(numbers: &VersionStatistics) -> Option<[u64; FAMILIES.len() - CACHE]> {
    let (hit, miss) = (numbers.cache_hit, numbers.cache_miss);
    let asked = hit.count > 0 || miss.count > 0;
    asked.then(|| [hit.count, miss.count, micros(hit), micros(miss)])
}

fn of(numbers: &VersionStatistics) -> [u64; PENDING] {
    [
        numbers.success.count,
        numbers.inference_count,
        numbers.execution_count,
        micros(numbers.success),
        micros(numbers.queue),
        micros(numbers.compute.input),
        micros(numbers.compute.infer),
        micros(numbers.compute.output),
    ]
}

/// A version's labels, and whether they are its own. Names have passed their grammar, so nothing needs escaping.
fn labels(key: &ModelVersionKey, home: &TenantId, names: &BoundedLabels) -> (String, bool) {
    if &*names.admit(&key.to_string()).0 == OTHER {
        return (format!("model=\"{OTHER}\",version=\"\""), false);
    }
    let own = format!("model=\"{}\",version=\"{}\"", key.model, key.version);
    if key.tenant == *home {
        return (own, true);
    }
    (format!("{own},namespace=\"{}\"", key.tenant), true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_types::{ModelId, Version};

    use super::*;
    use crate::models::MAX_MODEL_LABELS;

    struct Fixed(Vec<VersionReading>);

    impl TritonSource for Fixed {
        fn versions(&self) -> Vec<VersionReading> {
            self.0.clone()
        }

        fn host(&self) -> HostReading {
            HostReading {
                utilization: Some(0.25),
                memory: Some((1_000, 400)),
            }
        }
    }

    fn reading(tenant: &str, number: u32) -> VersionReading {
        let times = |count, micros| Times {
            count,
            total: Duration::from_micros(micros),
        };
        VersionReading {
            model: ModelVersionKey {
                tenant: TenantId::parse(tenant).unwrap(),
                model: ModelId::parse("digits").unwrap(),
                version: Version::new(number).unwrap(),
            },
            devices: vec![DeviceId::cpu(0), DeviceId::cpu(1)],
            numbers: VersionStatistics {
                inference_count: 12,
                execution_count: 4,
                success: times(5, 900),
                fail: times(2, 10),
                queue: times(5, 300),
                ..VersionStatistics::default()
            },
            cancelled: 1,
            rejected: 3,
        }
    }

    fn text(readings: Vec<VersionReading>, models: &ModelMetrics) -> String {
        let source: Arc<dyn TritonSource> = Arc::new(Fixed(readings));
        let metrics = TritonMetrics::default();
        metrics.read_from(&source, TenantId::parse("default").unwrap());
        let mut text = String::new();
        metrics.encode(models, &mut text).unwrap();
        text
    }

    #[test]
    fn versions_are_told_by_tritons_names_and_other_tenants_by_a_namespace() {
        let models = ModelMetrics::default();
        models.set_queue_length(DeviceId::cpu(0), &reading("default", 1).model, 2);
        models.set_queue_length(DeviceId::cpu(1), &reading("default", 1).model, 3);
        let mut cached = reading("default", 2);
        let took = |count, micros| Times {
            count,
            total: Duration::from_micros(micros),
        };
        (cached.numbers.cache_hit, cached.numbers.cache_miss) = (took(7, 70), took(3, 60));
        let text = text(vec![reading("default", 1), reading("acme", 1), cached], &models);
        let of_cache = text.lines().filter(|line| line.starts_with("nv_cache_"));
        assert_eq!(
            of_cache.count(),
            4,
            "only of what was asked for through a cache: {text}"
        );
        for line in [
            "# TYPE nv_cache_num_hits_per_model unknown",
            "nv_cache_num_hits_per_model{model=\"digits\",version=\"2\"} 7",
            "nv_cache_num_misses_per_model{model=\"digits\",version=\"2\"} 3",
            "nv_cache_hit_duration_per_model{model=\"digits\",version=\"2\"} 70",
            "nv_cache_miss_duration_per_model{model=\"digits\",version=\"2\"} 60",
            "# TYPE nv_inference_request_success unknown",
            "nv_inference_request_success{model=\"digits\",version=\"1\"} 5",
            "nv_inference_request_success{model=\"digits\",version=\"1\",namespace=\"acme\"} 5",
            "nv_inference_count{model=\"digits\",version=\"1\"} 12",
            "nv_inference_exec_count{model=\"digits\",version=\"1\"} 4",
            "nv_inference_request_duration_us{model=\"digits\",version=\"1\"} 900",
            "nv_inference_queue_duration_us{model=\"digits\",version=\"1\"} 300",
            "# TYPE nv_inference_pending_request_count gauge",
            "nv_inference_pending_request_count{model=\"digits\",version=\"1\"} 5",
            "nv_inference_request_failure{model=\"digits\",version=\"1\",reason=\"BACKEND\"} 2",
            "nv_inference_request_failure{model=\"digits\",version=\"1\",reason=\"REJECTED\"} 3",
            "nv_inference_request_failure{model=\"digits\",version=\"1\",reason=\"CANCELED\"} 1",
            "nv_cpu_utilization 0.25",
            "nv_cpu_memory_used_bytes 400",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} in {text}");
        }
    }

    #[test]
    fn as_many_versions_have_labels_as_may_and_the_others_are_added_up() {
        let all = 1..=u32::try_from(MAX_MODEL_LABELS).unwrap() + 2;
        let text = text(
            all.map(|number| reading("default", number)).collect(),
            &ModelMetrics::default(),
        );
        let counted = text
            .lines()
            .filter(|line| line.starts_with("nv_inference_count{"))
            .count();
        assert_eq!(counted, MAX_MODEL_LABELS + 1);
        assert!(text.contains("nv_inference_count{model=\"other\",version=\"\"} 24\n"));
        assert!(!text.contains("nv_inference_pending_request_count{model=\"other\""));
    }

    #[test]
    fn nobody_who_reads_means_nothing_written() {
        let mut text = String::new();
        let metrics = TritonMetrics::default();
        metrics.encode(&ModelMetrics::default(), &mut text).unwrap();
        let source: Arc<dyn TritonSource> = Arc::new(Fixed(vec![reading("default", 1)]));
        metrics.read_from(&source, TenantId::parse("default").unwrap());
        drop(source);
        metrics.encode(&ModelMetrics::default(), &mut text).unwrap();
        assert_eq!(text, "");
    }
}
