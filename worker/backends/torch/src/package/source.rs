//! What a package's own source says of its inputs: types, extents and the call's shape, and where its constants are.
//!
//! AOTInductor puts the C++ that it compiled into the package. In it is a check of every input, which the compiled code only
//! carries out where the process's environment asks for it; the same facts are kept here, because an input of other extents
//! would be read beyond its end. What must be equal beside that is [`super::extents`]' business.

use mesh_backend::{BackendError, Signature, ValueType};
use mesh_types::{DataType, MAX_RANK};

use super::{extents::Extent, symbols::Symbols, treespec};

/// What a package takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contract {
    pub(crate) signature: Signature,
    /// The extents of each tensor that goes in, in the order of the call.
    pub(crate) inputs: Vec<Vec<Extent>>,
    /// Bytes of constants that the library does not hold itself.
    pub(crate) weights_outside: u64,
}

/// One input as its check describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Input {
    datatype: DataType,
    extents: Vec<Extent>,
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
    let extents: Vec<Vec<Extent>> = inputs.into_iter().map(|input| input.extents).collect();
    Ok(Contract {
        signature: Signature {
            arguments: arguments(call)?,
            result,
            // Which inputs will have rows is not known yet: as many as all of them take.
            max_rows: max_rows(extents.iter().map(Vec::as_slice)),
        },
        inputs: extents,
        weights_outside: weights_outside(text)?,
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
    let extent = |extent: &Extent| if extent.is_dynamic() { -1 } else { extent.least };
    ValueType::Tensor {
        datatype: Some(input.datatype),
        dims: Some(input.extents.iter().map(extent).collect()),
    }
}

/// The most rows that inputs with these extents may have.
pub(crate) fn max_rows<'a>(inputs: impl Iterator<Item = &'a [Extent]>) -> Option<u32> {
    let first = inputs.filter_map(<[Extent]>::first);
    let most = first
        .filter(|extent| extent.is_dynamic())
        .map(|extent| extent.most)
        .min()?;
    u32::try_from(most).ok()
}

/// Inputs are handed over with their elements one behind the other; code for another layout would read them wrongly. A stride
/// is checked where it is a number, and is one unless an extent behind it is dynamic.
fn check_layout(input: &Input) -> Result<(), BackendError> {
    let mut expected = Some(1i64);
    for (place, extent) in input.extents.iter().enumerate().rev() {
        let compiled = input.strides.get(place).copied().flatten();
        if expected != compiled && extent.most != 1 {
            return Err(other_layout());
        }
        expected = expected
            .filter(|_| !extent.is_dynamic())
            .and_then(|stride| stride.checked_mul(extent.most));
    }
    Ok(())
}

fn other_layout() -> BackendError {
    let text = "the package was exported with an input whose elements do not lie one behind the other: export it with \
                contiguous examples";
    BackendError::Unsupported(text.to_owned())
}

/// Bytes of constants that are not in the library: the last argument of the model's base says whether they are.
fn weights_outside(text: &str) -> Result<u64, BackendError> {
    let unclear = || unreadable("not where its weights are");
    let (_, rest) = text.split_once("AOTInductorModelBase(").ok_or_else(unclear)?;
    let (arguments, _) = rest.split_once(") {").ok_or_else(unclear)?;
    match arguments.rsplit(',').next().map(str::trim) {
        Some("true") => return Ok(0),
        Some("false") => {}
        _ => return Err(unclear()),
    }
    let (mut all, mut one) = (0u64, 0u64);
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("constants_info_["))
    {
        if let Some((_, size)) = line.split_once("].data_size = ") {
            one = size.trim_end_matches(';').parse().map_err(|_| unclear())?;
        } else if line.ends_with("].from_folded = false;") {
            all = all.saturating_add(one);
        }
    }
    Ok(all)
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
    let symbols = Symbols::of(text);
    let mut found = Vec::new();
    let check = |index: usize| format!("static void check_input_{index}(");
    while let Some((_, rest)) = text.split_once(&check(found.len())) {
        // The check ends where the next function begins.
        let body = rest.split("\nAOTI_NOINLINE").next().unwrap_or(rest);
        let body = body.split("\nstatic ").next().unwrap_or(body);
        let mut input = input(body)?;
        let named = text.split_once(&format!("inputs_info_[{}].name = \"", found.len()));
        let name = named.and_then(|(_, rest)| rest.split('"').next());
        let name = name.ok_or_else(|| unreadable("an input has no name"))?;
        if symbols.read_a_stride_of(name) {
            return Err(other_layout());
        }
        for (place, extent) in input.extents.iter_mut().enumerate() {
            extent.dimension = symbols.dimension(name, place);
        }
        found.push(input);
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
            let extent = at(&mut extents, bound.place, Extent::ANY)?;
            match bound.is {
                Is::Exactly(exactly) => (extent.least, extent.most) = (exactly, exactly),
                Is::AtMost(bound) => extent.most = bound,
                Is::AtLeast(bound) => extent.least = bound,
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
        extents.push(Extent::ANY);
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
