//! The generate extension: a flat object in, and one out, or a stream of events.
//!
//! A key of the body is an input or a parameter as the model has it, so the model is looked up before the body is read; from
//! there on the request is one like any other. Every model here gives one response to a request, so a stream has one event;
//! its status is that of the response. A caller that leaves drops its call, as everywhere at this door.

use actix_web::{
    HttpRequest, HttpResponse,
    body::BoxBody,
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    },
    web,
};
use bytes::Bytes;
use mesh_protocol::{decode_generate, encode_generate};
use mesh_router::{Answer, Call, Completed, Credential};
use mesh_types::{Fault, InferRequest, RequestId};
use smallvec::smallvec;

use crate::{
    infer::{self, Head},
    packing::{self, Accepted},
    reply,
    service::{Service, credential, is_presented, selector},
};

/// How a caller wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// One object.
    Whole,
    /// Events, each an object.
    Events,
}

impl Manner {
    pub(crate) fn of(events: bool) -> Self {
        if events { Self::Events } else { Self::Whole }
    }
}

impl Service {
    /// Answers a generate request.
    pub(crate) async fn generate(
        &self,
        request: &HttpRequest,
        mut payload: web::Payload,
        (name, version): (&str, Option<&str>),
        manner: Manner,
        id: RequestId,
    ) -> HttpResponse {
        let received = self.clock.now();
        let body = match self.body(request, &mut payload, id).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let (start, credential) = (self.clock.now(), credential(request));
        let (head, decoded) = match self.read_generate(request, (name, version), &body.bytes, &credential) {
            Ok(decoded) => decoded,
            Err(fault) => {
                self.refused("malformed", id);
                return reply::fault(&fault, is_presented(request));
            }
        };
        let answer = self
            .router
            .infer(Call {
                request: decoded,
                credential,
                unit: head.unit,
                timeout: head.timeout,
                trace_parent: infer::trace_parent(request.headers()),
                fresh: manner == Manner::Events,
                request_id: id,
                received,
                decode: self.clock.now().saturating_duration_since(start),
            })
            .await;
        self.encode_generate(answer, (manner, head.accepted), request).await
    }

    fn read_generate(
        &self,
        request: &HttpRequest,
        (name, version): (&str, Option<&str>),
        body: &Bytes,
        credential: &Credential,
    ) -> Result<(Head, InferRequest), Fault> {
        let version = selector(version)?;
        let head = infer::read_head(request.headers())?;
        if head.json_bytes.is_some() {
            return Err(Fault::invalid(
                "a generate request is JSON alone: leave out Inference-Header-Content-Length",
            ));
        }
        let model = self.router.describe(credential, name, &version)?;
        let mut decoded = decode_generate(name, version, body, &model.config)?;
        self.forward(request, &mut decoded.parameters)?;
        Ok((head, decoded))
    }

    async fn encode_generate(&self, answer: Answer, manner: (Manner, Accepted), request: &HttpRequest) -> HttpResponse {
        let start = self.clock.now();
        let Answer { result, mut account } = answer;
        let mut response = match result {
            Ok(completed) => written(&completed, manner).await.unwrap_or_else(|fault| {
                account.failed(&fault);
                reply::fault(&fault, is_presented(request))
            }),
            Err(fault) => reply::fault(&fault, is_presented(request)),
        };
        reply::trace(&mut response, account.trace());
        account.finish(self.clock.now().saturating_duration_since(start));
        response
    }
}

async fn written(completed: &Completed, (manner, accepted): (Manner, Accepted)) -> Result<HttpResponse, Fault> {
    let object = encode_generate(&completed.response)?;
    let mut response = match manner {
        Manner::Whole => packing::answer(smallvec![object.into()], None, accepted).await?,
        Manner::Events => events(event(&object)),
    };
    infer::tell_version(&mut response, completed);
    Ok(response)
}

/// One event: the object has no line break, since JSON writes one in a text as an escape.
fn event(object: &[u8]) -> Bytes {
    Bytes::from([b"data: ", object, b"\n\n"].concat())
}

fn events(body: Bytes) -> HttpResponse {
    const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
    const NEVER_KEPT: HeaderValue = HeaderValue::from_static("no-cache");
    let mut response = HttpResponse::with_body(StatusCode::OK, BoxBody::new(body));
    response.headers_mut().insert(CONTENT_TYPE, EVENTS);
    response.headers_mut().insert(CACHE_CONTROL, NEVER_KEPT);
    response
}
