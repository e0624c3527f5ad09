//! Tensors: a name, an element type, a shape and little-endian bytes, shared without copying.
//!
//! The data is always in the wire's raw form (Open Inference Protocol, binary tensor data extension): row-major, little
//! endian, `BOOL` one byte, `BYTES` a 4-byte little-endian length before each element. A checked tensor's bytes always fit
//! its shape, so nothing after the decoder has to ask again.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

/// The most dimensions a tensor may have.
pub const MAX_RANK: usize = 16;

/// Element types of the Open Inference Protocol, and Triton's `BF16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is the protocol's name for itself")]
pub enum DataType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

/// A text that names no element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown datatype '{0}': it is one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64, BYTES"
)]
pub struct UnknownDataType(String);

impl DataType {
    /// Every element type.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Bf16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
    ];

    /// Bytes per element; none for `BYTES`, whose elements differ in length.
    pub const fn element_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Bf16 => "BF16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DataType {
    type Err = UnknownDataType;
    /// Takes the wire's name, and that of Triton's model configuration (`TYPE_FP32`, `TYPE_STRING`).
    fn from_str(text: &str) -> Result<Self, UnknownDataType> {
        let name = text.strip_prefix("TYPE_").unwrap_or(text);
        if text == "TYPE_STRING" {
            return Ok(Self::Bytes);
        }
        let found = Self::ALL.into_iter().find(|datatype| datatype.as_str() == name);
        found.ok_or_else(|| UnknownDataType(text.chars().take(32).collect()))
    }
}

impl Serialize for DataType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for DataType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The extent of each dimension, none negative. Up to four dimensions are kept inline.
pub type Shape = SmallVec<[u64; 4]>;

/// Why a tensor's parts do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// More than [`MAX_RANK`] dimensions.
    #[error("tensor '{name}' has {rank} dimensions, at most {MAX_RANK} are allowed")]
    Rank {
        /// The tensor.
        name: String,
        /// How many it has.
        rank: usize,
    },
    /// The product of the dimensions is beyond any memory.
    #[error("tensor '{name}' has a shape whose number of elements overflows")]
    Overflow {
        /// The tensor.
        name: String,
    },
    /// Bytes and shape disagree.
    #[error("tensor '{name}' holds {got} bytes, its shape and datatype need {expected}")]
    ByteSize {
        /// The tensor.
        name: String,
        /// Bytes held.
        got: usize,
        /// Bytes needed.
        expected: usize,
    },
    /// A `BYTES` tensor's length prefixes do not add up to its elements.
    #[error("tensor '{name}' of datatype BYTES is cut short or holds other than its shape's {expected} elements")]
    Elements {
        /// The tensor.
        name: String,
        /// Elements that the shape says.
        expected: usize,
    },
}

/// One named tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name in the model's signature.
    pub name: Arc<str>,
    /// Its element type.
    pub datatype: DataType,
    /// Its extent, batch dimension first where the model batches.
    pub shape: Shape,
    /// Raw elements, as the module's documentation says.
    pub data: Bytes,
}

impl Tensor {
    /// Puts the parts together if bytes and shape agree.
    pub fn new(name: Arc<str>, datatype: DataType, shape: Shape, data: Bytes) -> Result<Self, TensorError> {
        let tensor = Self {
            name,
            datatype,
            shape,
            data,
        };
        tensor.check()?;
        Ok(tensor)
    }

    /// The number of elements, or why there is none.
    pub fn element_count(&self) -> Result<usize, TensorError> {
        element_count(&self.name, &self.shape)
    }

    fn check(&self) -> Result<(), TensorError> {
        let elements = self.element_count()?;
        let name = || self.name.to_string();
        let Some(element_bytes) = self.datatype.element_bytes() else {
            let held = bytes_element_count(&self.data);
            return if held == Some(elements) {
                Ok(())
            } else {
                Err(TensorError::Elements {
                    name: name(),
                    expected: elements,
                })
            };
        };
        let expected = elements
            .checked_mul(element_bytes)
            .ok_or_else(|| TensorError::Overflow { name: name() })?;
        if self.data.len() == expected {
            return Ok(());
        }
        Err(TensorError::ByteSize {
            name: name(),
            got: self.data.len(),
            expected,
        })
    }
}

fn element_count(name: &str, shape: &[u64]) -> Result<usize, TensorError> {
    if shape.len() > MAX_RANK {
        return Err(TensorError::Rank {
            name: name.to_owned(),
            rank: shape.len(),
        });
    }
    // A zero dimension makes the tensor empty, but must not hide an overflow of the others.
    let mut product: u64 = 1;
    for extent in shape.iter().filter(|extent| **extent != 0) {
        product = product
            .checked_mul(*extent)
            .ok_or_else(|| TensorError::Overflow { name: name.to_owned() })?;
    }
    let elements = if shape.contains(&0) { 0 } else { product };
    usize::try_from(elements).map_err(|_| TensorError::Overflow { name: name.to_owned() })
}

/// How many length-prefixed elements the raw form of a `BYTES` tensor holds; none if it is cut short.
pub fn bytes_element_count(mut data: &[u8]) -> Option<usize> {
    let mut count = 0;
    while !data.is_empty() {
        let (prefix, rest) = data.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*prefix)).ok()?;
        data = rest.get(length..)?;
        count += 1;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use smallvec::smallvec;

    fn tensor(datatype: DataType, shape: Shape, bytes: Vec<u8>) -> Result<Tensor, TensorError> {
        Tensor::new(Arc::from("x"), datatype, shape, Bytes::from(bytes))
    }

    #[test]
    fn bytes_must_fit_the_shape() {
        assert!(tensor(DataType::Fp32, smallvec![2, 3], vec![0; 24]).is_ok());
        assert!(matches!(
            tensor(DataType::Fp32, smallvec![2, 3], vec![0; 23]),
            Err(TensorError::ByteSize { expected: 24, .. })
        ));
    }

    #[test]
    fn a_scalar_has_one_element_and_a_zero_dimension_none() {
        assert!(tensor(DataType::Int8, smallvec![], vec![1]).is_ok());
        assert!(tensor(DataType::Int64, smallvec![0, 5], vec![]).is_ok());
    }

    #[test]
    fn an_overflowing_shape_is_refused_even_beside_a_zero() {
        let huge = u64::MAX / 2;
        assert!(matches!(
            tensor(DataType::Int8, smallvec![huge, 3], vec![]),
            Err(TensorError::Overflow { .. })
        ));
        assert!(matches!(
            tensor(DataType::Int8, smallvec![huge, 3, 0], vec![]),
            Err(TensorError::Overflow { .. })
        ));
        assert!(matches!(
            tensor(DataType::Fp64, smallvec![huge], vec![]),
            Err(TensorError::Overflow { .. })
        ));
    }

    #[test]
    fn sixteen_dimensions_pass_and_seventeen_do_not() {
        assert!(tensor(DataType::Int8, Shape::from_elem(1, 16), vec![1]).is_ok());
        assert!(matches!(
            tensor(DataType::Int8, Shape::from_elem(1, 17), vec![1]),
            Err(TensorError::Rank { rank: 17, .. })
        ));
    }

    #[test]
    fn strings_are_counted_by_their_length_prefixes() {
        assert_eq!(bytes_element_count(&[]), Some(0));
        assert_eq!(bytes_element_count(&[2, 0, 0, 0, b'h', b'i', 0, 0, 0, 0]), Some(2));
        assert_eq!(bytes_element_count(&[2, 0, 0, 0, b'h']), None);
        assert_eq!(bytes_element_count(&[255, 255, 255, 255]), None);
        assert_eq!(bytes_element_count(&[0, 0, 0]), None);
    }

    #[test]
    fn datatypes_read_back_as_written_and_in_triton_spelling() {
        for datatype in DataType::ALL {
            assert_eq!(datatype.as_str().parse(), Ok(datatype));
        }
        assert_eq!("TYPE_STRING".parse(), Ok(DataType::Bytes));
        assert_eq!("TYPE_FP32".parse(), Ok(DataType::Fp32));
        assert!("FP8".parse::<DataType>().is_err());
    }

    proptest! {
        #[test]
        fn counting_strings_never_panics(data in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = bytes_element_count(&data);
        }
    }
}
