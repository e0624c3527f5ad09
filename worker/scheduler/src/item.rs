//! What waits and what comes out: requests, batches, refusals and charges.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_types::{ModelParameters, Standing, TenantId};
use smallvec::SmallVec;

use crate::sequences::{Aborted, Seat};

/// What must be equal for two requests to share a batch: for each input its number of extents, and the extents, but for the
/// rows; and the parameters that the model is given. These themselves and no hash of them, so that nobody can make two look alike.
///
/// It is written and read back without parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
#[serde(from = "Extents", into = "Extents")]
pub struct ShapeKey {
    extents: Extents,
    parameters: Option<Arc<ModelParameters>>,
}

/// A shape without parameters: what is learnt of latencies is learnt of these. Parameters are callers' to choose, and what is
/// known of a model must not be lost to who sends others with each request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Extents(SmallVec<[u64; 6]>);

impl From<Extents> for ShapeKey {
    fn from(extents: Extents) -> Self {
        Self {
            extents,
            parameters: None,
        }
    }
}

impl From<ShapeKey> for Extents {
    fn from(key: ShapeKey) -> Self {
        key.extents
    }
}

impl ShapeKey {
    /// The same for requests whose model is given these parameters.
    #[must_use]
    pub fn with(mut self, parameters: Option<Arc<ModelParameters>>) -> Self {
        self.parameters = parameters;
        self
    }

    pub(crate) fn has_parameters(&self) -> bool {
        self.parameters.is_some()
    }

    /// The same without parameters.
    pub(crate) fn extents(&self) -> &Extents {
        &self.extents
    }

    /// The key of inputs with these extents, the first of each being its rows.
    pub fn of<'a>(inputs: impl Iterator<Item = &'a [u64]>) -> Self {
        let mut key = SmallVec::new();
        for extents in inputs {
            let rest = extents.get(1..).unwrap_or_default();
            key.push(u64::try_from(rest.len()).unwrap_or(u64::MAX));
            key.extend_from_slice(rest);
        }
        Extents(key).into()
    }

    /// The key of inputs that may be left out, or stand for a whole batch.
    pub fn of_parts<'a>(parts: impl Iterator<Item = ShapePart<'a>>) -> Self {
        let mut key = SmallVec::new();
        let long = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        for part in parts {
            match part {
                // No input has so many extents.
                ShapePart::Absent => key.push(u64::MAX),
                ShapePart::Rows(extents) => {
                    let rest = extents.get(1..).unwrap_or_default();
                    key.push(long(rest.len()));
                    key.extend_from_slice(rest);
                }
                ShapePart::Value(extents, bytes) => {
                    key.push(long(extents.len()));
                    key.extend_from_slice(extents);
                    key.push(long(bytes.len()));
                    let words = bytes.chunks(8).map(|chunk| {
                        let bytes = chunk.iter().rev();
                        bytes.fold(0u64, |word, byte| (word << 8) | u64::from(*byte))
                    });
                    key.extend(words);
                }
            }
        }
        Extents(key).into()
    }
}

/// One input in a [`ShapeKey`].
#[derive(Debug, Clone, Copy)]
pub enum ShapePart<'a> {
    /// It is left out.
    Absent,
    /// It has these extents, the first being its rows.
    Rows(&'a [u64]),
    /// It has these extents and this value, both for the whole batch.
    Value(&'a [u64], &'a [u8]),
}

/// A request that wants to wait here.
#[derive(Debug, Clone)]
pub struct Item<T> {
    /// What it is.
    pub payload: T,
    /// Whose it is.
    pub tenant: TenantId,
    /// How it stands among the others.
    pub standing: Standing,
    /// Rows along the batch dimension.
    pub rows: u32,
    /// Which others it may share a batch with.
    pub shape: ShapeKey,
    /// When it came.
    pub arrived: Instant,
    /// After this its answer is worthless.
    pub deadline: Instant,
}

/// Names a batch until it is finished; no two batches of a scheduler have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// Requests that run together.
#[derive(Debug)]
pub struct Batch<K, T> {
    /// For [`crate::Scheduler::finished`].
    pub id: BatchId,
    /// The model.
    pub model: K,
    /// In the order in which they were taken.
    pub items: Vec<Item<T>>,
    /// Where each belongs in its sequence; empty for a model without sequences.
    pub seats: Vec<Seat>,
    /// All their rows.
    pub rows: u32,
    /// How long it is expected to take; none while nothing is known of the model.
    pub predicted: Option<Duration>,
}

/// Why an item left without running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Its deadline passed while it waited.
    Expired,
    /// Its answer would have come after its deadline.
    TooLate,
    /// It waited for as long as its queue allows.
    TimedOut,
    /// Whoever asked is no longer there.
    Cancelled,
    /// A request before it in its sequence was not run.
    Behind,
    /// Its sequence is over.
    Aborted(Aborted),
}

/// Why an item was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusedFor {
    /// The queue is full.
    Full,
    /// There is no such model here.
    UnknownModel,
    /// It would not be finished by its deadline; a request that comes this much later might be.
    TooLate {
        /// When another try is worth it.
        retry_after: Duration,
    },
    /// It does not start a sequence, and there is none of its name; why there is none any more, where that is known.
    NotStarted(Option<Aborted>),
    /// No new sequences are taken.
    Closing,
    /// Every instance of the model, which is told ids, has another tenant's sequence of this id.
    IdTaken,
}

/// An item that was not taken in, given back.
#[derive(Debug)]
pub struct Refused<T> {
    /// What it is.
    pub payload: T,
    /// Why.
    pub reason: RefusedFor,
}

/// What to do now.
#[derive(Debug)]
pub struct Decision<K, T> {
    /// Run these now.
    pub batch: Option<Batch<K, T>>,
    /// Answer these without running them.
    pub gone: Vec<(Item<T>, Gone)>,
    /// Ask again at this instant, even if nothing else happens.
    pub wake_at: Option<Instant>,
}

/// A tenant's part of the time that a batch took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Who used it.
    pub tenant: TenantId,
    /// How much. The charges of a batch add up to the time that it took.
    pub device_time: Duration,
}
