//! What is counted of the doors' certificates: renewals, and until when they hold.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabels {
    door: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RenewalLabels {
    door: &'static str,
    outcome: &'static str,
}

/// The certificates of the doors, of which there are a handful with names of our own.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    renewals: Family<RenewalLabels, Counter>,
    expiry: Family<DoorLabels, Gauge<i64, AtomicI64>>,
}

impl Certificates {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mesh_tls_renewals",
            "Changes of a door's certificate files that were put in place, or refused because they do not fit",
            self.renewals.clone(),
        );
        registry.register(
            "mesh_tls_certificate_expiry_timestamp_seconds",
            "When the certificate ends that a door serves with, in Unix seconds",
            self.expiry.clone(),
        );
    }

    pub(crate) fn changed(&self, door: &'static str, renewed: bool) {
        let outcome = if renewed { "renewed" } else { "refused" };
        self.renewals.get_or_create(&RenewalLabels { door, outcome }).inc();
    }

    pub(crate) fn expires(&self, door: &'static str, unix_seconds: i64) {
        self.expiry.get_or_create(&DoorLabels { door }).set(unix_seconds);
    }
}
