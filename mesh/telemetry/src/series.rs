//! One series per (tenant, target, arm, version): the counters of its requests, read live and by Prometheus alike.
//!
//! The number of series is bounded by [`MAX_SERIES`]; requests past it count under `other`. A series is looked up by
//! borrowed text, so that a known one costs one hash and no allocation.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_types::{DeviceId, FaultSource};
use parking_lot::RwLock;

use crate::{
    answers::AnswerCounts,
    labels::{BoundedLabels, OTHER},
    latency::{LatencyHistogram, LatencySnapshot},
};

/// The most tenants that have a label of their own.
pub const MAX_TENANT_LABELS: usize = 1_000;
/// The most (tenant, target, arm, version) combinations that are counted apart.
pub const MAX_SERIES: usize = 4_000;

/// The outcomes a request can have: answered, or failed by one of the five sources.
pub(crate) const OUTCOMES: [&str; 6] = ["ok", "client", "tenant_limit", "model", "device", "mesh"];

pub(crate) fn outcome_index(fault: Option<FaultSource>) -> usize {
    match fault {
        None => 0,
        Some(FaultSource::Client) => 1,
        Some(FaultSource::TenantLimit) => 2,
        Some(FaultSource::Model) => 3,
        Some(FaultSource::Device) => 4,
        Some(FaultSource::Mesh) => 5,
    }
}

/// Names of one series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SeriesKey {
    pub(crate) tenant: Arc<str>,
    pub(crate) target: Arc<str>,
    pub(crate) arm: Arc<str>,
    pub(crate) version: u32,
}

/// Counters of one series.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) key: SeriesKey,
    pub(crate) outcomes: [AtomicU64; OUTCOMES.len()],
    pub(crate) latency: LatencyHistogram,
    pub(crate) latency_sum_ns: AtomicU64,
    pub(crate) answers: AnswerCounts,
}

/// All series.
#[derive(Debug)]
pub(crate) struct SeriesTable {
    hasher: RandomState,
    tenants: BoundedLabels,
    // Keyed by hash, each entry a short list, so that a lookup needs no owned key.
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    by_hash: HashMap<u64, Vec<Arc<Series>>>,
    len: usize,
}

/// One series at one moment.
#[derive(Debug, Clone)]
pub struct LiveSeries {
    /// The calling tenant.
    pub tenant: Arc<str>,
    /// The endpoint or model that was called; empty where it was not found.
    pub target: Arc<str>,
    /// The arm of the endpoint's split; empty where there was none.
    pub arm: Arc<str>,
    /// The version that answered; 0 where none did.
    pub version: u32,
    /// Requests that were answered.
    pub ok: u64,
    /// Requests refused by a limit of the tenant.
    pub refused: u64,
    /// Requests that failed otherwise.
    pub errors: u64,
    /// Latency of those answered.
    pub latency: LatencySnapshot,
}

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub struct LiveSnapshot {
    /// Every series.
    pub series: Vec<LiveSeries>,
    /// Requests being worked on.
    pub in_flight: i64,
    /// How long each device has been busy with batches, all its threads together.
    pub busy: Vec<(DeviceId, Duration)>,
}

impl SeriesTable {
    pub(crate) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            tenants: BoundedLabels::new(MAX_TENANT_LABELS),
            table: RwLock::default(),
        }
    }

    /// The tenants that have a label of their own.
    pub(crate) fn tenants(&self) -> &BoundedLabels {
        &self.tenants
    }

    pub(crate) fn series(&self, tenant: &str, target: &str, arm: &str, version: u32) -> Arc<Series> {
        let hash = self.hasher.hash_one((tenant, target, arm, version));
        let matches = |series: &&Arc<Series>| {
            let key = &series.key;
            &*key.tenant == tenant && &*key.target == target && &*key.arm == arm && key.version == version
        };
        if let Some(known) = self
            .table
            .read()
            .by_hash
            .get(&hash)
            .and_then(|list| list.iter().find(matches))
        {
            return known.clone();
        }
        self.insert(tenant, target, arm, version)
    }

    fn insert(&self, tenant: &str, target: &str, arm: &str, version: u32) -> Arc<Series> {
        let tenant = self.tenants.admit(tenant).0;
        let mut table = self.table.write();
        let full = table.len >= MAX_SERIES;
        let key = if full || &*tenant == OTHER {
            SeriesKey {
                tenant: Arc::from(OTHER),
                target: Arc::from(OTHER),
                arm: Arc::from(""),
                version: 0,
            }
        } else {
            SeriesKey {
                tenant,
                target: Arc::from(target),
                arm: Arc::from(arm),
                version,
            }
        };
        let hash = self
            .hasher
            .hash_one((&*key.tenant, &*key.target, &*key.arm, key.version));
        let list = table.by_hash.entry(hash).or_default();
        if let Some(known) = list.iter().find(|series| series.key == key) {
            return known.clone();
        }
        let series = Arc::new(Series {
            key,
            outcomes: Default::default(),
            latency: LatencyHistogram::default(),
            latency_sum_ns: AtomicU64::new(0),
            answers: AnswerCounts::default(),
        });
        list.push(series.clone());
        table.len += 1;
        series
    }

    /// Drops the series of these tenants, and their labels, which are returned.
    pub(crate) fn forget(&self, is_gone: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        let mut table = self.table.write();
        table.by_hash.retain(|_, list| {
            list.retain(|series| !is_gone(&series.key.tenant));
            !list.is_empty()
        });
        table.len = table.by_hash.values().map(Vec::len).sum();
        self.tenants.forget(is_gone)
    }

    /// Every series, in the order of their names.
    pub(crate) fn all(&self) -> Vec<Arc<Series>> {
        let mut all: Vec<_> = self.table.read().by_hash.values().flatten().cloned().collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        all
    }
}

impl Series {
    pub(crate) fn outcome(&self, index: usize) -> u64 {
        self.outcomes
            .get(index)
            .map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(crate) fn live(&self) -> LiveSeries {
        let refused = self.outcome(outcome_index(Some(FaultSource::TenantLimit)));
        let failed: u64 = (1..OUTCOMES.len()).map(|index| self.outcome(index)).sum();
        LiveSeries {
            tenant: self.key.tenant.clone(),
            target: self.key.target.clone(),
            arm: self.key.arm.clone(),
            version: self.key.version,
            ok: self.outcome(0),
            refused,
            errors: failed - refused,
            latency: self.latency.snapshot(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_names_give_the_same_series() {
        let table = SeriesTable::new();
        let first = table.series("a", "digits", "v1", 1);
        assert!(Arc::ptr_eq(&first, &table.series("a", "digits", "v1", 1)));
        assert!(!Arc::ptr_eq(&first, &table.series("a", "digits", "v2", 2)));
    }

    #[test]
    fn the_table_takes_its_bound_and_one_more_is_other() {
        let table = SeriesTable::new();
        for number in 0..MAX_SERIES {
            assert_eq!(table.series("t", &format!("m{number}"), "", 1).key.version, 1);
        }
        let over = table.series("t", "one-more", "", 1);
        assert_eq!(&*over.key.tenant, OTHER);
        assert!(Arc::ptr_eq(&over, &table.series("t", "and-another", "", 1)));
        assert_eq!(table.all().len(), MAX_SERIES + 1);
    }

    #[test]
    fn tenants_past_the_bound_share_one_series() {
        let table = SeriesTable::new();
        for number in 0..=MAX_TENANT_LABELS {
            table.series(&format!("t{number}"), "m", "", 1);
        }
        assert_eq!(table.all().len(), MAX_TENANT_LABELS + 1);
    }
}
