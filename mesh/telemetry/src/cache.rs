//! What is counted of the response cache: how requests of endpoints with one were answered, and what it holds.
//!
//! Tenants and endpoints past the bound are counted together.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::labels::{BoundedLabels, LabelText, OTHER, Words, owner};

/// The most endpoints that are told apart.
const MAX_ENDPOINTS: usize = 1_024;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AskedLabels {
    tenant: LabelText,
    endpoint: LabelText,
    outcome: &'static str,
}

#[derive(Debug)]
pub(crate) struct CacheMetrics {
    endpoints: BoundedLabels,
    outcomes: Words,
    asked: Family<AskedLabels, Counter>,
    entries: Gauge<i64, AtomicI64>,
    bytes: Gauge<i64, AtomicI64>,
}

impl Default for CacheMetrics {
    fn default() -> Self {
        Self {
            endpoints: BoundedLabels::new(MAX_ENDPOINTS),
            outcomes: Words::default(),
            asked: Family::default(),
            entries: Gauge::default(),
            bytes: Gauge::default(),
        }
    }
}

impl CacheMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mesh_cache_requests",
            "Requests of endpoints with a response cache: found (hit), answered with an equal one (shared), computed (miss), \
             or computed because too many waited for an equal one (alone)",
            self.asked.clone(),
        );
        registry.register(
            "mesh_cache_entries",
            "Answers in the response cache",
            self.entries.clone(),
        );
        registry.register("mesh_cache_bytes", "What the response cache takes", self.bytes.clone());
    }

    /// Both names together are one value of the bound.
    pub(crate) fn asked(&self, tenant: &str, endpoint: &str, outcome: &'static str) {
        self.outcomes.note(outcome);
        let LabelText(both) = self.endpoints.admit(&format!("{tenant}/{endpoint}"));
        let (tenant, endpoint) = both.split_once('/').unwrap_or((OTHER, OTHER));
        let labels = AskedLabels {
            tenant: tenant.into(),
            endpoint: endpoint.into(),
            outcome,
        };
        self.asked.get_or_create(&labels).inc();
    }

    /// Drops what was counted of these tenants.
    pub(crate) fn forget(&self, is_gone: impl Fn(&str) -> bool) {
        let outcomes = self.outcomes.all();
        for both in self.endpoints.forget(|both| is_gone(owner(both))) {
            let (tenant, endpoint) = both.split_once('/').unwrap_or_default();
            for outcome in &outcomes {
                self.asked.remove(&AskedLabels {
                    tenant: tenant.into(),
                    endpoint: endpoint.into(),
                    outcome,
                });
            }
        }
    }

    pub(crate) fn holds(&self, entries: usize, bytes: usize) {
        let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.entries.set(number(entries));
        self.bytes.set(number(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_endpoint_is_told_apart_and_the_one_after_is_other() {
        let metrics = CacheMetrics::default();
        for index in 0..=MAX_ENDPOINTS {
            metrics.asked("acme", &format!("e{index}"), "hit");
        }
        let count = |tenant: &str, endpoint: &str| {
            let labels = AskedLabels {
                tenant: tenant.into(),
                endpoint: endpoint.into(),
                outcome: "hit",
            };
            metrics.asked.get_or_create(&labels).get()
        };
        assert_eq!(count("acme", &format!("e{}", MAX_ENDPOINTS - 1)), 1);
        assert_eq!(count(OTHER, OTHER), 1);
        assert_eq!(count("acme", &format!("e{MAX_ENDPOINTS}")), 0);
    }
}
