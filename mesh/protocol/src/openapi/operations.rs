//! The table of what the inference door answers over HTTP: one row for each verb and path, and every status that it can have.
//!
//! The door's routes are tested against it, both ways, so a new route is a new row here. A row of [`VERSIONED`] paths stands for
//! two: the path as it is, and the one with a version in it.

/// The verb of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Reads.
    Get,
    /// Asks with a body.
    Post,
}

impl Verb {
    /// As a key of the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
        }
    }
}

/// What a model's paths begin with.
pub(crate) const MODEL: &str = "/v2/models/{model}";
/// What stands behind it where a version is named.
pub(crate) const VERSION: &str = "/versions/{version}";

/// What an operation takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    Nothing,
    /// An inference request, as JSON or with raw tensors behind it.
    Inference,
    /// JSON of this schema.
    Json(&'static str),
    /// JSON of this schema, which may be left out.
    Optional(&'static str),
}

/// What an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gives {
    /// JSON of this schema.
    Json(&'static str),
    /// An inference response, as JSON or with raw tensors behind it.
    Inference,
    /// Text of this media type.
    Text(&'static str),
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) verb: Verb,
    pub(crate) path: &'static str,
    /// Whether the path exists with a version too.
    pub(crate) versioned: bool,
    /// Whether it answers without a credential.
    pub(crate) open: bool,
    /// Whether it asks if something lives or is ready.
    pub(crate) is_health: bool,
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) takes: Takes,
    /// Headers that mean something, by their names among the document's parameters.
    pub(crate) headers: &'static [&'static str],
    /// What is answered where nothing is wrong, by status.
    pub(crate) gives: &'static [(u16, &'static str, Gives)],
    /// The statuses that come with an error.
    pub(crate) errors: &'static [u16],
}

const SERVER: &str = "Server";
const MODELS: &str = "Models";
const REPOSITORY: &str = "Repository";
const DOCUMENTS: &str = "Documents";

/// Of a credential, of a name and of a version.
const ABOUT_A_MODEL: &[u16] = &[400, 401, 403, 404];
const ERRORS_OF_INFERENCE: &[u16] = &[400, 401, 403, 404, 408, 413, 415, 429, 499, 500, 501, 503, 504];
const HEADERS_OF_INFERENCE: &[&str] = &[
    "InferenceHeaderContentLength",
    "RequestTimeout",
    "Unit",
    "Traceparent",
    "ContentEncoding",
];

pub(super) const fn open(id: &'static str, path: &'static str, summary: &'static str) -> Row {
    Row {
        id,
        verb: Verb::Get,
        path,
        versioned: false,
        open: true,
        is_health: false,
        tag: SERVER,
        summary,
        takes: Takes::Nothing,
        headers: &[],
        gives: &[],
        errors: &[],
    }
}

const fn of_model(id: &'static str, path: &'static str, summary: &'static str) -> Row {
    Row {
        versioned: true,
        open: false,
        tag: MODELS,
        errors: ABOUT_A_MODEL,
        ..open(id, path, summary)
    }
}

/// A flat object, answered as this says.
const fn generate(
    id: &'static str,
    path: &'static str,
    summary: &'static str,
    gives: &'static [(u16, &'static str, Gives)],
) -> Row {
    Row {
        verb: Verb::Post,
        takes: Takes::Json("GenerateRequest"),
        headers: &["RequestTimeout", "Unit", "Traceparent", "ContentEncoding"],
        gives,
        errors: ERRORS_OF_INFERENCE,
        ..of_model(id, path, summary)
    }
}

const fn document(id: &'static str, path: &'static str, summary: &'static str) -> Row {
    Row {
        tag: DOCUMENTS,
        ..open(id, path, summary)
    }
}

/// Loading and unloading are refused to everybody here; the body is read first.
const fn refused(id: &'static str, path: &'static str, summary: &'static str) -> Row {
    Row {
        verb: Verb::Post,
        open: false,
        tag: REPOSITORY,
        takes: Takes::Optional("Anything"),
        headers: &["ContentEncoding"],
        errors: &[400, 401, 403, 408, 413, 415, 503],
        ..open(id, path, summary)
    }
}

/// Every row.
pub(crate) const ROWS: &[Row] = &[
    Row {
        gives: &[(
            200,
            "the name, the version and the extensions",
            Gives::Json("ServerMetadata"),
        )],
        ..open(
            "serverMetadata",
            "/v2",
            "What this server is and which extensions it has",
        )
    },
    Row {
        is_health: true,
        gives: &[(200, "alive", Gives::Json("Live"))],
        ..open("serverLive", "/v2/health/live", "Whether the server is alive")
    },
    Row {
        is_health: true,
        gives: &[
            (200, "ready", Gives::Json("Ready")),
            (503, "not ready", Gives::Json("Ready")),
        ],
        ..open("serverReady", "/v2/health/ready", "Whether the server takes requests")
    },
    Row {
        gives: &[(200, "the inputs, outputs and versions", Gives::Json("ModelMetadata"))],
        ..of_model("modelMetadata", MODEL, "What a model takes and gives")
    },
    Row {
        is_health: true,
        gives: &[
            (200, "ready", Gives::Json("ModelReady")),
            (503, "not ready", Gives::Json("ModelReady")),
        ],
        ..of_model(
            "modelReady",
            "/v2/models/{model}/ready",
            "Whether a model takes requests",
        )
    },
    Row {
        gives: &[(200, "the configuration", Gives::Json("ModelConfig"))],
        ..of_model(
            "modelConfig",
            "/v2/models/{model}/config",
            "A model's configuration, in the JSON of Triton's message",
        )
    },
    Row {
        gives: &[(200, "the statistics", Gives::Json("Statistics"))],
        ..of_model(
            "modelStatistics",
            "/v2/models/{model}/stats",
            "What the versions of a model have done",
        )
    },
    Row {
        verb: Verb::Post,
        takes: Takes::Inference,
        headers: HEADERS_OF_INFERENCE,
        gives: &[(200, "the outputs", Gives::Inference)],
        errors: ERRORS_OF_INFERENCE,
        ..of_model("infer", "/v2/models/{model}/infer", "A prediction")
    },
    generate(
        "generate",
        "/v2/models/{model}/generate",
        "A prediction from a flat object, as one",
        &[(200, "the outputs", Gives::Json("GenerateResponse"))],
    ),
    generate(
        "generateStream",
        "/v2/models/{model}/generate_stream",
        "A prediction from a flat object, as events",
        &[(
            200,
            "events, each the outputs as an object",
            Gives::Text("text/event-stream"),
        )],
    ),
    Row {
        tag: DOCUMENTS,
        gives: &[(200, "the document", Gives::Json("Document"))],
        ..of_model(
            "modelDocument",
            "/v2/models/{model}/openapi.json",
            "This document for one model, with its inputs and outputs",
        )
    },
    Row {
        open: false,
        tag: MODELS,
        gives: &[(200, "the statistics", Gives::Json("Statistics"))],
        errors: &[400, 401, 403],
        ..open("statistics", "/v2/models/stats", "What all models have done")
    },
    Row {
        verb: Verb::Post,
        open: false,
        tag: REPOSITORY,
        takes: Takes::Optional("IndexRequest"),
        headers: &["ContentEncoding"],
        gives: &[(200, "the versions", Gives::Json("Index"))],
        errors: &[400, 401, 403, 408, 413, 415, 503],
        ..open(
            "repositoryIndex",
            "/v2/repository/index",
            "The versions that the caller may use",
        )
    },
    refused(
        "repositoryModelLoad",
        "/v2/repository/models/{model}/load",
        "For the tenant of a repository whose models are loaded on demand; refused otherwise",
    ),
    refused(
        "repositoryModelUnload",
        "/v2/repository/models/{model}/unload",
        "For the tenant of a repository whose models are loaded on demand; refused otherwise",
    ),
    Row {
        gives: &[(200, "the document", Gives::Json("Document"))],
        ..document("document", "/v2/openapi.json", "This document")
    },
    Row {
        gives: &[(200, "the page", Gives::Text("text/html"))],
        ..document(
            "page",
            "/v2/docs",
            "A page that shows these documents; `?model=NAME` for a model's",
        )
    },
    Row {
        gives: &[(200, "the style", Gives::Text("text/css"))],
        ..document("pageStyle", "/v2/docs/docs.css", "The page's style")
    },
    Row {
        gives: &[(200, "the script", Gives::Text("text/javascript"))],
        ..document("pageScript", "/v2/docs/docs.js", "The page's script")
    },
];

/// An operation of the document: a row, with or without a version in its path.
#[derive(Debug, Clone)]
pub struct Operation {
    pub(crate) row: &'static Row,
    /// Its path; `{model}` and `{version}` stand for names.
    pub path: String,
    /// Whether its path names a version.
    pub with_version: bool,
}

impl Operation {
    /// Its verb.
    pub fn verb(&self) -> Verb {
        self.row.verb
    }

    /// Its name in the document.
    pub fn id(&self) -> String {
        let suffix = if self.with_version { "OfVersion" } else { "" };
        format!("{}{suffix}", self.row.id)
    }

    /// Whether it is about one model that its path names at the start.
    pub(crate) fn is_of_model(&self) -> bool {
        self.row.versioned
    }
}

/// Every operation of the door.
pub fn operations() -> Vec<Operation> {
    let forms = |row: &'static Row| {
        let plain = Operation {
            row,
            path: row.path.to_owned(),
            with_version: false,
        };
        let versioned = row.versioned.then(|| Operation {
            row,
            path: row.path.replacen(MODEL, &format!("{MODEL}{VERSION}"), 1),
            with_version: true,
        });
        [Some(plain), versioned].into_iter().flatten()
    };
    ROWS.iter().chain(super::extensions::ROWS).flat_map(forms).collect()
}
