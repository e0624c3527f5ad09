//! What people are told of a door's TLS: whose certificate it serves with and until when, since when it does, and whom it trusts.
//!
//! Read from the certificate when somebody asks. Tells nothing of a key, and no path: where the files are is the operator's to know.
//!
//! Invariants: texts, names and authorities are bounded, since whoever wrote the certificate chose them.

use std::{fmt::Write as _, net::IpAddr};

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use crate::TlsVersion;

/// The most alternative names of a certificate that are told.
pub const MAX_SHOWN_NAMES: usize = 32;
/// The most authorities of clients that are told.
pub const MAX_SHOWN_AUTHORITIES: usize = 32;
/// The longest text that is told of a certificate, in characters.
pub const MAX_SHOWN_TEXT: usize = 256;

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whose it is, such as `CN=mesh.example.org, O=Example`; empty where it names its holder by alternative names alone.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// Its alternative names: DNS names, addresses and URIs, at most [`MAX_SHOWN_NAMES`].
    pub names: Vec<String>,
    /// How many more there are.
    pub more_names: usize,
    /// The Unix second from which on it holds.
    pub from: i64,
    /// The Unix second at which it ends.
    pub until: i64,
    /// SHA-256 of it, in hexadecimal.
    pub sha256: String,
}

/// Whether a door asks callers for certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// No.
    Off,
    /// Whoever shows one must have it from a trusted authority.
    Optional,
    /// Nobody comes in without one.
    Required,
}

/// A door's TLS, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The certificate that it serves with.
    pub certificate: CertificateFacts,
    /// How many certificates are sent along, itself included.
    pub chain: usize,
    /// The Unix second since which it serves.
    pub since: i64,
    /// How often one was put in place of another since the start.
    pub renewals: u64,
    /// The Unix second at which its files have changed to something that cannot serve, and still hold that.
    pub refused: Option<i64>,
    /// The oldest version that is spoken.
    pub oldest: TlsVersion,
    /// Whether callers show certificates.
    pub asks: Asks,
    /// The authorities that callers' certificates must come from, at most [`MAX_SHOWN_AUTHORITIES`].
    pub authorities: Vec<CertificateFacts>,
    /// How many more there are.
    pub more_authorities: usize,
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(MAX_SHOWN_TEXT) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn address(bytes: &[u8]) -> Option<String> {
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?),
        _ => return None,
    };
    Some(address.to_string())
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) | GeneralName::RFC822Name(text) => Some(bounded(text)),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    }
}

fn names(certificate: &X509Certificate<'_>) -> (Vec<String>, usize) {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return (Vec::new(), 0);
    };
    let mut named = alternatives.value.general_names.iter().filter_map(name);
    let told = named.by_ref().take(MAX_SHOWN_NAMES).collect();
    (told, named.count())
}

impl CertificateFacts {
    /// Reads them; none where it is no certificate.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let (names, more_names) = names(&certificate);
        let mut sha256 = String::with_capacity(64);
        for byte in Sha256::digest(der) {
            write!(sha256, "{byte:02x}").ok()?;
        }
        Some(Self {
            subject: bounded(&certificate.subject().to_string()),
            issuer: bounded(&certificate.issuer().to_string()),
            names,
            more_names,
            from: certificate.validity().not_before.timestamp(),
            until: certificate.validity().not_after.timestamp(),
            sha256,
        })
    }

    /// Those of some authorities, and how many there are besides.
    pub(crate) fn of_authorities(all: &[CertificateDer<'_>]) -> (Vec<Self>, usize) {
        let mut read = all.iter().filter_map(|der| Self::read(der));
        let told: Vec<_> = read.by_ref().take(MAX_SHOWN_AUTHORITIES).collect();
        (told, read.count())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(common: &str, names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = names;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn a_certificate_says_whose_it_is_and_how_it_is_named() {
        let names = vec![
            dns("mesh.test"),
            SanType::IpAddress("127.0.0.1".parse().unwrap()),
            SanType::IpAddress("::1".parse().unwrap()),
            SanType::URI("spiffe://mesh.test/door".try_into().unwrap()),
        ];
        let der = certificate("mesh", names);
        let facts = CertificateFacts::read(&der).unwrap();
        assert!(facts.subject.contains("CN=mesh"), "{}", facts.subject);
        assert_eq!(facts.issuer, facts.subject);
        assert_eq!(
            facts.names,
            ["mesh.test", "127.0.0.1", "::1", "spiffe://mesh.test/door"]
        );
        assert!(facts.from < facts.until);
        assert_eq!(facts.sha256.len(), 64);
        assert_eq!(CertificateFacts::read(&der[1..]), None);
    }

    #[test]
    fn names_texts_and_authorities_are_told_up_to_their_bounds() {
        for more in [0, 1] {
            let names = (0..MAX_SHOWN_NAMES + more).map(|number| dns(&format!("n{number}.test")));
            let facts = CertificateFacts::read(&certificate("mesh", names.collect())).unwrap();
            assert_eq!((facts.names.len(), facts.more_names), (MAX_SHOWN_NAMES, more));
            let text = "x".repeat(MAX_SHOWN_TEXT + more);
            assert_eq!(bounded(&text).ends_with('…'), more > 0);
            assert_eq!(bounded(&text).trim_end_matches('…').len(), MAX_SHOWN_TEXT);
        }
        let one = certificate("authority", Vec::new());
        for more in [0, 1] {
            let all = vec![one.clone(); MAX_SHOWN_AUTHORITIES + more];
            let (told, rest) = CertificateFacts::of_authorities(&all);
            assert_eq!((told.len(), rest), (MAX_SHOWN_AUTHORITIES, more));
        }
    }
}
