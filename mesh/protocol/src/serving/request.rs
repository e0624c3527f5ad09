//! The messages that callers send, down to their tensors: which model is meant, its inputs, and what else is asked.

use bytes::Bytes;
use mesh_types::{InRegions, Label, Tensor, Version, VersionSelector};

use super::{error::ServingError, tensor};
use crate::{
    error::{DecodeError, quoted},
    grpc::fields::{Fields, Held},
    request::{check_name, is_new},
    v1::{SIGNATURE, V1Error},
    wire::MAX_TENSORS,
};

/// Which model is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: VersionSelector,
}

/// A request for a prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Predict {
    /// Of which model.
    pub asked: Asked,
    /// Its inputs.
    pub inputs: Vec<Tensor>,
    /// The outputs wanted; none for all.
    pub outputs: Vec<String>,
}

/// Reads a `PredictRequest`. Tensors that come as bytes share the message's memory.
pub fn decode_predict(message: &Bytes) -> Result<Predict, ServingError> {
    let (mut spec, mut inputs, mut outputs): (&[u8], Vec<Tensor>, Vec<String>) = (&[], Vec::new(), Vec::new());
    let (mut fields, mut filled) = (Fields::of(message), 0);
    while let Some((number, held)) = fields.next()? {
        match number {
            1 => spec = held.piece()?,
            2 => {
                bounded(inputs.len(), "inputs")?;
                let (name, tensor) = entry(held)?;
                check_name(name)?;
                is_new(name, &inputs, &InRegions::default())?;
                inputs.push(tensor::read(name, tensor, message, &mut filled)?);
            }
            3 => {
                bounded(outputs.len(), "outputs")?;
                let name = held.text()?;
                check_name(name)?;
                if outputs.iter().any(|known| known == name) {
                    return Err(DecodeError::DuplicateOutput { name: quoted(name) }.into());
                }
                outputs.push(name.to_owned());
            }
            _ => {}
        }
    }
    let asked = read_spec(spec)?;
    if inputs.is_empty() {
        return Err(DecodeError::NoInputs.into());
    }
    Ok(Predict { asked, inputs, outputs })
}

/// Reads which model a message is about that has nothing else to say, or metadata by their names.
pub fn decode_question(message: &[u8]) -> Result<Asked, ServingError> {
    let mut spec: &[u8] = &[];
    let mut fields = Fields::of(message);
    while let Some((number, held)) = fields.next()? {
        match number {
            1 => spec = held.piece()?,
            2 if held.text()? != "signature_def" => {
                return Err(ServingError::NoMetadata(quoted(held.text()?)));
            }
            _ => {}
        }
    }
    read_spec(spec)
}

/// The key and the value of a map's entry.
pub(super) fn entry<'a>(held: Held<'a>) -> Result<(&'a str, &'a [u8]), DecodeError> {
    let (mut key, mut value): (&str, &[u8]) = ("", &[]);
    let mut fields = Fields::of(held.piece()?);
    while let Some((number, held)) = fields.next()? {
        match number {
            1 => key = held.text()?,
            2 => value = held.piece()?,
            _ => {}
        }
    }
    Ok((key, value))
}

pub(super) fn bounded(count: usize, what: &'static str) -> Result<(), DecodeError> {
    if count == MAX_TENSORS {
        return Err(DecodeError::TooManyTensors { what });
    }
    Ok(())
}

/// Reads a `ModelSpec`.
pub(super) fn read_spec(spec: &[u8]) -> Result<Asked, ServingError> {
    let (mut name, mut signature) = ("", "");
    let (mut number, mut label) = (None, None);
    let mut fields = Fields::of(spec);
    while let Some((field, held)) = fields.next()? {
        match field {
            1 => name = held.text()?,
            2 => (number, label) = (Some(wrapped(held.piece()?)?), None),
            3 => signature = held.text()?,
            4 => (number, label) = (None, Some(held.text()?)),
            _ => {}
        }
    }
    if name.is_empty() {
        return Err(ServingError::NoName);
    }
    if !signature.is_empty() && signature != SIGNATURE {
        return Err(V1Error::UnknownSignature(quoted(signature)).into());
    }
    let version = match (number, label) {
        (Some(version), _) => {
            let known = u32::try_from(version).ok().and_then(|number| Version::new(number).ok());
            let name = quoted(name);
            VersionSelector::Version(known.ok_or(ServingError::NoVersion { name, version })?)
        }
        (None, Some(label)) => {
            let known = Label::parse(label).map_err(|_| ServingError::NoLabel(quoted(label)))?;
            VersionSelector::Label(known)
        }
        (None, None) => VersionSelector::Default,
    };
    Ok(Asked {
        name: name.to_owned(),
        version,
    })
}

/// The number within an `Int64Value`.
fn wrapped(message: &[u8]) -> Result<i64, DecodeError> {
    let (mut fields, mut value) = (Fields::of(message), 0);
    while let Some((number, held)) = fields.next()? {
        if number == 1 {
            value = held.number()?;
        }
    }
    Ok(value.cast_signed())
}
