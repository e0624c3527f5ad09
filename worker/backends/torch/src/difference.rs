//! How far two executions' outputs are from each other.

use mesh_backend::BatchOutputs;
use mesh_types::{DataType, Difference, Tensor};

/// The largest difference between outputs of floating-point numbers; none where anything else differs: a type, a shape, a
/// whole number, or what is no number or infinite in one of them only.
pub(crate) fn difference(one: &BatchOutputs, other: &BatchOutputs) -> Option<Difference> {
    if one.outputs.len() != other.outputs.len() {
        return None;
    }
    let mut worst = Difference::default();
    for (one, other) in one.outputs.iter().zip(&other.outputs) {
        let found = between(one, other)?;
        worst.absolute = worst.absolute.max(found.absolute);
        worst.relative = worst.relative.max(found.relative);
    }
    Some(worst)
}

/// An output of floating-point numbers of which none is finite: whatever it is compared with, that says nothing.
pub(crate) fn tells_nothing(outputs: &BatchOutputs) -> Option<&str> {
    let blank = |tensor: &&Tensor| {
        let values = values(tensor);
        values.is_some_and(|mut values| !values.any(|value| value.is_some_and(f64::is_finite)))
    };
    outputs.outputs.iter().find(blank).map(|tensor| &*tensor.name)
}

type Read = fn(&[u8]) -> Option<f64>;

/// How floating-point numbers of a type are read; none for other types.
fn reader(datatype: DataType) -> Option<Read> {
    Some(match datatype {
        DataType::Fp32 => |bytes| Some(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        DataType::Fp64 => |bytes| Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        // The upper half of an FP32.
        DataType::Bf16 => |bytes| {
            Some(f64::from(f32::from_bits(
                u32::from(u16::from_le_bytes(bytes.try_into().ok()?)) << 16,
            )))
        },
        DataType::Fp16 => |bytes| Some(half(u16::from_le_bytes(bytes.try_into().ok()?))),
        _ => return None,
    })
}

fn values(tensor: &Tensor) -> Option<impl Iterator<Item = Option<f64>>> {
    let read = reader(tensor.datatype)?;
    let size = tensor.datatype.element_bytes().unwrap_or(1);
    Some(tensor.data.chunks_exact(size).map(read))
}

fn between(one: &Tensor, other: &Tensor) -> Option<Difference> {
    if one.datatype != other.datatype || one.shape != other.shape || one.data.len() != other.data.len() {
        return None;
    }
    let (Some(ones), Some(others)) = (values(one), values(other)) else {
        return (one.data == other.data).then(Difference::default);
    };
    let scale = scale(one);
    let mut worst = Difference::default();
    for (one, other) in ones.zip(others) {
        let (one, other) = (one?, other?);
        if one == other || (one.is_nan() && other.is_nan()) {
            continue;
        }
        let absolute = (one - other).abs();
        if !absolute.is_finite() {
            return None;
        }
        worst.absolute = worst.absolute.max(absolute);
        worst.relative = worst.relative.max(absolute / one.abs().max(scale));
    }
    Some(worst)
}

/// What a difference is measured by where the value itself is smaller: the largest value of the tensor, so that the digits of
/// values near zero do not count, but at most 1.
fn scale(tensor: &Tensor) -> f64 {
    let finite = values(tensor)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|value| value.is_finite());
    let largest = finite.map(f64::abs).fold(0.0, f64::max);
    if largest > 0.0 { largest.min(1.0) } else { 1.0 }
}

/// An FP16: a sign, five bits of exponent, ten of digits.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, digits) = (i32::from(bits >> 10 & 0x1F), f64::from(bits & 0x3FF));
    sign * match exponent {
        0 => digits * 2f64.powi(-24),
        31 if digits == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1.0 + digits / 1_024.0) * 2f64.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_types::Shape;

    use super::*;

    fn outputs(datatype: DataType, bytes: Vec<u8>) -> BatchOutputs {
        let extent = bytes.len() / datatype.element_bytes().unwrap();
        let tensor = Tensor {
            name: Arc::from("y"),
            datatype,
            shape: Shape::from_slice(&[u64::try_from(extent).unwrap()]),
            data: bytes.into(),
        };
        BatchOutputs { outputs: vec![tensor] }
    }

    fn floats(values: &[f32]) -> BatchOutputs {
        outputs(
            DataType::Fp32,
            values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        )
    }

    #[test]
    fn the_largest_difference_is_found_in_parts_of_large_values() {
        let found = difference(&floats(&[1.0, 200.0, 0.0]), &floats(&[1.5, 202.0, 0.25])).unwrap();
        assert_eq!(found.absolute, 2.0);
        assert_eq!(found.relative, 0.5);
        let nothing = difference(&floats(&[f32::NAN, f32::INFINITY]), &floats(&[f32::NAN, f32::INFINITY])).unwrap();
        assert_eq!(nothing, Difference::default());
    }

    #[test]
    fn what_is_no_number_in_one_only_and_whole_numbers_must_be_equal() {
        assert_eq!(difference(&floats(&[f32::NAN]), &floats(&[1.0])), None);
        assert_eq!(difference(&floats(&[f32::INFINITY]), &floats(&[1.0])), None);
        assert_eq!(difference(&floats(&[1.0]), &floats(&[1.0, 2.0])), None);
        let whole = |value: u8| outputs(DataType::Int8, vec![value]);
        assert_eq!(difference(&whole(1), &whole(1)), Some(Difference::default()));
        assert_eq!(difference(&whole(1), &whole(2)), None);
    }

    #[test]
    fn small_outputs_are_measured_by_their_own_largest() {
        let found = difference(&floats(&[1e-6, 2e-6]), &floats(&[3e-6, 2e-6])).unwrap();
        assert!(
            (found.relative - 1.0).abs() < 1e-3,
            "{found:?}: by 2e-6, the largest, and not by 1"
        );
        let found = difference(&floats(&[0.0, 0.5]), &floats(&[0.25, 0.5])).unwrap();
        assert_eq!(found.relative, 0.5);
        let zeros = difference(&floats(&[0.0, 0.0]), &floats(&[0.25, 0.0])).unwrap();
        assert_eq!(zeros.relative, 0.25, "by 1 where all are zero");
        let infinite = difference(&floats(&[f32::INFINITY, 0.5]), &floats(&[f32::INFINITY, 0.25])).unwrap();
        assert_eq!(infinite.relative, 0.5, "infinite values are no measure");
    }

    #[test]
    fn outputs_without_a_finite_value_tell_nothing() {
        assert_eq!(tells_nothing(&floats(&[f32::NAN, 0.0])), None);
        assert_eq!(tells_nothing(&floats(&[f32::NAN, f32::INFINITY])), Some("y"));
        assert_eq!(tells_nothing(&floats(&[])), Some("y"));
        assert_eq!(tells_nothing(&outputs(DataType::Int8, vec![0])), None);
    }

    #[test]
    fn halves_are_read() {
        for (bits, value) in [
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x3555, 0.333_251_953_125),
            (0x0001, 2f64.powi(-24)),
        ] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7C00).is_infinite() && half(0x7E00).is_nan());
        let (one, two) = (
            outputs(DataType::Fp16, vec![0x00, 0x3C]),
            outputs(DataType::Fp16, vec![0x00, 0x40]),
        );
        assert_eq!(difference(&one, &two).unwrap().absolute, 1.0);
        let (one, two) = (
            outputs(DataType::Bf16, vec![0x80, 0x3F]),
            outputs(DataType::Bf16, vec![0x00, 0x40]),
        );
        assert_eq!(difference(&one, &two).unwrap().absolute, 1.0);
    }
}
