//! From requests to a batch's inputs and from its outputs back to each request's rows.

use bytes::Bytes;
use mesh_backend::{BackendError, BatchInput, BatchInputs, BatchOutputs};
use mesh_types::{DataType, ModelConfig, Shape, Tensor};

use crate::order::Member;

/// Gathers by reference; nothing is copied here.
pub(crate) fn gather<'a>(config: &'a ModelConfig, members: &[&'a Member], rows: u32) -> BatchInputs<'a> {
    let input = |(index, spec)| {
        let of = |member: &&'a Member| member.job.inputs.get(index);
        let parts = members
            .iter()
            .filter_map(of)
            .map(|tensor: &Tensor| tensor.data.as_ref())
            .collect();
        let mut shape = members
            .first()
            .and_then(of)
            .map(|tensor| tensor.shape.clone())
            .unwrap_or_default();
        if config.batches()
            && let Some(first) = shape.first_mut()
        {
            *first = u64::from(rows);
        }
        BatchInput { spec, shape, parts }
    };
    BatchInputs {
        rows,
        inputs: config.input.iter().enumerate().map(input).collect(),
    }
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

fn rows_of(output: &Tensor, members: impl Iterator<Item = u64> + Clone) -> Result<Vec<Tensor>, BackendError> {
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
    let batch = config.batches().then_some(u64::from(rows));
    let extents = spec.dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(1));
    let shape: Shape = batch.into_iter().chain(extents).collect();
    let elements = usize::try_from(shape.iter().product::<u64>()).unwrap_or(0);
    let size = match spec.datatype {
        DataType::Bytes => 4,
        datatype => datatype.element_bytes().unwrap_or(1),
    };
    (shape, vec![0; elements * size])
}
