//! Names of request parameters that are not a caller's to choose.

use mesh_types::{Parameters, has_meaning, is_reserved};

use crate::error::{DecodeError, quoted};

/// Whether a header of this name must not become a parameter.
pub(crate) fn is_reserved_for_headers(name: &str) -> bool {
    is_reserved(name) || has_meaning(name)
}

/// Refuses parameters whose names are reserved.
pub(crate) fn check(parameters: &Parameters) -> Result<(), DecodeError> {
    match parameters.keys().find(|name| is_reserved(name)) {
        None => Ok(()),
        Some(name) => Err(DecodeError::Reserved { name: quoted(name) }),
    }
}

#[cfg(test)]
mod tests {
    use mesh_types::ParameterValue;

    use super::*;

    #[test]
    fn reserved_names_are_refused_and_others_are_not() {
        let of = |name: &str| {
            let parameters = [(name.to_owned(), ParameterValue::Bool(true))].into_iter().collect();
            check(&parameters)
        };
        for name in ["headers", "triton_", "triton_enable_empty_final_response"] {
            let error = of(name).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("reserved"), "{error}");
        }
        for name in ["priority", "sequence_id", "header", "tritons", "my_triton_x"] {
            assert_eq!(of(name), Ok(()), "{name}");
        }
    }
}
