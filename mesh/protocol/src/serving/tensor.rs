//! A `TensorProto` to a tensor and back: its bytes, or its elements in the field of their datatype.

use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use mesh_types::{DataType, MAX_RANK, Shape, Tensor};

use super::{
    error::{MAX_FILLED_BYTES, ServingError},
    messages::{self, TensorProto, TensorShapeProto, tensor_shape_proto::Dim},
};
use crate::{
    error::{DecodeError, quoted},
    grpc::fields::{Fields, Held, malformed, varint},
    request::{cut, element_count},
};

/// The number of a datatype in TensorFlow.
pub(super) const fn dtype(datatype: DataType) -> messages::DataType {
    match datatype {
        DataType::Bool => messages::DataType::DtBool,
        DataType::Uint8 => messages::DataType::DtUint8,
        DataType::Uint16 => messages::DataType::DtUint16,
        DataType::Uint32 => messages::DataType::DtUint32,
        DataType::Uint64 => messages::DataType::DtUint64,
        DataType::Int8 => messages::DataType::DtInt8,
        DataType::Int16 => messages::DataType::DtInt16,
        DataType::Int32 => messages::DataType::DtInt32,
        DataType::Int64 => messages::DataType::DtInt64,
        DataType::Fp16 => messages::DataType::DtHalf,
        DataType::Bf16 => messages::DataType::DtBfloat16,
        DataType::Fp32 => messages::DataType::DtFloat,
        DataType::Fp64 => messages::DataType::DtDouble,
        DataType::Bytes => messages::DataType::DtString,
    }
}

/// The field that elements of a datatype are in.
const fn field(datatype: DataType) -> (u32, &'static str) {
    match datatype {
        DataType::Fp32 => (5, "float_val"),
        DataType::Fp64 => (6, "double_val"),
        DataType::Uint8 | DataType::Uint16 | DataType::Int8 | DataType::Int16 | DataType::Int32 => (7, "int_val"),
        DataType::Bytes => (8, "string_val"),
        DataType::Int64 => (10, "int64_val"),
        DataType::Bool => (11, "bool_val"),
        DataType::Fp16 | DataType::Bf16 => (13, "half_val"),
        DataType::Uint32 => (16, "uint32_val"),
        DataType::Uint64 => (17, "uint64_val"),
    }
}

/// The lowest and the highest of those fields.
const FIELDS: std::ops::RangeInclusive<u32> = 5..=17;

/// Reads a tensor; `message` is the whole request, which it is part of, and `filled` how many bytes were filled in it so far.
pub(super) fn read(name: &str, tensor: &[u8], message: &Bytes, filled: &mut usize) -> Result<Tensor, ServingError> {
    let (mut number, mut shape, mut content): (u64, Shape, &[u8]) = (0, Shape::new(), &[]);
    let mut fields = Fields::of(tensor);
    while let Some((field, held)) = fields.next()? {
        match field {
            1 => number = held.number()?,
            2 => extents(name, held.piece()?, &mut shape)?,
            4 => content = held.piece()?,
            _ => {}
        }
    }
    let known = DataType::ALL
        .into_iter()
        .find(|datatype| dtype(*datatype) as u64 == number);
    let datatype = known.ok_or_else(|| ServingError::DataType {
        name: quoted(name),
        dtype: number,
    })?;
    let elements = element_count(name, &shape)?;
    let data = match (content.is_empty(), datatype) {
        (false, DataType::Bytes) => return Err(ServingError::TextContent { name: quoted(name) }),
        (false, _) => message.slice_ref(content),
        (true, _) => Elements::new(name, datatype, elements).read(tensor, filled)?,
    };
    let tensor = Tensor::new(Arc::from(name), datatype, shape, data);
    Ok(tensor.map_err(|error| cut(name, &error))?)
}

fn extents(name: &str, message: &[u8], shape: &mut Shape) -> Result<(), ServingError> {
    let mut fields = Fields::of(message);
    while let Some((number, held)) = fields.next()? {
        match number {
            2 if shape.len() == MAX_RANK => return Err(DecodeError::Rank { name: quoted(name) }.into()),
            2 => shape.push(extent(name, held.piece()?)?),
            3 if held.number()? != 0 => return Err(ServingError::UnknownRank { name: quoted(name) }),
            _ => {}
        }
    }
    Ok(())
}

fn extent(name: &str, dim: &[u8]) -> Result<u64, DecodeError> {
    let (mut fields, mut size) = (Fields::of(dim), 0);
    while let Some((number, held)) = fields.next()? {
        if number == 1 {
            size = held.number()?.cast_signed();
        }
    }
    u64::try_from(size).map_err(|_| DecodeError::NegativeExtent {
        name: quoted(name),
        extent: size,
    })
}

/// Elements as they are read, as many as the shape has at most.
struct Elements<'a> {
    name: &'a str,
    datatype: DataType,
    elements: usize,
    count: usize,
    /// Where the last one begins.
    last: usize,
    out: Vec<u8>,
}

impl<'a> Elements<'a> {
    fn new(name: &'a str, datatype: DataType, elements: usize) -> Self {
        Self {
            name,
            datatype,
            elements,
            count: 0,
            last: 0,
            out: Vec::new(),
        }
    }

    fn read(mut self, tensor: &[u8], filled: &mut usize) -> Result<Bytes, ServingError> {
        let (right, right_name) = field(self.datatype);
        let mut fields = Fields::of(tensor);
        while let Some((number, held)) = fields.next()? {
            if number == right {
                self.take(held)?;
            } else if FIELDS.contains(&number) && held != Held::Piece(&[]) {
                return Err(ServingError::OtherField {
                    name: quoted(self.name),
                    datatype: self.datatype,
                    right: right_name,
                });
            }
        }
        self.fill(filled)?;
        Ok(Bytes::from(self.out))
    }

    fn take(&mut self, held: Held<'_>) -> Result<(), DecodeError> {
        match (self.datatype, held) {
            (DataType::Bytes, held) => self.text(held.piece()?),
            (_, Held::Varint(number)) => self.number(number),
            (DataType::Fp32, Held::Four(raw)) => self.raw(&raw),
            (DataType::Fp64, Held::Eight(raw)) => self.raw(&raw),
            (DataType::Fp32, held) => self.packed::<4>(held.piece()?),
            (DataType::Fp64, held) => self.packed::<8>(held.piece()?),
            (_, held) => {
                let mut packed = held.piece()?;
                while !packed.is_empty() {
                    self.number(varint(&mut packed)?)?;
                }
                Ok(())
            }
        }
    }

    fn packed<const SIZE: usize>(&mut self, run: &[u8]) -> Result<(), DecodeError> {
        let (all, rest) = run.as_chunks::<SIZE>();
        if !rest.is_empty() {
            return Err(malformed("packed floats are cut short"));
        }
        all.iter().try_for_each(|raw| self.raw(raw))
    }

    fn raw(&mut self, raw: &[u8]) -> Result<(), DecodeError> {
        self.begin()?;
        self.out.extend_from_slice(raw);
        Ok(())
    }

    fn text(&mut self, text: &[u8]) -> Result<(), DecodeError> {
        let length = u32::try_from(text.len()).map_err(|_| malformed("a text is longer than 4 GiB"))?;
        self.raw(&length.to_le_bytes())?;
        self.out.extend_from_slice(text);
        Ok(())
    }

    // Negative numbers are sign-extended to 64 bits on the wire; a 32-bit reader keeps the lower half.
    fn number(&mut self, number: u64) -> Result<(), DecodeError> {
        let small = number as i32;
        let fits = match self.datatype {
            DataType::Bool => return self.raw(&[u8::from(number != 0)]),
            DataType::Int32 => return self.raw(&small.to_le_bytes()),
            DataType::Uint32 => return self.raw(&(number as u32).to_le_bytes()),
            DataType::Int64 | DataType::Uint64 => return self.raw(&number.to_le_bytes()),
            DataType::Int8 => i8::try_from(small).is_ok(),
            DataType::Int16 => i16::try_from(small).is_ok(),
            DataType::Uint8 => u8::try_from(small).is_ok(),
            DataType::Uint16 | DataType::Fp16 | DataType::Bf16 => u16::try_from(small).is_ok(),
            DataType::Fp32 | DataType::Fp64 | DataType::Bytes => {
                return Err(malformed("a field has another type than the protocol says"));
            }
        };
        if !fits {
            return Err(DecodeError::Element {
                name: quoted(self.name),
                index: self.count,
                problem: format!("the number is out of range (datatype {})", self.datatype),
            });
        }
        let size = self.datatype.element_bytes().unwrap_or(1);
        let raw = small.to_le_bytes();
        self.raw(raw.get(..size).unwrap_or_default())
    }

    fn begin(&mut self) -> Result<(), DecodeError> {
        if self.count == self.elements {
            return Err(DecodeError::ContentsCount {
                name: quoted(self.name),
                got: format!("more than {}", self.count),
                expected: self.elements,
            });
        }
        self.count += 1;
        self.last = self.out.len();
        Ok(())
    }

    /// Repeats the last element for those that are not there, and a zero where there is none at all.
    fn fill(&mut self, filled: &mut usize) -> Result<(), ServingError> {
        let missing = self.elements - self.count;
        if missing == 0 {
            return Ok(());
        }
        if self.count == 0 {
            self.out.resize(self.datatype.element_bytes().unwrap_or(4), 0);
        }
        let element = self.out.get(self.last..).unwrap_or_default().to_vec();
        let times = missing - usize::from(self.count == 0);
        *filled = filled.saturating_add(element.len().saturating_mul(missing));
        if *filled > MAX_FILLED_BYTES {
            return Err(ServingError::Filled {
                name: quoted(self.name),
            });
        }
        for _ in 0..times {
            self.out.extend_from_slice(&element);
        }
        Ok(())
    }
}

/// The extents of a shape; -1 where any will do.
pub(super) fn shape_of(dims: impl IntoIterator<Item = i64>) -> TensorShapeProto {
    let dim = |size| Dim {
        size,
        name: String::new(),
    };
    TensorShapeProto {
        dim: dims.into_iter().map(dim).collect(),
        unknown_rank: false,
    }
}

fn each<const SIZE: usize, T>(tensor: &Tensor, read: fn([u8; SIZE]) -> T) -> Vec<T> {
    tensor.data.as_chunks::<SIZE>().0.iter().map(|raw| read(*raw)).collect()
}

/// The elements of a tensor of texts.
fn texts(tensor: &Tensor) -> Vec<Bytes> {
    let (mut texts, mut at) = (Vec::new(), 0);
    while let Some(prefix) = tensor.data.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        let start = at + prefix.len();
        let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
        at = start.saturating_add(length).min(tensor.data.len());
        texts.push(tensor.data.slice(start..at));
    }
    texts
}

/// A tensor as its message, its elements in the field of their datatype.
pub(super) fn written(tensor: &Tensor) -> TensorProto {
    let mut proto = TensorProto {
        dtype: dtype(tensor.datatype).into(),
        tensor_shape: Some(shape_of(
            tensor
                .shape
                .iter()
                .map(|extent| i64::try_from(*extent).unwrap_or(i64::MAX)),
        )),
        ..TensorProto::default()
    };
    match tensor.datatype {
        DataType::Bool => proto.bool_val = each(tensor, |raw: [u8; 1]| raw != [0]),
        DataType::Uint8 => proto.int_val = each(tensor, |[raw]: [u8; 1]| i32::from(raw)),
        DataType::Uint16 => proto.int_val = each(tensor, |raw| i32::from(u16::from_le_bytes(raw))),
        DataType::Int8 => proto.int_val = each(tensor, |raw| i32::from(i8::from_le_bytes(raw))),
        DataType::Int16 => proto.int_val = each(tensor, |raw| i32::from(i16::from_le_bytes(raw))),
        DataType::Int32 => proto.int_val = each(tensor, i32::from_le_bytes),
        DataType::Int64 => proto.int64_val = each(tensor, i64::from_le_bytes),
        DataType::Uint32 => proto.uint32_val = each(tensor, u32::from_le_bytes),
        DataType::Uint64 => proto.uint64_val = each(tensor, u64::from_le_bytes),
        DataType::Fp16 | DataType::Bf16 => {
            proto.half_val = each(tensor, |raw| i32::from(u16::from_le_bytes(raw)));
        }
        DataType::Fp32 => proto.float_val = each(tensor, f32::from_le_bytes),
        DataType::Fp64 => proto.double_val = each(tensor, f64::from_le_bytes),
        DataType::Bytes => proto.string_val = texts(tensor),
    }
    proto
}

/// The elements of a tensor of numbers, as scores are told.
pub(super) fn scores(tensor: &Tensor) -> Vec<f32> {
    match tensor.datatype {
        DataType::Uint8 => each(tensor, |[raw]: [u8; 1]| f32::from(raw)),
        DataType::Uint16 => each(tensor, |raw| f32::from(u16::from_le_bytes(raw))),
        DataType::Int8 => each(tensor, |raw| f32::from(i8::from_le_bytes(raw))),
        DataType::Int16 => each(tensor, |raw| f32::from(i16::from_le_bytes(raw))),
        DataType::Int32 => each(tensor, |raw| i32::from_le_bytes(raw) as f32),
        DataType::Int64 => each(tensor, |raw| i64::from_le_bytes(raw) as f32),
        DataType::Uint32 => each(tensor, |raw| u32::from_le_bytes(raw) as f32),
        DataType::Uint64 => each(tensor, |raw| u64::from_le_bytes(raw) as f32),
        DataType::Fp16 => each(tensor, |raw| f16::from_le_bytes(raw).to_f32()),
        DataType::Bf16 => each(tensor, |raw| bf16::from_le_bytes(raw).to_f32()),
        DataType::Fp32 => each(tensor, f32::from_le_bytes),
        DataType::Fp64 => each(tensor, |raw| f64::from_le_bytes(raw) as f32),
        // Refused where classes and regressions are looked for.
        DataType::Bool | DataType::Bytes => Vec::new(),
    }
}
