//! A prediction, from its message to its answer: decode, ask the router, and leave the encoding to the codec.

use std::{
    future::Future,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use mesh_protocol::grpc::decode_message;
use mesh_router::{Call, Completed, Share, View};
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

/// A request that was read, on its way to the router.
pub(crate) struct Going {
    pub(crate) request: InferRequest,
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

    /// Takes one request through the router.
    pub(crate) async fn one(&self, head: Head, message: Bytes, (id, received): (RequestId, Instant)) -> Answered {
        let start = self.clock.now();
        let decoded = decode_message(&message).map_err(Fault::from);
        let request = match decoded.and_then(|request| head.forwarded_into(request)) {
            Ok(request) => request,
            Err(fault) => {
                self.refused("malformed", id);
                return (Err(fault), status::marked(id));
            }
        };
        let going = Going {
            request,
            view: None,
            id,
            received,
            start,
        };
        self.go(head, going, Ok).await
    }

    /// Asks the router, and has the answer made of what it says.
    pub(crate) async fn go<T>(
        &self,
        head: Head,
        going: Going,
        make: impl FnOnce(InferResponse) -> Result<T, Fault>,
    ) -> (Result<T, Fault>, HeaderMap) {
        let mut metadata = status::marked(going.id);
        let call = Call {
            request: going.request,
            credential: head.credential,
            unit: head.unit,
            timeout: head.timeout,
            trace_parent: head.trace_parent,
            request_id: going.id,
            received: going.received,
            decode: self.clock.now().saturating_duration_since(going.start),
        };
        let mut answer = match going.view {
            None => self.router.infer(call).await,
            Some(view) => view.infer(call).await,
        };
        status::trace(&mut metadata, answer.account.trace());
        let result = answer.result.and_then(|completed| {
            let Completed { response, arm, .. } = completed;
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
