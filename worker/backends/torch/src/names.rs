//! Which argument an input is: Triton's naming rules for TorchScript.
//!
//! If every name is `<name>__<index>`, the indices are the positions; otherwise the configuration's order is.

use mesh_backend::BackendError;
use mesh_types::TensorSpec;

/// For each position of the model's arguments (or results) the index of its spec.
pub(crate) fn positions(what: &str, specs: &[TensorSpec]) -> Result<Vec<usize>, BackendError> {
    let indexed: Option<Vec<usize>> = specs.iter().map(|spec| index_in(&spec.name)).collect();
    let Some(indexed) = indexed else {
        return Ok((0..specs.len()).collect());
    };
    let mut positions = vec![None; specs.len()];
    for (spec, position) in indexed.iter().enumerate() {
        match positions.get_mut(*position) {
            Some(slot @ None) => *slot = Some(spec),
            _ => {
                let problem = format!("{what} names end in __0 to __{}, each once", specs.len() - 1);
                return Err(BackendError::Load(problem));
            }
        }
    }
    Ok(positions.into_iter().flatten().collect())
}

fn index_in(name: &str) -> Option<usize> {
    let (_, digits) = name.rsplit_once("__")?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_types::DataType;

    fn check(names: &[&str]) -> Result<Vec<usize>, BackendError> {
        let spec = |name: &&str| TensorSpec::new(*name, DataType::Fp32, &[1]);
        positions("input", &names.iter().map(spec).collect::<Vec<_>>())
    }

    #[test]
    fn an_index_in_the_name_is_the_position() {
        assert_eq!(check(&["INPUT__1", "INPUT__0"]), Ok(vec![1, 0]));
    }

    #[test]
    fn other_names_keep_the_configurations_order() {
        assert_eq!(check(&["b", "a"]), Ok(vec![0, 1]));
        assert_eq!(check(&["x__1", "plain"]), Ok(vec![0, 1]));
    }

    #[test]
    fn an_index_twice_or_too_high_is_refused() {
        assert!(check(&["a__0", "b__0"]).is_err());
        assert!(check(&["a__0", "b__2"]).is_err());
    }
}
