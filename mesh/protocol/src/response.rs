//! A response to bytes: JSON, and the outputs asked for as binary data behind it.
//!
//! Numbers are written in their shortest form that reads back the same. JSON has no NaN and no infinity, and peers differ
//! in what they write (invalid JSON, or `null`), so such an output is an error that names the way out: binary data.

use bytes::Bytes;
use mesh_types::{DataType, InferResponse, ParameterValue, Parameters, Tensor};
use smallvec::SmallVec;

use crate::{
    error::{EncodeError, quoted},
    numbers::{self, Unwritable},
    regions,
    request::OutputOptions,
};

/// Binary outputs up to this many bytes in all are copied behind the JSON, which is cheaper than a write of their own.
const MAX_COPIED_BYTES: usize = 64 * 1024;
/// Room for the JSON around the data.
const HEAD_BYTES: usize = 256;

/// A response ready to be sent: the chunks one after the other are the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedInfer {
    chunks: SmallVec<[Bytes; 2]>,
    json_bytes: usize,
    binary: bool,
}

impl EncodedInfer {
    /// The value of the header that tells where the JSON ends; none if there is only JSON.
    pub fn header_content_length(&self) -> Option<usize> {
        self.binary.then_some(self.json_bytes)
    }

    /// Bytes of the whole body.
    pub fn body_bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// The body's parts, in order; at least one.
    pub fn into_chunks(self) -> SmallVec<[Bytes; 2]> {
        self.chunks
    }
}

/// Writes a response as its caller wants it.
pub fn encode_infer(response: &InferResponse, options: &OutputOptions) -> Result<EncodedInfer, EncodeError> {
    // What is in shared memory has no data here.
    let is_here = |output: &&Tensor| regions::place_of(&response.regions, &output.name).is_none();
    let binary_outputs = || {
        let here = response.outputs.iter().filter(is_here);
        here.filter(|output| options.is_binary(&output.name))
    };
    let binary_bytes: usize = binary_outputs().map(|output| output.data.len()).sum();
    let binary = binary_outputs().next().is_some();
    let copied = if binary_bytes <= MAX_COPIED_BYTES {
        binary_bytes
    } else {
        0
    };
    let json_data: usize = response.outputs.iter().map(|output| output.data.len()).sum::<usize>() - binary_bytes;
    let mut out = Vec::with_capacity(HEAD_BYTES + json_data.saturating_mul(3) + copied);
    write_json(&mut out, response, options)?;
    let json_bytes = out.len();
    let mut chunks = SmallVec::new();
    if copied == binary_bytes {
        for output in binary_outputs() {
            out.extend_from_slice(&output.data);
        }
        chunks.push(Bytes::from(out));
    } else {
        chunks.push(Bytes::from(out));
        chunks.extend(binary_outputs().map(|output| output.data.clone()));
    }
    Ok(EncodedInfer {
        chunks,
        json_bytes,
        binary,
    })
}

fn write_json(out: &mut Vec<u8>, response: &InferResponse, options: &OutputOptions) -> Result<(), EncodeError> {
    out.push(b'{');
    if let Some(id) = &response.id {
        out.extend_from_slice(b"\"id\":");
        write_string(out, id);
        out.push(b',');
    }
    out.extend_from_slice(b"\"model_name\":");
    write_string(out, &response.model);
    out.extend_from_slice(b",\"model_version\":\"");
    out.extend_from_slice(itoa::Buffer::new().format(response.version.get()).as_bytes());
    out.push(b'"');
    if !response.parameters.is_empty() {
        out.extend_from_slice(b",\"parameters\":");
        write_parameters(out, &response.parameters);
    }
    out.extend_from_slice(b",\"outputs\":[");
    for (index, output) in response.outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match regions::place_of(&response.regions, &output.name) {
            None => write_output(out, output, options.is_binary(&output.name))?,
            Some(place) => {
                write_head(out, output);
                out.extend_from_slice(b"],\"parameters\":");
                regions::write_place(out, place);
                out.push(b'}');
            }
        }
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

/// As far as into the shape, which is left open.
fn write_head(out: &mut Vec<u8>, output: &Tensor) {
    out.extend_from_slice(b"{\"name\":");
    write_string(out, &output.name);
    out.extend_from_slice(b",\"datatype\":\"");
    out.extend_from_slice(output.datatype.as_str().as_bytes());
    out.extend_from_slice(b"\",\"shape\":[");
    let mut digits = itoa::Buffer::new();
    for (index, extent) in output.shape.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(digits.format(*extent).as_bytes());
    }
}

fn write_output(out: &mut Vec<u8>, output: &Tensor, binary: bool) -> Result<(), EncodeError> {
    write_head(out, output);
    if binary {
        out.extend_from_slice(b"],\"parameters\":{\"binary_data_size\":");
        out.extend_from_slice(itoa::Buffer::new().format(output.data.len()).as_bytes());
        out.extend_from_slice(b"}}");
        return Ok(());
    }
    out.extend_from_slice(b"],\"data\":[");
    write_data(out, output)?;
    // Every element ends in a comma; the last one's becomes the end.
    if out.last() == Some(&b',') {
        out.pop();
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

/// Appends the elements of an output, a comma behind each.
pub(crate) fn write_data(out: &mut Vec<u8>, output: &Tensor) -> Result<(), EncodeError> {
    let name = || quoted(&output.name);
    let datatype = output.datatype;
    if datatype == DataType::Bytes {
        return strings(out, output);
    }
    numbers::write(out, datatype, &output.data).map_err(|problem| match problem {
        Unwritable::NotFinite => EncodeError::NotFinite { name: name() },
        Unwritable::NoNumbers => EncodeError::NotInJson { name: name(), datatype },
    })
}

fn strings(out: &mut Vec<u8>, output: &Tensor) -> Result<(), EncodeError> {
    let mut data = &output.data[..];
    while let Some((prefix, rest)) = data.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*prefix))
            .unwrap_or(usize::MAX)
            .min(rest.len());
        let (element, after) = rest.split_at(length);
        let Ok(text) = std::str::from_utf8(element) else {
            return Err(EncodeError::NotText {
                name: quoted(&output.name),
            });
        };
        write_string(out, text);
        out.push(b',');
        data = after;
    }
    Ok(())
}

pub(crate) fn write_parameters(out: &mut Vec<u8>, parameters: &Parameters) {
    out.push(b'{');
    for (index, (name, value)) in parameters.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        write_value(out, value);
    }
    out.push(b'}');
}

/// Appends the value of a parameter.
pub(crate) fn write_value(out: &mut Vec<u8>, value: &ParameterValue) {
    match value {
        ParameterValue::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        ParameterValue::Int(value) => out.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
        ParameterValue::Uint(value) => out.extend_from_slice(itoa::Buffer::new().format(*value).as_bytes()),
        ParameterValue::Double(value) if value.is_finite() => {
            out.extend_from_slice(zmij::Buffer::new().format_finite(*value).as_bytes());
        }
        // Not the tensor's data: a parameter without a value is the honest rest.
        ParameterValue::Double(_) => out.extend_from_slice(b"null"),
        ParameterValue::String(text) => write_string(out, text),
    }
}

/// Appends a text as a JSON string.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut plain_from = 0;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f => b"\\u00",
            _ => continue,
        };
        out.extend_from_slice(bytes.get(plain_from..at).unwrap_or_default());
        out.extend_from_slice(escape);
        if escape == b"\\u00" {
            let digit = |value: u8| HEX.get(usize::from(value)).copied().unwrap_or(b'0');
            out.push(digit(byte >> 4));
            out.push(digit(byte & 15));
        }
        plain_from = at + 1;
    }
    out.extend_from_slice(bytes.get(plain_from..).unwrap_or_default());
    out.push(b'"');
}
