//! What a model is: for metadata and readiness, authenticated like any call but not counted against limits.

use std::{collections::BTreeSet, sync::Arc};

use mesh_policies::{MeshSnapshot, snapshot::Target};
use mesh_types::{Fault, ModelConfig, Version, VersionSelector};

use crate::{Credential, RouterParts, keys};

/// How a model or endpoint is called.
#[derive(Debug, Clone)]
pub struct ModelDescription {
    /// The name it was asked for by.
    pub name: String,
    /// Its versions, ascending; those of all arms for an endpoint.
    pub versions: Vec<Version>,
    /// The one that is described: for an endpoint's split, that of the arm with the most traffic.
    pub version: Version,
    /// Inputs and outputs.
    pub config: Arc<ModelConfig>,
    /// What runs it.
    pub platform: &'static str,
    /// Whether it would take a call now.
    pub ready: bool,
    /// Whether the caller's tenant owns it.
    pub owned: bool,
}

/// Describes what `name` means to the caller.
pub(crate) fn describe(
    snapshot: &MeshSnapshot,
    parts: &RouterParts,
    credential: &Credential,
    name: &str,
    selector: &VersionSelector,
) -> Result<ModelDescription, Fault> {
    let (principal, tenant) = keys::caller(snapshot, parts, credential)?;
    let unknown = || Fault::unknown_model(name);
    let target = snapshot.callable(&principal, tenant, name).ok_or_else(unknown)?;
    let (entry, versions) = match target {
        Target::Model(model) => {
            let entry = model.resolve(selector).ok_or_else(unknown)?;
            (entry, model.versions.keys().copied().collect())
        }
        Target::Endpoint(route) => {
            let of_arms = route.arms.iter().flat_map(|arm| arm.model.versions.keys().copied());
            let versions: BTreeSet<Version> = match selector {
                VersionSelector::Default => route.arms.iter().filter_map(version_of).collect(),
                _ => of_arms.collect(),
            };
            let entry = match selector {
                // The arm with the most traffic speaks for the endpoint: its arms take the same inputs.
                VersionSelector::Default => {
                    let heaviest = route
                        .arms
                        .iter()
                        .max_by_key(|arm| (arm.version.is_some(), arm.hundredths));
                    heaviest.and_then(|arm| arm.version.as_ref())
                }
                pinned => route.pinned(pinned).map(|(_, entry)| entry),
            };
            (entry.ok_or_else(unknown)?, versions.into_iter().collect())
        }
    };
    if entry.plan.as_ref().is_some_and(|plan| !plan.admits(&tenant.id)) {
        return Err(unknown());
    }
    Ok(ModelDescription {
        name: name.to_owned(),
        versions,
        version: entry.key.version,
        config: entry.config.clone(),
        platform: entry.format.platform(),
        ready: entry.is_ready(),
        owned: entry.key.tenant == tenant.id,
    })
}

/// The most bytes that a request of this name may have, where that may be less than its door takes: of the caller's own names alone,
/// so that nobody learns of another's by a refusal. Who is called is looked at only for a request that is larger than the least bound
/// there is, or says no length. A wrong credential counts where it is refused and not here, or its count would tell what that bound is.
pub(crate) fn request_bound(
    snapshot: &MeshSnapshot,
    parts: &RouterParts,
    credential: impl FnOnce() -> Credential,
    name: &str,
    declared: Option<u64>,
) -> Option<u64> {
    if !snapshot.request_bounds.may_refuse(declared) {
        return None;
    }
    let credential = credential();
    let (principal, tenant) = keys::caller_ahead(snapshot, parts, &credential).ok()?;
    let target = snapshot.callable(&principal, tenant, name)?;
    snapshot.request_bounds.of_target(target)
}

fn version_of(arm: &mesh_policies::traffic::Arm) -> Option<Version> {
    arm.version.as_ref().map(|entry| entry.key.version)
}
