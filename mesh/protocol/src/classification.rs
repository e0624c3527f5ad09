//! The parameter `classification` of an output: how many classes are wanted of it, as clients write it.
//!
//! What classes are is not the wire's to say: [`mesh_types::Classes`] makes them.

use mesh_types::{ClassCount, ParameterValue};

use crate::error::{DecodeError, quoted};

/// Adds what an output's parameter asks for, if it has one: a whole number above zero, or the text of one.
pub(crate) fn read(
    output: &str,
    value: Option<&ParameterValue>,
    classes: &mut Vec<ClassCount>,
) -> Result<(), DecodeError> {
    let Some(value) = value else { return Ok(()) };
    let number = match value {
        ParameterValue::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        value => value.as_u64(),
    };
    match number {
        None | Some(0) => Err(DecodeError::ClassCount { name: quoted(output) }),
        Some(number) => {
            classes.push(ClassCount {
                output: output.to_owned(),
                // More than any output has: all of them.
                count: u32::try_from(number).unwrap_or(u32::MAX),
            });
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &ParameterValue) -> Result<u32, DecodeError> {
        let mut classes = Vec::new();
        read("y", Some(value), &mut classes)?;
        Ok(classes[0].count)
    }

    #[test]
    fn a_number_of_any_form_is_taken_from_one_on() {
        assert_eq!(of(&ParameterValue::Int(1)), Ok(1));
        assert_eq!(of(&ParameterValue::String("3".into())), Ok(3));
        assert_eq!(of(&ParameterValue::Int(i64::from(u32::MAX) + 1)), Ok(u32::MAX));
        assert_eq!(of(&ParameterValue::Uint(u64::MAX)), Ok(u32::MAX));
    }

    #[test]
    fn what_is_no_number_of_classes_is_refused_with_the_outputs_name() {
        for value in [
            ParameterValue::Int(0),
            ParameterValue::Int(-1),
            ParameterValue::Double(1.0),
            ParameterValue::Bool(true),
            ParameterValue::String(String::new()),
            ParameterValue::String("-3".into()),
            ParameterValue::String("99999999999999999999999".into()),
        ] {
            let error = of(&value).unwrap_err();
            assert!(error.to_string().contains("output 'y'"), "{value:?}: {error}");
        }
    }

    #[test]
    fn an_output_without_the_parameter_keeps_its_numbers() {
        let mut classes = Vec::new();
        read("y", None, &mut classes).unwrap();
        assert!(classes.is_empty());
    }
}
