//! What a caller shows, as a door has read it.
//!
//! Owns the reading of the text after `Authorization:` (RFC 6750, section 2.1) and of no other header. Believes nothing of it.

use std::fmt;

use super::{PeerCertificate, Principal};

/// What a caller shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// Nothing, or nothing of a kind that we take.
    None,
    /// An API key or a token.
    Bearer(&'a str),
    /// An API key or a token, over a connection with a certificate: the former counts, and the latter must not disagree.
    BearerWith(&'a str, &'a PeerCertificate),
    /// Nothing but the certificate of the connection.
    Certificate(&'a PeerCertificate),
    /// A bearer credential that is not even written like one.
    Malformed,
    /// Nothing, and need not: the door knows who it is from where the call came. No header reads as this.
    Local(&'a Principal),
}

impl<'a> Presented<'a> {
    /// Reads the value of an `Authorization` header (RFC 6750, section 2.1). Another scheme than `Bearer` counts as nothing.
    pub fn from_header(value: Option<&'a str>) -> Self {
        let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else {
            return Self::None;
        };
        let (scheme, credential) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Self::None;
        }
        let credential = credential.trim_start();
        let well_formed = !credential.is_empty() && credential.bytes().all(|byte| byte.is_ascii_graphic());
        if well_formed {
            Self::Bearer(credential)
        } else {
            Self::Malformed
        }
    }

    /// The same over a connection with this certificate.
    #[must_use]
    pub fn over(self, peer: Option<&'a PeerCertificate>) -> Self {
        match (self, peer) {
            (Self::Bearer(text), Some(peer)) => Self::BearerWith(text, peer),
            (other, _) => other,
        }
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Bearer(_) => "Bearer([redacted])",
            Self::BearerWith(..) => "BearerWith([redacted])",
            Self::Certificate(_) => "Certificate",
            Self::Malformed => "Malformed",
            Self::Local(_) => "Local",
        })
    }
}
