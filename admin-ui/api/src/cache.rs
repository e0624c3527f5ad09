//! The response cache: what an endpoint's answers are forgotten by, and those of all endpoints of a tenant.
//!
//! A purge is an entry of the audit log before it is done. It takes `endpoint:route`; one of a tenant that to every endpoint that the
//! tenant has, all or none.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data},
};
use mesh_policies::authorization::{Action, ObjectKind};
use mesh_resources::{Kind, ResourceKey};
use mesh_types::{EndpointId, TenantId};

use crate::{
    AdminState, Purged,
    auth::Caller,
    entry::Entry,
    error::ApiError,
    resources::{MAX_LIMIT, tenant_of},
};

/// Forgets, once it is written who wanted it.
async fn forget(
    state: &AdminState,
    caller: &Caller,
    key: &ResourceKey,
    (tenant, endpoint): (&TenantId, Option<&EndpointId>),
) -> Result<HttpResponse, ApiError> {
    let parts = &state.inner.parts;
    let event = format!("purge cache of {key}");
    parts.registry.note(caller.author(), &event).await?;
    let purged = parts.cache.purge(tenant, endpoint);
    tracing::info!(who = %caller.who, %key, purged.entries, "the cache was purged");
    Ok(HttpResponse::Ok().json(purged))
}

/// Forgets what an endpoint has answered.
async fn purge(
    state: &AdminState,
    caller: &Caller,
    tenant: &TenantId,
    endpoint: &EndpointId,
) -> Result<HttpResponse, ApiError> {
    let key = ResourceKey::endpoint(tenant, endpoint);
    if state.inner.parts.registry.get(&key)?.is_none() {
        return Err(ApiError::not_found(key.to_string()));
    }
    forget(state, caller, &key, (tenant, Some(endpoint))).await
}

/// Forgets what all endpoints of a tenant have answered.
async fn purge_tenant(state: &AdminState, caller: &Caller, tenant: &TenantId) -> Result<HttpResponse, ApiError> {
    let (registry, key) = (&state.inner.parts.registry, ResourceKey::tenant(tenant));
    if registry.get(&key)?.is_none() {
        return Err(ApiError::not_found(key.to_string()));
    }
    let (mut after, mut endpoints) = (None, 0);
    loop {
        let page = registry.list(Kind::Endpoint, Some(tenant), after.as_ref(), MAX_LIMIT)?;
        endpoints += page.items.len();
        for resource in &page.items {
            caller.may_to(state, Action::EndpointRoute, &resource.key()?)?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if endpoints == 0 {
        // Nothing is remembered of it, and nobody was asked whether this caller may.
        return Ok(HttpResponse::Ok().json(Purged::default()));
    }
    forget(state, caller, &key, (tenant, None)).await
}

/// Its routes.
pub(crate) fn entries() -> [Entry; 2] {
    let one = web::post().to(
        |state: Data<AdminState>, caller: Caller, request: HttpRequest| async move {
            let name = request.match_info().get("name").unwrap_or_default();
            let endpoint = EndpointId::parse(name).map_err(|error| ApiError::invalid(error.to_string()))?;
            purge(&state, &caller, &tenant_of(&request)?, &endpoint).await
        },
    );
    let all = web::post().to(
        |state: Data<AdminState>, caller: Caller, request: HttpRequest| async move {
            purge_tenant(&state, &caller, &tenant_of(&request)?).await
        },
    );
    let about_one = "Forgets the answers that are remembered of an endpoint.";
    let about_all = "Forgets the answers that are remembered of all endpoints of a tenant.";
    let entries = [
        Entry::post(
            "/tenants/{tenant}/endpoints/{name}/cache/purge",
            "purgeCache",
            about_one,
            one,
        )
        .takes_right(Action::EndpointRoute, ObjectKind::Endpoint),
        // And `endpoint:route` to each endpoint, which its handler asks.
        Entry::post("/tenants/{tenant}/cache/purge", "purgeTenantCache", about_all, all)
            .takes_right(Action::TenantRead, ObjectKind::Tenant),
    ];
    entries.map(|entry| entry.tag("models").answers("Purged"))
}

#[cfg(test)]
mod tests {
    use actix_web::http::Method;
    use serde_json::json;

    use crate::fixture_tests::{Ask, Fixture, tenant};

    #[actix_web::test]
    async fn a_purge_of_an_endpoint_or_a_tenant_is_told_and_in_the_trail() {
        let door = Fixture::new().await;
        door.demo().await;
        door.put("/tenants/empty", &tenant("empty")).await.is(201);
        let purge = |path: &'static str| async { door.post(path, &json!({})).await };
        let one = purge("/tenants/acme/endpoints/read/cache/purge").await.is(200).body;
        assert_eq!(one, json!({"entries": 3, "bytes": 30}));
        assert_eq!(purge("/tenants/acme/cache/purge").await.is(200).body["entries"], 5);
        assert_eq!(purge("/tenants/empty/cache/purge").await.is(200).body["entries"], 0);
        purge("/tenants/absent/cache/purge").await.is(404);
        let trail = door.get("/audit?limit=500").await.body;
        let items = trail["items"].as_array().unwrap().iter();
        let events: Vec<_> = items.filter_map(|item| item["event"].as_str()).collect();
        assert_eq!(
            events,
            ["purge cache of Endpoint/acme/read", "purge cache of Tenant/acme"]
        );
    }

    #[actix_web::test]
    async fn a_purge_of_a_tenant_takes_the_right_to_each_of_its_endpoints() {
        let door = Fixture::new().await;
        door.demo().await;
        let path = "/tenants/acme/cache/purge";
        let refused = door
            .send(Ask::new(Method::POST, path).bearer(&door.viewer))
            .await
            .is(403);
        assert!(
            refused.body["error"].as_str().unwrap().contains("endpoint:route"),
            "{}",
            refused.body
        );
        let policy = crate::fixture_tests::resource(
            "Policy",
            None,
            "keep",
            json!({"cedar": "forbid (principal, action == Mesh::Action::\"endpoint:route\", resource == Mesh::Endpoint::\"acme/read\");"}),
        );
        door.put("/policies/keep", &policy).await.is(201);
        door.post(path, &json!({})).await.is(403);
        let trail = door.get("/audit?limit=500").await.body.to_string();
        assert!(!trail.contains("purge"), "{trail}");
    }
}
