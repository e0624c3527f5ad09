//! A tensor's `data` in JSON to its raw bytes, in one pass and without a tree.
//!
//! Where the text has been delimited by the JSON parser its syntax is sound, and where it has not ([`crate::lifted`]) it is checked on
//! the way: what is taken is JSON. What JSON does not know is checked always: each element against its datatype and range, and the
//! nesting against the shape. Data is flat, or nested exactly
//! as the shape says. The walk keeps one count per dimension and never recurses; memory is at most 8 bytes for each 2 of text.

mod decimal;

use bytes::Bytes;
use mesh_types::{DataType, MAX_RANK};

use crate::error::{DecodeError, quoted};

/// What the data must look like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected<'a> {
    pub(crate) name: &'a str,
    pub(crate) datatype: DataType,
    pub(crate) shape: &'a [u64],
    /// The product of the shape.
    pub(crate) elements: usize,
    pub(crate) syntax: Syntax,
}

/// Whether the JSON parser has seen the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    Sound,
    /// It holds brackets, commas, space and what may be numbers.
    Unchecked,
}

/// What came last, as far as it says what may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    Opening,
    Comma,
    Value,
}

/// Reads the data of one input.
pub(crate) fn read(expected: Expected<'_>, text: &str) -> Result<Bytes, DecodeError> {
    match expected.datatype {
        DataType::Bool => walk(expected, text, none, boolean),
        DataType::Uint8 => walk(expected, text, whole::<u8, 1>, integer::<u8, 1>),
        DataType::Uint16 => walk(expected, text, whole::<u16, 2>, integer::<u16, 2>),
        DataType::Uint32 => walk(expected, text, whole::<u32, 4>, integer::<u32, 4>),
        DataType::Uint64 => walk(expected, text, whole::<u64, 8>, integer::<u64, 8>),
        DataType::Int8 => walk(expected, text, whole::<i8, 1>, integer::<i8, 1>),
        DataType::Int16 => walk(expected, text, whole::<i16, 2>, integer::<i16, 2>),
        DataType::Int32 => walk(expected, text, whole::<i32, 4>, integer::<i32, 4>),
        DataType::Int64 => walk(expected, text, whole::<i64, 8>, integer::<i64, 8>),
        DataType::Fp32 => walk(expected, text, decimal::single, single),
        DataType::Fp64 => walk(expected, text, decimal::double, double),
        DataType::Bytes => walk(expected, text, none, string),
        DataType::Fp16 | DataType::Bf16 => Err(DecodeError::NotInJson {
            name: quoted(expected.name),
            datatype: expected.datatype,
        }),
    }
}

// An element as it nearly always is, read with its end in one pass: `quick` answers how long it was, or nothing where it is
// anything else. That is then delimited, and read or refused by `put`.
pub(crate) fn walk(
    expected: Expected<'_>,
    text: &str,
    quick: impl Fn(&[u8], &mut Vec<u8>) -> Option<usize>,
    put: impl Fn(&str, &mut Vec<u8>) -> Result<(), String>,
) -> Result<Bytes, DecodeError> {
    let most_elements = expected.elements.min(text.len() / 2 + 1);
    let mut out = Vec::with_capacity(match expected.datatype.element_bytes() {
        Some(size) => most_elements.saturating_mul(size),
        None => text.len(),
    });
    let mut nest = Nest::new(expected);
    let bytes = text.as_bytes();
    let (mut at, mut last) = (0, Last::Opening);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'[' => {
                nest.follows(last != Last::Value, &mut last, Last::Opening)?;
                nest.open()?;
            }
            b']' => {
                nest.follows(last != Last::Comma, &mut last, Last::Value)?;
                nest.close()?;
            }
            b',' => nest.follows(last == Last::Value, &mut last, Last::Comma)?,
            b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => {
                nest.follows(last != Last::Value, &mut last, Last::Value)?;
                nest.element()?;
                if let Some(length) = quick(bytes.get(at..).unwrap_or_default(), &mut out) {
                    at += length;
                    at += run(bytes.get(at..).unwrap_or_default(), &mut nest, |rest| {
                        quick(rest, &mut out)
                    });
                    continue;
                }
                let end = token_end(bytes, at);
                let token = text.get(at..end).unwrap_or_default();
                nest.is_sound(decimal::is_json(token.as_bytes()))?;
                put(token, &mut out).map_err(|problem| nest.wrong(&problem))?;
                at = end;
                continue;
            }
        }
        at += 1;
    }
    nest.finish()?;
    Ok(Bytes::from(out))
}

// Further elements of the same list, as long as they are as usual and there may be more: how many bytes they and the commas
// before them are. Nearly all of a large tensor is read here.
fn run(bytes: &[u8], nest: &mut Nest<'_>, mut quick: impl FnMut(&[u8]) -> Option<usize>) -> usize {
    let room = nest.expected.elements - nest.elements;
    let (mut at, mut read) = (0, 0);
    while read < room && bytes.get(at) == Some(&b',') {
        let start = at + 1 + usize::from(bytes.get(at + 1) == Some(&b' '));
        let Some(length) = quick(bytes.get(start..).unwrap_or_default()) else {
            break;
        };
        at = start + length;
        read += 1;
    }
    nest.count(read);
    at
}

// Where the string, number, word or object that starts here ends. An object ends with its first brace outside of a string: no
// datatype takes one that holds another.
pub(crate) fn token_end(bytes: &[u8], start: usize) -> usize {
    let rest = bytes.get(start..).unwrap_or_default();
    let first = rest.first();
    if matches!(first, Some(b'"' | b'{')) {
        let (mut in_string, mut escaped) = (first == Some(&b'"'), false);
        for (offset, byte) in rest.iter().enumerate().skip(1) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_string,
                b'"' if first == Some(&b'"') => return start + offset + 1,
                b'"' => in_string = !in_string,
                b'}' if !in_string => return start + offset + 1,
                _ => {}
            }
        }
        return bytes.len();
    }
    let is_end = |byte: &u8| matches!(byte, b',' | b']' | b' ' | b'\t' | b'\n' | b'\r' | b'{' | b'"' | b'[');
    let length = rest
        .iter()
        .skip(1)
        .position(is_end)
        .map_or(rest.len(), |offset| offset + 1);
    start + length
}

// Where the walk stands in the nesting.
struct Nest<'a> {
    expected: Expected<'a>,
    depth: usize,
    /// Whether the outermost list holds lists; not known before its first child.
    nested: Option<bool>,
    /// Children seen in the open list of each depth.
    counts: [u64; MAX_RANK + 2],
    elements: usize,
}

impl<'a> Nest<'a> {
    fn new(expected: Expected<'a>) -> Self {
        Self {
            expected,
            depth: 0,
            nested: None,
            counts: [0; MAX_RANK + 2],
            elements: 0,
        }
    }

    fn open(&mut self) -> Result<(), DecodeError> {
        if self.depth >= 1 && !*self.nested.get_or_insert(true) {
            return Err(self.misnested());
        }
        self.depth += 1;
        if self.depth > self.expected.shape.len().max(1) {
            return Err(self.misnested());
        }
        self.set_count(0);
        Ok(())
    }

    fn close(&mut self) -> Result<(), DecodeError> {
        let (depth, nested) = (self.depth, self.nested == Some(true));
        let count = self.counts.get(depth).copied();
        if nested && count != self.expected.shape.get(depth.wrapping_sub(1)).copied() {
            return Err(self.misnested());
        }
        self.depth = depth.saturating_sub(1);
        self.count_one();
        Ok(())
    }

    fn element(&mut self) -> Result<(), DecodeError> {
        let rank = self.expected.shape.len();
        if self.depth == 0 && rank > 0 {
            return Err(DecodeError::DataNotArray {
                name: quoted(self.expected.name),
            });
        }
        let nested = self.depth >= 1 && *self.nested.get_or_insert(false);
        if nested && self.depth != rank {
            return Err(self.misnested());
        }
        if self.elements == self.expected.elements {
            return Err(self.miscounted(format!("more than {}", self.elements)));
        }
        self.elements += 1;
        self.count_one();
        Ok(())
    }

    fn finish(&self) -> Result<(), DecodeError> {
        if self.elements == self.expected.elements {
            return Ok(());
        }
        Err(self.miscounted(self.elements.to_string()))
    }

    /// Takes what comes next, if it may.
    fn follows(&self, may: bool, last: &mut Last, next: Last) -> Result<(), DecodeError> {
        *last = next;
        self.is_sound(may)
    }

    /// Whether text that was not checked before is JSON there. Nobody is told: it is then read again by who can tell what is wrong.
    fn is_sound(&self, is_json: bool) -> Result<(), DecodeError> {
        if is_json || self.expected.syntax == Syntax::Sound {
            return Ok(());
        }
        Err(self.wrong("it is no JSON"))
    }

    fn set_count(&mut self, count: u64) {
        if let Some(slot) = self.counts.get_mut(self.depth) {
            *slot = count;
        }
    }

    fn count_one(&mut self) {
        if let Some(slot) = self.counts.get_mut(self.depth) {
            *slot += 1;
        }
    }

    // Elements beside one that was taken, of which there is room for so many.
    fn count(&mut self, elements: usize) {
        self.elements += elements;
        if let Some(slot) = self.counts.get_mut(self.depth) {
            *slot += elements as u64;
        }
    }

    fn misnested(&self) -> DecodeError {
        DecodeError::Nesting {
            name: quoted(self.expected.name),
        }
    }

    fn miscounted(&self, got: String) -> DecodeError {
        DecodeError::Count {
            name: quoted(self.expected.name),
            got,
            expected: self.expected.elements,
        }
    }

    fn wrong(&self, problem: &str) -> DecodeError {
        DecodeError::Element {
            name: quoted(self.expected.name),
            index: self.elements.saturating_sub(1),
            problem: format!("{problem} (datatype {})", self.expected.datatype),
        }
    }
}

fn boolean(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    match token {
        "true" => out.push(1),
        "false" => out.push(0),
        _ => return Err(format!("{} is neither true nor false", described(token))),
    }
    Ok(())
}

// The integers, by what the walk needs of them.
trait Integer<const SIZE: usize>: TryFrom<i128> {
    const RANGE: (i128, i128);
    fn raw(self) -> [u8; SIZE];
}

macro_rules! integers {
    ($($name:ty, $size:literal;)*) => {$(
        impl Integer<$size> for $name {
            const RANGE: (i128, i128) = (<$name>::MIN as i128, <$name>::MAX as i128);
            fn raw(self) -> [u8; $size] {
                self.to_le_bytes()
            }
        }
    )*};
}
integers! { u8, 1; u16, 2; u32, 4; u64, 8; i8, 1; i16, 2; i32, 4; i64, 8; }

fn integer<T: Integer<SIZE>, const SIZE: usize>(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let (negative, digits) = match token.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, token),
    };
    let mut magnitude: i128 = 0;
    for byte in digits.bytes() {
        if !byte.is_ascii_digit() {
            return Err(format!("{} is not a whole number", described(token)));
        }
        // Past 64 bits it only has to stay out of range.
        magnitude = (magnitude * 10 + i128::from(byte - b'0')).min(1 << 100);
    }
    let number = if negative { -magnitude } else { magnitude };
    let Ok(number) = T::try_from(number) else {
        let (least, most) = T::RANGE;
        return Err(format!("{} is not from {least} to {most}", quoted(token)));
    };
    out.extend_from_slice(&number.raw());
    Ok(())
}

pub(crate) fn none(_: &[u8], _: &mut Vec<u8>) -> Option<usize> {
    None
}

/// The most digits that are sure to fit in 64 bits.
const SURE_DIGITS: usize = 18;

fn whole<T: Integer<SIZE>, const SIZE: usize>(rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let negative = rest.first() == Some(&b'-');
    let (mut number, mut length) = (0_i64, usize::from(negative));
    if decimal::has_leading_zero(rest, length) {
        return None;
    }
    while let Some(byte @ b'0'..=b'9') = rest.get(length) {
        if length >= SURE_DIGITS {
            return None;
        }
        number = number * 10 + i64::from(byte - b'0');
        length += 1;
    }
    if length == usize::from(negative) || !decimal::ends(rest, length) {
        return None;
    }
    let number = T::try_from(i128::from(if negative { -number } else { number })).ok()?;
    out.extend_from_slice(&number.raw());
    Some(length)
}

pub(crate) fn single(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    match token.parse::<f32>() {
        Ok(number) if number.is_finite() => out.extend_from_slice(&number.to_le_bytes()),
        Ok(_) => return Err(format!("{} is out of range", quoted(token))),
        Err(_) => return Err(format!("{} is not a number", described(token))),
    }
    Ok(())
}

pub(crate) fn double(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    match token.parse::<f64>() {
        Ok(number) if number.is_finite() => out.extend_from_slice(&number.to_le_bytes()),
        Ok(_) => return Err(format!("{} is out of range", quoted(token))),
        Err(_) => return Err(format!("{} is not a number", described(token))),
    }
    Ok(())
}

pub(crate) fn string(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let plain = token.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let Some(plain) = plain else {
        return Err(format!("{} is not a string", described(token)));
    };
    if !plain.contains('\\') {
        return put_bytes(plain.as_bytes(), out);
    }
    let text: String = serde_json::from_str(token).map_err(|_| "the string holds a broken escape".to_owned())?;
    put_bytes(text.as_bytes(), out)
}

pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let length = u32::try_from(bytes.len()).map_err(|_| "the string is longer than 4 GiB".to_owned())?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

// What stands where an element should, in words; a caller's string is data and is not repeated.
pub(crate) fn described(token: &str) -> String {
    match token.as_bytes().first() {
        Some(b'"') => "a string".to_owned(),
        Some(b'{') => "an object".to_owned(),
        _ => quoted(token),
    }
}
