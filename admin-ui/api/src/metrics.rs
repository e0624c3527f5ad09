//! One tenant's metrics, for whoever may read the tenant: what the metrics door shows operators, but for everything of others.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data},
};
use mesh_policies::authorization::{Action, ObjectKind};
use mesh_resources::ResourceKey;
use mesh_telemetry::OPENMETRICS;
use mesh_types::TenantId;

use crate::{
    AdminState,
    entry::{Body, Entry},
    error::ApiError,
    resources::tenant_of,
};

fn get(state: &AdminState, tenant: &TenantId) -> Result<HttpResponse, ApiError> {
    let parts = &state.inner.parts;
    let key = ResourceKey::tenant(tenant);
    // A tenant that is gone may have left series behind, which would tell of somebody who comes by its name later.
    parts.registry.get(&key)?.ok_or_else(|| ApiError::not_found(&key))?;
    let text = parts.telemetry.metrics().encode_prometheus_of(tenant);
    let text = text.map_err(|error| ApiError::internal(error.to_string()))?;
    Ok(HttpResponse::Ok().content_type(OPENMETRICS).body(text))
}

/// Its route.
pub(crate) fn entry() -> Entry {
    let route = web::get().to(|state: Data<AdminState>, request: HttpRequest| async move {
        let tenant = tenant_of(&request)?;
        get(&state, &tenant)
    });
    let about = "A tenant's own metrics, for Prometheus: what others or the mesh as a whole have done is not in them.";
    Entry::get("/tenants/{tenant}/metrics", "getTenantMetrics", about, route)
        .tag("live")
        .takes_right(Action::TenantRead, ObjectKind::Tenant)
        .answer(Body::Metrics)
}
