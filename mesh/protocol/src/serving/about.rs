//! What TensorFlow Serving tells about models: a signature, and the state of versions.

use std::collections::BTreeMap;

use mesh_types::{ModelConfig, TensorSpec, Version};
use prost::Message as _;

use super::{
    answer::spec,
    messages::{
        SignatureDef, TensorInfo,
        error::Code,
        serving::{
            GetModelMetadataResponse, GetModelStatusResponse, ModelVersionStatus, SignatureDefMap, StatusProto,
            model_version_status::State,
        },
        tensor_info::Encoding,
    },
    tensor::{dtype, shape_of},
};
use crate::v1::{SIGNATURE, VersionStatus};

/// What an `Any` says that it holds.
const HELD: &str = "type.googleapis.com/tensorflow.serving.SignatureDefMap";

/// A model's inputs and outputs as its one signature.
pub fn signature(name: &str, version: Version, config: &ModelConfig) -> GetModelMetadataResponse {
    let of = |specs: &[TensorSpec]| -> BTreeMap<String, TensorInfo> {
        let one = |spec: &TensorSpec| {
            let info = TensorInfo {
                encoding: Some(Encoding::Name(spec.name.clone())),
                dtype: dtype(spec.datatype).into(),
                tensor_shape: Some(shape_of(config.wire_dims(spec))),
            };
            (spec.name.clone(), info)
        };
        specs.iter().map(one).collect()
    };
    let signature = SignatureDef {
        inputs: of(&config.input),
        outputs: of(&config.output),
        method_name: "tensorflow/serving/predict".to_owned(),
    };
    let all = SignatureDefMap {
        signature_def: [(SIGNATURE.to_owned(), signature)].into(),
    };
    let held = prost_types::Any {
        type_url: HELD.to_owned(),
        value: all.encode_to_vec(),
    };
    GetModelMetadataResponse {
        model_spec: Some(spec(name, version.get())),
        metadata: [("signature_def".to_owned(), held)].into(),
    }
}

/// The state of versions.
pub fn status(versions: &[VersionStatus<'_>]) -> GetModelStatusResponse {
    let one = |status: &VersionStatus<'_>| {
        let (state, error_code) = match status.ready {
            true => (State::Available, Code::Ok),
            false => (State::Loading, Code::Unavailable),
        };
        ModelVersionStatus {
            version: i64::from(status.version.get()),
            state: state.into(),
            status: Some(StatusProto {
                error_code: error_code.into(),
                error_message: status.reason.to_owned(),
            }),
        }
    };
    GetModelStatusResponse {
        model_version_status: versions.iter().map(one).collect(),
    }
}
