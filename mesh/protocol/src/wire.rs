//! The shape of a request's JSON, read by hand-written visitors: bounded, borrowing, and blind to fields it does not know.
//!
//! A tensor's `data` is only delimited here (its datatype may come later in the object); [`crate::data`] reads it. Like
//! Triton, fields and parameters of tensors that are not known are ignored; a field given twice is refused.

use std::{borrow::Cow, fmt, marker::PhantomData};

use mesh_types::{MAX_RANK, ParameterValue, Parameters};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::regions::{self, Given};

/// The most inputs, and the most outputs, of a request.
pub const MAX_TENSORS: usize = 64;
/// The most parameters of a request, and of a tensor.
pub const MAX_PARAMETERS: usize = 64;
/// The request's parameter that asks for outputs as binary data.
const BINARY_DATA_OUTPUT: &str = "binary_data_output";
/// The longest id of a request, in bytes.
pub const MAX_ID_BYTES: usize = 1_024;
/// The longest name of a tensor, in bytes.
pub const MAX_TENSOR_NAME_BYTES: usize = 255;

// The visitors can only fail with the parser's own error type. These marks stand for the bounds, and are told apart from it
// by value: the parser adds the position behind them.
pub(crate) const MARK_TENSORS: &str = "too many tensors";
pub(crate) const MARK_PARAMETERS: &str = "too many parameters";

/// A request as it stands in the JSON.
#[derive(Debug, Default)]
pub(crate) struct RequestJson<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) parameters: RequestParameters,
    pub(crate) inputs: Vec<InputJson<'a>>,
    pub(crate) outputs: Vec<OutputJson<'a>>,
}

/// An input as it stands in the JSON.
#[derive(Debug)]
pub(crate) struct InputJson<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) datatype: Cow<'a, str>,
    pub(crate) shape: ShapeJson,
    pub(crate) parameters: TensorParameters,
    pub(crate) data: Option<&'a RawValue>,
}

/// An output asked for.
#[derive(Debug)]
pub(crate) struct OutputJson<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) parameters: TensorParameters,
}

/// A whole number, kept with its sign so that the message about it can name the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whole {
    Natural(u64),
    Negative(i64),
}

/// Extents as written; one more than allowed is kept so that the bound can be told from its breach.
#[derive(Debug, Default)]
pub(crate) struct ShapeJson(pub(crate) SmallVec<[Whole; 4]>);

/// The parameters of a tensor that mean something.
#[derive(Debug, Default)]
pub(crate) struct TensorParameters {
    pub(crate) binary_data_size: Option<Whole>,
    pub(crate) binary_data: Option<bool>,
    /// What leads to shared memory; boxed, because hardly any tensor has it.
    pub(crate) region: Option<Box<Given>>,
    pub(crate) classification: Option<ParameterValue>,
}

impl TensorParameters {
    fn given(&mut self) -> &mut Given {
        self.region.get_or_insert_default()
    }
}

// A string that borrows when it can; plain `Cow` inside `Option` or a map never does.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

fn once<'de, A: MapAccess<'de>, T: Deserialize<'de>>(
    map: &mut A,
    slot: &mut Option<T>,
    name: &'static str,
) -> Result<(), A::Error> {
    if slot.is_some() {
        return Err(A::Error::duplicate_field(name));
    }
    *slot = Some(map.next_value()?);
    Ok(())
}

fn scalar<'de, A: MapAccess<'de>>(
    map: &mut A,
    slot: &mut Option<ParameterValue>,
    name: &'static str,
) -> Result<(), A::Error> {
    let mut read = slot.take().map(Scalar);
    once(map, &mut read, name)?;
    *slot = read.map(|Scalar(value)| value);
    Ok(())
}

fn needed<T, E: serde::de::Error>(slot: Option<T>, name: &'static str) -> Result<T, E> {
    slot.ok_or_else(|| E::missing_field(name))
}

macro_rules! object {
    ($name:ty, $expecting:literal, |$map:ident| $body:block) => {
        impl<'de: 'a, 'a> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct ObjectVisitor<'a>(PhantomData<&'a ()>);
                impl<'de: 'a, 'a> Visitor<'de> for ObjectVisitor<'a> {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expecting)
                    }
                    fn visit_map<A: MapAccess<'de>>(self, mut $map: A) -> Result<Self::Value, A::Error> $body
                }
                deserializer.deserialize_map(ObjectVisitor(PhantomData))
            }
        }
    };
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum RequestField {
    Id,
    Parameters,
    Inputs,
    Outputs,
    #[serde(other)]
    Other,
}

object!(RequestJson<'a>, "a request object", |map| {
    let (mut id, mut parameters, mut inputs, mut outputs) = (None, None, None, None);
    while let Some(field) = map.next_key()? {
        match field {
            RequestField::Id => once::<_, Text<'a>>(&mut map, &mut id, "id")?,
            RequestField::Parameters => once::<_, RequestParameters>(&mut map, &mut parameters, "parameters")?,
            RequestField::Inputs => once::<_, Bounded<InputJson<'a>>>(&mut map, &mut inputs, "inputs")?,
            RequestField::Outputs => once::<_, Bounded<OutputJson<'a>>>(&mut map, &mut outputs, "outputs")?,
            RequestField::Other => drop(map.next_value::<IgnoredAny>()?),
        }
    }
    Ok(RequestJson {
        id: id.map(|Text(id)| id),
        parameters: parameters.unwrap_or_default(),
        inputs: inputs.map(|Bounded(inputs)| inputs).unwrap_or_default(),
        outputs: outputs.map(|Bounded(outputs)| outputs).unwrap_or_default(),
    })
});

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum TensorField {
    Name,
    Datatype,
    Shape,
    Parameters,
    Data,
    #[serde(other)]
    Other,
}

object!(InputJson<'a>, "an input object", |map| {
    let (mut name, mut datatype, mut shape, mut parameters, mut data) = (None, None, None, None, None);
    while let Some(field) = map.next_key()? {
        match field {
            TensorField::Name => once::<_, Text<'a>>(&mut map, &mut name, "name")?,
            TensorField::Datatype => once::<_, Text<'a>>(&mut map, &mut datatype, "datatype")?,
            TensorField::Shape => once::<_, ShapeJson>(&mut map, &mut shape, "shape")?,
            TensorField::Parameters => once::<_, TensorParameters>(&mut map, &mut parameters, "parameters")?,
            TensorField::Data => once::<_, &'a RawValue>(&mut map, &mut data, "data")?,
            TensorField::Other => drop(map.next_value::<IgnoredAny>()?),
        }
    }
    Ok(InputJson {
        name: needed(name, "name")?.0,
        datatype: needed(datatype, "datatype")?.0,
        shape: needed(shape, "shape")?,
        parameters: parameters.unwrap_or_default(),
        data,
    })
});

object!(OutputJson<'a>, "an output object", |map| {
    let (mut name, mut parameters) = (None, None);
    while let Some(field) = map.next_key()? {
        match field {
            TensorField::Name => once::<_, Text<'a>>(&mut map, &mut name, "name")?,
            TensorField::Parameters => once::<_, TensorParameters>(&mut map, &mut parameters, "parameters")?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
    }
    Ok(OutputJson {
        name: needed(name, "name")?.0,
        parameters: parameters.unwrap_or_default(),
    })
});

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum ParameterField {
    BinaryDataSize,
    BinaryData,
    SharedMemoryRegion,
    SharedMemoryByteSize,
    SharedMemoryOffset,
    Classification,
    #[serde(other)]
    Other,
}

impl<'de> Deserialize<'de> for TensorParameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ParametersVisitor;
        impl<'de> Visitor<'de> for ParametersVisitor {
            type Value = TensorParameters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut size, mut binary, mut classes) = (None, None, None);
                let mut found = TensorParameters::default();
                let mut count = 0;
                while let Some(field) = map.next_key()? {
                    count += 1;
                    if count > MAX_PARAMETERS {
                        return Err(A::Error::custom(MARK_PARAMETERS));
                    }
                    match field {
                        ParameterField::BinaryDataSize => once(&mut map, &mut size, "binary_data_size")?,
                        ParameterField::BinaryData => once(&mut map, &mut binary, "binary_data")?,
                        ParameterField::Classification => {
                            once::<_, Scalar>(&mut map, &mut classes, "classification")?;
                        }
                        ParameterField::SharedMemoryRegion => {
                            scalar(&mut map, &mut found.given().region, regions::REGION)?;
                        }
                        ParameterField::SharedMemoryByteSize => {
                            scalar(&mut map, &mut found.given().byte_size, regions::BYTE_SIZE)?;
                        }
                        ParameterField::SharedMemoryOffset => {
                            scalar(&mut map, &mut found.given().offset, regions::OFFSET)?;
                        }
                        ParameterField::Other => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(TensorParameters {
                    binary_data_size: size,
                    binary_data: binary,
                    classification: classes.map(|Scalar(value)| value),
                    ..found
                })
            }
        }
        deserializer.deserialize_map(ParametersVisitor)
    }
}

// At most MAX_TENSORS elements.
struct Bounded<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Bounded<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
            type Value = Bounded<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of tensors")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut tensors = Vec::new();
                while let Some(tensor) = list.next_element()? {
                    if tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(MARK_TENSORS));
                    }
                    tensors.push(tensor);
                }
                Ok(Bounded(tensors))
            }
        }
        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WholeVisitor;
        impl Visitor<'_> for WholeVisitor {
            type Value = Whole;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number")
            }
            fn visit_u64<E>(self, number: u64) -> Result<Whole, E> {
                Ok(Whole::Natural(number))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Whole, E> {
                Ok(u64::try_from(number).map_or(Whole::Negative(number), Whole::Natural))
            }
        }
        deserializer.deserialize_any(WholeVisitor)
    }
}

impl<'de> Deserialize<'de> for ShapeJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;
        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = ShapeJson;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of extents")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ShapeJson, A::Error> {
                let mut extents = SmallVec::new();
                while let Some(extent) = list.next_element()? {
                    if extents.len() <= MAX_RANK {
                        extents.push(extent);
                    }
                }
                Ok(ShapeJson(extents))
            }
        }
        deserializer.deserialize_seq(ShapeVisitor)
    }
}

/// Request parameters: a string, a number or a boolean each, none twice.
#[derive(Debug, Default)]
pub(crate) struct RequestParameters {
    /// Whether outputs are binary data unless they say otherwise. Apart from the others, because most requests have this one
    /// and no other, and a map of one costs as much as the rest of a small request.
    pub(crate) binary_data_output: Option<ParameterValue>,
    /// All others.
    pub(crate) others: Parameters,
}

impl RequestParameters {
    fn len(&self) -> usize {
        self.others.len() + usize::from(self.binary_data_output.is_some())
    }

    // What was there under this name.
    fn insert(&mut self, name: Cow<'_, str>, value: ParameterValue) -> Option<ParameterValue> {
        if name == BINARY_DATA_OUTPUT {
            self.binary_data_output.replace(value)
        } else {
            self.others.insert(name.into_owned(), value)
        }
    }
}

impl<'de> Deserialize<'de> for RequestParameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ParametersVisitor;
        impl<'de> Visitor<'de> for ParametersVisitor {
            type Value = RequestParameters;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of parameters")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut parameters = RequestParameters::default();
                while let Some(Text(name)) = map.next_key()? {
                    let Scalar(value) = map.next_value()?;
                    if parameters.len() == MAX_PARAMETERS {
                        return Err(A::Error::custom(MARK_PARAMETERS));
                    }
                    if parameters.insert(name, value).is_some() {
                        return Err(A::Error::custom("the same parameter more than once"));
                    }
                }
                Ok(parameters)
            }
        }
        deserializer.deserialize_map(ParametersVisitor)
    }
}

pub(crate) struct Scalar(pub(crate) ParameterValue);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a parameter that is a string, a number or a boolean")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(ParameterValue::Bool(value)))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(ParameterValue::Int(value)))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(
                    i64::try_from(value).map_or(ParameterValue::Uint(value), ParameterValue::Int),
                ))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(ParameterValue::Double(value)))
            }
            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(ParameterValue::String(value.to_owned())))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}
