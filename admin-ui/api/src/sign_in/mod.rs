//! Signing in with an identity provider, beside admin tokens: OpenID Connect's authorization code flow with PKCE, as the browser
//! sees it.
//!
//! Owns the three routes: what ways there are, the way to the provider, and the way back; signing out is in `leave`. Sign-ins under way are
//! in `pending`, what the provider's claims come to in `roles`; what is said to the provider, and the proof of what it answers, are its assembler's
//! ([`IdentityProvider`]). A session that results is like any other.
//!
//! Invariants: a browser comes back to one address, which no request can change, and goes on only to a page of this door; what it
//! brings is believed only with the cookie that it was sent away with, and once; nobody gets a session whom the rules give no role,
//! or whose entry in the audit log cannot be written; a failure tells the browser one word of [`Outcome`], and the log the rest.

mod leave;
mod notes;
mod parts;
mod pending;
mod roles;

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    cookie::{Cookie, SameSite, time},
    http::{StatusCode, header},
    web::{self, Data, Query},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mesh_actors::Permits;
use mesh_policies::access::Identity;
use mesh_registry::Author;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

pub use self::{
    leave::LEFT,
    parts::{Asked, IdentityProvider, Leaving, ProviderError, Returned, SignIn},
    pending::{LOGIN_SECONDS, MAX_LOGINS},
    roles::{MAX_ROLES, RoleRules},
};
pub(crate) use self::{leave::SignedOutView, parts::SignInView};
use self::{
    notes::Notes,
    pending::{Login, Pending},
    roles::NoRole,
};
use crate::{
    AdminState,
    auth::{address_of, open_session, request_id},
    authz::Needs,
    door::Here,
    entry::Entry,
    error::ApiError,
    sessions::{Owner, random_text},
    throttle::Throttle,
};

/// The cookie of a browser that was sent away; with TLS no other name of the domain can set it.
const COOKIE: &str = "mesh_sign_in";
const SECURE_COOKIE: &str = "__Host-mesh_sign_in";
const BEGIN: &str = "/sign-in/oidc";
/// Where browsers come back to, below the door's address.
pub const CALLBACK: &str = "/admin/v1/sign-in/oidc/callback";
/// Questions to the provider at once.
const MAX_ASKING: usize = 32;
/// The longest page that a browser goes on to.
const MAX_PAGE: usize = 512;
/// The longest state and code that are looked at.
const MAX_TEXT: usize = 4_096;

/// The most that the audit log says of a failure.
const MAX_WHY: usize = 120;

/// What the state holds for signing in.
pub(crate) struct Desk {
    logins: Pending<Login>,
    leavings: Pending<Arc<str>>,
    throttle: Throttle,
    asking: Permits,
    notes: Notes,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            logins: Pending::default(),
            leavings: Pending::default(),
            throttle: Throttle::default(),
            asking: Permits::new(MAX_ASKING),
            notes: Notes::default(),
        }
    }
}

/// Why nobody is signed in, as the page is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// Too many at once or in a minute.
    Busy,
    /// The provider does not answer.
    Unavailable,
    /// Not begun here, over, or come back to before.
    Ended,
    /// Begun in another browser.
    Browser,
    /// The provider says no.
    Denied,
    /// What the provider answers does not hold.
    Invalid,
    /// No role, or not among those who are required.
    Role,
    /// The audit log cannot be written.
    Audit,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
            Self::Ended => "ended",
            Self::Browser => "browser",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Role => "role",
            Self::Audit => "audit",
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct BeginQuery {
    to: Option<String>,
}

#[derive(Default, Deserialize)]
struct CallbackQuery {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

fn see(place: &str) -> HttpResponse {
    HttpResponse::build(StatusCode::SEE_OTHER)
        .insert_header((header::LOCATION, place))
        .finish()
}

/// Back to the page for signing in, which knows the word.
fn failed(outcome: Outcome) -> HttpResponse {
    see(&format!("/?sign_in={}", outcome.word()))
}

/// Whether browsers come by TLS: to this door, or to what stands in front of it.
fn is_secure(redirect_uri: &str) -> bool {
    redirect_uri.starts_with("https://")
}

const fn cookie_name(secure: bool) -> &'static str {
    if secure { SECURE_COOKIE } else { COOKIE }
}

fn cookie(secure: bool, value: &str, seconds: i64) -> Cookie<'static> {
    // Lax: the browser comes back from another site, by a plain read.
    Cookie::build(cookie_name(secure), value)
        .path("/")
        .http_only(true)
        .secure(secure)
        .same_site(SameSite::Lax)
        .max_age(time::Duration::seconds(seconds))
        .finish()
        .into_owned()
}

/// A page of this door, or its first one: what begins with one slash and holds nothing that a browser could read as a host.
fn page(to: Option<&str>) -> String {
    let own = |to: &&str| {
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"\\\"<>".contains(&byte);
        to.len() <= MAX_PAGE && to.starts_with('/') && !to.starts_with("//") && to.bytes().all(plain)
    };
    to.filter(own).unwrap_or("/").to_owned()
}

/// The door's address as browsers know it: as configured, or the one that this connection came to.
fn door(sign_in: &SignIn, request: &HttpRequest) -> String {
    let here = Here::of(request);
    let scheme = if here.secure { "https" } else { "http" };
    match &sign_in.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("{scheme}://{}", here.address),
    }
}

/// Where the provider sends browsers back to.
fn redirect_uri(sign_in: &SignIn, request: &HttpRequest) -> String {
    format!("{}{CALLBACK}", door(sign_in, request))
}

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()))
}

/// What ways there are to sign in.
fn ways(state: &AdminState) -> HttpResponse {
    let sign_in = state.inner.parts.sign_in.as_ref();
    HttpResponse::Ok().json(SignInView {
        oidc: sign_in.map(|sign_in| sign_in.name.clone()),
    })
}

/// Sends a browser to the provider.
async fn begin(state: &AdminState, request: &HttpRequest) -> Result<HttpResponse, ApiError> {
    let (inner, address) = (&state.inner, address_of(request));
    let sign_in = inner.parts.sign_in.as_ref();
    let sign_in = sign_in.ok_or_else(|| ApiError::not_found("signing in with an identity provider"))?;
    let throttled = inner.desk.throttle.attempt(address, inner.parts.clock.now()).is_err();
    let Some(_asking) = inner.desk.asking.try_acquire().filter(|_| !throttled) else {
        tracing::warn!(%address, "too many sign-ins with the identity provider at once");
        return Ok(failed(Outcome::Busy));
    };
    let to = Query::<BeginQuery>::from_query(request.query_string()).ok();
    let [secret, browser, nonce, verifier] = std::array::from_fn(|_| random_text());
    let login = Login {
        browser: browser.clone(),
        nonce,
        verifier,
        redirect_uri: redirect_uri(sign_in, request),
        to: page(to.as_ref().and_then(|to| to.to.as_deref())),
    };
    let secure = is_secure(&login.redirect_uri);
    let asked = Asked {
        redirect_uri: login.redirect_uri.clone(),
        state: secret.clone(),
        nonce: login.nonce.clone(),
        challenge: challenge(&login.verifier),
    };
    match sign_in.provider.address(asked).await {
        Ok(place) => {
            inner.desk.logins.begin(&secret, login, state.now_unix());
            let mut response = see(&place);
            let cookie = cookie(secure, &browser, LOGIN_SECONDS);
            // A cookie of plain characters is always a header.
            let _ = response.add_cookie(&cookie);
            Ok(response)
        }
        Err(error) => {
            tracing::warn!(%error, "nobody can sign in with the identity provider");
            Ok(failed(Outcome::Unavailable))
        }
    }
}

/// Takes a browser back.
async fn end(state: &AdminState, request: &HttpRequest) -> HttpResponse {
    let signed_in = come_back(state, request).await;
    let mut response = match &signed_in {
        Ok((to, _)) => see(to),
        Err(outcome) => failed(*outcome),
    };
    let sign_in = state.inner.parts.sign_in.as_ref();
    let secure = sign_in.is_some_and(|sign_in| is_secure(&redirect_uri(sign_in, request)));
    let over = cookie(secure, "", 0);
    let cookies = [Some(&over), signed_in.as_ref().ok().map(|(_, session)| session)];
    for cookie in cookies.into_iter().flatten() {
        // As above.
        let _ = response.add_cookie(cookie);
    }
    response
}

/// The page to go on to, and the session's cookie.
async fn come_back(state: &AdminState, request: &HttpRequest) -> Result<(String, Cookie<'static>), Outcome> {
    let (inner, address) = (&state.inner, address_of(request));
    let sign_in = inner.parts.sign_in.as_ref().ok_or(Outcome::Ended)?;
    let query = Query::<CallbackQuery>::from_query(request.query_string());
    let query = query.map_err(|_| Outcome::Ended)?.into_inner();
    let secure = is_secure(&redirect_uri(sign_in, request));
    let login = take(state, request, query.state.as_deref(), cookie_name(secure))?;
    let to = login.to.clone();
    let identity = identify(state, request, sign_in, (login, query)).await?;
    let (who, role) = match sign_in.rules.admit(&identity) {
        Ok(admitted) => admitted,
        Err(NoRole { who, why }) => {
            tracing::warn!(%address, who, why, "the identity provider vouches for somebody who may not come in");
            note_failure(state, request, &who, why).await;
            return Err(Outcome::Role);
        }
    };
    let named = serde_json::to_value(role).unwrap_or_default();
    let event = format!("sign-in as {}", named.as_str().unwrap_or_default());
    let noted = inner.parts.registry.note(author(request, &who), &event).await;
    noted.map_err(|error| {
        tracing::error!(%error, who, "nobody is signed in, because the audit log cannot be written");
        Outcome::Audit
    })?;
    inner.desk.throttle.succeeded(address);
    tracing::info!(who, %address, "signed in with the identity provider");
    let token = identity.token().clone();
    let owner = Owner::Person {
        who: who.into(),
        role,
        token,
    };
    Ok((to, open_session(state, request, owner, secure)))
}

/// Who the provider says that this is.
async fn identify(
    state: &AdminState,
    request: &HttpRequest,
    sign_in: &SignIn,
    (login, query): (Login, CallbackQuery),
) -> Result<Identity, Outcome> {
    let address = address_of(request);
    if let Some(error) = query.error {
        let error: String = error.chars().filter(char::is_ascii_graphic).take(64).collect();
        tracing::warn!(%address, error, "the identity provider has refused a sign-in");
        return Err(Outcome::Denied);
    }
    let code = query.code.filter(|code| !code.is_empty() && code.len() <= MAX_TEXT);
    let returned = Returned {
        code: code.ok_or(Outcome::Invalid)?,
        issuer: query.iss,
        redirect_uri: login.redirect_uri,
        verifier: login.verifier,
        nonce: login.nonce,
    };
    let asking = state.inner.desk.asking.try_acquire().ok_or(Outcome::Busy)?;
    let identity = sign_in.provider.identity(returned).await;
    drop(asking);
    let error = match identity {
        Ok(identity) => return Ok(identity),
        Err(error) => error,
    };
    tracing::warn!(%address, %error, "a sign-in with the identity provider failed");
    if error.outage {
        return Err(Outcome::Unavailable);
    }
    note_failure(state, request, "nobody", &error.text).await;
    Err(Outcome::Invalid)
}

/// The sign-in of this state, once, if it is this browser's.
fn take(state: &AdminState, request: &HttpRequest, secret: Option<&str>, name: &str) -> Result<Login, Outcome> {
    let secret = secret.filter(|secret| secret.len() <= MAX_TEXT).ok_or(Outcome::Ended)?;
    let login = state
        .inner
        .desk
        .logins
        .take(secret, state.now_unix())
        .ok_or(Outcome::Ended)?;
    let cookie = request.cookie(name);
    // Both are ours and random: how long comparing takes tells nothing that could be used, because the state is spent.
    if cookie.is_some_and(|cookie| cookie.value() == login.browser) {
        Ok(login)
    } else {
        tracing::warn!(address = %address_of(request), "a sign-in came back to another browser than it began in");
        Err(Outcome::Browser)
    }
}

fn author(request: &HttpRequest, who: &str) -> Author {
    Author {
        who: who.to_owned(),
        source: "ui".to_owned(),
        request: Some(request_id(request).to_string()),
        from: request.peer_addr().map(|address| address.ip().to_string()),
    }
}

/// Writes a failure into the audit log, unless so many were written in this minute that strangers could be filling it.
async fn note_failure(state: &AdminState, request: &HttpRequest, who: &str, why: &str) {
    let inner = &state.inner;
    if !inner.desk.notes.may(inner.parts.clock.now()) {
        return;
    }
    let why: String = why.chars().take(MAX_WHY).collect();
    let event = format!("sign-in refused: {why}");
    if let Err(error) = inner.parts.registry.note(author(request, who), &event).await {
        tracing::warn!(%error, "a failed sign-in is not in the audit log");
    }
}

/// Its routes.
pub(crate) fn entries() -> impl Iterator<Item = Entry> {
    type State = Data<AdminState>;
    let how = web::get().to(|state: State| async move { ways(&state) });
    let away = web::get().to(|state: State, request: HttpRequest| async move { begin(&state, &request).await });
    let back = web::get().to(|state: State, request: HttpRequest| async move { end(&state, &request).await });
    let entries = [
        Entry::get("/sign-in", "getSignIn", "The ways to sign in beside a token.", how).answers("SignInView"),
        Entry::get(
            BEGIN,
            "beginSignIn",
            "Sends a browser to the identity provider, and later on to the page 'to' of the web app.",
            away,
        )
        .query(&["to"])
        .status(StatusCode::SEE_OTHER),
        Entry::get(
            "/sign-in/oidc/callback",
            "endSignIn",
            "Where the identity provider sends a browser back to.",
            back,
        )
        .query(&["state", "code", "iss", "error"])
        .status(StatusCode::SEE_OTHER),
    ];
    let entries = entries.map(|entry| entry.needs(Needs::Nothing).tag("session"));
    entries.into_iter().chain(leave::entries())
}

#[cfg(test)]
#[path = "../sign_in_tests.rs"]
mod tests;
