//! What a device has done so far: everything that Triton's statistics extension says of a model, and how busy the device is.
//!
//! Device threads add a whole batch at a time, under one lock per device; the actor adds what left the queue without
//! running. A model's numbers begin when it is loaded and end with it. Sums are of all requests or executions since then;
//! rates are the reader's business.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ahash::AHashMap;
use mesh_scheduler::{Aborted, SequenceCounts};
use mesh_types::{DeviceId, ModelVersionKey, TenantId};

use crate::{responses::ResponseSums, tally::Tally};

/// Batch sizes counted one by one; larger ones are counted at the next power of two, so that the map stays small.
pub const MAX_EXACT_BATCH_SIZE: u32 = 256;
/// Tenants whose device time is counted one by one; that of others is counted together.
pub const MAX_TENANTS_COUNTED: usize = 16_384;

/// A number of times and how long they took together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// How often.
    pub count: u64,
    /// How long in all.
    pub total: Duration,
}

impl Sum {
    /// One more.
    pub(crate) fn add(&mut self, took: Duration) {
        self.merge(Self { count: 1, total: took });
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.count += other.count;
        self.total = self.total.saturating_add(other.total);
    }

    /// The total in nanoseconds, as the statistics extension writes it.
    pub fn nanoseconds(&self) -> u64 {
        u64::try_from(self.total.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Executions of one batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchSizeStatistics {
    /// Gathering their inputs.
    pub compute_input: Sum,
    /// The model.
    pub compute_infer: Sum,
    /// Splitting their outputs.
    pub compute_output: Sum,
}

/// How well the durations of batches were foretold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PredictionStatistics {
    /// Batches whose duration was foretold.
    pub batches: u64,
    /// What was foretold for them.
    pub predicted: Duration,
    /// What they took.
    pub actual: Duration,
    /// By how much they were off, each taken as positive.
    pub absolute_error: Duration,
}

/// The sequences of a stateful model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SequenceStatistics {
    /// Open now, those included that wait for a seat.
    pub open: u64,
    /// Of these, those that wait for a seat.
    pub backlog: u64,
    /// Ended by their callers.
    pub ended: u64,
    /// Ended because no request came for too long.
    pub idle: u64,
    /// Ended because their first request was not run.
    pub not_begun: u64,
    /// Ended because the instance that held their state is gone.
    pub lost: u64,
    /// Ended because their device was drained or their model unloaded.
    pub closed: u64,
}

impl SequenceStatistics {
    fn merge(&mut self, other: &Self) {
        self.open += other.open;
        self.backlog += other.backlog;
        self.ended += other.ended;
        self.idle += other.idle;
        self.not_begun += other.not_begun;
        self.lost += other.lost;
        self.closed += other.closed;
    }
}

/// One model on one device, or on all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelStatistics {
    /// Rows that were answered with outputs.
    pub inference_count: u64,
    /// Executions of the model, those that failed and those after a failure included.
    pub execution_count: u64,
    /// When the last execution ended, in milliseconds since the Unix epoch; 0 if there was none.
    pub last_inference_ms: u64,
    /// Requests answered with outputs, from their arrival on the device.
    pub success: Sum,
    /// Requests that the model or the device failed.
    pub fail: Sum,
    /// The waits of requests answered with outputs.
    pub queue: Sum,
    /// Of the same requests: gathering their batch's inputs.
    pub compute_input: Sum,
    /// Of the same requests: the model.
    pub compute_infer: Sum,
    /// Of the same requests: splitting the batch's outputs.
    pub compute_output: Sum,
    /// Requests whose caller went before they ran, or while a decoupled model answered.
    pub cancelled: u64,
    /// Requests whose deadline passed before they ran.
    pub expired: u64,
    /// Requests that were refused: a full queue, a model that is not ready or is quarantined.
    pub rejected: u64,
    /// Requests whose answer held NaN or infinity, where the model's configuration has that looked for.
    pub non_finite: u64,
    /// Batches that ended in a crash: a panic, a hung execution, a failed reload.
    pub crashed: u64,
    /// Executions that found no memory.
    pub out_of_memory: u64,
    /// Loads that ended well, and how long they took.
    pub loads: Sum,
    /// Loads that failed.
    pub load_failures: u64,
    /// How often it left memory for another's sake.
    pub evictions: u64,
    /// How often it left memory because it was idle.
    pub idle_unloads: u64,
    /// How well its batches' durations were foretold.
    pub prediction: PredictionStatistics,
    /// Its sequences, where it is stateful.
    pub sequences: Option<SequenceStatistics>,
    /// By rows in the execution; those beyond [`MAX_EXACT_BATCH_SIZE`] at the next power of two.
    pub batch_sizes: BTreeMap<u32, BatchSizeStatistics>,
    /// Of a decoupled model: its answers by their place, as many as are counted apart; empty for any other.
    pub responses: Vec<ResponseSums>,
}

impl ModelStatistics {
    /// Adds another device's numbers of the same model.
    pub fn merge(&mut self, other: &Self) {
        self.inference_count += other.inference_count;
        self.execution_count += other.execution_count;
        self.last_inference_ms = self.last_inference_ms.max(other.last_inference_ms);
        let sums = [
            (&mut self.success, other.success),
            (&mut self.fail, other.fail),
            (&mut self.queue, other.queue),
            (&mut self.compute_input, other.compute_input),
            (&mut self.compute_infer, other.compute_infer),
            (&mut self.compute_output, other.compute_output),
        ];
        for (mine, others) in sums {
            mine.merge(others);
        }
        self.cancelled += other.cancelled;
        self.expired += other.expired;
        self.rejected += other.rejected;
        self.non_finite += other.non_finite;
        self.crashed += other.crashed;
        self.out_of_memory += other.out_of_memory;
        self.loads.merge(other.loads);
        self.load_failures += other.load_failures;
        self.evictions += other.evictions;
        self.idle_unloads += other.idle_unloads;
        self.prediction.batches += other.prediction.batches;
        self.prediction.predicted += other.prediction.predicted;
        self.prediction.actual += other.prediction.actual;
        self.prediction.absolute_error += other.prediction.absolute_error;
        if let Some(others) = &other.sequences {
            self.sequences.get_or_insert_default().merge(others);
        }
        ResponseSums::merge_all(&mut self.responses, &other.responses);
        for (rows, others) in &other.batch_sizes {
            let mine = self.batch_sizes.entry(*rows).or_default();
            mine.compute_input.merge(others.compute_input);
            mine.compute_infer.merge(others.compute_infer);
            mine.compute_output.merge(others.compute_output);
        }
    }

    fn add(&mut self, tally: &Tally, predicted: Option<Duration>) {
        self.inference_count += u64::from(tally.rows_answered);
        self.execution_count += u64::from(tally.executions);
        self.success.merge(tally.success);
        self.fail.merge(tally.fail);
        self.queue.merge(tally.queue);
        self.compute_input.merge(tally.compute_input);
        self.compute_infer.merge(tally.compute_infer);
        self.compute_output.merge(tally.compute_output);
        self.cancelled += u64::from(tally.cancelled);
        self.expired += u64::from(tally.expired);
        self.non_finite += u64::from(tally.non_finite);
        self.crashed += u64::from(tally.crashed);
        self.out_of_memory += u64::from(tally.out_of_memory);
        ResponseSums::merge_all(&mut self.responses, &tally.responses);
        for run in &tally.runs {
            let rows = counted_at(run.rows);
            let size = self.batch_sizes.entry(rows).or_default();
            size.compute_input.add(run.input);
            size.compute_infer.add(run.infer);
            size.compute_output.add(run.output);
        }
        if let (Some(predicted), Some(actual)) = (predicted, tally.whole()) {
            self.prediction.batches += 1;
            self.prediction.predicted += predicted;
            self.prediction.actual += actual;
            self.prediction.absolute_error += predicted.abs_diff(actual);
        }
    }
}

/// The batch size at which so many rows are counted.
fn counted_at(rows: u32) -> u32 {
    if rows <= MAX_EXACT_BATCH_SIZE {
        rows
    } else {
        rows.checked_next_power_of_two().unwrap_or(u32::MAX)
    }
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatistics {
    /// Which.
    pub device: DeviceId,
    /// Its threads: at most so many executions at once.
    pub threads: usize,
    /// How long it has been there.
    pub up: Duration,
    /// How long its threads were busy with batches, all together: at most `threads` times `up`.
    pub busy: Duration,
    /// Threads given up because an execution hangs on them, and not come back since.
    pub abandoned: usize,
    /// What the states of sequences take in the host's memory.
    pub sequence_state_bytes: u64,
    /// Its models.
    pub models: BTreeMap<ModelVersionKey, ModelStatistics>,
    /// The device's time by tenant, of all batches that have ended; it adds up to `busy`.
    pub tenants: BTreeMap<TenantId, Duration>,
    /// The time of tenants beyond [`MAX_TENANTS_COUNTED`], together.
    pub other_tenants: Duration,
}

/// All devices of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerStatistics {
    /// In the order of their ids.
    pub devices: Vec<DeviceStatistics>,
}

impl WorkerStatistics {
    /// Each model's numbers over all devices.
    pub fn models(&self) -> BTreeMap<ModelVersionKey, ModelStatistics> {
        let mut all: BTreeMap<ModelVersionKey, ModelStatistics> = BTreeMap::new();
        for (key, model) in self.devices.iter().flat_map(|device| &device.models) {
            all.entry(key.clone()).or_default().merge(model);
        }
        all
    }
}

/// Why a request left without having run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    Cancelled,
    Expired,
    Rejected,
}

#[derive(Debug, Default)]
struct Entry {
    numbers: ModelStatistics,
    last: Option<Instant>,
}

impl Entry {
    fn read(&self, now: Instant, unix_ms: u64) -> ModelStatistics {
        let mut numbers = self.numbers.clone();
        if let Some(last) = self.last {
            let ago = now.saturating_duration_since(last).as_millis();
            numbers.last_inference_ms = unix_ms.saturating_sub(u64::try_from(ago).unwrap_or(u64::MAX));
        }
        numbers
    }
}

/// One device's numbers, as they grow.
#[derive(Debug)]
pub(crate) struct DeviceBooks {
    began: Instant,
    busy: Duration,
    models: AHashMap<Arc<ModelVersionKey>, Entry>,
    tenants: BTreeMap<TenantId, Duration>,
    other_tenants: Duration,
}

impl DeviceBooks {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            began: now,
            busy: Duration::ZERO,
            models: AHashMap::new(),
            tenants: BTreeMap::new(),
            other_tenants: Duration::ZERO,
        }
    }

    /// The model is on the device from now on.
    pub(crate) fn open(&mut self, key: &Arc<ModelVersionKey>) {
        self.models.entry(key.clone()).or_default();
    }

    /// It is gone.
    pub(crate) fn close(&mut self, key: &ModelVersionKey) {
        self.models.remove(key);
    }

    /// It has been loaded.
    pub(crate) fn loaded(&mut self, key: &ModelVersionKey, took: Duration) {
        if let Some(entry) = self.models.get_mut(key) {
            entry.numbers.loads.add(took);
        }
    }

    /// It has not been loaded.
    pub(crate) fn load_failed(&mut self, key: &ModelVersionKey) {
        if let Some(entry) = self.models.get_mut(key) {
            entry.numbers.load_failures += 1;
        }
    }

    /// It has left memory: because it was idle, or for another's sake.
    pub(crate) fn evicted(&mut self, key: &ModelVersionKey, idle: bool) {
        let Some(entry) = self.models.get_mut(key) else { return };
        let count = if idle {
            &mut entry.numbers.idle_unloads
        } else {
            &mut entry.numbers.evictions
        };
        *count += 1;
    }

    /// A batch has ended. The device's time counts also where the model has gone meanwhile.
    pub(crate) fn batch(&mut self, key: &ModelVersionKey, tally: &Tally, predicted: Option<Duration>, ended: Instant) {
        self.busy += tally.busy;
        if let Some(entry) = self.models.get_mut(key) {
            entry.numbers.add(tally, predicted);
            if tally.executions > 0 {
                entry.last = Some(ended);
            }
        }
    }

    /// A sequence is over.
    pub(crate) fn sequence_ended(&mut self, key: &ModelVersionKey, why: Option<Aborted>) {
        let Some(entry) = self.models.get_mut(key) else { return };
        let sequences = entry.numbers.sequences.get_or_insert_default();
        let counter = match why {
            None => &mut sequences.ended,
            Some(Aborted::Idle) => &mut sequences.idle,
            Some(Aborted::NotBegun) => &mut sequences.not_begun,
            Some(Aborted::Lost) => &mut sequences.lost,
            Some(Aborted::Closed) => &mut sequences.closed,
        };
        *counter += 1;
    }

    /// So many sequences are open now.
    pub(crate) fn sequences(&mut self, key: &ModelVersionKey, counts: SequenceCounts) {
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        if let Some(entry) = self.models.get_mut(key) {
            let sequences = entry.numbers.sequences.get_or_insert_default();
            (sequences.open, sequences.backlog) = (number(counts.open), number(counts.backlog));
        }
    }

    /// A tenant has used so much of the device's time.
    pub(crate) fn charge(&mut self, tenant: &TenantId, time: Duration) {
        if let Some(known) = self.tenants.get_mut(tenant) {
            *known += time;
        } else if self.tenants.len() < MAX_TENANTS_COUNTED {
            self.tenants.insert(tenant.clone(), time);
        } else {
            self.other_tenants += time;
        }
    }

    /// The time by tenant, and that of those beyond the bound.
    pub(crate) fn by_tenant(&self) -> (BTreeMap<TenantId, Duration>, Duration) {
        (self.tenants.clone(), self.other_tenants)
    }

    /// A request left without having run.
    pub(crate) fn left(&mut self, key: &ModelVersionKey, why: Left) {
        let Some(entry) = self.models.get_mut(key) else { return };
        let counter = match why {
            Left::Cancelled => &mut entry.numbers.cancelled,
            Left::Expired => &mut entry.numbers.expired,
            Left::Rejected => &mut entry.numbers.rejected,
        };
        *counter += 1;
    }

    /// One model's numbers now; none of a model that is not here.
    pub(crate) fn read_one(&self, key: &ModelVersionKey, now: Instant, unix_ms: u64) -> Option<ModelStatistics> {
        Some(self.models.get(key)?.read(now, unix_ms))
    }

    /// The numbers now; `unix_ms` is what the wall clock says at `now`.
    pub(crate) fn read(
        &self,
        now: Instant,
        unix_ms: u64,
    ) -> (Duration, Duration, BTreeMap<ModelVersionKey, ModelStatistics>) {
        let model =
            |(key, entry): (&Arc<ModelVersionKey>, &Entry)| (ModelVersionKey::clone(key), entry.read(now, unix_ms));
        let up = now.saturating_duration_since(self.began);
        (up, self.busy, self.models.iter().map(model).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_sizes_are_exact_up_to_their_bound_and_powers_of_two_beyond() {
        assert_eq!(counted_at(MAX_EXACT_BATCH_SIZE), MAX_EXACT_BATCH_SIZE);
        assert_eq!(counted_at(MAX_EXACT_BATCH_SIZE + 1), 512);
        assert_eq!(counted_at(65_536), 65_536);
        let distinct: std::collections::BTreeSet<u32> = (1..=65_536).map(counted_at).collect();
        assert_eq!(distinct.len(), 256 + 8);
    }

    #[test]
    fn two_devices_numbers_add_up() {
        let second = Duration::from_secs(1);
        let one = ModelStatistics {
            inference_count: 3,
            last_inference_ms: 5,
            success: Sum {
                count: 2,
                total: second,
            },
            batch_sizes: BTreeMap::from([(2, BatchSizeStatistics::default())]),
            ..ModelStatistics::default()
        };
        let other = ModelStatistics {
            inference_count: 4,
            last_inference_ms: 4,
            success: Sum {
                count: 1,
                total: second,
            },
            batch_sizes: BTreeMap::from([(4, BatchSizeStatistics::default())]),
            ..ModelStatistics::default()
        };
        let mut both = one;
        both.merge(&other);
        assert_eq!((both.inference_count, both.last_inference_ms), (7, 5));
        assert_eq!(
            both.success,
            Sum {
                count: 3,
                total: second * 2
            }
        );
        assert_eq!(both.success.nanoseconds(), 2_000_000_000);
        assert_eq!(both.batch_sizes.keys().copied().collect::<Vec<_>>(), [2, 4]);
    }
}
