//! Uploads of model files: streamed to disk as they come, a few at a time. That none stands still is seen to by its [`Pace`](crate::bodies::Pace).

use actix_web::{HttpRequest, HttpResponse, web};
use futures::StreamExt as _;

use crate::{AdminState, error::ApiError};

pub(crate) async fn upload(
    state: &AdminState,
    request: &HttpRequest,
    mut body: web::Payload,
) -> Result<HttpResponse, ApiError> {
    let busy = || ApiError::busy("as many uploads are running as can be: wait for one to end");
    let _permit = state.inner.uploads.try_acquire().ok_or_else(busy)?;
    let expected = request
        .headers()
        .get("x-sha256")
        .map(|value| value.to_str().unwrap_or_default());
    let well_formed =
        |digest: &str| digest.len() == 64 && digest.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !expected.is_none_or(well_formed) {
        return Err(ApiError::invalid("x-sha256 is 64 lowercase hexadecimal digits"));
    }
    let mut upload = state.inner.parts.registry.artifacts().begin().await?;
    while let Some(piece) = body.next().await {
        let piece = piece.map_err(|error| ApiError::invalid(format!("the upload broke off: {error}")))?;
        upload.write(piece).await?;
    }
    let artifact = upload.finish(expected).await?;
    Ok(HttpResponse::Created().json(artifact))
}
