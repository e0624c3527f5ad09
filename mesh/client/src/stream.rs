//! Requests over one stream, answered in their order; over gRPC only.
//!
//! Two halves, so that one task may send while another reads. Requests travel while answers are waited for: what has been sent
//! and not yet read by the server waits in a bounded queue, and [`StreamRequests::send`] waits for room in it. The stream has one
//! deadline, unit and trace for all its requests, and nothing on it is sent again.

use std::{fmt, pin::Pin, time::Duration};

use futures::{Stream, StreamExt, TryFutureExt as _, stream};
use mesh_protocol::grpc::messages::{ModelInferRequest, ModelStreamInferResponse};
use mesh_types::TraceContext;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::{
    Answer, Client, Error, Request,
    builder::check_timeout,
    client::Wire,
    grpc::{failed_on_stream, read_answer},
    head::{self, Head},
};

/// The most requests that wait to be sent.
pub const MAX_WAITING: usize = 64;

/// Sets up a stream.
#[derive(Debug, Clone)]
#[must_use = "open() opens it"]
pub struct StreamBuilder {
    client: Client,
    timeout: Option<Duration>,
    unit: Option<String>,
    trace: Option<TraceContext>,
}

/// The half that sends. Dropping it tells the server that no more requests come.
#[derive(Debug, Clone)]
pub struct StreamRequests {
    client: Client,
    requests: mpsc::Sender<ModelInferRequest>,
}

/// The half that reads. Dropping it cancels what is under way.
pub struct StreamAnswers {
    answers: Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Error>> + Send>>,
    deadline: Option<(Instant, Duration)>,
    ended: bool,
}

impl fmt::Debug for StreamAnswers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamAnswers")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl StreamBuilder {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            timeout: None,
            unit: None,
            trace: None,
        }
    }

    /// How long the whole stream may take; without it, as long as it likes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The unit of a sticky split, for all its requests.
    pub fn unit(mut self, unit: &str) -> Self {
        self.unit = Some(unit.to_owned());
        self
    }

    /// The span that it is part of; without it, the one that OpenTelemetry says is current.
    pub fn trace(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Begins it. Whether there is a server shows with the first answer.
    ///
    /// ```no_run
    /// # use mesh_client::{Client, Input};
    /// # async fn example(client: Client) -> Result<(), mesh_client::Error> {
    /// let (requests, mut answers) = client.stream().open()?;
    /// let model = client.model("digits");
    /// for image in [[0.0_f32; 64], [1.0; 64]] {
    ///     requests.send(model.request().input(Input::new("pixels", [1, 64], &image)?)).await?;
    /// }
    /// drop(requests);
    /// while let Some(answer) = answers.next().await {
    ///     println!("{:?}", answer?.output("scores")?.values::<f32>()?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn open(self) -> Result<(StreamRequests, StreamAnswers), Error> {
        let Wire::Grpc(_) = &self.client.0.wire else {
            return Err(Error::invalid("a stream of requests travels over gRPC only"));
        };
        let timeout = self.timeout.map(check_timeout).transpose()?;
        let head = Head {
            left: timeout,
            unit: self.unit,
            trace: self.trace.or_else(head::current_trace),
        };
        // A unit that cannot be sent is said here.
        head.over_grpc()?;
        let (requests, waiting) = mpsc::channel(MAX_WAITING);
        let waiting = stream::unfold(waiting, |mut waiting| async move {
            let request = waiting.recv().await?;
            Some((request, waiting))
        });
        let client = self.client.clone();
        let opened = async move {
            let Wire::Grpc(wire) = &client.0.wire else {
                return Err(Error::invalid("a stream of requests travels over gRPC only"));
            };
            let answers = wire.stream(waiting, &head).await?;
            let client = client.clone();
            Ok(answers.map(move |answer| {
                answer.map_err(|status| match &client.0.wire {
                    Wire::Grpc(wire) => wire.lost(&status),
                    Wire::Http(_) => Error::Broken(status.to_string()),
                })
            }))
        };
        let answers = StreamAnswers {
            answers: Box::pin(opened.try_flatten_stream()),
            deadline: timeout.map(|timeout| (Instant::now() + timeout, timeout)),
            ended: false,
        };
        let client = self.client;
        Ok((StreamRequests { client, requests }, answers))
    }
}

impl StreamRequests {
    /// Sends a request of any model, once there is room. What the stream says for all its requests, a request cannot say.
    pub async fn send(&self, request: Request) -> Result<(), Error> {
        if request.timeout.is_some() || request.unit.is_some() || request.trace.is_some() {
            return Err(Error::invalid(
                "a request on a stream has no timeout, unit or trace of its own: the stream has",
            ));
        }
        if request.inputs.is_empty() {
            return Err(Error::invalid("the request has no inputs, at least one is needed"));
        }
        let Wire::Grpc(wire) = &self.client.0.wire else {
            return Err(Error::invalid("a stream of requests travels over gRPC only"));
        };
        let sent = self.requests.send(wire.write(&request)?).await;
        sent.map_err(|_| Error::Broken("the stream has ended".to_owned()))
    }
}

impl StreamAnswers {
    /// The next answer, or why there is none; nothing once the stream has ended. After [`Error::OnStream`] it goes on, after any
    /// other error it has ended.
    pub async fn next(&mut self) -> Option<Result<Answer, Error>> {
        if self.ended {
            return None;
        }
        let next = match self.deadline {
            None => self.answers.next().await,
            Some((deadline, timeout)) => match timeout_at(deadline, self.answers.next()).await {
                Ok(next) => next.map(|next| match next {
                    Err(Error::Deadline(_)) => Err(Error::Deadline(timeout)),
                    next => next,
                }),
                Err(_) => Some(Err(Error::Deadline(timeout))),
            },
        };
        let answer = next.map(|next| {
            let message = next?;
            match failed_on_stream(&message) {
                Some(error) => Err(error),
                None => read_answer(message.infer_response.unwrap_or_default()),
            }
        });
        match &answer {
            Some(Ok(_) | Err(Error::OnStream { .. })) => {}
            _ => {
                self.ended = true;
                // What is under way is cancelled, and no more is taken.
                self.answers = Box::pin(stream::empty());
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Input;

    #[tokio::test]
    async fn as_many_requests_wait_as_allowed_and_the_next_waits_for_room() {
        let client = Client::grpc("http://127.0.0.1:1").build().unwrap();
        let (requests, answers) = client.stream().open().unwrap();
        let request = || {
            client
                .model("m")
                .request()
                .input(Input::new("x", [1], &[1_u8]).unwrap())
        };
        for _ in 0..MAX_WAITING {
            requests.send(request()).await.unwrap();
        }
        let next = futures::poll!(Box::pin(requests.send(request())));
        assert!(next.is_pending());
        drop(answers);
        let error = requests.send(request()).await.unwrap_err();
        assert!(matches!(error, Error::Broken(_)), "{error}");
    }

    #[tokio::test]
    async fn what_the_stream_says_a_request_cannot_say() {
        let client = Client::grpc("http://127.0.0.1:1").build().unwrap();
        let (requests, _answers) = client.stream().open().unwrap();
        let request = client.model("m").request();
        assert!(requests.send(request.clone()).await.is_err());
        let request = request.input(Input::new("x", [1], &[1_u8]).unwrap()).unit("ada");
        assert!(requests.send(request).await.unwrap_err().to_string().contains("unit"));
        assert!(client.stream().unit("a\n").open().is_err());
        let http = Client::http("http://127.0.0.1:1").build().unwrap();
        assert!(http.stream().open().is_err());
    }
}
