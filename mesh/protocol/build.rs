//! Compiles the protocol's messages from `proto/`, and the descriptors that reflection answers with. Needs no `protoc`.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost::Message as _;

/// Messages that are also written as JSON: configuration, statistics and the index of the repository.
const IN_JSON: [&str; 14] = [
    "ModelConfig",
    "ModelDynamicBatching",
    "ModelEnsembling",
    "ModelInput",
    "ModelInstanceGroup",
    "ModelOutput",
    "ModelParameter",
    "ModelQueuePolicy",
    "ModelSequenceBatching",
    "ModelStatistics",
    "ModelStatisticsResponse",
    "ModelTransactionPolicy",
    "ModelVersionPolicy",
    "StatisticDuration",
];
const IN_JSON_TOO: [&str; 5] = [
    "InferBatchStatistics",
    "InferResponseStatistics",
    "InferStatistics",
    "MemoryUsage",
    "RepositoryIndexResponse",
];
/// Fields that hold one of several messages: in JSON that message's name stands where they are.
const ONE_OF: [&str; 4] = [
    "ModelConfig.scheduling_choice",
    "ModelSequenceBatching.strategy_choice",
    "ModelSequenceBatching.InitialState.state_data",
    "ModelVersionPolicy.policy_choice",
];
/// Fields that JSON leaves out where they are absent.
const OPTIONAL: [&str; 3] = [
    "ModelConfig.version_policy",
    "ModelConfig.model_transaction_policy",
    "ModelDynamicBatching.default_queue_policy",
];
/// Fields whose values have names, and the function that writes them.
const NAMED: [(&str, &str); 8] = [
    ("ModelInput.data_type", "data_type"),
    ("ModelInput.format", "format"),
    ("ModelOutput.data_type", "data_type"),
    ("ModelInstanceGroup.kind", "instance_kind"),
    ("ModelQueuePolicy.timeout_action", "timeout_action"),
    ("ModelSequenceBatching.Control.kind", "control_kind"),
    ("ModelSequenceBatching.Control.data_type", "data_type"),
    ("ModelSequenceBatching.State.data_type", "data_type"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["grpc_service.proto"], ["proto"])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not say where to")?);
    fs::write(out.join("inference.bin"), files.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]).out_dir(&out);
    for message in IN_JSON.iter().chain(&IN_JSON_TOO) {
        config.type_attribute(format!(".inference.{message}"), "#[derive(serde::Serialize)]");
    }
    for field in ONE_OF {
        config.type_attribute(format!(".inference.{field}"), "#[serde(rename_all = \"snake_case\")]");
        // Without the package in front it is this field, and not what is within it.
        config.field_attribute(field, "#[serde(flatten)]");
    }
    for field in OPTIONAL {
        let attribute = "#[serde(skip_serializing_if = \"Option::is_none\")]";
        config.field_attribute(format!(".inference.{field}"), attribute);
    }
    let initial = "ModelSequenceBatching.InitialState.data_type";
    for (field, name) in NAMED.into_iter().chain([(initial, "data_type")]) {
        let attribute = format!("#[serde(serialize_with = \"crate::grpc::names::{name}\")]");
        config.field_attribute(format!(".inference.{field}"), attribute);
    }
    config.compile_fds(files)?;
    serving(&out)
}

/// The calls of TensorFlow Serving, with descriptors of their own.
fn serving(out: &Path) -> Result<(), Box<dyn Error>> {
    let files = protox::compile(["tensorflow_serving.proto"], ["proto"])?;
    fs::write(out.join("serving.bin"), files.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    config.bytes(["."]).btree_map(["."]).out_dir(out);
    config.compile_fds(files)?;
    Ok(())
}
