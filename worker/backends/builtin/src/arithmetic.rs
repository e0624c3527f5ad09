//! Element-wise sums and differences of raw tensors, wrapping as integers do.

use bytes::Bytes;
use mesh_backend::BackendError;
use mesh_types::DataType;

/// Sum and difference of two raw tensors of one type.
pub(crate) fn add_sub(datatype: DataType, a: &[u8], b: &[u8]) -> Result<(Vec<u8>, Vec<u8>), BackendError> {
    macro_rules! each {
        ($number:ty, $add:ident, $sub:ident) => {
            Ok(pairs::<{ size_of::<$number>() }>(a, b, |x, y| {
                let (x, y) = (<$number>::from_le_bytes(x), <$number>::from_le_bytes(y));
                (x.$add(y).to_le_bytes(), x.$sub(y).to_le_bytes())
            }))
        };
    }
    match datatype {
        DataType::Int8 => each!(i8, wrapping_add, wrapping_sub),
        DataType::Int16 => each!(i16, wrapping_add, wrapping_sub),
        DataType::Int32 => each!(i32, wrapping_add, wrapping_sub),
        DataType::Int64 => each!(i64, wrapping_add, wrapping_sub),
        DataType::Uint8 => each!(u8, wrapping_add, wrapping_sub),
        DataType::Uint16 => each!(u16, wrapping_add, wrapping_sub),
        DataType::Uint32 => each!(u32, wrapping_add, wrapping_sub),
        DataType::Uint64 => each!(u64, wrapping_add, wrapping_sub),
        DataType::Fp32 => Ok(pairs::<4>(a, b, |x, y| {
            let (x, y) = (f32::from_le_bytes(x), f32::from_le_bytes(y));
            ((x + y).to_le_bytes(), (x - y).to_le_bytes())
        })),
        DataType::Fp64 => Ok(pairs::<8>(a, b, |x, y| {
            let (x, y) = (f64::from_le_bytes(x), f64::from_le_bytes(y));
            ((x + y).to_le_bytes(), (x - y).to_le_bytes())
        })),
        other => Err(BackendError::Unsupported(format!("add_sub has no {other}"))),
    }
}

fn pairs<const N: usize>(
    a: &[u8],
    b: &[u8],
    mut both: impl FnMut([u8; N], [u8; N]) -> ([u8; N], [u8; N]),
) -> (Vec<u8>, Vec<u8>) {
    let (mut sums, mut differences) = (Vec::with_capacity(a.len()), Vec::with_capacity(a.len()));
    for (x, y) in a.as_chunks::<N>().0.iter().zip(b.as_chunks::<N>().0) {
        let (sum, difference) = both(*x, *y);
        sums.extend_from_slice(&sum);
        differences.extend_from_slice(&difference);
    }
    (sums, differences)
}

/// FP32 numbers, with NaN in place of those below zero.
pub(crate) fn nan_for_negative(data: &[u8]) -> Bytes {
    let numbers = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let replaced = numbers.map(|number| if number < 0.0 { f32::NAN } else { number });
    replaced.flat_map(f32::to_le_bytes).collect()
}

/// Whether any element of a signed or floating tensor is below zero.
pub(crate) fn any_negative(datatype: DataType, data: &[u8]) -> bool {
    let Some(size) = datatype.element_bytes() else {
        return false;
    };
    match datatype {
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Fp16
        | DataType::Bf16
        | DataType::Fp32
        | DataType::Fp64 => {
            // Little endian: the sign is the top bit of the last byte. Minus zero counts.
            data.chunks_exact(size)
                .any(|element| element.last().is_some_and(|byte| byte & 0x80 != 0))
        }
        _ => false,
    }
}
