//! A prediction, from its message to its answer: decode, ask the router, and leave the encoding to the codec.

use std::{
    future::Future,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use mesh_protocol::grpc::decode_stream_message;
use mesh_router::{Answer, Call, Completed, Room, Share, View};
use mesh_types::{Fault, FaultSource, InferRequest, InferResponse, RequestId};
use tonic::{Status, body::Body, metadata::MetadataMap, server::UnaryService};

use crate::{
    codec::InferCodec,
    head::{self, Head},
    meter::{FREE_BYTES, Meter},
    service::Service,
    status,
};

/// A function as the answerer of a call with one message each way.
pub(crate) struct One<F>(pub(crate) F);

impl<F, Answering, Q, R> UnaryService<Q> for One<F>
where
    F: FnMut(tonic::Request<Q>) -> Answering,
    Answering: Future<Output = Result<tonic::Response<R>, Status>>,
{
    type Response = R;
    type Future = Answering;

    fn call(&mut self, request: tonic::Request<Q>) -> Answering {
        (self.0)(request)
    }
}

/// What a caller of a decoupled model is told where it has room for one answer.
const ONE_ANSWER: Room = Room::One(
    "ModelInfer RPC doesn't support models with decoupled transaction policy: the model gives any number of answers, call it over \
     ModelStreamInfer",
);

/// A request that was read, on its way to the router.
pub(crate) struct Going {
    pub(crate) request: InferRequest,
    /// How long its message was, unpacked.
    pub(crate) bytes: usize,
    /// What it was read by, where a model had to be known for that.
    pub(crate) view: Option<View>,
    pub(crate) id: RequestId,
    pub(crate) received: Instant,
    /// When its message was there.
    pub(crate) start: Instant,
}

/// What came of a request: the response, or why there is none, and the metadata of either.
pub(crate) type Answered = (Result<InferResponse, Fault>, HeaderMap);

impl Service {
    /// Answers an inference call.
    pub(crate) async fn infer(self: Rc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (id, received) = (self.ids.next(), self.clock.now());
        let head = match self.head(&request) {
            Ok(head) => head,
            Err(fault) => {
                self.refused("malformed", id);
                return status::of_fault(&fault, status::marked(id)).into_http();
            }
        };
        let mut grpc = self.grpc(InferCodec, head::encoding(request.headers()));
        let (request, meter) = self.metered(request);
        let mut once = Some((self, head, meter));
        let answer = One(move |message: tonic::Request<Bytes>| {
            let begun = once.take();
            async move {
                let (service, head, meter) = begun.ok_or_else(|| Status::internal("the call was begun twice"))?;
                // Held until the answer is there.
                let held = service.hold(&meter, message.get_ref());
                let _share = held.map_err(|fault| status::of_fault(&fault, status::marked(id)))?;
                match service.one(head, message.into_inner(), (id, received)).await {
                    (Ok(response), metadata) => {
                        let mut answer = tonic::Response::new(response);
                        *answer.metadata_mut() = MetadataMap::from_headers(metadata);
                        Ok(answer)
                    }
                    (Err(fault), metadata) => Err(status::of_fault(&fault, metadata)),
                }
            }
        });
        exact(grpc.unary(answer, request).await)
    }

    /// What a message takes, to be held until its call is answered. What a packed message unfolded to is counted only here.
    pub(crate) fn hold(&self, meter: &Meter, message: &Bytes) -> Result<Share, Fault> {
        let mut share = meter.take();
        let unfolded = message.len().saturating_sub(share.bytes().saturating_add(FREE_BYTES));
        if share.grow(unfolded) {
            return Ok(share);
        }
        let text = "the server has no room for another large message: try again";
        Err(Fault::unavailable(FaultSource::Mesh, text))
    }

    /// Takes one request through the router, to its one answer.
    pub(crate) async fn one(&self, head: Head, message: Bytes, of: (RequestId, Instant)) -> Answered {
        match self.begin(head, &message, of, ONE_ANSWER).await {
            Ok((answer, _)) => self.answered(answer, of.0),
            Err(fault) => (Err(fault), status::marked(of.0)),
        }
    }

    /// Takes one request through the router; also whether it wants to be told its end.
    pub(crate) async fn begin(
        &self,
        head: Head,
        message: &Bytes,
        (id, received): (RequestId, Instant),
        room: Room,
    ) -> Result<(Answer, bool), Fault> {
        let start = self.clock.now();
        let decoded = decode_stream_message(message).map_err(Fault::from);
        let decoded = decoded.and_then(|(request, empty_final)| Ok((head.forwarded_into(request)?, empty_final)));
        let (request, empty_final) = decoded.inspect_err(|_| self.refused("malformed", id))?;
        let going = Going {
            request,
            bytes: message.len(),
            view: None,
            id,
            received,
            start,
        };
        Ok((self.through(head, going, room).await, empty_final))
    }

    /// Takes one request that was read through the router, and has its one answer made of what it says.
    pub(crate) async fn go<T>(
        &self,
        head: Head,
        going: Going,
        make: impl FnOnce(InferResponse) -> Result<T, Fault>,
    ) -> (Result<T, Fault>, HeaderMap) {
        let id = going.id;
        let answer = self.through(head, going, ONE_ANSWER).await;
        self.made(answer, id, make)
    }

    async fn through(&self, head: Head, going: Going, room: Room) -> Answer {
        let call = Call {
            request: going.request,
            bytes: going.bytes,
            credential: head.credential,
            unit: head.unit,
            room,
            timeout: head.timeout,
            trace_parent: head.trace_parent,
            request_id: going.id,
            received: going.received,
            decode: self.clock.now().saturating_duration_since(going.start),
        };
        match going.view {
            None => self.router.infer(call).await,
            Some(view) => view.infer(call).await,
        }
    }

    /// A request's one response, with the metadata of its answer.
    pub(crate) fn answered(&self, answer: Answer, id: RequestId) -> Answered {
        self.made(answer, id, Ok)
    }

    fn made<T>(
        &self,
        mut answer: Answer,
        id: RequestId,
        make: impl FnOnce(InferResponse) -> Result<T, Fault>,
    ) -> (Result<T, Fault>, HeaderMap) {
        let mut metadata = status::marked(id);
        status::trace(&mut metadata, answer.account.trace());
        status::limits(&mut metadata, &answer.account);
        let result = answer.result.and_then(|completed| {
            let Completed {
                response, arm, cached, ..
            } = *completed;
            if let Some(cached) = cached {
                metadata.insert(status::CACHE, http::HeaderValue::from_static(cached.as_str()));
            }
            if let Some(arm) = arm {
                status::put(&mut metadata, status::ARM, &arm);
            }
            let version = http::HeaderValue::from(response.version.get());
            metadata.insert(status::VERSION, version);
            make(response)
        });
        if let Err(fault) = &result {
            answer.account.failed(fault);
        }
        // The library writes the answer after this, into its own buffer: that is not timed.
        answer.account.finish(Duration::ZERO);
        (result, metadata)
    }

    /// What a call of inference says beside its message.
    pub(crate) fn head<B>(&self, request: &Request<B>) -> Result<Head, Fault> {
        Head::read(request)?.forwarding(self.config.forward.as_ref(), request.headers())
    }
}

/// The library's own refusals by the protocol's names for them.
pub(crate) fn exact(mut response: Response<Body>) -> Response<Body> {
    const OUT_OF_RANGE: &str = "11";
    const RESOURCE_EXHAUSTED: http::HeaderValue = http::HeaderValue::from_static("8");
    let headers = response.headers_mut();
    if headers.get("grpc-status").is_some_and(|status| status == OUT_OF_RANGE) {
        headers.insert("grpc-status", RESOURCE_EXHAUSTED);
    }
    response
}
