//! The files of a door, read together and checked: whether they are PEM, whether the key is the certificate's, until when it holds.

use std::{
    fmt,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use crate::{Role, TlsError, TlsSettings, shown::CertificateFacts};

/// The largest file that is read: some hundred certificates.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

const CERTIFICATE_BEGINS: &str = "-----BEGIN CERTIFICATE-----";
const KEY_BEGINS: &str = "-----BEGIN PRIVATE KEY-----";
const ENCRYPTED_KEY: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
const OLD_ENCRYPTED_KEY: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// What is not wrong, but should be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// The certificate is out of date, so clients will refuse it.
    Expired(PathBuf),
    /// It is not valid yet.
    NotYetValid(PathBuf),
    /// Every user of the machine can read the key.
    KeyReadable(PathBuf),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired(path) => write!(
                f,
                "the certificate {} has expired, and clients will refuse it: put a new one in its place",
                path.display()
            ),
            Self::NotYetValid(path) => write!(
                f,
                "the certificate {} is not valid yet: check it, and the machine's clock",
                path.display()
            ),
            Self::KeyReadable(path) => write!(
                f,
                "every user of this machine can read the key {0}: 'chmod o-r {0}'",
                path.display()
            ),
        }
    }
}

/// The contents of a door's files, to tell whether they have changed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    /// Reads all of them.
    pub(crate) fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        let client_ca = settings.client_auth.ca();
        Ok(Self {
            certificate: read(Role::Certificate, &settings.certificate)?,
            key: read(Role::Key, &settings.key)?,
            client_ca: client_ca.map(|path| read(Role::ClientCa, path)).transpose()?,
        })
    }
}

/// What a handshake needs, all of it from one reading.
pub(crate) struct Material {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// The Unix seconds between which the certificate holds.
    pub(crate) valid: (i64, i64),
    /// The authorities of clients, those that are told and how many more.
    pub(crate) authorities: (Vec<CertificateFacts>, usize),
    /// The Unix second at which it was put in place.
    pub(crate) since: i64,
}

impl Material {
    /// Checks what was read, to serve from this Unix second on.
    pub(crate) fn of(
        settings: &TlsSettings,
        contents: &Contents,
        provider: &Arc<CryptoProvider>,
        now: i64,
    ) -> Result<Self, TlsError> {
        let chain = certificates(Role::Certificate, &settings.certificate, &contents.certificate)?;
        let valid = chain.first().map(|leaf| validity(leaf)).transpose();
        let valid = valid.map_err(|problem| unusable(Role::Certificate, &settings.certificate, problem))?;
        let key = private_key(&settings.key, &contents.key)?;
        let certified = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
                certificate: settings.certificate.clone(),
                key: settings.key.clone(),
            },
            rustls::Error::InvalidCertificate(error) => {
                unusable(Role::Certificate, &settings.certificate, format!("{error:?}"))
            }
            other => unusable(Role::Key, &settings.key, other.to_string()),
        })?;
        let (verifier, authorities) = match (settings.client_auth.ca(), &contents.client_ca) {
            (Some(path), Some(bytes)) => {
                let trusted = certificates(Role::ClientCa, path, bytes)?;
                let told = CertificateFacts::of_authorities(&trusted);
                (Some(verifier(path, trusted, provider)?), told)
            }
            _ => (None, (Vec::new(), 0)),
        };
        Ok(Self {
            certified: Arc::new(certified),
            verifier,
            valid: valid.unwrap_or_default(),
            authorities,
            since: now,
        })
    }

    /// What should be known of it at this Unix second.
    pub(crate) fn warnings(&self, settings: &TlsSettings, now: i64) -> Vec<Warning> {
        let mut warnings = Vec::new();
        if now > self.valid.1 {
            warnings.push(Warning::Expired(settings.certificate.clone()));
        } else if now < self.valid.0 {
            warnings.push(Warning::NotYetValid(settings.certificate.clone()));
        }
        if everybody_reads(&settings.key) {
            warnings.push(Warning::KeyReadable(settings.key.clone()));
        }
        warnings
    }
}

fn unusable(role: Role, path: &Path, problem: String) -> TlsError {
    TlsError::Unusable {
        role,
        path: path.to_owned(),
        problem,
    }
}

fn read(role: Role, path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source: io::Error| TlsError::Unreadable {
        role,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(TlsError::TooLarge {
            role,
            path: path.to_owned(),
            bound: MAX_FILE_BYTES,
        });
    }
    Ok(bytes)
}

fn certificates(role: Role, path: &Path, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let not_pem = |problem: String| TlsError::NotPem {
        role,
        path: path.to_owned(),
        problem,
        right: CERTIFICATE_BEGINS,
    };
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = read.map_err(|error| not_pem(error.to_string()))?;
    if found.is_empty() {
        return Err(not_pem("it holds no certificate".to_owned()));
    }
    Ok(found)
}

fn private_key(path: &Path, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    let holds = |mark: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
    if holds(ENCRYPTED_KEY) || holds(OLD_ENCRYPTED_KEY) {
        return Err(TlsError::EncryptedKey { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_slice(bytes).map_err(|error| TlsError::NotPem {
        role: Role::Key,
        path: path.to_owned(),
        problem: match error {
            rustls::pki_types::pem::Error::NoItemsFound => "it holds no key".to_owned(),
            other => other.to_string(),
        },
        right: KEY_BEGINS,
    })
}

fn verifier(
    path: &Path,
    trusted: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in trusted {
        let added = roots.add(authority);
        added.map_err(|error| unusable(Role::ClientCa, path, error.to_string()))?;
    }
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
    built.map_err(|error| unusable(Role::ClientCa, path, error.to_string()))
}

/// The Unix seconds between which a certificate holds.
fn validity(certificate: &[u8]) -> Result<(i64, i64), String> {
    let (_, read) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let validity = read.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

#[cfg(unix)]
fn everybody_reads(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    /// The bit that lets users read who are neither the owner nor of the group.
    const OTHERS_READ: u32 = 0o004;
    std::fs::metadata(path).is_ok_and(|facts| facts.permissions().mode() & OTHERS_READ != 0)
}

#[cfg(not(unix))]
fn everybody_reads(_: &Path) -> bool {
    false
}
