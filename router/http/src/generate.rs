//! The generate extension: a flat object in, and one out, or a stream of events.
//!
//! A key of the body is an input or a parameter as the model has it, so the model is looked up before the body is read, in the
//! snapshot that answers; from there on the request is one like any other. A stream has an event for each answer: one of most models, any number of a
//! decoupled one. Its status is that of the first answer, and a fault after that is an event, the last. As one object a
//! decoupled model's answer is given where it is the only one. A caller that leaves drops its call, as everywhere at this door.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::{
        StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
    },
    web,
};
use bytes::Bytes;
use mesh_protocol::{decode_generate, encode_generate, error_body};
use mesh_router::{ManyAnswers, Notice, Room, View};
use mesh_types::{Fault, InferRequest, InferResponse, RequestId, TraceContext};
use smallvec::smallvec;

use crate::{
    asked::{Asked, tell_arm},
    infer::{self, Head},
    packing::{self, Accepted},
    reply,
    service::{Service, credential, is_presented, selector},
};

/// What a caller of `generate` is told of a model that gave it no answer, or several; Triton's words.
const EXACTLY_ONE: &str = "generate expects model to produce exactly 1 response, use generate stream for model that generates various \
                           number of responses";

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
        let body = match self.body_of(request, &mut payload, name, id).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let decode_start = self.clock.now();
        let (head, decoded, view) = match self.read_generate(request, (name, version), &body.bytes) {
            Ok(decoded) => decoded,
            Err(fault) => {
                self.refused("malformed", id);
                return reply::fault(&fault, is_presented(request));
            }
        };
        let accepted = head.accepted;
        let asked = Asked {
            request: decoded,
            bytes: body.bytes.len(),
            head,
            room: Room::Many,
            view: Some(view),
            id,
            received,
            decode_start,
        };
        match self.ask(request, asked).await.into_many() {
            Ok(answers) if manner == Manner::Events => stream(answers),
            Ok(answers) => only(answers, accepted)
                .await
                .unwrap_or_else(|fault| reply::fault(&fault, is_presented(request))),
            Err(answer) => {
                self.settle(request, answer, async |completed| {
                    let object = encode_generate(&completed.response)?;
                    match manner {
                        Manner::Whole => packing::answer(smallvec![object.into()], None, accepted).await,
                        Manner::Events => Ok(events(BoxBody::new(event(&object)))),
                    }
                })
                .await
            }
        }
    }

    fn read_generate(
        &self,
        request: &HttpRequest,
        (name, version): (&str, Option<&str>),
        body: &Bytes,
    ) -> Result<(Head, InferRequest, View), Fault> {
        let version = selector(version)?;
        let head = infer::read_head(request.headers())?;
        if head.json_bytes.is_some() {
            return Err(Fault::invalid(
                "a generate request is JSON alone: leave out Inference-Header-Content-Length",
            ));
        }
        let view = self.router.view();
        let model = view.describe(&credential(request), name, &version)?;
        let mut decoded = decode_generate(name, version, body, &model.config)?;
        self.forward(request, &mut decoded.parameters)?;
        Ok((head, decoded, view))
    }
}

/// One event: the object has no line break, since JSON writes one in a text as an escape.
fn event(object: &[u8]) -> Bytes {
    Bytes::from([b"data: ", object, b"\n\n"].concat())
}

fn events(body: BoxBody) -> HttpResponse {
    const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
    const NEVER_KEPT: HeaderValue = HeaderValue::from_static("no-cache");
    let mut response = HttpResponse::with_body(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, EVENTS);
    response.headers_mut().insert(CACHE_CONTROL, NEVER_KEPT);
    response
}

/// The one answer of a decoupled model, as an object.
async fn only(mut answers: ManyAnswers, accepted: Accepted) -> Result<HttpResponse, Fault> {
    let said = answers.account().map(|account| (account.trace(), account.limits()));
    let response = answers.only(EXACTLY_ONE).await?;
    let object = encode_generate(&response)?;
    let mut reply = packing::answer(smallvec![object.into()], None, accepted).await?;
    tell_account(&mut reply, said);
    tell_arm(&mut reply, answers.arm(), answers.version());
    Ok(reply)
}

/// An event for each answer.
fn stream(answers: ManyAnswers) -> HttpResponse {
    let (arm, version) = (answers.arm().map(str::to_owned), answers.version());
    let said = answers.account().map(|account| (account.trace(), account.limits()));
    let mut response = events(BoxBody::new(Events(Some(answers))));
    tell_account(&mut response, said);
    tell_arm(&mut response, arm.as_deref(), version);
    response
}

/// What an answer says of its account: its trace, and its caller's limits when it began.
fn tell_account(response: &mut HttpResponse, said: Option<(TraceContext, Option<Notice>)>) {
    let Some((trace, notice)) = said else { return };
    reply::trace(response, trace);
    notice.into_iter().for_each(|notice| reply::notice(response, notice));
}

/// Answers as events, while they come. Dropped with the connection of a caller that leaves.
struct Events(Option<ManyAnswers>);

impl Events {
    /// What an answer is written as; a fault ends the stream.
    fn write(&mut self, answer: Result<InferResponse, Fault>) -> Bytes {
        let fault = match answer.and_then(|response| encode_generate(&response).map_err(Fault::from)) {
            Ok(object) => return event(&object),
            Err(fault) => fault,
        };
        if let Some(mut answers) = self.0.take() {
            answers.failed(&fault);
        }
        event(&error_body(&fault.message))
    }
}

impl MessageBody for Events {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let Some(answers) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let Some(answer) = ready!(answers.poll_next(context)) else {
            self.0 = None;
            return Poll::Ready(None);
        };
        Poll::Ready(Some(Ok(self.write(answer))))
    }
}
