//! The rules by name, and the refusal that names one.
//!
//! Owns the names that callers, metrics and logs see: a bounded set, made of whose limit it is and what it bounds.

use std::{fmt, time::Duration};

use mesh_types::{Fault, FaultClass, FaultSource, Retry};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// Requests.
    Requests,
    /// Rows along the batch dimension.
    Rows,
    /// Bytes of input tensors.
    InputBytes,
    /// Time of devices; counted in microseconds and shown in milliseconds.
    DeviceTime,
}

impl Unit {
    /// Every unit, in the order of [`Amounts`].
    pub const ALL: [Self; 4] = [Self::Requests, Self::Rows, Self::InputBytes, Self::DeviceTime];

    /// How many counted units make one that is shown.
    pub const fn per_shown(self) -> u64 {
        match self {
            Self::DeviceTime => 1_000,
            _ => 1,
        }
    }
}

/// An amount of each unit, in the order of [`Unit::ALL`].
pub type Amounts = [u64; 4];

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The tenant's.
    Tenant,
    /// One API key's.
    Key,
    /// One subject's of an issuer's tokens.
    Token,
    /// An endpoint's.
    Endpoint,
    /// A model's, for each tenant that calls it.
    Model,
}

/// What a rule bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is its name in words")]
pub enum What {
    Requests,
    Rows,
    InputBytes,
    DeviceTime,
    Concurrency,
    QueuedRows,
    QueuedBytes,
    DailyRequests,
    DailyRows,
    DailyInputBytes,
    DailyDeviceTime,
    MonthlyRequests,
    MonthlyRows,
    MonthlyInputBytes,
    MonthlyDeviceTime,
}

/// In the order of [`What`].
macro_rules! names {
    ($before:literal, $prefix:literal, $after:literal) => {
        [
            concat!($before, $prefix, "requests", $after),
            concat!($before, $prefix, "rows", $after),
            concat!($before, $prefix, "input-bytes", $after),
            concat!($before, $prefix, "device-ms", $after),
            concat!($before, $prefix, "concurrency", $after),
            concat!($before, $prefix, "queued-rows", $after),
            concat!($before, $prefix, "queued-bytes", $after),
            concat!($before, $prefix, "daily-requests", $after),
            concat!($before, $prefix, "daily-rows", $after),
            concat!($before, $prefix, "daily-input-bytes", $after),
            concat!($before, $prefix, "daily-device-ms", $after),
            concat!($before, $prefix, "monthly-requests", $after),
            concat!($before, $prefix, "monthly-rows", $after),
            concat!($before, $prefix, "monthly-input-bytes", $after),
            concat!($before, $prefix, "monthly-device-ms", $after),
        ]
    };
}

type Names = [[&'static str; 15]; 5];

static NAMES: Names = [
    names!("", "", ""),
    names!("", "key-", ""),
    names!("", "subject-", ""),
    names!("", "endpoint-", ""),
    names!("", "model-", ""),
];

/// As an item of a structured list begins that says what is left.
static ITEMS: Names = [
    names!("\"", "", "\";r="),
    names!("\"", "key-", "\";r="),
    names!("\"", "subject-", "\";r="),
    names!("\"", "endpoint-", "\";r="),
    names!("\"", "model-", "\";r="),
];

impl What {
    /// The sustained rate of a unit.
    pub const fn rate(unit: Unit) -> Self {
        match unit {
            Unit::Requests => Self::Requests,
            Unit::Rows => Self::Rows,
            Unit::InputBytes => Self::InputBytes,
            Unit::DeviceTime => Self::DeviceTime,
        }
    }

    /// A unit's budget for a day.
    pub const fn daily(unit: Unit) -> Self {
        match unit {
            Unit::Requests => Self::DailyRequests,
            Unit::Rows => Self::DailyRows,
            Unit::InputBytes => Self::DailyInputBytes,
            Unit::DeviceTime => Self::DailyDeviceTime,
        }
    }

    /// A unit's budget for a month.
    pub const fn monthly(unit: Unit) -> Self {
        match unit {
            Unit::Requests => Self::MonthlyRequests,
            Unit::Rows => Self::MonthlyRows,
            Unit::InputBytes => Self::MonthlyInputBytes,
            Unit::DeviceTime => Self::MonthlyDeviceTime,
        }
    }

    /// Behind the bound, in words.
    const fn each(self) -> &'static str {
        match self {
            Self::Requests | Self::Rows | Self::InputBytes | Self::DeviceTime => " a second",
            Self::Concurrency | Self::QueuedRows | Self::QueuedBytes => "",
            Self::DailyRequests | Self::DailyRows | Self::DailyInputBytes | Self::DailyDeviceTime => " a day",
            Self::MonthlyRequests | Self::MonthlyRows | Self::MonthlyInputBytes | Self::MonthlyDeviceTime => " a month",
        }
    }
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// Whose.
    pub scope: Scope,
    /// Of what.
    pub what: What,
}

impl Rule {
    /// A tenant's own rule.
    pub const fn of_tenant(what: What) -> Self {
        Self {
            scope: Scope::Tenant,
            what,
        }
    }

    /// The name in headers, bodies, metrics and logs.
    pub fn name(self) -> &'static str {
        self.of(&NAMES)
    }

    /// How an item of a structured list begins that says what is left of it: a text for each, because most answers hold some.
    pub(super) fn item(self) -> &'static str {
        self.of(&ITEMS)
    }

    fn of(self, names: &Names) -> &'static str {
        let names = names.get(self.scope as usize);
        names
            .and_then(|names| names.get(self.what as usize))
            .copied()
            .unwrap_or_default()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A limit that stands in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// It is used up for now.
    #[error("the limit '{rule}' of {limit}{} is reached: try again in {}", rule.what.each(), wait(*.retry_after))]
    Reached {
        /// Which.
        rule: Rule,
        /// Its bound, in units that are shown.
        limit: u64,
        /// When the same request would fit.
        retry_after: Duration,
    },
    /// The request alone is more than the limit ever lets through.
    #[error(
        "the request comes to {asked}, and the limit '{rule}' lets {limit} through at once: send less in a request"
    )]
    Beyond {
        /// Which.
        rule: Rule,
        /// The most that fits.
        limit: u64,
        /// What the request comes to.
        asked: u64,
    },
    /// More tenants, or subjects of one tenant, than are kept account of.
    #[error("too many {0} at once: try again")]
    Full(&'static str),
}

/// In words, rounded up: who waits as long as told is let in.
fn wait(wait: Duration) -> String {
    const LONG: Duration = Duration::from_secs(100);
    if wait >= LONG {
        return format!("{} s", wait.as_nanos().div_ceil(1_000_000_000));
    }
    format!("{} ms", wait.as_nanos().div_ceil(1_000_000))
}

impl LimitError {
    /// Which rule, if it is the caller's own.
    pub fn rule(&self) -> Option<Rule> {
        match self {
            Self::Reached { rule, .. } | Self::Beyond { rule, .. } => Some(*rule),
            Self::Full(_) => None,
        }
    }
}

/// When to come back where nobody knows when there is room: soon, but not at once.
pub const ROOM_RETRY: Duration = Duration::from_millis(100);

impl From<LimitError> for Fault {
    fn from(error: LimitError) -> Self {
        let own = |class| Self::new(class, FaultSource::TenantLimit, error.to_string());
        match error {
            LimitError::Reached { retry_after, .. } => {
                own(FaultClass::RateLimited).with_retry(Retry::After(retry_after))
            }
            LimitError::Beyond { .. } => own(FaultClass::TooLarge),
            LimitError::Full(_) => {
                Self::unavailable(FaultSource::Mesh, error.to_string()).with_retry(Retry::After(ROOM_RETRY))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_a_name_of_its_own() {
        let mut names: Vec<&str> = NAMES.iter().flatten().copied().collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 75);
        for (name, item) in NAMES.iter().flatten().zip(ITEMS.iter().flatten()) {
            assert_eq!(*item, format!("\"{name}\";r="));
        }
        let last = Rule {
            scope: Scope::Model,
            what: What::MonthlyDeviceTime,
        };
        assert_eq!(last.name(), "model-monthly-device-ms");
        for unit in Unit::ALL {
            let name = |what| Rule::of_tenant(what).name();
            let of = name(What::rate(unit));
            assert_eq!(name(What::daily(unit)), format!("daily-{of}"));
            assert_eq!(name(What::monthly(unit)), format!("monthly-{of}"));
        }
    }

    #[test]
    fn the_callers_own_limit_and_the_meshs_bounds_are_told_apart() {
        let rule = Rule::of_tenant(What::Rows);
        let reached = LimitError::Reached {
            rule,
            limit: 3,
            retry_after: Duration::from_nanos(1),
        };
        let fault = Fault::from(reached);
        assert_eq!(
            (fault.class, fault.source),
            (FaultClass::RateLimited, FaultSource::TenantLimit)
        );
        assert_eq!(
            fault.message,
            "the limit 'rows' of 3 a second is reached: try again in 1 ms"
        );
        let beyond = Fault::from(LimitError::Beyond {
            rule,
            limit: 3,
            asked: 4,
        });
        assert_eq!((beyond.class, beyond.retry), (FaultClass::TooLarge, Retry::No));
        let full = Fault::from(LimitError::Full("tenants"));
        assert_eq!((full.class, full.source), (FaultClass::Unavailable, FaultSource::Mesh));
        assert_eq!(wait(Duration::from_millis(99_999)), "99999 ms");
        assert_eq!(wait(Duration::from_secs(3_600)), "3600 s");
    }
}
