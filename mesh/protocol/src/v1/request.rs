//! A V1 body to tensors: rows (`instances`, `examples`) or columns (`inputs`).

use std::{borrow::Cow, fmt};

use mesh_types::{ModelConfig, Tensor, TensorSpec};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{SIGNATURE, error::V1Error, literals, value};
use crate::{
    error::{DecodeError, quoted},
    wire::MAX_TENSORS,
};

/// The most bytes that a context's values may come to, once for each example: a short body could claim far more than it has.
pub(crate) const MAX_SPREAD_BYTES: usize = 16 << 20;

/// How the request was written, which is how its answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// So many instances; the answer has a prediction for each.
    Rows(u64),
    /// One instance of a model without rows: the whole answer is its prediction.
    Whole,
    /// Columns; the answer has whole outputs.
    Columns,
}

/// A request for a prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Predict {
    /// Its inputs, in the order of the model's.
    pub inputs: Vec<Tensor>,
    /// How it was written.
    pub form: Form,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default, deserialize_with = "written")]
    signature_name: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "written")]
    instances: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "written")]
    inputs: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "written")]
    examples: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "written")]
    context: Option<&'a RawValue>,
}

// Otherwise a null would be the same as nothing.
fn written<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// What the parser says, with the caller's text in it cut.
fn parse_error(error: serde_json::Error) -> V1Error {
    match DecodeError::from(error) {
        DecodeError::Json(text) => V1Error::Json(text),
        other => other.into(),
    }
}

fn body(json: &[u8]) -> Result<Body<'_>, V1Error> {
    let body: Body<'_> = serde_json::from_slice(json).map_err(parse_error)?;
    if let Some(signature) = body.signature_name {
        let name: String = serde_json::from_str(signature.get()).map_err(|_| V1Error::Signature)?;
        if !name.is_empty() && name != SIGNATURE {
            return Err(V1Error::UnknownSignature(quoted(&name)));
        }
    }
    Ok(body)
}

/// Reads the body of `:predict`.
pub fn decode_predict(config: &ModelConfig, json: &[u8]) -> Result<Predict, V1Error> {
    let json = literals::quoted(json);
    let body = body(&json)?;
    match (body.instances, body.inputs) {
        (Some(_), Some(_)) => Err(V1Error::Both),
        (None, None) => Err(V1Error::Neither),
        (None, Some(columns)) => Ok(Predict {
            inputs: read_columns(config, columns.get())?,
            form: Form::Columns,
        }),
        (Some(instances), None) => read_instances(config, instances.get()),
    }
}

/// Reads the body of `:classify` and `:regress`.
pub fn decode_examples(config: &ModelConfig, json: &[u8]) -> Result<Predict, V1Error> {
    let json = literals::quoted(json);
    let body = body(&json)?;
    let context = match body.context {
        None => Fields::default(),
        Some(context) => serde_json::from_str(context.get()).map_err(|_| V1Error::Context)?,
    };
    let examples = body.examples.map(RawValue::get).ok_or(V1Error::NoExamples)?;
    if first_child(examples) != Some(b'{') {
        return Err(V1Error::NoExamples);
    }
    read_named(config, examples, &context)
}

/// The first character of a list's first child.
fn first_child(list: &str) -> Option<u8> {
    let inner = list.trim_start().strip_prefix('[')?;
    inner.trim_start().bytes().next().filter(|byte| *byte != b']')
}

/// Whether an object is a value of bytes and no collection of inputs.
fn is_bytes(object: &str) -> bool {
    let inner = object.trim_start().strip_prefix('{').map(str::trim_start);
    let rest = inner
        .and_then(|inner| inner.strip_prefix("\"b64\""))
        .map(str::trim_start);
    rest.is_some_and(|rest| rest.starts_with(':'))
}

fn read_instances(config: &ModelConfig, list: &str) -> Result<Predict, V1Error> {
    let inner = list.trim_start().strip_prefix('[').unwrap_or_default();
    match first_child(list) {
        None => Err(V1Error::NoInstances),
        Some(b'{') if !is_bytes(inner) => read_named(config, list, &Fields::default()),
        Some(_) => {
            let [only] = &config.input[..] else {
                return Err(V1Error::Unnamed(config.input.len()));
            };
            let (tensor, form) = of_rows(config, only, list)?;
            Ok(Predict {
                inputs: vec![tensor],
                form,
            })
        }
    }
}

/// The list of an input's values to its tensor. A model without rows that takes no list of such values takes one instance.
fn of_rows(config: &ModelConfig, spec: &TensorSpec, list: &str) -> Result<(Tensor, Form), V1Error> {
    let dims = config.wire_dims(spec);
    let stacked = value::read(spec, list, &dims)?;
    let rows = stacked.shape.first().copied().unwrap_or(0);
    if stacked.shape.len() == dims.len() || config.max_batch_size > 0 {
        return Ok((stacked, Form::Rows(rows)));
    }
    if rows != 1 {
        return Err(V1Error::OneAtATime(usize::try_from(rows).unwrap_or(usize::MAX)));
    }
    let mut tensor = stacked;
    tensor.shape.remove(0);
    Ok((tensor, Form::Whole))
}

/// The values of one input, in the order of the instances: the text of a list.
struct Column<'a> {
    spec: &'a TensorSpec,
    list: String,
    values: usize,
}

impl<'a> Column<'a> {
    fn new(spec: &'a TensorSpec) -> Self {
        Self {
            spec,
            list: String::from("["),
            values: 0,
        }
    }

    fn put(&mut self, value: &str) {
        if self.values > 0 {
            self.list.push(',');
        }
        self.list.push_str(value);
        self.values += 1;
    }
}

/// The input of a name.
pub(crate) fn spec_of<'a>(config: &'a ModelConfig, name: &str) -> Result<&'a TensorSpec, V1Error> {
    let found = config.input.iter().find(|spec| spec.name == name);
    found.ok_or_else(|| V1Error::UnknownInput {
        name: quoted(name),
        known: config
            .input
            .iter()
            .map(|spec| format!("'{}'", spec.name))
            .collect::<Vec<_>>()
            .join(", "),
    })
}

fn read_named(config: &ModelConfig, list: &str, context: &Fields<'_>) -> Result<Predict, V1Error> {
    let mut rows = Rows {
        config,
        context,
        columns: Vec::new(),
        instances: 0,
        spread: 0,
        problem: None,
    };
    let parsed = serde_json::Deserializer::from_str(list).deserialize_seq(&mut rows);
    if let Some(problem) = rows.problem {
        return Err(problem);
    }
    parsed.map_err(parse_error)?;
    let Rows { columns, instances, .. } = rows;
    let mut inputs = Vec::with_capacity(columns.len());
    let mut form = Form::Rows(u64::try_from(instances).unwrap_or(u64::MAX));
    for mut column in columns {
        column.list.push(']');
        if column.spec.unbatched {
            inputs.push(read_unbatched(config, &column)?);
        } else {
            let (tensor, of_column) = of_rows(config, column.spec, &column.list)?;
            form = of_column;
            inputs.push(tensor);
        }
    }
    in_models_order(config, &mut inputs);
    Ok(Predict { inputs, form })
}

/// One value for all rows, which every instance repeats.
fn read_unbatched(config: &ModelConfig, column: &Column<'_>) -> Result<Tensor, V1Error> {
    let values: Vec<&RawValue> = serde_json::from_str(&column.list).map_err(parse_error)?;
    let first = values.first().map_or("", |value| value.get());
    if let Some(instance) = values.iter().position(|value| value.get() != first) {
        return Err(V1Error::Differs {
            instance,
            name: column.spec.name.clone(),
        });
    }
    value::read(column.spec, first, &config.wire_dims(column.spec))
}

fn in_models_order(config: &ModelConfig, inputs: &mut [Tensor]) {
    inputs.sort_by_key(|tensor| config.input.iter().position(|spec| *spec.name == *tensor.name));
}

fn read_columns(config: &ModelConfig, columns: &str) -> Result<Vec<Tensor>, V1Error> {
    let read = |spec: &TensorSpec, text: &str| value::read(spec, text, &config.wire_dims(spec));
    if !columns.trim_start().starts_with('{') || is_bytes(columns) {
        let [only] = &config.input[..] else {
            return Err(V1Error::Unnamed(config.input.len()));
        };
        return Ok(vec![read(only, columns)?]);
    }
    let Fields(fields) = serde_json::from_str(columns).map_err(parse_error)?;
    let mut inputs: Vec<Tensor> = Vec::with_capacity(fields.len());
    for (name, text) in &fields {
        let spec = spec_of(config, name)?;
        if inputs.iter().any(|tensor| *tensor.name == **name) {
            return Err(DecodeError::DuplicateInput { name: quoted(name) }.into());
        }
        inputs.push(read(spec, text.get())?);
    }
    in_models_order(config, &mut inputs);
    Ok(inputs)
}

/// The fields of an object, as they are written: at most as many as a request may have inputs.
#[derive(Default)]
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of inputs")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<Cow<'de, str>, &'de RawValue>()? {
                    if fields.len() == MAX_TENSORS {
                        return Err(A::Error::custom(V1Error::TooManyInputs));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Takes instances apart as they are parsed.
struct Rows<'c, 'f> {
    config: &'c ModelConfig,
    context: &'f Fields<'f>,
    columns: Vec<Column<'c>>,
    instances: usize,
    /// Bytes of the context's values so far.
    spread: usize,
    problem: Option<V1Error>,
}

impl<'de> Visitor<'de> for &mut Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(instance) = list.next_element::<&'de RawValue>()? {
            if let Err(problem) = self.take(instance.get()) {
                self.problem = Some(problem);
                return Err(A::Error::custom("an instance is not as it should be"));
            }
            self.instances += 1;
        }
        Ok(())
    }
}

impl Rows<'_, '_> {
    fn take(&mut self, text: &str) -> Result<(), V1Error> {
        let instance = self.instances;
        if !text.starts_with('{') {
            return Err(V1Error::NotObject { instance });
        }
        let Fields(fields) = serde_json::from_str(text).map_err(parse_error)?;
        self.spread += self.context.0.iter().map(|(_, value)| value.get().len()).sum::<usize>();
        if self.spread > MAX_SPREAD_BYTES {
            return Err(V1Error::Spread);
        }
        for (name, value) in fields.iter().chain(&self.context.0) {
            let spec = spec_of(self.config, name)?;
            let known = self.columns.iter().position(|column| column.spec.name == spec.name);
            if known.is_none() {
                // An input that the instances before this one do not have.
                if instance > 0 {
                    let name = quoted(name);
                    return Err(V1Error::Missing { instance: 0, name });
                }
                self.columns.push(Column::new(spec));
            }
            let at = known.unwrap_or(self.columns.len().saturating_sub(1));
            let Some(column) = self.columns.get_mut(at) else {
                continue;
            };
            if column.values != instance {
                return Err(V1Error::Twice {
                    instance,
                    name: quoted(name),
                });
            }
            column.put(value.get());
        }
        match self.columns.iter().find(|column| column.values != instance + 1) {
            Some(column) => Err(V1Error::Missing {
                instance,
                name: column.spec.name.clone(),
            }),
            None => Ok(()),
        }
    }
}
