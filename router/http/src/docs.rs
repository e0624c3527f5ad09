//! The documents of the door, and a page that shows them: static files that are part of the program.
//!
//! The page is its own and loads nothing from elsewhere. Its policy lets it run its script, use its style and ask this server,
//! and nothing else; a credential that is typed into it stays in its memory.

use actix_web::{
    HttpResponse,
    body::BoxBody,
    http::{
        StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
    },
};
use bytes::Bytes;
use mesh_protocol::openapi::{self, ModelDocument, Server};
use mesh_router::ModelDescription;

const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action \
     'none'; frame-ancestors 'none'",
);
const OPENER: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const RESOURCE: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// A file of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PageFile {
    Page,
    Style,
    Script,
}

impl PageFile {
    /// The file behind `/v2/docs`.
    pub(crate) fn named(rest: &str) -> Option<Self> {
        match rest {
            "" => Some(Self::Page),
            "/docs.css" => Some(Self::Style),
            "/docs.js" => Some(Self::Script),
            _ => None,
        }
    }
}

/// Answers with a file of the page.
pub(crate) fn page(file: PageFile) -> HttpResponse {
    let (text, media) = match file {
        PageFile::Page => (include_str!("../page/docs.html"), "text/html; charset=utf-8"),
        PageFile::Style => (include_str!("../page/docs.css"), "text/css; charset=utf-8"),
        PageFile::Script => (include_str!("../page/docs.js"), "text/javascript; charset=utf-8"),
    };
    let mut response = HttpResponse::with_body(StatusCode::OK, BoxBody::new(Bytes::from_static(text.as_bytes())));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, HeaderValue::from_static(media)),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (OPENER, HeaderValue::from_static("same-origin")),
        (RESOURCE, HeaderValue::from_static("same-origin")),
        // The files change with the program, and are small.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ] {
        headers.insert(name, value);
    }
    response
}

/// A model's document, as the caller's path names it.
pub(crate) fn model_document(model: &ModelDescription, version: Option<&str>, server: Server<'_>) -> Vec<u8> {
    openapi::model_document(ModelDocument {
        name: &model.name,
        version,
        versions: &model.versions,
        platform: model.platform,
        config: &model.config,
        server,
    })
}
