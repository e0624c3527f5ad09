//! The web app's files: what exists is served, what does not is a page of the app, and `/admin` never is.

use std::sync::Arc;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{Method, StatusCode, header},
    web,
};
use sha2::{Digest as _, Sha256};

use crate::{Asset, Assets, error::ApiError};
use actix_web::ResponseError as _;

/// The folder whose file names hold a digest of what is in them.
const HASHED_FOLDER: &str = "assets/";
const INDEX: &str = "index.html";
const FOREVER: &str = "public, max-age=31536000, immutable";
const CHECK_AGAIN: &str = "no-cache";

/// Serves everything that no route of the API takes.
pub(crate) async fn serve(request: HttpRequest, assets: web::Data<Arc<dyn Assets>>) -> HttpResponse {
    let path = request.path().trim_start_matches('/');
    if path == "admin" || path.starts_with("admin/") {
        return ApiError::not_found("this route").error_response();
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "files are only read: use GET").error_response();
    }
    let found = (!path.is_empty()).then(|| assets.get(path)).flatten();
    if let Some(asset) = found {
        let cache = if path.starts_with(HASHED_FOLDER) {
            FOREVER
        } else {
            CHECK_AGAIN
        };
        return file(&request, asset, cache);
    }
    // A missing file of the app is missing; any other path is a page that the app draws itself.
    if path.starts_with(HASHED_FOLDER) {
        return ApiError::not_found("this file").error_response();
    }
    match assets.get(INDEX) {
        Some(index) => file(&request, index, CHECK_AGAIN),
        None => ApiError::not_found("the web app (this program was built without it)").error_response(),
    }
}

fn file(request: &HttpRequest, asset: Asset, cache: &'static str) -> HttpResponse {
    let digest = Sha256::digest(&asset.bytes);
    let short: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{short}\"");
    let known = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim().trim_start_matches("W/") == tag)) {
        return HttpResponse::NotModified().insert_header((header::ETAG, tag)).finish();
    }
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, asset.content_type.as_ref()))
        .insert_header((header::CACHE_CONTROL, cache))
        .insert_header((header::ETAG, tag))
        .body(asset.bytes.into_owned())
}
