//! The bench's models: traced by the workshop, published like any other, called with binary tensors.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use mesh_protocol::grpc::messages::{ModelInferRequest, model_infer_request::InferInputTensor};
use prost::Message as _;
use serde_json::{Value, json};

use crate::{
    bench::Bench,
    environment,
    node::{Node, document, write_secret},
    packages, process,
};

/// The tenant that the bench calls as.
pub(crate) const TENANT: &str = "bench";

/// A model and how it is called.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) name: &'static str,
    /// Extents of a row.
    pub(crate) row: &'static [usize],
    pub(crate) config: &'static str,
    /// Its file among the test models that PyTorch made; none for what the workshop traces.
    pub(crate) made: Option<&'static str>,
}

/// A perceptron of 30-64-32-2: the mesh's own cost shows.
pub(crate) const MLP: Model = Model {
    name: "mlp",
    row: &[30],
    config: "\
max_batch_size: 64
input: [{name: x, datatype: FP32, dims: [30]}]
output: [{name: y, datatype: FP32, dims: [2]}]
dynamic_batching: {}
",
    made: None,
};

/// A transformer encoder of 4 layers, 256 wide, over 64 tokens: compute-bound.
pub(crate) const ENCODER: Model = Model {
    name: "encoder",
    row: &[64, 256],
    config: "\
max_batch_size: 16
input: [{name: x, datatype: FP32, dims: [64, 256]}]
output: [{name: y, datatype: FP32, dims: [64, 256]}]
dynamic_batching: {max_queue_delay_microseconds: 1000}
",
    made: None,
};

/// The parts of a classifier: normalise (elementwise), classify (the encoder, pooled, and a head), post-process (softmax).
pub(crate) const NORMALISE: Model = Model {
    name: "normalise",
    row: &[64, 256],
    config: "\
max_batch_size: 16
input: [{name: x, datatype: FP32, dims: [64, 256]}]
output: [{name: y, datatype: FP32, dims: [64, 256]}]
dynamic_batching: {}
",
    made: None,
};
/// See [`NORMALISE`].
pub(crate) const CLASSIFY: Model = Model {
    name: "classify",
    row: &[64, 256],
    config: CLASSIFIER,
    made: None,
};
/// See [`NORMALISE`].
pub(crate) const POST: Model = Model {
    name: "post",
    row: &[10],
    config: "\
max_batch_size: 16
input: [{name: x, datatype: FP32, dims: [10]}]
output: [{name: y, datatype: FP32, dims: [10]}]
dynamic_batching: {}
",
    made: None,
};
/// All three in one module.
pub(crate) const COMPOSED: Model = Model {
    name: "composed",
    row: &[64, 256],
    config: CLASSIFIER,
    made: None,
};
const CLASSIFIER: &str = "\
max_batch_size: 16
input: [{name: x, datatype: FP32, dims: [64, 256]}]
output: [{name: y, datatype: FP32, dims: [10]}]
dynamic_batching: {}
";

/// A small model that comes and goes.
pub(crate) const SMALL: Model = Model {
    name: "small",
    row: &[30],
    config: "\
max_batch_size: 64
input: [{name: x, datatype: FP32, dims: [30]}]
output: [{name: y, datatype: FP32, dims: [2]}]
dynamic_batching: {}
residency: {load: ON_DEMAND, idle_seconds: 1}
",
    made: None,
};
/// The encoder with eight times as many layers, about 100 MB, that comes and goes.
pub(crate) const LARGE: Model = Model {
    name: "large",
    row: &[64, 256],
    config: "\
max_batch_size: 16
input: [{name: x, datatype: FP32, dims: [64, 256]}]
output: [{name: y, datatype: FP32, dims: [64, 256]}]
dynamic_batching: {}
residency: {load: ON_DEMAND, idle_seconds: 1}
",
    made: None,
};

/// The three parts as an ensemble.
pub(crate) const PIPE: &str = "pipe";
const PIPE_CONFIG: &str = "\
max_batch_size: 16
input: [{name: x, datatype: FP32, dims: [64, 256]}]
output: [{name: y, datatype: FP32, dims: [10]}]
graph:
  steps:
    - {name: normalise, model: normalise, inputs: {x: x}, outputs: {y: normal}}
    - {name: classify, model: classify, inputs: {x: normal}, outputs: {y: scores}}
    - {name: post, model: post, inputs: {x: scores}, outputs: {y: y}}
";

/// Publishes the ensemble, unless it is there; its models must be.
pub(crate) fn compose(node: &Node) -> anyhow::Result<()> {
    let there = node.list("models", Some(TENANT))?;
    let named = |item: &Value| item.pointer("/metadata/name").and_then(Value::as_str) == Some(PIPE);
    if there.iter().any(named) {
        return Ok(());
    }
    let config = node.folder.join(format!("{PIPE}.yaml"));
    fs::write(&config, PIPE_CONFIG)?;
    let mut command = node.cli(&[
        "model", "publish", "--format", "ensemble", "-t", TENANT, "-m", PIPE, "--wait",
    ]);
    process::output(command.arg("--config").arg(config)).map(drop)
}

/// A request of one row, as a file holds it.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) file: PathBuf,
    /// The headers that the body needs.
    pub(crate) headers: Vec<String>,
}

/// Writes the models, unless they are there.
pub(crate) fn trace(bench: &Bench) -> anyhow::Result<()> {
    let folder = bench.folder.join("models");
    let all = [&MLP, &ENCODER, &NORMALISE, &CLASSIFY, &POST, &COMPOSED, &SMALL, &LARGE];
    if all.iter().all(|model| file(&bench.folder, model).is_file()) {
        return Ok(());
    }
    let mut command = bench.programs.command(&bench.programs.workshop());
    process::output(command.arg("trace-bench").arg("--out").arg(folder)).map(drop)
}

/// The model's file.
pub(crate) fn file(folder: &Path, model: &Model) -> PathBuf {
    match (model.made, environment::root()) {
        (Some(made), Ok(root)) => root.join(packages::LINK).join(made),
        _ => folder.join("models").join(format!("{}.pt", model.name)),
    }
}

/// Creates the tenant and publishes models, unless they are there; returns the file of the tenant's key.
pub(crate) fn declare(node: &Node, folder: &Path, models: &[&Model]) -> anyhow::Result<PathBuf> {
    node.apply(&document("Tenant", None, TENANT, "{}"))?;
    let there = node.list("models", Some(TENANT))?;
    let is_there = |model: &Model| {
        let named = |item: &Value| item.pointer("/metadata/name").and_then(Value::as_str) == Some(model.name);
        there.iter().any(named)
    };
    for model in models.iter().filter(|model| !is_there(model)) {
        eprintln!("publishing {}", model.name);
        let config = node.folder.join(format!("{}.yaml", model.name));
        fs::write(&config, model.config)?;
        let mut command = node.cli(&["model", "publish", "-t", TENANT, "-m", model.name]);
        command
            .args(["--wait", "--wait-timeout", "20m"])
            .arg("--config")
            .arg(config);
        process::output(command.arg(file(folder, model)))?;
    }
    keys(node, &[TENANT], TENANT)
}

/// A file of these tenants' keys, one on each line.
pub(crate) fn keys(node: &Node, tenants: &[&str], name: &str) -> anyhow::Result<PathBuf> {
    let mut text = String::new();
    for tenant in tenants {
        text.push_str(&node.key(tenant)?);
        text.push('\n');
    }
    let file = node.folder.join(format!("{name}.keys"));
    write_secret(&file, &text)?;
    Ok(file)
}

/// Lets these tenants, made if need be, call the bench's model.
pub(crate) fn grant(node: &Node, model: &Model, tenants: &[&str]) -> anyhow::Result<()> {
    let tenant = |tenant: &&str| document("Tenant", None, tenant, "{}");
    node.apply(&tenants.iter().map(tenant).collect::<String>())?;
    let mut known = node.list("models", Some(TENANT))?;
    let named = |item: &Value| item.pointer("/metadata/name").and_then(Value::as_str) == Some(model.name);
    known.retain(named);
    let mut known = known.pop().context("the model is not listed")?;
    let spec = known.get_mut("spec").and_then(Value::as_object_mut);
    spec.context("the model has no spec")?
        .insert("grants".to_owned(), json!(tenants));
    // JSON is YAML.
    node.apply(&known.to_string())
}

/// Writes the body of a request for one row, binary in and out.
pub(crate) fn body(folder: &Path, model: &Model) -> anyhow::Result<Body> {
    let (bytes, json_bytes) = body_bytes(model);
    let file = folder.join(format!("{}.body", model.name));
    fs::write(&file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Body {
        file,
        headers: vec![
            "content-type: application/octet-stream".to_owned(),
            format!("inference-header-content-length: {json_bytes}"),
        ],
    })
}

/// The same request as a message over gRPC.
pub(crate) fn message(folder: &Path, model: &Model) -> anyhow::Result<Body> {
    let (bytes, json_bytes) = body_bytes(model);
    let raw = bytes.get(json_bytes..).unwrap_or_default().to_vec();
    let extents = shape(model).into_iter().map(i64::try_from);
    let message = ModelInferRequest {
        model_name: model.name.to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: extents.collect::<Result<_, _>>()?,
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![raw.into()],
        ..ModelInferRequest::default()
    };
    let file = folder.join(format!("{}.message", model.name));
    fs::write(&file, message.encode_to_vec()).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Body {
        file,
        headers: Vec::new(),
    })
}

fn shape(model: &Model) -> Vec<usize> {
    std::iter::once(1).chain(model.row.iter().copied()).collect()
}

fn body_bytes(model: &Model) -> (Vec<u8>, usize) {
    let values: usize = model.row.iter().product();
    let shape = shape(model);
    let head = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [{
            "name": "x", "shape": shape, "datatype": "FP32",
            "parameters": {"binary_data_size": values * size_of::<f32>()},
        }],
    });
    let mut bytes = head.to_string().into_bytes();
    let json_bytes = bytes.len();
    // A short cycle of harmless values: neither zeros nor anything that overflows.
    for value in [0.5_f32, -0.25, 1.0, 0.125].iter().cycle().take(values) {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    (bytes, json_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_its_json_and_then_exactly_one_row() {
        for model in [&MLP, &ENCODER, &COMPOSED] {
            let (bytes, json_bytes) = body_bytes(model);
            let head: Value = serde_json::from_slice(&bytes[..json_bytes]).unwrap();
            let size = head
                .pointer("/inputs/0/parameters/binary_data_size")
                .unwrap()
                .as_u64()
                .unwrap();
            assert_eq!(size, (bytes.len() - json_bytes) as u64);
            assert_eq!(size, 4 * model.row.iter().product::<usize>() as u64);
        }
    }
}
