//! A body to a request: inputs put together from JSON and from the binary data behind it.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use mesh_types::{
    ClassCount, DataType, InRegions, InferRequest, MAX_RANK, RegionInput, RegionOutput, Shape, Tensor, TensorError,
    VersionSelector,
};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::{
    classification,
    data::{self, Expected, Syntax},
    error::{DecodeError, quoted},
    lifted::{self, Lists},
    parameters,
    regions::{Given, Of},
    wire::{
        InputJson, MARK_PARAMETERS, MARK_TENSORS, MAX_ID_BYTES, MAX_TENSOR_NAME_BYTES, OutputJson, RequestJson,
        ShapeJson, Whole,
    },
};

/// How the caller wants each output written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OutputOptions {
    binary_by_default: bool,
    // Beside the request's outputs, in their order; few, so a scan beats a map.
    asked: SmallVec<[(Arc<str>, bool); 2]>,
}

impl OutputOptions {
    /// Whether this output goes behind the JSON as raw bytes.
    pub fn is_binary(&self, output: &str) -> bool {
        let asked = self.asked.iter().find(|(name, _)| **name == *output);
        asked.map_or(self.binary_by_default, |(_, binary)| *binary)
    }

    /// All outputs as binary data, or all as JSON.
    pub fn all(binary: bool) -> Self {
        Self {
            binary_by_default: binary,
            asked: SmallVec::new(),
        }
    }
}

/// A request and how to write its response.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedInfer {
    /// What is asked.
    pub request: InferRequest,
    /// How to answer.
    pub outputs: OutputOptions,
}

/// Reads an inference request: all JSON, or JSON of `header_content_length` bytes and raw tensors behind it.
///
/// The name and version come from the path. Binary tensors share the body's memory. A length of 0 is that of a raw request, which
/// [`crate::decode_raw`] reads.
pub fn decode_infer(
    model: &str,
    version: VersionSelector,
    body: &Bytes,
    header_content_length: Option<usize>,
) -> Result<DecodedInfer, DecodeError> {
    let json_bytes = match header_content_length {
        None => body.len(),
        Some(header) if header > body.len() => {
            return Err(DecodeError::HeaderBeyondBody {
                header,
                body: body.len(),
            });
        }
        Some(header) => header,
    };
    let binary = Binary {
        body,
        at: json_bytes,
        allowed: header_content_length.is_some(),
    };
    decode_lifted(
        model,
        version,
        body.get(..json_bytes).unwrap_or_default(),
        binary,
        lifted::LEAST_BYTES,
    )
}

/// Reads it with large lists lifted out, and as it came where that fails: then it is refused for what is wrong with it.
pub(crate) fn decode_lifted(
    model: &str,
    version: VersionSelector,
    json: &[u8],
    binary: Binary<'_>,
    least: usize,
) -> Result<DecodedInfer, DecodeError> {
    if let Some(lists) = Lists::lift(json, least)
        && let Ok(decoded) = decode(model, version.clone(), &lists, binary.clone())
        && lists.all_read()
    {
        return Ok(decoded);
    }
    decode(model, version, &Lists::none(json), binary)
}

fn decode(
    model: &str,
    version: VersionSelector,
    lists: &Lists<'_>,
    mut binary: Binary<'_>,
) -> Result<DecodedInfer, DecodeError> {
    let json = parse(lists.rest())?;
    let mut regions = InRegions::default();
    let inputs = read_inputs(&json.inputs, lists, &mut binary, &mut regions)?;
    binary.finish()?;
    let binary_by_default = match &json.parameters.binary_data_output {
        None => false,
        Some(value) => value
            .as_bool()
            .ok_or_else(|| DecodeError::Json("the parameter 'binary_data_output' must be true or false".to_owned()))?,
    };
    parameters::check(&json.parameters.others)?;
    let mut classes = Vec::new();
    let (names, asked) = read_outputs(&json.outputs, binary_by_default, (&mut classes, &mut regions))?;
    Ok(DecodedInfer {
        request: InferRequest {
            id: json.id.map(Cow::into_owned),
            model: model.to_owned(),
            version,
            inputs,
            outputs: names,
            parameters: json.parameters.others,
            classes,
            regions: regions.boxed(),
        },
        outputs: OutputOptions {
            binary_by_default,
            asked,
        },
    })
}

fn parse(json: &[u8]) -> Result<RequestJson<'_>, DecodeError> {
    let request: RequestJson<'_> = serde_json::from_slice(json).map_err(|error| {
        let text = error.to_string();
        // Only these exact texts, position cut off, are ours: the parser quotes the caller's between quotation marks.
        match text.split(" at line ").next() {
            Some(MARK_TENSORS) => DecodeError::TooManyTensors {
                what: "inputs and as many outputs",
            },
            Some(MARK_PARAMETERS) => DecodeError::TooManyParameters,
            _ => error.into(),
        }
    })?;
    if let Some(id) = request.id.as_ref().filter(|id| id.len() > MAX_ID_BYTES) {
        return Err(DecodeError::LongId(id.len()));
    }
    if request.inputs.is_empty() {
        return Err(DecodeError::NoInputs);
    }
    Ok(request)
}

fn read_inputs(
    inputs: &[InputJson<'_>],
    lists: &Lists<'_>,
    binary: &mut Binary<'_>,
    regions: &mut InRegions,
) -> Result<Vec<Tensor>, DecodeError> {
    let mut tensors: Vec<Tensor> = Vec::with_capacity(inputs.len());
    for (at, input) in inputs.iter().enumerate() {
        check_name(&input.name)?;
        is_new(&input.name, &tensors, regions)?;
        match &input.parameters.region {
            None => tensors.push(read_input(input, lists, binary)?),
            Some(given) => regions.inputs.push(region_input(at, input, given)?),
        }
    }
    Ok(tensors)
}

/// Whether no input before it has its name.
pub(crate) fn is_new(name: &str, tensors: &[Tensor], regions: &InRegions) -> Result<(), DecodeError> {
    let known = tensors.iter().map(|tensor| &*tensor.name);
    let elsewhere = regions.inputs.iter().map(|input| &*input.name);
    if known.chain(elsewhere).any(|known| known == name) {
        return Err(DecodeError::DuplicateInput { name: quoted(name) });
    }
    Ok(())
}

fn region_input(at: usize, input: &InputJson<'_>, given: &Given) -> Result<RegionInput, DecodeError> {
    let of = Of::Input(&input.name);
    if input.data.is_some() || input.parameters.binary_data_size.is_some() {
        return Err(of.wrong("it is in shared memory, so it has neither 'data' nor the parameter 'binary_data_size'"));
    }
    check_parameters(input)?;
    Ok(RegionInput {
        at,
        name: Arc::from(&*input.name),
        datatype: read_datatype(input)?,
        shape: read_shape(&input.name, &input.shape)?,
        span: given.span(of)?,
    })
}

fn read_datatype(input: &InputJson<'_>) -> Result<DataType, DecodeError> {
    input.datatype.parse().map_err(|error| DecodeError::DataType {
        name: quoted(&input.name),
        problem: format!("{error}"),
    })
}

fn read_input(input: &InputJson<'_>, lists: &Lists<'_>, binary: &mut Binary<'_>) -> Result<Tensor, DecodeError> {
    let name = &*input.name;
    check_parameters(input)?;
    let datatype = read_datatype(input)?;
    let shape = read_shape(name, &input.shape)?;
    let data = match (input.data, input.parameters.binary_data_size) {
        (Some(_), Some(_)) => return Err(DecodeError::TwoData { name: quoted(name) }),
        (None, None) => return Err(DecodeError::NoData { name: quoted(name) }),
        (None, Some(size)) => binary.take(name, size)?,
        (Some(json), None) => read_data(name, datatype, &shape, lists.of(json))?,
    };
    Tensor::new(Arc::from(name), datatype, shape, data).map_err(|error| cut(name, &error))
}

/// Reads a tensor's `data` in JSON into its raw bytes; flat, or nested as the shape says.
pub fn read_json_data(name: &str, datatype: DataType, shape: &Shape, json: &RawValue) -> Result<Bytes, DecodeError> {
    read_data(name, datatype, shape, (json.get(), Syntax::Sound))
}

fn read_data(
    name: &str,
    datatype: DataType,
    shape: &Shape,
    (text, syntax): (&str, Syntax),
) -> Result<Bytes, DecodeError> {
    let expected = Expected {
        name,
        datatype,
        shape,
        elements: element_count(name, shape)?,
        syntax,
    };
    data::read(expected, text)
}

fn read_shape(name: &str, ShapeJson(extents): &ShapeJson) -> Result<Shape, DecodeError> {
    if extents.len() > MAX_RANK {
        return Err(DecodeError::Rank { name: quoted(name) });
    }
    let extent = |extent: &Whole| match *extent {
        Whole::Natural(extent) => Ok(extent),
        Whole::Negative(extent) => Err(DecodeError::NegativeExtent {
            name: quoted(name),
            extent,
        }),
    };
    extents.iter().map(extent).collect()
}

pub(crate) fn element_count(name: &str, shape: &Shape) -> Result<usize, DecodeError> {
    let empty = Tensor {
        name: Arc::from(""),
        datatype: DataType::Int8,
        shape: shape.clone(),
        data: Bytes::new(),
    };
    empty.element_count().map_err(|error| cut(name, &error))
}

// The error with the name cut: names may be as long as the bound allows, messages repeat less.
pub(crate) fn cut(name: &str, error: &TensorError) -> DecodeError {
    let name = quoted(name);
    DecodeError::tensor(&match error.clone() {
        TensorError::Rank { rank, .. } => TensorError::Rank { name, rank },
        TensorError::Overflow { .. } => TensorError::Overflow { name },
        TensorError::ByteSize { got, expected, .. } => TensorError::ByteSize { name, got, expected },
        TensorError::Elements { expected, .. } => TensorError::Elements { name, expected },
    })
}

pub(crate) fn check_name(name: &str) -> Result<(), DecodeError> {
    if name.is_empty() || name.len() > MAX_TENSOR_NAME_BYTES {
        return Err(DecodeError::NameLength(name.len()));
    }
    Ok(())
}

fn check_parameters(InputJson { name, parameters, .. }: &InputJson<'_>) -> Result<(), DecodeError> {
    if parameters.classification.is_some() {
        return Err(DecodeError::ClassesOfInput { name: quoted(name) });
    }
    Ok(())
}

type Asked = SmallVec<[(Arc<str>, bool); 2]>;

fn read_outputs(
    outputs: &[OutputJson<'_>],
    binary_by_default: bool,
    (classes, regions): (&mut Vec<ClassCount>, &mut InRegions),
) -> Result<(Vec<String>, Asked), DecodeError> {
    let (mut names, mut asked) = (Vec::with_capacity(outputs.len()), Asked::new());
    for output in outputs {
        check_name(&output.name)?;
        if let Some(given) = &output.parameters.region {
            regions.outputs.push(region_output(output, given)?);
        }
        if asked.iter().any(|(name, _)| **name == *output.name) {
            return Err(DecodeError::DuplicateOutput {
                name: quoted(&output.name),
            });
        }
        asked.push((
            Arc::from(&*output.name),
            output.parameters.binary_data.unwrap_or(binary_by_default),
        ));
        classification::read(&output.name, output.parameters.classification.as_ref(), classes)?;
        names.push(output.name.clone().into_owned());
    }
    Ok((names, asked))
}

fn region_output(output: &OutputJson<'_>, given: &Given) -> Result<RegionOutput, DecodeError> {
    let of = Of::Output(&output.name);
    if output.parameters.classification.is_some() {
        return Err(of.wrong("classes cannot be put into shared memory: leave out 'classification'"));
    }
    if output.parameters.binary_data == Some(true) {
        return Err(of.wrong("it goes to shared memory, so 'binary_data' cannot be true"));
    }
    Ok(RegionOutput {
        name: output.name.clone().into_owned(),
        span: given.span(of)?,
    })
}

// The raw tensors behind the JSON, taken in the order of the inputs.
#[derive(Debug, Clone)]
pub(crate) struct Binary<'a> {
    body: &'a Bytes,
    at: usize,
    allowed: bool,
}

impl<'a> Binary<'a> {
    /// Nothing behind a body that is all JSON.
    pub(crate) fn nothing(body: &'a Bytes) -> Self {
        Self {
            body,
            at: body.len(),
            allowed: false,
        }
    }

    fn take(&mut self, name: &str, size: Whole) -> Result<Bytes, DecodeError> {
        if !self.allowed {
            return Err(DecodeError::NoHeader { name: quoted(name) });
        }
        let size = match size {
            Whole::Natural(size) => size,
            Whole::Negative(size) => {
                return Err(DecodeError::NegativeSize {
                    name: quoted(name),
                    size,
                });
            }
        };
        let left = self.body.len() - self.at;
        match usize::try_from(size) {
            Ok(bytes) if bytes <= left => {
                let data = self.body.slice(self.at..self.at + bytes);
                self.at += bytes;
                Ok(data)
            }
            _ => Err(DecodeError::BinaryShort {
                name: quoted(name),
                size,
                left,
            }),
        }
    }

    fn finish(&self) -> Result<(), DecodeError> {
        match self.body.len() - self.at {
            0 => Ok(()),
            extra => Err(DecodeError::BinaryExtra { extra }),
        }
    }
}
