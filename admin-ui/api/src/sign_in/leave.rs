//! Signing out: here, and at the identity provider that vouched for somebody, where it offers that (OpenID Connect RP-Initiated Logout
//! 1.0).
//!
//! Owns the end of a session and the way of a browser to the provider and back. The session ends first and whatever comes of the
//! rest: a provider that is down, or offers nothing, is a sign-out here alone. The provider must allow [`LEFT`] below the door's address
//! as a place to come back to after it.
//!
//! Invariants: only whose session it was learns where to go, and the identity token goes to that provider alone; a browser that comes back
//! goes on to this door's first page, whatever it brings; the audit log has a line for a state that was given out, once.

use actix_web::{
    HttpRequest, HttpResponse,
    http::StatusCode,
    web::{self, Data, Query},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{MAX_TEXT, author, door, parts::Leaving, see};
use crate::{
    AdminState,
    auth::{COOKIE, address_of, ended},
    authz::Needs,
    entry::Entry,
    sessions::{Owner, digest, random_text},
};

/// Where browsers come back to after a sign-out, below the door's address.
pub const LEFT: &str = "/admin/v1/sign-in/oidc/left";

/// What came of a sign-out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignedOutView {
    /// Where the browser is to go, so that it is signed out at the identity provider, too; null where there is no need or no way.
    provider: Option<String>,
}

#[derive(Default, Deserialize)]
struct LeftQuery {
    state: Option<String>,
}

/// Ends the session of this browser.
pub(crate) async fn sign_out(state: &AdminState, request: &HttpRequest) -> HttpResponse {
    let session = request.cookie(COOKIE);
    let key = session.map(|cookie| digest(cookie.value()));
    let owner = key.and_then(|key| state.inner.sessions.close(&key, state.now_unix()));
    let provider = match owner {
        Some(owner) => leaving(state, request, owner).await,
        None => None,
    };
    HttpResponse::Ok()
        .cookie(ended(request))
        .json(SignedOutView { provider })
}

/// Where to go at the provider, if there is such a place.
async fn leaving(state: &AdminState, request: &HttpRequest, owner: Owner) -> Option<String> {
    let inner = &state.inner;
    let Owner::Person { who, token, .. } = owner else {
        return None;
    };
    let sign_in = inner.parts.sign_in.as_ref()?;
    let asking = inner.desk.asking.try_acquire()?;
    let secret = random_text();
    let leaving = Leaving {
        token,
        redirect_uri: format!("{}{LEFT}", door(sign_in, request)),
        state: secret.clone(),
    };
    let place = sign_in.provider.leaving(leaving).await;
    drop(asking);
    match place {
        Ok(place) => {
            if place.is_some() {
                inner.desk.leavings.begin(&secret, who, state.now_unix());
            }
            place
        }
        Err(error) => {
            tracing::warn!(%error, who = &*who, "signed out here, and not at the identity provider");
            None
        }
    }
}

/// Takes a browser back that was signed out at the provider.
async fn left(state: &AdminState, request: &HttpRequest) -> HttpResponse {
    let query = Query::<LeftQuery>::from_query(request.query_string());
    let secret = query.ok().and_then(|query| query.into_inner().state);
    let secret = secret.filter(|secret| secret.len() <= MAX_TEXT);
    let who = secret.and_then(|secret| state.inner.desk.leavings.take(&secret, state.now_unix()));
    match who {
        Some(who) => {
            let event = "sign-out at the identity provider";
            let noted = state.inner.parts.registry.note(author(request, &who), event).await;
            if let Err(error) = noted {
                tracing::warn!(%error, who = &*who, "a sign-out at the identity provider is not in the audit log");
            }
        }
        None => tracing::debug!(address = %address_of(request), "nobody has signed out by this state, or a while ago"),
    }
    see("/")
}

/// Its routes.
pub(crate) fn entries() -> [Entry; 2] {
    type State = Data<AdminState>;
    let out = web::delete().to(|state: State, request: HttpRequest| async move { sign_out(&state, &request).await });
    let back = web::get().to(|state: State, request: HttpRequest| async move { left(&state, &request).await });
    let entries = [
        Entry::delete(
            "/session",
            "signOut",
            "Signs out, and says where the browser is to go for that at the identity provider, if anywhere.",
            out,
        )
        .status(StatusCode::OK)
        .answers("SignedOutView"),
        Entry::get(
            "/sign-in/oidc/left",
            "endSignOut",
            "Where the identity provider sends a browser back to after a sign-out.",
            back,
        )
        .query(&["state"])
        .status(StatusCode::SEE_OTHER),
    ];
    entries.map(|entry| entry.needs(Needs::Nothing).tag("session"))
}
