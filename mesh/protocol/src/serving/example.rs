//! Examples to tensors: each input is the feature of its name, one row for each example.
//!
//! A feature has no shape: its values are as many as the model's dims say, and one open extent follows from their number. All
//! examples have the same inputs, and as many values of each.

use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use mesh_types::{DataType, ModelConfig, Shape, Tensor, TensorSpec};

use super::{
    error::ServingError,
    request::{Asked, bounded, entry, read_spec},
};
use crate::{
    error::{DecodeError, quoted},
    grpc::fields::{Fields, Held, malformed, varint},
    request::cut,
    v1::{MAX_SPREAD_BYTES, V1Error, spec_of},
};

/// A `ClassificationRequest` or `RegressionRequest`, its examples not yet looked into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examples {
    /// Of which model.
    pub asked: Asked,
    input: Bytes,
}

/// Reads which model examples are for: their inputs are that model's.
pub fn decode_examples(message: &Bytes) -> Result<Examples, ServingError> {
    let (mut spec, mut input): (&[u8], &[u8]) = (&[], &[]);
    let mut fields = Fields::of(message);
    while let Some((number, held)) = fields.next()? {
        match number {
            1 => spec = held.piece()?,
            2 => input = held.piece()?,
            _ => {}
        }
    }
    let asked = read_spec(spec)?;
    let input = message.slice_ref(input);
    Ok(Examples { asked, input })
}

impl Examples {
    /// The inputs that they are for this model, in its order.
    pub fn inputs(&self, config: &ModelConfig) -> Result<Vec<Tensor>, ServingError> {
        let (mut list, mut shares): (&[u8], bool) = (&[], false);
        let mut fields = Fields::of(&self.input);
        while let Some((number, held)) = fields.next()? {
            if matches!(number, 1 | 2) {
                (list, shares) = (held.piece()?, number == 2);
            }
        }
        let context = if shares { context(list)? } else { Features::default() };
        let mut rows = Rows {
            config,
            context,
            columns: Vec::new(),
            examples: 0,
            spread: 0,
        };
        let mut fields = Fields::of(list);
        while let Some((number, held)) = fields.next()? {
            if number == 1 {
                rows.take(held.piece()?)?;
            }
        }
        if rows.examples == 0 {
            return Err(V1Error::NoExamples.into());
        }
        rows.finish()
    }
}

type Features<'a> = Vec<(&'a str, &'a [u8])>;

fn context(list: &[u8]) -> Result<Features<'_>, ServingError> {
    let (mut fields, mut context) = (Fields::of(list), Features::default());
    while let Some((number, held)) = fields.next()? {
        if number == 2 {
            context = features(held.piece()?)?;
        }
    }
    Ok(context)
}

/// The features of an example, none looked into.
fn features(example: &[u8]) -> Result<Features<'_>, ServingError> {
    let mut all = Features::new();
    let mut outer = Fields::of(example);
    while let Some((number, held)) = outer.next()? {
        if number != 1 {
            continue;
        }
        let mut inner = Fields::of(held.piece()?);
        while let Some((number, held)) = inner.next()? {
            if number == 1 {
                bounded(all.len(), "features")?;
                all.push(entry(held)?);
            }
        }
    }
    Ok(all)
}

/// The values of one input, in the order of the examples.
struct Column<'c> {
    spec: &'c TensorSpec,
    data: Vec<u8>,
    /// How many each example has.
    values: usize,
    /// Of how many examples there are some.
    examples: usize,
    /// Where those of the last one begin.
    last: usize,
}

struct Rows<'c, 'm> {
    config: &'c ModelConfig,
    context: Features<'m>,
    columns: Vec<Column<'c>>,
    examples: usize,
    /// Bytes of the context's features so far.
    spread: usize,
}

impl<'m> Rows<'_, 'm> {
    fn take(&mut self, example: &'m [u8]) -> Result<(), ServingError> {
        let at = self.examples;
        self.spread += self.context.iter().map(|(_, feature)| feature.len()).sum::<usize>();
        if self.spread > MAX_SPREAD_BYTES {
            return Err(V1Error::Spread.into());
        }
        for (name, feature) in features(example)?.iter().chain(&self.context) {
            let spec = spec_of(self.config, name)?;
            let known = self.columns.iter().position(|column| column.spec.name == spec.name);
            let missing = |instance| V1Error::Missing {
                instance,
                name: quoted(name),
            };
            let known = match known {
                Some(known) => known,
                None if at > 0 => return Err(missing(0).into()),
                None => {
                    self.columns.push(Column::new(spec));
                    self.columns.len() - 1
                }
            };
            if let Some(column) = self.columns.get_mut(known) {
                column.take(feature, at)?;
            }
        }
        self.examples += 1;
        match self.columns.iter().find(|column| column.examples != self.examples) {
            Some(column) => Err(V1Error::Missing {
                instance: at,
                name: column.spec.name.clone(),
            }
            .into()),
            None => Ok(()),
        }
    }

    fn finish(self) -> Result<Vec<Tensor>, ServingError> {
        if !self.config.batches() && self.examples > 1 {
            return Err(V1Error::OneAtATime(self.examples).into());
        }
        let (config, examples) = (self.config, self.examples);
        let tensors = self.columns.into_iter().map(|column| column.tensor(config, examples));
        let mut tensors: Vec<Tensor> = tensors.collect::<Result<_, _>>()?;
        tensors.sort_by_key(|tensor| config.input.iter().position(|spec| *spec.name == *tensor.name));
        Ok(tensors)
    }
}

impl<'c> Column<'c> {
    fn new(spec: &'c TensorSpec) -> Self {
        Self {
            spec,
            data: Vec::new(),
            values: 0,
            examples: 0,
            last: 0,
        }
    }

    /// The feature of the next example.
    fn take(&mut self, feature: &[u8], example: usize) -> Result<(), ServingError> {
        let name = || quoted(&self.spec.name);
        if self.examples != example {
            return Err(V1Error::Twice {
                instance: example,
                name: name(),
            }
            .into());
        }
        let start = self.data.len();
        let (right, right_name) = match self.spec.datatype {
            DataType::Bytes => (1, "bytes_list"),
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => (2, "float_list"),
            _ => (3, "int64_list"),
        };
        let (mut list, mut other): (&[u8], bool) = (&[], false);
        let mut fields = Fields::of(feature);
        while let Some((number, held)) = fields.next()? {
            if matches!(number, 1..=3) {
                (list, other) = (held.piece()?, number != right);
            }
        }
        if other {
            return Err(ServingError::OtherList {
                name: name(),
                datatype: self.spec.datatype,
                right: right_name,
                example,
            });
        }
        let got = values(self.spec, list, &mut self.data)?;
        if example == 0 {
            self.values = got;
        } else if got != self.values {
            return Err(ServingError::Ragged {
                name: name(),
                example,
                got,
                expected: self.values,
            });
        }
        if self.spec.unbatched && example > 0 {
            // One value for all rows, which every example repeats.
            if self.data.get(self.last..start) != self.data.get(start..) {
                return Err(V1Error::Differs {
                    instance: example,
                    name: name(),
                }
                .into());
            }
            self.data.truncate(start);
        } else {
            self.last = start;
        }
        self.examples += 1;
        Ok(())
    }

    fn tensor(self, config: &ModelConfig, examples: usize) -> Result<Tensor, ServingError> {
        let spec = self.spec;
        let mut shape = Shape::new();
        if config.has_rows(spec) {
            shape.push(examples as u64);
        }
        shape.extend(extents(spec, self.values)?);
        let tensor = Tensor::new(
            Arc::from(spec.name.as_str()),
            spec.datatype,
            shape,
            Bytes::from(self.data),
        );
        Ok(tensor.map_err(|error| cut(&spec.name, &error))?)
    }
}

/// The extents of so many values.
fn extents(spec: &TensorSpec, values: usize) -> Result<Shape, ServingError> {
    let (mut fixed, mut open) = (1_u64, 0);
    for dim in &spec.dims {
        match u64::try_from(*dim) {
            Ok(extent) => fixed = fixed.saturating_mul(extent),
            Err(_) => open += 1,
        }
    }
    let values = values as u64;
    let extent = values.checked_div(fixed).unwrap_or(0);
    let whole = if open == 0 { fixed } else { fixed.saturating_mul(extent) };
    if open > 1 || whole != values {
        return Err(ServingError::NoShape {
            name: quoted(&spec.name),
            got: usize::try_from(values).unwrap_or(usize::MAX),
        });
    }
    Ok(spec
        .dims
        .iter()
        .map(|dim| u64::try_from(*dim).unwrap_or(extent))
        .collect())
}

/// Puts the values of a list behind each other; answers how many they are.
fn values(spec: &TensorSpec, list: &[u8], out: &mut Vec<u8>) -> Result<usize, DecodeError> {
    let mut count = 0;
    let mut fields = Fields::of(list);
    while let Some((number, held)) = fields.next()? {
        if number != 1 {
            continue;
        }
        match (spec.datatype, held) {
            (DataType::Bytes, held) => {
                let text = held.piece()?;
                let length = u32::try_from(text.len()).map_err(|_| malformed("a text is longer than 4 GiB"))?;
                out.extend_from_slice(&length.to_le_bytes());
                out.extend_from_slice(text);
                count += 1;
            }
            (_, Held::Four(raw)) => {
                float(spec, f32::from_le_bytes(raw), out)?;
                count += 1;
            }
            (_, Held::Varint(number)) => {
                whole(spec, number.cast_signed(), count, out)?;
                count += 1;
            }
            (DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64, held) => {
                let (all, rest) = held.piece()?.as_chunks::<4>();
                if !rest.is_empty() {
                    return Err(malformed("packed floats are cut short"));
                }
                for raw in all {
                    float(spec, f32::from_le_bytes(*raw), out)?;
                }
                count += all.len();
            }
            (_, held) => {
                let mut packed = held.piece()?;
                while !packed.is_empty() {
                    whole(spec, varint(&mut packed)?.cast_signed(), count, out)?;
                    count += 1;
                }
            }
        }
    }
    Ok(count)
}

fn float(spec: &TensorSpec, number: f32, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    match spec.datatype {
        DataType::Fp16 => out.extend_from_slice(&f16::from_f32(number).to_le_bytes()),
        DataType::Bf16 => out.extend_from_slice(&bf16::from_f32(number).to_le_bytes()),
        DataType::Fp32 => out.extend_from_slice(&number.to_le_bytes()),
        DataType::Fp64 => out.extend_from_slice(&f64::from(number).to_le_bytes()),
        _ => return Err(malformed("a field has another type than the protocol says")),
    }
    Ok(())
}

fn whole(spec: &TensorSpec, number: i64, index: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let fits = match spec.datatype {
        DataType::Bool => matches!(number, 0 | 1),
        DataType::Uint8 => u8::try_from(number).is_ok(),
        DataType::Uint16 => u16::try_from(number).is_ok(),
        DataType::Uint32 => u32::try_from(number).is_ok(),
        DataType::Uint64 => u64::try_from(number).is_ok(),
        DataType::Int8 => i8::try_from(number).is_ok(),
        DataType::Int16 => i16::try_from(number).is_ok(),
        DataType::Int32 => i32::try_from(number).is_ok(),
        DataType::Int64 => true,
        _ => return Err(malformed("a field has another type than the protocol says")),
    };
    if !fits {
        return Err(DecodeError::Element {
            name: quoted(&spec.name),
            index,
            problem: format!("{number} is out of range (datatype {})", spec.datatype),
        });
    }
    let size = spec.datatype.element_bytes().unwrap_or(8);
    out.extend_from_slice(number.to_le_bytes().get(..size).unwrap_or_default());
    Ok(())
}
