//! What a call says beside its message: how long it waits, its unit of stickiness, and its trace.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_types::TraceContext;
use opentelemetry::{Context, trace::TraceContextExt as _};

use crate::Error;

const TIMEOUT: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const UNIT: HeaderName = HeaderName::from_static("x-mesh-unit");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const ARM: HeaderName = HeaderName::from_static("x-mesh-arm");
pub(crate) const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// One try's head.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    /// What is left until the deadline; none where there is none.
    pub(crate) left: Option<Duration>,
    pub(crate) unit: Option<String>,
    pub(crate) trace: Option<TraceContext>,
}

impl Head {
    /// What goes beside a message over HTTP.
    pub(crate) fn over_http(&self) -> Result<HeaderMap, Error> {
        let mut headers = self.both()?;
        if let Some(left) = self.left {
            headers.insert(TIMEOUT, HeaderValue::from(milliseconds(left)));
        }
        Ok(headers)
    }

    /// What goes beside a message over gRPC. A day has fewer milliseconds than the eight digits that a timeout may have.
    pub(crate) fn over_grpc(&self) -> Result<HeaderMap, Error> {
        let mut headers = self.both()?;
        if let Some(left) = self.left {
            put(&mut headers, GRPC_TIMEOUT, &format!("{}m", milliseconds(left)))?;
        }
        Ok(headers)
    }

    fn both(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        if let Some(unit) = &self.unit {
            put(&mut headers, UNIT, unit)?;
        }
        if let Some(trace) = &self.trace {
            put(&mut headers, TRACEPARENT, &trace.to_string())?;
        }
        Ok(headers)
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, text: &str) -> Result<(), Error> {
    let visible = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let value = visible.then(|| HeaderValue::from_str(text).ok()).flatten();
    let value = value.ok_or_else(|| Error::invalid(format!("the {name} holds other than visible ASCII characters")))?;
    headers.insert(name, value);
    Ok(())
}

/// A header of an answer as text.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// The span that is current where the call is made, if OpenTelemetry knows one.
pub(crate) fn current_trace() -> Option<TraceContext> {
    let context = Context::current();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| TraceContext {
        trace_id: u128::from_be_bytes(span.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(span.span_id().to_bytes()),
        sampled: span.is_sampled(),
    })
}

/// Whole milliseconds, rounded up: the server gives up no sooner than the client.
pub(crate) fn milliseconds(left: Duration) -> u64 {
    let part = u128::from(!left.subsec_nanos().is_multiple_of(1_000_000));
    u64::try_from(left.as_millis() + part).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    #[test]
    fn what_is_left_is_rounded_up_and_never_nothing() {
        assert_eq!(milliseconds(Duration::ZERO), 1);
        assert_eq!(milliseconds(Duration::from_millis(7)), 7);
        assert_eq!(milliseconds(Duration::from_nanos(7_000_001)), 8);
        assert_eq!(milliseconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_head_is_what_each_wire_says_it_is() {
        let head = Head {
            left: Some(Duration::from_millis(86_400_000)),
            unit: Some("ada".into()),
            trace: None,
        };
        let (http, grpc) = (head.over_http().unwrap(), head.over_grpc().unwrap());
        assert_eq!(text(&http, &TIMEOUT), Some("86400000"));
        assert_eq!(text(&grpc, &GRPC_TIMEOUT), Some("86400000m"));
        assert_eq!((text(&http, &UNIT), text(&grpc, &UNIT)), (Some("ada"), Some("ada")));
        let unit = Some("a\nb".to_owned());
        assert!(Head { unit, ..head }.over_http().is_err());
    }

    #[test]
    fn the_current_span_is_the_parent() {
        assert_eq!(current_trace(), None);
        let span = SpanContext::new(
            TraceId::from_bytes(7_u128.to_be_bytes()),
            SpanId::from_bytes(9_u64.to_be_bytes()),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        let _entered = Context::new().with_remote_span_context(span).attach();
        let trace = current_trace().map(|trace| trace.to_string());
        assert_eq!(
            trace.as_deref(),
            Some("00-00000000000000000000000000000007-0000000000000009-01")
        );
    }
}
