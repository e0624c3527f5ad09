//! Traffic: which arm of an endpoint answers a request.
//!
//! Owns weighted splits in hundredths of a percent and stickiness by a unit (a user, a session). Does not know whether a
//! version is ready, and keeps no state: a sticky choice is a pure function of the route's salt, the tenant, the unit's name
//! and the unit, so every router chooses alike and nothing is stored.
//!
//! Invariants: arms own consecutive ranges of [`WHOLE`] slots in their order, so moving weight between two neighbours moves
//! only units between them; an arm without weight is never chosen; weights that add up to [`WHOLE`] leave no unit without an
//! arm; two salts split independently of each other.

use std::{sync::Arc, time::Duration};

use mesh_types::{EndpointId, ParameterValue, ServiceClass, TenantId, VersionSelector};
use sha2::{Digest, Sha256};

use crate::snapshot::{ModelEntry, VersionEntry};

/// What the weights of a route add up to: hundredths of a percent.
pub const WHOLE: u32 = 10_000;

/// An endpoint's split.
#[derive(Debug, Clone)]
pub struct Route {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What may answer, in the order of their ranges.
    pub arms: Vec<Arm>,
    /// What stays with its arm, such as `user`; none splits each request anew.
    pub unit: Option<String>,
    /// Random, of this route alone: what makes its split independent of all others.
    pub salt: String,
    /// How long a call may take where the caller does not say.
    pub timeout: Option<Duration>,
    /// How urgent its requests are; a caller may only lower it.
    pub class: ServiceClass,
    /// Whether its answers are remembered.
    pub cache: Option<CacheRule>,
}

/// How an endpoint's answers are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheRule {
    /// For how long.
    pub ttl: Duration,
    /// The most that one answer may take, in bytes.
    pub max_entry_bytes: usize,
    /// Grows with each change of the endpoint and of what its arms answer with: what was remembered under a lower one is void.
    pub serial: u64,
}

/// One of the versions that an endpoint splits between.
#[derive(Debug, Clone)]
pub struct Arm {
    /// Its name, for metrics and answers.
    pub name: Arc<str>,
    /// The version that answers now; none while there is none that could.
    pub version: Option<Arc<VersionEntry>>,
    /// The model that it is a version of.
    pub model: Arc<ModelEntry>,
    /// Its share of [`WHOLE`].
    pub hundredths: u32,
}

impl Route {
    /// The arm for a request: by its unit where the route is sticky and the unit known, else by the random number.
    ///
    /// None only where the weights do not add up to [`WHOLE`].
    pub fn choose(&self, tenant: &TenantId, unit: Option<&str>, random: u64) -> Option<&Arm> {
        let point = match (&self.unit, unit) {
            (Some(unit_name), Some(unit)) => point(&self.salt, tenant, unit_name, unit),
            _ => random,
        };
        self.arm_at(point)
    }

    /// Where a unit lies on this route's circle, to be given to [`Route::choose`] in place of a random number.
    pub fn point(&self, tenant: &TenantId, unit_name: &str, unit: &str) -> u64 {
        point(&self.salt, tenant, unit_name, unit)
    }

    /// The arm that owns a point of the 64-bit circle.
    fn arm_at(&self, point: u64) -> Option<&Arm> {
        let slot = slot(point);
        let mut end = 0_u32;
        self.arms.iter().find(|arm| {
            end = end.saturating_add(arm.hundredths);
            slot < end
        })
    }

    /// What `/versions/{v}` on the endpoint means: an arm that answers with that version, else the first arm whose model has
    /// that version or label.
    pub fn pinned(&self, selector: &VersionSelector) -> Option<(&Arm, &Arc<VersionEntry>)> {
        if *selector == VersionSelector::Default {
            return None;
        }
        let found = || {
            let arms = self.arms.iter();
            arms.filter_map(|arm| arm.model.resolve(selector).map(|version| (arm, version)))
        };
        let answers = |(arm, version): &(&Arm, &Arc<VersionEntry>)| {
            let own = arm.version.as_ref();
            own.is_some_and(|own| own.key == version.key)
        };
        found().find(answers).or_else(|| found().next())
    }
}

/// A unit as text: `7` and `"7"` are the same unit.
pub fn unit_text(value: &ParameterValue) -> String {
    match value {
        ParameterValue::String(text) => text.clone(),
        ParameterValue::Int(number) => number.to_string(),
        ParameterValue::Uint(number) => number.to_string(),
        ParameterValue::Double(number) => number.to_string(),
        ParameterValue::Bool(value) => value.to_string(),
    }
}

/// The slot of a point, 0 to [`WHOLE`] - 1: `point / 2^64 * WHOLE`, exactly.
pub(crate) fn slot(point: u64) -> u32 {
    let slot = (u128::from(point) * u128::from(WHOLE)) >> 64;
    u32::try_from(slot).unwrap_or(u32::MAX)
}

/// Where a unit lies on the 64-bit circle: the first eight bytes of SHA-256 over salt, tenant, unit name and unit, kept
/// apart by a zero byte. Only the unit, which is last, may hold one itself.
pub(crate) fn point(salt: &str, tenant: &TenantId, unit_name: &str, unit: &str) -> u64 {
    let mut hash = Sha256::new();
    for part in [salt, tenant.as_str(), unit_name] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.update(unit.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
#[path = "traffic_tests.rs"]
mod tests;
