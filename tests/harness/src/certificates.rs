//! Certificates for tests, made when they are needed: an authority, and what it signs.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use reqwest::{Certificate, Client, ClientBuilder, Identity};

use crate::PATIENCE;

/// An authority.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
    /// The certificate as it travels (DER).
    pub der: Vec<u8>,
}

impl Authority {
    /// A new authority of this name.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        Ok(Self { issuer })
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Signs a new certificate for these hosts, addresses or URIs.
    pub fn sign(&self, names: &[&str]) -> anyhow::Result<Pair> {
        self.sign_key(names, &KeyPair::generate()?.serialize_pem())
    }

    /// The same for a key that is there already, in PEM.
    pub fn sign_key(&self, names: &[&str], key: &str) -> anyhow::Result<Pair> {
        let (uris, hosts): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let mut params = CertificateParams::new(hosts.into_iter().map(str::to_owned).collect::<Vec<_>>())?;
        for uri in uris {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        let key = KeyPair::from_pem(key)?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair {
            certificate: certificate.pem(),
            der: certificate.der().to_vec(),
            key: key.serialize_pem(),
        })
    }

    /// The beginnings of a client that trusts this authority and nobody else.
    pub fn trusting(&self) -> anyhow::Result<ClientBuilder> {
        let own = Certificate::from_pem(self.pem().as_bytes())?;
        Ok(Client::builder().timeout(PATIENCE).tls_certs_only([own]))
    }
}

impl Pair {
    /// Writes both into a folder as `NAME.pem` and `NAME.key`, each at once; answers where they are.
    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let write = |ending: &str, text: &str| {
            let (half, whole) = (folder.join("half"), folder.join(format!("{name}.{ending}")));
            std::fs::write(&half, text)?;
            std::fs::rename(&half, &whole)?;
            anyhow::Ok(whole)
        };
        Ok((write("pem", &self.certificate)?, write("key", &self.key)?))
    }

    /// Both in one text.
    pub fn pem(&self) -> String {
        format!("{}\n{}", self.certificate, self.key)
    }

    /// What a client shows.
    pub fn identity(&self) -> anyhow::Result<Identity> {
        Ok(Identity::from_pem(self.pem().as_bytes())?)
    }
}
