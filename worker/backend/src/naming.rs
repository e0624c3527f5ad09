//! What the names of inputs and outputs say of their places in a signature.
//!
//! Owns the rules that [`crate::Binding`] documents. Says where something is, and not whether it is what the configuration says.

use mesh_types::TensorSpec;

use crate::{
    binding::Step,
    signature::{Argument, ValueType},
};

/// An argument's place and the way into it.
pub(crate) type Place = (usize, Vec<Step>);

/// The place of each input: the first of the rules in [`crate::binding`] that applies to all.
pub(crate) fn places_of(arguments: &[Argument], inputs: &[TensorSpec]) -> Result<Vec<Place>, String> {
    let named: Vec<Option<Place>> = inputs.iter().map(|spec| by_name(arguments, &spec.name)).collect();
    if named.iter().all(Option::is_some) {
        return Ok(named.into_iter().flatten().collect());
    }
    // Those that inputs stand for.
    let of_inputs = arguments.iter().enumerate();
    let of_inputs: Vec<(usize, &Argument)> = of_inputs
        .filter(|(_, argument)| !argument.value.is_parameters())
        .collect();
    if let [(place, only)] = of_inputs.as_slice()
        && matches!(only.value.present(), ValueType::Dict { .. } | ValueType::Record(_))
    {
        let key = |spec: &TensorSpec| way_into(&only.value, &format!(".{}", spec.name));
        let keyed: Option<Vec<Place>> = inputs.iter().map(|spec| key(spec).map(|path| (*place, path))).collect();
        if let Some(keyed) = keyed {
            return Ok(keyed);
        }
    }
    let indexed: Option<Vec<usize>> = inputs.iter().map(|spec| index_in(&spec.name)).collect();
    if let Some(indexed) = indexed {
        return Ok(indexed.into_iter().map(|index| (index, Vec::new())).collect()).and_then(|places: Vec<Place>| {
            let beyond = places
                .iter()
                .zip(inputs)
                .find(|((index, _), _)| *index >= arguments.len());
            match beyond {
                Some((_, spec)) => Err(format!(
                    "input '{}' is beyond the arguments, which are __0 to __{}",
                    spec.name,
                    arguments.len().saturating_sub(1)
                )),
                None => Ok(places),
            }
        });
    }
    let places: Vec<usize> = of_inputs.iter().map(|(place, _)| *place).collect();
    in_order(arguments, &places, inputs, &named)
}

/// The configuration's order, where no name says anything else.
fn in_order(
    arguments: &[Argument],
    places: &[usize],
    inputs: &[TensorSpec],
    named: &[Option<Place>],
) -> Result<Vec<Place>, String> {
    let misplaced = named.iter().enumerate().find_map(|(input, place)| {
        let (argument, path) = place.as_ref()?;
        (places.get(input) != Some(argument) || !path.is_empty()).then_some(input)
    });
    let unknown = inputs.iter().zip(named).find(|(_, place)| place.is_none());
    if let (Some(_), Some((spec, _))) = (misplaced, unknown) {
        return Err(format!(
            "input '{}' is none of the arguments, which are {}",
            spec.name,
            names(arguments)
        ));
    }
    if inputs.len() > places.len() {
        return Err(format!(
            "{} inputs for {} arguments, which are {}",
            inputs.len(),
            places.len(),
            names(arguments)
        ));
    }
    Ok(places
        .iter()
        .take(inputs.len())
        .map(|place| (*place, Vec::new()))
        .collect())
}

fn names(arguments: &[Argument]) -> String {
    let leaves = arguments
        .iter()
        .filter(|argument| !argument.value.is_parameters())
        .flat_map(|argument| argument.value.leaves(&argument.name));
    let names: Vec<String> = leaves.map(|(name, _)| name).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn by_name(arguments: &[Argument], name: &str) -> Option<Place> {
    arguments.iter().enumerate().find_map(|(index, argument)| {
        let rest = name.strip_prefix(argument.name.as_str())?;
        way_into(&argument.value, rest).map(|path| (index, path))
    })
}

/// The way that the rest of a name leads into a value: `__<index>` and `.<key>`, again and again.
fn way_into(value: &ValueType, rest: &str) -> Option<Vec<Step>> {
    if rest.is_empty() {
        return value.is_leaf().then(Vec::new);
    }
    if value.is_leaf() {
        return None;
    }
    let behind = |step: Step, value: &ValueType, rest: &str| {
        let mut path = way_into(value, rest)?;
        path.insert(0, step);
        Some(path)
    };
    match value.present() {
        ValueType::List { item, .. } => {
            let (index, rest) = leading_index(rest)?;
            behind(Step::Index(index), item, rest)
        }
        ValueType::Tuple(items) => {
            let (index, rest) = leading_index(rest)?;
            behind(Step::Index(index), items.get(index)?, rest)
        }
        ValueType::Record(fields) => {
            let rest = rest.strip_prefix('.')?;
            let ways = fields
                .iter()
                .filter_map(|(key, value)| behind(Step::Key(key.clone()), value, rest.strip_prefix(key.as_str())?));
            ways.max_by_key(Vec::len)
        }
        ValueType::Dict { value, .. } => {
            let rest = rest.strip_prefix('.').filter(|rest| !rest.is_empty())?;
            if value.is_leaf() {
                return Some(vec![Step::Key(rest.to_owned())]);
            }
            let end = rest.find("__").into_iter().chain(rest.find('.')).min()?;
            let (key, rest) = rest.split_at_checked(end)?;
            behind(Step::Key(key.to_owned()), value, rest)
        }
        _ => None,
    }
}

fn leading_index(rest: &str) -> Option<(usize, &str)> {
    let digits = rest.strip_prefix("__")?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (number, rest) = digits.split_at_checked(end)?;
    Some((number.parse().ok()?, rest))
}

/// The index at the end of a name: Triton's `<name>__<index>`.
fn index_in(name: &str) -> Option<usize> {
    let (_, digits) = name.rsplit_once("__")?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// The way to each output.
pub(crate) fn bind_results(result: &ValueType, outputs: &[TensorSpec], problems: &mut Vec<String>) -> Vec<Vec<Step>> {
    let ways = ways_to(result, outputs, problems);
    for (index, (way, spec)) in ways.iter().zip(outputs).enumerate() {
        if !way.is_empty() && ways.iter().take(index).any(|other| other == way) {
            problems.push(format!(
                "output '{}' is a result that another output is as well",
                spec.name
            ));
        }
    }
    ways
}

fn ways_to(result: &ValueType, outputs: &[TensorSpec], problems: &mut Vec<String>) -> Vec<Vec<Step>> {
    if result.is_leaf() {
        if outputs.len() > 1 {
            problems.push(format!(
                "forward returns 1 tensor, the configuration has {} outputs",
                outputs.len()
            ));
        }
        return outputs.iter().map(|_| Vec::new()).collect();
    }
    if !result.leaves("").iter().any(|(_, leaf)| leaf.is_leaf()) {
        problems.push(format!(
            "forward returns {result}, which no output can be: return tensors or numbers, or lists, tuples and dictionaries (with \
             strings as keys) of tensors"
        ));
        return Vec::new();
    }
    let keyed: Option<Vec<_>> = outputs
        .iter()
        .map(|spec| way_into(result, &format!(".{}", spec.name)))
        .collect();
    if let Some(keyed) = keyed {
        return keyed;
    }
    let indexed = |spec: &TensorSpec| {
        let at = spec.name.match_indices("__").map(|(at, _)| at);
        at.filter_map(|at| spec.name.get(at..))
            .find_map(|rest| way_into(result, rest))
    };
    let ways: Option<Vec<_>> = outputs.iter().map(indexed).collect();
    if let Some(ways) = ways {
        return ways;
    }
    ordered_results(result, outputs, problems)
}

fn ordered_results(result: &ValueType, outputs: &[TensorSpec], problems: &mut Vec<String>) -> Vec<Vec<Step>> {
    if let ValueType::List { item, length: None } = result.present()
        && item.is_leaf()
    {
        return (0..outputs.len()).map(|index| vec![Step::Index(index)]).collect();
    }
    let mut leaves = result.leaves("OUTPUT");
    leaves.retain(|(_, leaf)| leaf.is_leaf());
    let names: Vec<&str> = leaves.iter().map(|(name, _)| name.as_str()).collect();
    if matches!(result.present(), ValueType::Dict { .. }) {
        let names: Vec<&str> = names
            .iter()
            .filter_map(|name| name.split_once('.'))
            .map(|(_, key)| key)
            .collect();
        problems.push(format!(
            "outputs are the keys of {result}, such as {}",
            names.join(", ")
        ));
        return Vec::new();
    }
    if outputs.len() > leaves.len() {
        problems.push(format!(
            "forward returns {} tensors, the configuration has {} outputs; they are {}",
            leaves.len(),
            outputs.len(),
            names.join(", ")
        ));
        return Vec::new();
    }
    let ways: Option<Vec<_>> = names
        .iter()
        .take(outputs.len())
        .map(|name| way_into(result, name.strip_prefix("OUTPUT")?))
        .collect();
    ways.unwrap_or_else(|| {
        problems.push(format!("outputs are {}", names.join(", ")));
        Vec::new()
    })
}
