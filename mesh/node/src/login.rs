//! `mesh serve --oidc-*`: the settings of signing in to the admin door with an identity provider, and what they come to.
//!
//! They are settings and not a resource, because who may administer the mesh is not for those to say who administer it already, and
//! because a client's secret has no place in the records. The secret is read once, at the start.

use std::{fmt, fs, net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Args;
use futures::{FutureExt as _, future::BoxFuture};
use mesh_admin_api::{Asked, IdentityProvider, Leaving, MAX_ROLES, ProviderError, Returned, RoleRules, SignIn};
use mesh_jwks::{ClientSecret, KeeperError, Login, LoginClient, LoginError};
use mesh_policies::{KeyBook, access::Identity};
use mesh_resources::AdminRole;
use mesh_types::{Clock, check_fetch_url};
use serde::Deserialize;

use crate::options::Text;

const NAME: &str = "single sign-on";
const SCOPE: &str = "openid";
const ROLE_CLAIM: &str = "groups";
const USER_CLAIM: &str = "sub";
const MAX_TEXT: usize = 256;
const MAX_SECRET_BYTES: usize = 4_096;

/// A setting that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// The settings of `mesh serve` that are about signing in with an identity provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(default)]
pub struct LoginOptions {
    /// Let people sign in to the admin door with this OpenID Connect provider: its exact issuer. [default: tokens only]
    #[arg(long, env = "MESH_OIDC_ISSUER", value_name = "URL", help_heading = "Signing in")]
    pub oidc_issuer: Option<Text>,
    /// The name that the mesh is registered by at the provider.
    #[arg(long, env = "MESH_OIDC_CLIENT_ID", value_name = "ID", help_heading = "Signing in")]
    pub oidc_client_id: Option<Text>,
    /// The client's secret; better by the environment or a file than here, where others may see it. [default: a public client]
    #[arg(
        long,
        env = "MESH_OIDC_CLIENT_SECRET",
        value_name = "SECRET",
        hide_env_values = true,
        help_heading = "Signing in"
    )]
    pub oidc_client_secret: Option<Secret>,
    /// A file with the client's secret.
    #[arg(
        long,
        env = "MESH_OIDC_CLIENT_SECRET_FILE",
        value_name = "FILE",
        help_heading = "Signing in"
    )]
    pub oidc_client_secret_file: Option<PathBuf>,
    /// What the page for signing in calls the provider. [default: single sign-on]
    #[arg(long, env = "MESH_OIDC_NAME", value_name = "NAME", help_heading = "Signing in")]
    pub oidc_name: Option<Text>,
    /// What is asked for, with blanks between. [default: openid]
    #[arg(long, env = "MESH_OIDC_SCOPES", value_name = "SCOPES", help_heading = "Signing in")]
    pub oidc_scopes: Option<Text>,
    /// The claim that gives roles. [default: groups]
    #[arg(
        long,
        env = "MESH_OIDC_ROLE_CLAIM",
        value_name = "CLAIM",
        help_heading = "Signing in"
    )]
    pub oidc_role_claim: Option<Text>,
    /// Which of its values give which role, with commas between: mesh-admins=admin,staff=viewer. The first that somebody has
    /// counts; nobody without one gets in.
    #[arg(
        long,
        env = "MESH_OIDC_ROLES",
        value_name = "VALUE=ROLE,..",
        help_heading = "Signing in"
    )]
    pub oidc_roles: Option<Text>,
    /// A claim that everybody must have besides, and its value. [default: none]
    #[arg(
        long,
        env = "MESH_OIDC_REQUIRE",
        value_name = "CLAIM=VALUE",
        help_heading = "Signing in"
    )]
    pub oidc_require: Option<Text>,
    /// The claim that the audit log calls people by. [default: sub]
    #[arg(
        long,
        env = "MESH_OIDC_USER_CLAIM",
        value_name = "CLAIM",
        help_heading = "Signing in"
    )]
    pub oidc_user_claim: Option<Text>,
    /// The admin door's address as browsers know it; the provider must allow /admin/v1/sign-in/oidc/callback below it.
    /// [default: the address that it listens on, where that is the loopback]
    #[arg(long, env = "MESH_OIDC_URL", value_name = "URL", help_heading = "Signing in")]
    pub oidc_url: Option<Text>,
}

/// The same, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginConfig {
    /// What the page calls the provider.
    pub name: String,
    /// The admin door's address as browsers know it.
    pub url: Option<String>,
    /// Who the mesh is to the provider.
    pub client: LoginClient,
    /// What claims come to.
    pub rules: RoleRules,
}

impl LoginOptions {
    /// What is said here, and for the rest what the other says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        // Of the two ways to say the secret, one that is said here wins over both that are said there.
        let secret_here = self.oidc_client_secret.is_some() || self.oidc_client_secret_file.is_some();
        let (secret, file) = if secret_here {
            (self.oidc_client_secret, self.oidc_client_secret_file)
        } else {
            (other.oidc_client_secret, other.oidc_client_secret_file)
        };
        Self {
            oidc_issuer: self.oidc_issuer.or(other.oidc_issuer),
            oidc_client_id: self.oidc_client_id.or(other.oidc_client_id),
            oidc_client_secret: secret,
            oidc_client_secret_file: file,
            oidc_name: self.oidc_name.or(other.oidc_name),
            oidc_scopes: self.oidc_scopes.or(other.oidc_scopes),
            oidc_role_claim: self.oidc_role_claim.or(other.oidc_role_claim),
            oidc_roles: self.oidc_roles.or(other.oidc_roles),
            oidc_require: self.oidc_require.or(other.oidc_require),
            oidc_user_claim: self.oidc_user_claim.or(other.oidc_user_claim),
            oidc_url: self.oidc_url.or(other.oidc_url),
        }
    }

    /// Checks all of it, and adds what is wrong to the problems; none where nobody signs in this way.
    #[expect(clippy::too_many_lines, reason = "a few lines for each setting")]
    pub(crate) fn check(self, admin: SocketAddr, problems: &mut Vec<String>) -> Option<LoginConfig> {
        let Some(Text(issuer)) = self.oidc_issuer else {
            if self != Self::default() {
                problems.push("oidc_issuer: the other oidc settings need it: name the provider's issuer".to_owned());
            }
            return None;
        };
        let mut say = |name: &str, text: String| problems.push(format!("{name}: {text}"));
        if let Err(error) = check_fetch_url(&issuer) {
            say("oidc_issuer", error.to_string());
        }
        let (client_id, right) = bounded(self.oidc_client_id, "");
        if !right {
            say("oidc_client_id", format!("it must have 1 to {MAX_TEXT} bytes"));
        }
        let secret = secret(self.oidc_client_secret, self.oidc_client_secret_file);
        let secret = secret.unwrap_or_else(|(name, error)| {
            say(name, error);
            None
        });
        let (scopes, right) = bounded(self.oidc_scopes, SCOPE);
        if !right || !scopes.split(' ').any(|scope| scope == SCOPE) {
            say(
                "oidc_scopes",
                "'openid' must be among them, with blanks between".to_owned(),
            );
        }
        let Text(roles) = self.oidc_roles.unwrap_or_else(|| Text(String::new()));
        let roles = roles_of(&roles).unwrap_or_else(|error| {
            say("oidc_roles", error);
            Vec::new()
        });
        let required = self.oidc_require.map(|Text(text)| {
            let pair = text
                .split_once('=')
                .filter(|(claim, value)| !claim.is_empty() && !value.is_empty());
            pair.map(|(claim, value)| (claim.to_owned(), value.to_owned()))
        });
        if required == Some(None) {
            say(
                "oidc_require",
                "write a claim and its value: hd=acme.example".to_owned(),
            );
        }
        let (name, named) = bounded(self.oidc_name, NAME);
        let (role_claim, first) = bounded(self.oidc_role_claim, ROLE_CLAIM);
        let (user_claim, second) = bounded(self.oidc_user_claim, USER_CLAIM);
        for (right, setting) in [
            (named, "oidc_name"),
            (first, "oidc_role_claim"),
            (second, "oidc_user_claim"),
        ] {
            if !right {
                say(setting, format!("it must have 1 to {MAX_TEXT} bytes"));
            }
        }
        let url = self.oidc_url.map(|Text(url)| url);
        match &url {
            Some(url) if check_fetch_url(url).is_err() || url.contains('?') => {
                say(
                    "oidc_url",
                    format!("'{url}' is no address of a door: write https://mesh.example"),
                );
            }
            None if !admin.ip().is_loopback() => {
                say(
                    "oidc_url",
                    format!("the admin door listens on {admin}: say by which address browsers know it"),
                );
            }
            _ => {}
        }
        Some(LoginConfig {
            name,
            url,
            client: LoginClient {
                issuer,
                client_id,
                secret,
                scopes,
            },
            rules: RoleRules {
                user_claim,
                role_claim,
                roles,
                required: required.flatten(),
            },
        })
    }
}

fn bounded(text: Option<Text>, default: &str) -> (String, bool) {
    let Text(text) = text.unwrap_or_else(|| Text(default.to_owned()));
    let right = (1..=MAX_TEXT).contains(&text.len());
    (text, right)
}

type Wrong = (&'static str, String);

fn secret(said: Option<Secret>, file: Option<PathBuf>) -> Result<Option<ClientSecret>, Wrong> {
    const FILE: &str = "oidc_client_secret_file";
    let (name, text) = match (said, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err((FILE, "the secret is said twice: leave one out".to_owned())),
        (Some(Secret(text)), None) => ("oidc_client_secret", text),
        (None, Some(file)) => {
            let text = fs::read_to_string(&file);
            let text = text.map_err(|error| (FILE, format!("cannot read {}: {error}", file.display())))?;
            (FILE, text)
        }
    };
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_SECRET_BYTES {
        return Err((name, format!("a secret has 1 to {MAX_SECRET_BYTES} bytes")));
    }
    Ok(Some(ClientSecret::new(text.to_owned())))
}

fn roles_of(text: &str) -> Result<Vec<(String, AdminRole)>, String> {
    let mut roles = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        // A group's name may hold the sign itself, a role's does not.
        let (value, role) = pair.rsplit_once('=').unwrap_or((pair, ""));
        let named = AdminRole::deserialize(serde::de::value::StrDeserializer::<serde::de::value::Error>::new(role));
        match named {
            Ok(role) if !value.is_empty() => roles.push((value.to_owned(), role)),
            _ => {
                let pair: String = pair.chars().take(100).collect();
                return Err(format!("'{pair}' gives no role: write mesh-admins=admin,staff=viewer"));
            }
        }
    }
    if (1..=MAX_ROLES).contains(&roles.len()) {
        Ok(roles)
    } else {
        Err(format!(
            "1 to {MAX_ROLES} values must give a role, or nobody gets in: mesh-admins=admin,staff=viewer"
        ))
    }
}

/// The provider, as the admin door asks it.
pub(crate) struct Provider(Arc<Login>);

/// What the admin door is given, and the book of the provider's keys, which is to be followed.
pub(crate) fn start(
    config: Option<&LoginConfig>,
    clock: &Arc<dyn Clock>,
) -> Result<Option<(SignIn, Arc<KeyBook>)>, KeeperError> {
    let Some(config) = config else { return Ok(None) };
    let login = Arc::new(Login::new(config.client.clone(), clock.clone())?);
    let sign_in = SignIn {
        name: config.name.clone(),
        url: config.url.clone(),
        rules: config.rules.clone(),
        provider: Arc::new(Provider(login.clone())),
    };
    Ok(Some((sign_in, login.book().clone())))
}

fn told(error: &LoginError) -> ProviderError {
    ProviderError {
        outage: error.is_outage(),
        text: error.to_string(),
    }
}

impl IdentityProvider for Provider {
    fn address(&self, asked: Asked) -> BoxFuture<'static, Result<String, ProviderError>> {
        let login = self.0.clone();
        async move {
            let asked = mesh_jwks::Asked {
                redirect_uri: &asked.redirect_uri,
                state: &asked.state,
                nonce: &asked.nonce,
                challenge: &asked.challenge,
            };
            login.address(&asked).await.map_err(|error| told(&error))
        }
        .boxed()
    }

    fn identity(&self, returned: Returned) -> BoxFuture<'static, Result<Identity, ProviderError>> {
        let login = self.0.clone();
        async move {
            let returned = mesh_jwks::Returned {
                code: &returned.code,
                issuer: returned.issuer.as_deref(),
                redirect_uri: &returned.redirect_uri,
                verifier: &returned.verifier,
                nonce: &returned.nonce,
            };
            login.identity(&returned).await.map_err(|error| told(&error))
        }
        .boxed()
    }

    fn leaving(&self, leaving: Leaving) -> BoxFuture<'static, Result<Option<String>, ProviderError>> {
        let login = self.0.clone();
        async move {
            let leaving = mesh_jwks::Leaving {
                token: &leaving.token,
                redirect_uri: &leaving.redirect_uri,
                state: &leaving.state,
            };
            login.leaving(&leaving).await.map_err(|error| told(&error))
        }
        .boxed()
    }
}

#[cfg(test)]
#[path = "login_tests.rs"]
mod tests;
