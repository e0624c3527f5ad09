//! Certificates of clients: which one stands for a tenant's caller.
//!
//! Owns how a record names a certificate, and the grammar of those names. Whether a certificate was signed by an authority that
//! is trusted is decided in the handshake, long before anybody asks what it stands for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Problem, Scope, access::check_groups, model::MAX_DESCRIPTION, tenant::check_text};

/// The longest SPIFFE ID, in bytes (SPIFFE ID, section 2.3).
pub const MAX_SPIFFE_ID: usize = 2_048;
/// The longest trust domain in it (section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;
/// The longest host name, and label of one (RFC 1035, section 2.3.4).
const MAX_HOST: usize = 253;
const MAX_HOST_LABEL: usize = 63;
const SPIFFE: &str = "spiffe://";

/// What in a certificate names its holder. All are compared exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CertificateIdentity {
    /// Its SPIFFE ID: the one URI among its alternative names, such as `spiffe://example.org/ns/prod/sa/billing`.
    Spiffe(String),
    /// A DNS name among its alternative names; no wildcard.
    Dns(String),
    /// SHA-256 of its public key (`SubjectPublicKeyInfo`, DER), in hexadecimal: one key, however its certificates are named.
    SpkiSha256(String),
}

/// A caller of a tenant that is known by its certificate. Its name is what the caller is called in logs and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificateSpec {
    /// Which certificates are this caller's.
    pub identity: CertificateIdentity,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it ends, whatever the certificate says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub expires: Option<Timestamp>,
    /// Whether it was taken back.
    #[serde(default)]
    pub revoked: bool,
    /// The tenant's groups that its caller is in, for policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl ClientCertificateSpec {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        self.identity.check(problems);
        if self.scopes.is_empty() {
            problems.push(Problem::new(
                "spec.scopes",
                "a certificate without a scope can do nothing: give at least 'infer'",
            ));
        }
        check_groups(&self.groups, problems);
        check_text(
            "spec.description",
            self.description.as_deref(),
            MAX_DESCRIPTION,
            problems,
        );
    }
}

impl CertificateIdentity {
    fn check(&self, problems: &mut Vec<Problem>) {
        let (field, right, fits) = match self {
            Self::Spiffe(id) => (
                "spec.identity.spiffe",
                "a SPIFFE ID is spiffe://TRUST-DOMAIN/PATH in at most 2048 bytes: a domain of lowercase letters, digits, '.', \
                 '-' and '_', and segments of letters, digits, '.', '-' and '_' without an empty one, '.' or '..'",
                is_spiffe_id(id),
            ),
            Self::Dns(name) => (
                "spec.identity.dns",
                "a DNS name is lowercase labels of letters, digits and '-' with dots between, at most 253 bytes, and no \
                 wildcard: a certificate is compared with it exactly",
                is_host(name),
            ),
            Self::SpkiSha256(digest) => (
                "spec.identity.spki_sha256",
                "a digest is 64 lowercase hexadecimal digits: 'mesh certificate create --cert FILE' reads it from a certificate",
                is_digest(digest),
            ),
        };
        if !fits {
            problems.push(Problem::new(field, right));
        }
    }
}

impl std::fmt::Display for CertificateIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spiffe(id) => f.write_str(id),
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::SpkiSha256(digest) => write!(f, "spki:{digest}"),
        }
    }
}

fn is_spiffe_id(id: &str) -> bool {
    let Some((domain, path)) = id.strip_prefix(SPIFFE).and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let of_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
    let of_segment = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_segment = |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(of_segment);
    id.len() <= MAX_SPIFFE_ID
        && (1..=MAX_TRUST_DOMAIN).contains(&domain.len())
        && domain.bytes().all(of_domain)
        && path.split('/').all(is_segment)
}

fn is_host(name: &str) -> bool {
    let of_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        (1..=MAX_HOST_LABEL).contains(&label.len())
            && label.bytes().all(of_label)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_HOST && name.split('.').all(is_label)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spiffe_id_has_a_trust_domain_and_a_path() {
        for right in ["spiffe://example.org/billing", "spiffe://a_b-1.test/ns/Prod/sa/x.y"] {
            assert!(is_spiffe_id(right), "{right}");
        }
        for wrong in [
            "",
            "https://example.org/billing",
            "SPIFFE://example.org/billing",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///billing",
            "spiffe://Example.org/billing",
            "spiffe://example.org:8443/billing",
            "spiffe://user@example.org/billing",
            "spiffe://example.org/a//b",
            "spiffe://example.org/a/../b",
            "spiffe://example.org/a/",
            "spiffe://example.org/a?b",
            "spiffe://example.org/*",
        ] {
            assert!(!is_spiffe_id(wrong), "{wrong}");
        }
        let of_length = |length: usize| format!("spiffe://a/{}", "b".repeat(length - "spiffe://a/".len()));
        assert!(is_spiffe_id(&of_length(MAX_SPIFFE_ID)));
        assert!(!is_spiffe_id(&of_length(MAX_SPIFFE_ID + 1)));
    }

    #[test]
    fn a_dns_name_is_exact_and_lowercase() {
        for right in ["localhost", "billing.example.org", "a-1.b2"] {
            assert!(is_host(right), "{right}");
        }
        for wrong in [
            "",
            "*.example.org",
            "Billing.example.org",
            "a..b",
            "a.",
            "-a.b",
            "a-.b",
            "a_b.c",
            "a b",
        ] {
            assert!(!is_host(wrong), "{wrong}");
        }
        let label = "a".repeat(63);
        assert!(is_host(&label) && !is_host(&format!("{label}a")));
        let long = format!("{label}.{label}.{label}.{}", "a".repeat(61));
        assert!(is_host(&long) && !is_host(&format!("{long}a")));
    }

    #[test]
    fn a_digest_is_64_lowercase_digits() {
        assert!(is_digest(&"0f".repeat(32)));
        for wrong in [
            String::new(),
            "0F".repeat(32),
            "0f".repeat(31),
            "0g".repeat(32),
            "0f".repeat(33),
        ] {
            assert!(!is_digest(&wrong), "{wrong}");
        }
    }

    #[test]
    fn each_problem_names_its_field() {
        let spec = ClientCertificateSpec {
            identity: CertificateIdentity::Dns("*.example.org".into()),
            scopes: Vec::new(),
            expires: None,
            revoked: false,
            groups: vec!["interns".into(), "a/b".into()],
            description: Some("a\u{7}".into()),
        };
        let mut problems = Vec::new();
        spec.check(&mut problems);
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            ["spec.identity.dns", "spec.scopes", "spec.groups[1]", "spec.description"]
        );
    }
}
