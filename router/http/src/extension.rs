//! Paths of the protocol's extensions that are about the server: shared memory, what is traced and what is logged.
//!
//! Names of regions are any text, so in a path they are encoded, and are read where they are used.

use actix_web::http::Method;

pub(crate) use mesh_router::MemoryKind;

use crate::{path::Miss, settings::Settings};

/// What a path asks of an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension<'a> {
    Memory {
        kind: MemoryKind,
        /// As it stands in the path.
        region: Option<&'a str>,
        call: MemoryCall,
    },
    Settings(Settings<'a>),
}

/// What is asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemoryCall {
    Status,
    Register,
    Unregister,
}

impl<'a> Extension<'a> {
    /// The extension that the rest of a path behind the protocol's version is of.
    pub(crate) fn find(rest: &'a str) -> Option<Self> {
        match rest {
            "/trace/setting" => return Some(Self::Settings(Settings::Trace(None))),
            "/logging" => return Some(Self::Settings(Settings::Logging)),
            _ => {}
        }
        let (kind, rest) = match rest.strip_prefix("/systemsharedmemory/") {
            Some(rest) => (MemoryKind::System, rest),
            None => (MemoryKind::Cuda, rest.strip_prefix("/cudasharedmemory/")?),
        };
        let (region, call) = match rest.strip_prefix("region/") {
            // A name may hold what divides paths.
            Some(rest) => rest.rsplit_once('/').map(|(region, call)| (Some(region), call))?,
            None => (None, rest),
        };
        let call = match call {
            "status" => MemoryCall::Status,
            "register" if region.is_some() => MemoryCall::Register,
            "unregister" => MemoryCall::Unregister,
            _ => return None,
        };
        (region != Some("")).then_some(Self::Memory { kind, region, call })
    }

    /// Whether it is asked for with this verb.
    pub(crate) fn by(self, method: &Method) -> Result<Self, Miss> {
        let Self::Memory { call, .. } = self else {
            return match *method {
                Method::GET | Method::POST => Ok(self),
                _ => Err(Miss::Method("GET, POST")),
            };
        };
        match (call == MemoryCall::Status, method) {
            (true, &Method::GET) | (false, &Method::POST) => Ok(self),
            (true, _) => Err(Miss::Method("GET")),
            (false, _) => Err(Miss::Method("POST")),
        }
    }
}

/// A name as it was before it was put into a path; none where that is no text.
pub(crate) fn decoded(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        bytes.push(match byte {
            b'%' => {
                let (digits, after) = rest.split_first_chunk::<2>()?;
                rest = after;
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                (digit(digits[0])? << 4) | digit(digits[1])?
            }
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{Route, route};

    #[test]
    fn every_path_of_shared_memory_is_found_with_its_verb() {
        let memory = |kind, region, call| Ok(Route::Extension(Extension::Memory { kind, region, call }));
        for (name, kind) in [("system", MemoryKind::System), ("cuda", MemoryKind::Cuda)] {
            let path = |rest: &str| format!("/v2/{name}sharedmemory/{rest}");
            let (get, post) = (Method::GET, Method::POST);
            assert_eq!(route(&get, &path("status")), memory(kind, None, MemoryCall::Status));
            assert_eq!(
                route(&get, &path("region/r/status")),
                memory(kind, Some("r"), MemoryCall::Status)
            );
            assert_eq!(
                route(&post, &path("region/a%20b/register")),
                memory(kind, Some("a%20b"), MemoryCall::Register)
            );
            assert_eq!(
                route(&post, &path("region/a/b/unregister")),
                memory(kind, Some("a/b"), MemoryCall::Unregister)
            );
            assert_eq!(
                route(&post, &path("unregister")),
                memory(kind, None, MemoryCall::Unregister)
            );
            assert_eq!(route(&post, &path("status")), Err(Miss::Method("GET")));
            assert_eq!(route(&get, &path("region/r/register")), Err(Miss::Method("POST")));
            for wrong in [
                "",
                "register",
                "region",
                "region/r",
                "region//status",
                "region/r/",
                "status/",
            ] {
                assert_eq!(route(&get, &path(wrong)), Err(Miss::NotFound), "{wrong}");
            }
        }
    }

    #[test]
    fn settings_are_read_and_changed_by_the_same_path() {
        let settings = |settings| Ok(Route::Extension(Extension::Settings(settings)));
        for method in [Method::GET, Method::POST] {
            assert_eq!(route(&method, "/v2/trace/setting"), settings(Settings::Trace(None)));
            assert_eq!(
                route(&method, "/v2/models/m/trace/setting"),
                settings(Settings::Trace(Some("m")))
            );
            assert_eq!(route(&method, "/v2/logging"), settings(Settings::Logging));
            for wrong in [
                "/v2/trace",
                "/v2/models//trace/setting",
                "/v2/models/m/versions/1/trace/setting",
                "/v2/logging/",
            ] {
                assert_eq!(route(&method, wrong), Err(Miss::NotFound), "{wrong}");
            }
        }
        assert_eq!(route(&Method::PUT, "/v2/logging"), Err(Miss::Method("GET, POST")));
    }

    #[test]
    fn names_are_read_back_from_paths() {
        assert_eq!(decoded("plain").as_deref(), Some("plain"));
        assert_eq!(decoded("a%20b%2Fc%c3%A4").as_deref(), Some("a b/cä"));
        for wrong in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
