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
/// The same in version 1 of the protocol.
pub(crate) const MODEL_V1: &str = "/v1/models/{model}";

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
    /// Rows or columns for a prediction by version 1.
    Predict,
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
    /// Nothing: the status says it.
    Empty,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) verb: Verb,
    pub(crate) path: &'static str,
    /// Whether the path exists with a version too, and by version 1 with a label.
    pub(crate) versioned: bool,
    /// Whether it answers without a credential.
    pub(crate) open: bool,
    /// Whether it asks if something lives or is ready.
    pub(crate) is_health: bool,
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) takes: Takes,
    /// Headers and parts of a query that mean something, by their names among the document's parameters.
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
pub(super) const ERRORS_OF_INFERENCE: &[u16] = &[400, 401, 403, 404, 408, 413, 415, 429, 499, 500, 501, 503, 504];
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

pub(super) const fn of_model(id: &'static str, path: &'static str, summary: &'static str) -> Row {
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

/// What tells which versions there are.
const fn index(id: &'static str, path: &'static str, summary: &'static str) -> Row {
    Row {
        verb: Verb::Post,
        open: false,
        tag: REPOSITORY,
        takes: Takes::Optional("IndexRequest"),
        headers: &["ContentEncoding"],
        gives: &[(200, "the versions", Gives::Json("Index"))],
        errors: &[400, 401, 403, 404, 408, 413, 415, 503],
        ..open(id, path, summary)
    }
}

/// Loading and unloading, for the tenant of a repository whose models are loaded on demand; refused to everybody else. The body is
/// read first.
const fn change(id: &'static str, path: &'static str, summary: &'static str, schema: &'static str) -> Row {
    Row {
        verb: Verb::Post,
        open: false,
        tag: REPOSITORY,
        takes: Takes::Optional(schema),
        headers: &["RequestTimeout", "ContentEncoding"],
        gives: &[(200, "done", Gives::Empty)],
        errors: &[400, 401, 403, 404, 408, 413, 415, 500, 503, 504],
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
        gives: &[(200, "alive", Gives::Json("Alive"))],
        ..open(
            "serverAlive",
            "/",
            "Whether the server is alive, as clients of KServe's V1 ask",
        )
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
        "A prediction from a flat object, as events: one for each answer",
        &[(
            200,
            "events, each the outputs of one answer as an object; one with an error is the last",
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
        open: false,
        tag: MODELS,
        headers: &["Limit", "After"],
        gives: &[(200, "the names", Gives::Json("Names"))],
        errors: &[400, 401, 403],
        ..open(
            "models",
            "/v2/models",
            "The names that the caller may call, in order and by pages",
        )
    },
    index(
        "repositoryIndex",
        "/v2/repository/index",
        "The versions that the caller may use",
    ),
    index(
        "repositoryIndexByName",
        "/v2/repository/{repository}/index",
        "The versions that the caller may use, of a repository by its name, which is its tenant's",
    ),
    change(
        "repositoryModelLoad",
        "/v2/repository/models/{model}/load",
        "Loads a model, or loads it anew, for the tenant of a repository whose models are loaded on demand",
        "LoadRequest",
    ),
    change(
        "repositoryModelUnload",
        "/v2/repository/models/{model}/unload",
        "Unloads a model, for the tenant of a repository whose models are loaded on demand",
        "UnloadRequest",
    ),
    change(
        "repositoryModelLoadByName",
        "/v2/repository/{repository}/models/{model}/load",
        "Loads a model of a repository by its name, or loads it anew, for the tenant of a repository whose models are loaded on demand",
        "LoadRequest",
    ),
    change(
        "repositoryModelUnloadByName",
        "/v2/repository/{repository}/models/{model}/unload",
        "Unloads a model of a repository by its name, for the tenant of a repository whose models are loaded on demand",
        "UnloadRequest",
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

/// Which version a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// None: the model's choice.
    Default,
    /// A number, or in version 2 of the protocol a label.
    Version,
    /// A label.
    Label,
}

impl Which {
    /// What stands behind the model's name.
    const fn part(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Version => "/versions/{version}",
            Self::Label => "/labels/{label}",
        }
    }
}

/// An operation of the document: a row, with or without a version in its path.
#[derive(Debug, Clone)]
pub struct Operation {
    pub(crate) row: &'static Row,
    /// Its path; `{model}`, `{version}` and `{label}` stand for names.
    pub path: String,
    /// Which version its path names.
    pub which: Which,
}

impl Operation {
    /// Its verb.
    pub fn verb(&self) -> Verb {
        self.row.verb
    }

    /// Its name in the document.
    pub fn id(&self) -> String {
        let suffix = match self.which {
            Which::Default => "",
            Which::Version => "OfVersion",
            Which::Label => "OfLabel",
        };
        format!("{}{suffix}", self.row.id)
    }

    /// Whether it is about one model that its path names at the start.
    pub(crate) fn is_of_model(&self) -> bool {
        self.row.versioned
    }

    /// Whether it is one of version 1 of the protocol.
    pub fn is_v1(&self) -> bool {
        self.path.starts_with("/v1")
    }

    /// Whether its path can name this version of a model, or none.
    pub(crate) fn names(&self, version: Option<&str>) -> bool {
        let is_number = version.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit()));
        match self.which {
            Which::Default => version.is_none(),
            Which::Version => version.is_some() && (is_number || !self.is_v1()),
            Which::Label => version.is_some() && !is_number,
        }
    }
}

/// Every operation of the door.
pub fn operations() -> Vec<Operation> {
    let forms = |row: &'static Row| {
        let (model, all) = match row.path.strip_prefix(MODEL_V1) {
            Some(_) => (MODEL_V1, &[Which::Default, Which::Version, Which::Label][..]),
            None => (MODEL, &[Which::Default, Which::Version][..]),
        };
        let forms = if row.versioned { all } else { &[Which::Default] };
        forms.iter().map(move |which| Operation {
            row,
            path: row.path.replacen(model, &format!("{model}{}", which.part()), 1),
            which: *which,
        })
    };
    let rows = ROWS.iter().chain(super::extensions::ROWS).chain(super::v1::ROWS);
    rows.flat_map(forms).collect()
}
