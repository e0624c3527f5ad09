//! When a model's requests are put together.

use std::time::Duration;

use mesh_types::ModelConfig;

/// The rules for one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRules {
    /// Most rows in one batch.
    pub max_rows: u32,
    /// Whether requests may share a batch at all.
    pub shared: bool,
    /// Sizes to send at once when reached, ascending; never empty.
    pub preferred: Vec<u32>,
    /// How long the oldest may wait for company.
    pub max_delay: Duration,
    /// Most requests waiting for the model, over all its shapes.
    pub max_queue: usize,
}

impl BatchRules {
    /// The rules that a configuration asks for; `max_queue` is the bound where it names none.
    pub fn of(config: &ModelConfig, max_queue: usize) -> Self {
        let max_rows = config.max_batch_size.max(1);
        let Some(batching) = &config.dynamic_batching else {
            // As in Triton: without `dynamic_batching` each request runs alone, however many rows it has.
            return Self {
                max_rows,
                shared: false,
                preferred: vec![max_rows],
                max_delay: Duration::ZERO,
                max_queue,
            };
        };
        let mut preferred = batching.preferred_batch_size.clone();
        preferred.retain(|size| (1..=max_rows).contains(size));
        preferred.sort_unstable();
        preferred.dedup();
        if preferred.is_empty() {
            preferred.push(max_rows);
        }
        let max_queue = match usize::try_from(batching.max_queue_size) {
            Ok(size) if size > 0 => size.min(max_queue),
            _ => max_queue,
        };
        let max_delay = Duration::from_micros(batching.max_queue_delay_microseconds);
        Self {
            max_rows,
            shared: config.batches(),
            preferred,
            max_delay,
            max_queue,
        }
    }
}
