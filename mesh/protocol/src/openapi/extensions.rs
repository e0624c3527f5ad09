//! The rows of the protocol's extensions that are about the server: shared memory, what is traced and what is logged.

use super::operations::{Gives, Row, Takes, Verb, open};

/// Of a credential, of a body, and of what this server may not offer.
const ERRORS: &[u16] = &[400, 401, 403, 404, 408, 413, 415, 429, 501, 503];
const SHARED_MEMORY: &str = "Shared memory";
const SETTINGS: &str = "Settings";

const fn status(id: &'static str, path: &'static str, summary: &'static str) -> Row {
    Row {
        open: false,
        tag: SHARED_MEMORY,
        gives: &[(200, "the regions", Gives::Json("Regions"))],
        errors: ERRORS,
        ..open(id, path, summary)
    }
}

const fn change(id: &'static str, path: &'static str, summary: &'static str, takes: Takes) -> Row {
    Row {
        verb: Verb::Post,
        takes,
        headers: &["ContentEncoding"],
        gives: &[(200, "done", Gives::Text("application/json"))],
        ..status(id, path, summary)
    }
}

const fn settings(id: &'static str, path: &'static str, summary: &'static str, schema: &'static str) -> Row {
    Row {
        tag: SETTINGS,
        takes: Takes::Optional(schema),
        ..change(id, path, summary, Takes::Nothing)
    }
}

const fn traced(verb: Verb, id: &'static str, path: &'static str, summary: &'static str) -> Row {
    let row = settings(id, path, summary, "TraceSettings");
    Row {
        verb,
        takes: if matches!(verb, Verb::Get) {
            Takes::Nothing
        } else {
            row.takes
        },
        headers: if matches!(verb, Verb::Get) { &[] } else { row.headers },
        gives: &[(200, "all settings", Gives::Json("TraceSettings"))],
        ..row
    }
}

const fn logged(verb: Verb, id: &'static str, summary: &'static str) -> Row {
    Row {
        takes: if matches!(verb, Verb::Get) {
            Takes::Nothing
        } else {
            Takes::Optional("LogSettings")
        },
        gives: &[(200, "all settings", Gives::Json("LogSettings"))],
        ..traced(verb, id, "/v2/logging", summary)
    }
}

/// Every row.
pub(crate) const ROWS: &[Row] = &[
    status(
        "systemRegions",
        "/v2/systemsharedmemory/status",
        "The caller's regions of system shared memory",
    ),
    status(
        "systemRegion",
        "/v2/systemsharedmemory/region/{region}/status",
        "One of them",
    ),
    change(
        "systemRegionRegister",
        "/v2/systemsharedmemory/region/{region}/register",
        "Registers a part of a shared memory object",
        Takes::Optional("SystemRegion"),
    ),
    change(
        "systemRegionUnregister",
        "/v2/systemsharedmemory/region/{region}/unregister",
        "Forgets a region",
        Takes::Optional("Anything"),
    ),
    change(
        "systemRegionsUnregister",
        "/v2/systemsharedmemory/unregister",
        "Forgets all regions of the caller's",
        Takes::Optional("Anything"),
    ),
    status(
        "cudaRegions",
        "/v2/cudasharedmemory/status",
        "The caller's regions of CUDA memory",
    ),
    status(
        "cudaRegion",
        "/v2/cudasharedmemory/region/{region}/status",
        "One of them",
    ),
    change(
        "cudaRegionRegister",
        "/v2/cudasharedmemory/region/{region}/register",
        "Registers memory of a CUDA device by its handle",
        Takes::Optional("CudaRegion"),
    ),
    change(
        "cudaRegionUnregister",
        "/v2/cudasharedmemory/region/{region}/unregister",
        "Forgets a region of CUDA memory",
        Takes::Optional("Anything"),
    ),
    change(
        "cudaRegionsUnregister",
        "/v2/cudasharedmemory/unregister",
        "Forgets all regions of CUDA memory of the caller's",
        Takes::Optional("Anything"),
    ),
    traced(Verb::Get, "traceSettings", "/v2/trace/setting", "What is traced"),
    traced(
        Verb::Post,
        "traceSettingsChange",
        "/v2/trace/setting",
        "Changes what is traced, where callers may",
    ),
    traced(
        Verb::Get,
        "modelTraceSettings",
        "/v2/models/{model}/trace/setting",
        "What is traced of a model",
    ),
    traced(
        Verb::Post,
        "modelTraceSettingsChange",
        "/v2/models/{model}/trace/setting",
        "Changes what is traced of a model, where callers may",
    ),
    logged(Verb::Get, "logSettings", "What is logged"),
    logged(
        Verb::Post,
        "logSettingsChange",
        "Changes what is logged, where callers may",
    ),
];
