//! A response to a `ModelInferResponse`, written straight into the sender's buffer: a tensor's bytes are copied once.
//!
//! Outputs are always raw, as Triton's are. By hand, because a message with owned names for each tensor would cost more than
//! the rest of a small answer.

use bytes::BufMut;
use mesh_types::{InferResponse, ParameterValue, RegionOutput, RegionSpan, Tensor};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::regions::{self, BYTE_SIZE, OFFSET, REGION};

/// The parameter that says that no other response to the same request follows.
const FINAL_RESPONSE: &str = "triton_final_response";

/// One answer on a stream.
#[derive(Debug, Clone, Copy)]
pub enum StreamReply<'a> {
    /// The request's last response; where it has one, that one.
    Response(&'a InferResponse),
    /// A response after which others may come.
    Partial(&'a InferResponse),
    /// Why there is none, and the request's id.
    Failed {
        /// The caller's id of the request.
        id: Option<&'a str>,
        /// The reason.
        message: &'a str,
    },
}

/// Writes a `ModelInferResponse`.
pub fn write_message(response: &InferResponse, out: &mut impl BufMut) {
    write_response(response, None, out);
}

/// Writes a `ModelStreamInferResponse`.
pub fn write_stream_message(reply: &StreamReply<'_>, out: &mut impl BufMut) {
    match reply {
        StreamReply::Response(response) => {
            head(2, response_bytes(response), out);
            write_response(response, Some(true), out);
        }
        StreamReply::Partial(response) => {
            head(2, response_bytes(response), out);
            write_response(response, Some(false), out);
        }
        StreamReply::Failed { id, message } => {
            text(1, message, out);
            let id = id.unwrap_or_default();
            let entry = entry_bytes(FINAL_RESPONSE, 2);
            head(2, text_bytes(3, id) + piece_bytes(4, entry), out);
            text(3, id, out);
            head(4, entry, out);
            write_final(true, out);
        }
    }
}

/// `last` is whether no other follows; none where it is not on a stream.
fn write_response(response: &InferResponse, last: Option<bool>, out: &mut impl BufMut) {
    text(1, &response.model, out);
    let mut digits = itoa::Buffer::new();
    text(2, digits.format(response.version.get()), out);
    text(3, response.id.as_deref().unwrap_or_default(), out);
    for (name, value) in &response.parameters {
        let bytes = value_bytes(value);
        head(4, entry_bytes(name, bytes), out);
        text(1, name, out);
        head(2, bytes, out);
        write_value(value, out);
    }
    if let Some(last) = last {
        head(4, entry_bytes(FINAL_RESPONSE, 2), out);
        write_final(last, out);
    }
    for output in &response.outputs {
        head(5, output_bytes(output, &response.regions), out);
        text(1, &output.name, out);
        text(2, output.datatype.as_str(), out);
        let shape = shape_bytes(output);
        if shape > 0 {
            head(3, shape, out);
            output.shape.iter().for_each(|extent| encode_varint(*extent, out));
        }
        if let Some(place) = regions::place_of(&response.regions, &output.name) {
            write_place(place, out);
        }
    }
    // An output in shared memory has an empty one, so that the others stay in their outputs' order.
    for output in &response.outputs {
        head(6, output.data.len(), out);
        out.put_slice(&output.data);
    }
}

/// On a stream.
fn response_bytes(response: &InferResponse) -> usize {
    let parameters = response.parameters.iter();
    let parameters: usize = parameters
        .map(|(name, value)| piece_bytes(4, entry_bytes(name, value_bytes(value))))
        .sum();
    let outputs = response.outputs.iter();
    let outputs: usize = outputs
        .map(|output| piece_bytes(5, output_bytes(output, &response.regions)) + piece_bytes(6, output.data.len()))
        .sum();
    let last = piece_bytes(4, entry_bytes(FINAL_RESPONSE, 2));
    text_bytes(1, &response.model)
        + text_bytes(2, itoa::Buffer::new().format(response.version.get()))
        + text_bytes(3, response.id.as_deref().unwrap_or_default())
        + parameters
        + last
        + outputs
}

fn output_bytes(output: &Tensor, regions: &[RegionOutput]) -> usize {
    let shape = shape_bytes(output);
    let shape = if shape > 0 { piece_bytes(3, shape) } else { 0 };
    let place = regions::place_of(regions, &output.name).map_or(0, place_bytes);
    text_bytes(1, &output.name) + text_bytes(2, output.datatype.as_str()) + shape + place
}

fn place_bytes(place: &RegionSpan) -> usize {
    let number = |name: &str, number: u64| piece_bytes(4, entry_bytes(name, number_bytes(number)));
    let offset = if place.offset > 0 {
        number(OFFSET, place.offset)
    } else {
        0
    };
    piece_bytes(4, entry_bytes(REGION, piece_bytes(3, place.region.len()))) + number(BYTE_SIZE, place.bytes) + offset
}

/// Where an output was put, as parameters of it.
fn write_place(place: &RegionSpan, out: &mut impl BufMut) {
    let value = piece_bytes(3, place.region.len());
    head(4, entry_bytes(REGION, value), out);
    text(1, REGION, out);
    head(2, value, out);
    head(3, place.region.len(), out);
    out.put_slice(place.region.as_bytes());
    for (name, number) in [(BYTE_SIZE, place.bytes), (OFFSET, place.offset)] {
        if name == BYTE_SIZE || number > 0 {
            head(4, entry_bytes(name, number_bytes(number)), out);
            text(1, name, out);
            head(2, number_bytes(number), out);
            encode_key(2, WireType::Varint, out);
            encode_varint(number, out);
        }
    }
}

/// A value that is a whole number; as clients expect of sizes, of the signed kind.
fn number_bytes(number: u64) -> usize {
    1 + encoded_len_varint(number)
}

fn shape_bytes(output: &Tensor) -> usize {
    output.shape.iter().map(|extent| encoded_len_varint(*extent)).sum()
}

/// A map's entry whose value has so many bytes.
fn entry_bytes(name: &str, value: usize) -> usize {
    text_bytes(1, name) + piece_bytes(2, value)
}

fn write_final(last: bool, out: &mut impl BufMut) {
    text(1, FINAL_RESPONSE, out);
    head(2, 2, out);
    write_value(&ParameterValue::Bool(last), out);
}

// Of a value the field is written whatever it holds: it says which kind it is.
fn value_bytes(value: &ParameterValue) -> usize {
    match value {
        ParameterValue::Bool(_) => 2,
        ParameterValue::Int(number) => 1 + encoded_len_varint(*number as u64),
        ParameterValue::Uint(number) => 1 + encoded_len_varint(*number),
        ParameterValue::Double(_) => 9,
        ParameterValue::String(text) => piece_bytes(3, text.len()),
    }
}

fn write_value(value: &ParameterValue, out: &mut impl BufMut) {
    match value {
        ParameterValue::Bool(value) => {
            encode_key(1, WireType::Varint, out);
            out.put_u8(u8::from(*value));
        }
        ParameterValue::Int(number) => {
            encode_key(2, WireType::Varint, out);
            encode_varint(*number as u64, out);
        }
        ParameterValue::Uint(number) => {
            encode_key(5, WireType::Varint, out);
            encode_varint(*number, out);
        }
        ParameterValue::Double(number) => {
            encode_key(4, WireType::SixtyFourBit, out);
            out.put_f64_le(*number);
        }
        ParameterValue::String(text) => {
            head(3, text.len(), out);
            out.put_slice(text.as_bytes());
        }
    }
}

/// The key and length of a piece.
fn head(field: u32, bytes: usize, out: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes as u64, out);
}

fn piece_bytes(field: u32, bytes: usize) -> usize {
    key_len(field) + encoded_len_varint(bytes as u64) + bytes
}

// As in all of proto3, an empty text is left out.
fn text(field: u32, text: &str, out: &mut impl BufMut) {
    if !text.is_empty() {
        head(field, text.len(), out);
        out.put_slice(text.as_bytes());
    }
}

fn text_bytes(field: u32, text: &str) -> usize {
    if text.is_empty() {
        0
    } else {
        piece_bytes(field, text.len())
    }
}
