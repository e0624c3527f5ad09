//! A model's results as the configuration's outputs.

use std::sync::Arc;

use bytes::Bytes;
use mesh_backend::{BackendError, BatchOutputs};
use mesh_types::{ModelConfig, Shape, Tensor as WireTensor, TensorSpec};
use tch::{Device, Kind, Tensor};

use crate::{element, fault, shim};

/// Outputs smaller than this are copied: that costs less than keeping the tensor for as long as the answer lives.
const WORTH_KEEPING: usize = 16 * 1024;

/// Reads every output and checks it against the configuration. Its bytes are the tensor's own where nobody else can reach
/// them, and a copy otherwise. The arguments of the call must still be alive, so that a model that returns one of them is
/// seen to share it.
pub(crate) fn read(tensors: Vec<Tensor>, config: &ModelConfig, rows: u32) -> Result<BatchOutputs, BackendError> {
    let outputs: Result<Vec<_>, _> = config
        .output
        .iter()
        .zip(tensors)
        .map(|(spec, tensor)| read_one(config, spec, tensor, rows))
        .collect();
    Ok(BatchOutputs { outputs: outputs? })
}

/// What a module that computes in another type returns, in the type that the configuration says.
pub(crate) fn in_their_own_type(tensors: Vec<Tensor>, config: &ModelConfig) -> Result<Vec<Tensor>, BackendError> {
    let convert = |(tensor, spec): (Tensor, &TensorSpec)| {
        let kind = element::kind_of(spec.datatype)?;
        let floating = |kind: Kind| matches!(kind, Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16);
        let own = tensor.f_kind().map_err(|error| fault::execution(&error))?;
        if own == kind || !floating(own) || !floating(kind) {
            return Ok(tensor);
        }
        tensor.f_to_kind(kind).map_err(|error| fault::execution(&error))
    };
    tensors.into_iter().zip(&config.output).map(convert).collect()
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
