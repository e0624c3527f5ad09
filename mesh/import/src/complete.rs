//! Completes a configuration by what a model's file says of itself; where that is not enough, says what to write.
//!
//! A compiled package says names, types and extents of its inputs, and the names of its outputs; TorchScript says names only. Where the
//! inputs are known the model is run on zeros to learn what its outputs are. What neither says is not guessed, because a wrong guess
//! would refuse every request.

use std::path::Path;

use mesh_backend::{ModelFiles, Signature, ValueType};
use mesh_types::{ArtifactFormat, DataType, DynamicBatching, ModelConfig, TensorSpec};

/// The most rows of a batch where nobody says a number.
pub const DEFAULT_ROWS: u32 = 8;

/// An input or output as far as it is known; its extents with those of the batch.
struct Known {
    name: String,
    datatype: Option<DataType>,
    dims: Option<Vec<i64>>,
    optional: bool,
    /// A number and not a tensor.
    plain: bool,
}

/// Fills in the inputs and outputs that are missing, and the rows of a batch where they were not said, by what a model's file says and
/// by running it. The error says what to write into the configuration.
pub fn complete(
    config: &mut ModelConfig,
    (path, format): (&Path, ArtifactFormat),
    rows_said: bool,
    files: &dyn ModelFiles,
) -> Result<(), String> {
    let signature = files.signature(path, format)?;
    complete_with(config, &signature, rows_said, &|config| {
        files.probe(path, format, config)
    })
}

/// Runs the model on zeros; the outputs of the configuration with their types and extents.
type Probe<'a> = dyn Fn(&ModelConfig) -> Result<Vec<TensorSpec>, String> + 'a;

fn complete_with(
    config: &mut ModelConfig,
    signature: &Signature,
    rows_said: bool,
    probe: &Probe<'_>,
) -> Result<(), String> {
    if signature
        .arguments
        .iter()
        // One that may be left out shares batches as it did: that it is given something is the configuration's to say.
        .any(|argument| {
            argument.value.is_parameters() && argument.default.is_none() && !argument.value.may_be_none()
        })
    {
        config.request_parameters.get_or_insert_default();
    }
    let mut inputs = inputs(signature)?;
    let mut outputs = outputs(signature);
    leave_out_own(config, &mut inputs, &mut outputs);
    // A batch dimension that is fixed is none.
    let fixed = inputs
        .iter()
        .filter(|one| !one.plain)
        .any(|one| matches!(one.dims.as_deref(), Some([rows, ..]) if *rows != -1));
    if !rows_said && !fixed {
        config.max_batch_size = signature.max_rows.unwrap_or(DEFAULT_ROWS).min(DEFAULT_ROWS);
        if config.max_batch_size > 1 && config.sequence_batching.is_none() && config.dynamic_batching.is_none() {
            config.dynamic_batching = Some(DynamicBatching::default());
        }
    }
    let batches = config.batches();
    let specs = |all: &[Known]| all.iter().map(|one| one.spec(batches)).collect::<Vec<_>>();
    let (no_input, no_output) = (config.input.is_empty(), config.output.is_empty());
    let lacks_input = no_input && !are_known(&inputs);
    if no_input && !lacks_input {
        config.input = specs(&inputs);
    }
    let mut why = String::new();
    if no_output {
        config.output = specs(&outputs);
        if !are_known(&outputs) {
            // Only a model whose inputs are all known can be run.
            let found = if lacks_input { Ok(Vec::new()) } else { probe(config) };
            config.output = found.unwrap_or_else(|problem| {
                why = format!(" (it was run to find out: {problem})");
                Vec::new()
            });
        }
    }
    let lacks_output = config.output.is_empty();
    if !lacks_input && !lacks_output {
        return Ok(());
    }
    let missing = [("input", lacks_input, &inputs), ("output", lacks_output, &outputs)];
    let missing = missing.into_iter().filter(|(_, lacks, _)| *lacks);
    let parts: Vec<String> = missing
        .map(|(field, _, all)| {
            let tensors: Vec<String> = all.iter().map(|one| one.written(batches)).collect();
            format!("{field} [ {} ]", tensors.join(", "))
        })
        .collect();
    // Types and extents are written without the rows of a batch: whether there are any must be said beside them.
    let rows = (!rows_said).then(|| format!("max_batch_size: {} ", config.max_batch_size));
    Err(format!(
        "write {}{} with the types and extents that it has{why}",
        rows.unwrap_or_default(),
        parts.join(" ")
    ))
}

fn are_known(all: &[Known]) -> bool {
    all.iter().all(|one| one.datatype.is_some() && one.dims.is_some())
}

/// What the mesh fills in and keeps for sequences is none of a caller's inputs and outputs.
fn leave_out_own(config: &ModelConfig, inputs: &mut Vec<Known>, outputs: &mut Vec<Known>) {
    let Some(sequence) = &config.sequence_batching else {
        return;
    };
    let control = |name: &str| sequence.control_input.iter().any(|input| input.name == name);
    inputs.retain(|one| !control(&one.name) && !sequence.state.iter().any(|state| state.input_name == one.name));
    outputs.retain(|one| !sequence.state.iter().any(|state| state.output_name == one.name));
}

fn inputs(signature: &Signature) -> Result<Vec<Known>, String> {
    let mut found = Vec::new();
    for argument in signature
        .arguments
        .iter()
        .filter(|argument| !argument.value.is_parameters())
    {
        let optional = argument.default.is_some() || argument.value.may_be_none();
        for (name, value) in argument.value.leaves(&argument.name) {
            match value.present() {
                // It is left out.
                ValueType::Other(_) if optional => {}
                ValueType::Other(text) => {
                    return Err(format!("its argument {name} is {text}, which no tensor can stand for"));
                }
                _ => found.push(Known::of(name, value, optional)),
            }
        }
    }
    Ok(found)
}

/// Named by keys at the top, by places otherwise.
fn outputs(signature: &Signature) -> Vec<Known> {
    let root = match signature.result.present() {
        ValueType::Dict { .. } | ValueType::Record(_) => "",
        value if value.is_leaf() => "OUTPUT__0",
        _ => "OUTPUT",
    };
    let leaves = signature.result.leaves(root).into_iter();
    leaves.map(|(name, value)| Known::of(name, value, false)).collect()
}

impl Known {
    fn of(name: String, value: &ValueType, optional: bool) -> Self {
        let number = |value: &ValueType| match value {
            ValueType::Int => Some(DataType::Int64),
            ValueType::Bool => Some(DataType::Bool),
            ValueType::Float => Some(DataType::Fp32),
            _ => None,
        };
        let (datatype, dims) = match value.present() {
            ValueType::Tensor { datatype, dims } => (*datatype, dims.clone()),
            ValueType::List { item, .. } => (number(item), Some(vec![-1])),
            value => (number(value), Some(vec![1])),
        };
        Self {
            name,
            datatype,
            dims,
            optional,
            plain: value.is_plain(),
        }
    }

    fn spec(&self, batches: bool) -> TensorSpec {
        let dims = self.dims.as_deref().unwrap_or(&[-1]);
        let rows = usize::from(batches && !self.plain && self.dims.is_some());
        TensorSpec {
            optional: self.optional,
            unbatched: batches && self.plain,
            ..TensorSpec::new(
                &self.name,
                self.datatype.unwrap_or(DataType::Fp32),
                dims.get(rows..).unwrap_or_default(),
            )
        }
    }

    /// As `config.pbtxt` has it.
    fn written(&self, batches: bool) -> String {
        let spec = self.spec(batches);
        let datatype = match spec.datatype {
            DataType::Bytes => "STRING".to_owned(),
            other => other.to_string(),
        };
        let dims: Vec<String> = spec.dims.iter().map(i64::to_string).collect();
        let optional = if spec.optional { " optional: true" } else { "" };
        format!(
            "{{ name: \"{}\" data_type: TYPE_{datatype} dims: [ {} ]{optional} }}",
            spec.name,
            dims.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use mesh_backend::Argument;

    use super::*;

    fn complete(config: &mut ModelConfig, signature: &Signature, rows_said: bool) -> Result<(), String> {
        complete_with(config, signature, rows_said, &|_| Err("it does not run".to_owned()))
    }

    fn signature(value: ValueType, result: ValueType) -> Signature {
        Signature {
            arguments: vec![Argument {
                name: "x".into(),
                value,
                default: None,
            }],
            result,
            max_rows: Some(64),
        }
    }

    fn tensor(dims: &[i64]) -> ValueType {
        ValueType::Tensor {
            datatype: Some(DataType::Fp32),
            dims: Some(dims.to_vec()),
        }
    }

    #[test]
    fn a_dictionary_of_texts_becomes_the_requests_parameters() {
        let mut signature = signature(tensor(&[-1, 30]), tensor(&[-1, 2]));
        signature.arguments.push(Argument {
            name: "given".into(),
            value: ValueType::Dict {
                value: Box::new(ValueType::Other("str".into())),
                keys: Vec::new(),
            },
            default: None,
        });
        let mut config = ModelConfig::default();
        complete(&mut config, &signature, false).unwrap();
        assert_eq!(config.input, [TensorSpec::new("x", DataType::Fp32, &[30])]);
        assert!(config.request_parameters.is_some() && config.problems().is_empty());
        // One that may be left out is left out, as before.
        if let Some(given) = signature.arguments.last_mut() {
            given.default = Some("{}".into());
        }
        let mut config = ModelConfig::default();
        complete(&mut config, &signature, false).unwrap();
        assert_eq!(config.request_parameters, None);
    }

    #[test]
    fn what_a_file_says_is_enough_where_it_says_everything() {
        let mut config = ModelConfig::default();
        complete(&mut config, &signature(tensor(&[-1, 30]), tensor(&[-1, 2])), false).unwrap();
        assert_eq!(config.max_batch_size, DEFAULT_ROWS);
        assert!(config.dynamic_batching.is_some());
        assert_eq!(config.input, [TensorSpec::new("x", DataType::Fp32, &[30])]);
        assert_eq!(config.output, [TensorSpec::new("OUTPUT__0", DataType::Fp32, &[2])]);
        assert!(config.problems().is_empty());
        let mut fixed = ModelConfig::default();
        complete(&mut fixed, &signature(tensor(&[2, 30]), tensor(&[2, 2])), false).unwrap();
        assert_eq!((fixed.max_batch_size, &*fixed.input[0].dims), (0, &[2, 30][..]));
    }

    #[test]
    fn what_was_said_stays() {
        let mut config = ModelConfig {
            max_batch_size: 4,
            input: vec![TensorSpec::new("INPUT__0", DataType::Fp16, &[30])],
            ..ModelConfig::default()
        };
        complete(&mut config, &signature(tensor(&[-1, 30]), tensor(&[-1, 2])), true).unwrap();
        assert_eq!((config.max_batch_size, config.input[0].datatype), (4, DataType::Fp16));
        assert_eq!(config.output[0].dims, [2]);
        assert!(config.dynamic_batching.is_none());
    }

    #[test]
    fn only_what_is_not_known_is_to_be_written() {
        let package = signature(tensor(&[-1, 30]), ValueType::tensor());
        let error = complete(&mut ModelConfig::default(), &package, false).unwrap_err();
        assert!(
            error.starts_with("write max_batch_size: 8 output [ { name: \"OUTPUT__0\""),
            "{error}"
        );
        let mut config = ModelConfig {
            output: vec![TensorSpec::new("OUTPUT__0", DataType::Fp32, &[2])],
            ..ModelConfig::default()
        };
        complete(&mut config, &package, false).unwrap();
        assert_eq!(
            (config.max_batch_size, &*config.input[0].dims),
            (DEFAULT_ROWS, &[30][..])
        );
    }

    #[test]
    fn what_belongs_to_sequences_is_no_callers() {
        let mut both = signature(
            tensor(&[-1, 1]),
            ValueType::Record(vec![("y".into(), tensor(&[-1, 1])), ("next".into(), tensor(&[-1, 1]))]),
        );
        for name in ["START", "state"] {
            both.arguments.push(Argument {
                name: name.into(),
                value: tensor(&[-1, 1]),
                default: None,
            });
        }
        let sequence = serde_json::json!({
            "control_input": [{"name": "START", "control": [{"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1]}]}],
            "state": [{"input_name": "state", "output_name": "next", "data_type": "FP32", "dims": [1]}],
        });
        let mut config = ModelConfig {
            sequence_batching: Some(serde_json::from_value(sequence).unwrap()),
            ..ModelConfig::default()
        };
        complete(&mut config, &both, false).unwrap();
        let names = |specs: &[TensorSpec]| specs.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>();
        assert_eq!(
            (names(&config.input), names(&config.output)),
            (vec!["x".into()], vec!["y".into()])
        );
        assert!(config.dynamic_batching.is_none());
    }

    #[test]
    fn where_it_is_not_enough_the_error_is_what_to_write() {
        let error = complete(
            &mut ModelConfig::default(),
            &signature(ValueType::tensor(), ValueType::tensor()),
            false,
        )
        .unwrap_err();
        assert_eq!(
            error,
            "write max_batch_size: 8 input [ { name: \"x\" data_type: TYPE_FP32 dims: [ -1 ] } ] output [ { name: \"OUTPUT__0\" \
             data_type: TYPE_FP32 dims: [ -1 ] } ] with the types and extents that it has"
        );
        let other = ValueType::Other("Device".into());
        let error = complete(&mut ModelConfig::default(), &signature(other, tensor(&[1])), false).unwrap_err();
        assert!(error.contains("argument x is Device"), "{error}");
    }

    #[test]
    fn a_model_whose_inputs_are_known_is_run_to_learn_its_outputs() {
        let script = signature(ValueType::tensor(), ValueType::tensor());
        let input = vec![TensorSpec::new("x", DataType::Fp32, &[4])];
        let mut config = ModelConfig {
            max_batch_size: 2,
            input,
            ..ModelConfig::default()
        };
        let found = |config: &ModelConfig| {
            assert_eq!(config.output.len(), 1);
            Ok(vec![TensorSpec::new(&config.output[0].name, DataType::Int64, &[3])])
        };
        let whole = config.clone();
        let mut run = whole.clone();
        complete_with(&mut run, &script, true, &found).unwrap();
        assert_eq!(run.output, [TensorSpec::new("OUTPUT__0", DataType::Int64, &[3])]);
        let error = complete(&mut config, &script, true).unwrap_err();
        assert!(
            error.ends_with("with the types and extents that it has (it was run to find out: it does not run)"),
            "{error}"
        );
        assert_eq!(config, whole, "what is not known is not filled in");
        // Without its inputs it cannot be run.
        let never = |_: &ModelConfig| -> Result<Vec<TensorSpec>, String> { unreachable!() };
        let mut bare = ModelConfig::default();
        let error = complete_with(&mut bare, &script, true, &never).unwrap_err();
        assert!(error.contains("input [") && error.contains("output ["), "{error}");
    }
}
