//! Element types: the protocol's beside libtorch's.

use mesh_backend::BackendError;
use mesh_types::DataType;
use tch::Kind;

/// libtorch's name for an element type; an error for those that TorchScript has no use for.
pub(crate) fn kind_of(datatype: DataType) -> Result<Kind, BackendError> {
    Ok(match datatype {
        DataType::Bool => Kind::Bool,
        DataType::Uint8 => Kind::Uint8,
        DataType::Int8 => Kind::Int8,
        DataType::Int16 => Kind::Int16,
        DataType::Int32 => Kind::Int,
        DataType::Int64 => Kind::Int64,
        DataType::Fp16 => Kind::Half,
        DataType::Bf16 => Kind::BFloat16,
        DataType::Fp32 => Kind::Float,
        DataType::Fp64 => Kind::Double,
        DataType::Uint16 | DataType::Uint32 | DataType::Uint64 | DataType::Bytes => {
            return Err(BackendError::Unsupported(format!(
                "TorchScript models have no {datatype} tensors; use BOOL, UINT8, INT8, INT16, INT32, INT64, FP16, BF16, FP32 or FP64"
            )));
        }
    })
}

/// The protocol's name for a libtorch element type; none for those that the protocol lacks.
pub(crate) fn datatype_of(kind: Kind) -> Option<DataType> {
    Some(match kind {
        Kind::Bool => DataType::Bool,
        Kind::Uint8 => DataType::Uint8,
        Kind::Int8 => DataType::Int8,
        Kind::Int16 => DataType::Int16,
        Kind::Int => DataType::Int32,
        Kind::Int64 => DataType::Int64,
        Kind::Half => DataType::Fp16,
        Kind::BFloat16 => DataType::Bf16,
        Kind::Float => DataType::Fp32,
        Kind::Double => DataType::Fp64,
        _ => return None,
    })
}
