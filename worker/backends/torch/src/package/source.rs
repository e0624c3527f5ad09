//! What a package's own source says of its inputs: types, extents and the call's shape.
//!
//! AOTInductor puts the C++ that it compiled into the package. In it is a check of every input, which the compiled code only
//! carries out where the process's environment asks for it; the same facts are kept here, because an input of other extents
//! would be read beyond its end.

use mesh_backend::{BackendError, Signature, ValueType};
use mesh_types::{DataType, MAX_RANK};

use super::treespec;

/// What the extents of one input must lie between.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bounds(Vec<(i64, i64)>);

impl Bounds {
    /// Checks extents; the error says what would be right.
    pub(crate) fn check(&self, extents: &[i64]) -> Result<(), String> {
        let fits = |((least, most), extent): (&(i64, i64), &i64)| (*least..=*most).contains(extent);
        if extents.len() == self.0.len() && self.0.iter().zip(extents).all(fits) {
            return Ok(());
        }
        let expected: Vec<String> = self.0.iter().map(range).collect();
        Err(format!(
            "an input has the extents {extents:?}, the package was compiled for [{}]",
            expected.join(", ")
        ))
    }
}

fn range((least, most): &(i64, i64)) -> String {
    match (*least, *most) {
        (least, most) if least == most => least.to_string(),
        (least, i64::MAX) => format!("{least} or more"),
        (least, most) => format!("{least} to {most}"),
    }
}

/// What a package takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contract {
    pub(crate) signature: Signature,
    /// For each tensor that goes in, in the order of the call.
    pub(crate) bounds: Vec<Bounds>,
}

/// One input as its check describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Input {
    datatype: DataType,
    extents: Vec<(i64, i64)>,
    strides: Vec<Option<i64>>,
}

fn unreadable(why: &str) -> BackendError {
    BackendError::Load(format!(
        "the package's source does not say what it takes ({why}): compile it with PyTorch {} and AOTInductor",
        crate::LIBTORCH_VERSION
    ))
}

/// Reads a source.
pub(crate) fn read(text: &str) -> Result<Contract, BackendError> {
    let inputs = inputs(text)?;
    let values: Vec<ValueType> = inputs.iter().map(value).collect();
    let in_spec = raw(text, "in_spec_ = ").ok_or_else(|| unreadable("no specification of the call"))?;
    let out_spec = raw(text, "out_spec_ = ").ok_or_else(|| unreadable("no specification of the results"))?;
    let mut leaves = values.into_iter();
    let call = treespec::read(in_spec, &mut leaves)?;
    if leaves.next().is_some() {
        return Err(unreadable("more inputs than its call has"));
    }
    let result = treespec::read(out_spec, &mut std::iter::repeat_with(ValueType::tensor))?;
    for input in &inputs {
        check_layout(input)?;
    }
    Ok(Contract {
        signature: Signature {
            arguments: arguments(call)?,
            result,
            max_rows: max_rows(&inputs),
        },
        bounds: inputs.into_iter().map(|input| Bounds(input.extents)).collect(),
    })
}

/// Positional arguments have no names in a package: they are called by their places, as Triton does.
fn arguments(call: ValueType) -> Result<Vec<mesh_backend::Argument>, BackendError> {
    let ValueType::Tuple(parts) = call else {
        return Err(unreadable("its call is no tuple"));
    };
    let [ValueType::Tuple(positional), ValueType::Record(named)] = parts.as_slice() else {
        return Err(unreadable("its call has no positional and named arguments"));
    };
    let positional = positional
        .iter()
        .enumerate()
        .map(|(index, value)| (format!("INPUT__{index}"), value));
    let named = named.iter().map(|(name, value)| (name.clone(), value));
    let arguments = positional.chain(named).map(|(name, value)| mesh_backend::Argument {
        name,
        value: value.clone(),
        default: None,
    });
    Ok(arguments.collect())
}

fn value(input: &Input) -> ValueType {
    let extent = |(least, most): &(i64, i64)| if least == most { *least } else { -1 };
    ValueType::Tensor {
        datatype: Some(input.datatype),
        dims: Some(input.extents.iter().map(extent).collect()),
    }
}

/// The most rows that every input with a dynamic first extent may have.
fn max_rows(inputs: &[Input]) -> Option<u32> {
    let first = inputs.iter().filter_map(|input| input.extents.first());
    let most = first
        .filter(|(least, most)| least != most)
        .map(|(_, most)| *most)
        .min()?;
    u32::try_from(most).ok()
}

/// Inputs are handed over with their elements one behind the other; code for another layout would read them wrongly.
fn check_layout(input: &Input) -> Result<(), BackendError> {
    let mut expected = Some(1i64);
    for (place, (least, most)) in input.extents.iter().enumerate().rev() {
        let compiled = input.strides.get(place).copied().flatten();
        if let (Some(expected), Some(compiled)) = (expected, compiled)
            && expected != compiled
            && *most != 1
        {
            let text = "the package was exported with an input whose elements do not lie one behind the other: export it with \
                        contiguous examples";
            return Err(BackendError::Unsupported(text.to_owned()));
        }
        expected = expected
            .filter(|_| least == most)
            .and_then(|stride| stride.checked_mul(*most));
    }
    Ok(())
}

/// A raw string literal behind these words.
fn raw<'a>(text: &'a str, before: &str) -> Option<&'a str> {
    // `in_spec_` is also the end of nothing else; `out_spec_` neither.
    let (_, rest) = text.split_once(before)?;
    let rest = rest.strip_prefix("R\"")?;
    let (delimiter, rest) = rest.split_once('(')?;
    let (content, _) = rest.split_once(&format!("){delimiter}\""))?;
    Some(content)
}

fn inputs(text: &str) -> Result<Vec<Input>, BackendError> {
    let mut found = Vec::new();
    let name = |index: usize| format!("static void check_input_{index}(");
    while let Some((_, rest)) = text.split_once(&name(found.len())) {
        // The check ends where the next function begins.
        let body = rest.split("\nAOTI_NOINLINE").next().unwrap_or(rest);
        let body = body.split("\nstatic ").next().unwrap_or(body);
        found.push(input(body)?);
    }
    if found.is_empty() {
        return Err(unreadable("no checks of inputs"));
    }
    Ok(found)
}

fn input(body: &str) -> Result<Input, BackendError> {
    let kind = body.split_once("(at::k").and_then(|(_, rest)| rest.split_once(')'));
    let kind = kind
        .map(|(kind, _)| kind)
        .ok_or_else(|| unreadable("an input has no type"))?;
    let datatype =
        datatype(kind).ok_or_else(|| BackendError::Unsupported(format!("the package takes tensors of {kind}")))?;
    let (mut extents, mut strides) = (Vec::new(), Vec::new());
    for line in body.lines() {
        let Some(condition) = line.trim().strip_prefix("if (") else {
            continue;
        };
        if let Some(bound) = bound(condition, "_size[") {
            let (least, most) = at(&mut extents, bound.place, (0, i64::MAX))?;
            match bound.is {
                Is::Exactly(extent) => (*least, *most) = (extent, extent),
                Is::AtMost(bound) => *most = bound,
                // PyTorch takes 0 and 1 apart when it exports, so the least that it writes of a dynamic extent is 2; the code
                // that it makes of one runs 1 as well.
                Is::AtLeast(2) => *least = 1,
                Is::AtLeast(bound) => *least = bound,
            }
        } else if let Some(bound) = bound(condition, "_stride[") {
            let stride = at(&mut strides, bound.place, None)?;
            if let Is::Exactly(exactly) = bound.is {
                *stride = Some(exactly);
            }
        }
    }
    // An extent of which nothing is checked is only seen by its stride.
    while extents.len() < strides.len() {
        extents.push((0, i64::MAX));
    }
    Ok(Input {
        datatype,
        extents,
        strides,
    })
}

fn at<T: Clone>(all: &mut Vec<T>, place: usize, otherwise: T) -> Result<&mut T, BackendError> {
    if place >= MAX_RANK {
        return Err(unreadable("an input has too many extents"));
    }
    if all.len() <= place {
        all.resize(place + 1, otherwise);
    }
    all.get_mut(place)
        .ok_or_else(|| unreadable("an input has too many extents"))
}

enum Is {
    Exactly(i64),
    AtLeast(i64),
    AtMost(i64),
}

struct Bound {
    place: usize,
    is: Is,
}

/// `30 != x_size[1])`, `x_size[0] < 2)` or `x_size[0] > 1024)`: the conditions of refusal.
fn bound(condition: &str, of: &str) -> Option<Bound> {
    let (before, rest) = condition.split_once(of)?;
    let (place, after) = rest.split_once(']')?;
    let place = place.parse().ok()?;
    let number = |text: &str| text.trim().trim_end_matches([')', '{', ' ', 'L']).parse::<i64>().ok();
    let is = if let Some((exactly, _)) = before.split_once("!=") {
        Is::Exactly(number(exactly)?)
    } else if let Some(least) = after.trim().strip_prefix('<') {
        Is::AtLeast(number(least)?)
    } else {
        Is::AtMost(number(after.trim().strip_prefix('>')?)?)
    };
    Some(Bound { place, is })
}

/// PyTorch's names of types in C++.
fn datatype(kind: &str) -> Option<DataType> {
    Some(match kind {
        "Bool" => DataType::Bool,
        "Byte" => DataType::Uint8,
        "Char" => DataType::Int8,
        "Short" => DataType::Int16,
        "Int" => DataType::Int32,
        "Long" => DataType::Int64,
        "Half" => DataType::Fp16,
        "BFloat16" => DataType::Bf16,
        "Float" => DataType::Fp32,
        "Double" => DataType::Fp64,
        _ => return None,
    })
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
