//! When API keys were last used: of one key, and of many page by page.
//!
//! Which keys there are is the registry's to say, and when they were used the snapshot's, so that a use changes no record. A key
//! that was never used, or not since its uses are remembered, says null.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Query},
};
use jiff::Timestamp;
use mesh_policies::authorization::{Action, ObjectKind};
use mesh_resources::{Kind, ResourceKey};
use mesh_types::{KeyId, TenantId};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    AdminState,
    auth::Caller,
    authz::Needs,
    entry::Entry,
    error::ApiError,
    resources::{self, ListQuery, key_of},
};

/// When one key was last used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct KeyUse {
    /// Whose it is.
    #[schema(value_type = String)]
    tenant: TenantId,
    /// Its name.
    #[schema(value_type = String)]
    key: KeyId,
    /// The minute of its last use; null where it was never used.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used: Option<Timestamp>,
}

/// The last uses of some keys, in the order of the keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct KeyUseList {
    /// One for each key.
    items: Vec<KeyUse>,
    /// The cursor of what comes next; null at the end.
    next: Option<String>,
}

fn of(state: &AdminState, key: &ResourceKey) -> Option<KeyUse> {
    let (tenant, key) = (key.tenant.clone()?, KeyId::parse(&key.name).ok()?);
    let used = state.inner.parts.key_uses.last_used(&tenant, &key);
    Some(KeyUse {
        tenant,
        key,
        last_used: used.and_then(|unix| Timestamp::from_second(unix).ok()),
    })
}

/// Answers with the last use of the key that the path names.
pub(crate) fn get(state: &AdminState, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let key = key_of(Kind::ApiKey, request)?;
    let there = state.inner.parts.registry.get(&key)?.is_some();
    let found = of(state, &key).filter(|_| there);
    let found = found.ok_or_else(|| ApiError::not_found(&key))?;
    Ok(HttpResponse::Ok().json(found))
}

/// Answers with the last uses of a page of keys; the pages are those of the keys themselves.
pub(crate) fn list(state: &AdminState, caller: &Caller, query: &ListQuery) -> Result<HttpResponse, ApiError> {
    let page = resources::page(state, caller, Kind::ApiKey, query)?;
    let keys = page.items.iter().filter_map(|resource| resource.key().ok());
    Ok(HttpResponse::Ok().json(KeyUseList {
        items: keys.filter_map(|key| of(state, &key)).collect(),
        next: page.next.map(|key| key.to_string()),
    }))
}

/// Its routes.
pub(crate) fn entries() -> [Entry; 2] {
    let one = web::get().to(|state: Data<AdminState>, request: HttpRequest| async move { get(&state, &request) });
    let all = web::get().to(
        |state: Data<AdminState>, caller: Caller, query: Query<ListQuery>| async move { list(&state, &caller, &query) },
    );
    let about_all = "When API keys were last used, page by page as keys are listed.";
    let entries = [
        Entry::get(
            "/tenants/{tenant}/keys/{name}/use",
            "getKeyUse",
            "When an API key was last used, to the minute.",
            one,
        )
        .takes_right(Action::KeyRead, ObjectKind::Key)
        .answers("KeyUse"),
        Entry::get("/key-uses", "listKeyUses", about_all, all)
            .query(&["tenant", "limit", "cursor"])
            // As of every list: what the caller may not read is left out.
            .needs(Needs::Handler)
            .answers("KeyUseList"),
    ];
    entries.map(|entry| entry.tag("credentials"))
}
