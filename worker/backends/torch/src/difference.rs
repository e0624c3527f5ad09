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

fn between(one: &Tensor, other: &Tensor) -> Option<Difference> {
    if one.datatype != other.datatype || one.shape != other.shape || one.data.len() != other.data.len() {
        return None;
    }
    let size = one.datatype.element_bytes().unwrap_or(1);
    let read: fn(&[u8]) -> Option<f64> = match one.datatype {
        DataType::Fp32 => |bytes| Some(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        DataType::Fp64 => |bytes| Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        // The upper half of an FP32.
        DataType::Bf16 => |bytes| {
            Some(f64::from(f32::from_bits(
                u32::from(u16::from_le_bytes(bytes.try_into().ok()?)) << 16,
            )))
        },
        DataType::Fp16 => |bytes| Some(half(u16::from_le_bytes(bytes.try_into().ok()?))),
        _ => return (one.data == other.data).then(Difference::default),
    };
    let mut worst = Difference::default();
    for (one, other) in one.data.chunks_exact(size).zip(other.data.chunks_exact(size)) {
        if one == other {
            continue;
        }
        let (one, other) = (read(one)?, read(other)?);
        if one.is_nan() && other.is_nan() {
            continue;
        }
        let absolute = (one - other).abs();
        if !absolute.is_finite() {
            return None;
        }
        worst.absolute = worst.absolute.max(absolute);
        worst.relative = worst.relative.max(absolute / one.abs().max(1.0));
    }
    Some(worst)
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
