//! Publishing: the next number of a model, its labels and the model itself, in one transaction.

use actix_web::HttpResponse;
use mesh_policies::authorization::Action;
use mesh_registry::{Change, Expected};
use mesh_resources::{Kind, ModelSpec, Resource, ResourceKey, Spec, VersionRef};
use mesh_types::{ModelId, ModelVersionKey, TenantId, Version, VersionSelector};

use crate::{
    AdminState,
    apply::MAX_TRIES,
    auth::Caller,
    error::ApiError,
    resources::{MAX_LIMIT, one},
    wire::{PublishBody, ResourceList, WarmBody, Warmed},
};

/// Every version of a model, in the order of their numbers.
pub(crate) fn versions(
    state: &AdminState,
    tenant: &TenantId,
    model: &ModelId,
) -> Result<Vec<(Version, Resource)>, ApiError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = state
            .inner
            .parts
            .registry
            .list(Kind::ModelVersion, Some(tenant), after.as_ref(), MAX_LIMIT)?;
        found.extend(page.items.into_iter().filter_map(|resource| {
            let version = resource.key().ok()?.as_version()?;
            (version.model == *model).then_some((version.version, resource))
        }));
        after = page.next;
        if after.is_none() {
            found.sort_by_key(|(version, _)| *version);
            return Ok(found);
        }
    }
}

/// Lists a model's versions.
pub(crate) fn list(state: &AdminState, tenant: &TenantId, model: &ModelId) -> Result<HttpResponse, ApiError> {
    let items = versions(state, tenant, model)?;
    Ok(HttpResponse::Ok().json(ResourceList {
        items: items.iter().map(|(_, resource)| resource.redacted()).collect(),
        next: None,
    }))
}

/// Publishes the next version.
pub(crate) async fn publish(
    state: &AdminState,
    caller: &Caller,
    tenant: &TenantId,
    model: &ModelId,
    body: PublishBody,
) -> Result<HttpResponse, ApiError> {
    if !body.labels.is_empty() {
        caller.may_to(state, Action::RolloutPromote, &ResourceKey::model(tenant, model))?;
    }
    let mut tries = 1;
    loop {
        let highest = versions(state, tenant, model)?.last().map(|(version, _)| *version);
        let number = highest.map_or(Some(Version::FIRST), Version::next);
        let number =
            number.ok_or_else(|| ApiError::conflict("the model has used up its version numbers".to_owned()))?;
        let version = ModelVersionKey {
            tenant: tenant.clone(),
            model: model.clone(),
            version: number,
        };
        let resource = Resource::new(&ResourceKey::version(&version), body.spec.clone());
        let problems = resource.problems();
        if !problems.is_empty() {
            return Err(ApiError::problems(problems));
        }
        let mut changes = Vec::from_iter(model_change(state, tenant, model, number, &body)?);
        changes.push(Change::Put {
            resource,
            expected: Expected::Absent,
        });
        match state
            .inner
            .parts
            .registry
            .write(caller.author(), changes)
            .await
            .map_err(ApiError::from)
        {
            Err(error) if error.is_conflict() && tries < MAX_TRIES => tries += 1,
            written => {
                let written = written?;
                let ours = written.iter().find(|resource| resource.kind() == Kind::ModelVersion);
                let ours = ours.ok_or_else(|| ApiError::not_found(ResourceKey::version(&version)))?;
                return Ok(one(HttpResponse::Created(), ours));
            }
        }
    }
}

/// Brings a version into its devices' memory.
pub(crate) async fn warm(
    state: &AdminState,
    caller: &Caller,
    tenant: &TenantId,
    model: &ModelId,
    body: WarmBody,
) -> Result<HttpResponse, ApiError> {
    let parts = &state.inner.parts;
    let key = ResourceKey::model(tenant, model);
    let found = parts.registry.get(&key)?.map(|found| found.spec);
    let Some(Spec::Model(spec)) = found else {
        return Err(ApiError::not_found(key));
    };
    let wanted = body.version.or_else(|| spec.default_version.clone());
    let number = match wanted.as_ref().map(VersionRef::selector) {
        Some(VersionSelector::Version(number)) => Some(*number),
        Some(VersionSelector::Label(label)) => spec.labels.get(label).copied(),
        Some(VersionSelector::Default) | None => {
            let loadable = |resource: &Resource| matches!(&resource.spec, Spec::ModelVersion(spec) if !spec.unloaded);
            let all = versions(state, tenant, model)?;
            all.iter()
                .rev()
                .find(|(_, resource)| loadable(resource))
                .map(|(number, _)| *number)
        }
    };
    let asked = wanted.map_or_else(String::new, |wanted| format!(" or label '{wanted}'"));
    let number = number.ok_or_else(|| ApiError::not_found(format!("{key}: a version{asked}")))?;
    let version = ModelVersionKey {
        tenant: tenant.clone(),
        model: model.clone(),
        version: number,
    };
    let version_key = ResourceKey::version(&version);
    if parts.registry.get(&version_key)?.is_none() {
        return Err(ApiError::not_found(version_key));
    }
    tracing::info!(who = %caller.who, %version, "a version is to be brought into memory");
    let devices = parts.fleet.warm_up(version).await?;
    Ok(HttpResponse::Ok().json(Warmed {
        version: number,
        devices,
    }))
}

/// The model made, or its labels moved; nothing if it is there and no label is to move.
fn model_change(
    state: &AdminState,
    tenant: &TenantId,
    model: &ModelId,
    number: Version,
    body: &PublishBody,
) -> Result<Option<Change>, ApiError> {
    let key = ResourceKey::model(tenant, model);
    let found = state.inner.parts.registry.get(&key)?;
    let expected = found.as_ref().and_then(|found| found.metadata.revision);
    let expected = expected.map_or(Expected::Absent, Expected::Revision);
    let mut spec = match found.map(|found| found.spec) {
        Some(Spec::Model(spec)) if body.labels.is_empty() => {
            drop(spec);
            return Ok(None);
        }
        Some(Spec::Model(spec)) => spec,
        _ => ModelSpec::default(),
    };
    spec.labels
        .extend(body.labels.iter().map(|label| (label.clone(), number)));
    let resource = Resource::new(&key, spec);
    let problems = resource.problems();
    if !problems.is_empty() {
        return Err(ApiError::problems(problems));
    }
    Ok(Some(Change::Put { resource, expected }))
}
