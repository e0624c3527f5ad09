//! Paths and verbs to what is asked for. A plain match: there are a dozen routes, and a name in a path needs no decoding,
//! since no name holds a character that would be encoded.

use actix_web::http::Method;

/// What a path and verb ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    ServerMetadata,
    Live,
    Ready,
    /// What all models have done.
    Statistics,
    /// The models that the caller may use.
    Index,
    /// To load or unload a model.
    Change(Change),
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
    Config,
    Statistics,
    Infer,
}

/// What is asked to be changed about a model, whichever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    Load,
    Unload,
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
    let posted = matches!(
        route,
        Route::Index
            | Route::Change(_)
            | Route::Model {
                call: ModelCall::Infer,
                ..
            }
    );
    match (posted, method) {
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
        "/models/stats" => Some(Route::Statistics),
        "/repository/index" => Some(Route::Index),
        rest => match rest.strip_prefix("/repository/models/") {
            Some(rest) => change(rest),
            None => model(rest.strip_prefix("/models/")?),
        },
    }
}

fn change(rest: &str) -> Option<Route<'_>> {
    let (name, change) = rest.split_once('/')?;
    let change = match change {
        "load" => Change::Load,
        "unload" => Change::Unload,
        _ => return None,
    };
    (!name.is_empty()).then_some(Route::Change(change))
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
        Some("config") => ModelCall::Config,
        Some("stats") => ModelCall::Statistics,
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
        assert_eq!(get("/v2/models/m.1/config"), model(ModelCall::Config, None));
        assert_eq!(get("/v2/models/m.1/stats"), model(ModelCall::Statistics, None));
        assert_eq!(
            get("/v2/models/m.1/versions/2/stats"),
            model(ModelCall::Statistics, Some("2"))
        );
        assert_eq!(get("/v2/models/stats"), Ok(Route::Statistics));
        let post = |path| route(&Method::POST, path);
        assert_eq!(post("/v2/repository/index"), Ok(Route::Index));
        assert_eq!(post("/v2/repository/models/m/load"), Ok(Route::Change(Change::Load)));
        assert_eq!(
            post("/v2/repository/models/m/unload"),
            Ok(Route::Change(Change::Unload))
        );
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
            "/v2/models/m/status",
            "/v2/repository",
            "/v2/repository/models/m",
            "/v2/repository/models//load",
            "/v2/repository/models/m/reload",
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
        assert_eq!(route(&Method::GET, "/v2/repository/index"), Err(Miss::Method("POST")));
        assert_eq!(route(&Method::POST, "/v2/models/stats"), Err(Miss::Method("GET")));
    }
}
