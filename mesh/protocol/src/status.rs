//! The one table from a fault to what each protocol calls it.

use std::time::Duration;

use mesh_types::{Fault, FaultClass, Retry};

/// The HTTP status of a class of faults. 499 is what proxies call a caller that left.
pub const fn http_status(class: FaultClass) -> u16 {
    match class {
        FaultClass::InvalidArgument | FaultClass::MalformedCredential => 400,
        FaultClass::Unauthenticated => 401,
        FaultClass::PermissionDenied | FaultClass::InsufficientScope => 403,
        FaultClass::NotFound => 404,
        FaultClass::Conflict => 409,
        FaultClass::TooLarge => 413,
        FaultClass::RateLimited => 429,
        FaultClass::Cancelled => 499,
        FaultClass::Internal => 500,
        FaultClass::Unsupported => 501,
        FaultClass::Unavailable => 503,
        FaultClass::DeadlineExceeded => 504,
    }
}

/// The gRPC status code of a class of faults.
pub const fn grpc_code(class: FaultClass) -> i32 {
    match class {
        FaultClass::Cancelled => 1,
        FaultClass::InvalidArgument => 3,
        FaultClass::DeadlineExceeded => 4,
        FaultClass::NotFound => 5,
        FaultClass::PermissionDenied | FaultClass::InsufficientScope => 7,
        FaultClass::TooLarge | FaultClass::RateLimited => 8,
        FaultClass::Conflict => 10,
        FaultClass::Unsupported => 12,
        FaultClass::Internal => 13,
        FaultClass::Unavailable => 14,
        // gRPC has no code of its own for a credential that cannot be read.
        FaultClass::Unauthenticated | FaultClass::MalformedCredential => 16,
    }
}

/// The value of `Retry-After`, for faults that time may mend: whole seconds, rounded up, at least one.
pub fn retry_after_seconds(fault: &Fault) -> Option<u64> {
    if !matches!(fault.class, FaultClass::RateLimited | FaultClass::Unavailable) {
        return None;
    }
    match fault.retry {
        Retry::No => None,
        Retry::Now => Some(1),
        Retry::After(wait) => {
            let part = u64::from(wait.subsec_nanos() > 0);
            Some(
                wait.as_secs()
                    .saturating_add(part)
                    .max(Duration::from_secs(1).as_secs()),
            )
        }
    }
}

/// The same in milliseconds, for callers who can come back sooner than in a second: only where it is known when.
pub fn retry_after_milliseconds(fault: &Fault) -> Option<u64> {
    retry_after_seconds(fault)?;
    match fault.retry {
        Retry::After(wait) => {
            // Rounded up: who waits as long as told is let in.
            let milliseconds = wait.as_nanos().div_ceil(1_000_000);
            Some(u64::try_from(milliseconds).unwrap_or(u64::MAX).max(1))
        }
        Retry::No | Retry::Now => None,
    }
}

/// The value of `WWW-Authenticate` (RFC 6750, section 3) for faults of credentials. Without a bearer credential there is no
/// error code, by section 3.1. Who may not do a thing with any credential is not challenged: another one would not help.
pub const fn challenge(class: FaultClass, credential_presented: bool) -> Option<&'static str> {
    match class {
        FaultClass::Unauthenticated if credential_presented => Some("Bearer realm=\"mesh\", error=\"invalid_token\""),
        FaultClass::Unauthenticated => Some("Bearer realm=\"mesh\""),
        FaultClass::MalformedCredential => Some("Bearer realm=\"mesh\", error=\"invalid_request\""),
        FaultClass::InsufficientScope => Some("Bearer realm=\"mesh\", error=\"insufficient_scope\", scope=\"infer\""),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_types::FaultSource;

    #[test]
    fn the_table_is_what_the_protocols_say() {
        let table = [
            (FaultClass::InvalidArgument, 400, 3),
            (FaultClass::Unauthenticated, 401, 16),
            (FaultClass::PermissionDenied, 403, 7),
            (FaultClass::InsufficientScope, 403, 7),
            (FaultClass::MalformedCredential, 400, 16),
            (FaultClass::NotFound, 404, 5),
            (FaultClass::TooLarge, 413, 8),
            (FaultClass::RateLimited, 429, 8),
            (FaultClass::Unavailable, 503, 14),
            (FaultClass::DeadlineExceeded, 504, 4),
            (FaultClass::Unsupported, 501, 12),
            (FaultClass::Cancelled, 499, 1),
            (FaultClass::Conflict, 409, 10),
            (FaultClass::Internal, 500, 13),
        ];
        for (class, http, grpc) in table {
            assert_eq!((http_status(class), grpc_code(class)), (http, grpc), "{class:?}");
        }
    }

    #[test]
    fn retry_after_is_whole_seconds_rounded_up_and_only_where_waiting_helps() {
        let limited = |retry| {
            retry_after_seconds(&Fault::new(FaultClass::RateLimited, FaultSource::TenantLimit, "x").with_retry(retry))
        };
        assert_eq!(limited(Retry::After(Duration::from_millis(1))), Some(1));
        assert_eq!(limited(Retry::After(Duration::ZERO)), Some(1));
        assert_eq!(limited(Retry::After(Duration::from_millis(1_001))), Some(2));
        assert_eq!(limited(Retry::After(Duration::MAX)), Some(u64::MAX));
        assert_eq!(limited(Retry::Now), Some(1));
        assert_eq!(limited(Retry::No), None);
        assert_eq!(retry_after_seconds(&Fault::invalid("x").with_retry(Retry::Now)), None);
        let busy = |retry| retry_after_milliseconds(&Fault::unavailable(FaultSource::Device, "busy").with_retry(retry));
        assert_eq!(busy(Retry::After(Duration::from_micros(1))), Some(1));
        assert_eq!(busy(Retry::After(Duration::from_millis(37))), Some(37));
        assert_eq!(busy(Retry::After(Duration::from_micros(37_001))), Some(38));
        assert_eq!((busy(Retry::Now), busy(Retry::No)), (None, None));
    }

    #[test]
    fn a_challenge_names_an_error_only_if_a_credential_was_presented() {
        let named = |class, presented| {
            challenge(class, presented).map(|value| value.trim_start_matches("Bearer realm=\"mesh\""))
        };
        assert_eq!(named(FaultClass::Unauthenticated, false), Some(""));
        assert_eq!(
            named(FaultClass::Unauthenticated, true),
            Some(", error=\"invalid_token\"")
        );
        assert_eq!(
            named(FaultClass::MalformedCredential, true),
            Some(", error=\"invalid_request\"")
        );
        assert_eq!(
            named(FaultClass::InsufficientScope, true),
            Some(", error=\"insufficient_scope\", scope=\"infer\"")
        );
        for class in [
            FaultClass::NotFound,
            FaultClass::PermissionDenied,
            FaultClass::InvalidArgument,
        ] {
            assert_eq!(named(class, true), None, "{class:?}");
        }
    }
}
