//! `ModelStreamInfer`: requests over one stream, answered in their order; those of decoupled models beside the others.
//!
//! Each request is a call of its own, through the same pipeline as any other. Several are under way at once, begun in their
//! order, so that a sequence may be sent without waiting for each answer; while as many as allowed are, no further one is
//! read, and the caller is held back by the protocol's own flow control. A request that fails is answered with a message and
//! the stream goes on, unless the caller asked that its first error ends it.
//!
//! A request with any number of answers takes its place in the order by its first; the rest come as they are there, between those
//! of others, and hold nobody up. Each says that others may follow; that none does is told by an answer without outputs, to who
//! asked for that. While the caller does not read, no answer is taken from the device, whose rule for slow readers then holds.

use std::{future::Future, rc::Rc};

use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    stream::{self, FuturesOrdered, FuturesUnordered},
};
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use mesh_protocol::grpc::id_of_message;
use mesh_router::{ManyAnswers, Room, Share};
use mesh_types::{Deadline, Fault, FaultSource, RequestId};
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

/// An answer for the connection; none where there is nothing to say.
type Told = Option<Result<StreamAnswer, Status>>;

/// What a request came to.
enum Came<'a> {
    One(Told),
    Many(Following<'a>),
}

/// A request with any number of answers, while they come.
struct Following<'a> {
    conversation: &'a Conversation,
    answers: ManyAnswers,
    id: Option<String>,
    /// Whether its end is told.
    empty_final: bool,
    number: RequestId,
    /// What its message takes.
    _share: Share,
}

impl<'a> Following<'a> {
    /// What is to be said next, and itself if more may follow.
    async fn next(mut self) -> (Told, Option<Following<'a>>) {
        match self.answers.next().await {
            Some(Ok(response)) => (Some(Ok(StreamAnswer::Partial(response))), Some(self)),
            Some(Err(fault)) => {
                let failed = self.conversation.failed(&fault, self.id, status::marked(self.number));
                (Some(failed), None)
            }
            None => {
                let end = self
                    .empty_final
                    .then(|| Ok(StreamAnswer::Response(self.answers.empty())));
                (end, None)
            }
        }
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
        self.router.await_keys(&head::credential(&request)).await;
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
        let mut requests = std::pin::pin!(requests.take_until(self.service.ended()).fuse());
        let mut begun = FuturesOrdered::new();
        let mut many: FuturesUnordered<_> = None::<Following<'_>>.map(Following::next).into_iter().collect();
        loop {
            let has_room = begun.len() + many.len() < most;
            let next = tokio::select! {
                biased;
                Some((answer, rest)) = many.next() => {
                    many.extend(rest.map(Following::next));
                    Some(answer)
                }
                Some(came) = begun.next() => match came {
                    Came::One(answer) => Some(answer),
                    Came::Many(following) => {
                        many.push(following.next());
                        None
                    }
                },
                Some(message) = requests.next(), if has_room => {
                    begun.push_back(self.one(message));
                    None
                }
                else => break,
            };
            let Some(answer) = next.flatten() else { continue };
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

    async fn one(&self, message: Result<Bytes, Status>) -> Came<'_> {
        let service = &self.service;
        let message = match message {
            Ok(message) => message,
            Err(status) => return Came::One(Err(status::of_reading(status)).into()),
        };
        let (number, received) = (service.ids.next(), service.clock.now());
        let id = id_of_message(&message).map(str::to_owned);
        let share = match service.hold(&self.meter, &message) {
            Ok(share) => share,
            Err(fault) => return Came::One(self.failed(&fault, id, status::marked(number)).into()),
        };
        let mut head = self.head.clone();
        head.timeout = self.deadline.map(|deadline| deadline.remaining(received));
        let (answer, empty_final) = match service.begin(head, &message, (number, received), Room::Many).await {
            Ok(asked) => asked,
            Err(fault) => return Came::One(self.failed(&fault, id, status::marked(number)).into()),
        };
        match answer.into_many() {
            Ok(answers) => Came::Many(Following {
                conversation: self,
                answers,
                id,
                empty_final,
                number,
                _share: share,
            }),
            Err(answer) => {
                let (result, metadata) = service.answered(answer, number);
                let answer = result.map(StreamAnswer::Response);
                Came::One(answer.or_else(|fault| self.failed(&fault, id, metadata)).into())
            }
        }
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
