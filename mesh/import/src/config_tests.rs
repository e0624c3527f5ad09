//! Configurations as they are met, and what they come to: the JSON of the mesh's own, and what is said.

use std::path::Path;

use mesh_types::RequestParameters;
use proptest::prelude::*;
use serde_json::json;

use super::*;

struct Came {
    converted: Option<Converted>,
    said: Vec<String>,
    refused: bool,
}

fn nothing(folder: &str, name: &str, _: usize) -> Result<Vec<u8>, String> {
    match name {
        "there" => Ok(vec![1, 2, 3, 4]),
        "labels.txt" => Ok(b"cat\r\ndog\n".to_vec()),
        "not_text" => Ok(vec![0xFF]),
        _ => Err(format!("{}: not there", Path::new(folder).join(name).display())),
    }
}

fn read(folder: &str, text: &str) -> Came {
    let mut notes = Notes::of(folder);
    let converted = convert(text, folder, &nothing, &mut notes);
    if let Some(converted) = &converted {
        check(&converted.config, &converted.lines, &mut notes);
    }
    Came {
        converted,
        refused: notes.refused(),
        said: notes.into_all().iter().map(ToString::to_string).collect(),
    }
}

fn taken(folder: &str, text: &str) -> (Converted, Json, Vec<String>) {
    let Came {
        converted,
        said,
        refused,
    } = read(folder, text);
    assert!(!refused, "{said:?}");
    let converted = converted.unwrap();
    let json = serde_json::to_value(&converted.config).unwrap();
    (converted, json, said)
}

fn refused(folder: &str, text: &str) -> Vec<String> {
    let came = read(folder, text);
    assert!(came.refused, "{:?}", came.converted.map(|converted| converted.config));
    came.said
}

#[test]
fn a_parameter_says_which_parameters_of_requests_a_model_is_given() {
    let text = |said: &str| {
        let key = "key: 'REQUEST_PARAMETERS'";
        format!("platform: 'pytorch_libtorch' {SIMPLE} parameters {{ {key} value: {{ string_value: '{said}' }} }}")
    };
    let (_, json, said) = taken("m", &text("scale, language"));
    assert_eq!(json["request_parameters"], json!({"names": ["scale", "language"]}));
    assert!(said.is_empty() && json.get("parameters").is_none(), "{said:?} {json}");
    let (converted, _, _) = taken("m", &text("*"));
    assert_eq!(converted.config.request_parameters, Some(RequestParameters::default()));
}

#[test]
fn a_parameter_that_names_no_parameters_of_requests_is_refused_and_not_taken_for_all() {
    let text = |value: &str| {
        let key = "key: 'REQUEST_PARAMETERS'";
        format!("platform: 'pytorch_libtorch'\n{SIMPLE}\nparameters {{\n{key} value: {{ {value} }} }}")
    };
    let none = "m: parameters.REQUEST_PARAMETERS names no parameters (config.pbtxt:";
    for value in ["string_value: ''", "string_value: ' '", "string_value: ' , ,'", ""] {
        let said = refused("m", &text(value));
        let [only] = said.as_slice() else { panic!("{said:?}") };
        assert!(only.starts_with(none), "{value}: {only}");
        assert!(
            only.ends_with("write * for all, names with commas between them, or leave it out for none"),
            "{only}"
        );
    }
    let [both] = &refused("m", &text("string_value: 'scale, *'"))[..] else {
        panic!("one thing is wrong")
    };
    assert!(both.contains("names all parameters and some"), "{both}");
    assert!(
        both.ends_with("write * alone for all, or names with commas between them"),
        "{both}"
    );
    let (converted, _, _) = taken("m", &text("string_value: 'scale,'"));
    assert_eq!(converted.config.request_parameters.unwrap().names, ["scale"]);
}

#[test]
fn a_classifier_of_another_runtime_is_refused_by_field_and_line() {
    let text = r#"name: "densenet_onnx"

backend: "onnxruntime"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 224, 224 ]
    reshape { shape: [ 1, 3, 224, 224 ] }
  }
]
output [
  {
    name: "fc6_1"
    data_type: TYPE_FP32
    dims: [ 1000 ]
    reshape { shape: [ 1, 1000, 1, 1 ] }
    label_filename: "densenet_labels.txt"
  }
]
"#;
    assert_eq!(
        refused("densenet_onnx", text),
        [
            "densenet_onnx: input[0].reshape is not supported (config.pbtxt:11): let the model take the shape that is in dims",
            "densenet_onnx: output[0].reshape is not supported (config.pbtxt:19): let the model take the shape that is in dims",
            "densenet_onnx: backend 'onnxruntime' is not supported (config.pbtxt:3): export the model to TorchScript or .pt2",
            "densenet_onnx: output[0].label_filename 'densenet_labels.txt' cannot be read (config.pbtxt:20): \
             densenet_labels.txt: not there",
        ]
    );
}

#[test]
fn a_libtorch_model_is_taken_with_its_names_batches_and_instances() {
    let text = r#"
platform: "pytorch_libtorch"
max_batch_size: 64
input { name: "INPUT__0" data_type: TYPE_FP32 dims: 3 dims: 224 dims: 224 format: FORMAT_NCHW }
output { name: "OUTPUT__0" data_type: TYPE_FP32 dims: [ 1000 ] }
instance_group [ { kind: KIND_GPU gpus: [ 0, 1 ] count: 2 }, { kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 16, 64 ]
  max_queue_delay_microseconds: 500
  priority_levels: 2
  default_priority_level: 1
  default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 10000 max_queue_size: 8 }
  priority_queue_policy { key: 2 value: { timeout_action: REJECT, allow_timeout_override: true } }
}
optimization { graph { level: 1 } }
parameters: { key: "INFERENCE_MODE" value: { string_value: "true" } }
response_cache { enable: true }
model_transaction_policy { decoupled: false }
"#;
    let (converted, json, said) = taken("resnet", text);
    assert_eq!(converted.runtime, Some(Runtime::Torch(runtime::SCRIPTED)));
    assert_eq!(converted.policy, VersionPolicy::Latest { num_versions: 1 });
    assert_eq!(
        json["input"],
        json!([{"name": "INPUT__0", "datatype": "FP32", "dims": [3, 224, 224]}])
    );
    assert_eq!(json["output"][0]["dims"], json!([1000]));
    assert_eq!(
        json["instance_group"],
        json!([{"count": 2, "kind": "KIND_GPU", "gpus": [0, 1]}, {"count": 1, "kind": "KIND_CPU", "gpus": []}])
    );
    let batching = converted.config.dynamic_batching.unwrap();
    assert_eq!(batching.preferred_batch_size, [16, 64]);
    assert!(batching.policy(2).allow_timeout_override);
    assert_eq!(batching.policy(1).max_queue_size, 8);
    assert_eq!(json["parameters"], json!({"INFERENCE_MODE": "true"}));
    let fields = [
        "optimization is ignored (config.pbtxt:15)",
        "response_cache.enable is ignored (config.pbtxt:17)",
        "parameters.INFERENCE_MODE has no effect (config.pbtxt:16)",
    ];
    assert_eq!(said.len(), fields.len(), "{said:?}");
    assert!(
        fields.iter().all(|field| said.iter().any(|said| said.contains(field))),
        "{said:?}"
    );
}

#[test]
fn an_ensemble_of_two_steps_is_taken() {
    let text = r#"
name: "scan"
platform: "ensemble"
max_batch_size: 8
input [ { name: "IMAGE" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "CLASS" data_type: TYPE_FP32 dims: [ 10 ] } ]
ensemble_scheduling {
  step [
    {
      model_name: "preprocess"
      model_version: -1
      input_map { key: "raw" value: "IMAGE" }
      output_map { key: "pixels" value: "tensor" }
    },
    {
      model_name: "classify"
      model_version: 2
      input_map { key: "INPUT__0" value: "tensor" }
      output_map { key: "OUTPUT__0" value: "CLASS" }
    }
  ]
}
"#;
    let (converted, json, said) = taken("scan", text);
    assert_eq!(converted.runtime, Some(Runtime::Ensemble));
    assert_eq!(
        json["ensemble_scheduling"],
        json!({"step": [
            {"model_name": "preprocess", "model_version": -1, "input_map": {"raw": "IMAGE"}, "output_map": {"pixels": "tensor"}},
            {"model_name": "classify", "model_version": 2, "input_map": {"INPUT__0": "tensor"}, "output_map": {"OUTPUT__0": "CLASS"}},
        ]})
    );
    assert!(said.is_empty(), "{said:?}");
    let wrong = text
        .replace("model_version: 2", "model_version: 0")
        .replace("preprocess\"", "Pre process\"");
    let said = refused("scan", &wrong);
    assert!(
        said.iter()
            .any(|said| said.contains("step[1].model_version is 0 (config.pbtxt:17)")),
        "{said:?}"
    );
    assert!(
        said.iter()
            .any(|said| said.contains("step[0].model_name (config.pbtxt:10)")),
        "{said:?}"
    );
}

#[test]
fn a_sequence_model_is_taken_with_controls_and_states() {
    let text = r#"
backend: "sum_state"
max_batch_size: 4
sequence_batching {
  max_sequence_idle_microseconds: 5000000
  oldest { max_candidate_sequences: 4 preferred_batch_size: 2 }
  control_input [
    { name: "START" control [ { int32_false_true: [ 0, 1 ] } ] },
    { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }
  ]
  state [
    {
      input_name: "INPUT_STATE" output_name: "OUTPUT_STATE" data_type: TYPE_INT32 dims: [ 1 ]
      initial_state: { data_type: TYPE_INT32 dims: [ 1 ] data_file: "there" name: "start" }
    }
  ]
}
input [ { name: "INPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
output [ { name: "OUTPUT" data_type: TYPE_INT32 dims: [ 1 ] } ]
"#;
    let (converted, json, _) = taken("stateful", text);
    assert_eq!(converted.runtime, Some(Runtime::Builtin(Some("sum_state"))));
    assert_eq!(json["parameters"], json!({"builtin": "sum_state"}));
    let sequence = &json["sequence_batching"];
    assert_eq!(
        sequence["control_input"][0]["control"][0]["kind"],
        "CONTROL_SEQUENCE_START"
    );
    assert_eq!(sequence["oldest"]["max_candidate_sequences"], 4);
    assert_eq!(
        sequence["state"][0]["initial_state"][0]["data"],
        STANDARD.encode([1, 2, 3, 4])
    );
    let said = refused("stateful", &text.replace("\"there\"", "\"gone\""));
    assert_eq!(
        said,
        [
            "stateful: sequence_batching.state[0].initial_state[0].data_file 'gone' cannot be read (config.pbtxt:14): \
          initial_state/gone: not there"
        ]
    );
}

#[test]
fn version_policies_are_the_three_and_the_newest_by_default() {
    let policy = |text: &str| {
        let whole = format!("backend: 'identity' {SIMPLE} {text}");
        taken("m", &whole).0.policy
    };
    assert_eq!(policy(""), VersionPolicy::Latest { num_versions: 1 });
    assert_eq!(
        policy("version_policy { latest { num_versions: 3 } }"),
        VersionPolicy::Latest { num_versions: 3 }
    );
    assert_eq!(policy("version_policy: { all { } }"), VersionPolicy::All {});
    let versions = [1, 3].map(|number| Version::new(number).unwrap()).to_vec();
    assert_eq!(
        policy("version_policy: { specific { versions: [1, 3] } }"),
        VersionPolicy::Specific { versions }
    );
    for wrong in ["specific { versions: [0] }", "specific { }", "all {} latest {}"] {
        refused(
            "m",
            &format!("backend: 'identity' {SIMPLE} version_policy {{ {wrong} }}"),
        );
    }
}

const SIMPLE: &str =
    "input { name: 'x' data_type: TYPE_FP32 dims: -1 } output { name: 'y' data_type: TYPE_FP32 dims: -1 }";

#[test]
fn warm_up_is_zeros_random_or_a_file_whose_bytes_become_part_of_it() {
    let text = r#"
backend: "pytorch"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 1 ] } ]
model_warmup [
  { name: "zeros" batch_size: 4 inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 1 ] zero_data: true } } },
  { batch_size: 1 count: 3 inputs: { key: "x" value: { data_type: TYPE_FP32 dims: 1 random_data: true } } },
  { name: "file" inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 1 ] input_data_file: "there" } } }
]
"#;
    let (_, json, _) = taken("m", text);
    let warmups = &json["model_warmup"];
    assert_eq!(warmups[0]["inputs"]["x"]["zero_data"], true);
    assert_eq!(
        (&warmups[1]["name"], &warmups[1]["count"]),
        (&json!("warmup-2"), &json!(3))
    );
    assert_eq!(warmups[2]["inputs"]["x"]["input_data"], STANDARD.encode([1, 2, 3, 4]));
    let said = refused("m", &text.replace("\"there\"", "\"gone\""));
    assert_eq!(
        said,
        ["m: model_warmup[2].inputs.x.input_data_file 'gone' cannot be read (config.pbtxt:9): warmup/gone: not there"]
    );
    // What the mesh finds has its line too.
    let said = refused("m", &text.replace("batch_size: 4", "batch_size: 9"));
    assert!(
        said[0].starts_with("m: model_warmup[0].batch_size (config.pbtxt:7): at most max_batch_size (8)"),
        "{said:?}"
    );
}

#[test]
fn what_is_wrong_in_a_text_is_told_at_once_with_every_line() {
    let text = "name: 'other'\nbackend: pytorch\nmax_batch_size: -1\ninput { name: 'x' dims: 'y' }\noutput { data_type: \"TYPE_FP32\" }\n\
                instance_group { kind: KIND_MODEL }\nfrobnicate: 1\nmax_batch_size: 1\ndynamic_batching {}\nsequence_batching {}\n";
    let said = refused("m", text);
    for part in [
        "m: backend is 'pytorch' (config.pbtxt:2): write a text in quotes",
        "m: max_batch_size is -1 (config.pbtxt:3): write a whole number from 0 to",
        "m: input[0].dims[0] is the text 'y' (config.pbtxt:4): write a whole number",
        "m: input[0].data_type is missing (config.pbtxt:4): write it",
        "m: output[0].data_type is the text 'TYPE_FP32' (config.pbtxt:5): write one of TYPE_BOOL",
        "m: unknown field 'frobnicate' is ignored (config.pbtxt:7)",
        "m: max_batch_size is there twice (config.pbtxt:8)",
        "m: name 'other' is not the folder's (config.pbtxt:1)",
        "m: dynamic_batching and sequence_batching are there together (config.pbtxt:10)",
        "m: KIND_MODEL is not supported (config.pbtxt:6)",
    ] {
        assert!(said.iter().any(|said| said.contains(part)), "{part} in {said:#?}");
    }
    assert_eq!(
        refused("m", "name: 'm'\ninput [ {"),
        ["m: the configuration cannot be read (config.pbtxt:2): the '{' of line 2 is never closed"]
    );
}

#[test]
fn what_would_not_be_the_same_model_is_refused_and_defaults_say_nothing() {
    let with = |more: &str| format!("backend: 'pytorch' max_batch_size: 2 {SIMPLE} {more}");
    for more in [
        "batch_input { kind: BATCH_ELEMENT_COUNT }",
        "cc_model_filenames { key: '7.5' value: 'a.pt' }",
        "model_operations { op_library_filename: 'a.so' }",
        "model_transaction_policy { decoupled: true }",
        "runtime: 'model.py'",
        "platform: 'ensemble'",
        "ensemble_scheduling { step { model_name: 'm' } }",
    ] {
        refused("m", &with(more));
    }
    for more in [
        "metric_tags { key: 'a' value: 'b' }",
        "model_repository_agents { agents { name: 'checksum' } }",
        "instance_group { name: 'g' passive: true rate_limiter { priority: 2 } profile: 'p' host_policy: 'h' }",
        "model_metrics { }",
    ] {
        let (_, _, said) = taken("m", &with(more));
        assert!(
            !said.is_empty() && said.iter().all(|said| said.contains("ignored")),
            "{said:?}"
        );
    }
    let more = "instance_group { passive: false host_policy: '' } response_cache { enable: false }";
    assert!(taken("m", &with(more)).2.is_empty());
}

#[test]
fn batching_without_batches_and_an_ensembles_device_settings_are_ignored_with_a_word() {
    let (converted, _, said) = taken("m", &format!("backend: 'pytorch' {SIMPLE} dynamic_batching {{ }}"));
    assert!(converted.config.dynamic_batching.is_none());
    assert!(said[0].contains("max_batch_size is 0"), "{said:?}");
    let steps = "ensemble_scheduling { step { model_name: 'a' input_map { key: 'x' value: 'x' } output_map { key: 'y' value: 'y' } } }";
    let text = format!(
        "platform: 'ensemble' {SIMPLE} {steps} instance_group {{ count: 1 }} parameters {{ key: 'a' value {{ }} }}"
    );
    let (converted, _, said) = taken("m", &text);
    assert!(converted.config.instance_group.is_empty() && converted.config.parameters.is_empty());
    assert_eq!(said.len(), 2, "{said:?}");
}

#[test]
fn a_file_of_labels_becomes_part_of_its_output() {
    let text = |file: &str| {
        let output = format!("output {{ name: 'y' data_type: TYPE_FP32 dims: 2 label_filename: '{file}' }}");
        format!("backend: 'pytorch' input {{ name: 'x' data_type: TYPE_FP32 dims: 2 }} {output}")
    };
    let (_, json, said) = taken("m", &text("labels.txt"));
    assert_eq!(json["output"][0]["labels"], json!(["cat", "dog"]));
    assert!(said.is_empty(), "{said:?}");
    assert_eq!(taken("m", &text("")).1["output"][0].get("labels"), None);
    let said = refused("m", &text("not_text"));
    assert!(
        said[0].ends_with("cannot be read (config.pbtxt:1): it is not UTF-8"),
        "{said:?}"
    );
}

#[test]
fn a_number_in_quotes_is_one_for_a_built_in_model() {
    let text = format!("backend: 'busy' {SIMPLE} parameters {{ key: 'busy_us' value: {{ string_value: '250' }} }}");
    let (_, json, _) = taken("m", &text);
    assert_eq!(json["parameters"], json!({"busy_us": 250, "builtin": "busy"}));
}

/// The table that people read names every field, and what becomes of it.
#[test]
fn the_page_beside_this_crate_has_a_row_for_every_field() {
    let page = include_str!("../README.md");
    let missing: Vec<&str> = MODEL
        .iter()
        .map(|rule| rule.name)
        .filter(|name| {
            !page
                .lines()
                .any(|line| line.starts_with("| ") && line.contains(&format!("`{name}`")))
        })
        .collect();
    assert!(missing.is_empty(), "not in README.md: {missing:?}");
}

/// The seeds of the fuzz target.
const SEEDS: [&str; 3] = [
    include_str!("../../../tests/fuzz/seeds/model_config/libtorch.pbtxt"),
    include_str!("../../../tests/fuzz/seeds/model_config/ensemble.pbtxt"),
    include_str!("../../../tests/fuzz/seeds/model_config/sequence.pbtxt"),
];

#[test]
fn the_seeds_of_the_fuzz_target_are_configurations() {
    for seed in SEEDS {
        taken("m", seed);
    }
}

proptest! {
    #[test]
    fn a_seed_with_a_part_exchanged_is_read_or_refused(
        (seed, other) in (0..SEEDS.len(), 0..SEEDS.len()),
        (from, until, at, length) in (0.0..1.0_f64, 0.0..1.0_f64, 0.0..1.0_f64, 0_usize..40),
    ) {
        let characters = |index: usize| SEEDS[index].chars().collect::<Vec<_>>();
        let (own, foreign) = (characters(seed), characters(other));
        let place = |all: &[char], part: f64| (all.len() as f64 * part) as usize;
        let (from, until) = (place(&own, from.min(until)), place(&own, from.max(until)));
        let taken = foreign.iter().skip(place(&foreign, at)).take(length);
        let text: String = own[..from].iter().chain(taken).chain(&own[until..]).collect();
        prop_assert!(crate::read_config(&text) <= crate::MAX_NOTES + 1);
    }
}

#[test]
fn tritons_repeat_is_taken_as_a_decoupled_built_in_model() {
    let text = r#"
backend: "repeat"
max_batch_size: 0
model_transaction_policy { decoupled: True }
input [ { name: "IN" data_type: TYPE_INT32 dims: [ -1 ] }, { name: "DELAY" data_type: TYPE_UINT32 dims: [ -1 ] },
        { name: "WAIT" data_type: TYPE_UINT32 dims: [ 1 ] } ]
output [ { name: "OUT" data_type: TYPE_INT32 dims: [ 1 ] }, { name: "IDX" data_type: TYPE_UINT32 dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU } ]
"#;
    let (converted, json, said) = taken("repeat_int32", text);
    assert_eq!(converted.runtime, Some(Runtime::Builtin(Some("repeat_int32"))));
    assert_eq!(json["model_transaction_policy"], json!({"decoupled": true}));
    assert_eq!(json["parameters"]["builtin"], "repeat_int32");
    assert!(said.is_empty(), "{said:?}");
    let other = text.replace("\"repeat\"", "\"pytorch\"");
    let said = refused("m", &other);
    let part = "a decoupled model of this kind is not supported (config.pbtxt:4)";
    assert!(said.iter().any(|said| said.contains(part)), "{said:?}");
}
