//! What limits have done, by tenant and rule: a series for each, made when it first happens.
//!
//! Rules are a fixed set of names, and tenants are bounded like everywhere; a tenant past the bound counts under `other`.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::labels::{BoundedLabels, LabelText, Words};

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
    rules: Words,
}

impl LimitMetrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "mesh_limit_effects",
            "Requests that met a limit of their tenant, by rule and by what it did",
            self.effects.clone(),
        );
    }

    /// Drops what was counted of these tenants.
    pub(crate) fn forget(&self, tenants: &[Arc<str>]) {
        let effects = [LimitEffect::Refused, LimitEffect::Shadow, LimitEffect::Warned].map(LimitEffect::as_str);
        for rule in self.rules.all() {
            for (tenant, effect) in tenants.iter().flat_map(|tenant| effects.map(|effect| (tenant, effect))) {
                self.effects.remove(&Labels {
                    tenant: LabelText(tenant.clone()),
                    rule,
                    effect,
                });
            }
        }
    }

    pub(crate) fn count(&self, tenants: &BoundedLabels, tenant: &str, rule: &'static str, effect: LimitEffect) {
        self.rules.note(rule);
        self.effects
            .get_or_create(&Labels {
                tenant: tenants.admit(tenant),
                rule,
                effect: effect.as_str(),
            })
            .inc();
    }
}
