//! Outputs to V1's answers: nested lists, by row or whole, classes and regressions.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use half::{bf16, f16};
use mesh_types::{DataType, InferResponse, ModelConfig, Tensor, TensorSpec};

use super::{error::V1Error, request::Form};
use crate::{
    error::{EncodeError, quoted},
    numbers,
    response::write_string,
};

/// Names of outputs that end so are bytes and no text.
const BYTES_SUFFIX: &str = "_bytes";
/// So many numbers are worth a block of their own.
const LEAST_AT_ONCE: usize = 16;

/// The elements of a tensor, one after the other as JSON.
struct Elements<'a> {
    tensor: &'a Tensor,
    rest: &'a [u8],
    encoded: bool,
}

impl<'a> Elements<'a> {
    fn of(tensor: &'a Tensor) -> Self {
        Self {
            tensor,
            rest: &tensor.data,
            encoded: tensor.name.ends_with(BYTES_SUFFIX),
        }
    }

    fn take<const SIZE: usize>(&mut self) -> [u8; SIZE] {
        match self.rest.split_first_chunk::<SIZE>() {
            Some((raw, rest)) => {
                self.rest = rest;
                *raw
            }
            // A tensor has as many bytes as its shape says.
            None => [0; SIZE],
        }
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Result<(), V1Error> {
        match self.tensor.datatype {
            DataType::Bool => out.extend_from_slice(if self.take() == [0] { b"false" } else { b"true" }),
            DataType::Uint8 => whole(out, u8::from_le_bytes(self.take())),
            DataType::Uint16 => whole(out, u16::from_le_bytes(self.take())),
            DataType::Uint32 => whole(out, u32::from_le_bytes(self.take())),
            DataType::Uint64 => whole(out, u64::from_le_bytes(self.take())),
            DataType::Int8 => whole(out, i8::from_le_bytes(self.take())),
            DataType::Int16 => whole(out, i16::from_le_bytes(self.take())),
            DataType::Int32 => whole(out, i32::from_le_bytes(self.take())),
            DataType::Int64 => whole(out, i64::from_le_bytes(self.take())),
            DataType::Fp32 => {
                let number = f32::from_le_bytes(self.take());
                fraction(out, number, number.is_finite(), f64::from(number));
            }
            DataType::Fp64 => {
                let number = f64::from_le_bytes(self.take());
                fraction(out, number, number.is_finite(), number);
            }
            DataType::Bytes => return self.text(out),
            // A short fraction is the single one of the same value, which is written in as few digits.
            DataType::Fp16 => {
                let number = f16::from_le_bytes(self.take()).to_f32();
                fraction(out, number, number.is_finite(), f64::from(number));
            }
            DataType::Bf16 => {
                let number = bf16::from_le_bytes(self.take()).to_f32();
                fraction(out, number, number.is_finite(), f64::from(number));
            }
        }
        Ok(())
    }

    fn text(&mut self, out: &mut Vec<u8>) -> Result<(), V1Error> {
        let length = usize::try_from(u32::from_le_bytes(self.take())).unwrap_or(usize::MAX);
        let (element, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        if self.encoded {
            out.extend_from_slice(b"{\"b64\":\"");
            out.extend_from_slice(STANDARD.encode(element).as_bytes());
            out.extend_from_slice(b"\"}");
            return Ok(());
        }
        let Ok(text) = std::str::from_utf8(element) else {
            let name = quoted(&self.tensor.name);
            return Err(EncodeError::NotText { name }.into());
        };
        write_string(out, text);
        Ok(())
    }

    /// The next elements, nested as these extents say.
    fn nested(&mut self, out: &mut Vec<u8>, extents: &[u64]) -> Result<(), V1Error> {
        let Some((extent, inner)) = extents.split_first() else {
            return self.write(out);
        };
        out.push(b'[');
        if !(inner.is_empty() && self.numbers(out, *extent)) {
            for index in 0..*extent {
                if index > 0 {
                    out.push(b',');
                }
                self.nested(out, inner)?;
            }
        }
        out.push(b']');
        Ok(())
    }

    /// The next elements as a list, where they are many and all are numbers of JSON: whether it is written.
    fn numbers(&mut self, out: &mut Vec<u8>, count: u64) -> bool {
        let bytes = (usize::try_from(count).ok())
            .filter(|count| *count >= LEAST_AT_ONCE)
            .zip(self.tensor.datatype.element_bytes())
            .and_then(|(count, size)| count.checked_mul(size));
        let Some((list, rest)) = bytes.and_then(|bytes| self.rest.split_at_checked(bytes)) else {
            return false;
        };
        if numbers::write(out, self.tensor.datatype, list).is_err() {
            return false;
        }
        // The last one's comma.
        out.pop();
        self.rest = rest;
        true
    }
}

fn whole(out: &mut Vec<u8>, number: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// What is not finite is written as TensorFlow Serving writes it.
fn fraction(out: &mut Vec<u8>, number: impl zmij::Float, finite: bool, wide: f64) {
    if finite {
        out.extend_from_slice(zmij::Buffer::new().format_finite(number).as_bytes());
    } else if wide.is_nan() {
        out.extend_from_slice(b"NaN");
    } else {
        out.extend_from_slice(if wide > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
}

/// The outputs' elements, and the extents that are to be written of each.
fn all(outputs: &[Tensor], skip: usize) -> Vec<(Elements<'_>, &[u64])> {
    let extents = |tensor: &'_ Tensor| tensor.shape.len().min(skip);
    let of = outputs.iter();
    of.map(|tensor| (Elements::of(tensor), tensor.shape.split_at(extents(tensor)).1))
        .collect()
}

/// One value, or an object of them where there are several.
fn value(out: &mut Vec<u8>, of: &mut [(Elements<'_>, &[u64])]) -> Result<(), V1Error> {
    if let [(elements, extents)] = of {
        return elements.nested(out, extents);
    }
    out.push(b'{');
    for (index, (elements, extents)) in of.iter_mut().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, &elements.tensor.name);
        out.push(b':');
        elements.nested(out, extents)?;
    }
    out.push(b'}');
    Ok(())
}

/// `{"predictions":[..]}` for rows, `{"outputs":..}` for columns.
pub fn encode_predictions(response: &InferResponse, form: Form) -> Result<Vec<u8>, V1Error> {
    let outputs = &response.outputs;
    let bytes: usize = outputs.iter().map(|output| output.data.len()).sum();
    let mut out = Vec::with_capacity(64 + bytes.saturating_mul(3));
    match form {
        Form::Columns => {
            out.extend_from_slice(b"{\"outputs\":");
            value(&mut out, &mut all(outputs, 0))?;
        }
        Form::Whole => {
            out.extend_from_slice(b"{\"predictions\":[");
            value(&mut out, &mut all(outputs, 0))?;
            out.push(b']');
        }
        Form::Rows(rows) => {
            check_rows(outputs, rows)?;
            let mut of = all(outputs, 1);
            out.extend_from_slice(b"{\"predictions\":[");
            for row in 0..rows {
                if row > 0 {
                    out.push(b',');
                }
                value(&mut out, &mut of)?;
            }
            out.push(b']');
        }
    }
    out.push(b'}');
    Ok(out)
}

fn check_rows(outputs: &[Tensor], rows: u64) -> Result<(), V1Error> {
    for output in outputs {
        let got = output.shape.first().copied().unwrap_or(0);
        if got != rows {
            let name = quoted(&output.name);
            return Err(V1Error::Rows { name, got, rows });
        }
    }
    Ok(())
}

const fn is_number(datatype: DataType) -> bool {
    !matches!(datatype, DataType::Bytes | DataType::Bool)
}

/// The output with the scores of classes, what the model says of it, and how many classes there are: the output that has labels, or
/// the only one there is.
pub(crate) fn classes_of<'a>(
    response: &'a InferResponse,
    config: &'a ModelConfig,
) -> Result<(&'a Tensor, &'a TensorSpec, u64), V1Error> {
    let labelled = config.output.iter().find(|spec| !spec.labels.is_empty());
    let wanted = match (labelled, &config.output[..]) {
        (Some(spec), _) | (None, [spec]) => spec,
        _ => return Err(V1Error::NoClasses("it has several outputs and labels for none")),
    };
    let output = response.outputs.iter().find(|output| *output.name == *wanted.name);
    let output = output.ok_or(V1Error::NoClasses("the output with its classes is not in the answer"))?;
    let [_, classes] = output.shape[..] else {
        return Err(V1Error::NoClasses("its output has not one score for each class"));
    };
    if !is_number(output.datatype) {
        return Err(V1Error::NoClasses("its output's elements are no numbers"));
    }
    Ok((output, wanted, classes))
}

/// The output with a number for each row, and how many rows there are.
pub(crate) fn regression_of(response: &InferResponse) -> Result<(&Tensor, u64), V1Error> {
    let [output] = &response.outputs[..] else {
        return Err(V1Error::NoRegression("it has several outputs"));
    };
    if !is_number(output.datatype) {
        return Err(V1Error::NoRegression("its output's elements are no numbers"));
    }
    let (rows, inner) = output
        .shape
        .split_first()
        .map_or((1, &[][..]), |(rows, inner)| (*rows, inner));
    if inner.iter().any(|extent| *extent != 1) {
        return Err(V1Error::NoRegression("its output has not one number for each row"));
    }
    Ok((output, rows))
}

/// `{"results":[[["label",score],..],..]}`: the scores of each row's classes.
pub fn encode_classes(response: &InferResponse, config: &ModelConfig) -> Result<Vec<u8>, V1Error> {
    let (output, wanted, classes) = classes_of(response, config)?;
    let rows = output.shape.first().copied().unwrap_or(0);
    let mut elements = Elements::of(output);
    let mut out = b"{\"results\":[".to_vec();
    for row in 0..rows {
        out.extend_from_slice(if row > 0 { b",[" } else { b"[" });
        for class in 0..classes {
            out.extend_from_slice(if class > 0 { b",[" } else { b"[" });
            let label = usize::try_from(class).ok().and_then(|class| wanted.labels.get(class));
            match label {
                Some(label) => write_string(&mut out, label),
                None => write_string(&mut out, itoa::Buffer::new().format(class)),
            }
            out.push(b',');
            elements.write(&mut out)?;
            out.push(b']');
        }
        out.push(b']');
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// `{"results":[..]}`: the only number of each row.
pub fn encode_regressions(response: &InferResponse) -> Result<Vec<u8>, V1Error> {
    let (output, rows) = regression_of(response)?;
    let mut elements = Elements::of(output);
    let mut out = b"{\"results\":".to_vec();
    elements.nested(&mut out, &[rows])?;
    out.push(b'}');
    Ok(out)
}
