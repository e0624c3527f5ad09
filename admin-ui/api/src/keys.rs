//! Credentials made here: API keys and admin tokens, shown once; what is kept is a hash.

use actix_web::HttpResponse;
use mesh_policies::access::{generate_admin_token_as, generate_api_key_as};
use mesh_policies::authorization::Action;
use mesh_policies::{generate_admin_token, generate_api_key, hash_secret};
use mesh_registry::{Change, Expected};
use mesh_resources::{AdminTokenSpec, ApiKeySpec, Resource, ResourceKey, Scope};
use mesh_types::TenantId;

use crate::{
    AdminState,
    auth::Caller,
    error::ApiError,
    wire::{NewKey, NewKeyBody, NewToken, NewTokenBody},
};

/// The part of a key that tells people and secret scanners what it is for.
const KEY_ENVIRONMENT: &str = "live";

fn check_expiry(state: &AdminState, expires: Option<jiff::Timestamp>) -> Result<(), ApiError> {
    if expires.is_some_and(|expires| expires.as_second() <= state.now_unix()) {
        return Err(ApiError::problem("expires", "is in the past: it would never work"));
    }
    Ok(())
}

async fn create(state: &AdminState, caller: &Caller, resource: Resource) -> Result<Resource, ApiError> {
    let problems = resource.problems();
    if !problems.is_empty() {
        return Err(ApiError::problems(problems));
    }
    let expected = Expected::Absent;
    let change = Change::Put {
        resource: resource.clone(),
        expected,
    };
    let written = state.inner.parts.registry.write(caller.author(), vec![change]).await?;
    Ok(written.into_iter().next().unwrap_or(resource).redacted())
}

/// Makes an API key for a tenant.
pub(crate) async fn create_key(
    state: &AdminState,
    caller: &Caller,
    tenant: &TenantId,
    body: NewKeyBody,
) -> Result<HttpResponse, ApiError> {
    check_expiry(state, body.expires)?;
    let made = match body.name {
        Some(name) => generate_api_key_as(KEY_ENVIRONMENT, name, &mut rand::rng()),
        None => generate_api_key(KEY_ENVIRONMENT, &mut rand::rng()),
    };
    caller.may_to(state, Action::KeyAdmin, &ResourceKey::api_key(tenant, &made.id))?;
    let spec = ApiKeySpec {
        groups: body.groups,
        hash: hash_secret(&state.inner.parts.pepper, &made.secret),
        scopes: body.scopes.unwrap_or_else(|| vec![Scope::Infer]),
        expires: body.expires,
        revoked: false,
        limits: body.limits.unwrap_or_default(),
        description: body.description,
    };
    let resource = Resource::new(&ResourceKey::api_key(tenant, &made.id), spec);
    let resource = create(state, caller, resource).await?;
    Ok(HttpResponse::Created().json(NewKey {
        key: made.text,
        resource,
    }))
}

/// Makes an admin token.
pub(crate) async fn create_token(
    state: &AdminState,
    caller: &Caller,
    body: NewTokenBody,
) -> Result<HttpResponse, ApiError> {
    check_expiry(state, body.expires)?;
    let made = match body.name {
        Some(name) => generate_admin_token_as(name, &mut rand::rng()),
        None => generate_admin_token(&mut rand::rng()),
    };
    caller.may_to(state, Action::TokenAdmin, &ResourceKey::admin_token(&made.id))?;
    let spec = AdminTokenSpec {
        tenant: body.tenant,
        groups: body.groups,
        hash: hash_secret(&state.inner.parts.pepper, &made.secret),
        role: body.role,
        expires: body.expires,
    };
    let resource = Resource::new(&ResourceKey::admin_token(&made.id), spec);
    let resource = create(state, caller, resource).await?;
    Ok(HttpResponse::Created().json(NewToken {
        token: made.text,
        resource,
    }))
}
