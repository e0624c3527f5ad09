//! Reading, writing and deleting single resources, the same way for every kind.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use mesh_authz::Thing;
use mesh_registry::{Change, Expected, Page};
use mesh_resources::{Kind, Resource, ResourceKey};
use mesh_types::TenantId;
use serde::Deserialize;

use crate::{
    AdminState,
    apply::{MAX_TRIES, write},
    auth::Caller,
    error::ApiError,
    plan::{self, Condition},
    wire::{Action, ResourceList},
};

/// Resources per answer, if the caller does not say; and at most.
const DEFAULT_LIMIT: usize = 100;
pub(crate) const MAX_LIMIT: usize = 1_000;

/// What a list is asked for.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct ListQuery {
    tenant: Option<TenantId>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// Whether a write is only tried.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WriteQuery {
    pub(crate) dry_run: bool,
}

/// The key that a path names.
pub(crate) fn key_of(kind: Kind, request: &HttpRequest) -> Result<ResourceKey, ApiError> {
    let part = |name: &str| request.match_info().get(name).unwrap_or_default();
    let tenant = kind.is_namespaced().then(|| tenant_of(request)).transpose()?;
    let name = match kind {
        Kind::Tenant => part("tenant").to_owned(),
        Kind::Model => part("model").to_owned(),
        Kind::ModelVersion => format!("{}/{}", part("model"), part("version")),
        _ => part("name").to_owned(),
    };
    Ok(ResourceKey::new(kind, tenant, &name)?)
}

/// The tenant that a path names.
pub(crate) fn tenant_of(request: &HttpRequest) -> Result<TenantId, ApiError> {
    let text = request.match_info().get("tenant").unwrap_or_default();
    TenantId::parse(text).map_err(|error| ApiError::invalid(error.to_string()))
}

/// How many are wanted of a list.
pub(crate) fn limit_of(asked: Option<usize>) -> Result<usize, ApiError> {
    let limit = asked.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    let text = format!("{limit} is not within 1 to {MAX_LIMIT}");
    Err(ApiError::problem("limit", text))
}

/// The page of resources that is asked for, without those that the caller may not read.
pub(crate) fn page(state: &AdminState, caller: &Caller, kind: Kind, query: &ListQuery) -> Result<Page, ApiError> {
    let limit = limit_of(query.limit)?;
    if query.tenant.is_some() && !kind.is_namespaced() {
        return Err(ApiError::problem(
            "tenant",
            format!("a {kind} belongs to no tenant: leave it out"),
        ));
    }
    let after = query.cursor.as_deref().map(str::parse::<ResourceKey>).transpose();
    let after = after
        .ok()
        .filter(|after| after.as_ref().is_none_or(|after| after.kind == kind));
    let after = after.ok_or_else(|| ApiError::problem("cursor", "give back what the last answer said in 'next'"))?;
    // Who is bound to a tenant means its own.
    let own = caller.tenant().filter(|_| kind.is_namespaced());
    let tenant = query.tenant.as_ref().or(own);
    let mut page = (state.inner.parts.registry).list(kind, tenant, after.as_ref(), limit)?;
    page.items = visible(state, caller, (kind, tenant), page.items, after.is_none())?;
    Ok(page)
}

pub(crate) fn list(
    state: &AdminState,
    caller: &Caller,
    kind: Kind,
    query: &ListQuery,
) -> Result<HttpResponse, ApiError> {
    let page = page(state, caller, kind, query)?;
    Ok(HttpResponse::Ok().json(ResourceList {
        items: page.items.iter().map(Resource::redacted).collect(),
        next: page.next.map(|key| key.to_string()),
    }))
}

/// What the caller may read of a page. One that may read no list and nothing of the first page is told so.
fn visible(
    state: &AdminState,
    caller: &Caller,
    (kind, tenant): (Kind, Option<&TenantId>),
    mut page: Vec<Resource>,
    is_first: bool,
) -> Result<Vec<Resource>, ApiError> {
    let within = match tenant {
        Some(tenant) => Thing::of(&ResourceKey::tenant(tenant)),
        None if kind == Kind::Tenant => caller.home(),
        None => Thing::mesh(),
    };
    let whole = caller.may(state, mesh_authz::reading(kind), &within);
    // The built-in policies tell no two resources apart that one list can hold, but for tenants.
    let alike = kind != Kind::Tenant || caller.tenant().is_none();
    if whole.is_ok() && alike && !state.has_policies()? {
        return Ok(page);
    }
    let mut failed = None;
    page.retain(|resource| match resource.key().map_err(ApiError::from) {
        Ok(key) => caller.sees(state, &key).unwrap_or_else(|error| {
            failed = Some(error);
            false
        }),
        Err(_) => false,
    });
    match (failed, whole) {
        (Some(error), _) => Err(error),
        (None, Err(denied)) if page.is_empty() && is_first => Err(denied),
        _ => Ok(page),
    }
}

pub(crate) fn get(state: &AdminState, kind: Kind, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let key = key_of(kind, request)?;
    let resource = state.inner.parts.registry.get(&key)?;
    let resource = resource.ok_or_else(|| ApiError::not_found(&key))?;
    Ok(one(HttpResponse::Ok(), &resource))
}

/// A resource with its revision as entity tag.
pub(crate) fn one(mut response: actix_web::HttpResponseBuilder, resource: &Resource) -> HttpResponse {
    if let Some(revision) = resource.metadata.revision {
        response.insert_header((header::ETAG, format!("\"{revision}\"")));
    }
    response.json(resource.redacted())
}

fn condition(request: &HttpRequest) -> Result<Condition, ApiError> {
    let value = |name| {
        request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap_or_default().trim())
    };
    match (value(header::IF_MATCH), value(header::IF_NONE_MATCH)) {
        (None, None) | (Some("*"), None) => Ok(Condition::None),
        (None, Some("*")) => Ok(Condition::Absent),
        (Some(tag), None) => {
            let revision = tag.trim_matches('"').parse();
            let revision =
                revision.map_err(|_| ApiError::invalid("If-Match is a revision in quotes, such as \"12\""))?;
            Ok(Condition::Revision(revision))
        }
        (None, Some(_)) => Err(ApiError::invalid(
            "If-None-Match is * or absent: it says that the resource must be new",
        )),
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "If-Match and If-None-Match contradict each other: send one",
        )),
    }
}

pub(crate) async fn put(
    state: &AdminState,
    caller: &Caller,
    kind: Kind,
    request: &HttpRequest,
    resource: Resource,
    dry_run: bool,
) -> Result<HttpResponse, ApiError> {
    let key = key_of(kind, request)?;
    let named = resource.key();
    if !named.as_ref().is_ok_and(|named| *named == key) {
        let named = named.map_or_else(|error| error.to_string(), |named| named.to_string());
        return Err(ApiError::problem(
            "metadata",
            format!("the path names {key}, the body {named}: they must be the same"),
        ));
    }
    caller.reaches(&key)?;
    let condition = condition(request)?;
    let mut tries = 1;
    loop {
        let step = plan::step(state, resource.clone(), condition)?;
        step.check_right(state, caller)?;
        let problems = step.after.problems();
        if !problems.is_empty() {
            return Err(ApiError::problems(problems));
        }
        let written = match write(state, caller, step.change().into_iter().collect(), dry_run).await {
            Err(error) if error.is_conflict() && tries < MAX_TRIES => {
                tries += 1;
                continue;
            }
            written => written?,
        };
        if dry_run {
            return Ok(HttpResponse::Ok().json(step.result(&[])));
        }
        let response = match step.action {
            Action::Created => HttpResponse::Created(),
            Action::Changed | Action::Unchanged => HttpResponse::Ok(),
        };
        return Ok(one(response, written.first().unwrap_or(&step.after)));
    }
}

pub(crate) async fn delete(
    state: &AdminState,
    caller: &Caller,
    kind: Kind,
    request: &HttpRequest,
) -> Result<HttpResponse, ApiError> {
    let key = key_of(kind, request)?;
    let registry = &state.inner.parts.registry;
    let found = registry.get(&key)?.ok_or_else(|| ApiError::not_found(&key))?;
    let found_revision = found.metadata.revision.unwrap_or(0);
    match condition(request)? {
        Condition::None => {}
        Condition::Revision(expected) if expected == found_revision => {}
        Condition::Revision(expected) => {
            return Err(ApiError::conflict(format!(
                "{key} is at revision {found_revision}, it was to be deleted at revision {expected}: read it again"
            )));
        }
        Condition::Absent => {
            return Err(ApiError::invalid(
                "what must not exist cannot be deleted: leave If-None-Match out",
            ));
        }
    }
    let expected = Expected::Revision(found_revision);
    registry
        .write(caller.author(), vec![Change::Delete { key, expected }])
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

/// A body of a resource.
pub(crate) fn read(body: web::Json<serde_json::Value>) -> Result<Resource, ApiError> {
    Resource::deserialize(body.into_inner()).map_err(|error| ApiError::invalid(error.to_string()))
}
