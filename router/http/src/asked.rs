//! A prediction from what a protocol has read to its answer, the same way for every protocol of this door: ask the router, have the
//! answer written, close its account.
//!
//! Knows no body: how one is read and written is the protocol's. Invariant: what was read by a view is answered by it.

use std::time::Instant;

use actix_web::{HttpRequest, HttpResponse, http::header::HeaderValue};
use futures::future::Either;
use mesh_router::{Answer, Call, Completed, Room, View};
use mesh_types::{Fault, InferRequest, RequestId, Version};

use crate::{
    infer::{Head, trace_parent},
    reply,
    service::{Service, credential, is_presented},
};

/// A prediction that is asked for, whatever the protocol.
pub(crate) struct Asked {
    pub(crate) request: InferRequest,
    /// How long its body was, unpacked.
    pub(crate) bytes: usize,
    pub(crate) head: Head,
    /// How many answers there is room for.
    pub(crate) room: Room,
    /// What its body was read by, where a model had to be known for that.
    pub(crate) view: Option<View>,
    pub(crate) id: RequestId,
    /// When its first byte came.
    pub(crate) received: Instant,
    /// When its body was there.
    pub(crate) decode_start: Instant,
}

impl Service {
    /// Asks the router.
    pub(crate) fn ask(&self, http: &HttpRequest, asked: Asked) -> impl Future<Output = Answer> {
        let call = Call {
            request: asked.request,
            bytes: asked.bytes,
            credential: credential(http),
            unit: asked.head.unit,
            room: asked.room,
            timeout: asked.head.timeout,
            trace_parent: trace_parent(http.headers()),
            request_id: asked.id,
            received: asked.received,
            decode: self.clock.now().saturating_duration_since(asked.decode_start),
        };
        match asked.view {
            None => Either::Left(self.router.infer(call)),
            Some(view) => Either::Right(view.infer(call)),
        }
    }

    /// Has the answer written, and closes its account.
    pub(crate) async fn settle(
        &self,
        http: &HttpRequest,
        answer: Answer,
        write: impl AsyncFnOnce(&Completed) -> Result<HttpResponse, Fault>,
    ) -> HttpResponse {
        let start = self.clock.now();
        let Answer { result, mut account } = answer;
        let mut response = match result {
            Ok(completed) => match write(&completed).await {
                Ok(mut response) => {
                    tell_version(&mut response, &completed);
                    response
                }
                Err(fault) => {
                    account.failed(&fault);
                    reply::fault(&fault, is_presented(http))
                }
            },
            Err(fault) => reply::fault(&fault, is_presented(http)),
        };
        reply::trace(&mut response, account.trace());
        reply::limits(&mut response, &account);
        account.finish(self.clock.now().saturating_duration_since(start));
        response
    }
}

/// Says which version answered, which arm of a split, and whether the answer was remembered where it may be.
fn tell_version(response: &mut HttpResponse, completed: &Completed) {
    tell_arm(response, completed.arm.as_deref(), completed.response.version);
    if let Some(cached) = completed.cached {
        let value = HeaderValue::from_static(cached.as_str());
        response.headers_mut().insert(reply::CACHE, value);
    }
}

/// The same of any number of answers.
pub(crate) fn tell_arm(response: &mut HttpResponse, arm: Option<&str>, version: Version) {
    if let Some(arm) = arm {
        reply::text_header(response, reply::ARM, arm);
    }
    let version = HeaderValue::from(version.get());
    response.headers_mut().insert(reply::VERSION, version);
}
