//! What can be wrong with a door's files: each error names the file, what was wrong and what would be right.

use std::{fmt, io, path::PathBuf};

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The door's certificate and those between it and its authority.
    Certificate,
    /// The key of that certificate.
    Key,
    /// The authorities that may have signed a client's certificate.
    ClientCa,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::ClientCa => "client authority",
        })
    }
}

/// Why a door has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("cannot read the {role} {}: {source}: name a PEM file that this program may read", path.display())]
    Unreadable {
        /// What it is for.
        role: Role,
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is larger than any that makes sense.
    #[error("the {role} {} has more than {bound} bytes: name a PEM file of certificates or keys only", path.display())]
    TooLarge {
        /// What it is for.
        role: Role,
        /// Where it is.
        path: PathBuf,
        /// The most that is read.
        bound: u64,
    },
    /// The file holds nothing of the kind.
    #[error("the {role} {} is no such PEM file ({problem}): it should have a section that begins with '{right}'", path.display())]
    NotPem {
        /// What it is for.
        role: Role,
        /// Where it is.
        path: PathBuf,
        /// What was wrong.
        problem: String,
        /// How a section begins that would be right.
        right: &'static str,
    },
    /// The key is protected by a passphrase, and nobody is there to type one.
    #[error("the key {} is encrypted: write it without a passphrase, as by 'openssl pkey -in OLD -out NEW'", path.display())]
    EncryptedKey {
        /// Where it is.
        path: PathBuf,
    },
    /// The two do not belong together.
    #[error("the key {} is not that of the certificate {}: the first certificate of the file must be the door's own", key.display(), certificate.display())]
    Mismatch {
        /// Where the certificate is.
        certificate: PathBuf,
        /// Where the key is.
        key: PathBuf,
    },
    /// The certificate or key is of a kind that is not served.
    #[error("the {role} {} cannot be used ({problem}): use an X.509 certificate with an RSA, P-256, P-384 or Ed25519 key", path.display())]
    Unusable {
        /// What it is for.
        role: Role,
        /// Where it is.
        path: PathBuf,
        /// What was wrong.
        problem: String,
    },
    /// The library refuses the settings.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}
