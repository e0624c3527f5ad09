//! One value of V1's JSON to a tensor: its shape is read off its lists, its datatype is the model's.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use half::{bf16, f16};
use mesh_types::{DataType, MAX_RANK, Shape, Tensor, TensorSpec};
use serde::Deserialize;

use super::{error::V1Error, literals};
use crate::{
    data::{self, Expected, described, token_end},
    error::quoted,
    request::{cut, element_count},
};

/// Reads the value of an input, rows first where the model has any; `dims` are those of the wire.
pub(crate) fn read(spec: &TensorSpec, text: &str, dims: &[i64]) -> Result<Tensor, V1Error> {
    let text = text.trim();
    // A bare element is a tensor without dimensions.
    let bare = !text.starts_with('[');
    let mut shape = if bare {
        Shape::new()
    } else {
        shape_of(&spec.name, text)?
    };
    if shape.contains(&0) {
        // An empty list hides what would be within: the model says it, and nothing where any extent will do.
        let hidden = dims.iter().skip(shape.len());
        shape.extend(hidden.map(|dim| u64::try_from(*dim).unwrap_or(0)));
    }
    let expected = Expected {
        name: &spec.name,
        datatype: spec.datatype,
        shape: &shape,
        elements: element_count(&spec.name, &shape)?,
        syntax: data::Syntax::Sound,
    };
    let data = match spec.datatype {
        DataType::Fp32 => data::walk(expected, text, data::none, single),
        DataType::Fp64 => data::walk(expected, text, data::none, double),
        DataType::Fp16 => data::walk(expected, text, data::none, half),
        DataType::Bf16 => data::walk(expected, text, data::none, brain),
        DataType::Bytes => data::walk(expected, text, data::none, bytes),
        _ => data::read(expected, text),
    }?;
    // A list of numbers for rows of one number each is what everybody writes.
    if shape.len() + 1 == dims.len() && spec.dims.last() == Some(&1) {
        shape.push(1);
    }
    let name: Arc<str> = Arc::from(spec.name.as_str());
    Tensor::new(name, spec.datatype, shape, data).map_err(|error| cut(&spec.name, &error).into())
}

/// The extents of the first list at each depth; whether the others are like it shows when they are read.
fn shape_of(name: &str, text: &str) -> Result<Shape, V1Error> {
    let bytes = text.as_bytes();
    let mut counts = [0_u64; MAX_RANK + 1];
    let mut extents: [Option<u64>; MAX_RANK + 1] = [None; MAX_RANK + 1];
    let (mut at, mut depth, mut deepest) = (0, 0, 0);
    let count = |depth: usize, counts: &mut [u64; MAX_RANK + 1]| {
        if let Some(count) = counts.get_mut(depth) {
            *count += 1;
        }
    };
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'[' => {
                count(depth, &mut counts);
                depth += 1;
                deepest = deepest.max(depth);
                match counts.get_mut(depth) {
                    Some(count) => *count = 0,
                    None => return Err(V1Error::Deep(quoted(name))),
                }
            }
            b']' => {
                if let (Some(extent), Some(count)) = (extents.get_mut(depth), counts.get(depth)) {
                    extent.get_or_insert(*count);
                }
                depth = depth.saturating_sub(1);
            }
            b',' | b' ' | b'\t' | b'\n' | b'\r' => {}
            _ => {
                count(depth, &mut counts);
                at = token_end(bytes, at);
                continue;
            }
        }
        at += 1;
    }
    let extents = extents.iter().skip(1).take(deepest);
    Ok(extents.map(|extent| extent.unwrap_or(0)).collect())
}

fn not_finite(token: &str) -> Option<f64> {
    literals::named(token.strip_prefix('"')?.strip_suffix('"')?)
}

fn single(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    match not_finite(token) {
        Some(number) => out.extend_from_slice(&(number as f32).to_le_bytes()),
        None => return data::single(token, out),
    }
    Ok(())
}

fn double(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    match not_finite(token) {
        Some(number) => out.extend_from_slice(&number.to_le_bytes()),
        None => return data::double(token, out),
    }
    Ok(())
}

// Through the nearest double: what is written with no more digits than that holds is read exactly.
fn half(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let (number, named) = fraction(token)?;
    let number = f16::from_f64(number);
    within(token, number.is_finite() || named)?;
    out.extend_from_slice(&number.to_le_bytes());
    Ok(())
}

fn brain(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let (number, named) = fraction(token)?;
    let number = bf16::from_f64(number);
    within(token, number.is_finite() || named)?;
    out.extend_from_slice(&number.to_le_bytes());
    Ok(())
}

/// A number, and whether it was one of those that JSON does not know.
fn fraction(token: &str) -> Result<(f64, bool), String> {
    if let Some(number) = not_finite(token) {
        return Ok((number, true));
    }
    let number = token.parse::<f64>();
    Ok((
        number.map_err(|_| format!("{} is not a number", described(token)))?,
        false,
    ))
}

fn within(token: &str, fits: bool) -> Result<(), String> {
    fits.then_some(())
        .ok_or_else(|| format!("{} is out of range", quoted(token)))
}

/// Text, or `{"b64": ".."}`.
fn bytes(token: &str, out: &mut Vec<u8>) -> Result<(), String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Encoded<'a> {
        #[serde(borrow)]
        b64: std::borrow::Cow<'a, str>,
    }
    if !token.starts_with('{') {
        return data::string(token, out);
    }
    let encoded: Encoded<'_> =
        serde_json::from_str(token).map_err(|_| "an object is not of the form {\"b64\": \"..\"}".to_owned())?;
    let decoded = STANDARD.decode(encoded.b64.as_bytes());
    data::put_bytes(
        &decoded.map_err(|_| "the value of 'b64' is not base64".to_owned())?,
        out,
    )
}
