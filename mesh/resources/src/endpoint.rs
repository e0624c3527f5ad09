//! Endpoints and how their requests are split.

use mesh_types::{ModelId, ServiceClass};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{LimitsSpec, Problem, VersionRef, model::MAX_DESCRIPTION, tenant::check_text};

/// The most arms of one endpoint.
pub const MAX_ARMS: usize = 16;
/// The longest default deadline: ten minutes.
pub const MAX_TIMEOUT_MS: u64 = 600_000;
/// All of an endpoint's traffic, in hundredths of a percent.
pub const ALL_HUNDREDTHS: u32 = 10_000;
/// The longest that an answer is remembered: a day.
pub const MAX_CACHE_TTL_SECONDS: u64 = 86_400;
/// The largest answer that may be remembered.
pub const MAX_CACHE_ENTRY_BYTES: u64 = 64 << 20;
const MAX_UNIT: usize = 64;
const MAX_SALT: usize = 64;

/// A name that tenants call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where requests go; the weights sum to 100.
    pub arms: Vec<ArmSpec>,
    /// The unit that always meets the same arm, such as `user`: a request parameter of that name, or the header
    /// `x-mesh-unit`. Absent: each request is split on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky_by: Option<String>,
    /// What the split of units is drawn with; another salt is another split. Filled in at the first write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// The deadline of requests that bring none, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How urgent its requests are on a busy device: `interactive`, or `batch`, which goes when nothing interactive waits. A
    /// caller may lower it with the request parameter `service_class`.
    #[serde(default, skip_serializing_if = "is_interactive")]
    #[schema(value_type = String)]
    pub service_class: ServiceClass,
    /// Remember answers, so that an equal request is not computed again; absent: every request is computed. Only for models
    /// that answer equal requests alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,
    /// What its requests may use, besides the tenant's limits.
    #[serde(default, skip_serializing_if = "LimitsSpec::is_empty")]
    pub limits: LimitsSpec,
}

/// How an endpoint's answers are remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CacheSpec {
    /// For how long, in seconds; at most a day.
    pub ttl_seconds: u64,
    /// The most bytes of one answer; a larger one is not remembered.
    #[serde(default = "default_max_entry_bytes")]
    pub max_entry_bytes: u64,
}

const fn default_max_entry_bytes() -> u64 {
    1 << 20
}

impl CacheSpec {
    fn check(&self, problems: &mut Vec<Problem>) {
        let mut in_range = |field: &str, value: u64, max: u64| {
            if !(1..=max).contains(&value) {
                problems.push(Problem::new(field, format!("{value} is not within 1 to {max}")));
            }
        };
        in_range("spec.cache.ttl_seconds", self.ttl_seconds, MAX_CACHE_TTL_SECONDS);
        in_range(
            "spec.cache.max_entry_bytes",
            self.max_entry_bytes,
            MAX_CACHE_ENTRY_BYTES,
        );
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_interactive(class: &ServiceClass) -> bool {
    *class == ServiceClass::Interactive
}

/// One way a request can go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArmSpec {
    /// The arm's name, unique within the endpoint.
    pub name: String,
    /// A model of the same tenant, or one granted to it.
    #[schema(value_type = String)]
    pub model: ModelId,
    /// Which version; absent: the model's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionRef>,
    /// Its share in percent, at most two decimals.
    pub weight: f64,
}

impl ArmSpec {
    /// The weight in hundredths of a percent.
    pub fn hundredths(&self) -> u32 {
        let hundredths = (self.weight * 100.0).round();
        // Checked to be within 0 to 100 percent; a cast of anything else saturates.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "float casts saturate, and the value is checked"
        )]
        let hundredths = hundredths as u32;
        hundredths
    }

    fn has_two_decimals(&self) -> bool {
        (self.weight * 100.0 - (self.weight * 100.0).round()).abs() < 1e-6
    }
}

impl EndpointSpec {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_text(
            "spec.description",
            self.description.as_deref(),
            MAX_DESCRIPTION,
            problems,
        );
        self.limits.check(problems);
        self.check_arms(problems);
        if let Some(unit) = &self.sticky_by {
            let well_formed = !unit.is_empty()
                && unit.len() <= MAX_UNIT
                && unit
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
            if !well_formed {
                problems.push(Problem::new(
                    "spec.sticky_by",
                    format!("a unit is 1 to {MAX_UNIT} letters, digits, '_' and '-', such as user"),
                ));
            }
        }
        if self
            .salt
            .as_ref()
            .is_some_and(|salt| salt.is_empty() || salt.len() > MAX_SALT)
        {
            problems.push(Problem::new("spec.salt", format!("1 to {MAX_SALT} bytes")));
        }
        if self
            .timeout_ms
            .is_some_and(|timeout| timeout == 0 || timeout > MAX_TIMEOUT_MS)
        {
            problems.push(Problem::new("spec.timeout_ms", format!("1 to {MAX_TIMEOUT_MS}")));
        }
        if let Some(cache) = &self.cache {
            cache.check(problems);
        }
    }

    fn check_arms(&self, problems: &mut Vec<Problem>) {
        if self.arms.is_empty() || self.arms.len() > MAX_ARMS {
            problems.push(Problem::new(
                "spec.arms",
                format!("{} arms; an endpoint has 1 to {MAX_ARMS}", self.arms.len()),
            ));
            return;
        }
        let before = problems.len();
        for (index, arm) in self.arms.iter().enumerate() {
            let field = |name: &str| format!("spec.arms[{index}].{name}");
            if let Err(error) = mesh_types::Label::parse(&arm.name) {
                problems.push(Problem::new(
                    field("name"),
                    error.to_string().replace("label name", "arm name"),
                ));
            }
            if self.arms.iter().take(index).any(|other| other.name == arm.name) {
                problems.push(Problem::new(
                    field("name"),
                    format!("'{}' is there twice: each arm needs a name of its own", arm.name),
                ));
            }
            if !(0.0..=100.0).contains(&arm.weight) {
                problems.push(Problem::new(
                    field("weight"),
                    format!("{} is not within 0 to 100 percent", arm.weight),
                ));
            } else if !arm.has_two_decimals() {
                problems.push(Problem::new(
                    field("weight"),
                    format!("{} has more than two decimals", arm.weight),
                ));
            }
        }
        let sum: u32 = self.arms.iter().map(ArmSpec::hundredths).fold(0, u32::saturating_add);
        if problems.len() == before && sum != ALL_HUNDREDTHS {
            problems.push(Problem::new(
                "spec.arms",
                format!("weights sum to {}, they must sum to 100", f64::from(sum) / 100.0),
            ));
        }
    }
}
