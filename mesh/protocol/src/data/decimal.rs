//! Decimal fractions as models' inputs have them, read with their end in one pass.
//!
//! Exact, or not at all: where a few digits and one division give the nearest number for certain, that is what is read; anything
//! else (exponents, very many digits, numbers at the edges) is left to the standard library, which reads all there is. One
//! division rounds once where digits and power of ten are both exact (W. Clinger, "How to read floating point numbers
//! accurately", 1990).

/// What a double holds exactly: whole numbers up to this, and powers of ten up to the 22nd.
const EXACT: u64 = 1 << 53;
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// The most digits that are sure to fit in 64 bits.
const SURE_DIGITS: usize = 19;

/// Whether an element of this length has ended there.
pub(super) fn ends(rest: &[u8], length: usize) -> bool {
    matches!(
        rest.get(length),
        None | Some(b',' | b']' | b' ' | b'\t' | b'\n' | b'\r')
    )
}

/// Whether a number that begins there has a zero before its digits, which JSON does not take (RFC 8259, section 6).
pub(super) fn has_leading_zero(rest: &[u8], start: usize) -> bool {
    rest.get(start) == Some(&b'0') && rest.get(start + 1).is_some_and(u8::is_ascii_digit)
}

/// Whether this is a number of JSON (RFC 8259, section 6).
pub(super) fn is_json(token: &[u8]) -> bool {
    let unsigned = token.strip_prefix(b"-").unwrap_or(token);
    let (_, count) = digits(unsigned, 0);
    let Some(mut rest) = unsigned
        .get(count..)
        .filter(|_| count > 0 && !has_leading_zero(unsigned, 0))
    else {
        return false;
    };
    if let Some(fraction) = rest.strip_prefix(b".") {
        let (_, count) = digits(fraction, 0);
        if count == 0 {
            return false;
        }
        rest = fraction.get(count..).unwrap_or_default();
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent = exponent
            .strip_prefix(b"-")
            .or_else(|| exponent.strip_prefix(b"+"))
            .unwrap_or(exponent);
        let (_, count) = digits(exponent, 0);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

pub(super) fn single(rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let (number, length) = read(rest)?;
    let magnitude = number.abs();
    // Rounded twice, a number may end beside the nearest only where the first rounding led exactly between two.
    let between = number.to_bits() & ((1 << 29) - 1) == 1 << 28;
    let ordinary = magnitude == 0.0 || (f64::from(f32::MIN_POSITIVE)..f64::from(f32::MAX)).contains(&magnitude);
    if between || !ordinary {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding is what is wanted, and it is within range"
    )]
    out.extend_from_slice(&(number as f32).to_le_bytes());
    Some(length)
}

pub(super) fn double(rest: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let (number, length) = read(rest)?;
    out.extend_from_slice(&number.to_le_bytes());
    Some(length)
}

/// Appends the digits that begin there to a number; answers it and how many they were.
fn digits(of: &[u8], mut number: u64) -> (u64, usize) {
    let mut count = 0;
    for byte in of {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
        count += 1;
    }
    (number, count)
}

/// The nearest double, and how many bytes it was written in.
fn read(rest: &[u8]) -> Option<(f64, usize)> {
    let negative = rest.first() == Some(&b'-');
    let start = usize::from(negative);
    let (mut number, mut count) = digits(rest.get(start..)?, 0);
    let (mut length, mut power) = (start + count, 1.0);
    if count == 0 || has_leading_zero(rest, start) {
        return None;
    }
    if rest.get(length) == Some(&b'.') {
        let (all, decimals) = digits(rest.get(length + 1..)?, number);
        number = all;
        count += decimals;
        length += 1 + decimals;
        power = *POWERS.get(decimals).filter(|_| decimals > 0)?;
    }
    if count > SURE_DIGITS || number > EXACT || !ends(rest, length) {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "it is within what a double holds exactly")]
    let number = number as f64 / power;
    Some((if negative { -number } else { number }, length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bits32(text: &str) -> Option<u32> {
        let mut out = Vec::new();
        let length = single(text.as_bytes(), &mut out)?;
        assert_eq!(length, text.len());
        Some(u32::from_le_bytes(out.try_into().unwrap()))
    }

    fn bits64(text: &str) -> Option<u64> {
        let mut out = Vec::new();
        double(text.as_bytes(), &mut out)?;
        Some(u64::from_le_bytes(out.try_into().unwrap()))
    }

    #[test]
    fn what_is_no_plain_fraction_is_left_to_others() {
        for text in [
            "", "-", "1.", ".5", "1e5", "1.5E-3", "true", "\"1\"", "1.2.3", "1x", "-a", "{", "1\"",
        ] {
            assert_eq!((bits32(text), bits64(text)), (None, None), "{text}");
        }
        let digits = |count: usize| "1".repeat(count);
        assert!(bits64(&digits(16)).is_some() && bits64(&digits(17)).is_none() && bits64(&digits(40)).is_none());
        assert!(bits64(&EXACT.to_string()).is_some() && bits64(&(EXACT + 1).to_string()).is_none());
    }

    #[test]
    fn numbers_between_two_are_not_rounded_twice() {
        // 2^24 + 1 lies exactly between two singles, and what follows it decides.
        for text in [
            "16777217",
            "16777217.0000001",
            "16777216.9999999",
            "-0.0",
            "0",
            "0.1",
            "3.4028235",
            "-65504",
        ] {
            if let Some(bits) = bits32(text) {
                assert_eq!(bits, text.parse::<f32>().unwrap().to_bits(), "{text}");
            }
        }
        assert_eq!(bits32("16777217"), None);
        assert_eq!(bits32("0.1"), Some(0.1_f32.to_bits()));
        assert_eq!(bits32("-0.0"), Some((-0.0_f32).to_bits()));
    }

    proptest! {
        #[test]
        fn every_fraction_is_the_nearest_number(digits in 0..u64::MAX, decimals in 0_usize..25, negative: bool, keep in 1_usize..20) {
            let digits: String = digits.to_string().chars().take(keep).collect();
            let sign = if negative { "-" } else { "" };
            let (whole, part) = digits.split_at(digits.len().saturating_sub(decimals).max(1));
            let text = if part.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{part}") };
            if let Some(bits) = bits32(&text) {
                prop_assert_eq!(bits, text.parse::<f32>().unwrap().to_bits(), "{}", text);
            }
            if let Some(bits) = bits64(&text) {
                prop_assert_eq!(bits, text.parse::<f64>().unwrap().to_bits(), "{}", text);
            }
        }

        #[test]
        fn every_single_reads_back(bits: u32) {
            let number = f32::from_bits(bits);
            let text = number.to_string();
            if let Some(read) = bits32(&text) {
                prop_assert_eq!(read, bits, "{}", text);
            }
        }
    }
}
