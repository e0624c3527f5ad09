//! The tables: every message of a model configuration, field by field.
//!
//! Written from the facts of Triton's protocol. The page beside this crate (README.md) shows the top of them to people; a test
//! holds the two together.

use super::{COUNT, INT32, INT64, Kind, Rule, UINT64, list, many, needed, taken};

/// By their numbers, as all enumerations here.
pub(crate) const DATA_TYPES: &[&str] = &[
    "TYPE_INVALID",
    "TYPE_BOOL",
    "TYPE_UINT8",
    "TYPE_UINT16",
    "TYPE_UINT32",
    "TYPE_UINT64",
    "TYPE_INT8",
    "TYPE_INT16",
    "TYPE_INT32",
    "TYPE_INT64",
    "TYPE_FP16",
    "TYPE_FP32",
    "TYPE_FP64",
    "TYPE_STRING",
    "TYPE_BF16",
];
const DATA_TYPE: Kind = Kind::Choice(DATA_TYPES);
const ANYTHING: Kind = Kind::Message(&[]);

const RESHAPE: &str = "let the model take the shape that is in dims";
const SHAPE_TENSOR: &str = "only TensorRT has shape tensors: let the model take it as an ordinary tensor";
const HINTS: &str = "hints for other runtimes; the mesh tries variants of the model itself when it loads it";

/// `ModelConfig`.
pub(crate) const MODEL: &[Rule] = &[
    taken("name", Kind::Text),
    taken("platform", Kind::Text),
    taken("backend", Kind::Text),
    taken("runtime", Kind::Text),
    taken("version_policy", Kind::Message(VERSION_POLICY)),
    taken("max_batch_size", Kind::Number(0, (1 << 31) - 1)),
    many("input", Kind::Message(INPUT)),
    many("output", Kind::Message(OUTPUT)),
    many("batch_input", ANYTHING).refused("ragged batches are not supported: requests of equal shape share a batch"),
    many("batch_output", ANYTHING).refused("ragged batches are not supported: requests of equal shape share a batch"),
    taken("optimization", ANYTHING).ignored(HINTS),
    taken("dynamic_batching", Kind::Message(DYNAMIC_BATCHING)),
    taken("sequence_batching", Kind::Message(SEQUENCE_BATCHING)),
    taken("ensemble_scheduling", Kind::Message(ENSEMBLE)),
    many("instance_group", Kind::Message(INSTANCE_GROUP)),
    taken("default_model_filename", Kind::Text),
    taken("cc_model_filenames", Kind::ByText(&Kind::Text)).refused("one file serves all devices: leave it out"),
    taken("metric_tags", Kind::ByText(&Kind::Text)).ignored("metrics have labels of their own"),
    taken("parameters", Kind::ByText(&Kind::Message(PARAMETER))),
    many("model_warmup", Kind::Message(WARMUP)),
    taken("model_operations", ANYTHING)
        .refused("libraries of custom operations are not loaded: build them into the model"),
    taken("model_transaction_policy", Kind::Message(TRANSACTION_POLICY)),
    taken("model_repository_agents", ANYTHING)
        .ignored("agents do not run; files are kept and checked by their SHA-256"),
    taken("response_cache", Kind::Message(RESPONSE_CACHE)),
    taken("model_metrics", ANYTHING).ignored("metrics have buckets of their own"),
];

/// `ModelInput`.
pub(crate) const INPUT: &[Rule] = &[
    needed("name", Kind::Text),
    needed("data_type", DATA_TYPE),
    taken("format", Kind::Choice(&["FORMAT_NONE", "FORMAT_NHWC", "FORMAT_NCHW"])).quiet(),
    list("dims", INT64),
    taken("reshape", ANYTHING).refused(RESHAPE),
    taken("is_shape_tensor", Kind::Bool).refused(SHAPE_TENSOR),
    taken("allow_ragged_batch", Kind::Bool),
    taken("optional", Kind::Bool),
    taken("is_non_linear_format_io", Kind::Bool).refused(SHAPE_TENSOR),
];

/// `ModelOutput`.
pub(crate) const OUTPUT: &[Rule] = &[
    needed("name", Kind::Text),
    needed("data_type", DATA_TYPE),
    list("dims", INT64),
    taken("reshape", ANYTHING).refused(RESHAPE),
    taken("label_filename", Kind::Text),
    taken("is_shape_tensor", Kind::Bool).refused(SHAPE_TENSOR),
    taken("is_non_linear_format_io", Kind::Bool).refused(SHAPE_TENSOR),
];

/// `ModelVersionPolicy`.
pub(crate) const VERSION_POLICY: &[Rule] = &[
    taken("latest", Kind::Message(&[taken("num_versions", COUNT)])),
    taken("all", Kind::Message(&[])),
    taken("specific", Kind::Message(&[list("versions", INT64)])),
];

/// `ModelQueuePolicy`.
pub(crate) const QUEUE_POLICY: &[Rule] = &[
    taken("timeout_action", Kind::Choice(&["REJECT", "DELAY"])),
    taken("default_timeout_microseconds", UINT64),
    taken("allow_timeout_override", Kind::Bool),
    taken("max_queue_size", COUNT),
];

/// `ModelDynamicBatching`.
pub(crate) const DYNAMIC_BATCHING: &[Rule] = &[
    many("preferred_batch_size", COUNT),
    taken("max_queue_delay_microseconds", UINT64),
    taken("preserve_ordering", Kind::Bool),
    taken("priority_levels", COUNT),
    taken("default_priority_level", COUNT),
    taken("default_queue_policy", Kind::Message(QUEUE_POLICY)),
    taken("priority_queue_policy", Kind::ByNumber(&Kind::Message(QUEUE_POLICY))),
];

/// `ModelSequenceBatching`.
pub(crate) const SEQUENCE_BATCHING: &[Rule] = &[
    taken(
        "direct",
        Kind::Message(&[
            taken("max_queue_delay_microseconds", UINT64),
            taken("minimum_slot_utilization", Kind::Real),
        ]),
    ),
    taken(
        "oldest",
        Kind::Message(&[
            taken("max_candidate_sequences", COUNT),
            many("preferred_batch_size", COUNT),
            taken("max_queue_delay_microseconds", UINT64),
            taken("preserve_ordering", Kind::Bool),
        ]),
    ),
    taken("max_sequence_idle_microseconds", UINT64),
    many(
        "control_input",
        Kind::Message(&[needed("name", Kind::Text), list("control", Kind::Message(CONTROL))]),
    ),
    many("state", Kind::Message(STATE)),
    taken("iterative_sequence", Kind::Bool),
];

const CONTROL: &[Rule] = &[
    taken(
        "kind",
        Kind::Choice(&[
            "CONTROL_SEQUENCE_START",
            "CONTROL_SEQUENCE_READY",
            "CONTROL_SEQUENCE_END",
            "CONTROL_SEQUENCE_CORRID",
        ]),
    ),
    many("int32_false_true", INT32),
    many("fp32_false_true", Kind::Real),
    many("bool_false_true", Kind::Bool),
    taken("data_type", DATA_TYPE),
];

const STATE: &[Rule] = &[
    needed("input_name", Kind::Text),
    needed("output_name", Kind::Text),
    needed("data_type", DATA_TYPE),
    list("dims", INT64),
    many(
        "initial_state",
        Kind::Message(&[
            taken("data_type", DATA_TYPE),
            list("dims", Kind::Number(0, (1 << 63) - 1)),
            taken("zero_data", Kind::Bool),
            taken("data_file", Kind::Text),
            taken("name", Kind::Text),
        ]),
    ),
    taken("use_same_buffer_for_input_output", Kind::Bool),
    taken("use_growable_memory", Kind::Bool),
];

/// `ModelEnsembling`.
pub(crate) const ENSEMBLE: &[Rule] = &[
    many(
        "step",
        Kind::Message(&[
            needed("model_name", Kind::Text),
            taken("model_version", INT64),
            taken("input_map", Kind::ByText(&Kind::Text)),
            taken("output_map", Kind::ByText(&Kind::Text)),
            taken("model_namespace", Kind::Text)
                .refused("a step's model is the tenant's own or one granted to it: leave it out"),
        ]),
    ),
    taken("max_inflight_requests", COUNT),
];

/// `ModelInstanceGroup`.
pub(crate) const INSTANCE_GROUP: &[Rule] = &[
    taken("name", Kind::Text).quiet(),
    taken(
        "kind",
        Kind::Choice(&["KIND_AUTO", "KIND_GPU", "KIND_CPU", "KIND_MODEL"]),
    ),
    taken("count", INT32),
    taken("rate_limiter", ANYTHING).ignored("devices share their time between models by tenants' weights"),
    many("gpus", Kind::Number(0, (1 << 16) - 1)),
    many("secondary_devices", ANYTHING).ignored("no such devices are used"),
    many("profile", Kind::Text).ignored("only TensorRT has profiles"),
    taken("passive", Kind::Bool).ignored("all instances of a model serve"),
    taken("host_policy", Kind::Text).ignored("threads are not bound to processors"),
];

const PARAMETER: &[Rule] = &[taken("string_value", Kind::Text)];

/// `ModelWarmup`.
pub(crate) const WARMUP: &[Rule] = &[
    taken("name", Kind::Text),
    taken("batch_size", COUNT),
    taken(
        "inputs",
        Kind::ByText(&Kind::Message(&[
            needed("data_type", DATA_TYPE),
            list("dims", INT64),
            taken("zero_data", Kind::Bool),
            taken("random_data", Kind::Bool),
            taken("input_data_file", Kind::Text),
        ])),
    ),
    taken("count", COUNT),
];

const TRANSACTION_POLICY: &[Rule] = &[taken("decoupled", Kind::Bool)];

const RESPONSE_CACHE: &[Rule] =
    &[taken("enable", Kind::Bool).ignored("answers are not cached: the model runs each time")];
