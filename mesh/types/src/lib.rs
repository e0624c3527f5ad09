//! What every room shares: identifiers, tensors, requests, jobs, deadlines, trace context and faults.
//!
//! Owns the vocabulary and its validation. Knows no runtime, no wire format and no actor: everything here is plain data and
//! pure functions, so every other room may depend on it and it depends on none.

mod answers;
mod batching;
mod classes;
mod clock;
mod config;
mod fault;
mod graph;
mod ids;
mod infer;
mod inputs;
mod issuer;
mod job;
mod model_parameters;
mod optimization;
mod parameters;
mod regions;
mod residency;
mod sequence;
mod sequence_check;
mod settings;
mod statistics;
mod tensor;
mod trace;

pub use answers::{AnswerSender, Answers, MAX_WAITING_ANSWER_BYTES, MAX_WAITING_ANSWERS, NotTaken, answers};
pub use batching::{
    DynamicBatching, ExecutionPolicy, MAX_PRIORITY_LEVELS, NonFinite, QueuePolicy, TimeoutAction, WhenIdle,
};
pub use classes::{ClassCount, ClassError, Classes, MAX_CLASSES_BYTES};
pub use clock::{Clock, Deadline, ManualClock, SystemClock};
pub use config::{
    ArtifactFormat, InstanceGroup, InstanceKind, MAX_CLASS_LABEL_BYTES, MAX_CLASS_LABELS, MAX_INSTANCES, ModelConfig,
    ModelConfigError, ModelTransactionPolicy, TensorSpec,
};
pub use fault::{Fault, FaultClass, FaultSource, Retry};
pub use graph::{
    Dependency, EnsembleScheduling, EnsembleStep, Graph, GraphStep, MAX_CHOICES, MAX_CONDITION_BYTES,
    MAX_GRAPH_TENSORS, MAX_INFLIGHT_REQUESTS, MAX_ROUTE_NESTING, MAX_ROUTES, MAX_SOURCES, MAX_STEPS, Sources,
    SplitterRoute, StepVersion, SwitchRoute,
};
pub use ids::{
    DeviceId, DeviceIdError, DeviceKind, EndpointId, KeyId, Label, MAX_NAME_BYTES, ModelId, ModelVersionKey, NameError,
    RequestId, TenantId, Version, VersionError, VersionSelector,
};
pub use infer::{InferRequest, InferResponse};
pub use inputs::InputError;
pub use issuer::{FetchUrlError, MAX_FETCH_URL_BYTES, MAX_ISSUER_KEYS, check_fetch_url};
pub use job::{DeviceMeter, InferJob, JobOutcome, ServiceClass, StageTimings, Standing, TenantShare};
pub use model_parameters::{MAX_MODEL_PARAMETER_BYTES, MAX_MODEL_PARAMETERS, ModelParameters, RequestParameters};
pub use optimization::{
    Attempt, Difference, LoadReport, Optimization, Precision, Variant, VariantReport, VariantTime, Verdict,
};
pub use parameters::{ParameterValue, Parameters, has_meaning, is_reserved};
pub use regions::{InRegions, MAX_REGION_NAME_BYTES, RegionInput, RegionOutput, RegionSpan};
pub use residency::{
    Base64Bytes, LoadPolicy, LoadProgress, LoadStage, MAX_WARMUP_BYTES, MAX_WARMUP_COUNT, MAX_WARMUPS, ModelWarmup,
    ResidencyPolicy, WarmupInput,
};
pub use sequence::{
    Control, ControlInput, ControlKind, CorrelationId, CorrelationIds, InitialState, MAX_CORRELATION_ID_BYTES,
    SequenceBatching, SequenceStep, StateSpec, StrategyDirect, StrategyOldest,
};
pub use sequence_check::{InitialStateError, MAX_CANDIDATE_SEQUENCES, MAX_INITIAL_STATE_BYTES};
pub use settings::{Change, LogChange, LogSettings, LogTimes, TraceChange, TraceSettings};
pub use statistics::{ComputeTimes, MAX_RESPONSES_COUNTED, ResponseTimes, Times, VersionStatistics};
pub use tensor::{DataType, MAX_RANK, Shape, Tensor, TensorError, UnknownDataType, bytes_element_count};
pub use trace::{TraceContext, TraceContextError};
