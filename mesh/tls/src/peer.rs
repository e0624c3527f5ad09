//! What a client's certificate says of its holder, read once per connection, after the handshake has verified it.
//!
//! Invariants: at most [`MAX_NAMES`] names are kept; of several URIs none is (X509-SVID, section 2: one that has more than one is
//! no SPIFFE ID); a certificate that cannot be read is nobody's.

use mesh_policies::PeerCertificate;
use rustls::{
    ServerConnection,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

/// The most DNS names of a certificate that are looked at.
pub const MAX_NAMES: usize = 32;

/// What is known of the client of a connection; none where it has shown no certificate.
pub fn peer_of(connection: &ServerConnection) -> Option<PeerCertificate> {
    read(connection.peer_certificates()?.first()?)
}

/// SHA-256 of the public key of the first certificate in a PEM text, as 64 hexadecimal digits.
pub fn key_digest(pem: &[u8]) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let digest = read(&certificate)?.key;
    Some(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn read(certificate: &[u8]) -> Option<PeerCertificate> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let (spiffe, dns) = names(&parsed);
    Some(PeerCertificate {
        spiffe,
        dns,
        key: Sha256::digest(parsed.public_key().raw).into(),
        thumbprint: Sha256::digest(certificate).into(),
        until: parsed.validity().not_after.timestamp(),
    })
}

fn names(certificate: &X509Certificate<'_>) -> (Option<String>, Vec<String>) {
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else {
        return (None, Vec::new());
    };
    let names = &alternatives.value.general_names;
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let only = uris.next().filter(|_| uris.next().is_none());
    let spiffe = only.filter(|uri| uri.starts_with("spiffe://"));
    let dns = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    (spiffe.map(str::to_owned), dns.take(MAX_NAMES).collect())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PublicKeyData as _, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        let certificate = params.self_signed(&key).unwrap();
        (certificate.der().to_vec(), key)
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn dns(text: &str) -> SanType {
        SanType::DnsName(text.try_into().unwrap())
    }

    #[test]
    fn names_key_and_thumbprint_are_read() {
        let (der, key) = certificate(vec![
            dns("A.acme.test"),
            uri("spiffe://acme.test/x"),
            dns("b.acme.test"),
        ]);
        let read = read(&der).unwrap();
        assert_eq!(read.spiffe.as_deref(), Some("spiffe://acme.test/x"));
        assert_eq!(read.dns, ["a.acme.test", "b.acme.test"]);
        assert_eq!(read.key, *Sha256::digest(key.subject_public_key_info()));
        assert_eq!(read.thumbprint, *Sha256::digest(&der));
        assert!(read.until > 0);
    }

    #[test]
    fn of_several_uris_none_names_the_holder_and_another_scheme_neither() {
        for names in [
            vec![uri("spiffe://acme.test/x"), uri("spiffe://acme.test/y")],
            vec![uri("https://acme.test/"), uri("spiffe://acme.test/x")],
            vec![uri("https://acme.test/")],
            vec![dns("acme.test")],
        ] {
            assert_eq!(read(&certificate(names).0).unwrap().spiffe, None);
        }
    }

    #[test]
    fn so_many_names_are_kept_and_no_more() {
        for (given, kept) in [(MAX_NAMES, MAX_NAMES), (MAX_NAMES + 1, MAX_NAMES)] {
            let names = (0..given).map(|index| dns(&format!("n{index}.acme.test"))).collect();
            assert_eq!(read(&certificate(names).0).unwrap().dns.len(), kept);
        }
    }

    #[test]
    fn what_is_no_certificate_is_nobodys() {
        let (der, _) = certificate(vec![dns("acme.test")]);
        for length in 0..der.len() {
            assert_eq!(read(&der[..length]), None);
        }
        assert_eq!(key_digest(b"-----BEGIN NOTHING-----"), None);
    }
}
