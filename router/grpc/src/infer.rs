//! A prediction, from its message to its answer: decode, ask the router, and leave the encoding to the codec.

use std::{
    future::Future,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use mesh_protocol::{add_forwarded, grpc::decode_message};
use mesh_router::{Call, Completed, Share};
use mesh_types::{Fault, FaultSource, InferResponse, Parameters, RequestId};
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

/// What came of a request: the response, or why there is none, and the metadata of either.
pub(crate) type Answered = (Result<InferResponse, Fault>, HeaderMap);

impl Service {
    /// Answers an inference call.
    pub(crate) async fn infer(self: Rc<Self>, request: Request<Incoming>) -> Response<Body> {
        let (id, received) = (self.ids.next(), self.clock.now());
        let head = Head::read(&request);
        let head = head.and_then(|head| head.forwarding(self.config.forward.as_ref(), request.headers()));
        let head = match head {
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
        let mut metadata = status::marked(id);
        let start = self.clock.now();
        let decoded = decode_message(&message).and_then(|mut request| {
            if let Some(forwarded) = &head.forwarded {
                add_forwarded(Parameters::clone(forwarded), &mut request.parameters)?;
            }
            Ok(request)
        });
        let request = match decoded {
            Ok(request) => request,
            Err(error) => {
                self.refused("malformed", id);
                return (Err(error.into()), metadata);
            }
        };
        let answer = self
            .router
            .infer(Call {
                request,
                credential: head.credential,
                unit: head.unit,
                timeout: head.timeout,
                trace_parent: head.trace_parent,
                fresh: head.fresh,
                request_id: id,
                received,
                decode: self.clock.now().saturating_duration_since(start),
            })
            .await;
        status::trace(&mut metadata, answer.account.trace());
        let result = answer.result.map(|completed| {
            let Completed {
                response, arm, cached, ..
            } = completed;
            if let Some(cached) = cached {
                metadata.insert(status::CACHE, http::HeaderValue::from_static(cached.as_str()));
            }
            if let Some(arm) = arm {
                status::put(&mut metadata, status::ARM, &arm);
            }
            let version = http::HeaderValue::from(response.version.get());
            metadata.insert(status::VERSION, version);
            response
        });
        // The library writes the answer after this, into its own buffer: that is not timed.
        answer.account.finish(Duration::ZERO);
        (result, metadata)
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
