//! What signing in needs from the rest of the program: the provider, as a trait, and how the door is set up for it.

use std::{fmt, sync::Arc};

use futures::future::BoxFuture;
use mesh_policies::access::{IdToken, Identity};
use serde::Serialize;
use utoipa::ToSchema;

use super::RoleRules;

/// How people sign in with an identity provider.
#[derive(Clone)]
pub struct SignIn {
    /// What the page calls it.
    pub name: String,
    /// The door's address as browsers know it; absent: the one that they connect to.
    pub url: Option<String>,
    /// What the provider's claims come to.
    pub rules: RoleRules,
    /// Who asks the provider.
    pub provider: Arc<dyn IdentityProvider>,
}

/// One sign-in as it begins.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Where the browser is to come back to.
    pub redirect_uri: String,
    /// What it is to bring back.
    pub state: String,
    /// What the identity token is to hold.
    pub nonce: String,
    /// PKCE's, S256.
    pub challenge: String,
}

/// The same as it comes back.
#[derive(Clone)]
pub struct Returned {
    /// The code.
    pub code: String,
    /// The `iss` beside it (RFC 9207).
    pub issuer: Option<String>,
    /// Where the browser was sent back to.
    pub redirect_uri: String,
    /// PKCE's.
    pub verifier: String,
    /// What the identity token must hold.
    pub nonce: String,
}

/// A sign-out as it begins.
#[derive(Debug, Clone)]
pub struct Leaving {
    /// By which the provider knows who it is.
    pub token: IdToken,
    /// Where the browser is to come back to.
    pub redirect_uri: String,
    /// What it is to bring back.
    pub state: String,
}

/// Why there is no address and no identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// Whether the provider is not there, rather than wrong.
    pub outage: bool,
    /// In words for the log, without anything secret.
    pub text: String,
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Asks an identity provider.
pub trait IdentityProvider: Send + Sync + 'static {
    /// Where the browser is to go; done within seconds.
    fn address(&self, asked: Asked) -> BoxFuture<'static, Result<String, ProviderError>>;
    /// Who has come back, proven; done within seconds.
    fn identity(&self, returned: Returned) -> BoxFuture<'static, Result<Identity, ProviderError>>;
    /// Where the browser is to go so that it is signed out there, too; none where that is not offered. Done within seconds.
    fn leaving(&self, leaving: Leaving) -> BoxFuture<'static, Result<Option<String>, ProviderError>>;
}

/// The ways to sign in beside a token.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignInView {
    /// The identity provider's name for people; null where there is none.
    pub(crate) oidc: Option<String>,
}
