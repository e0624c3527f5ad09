//! The response cache: what an endpoint's answers are forgotten by.

use actix_web::HttpResponse;
use mesh_resources::ResourceKey;
use mesh_types::{EndpointId, TenantId};

use crate::{AdminState, auth::Caller, error::ApiError};

/// Forgets what an endpoint has answered.
pub(crate) async fn purge(
    state: &AdminState,
    caller: &Caller,
    tenant: &TenantId,
    endpoint: &EndpointId,
) -> Result<HttpResponse, ApiError> {
    let (parts, key) = (&state.inner.parts, ResourceKey::endpoint(tenant, endpoint));
    if parts.registry.get(&key)?.is_none() {
        return Err(ApiError::not_found(key.to_string()));
    }
    parts
        .registry
        .note(caller.author(), &format!("purge cache of {key}"))
        .await?;
    let purged = parts.cache.purge(tenant, endpoint);
    tracing::info!(who = %caller.who, %key, purged.entries, "an endpoint's cache was purged");
    Ok(HttpResponse::Ok().json(purged))
}
