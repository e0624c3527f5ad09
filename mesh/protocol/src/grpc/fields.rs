//! The fields of a protobuf message, one after the other, as slices of it.
//!
//! Reads what proto3 writes: numbers, and pieces with a length. Groups are older than proto3 and are refused. Never looks
//! into a piece, so its cost is bounded by the number of fields, and the reader's caller stops where a bound is passed.

use prost::encoding::{WireType, decode_key, decode_varint};

use crate::error::DecodeError;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held<'a> {
    /// A number of variable length.
    Varint(u64),
    /// Four bytes.
    Four([u8; 4]),
    /// Eight bytes.
    Eight([u8; 8]),
    /// A text, bytes, a message or packed numbers.
    Piece(&'a [u8]),
}

/// The fields of a message that are still to be read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

pub(crate) fn malformed(what: &'static str) -> DecodeError {
    DecodeError::Message(what)
}

impl<'a> Fields<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field: its number and what it holds.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Held<'a>)>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, kind) = decode_key(&mut self.rest).map_err(|_| malformed("a field has no valid key"))?;
        let held = match kind {
            WireType::Varint => Held::Varint(varint(&mut self.rest)?),
            WireType::ThirtyTwoBit => Held::Four(self.fixed()?),
            WireType::SixtyFourBit => Held::Eight(self.fixed()?),
            WireType::LengthDelimited => Held::Piece(self.piece()?),
            WireType::StartGroup | WireType::EndGroup => return Err(malformed("it holds a group")),
        };
        Ok(Some((number, held)))
    }

    fn fixed<const SIZE: usize>(&mut self) -> Result<[u8; SIZE], DecodeError> {
        let cut = || malformed("it is cut short");
        let (bytes, rest) = self.rest.split_first_chunk::<SIZE>().ok_or_else(cut)?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn piece(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(varint(&mut self.rest)?).unwrap_or(usize::MAX);
        let (piece, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| malformed("it is cut short"))?;
        self.rest = rest;
        Ok(piece)
    }
}

/// A number of variable length.
pub(crate) fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    decode_varint(bytes).map_err(|_| malformed("a number is cut short or too long"))
}

impl<'a> Held<'a> {
    /// The piece, where the protocol has one.
    pub(crate) fn piece(self) -> Result<&'a [u8], DecodeError> {
        match self {
            Self::Piece(piece) => Ok(piece),
            _ => Err(malformed("a field has another type than the protocol says")),
        }
    }

    /// The text, where the protocol has one.
    pub(crate) fn text(self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.piece()?).map_err(|_| malformed("a text is not UTF-8"))
    }

    /// The number, where the protocol has one of variable length.
    pub(crate) fn number(self) -> Result<u64, DecodeError> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(malformed("a field has another type than the protocol says")),
        }
    }
}
