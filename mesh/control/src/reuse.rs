//! What of a snapshot goes into the next one as it is.
//!
//! Owns the comparison of what is compiled anew each time, models and routes, with what they were, and which tenants' entries follow from
//! something that is other than before. With 100,000 tenants a device's report or a key that is revoked costs those that it concerns.
//!
//! Invariants: what is taken for the same answers every request alike and reads alike; an entry that is not named here would have been
//! compiled to what it is (property test in `since_tests`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_policies::{Arm, ModelEntry, Route, VersionEntry};
use mesh_types::{EndpointId, TenantId};

use crate::{records::ModelName, since::Since};

type Models = BTreeMap<ModelName, Arc<ModelEntry>>;
type Routes = BTreeMap<(TenantId, EndpointId), Arc<Route>>;

/// The former model where the new one is the same.
pub(crate) fn model(entry: ModelEntry, former: Option<&Arc<ModelEntry>>) -> Arc<ModelEntry> {
    match former.filter(|former| is_same_model(former, &entry)) {
        Some(former) => former.clone(),
        None => Arc::new(entry),
    }
}

/// The former route where the new one is the same.
pub(crate) fn route(route: Route, former: Option<&Arc<Route>>) -> Arc<Route> {
    match former.filter(|former| is_same_route(former, &route)) {
        Some(former) => former.clone(),
        None => Arc::new(route),
    }
}

/// Tenants whose entries may have to be other than they were.
pub(crate) fn touched(
    since: Option<&Since>,
    (models, former_models): (&Models, &Models),
    (routes, former_routes): (&Routes, &Routes),
) -> BTreeSet<TenantId> {
    let mut touched = since.map(|since| since.tenants.clone()).unwrap_or_default();
    let mut call = |entry: &ModelEntry| {
        touched.insert(entry.owner.clone());
        touched.extend(entry.grants.iter().cloned());
    };
    differing(models, former_models).for_each(|entry| call(entry));
    differing(former_models, models).for_each(|entry| call(entry));
    touched.extend(names_of_differing(routes, former_routes).map(|name| name.0.clone()));
    touched.extend(names_of_differing(former_routes, routes).map(|name| name.0.clone()));
    touched
}

fn differing<'a>(these: &'a Models, those: &'a Models) -> impl Iterator<Item = &'a Arc<ModelEntry>> {
    these
        .iter()
        .filter(|(name, entry)| !those.get(*name).is_some_and(|other| Arc::ptr_eq(entry, other)))
        .map(|(_, entry)| entry)
}

fn names_of_differing<'a>(these: &'a Routes, those: &'a Routes) -> impl Iterator<Item = &'a (TenantId, EndpointId)> {
    these
        .iter()
        .filter(|(name, route)| !those.get(*name).is_some_and(|other| Arc::ptr_eq(route, other)))
        .map(|(name, _)| name)
}

fn is_same_model(one: &ModelEntry, other: &ModelEntry) -> bool {
    let ModelEntry {
        owner,
        model,
        grants,
        versions,
        labels,
        default,
    } = one;
    let mut pairs = versions.values().zip(other.versions.values());
    *owner == other.owner
        && *model == other.model
        && *grants == other.grants
        && *labels == other.labels
        && *default == other.default
        && versions.len() == other.versions.len()
        && pairs.all(|(one, other)| is_same_version(one, other))
}

fn is_same_version(one: &Arc<VersionEntry>, other: &Arc<VersionEntry>) -> bool {
    if Arc::ptr_eq(one, other) {
        return true;
    }
    let VersionEntry {
        key,
        config,
        format,
        digest,
        ready_on,
        plan,
        unavailable_reason,
        phase,
    } = &**one;
    // A plan is compiled anew each time, with its steps as they are now.
    let no_plans = plan.is_none() && other.plan.is_none();
    no_plans
        && *key == other.key
        && (Arc::ptr_eq(config, &other.config) || *config == other.config)
        && *format == other.format
        && *digest == other.digest
        && *ready_on == other.ready_on
        && *unavailable_reason == other.unavailable_reason
        && *phase == other.phase
}

fn is_same_route(one: &Route, other: &Route) -> bool {
    let Route {
        endpoint,
        arms,
        unit,
        salt,
        timeout,
        class,
        cache,
    } = one;
    let mut pairs = arms.iter().zip(&other.arms);
    *endpoint == other.endpoint
        && *unit == other.unit
        && *salt == other.salt
        && *timeout == other.timeout
        && *class == other.class
        && *cache == other.cache
        && arms.len() == other.arms.len()
        && pairs.all(|(one, other)| is_same_arm(one, other))
}

fn is_same_arm(one: &Arm, other: &Arm) -> bool {
    let Arm {
        name,
        version,
        model,
        hundredths,
    } = one;
    let same_version = match (version, &other.version) {
        (Some(one), Some(other)) => is_same_version(one, other),
        (None, None) => true,
        _ => false,
    };
    let same_model = Arc::ptr_eq(model, &other.model) || is_same_model(model, &other.model);
    *name == other.name && *hundredths == other.hundredths && same_version && same_model
}
