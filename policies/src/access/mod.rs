//! Access: who a caller is, from the credential it shows.
//!
//! Owns the decision between an API key, a token and the connection's certificate, the answer ([`Principal`]) and its refusals
//! ([`AuthError`]). Keys and secrets are in `secret`, tokens in `jwt`, certificates in `certificate`. Does not read headers of
//! any protocol but the text after `Authorization:`, and
//! does not decide what a tenant may see: that is the snapshot.
//!
//! Invariants: nothing known means nobody in; a refusal never says which part failed, only that a proven credential has
//! expired; every cost before a credential is proven is bounded.

mod attempts;
mod book;
mod cache;
mod certificate;
mod claims;
mod identity;
mod jwt;
mod kept;
mod keys;
mod keyset;
mod presented;
mod recent;
mod scope;
mod secret;
mod uses;

use std::{
    cell::Cell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_types::{Fault, FaultClass, FaultSource, KeyId, Retry, TenantId};

pub use self::{
    attempts::{Attempts, BURST, MAX_ADDRESSES, Origin, PER_SECOND, Taken},
    book::{
        ASK_REST, BookView, DEFAULT_MAX_AGE, Judged, KeyBook, KeyLocation, KeyWait, MAX_KEY_WAITERS, MAX_MAX_AGE,
        MAX_STALE, MIN_MAX_AGE, Moment, judge_or_wait,
    },
    cache::MAX_VERIFIED_TOKENS,
    certificate::{CertificateEntry, CertificateName, PeerCertificate},
    identity::{IdToken, Identity, IdentityError, IdentityRules, MAX_IDENTITY_AGE},
    jwt::{
        IssuerEntry, IssuerKey, IssuerKeyError, IssuerKeys, KeyAlgorithm, KeyMaterial, MAX_LEEWAY, MAX_TOKEN_BYTES,
        MAX_TRIALS, TenantBinding, TokenProfile,
    },
    kept::{MAX_KEPT_BYTES, NotKept},
    keyset::{KeySet, KeySetError, LeftOut, MAX_KEY_SET_BYTES, WhyLeftOut},
    presented::Presented,
    scope::{Scope, Scopes},
    secret::{
        GeneratedKey, Pepper, SecretHash, SecretHashError, admin_token_id, generate_admin_token,
        generate_admin_token_as, generate_api_key, generate_api_key_as, hash_secret, verify_admin_token,
    },
    uses::{KeyPrint, LastUse, MAX_REMEMBERED, MAX_REMEMBERED_BYTES, NotUses, Remembered, USE_SECONDS},
};
use self::{
    cache::VerifiedTokens,
    certificate::Holders,
    keys::{Keys, StoredKey},
    recent::RecentKeys,
};

/// How API keys begin; everything else is taken for a token.
const API_KEY_PREFIX: &str = "mesh_";
/// How the credential of a token's caller begins; its issuer follows.
pub(crate) const TOKEN_PREFIX: &str = "jwt:";
/// When a caller whose issuer's keys cannot be fetched may come back.
const KEYS_RETRY: Duration = Duration::from_secs(1);

/// Why a caller is refused. [`AuthError::Missing`] is told apart because its answer carries no error code (RFC 6750, 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credential.
    #[error("no credential: send 'Authorization: Bearer <API key or token>'")]
    Missing,
    /// Not written as a bearer credential.
    #[error("malformed credential: send 'Authorization: Bearer <API key or token>'")]
    Malformed,
    /// Unknown, forged, revoked, not yet valid or not meant for us.
    #[error("invalid credential")]
    Invalid,
    /// As [`AuthError::Invalid`], and to the caller the same: the issuer publishes its keys, and the one that signed is not known.
    #[error("invalid credential")]
    UnknownKey,
    /// None of the issuer's published keys is known, so that nothing of its can be checked.
    #[error("the keys of the token's issuer cannot be fetched at the moment: try again")]
    KeysUnavailable,
    /// Its address has had so many wrong tokens checked that the next has to wait so long.
    #[error("too many wrong tokens of this address had to be checked: try again in {} ms", .0.as_nanos().div_ceil(1_000_000))]
    TooManyTokens(Duration),
    /// Proven, but out of date.
    #[error("expired credential")]
    Expired,
    /// Both proven, and of different tenants.
    #[error(
        "the credential and the client certificate are of different tenants: show one of the two, or two of one tenant"
    )]
    Disagreeing,
    /// Proven, but without the right.
    #[error("the credential does not carry the scope '{0}'")]
    InsufficientScope(Scope),
    /// Proven, but the tenant is refused for now.
    #[error("the tenant is suspended")]
    TenantSuspended,
}

impl From<AuthError> for Fault {
    fn from(error: AuthError) -> Self {
        let class = match error {
            AuthError::KeysUnavailable => {
                let later = Retry::After(KEYS_RETRY);
                return Self::unavailable(FaultSource::Mesh, error.to_string()).with_retry(later);
            }
            AuthError::TooManyTokens(wait) => {
                let limited = Self::new(FaultClass::RateLimited, FaultSource::Client, error.to_string());
                return limited.with_retry(Retry::After(wait));
            }
            AuthError::TenantSuspended => FaultClass::PermissionDenied,
            AuthError::InsufficientScope(_) => FaultClass::InsufficientScope,
            AuthError::Malformed => FaultClass::MalformedCredential,
            AuthError::Missing
            | AuthError::Invalid
            | AuthError::UnknownKey
            | AuthError::Expired
            | AuthError::Disagreeing => FaultClass::Unauthenticated,
        };
        Self::new(class, FaultSource::Client, error.to_string())
    }
}

/// The number of a principal, for memories: no two that were made in one process have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PrincipalId(u64);

impl PrincipalId {
    /// The next one.
    pub fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A caller whose credential holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Its number, drawn when its credential was read: it stands for all that follows.
    pub id: PrincipalId,
    /// For whom it acts.
    pub tenant: TenantId,
    /// Who it is: the key's identifier, the token's `sub` or the name of its certificate's record.
    pub subject: Arc<str>,
    /// What it showed: `key:<id>`, `jwt:<issuer>` or `cert:<name>`; `local` where it need not show anything.
    pub credential: Arc<str>,
    /// What it may do.
    pub scopes: Scopes,
    /// The groups that it is in: the key's or the certificate's own, or those that the token names.
    pub groups: Arc<[Arc<str>]>,
}

impl Principal {
    /// Refuses a caller without the scope.
    pub fn require(&self, scope: Scope) -> Result<(), AuthError> {
        if self.scopes.contains(scope) {
            Ok(())
        } else {
            Err(AuthError::InsufficientScope(scope))
        }
    }
}

/// One API key, as it is stored.
#[derive(Debug, Clone)]
pub struct ApiKeyEntry {
    /// Its public half; unique within a tenant only.
    pub id: KeyId,
    /// For whom it acts.
    pub tenant: TenantId,
    /// Of its secret half.
    pub hash: SecretHash,
    /// What it may do.
    pub scopes: Scopes,
    /// The groups that it is in.
    pub groups: Arc<[Arc<str>]>,
    /// The Unix second from which it is no longer valid.
    pub expires: Option<i64>,
    /// Taken back.
    pub revoked: bool,
}

/// Every credential that is known. Cheap to clone; clones share the memory of verified tokens, which a changed copy leaves.
#[derive(Clone, Default)]
pub struct Credentials {
    pepper: Pepper,
    keys: Arc<Keys>,
    issuers: Arc<jwt::Issuers>,
    certificates: Arc<Holders>,
    verified: Arc<VerifiedTokens>,
    recent: Arc<RecentKeys<StoredKey>>,
    /// What a former start knew of keys' uses, and the books that it kept; only those who come first hold it.
    remembered: Arc<Remembered>,
    kept: Arc<[Arc<KeyBook>]>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("keys", &self.keys.len())
            .field("issuers", &self.issuers.len())
            .field("certificates", &self.certificates.len())
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// No credential yet; keys will be compared under this pepper.
    pub fn new(pepper: Pepper) -> Self {
        Self {
            pepper,
            ..Self::default()
        }
    }

    /// No credential, but what was known of keys' uses before this start; see [`Self::last_use`].
    pub fn remembering(uses: Remembered) -> Self {
        Self {
            remembered: Arc::new(uses),
            ..Self::default()
        }
    }

    /// The same with the books of issuers that a former start has kept: for issuers that are declared alike.
    #[must_use]
    pub fn with_kept_books(self, kept: Vec<Arc<KeyBook>>) -> Self {
        Self {
            kept: kept.into(),
            ..self
        }
    }

    /// The last use of a key, for credentials that follow these: theirs are to be the same.
    pub fn last_use(&self, key: &ApiKeyEntry) -> Arc<LastUse> {
        let same = |stored: &&Arc<StoredKey>| stored.principal.tenant == key.tenant && stored.hash == key.hash;
        match self.keys.of(key.id.as_str()).iter().find(same) {
            Some(stored) => stored.last_use.clone(),
            None if self.remembered.is_empty() => Arc::default(),
            None => Arc::new(
                self.remembered
                    .of(&KeyPrint::of(&key.tenant, key.id.as_str(), &key.hash)),
            ),
        }
    }

    /// When a key was last used, to the minute and in Unix seconds; none where it never was, or is not there.
    pub fn last_used(&self, tenant: &TenantId, key: &KeyId) -> Option<i64> {
        let mut stored = self.keys.of(key.as_str()).iter();
        stored.find(|stored| stored.principal.tenant == *tenant)?.last_use.get()
    }

    /// The last uses of all keys that are known, to be kept until the next start.
    pub fn uses(&self) -> Remembered {
        let used = self.keys.all().filter_map(|stored| {
            let key = &stored.principal;
            let unix = stored.last_use.get()?;
            Some((KeyPrint::of(&key.tenant, &key.subject, &stored.hash), unix))
        });
        used.collect()
    }

    /// Adds an API key that nobody has used.
    #[must_use]
    pub fn with_key(self, entry: ApiKeyEntry) -> Self {
        self.with_used_key(entry, Arc::default())
    }

    /// Adds an API key with its last use.
    #[must_use]
    pub fn with_used_key(mut self, entry: ApiKeyEntry, last_use: Arc<LastUse>) -> Self {
        Arc::make_mut(&mut self.keys).add(StoredKey::new(entry, last_use));
        self.recent = Arc::default();
        self
    }

    /// Takes an API key out, if it is there.
    #[must_use]
    pub fn without_key(mut self, tenant: &TenantId, id: &KeyId) -> Self {
        Arc::make_mut(&mut self.keys).remove(tenant, id.as_str());
        self.recent = Arc::default();
        self
    }

    /// Takes all issuers out. Forgets every token verified before.
    #[must_use]
    pub fn without_issuers(self) -> Self {
        Self {
            issuers: Arc::default(),
            verified: Arc::default(),
            ..self
        }
    }

    /// Takes all callers out that are known by their certificates.
    #[must_use]
    pub fn without_certificates(self) -> Self {
        Self {
            certificates: Arc::default(),
            ..self
        }
    }

    /// Adds an issuer of tokens; of two with the same `iss` the later stays. Forgets every token verified before.
    #[must_use]
    pub fn with_issuer(mut self, mut entry: IssuerEntry) -> Self {
        entry.make_safe();
        Arc::make_mut(&mut self.issuers).insert(entry.issuer.clone(), Arc::new(entry));
        self.verified = Arc::default();
        self
    }

    /// Adds a caller that is known by its certificate; of two with the same identity the later stays.
    #[must_use]
    pub fn with_certificate(mut self, entry: CertificateEntry) -> Self {
        Arc::make_mut(&mut self.certificates).add(entry);
        self
    }

    /// Who this is, at this Unix second.
    pub fn authenticate(&self, presented: Presented<'_>, now_unix: i64) -> Result<Principal, AuthError> {
        self.authenticate_from(presented, now_unix, None)
    }

    /// The same, where wrong tokens are counted for where they come from, and not checked beyond a bound.
    pub fn authenticate_from(
        &self,
        presented: Presented<'_>,
        now_unix: i64,
        origin: Option<Origin<'_>>,
    ) -> Result<Principal, AuthError> {
        match presented {
            Presented::None => Err(AuthError::Missing),
            Presented::Malformed => Err(AuthError::Malformed),
            Presented::Local(principal) => Ok(principal.clone()),
            Presented::Bearer(text) => self.by_bearer(text, None, now_unix, origin),
            Presented::Certificate(peer) => self.certificates.authenticate(peer, now_unix),
            Presented::BearerWith(text, peer) => {
                let principal = self.by_bearer(text, Some(peer), now_unix, origin)?;
                self.certificates.agree(peer, &principal)?;
                Ok(principal)
            }
        }
    }

    fn by_bearer(
        &self,
        text: &str,
        peer: Option<&PeerCertificate>,
        now_unix: i64,
        origin: Option<Origin<'_>>,
    ) -> Result<Principal, AuthError> {
        if text.starts_with(API_KEY_PREFIX) {
            self.by_key(text, now_unix)
        } else {
            self.by_token(text, peer, now_unix, origin)
        }
    }

    /// The books of former starts that wait for an issuer that is declared alike.
    pub fn kept_books(&self) -> impl Iterator<Item = &Arc<KeyBook>> {
        self.kept.iter()
    }

    /// The books of all issuers whose keys are fetched.
    pub fn books(&self) -> impl Iterator<Item = &Arc<KeyBook>> {
        self.issuers.values().filter_map(|issuer| match &issuer.keys {
            IssuerKeys::Fetched(book) => Some(book),
            IssuerKeys::Declared(_) => None,
        })
    }

    /// The book in which the key of this credential would be, after it was refused for want of one.
    pub fn book_for(&self, presented: Presented<'_>, refused: AuthError) -> Option<&Arc<KeyBook>> {
        match presented {
            Presented::Bearer(token) | Presented::BearerWith(token, _)
                if matches!(refused, AuthError::UnknownKey | AuthError::KeysUnavailable) =>
            {
                jwt::book_of(&self.issuers, token)
            }
            _ => None,
        }
    }

    fn by_key(&self, text: &str, now_unix: i64) -> Result<Principal, AuthError> {
        let fingerprint = self.recent.fingerprint(text);
        let stored = match self.recent.get(fingerprint) {
            Some(stored) => stored,
            None => {
                let stored = self.find_key(text)?.clone();
                self.recent.insert(fingerprint, stored.clone());
                stored
            }
        };
        if stored.revoked {
            return Err(AuthError::Invalid);
        }
        if now_unix >= stored.expires {
            return Err(AuthError::Expired);
        }
        stored.last_use.note(now_unix);
        Ok(stored.principal.clone())
    }

    fn find_key(&self, text: &str) -> Result<&Arc<StoredKey>, AuthError> {
        let (id, secret) = secret::parse_api_key(text).ok_or(AuthError::Invalid)?;
        // Hashed before the look-up: an unknown identifier takes as long as a wrong secret.
        let hash = self.pepper.hash(secret);
        // Two tenants may have chosen the same identifier: the secret tells them apart.
        let mut found = None;
        for stored in self.keys.of(id) {
            if stored.hash == hash {
                found = Some(stored);
            }
        }
        found.ok_or(AuthError::Invalid)
    }

    fn by_token(
        &self,
        token: &str,
        peer: Option<&PeerCertificate>,
        now_unix: i64,
        origin: Option<Origin<'_>>,
    ) -> Result<Principal, AuthError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(AuthError::Invalid);
        }
        let fingerprint = cache::fingerprint(token);
        let known = self.verified.get(&fingerprint);
        let verified = if let Some(verified) = known.filter(|verified| verified.is_alive(now_unix)) {
            verified
        } else {
            let verified = Arc::new(self.check(token, now_unix, origin)?);
            self.verified.insert(fingerprint, Arc::clone(&verified));
            verified
        };
        verified.window.check(now_unix)?;
        certificate::check_bound(verified.bound, peer, now_unix)?;
        Ok(verified.principal.clone())
    }

    /// Checks a token that is not remembered; one that is not in time is not worth remembering. What turns out wrong counts for its origin,
    /// and what no key is there for does not, as long as none was tried.
    fn check(&self, token: &str, now_unix: i64, origin: Option<Origin<'_>>) -> Result<jwt::VerifiedToken, AuthError> {
        let taken = origin.map(|origin| origin.attempts.take(origin.address));
        let taken = taken.transpose().map_err(AuthError::TooManyTokens)?;
        let is_tried = Cell::new(false);
        let checked = jwt::verify(&self.issuers, token, now_unix, &is_tried);
        let checked = checked.and_then(|verified| verified.window.check(now_unix).map(|()| verified));
        let is_wrong = match &checked {
            Ok(_) => false,
            Err(AuthError::UnknownKey | AuthError::KeysUnavailable) => is_tried.get(),
            Err(_) => true,
        };
        let counts = is_wrong && !origin.is_some_and(|origin| origin.is_ahead);
        if !counts && let Some(taken) = taken {
            taken.give_back();
        }
        checked
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;

#[cfg(test)]
mod certificate_tests;
#[cfg(test)]
mod jwt_tests;
