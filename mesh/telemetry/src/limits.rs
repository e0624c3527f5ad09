//! What limits have done, by tenant and rule: a series for each, made when it first happens.
//!
//! Rules are a fixed set of names, and tenants are bounded like everywhere; a tenant past the bound counts under `other`.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::labels::{BoundedLabels, LabelText};

/// What became of a request at a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LimitEffect {
    /// It was refused.
    Refused,
    /// It would have been, and the limit is in shadow.
    Shadow,
    /// It was the first in its window to find a budget's soft mark passed.
    Warned,
}

impl LimitEffect {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Shadow => "shadow",
            Self::Warned => "warned",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    tenant: LabelText,
    rule: &'static str,
    effect: &'static str,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct LimitMetrics {
    effects: Family<Labels, Counter>,
}

impl LimitMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mesh_limit_effects",
            "Requests that met a limit of their tenant, by rule and by what it did",
            self.effects.clone(),
        );
    }

    pub(crate) fn count(&self, tenants: &BoundedLabels, tenant: &str, rule: &'static str, effect: LimitEffect) {
        self.effects
            .get_or_create(&Labels {
                tenant: tenants.admit(tenant),
                rule,
                effect: effect.as_str(),
            })
            .inc();
    }
}
