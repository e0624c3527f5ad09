//! How a package's inputs and outputs lie in tuples, lists and dictionaries: PyTorch's tree specification, as JSON.

use mesh_backend::{BackendError, MAX_DEPTH, ValueType};
use serde::Deserialize;

/// The version of the specification's JSON.
const PROTOCOL: u32 = 1;

#[derive(Debug, Deserialize)]
struct Node {
    #[serde(rename = "type")]
    kind: Option<String>,
    context: Option<String>,
    #[serde(default)]
    children_spec: Vec<Node>,
}

fn unreadable(why: &str) -> BackendError {
    BackendError::Load(format!("the package's call specification cannot be read: {why}"))
}

/// Reads a specification; each leaf is the next of the values given.
pub(crate) fn read(json: &str, leaves: &mut dyn Iterator<Item = ValueType>) -> Result<ValueType, BackendError> {
    let (protocol, node): (u32, Node) = serde_json::from_str(json).map_err(|error| unreadable(&error.to_string()))?;
    if protocol != PROTOCOL {
        return Err(unreadable(&format!("protocol {protocol} is not known")));
    }
    value(node, 0, leaves)
}

fn value(node: Node, depth: usize, leaves: &mut dyn Iterator<Item = ValueType>) -> Result<ValueType, BackendError> {
    if depth > MAX_DEPTH + 2 {
        return Err(unreadable("it is nested too deeply"));
    }
    let Some(kind) = node.kind else {
        return leaves.next().ok_or_else(|| {
            BackendError::Load(
                "the package was exported with arguments that are no tensors: export it with tensors only".to_owned(),
            )
        });
    };
    let context = node.context.unwrap_or_default();
    let mut children = Vec::with_capacity(node.children_spec.len());
    for child in node.children_spec {
        children.push(value(child, depth + 1, leaves)?);
    }
    if kind == "builtins.dict" || kind == "collections.OrderedDict" {
        let keys: Vec<String> =
            serde_json::from_str(&context).map_err(|_| unreadable("a dictionary has keys that are no strings"))?;
        if keys.len() != children.len() {
            return Err(unreadable("a dictionary has more keys than values, or fewer"));
        }
        return Ok(ValueType::Record(keys.into_iter().zip(children).collect()));
    }
    match kind.as_str() {
        "builtins.tuple" | "builtins.list" | "collections.namedtuple" => Ok(ValueType::Tuple(children)),
        other => Err(BackendError::Unsupported(format!(
            "the package takes or gives a {other}; use tensors, tuples, lists and dictionaries"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(json: &str, leaves: usize) -> Result<String, String> {
        let mut leaves = (0..leaves).map(|_| ValueType::tensor());
        let value = read(json, &mut leaves).map_err(|error| error.to_string())?;
        Ok(format!("{value} and {} more", leaves.count()))
    }

    const LEAF: &str = r#"{"type": null, "context": null, "children_spec": []}"#;

    #[test]
    fn tuples_lists_and_dictionaries_are_read() {
        let dict = format!(r#"{{"type": "builtins.dict", "context": "[\"k\"]", "children_spec": [{LEAF}]}}"#);
        let json =
            format!(r#"[1, {{"type": "builtins.tuple", "context": "null", "children_spec": [{LEAF}, {dict}]}}]"#);
        assert_eq!(read_all(&json, 2).unwrap(), "Tuple[Tensor, {k: Tensor}] and 0 more");
        assert_eq!(read_all(&json, 3).unwrap(), "Tuple[Tensor, {k: Tensor}] and 1 more");
        assert!(
            read_all(&json, 1)
                .unwrap_err()
                .contains("arguments that are no tensors")
        );
    }

    #[test]
    fn what_is_not_known_is_refused() {
        assert!(read_all(&format!("[2, {LEAF}]"), 1).unwrap_err().contains("protocol 2"));
        let other = r#"[1, {"type": "mine.Config", "context": "null", "children_spec": []}]"#;
        assert!(read_all(other, 1).unwrap_err().contains("mine.Config"));
        let keys = r#"[1, {"type": "builtins.dict", "context": "[1]", "children_spec": []}]"#;
        assert!(read_all(keys, 1).unwrap_err().contains("keys that are no strings"));
        let mut deep = LEAF.to_owned();
        for _ in 0..12 {
            deep = format!(r#"{{"type": "builtins.list", "context": "null", "children_spec": [{deep}]}}"#);
        }
        assert!(read_all(&format!("[1, {deep}]"), 1).unwrap_err().contains("too deeply"));
        assert!(read_all("{", 1).is_err());
    }
}
