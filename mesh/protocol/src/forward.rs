//! Headers that become parameters of a request, where the server is set up to forward them.
//!
//! Owns which headers match, what they are called as parameters (their names in small letters) and the bounds. Off is no pattern
//! at all, so that a request costs nothing where nothing is forwarded. Credentials are never forwarded, whatever the pattern says.
//!
//! A parameter that the body has as well is refused: what a gateway says in a header must not be said otherwise by a caller.

use std::{fmt, str::FromStr};

use mesh_types::{ParameterValue, Parameters};
use regex::{Regex, RegexBuilder};

use crate::{
    error::{DecodeError, quoted},
    parameters::is_reserved_for_headers,
};

/// The most headers of a request that are forwarded.
pub const MAX_FORWARDED: usize = 32;
/// The most bytes of their names and values together.
pub const MAX_FORWARDED_BYTES: usize = 8 << 10;
/// The most memory of a pattern, compiled.
const MAX_PATTERN_BYTES: usize = 256 << 10;
/// What says who calls is for the server alone.
const CREDENTIALS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "set-cookie"];

/// Which headers are forwarded: those whose whole name matches, in large or small letters.
#[derive(Clone)]
pub struct HeaderPattern(Regex);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a regular expression for the whole name of a header: {0}")]
pub struct PatternError(String);

impl FromStr for HeaderPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        // Looked at alone first, so that a bracket too many does not get out of the brackets around it.
        let checked = Regex::new(text).and_then(|_| {
            let mut whole = RegexBuilder::new(&format!("^(?:{text})$"));
            whole.case_insensitive(true).size_limit(MAX_PATTERN_BYTES).build()
        });
        checked.map(Self).map_err(|error| PatternError(error.to_string()))
    }
}

impl fmt::Debug for HeaderPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeaderPattern({})", self.0)
    }
}

impl PartialEq for HeaderPattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl HeaderPattern {
    /// The headers that match, as parameters. Names are in small letters; a header that is there several times becomes one
    /// parameter, its values in their order with commas between them.
    pub fn gather<'a>(&self, headers: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Parameters, DecodeError> {
        let mut gathered = Parameters::new();
        let (mut count, mut bytes) = (0, 0);
        for (name, value) in headers {
            if CREDENTIALS.contains(&name) || !self.0.is_match(name) {
                continue;
            }
            if is_reserved_for_headers(name) {
                return Err(DecodeError::Header {
                    name: quoted(name),
                    problem: "its name is that of a parameter with a meaning of its own, so it cannot be forwarded",
                });
            }
            let text = std::str::from_utf8(value).map_err(|_| DecodeError::Header {
                name: quoted(name),
                problem: "it is forwarded, so it must be text",
            })?;
            (count, bytes) = (count + 1, bytes + name.len() + text.len());
            if count > MAX_FORWARDED || bytes > MAX_FORWARDED_BYTES {
                return Err(DecodeError::TooManyHeaders);
            }
            match gathered.get_mut(name) {
                Some(ParameterValue::String(known)) => {
                    known.push_str(", ");
                    known.push_str(text);
                }
                _ => {
                    gathered.insert(name.to_owned(), ParameterValue::String(text.to_owned()));
                }
            }
        }
        Ok(gathered)
    }
}

/// Adds what was gathered of the headers to the parameters of a request.
pub fn add_forwarded(gathered: Parameters, parameters: &mut Parameters) -> Result<(), DecodeError> {
    for (name, value) in gathered {
        if parameters.contains_key(&name) {
            return Err(DecodeError::Header {
                name: quoted(&name),
                problem: "it is forwarded, so the request cannot have a parameter of that name",
            });
        }
        parameters.insert(name, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forwarded(pattern: &str, headers: &[(&str, &str)], own: &[&str]) -> Result<Vec<(String, String)>, String> {
        let mut parameters = Parameters::new();
        for name in own {
            parameters.insert((*name).to_owned(), ParameterValue::String("own".into()));
        }
        let pattern: HeaderPattern = pattern.parse().map_err(|error: PatternError| error.to_string())?;
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let gathered = pattern.gather(headers);
        let added = gathered.and_then(|gathered| add_forwarded(gathered, &mut parameters));
        added.map_err(|error| error.to_string())?;
        let text = |value: ParameterValue| value.as_str().unwrap_or_default().to_owned();
        Ok(parameters
            .into_iter()
            .map(|(name, value)| (name, text(value)))
            .collect())
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn a_header_is_forwarded_where_its_whole_name_matches() {
        let headers = [
            ("x-tag", "1"),
            ("x-tag-secret", "2"),
            ("my-x-tag", "3"),
            ("x-other", "4"),
        ];
        assert_eq!(
            forwarded("X-Tag|x-other", &headers, &[]).unwrap(),
            pairs(&[("x-tag", "1"), ("x-other", "4")])
        );
        assert_eq!(forwarded("none", &headers, &["a"]).unwrap(), pairs(&[("a", "own")]));
        let twice = [("x-tag", "1"), ("x-tag", "2")];
        assert_eq!(
            forwarded("x-.*", &twice, &["a"]).unwrap(),
            pairs(&[("a", "own"), ("x-tag", "1, 2")])
        );
    }

    #[test]
    fn credentials_are_never_forwarded() {
        let headers = [
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("proxy-authorization", "x"),
        ];
        assert_eq!(forwarded(".*", &headers, &[]).unwrap(), []);
    }

    #[test]
    fn names_with_a_meaning_of_their_own_are_refused() {
        for name in [
            "priority",
            "timeout",
            "sequence_id",
            "triton_enable",
            "headers",
            "binary_data_output",
        ] {
            let error = forwarded(".*", &[(name, "1")], &[]).unwrap_err();
            assert!(error.contains(name) && error.contains("meaning of its own"), "{error}");
            assert_eq!(forwarded("x-.*", &[(name, "1")], &[]).unwrap(), []);
        }
    }

    #[test]
    fn what_the_body_says_as_well_is_refused() {
        let error = forwarded("x-.*", &[("x-tier", "gold")], &["x-tier"]).unwrap_err();
        assert!(error.contains("x-tier"), "{error}");
    }

    #[test]
    fn as_many_headers_and_bytes_as_the_bounds_pass_and_one_more_does_not() {
        let names: Vec<String> = (0..=MAX_FORWARDED).map(|at| format!("x-{at}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        assert_eq!(
            forwarded("x-.*", &headers[..MAX_FORWARDED], &[]).unwrap().len(),
            MAX_FORWARDED
        );
        assert!(forwarded("x-.*", &headers, &[]).unwrap_err().contains("at most"));
        let long = |bytes: usize| forwarded("x-.*", &[("x-1", &"v".repeat(bytes - 3))], &[]);
        assert!(long(MAX_FORWARDED_BYTES).is_ok());
        assert!(long(MAX_FORWARDED_BYTES + 1).is_err());
    }

    #[test]
    fn what_is_no_pattern_says_so() {
        for bad in ["(", "a)|(b", "[", "(?:a{1000}){1000}"] {
            assert!(bad.parse::<HeaderPattern>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_headers_are_forwarded_within_the_bounds_or_refused(
            headers in prop::collection::vec(("[a-z_-]{1,12}", prop::collection::vec(any::<u8>(), 0..600)), 0..60)
        ) {
            let pattern: HeaderPattern = ".*".parse().unwrap();
            let given = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            if let Ok(gathered) = pattern.gather(given) {
                prop_assert!(gathered.len() <= MAX_FORWARDED);
            }
        }
    }
}
