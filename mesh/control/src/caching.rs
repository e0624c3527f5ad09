//! Endpoints' caches in the snapshot: how long answers are remembered, and when what was remembered is void.
//!
//! A rule has a serial that grows whenever the endpoint is written otherwise, or anything that its arms answer with is another: a
//! label that moves, a version that comes or goes, is loaded or unloaded, a file or configuration that is replaced, a step of an
//! ensemble that moves. So routers need nobody to tell them what to forget.

use std::{sync::Arc, time::Duration};

use mesh_policies::{Arm, CacheRule, Route, VersionEntry};
use mesh_resources::EndpointSpec;

/// The rule of an endpoint as it is compiled now; `serial` is the last one that was given out.
pub(crate) fn rule(route: &Route, spec: &EndpointSpec, before: Option<&Route>, serial: &mut u64) -> Option<CacheRule> {
    let cache = spec.cache.as_ref()?;
    let ttl = Duration::from_secs(cache.ttl_seconds);
    let max_entry_bytes = usize::try_from(cache.max_entry_bytes).unwrap_or(usize::MAX);
    let former = before.and_then(|before| {
        let former = before.cache?;
        let same = former.ttl == ttl && former.max_entry_bytes == max_entry_bytes && is_alike(before, route);
        same.then_some(former.serial)
    });
    let serial = former.unwrap_or_else(|| {
        *serial += 1;
        *serial
    });
    Some(CacheRule {
        ttl,
        max_entry_bytes,
        serial,
    })
}

/// Whether two routes answer every request alike.
fn is_alike(one: &Route, other: &Route) -> bool {
    let mut arms = one.arms.iter().zip(&other.arms);
    let alike = |(one, other): (&Arm, &Arm)| {
        let version = match (&one.version, &other.version) {
            (Some(one), Some(other)) => answers_alike(one, other),
            (None, None) => true,
            _ => false,
        };
        version && one.name == other.name && one.hundredths == other.hundredths
    };
    one.unit == other.unit && one.salt == other.salt && one.arms.len() == other.arms.len() && arms.all(alike)
}

/// Whether two entries stand for the same model, to the file and the steps, and both or neither would answer: what has left its
/// devices begins anew when it comes back. Bounded as ensembles are nested.
fn answers_alike(one: &Arc<VersionEntry>, other: &Arc<VersionEntry>) -> bool {
    if Arc::ptr_eq(one, other) {
        return true;
    }
    let same_config = Arc::ptr_eq(&one.config, &other.config) || one.config == other.config;
    let same_steps = match (&one.plan, &other.plan) {
        (Some(one), Some(other)) => {
            let mut steps = one.entries.iter().zip(&other.entries);
            one.entries.len() == other.entries.len() && steps.all(|(one, other)| answers_alike(one, other))
        }
        (None, None) => true,
        _ => false,
    };
    one.key == other.key
        && one.format == other.format
        && one.digest == other.digest
        && one.is_ready() == other.is_ready()
        && same_config
        && same_steps
}

#[cfg(test)]
#[path = "caching_tests.rs"]
mod tests;
