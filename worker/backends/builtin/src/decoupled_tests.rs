//! Facts about the built-in models with any number of answers.

use mesh_backend::{BatchInput, Next};
use mesh_types::{ModelId, ModelTransactionPolicy, ModelVersionKey, ParameterValue, TenantId, Version};

use super::*;

fn config(builtin: &str, inputs: &[(&str, DataType, i64)], outputs: &[(&str, DataType)]) -> ModelConfig {
    let inputs = inputs.iter();
    let parameters = [("builtin".to_owned(), ParameterValue::String(builtin.into()))];
    ModelConfig {
        input: inputs
            .map(|(name, datatype, dim)| TensorSpec {
                optional: *name != "IN" && *name != "DELAY" && *name != "WAIT",
                ..TensorSpec::new(*name, *datatype, &[*dim])
            })
            .collect(),
        output: outputs
            .iter()
            .map(|(name, datatype)| TensorSpec::new(*name, *datatype, &[1]))
            .collect(),
        parameters: parameters.into_iter().collect(),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: true }),
        ..ModelConfig::default()
    }
}

fn repeat_int32() -> ModelConfig {
    config(
        "repeat_int32",
        &[
            ("IN", DataType::Int32, -1),
            ("DELAY", DataType::Uint32, -1),
            ("WAIT", DataType::Uint32, 1),
        ],
        &[("OUT", DataType::Int32), ("IDX", DataType::Uint32)],
    )
}

fn words() -> ModelConfig {
    config(
        "mock_llm",
        &[
            ("text_input", DataType::Bytes, 1),
            ("max_tokens", DataType::Int32, 1),
            ("stream", DataType::Bool, 1),
        ],
        &[("text_output", DataType::Bytes)],
    )
}

fn repetitions() -> ModelConfig {
    config(
        "mock_llm",
        &[
            ("PROMPT", DataType::Bytes, 1),
            ("STREAM", DataType::Bool, 1),
            ("REPETITION", DataType::Uint32, 1),
        ],
        &[("TEXT", DataType::Bytes)],
    )
}

fn load(config: &ModelConfig) -> Result<DecoupledModel, BackendError> {
    let spec = LoadSpec {
        key: ModelVersionKey {
            tenant: TenantId::parse("t").unwrap(),
            model: ModelId::parse("m").unwrap(),
            version: Version::FIRST,
        },
        config: Arc::new(config.clone()),
        artifact: None,
        format: mesh_types::ArtifactFormat::Builtin,
    };
    let name = config.parameters["builtin"].as_str().unwrap();
    DecoupledModel::named(name, &spec).expect("it is one of these")
}

#[derive(Default)]
struct Heard {
    answers: Vec<Vec<Tensor>>,
    ended: bool,
    failed: Option<String>,
    /// Answers after which nobody waits for more.
    most: Option<usize>,
}

impl AnswerSink for Heard {
    fn answer(&mut self, _: usize, outputs: Vec<Tensor>) -> Next {
        self.answers.push(outputs);
        if self.is_wanted(0) { Next::More } else { Next::Stop }
    }

    fn is_wanted(&self, _: usize) -> bool {
        self.most.is_none_or(|most| self.answers.len() < most)
    }

    fn end(&mut self, _: usize) {
        self.ended = true;
    }

    fn fail(&mut self, _: usize, error: BackendError) {
        self.failed = Some(error.to_string());
    }
}

fn ask(config: &ModelConfig, given: &[Option<Vec<u8>>], mut heard: Heard) -> Heard {
    let input = |(spec, bytes)| -> BatchInput<'_> {
        let (spec, bytes): (&TensorSpec, &Option<Vec<u8>>) = (spec, bytes);
        match bytes {
            None => BatchInput::absent(spec),
            Some(bytes) => BatchInput {
                spec,
                shape: Shape::from_slice(&[1]),
                parts: vec![bytes],
            },
        }
    };
    let inputs = BatchInputs {
        rows: 1,
        inputs: config.input.iter().zip(given).map(input).collect(),
        parameters: None,
    };
    let requests = Requests {
        inputs: &inputs,
        rows: &[1],
    };
    load(config).unwrap().generate(&requests, &mut heard).unwrap();
    heard
}

fn le(numbers: &[u32]) -> Option<Vec<u8>> {
    Some(numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
}

fn text(text: &str) -> Option<Vec<u8>> {
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    Some([length.as_slice(), text.as_bytes()].concat())
}

fn said(heard: &Heard) -> Vec<&str> {
    let texts = heard.answers.iter().map(|outputs| &outputs[0].data[4..]);
    texts.map(|text| std::str::from_utf8(text).unwrap()).collect()
}

#[test]
fn repeat_gives_each_value_with_its_place_and_none_for_none() {
    let config = repeat_int32();
    let heard = ask(&config, &[le(&[7, 8, 9]), le(&[0, 1, 0]), le(&[0])], Heard::default());
    let bytes = |number: u32| Bytes::copy_from_slice(&number.to_le_bytes());
    for (place, (outputs, value)) in (0_u32..).zip(heard.answers.iter().zip([7, 8, 9])) {
        assert_eq!((&*outputs[0].name, &outputs[0].data), ("OUT", &bytes(value)));
        assert_eq!((&*outputs[1].name, &outputs[1].data), ("IDX", &bytes(place)));
    }
    assert!(heard.answers.len() == 3 && heard.ended && heard.failed.is_none());
    let none = ask(&config, &[le(&[]), le(&[]), le(&[0])], Heard::default());
    assert!(none.answers.is_empty() && none.ended);
    let uneven = ask(&config, &[le(&[1]), le(&[]), le(&[0])], Heard::default());
    assert!(uneven.failed.unwrap().contains("expected IN and DELAY shape to match"));
}

#[test]
fn delays_and_the_wait_are_kept_and_end_where_nobody_waits() {
    let config = repeat_int32();
    let began = Instant::now();
    ask(&config, &[le(&[1, 2]), le(&[5, 5]), le(&[30])], Heard::default());
    assert!(
        began.elapsed() >= Duration::from_millis(30),
        "the wait runs beside the delays"
    );
    let began = Instant::now();
    let leaves = Heard {
        most: Some(1),
        ..Heard::default()
    };
    let heard = ask(&config, &[le(&[1, 2]), le(&[0, 60_000]), le(&[60_000])], leaves);
    assert_eq!(heard.answers.len(), 1);
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_text_is_said_in_words_or_at_once_and_always_the_same() {
    let config = words();
    let ask = |tokens: Option<u32>, stream: bool| {
        let tokens = tokens.and_then(|tokens| le(&[tokens]));
        ask(
            &config,
            &[text("one two three"), tokens, Some(vec![u8::from(stream)])],
            Heard::default(),
        )
    };
    assert_eq!(said(&ask(None, true)), ["one", " two", " three"]);
    assert_eq!(said(&ask(Some(5), true)), ["one", " two", " three", " one", " two"]);
    assert_eq!(said(&ask(Some(4), false)), ["one two three one"]);
    assert!(ask(Some(0), true).answers.is_empty());
    assert!(ask(Some(1_000_001), true).failed.unwrap().contains("from 0 to 1000000"));
    assert!(ask(Some(1_000_000), false).failed.unwrap().contains("ask for fewer"));
}

#[test]
fn tritons_own_model_of_that_name_says_its_prompt_as_often_as_it_is_told() {
    let config = repetitions();
    let ask = |times: Option<u32>| {
        let times = times.and_then(|times| le(&[times]));
        ask(&config, &[text("hello"), Some(vec![1]), times], Heard::default())
    };
    assert_eq!(said(&ask(None)), ["hello"]);
    assert_eq!(said(&ask(Some(2))), ["hello", "hello"]);
    assert!(ask(Some(0)).answers.is_empty());
}

#[test]
fn a_model_that_is_made_to_fail_does_so_after_as_many_answers_as_it_says() {
    let mut config = words();
    config
        .parameters
        .insert("fail_after".to_owned(), ParameterValue::Int(2));
    let heard = ask(&config, &[text("a b c"), None, Some(vec![1])], Heard::default());
    assert_eq!(said(&heard), ["a", " b"]);
    assert!(heard.failed.unwrap().contains("after 2 answers") && !heard.ended);
    let brief = ask(&config, &[text("a b"), None, Some(vec![1])], Heard::default());
    assert!(brief.failed.is_none() && brief.ended);
}

#[test]
fn other_tensors_and_models_that_are_not_decoupled_are_refused() {
    let mut plain = words();
    plain.model_transaction_policy = None;
    assert!(
        load(&plain)
            .unwrap_err()
            .to_string()
            .contains("model_transaction_policy")
    );
    let mut batched = repeat_int32();
    batched.max_batch_size = 8;
    assert!(load(&batched).unwrap_err().to_string().contains("IN (INT32"));
    let mut other = words();
    other.input[0].name = "text".into();
    assert!(load(&other).unwrap_err().to_string().contains("text_input"));
}
