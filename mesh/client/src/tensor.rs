//! Tensors as callers have them: inputs from slices, outputs to slices, and their bytes shared without copying.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use mesh_types::{DataType, Shape, Tensor};

use crate::{Element, Error};

/// An input of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Input(pub(crate) Tensor);

impl Input {
    /// A tensor of elements in row order. Their number must be the product of the shape; they are copied once.
    ///
    /// ```
    /// # use mesh_client::Input;
    /// let pixels = Input::new("pixels", [1, 4], &[0.0_f32, 5.0, 13.0, 9.0])?;
    /// # Ok::<(), mesh_client::Error>(())
    /// ```
    pub fn new<T: Element>(name: &str, shape: impl IntoIterator<Item = u64>, data: &[T]) -> Result<Self, Error> {
        Self::raw(name, T::DATATYPE, shape, T::raw(data))
    }

    /// A tensor in its raw form, which is not copied: row order, little endian, `BYTES` elements with their length (4 bytes)
    /// in front.
    pub fn raw(
        name: &str,
        datatype: DataType,
        shape: impl IntoIterator<Item = u64>,
        data: impl Into<Bytes>,
    ) -> Result<Self, Error> {
        let shape: Shape = shape.into_iter().collect();
        let tensor = Tensor::new(Arc::from(name), datatype, shape, data.into());
        tensor.map(Self).map_err(|error| Error::invalid(error.to_string()))
    }

    /// A tensor of texts or of any bytes.
    ///
    /// ```
    /// # use mesh_client::Input;
    /// let words = Input::bytes("words", [2], ["tree", "house"])?;
    /// # Ok::<(), mesh_client::Error>(())
    /// ```
    pub fn bytes<E: AsRef<[u8]>>(
        name: &str,
        shape: impl IntoIterator<Item = u64>,
        elements: impl IntoIterator<Item = E>,
    ) -> Result<Self, Error> {
        let mut data = BytesMut::new();
        for element in elements {
            let element = element.as_ref();
            let length = u32::try_from(element.len())
                .map_err(|_| Error::invalid(format!("an element of tensor '{name}' is longer than 4 GiB")))?;
            data.put_u32_le(length);
            data.put_slice(element);
        }
        Self::raw(name, DataType::Bytes, shape, data.freeze())
    }

    /// A tensor of 16-bit floats (FP16 or BF16) from their bits.
    pub fn half(
        name: &str,
        datatype: DataType,
        shape: impl IntoIterator<Item = u64>,
        bits: &[u16],
    ) -> Result<Self, Error> {
        if !matches!(datatype, DataType::Fp16 | DataType::Bf16) {
            return Err(Error::invalid(format!(
                "tensor '{name}' is of datatype {datatype}, bits are given of FP16 and BF16"
            )));
        }
        Self::raw(name, datatype, shape, u16::raw(bits))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

/// An output of an answer. Its bytes are part of the answer's, which lives as long as any of its outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct Output(pub(crate) Tensor);

/// Why elements cannot be had as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// They are of another type.
    #[error("output '{name}' is of datatype {has}, not {wanted}")]
    DataType {
        /// The output.
        name: String,
        /// Its datatype.
        has: DataType,
        /// That of the type that was asked for.
        wanted: Wanted,
    },
    /// Their bytes do not lie as the type needs, so they can only be copied: see [`Output::to_vec`] and [`Output::values`].
    #[error("the bytes of output '{name}' do not lie as its elements need: copy them")]
    NotInPlace {
        /// The output.
        name: String,
    },
    /// A text was asked for, and an element is none.
    #[error("element {index} of output '{name}' is not text (UTF-8)")]
    NotText {
        /// The output.
        name: String,
        /// Which element.
        index: usize,
    },
}

/// The datatypes that would have been right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This one.
    One(DataType),
    /// FP16 or BF16.
    Half,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(datatype) => datatype.fmt(f),
            Self::Half => f.write_str("FP16 or BF16"),
        }
    }
}

impl From<ElementError> for Error {
    fn from(error: ElementError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl Output {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The type of its elements.
    pub fn datatype(&self) -> DataType {
        self.0.datatype
    }

    /// Its extents.
    pub fn shape(&self) -> &[u64] {
        &self.0.shape
    }

    /// Its elements in their raw form, shared.
    pub fn data(&self) -> &Bytes {
        &self.0.data
    }

    /// Its elements where they lie, without copying. The first output over HTTP lies right, and so does any where all before it
    /// are multiples of eight bytes; over gRPC it is up to chance. [`Output::values`] takes what there is.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], ElementError> {
        self.check(T::DATATYPE)?;
        T::in_place(&self.0.data).ok_or_else(|| ElementError::NotInPlace { name: self.quoted() })
    }

    /// A copy of its elements, wherever they lie.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>, ElementError> {
        self.check(T::DATATYPE)?;
        Ok(T::copied(&self.0.data))
    }

    /// Its elements: where they lie if they lie right, and copied otherwise.
    pub fn values<T: Element>(&self) -> Result<Cow<'_, [T]>, ElementError> {
        self.check(T::DATATYPE)?;
        let data = &self.0.data;
        Ok(T::in_place(data).map_or_else(|| Cow::Owned(T::copied(data)), Cow::Borrowed))
    }

    /// The bits of 16-bit floats (FP16 or BF16): where they lie if they lie right, and copied otherwise.
    pub fn bits(&self) -> Result<Cow<'_, [u16]>, ElementError> {
        if !matches!(self.0.datatype, DataType::Fp16 | DataType::Bf16) {
            return Err(self.other(Wanted::Half));
        }
        let data = &self.0.data;
        Ok(u16::in_place(data).map_or_else(|| Cow::Owned(u16::copied(data)), Cow::Borrowed))
    }

    /// Its elements of datatype `BYTES`, where they lie.
    pub fn elements(&self) -> Result<Elements<'_>, ElementError> {
        self.check(DataType::Bytes)?;
        Ok(Elements(&self.0.data))
    }

    /// Its elements of datatype `BYTES` as texts, where they lie.
    pub fn texts(&self) -> Result<Vec<&str>, ElementError> {
        let text = |(index, element)| {
            std::str::from_utf8(element).map_err(|_| ElementError::NotText {
                name: self.quoted(),
                index,
            })
        };
        self.elements()?.enumerate().map(text).collect()
    }

    fn check(&self, wanted: DataType) -> Result<(), ElementError> {
        if self.0.datatype == wanted {
            return Ok(());
        }
        Err(self.other(Wanted::One(wanted)))
    }

    fn other(&self, wanted: Wanted) -> ElementError {
        ElementError::DataType {
            name: self.quoted(),
            has: self.0.datatype,
            wanted,
        }
    }

    fn quoted(&self) -> String {
        self.0.name.chars().take(64).collect()
    }
}

/// The elements of a tensor of datatype `BYTES`, one after the other.
#[derive(Debug, Clone)]
pub struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        let (prefix, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        // A tensor is checked to be whole where it is made.
        let (element, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_must_be_as_many_as_the_shape_says() {
        assert!(Input::new("x", [2, 2], &[1_i32, 2, 3, 4]).is_ok());
        let error = Input::new("x", [2, 2], &[1_i32, 2, 3]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "tensor 'x' holds 12 bytes, its shape and datatype need 16"
        );
        assert!(Input::new::<f32>("x", [0, 5], &[]).is_ok());
        assert!(Input::bytes("x", [2], ["a"]).is_err());
        assert!(Input::half("x", DataType::Fp32, [1], &[1]).is_err());
    }

    #[test]
    fn outputs_are_read_as_what_they_are_and_as_nothing_else() {
        let Input(tensor) = Input::new("y", [2], &[1.5_f32, f32::NAN]).unwrap();
        let output = Output(tensor);
        assert_eq!(output.to_vec::<f32>().unwrap()[0].to_bits(), 1.5_f32.to_bits());
        let error = output.as_slice::<i32>().unwrap_err();
        assert_eq!(error.to_string(), "output 'y' is of datatype FP32, not INT32");
        assert!(output.bits().is_err() && output.elements().is_err());
    }

    #[test]
    fn elements_of_bytes_come_with_all_they_hold() {
        let Input(tensor) = Input::bytes("y", [3], [&b"a\0b"[..], b"", b"\xff"]).unwrap();
        let output = Output(tensor);
        let elements: Vec<_> = output.elements().unwrap().collect();
        assert_eq!(elements, [&b"a\0b"[..], b"", b"\xff"]);
        assert!(matches!(output.texts(), Err(ElementError::NotText { index: 2, .. })));
    }
}
