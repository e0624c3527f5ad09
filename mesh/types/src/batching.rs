//! How a model's requests wait, are put together and are run: Triton's `ModelDynamicBatching` and `ModelQueuePolicy`, and
//! what the mesh adds to them.
//!
//! Owns the fields and their checks; `worker/scheduler` gives them their meaning. Field names and defaults are Triton's
//! (`model_config.proto`), so that a configuration carries over; additions have names that Triton does not use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The most priority levels of a model: each is a queue of its own for every tenant.
pub const MAX_PRIORITY_LEVELS: u32 = 16;
/// The longest that a configuration may make a request wait, or a batch run: ten minutes.
pub(crate) const MAX_MICROSECONDS: u64 = 600_000_000;
/// The most of a request's slack that may be spent on waiting for company: beyond it a late batch misses its deadlines.
pub(crate) const MAX_DEFER_PERCENT: u32 = 90;

/// What happens to a request that has waited for its queue's timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TimeoutAction {
    /// It is refused.
    #[default]
    Reject,
    /// It goes behind all others of its level that have not waited so long.
    Delay,
}

/// The rules of one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QueuePolicy {
    /// What a timeout does.
    pub timeout_action: TimeoutAction,
    /// How long a request may wait; 0 is without bound.
    pub default_timeout_microseconds: u64,
    /// Whether a request may name a shorter one (its parameter `timeout`).
    pub allow_timeout_override: bool,
    /// Most requests in the queue; 0 takes the worker's own bound.
    pub max_queue_size: u32,
}

/// What an idle device does about requests that could still wait for company.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WhenIdle {
    /// It waits with them for `max_queue_delay_microseconds`, as Triton does.
    #[default]
    Wait,
    /// It takes what is there: a delay then only gathers requests while the device is busy.
    Send,
}

/// When requests are put together into one execution. Absent: each request runs alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DynamicBatching {
    /// Sizes to send at once when reached; empty means only the largest.
    pub preferred_batch_size: Vec<u32>,
    /// How long the oldest request may wait for company; 0 sends what is there.
    pub max_queue_delay_microseconds: u64,
    /// Answers leave in the order in which a tenant's requests came.
    pub preserve_ordering: bool,
    /// Priorities that requests may have, 1 being the highest; 0 means that all are equal.
    pub priority_levels: u32,
    /// The priority of a request that names none; 1 to `priority_levels`.
    pub default_priority_level: u32,
    /// The queue's rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_queue_policy: Option<QueuePolicy>,
    /// The rules of single priority levels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub priority_queue_policy: BTreeMap<u32, QueuePolicy>,
    /// Requests that may wait for the model over all its queues; 0 takes the worker's own bound. (An addition.)
    pub max_queue_size: u32,
    /// What an idle device does. (An addition.)
    pub when_idle: WhenIdle,
    /// Percent of the time until a request must start that it may be kept for company: fewer, fuller batches for a longer
    /// wait. 0 keeps nothing beyond `max_queue_delay_microseconds`. (An addition.)
    pub defer_percent: u32,
    /// Where no size is preferred: while more wait than fit, batches are as small as they can be at all but the full rate,
    /// which keeps waits short where larger batches gain nothing. (An addition; Triton always fills the batch.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right_size: Option<bool>,
}

/// What happens to an answer that holds NaN or infinity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum NonFinite {
    /// It is given as it is, and nobody looks.
    #[default]
    Pass,
    /// It is given as it is, and counted.
    Count,
    /// The request fails; its batch mates do not.
    Fail,
}

/// What is done about executions that go wrong. (An addition to Triton's vocabulary.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExecutionPolicy {
    /// Outputs that are not finite.
    pub non_finite_outputs: NonFinite,
    /// How long one batch may run before its device thread counts as hung; 0 takes the worker's own bound.
    pub timeout_microseconds: u64,
}

impl DynamicBatching {
    /// The level of a request that asks for `priority`: as in Triton, 0 and what is beyond the levels take the default.
    pub fn level(&self, priority: u32) -> u32 {
        let levels = self.priority_levels.max(1);
        if (1..=levels).contains(&priority) {
            return priority;
        }
        self.default_priority_level.clamp(1, levels)
    }

    /// The rules of a level.
    pub fn policy(&self, level: u32) -> QueuePolicy {
        let own = self.priority_queue_policy.get(&level).copied();
        own.or(self.default_queue_policy).unwrap_or_default()
    }

    /// Says everything wrong with it: the field's name within `dynamic_batching`, and the problem.
    pub(crate) fn check(&self, max_batch_size: u32, mut say: impl FnMut(String, String)) {
        if max_batch_size == 0 {
            say(String::new(), "needs max_batch_size of at least 1".into());
        }
        let fits = |size: &u32| (1..=max_batch_size).contains(size);
        if !self.preferred_batch_size.iter().all(fits) {
            let problem = format!("each is 1 to max_batch_size ({max_batch_size})");
            say(".preferred_batch_size".into(), problem);
        }
        if self.max_queue_delay_microseconds > MAX_MICROSECONDS {
            let problem = format!("at most {MAX_MICROSECONDS} (ten minutes)");
            say(".max_queue_delay_microseconds".into(), problem);
        }
        if self.priority_levels > MAX_PRIORITY_LEVELS {
            let problem = format!("at most {MAX_PRIORITY_LEVELS}, got {}", self.priority_levels);
            say(".priority_levels".into(), problem);
        }
        let default = self.default_priority_level;
        if self.priority_levels > 0 && !(1..=self.priority_levels).contains(&default) {
            let problem = format!("1 to priority_levels ({}), got {default}", self.priority_levels);
            say(".default_priority_level".into(), problem);
        }
        if self.priority_levels == 0 && default > 0 {
            say(".default_priority_level".into(), "needs priority_levels".into());
        }
        for level in self.priority_queue_policy.keys() {
            if !(1..=self.priority_levels).contains(level) {
                let problem = format!("levels are 1 to priority_levels ({})", self.priority_levels);
                say(format!(".priority_queue_policy[{level}]"), problem);
            }
        }
        let named = self.default_queue_policy.iter().map(|policy| (None, policy));
        let levels = self.priority_queue_policy.iter();
        for (level, policy) in named.chain(levels.map(|(level, policy)| (Some(level), policy))) {
            if policy.default_timeout_microseconds > MAX_MICROSECONDS {
                let place = level.map_or(".default_queue_policy".into(), |level| {
                    format!(".priority_queue_policy[{level}]")
                });
                let problem = format!("at most {MAX_MICROSECONDS} (ten minutes)");
                say(format!("{place}.default_timeout_microseconds"), problem);
            }
        }
        if self.defer_percent > MAX_DEFER_PERCENT {
            let problem = format!("at most {MAX_DEFER_PERCENT}, got {}", self.defer_percent);
            say(".defer_percent".into(), problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(batching: &DynamicBatching) -> Vec<String> {
        let mut fields = Vec::new();
        batching.check(8, |field, _| fields.push(field));
        fields
    }

    #[test]
    fn a_priority_beyond_the_levels_takes_the_default() {
        let batching = DynamicBatching {
            priority_levels: 3,
            default_priority_level: 2,
            ..DynamicBatching::default()
        };
        assert_eq!([0, 1, 3, 4].map(|priority| batching.level(priority)), [2, 1, 3, 2]);
        assert_eq!(DynamicBatching::default().level(7), 1);
    }

    #[test]
    fn a_level_without_rules_of_its_own_takes_the_defaults() {
        let short = QueuePolicy {
            default_timeout_microseconds: 5,
            ..QueuePolicy::default()
        };
        let batching = DynamicBatching {
            priority_levels: 2,
            default_priority_level: 1,
            default_queue_policy: Some(short),
            priority_queue_policy: BTreeMap::from([(2, QueuePolicy::default())]),
            ..DynamicBatching::default()
        };
        assert_eq!(batching.policy(1), short);
        assert_eq!(batching.policy(2), QueuePolicy::default());
        assert!(problems(&batching).is_empty());
    }

    #[test]
    fn each_bound_is_checked_at_the_bound_and_beyond() {
        let at = |levels: u32, default: u32, delay: u64, defer: u32| DynamicBatching {
            priority_levels: levels,
            default_priority_level: default,
            max_queue_delay_microseconds: delay,
            defer_percent: defer,
            ..DynamicBatching::default()
        };
        assert!(
            problems(&at(
                MAX_PRIORITY_LEVELS,
                MAX_PRIORITY_LEVELS,
                MAX_MICROSECONDS,
                MAX_DEFER_PERCENT
            ))
            .is_empty()
        );
        assert_eq!(problems(&at(MAX_PRIORITY_LEVELS + 1, 1, 0, 0)), [".priority_levels"]);
        assert_eq!(problems(&at(2, 3, 0, 0)), [".default_priority_level"]);
        assert_eq!(problems(&at(2, 0, 0, 0)), [".default_priority_level"]);
        assert_eq!(problems(&at(0, 1, 0, 0)), [".default_priority_level"]);
        assert_eq!(
            problems(&at(0, 0, MAX_MICROSECONDS + 1, 0)),
            [".max_queue_delay_microseconds"]
        );
        assert_eq!(problems(&at(0, 0, 0, MAX_DEFER_PERCENT + 1)), [".defer_percent"]);
    }
}
