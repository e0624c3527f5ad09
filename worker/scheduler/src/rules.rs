//! When a model's requests are put together: what a configuration asks for, ready for use.

use std::time::Duration;

use mesh_types::{DynamicBatching, ModelConfig, SequenceBatching, TimeoutAction, WhenIdle};

use crate::SequenceRules;

/// The rules of one priority level's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelRules {
    /// What a timeout does.
    pub action: TimeoutAction,
    /// How long a request may wait; none is without bound.
    pub timeout: Option<Duration>,
    /// Whether a request may name a shorter one.
    pub overridable: bool,
    /// Most requests of one tenant that wait at this level.
    pub max_queue: usize,
}

/// The rules for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRules {
    /// Most rows in one batch.
    pub max_rows: u32,
    /// Whether requests may share a batch at all.
    pub shared: bool,
    /// Sizes to send at once when reached, ascending; empty means only the largest.
    pub preferred: Vec<u32>,
    /// How long the oldest may wait for company.
    pub max_delay: Duration,
    /// Most requests of one tenant that wait for the model, over all its shapes and levels.
    pub max_queue: usize,
    /// One for each priority level, the highest first; never empty.
    pub levels: Vec<LevelRules>,
    /// The level of a request that names none; an index into `levels`.
    pub default_level: usize,
    /// Whether an idle device takes what is there instead of waiting.
    pub send_when_idle: bool,
    /// The part of a request's slack that it may be kept for company, in percent.
    pub defer_percent: u32,
    /// Whether batches stay as small as the full rate allows.
    pub right_size: bool,
    /// Rows that are enough to send a batch at once, where that is less than a full one.
    pub enough: Option<u32>,
    /// How its sequences are served, where it has any.
    pub sequence: Option<SequenceRules>,
    /// Whether nobody can foresee how long a batch takes: a decoupled model's. Nothing is handed to a slot behind such a batch, it
    /// is charged for while it runs, and it is of one tenant, because its time cannot be told apart by rows.
    pub open_ended: bool,
}

impl BatchRules {
    /// The rules that a configuration asks for; `max_queue` is the bound where it names none.
    pub fn of(config: &ModelConfig, max_queue: usize) -> Self {
        let max_rows = config.max_batch_size.max(1);
        if let Some(sequence) = &config.sequence_batching {
            return Self {
                shared: config.batches(),
                sequence: SequenceRules::of(config),
                ..Self::from_sequence(sequence, max_rows, max_queue)
            };
        }
        let Some(batching) = &config.dynamic_batching else {
            // As in Triton: without `dynamic_batching` each request runs alone, however many rows it has.
            return Self {
                shared: false,
                open_ended: config.is_decoupled(),
                ..Self::from_batching(&DynamicBatching::default(), max_rows, max_queue)
            };
        };
        Self {
            shared: config.batches(),
            open_ended: config.is_decoupled(),
            ..Self::from_batching(batching, max_rows, max_queue)
        }
    }

    fn from_sequence(sequence: &SequenceBatching, max_rows: u32, max_queue: usize) -> Self {
        if let Some(oldest) = &sequence.oldest {
            let batching = DynamicBatching {
                preferred_batch_size: oldest.preferred_batch_size.clone(),
                max_queue_delay_microseconds: oldest.max_queue_delay_microseconds,
                ..DynamicBatching::default()
            };
            return Self::from_batching(&batching, max_rows, max_queue);
        }
        let direct = sequence.direct.unwrap_or_default();
        // As in Triton, the delay counts only beside a utilization.
        let waits = direct.minimum_slot_utilization > 0.0;
        let rows = (f64::from(max_rows) * f64::from(direct.minimum_slot_utilization)).ceil();
        let enough = (1..=max_rows).find(|size| f64::from(*size) >= rows);
        let batching = DynamicBatching {
            max_queue_delay_microseconds: if waits { direct.max_queue_delay_microseconds } else { 0 },
            right_size: Some(false),
            ..DynamicBatching::default()
        };
        Self {
            enough: enough.filter(|_| waits),
            ..Self::from_batching(&batching, max_rows, max_queue)
        }
    }

    fn from_batching(batching: &DynamicBatching, max_rows: u32, max_queue: usize) -> Self {
        let mut preferred = batching.preferred_batch_size.clone();
        preferred.retain(|size| (1..=max_rows).contains(size));
        preferred.sort_unstable();
        preferred.dedup();
        let bound = |size: u32, otherwise: usize| match usize::try_from(size) {
            Ok(size) if size > 0 => size.min(otherwise),
            _ => otherwise,
        };
        let max_queue = bound(batching.max_queue_size, max_queue).max(1);
        let levels = (1..=batching.priority_levels.max(1)).map(|level| {
            let policy = batching.policy(level);
            let timeout = policy.default_timeout_microseconds;
            LevelRules {
                action: policy.timeout_action,
                timeout: (timeout > 0).then(|| Duration::from_micros(timeout)),
                overridable: policy.allow_timeout_override,
                max_queue: bound(policy.max_queue_size, max_queue),
            }
        });
        Self {
            max_rows,
            shared: true,
            right_size: batching.right_size.unwrap_or(true) && preferred.is_empty(),
            preferred,
            max_delay: Duration::from_micros(batching.max_queue_delay_microseconds),
            max_queue,
            levels: levels.collect(),
            default_level: index(batching.level(0)),
            send_when_idle: batching.when_idle == WhenIdle::Send,
            defer_percent: batching.defer_percent,
            enough: None,
            sequence: None,
            open_ended: false,
        }
    }

    /// The index of the level of a request that asks for this priority: as in Triton, what is beyond the levels takes the
    /// default.
    pub(crate) fn level(&self, priority: u32) -> usize {
        let asked = index(priority);
        if priority > 0 && asked < self.levels.len() {
            asked
        } else {
            self.default_level
        }
    }

    /// The size at which a batch is full.
    pub(crate) fn largest(&self) -> u32 {
        self.preferred.last().copied().unwrap_or(self.max_rows)
    }

    /// How long a request of this level may wait, and what happens then. As in Triton, a request's own bound counts only where
    /// the level allows it, and only where it is the shorter one.
    pub(crate) fn timeout(&self, level: usize, own: Option<Duration>) -> Option<(Duration, TimeoutAction)> {
        let rules = self.levels.get(level)?;
        let allowed = rules.timeout?;
        let own = own.filter(|own| rules.overridable && *own < allowed && !own.is_zero());
        Some((own.unwrap_or(allowed), rules.action))
    }
}

fn index(priority: u32) -> usize {
    usize::try_from(priority.saturating_sub(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_types::QueuePolicy;

    fn rules(batching: DynamicBatching) -> BatchRules {
        let config = ModelConfig {
            max_batch_size: 8,
            dynamic_batching: Some(batching),
            ..ModelConfig::default()
        };
        BatchRules::of(&config, 100)
    }

    #[test]
    fn a_model_without_dynamic_batching_runs_each_request_alone() {
        let config = ModelConfig {
            max_batch_size: 8,
            ..ModelConfig::default()
        };
        assert!(!BatchRules::of(&config, 100).shared);
        assert!(rules(DynamicBatching::default()).shared);
    }

    #[test]
    fn a_queues_own_bound_counts_only_below_the_workers() {
        let of = |size: u32| {
            rules(DynamicBatching {
                max_queue_size: size,
                ..DynamicBatching::default()
            })
        };
        assert_eq!([0, 1, 99, 101].map(|size| of(size).max_queue), [100, 1, 99, 100]);
    }

    #[test]
    fn an_override_counts_where_it_is_allowed_and_shorter() {
        let of = |default: u64, allowed: bool| {
            rules(DynamicBatching {
                default_queue_policy: Some(QueuePolicy {
                    default_timeout_microseconds: default,
                    allow_timeout_override: allowed,
                    ..QueuePolicy::default()
                }),
                ..DynamicBatching::default()
            })
        };
        let own = Some(Duration::from_micros(50));
        let wait = |rules: BatchRules| rules.timeout(0, own).map(|(wait, _)| wait.as_micros());
        assert_eq!(wait(of(100, true)), Some(50));
        assert_eq!(wait(of(100, false)), Some(100));
        assert_eq!(wait(of(40, true)), Some(40));
        // Without a default there is nothing to override.
        assert_eq!(wait(of(0, true)), None);
    }

    #[test]
    fn sizes_are_preferred_in_order_and_turn_right_sizing_off() {
        let rules = rules(DynamicBatching {
            preferred_batch_size: vec![6, 4, 4, 9],
            ..DynamicBatching::default()
        });
        assert_eq!((rules.preferred.as_slice(), rules.largest()), ([4, 6].as_slice(), 6));
        assert!(!rules.right_size);
    }
}
