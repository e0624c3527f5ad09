//! `NaN`, `Infinity` and `-Infinity`, which TensorFlow Serving takes and gives for numbers though JSON has none of them.
//!
//! They are put between quotation marks before the JSON is parsed, and a number may be such a text from then on.

use std::borrow::Cow;

/// What is not finite, by its name.
pub(crate) fn named(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => None,
    }
}

const NAMES: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];

/// The body with such numbers quoted; the same body where it has none.
pub(crate) fn quoted(body: &[u8]) -> Cow<'_, [u8]> {
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut copied, mut in_string) = (0, 0, false);
    while let Some(byte) = body.get(at) {
        match byte {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'N' | b'I' | b'-' if !in_string => {
                let rest = body.get(at..).unwrap_or_default();
                if let Some(name) = NAMES.iter().find(|name| rest.starts_with(name)) {
                    let out = out.get_or_insert_with(|| Vec::with_capacity(body.len() + body.len() / 2));
                    out.extend_from_slice(body.get(copied..at).unwrap_or_default());
                    out.push(b'"');
                    out.extend_from_slice(name);
                    out.push(b'"');
                    at += name.len();
                    copied = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    match out {
        None => Cow::Borrowed(body),
        Some(mut out) => {
            out.extend_from_slice(body.get(copied..).unwrap_or_default());
            Cow::Owned(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> String {
        String::from_utf8(quoted(body.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn numbers_that_json_does_not_know_are_quoted_and_strings_are_left_alone() {
        assert_eq!(
            text(r#"[NaN,-Infinity, Infinity,-1,"NaN","\"NaN"]"#),
            r#"["NaN","-Infinity", "Infinity",-1,"NaN","\"NaN"]"#
        );
        assert!(matches!(quoted(b"[1,-2,\"Infinity\"]"), Cow::Borrowed(_)));
        assert_eq!(text("\"\\"), "\"\\");
    }
}
