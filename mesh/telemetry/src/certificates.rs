//! What is counted of certificates: renewals of the doors', until when they hold, and requests of callers that are known by theirs.

use std::sync::atomic::AtomicI64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::labels::{BoundedLabels, LabelText, OTHER, owner};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabels {
    door: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RenewalLabels {
    door: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallerLabels {
    tenant: LabelText,
    certificate: LabelText,
}

/// The most callers that are told apart; others are counted together.
const MAX_CALLERS: usize = 1_024;

/// The certificates of the doors, of which there are a handful with names of our own, and of callers.
#[derive(Debug)]
pub(crate) struct Certificates {
    renewals: Family<RenewalLabels, Counter>,
    expiry: Family<DoorLabels, Gauge<i64, AtomicI64>>,
    callers: BoundedLabels,
    requests: Family<CallerLabels, Counter>,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            renewals: Family::default(),
            expiry: Family::default(),
            callers: BoundedLabels::new(MAX_CALLERS),
            requests: Family::default(),
        }
    }
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
        registry.register(
            "mesh_certificate_requests",
            "Requests of callers that are known by their certificates",
            self.requests.clone(),
        );
    }

    pub(crate) fn changed(&self, door: &'static str, renewed: bool) {
        let outcome = if renewed { "renewed" } else { "refused" };
        self.renewals.get_or_create(&RenewalLabels { door, outcome }).inc();
    }

    /// A request of a tenant's caller with this certificate. Both names together are one value of the bound.
    pub(crate) fn called(&self, tenant: &str, certificate: &str) {
        let LabelText(both) = self.callers.admit(&format!("{tenant}/{certificate}"));
        let (tenant, certificate) = both.split_once('/').unwrap_or((OTHER, OTHER));
        let labels = CallerLabels {
            tenant: tenant.into(),
            certificate: certificate.into(),
        };
        self.requests.get_or_create(&labels).inc();
    }

    /// Drops what was counted of these tenants' callers.
    pub(crate) fn forget(&self, is_gone: impl Fn(&str) -> bool) {
        for both in self.callers.forget(|both| is_gone(owner(both))) {
            let (tenant, certificate) = both.split_once('/').unwrap_or_default();
            self.requests.remove(&CallerLabels {
                tenant: tenant.into(),
                certificate: certificate.into(),
            });
        }
    }

    pub(crate) fn expires(&self, door: &'static str, unix_seconds: i64) {
        self.expiry.get_or_create(&DoorLabels { door }).set(unix_seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_caller_is_told_apart_and_the_one_after_is_other() {
        let certificates = Certificates::default();
        for index in 0..=MAX_CALLERS {
            certificates.called("acme", &format!("c{index}"));
        }
        let count = |tenant: &str, certificate: &str| {
            let labels = CallerLabels {
                tenant: tenant.into(),
                certificate: certificate.into(),
            };
            certificates.requests.get_or_create(&labels).get()
        };
        assert_eq!(count("acme", &format!("c{}", MAX_CALLERS - 1)), 1);
        assert_eq!(count(OTHER, OTHER), 1);
        assert_eq!(count("acme", &format!("c{MAX_CALLERS}")), 0);
    }
}
