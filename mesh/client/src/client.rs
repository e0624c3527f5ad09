//! The client: calls with their deadlines and further tries, whichever wire they take.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_types::TraceContext;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    Answer, ClientBuilder, Error, IndexEntry, Input, JsonAnswer, ModelMetadata, ModelStatistics, Request,
    ServerMetadata, StreamBuilder,
    grpc::GrpcWire,
    head::{self, Head},
    http::HttpWire,
    retry,
};

/// A client of an inference door. Cheap to clone: clones share their connections.
#[derive(Debug, Clone)]
pub struct Client(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) wire: Wire,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
}

#[derive(Debug)]
pub(crate) enum Wire {
    Http(HttpWire),
    Grpc(GrpcWire),
}

/// An endpoint or a model, as the client knows it.
#[derive(Debug, Clone)]
pub struct Model {
    client: Client,
    name: String,
    version: Option<String>,
}

/// A version to be called: a number, or a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl From<&str> for Version {
    fn from(label: &str) -> Self {
        Self(label.to_owned())
    }
}

impl From<u64> for Version {
    fn from(number: u64) -> Self {
        Self(number.to_string())
    }
}

impl Client {
    /// A client of the HTTP door of this address, such as `http://127.0.0.1:8000`.
    pub fn http(url: &str) -> ClientBuilder {
        ClientBuilder::new(url, false)
    }

    /// A client of the gRPC door of this address, such as `http://127.0.0.1:8001`.
    pub fn grpc(url: &str) -> ClientBuilder {
        ClientBuilder::new(url, true)
    }

    /// An endpoint or a model by its name. Nothing is asked yet.
    pub fn model(&self, name: &str) -> Model {
        Model {
            client: self.clone(),
            name: name.to_owned(),
            version: None,
        }
    }

    /// Name, version and extensions of the server.
    pub async fn server_metadata(&self) -> Result<ServerMetadata, Error> {
        self.about(|head| async move {
            match &self.0.wire {
                Wire::Http(wire) => wire.server_metadata(&head).await,
                Wire::Grpc(wire) => wire.server_metadata(&head).await,
            }
        })
        .await
    }

    /// Whether the server is alive.
    pub async fn is_live(&self) -> Result<bool, Error> {
        self.about(|head| async move {
            match &self.0.wire {
                Wire::Http(wire) => wire.health("live", &head).await,
                Wire::Grpc(wire) => wire.is_live(&head).await,
            }
        })
        .await
    }

    /// Whether the server is ready for requests.
    pub async fn is_ready(&self) -> Result<bool, Error> {
        self.about(|head| async move {
            match &self.0.wire {
                Wire::Http(wire) => wire.health("ready", &head).await,
                Wire::Grpc(wire) => wire.is_ready(&head).await,
            }
        })
        .await
    }

    /// The versions that the caller may use; with `only_ready`, those that are ready.
    pub async fn index(&self, only_ready: bool) -> Result<Vec<IndexEntry>, Error> {
        self.about(|head| async move {
            match &self.0.wire {
                Wire::Http(wire) => wire.index(only_ready, &head).await,
                Wire::Grpc(wire) => wire.index(only_ready, &head).await,
            }
        })
        .await
    }

    /// What all versions that the caller may use have done.
    pub async fn statistics(&self) -> Result<Vec<ModelStatistics>, Error> {
        self.statistics_of(None, None).await
    }

    /// Requests over one stream; over gRPC only.
    pub fn stream(&self) -> StreamBuilder {
        StreamBuilder::new(self.clone())
    }

    async fn statistics_of(&self, name: Option<&str>, version: Option<&str>) -> Result<Vec<ModelStatistics>, Error> {
        self.about(|head| async move {
            match &self.0.wire {
                Wire::Http(wire) => wire.statistics(name, version, &head).await,
                Wire::Grpc(wire) => wire.statistics(name, version, &head).await,
            }
        })
        .await
    }

    pub(crate) async fn infer(
        &self,
        request: &Request,
        timeout: Duration,
        trace: Option<TraceContext>,
    ) -> Result<Answer, Error> {
        let retries = if request.is_step() { 0 } else { self.0.retries };
        let head = Head {
            left: None,
            unit: request.unit.clone(),
            trace,
        };
        match &self.0.wire {
            Wire::Http(wire) => {
                let body = wire.write(request)?;
                let send = |head| wire.infer(request, body.clone(), head);
                self.tried(&head, timeout, retries, send).await
            }
            Wire::Grpc(wire) => {
                let message = wire.write(request)?;
                let send = |head| wire.infer(message.clone(), head);
                self.tried(&head, timeout, retries, send).await
            }
        }
    }

    /// A question that runs nothing.
    async fn about<T, Asking>(&self, ask: impl Fn(Head) -> Asking) -> Result<T, Error>
    where
        Asking: Future<Output = Result<T, Error>>,
    {
        let head = Head {
            trace: head::current_trace(),
            ..Head::default()
        };
        self.tried(&head, self.0.timeout, self.0.retries, ask).await
    }

    /// Tries until there is an answer, an error that is final, or no time.
    async fn tried<T, Asking>(
        &self,
        head: &Head,
        timeout: Duration,
        retries: u32,
        ask: impl Fn(Head) -> Asking,
    ) -> Result<T, Error>
    where
        Asking: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + timeout;
        let mut tried = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let head = Head {
                left: Some(left),
                ..head.clone()
            };
            let failed = match timeout_at(deadline, ask(head)).await {
                Ok(Ok(answer)) => return Ok(answer),
                // The wires know what was left; the caller knows what it asked for.
                Ok(Err(Error::Deadline(_))) | Err(_) => return Err(Error::Deadline(timeout)),
                Ok(Err(failed)) => failed,
            };
            tried += 1;
            let left = deadline.saturating_duration_since(Instant::now());
            match retry::wait(&failed, tried, retries, left, rand::random()) {
                Some(wait) => sleep(wait).await,
                None => return Err(failed),
            }
        }
    }
}

impl Model {
    /// The same, at a version: a number or a label such as `stable`.
    #[must_use]
    pub fn version(mut self, version: impl Into<Version>) -> Self {
        self.version = Some(version.into().0);
        self
    }

    /// A request, to be completed.
    pub fn request(&self) -> Request {
        Request::new(self.client.clone(), &self.name, self.version.clone())
    }

    /// Asks for a prediction and takes all outputs.
    pub async fn infer(&self, inputs: impl IntoIterator<Item = Input>) -> Result<Answer, Error> {
        self.request().inputs(inputs).send().await
    }

    /// Sends a whole request in the protocol's JSON as it is, and takes what comes; over HTTP only. What it says is not
    /// looked at, and so it is never sent again by itself.
    ///
    /// `unit` is the unit of a sticky split.
    pub async fn infer_json(&self, body: impl Into<Bytes>, unit: Option<&str>) -> Result<JsonAnswer, Error> {
        let Wire::Http(wire) = &self.client.0.wire else {
            return Err(Error::invalid("a request in JSON travels over HTTP only"));
        };
        let head = Head {
            left: None,
            unit: unit.map(str::to_owned),
            trace: head::current_trace(),
        };
        let body: Bytes = body.into();
        let send = |head| wire.infer_json(&self.name, self.version.as_deref(), body.clone(), head);
        self.client.tried(&head, self.client.0.timeout, 0, send).await
    }

    /// Its versions, inputs and outputs.
    pub async fn metadata(&self) -> Result<ModelMetadata, Error> {
        let (name, version) = (self.name.as_str(), self.version.as_deref());
        let asked = self.client.about(|head| async move {
            match &self.client.0.wire {
                Wire::Http(wire) => wire.metadata(name, version, &head).await,
                Wire::Grpc(wire) => wire.metadata(name, version, &head).await,
            }
        });
        asked.await
    }

    /// Whether it would take a request now.
    pub async fn is_ready(&self) -> Result<bool, Error> {
        let (name, version) = (self.name.as_str(), self.version.as_deref());
        let asked = self.client.about(|head| async move {
            match &self.client.0.wire {
                Wire::Http(wire) => wire.is_model_ready(name, version, &head).await,
                Wire::Grpc(wire) => wire.is_model_ready(name, version, &head).await,
            }
        });
        asked.await
    }

    /// Its configuration, in the JSON of Triton's message.
    pub async fn config(&self) -> Result<Value, Error> {
        let (name, version) = (self.name.as_str(), self.version.as_deref());
        let asked = self.client.about(|head| async move {
            match &self.client.0.wire {
                Wire::Http(wire) => wire.config(name, version, &head).await,
                Wire::Grpc(wire) => wire.config(name, version, &head).await,
            }
        });
        asked.await
    }

    /// What its versions have done.
    pub async fn statistics(&self) -> Result<Vec<ModelStatistics>, Error> {
        let (name, version) = (self.name.as_str(), self.version.as_deref());
        self.client.statistics_of(Some(name), version).await
    }
}
