//! Callers that are known by the certificate of their connection, and tokens that only the holder of one may use.
//!
//! Owns what is asked about a certificate once its handshake has verified it: which declared caller it stands for, and whether
//! a token is bound to it (RFC 8705, section 3). Reads no certificate itself: the door's TLS does, once per connection.
//!
//! Invariants: names are compared exactly, and no wildcard matches; a certificate that stands for callers of two tenants stands
//! for nobody; what its authority has let expire is refused on a connection that is still open, too.

use std::{collections::HashMap, sync::Arc};

use mesh_types::{KeyId, TenantId};

use super::{AuthError, Principal, PrincipalId, Scopes};

/// A client's certificate, as a handshake has verified it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerCertificate {
    /// Its SPIFFE ID, if it has exactly one URI among its names and that is one (X509-SVID, section 2).
    pub spiffe: Option<String>,
    /// Its DNS names, in lowercase.
    pub dns: Vec<String>,
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`, DER).
    pub key: [u8; 32],
    /// SHA-256 of all of it (DER): the `x5t#S256` of RFC 8705.
    pub thumbprint: [u8; 32],
    /// The Unix second after which it no longer holds.
    pub until: i64,
}

/// What in a certificate names its holder.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CertificateName {
    /// Its SPIFFE ID.
    Spiffe(String),
    /// One of its DNS names.
    Dns(String),
    /// SHA-256 of its public key.
    Key([u8; 32]),
}

impl CertificateName {
    /// Reads 64 hexadecimal digits.
    pub fn digest(text: &str) -> Option<[u8; 32]> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut digest = [0; 32];
        for (to, [high, low]) in digest.iter_mut().zip(pairs) {
            *to = digit(*high)? << 4 | digit(*low)?;
        }
        Some(digest)
    }
}

/// A caller that is known by its certificate, as it is declared.
#[derive(Debug, Clone)]
pub struct CertificateEntry {
    /// What it is called; unique within a tenant only.
    pub name: KeyId,
    /// For whom it acts.
    pub tenant: TenantId,
    /// Which certificates are its.
    pub identity: CertificateName,
    /// What it may do.
    pub scopes: Scopes,
    /// The groups that it is in.
    pub groups: Arc<[Arc<str>]>,
    /// The Unix second from which it is no longer valid.
    pub expires: Option<i64>,
    /// Taken back.
    pub revoked: bool,
}

/// How the credential of such a caller begins.
pub(super) const CREDENTIAL_PREFIX: &str = "cert:";

/// A caller with what is told of it, made once.
#[derive(Debug)]
struct Holder {
    principal: Principal,
    expires: Option<i64>,
    revoked: bool,
}

/// Every caller that is known by a certificate.
#[derive(Debug, Clone, Default)]
pub(super) struct Holders {
    by_key: HashMap<[u8; 32], Arc<Holder>>,
    by_spiffe: HashMap<String, Arc<Holder>>,
    by_dns: HashMap<String, Arc<Holder>>,
}

impl Holders {
    /// Adds one; of two with the same identity the later stays.
    pub(super) fn add(&mut self, entry: CertificateEntry) {
        let holder = Arc::new(Holder {
            principal: Principal {
                id: PrincipalId::fresh(),
                groups: entry.groups,
                subject: Arc::from(entry.name.as_str()),
                credential: Arc::from(format!("{CREDENTIAL_PREFIX}{}", entry.name)),
                tenant: entry.tenant,
                scopes: entry.scopes,
            },
            expires: entry.expires,
            revoked: entry.revoked,
        });
        match entry.identity {
            CertificateName::Key(digest) => drop(self.by_key.insert(digest, holder)),
            CertificateName::Spiffe(id) => drop(self.by_spiffe.insert(id, holder)),
            CertificateName::Dns(name) => drop(self.by_dns.insert(name, holder)),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len() + self.by_spiffe.len() + self.by_dns.len()
    }

    /// Whom a certificate stands for: by its key, else its SPIFFE ID, else a DNS name. Refused if any two of these are callers
    /// of different tenants.
    fn find(&self, peer: &PeerCertificate) -> Result<Option<&Holder>, AuthError> {
        let by_key = self.by_key.get(&peer.key);
        let by_spiffe = peer.spiffe.as_ref().and_then(|id| self.by_spiffe.get(id));
        let by_dns = peer.dns.iter().filter_map(|name| self.by_dns.get(name));
        let mut found = by_key.into_iter().chain(by_spiffe).chain(by_dns);
        let Some(first) = found.next() else { return Ok(None) };
        if found.any(|other| other.principal.tenant != first.principal.tenant) {
            return Err(AuthError::Invalid);
        }
        Ok(Some(first))
    }

    /// Who calls over a connection with this certificate and shows nothing else.
    pub(super) fn authenticate(&self, peer: &PeerCertificate, now_unix: i64) -> Result<Principal, AuthError> {
        let holder = self.find(peer)?.ok_or(AuthError::Missing)?;
        if holder.revoked {
            return Err(AuthError::Invalid);
        }
        if now_unix > peer.until || holder.expires.is_some_and(|expires| now_unix >= expires) {
            return Err(AuthError::Expired);
        }
        Ok(holder.principal.clone())
    }

    /// Refuses a caller whose own credential is another tenant's than the certificate of its connection.
    pub(super) fn agree(&self, peer: &PeerCertificate, principal: &Principal) -> Result<(), AuthError> {
        match self.find(peer)? {
            Some(holder) if holder.principal.tenant != principal.tenant => Err(AuthError::Disagreeing),
            _ => Ok(()),
        }
    }
}

impl Principal {
    /// The name of the caller's certificate, if it was known by nothing else.
    pub fn certificate(&self) -> Option<&str> {
        self.credential.strip_prefix(CREDENTIAL_PREFIX)
    }
}

/// Refuses a token that is bound to a certificate, on a connection without that one or that has outlived it.
pub(super) fn check_bound(
    bound: Option<[u8; 32]>,
    peer: Option<&PeerCertificate>,
    now_unix: i64,
) -> Result<(), AuthError> {
    match (bound, peer) {
        (None, _) => Ok(()),
        (Some(thumbprint), Some(peer)) if thumbprint == peer.thumbprint && now_unix <= peer.until => Ok(()),
        _ => Err(AuthError::Invalid),
    }
}
