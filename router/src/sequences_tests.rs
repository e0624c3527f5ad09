//! How requests name their sequences.

use mesh_types::{Control, ControlInput, SequenceBatching};

use super::*;

fn request(parameters: &[(&str, ParameterValue)]) -> InferRequest {
    let mut request = InferRequest {
        model: "ears".to_owned(),
        ..InferRequest::default()
    };
    for (name, value) in parameters {
        request.parameters.insert((*name).to_owned(), value.clone());
    }
    request
}

fn text(text: &str) -> ParameterValue {
    ParameterValue::String(text.to_owned())
}

fn of_id(id: ParameterValue) -> Result<Option<CorrelationId>, Fault> {
    step_of(&request(&[("sequence_id", id)])).map(|step| step.map(|step| step.id))
}

#[test]
fn ids_are_numbers_or_texts_and_nothing_stands_for_no_sequence() {
    assert_eq!(of_id(ParameterValue::Int(5)), Ok(Some(CorrelationId::Number(5))));
    let largest = ParameterValue::Uint(u64::MAX);
    assert_eq!(of_id(largest), Ok(Some(CorrelationId::Number(u64::MAX))));
    assert_eq!(of_id(text("a")), Ok(Some(CorrelationId::Text("a".into()))));
    for nothing in [ParameterValue::Int(0), text("")] {
        assert_eq!(of_id(nothing), Ok(None));
    }
    assert_eq!(step_of(&request(&[])), Ok(None));
    for wrong in [
        ParameterValue::Int(-1),
        ParameterValue::Double(1.0),
        ParameterValue::Bool(true),
    ] {
        assert!(of_id(wrong).unwrap_err().message.contains("sequence_id"));
    }
    let longest = "x".repeat(MAX_CORRELATION_ID_BYTES);
    assert!(of_id(text(&longest)).is_ok());
    assert!(of_id(text(&format!("{longest}x"))).is_err());
}

#[test]
fn a_step_says_whether_it_is_the_first_or_the_last() {
    let flags = [
        ("sequence_id", ParameterValue::Int(5)),
        ("sequence_start", ParameterValue::Bool(true)),
        ("sequence_end", ParameterValue::Bool(false)),
    ];
    let step = step_of(&request(&flags)).unwrap().unwrap();
    assert_eq!((step.start, step.end), (true, false));
    let step = step_of(&request(&flags[..1])).unwrap().unwrap();
    assert_eq!((step.start, step.end), (false, false));
    let wrong = [flags[0].clone(), ("sequence_end", ParameterValue::Int(1))];
    assert!(step_of(&request(&wrong)).unwrap_err().message.contains("sequence_end"));
}

fn stateful(datatype: Option<DataType>, correlation_ids: CorrelationIds) -> ModelConfig {
    let corrid = Control {
        kind: ControlKind::Corrid,
        int32_false_true: Vec::new(),
        fp32_false_true: Vec::new(),
        bool_false_true: Vec::new(),
        data_type: datatype,
    };
    let input = ControlInput {
        name: "CORRID".to_owned(),
        control: vec![corrid],
    };
    ModelConfig {
        sequence_batching: Some(SequenceBatching {
            control_input: datatype.map(|_| input).into_iter().collect(),
            correlation_ids,
            ..SequenceBatching::default()
        }),
        ..ModelConfig::default()
    }
}

fn checked(config: &ModelConfig, id: Option<CorrelationId>, rows: u32) -> Result<(), String> {
    let step = id.map(|id| SequenceStep {
        id,
        start: true,
        end: false,
    });
    let model = ModelId::parse("ears").unwrap();
    check(&model, config, step.as_ref(), rows).map_err(|fault| fault.message.into_owned())
}

#[test]
fn a_stateful_model_wants_one_row_of_a_sequence_in_tritons_words() {
    let config = stateful(None, CorrelationIds::AsGiven);
    let five = || Some(CorrelationId::Number(5));
    assert_eq!(checked(&config, five(), 1), Ok(()));
    assert_eq!(
        checked(&config, None, 1).unwrap_err(),
        "inference request to model 'ears' must specify a non-zero or non-empty correlation ID"
    );
    assert_eq!(
        checked(&config, five(), 2).unwrap_err(),
        "inference request to model 'ears' must specify batch-size 1 due to requirements of sequence batcher"
    );
    assert_eq!(checked(&ModelConfig::default(), None, 2), Ok(()));
}

#[test]
fn an_id_fits_the_type_that_the_model_is_told_it_in() {
    for (datatype, most) in [
        (DataType::Int32, 0x7fff_ffff_u64),
        (DataType::Uint32, 0xffff_ffff),
        (DataType::Int64, 0x7fff_ffff_ffff_ffff),
    ] {
        let config = stateful(Some(datatype), CorrelationIds::AsGiven);
        assert!(checked(&config, Some(CorrelationId::Number(most)), 1).is_ok());
        let beyond = checked(&config, Some(CorrelationId::Number(most + 1)), 1);
        assert!(beyond.unwrap_err().contains(&most.to_string()));
        assert!(checked(&config, Some(CorrelationId::Text("a".into())), 1).is_err());
        let unique = stateful(Some(datatype), CorrelationIds::Unique);
        assert!(checked(&unique, Some(CorrelationId::Text("a".into())), 1).is_ok());
    }
    let told = stateful(Some(DataType::Bytes), CorrelationIds::AsGiven);
    assert!(checked(&told, Some(CorrelationId::Text("a".into())), 1).is_ok());
    assert!(checked(&told, Some(CorrelationId::Number(5)), 1).is_ok());
}
