//! The generate extension: a flat JSON object to a request, and a response to a flat JSON object.
//!
//! Which key is an input and which a parameter is the model's to say, so its configuration is needed to read a body. A scalar
//! becomes a tensor of one element and a list one of a dimension; where the model batches, they are one row. Knows nothing of
//! how answers are sent: as one object, or as events.
//!
//! Invariants: as for the whole crate; a key is there once, and a body has at most [`MAX_FIELDS`] of them at a level.

use std::{borrow::Cow, fmt, sync::Arc};

use mesh_types::{InferRequest, InferResponse, ModelConfig, Parameters, Shape, Tensor, TensorSpec, VersionSelector};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    data::{self, Expected},
    error::{DecodeError, EncodeError, quoted},
    parameters,
    request::cut,
    response::{write_data, write_string, write_value},
    wire::{MAX_ID_BYTES, MAX_PARAMETERS, MAX_TENSORS, Scalar, Text},
};

/// The most keys of a body, and of its object `parameters`.
pub const MAX_FIELDS: usize = MAX_TENSORS + MAX_PARAMETERS;

/// Reads the body of a generate request for a model that is called as `config` says.
///
/// `id` is the request's id, and `parameters` an object whose keys are taken like those beside it. A key that is null is one that
/// is not there.
pub fn decode_generate(
    model: &str,
    version: VersionSelector,
    body: &[u8],
    config: &ModelConfig,
) -> Result<InferRequest, DecodeError> {
    let mut reading = Reading {
        config,
        id: None,
        inputs: Vec::new(),
        parameters: Parameters::new(),
    };
    for (name, value) in &serde_json::from_slice::<Fields<'_>>(body)?.0 {
        match &**name {
            "id" => reading.id(value)?,
            "parameters" if reading.spec("parameters").is_none() => {
                for (name, value) in &serde_json::from_str::<Fields<'_>>(value.get())?.0 {
                    reading.field(name, value)?;
                }
            }
            name => reading.field(name, value)?,
        }
    }
    parameters::check(&reading.parameters)?;
    Ok(InferRequest {
        id: reading.id,
        model: model.to_owned(),
        version,
        inputs: reading.inputs,
        parameters: reading.parameters,
        ..InferRequest::default()
    })
}

struct Reading<'a> {
    config: &'a ModelConfig,
    id: Option<String>,
    inputs: Vec<Tensor>,
    parameters: Parameters,
}

impl<'a> Reading<'a> {
    fn spec(&self, name: &str) -> Option<&'a TensorSpec> {
        self.config.input.iter().find(|spec| spec.name == name)
    }

    fn id(&mut self, value: &RawValue) -> Result<(), DecodeError> {
        let text = value.get();
        let id = match text.as_bytes().first() {
            Some(b'n') => return Ok(()),
            Some(b'"') => serde_json::from_str(text)?,
            Some(b'-' | b'0'..=b'9') => text.to_owned(),
            _ => return Err(DecodeError::Json("'id' is a string or a number".to_owned())),
        };
        if id.len() > MAX_ID_BYTES {
            return Err(DecodeError::LongId(id.len()));
        }
        self.id = Some(id);
        Ok(())
    }

    fn field(&mut self, name: &str, value: &RawValue) -> Result<(), DecodeError> {
        let text = value.get();
        if text == "null" {
            return Ok(());
        }
        let Some(spec) = self.spec(name) else {
            return self.parameter(name, text);
        };
        if self.inputs.iter().any(|input| *input.name == *name) {
            return Err(DecodeError::DuplicateInput { name: quoted(name) });
        }
        self.inputs.push(tensor(self.config, spec, text)?);
        Ok(())
    }

    fn parameter(&mut self, name: &str, text: &str) -> Result<(), DecodeError> {
        let Ok(Scalar(value)) = serde_json::from_str(text) else {
            return Err(DecodeError::NoInputNoParameter { name: quoted(name) });
        };
        if self.parameters.len() == MAX_PARAMETERS {
            return Err(DecodeError::TooManyParameters);
        }
        match self.parameters.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(DecodeError::Json(format!("'{}' is there more than once", quoted(name)))),
        }
    }
}

fn tensor(config: &ModelConfig, spec: &TensorSpec, text: &str) -> Result<Tensor, DecodeError> {
    let name = spec.name.as_str();
    let mut shape = Shape::new();
    let elements = if text.starts_with('[') {
        let Elements(elements) = serde_json::from_str(text)?;
        shape.push(elements as u64);
        elements
    } else {
        1
    };
    let expected = Expected {
        name,
        datatype: spec.datatype,
        shape: &shape,
        elements,
        syntax: data::Syntax::Sound,
    };
    let data = data::read(expected, text)?;
    if shape.is_empty() && !spec.dims.is_empty() {
        shape.push(1);
    }
    if config.has_rows(spec) {
        shape.insert(0, 1);
    }
    Tensor::new(Arc::from(name), spec.datatype, shape, data).map_err(|error| cut(name, &error))
}

/// How many elements a list has.
struct Elements(usize);

impl<'de> Deserialize<'de> for Elements {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = Elements;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Elements, A::Error> {
                let mut elements = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    elements += 1;
                }
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(ListVisitor)
    }
}

/// The keys of an object with their values, none of them looked into.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of inputs and parameters")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    if fields.len() == MAX_FIELDS {
                        return Err(A::Error::custom(format_args!("more than {MAX_FIELDS} keys")));
                    }
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom("the same key more than once"));
                    }
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Writes a response as one object: the id, the model, its version, parameters and outputs. An output of one element is a
/// scalar, any other a flat list.
pub fn encode_generate(response: &InferResponse) -> Result<Vec<u8>, EncodeError> {
    let data: usize = response.outputs.iter().map(|output| output.data.len()).sum();
    let mut out = Vec::with_capacity(128 + data.saturating_mul(2));
    out.push(b'{');
    // An output of that name is what the model says, and a key is there once.
    let is_free = |key: &str| response.outputs.iter().all(|output| *output.name != *key);
    if let Some(id) = response.id.as_ref().filter(|_| is_free("id")) {
        field(&mut out, "id");
        write_string(&mut out, id);
    }
    if is_free("model_name") {
        field(&mut out, "model_name");
        write_string(&mut out, &response.model);
    }
    if is_free("model_version") {
        field(&mut out, "model_version");
        write_string(&mut out, itoa::Buffer::new().format(response.version.get()));
    }
    for (name, value) in response.parameters.iter().filter(|(name, _)| is_free(name)) {
        field(&mut out, name);
        write_value(&mut out, value);
    }
    for output in &response.outputs {
        field(&mut out, &output.name);
        let is_scalar = output.element_count() == Ok(1);
        if !is_scalar {
            out.push(b'[');
        }
        write_data(&mut out, output)?;
        // Every element ends in a comma.
        if out.last() == Some(&b',') {
            out.pop();
        }
        if !is_scalar {
            out.push(b']');
        }
    }
    out.push(b'}');
    Ok(out)
}

fn field(out: &mut Vec<u8>, name: &str) {
    if out.len() > 1 {
        out.push(b',');
    }
    write_string(out, name);
    out.push(b':');
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
