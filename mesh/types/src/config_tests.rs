//! Facts about model configurations.

use super::*;

fn config(max_batch_size: u32) -> ModelConfig {
    let spec = |name: &str| TensorSpec::new(name, DataType::Int8, &[-1, 2]);
    ModelConfig {
        max_batch_size,
        input: vec![spec("a"), spec("b")],
        output: vec![spec("c")],
        ..ModelConfig::default()
    }
}

#[test]
fn tritons_spelling_of_a_configuration_is_read() {
    let text = r#"{"max_batch_size":4,"input":[{"name":"x","data_type":"TYPE_FP32","dims":[2]}],
        "output":[{"name":"y","datatype":"FP32","dims":[-1]}],"dynamic_batching":{"preferred_batch_size":[2,4]},
        "instance_group":[{"count":2,"kind":"KIND_CPU"}]}"#;
    let config: ModelConfig = serde_json::from_str(text).unwrap();
    assert!(config.problems().is_empty());
    assert_eq!(
        config.instance_group.first().map(|group| group.kind),
        Some(InstanceKind::KindCpu)
    );
    assert!(serde_json::from_str::<ModelConfig>(r#"{"max_batchsize":4}"#).is_err());
}

#[test]
fn every_problem_of_a_configuration_is_named_at_once() {
    let mut bad = config(0);
    bad.dynamic_batching = Some(DynamicBatching {
        preferred_batch_size: vec![9],
        ..DynamicBatching::default()
    });
    bad.output.clear();
    bad.input[1].name = "a".into();
    let fields: Vec<_> = bad.problems().into_iter().map(|problem| problem.field).collect();
    assert_eq!(
        fields,
        [
            "input[1].name",
            "output",
            "dynamic_batching",
            "dynamic_batching.preferred_batch_size"
        ]
    );
}

#[test]
fn only_inputs_are_optional_or_unbatched_and_a_batch_needs_rows() {
    let mut odd = config(4);
    odd.output[0].optional = true;
    odd.input.iter_mut().for_each(|spec| spec.unbatched = true);
    let fields: Vec<_> = odd.problems().into_iter().map(|problem| problem.field).collect();
    assert_eq!(fields, ["output[0]", "input"]);
    odd.max_batch_size = 0;
    odd.output[0].optional = false;
    assert!(odd.problems().is_empty());
}

#[test]
fn labels_are_an_outputs_and_bounded() {
    let with = |labels: Vec<String>| {
        let mut config = config(4);
        config.output[0].labels = labels;
        config
            .problems()
            .into_iter()
            .map(|problem| problem.field)
            .collect::<Vec<_>>()
    };
    let many = |count: usize| vec!["x".to_owned(); count];
    assert!(with(many(MAX_CLASS_LABELS)).is_empty());
    assert_eq!(with(many(MAX_CLASS_LABELS + 1)), ["output[0].labels"]);
    let long = |bytes: usize| vec!["x".repeat(bytes - 1), "y".to_owned()];
    assert!(with(long(MAX_CLASS_LABEL_BYTES)).is_empty());
    assert_eq!(with(long(MAX_CLASS_LABEL_BYTES + 1)), ["output[0].labels"]);
    let mut odd = config(4);
    odd.input[1].labels = many(1);
    assert_eq!(odd.problems()[0].field, "input[1].labels");
}

#[test]
fn a_decoupled_model_keeps_no_sequences_and_no_order_of_answers() {
    let text = |more: &str| {
        format!(
            r#"{{"max_batch_size":4,"input":[{{"name":"x","datatype":"FP32","dims":[2]}}],
            "output":[{{"name":"y","datatype":"FP32","dims":[-1]}}],"model_transaction_policy":{{"decoupled":true}}{more}}}"#
        )
    };
    let read = |more: &str| serde_json::from_str::<ModelConfig>(&text(more)).unwrap();
    let plain = read("");
    assert!(plain.is_decoupled() && plain.problems().is_empty());
    assert!(!config(4).is_decoupled());
    for more in [
        r#","sequence_batching":{"control_input":[]}"#,
        r#","dynamic_batching":{"preserve_ordering":true}"#,
    ] {
        let problems = read(more).problems();
        let of = |problem: &ModelConfigError| problem.field == "model_transaction_policy.decoupled";
        assert!(problems.iter().any(of), "{more}: {problems:?}");
    }
    assert!(!plain.loads_as(&config(4)), "another policy is another load");
}
