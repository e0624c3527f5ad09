//! A module's result as the configuration's outputs: a tensor, a tuple or list of tensors, or a dictionary by name.

use std::sync::Arc;

use bytes::Bytes;
use mesh_backend::{BackendError, BatchOutputs};
use mesh_types::{ModelConfig, Shape, Tensor as WireTensor, TensorSpec};
use tch::{Device, IValue, Tensor};

use crate::{element, fault, shim};

/// Outputs smaller than this are copied: that costs less than keeping the tensor for as long as the answer lives.
const WORTH_KEEPING: usize = 16 * 1024;

/// Reads every output and checks it against the configuration. Its bytes are the tensor's own where nobody else can reach
/// them, and a copy otherwise. The arguments of the call must still be alive, so that a model that returns one of them is
/// seen to share it.
pub(crate) fn read(
    result: IValue,
    config: &ModelConfig,
    positions: &[usize],
    rows: u32,
) -> Result<BatchOutputs, BackendError> {
    let tensors = by_spec(result, config, positions)?;
    let outputs: Result<Vec<_>, _> = config
        .output
        .iter()
        .zip(tensors)
        .map(|(spec, tensor)| read_one(config, spec, tensor, rows))
        .collect();
    Ok(BatchOutputs { outputs: outputs? })
}

/// The tensors in the configuration's order.
fn by_spec(result: IValue, config: &ModelConfig, positions: &[usize]) -> Result<Vec<Tensor>, BackendError> {
    let in_order = match result {
        IValue::Tensor(tensor) => vec![tensor],
        IValue::TensorList(tensors) => tensors,
        IValue::Tuple(values) | IValue::GenericList(values) => {
            values.into_iter().map(tensor_of).collect::<Result<_, _>>()?
        }
        IValue::GenericDict(entries) => return by_name(entries, config),
        _ => {
            return Err(BackendError::Output(
                "the model returns neither a tensor nor a collection of tensors".to_owned(),
            ));
        }
    };
    if in_order.len() < positions.len() {
        let problem = format!(
            "the model returns {} tensors, the configuration has {} outputs",
            in_order.len(),
            positions.len()
        );
        return Err(BackendError::Output(problem));
    }
    let mut placed: Vec<Option<Tensor>> = positions.iter().map(|_| None).collect();
    for (tensor, spec) in in_order.into_iter().zip(positions) {
        if let Some(slot) = placed.get_mut(*spec) {
            *slot = Some(tensor);
        }
    }
    Ok(placed.into_iter().flatten().collect())
}

fn by_name(entries: Vec<(IValue, IValue)>, config: &ModelConfig) -> Result<Vec<Tensor>, BackendError> {
    let mut named: Vec<(String, Option<IValue>)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        if let IValue::String(key) = key {
            named.push((key, Some(value)));
        }
    }
    let find = |spec: &TensorSpec| {
        let found = named
            .iter_mut()
            .find(|(name, _)| *name == spec.name)
            .and_then(|(_, value)| value.take());
        let missing = || BackendError::Output(format!("the model returns no '{}'", spec.name));
        tensor_of(found.ok_or_else(missing)?)
    };
    config.output.iter().map(find).collect()
}

fn tensor_of(value: IValue) -> Result<Tensor, BackendError> {
    match value {
        IValue::Tensor(tensor) => Ok(tensor),
        _ => Err(BackendError::Output(
            "the model returns a value that is not a tensor".to_owned(),
        )),
    }
}

fn read_one(config: &ModelConfig, spec: &TensorSpec, tensor: Tensor, rows: u32) -> Result<WireTensor, BackendError> {
    let failed = |error: tch::TchError| fault::execution(&error);
    let kind = tensor.f_kind().map_err(failed)?;
    if element::datatype_of(kind) != Some(spec.datatype) {
        let problem = format!("'{}' is {kind:?}, expected {}", spec.name, spec.datatype);
        return Err(BackendError::Output(problem));
    }
    // Asking the kind first has shown that the tensor is a real one, whose size cannot fail.
    let extents = tensor.size();
    check_shape(config, spec, &extents, rows)?;
    let length = tensor.numel() * kind.elt_size_in_bytes();
    // The same tensor where it is on the CPU and contiguous already, else a new one; the former reference must go first.
    let host = tensor.f_to(Device::Cpu).and_then(|tensor| tensor.f_contiguous());
    let host = host.map_err(failed)?;
    drop(tensor);
    let data = if length >= WORTH_KEEPING && shim::owns_alone(&host) {
        Bytes::from_owner(Owned { tensor: host, length })
    } else {
        copy_out(&host, length)
    };
    let shape: Shape = extents
        .iter()
        .map(|extent| u64::try_from(*extent).unwrap_or(0))
        .collect();
    Ok(WireTensor {
        name: Arc::from(spec.name.as_str()),
        datatype: spec.datatype,
        shape,
        data,
    })
}

fn check_shape(config: &ModelConfig, spec: &TensorSpec, extents: &[i64], rows: u32) -> Result<(), BackendError> {
    let expected = config.wire_dims(spec);
    let fits = expected.len() == extents.len()
        && expected
            .iter()
            .zip(extents)
            .all(|(dim, extent)| *dim == -1 || dim == extent);
    if !fits {
        return Err(BackendError::Output(format!(
            "'{}' has shape {extents:?}, expected {expected:?}",
            spec.name
        )));
    }
    if config.batches() && extents.first() != Some(&i64::from(rows)) {
        let got = extents.first().copied().unwrap_or(0);
        return Err(BackendError::Output(format!(
            "'{}' has {got} rows for a batch of {rows}",
            spec.name
        )));
    }
    Ok(())
}

fn copy_out(tensor: &Tensor, length: usize) -> Bytes {
    if length == 0 {
        return Bytes::new();
    }
    // SAFETY: the tensor is contiguous, on the CPU and `length` bytes long (numel times element size); it outlives the
    // slice, and this thread is the only one that runs the model, so nothing writes to it meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) };
    Bytes::copy_from_slice(bytes)
}

/// An output that nobody else can reach; its bytes are handed out, and it is freed with the last of them.
struct Owned {
    tensor: Tensor,
    length: usize,
}

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: only made of tensors that `owns_alone` has found to be contiguous, on the CPU and out of everybody else's
        // reach; `length` is numel times element size and not 0; the tensor lives as long as the slice, and nothing writes
        // to it any more.
        unsafe { std::slice::from_raw_parts(self.tensor.data_ptr().cast::<u8>(), self.length) }
    }
}

#[cfg(test)]
#[path = "outputs_tests.rs"]
mod tests;
