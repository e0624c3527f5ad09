//! W3C trace context (<https://www.w3.org/TR/trace-context/>, version 00): read, written, carried.

use std::{fmt, str::FromStr};

/// Identifies one span of one trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TraceContext {
    /// The whole trace; never zero in a valid context.
    pub trace_id: u128,
    /// This span; never zero in a valid context.
    pub span_id: u64,
    /// Whether the caller records it.
    pub sampled: bool,
}

/// A `traceparent` that is not one; by the specification it is ignored and a new trace begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed traceparent")]
pub struct TraceContextError;

impl TraceContext {
    /// The same trace, another span.
    #[must_use]
    pub fn child(self, span_id: u64) -> Self {
        Self { span_id, ..self }
    }
}

fn lower_hex(text: &str, digits: usize) -> Result<u128, TraceContextError> {
    let well_formed = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !well_formed {
        return Err(TraceContextError);
    }
    u128::from_str_radix(text, 16).map_err(|_| TraceContextError)
}

impl FromStr for TraceContext {
    type Err = TraceContextError;

    fn from_str(header: &str) -> Result<Self, TraceContextError> {
        let mut fields = header.trim().split('-');
        let mut next = || fields.next().ok_or(TraceContextError);
        let version = lower_hex(next()?, 2)?;
        let trace_id = lower_hex(next()?, 32)?;
        let span_id = u64::try_from(lower_hex(next()?, 16)?).map_err(|_| TraceContextError)?;
        let flags = lower_hex(next()?, 2)?;
        // Version ff is invalid; version 00 has exactly four fields, later ones may have more.
        let malformed = version == 0xff || (version == 0 && fields.next().is_some()) || trace_id == 0 || span_id == 0;
        if malformed {
            return Err(TraceContextError);
        }
        Ok(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id,
            self.span_id,
            u8::from(self.sampled)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn the_specifications_example_reads_back_as_written() {
        assert_eq!(EXAMPLE.parse::<TraceContext>().unwrap().to_string(), EXAMPLE);
    }

    #[test]
    fn malformed_headers_are_refused() {
        for bad in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        ] {
            assert!(bad.parse::<TraceContext>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_later_version_may_carry_more_fields() {
        assert!(
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more"
                .parse::<TraceContext>()
                .is_ok()
        );
    }
}
