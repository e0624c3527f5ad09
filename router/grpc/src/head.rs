//! What a call says beside its message: who calls, how long it waits, its trace, and how its messages are packed.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{
    HeaderMap, HeaderName, Request,
    header::{AUTHORIZATION, CONTENT_TYPE},
};
use mesh_protocol::{HeaderPattern, add_forwarded};
use mesh_router::{Credential, LocalTenant, PeerCertificate};
use mesh_types::{Fault, InferRequest, Parameters, TraceContext};
use tonic::codec::CompressionEncoding;

use crate::status::TRACEPARENT;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const UNIT: HeaderName = HeaderName::from_static("x-mesh-unit");
const ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// By this a stream asks that its first error ends it, as a status.
const STREAM_ERRORS: HeaderName = HeaderName::from_static("triton_grpc_error");
/// The longest time a caller may ask for: a day.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);
/// The longest unit of stickiness, in bytes.
const MAX_UNIT_BYTES: usize = 256;
/// The most digits of a timeout, by the protocol.
const MAX_TIMEOUT_DIGITS: usize = 8;

/// What a call's metadata says.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) credential: Credential,
    pub(crate) timeout: Option<Duration>,
    pub(crate) unit: Option<String>,
    pub(crate) trace_parent: Option<TraceContext>,
    pub(crate) errors_end_stream: bool,
    /// What of the metadata is forwarded, where anything is.
    pub(crate) forwarded: Option<Arc<Parameters>>,
}

impl Head {
    pub(crate) fn read<B>(request: &Request<B>) -> Result<Self, Fault> {
        let headers = request.headers();
        let own = one(headers, &TIMEOUT)?.map(milliseconds).transpose()?;
        let protocols = one(headers, &GRPC_TIMEOUT)?.map(grpc_timeout).transpose()?;
        Ok(Self {
            credential: credential(request),
            timeout: own.into_iter().chain(protocols).min(),
            unit: unit(headers)?,
            // What is no trace context starts a trace of its own.
            trace_parent: one(headers, &TRACEPARENT)
                .ok()
                .flatten()
                .and_then(|text| text.parse().ok()),
            errors_end_stream: headers.get(STREAM_ERRORS).is_some_and(|value| value == "true"),
            forwarded: None,
        })
    }

    /// The same, with the metadata that is forwarded.
    pub(crate) fn forwarding(mut self, pattern: Option<&HeaderPattern>, headers: &HeaderMap) -> Result<Self, Fault> {
        if let Some(pattern) = pattern {
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
            let gathered = pattern.gather(headers)?;
            self.forwarded = (!gathered.is_empty()).then(|| Arc::new(gathered));
        }
        Ok(self)
    }

    /// A request with the metadata that is forwarded to it.
    pub(crate) fn forwarded_into(&self, mut request: InferRequest) -> Result<InferRequest, Fault> {
        if let Some(forwarded) = &self.forwarded {
            add_forwarded(Parameters::clone(forwarded), &mut request.parameters)?;
        }
        Ok(request)
    }
}

/// Whether it is a gRPC call at all.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
    let rest = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    // Not grpc-web, which is another protocol.
    rest.is_some_and(|rest| rest.first().is_none_or(|byte| matches!(byte, b'+' | b';')))
}

/// How the caller packs what it sends, and so how its answer is packed: who sends plain messages gets plain ones, though it
/// may say that it could read others, as most clients do.
pub(crate) fn encoding(headers: &HeaderMap) -> Option<CompressionEncoding> {
    match headers.get(ENCODING)?.as_bytes() {
        b"gzip" => Some(CompressionEncoding::Gzip),
        b"deflate" => Some(CompressionEncoding::Deflate),
        _ => None,
    }
}

/// The credential of a call with the certificate of its connection, or what a caller on this machine has instead. Two
/// credentials, or one that is no text, is a malformed one.
pub(crate) fn credential<B>(request: &Request<B>) -> Credential {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let first = values
        .next()
        .map(|value| value.to_str().unwrap_or(Credential::UNREADABLE));
    // Both put there by the connection: what its client has shown, and that its other end is this machine.
    let certificate = request.extensions().get::<Arc<PeerCertificate>>();
    if let (None, None, Some(local)) = (first, certificate, request.extensions().get::<LocalTenant>()) {
        return local.credential(|name| request.headers().contains_key(name));
    }
    let only = if values.next().is_some() {
        Some(Credential::UNREADABLE)
    } else {
        first
    };
    let address = request.extensions().get::<IpAddr>().copied();
    Credential::from_header(only)
        .over(certificate.cloned())
        .from_address(address)
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Fault::invalid(format!("the metadata {name} is there more than once")));
    }
    let text = value.to_str();
    text.map(Some)
        .map_err(|_| Fault::invalid(format!("the metadata {name} is not text")))
}

fn milliseconds(text: &str) -> Result<Duration, Fault> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    let timeout = number.map(Duration::from_millis);
    let allowed = |timeout: &Duration| !timeout.is_zero() && *timeout <= MAX_TIMEOUT;
    timeout.filter(allowed).ok_or_else(|| {
        Fault::invalid(format!(
            "the metadata {TIMEOUT} must be a whole number of milliseconds from 1 to {}",
            MAX_TIMEOUT.as_millis()
        ))
    })
}

/// The protocol's own form: up to eight digits and a unit.
fn grpc_timeout(text: &str) -> Result<Duration, Fault> {
    let wrong = || {
        Fault::invalid(format!(
            "the metadata {GRPC_TIMEOUT} must be up to {MAX_TIMEOUT_DIGITS} digits and one of H, M, S, m, u, n"
        ))
    };
    let unit = text.chars().last().ok_or_else(wrong)?;
    let digits = text.strip_suffix(unit).unwrap_or_default();
    let well_formed =
        (1..=MAX_TIMEOUT_DIGITS).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = well_formed.then(|| digits.parse().ok()).flatten().ok_or_else(wrong)?;
    let timeout = match unit {
        'H' => Duration::from_secs(number.saturating_mul(3_600)),
        'M' => Duration::from_secs(number.saturating_mul(60)),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return Err(wrong()),
    };
    // Clients write a far deadline where they have none.
    Ok(timeout.min(MAX_TIMEOUT))
}

fn unit(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let unit = one(headers, &UNIT)?;
    match unit {
        Some(unit) if !(1..=MAX_UNIT_BYTES).contains(&unit.len()) => Err(Fault::invalid(format!(
            "the metadata {UNIT} must be 1 to {MAX_UNIT_BYTES} visible ASCII characters"
        ))),
        unit => Ok(unit.map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(pairs: &[(HeaderName, &str)]) -> Result<Head, String> {
        let mut request = Request::new(());
        for (name, value) in pairs {
            request
                .headers_mut()
                .append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        Head::read(&request).map_err(|fault| fault.to_string())
    }

    #[test]
    fn the_protocols_timeout_is_read_in_every_unit() {
        let timeout = |text: &str| head(&[(GRPC_TIMEOUT, text)]).map(|head| head.timeout);
        for (text, milliseconds) in [
            ("1H", 3_600_000),
            ("2M", 120_000),
            ("3S", 3_000),
            ("4m", 4),
            ("5000u", 5),
        ] {
            assert_eq!(timeout(text), Ok(Some(Duration::from_millis(milliseconds))), "{text}");
        }
        assert_eq!(timeout("99999999H"), Ok(Some(MAX_TIMEOUT)));
        assert_eq!(timeout("0n"), Ok(Some(Duration::ZERO)));
        for bad in ["", "S", "1", "123456789S", "1s", "-1S", "1.5S", "1 S"] {
            assert!(timeout(bad).unwrap_err().contains("grpc-timeout"), "{bad}");
        }
    }

    #[test]
    fn of_two_timeouts_the_shorter_counts() {
        let both = |own: &str, protocols: &str| head(&[(TIMEOUT, own), (GRPC_TIMEOUT, protocols)]);
        assert_eq!(both("5", "1S").unwrap().timeout, Some(Duration::from_millis(5)));
        assert_eq!(both("5000", "1S").unwrap().timeout, Some(Duration::from_secs(1)));
        for bad in ["0", "86400001", "x", "+1"] {
            assert!(both(bad, "1S").is_err(), "{bad}");
        }
        assert!(both("86400000", "1S").is_ok());
        assert!(
            head(&[(TIMEOUT, "1"), (TIMEOUT, "1")])
                .unwrap_err()
                .contains("more than once")
        );
    }

    #[test]
    fn a_unit_has_a_bound() {
        let unit = |length: usize| head(&[(UNIT, &"u".repeat(length))]);
        assert!(unit(256).is_ok());
        assert!(unit(257).is_err());
        assert!(unit(0).is_err());
    }

    #[test]
    fn a_caller_is_local_by_its_connection_and_only_where_it_shows_nothing() {
        let local = LocalTenant::new(mesh_types::TenantId::parse("acme").unwrap());
        let shown = |local: Option<&LocalTenant>, header: Option<&'static str>| {
            let mut request = Request::new(());
            local.map(|local| request.extensions_mut().insert(local.clone()));
            header.map(|name| {
                request
                    .headers_mut()
                    .insert(name, HeaderValue::from_static("127.0.0.1"))
            });
            format!("{:?}", credential(&request))
        };
        assert_eq!(shown(Some(&local), None), "Credential(local)");
        assert_eq!(shown(None, None), "Credential(none)");
        assert_eq!(shown(None, Some("x-forwarded-for")), "Credential(none)");
        assert_eq!(shown(Some(&local), Some("x-forwarded-for")), "Credential(none)");
        assert_eq!(shown(Some(&local), Some("authorization")), "Credential(..)");
    }

    #[test]
    fn only_grpc_is_grpc() {
        let is = |kind: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            is_grpc(&headers)
        };
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        assert!(!is("application/grpc-web") && !is("application/json") && !is_grpc(&HeaderMap::new()));
    }
}
