//! Credentials: API keys, issuers of tokens, and admin tokens.

use std::fmt;

use jiff::Timestamp;
use mesh_types::{MAX_ISSUER_KEYS, TenantId, check_fetch_url};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{LimitsSpec, Problem, model::MAX_DESCRIPTION, tenant::check_text};

const MAX_AUDIENCES: usize = 16;
const MAX_ISSUER_TEXT: usize = 512;
const MAX_PEM: usize = 16_384;
const MAX_LEEWAY_SECONDS: u64 = 60;
/// The most groups that a key, a certificate's caller or an admin token is in.
pub const MAX_GROUPS: usize = 32;
const MAX_GROUP: usize = 63;
/// An HS256 secret has at least 256 bits (RFC 7518, section 3.2): 43 base64 digits.
const MIN_SECRET_BASE64: usize = 43;
/// What stands in the place of a secret.
pub const REDACTED: &str = "(redacted)";

/// What a credential may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Calling models and endpoints.
    Infer,
}

/// An API key of a tenant. Its name is the key's public half.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeySpec {
    /// HMAC-SHA-256 of the key's secret half, in hexadecimal.
    pub hash: String,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Whether it was taken back.
    #[serde(default)]
    pub revoked: bool,
    /// The tenant's groups that it is in, for policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// What its callers may use together, besides the tenant's limits.
    #[serde(default, skip_serializing_if = "LimitsSpec::is_empty")]
    pub limits: LimitsSpec,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl fmt::Debug for ApiKeySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeySpec")
            .field("hash", &REDACTED)
            .field("scopes", &self.scopes)
            .field("expires", &self.expires)
            .field("revoked", &self.revoked)
            .field("groups", &self.groups)
            .field("limits", &self.limits)
            .field("description", &self.description)
            .finish()
    }
}

impl ApiKeySpec {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_hash("spec.hash", &self.hash, problems);
        if self.scopes.is_empty() {
            problems.push(Problem::new(
                "spec.scopes",
                "a key without a scope can do nothing: give at least 'infer'",
            ));
        }
        check_groups(&self.groups, problems);
        self.limits.check(problems);
        check_text(
            "spec.description",
            self.description.as_deref(),
            MAX_DESCRIPTION,
            problems,
        );
    }
}

pub(crate) fn check_groups(groups: &[String], problems: &mut Vec<Problem>) {
    if groups.len() > MAX_GROUPS {
        let text = format!("{} groups, at most {MAX_GROUPS} are allowed", groups.len());
        problems.push(Problem::new("spec.groups", text));
    }
    let grammar =
        |group: &String| !group.is_empty() && group.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    for (index, group) in groups.iter().enumerate() {
        if !grammar(group) || group.len() > MAX_GROUP {
            problems.push(Problem::new(
                format!("spec.groups[{index}]"),
                format!("1 to {MAX_GROUP} letters, digits and signs, without blanks and '/'"),
            ));
        }
    }
}

fn check_hash(field: &str, hash: &str, problems: &mut Vec<Problem>) {
    let well_formed = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !well_formed {
        problems.push(Problem::new(
            field,
            "a hash is 64 hexadecimal digits: create keys and tokens by their own commands",
        ));
    }
}

/// How a token is signed. Fixed per key, so that a token cannot choose (RFC 8725, section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "each is the name that RFC 7518 and RFC 8037 give it")]
pub enum KeyAlgorithm {
    HS256,
    RS256,
    PS256,
    ES256,
    EdDSA,
}

/// One key of an issuer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerKeySpec {
    /// The `kid` that tokens name; absent: the key is tried for tokens without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// How tokens are signed with it.
    pub algorithm: KeyAlgorithm,
    /// The public key (RS256, PS256, ES256, EdDSA), PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_pem: Option<String>,
    /// The shared secret (HS256), base64, at least 32 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_base64: Option<String>,
}

impl fmt::Debug for IssuerKeySpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerKeySpec")
            .field("key_id", &self.key_id)
            .field("algorithm", &self.algorithm)
            .field("public_key_pem", &self.public_key_pem)
            .field("secret_base64", &self.secret_base64.as_ref().map(|_| REDACTED))
            .finish()
    }
}

/// Which tenant a token stands for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum TenantBinding {
    /// Always this one.
    #[schema(value_type = String)]
    Tenant(TenantId),
    /// The one that this claim names.
    Claim(String),
}

/// What an issuer's tokens look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenProfile {
    /// Access tokens of RFC 9068: `typ` is `at+jwt`, and `iss`, `sub`, `aud`, `exp`, `iat`, `jti` and `client_id` are there.
    #[default]
    Rfc9068,
    /// Any signed token of RFC 7519 with `iss`, `sub`, `aud` and `exp`, whether its `typ` is `at+jwt`, `JWT` or absent: for issuers
    /// that cannot do better. Their identity tokens are then taken too, if made for one of the audiences.
    Rfc7519,
}

impl TokenProfile {
    /// Not written, so that a record that says nothing of it is written as it was read.
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

fn default_leeway() -> u64 {
    30
}

/// The key set that an issuer publishes (RFC 7517): fetched, kept up to date, and used on for up to 24 hours if it cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JwksSpec {
    /// Where it is: `https`, or `http` on this machine. Absent: where the issuer's discovery document says, which is at `issuer`
    /// followed by `/.well-known/openid-configuration` and names exactly this issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// In which of these ways its tokens may be signed; keys for others are left out. Never HS256: a published secret is none.
    #[serde(default = "JwksSpec::all")]
    pub algorithms: Vec<KeyAlgorithm>,
}

impl JwksSpec {
    fn all() -> Vec<KeyAlgorithm> {
        use KeyAlgorithm::{ES256, EdDSA, PS256, RS256};
        vec![RS256, PS256, ES256, EdDSA]
    }

    fn check(&self, issuer: &str, problems: &mut Vec<Problem>) {
        let (address, what) = match &self.url {
            Some(url) => (url.as_str(), ""),
            None => (
                issuer,
                "without one, the keys are found at the issuer's own address, and ",
            ),
        };
        if let Err(error) = check_fetch_url(address) {
            problems.push(Problem::new("spec.jwks.url", format!("{what}{error}")));
        }
        let algorithms = &self.algorithms;
        let twice = |at: usize| {
            algorithms
                .iter()
                .take(at)
                .any(|other| Some(other) == algorithms.get(at))
        };
        if algorithms.is_empty() || algorithms.contains(&KeyAlgorithm::HS256) || (0..algorithms.len()).any(twice) {
            problems.push(Problem::new(
                "spec.jwks.algorithms",
                "some of RS256, PS256, ES256 and EdDSA, each once",
            ));
        }
    }
}

/// A source of JSON web tokens that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerSpec {
    /// The exact `iss` of its tokens.
    pub issuer: String,
    /// The `aud` values that mean this mesh; a token needs one of them.
    pub audiences: Vec<String>,
    /// Its keys, where they are declared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<IssuerKeySpec>,
    /// Where its keys are fetched from, in the place of `keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<JwksSpec>,
    /// Which tenant its tokens stand for.
    pub tenants: TenantBinding,
    /// What its tokens look like; `rfc7519` is for issuers that cannot type theirs as `at+jwt`.
    #[serde(default, skip_serializing_if = "TokenProfile::is_usual")]
    pub profile: TokenProfile,
    /// How far clocks may differ, in seconds; at most 60.
    #[serde(default = "default_leeway")]
    pub leeway_seconds: u64,
}

impl IssuerSpec {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        let mut say = |field: String, problem: String| problems.push(Problem::new(field, problem));
        if self.issuer.is_empty() || self.issuer.len() > MAX_ISSUER_TEXT {
            say("spec.issuer".into(), format!("1 to {MAX_ISSUER_TEXT} bytes"));
        }
        if self.audiences.is_empty() || self.audiences.len() > MAX_AUDIENCES {
            say(
                "spec.audiences".into(),
                format!("1 to {MAX_AUDIENCES} audiences: a token must name one of them"),
            );
        }
        let bad_audience = |audience: &&String| audience.is_empty() || audience.len() > MAX_ISSUER_TEXT;
        if self.audiences.iter().find(bad_audience).is_some() {
            say(
                "spec.audiences".into(),
                format!("each has 1 to {MAX_ISSUER_TEXT} bytes"),
            );
        }
        match (&self.jwks, self.keys.len()) {
            (None, 1..=MAX_ISSUER_KEYS) | (Some(_), 0) => {}
            (None, _) => say(
                "spec.keys".into(),
                format!("1 to {MAX_ISSUER_KEYS} keys, or jwks in their place"),
            ),
            (Some(_), _) => say(
                "spec.jwks".into(),
                "keys are declared or fetched, not both: leave one out".into(),
            ),
        }
        if self.leeway_seconds > MAX_LEEWAY_SECONDS {
            say(
                "spec.leeway_seconds".into(),
                format!("{} is more than {MAX_LEEWAY_SECONDS}", self.leeway_seconds),
            );
        }
        if let TenantBinding::Claim(claim) = &self.tenants
            && (claim.is_empty() || claim.len() > 128)
        {
            say("spec.tenants.claim".into(), "1 to 128 bytes".into());
        }
        if let Some(jwks) = &self.jwks {
            jwks.check(&self.issuer, problems);
        }
        for (index, key) in self.keys.iter().enumerate() {
            key.check(&format!("spec.keys[{index}]"), problems);
            let twice = self.keys.iter().take(index).any(|other| other.key_id == key.key_id);
            if twice {
                problems.push(Problem::new(
                    format!("spec.keys[{index}].key_id"),
                    "another key has the same key_id: each needs its own",
                ));
            }
        }
    }
}

impl IssuerKeySpec {
    fn check(&self, field: &str, problems: &mut Vec<Problem>) {
        let symmetric = self.algorithm == KeyAlgorithm::HS256;
        match (&self.public_key_pem, &self.secret_base64) {
            (None, Some(secret)) if symmetric => {
                if secret.len() < MIN_SECRET_BASE64 || secret.len() > MAX_PEM {
                    problems.push(Problem::new(
                        format!("{field}.secret_base64"),
                        "an HS256 secret has at least 32 bytes (RFC 7518, section 3.2)",
                    ));
                }
            }
            (Some(pem), None) if !symmetric => {
                if pem.len() > MAX_PEM || !pem.contains("-----BEGIN") {
                    problems.push(Problem::new(
                        format!("{field}.public_key_pem"),
                        "a public key in PEM begins with -----BEGIN PUBLIC KEY-----",
                    ));
                }
            }
            _ if symmetric => problems.push(Problem::new(field, "HS256 takes secret_base64 and no public_key_pem")),
            _ => problems.push(Problem::new(
                field,
                "RS256, PS256, ES256 and EdDSA take public_key_pem and no secret_base64",
            )),
        }
    }
}

/// What an admin may do, where no policy says more or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AdminRole {
    /// Everything.
    Admin,
    /// Look, change splits and move labels, publish models, route endpoints, drain devices.
    Operator,
    /// Look, change how endpoints split their traffic, and move labels.
    Experimenter,
    /// Look.
    Viewer,
}

/// A credential of an admin.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminTokenSpec {
    /// HMAC-SHA-256 of the token's secret half, in hexadecimal.
    pub hash: String,
    /// What its holder may do.
    pub role: AdminRole,
    /// The tenant that it is bound to: it reaches nothing of another's, and nothing of the mesh's. Absent: the whole mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantId>,
    /// The groups that its holder is in, for policies: the tenant's where it is bound to one, else the mesh's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// When it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
}

impl fmt::Debug for AdminTokenSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminTokenSpec")
            .field("hash", &REDACTED)
            .field("role", &self.role)
            .field("tenant", &self.tenant)
            .field("groups", &self.groups)
            .field("expires", &self.expires)
            .finish()
    }
}

impl AdminTokenSpec {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_hash("spec.hash", &self.hash, problems);
        check_groups(&self.groups, problems);
    }
}
