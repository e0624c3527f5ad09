//! From requests to a batch's inputs and from its outputs back to each request's rows.

use bytes::Bytes;
use mesh_backend::{BackendError, BatchInput, BatchInputs, BatchOutputs};
use mesh_scheduler::{ShapeKey, ShapePart};
use mesh_types::{DataType, ModelConfig, ModelParameters, Shape, Tensor, TensorSpec};

use crate::order::Member;

/// Gathers by reference; nothing is copied here. An input that the requests leave out has no parts; of one that stands for the
/// whole batch the first request's part is taken, which is equal to the others' (see `dispatch::shape_beside`).
pub(crate) fn gather<'a>(config: &'a ModelConfig, members: &[&'a Member], rows: u32) -> BatchInputs<'a> {
    let first = members.first().map_or(&[][..], |member| member.job.inputs.as_slice());
    // Members of a batch leave out the same inputs, so one's order is that of all.
    let mut next = 0;
    let input = |spec: &'a TensorSpec| {
        let tensor = first
            .get(next)
            .filter(|tensor| !spec.optional || *tensor.name == *spec.name);
        let Some(tensor) = tensor else {
            return BatchInput::absent(spec);
        };
        let mut shape = tensor.shape.clone();
        let mut parts = Vec::with_capacity(if spec.unbatched { 1 } else { members.len() });
        if spec.unbatched {
            parts.push(tensor.data.as_ref());
        } else {
            let of = |member: &&'a Member| member.job.inputs.get(next).map(|tensor| tensor.data.as_ref());
            parts.extend(members.iter().filter_map(of));
        }
        if config.has_rows(spec)
            && let Some(first) = shape.first_mut()
        {
            *first = u64::from(rows);
        }
        next += 1;
        BatchInput { spec, shape, parts }
    };
    BatchInputs {
        rows,
        inputs: config.input.iter().map(input).collect(),
        parameters: parameters_of(members),
    }
}

/// What all members say by parameters: who says something else is in another batch (see `dispatch`).
pub(crate) fn parameters_of<'a>(members: &[&'a Member]) -> Option<&'a ModelParameters> {
    members.first().and_then(|member| member.job.parameters.as_deref())
}

/// Splits the outputs by rows; slices of the batch's own bytes, nothing is copied.
pub(crate) fn scatter(
    config: &ModelConfig,
    members: &[&Member],
    outputs: &BatchOutputs,
) -> Result<Vec<Vec<Tensor>>, BackendError> {
    let mut split: Vec<Vec<Tensor>> = members
        .iter()
        .map(|_| Vec::with_capacity(outputs.outputs.len()))
        .collect();
    for output in &outputs.outputs {
        let rows = members.iter().map(|member| u64::from(member.job.rows));
        let parts = if config.batches() {
            rows_of(output, rows)?
        } else {
            vec![output.clone()]
        };
        for ((member, mine), part) in members.iter().zip(&mut split).zip(parts) {
            let wanted = member.job.outputs.is_empty() || member.job.outputs.iter().any(|name| **name == *output.name);
            mine.extend(wanted.then_some(part));
        }
    }
    Ok(split)
}

pub(crate) fn rows_of(
    output: &Tensor,
    members: impl Iterator<Item = u64> + Clone,
) -> Result<Vec<Tensor>, BackendError> {
    let total: u64 = members.clone().sum();
    let mismatch = || BackendError::Output(format!("'{}' does not have one row for each of {total}", output.name));
    let Some((first, extents)) = output.shape.split_first() else {
        return Err(mismatch());
    };
    if *first != total {
        return Err(mismatch());
    }
    let elements_per_row = extents
        .iter()
        .try_fold(1u64, |product, extent| product.checked_mul(*extent))
        .ok_or_else(mismatch)?;
    let (mut parts, mut rest) = (Vec::new(), output.data.clone());
    for rows in members {
        let length = match output.datatype.element_bytes() {
            Some(size) => usize::try_from(rows * elements_per_row)
                .ok()
                .and_then(|elements| elements.checked_mul(size)),
            None => strings_length(&rest, rows * elements_per_row),
        };
        let length = length.filter(|length| *length <= rest.len()).ok_or_else(mismatch)?;
        let shape: Shape = [rows].into_iter().chain(extents.iter().copied()).collect();
        let data = rest.split_to(length);
        parts.push(Tensor {
            name: output.name.clone(),
            datatype: output.datatype,
            shape,
            data,
        });
    }
    if rest.is_empty() { Ok(parts) } else { Err(mismatch()) }
}

/// The bytes that so many length-prefixed elements take.
fn strings_length(data: &Bytes, elements: u64) -> Option<usize> {
    let mut at = 0usize;
    for _ in 0..elements {
        let (prefix, _) = data.get(at..)?.split_first_chunk::<4>()?;
        at = at
            .checked_add(4)?
            .checked_add(usize::try_from(u32::from_le_bytes(*prefix)).ok()?)?;
    }
    Some(at)
}

/// A tensor of zeros, or of empty strings, with this many rows; extents of any size are 1.
pub(crate) fn zeros(config: &ModelConfig, index: usize, rows: u32) -> (Shape, Vec<u8>) {
    let Some(spec) = config.input.get(index) else {
        return (Shape::new(), Vec::new());
    };
    let batch = config.has_rows(spec).then_some(u64::from(rows));
    let extents = spec.dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(1));
    let shape: Shape = batch.into_iter().chain(extents).collect();
    let elements = usize::try_from(shape.iter().product::<u64>()).unwrap_or(0);
    let size = match spec.datatype {
        DataType::Bytes => 4,
        datatype => datatype.element_bytes().unwrap_or(1),
    };
    (shape, vec![0; elements * size])
}

/// What warm-up's inputs share a batch with.
pub(crate) fn shape_of_zeros(config: &ModelConfig) -> ShapeKey {
    let zeros: Vec<_> = (0..config.input.len()).map(|index| zeros(config, index, 1)).collect();
    let parts = config.input.iter().zip(&zeros).map(|(spec, (shape, data))| {
        if spec.unbatched {
            ShapePart::Value(shape, data)
        } else {
            ShapePart::Rows(shape)
        }
    });
    ShapeKey::of_parts(parts)
}

/// Tensors to compare variants of a model on: floating-point numbers between -1 and 1, always the same ones; zeros elsewhere,
/// which any model takes that looks things up by them.
pub(crate) fn samples(config: &ModelConfig, rows: u32) -> Vec<(Shape, Vec<u8>)> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    // A xorshift generator: only that the numbers differ matters.
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let [low, high, ..] = state.to_le_bytes();
        f32::from(i16::from_le_bytes([low, high])) / 32_768.0
    };
    let mut fill = |index: usize| {
        let (shape, mut data) = zeros(config, index, rows);
        let size = config.input.get(index).map_or(DataType::Bytes, |spec| spec.datatype);
        match size {
            DataType::Fp32 => each(&mut data, || next().to_le_bytes()),
            DataType::Fp64 => each(&mut data, || f64::from(next()).to_le_bytes()),
            // The upper half of an FP32 is a BF16.
            DataType::Bf16 => each(&mut data, || {
                let [_, _, low, high] = next().to_le_bytes();
                [low, high]
            }),
            // Its sign and some of its digits, with the exponent of a quarter.
            DataType::Fp16 => each(&mut data, || {
                let [_, digits, _, sign] = next().to_le_bytes();
                [digits, (sign & 0x80) | 0x34]
            }),
            _ => {}
        }
        (shape, data)
    };
    (0..config.input.len()).map(&mut fill).collect()
}

/// Writes one value after the other.
fn each<const SIZE: usize>(data: &mut [u8], mut value: impl FnMut() -> [u8; SIZE]) {
    for chunk in data.chunks_exact_mut(SIZE) {
        chunk.copy_from_slice(&value());
    }
}

/// The bytes that samples of so many rows take.
pub(crate) fn sample_bytes(config: &ModelConfig, rows: u32) -> usize {
    let of = |spec: &TensorSpec| {
        let extents = spec.dims.iter().map(|dim| usize::try_from(*dim).unwrap_or(1));
        let elements = extents.fold(1usize, usize::saturating_mul);
        elements.saturating_mul(spec.datatype.element_bytes().unwrap_or(4))
    };
    let row = config.input.iter().map(of).fold(0usize, usize::saturating_add);
    row.saturating_mul(usize::try_from(rows).unwrap_or(usize::MAX))
}
