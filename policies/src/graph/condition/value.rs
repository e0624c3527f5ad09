//! Values that conditions compare: numbers, texts, truths; and how they are read out of a tensor.

use std::cmp::Ordering;

use mesh_types::{DataType, Tensor};

/// A number, whole ones exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole one.
    Whole(i128),
    /// One with a fraction.
    Real(f64),
}

impl Number {
    /// The order of two numbers by their exact values; none where one is not a number.
    pub fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (Self::Real(a), Self::Real(b)) => a.partial_cmp(&b),
            (Self::Whole(a), Self::Real(b)) => whole_and_real(a, b),
            (Self::Real(a), Self::Whole(b)) => whole_and_real(b, a).map(Ordering::reverse),
        }
    }
}

/// Exact where a detour over floating point would round.
fn whole_and_real(whole: i128, real: f64) -> Option<Ordering> {
    /// Beyond every 64-bit number and well within the 128-bit ones.
    const BEYOND: f64 = 1e30;
    if real.is_nan() {
        return None;
    }
    if real.abs() >= BEYOND {
        return Some(if real > 0.0 { Ordering::Less } else { Ordering::Greater });
    }
    #[expect(clippy::cast_possible_truncation, reason = "checked to be within the range")]
    let floor = real.floor() as i128;
    let fraction = real - real.floor();
    Some(whole.cmp(&floor).then(if fraction > 0.0 {
        Ordering::Less
    } else {
        Ordering::Equal
    }))
}

/// What a condition compares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// A number.
    Number(Number),
    /// A text, or any bytes.
    Text(&'a [u8]),
    /// A truth.
    Bool(bool),
}

impl<'a> Value<'a> {
    /// The order of two values of one type; none for two of different types.
    pub fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Self::Number(a), Value::Number(b)) => a.compare(*b),
            (Self::Text(a), Value::Text(b)) => Some((**a).cmp(*b)),
            (Self::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// An element of a tensor by its place in the flat tensor; none past the end.
    pub fn of_element(tensor: &'a Tensor, at: usize) -> Option<Self> {
        let Some(width) = tensor.datatype.element_bytes() else {
            return text(&tensor.data, at).map(Value::Text);
        };
        let start = at.checked_mul(width)?;
        let bytes = tensor.data.get(start..start.checked_add(width)?)?;
        let whole = |number: i128| Some(Value::Number(Number::Whole(number)));
        let real = |number: f64| Some(Value::Number(Number::Real(number)));
        match tensor.datatype {
            DataType::Bool => Some(Value::Bool(bytes.first().is_some_and(|byte| *byte != 0))),
            DataType::Uint8 => whole(u8::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Uint16 => whole(u16::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Uint32 => whole(u32::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Uint64 => whole(u64::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Int8 => whole(i8::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Int16 => whole(i16::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Int32 => whole(i32::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Int64 => whole(i64::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Fp16 => real(half(u16::from_le_bytes(bytes.try_into().ok()?))),
            DataType::Bf16 => {
                let bits = u32::from(u16::from_le_bytes(bytes.try_into().ok()?)) << 16;
                real(f32::from_bits(bits).into())
            }
            DataType::Fp32 => real(f32::from_le_bytes(bytes.try_into().ok()?).into()),
            DataType::Fp64 => real(f64::from_le_bytes(bytes.try_into().ok()?)),
            DataType::Bytes => None,
        }
    }
}

/// The value of an IEEE 754 half: a sign, 5 bits of exponent, 10 of fraction.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, fraction) = ((bits >> 10) & 0x1f, f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        0x1f if fraction > 0.0 => f64::NAN,
        0x1f => f64::INFINITY,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(i32::from(exponent) - 15),
    };
    sign * magnitude
}

/// The element of a `BYTES` tensor at a place: each has its length in four bytes before it.
fn text(data: &[u8], at: usize) -> Option<&[u8]> {
    let mut rest = data;
    let mut index = 0;
    loop {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let element = behind.get(..length)?;
        if index == at {
            return Some(element);
        }
        index += 1;
        rest = behind.get(length..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_compared_exactly_with_real_ones() {
        let big = i128::from(i64::MAX);
        // As floating point numbers the two would be equal.
        assert_eq!(
            Number::Whole(big).compare(Number::Real(9_223_372_036_854_775_808.0)),
            Some(Ordering::Less)
        );
        assert_eq!(Number::Whole(-2).compare(Number::Real(-1.5)), Some(Ordering::Less));
        assert_eq!(Number::Real(-1.5).compare(Number::Whole(-1)), Some(Ordering::Less));
        assert_eq!(Number::Whole(3).compare(Number::Real(3.0)), Some(Ordering::Equal));
        assert_eq!(
            Number::Whole(3).compare(Number::Real(f64::INFINITY)),
            Some(Ordering::Less)
        );
        assert_eq!(Number::Whole(3).compare(Number::Real(f64::NAN)), None);
    }

    #[test]
    fn halves_have_their_values() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_953_125),
            (0x0001, 5.960_464_477_539_063e-8),
            (0x7bff, 65_504.0),
            (0x7c00, f64::INFINITY),
        ] {
            assert_eq!(half(bits), value, "{bits:x}");
        }
        assert!(half(0x7e00).is_nan());
    }
}
