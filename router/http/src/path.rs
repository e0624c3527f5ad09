//! Paths and verbs to what is asked for. A plain match: there are a dozen routes, and a name in a path needs no decoding,
//! since no name holds a character that would be encoded.

use actix_web::http::Method;

use crate::{docs::PageFile, extension::Extension, settings::Settings};

/// What a path and verb ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    ServerMetadata,
    Live,
    Ready,
    /// Whether the server is alive, as clients of KServe's V1 ask.
    Alive,
    /// The names that the caller may call.
    Names,
    /// What all models have done.
    Statistics,
    /// The models that the caller may use, of the repository that is named.
    Index {
        repository: Option<&'a str>,
    },
    /// To load or unload a model.
    Change {
        repository: Option<&'a str>,
        name: &'a str,
        change: Change,
    },
    /// The OpenAPI document of the door.
    Document,
    /// A file of the page that shows such documents.
    Page(PageFile),
    Extension(Extension<'a>),
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
    /// Its OpenAPI document.
    Document,
    Generate,
    GenerateStream,
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
    if let Route::Extension(extension) = route {
        return extension.by(method).map(Route::Extension);
    }
    let posted = matches!(
        route,
        Route::Index { .. }
            | Route::Change { .. }
            | Route::Model {
                call: ModelCall::Infer | ModelCall::Generate | ModelCall::GenerateStream,
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
    if path == "/" {
        return Some(Route::Alive);
    }
    match path.strip_prefix("/v2")? {
        "" | "/" => Some(Route::ServerMetadata),
        "/health/live" => Some(Route::Live),
        "/health/ready" => Some(Route::Ready),
        "/models" => Some(Route::Names),
        "/models/stats" => Some(Route::Statistics),
        "/repository/index" => Some(Route::Index { repository: None }),
        "/openapi.json" => Some(Route::Document),
        rest => elsewhere(rest),
    }
}

fn elsewhere(rest: &str) -> Option<Route<'_>> {
    if let Some(rest) = rest.strip_prefix("/models/") {
        return model(rest);
    }
    if let Some(rest) = rest.strip_prefix("/repository/") {
        // A repository may have any name, that of its models' folder too.
        let plain = rest.strip_prefix("models/").and_then(|rest| change(None, rest));
        return plain.or_else(|| named(rest));
    }
    match rest.strip_prefix("/docs") {
        Some(rest) => PageFile::named(rest).map(Route::Page),
        None => Extension::find(rest).map(Route::Extension),
    }
}

/// What is asked of a repository by its name.
fn named(rest: &str) -> Option<Route<'_>> {
    let (repository, rest) = rest.split_once('/').filter(|(name, _)| !name.is_empty())?;
    let repository = Some(repository);
    match rest.strip_prefix("models/") {
        Some(rest) => change(repository, rest),
        None => (rest == "index").then_some(Route::Index { repository }),
    }
}

fn change<'a>(repository: Option<&'a str>, rest: &'a str) -> Option<Route<'a>> {
    let (name, change) = rest.split_once('/')?;
    let change = match change {
        "load" => Change::Load,
        "unload" => Change::Unload,
        _ => return None,
    };
    (!name.is_empty()).then_some(Route::Change {
        repository,
        name,
        change,
    })
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
        Some("openapi.json") => ModelCall::Document,
        Some("generate") => ModelCall::Generate,
        Some("generate_stream") => ModelCall::GenerateStream,
        Some("trace/setting") if version.is_none() && !name.is_empty() => {
            return Some(Route::Extension(Extension::Settings(Settings::Trace(Some(name)))));
        }
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
    use crate::extension::{MemoryCall, MemoryKind};

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
        let post = |path: &'static str| route(&Method::POST, path);
        assert_eq!(post("/v2/models/m.1/infer"), model(ModelCall::Infer, None));
        assert_eq!(post("/v2/models/m.1/generate"), model(ModelCall::Generate, None));
        assert_eq!(
            post("/v2/models/m.1/versions/3/generate_stream"),
            model(ModelCall::GenerateStream, Some("3"))
        );
        assert_eq!(
            post("/v2/models/m.1/versions/3/infer"),
            model(ModelCall::Infer, Some("3"))
        );
    }

    #[test]
    fn a_repository_is_found_with_and_without_its_name() {
        let plain = route(&Method::POST, "/v2/repository/index");
        assert_eq!(plain, Ok(Route::Index { repository: None }));
        for repository in ["acme", "models", "index"] {
            let path = format!("/v2/repository/{repository}/index");
            let index = Route::Index {
                repository: Some(repository),
            };
            assert_eq!(route(&Method::POST, &path), Ok(index));
        }
        for (last, change) in [("load", Change::Load), ("unload", Change::Unload)] {
            for repository in [None, Some("acme"), Some("models")] {
                let folder = repository.map(|name| format!("{name}/")).unwrap_or_default();
                let path = format!("/v2/repository/{folder}models/m/{last}");
                let wanted = Route::Change {
                    repository,
                    name: "m",
                    change,
                };
                assert_eq!(route(&Method::POST, &path), Ok(wanted), "{path}");
            }
        }
    }

    #[test]
    fn documents_their_page_names_and_life_are_found() {
        let get = |path| route(&Method::GET, path);
        assert_eq!(get("/v2/models"), Ok(Route::Names));
        assert_eq!(get("/"), Ok(Route::Alive));
        assert_eq!(get("/v2/openapi.json"), Ok(Route::Document));
        assert_eq!(get("/v2/docs"), Ok(Route::Page(PageFile::Page)));
        assert_eq!(get("/v2/docs/docs.js"), Ok(Route::Page(PageFile::Script)));
        assert_eq!(
            get("/v2/models/m.1/versions/2/openapi.json"),
            model(ModelCall::Document, Some("2"))
        );
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
    macro_rules! memory {
        ($kind:ident, $call:ident, $region:pat) => {
            Route::Extension(Extension::Memory {
                kind: MemoryKind::$kind,
                call: MemoryCall::$call,
                region: $region,
            })
        };
    }
    kinds! {
        "server": Route::ServerMetadata,
        "live": Route::Live,
        "ready": Route::Ready,
        "alive": Route::Alive,
        "names": Route::Names,
        "statistics": Route::Statistics,
        "index": Route::Index { repository: None },
        "index of a repository": Route::Index { repository: Some(_) },
        "load": Route::Change { change: Change::Load, repository: None, .. },
        "load of a repository": Route::Change { change: Change::Load, repository: Some(_), .. },
        "unload": Route::Change { change: Change::Unload, repository: None, .. },
        "unload of a repository": Route::Change { change: Change::Unload, repository: Some(_), .. },
        "document": Route::Document,
        "page": Route::Page(PageFile::Page),
        "page style": Route::Page(PageFile::Style),
        "page script": Route::Page(PageFile::Script),
        "metadata": Route::Model { call: ModelCall::Metadata, version: None, .. },
        "metadata of a version": Route::Model { call: ModelCall::Metadata, version: Some(_), .. },
        "model ready": Route::Model { call: ModelCall::Ready, version: None, .. },
        "version ready": Route::Model { call: ModelCall::Ready, version: Some(_), .. },
        "config": Route::Model { call: ModelCall::Config, version: None, .. },
        "config of a version": Route::Model { call: ModelCall::Config, version: Some(_), .. },
        "statistics of a model": Route::Model { call: ModelCall::Statistics, version: None, .. },
        "statistics of a version": Route::Model { call: ModelCall::Statistics, version: Some(_), .. },
        "infer": Route::Model { call: ModelCall::Infer, version: None, .. },
        "infer by a version": Route::Model { call: ModelCall::Infer, version: Some(_), .. },
        "generate": Route::Model { call: ModelCall::Generate, version: None, .. },
        "generate by a version": Route::Model { call: ModelCall::Generate, version: Some(_), .. },
        "generate events": Route::Model { call: ModelCall::GenerateStream, version: None, .. },
        "generate events by a version": Route::Model { call: ModelCall::GenerateStream, version: Some(_), .. },
        "document of a model": Route::Model { call: ModelCall::Document, version: None, .. },
        "document of a version": Route::Model { call: ModelCall::Document, version: Some(_), .. },
        "system regions": memory!(System, Status, None),
        "system region": memory!(System, Status, Some(_)),
        "system register": memory!(System, Register, _),
        "system unregister": memory!(System, Unregister, Some(_)),
        "system unregister all": memory!(System, Unregister, None),
        "CUDA regions": memory!(Cuda, Status, None),
        "CUDA region": memory!(Cuda, Status, Some(_)),
        "CUDA register": memory!(Cuda, Register, _),
        "CUDA unregister": memory!(Cuda, Unregister, Some(_)),
        "CUDA unregister all": memory!(Cuda, Unregister, None),
        "trace settings": Route::Extension(Extension::Settings(Settings::Trace(None))),
        "trace settings of a model": Route::Extension(Extension::Settings(Settings::Trace(Some(_)))),
        "log settings": Route::Extension(Extension::Settings(Settings::Logging)),
    }

    #[test]
    fn every_route_is_in_the_document_and_all_that_is_there_is_a_route() {
        let mut found = Vec::new();
        let all = mesh_protocol::openapi::operations();
        for operation in all.into_iter().filter(|operation| !operation.is_v1()) {
            let path = operation.path.replace("{model}", "m.1").replace("{version}", "stable");
            let path = path.replace("{region}", "r").replace("{repository}", "acme");
            let method = Method::from_bytes(operation.verb().as_str().to_uppercase().as_bytes()).unwrap();
            let route = route(&method, &path).unwrap_or_else(|miss| panic!("{method} {path}: {miss:?}"));
            found.push(kind(route));
        }
        found.sort_unstable();
        // Settings are read and changed by one route.
        found.dedup();
        let mut kinds = KINDS.to_vec();
        kinds.sort_unstable();
        assert_eq!(found, kinds);
    }

    #[test]
    fn anything_else_is_not_found() {
        for path in [
            "",
            "//",
            "/v1",
            "/v22",
            "/v2/health",
            "/v2/models/",
            "/v2/models//infer",
            "/v2/models/m/",
            "/v2/models/m/infer/",
            "/v2/models/m/versions",
            "/v2/models/m/versions/",
            "/v2/models/m/versions//infer",
            "/v2/models/m/status",
            "/v2/repository",
            "/v2/repository//index",
            "/v2/repository/acme",
            "/v2/repository/acme/",
            "/v2/repository/acme/index/",
            "/v2/repository/acme/models/m",
            "/v2/repository//models/m/load",
            "/v2/repository/models/m",
            "/v2/repository/models//load",
            "/v2/repository/models/m/reload",
            "/v2/docs/",
            "/v2/docs/else.js",
            "/v2/docsx",
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
        let named = "/v2/repository/acme/index";
        assert_eq!(route(&Method::GET, named), Err(Miss::Method("POST")));
        assert_eq!(route(&Method::POST, "/v2/models/stats"), Err(Miss::Method("GET")));
    }
}
