//! Whom the command line trusts where it speaks TLS, and what it shows of itself.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use reqwest::{Certificate, ClientBuilder, Identity};

use crate::Failure;

/// The largest file of certificates that is read.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// How TLS is spoken where a url begins with https.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct TrustOptions {
    /// The authority of the mesh's certificates, for https; PEM. [default: those that the system trusts]
    #[arg(
        long,
        global = true,
        env = "MESH_CA_CERT",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub ca_cert: Option<PathBuf>,
    /// A certificate to show, where the mesh asks for one; PEM.
    #[arg(
        long,
        global = true,
        env = "MESH_CLIENT_CERT",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub client_cert: Option<PathBuf>,
    /// The key of that certificate; PEM.
    #[arg(
        long,
        global = true,
        env = "MESH_CLIENT_KEY",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub client_key: Option<PathBuf>,
}

impl TrustOptions {
    /// Has a client trust and show what is said here.
    pub(crate) fn apply(&self, mut client: ClientBuilder) -> Result<ClientBuilder, Failure> {
        if let Some(path) = &self.ca_cert {
            let known = Certificate::from_pem_bundle(&read(path)?);
            let known = known.ok().filter(|known| !known.is_empty()).ok_or_else(|| {
                Failure::refused(format!(
                    "{} is no PEM file of certificates: check --ca-cert",
                    path.display()
                ))
            })?;
            client = client.tls_certs_only(known);
        }
        match (&self.client_cert, &self.client_key) {
            (None, None) => Ok(client),
            (Some(certificate), Some(key)) => {
                let both = [read(certificate)?, read(key)?].join(&b'\n');
                let identity = Identity::from_pem(&both).map_err(|_| {
                    let (certificate, key) = (certificate.display(), key.display());
                    Failure::refused(format!(
                        "{certificate} and {key} are no PEM files of a certificate and its key"
                    ))
                })?;
                Ok(client.identity(identity))
            }
            _ => Err(apart()),
        }
    }

    /// The same for a client of the inference door.
    pub(crate) fn client(&self, mut client: mesh_client::ClientBuilder) -> Result<mesh_client::ClientBuilder, Failure> {
        if let Some(path) = &self.ca_cert {
            client = client.trust_only(&read(path)?);
        }
        match (&self.client_cert, &self.client_key) {
            (None, None) => Ok(client),
            (Some(certificate), Some(key)) => Ok(client.identity(&[read(certificate)?, read(key)?].join(&b'\n'))),
            _ => Err(apart()),
        }
    }
}

fn apart() -> Failure {
    Failure::refused("--client-cert and --client-key go together: name both files")
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(|error| Failure::refused(format!("cannot read {}: {error}", path.display())))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::refused(format!(
            "{} has more than {MAX_FILE_BYTES} bytes: name a PEM file",
            path.display()
        )));
    }
    Ok(bytes)
}
