//! What is traced and logged: read, and changed where callers may.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use mesh_protocol::{decode_log_change, decode_trace_change, log_settings_body, trace_settings_body};
use mesh_types::{Fault, LogChange, RequestId, TraceChange};

use crate::{
    reply,
    service::{Service, credential, is_presented},
};

/// What settings are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settings<'a> {
    /// What is traced: of a model, or of the server.
    Trace(Option<&'a str>),
    Logging,
}

impl Service {
    /// Answers what is set, after the change that was posted.
    pub(crate) async fn settings(
        &self,
        request: &HttpRequest,
        mut payload: web::Payload,
        of: Settings<'_>,
        id: RequestId,
    ) -> HttpResponse {
        let body = match self.body(request, &mut payload, id).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let posted = (request.method() == actix_web::http::Method::POST).then_some(&*body.bytes);
        match self.set(request, of, posted) {
            Ok(body) => reply::json(StatusCode::OK, body),
            Err(fault) => reply::fault(&fault, is_presented(request)),
        }
    }

    fn set(&self, request: &HttpRequest, of: Settings<'_>, posted: Option<&[u8]>) -> Result<Vec<u8>, Fault> {
        let credential = credential(request);
        match of {
            Settings::Trace(model) => {
                let change = posted.map_or(Ok(TraceChange::default()), decode_trace_change)?;
                let settings = self.router.trace_settings(&credential, model, &change)?;
                Ok(trace_settings_body(&settings))
            }
            Settings::Logging => {
                let change = posted.map_or(Ok(LogChange::default()), decode_log_change)?;
                let settings = self.router.log_settings(&credential, &change)?;
                Ok(log_settings_body(&settings))
            }
        }
    }
}
