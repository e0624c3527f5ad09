//! Paths and verbs to what is asked for. A plain match: there are seven routes, and a name in a path needs no decoding,
//! since no name holds a character that would be encoded.

use actix_web::http::Method;

/// What a path and verb ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    ServerMetadata,
    Live,
    Ready,
    Model {
        name: &'a str,
        version: Option<&'a str>,
        call: ModelCall,
    },
}

/// What is asked of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelCall {
    Metadata,
    Ready,
    Infer,
}

/// Why there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Miss {
    NotFound,
    /// The path exists for this verb only.
    Method(&'static str),
}

/// Finds the route.
pub(crate) fn route<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, Miss> {
    let route = find(path).ok_or(Miss::NotFound)?;
    let infer = matches!(
        route,
        Route::Model {
            call: ModelCall::Infer,
            ..
        }
    );
    match (infer, method) {
        (true, &Method::POST) | (false, &Method::GET) => Ok(route),
        (true, _) => Err(Miss::Method("POST")),
        (false, _) => Err(Miss::Method("GET")),
    }
}

fn find(path: &str) -> Option<Route<'_>> {
    match path.strip_prefix("/v2")? {
        "" | "/" => Some(Route::ServerMetadata),
        "/health/live" => Some(Route::Live),
        "/health/ready" => Some(Route::Ready),
        rest => model(rest.strip_prefix("/models/")?),
    }
}

fn model(rest: &str) -> Option<Route<'_>> {
    let (name, rest) = split(rest);
    let (version, rest) = match rest.and_then(|rest| rest.strip_prefix("versions/")) {
        Some(rest) => {
            let (version, rest) = split(rest);
            (Some(version), rest)
        }
        None => (None, rest),
    };
    let call = match rest {
        None => ModelCall::Metadata,
        Some("ready") => ModelCall::Ready,
        Some("infer") => ModelCall::Infer,
        Some(_) => return None,
    };
    let named = !name.is_empty() && version != Some("");
    named.then_some(Route::Model { name, version, call })
}

fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('/')
        .map_or((path, None), |(first, rest)| (first, Some(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(call: ModelCall, version: Option<&str>) -> Result<Route<'_>, Miss> {
        Ok(Route::Model {
            name: "m.1",
            version,
            call,
        })
    }

    #[test]
    fn every_route_is_found() {
        let get = |path| route(&Method::GET, path);
        assert_eq!(get("/v2"), Ok(Route::ServerMetadata));
        assert_eq!(get("/v2/"), Ok(Route::ServerMetadata));
        assert_eq!(get("/v2/health/live"), Ok(Route::Live));
        assert_eq!(get("/v2/health/ready"), Ok(Route::Ready));
        assert_eq!(get("/v2/models/m.1"), model(ModelCall::Metadata, None));
        assert_eq!(get("/v2/models/m.1/versions/3"), model(ModelCall::Metadata, Some("3")));
        assert_eq!(get("/v2/models/m.1/ready"), model(ModelCall::Ready, None));
        assert_eq!(
            get("/v2/models/m.1/versions/stable/ready"),
            model(ModelCall::Ready, Some("stable"))
        );
        let post = |path| route(&Method::POST, path);
        assert_eq!(post("/v2/models/m.1/infer"), model(ModelCall::Infer, None));
        assert_eq!(
            post("/v2/models/m.1/versions/3/infer"),
            model(ModelCall::Infer, Some("3"))
        );
    }

    #[test]
    fn anything_else_is_not_found() {
        for path in [
            "",
            "/",
            "/v1",
            "/v22",
            "/v2/health",
            "/v2/models",
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/m/",
            "/v2/models/m/infer/",
            "/v2/models/m/versions",
            "/v2/models/m/versions/",
            "/v2/models/m/versions//infer",
            "/v2/models/m/stats",
            "/v2/health/live/",
        ] {
            assert_eq!(route(&Method::GET, path), Err(Miss::NotFound), "{path}");
        }
    }

    #[test]
    fn another_verb_is_told_the_right_one() {
        assert_eq!(route(&Method::POST, "/v2"), Err(Miss::Method("GET")));
        assert_eq!(route(&Method::GET, "/v2/models/m/infer"), Err(Miss::Method("POST")));
        assert_eq!(route(&Method::DELETE, "/v2/models/m"), Err(Miss::Method("GET")));
    }
}
