//! Paths of V1, which TensorFlow Serving reads without regard to case.

use actix_web::http::Method;
use mesh_types::{Fault, Label, Version, VersionSelector};

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Status,
    Metadata,
    Predict,
    Classify,
    Regress,
    Explain,
}

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// KServe's list of models.
    List,
    Model {
        name: &'a str,
        which: Which<'a>,
        call: Call,
    },
}

/// Which version, as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which<'a> {
    Default,
    Version(&'a str),
    Label(&'a str),
}

impl Which<'_> {
    /// The version that is meant.
    pub(crate) fn selector(self) -> Result<VersionSelector, Fault> {
        match self {
            Self::Default => Ok(VersionSelector::Default),
            Self::Version(text) => {
                let number = text.parse::<Version>();
                let number = number.map_err(|error| Fault::invalid(format!("Failed to convert version: {error}")))?;
                Ok(VersionSelector::Version(number))
            }
            Self::Label(text) => match Label::parse(text) {
                Ok(label) => Ok(VersionSelector::Label(label)),
                Err(error) => Err(Fault::invalid(format!("Unrecognized servable version label: {error}"))),
            },
        }
    }
}

/// Whether the path is one of V1 at all.
pub(crate) fn is_v1(path: &str) -> bool {
    after(path, "/v1/").is_some()
}

/// What the path asks for, and by which verb.
pub(crate) fn route(path: &str) -> Option<(Route<'_>, Method)> {
    let rest = after(path, "/v1/models")?;
    if rest.is_empty() || rest == "/" {
        return Some((Route::List, Method::GET));
    }
    let (rest, call) = match rest.strip_prefix('/')?.split_once(':') {
        Some((rest, verb)) => (rest, Some(posted(verb)?)),
        None => (rest.strip_prefix('/')?, None),
    };
    let (name, rest) = split(rest);
    let (which, rest) = which(rest)?;
    let call = match (call, rest) {
        (Some(call), None) => call,
        (None, None) => Call::Status,
        (None, Some(rest)) if rest.eq_ignore_ascii_case("metadata") => Call::Metadata,
        _ => return None,
    };
    let verb = match call {
        Call::Status | Call::Metadata => Method::GET,
        _ => Method::POST,
    };
    (!name.is_empty()).then_some((Route::Model { name, which, call }, verb))
}

fn posted(verb: &str) -> Option<Call> {
    let calls = [
        ("predict", Call::Predict),
        ("classify", Call::Classify),
        ("regress", Call::Regress),
        ("explain", Call::Explain),
    ];
    let found = calls.iter().find(|(name, _)| verb.eq_ignore_ascii_case(name));
    found.map(|(_, call)| *call)
}

/// The version or label, and what follows it.
fn which(rest: Option<&str>) -> Option<(Which<'_>, Option<&str>)> {
    let Some(text) = rest else {
        return Some((Which::Default, None));
    };
    if let Some(text) = after(text, "versions/") {
        let (version, rest) = split(text);
        return (!version.is_empty()).then_some((Which::Version(version), rest));
    }
    if let Some(text) = after(text, "labels/") {
        let (label, rest) = split(text);
        return (!label.is_empty()).then_some((Which::Label(label), rest));
    }
    Some((Which::Default, rest))
}

/// What follows a prefix, whose case does not matter.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('/')
        .map_or((path, None), |(first, rest)| (first, Some(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str) -> Option<(Which<'_>, Call, Method)> {
        match route(path)? {
            (
                Route::Model {
                    name: "m.1",
                    which,
                    call,
                },
                verb,
            ) => Some((which, call, verb)),
            _ => None,
        }
    }

    #[test]
    fn every_route_is_found_whatever_its_case() {
        assert_eq!(route("/v1/models"), Some((Route::List, Method::GET)));
        assert_eq!(route("/v1/models/"), Some((Route::List, Method::GET)));
        for (path, which, call, verb) in [
            ("/v1/models/m.1", Which::Default, Call::Status, Method::GET),
            ("/V1/Models/m.1/Metadata", Which::Default, Call::Metadata, Method::GET),
            ("/v1/models/m.1:predict", Which::Default, Call::Predict, Method::POST),
            ("/v1/models/m.1:Classify", Which::Default, Call::Classify, Method::POST),
            (
                "/v1/models/m.1/versions/3:regress",
                Which::Version("3"),
                Call::Regress,
                Method::POST,
            ),
            (
                "/v1/models/m.1/versions/3",
                Which::Version("3"),
                Call::Status,
                Method::GET,
            ),
            (
                "/v1/models/m.1/labels/stable:predict",
                Which::Label("stable"),
                Call::Predict,
                Method::POST,
            ),
            (
                "/v1/models/m.1/labels/stable/metadata",
                Which::Label("stable"),
                Call::Metadata,
                Method::GET,
            ),
            ("/v1/models/m.1:explain", Which::Default, Call::Explain, Method::POST),
        ] {
            assert_eq!(found(path), Some((which, call, verb)), "{path}");
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        for path in [
            "/v1/model",
            "/v1/models/:predict",
            "/v1/models//versions/1:predict",
            "/v1/models/m.1:guess",
            "/v1/models/m.1/versions/:predict",
            "/v1/models/m.1/versions/1/more:predict",
            "/v1/models/m.1/metadata:predict",
            "/v1/models/m.1/other",
            "/v1/modelsm.1",
        ] {
            assert_eq!(route(path), None, "{path}");
        }
        assert!(is_v1("/v1/anything") && !is_v1("/v2/models") && !is_v1("/v1"));
    }

    #[test]
    fn what_is_no_version_or_label_is_told_in_the_words_that_clients_know() {
        let text = |which: Which<'_>| which.selector().unwrap_err().message.to_string();
        assert!(text(Which::Version("x")).starts_with("Failed to convert version"));
        assert!(text(Which::Version("99999999999999999999")).starts_with("Failed to convert version"));
        assert!(text(Which::Label("No Such")).starts_with("Unrecognized servable version label"));
    }

    // Each kind of route by a name, and all names: a route that is added must find its place here, and so in the document.
    macro_rules! kinds {
        ($($name:literal: $pattern:pat,)*) => {
            const KINDS: &[&str] = &[$($name),*];
            fn kind(route: Route<'_>) -> &'static str {
                match route { $($pattern => $name,)* }
            }
        };
    }
    kinds! {
        "classify": Route::Model { call: Call::Classify, .. },
        "explain": Route::Model { call: Call::Explain, .. },
        "list": Route::List,
        "metadata": Route::Model { call: Call::Metadata, .. },
        "predict": Route::Model { call: Call::Predict, .. },
        "regress": Route::Model { call: Call::Regress, .. },
        "status": Route::Model { call: Call::Status, .. },
    }

    #[test]
    fn every_route_of_version_1_is_in_the_document_and_all_that_is_there_is_a_route() {
        let mut found: Vec<(&str, Option<&str>)> = Vec::new();
        let all = mesh_protocol::openapi::operations();
        for operation in all.into_iter().filter(mesh_protocol::openapi::Operation::is_v1) {
            let path = operation.path.replace("{model}", "m.1");
            let path = path.replace("{version}", "3").replace("{label}", "stable");
            let (route, verb) = route(&path).unwrap_or_else(|| panic!("{path}"));
            assert_eq!(verb.as_str().to_lowercase(), operation.verb().as_str(), "{path}");
            let which = match route {
                Route::List => None,
                Route::Model {
                    which: Which::Default, ..
                } => Some("default"),
                Route::Model {
                    which: Which::Version(_),
                    ..
                } => Some("version"),
                Route::Model {
                    which: Which::Label(_), ..
                } => Some("label"),
            };
            found.push((kind(route), which));
        }
        found.sort_unstable();
        let ways = |kind: &&'static str| match *kind {
            "list" => vec![(*kind, None)],
            _ => ["default", "label", "version"].map(|way| (*kind, Some(way))).to_vec(),
        };
        let expected: Vec<_> = KINDS.iter().flat_map(ways).collect();
        assert_eq!(found, expected);
    }
}
