//! A job: one request on its way through a device, after every decision has been taken.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    AnswerSender, Deadline, ModelParameters, ModelVersionKey, RequestId, SequenceStep, TenantId, Tensor, TraceContext,
};

/// What a tenant is entitled to on a busy device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantShare {
    /// Its share of the device's time beside the others'; at least 1.
    pub weight: u32,
    /// Whether its requests never share a batch with another tenant's.
    pub isolated: bool,
}

impl Default for TenantShare {
    fn default() -> Self {
        Self {
            weight: 1,
            isolated: false,
        }
    }
}

/// How urgent a request is, across all tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceClass {
    /// Somebody waits for the answer.
    #[default]
    Interactive,
    /// Goes when nothing interactive waits, and gets a small guaranteed part of the device.
    Batch,
}

impl ServiceClass {
    /// The name on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Batch => "batch",
        }
    }
}

/// How a request stands among those that wait with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// The caller's entitlement.
    pub share: TenantShare,
    /// Its urgency.
    pub class: ServiceClass,
    /// Triton's priority within the model: 1 is the highest; 0 takes the model's default.
    pub priority: u32,
    /// The caller's own bound on the time in the queue (Triton's request parameter `timeout`); it counts only where the
    /// model's queue policy allows an override.
    pub queue_timeout: Option<Duration>,
}

/// Who is told what a job costs. It is dropped once nobody can tell it more.
pub trait DeviceMeter: fmt::Debug + Send + Sync {
    /// It waits for a device no longer.
    fn began(&self);
    /// So much of a device's time was its part of an execution, whatever came of it.
    fn ran(&self, time: Duration);
}

/// What a worker is handed. The worker decides nothing about who or which version: that is all settled here.
#[derive(Debug, Clone)]
pub struct InferJob {
    /// The mesh's number for the request.
    pub request: RequestId,
    /// The caller, for fair sharing (not the model's owner).
    pub tenant: TenantId,
    /// The version to run.
    pub version: Arc<ModelVersionKey>,
    /// Inputs, checked against the model's configuration and in its order.
    pub inputs: Vec<Tensor>,
    /// Names of the outputs wanted; empty means all.
    pub outputs: Vec<String>,
    /// Rows along the batch dimension; 1 where the model does not batch.
    pub rows: u32,
    /// What the model is given of the request's parameters; none where that is what holds anyway.
    pub parameters: Option<Arc<ModelParameters>>,
    /// After this the answer is worthless.
    pub deadline: Deadline,
    /// How it stands among the others.
    pub standing: Standing,
    /// Its place in its sequence; none where the model keeps no state.
    pub sequence: Option<Box<SequenceStep>>,
    /// Where the answers of a decoupled model go, before the job's own reply ends them; none for any other model.
    pub answers: Option<AnswerSender>,
    /// Whose child the device's spans are.
    pub trace: TraceContext,
    /// Who pays for it; none for who is no tenant's caller.
    pub meter: Option<Arc<dyn DeviceMeter>>,
}

/// What came of a job.
#[derive(Debug, Clone)]
pub struct JobOutcome {
    /// Outputs of this job's rows; of a decoupled model none, its answers came before.
    pub outputs: Vec<Tensor>,
    /// Where the time went on the device.
    pub timings: StageTimings,
}

/// Where the time of one request went. Triton's statistics extension has the same stages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimings {
    /// Bytes to a request.
    pub decode: Duration,
    /// Credential to tenant.
    pub authenticate: Duration,
    /// Limits.
    pub admit: Duration,
    /// Split, resolution of names and checks of the inputs.
    pub choose: Duration,
    /// Waiting for a batch.
    pub queue: Duration,
    /// Gathering the batch's inputs.
    pub compute_input: Duration,
    /// The model.
    pub compute_infer: Duration,
    /// Splitting the batch's outputs.
    pub compute_output: Duration,
    /// Response to bytes.
    pub encode: Duration,
    /// Rows in the batch that this request was part of.
    pub batch_rows: u32,
    /// The batch's span, if it was traced.
    pub batch_trace: Option<TraceContext>,
}
