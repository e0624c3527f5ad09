//! Classes are in order, bounded, and written as Triton writes them; only the outputs that ask for them change.

use proptest::prelude::*;

use super::*;
use crate::{Shape, TensorSpec};

fn config(datatype: DataType, max_batch_size: u32, labels: &[&str]) -> ModelConfig {
    let mut output = TensorSpec::new("y", datatype, &[-1]);
    output.labels = labels.iter().map(|label| (*label).to_owned()).collect();
    ModelConfig {
        max_batch_size,
        output: vec![output, TensorSpec::new("z", datatype, &[-1])],
        ..ModelConfig::default()
    }
}

fn tensor(name: &str, datatype: DataType, shape: &[u64], data: Vec<u8>) -> Tensor {
    Tensor::new(Arc::from(name), datatype, Shape::from_slice(shape), data.into()).unwrap()
}

fn floats(shape: &[u64], values: &[f32]) -> Tensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor("y", DataType::Fp32, shape, data)
}

fn texts(tensor: &Tensor) -> Vec<String> {
    let mut data = &tensor.data[..];
    let mut texts = Vec::new();
    while let Some((prefix, rest)) = data.split_first_chunk::<4>() {
        let (text, after) = rest.split_at(u32::from_le_bytes(*prefix) as usize);
        texts.push(String::from_utf8(text.to_vec()).unwrap());
        data = after;
    }
    texts
}

fn classified(config: &ModelConfig, count: u32, output: Tensor) -> Result<Tensor, ClassError> {
    let wanted = [ClassCount {
        output: "y".to_owned(),
        count,
    }];
    let mut outputs = [output];
    config.classify(&wanted, &mut outputs)?;
    let [output] = outputs;
    Ok(output)
}

#[test]
fn the_highest_values_come_first_with_index_and_label() {
    let config = config(DataType::Fp32, 0, &["cat", "dog", "", "owl"]);
    let got = classified(&config, 4, floats(&[5], &[0.1, 3.5, -2.0, 0.25, 9.0])).unwrap();
    assert_eq!((got.datatype, &got.shape[..]), (DataType::Bytes, &[4][..]));
    assert_eq!(
        texts(&got),
        ["9.000000:4", "3.500000:1:dog", "0.250000:3:owl", "0.100000:0:cat"]
    );
}

#[test]
fn each_row_of_a_batch_has_classes_of_its_own() {
    let config = config(DataType::Fp32, 8, &["a", "b"]);
    let got = classified(&config, 1, floats(&[2, 2], &[1.0, 2.0, 4.0, 3.0])).unwrap();
    assert_eq!(&got.shape[..], [2, 1]);
    assert_eq!(texts(&got), ["2.000000:1:b", "4.000000:0:a"]);
    let got = classified(&config, 9, floats(&[1, 1, 2], &[1.0, 2.0])).unwrap();
    assert_eq!(&got.shape[..], [1, 2], "more than there are is all there are");
    let got = classified(&config, 3, floats(&[2, 0], &[])).unwrap();
    assert_eq!((&got.shape[..], got.data.len()), (&[2, 0][..], 0));
}

#[test]
fn equal_values_go_by_index_and_nan_goes_last() {
    let config = config(DataType::Fp32, 0, &[]);
    let values = [1.0, f32::NAN, 1.0, f32::NEG_INFINITY, f32::INFINITY, -0.0, 0.0];
    let got = classified(&config, 7, floats(&[7], &values)).unwrap();
    let wanted = [
        "inf:4",
        "1.000000:0",
        "1.000000:2",
        "-0.000000:5",
        "0.000000:6",
        "-inf:3",
        "nan:1",
    ];
    assert_eq!(texts(&got), wanted);
    let three = classified(&config, 3, floats(&[7], &values)).unwrap();
    assert_eq!(texts(&three), wanted[..3]);
}

#[test]
fn whole_numbers_are_written_whole_and_small_floats_as_they_are() {
    let of = |datatype, data: Vec<u8>, values: u64| {
        let got = classified(&config(datatype, 0, &[]), 2, tensor("y", datatype, &[values], data));
        got.map(|got| texts(&got))
    };
    assert_eq!(of(DataType::Int8, vec![255, 3], 2).unwrap(), ["3:1", "-1:0"]);
    let most = u64::MAX.to_le_bytes().to_vec();
    assert_eq!(of(DataType::Uint64, most, 1).unwrap(), ["18446744073709551615:0"]);
    // 1.5, and the least number above zero.
    assert_eq!(
        of(DataType::Fp16, vec![0x00, 0x3e, 0x01, 0x00], 2).unwrap(),
        ["1.500000:0", "0.000000:1"]
    );
    assert_eq!(
        of(DataType::Fp16, vec![0x00, 0xfc, 0xff, 0x7b], 2).unwrap(),
        ["65504.000000:1", "-inf:0"]
    );
    assert_eq!(
        of(DataType::Bf16, vec![0xc0, 0x3f, 0x00, 0xc0], 2).unwrap(),
        ["1.500000:0", "-2.000000:1"]
    );
    let doubles = 1e300_f64.to_le_bytes().to_vec();
    assert!(of(DataType::Fp64, doubles, 1).unwrap()[0].ends_with(".000000:0"));
}

#[test]
fn what_is_no_number_has_no_classes() {
    let wanted = [ClassCount {
        output: "y".to_owned(),
        count: 1,
    }];
    for datatype in [DataType::Bool, DataType::Bytes] {
        let error = config(datatype, 0, &[]).check_classes(&wanted).unwrap_err();
        assert!(error.to_string().contains(datatype.as_str()), "{error}");
    }
    assert_eq!(config(DataType::Int8, 0, &[]).check_classes(&wanted), Ok(()));
}

#[test]
fn only_the_output_that_asks_for_it_changes() {
    let other = tensor("z", DataType::Int8, &[2], vec![1, 2]);
    let config = config(DataType::Int8, 0, &[]);
    let got = classified(&config, 1, other.clone()).unwrap();
    assert_eq!(got, other);
}

#[test]
fn texts_at_the_bound_pass_and_one_byte_more_does_not() {
    // Prefix, "1:0:", and the label: with a row as long as half of the bound, two rows fit exactly.
    let of = |label: usize| {
        let config = config(DataType::Int8, 2, &[&"l".repeat(label)]);
        classified(&config, 1, tensor("y", DataType::Int8, &[2, 1], vec![1, 1]))
    };
    assert_eq!(of(MAX_CLASSES_BYTES / 2 - 8).unwrap().data.len(), MAX_CLASSES_BYTES);
    assert!(matches!(of(MAX_CLASSES_BYTES / 2 - 7), Err(ClassError::TooLong { .. })));
}

proptest! {
    #[test]
    fn classes_are_what_sorting_all_of_them_gives(values in prop::collection::vec(any::<i16>(), 1..60), count in 1..70_u32) {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let output = tensor("y", DataType::Int16, &[values.len() as u64], data);
        let got = texts(&classified(&config(DataType::Int16, 0, &[]), count, output).unwrap());
        let mut all: Vec<(i16, usize)> = values.iter().copied().zip(0..).collect();
        all.sort_by_key(|(value, index)| (std::cmp::Reverse(*value), *index));
        all.truncate(count as usize);
        let wanted: Vec<String> = all.iter().map(|(value, index)| format!("{value}:{index}")).collect();
        prop_assert_eq!(got, wanted);
    }

    #[test]
    fn any_floats_have_an_order(values in prop::collection::vec(any::<u32>().prop_map(f32::from_bits), 0..60), count in 1..70_u32) {
        let got = classified(&config(DataType::Fp32, 0, &[]), count, floats(&[values.len() as u64], &values)).unwrap();
        prop_assert_eq!(texts(&got).len() as u64, got.shape[0]);
    }

    #[test]
    fn halves_are_what_their_bits_say(bits in any::<u16>()) {
        let number = half(bits);
        let exponent = (bits >> 10) & 0x1f;
        prop_assert_eq!(number.is_nan(), exponent == 31 && bits & 0x3ff != 0);
        prop_assert_eq!(number.is_sign_negative(), bits >> 15 == 1);
        if number.is_finite() {
            prop_assert!(number.abs() <= 65504.0);
        }
    }
}
