//! Classes instead of numbers: the highest values of an output as texts (Triton's classification extension).
//!
//! Owns what is asked ([`ClassCount`]), whether an output can answer it, and the texts. Labels are the output's own, from the
//! configuration. An answer is computed where it is complete, so that models, batches and ensembles know nothing of it.
//!
//! Invariants: within a row values go down, and equal ones by their index; NaN is below every number; the texts of an output
//! take at most [`MAX_CLASSES_BYTES`].

use std::{cmp::Ordering, fmt::Display, io::Write as _, sync::Arc};

use bytes::Bytes;
use smallvec::smallvec;

use crate::{DataType, Fault, ModelConfig, Tensor, TensorSpec};

/// The most bytes of one output's classes: labels may be long, and each row repeats them.
pub const MAX_CLASSES_BYTES: usize = 64 << 20;

/// How many classes of an output are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassCount {
    /// The output.
    pub output: String,
    /// At most so many of each row, at least 1.
    pub count: u32,
}

/// Why an output has no classes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClassError {
    /// Its elements are no numbers.
    #[error("output '{output}' has no classes: its datatype is {datatype}, and only numbers can be ordered")]
    NotNumbers {
        /// The output.
        output: String,
        /// Its datatype.
        datatype: DataType,
    },
    /// The texts would be too long.
    #[error("the classes of output '{output}' take more than {MAX_CLASSES_BYTES} bytes: ask for fewer rows or classes")]
    TooLong {
        /// The output.
        output: String,
    },
}

impl From<ClassError> for Fault {
    fn from(error: ClassError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl ModelConfig {
    /// Checks that the outputs whose classes are wanted hold numbers. An output that is not there is found elsewhere.
    pub fn check_classes(&self, wanted: &[ClassCount]) -> Result<(), ClassError> {
        for ClassCount { output, .. } in wanted {
            let spec = self.output.iter().find(|spec| spec.name == *output);
            let datatype = spec.map(|spec| spec.datatype);
            if let Some(datatype @ (DataType::Bytes | DataType::Bool)) = datatype {
                return Err(ClassError::NotNumbers {
                    output: output.clone(),
                    datatype,
                });
            }
        }
        Ok(())
    }

    /// Puts classes in the place of the outputs that they are wanted of; the others stay as they are.
    pub fn classify(&self, wanted: &[ClassCount], outputs: &mut [Tensor]) -> Result<(), ClassError> {
        for ClassCount { output, count } in wanted {
            let spec = self.output.iter().find(|spec| spec.name == *output);
            let tensor = outputs.iter_mut().find(|tensor| *tensor.name == **output);
            if let (Some(spec), Some(tensor)) = (spec, tensor) {
                *tensor = classes_of(tensor, *count, spec, self.has_rows(spec))?;
            }
        }
        Ok(())
    }
}

/// The rows that a tensor is looked at by.
struct Rows<'a> {
    tensor: &'a Tensor,
    labels: &'a [String],
    /// Values in a row.
    values: usize,
    /// Classes of a row.
    classes: usize,
}

fn classes_of(tensor: &Tensor, count: u32, spec: &TensorSpec, has_rows: bool) -> Result<Tensor, ClassError> {
    let rows = tensor.shape.first().copied().filter(|_| has_rows);
    let extents = tensor.shape.iter().skip(usize::from(rows.is_some()));
    let values = extents.fold(1_u64, |values, extent| values.saturating_mul(*extent));
    let classes = values.min(u64::from(count));
    let of = Rows {
        tensor,
        labels: &spec.labels,
        values: usize::try_from(values).unwrap_or(usize::MAX),
        classes: usize::try_from(classes).unwrap_or(usize::MAX),
    };
    let data = match tensor.datatype {
        DataType::Uint8 => of.texts(u8::from_le_bytes, whole),
        DataType::Uint16 => of.texts(u16::from_le_bytes, whole),
        DataType::Uint32 => of.texts(u32::from_le_bytes, whole),
        DataType::Uint64 => of.texts(u64::from_le_bytes, whole),
        DataType::Int8 => of.texts(i8::from_le_bytes, whole),
        DataType::Int16 => of.texts(i16::from_le_bytes, whole),
        DataType::Int32 => of.texts(i32::from_le_bytes, whole),
        DataType::Int64 => of.texts(i64::from_le_bytes, whole),
        DataType::Fp16 => of.texts(|raw| half(u16::from_le_bytes(raw)), fraction),
        DataType::Bf16 => of.texts(|raw| f32::from_bits(u32::from(u16::from_le_bytes(raw)) << 16), fraction),
        DataType::Fp32 => of.texts(f32::from_le_bytes, fraction),
        DataType::Fp64 => of.texts(f64::from_le_bytes, fraction),
        datatype @ (DataType::Bool | DataType::Bytes) => Err(ClassError::NotNumbers {
            output: spec.name.clone(),
            datatype,
        }),
    }?;
    Ok(Tensor {
        name: tensor.name.clone(),
        datatype: DataType::Bytes,
        shape: rows.map_or_else(|| smallvec![classes], |rows| smallvec![rows, classes]),
        data,
    })
}

impl Rows<'_> {
    fn texts<T: Copy + PartialOrd, const SIZE: usize>(
        &self,
        read: impl Fn([u8; SIZE]) -> T,
        write: impl Fn(T, &mut Vec<u8>),
    ) -> Result<Bytes, ClassError> {
        let mut out = Vec::new();
        if self.classes == 0 {
            return Ok(Bytes::new());
        }
        let (mut values, mut indices): (Vec<T>, Vec<usize>) = (Vec::new(), Vec::new());
        for row in self.tensor.data.as_chunks::<SIZE>().0.chunks(self.values) {
            values.clear();
            values.extend(row.iter().map(|raw| read(*raw)));
            indices.clear();
            indices.extend(0..values.len());
            let before = |a: &usize, b: &usize| {
                let order = values.get(*a).zip(values.get(*b));
                order.map_or(Ordering::Equal, |(a, b)| descending(a, b)).then(a.cmp(b))
            };
            if self.classes < indices.len() {
                indices.select_nth_unstable_by(self.classes, before);
                indices.truncate(self.classes);
            }
            indices.sort_unstable_by(before);
            for index in &indices {
                let Some(value) = values.get(*index) else { continue };
                self.text(*value, *index, &write, &mut out)?;
            }
        }
        Ok(Bytes::from(out))
    }

    /// One element: its length, and `<value>:<index>[:<label>]`.
    fn text<T>(
        &self,
        value: T,
        index: usize,
        write: &impl Fn(T, &mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> Result<(), ClassError> {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        write(value, out);
        // Writing to a Vec cannot fail, here and below.
        let _ = write!(out, ":{index}");
        if let Some(label) = self.labels.get(index).filter(|label| !label.is_empty()) {
            out.push(b':');
            out.extend_from_slice(label.as_bytes());
        }
        if out.len() > MAX_CLASSES_BYTES {
            return Err(ClassError::TooLong {
                output: self.tensor.name.to_string(),
            });
        }
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        if let Some(prefix) = out.get_mut(start..start + 4) {
            prefix.copy_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }
}

fn descending<T: PartialOrd>(a: &T, b: &T) -> Ordering {
    let is_nan = |value: &T| value.partial_cmp(value).is_none();
    b.partial_cmp(a).unwrap_or_else(|| is_nan(a).cmp(&is_nan(b)))
}

fn whole(value: impl Display, out: &mut Vec<u8>) {
    let _ = write!(out, "{value}");
}

/// As C's `%f` writes it: six decimals.
fn fraction(value: impl Into<f64>, out: &mut Vec<u8>) {
    let value: f64 = value.into();
    if value.is_nan() {
        out.extend_from_slice(b"nan");
    } else {
        let _ = write!(out, "{value:.6}");
    }
}

/// A number of 16 bits (IEEE 754 binary16) as one of 32.
fn half(bits: u16) -> f32 {
    let (sign, exponent, mantissa) = (bits >> 15, (bits >> 10) & 0x1f, bits & 0x3ff);
    let magnitude = match exponent {
        0 => f32::from(mantissa) * 2_f32.powi(-24),
        0x1f if mantissa == 0 => f32::INFINITY,
        0x1f => f32::NAN,
        _ => f32::from(mantissa | 0x400) * 2_f32.powi(i32::from(exponent) - 25),
    };
    if sign == 1 { -magnitude } else { magnitude }
}

/// The classes that an answer is to have, and whose labels they get.
#[derive(Debug, Clone)]
pub struct Classes {
    /// What is wanted.
    pub wanted: Vec<ClassCount>,
    /// Of which model.
    pub config: Arc<ModelConfig>,
}

impl Classes {
    /// Puts classes in the place of the outputs that they are wanted of.
    pub fn put_into(&self, outputs: &mut [Tensor]) -> Result<(), ClassError> {
        self.config.classify(&self.wanted, outputs)
    }
}

#[cfg(test)]
#[path = "classes_tests.rs"]
mod tests;
