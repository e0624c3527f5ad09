//! The Rust types that a tensor's elements may have, and their raw form: little endian, one after the other.
//!
//! Where the machine's own form is the wire's and the bytes lie as the type needs, elements are seen in place; otherwise they are
//! copied, element by element. Booleans are one byte, 0 or 1; another byte counts as true where elements are copied.

use bytes::Bytes;
use mesh_types::DataType;
use zerocopy::{FromBytes as _, IntoBytes as _, TryFromBytes as _};

mod sealed {
    pub trait Sealed {}
}

/// A type of tensors' elements. FP16 and BF16 have none: see [`crate::Input::half`] and [`crate::Output::bits`].
pub trait Element: sealed::Sealed + Copy + Sized + 'static {
    /// The wire's name for it.
    const DATATYPE: DataType;
    /// The raw form of elements.
    #[doc(hidden)]
    fn raw(elements: &[Self]) -> Bytes;
    /// Elements where they lie, if they lie right.
    #[doc(hidden)]
    fn in_place(raw: &[u8]) -> Option<&[Self]>;
    /// A copy of elements.
    #[doc(hidden)]
    fn copied(raw: &[u8]) -> Vec<Self>;
}

macro_rules! numbers {
    ($($name:ty, $datatype:ident;)*) => {$(
        impl sealed::Sealed for $name {}
        impl Element for $name {
            const DATATYPE: DataType = DataType::$datatype;
            fn raw(elements: &[Self]) -> Bytes {
                if cfg!(target_endian = "little") {
                    return Bytes::copy_from_slice(elements.as_bytes());
                }
                elements.iter().flat_map(|element| element.to_le_bytes()).collect()
            }
            fn in_place(raw: &[u8]) -> Option<&[Self]> {
                let native = cfg!(target_endian = "little") || size_of::<Self>() == 1;
                native.then(|| <[Self]>::ref_from_bytes(raw).ok()).flatten()
            }
            fn copied(raw: &[u8]) -> Vec<Self> {
                let elements = raw.as_chunks::<{ size_of::<Self>() }>().0.iter();
                elements.map(|bytes| Self::from_le_bytes(*bytes)).collect()
            }
        }
    )*};
}
numbers! {
    u8, Uint8; u16, Uint16; u32, Uint32; u64, Uint64; i8, Int8; i16, Int16; i32, Int32; i64, Int64; f32, Fp32; f64, Fp64;
}

impl sealed::Sealed for bool {}
impl Element for bool {
    const DATATYPE: DataType = DataType::Bool;
    fn raw(elements: &[Self]) -> Bytes {
        Bytes::copy_from_slice(elements.as_bytes())
    }
    fn in_place(raw: &[u8]) -> Option<&[Self]> {
        <[Self]>::try_ref_from_bytes(raw).ok()
    }
    fn copied(raw: &[u8]) -> Vec<Self> {
        raw.iter().map(|byte| *byte != 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round<T: Element + PartialEq + std::fmt::Debug>(elements: &[T]) {
        let raw = T::raw(elements);
        assert_eq!(T::copied(&raw), elements);
        // One byte further nothing of several bytes lies right any more, and of two such places one at most does.
        let mut moved = vec![0; 1];
        moved.extend_from_slice(&raw);
        for data in [&raw[..], &moved[1..]] {
            if let Some(seen) = T::in_place(data) {
                assert_eq!(seen, elements);
            }
        }
    }

    #[test]
    fn elements_read_back_as_written() {
        round(&[u8::MIN, u8::MAX]);
        round(&[i16::MIN, -1, i16::MAX]);
        round(&[u64::MAX, 1]);
        round(&[f32::MIN, -0.0, f32::INFINITY]);
        round::<f64>(&[]);
        round(&[true, false]);
        assert_eq!(&i32::raw(&[1, -2])[..], [1, 0, 0, 0, 254, 255, 255, 255]);
        assert_eq!(bool::copied(&[0, 1, 7]), [false, true, true]);
        assert!(bool::in_place(&[0, 7]).is_none());
    }

    #[test]
    fn what_does_not_lie_right_is_not_seen_in_place() {
        let aligned = [0_u64; 4];
        let bytes = aligned.as_bytes();
        assert!(f32::in_place(&bytes[4..12]).is_some());
        assert!(f32::in_place(&bytes[1..9]).is_none());
        assert!(f32::in_place(&bytes[..7]).is_none());
    }
}
