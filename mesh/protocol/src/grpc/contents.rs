//! A tensor's typed elements (`InferTensorContents`) to its raw bytes, straight from the message.
//!
//! Floats are on the wire as they are in the tensor, so a packed run of them is handed on as a slice of the message. All
//! others are written one by one, and no more of them than the shape says.

use bytes::Bytes;
use mesh_types::DataType;

use super::fields::{Fields, Held, malformed, varint};
use crate::error::{DecodeError, quoted};

/// What the elements must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) datatype: DataType,
    /// The product of the shape.
    pub(crate) elements: usize,
}

/// Reads the elements of one input; `message` is the whole request, which the contents are part of.
pub(crate) fn read(wanted: Wanted<'_>, message: &Bytes, contents: &[u8]) -> Result<Bytes, DecodeError> {
    match wanted.datatype {
        DataType::Bool => numbers(wanted, contents, |number, out| {
            out.push(u8::from(number != 0));
            true
        }),
        // Negative numbers are sign-extended to 64 bits on the wire; a 32-bit reader keeps the lower half.
        DataType::Int8 => numbers(wanted, contents, |number, out| {
            put(i8::try_from(number as i32).ok(), out)
        }),
        DataType::Int16 => numbers(wanted, contents, |number, out| {
            put(i16::try_from(number as i32).ok(), out)
        }),
        DataType::Int32 => numbers(wanted, contents, |number, out| put(Some(number as i32), out)),
        DataType::Int64 => numbers(wanted, contents, |number, out| put(Some(number as i64), out)),
        DataType::Uint8 => numbers(wanted, contents, |number, out| {
            put(u8::try_from(number as u32).ok(), out)
        }),
        DataType::Uint16 => numbers(wanted, contents, |number, out| {
            put(u16::try_from(number as u32).ok(), out)
        }),
        DataType::Uint32 => numbers(wanted, contents, |number, out| put(Some(number as u32), out)),
        DataType::Uint64 => numbers(wanted, contents, |number, out| put(Some(number), out)),
        DataType::Fp32 => floats::<4>(wanted, message, contents),
        DataType::Fp64 => floats::<8>(wanted, message, contents),
        DataType::Bytes => texts(wanted, contents),
        DataType::Fp16 | DataType::Bf16 => Err(DecodeError::NotInContents {
            name: quoted(wanted.name),
            datatype: wanted.datatype,
        }),
    }
}

/// The field that elements of a datatype are in.
fn field(datatype: DataType) -> (u32, &'static str) {
    match datatype {
        DataType::Bool => (1, "bool_contents"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => (2, "int_contents"),
        DataType::Int64 => (3, "int64_contents"),
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => (4, "uint_contents"),
        DataType::Uint64 => (5, "uint64_contents"),
        DataType::Fp32 => (6, "fp32_contents"),
        DataType::Fp64 => (7, "fp64_contents"),
        DataType::Bytes => (8, "bytes_contents"),
        DataType::Fp16 | DataType::Bf16 => (0, "raw_input_contents"),
    }
}

/// What the field of the datatype holds, piece by piece; nothing may be in another one.
fn each<'a>(
    wanted: Wanted<'_>,
    contents: &'a [u8],
    mut take: impl FnMut(Held<'a>) -> Result<(), DecodeError>,
) -> Result<(), DecodeError> {
    let (right, right_name) = field(wanted.datatype);
    let mut fields = Fields::of(contents);
    while let Some((number, held)) = fields.next()? {
        if number == right {
            take(held)?;
        } else if (1..=8).contains(&number) && held != Held::Piece(&[]) {
            return Err(DecodeError::OtherContents {
                name: quoted(wanted.name),
                datatype: wanted.datatype,
                right: right_name,
            });
        }
    }
    Ok(())
}

/// Writes a number, if there is one.
fn put<N: Raw<SIZE>, const SIZE: usize>(number: Option<N>, out: &mut Vec<u8>) -> bool {
    number.map(|number| out.extend_from_slice(&number.raw())).is_some()
}

/// A number's bytes in a tensor.
trait Raw<const SIZE: usize> {
    fn raw(self) -> [u8; SIZE];
}

macro_rules! raw {
    ($($name:ty, $size:literal;)*) => {$(
        impl Raw<$size> for $name {
            fn raw(self) -> [u8; $size] {
                self.to_le_bytes()
            }
        }
    )*};
}
raw! { u8, 1; u16, 2; u32, 4; u64, 8; i8, 1; i16, 2; i32, 4; i64, 8; }

fn numbers(wanted: Wanted<'_>, contents: &[u8], put: impl Fn(u64, &mut Vec<u8>) -> bool) -> Result<Bytes, DecodeError> {
    let size = wanted.datatype.element_bytes().unwrap_or(1);
    let mut out = Vec::with_capacity(wanted.elements.min(contents.len()).saturating_mul(size));
    let mut count = 0;
    let mut one = |number: u64| {
        if count == wanted.elements {
            return Err(miscounted(wanted, format!("more than {count}")));
        }
        count += 1;
        put(number, &mut out).then_some(()).ok_or_else(|| DecodeError::Element {
            name: quoted(wanted.name),
            index: count - 1,
            problem: format!("the number is out of range (datatype {})", wanted.datatype),
        })
    };
    each(wanted, contents, |held| match held {
        Held::Varint(number) => one(number),
        held => {
            let mut packed = held.piece()?;
            while !packed.is_empty() {
                one(varint(&mut packed)?)?;
            }
            Ok(())
        }
    })?;
    finish(wanted, count, Bytes::from(out))
}

fn floats<const SIZE: usize>(wanted: Wanted<'_>, message: &Bytes, contents: &[u8]) -> Result<Bytes, DecodeError> {
    // The only run so far, and all runs once there are several.
    let (mut whole, mut several): (&[u8], Vec<u8>) = (&[], Vec::new());
    each(wanted, contents, |held| {
        let (four, eight);
        let run = match held {
            Held::Four(bytes) if SIZE == 4 => {
                four = bytes;
                &four[..]
            }
            Held::Eight(bytes) if SIZE == 8 => {
                eight = bytes;
                &eight[..]
            }
            held => {
                let run = held.piece()?;
                if !run.len().is_multiple_of(SIZE) {
                    return Err(malformed("packed floats are cut short"));
                }
                if whole.is_empty() && several.is_empty() {
                    whole = run;
                    return Ok(());
                }
                run
            }
        };
        several.extend_from_slice(std::mem::take(&mut whole));
        several.extend_from_slice(run);
        Ok(())
    })?;
    let bytes = if several.is_empty() {
        message.slice_ref(whole)
    } else {
        Bytes::from(several)
    };
    finish(wanted, bytes.len() / SIZE, bytes)
}

fn texts(wanted: Wanted<'_>, contents: &[u8]) -> Result<Bytes, DecodeError> {
    let mut out = Vec::with_capacity(contents.len());
    let mut count = 0;
    each(wanted, contents, |held| {
        let text = held.piece()?;
        if count == wanted.elements {
            return Err(miscounted(wanted, format!("more than {count}")));
        }
        count += 1;
        let length = u32::try_from(text.len()).map_err(|_| malformed("a text is longer than 4 GiB"))?;
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(text);
        Ok(())
    })?;
    finish(wanted, count, Bytes::from(out))
}

fn finish(wanted: Wanted<'_>, count: usize, bytes: Bytes) -> Result<Bytes, DecodeError> {
    if count == wanted.elements {
        return Ok(bytes);
    }
    Err(miscounted(wanted, count.to_string()))
}

fn miscounted(wanted: Wanted<'_>, got: String) -> DecodeError {
    DecodeError::ContentsCount {
        name: quoted(wanted.name),
        got,
        expected: wanted.elements,
    }
}
