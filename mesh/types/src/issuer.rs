//! What is bounded of those who issue tokens, once for whoever declares, fetches or uses their keys: how many keys there may be,
//! and where they may be fetched from. Resolves no name and opens no connection.

use std::net::IpAddr;

/// The most keys of one issuer, declared or fetched. A declaration with more is refused; of one that was stored under another
/// bound the first so many are used.
pub const MAX_ISSUER_KEYS: usize = 100;

/// The longest address that something is fetched from.
pub const MAX_FETCH_URL_BYTES: usize = 2_048;

/// Why nothing is fetched from an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchUrlError {
    /// It cannot be read, or holds what has no place in it.
    #[error(
        "it must be an address of at most {MAX_FETCH_URL_BYTES} bytes such as https://login.example/keys, without a user or a fragment"
    )]
    Malformed,
    /// It is not encrypted, and not of this machine.
    #[error("it must begin with https:// (http:// only for 127.0.0.1, [::1] and localhost)")]
    Scheme,
}

/// Whether something may be fetched from an address: `https`, or `http` where it never leaves this machine.
///
/// Stricter than RFC 3986: printable ASCII without a backslash, so that nobody reads another host in it.
pub fn check_fetch_url(url: &str) -> Result<(), FetchUrlError> {
    let plain = url
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\\#\"<>^`{|}".contains(&byte));
    if !plain || url.len() > MAX_FETCH_URL_BYTES {
        return Err(FetchUrlError::Malformed);
    }
    let schemes = |(scheme, _): &(&str, &str)| matches!(*scheme, "https" | "http");
    let (scheme, rest) = url.split_once("://").filter(schemes).ok_or(FetchUrlError::Scheme)?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or(FetchUrlError::Malformed)?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_fits = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    if host.is_empty() || authority.contains('@') || !port_fits {
        return Err(FetchUrlError::Malformed);
    }
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if scheme == "https" || here {
        Ok(())
    } else {
        Err(FetchUrlError::Scheme)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_encrypted_addresses_and_those_of_this_machine_are_fetched_from() {
        for right in [
            "https://login.example/keys",
            "https://login.example:8443",
            "https://10.0.0.7/keys?a=b",
            "http://127.0.0.1:80/keys",
            "http://127.9.9.9",
            "http://[::1]:9/keys",
            "http://localhost/keys",
        ] {
            assert_eq!(check_fetch_url(right), Ok(()), "{right}");
        }
        for wrong in [
            "http://login.example/keys",
            "http://10.0.0.7/keys",
            "http://localhost.evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://0.0.0.0/",
            "http://[::2]/",
            "HTTP://127.0.0.1/",
            "file:///etc/passwd",
            "ftp://login.example/",
            "login.example/keys",
            "",
        ] {
            assert_eq!(check_fetch_url(wrong), Err(FetchUrlError::Scheme), "{wrong}");
        }
        for malformed in [
            "https://",
            "https:///keys",
            "https://me@login.example/",
            "http://127.0.0.1\\@evil.example/",
            "http://127.0.0.1#@evil.example/",
            "http://127.0.0.1@evil.example/",
            "https://login.example:port/",
            "https://login.example:99999/",
            "https://login.example/a b",
            "https://login.example/\n",
            "https://[::1/",
            &format!("https://login.example/{}", "k".repeat(MAX_FETCH_URL_BYTES)),
        ] {
            assert_eq!(check_fetch_url(malformed), Err(FetchUrlError::Malformed), "{malformed}");
        }
    }
}
