//! What servers say about themselves and their models, the same from either wire.

use std::collections::BTreeMap;

use mesh_types::DataType;
use serde::{Deserialize, Deserializer};

fn or_default<'de, T: Default + Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// What a server says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct ServerMetadata {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The extensions of the protocol that it has.
    #[serde(default)]
    pub extensions: Vec<String>,
}

/// What a model takes and gives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ModelMetadata {
    /// The name that was asked for.
    pub name: String,
    /// The versions that may be asked for.
    #[serde(default)]
    pub versions: Vec<String>,
    /// What runs it.
    #[serde(default)]
    pub platform: String,
    /// Its inputs.
    pub inputs: Vec<TensorMetadata>,
    /// Its outputs.
    pub outputs: Vec<TensorMetadata>,
}

/// An input or an output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TensorMetadata {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its extents, that of the batch included; -1 is any.
    pub shape: Vec<i64>,
}

/// A version of the index.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct IndexEntry {
    /// The model.
    pub name: String,
    /// The version.
    pub version: String,
    /// `READY` or `UNAVAILABLE`.
    pub state: String,
    /// Why it is not ready.
    pub reason: String,
}

/// How often, and how long in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Statistic {
    /// How often.
    pub count: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

/// Structures of figures, each of which counts as nothing where it is missing or null.
macro_rules! figures {
    ($($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
        pub struct $name {
            $($(#[$field_about])* #[serde(default, deserialize_with = "or_default")] pub $field: $type,)*
        }
    )*};
}

figures! {
    /// What a version has done since it was loaded.
    ModelStatistics {
        /// The model.
        name: String,
        /// The version.
        version: String,
        /// The last request, in milliseconds since the Unix epoch; 0 if there was none.
        last_inference: u64,
        /// Rows.
        inference_count: u64,
        /// Batches.
        execution_count: u64,
        /// Of requests.
        inference_stats: InferStatistics,
        /// Of batches, by their size.
        batch_stats: Vec<BatchStatistics>,
        /// What it takes on each device.
        memory_usage: Vec<MemoryUsage>,
        /// Of responses by their index, where a request may have several.
        response_stats: BTreeMap<String, ResponseStatistics>,
    }
    /// How requests fared.
    InferStatistics {
        /// Answered.
        success: Statistic,
        /// Failed.
        fail: Statistic,
        /// Waiting.
        queue: Statistic,
        /// Gathering inputs.
        compute_input: Statistic,
        /// The model.
        compute_infer: Statistic,
        /// Splitting outputs.
        compute_output: Statistic,
        /// Answered from a cache.
        cache_hit: Statistic,
        /// Looked for there in vain.
        cache_miss: Statistic,
    }
    /// Batches of one size.
    BatchStatistics {
        /// Rows of each.
        batch_size: u64,
        /// Gathering inputs.
        compute_input: Statistic,
        /// The model.
        compute_infer: Statistic,
        /// Splitting outputs.
        compute_output: Statistic,
    }
    /// Responses of one index.
    ResponseStatistics {
        /// The model.
        compute_infer: Statistic,
        /// Splitting outputs.
        compute_output: Statistic,
        /// Answered.
        success: Statistic,
        /// Failed.
        fail: Statistic,
        /// Without outputs.
        empty_response: Statistic,
        /// Given up by the caller.
        cancel: Statistic,
    }
    /// Memory on a device.
    MemoryUsage {
        /// `CPU` or `GPU`.
        r#type: String,
        /// The device's index.
        id: i64,
        /// Bytes.
        byte_size: u64,
    }
}
