//! How the model configuration looks in the OpenAPI document.
//!
//! The configuration itself lives in `mesh-types`, which knows no schema language; a test holds the two together.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

/// The shape of `mesh_types::ModelConfig`.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = ModelConfig)]
pub struct ModelConfigSchema {
    /// Most rows in one execution; 0 means the model has no batch dimension.
    pub max_batch_size: u32,
    /// Inputs, in the order of the model's arguments.
    pub input: Vec<TensorSpecSchema>,
    /// Outputs, in the order of the model's results.
    pub output: Vec<TensorSpecSchema>,
    /// How requests are batched; absent: each runs alone.
    #[schema(nullable)]
    pub dynamic_batching: Option<DynamicBatchingSchema>,
    /// When it is in memory; absent: loaded when declared, and gone only for another's sake.
    #[schema(nullable)]
    pub residency: Option<ResidencySchema>,
    /// What it runs on before it takes requests, besides a sweep over batch sizes.
    pub model_warmup: Vec<ModelWarmupSchema>,
    /// Where instances run; empty means one group of the default kind.
    pub instance_group: Vec<InstanceGroupSchema>,
    /// How many answers it gives to a request; absent: exactly one.
    #[schema(nullable)]
    pub model_transaction_policy: Option<TransactionPolicySchema>,
    /// What an ensemble is made of, in Triton's form.
    #[schema(value_type = Option<Object>)]
    pub ensemble_scheduling: Option<BTreeMap<String, String>>,
    /// What an ensemble is made of, in the mesh's own form.
    #[schema(value_type = Option<Object>)]
    pub graph: Option<BTreeMap<String, String>>,
    /// Which of a request's parameters it is given; absent: none.
    #[schema(nullable)]
    pub request_parameters: Option<RequestParametersSchema>,
    /// The backend's own settings: texts, numbers and booleans by name.
    #[schema(value_type = BTreeMap<String, Object>)]
    pub parameters: BTreeMap<String, String>,
}

/// One input or output.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = TensorSpec)]
pub struct TensorSpecSchema {
    /// The tensor's name on the wire.
    pub name: String,
    /// Its element type, such as FP32.
    pub datatype: String,
    /// Extents without the batch dimension; -1 is any.
    pub dims: Vec<i64>,
    /// For an output: what its values stand for, in their order.
    #[schema(required = false)]
    pub labels: Vec<String>,
}

/// When requests are put together.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = DynamicBatching)]
pub struct DynamicBatchingSchema {
    /// Sizes to send at once when reached.
    pub preferred_batch_size: Vec<u32>,
    /// How long the oldest request may wait for company.
    pub max_queue_delay_microseconds: u64,
    /// Requests that may wait; 0 takes the worker's own bound.
    pub max_queue_size: u32,
}

/// How many answers a model gives to a request.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = ModelTransactionPolicy)]
pub struct TransactionPolicySchema {
    /// Any number, none included, each when it is there; else exactly one.
    pub decoupled: bool,
}

/// Which of a request's parameters a model is given.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = RequestParameters)]
pub struct RequestParametersSchema {
    /// Their names; none means all that mean nothing to the protocol or the mesh.
    pub names: Vec<String>,
    /// What a request is taken to say that does not say otherwise.
    pub defaults: BTreeMap<String, String>,
}

/// When a model is in memory.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = Residency)]
pub struct ResidencySchema {
    /// Never leaves memory for another's sake.
    pub pinned: bool,
    /// EAGER: when declared, while there is room; ON_DEMAND: with the first request.
    pub load: String,
    /// Leaves memory once no request has come for so long; 0: only for another's sake.
    pub idle_seconds: u64,
}

/// A request that a model runs before it takes others.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = ModelWarmup)]
pub struct ModelWarmupSchema {
    /// Its name in errors.
    pub name: String,
    /// Rows; each is the same. 0 is 1.
    pub batch_size: u32,
    /// The model's inputs, each by its name.
    pub inputs: BTreeMap<String, WarmupInputSchema>,
    /// How often it runs; 0 is 1.
    pub count: u32,
}

/// What a warm-up input holds: one of `zero_data`, `random_data` and `input_data`.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = WarmupInput)]
pub struct WarmupInputSchema {
    /// Its element type, the model's.
    pub data_type: String,
    /// Its extents, without the batch dimension where the model batches.
    pub dims: Vec<i64>,
    /// Zeros, or empty strings.
    pub zero_data: Option<bool>,
    /// Random data, the same in every run.
    pub random_data: Option<bool>,
    /// One item's raw bytes in base64.
    pub input_data: Option<String>,
}

/// Where instances of a model run.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
#[schema(as = InstanceGroup)]
pub struct InstanceGroupSchema {
    /// Instances per device; 0 takes the device's number of threads.
    pub count: u32,
    /// KIND_AUTO, KIND_CPU or KIND_GPU.
    pub kind: String,
    /// GPU indices; empty means all.
    pub gpus: Vec<u16>,
}
