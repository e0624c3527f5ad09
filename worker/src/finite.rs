//! Whether a tensor holds NaN or infinity.
//!
//! A floating number is one of them where all bits of its exponent are set, so no number is computed, only masked.

use mesh_types::{DataType, Tensor};

/// Whether every number is finite; true for types that have no others.
pub(crate) fn is_finite(tensor: &Tensor) -> bool {
    let data = &tensor.data;
    match tensor.datatype {
        DataType::Fp16 => each::<2>(data, |bytes| u16::from_le_bytes(bytes) & 0x7c00 != 0x7c00),
        DataType::Bf16 => each::<2>(data, |bytes| u16::from_le_bytes(bytes) & 0x7f80 != 0x7f80),
        DataType::Fp32 => each::<4>(data, |bytes| u32::from_le_bytes(bytes) & 0x7f80_0000 != 0x7f80_0000),
        DataType::Fp64 => {
            let exponent = 0x7ff0_0000_0000_0000;
            each::<8>(data, |bytes| u64::from_le_bytes(bytes) & exponent != exponent)
        }
        _ => true,
    }
}

fn each<const N: usize>(data: &[u8], is_finite: impl Fn([u8; N]) -> bool) -> bool {
    data.as_chunks::<N>().0.iter().all(|bytes| is_finite(*bytes))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use mesh_types::Shape;

    use super::*;

    fn tensor(datatype: DataType, elements: &[Vec<u8>]) -> Tensor {
        let shape = Shape::from_slice(&[elements.len() as u64]);
        Tensor::new(Arc::from("y"), datatype, shape, Bytes::from(elements.concat())).unwrap()
    }

    #[test]
    fn nan_and_both_infinities_are_found_in_every_floating_type_and_nothing_else() {
        let fp32 = |number: f32| number.to_le_bytes().to_vec();
        let fp64 = |number: f64| number.to_le_bytes().to_vec();
        let bf16 = |number: f32| number.to_le_bytes()[2..].to_vec();
        let fp16 = |bits: u16| bits.to_le_bytes().to_vec();
        let finite = [
            (
                DataType::Fp32,
                vec![fp32(f32::MAX), fp32(f32::MIN), fp32(-0.0), fp32(f32::MIN_POSITIVE)],
            ),
            (
                DataType::Fp64,
                vec![fp64(f64::MAX), fp64(f64::MIN), fp64(f64::MIN_POSITIVE)],
            ),
            (DataType::Bf16, vec![bf16(1.5), bf16(-3e38)]),
            (DataType::Fp16, vec![fp16(0x7bff), fp16(0xfbff), fp16(0)]),
            (DataType::Int32, vec![vec![0xff; 4]]),
        ];
        for (datatype, elements) in &finite {
            assert!(is_finite(&tensor(*datatype, elements)), "{datatype}");
        }
        let others = [
            (
                DataType::Fp32,
                vec![fp32(f32::NAN), fp32(f32::INFINITY), fp32(f32::NEG_INFINITY)],
            ),
            (
                DataType::Fp64,
                vec![fp64(f64::NAN), fp64(f64::INFINITY), fp64(f64::NEG_INFINITY)],
            ),
            (
                DataType::Bf16,
                vec![bf16(f32::NAN), bf16(f32::INFINITY), bf16(f32::NEG_INFINITY)],
            ),
            (DataType::Fp16, vec![fp16(0x7e00), fp16(0x7c00), fp16(0xfc00)]),
        ];
        for (datatype, elements) in &others {
            for element in elements {
                let last = tensor(*datatype, &[vec![0; element.len()], element.clone()]);
                assert!(!is_finite(&last), "{datatype} {element:?}");
            }
        }
    }
}
