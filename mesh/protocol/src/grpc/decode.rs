//! A `ModelInferRequest` to a request: one pass over its fields, then over each of its tensors.
//!
//! By hand and not by a generated decoder, because that takes some three hundred bytes of memory for an input that two bytes
//! of a message claim, and copies typed elements twice. Here every count has its bound before anything is kept, raw tensors
//! are slices of the message, and typed elements are written where they belong at once.

use std::sync::Arc;

use bytes::Bytes;
use mesh_types::{
    ClassCount, DataType, InRegions, InferRequest, MAX_RANK, ParameterValue, Parameters, RegionInput, RegionOutput,
    Shape, Tensor, TensorError, VersionSelector,
};
use smallvec::SmallVec;

use super::{
    contents::{self, Wanted},
    fields::{Fields, Held, malformed, varint},
};
use crate::{
    classification,
    error::{DecodeError, quoted},
    parameters,
    regions::{self, Given, Of},
    request::{check_name, cut, element_count, is_new},
    wire::{MAX_ID_BYTES, MAX_PARAMETERS, MAX_TENSORS},
};

/// The request's parameter by which a stream's caller asks that the end of a request is told by a response without outputs, where no
/// other says it.
const EMPTY_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";

type Pieces<'a> = SmallVec<[&'a [u8]; 4]>;

/// The pieces of a request, each within its bound but not yet looked into.
#[derive(Default)]
struct Parts<'a> {
    model: &'a str,
    version: &'a str,
    id: &'a str,
    parameters: Pieces<'a>,
    inputs: Pieces<'a>,
    outputs: Pieces<'a>,
    raw: Pieces<'a>,
}

/// The id of a request that may be malformed otherwise, so that an error on a stream can name its request.
pub fn id_of_message(message: &[u8]) -> Option<&str> {
    let mut fields = Fields::of(message);
    let mut id = None;
    while let Ok(Some((number, held))) = fields.next() {
        if number == 3 {
            id = held.text().ok().filter(|id| id.len() <= MAX_ID_BYTES);
        }
    }
    id
}

/// Reads an inference request. Raw tensors share the message's memory.
pub fn decode_message(message: &Bytes) -> Result<InferRequest, DecodeError> {
    decode_stream_message(message).map(|(request, _)| request)
}

/// The same of a request on a stream, and whether it asks that its end is told by a response without outputs, where no other
/// response says it.
pub fn decode_stream_message(message: &Bytes) -> Result<(InferRequest, bool), DecodeError> {
    let parts = split(message)?;
    if parts.id.len() > MAX_ID_BYTES {
        return Err(DecodeError::LongId(parts.id.len()));
    }
    if parts.inputs.is_empty() {
        return Err(DecodeError::NoInputs);
    }
    let version = match parts.version {
        "" => VersionSelector::Default,
        text => VersionSelector::parse(text).map_err(|error| DecodeError::Version(error.to_string()))?,
    };
    let mut parameters = parameters(&parts.parameters)?;
    let empty_final = match parameters.shift_remove(EMPTY_FINAL_RESPONSE) {
        None => false,
        Some(value) => value.as_bool().ok_or(DecodeError::NoFlag {
            name: EMPTY_FINAL_RESPONSE,
        })?,
    };
    parameters::check(&parameters)?;
    let (mut classes, mut regions) = (Vec::new(), InRegions::default());
    let request = InferRequest {
        id: (!parts.id.is_empty()).then(|| parts.id.to_owned()),
        model: parts.model.to_owned(),
        version,
        inputs: inputs(message, &parts, &mut regions)?,
        outputs: outputs(&parts.outputs, &mut classes, &mut regions)?,
        parameters,
        classes,
        regions: regions.boxed(),
    };
    Ok((request, empty_final))
}

fn split(message: &[u8]) -> Result<Parts<'_>, DecodeError> {
    let mut parts = Parts::default();
    let mut fields = Fields::of(message);
    while let Some((number, held)) = fields.next()? {
        match number {
            1 => parts.model = held.text()?,
            2 => parts.version = held.text()?,
            3 => parts.id = held.text()?,
            4 if parts.parameters.len() == MAX_PARAMETERS => return Err(DecodeError::TooManyParameters),
            4 => parts.parameters.push(held.piece()?),
            5 => keep(&mut parts.inputs, held, "inputs")?,
            6 => keep(&mut parts.outputs, held, "outputs")?,
            7 => keep(&mut parts.raw, held, "raw_input_contents")?,
            _ => {}
        }
    }
    Ok(parts)
}

fn keep<'a>(pieces: &mut Pieces<'a>, held: Held<'a>, what: &'static str) -> Result<(), DecodeError> {
    if pieces.len() == MAX_TENSORS {
        return Err(DecodeError::TooManyTensors { what });
    }
    pieces.push(held.piece()?);
    Ok(())
}

fn inputs(message: &Bytes, parts: &Parts<'_>, regions: &mut InRegions) -> Result<Vec<Tensor>, DecodeError> {
    let mut tensors: Vec<Tensor> = Vec::with_capacity(parts.inputs.len());
    for (at, input) in parts.inputs.iter().enumerate() {
        let input = Input::of(input)?;
        check_name(input.name)?;
        is_new(input.name, &tensors, regions)?;
        if let Some(given) = &input.region {
            regions.inputs.push(input.in_region(at, given)?);
            continue;
        }
        // Inputs in shared memory have none, and those behind them take the next.
        let raw = parts.raw.get(tensors.len()).copied();
        if raw.is_none() && !parts.raw.is_empty() {
            return Err(raw_count(parts));
        }
        tensors.push(input.tensor(message, raw)?);
    }
    if !parts.raw.is_empty() && parts.raw.len() != tensors.len() {
        return Err(raw_count(parts));
    }
    Ok(tensors)
}

fn raw_count(parts: &Parts<'_>) -> DecodeError {
    let carried = |input: &&&[u8]| Input::of(input).is_ok_and(|input| input.region.is_none());
    DecodeError::RawCount {
        got: parts.raw.len(),
        expected: parts.inputs.iter().filter(carried).count(),
    }
}

fn outputs(
    asked: &[&[u8]],
    classes: &mut Vec<ClassCount>,
    regions: &mut InRegions,
) -> Result<Vec<String>, DecodeError> {
    let mut names: Vec<String> = Vec::with_capacity(asked.len());
    for output in asked {
        let (mut name, mut given) = ("", Pieces::new());
        let mut fields = Fields::of(output);
        while let Some((number, held)) = fields.next()? {
            match number {
                1 => name = held.text()?,
                2 => bounded(&mut given, held)?,
                _ => {}
            }
        }
        check_name(name)?;
        let (wanted, region) = tensor_parameters(&given)?;
        if let Some(given) = region {
            let of = Of::Output(name);
            if wanted.is_some() {
                return Err(of.wrong("classes cannot be put into shared memory: leave out 'classification'"));
            }
            regions.outputs.push(RegionOutput {
                name: name.to_owned(),
                span: given.span(of)?,
            });
        }
        if names.iter().any(|known| known == name) {
            return Err(DecodeError::DuplicateOutput { name: quoted(name) });
        }
        classification::read(name, wanted.as_ref(), classes)?;
        names.push(name.to_owned());
    }
    Ok(names)
}

/// An input as it stands in the message.
#[derive(Default)]
struct Input<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: SmallVec<[i64; 4]>,
    contents: Option<&'a [u8]>,
    region: Option<Box<Given>>,
}

impl<'a> Input<'a> {
    fn of(message: &'a [u8]) -> Result<Self, DecodeError> {
        let (mut input, mut given) = (Self::default(), Pieces::new());
        let mut fields = Fields::of(message);
        while let Some((number, held)) = fields.next()? {
            match number {
                1 => input.name = held.text()?,
                2 => input.datatype = held.text()?,
                3 => input.extents(held)?,
                4 => bounded(&mut given, held)?,
                5 if input.contents.is_some() => return Err(malformed("an input has contents twice")),
                5 => input.contents = Some(held.piece()?),
                _ => {}
            }
        }
        let (classes, region) = tensor_parameters(&given)?;
        if classes.is_some() {
            return Err(DecodeError::ClassesOfInput {
                name: quoted(input.name),
            });
        }
        input.region = region;
        Ok(input)
    }

    fn in_region(&self, at: usize, given: &Given) -> Result<RegionInput, DecodeError> {
        let of = Of::Input(self.name);
        if self.contents.is_some_and(|contents| !contents.is_empty()) {
            return Err(of.wrong("it is in shared memory, so it has no 'contents'"));
        }
        Ok(RegionInput {
            at,
            name: Arc::from(self.name),
            datatype: self.datatype()?,
            shape: self.shape()?,
            span: given.span(of)?,
        })
    }

    fn datatype(&self) -> Result<DataType, DecodeError> {
        self.datatype.parse().map_err(|error| DecodeError::DataType {
            name: quoted(self.name),
            problem: format!("{error}"),
        })
    }

    fn shape(&self) -> Result<Shape, DecodeError> {
        let extent = |extent: &i64| {
            u64::try_from(*extent).map_err(|_| DecodeError::NegativeExtent {
                name: quoted(self.name),
                extent: *extent,
            })
        };
        self.shape.iter().map(extent).collect()
    }

    fn extents(&mut self, held: Held<'_>) -> Result<(), DecodeError> {
        let mut packed: &[u8] = match held {
            Held::Varint(extent) => return self.extent(extent),
            held => held.piece()?,
        };
        while !packed.is_empty() {
            self.extent(varint(&mut packed)?)?;
        }
        Ok(())
    }

    fn extent(&mut self, extent: u64) -> Result<(), DecodeError> {
        if self.shape.len() == MAX_RANK {
            return Err(DecodeError::Rank {
                name: quoted(self.name),
            });
        }
        self.shape.push(extent as i64);
        Ok(())
    }

    fn tensor(&self, message: &Bytes, raw: Option<&[u8]>) -> Result<Tensor, DecodeError> {
        let name = self.name;
        let (datatype, shape) = (self.datatype()?, self.shape()?);
        let data = match (raw, self.contents) {
            (Some(_), Some(contents)) if !contents.is_empty() => {
                return Err(DecodeError::TwoContents { name: quoted(name) });
            }
            (Some(raw), _) => message.slice_ref(raw),
            (None, contents) => {
                let elements = element_count(name, &shape)?;
                let wanted = Wanted {
                    name,
                    datatype,
                    elements,
                };
                match contents {
                    None if elements > 0 => return Err(DecodeError::NoContents { name: quoted(name) }),
                    contents => contents::read(wanted, message, contents.unwrap_or_default())?,
                }
            }
        };
        Tensor::new(Arc::from(name), datatype, shape, data).map_err(|error: TensorError| cut(name, &error))
    }
}

fn bounded<'a>(pieces: &mut Pieces<'a>, held: Held<'a>) -> Result<(), DecodeError> {
    if pieces.len() == MAX_PARAMETERS {
        return Err(DecodeError::TooManyParameters);
    }
    pieces.push(held.piece()?);
    Ok(())
}

/// How many classes are wanted, and what leads the tensor to shared memory, if anything: what would change the answer must not
/// be ignored.
fn tensor_parameters(given: &[&[u8]]) -> Result<(Option<ParameterValue>, Option<Box<Given>>), DecodeError> {
    let (mut region, mut classes) = (None::<Box<Given>>, None);
    for entry in given {
        let (key, value) = entry_of(entry)?;
        let slot = match key {
            regions::REGION => &mut region.get_or_insert_default().region,
            regions::BYTE_SIZE => &mut region.get_or_insert_default().byte_size,
            regions::OFFSET => &mut region.get_or_insert_default().offset,
            "classification" => {
                let value = parameter(value)?;
                classes = Some(value.ok_or_else(|| DecodeError::NoValue { name: quoted(key) })?);
                continue;
            }
            _ => continue,
        };
        *slot = parameter(value)?;
    }
    Ok((classes, region))
}

/// The key and the value of a map's entry.
fn entry_of(entry: &[u8]) -> Result<(&str, &[u8]), DecodeError> {
    let (mut key, mut value): (&str, &[u8]) = ("", &[]);
    let mut fields = Fields::of(entry);
    while let Some((number, held)) = fields.next()? {
        match number {
            1 => key = held.text()?,
            2 => value = held.piece()?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn parameters(entries: &[&[u8]]) -> Result<Parameters, DecodeError> {
    let mut parameters = Parameters::new();
    for entry in entries {
        let (key, value) = entry_of(entry)?;
        let value = parameter(value)?.ok_or_else(|| DecodeError::NoValue { name: quoted(key) })?;
        parameters.insert(key.to_owned(), value);
    }
    Ok(parameters)
}

fn parameter(message: &[u8]) -> Result<Option<ParameterValue>, DecodeError> {
    let mut fields = Fields::of(message);
    let mut value = None;
    while let Some((number, held)) = fields.next()? {
        value = Some(match (number, held) {
            (1, held) => ParameterValue::Bool(held.number()? != 0),
            (2, held) => ParameterValue::Int(held.number()? as i64),
            (3, held) => ParameterValue::String(held.text()?.to_owned()),
            (4, Held::Eight(bytes)) => ParameterValue::Double(f64::from_le_bytes(bytes)),
            // As in JSON: a number beyond the signed ones, and only such a one, is unsigned.
            (5, held) => {
                let number = held.number()?;
                i64::try_from(number).map_or(ParameterValue::Uint(number), ParameterValue::Int)
            }
            _ => continue,
        });
    }
    Ok(value)
}
