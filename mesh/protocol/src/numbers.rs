//! The numbers of a tensor as JSON, each with a comma behind it.
//!
//! Nearly all of a large answer in JSON is written here, so that a number should cost little beyond its digits. They are laid into a
//! block on the stack by copies of fixed widths, which need no call and no look at how much room there is; whole blocks are
//! appended. Whether all are finite is asked of the whole tensor before the first one is written: such a loop works on several
//! numbers at once. Does not own what else may stand in JSON: texts, and numbers that no datatype of JSON holds.
//!
//! Invariants: the digits are those that `serde_json` writes; where this fails it has written nothing.

use mesh_types::DataType;

/// Bytes that are appended at once, at most.
const BLOCK_BYTES: usize = 1_024;
/// What one element is given within a block: more than the 24 characters of the longest number and a comma.
const PLACE_BYTES: usize = 32;

/// Elements that are written before the first of them is copied: a processor waits for bytes that it is still writing one by one and is
/// to read as one.
const AT_ONCE: usize = 8;

/// Why a tensor is not written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unwritable {
    /// It holds NaN or infinity, which JSON does not know.
    NotFinite,
    /// Its elements are neither numbers of JSON nor `true` and `false`.
    NoNumbers,
}

/// Appends all elements, a comma behind each.
pub(crate) fn write(out: &mut Vec<u8>, datatype: DataType, data: &[u8]) -> Result<(), Unwritable> {
    match datatype {
        DataType::Bool => each(
            out,
            data,
            |(), [byte]: [u8; 1]| if byte == 0 { "false" } else { "true" },
        ),
        DataType::Uint8 => whole(out, data, u8::from_le_bytes),
        DataType::Uint16 => whole(out, data, u16::from_le_bytes),
        DataType::Uint32 => whole(out, data, u32::from_le_bytes),
        DataType::Uint64 => whole(out, data, u64::from_le_bytes),
        DataType::Int8 => whole(out, data, i8::from_le_bytes),
        DataType::Int16 => whole(out, data, i16::from_le_bytes),
        DataType::Int32 => whole(out, data, i32::from_le_bytes),
        DataType::Int64 => whole(out, data, i64::from_le_bytes),
        DataType::Fp32 => return fraction(out, data, f32::from_le_bytes, f32::is_finite),
        DataType::Fp64 => return fraction(out, data, f64::from_le_bytes, f64::is_finite),
        DataType::Bytes | DataType::Fp16 | DataType::Bf16 => return Err(Unwritable::NoNumbers),
    }
    Ok(())
}

fn whole<const SIZE: usize, T: itoa::Integer>(out: &mut Vec<u8>, data: &[u8], read: impl Fn([u8; SIZE]) -> T) {
    each(out, data, |buffer: &mut itoa::Buffer, raw| buffer.format(read(raw)));
}

fn fraction<const SIZE: usize, T: zmij::Float>(
    out: &mut Vec<u8>,
    data: &[u8],
    read: impl Fn([u8; SIZE]) -> T,
    is_finite: impl Fn(T) -> bool,
) -> Result<(), Unwritable> {
    // Without a way out early, which would have it look at one after the other.
    let (numbers, _) = data.as_chunks::<SIZE>();
    if !numbers.iter().fold(true, |all, raw| all & is_finite(read(*raw))) {
        return Err(Unwritable::NotFinite);
    }
    each(out, data, |buffer: &mut zmij::Buffer, raw| {
        buffer.format_finite(read(raw))
    });
    Ok(())
}

fn each<const SIZE: usize, B: Default>(
    out: &mut Vec<u8>,
    data: &[u8],
    text: impl for<'b> Fn(&'b mut B, [u8; SIZE]) -> &'b str,
) {
    let mut block = Block {
        out,
        bytes: [0; BLOCK_BYTES],
        used: 0,
    };
    // A tensor's bytes are a whole number of elements.
    let (groups, rest) = data.as_chunks::<SIZE>().0.as_chunks::<AT_ONCE>();
    for group in groups {
        let mut buffers: [B; AT_ONCE] = std::array::from_fn(|_| B::default());
        let mut texts = [""; AT_ONCE];
        for ((to, buffer), raw) in texts.iter_mut().zip(&mut buffers).zip(group) {
            *to = text(buffer, *raw);
        }
        texts.into_iter().for_each(|text| block.put(text));
    }
    for raw in rest {
        block.put(text(&mut B::default(), *raw));
    }
    block.append();
}

struct Block<'a> {
    out: &'a mut Vec<u8>,
    bytes: [u8; BLOCK_BYTES],
    used: usize,
}

impl Block<'_> {
    /// One element and its comma.
    #[inline]
    fn put(&mut self, element: &str) {
        if self.used > BLOCK_BYTES - PLACE_BYTES {
            self.append();
        }
        if let Some(place) = self.bytes.get_mut(self.used..self.used + PLACE_BYTES) {
            self.used += lay(place, element.as_bytes());
        }
    }

    #[cold]
    fn append(&mut self) {
        self.out
            .extend_from_slice(self.bytes.get(..self.used).unwrap_or_default());
        self.used = 0;
    }
}

/// Lays an element and a comma into its place: how many bytes they are. Beginning and end are copied apart, each with a width that
/// the compiler knows, and may overlap.
#[inline]
fn lay(place: &mut [u8], element: &[u8]) -> usize {
    let length = element.len();
    if length >= 16 {
        copy::<16>(place, 0, element.first_chunk());
        copy::<8>(place, length.saturating_sub(8), element.last_chunk());
    } else if length >= 8 {
        copy::<8>(place, 0, element.first_chunk());
        copy::<8>(place, length - 8, element.last_chunk());
    } else if length >= 4 {
        copy::<4>(place, 0, element.first_chunk());
        copy::<4>(place, length - 4, element.last_chunk());
    } else {
        for (to, from) in place.iter_mut().zip(element) {
            *to = *from;
        }
    }
    copy(place, length, Some(b","));
    length + 1
}

#[inline]
fn copy<const SIZE: usize>(place: &mut [u8], at: usize, bytes: Option<&[u8; SIZE]>) {
    let to = place.get_mut(at..).and_then(<[u8]>::first_chunk_mut);
    if let (Some(to), Some(bytes)) = (to, bytes) {
        *to = *bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(datatype: DataType, data: &[u8]) -> Result<String, Unwritable> {
        let mut out = b"[".to_vec();
        write(&mut out, datatype, data)?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// As `serde_json` writes them one by one.
    fn expected<T: serde::Serialize>(numbers: &[T]) -> String {
        let each = numbers
            .iter()
            .map(|number| serde_json::to_string(number).unwrap() + ",");
        format!("[{}", each.collect::<String>())
    }

    #[test]
    fn an_element_of_any_length_lies_whole_in_its_place() {
        let letters = "abcdefghijklmnopqrstuvwxyz";
        for length in 0..=24 {
            let mut place = [b'#'; PLACE_BYTES];
            let element = &letters[..length];
            assert_eq!(lay(&mut place, element.as_bytes()), length + 1);
            assert_eq!(&place[..=length], format!("{element},").as_bytes());
        }
    }

    #[test]
    fn blocks_end_wherever_they_fill_up() {
        // Elements of all lengths, so that a block's end meets each of them.
        let numbers: Vec<i64> = (0..5_000_u32)
            .map(|at| {
                let digits = i64::MIN >> (at % 64);
                if at % 3 == 0 { digits } else { -(digits + 1) }
            })
            .collect();
        for count in [0, 1, 31, 32, 33, 400, numbers.len()] {
            let some = &numbers[..count];
            let data: Vec<u8> = some.iter().flat_map(|number| number.to_le_bytes()).collect();
            assert_eq!(written(DataType::Int64, &data).unwrap(), expected(some), "{count}");
        }
        let truths: Vec<bool> = (0..1_000).map(|at| at % 7 < 3).collect();
        let data: Vec<u8> = truths.iter().map(|truth| u8::from(*truth)).collect();
        assert_eq!(written(DataType::Bool, &data).unwrap(), expected(&truths));
    }

    #[test]
    fn the_longest_and_the_shortest_numbers_are_written_as_serde_json_writes_them() {
        let doubles = [
            -2.225_073_858_507_201_4e-308,
            f64::MIN,
            f64::from_bits(1),
            -0.0,
            0.1,
            123_456_789_012_345_680.0,
            -1.234_567_890_123_456_7e-5,
            1e16,
            1e17,
        ];
        let data: Vec<u8> = doubles.iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(written(DataType::Fp64, &data).unwrap(), expected(&doubles));
        assert!(
            doubles
                .iter()
                .any(|double| serde_json::to_string(double).unwrap().len() == 24)
        );
        // All the exponents of a single number, with few and many digits, and both signs.
        let singles: Vec<f32> = (0..0xff_u32)
            .flat_map(|exponent| [0, 1, 0x2a_aaab, 0x7f_ffff].map(|digits| f32::from_bits(exponent << 23 | digits)))
            .flat_map(|single| [single, -single])
            .collect();
        let data: Vec<u8> = singles.iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(written(DataType::Fp32, &data).unwrap(), expected(&singles));
    }

    #[test]
    fn one_number_that_is_not_finite_has_none_written() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 511, 512, 999] {
                let mut singles = vec![1.5_f32; 1_000];
                singles[at] = odd;
                let data: Vec<u8> = singles.iter().flat_map(|number| number.to_le_bytes()).collect();
                let mut out = Vec::new();
                assert_eq!(write(&mut out, DataType::Fp32, &data), Err(Unwritable::NotFinite));
                let data: Vec<u8> = singles
                    .iter()
                    .flat_map(|number| f64::from(*number).to_le_bytes())
                    .collect();
                assert_eq!(write(&mut out, DataType::Fp64, &data), Err(Unwritable::NotFinite));
                assert_eq!(out, b"");
            }
        }
        for datatype in [DataType::Bytes, DataType::Fp16, DataType::Bf16] {
            assert_eq!(written(datatype, &[0; 8]), Err(Unwritable::NoNumbers));
        }
    }
}
