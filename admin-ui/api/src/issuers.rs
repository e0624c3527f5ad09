//! The keys of an issuer: those that its tokens are checked with now, and how fetching them goes.
//!
//! Shows names, algorithms and times, of declared and of fetched keys alike. Fetches nothing, and shows no key itself: fetched
//! ones are public anyway, and declared ones are in the resource.

use actix_web::HttpResponse;
use jiff::Timestamp;
use mesh_policies::access::{BookView, KeyLocation};
use mesh_resources::{IssuerSpec, Kind, ResourceKey, Spec};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{AdminState, error::ApiError};

/// An issuer's keys, and where they come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct IssuerKeysView {
    /// The `iss` of its tokens.
    issuer: String,
    /// `declared`, `jwks` (fetched from `url`) or `discovery` (fetched from where the issuer says).
    source: String,
    /// The declared address of the key set.
    url: Option<String>,
    /// The keys that tokens are checked with.
    keys: Vec<IssuerKeyView>,
    /// Keys that were published and are left out.
    left_out: Vec<LeftOutView>,
    /// When the keys were fetched last; null where they never were, or are declared.
    #[schema(value_type = Option<String>, format = DateTime)]
    fetched_at: Option<Timestamp>,
    /// When they are fetched next; null while they are, or where they are declared.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_refresh: Option<Timestamp>,
    /// Until when they are used if no fetch succeeds.
    #[schema(value_type = Option<String>, format = DateTime)]
    kept_until: Option<Timestamp>,
    /// Why the last fetch failed; null where it did not.
    last_error: Option<String>,
    /// When it failed.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_error_at: Option<Timestamp>,
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct IssuerKeyView {
    /// Its `kid`.
    key_id: Option<String>,
    /// How it signs.
    algorithm: String,
    /// Its thumbprint (RFC 7638) in base64url, of fetched keys.
    thumbprint: Option<String>,
}

/// A key that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct LeftOutView {
    /// Its `kid`.
    key_id: Option<String>,
    /// Why.
    reason: String,
}

fn time(unix: Option<i64>) -> Option<Timestamp> {
    unix.and_then(|unix| Timestamp::from_second(unix).ok())
}

fn declared(spec: &IssuerSpec) -> IssuerKeysView {
    let key = |key: &mesh_resources::IssuerKeySpec| IssuerKeyView {
        key_id: key.key_id.clone(),
        algorithm: format!("{:?}", key.algorithm),
        thumbprint: None,
    };
    IssuerKeysView {
        issuer: spec.issuer.clone(),
        source: "declared".to_owned(),
        url: None,
        keys: spec.keys.iter().map(key).collect(),
        left_out: Vec::new(),
        fetched_at: None,
        next_refresh: None,
        kept_until: None,
        last_error: None,
        last_error_at: None,
    }
}

fn fetched(issuer: &str, book: BookView) -> IssuerKeysView {
    let (source, url) = match book.location {
        KeyLocation::KeySet(url) => ("jwks", Some(url)),
        KeyLocation::Discovered => ("discovery", None),
    };
    let key = |(key_id, algorithm, thumbprint): (Option<String>, mesh_policies::KeyAlgorithm, String)| IssuerKeyView {
        key_id,
        algorithm: algorithm.as_str().to_owned(),
        thumbprint: Some(thumbprint),
    };
    let (failed_at, error) = book.last_error.unzip();
    IssuerKeysView {
        issuer: issuer.to_owned(),
        source: source.to_owned(),
        url,
        keys: book.keys.into_iter().map(key).collect(),
        left_out: book
            .left_out
            .into_iter()
            .map(|left| LeftOutView {
                key_id: left.key_id,
                reason: left.reason.to_string(),
            })
            .collect(),
        fetched_at: time(book.fetched),
        next_refresh: time(book.next_fetch),
        kept_until: time(book.kept_until),
        last_error: error,
        last_error_at: time(failed_at),
    }
}

/// Answers with an issuer's keys.
pub(crate) fn keys(state: &AdminState, name: &str) -> Result<HttpResponse, ApiError> {
    let parts = &state.inner.parts;
    let key = ResourceKey::new(Kind::Issuer, None, name).map_err(|error| ApiError::invalid(error.to_string()))?;
    let found = parts.registry.get(&key)?;
    let Some(Spec::Issuer(spec)) = found.map(|resource| resource.spec) else {
        return Err(ApiError::not_found(&key));
    };
    let view = match (&spec.jwks, parts.issuers.fetched_keys(name, state.now_unix())) {
        (Some(_), Some(book)) => fetched(&spec.issuer, book),
        (None, _) => declared(&spec),
        // It was declared a moment ago, and control has not come to it yet.
        (Some(jwks), None) => IssuerKeysView {
            source: if jwks.url.is_some() { "jwks" } else { "discovery" }.to_owned(),
            url: jwks.url.clone(),
            ..declared(&spec)
        },
    };
    Ok(HttpResponse::Ok().json(view))
}
