//! `ModelStreamInfer`: requests over one stream, answered in their order.
//!
//! Each request is a call of its own, through the same pipeline as any other. Several are under way at once, begun in their
//! order, so that a sequence may be sent without waiting for each answer; while as many as allowed are, no further one is
//! read, and the caller is held back by the protocol's own flow control. A request that fails is answered with a message and
//! the stream goes on, unless the caller asked that its first error ends it.

use std::{future::Future, rc::Rc};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use mesh_protocol::grpc::id_of_message;
use mesh_types::{Deadline, Fault, FaultSource};
use tokio::sync::{mpsc, oneshot};
use tonic::{Status, Streaming, body::Body, server::StreamingService};

use crate::{
    codec::{StreamAnswer, StreamCodec},
    connection::Calls,
    head::{self, Head},
    meter::Meter,
    service::Service,
    status,
};

/// Answers on their way to the connection.
const MAX_ANSWERS: usize = 4;

type Answers = mpsc::Sender<Result<StreamAnswer, Status>>;
type Answered = mpsc::Receiver<Result<StreamAnswer, Status>>;

/// A function as the answerer of a call with messages both ways.
struct Many<F>(F);

impl<F, Answering, S, Q, R> StreamingService<Q> for Many<F>
where
    F: FnMut(tonic::Request<Streaming<Q>>) -> Answering,
    Answering: Future<Output = Result<tonic::Response<S>, Status>>,
    S: Stream<Item = Result<R, Status>>,
{
    type Response = R;
    type ResponseStream = S;
    type Future = Answering;

    fn call(&mut self, request: tonic::Request<Streaming<Q>>) -> Answering {
        (self.0)(request)
    }
}

/// A stream of requests.
struct Conversation {
    service: Rc<Service>,
    head: Head,
    meter: Meter,
    deadline: Option<Deadline>,
}

impl Service {
    /// Answers a stream.
    pub(crate) async fn stream(self: Rc<Self>, request: Request<Incoming>, calls: &Calls) -> Response<Body> {
        let id = self.ids.next();
        let head = Head::read(&request).and_then(|head| {
            // Once for all, so that a stream which nobody may use is refused as a whole.
            self.router.authenticate(&head.credential)?;
            head.forwarding(self.config.forward.as_ref(), request.headers())
        });
        let head = match head {
            Ok(head) => head,
            Err(fault) => {
                self.refused("stream", id);
                return status::of_fault(&fault, status::marked(id)).into_http();
            }
        };
        let mut grpc = self.grpc(StreamCodec, head::encoding(request.headers()));
        let (request, meter) = self.metered_stream(request);
        let conversation = Conversation {
            deadline: head.timeout.map(|timeout| Deadline::after(self.clock.now(), timeout)),
            service: self,
            head,
            meter,
        };
        // The library may move what answers between threads; the conversation stays on this one, and is handed its requests.
        let (hand_over, requests) = oneshot::channel();
        let (answers, answered) = mpsc::channel(MAX_ANSWERS);
        calls.begin(async move {
            if let Ok(requests) = requests.await {
                conversation.hold(requests, answers).await;
            }
        });
        let mut once = Some((hand_over, answered));
        let answer = Many(move |requests: tonic::Request<Streaming<Bytes>>| {
            let begun = once.take().and_then(|(hand_over, answered)| {
                hand_over.send(requests.into_inner()).ok()?;
                Some(answered)
            });
            std::future::ready(begun.map_or_else(
                || Err(Status::internal("the stream could not be begun")),
                |answered| {
                    let answered = stream::unfold(answered, |mut answered: Answered| async move {
                        let answer = answered.recv().await?;
                        Some((answer, answered))
                    });
                    let mut response = tonic::Response::new(answered);
                    *response.metadata_mut() = tonic::metadata::MetadataMap::from_headers(status::marked(id));
                    Ok(response)
                },
            ))
        });
        grpc.streaming(answer, request).await
    }
}

impl Conversation {
    /// Answers until the requests end, the caller leaves or the deadline passes. Leaving drops what is under way.
    async fn hold(self, requests: Streaming<Bytes>, answers: Answers) {
        let deadline = self.deadline;
        let left = answers.clone();
        let past = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.instant().into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.answer_all(requests, &answers) => {}
            () = left.closed() => {}
            () = past => {
                let status = status::of_fault(&Fault::deadline("before the stream ended"), HeaderMap::new());
                // A caller that has left need not be told.
                let _ = answers.send(Err(status)).await;
            }
        }
    }

    async fn answer_all(&self, requests: Streaming<Bytes>, answers: &Answers) {
        let most = self.service.config.max_stream_requests.max(1);
        // What is under way when the door ends is finished; what comes then is not read.
        let requests = requests.take_until(self.service.ended());
        let answered = requests.map(|message| self.one(message)).buffered(most);
        let mut answered = std::pin::pin!(answered);
        while let Some(answer) = answered.next().await {
            let is_last = answer.is_err();
            if answers.send(answer).await.is_err() || is_last {
                return;
            }
        }
        if *self.service.ending.borrow() {
            let ending = Fault::unavailable(
                FaultSource::Mesh,
                "the server is going: send further requests to another",
            );
            // A caller that has left need not be told.
            let _ = answers.send(Err(status::of_fault(&ending, HeaderMap::new()))).await;
        }
    }

    async fn one(&self, message: Result<Bytes, Status>) -> Result<StreamAnswer, Status> {
        let service = &self.service;
        let message = message.map_err(status::of_reading)?;
        let (number, received) = (service.ids.next(), service.clock.now());
        let id = id_of_message(&message).map(str::to_owned);
        let _share = match service.hold(&self.meter, &message) {
            Ok(share) => share,
            Err(fault) => return self.failed(&fault, id, status::marked(number)),
        };
        let mut head = self.head.clone();
        head.fresh = true;
        head.timeout = self.deadline.map(|deadline| deadline.remaining(received));
        let (result, metadata) = service.one(head, message, (number, received)).await;
        result
            .map(StreamAnswer::Response)
            .or_else(|fault| self.failed(&fault, id, metadata))
    }

    fn failed(&self, fault: &Fault, id: Option<String>, metadata: HeaderMap) -> Result<StreamAnswer, Status> {
        if self.head.errors_end_stream {
            return Err(status::of_fault(fault, metadata));
        }
        Ok(StreamAnswer::Failed {
            id,
            message: fault.message.to_string(),
        })
    }
}
