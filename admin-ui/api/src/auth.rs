//! Who calls, and whether they may: admin tokens as bearers or behind a session's cookie, and people whom the identity provider
//! vouches for behind one too.
//!
//! One middleware stands before every route under `/admin/v1`; a handler that needs to know the caller takes [`Caller`],
//! which exists only if the middleware let it through.

use std::{future, net::IpAddr, sync::Arc};

use actix_web::{
    FromRequest, HttpMessage as _, HttpRequest, HttpResponse, ResponseError as _,
    body::MessageBody,
    cookie::{Cookie, SameSite, time::Duration},
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{Method, StatusCode, header},
    middleware::Next,
    web,
};
use mesh_authz::Holder;
use mesh_policies::access::{admin_token_id, verify_admin_token};
use mesh_registry::Author;
use mesh_resources::{AdminRole, AdminTokenSpec, ResourceKey, Spec};
use mesh_types::{KeyId, RequestId};

use crate::{
    AdminState, SESSION_SECONDS,
    door::Here,
    error::ApiError,
    sessions::{Owner, SessionKey, digest},
    wire::{LoginBody, SessionView},
};

/// The cookie that holds a session's identifier.
pub(crate) const COOKIE: &str = "mesh_session";
const COOKIE_PATH: &str = "/admin";
/// What the secret of a token that is not there is compared with: no secret is known that hashes to it.
const NOBODYS_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// How the command line names itself.
const CLI_AGENT: &str = "mesh-cli/";
/// What may be called without a credential.
const PUBLIC: [(Method, &str); 6] = [
    (Method::POST, "/admin/v1/session"),
    (Method::GET, "/admin/v1/sign-in"),
    (Method::GET, "/admin/v1/sign-in/oidc"),
    (Method::GET, "/admin/v1/sign-in/oidc/callback"),
    (Method::GET, "/admin/v1/sign-in/oidc/left"),
    (Method::GET, "/admin/v1/openapi.json"),
];

/// A caller that has been let through.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The token's name, or a person's with `oidc:` before it, which no token's has.
    pub(crate) who: Arc<str>,
    pub(crate) role: AdminRole,
    /// All that policies can ask of it.
    pub(crate) holder: Holder,
    owner: Owner,
    /// The session that it calls by, if by one.
    session: Option<SessionKey>,
    source: &'static str,
    request: RequestId,
    from: Option<IpAddr>,
}

impl Caller {
    /// Who a write is by.
    pub(crate) fn author(&self) -> Author {
        Author {
            who: self.who.to_string(),
            source: self.source.to_owned(),
            request: Some(self.request.to_string()),
            from: self.from.map(|from| from.to_string()),
        }
    }

    pub(crate) fn request(&self) -> RequestId {
        self.request
    }

    /// Whether the token still is what it was, its holder who it was, and the session still open; a sign of life for it.
    pub(crate) fn is_still_valid(&self, state: &AdminState) -> bool {
        let is_open = |session| state.inner.sessions.find(session, state.now_unix()).is_some();
        let same = |spec: AdminTokenSpec| Holder::of_token(&self.who, &spec) == self.holder;
        self.session.as_ref().is_none_or(is_open)
            && standing(state, &self.owner).is_ok_and(|spec| spec.is_some_and(same))
    }
}

impl FromRequest for Caller {
    type Error = ApiError;
    type Future = future::Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        future::ready(caller.ok_or_else(ApiError::unauthenticated))
    }
}

/// The token of this name, unless it has ended.
fn token(state: &AdminState, name: &KeyId) -> Result<Option<AdminTokenSpec>, ApiError> {
    let found = state.inner.parts.registry.get(&ResourceKey::admin_token(name))?;
    let Some(Spec::AdminToken(spec)) = found.map(|resource| resource.spec) else {
        return Ok(None);
    };
    let ended = spec
        .expires
        .is_some_and(|expires| expires.as_second() <= state.now_unix());
    Ok((!ended).then_some(spec))
}

/// What somebody may do now: what the token says that it was signed in with, or what the provider said.
fn standing(state: &AdminState, owner: &Owner) -> Result<Option<AdminTokenSpec>, ApiError> {
    match owner {
        Owner::Token { name, hash } => Ok(token(state, name)?.filter(|spec| spec.hash == *hash)),
        Owner::Person { role, .. } => Ok(Some(AdminTokenSpec {
            hash: String::new(),
            role: *role,
            tenant: None,
            groups: Vec::new(),
            expires: None,
        })),
    }
}

/// The token that a text is, if it is one.
fn verify(state: &AdminState, text: &str) -> Result<Option<(KeyId, AdminTokenSpec)>, ApiError> {
    let Some(name) = admin_token_id(text) else {
        return Ok(None);
    };
    let spec = token(state, &name)?;
    // Hashed and compared for a token that is not there too: its answer takes as long as that to a wrong secret.
    let hash = spec.as_ref().map_or(NOBODYS_HASH, |spec| &spec.hash);
    let holds = verify_admin_token(&state.inner.parts.pepper, text, hash);
    Ok(spec.filter(|_| holds).map(|spec| (name, spec)))
}

fn header_text<'a>(request: &'a HttpRequest, name: &header::HeaderName) -> Option<&'a str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

pub(crate) fn request_id(request: &HttpRequest) -> RequestId {
    request.extensions().get::<RequestId>().copied().unwrap_or(RequestId(0))
}

/// Finds the caller: a bearer wins over a cookie.
fn authenticate(state: &AdminState, request: &HttpRequest) -> Result<Caller, ApiError> {
    let caller = |owner: Owner, spec: &AdminTokenSpec, source, session| {
        let who: Arc<str> = match &owner {
            Owner::Token { name, .. } => Arc::from(name.as_str()),
            Owner::Person { who, .. } => who.clone(),
        };
        Caller {
            holder: Holder::of_token(&who, spec),
            who,
            role: spec.role,
            owner,
            session,
            source,
            request: request_id(request),
            from: request.peer_addr().map(|address| address.ip()),
        }
    };
    if let Some(value) = header_text(request, &header::AUTHORIZATION) {
        let bearer = value
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let (_, text) = bearer.ok_or_else(ApiError::unauthenticated)?;
        let (name, spec) = verify(state, text.trim())?.ok_or_else(ApiError::unauthenticated)?;
        let agent = header_text(request, &header::USER_AGENT).unwrap_or_default();
        let source = if agent.starts_with(CLI_AGENT) { "cli" } else { "api" };
        let hash = spec.hash.clone();
        return Ok(caller(Owner::Token { name, hash }, &spec, source, None));
    }
    let cookie = request.cookie(COOKIE).ok_or_else(ApiError::unauthenticated)?;
    let session = digest(cookie.value());
    let owner = state.inner.sessions.find(&session, state.now_unix());
    let owner = owner.ok_or_else(ApiError::unauthenticated)?;
    let spec = standing(state, &owner)?.ok_or_else(ApiError::unauthenticated)?;
    Ok(caller(owner, &spec, "ui", Some(session)))
}

/// Whether the request's `Origin` is this door itself. A browser sends it with every request that is not a plain read.
fn is_own_origin(request: &HttpRequest) -> bool {
    let origin = header_text(request, &header::ORIGIN);
    let origin = origin.and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let host = header_text(request, &header::HOST);
    matches!((origin, host), (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host))
}

fn check(state: &AdminState, request: &HttpRequest) -> Result<(), ApiError> {
    let (method, path) = (request.method(), request.path());
    let foreign = request.headers().contains_key(header::ORIGIN) && !is_own_origin(request);
    let reads = method == Method::GET || method == Method::HEAD;
    if !reads && foreign {
        return Err(ApiError::forbidden(
            "the request comes from another site: use this door's own pages",
        ));
    }
    if PUBLIC.iter().any(|(open, at)| method == *open && path == *at) {
        return Ok(());
    }
    let caller = authenticate(state, request)?;
    if !reads && caller.source == "ui" && !is_own_origin(request) {
        return Err(ApiError::forbidden(
            "a change made with a cookie needs an Origin header: use this door's own pages",
        ));
    }
    request.extensions_mut().insert(caller);
    Ok(())
}

/// Stands before every route.
pub(crate) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let state = request.app_data::<web::Data<AdminState>>().cloned();
    let allowed = match state {
        Some(state) => check(&state, request.request()),
        None => Err(ApiError::unauthenticated()),
    };
    match allowed {
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_left_body),
        Err(error) => Ok(request.into_response(error.error_response()).map_into_right_body()),
    }
}

/// `secure`: the door speaks TLS, and the browser must not send the cookie without it.
fn cookie(value: &str, seconds: i64, secure: bool) -> Cookie<'_> {
    Cookie::build(COOKIE, value)
        .path(COOKIE_PATH)
        .http_only(true)
        .secure(secure)
        .same_site(SameSite::Strict)
        .max_age(Duration::seconds(seconds))
        .finish()
}

/// The other end of a connection.
pub(crate) fn address_of(request: &HttpRequest) -> IpAddr {
    let unknown = IpAddr::from([0, 0, 0, 0]);
    request.peer_addr().map_or(unknown, |address| address.ip())
}

/// Signs in: a token for a session's cookie.
pub(crate) fn sign_in(state: &AdminState, request: &HttpRequest, body: &LoginBody) -> Result<HttpResponse, ApiError> {
    let address = address_of(request);
    let attempt = state.inner.throttle.attempt(address, state.inner.parts.clock.now());
    attempt.map_err(|wait| {
        ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too many attempts to sign in: wait, then try again",
        )
        .retry_after(wait)
    })?;
    let Some((name, spec)) = verify(state, body.token.trim())? else {
        tracing::warn!(%address, "sign-in with an invalid admin token");
        return Err(ApiError::new(StatusCode::UNAUTHORIZED, "this is no valid admin token"));
    };
    state.inner.throttle.succeeded(address);
    tracing::info!(who = %name, "signed in");
    let hash = spec.hash;
    let secure = Here::of(request).secure;
    let session = open_session(state, request, Owner::Token { name, hash }, secure);
    Ok(HttpResponse::NoContent().cookie(session).finish())
}

/// Opens a session in the place of the one that the browser had; the answer is its cookie. `secure`: the browser comes by TLS.
pub(crate) fn open_session(state: &AdminState, request: &HttpRequest, owner: Owner, secure: bool) -> Cookie<'static> {
    if let Some(before) = request.cookie(COOKIE) {
        state.inner.sessions.close(&digest(before.value()), state.now_unix());
    }
    let session = state.inner.sessions.open(owner, state.now_unix());
    cookie(&session, SESSION_SECONDS, secure).into_owned()
}

/// The cookie of a session that is over.
pub(crate) fn ended(request: &HttpRequest) -> Cookie<'static> {
    cookie("", 0, Here::of(request).secure).into_owned()
}

/// Who is signed in.
pub(crate) fn session(caller: &Caller) -> HttpResponse {
    HttpResponse::Ok().json(SessionView {
        who: caller.who.to_string(),
        role: caller.role,
        tenant: caller.tenant().cloned(),
    })
}
