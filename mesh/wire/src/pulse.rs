//! What the handlers of a connection tell its [`Paced`](crate::Paced): that a request is under way, and when it is over.
//!
//! A door whose application is built of middleware wraps it in [`keep`]; one that answers by hand calls [`Pulse::begin`] itself.

use std::{
    cell::Cell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    Error, HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::ConnectionType,
    middleware::Next,
};
use bytes::Bytes;
use mesh_protocol::{Problem, error_body};
use mesh_telemetry::Telemetry;
use tokio::time::Instant;

use crate::pace::{End, MAX_HEAD_BYTES};

/// What the handlers say of a connection.
#[derive(Debug)]
pub struct Pulse {
    pub(crate) under_way: Cell<usize>,
    /// How many requests have begun.
    pub(crate) begun: Cell<u64>,
    /// When something last went out, or a request ended.
    pub(crate) still_since: Cell<Instant>,
    /// Whether an answer has said that it is the last.
    pub(crate) is_last: Cell<bool>,
    /// Whether more has come since the last request began than a head may have.
    pub(crate) is_much: Cell<bool>,
    telemetry: Telemetry,
}

/// A request under way; over when it is dropped.
#[derive(Debug)]
pub struct UnderWay(pub(crate) Rc<Pulse>);

impl Pulse {
    pub(crate) fn new(now: Instant, telemetry: Telemetry) -> Rc<Self> {
        Rc::new(Self {
            under_way: Cell::new(0),
            begun: Cell::new(0),
            still_since: Cell::new(now),
            is_last: Cell::new(false),
            is_much: Cell::new(false),
            telemetry,
        })
    }

    /// Begins a request, on a connection that has a pulse.
    pub fn begin(request: &HttpRequest) -> Option<UnderWay> {
        let pulse = request.conn_data::<Rc<Self>>()?.clone();
        pulse.under_way.set(pulse.under_way.get() + 1);
        pulse.begun.set(pulse.begun.get().wrapping_add(1));
        Some(UnderWay(pulse))
    }

    /// Counts a connection that ends for this.
    pub(crate) fn refused(&self, end: End) {
        self.telemetry.metrics().refused(end.reason());
    }
}

/// The bytes of a head, as one would write it.
fn head_bytes(request: &HttpRequest) -> usize {
    let line = request.method().as_str().len() + request.uri().to_string().len() + "  HTTP/1.1\r\n\r\n".len();
    let fields = request.headers().iter();
    line + fields
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum::<usize>()
}

impl UnderWay {
    /// The answer to a request whose head is too long, which is counted; none for all others. Looked at only where enough came for one.
    pub fn too_long(&self, request: &HttpRequest) -> Option<HttpResponse> {
        if !self.0.is_much.replace(false) || head_bytes(request) <= MAX_HEAD_BYTES {
            return None;
        }
        self.0.refused(End::Long);
        let (status, message) = (End::Long.status(), End::Long.message());
        let mut answer = HttpResponse::build(status);
        let mut answer = answer
            .content_type("application/json")
            .force_close()
            .body(error_body(&message));
        // For callers of doors that tell problems so.
        answer
            .extensions_mut()
            .insert(Problem::of_status(status.as_u16(), &message));
        Some(answer)
    }

    /// Ends it with the answer: at once where that is whole, else with the last of it.
    pub fn end_with(self, answer: HttpResponse) -> HttpResponse {
        if answer.head().connection_type() == ConnectionType::Close {
            self.0.is_last.set(true);
        }
        match answer.body().size() {
            BodySize::Stream => answer.map_body(|_, body| BoxBody::new(Parts { body, _until: self })),
            BodySize::None | BodySize::Sized(_) => answer,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let left = self.0.under_way.get().saturating_sub(1);
        self.0.under_way.set(left);
        if left == 0 {
            self.0.still_since.set(Instant::now());
        }
    }
}

/// A body of unknown length, whose request lasts as long.
struct Parts {
    body: BoxBody,
    _until: UnderWay,
}

impl MessageBody for Parts {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// A middleware that sees to all of it; to be the outermost.
pub async fn keep<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(under_way) = Pulse::begin(request.request()) else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    if let Some(refusal) = under_way.too_long(request.request()) {
        return Ok(request.into_response(under_way.end_with(refusal)));
    }
    let (request, answer) = next.call(request).await?.into_parts();
    let answer = under_way.end_with(answer.map_into_boxed_body());
    Ok(ServiceResponse::new(request, answer))
}
