//! A model's configuration in Triton's vocabulary: a message, and the JSON of the same.
//!
//! Says what Triton has a field for. What the mesh adds (residency, execution, its own form of graphs) is left out: a client
//! that reads a configuration knows only Triton's. Of an ensemble that was granted, the steps are left out too: they name the
//! owner's other models.

use std::collections::BTreeMap;

use mesh_types::{
    ControlKind, DataType, DynamicBatching, EnsembleScheduling, InitialState, InstanceGroup, InstanceKind, ModelConfig,
    ParameterValue, QueuePolicy, SequenceBatching, StateSpec, TensorSpec, TimeoutAction, Version,
};

use super::messages::{
    self, ModelDynamicBatching, ModelEnsembling, ModelInput, ModelInstanceGroup, ModelOutput, ModelParameter,
    ModelQueuePolicy, ModelSequenceBatching, ModelTransactionPolicy, ModelVersionPolicy,
    model_config::SchedulingChoice,
    model_ensembling, model_instance_group, model_queue_policy,
    model_sequence_batching::{self, StrategyChoice, control, initial_state::StateData},
    model_version_policy::{self, PolicyChoice},
};

/// A configuration and what is said beside it.
#[derive(Debug, Clone, Copy)]
pub struct ConfigOf<'a> {
    /// The name that the caller uses.
    pub name: &'a str,
    /// What runs it.
    pub platform: &'a str,
    /// The versions that the caller may ask for.
    pub versions: &'a [Version],
    /// The configuration.
    pub config: &'a ModelConfig,
    /// Whether the caller owns the model.
    pub owned: bool,
}

/// Writes it.
pub fn model_config(of: ConfigOf<'_>) -> messages::ModelConfig {
    let ConfigOf { name, config, .. } = of;
    let versions = of.versions.iter().map(|version| i64::from(version.get()));
    let specific = model_version_policy::Specific {
        versions: versions.collect(),
    };
    let groups = config.instance_group.iter().enumerate();
    messages::ModelConfig {
        name: name.to_owned(),
        platform: of.platform.to_owned(),
        backend: backend(of.platform).to_owned(),
        version_policy: Some(ModelVersionPolicy {
            policy_choice: Some(PolicyChoice::Specific(specific)),
        }),
        max_batch_size: whole(config.max_batch_size),
        input: config.input.iter().map(input).collect(),
        output: config.output.iter().map(output).collect(),
        instance_group: groups.map(|(index, group)| instances(name, index, group)).collect(),
        parameters: config.parameters.iter().map(parameter).collect(),
        model_transaction_policy: Some(ModelTransactionPolicy {
            decoupled: config.is_decoupled(),
        }),
        scheduling_choice: scheduling(config, of.owned),
    }
}

/// The part of a platform's name that Triton calls the backend; an ensemble has none.
fn backend(platform: &str) -> &str {
    match platform {
        "pytorch_libtorch" | "torch_aoti" => "pytorch",
        "ensemble" => "",
        other => other,
    }
}

fn scheduling(config: &ModelConfig, owned: bool) -> Option<SchedulingChoice> {
    if let Some(ensemble) = config.ensemble_scheduling.as_ref().filter(|_| owned) {
        return Some(SchedulingChoice::EnsembleScheduling(ensembling(ensemble)));
    }
    if let Some(sequence) = &config.sequence_batching {
        return Some(SchedulingChoice::SequenceBatching(sequence_batching(sequence)));
    }
    let dynamic = config.dynamic_batching.as_ref()?;
    Some(SchedulingChoice::DynamicBatching(dynamic_batching(dynamic)))
}

// Bounds on what may be declared are far below it.
fn whole(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn data_type(datatype: DataType) -> i32 {
    let message = match datatype {
        DataType::Bool => messages::DataType::TypeBool,
        DataType::Uint8 => messages::DataType::TypeUint8,
        DataType::Uint16 => messages::DataType::TypeUint16,
        DataType::Uint32 => messages::DataType::TypeUint32,
        DataType::Uint64 => messages::DataType::TypeUint64,
        DataType::Int8 => messages::DataType::TypeInt8,
        DataType::Int16 => messages::DataType::TypeInt16,
        DataType::Int32 => messages::DataType::TypeInt32,
        DataType::Int64 => messages::DataType::TypeInt64,
        DataType::Fp16 => messages::DataType::TypeFp16,
        DataType::Bf16 => messages::DataType::TypeBf16,
        DataType::Fp32 => messages::DataType::TypeFp32,
        DataType::Fp64 => messages::DataType::TypeFp64,
        DataType::Bytes => messages::DataType::TypeString,
    };
    message.into()
}

fn input(spec: &TensorSpec) -> ModelInput {
    ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype),
        format: messages::model_input::Format::None.into(),
        dims: spec.dims.clone(),
        is_shape_tensor: false,
        allow_ragged_batch: spec.allow_ragged_batch,
        optional: spec.optional,
    }
}

fn output(spec: &TensorSpec) -> ModelOutput {
    ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype),
        dims: spec.dims.clone(),
        label_filename: String::new(),
        is_shape_tensor: false,
    }
}

fn instances(model: &str, index: usize, group: &InstanceGroup) -> ModelInstanceGroup {
    let kind = match group.kind {
        InstanceKind::KindAuto => model_instance_group::Kind::Auto,
        InstanceKind::KindCpu => model_instance_group::Kind::Cpu,
        InstanceKind::KindGpu => model_instance_group::Kind::Gpu,
    };
    ModelInstanceGroup {
        name: format!("{model}_{index}"),
        kind: kind.into(),
        count: whole(group.count),
        gpus: group.gpus.iter().map(|gpu| i32::from(*gpu)).collect(),
    }
}

fn parameter((name, value): (&String, &ParameterValue)) -> (String, ModelParameter) {
    let string_value = match value {
        ParameterValue::String(text) => text.clone(),
        ParameterValue::Bool(value) => value.to_string(),
        ParameterValue::Int(number) => number.to_string(),
        ParameterValue::Uint(number) => number.to_string(),
        ParameterValue::Double(number) => number.to_string(),
    };
    (name.clone(), ModelParameter { string_value })
}

fn queue_policy(policy: &QueuePolicy) -> ModelQueuePolicy {
    let timeout_action = match policy.timeout_action {
        TimeoutAction::Reject => model_queue_policy::TimeoutAction::Reject,
        TimeoutAction::Delay => model_queue_policy::TimeoutAction::Delay,
    };
    ModelQueuePolicy {
        timeout_action: timeout_action.into(),
        default_timeout_microseconds: policy.default_timeout_microseconds,
        allow_timeout_override: policy.allow_timeout_override,
        max_queue_size: policy.max_queue_size,
    }
}

fn dynamic_batching(batching: &DynamicBatching) -> ModelDynamicBatching {
    let levels = batching.priority_queue_policy.iter();
    ModelDynamicBatching {
        preferred_batch_size: batching.preferred_batch_size.iter().copied().map(whole).collect(),
        max_queue_delay_microseconds: batching.max_queue_delay_microseconds,
        preserve_ordering: batching.preserve_ordering,
        priority_levels: u64::from(batching.priority_levels),
        default_priority_level: u64::from(batching.default_priority_level),
        default_queue_policy: batching.default_queue_policy.as_ref().map(queue_policy),
        priority_queue_policy: levels
            .map(|(level, policy)| (u64::from(*level), queue_policy(policy)))
            .collect::<BTreeMap<_, _>>(),
    }
}

fn sequence_batching(batching: &SequenceBatching) -> ModelSequenceBatching {
    let strategy = match (&batching.direct, &batching.oldest) {
        (_, Some(oldest)) => StrategyChoice::Oldest(model_sequence_batching::StrategyOldest {
            max_candidate_sequences: whole(oldest.max_candidate_sequences),
            preferred_batch_size: oldest.preferred_batch_size.iter().copied().map(whole).collect(),
            max_queue_delay_microseconds: oldest.max_queue_delay_microseconds,
            preserve_ordering: oldest.preserve_ordering,
        }),
        (direct, None) => {
            let direct = direct.unwrap_or_default();
            StrategyChoice::Direct(model_sequence_batching::StrategyDirect {
                max_queue_delay_microseconds: direct.max_queue_delay_microseconds,
                minimum_slot_utilization: direct.minimum_slot_utilization,
            })
        }
    };
    let controls = batching.control_input.iter();
    ModelSequenceBatching {
        strategy_choice: Some(strategy),
        max_sequence_idle_microseconds: batching.max_sequence_idle_microseconds,
        control_input: controls
            .map(|input| model_sequence_batching::ControlInput {
                name: input.name.clone(),
                control: input.control.iter().map(control_of).collect(),
            })
            .collect(),
        state: batching.state.iter().map(state).collect(),
        iterative_sequence: batching.iterative_sequence,
    }
}

fn control_of(control: &mesh_types::Control) -> model_sequence_batching::Control {
    let kind = match control.kind {
        ControlKind::Start => control::Kind::ControlSequenceStart,
        ControlKind::Ready => control::Kind::ControlSequenceReady,
        ControlKind::End => control::Kind::ControlSequenceEnd,
        ControlKind::Corrid => control::Kind::ControlSequenceCorrid,
    };
    model_sequence_batching::Control {
        kind: kind.into(),
        int32_false_true: control.int32_false_true.clone(),
        fp32_false_true: control.fp32_false_true.clone(),
        bool_false_true: control.bool_false_true.clone(),
        data_type: control.data_type.map_or(0, data_type),
    }
}

fn state(spec: &StateSpec) -> model_sequence_batching::State {
    model_sequence_batching::State {
        input_name: spec.input_name.clone(),
        output_name: spec.output_name.clone(),
        data_type: data_type(spec.data_type),
        dims: spec.dims.clone(),
        initial_state: spec.initial_state.iter().map(initial).collect(),
        use_same_buffer_for_input_output: spec.use_same_buffer_for_input_output,
        use_growable_memory: spec.use_growable_memory,
    }
}

// The bytes of a file are the owner's business; that there are some is said.
fn initial(state: &InitialState) -> model_sequence_batching::InitialState {
    let file = state
        .data_file
        .clone()
        .or_else(|| state.data.as_ref().map(|_| String::new()));
    model_sequence_batching::InitialState {
        name: state.name.clone(),
        data_type: state.data_type.map_or(0, data_type),
        dims: state
            .dims
            .iter()
            .map(|dim| i64::try_from(*dim).unwrap_or(i64::MAX))
            .collect(),
        state_data: Some(file.map_or(StateData::ZeroData(true), StateData::DataFile)),
    }
}

fn ensembling(ensemble: &EnsembleScheduling) -> ModelEnsembling {
    let step = |step: &mesh_types::EnsembleStep| model_ensembling::Step {
        model_name: step.model_name.to_string(),
        // A label has no number: it is the default to whoever knows only numbers.
        model_version: step.model_version.to_string().parse().unwrap_or(-1),
        input_map: step.input_map.clone(),
        output_map: step.output_map.clone(),
        model_namespace: step
            .model_namespace
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    };
    ModelEnsembling {
        step: ensemble.step.iter().map(step).collect(),
        max_inflight_requests: ensemble.max_inflight_requests,
    }
}
