//! Nested JSON lists to tensors: the values in row order and the shape they have.

use serde_json::Value;

/// The deepest nesting; the protocol's own bound on dimensions.
const MAX_RANK: usize = 16;

/// An input as given on the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedInput {
    /// The tensor's name.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its values, flat.
    pub data: Vec<Value>,
}

impl NamedInput {
    /// Reads `name=[[1,2],[3,4]]`; a single value is a tensor of one element.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, json) = text
            .split_once('=')
            .ok_or_else(|| format!("'{text}' has no '=': write NAME=JSON, such as pixels=[[0,1]]"))?;
        let value: Value =
            serde_json::from_str(json).map_err(|error| format!("the values of '{name}' are not json: {error}"))?;
        let (mut shape, mut data) = (Vec::new(), Vec::new());
        let value = match value {
            Value::Array(items) => Value::Array(items),
            single => Value::Array(vec![single]),
        };
        flatten(&value, 0, &mut shape, &mut data).map_err(|problem| format!("the values of '{name}' {problem}"))?;
        Ok(Self {
            name: name.to_owned(),
            shape,
            data,
        })
    }
}

fn flatten(value: &Value, depth: usize, shape: &mut Vec<usize>, data: &mut Vec<Value>) -> Result<(), String> {
    let Value::Array(items) = value else {
        if shape.len() != depth {
            return Err("mix values and lists on one level".to_owned());
        }
        if value.is_object() || value.is_null() {
            return Err("hold something other than numbers, booleans and texts".to_owned());
        }
        data.push(value.clone());
        return Ok(());
    };
    if depth >= MAX_RANK {
        return Err(format!("are nested deeper than {MAX_RANK} lists"));
    }
    match shape.get(depth) {
        Some(length) if *length != items.len() => {
            return Err(format!("have lists of {length} and of {} on one level", items.len()));
        }
        Some(_) => {}
        // A value was already met at this depth, so a list cannot come.
        None if !data.is_empty() => return Err("mix values and lists on one level".to_owned()),
        None => shape.push(items.len()),
    }
    for item in items {
        flatten(item, depth + 1, shape, data)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_lists_have_a_shape() {
        let input = NamedInput::parse("x=[[1,2,3],[4,5,6]]").unwrap();
        assert_eq!((input.shape, input.data.len()), (vec![2, 3], 6));
        assert_eq!(NamedInput::parse("x=7").unwrap().shape, [1]);
        assert_eq!(NamedInput::parse("x=[]").unwrap().shape, [0]);
        assert_eq!(NamedInput::parse(r#"x=["a=b"]"#).unwrap().data, ["a=b"]);
    }

    #[test]
    fn ragged_lists_mixed_levels_and_objects_are_refused() {
        for bad in [
            "x",
            "x=[1,",
            "x=[[1],[2,3]]",
            "x=[[1],2]",
            "x=[1,[2]]",
            "x={}",
            "x=[null]",
        ] {
            assert!(NamedInput::parse(bad).is_err(), "{bad}");
        }
        let nested = |depth: usize| format!("x={}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(NamedInput::parse(&nested(MAX_RANK)).is_ok());
        assert!(NamedInput::parse(&nested(MAX_RANK + 1)).is_err());
    }
}
