//! The gRPC wire: calls of the service over a few kept connections, with the protocol's own messages.

mod form;

use std::{
    error::Error as _,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header, uri::PathAndQuery};
use mesh_protocol::grpc::messages::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    ModelStreamInferResponse, RepositoryIndexRequest, RepositoryIndexResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use mesh_types::Retry;
use prost::Message;
use serde_json::Value;
use tonic::{
    Code, ConnectError, Extensions, Streaming, TimeoutExpired,
    client::Grpc,
    metadata::MetadataMap,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::{
    Answer, Error, IndexEntry, ModelMetadata, ModelStatistics, Request, ServerMetadata, Status,
    builder::Setting,
    error::chain,
    head::{self, Head},
};

pub(crate) use form::{failed_on_stream, read_answer};

const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// Bytes that may be on their way on a call, and on a connection, before the receiver says that it has read some.
const CALL_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// The path of a call of the service.
macro_rules! call {
    ($call:literal) => {
        PathAndQuery::from_static(concat!("/inference.GRPCInferenceService/", $call))
    };
}

/// Connections to a gRPC door.
#[derive(Debug)]
pub(crate) struct GrpcWire {
    connections: Vec<Grpc<Channel>>,
    next: AtomicUsize,
    credential: Option<HeaderValue>,
    limit: usize,
}

impl GrpcWire {
    pub(crate) fn new(setting: &Setting) -> Result<Self, Error> {
        // Connections begin work of their own, which needs a runtime.
        tokio::runtime::Handle::try_current()
            .map_err(|_| Error::invalid("a gRPC client is made within a Tokio runtime"))?;
        let invalid = |error: tonic::transport::Error| Error::invalid(chain(&error));
        let endpoint = Endpoint::from_shared(setting.url.as_str().to_owned())
            .map_err(invalid)?
            .user_agent(setting.user_agent.clone())
            .map_err(invalid)?
            .connect_timeout(setting.connect_timeout)
            .initial_stream_window_size(CALL_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let connection = |_| {
            Grpc::new(endpoint.connect_lazy())
                .max_decoding_message_size(setting.max_message_bytes)
                .max_encoding_message_size(setting.max_message_bytes)
        };
        Ok(Self {
            connections: (0..setting.connections).map(connection).collect(),
            next: AtomicUsize::new(0),
            credential: setting.credential.clone(),
            limit: setting.max_message_bytes,
        })
    }

    /// A request's message, within the bound.
    pub(crate) fn write(&self, request: &Request) -> Result<ModelInferRequest, Error> {
        let message = form::write(request)?;
        if message.encoded_len() > self.limit {
            return Err(Error::TooLarge {
                what: "the request",
                limit: self.limit,
            });
        }
        Ok(message)
    }

    pub(crate) async fn infer(&self, message: ModelInferRequest, head: Head) -> Result<Answer, Error> {
        let asked = self.unary::<_, ModelInferResponse>(call!("ModelInfer"), message, &head);
        let (response, headers) = asked.await?;
        let mut answer = read_answer(response)?;
        answer.arm = head::text(&headers, &head::ARM).map(str::to_owned);
        answer.request_id = head::text(&headers, &head::REQUEST_ID).map(str::to_owned);
        answer.trace = head::text(&headers, &head::TRACEPARENT).and_then(|text| text.parse().ok());
        Ok(answer)
    }

    /// Opens a stream of requests.
    pub(crate) async fn stream(
        &self,
        requests: impl futures::Stream<Item = ModelInferRequest> + Send + 'static,
        head: &Head,
    ) -> Result<Streaming<ModelStreamInferResponse>, Error> {
        let mut grpc = self.ready().await?;
        let request = tonic::Request::from_parts(self.metadata_of(head)?, Extensions::default(), requests);
        let codec: ProstCodec<ModelInferRequest, ModelStreamInferResponse> = ProstCodec::default();
        let opened = grpc.streaming(request, call!("ModelStreamInfer"), codec).await;
        opened
            .map(tonic::Response::into_inner)
            .map_err(|status| self.lost(&status))
    }

    pub(crate) async fn is_live(&self, head: &Head) -> Result<bool, Error> {
        let (answer, _) = self
            .unary::<_, ServerLiveResponse>(call!("ServerLive"), ServerLiveRequest {}, head)
            .await?;
        Ok(answer.live)
    }

    pub(crate) async fn is_ready(&self, head: &Head) -> Result<bool, Error> {
        let asked = self.unary::<_, ServerReadyResponse>(call!("ServerReady"), ServerReadyRequest {}, head);
        Ok(asked.await?.0.ready)
    }

    pub(crate) async fn server_metadata(&self, head: &Head) -> Result<ServerMetadata, Error> {
        let asked = self.unary::<_, ServerMetadataResponse>(call!("ServerMetadata"), ServerMetadataRequest {}, head);
        let (told, _) = asked.await?;
        Ok(ServerMetadata {
            name: told.name,
            version: told.version,
            extensions: told.extensions,
        })
    }

    pub(crate) async fn is_model_ready(&self, name: &str, version: Option<&str>, head: &Head) -> Result<bool, Error> {
        let (name, version) = (name.to_owned(), version.unwrap_or_default().to_owned());
        let asked = self.unary::<_, ModelReadyResponse>(call!("ModelReady"), ModelReadyRequest { name, version }, head);
        Ok(asked.await?.0.ready)
    }

    pub(crate) async fn metadata(
        &self,
        name: &str,
        version: Option<&str>,
        head: &Head,
    ) -> Result<ModelMetadata, Error> {
        let (name, version) = (name.to_owned(), version.unwrap_or_default().to_owned());
        let message = ModelMetadataRequest { name, version };
        let (told, _) = self
            .unary::<_, ModelMetadataResponse>(call!("ModelMetadata"), message, head)
            .await?;
        form::metadata(told)
    }

    pub(crate) async fn config(&self, name: &str, version: Option<&str>, head: &Head) -> Result<Value, Error> {
        let (name, version) = (name.to_owned(), version.unwrap_or_default().to_owned());
        let message = ModelConfigRequest { name, version };
        let (told, _) = self
            .unary::<_, ModelConfigResponse>(call!("ModelConfig"), message, head)
            .await?;
        form::json(&told.config.unwrap_or_default())
    }

    pub(crate) async fn statistics(
        &self,
        name: Option<&str>,
        version: Option<&str>,
        head: &Head,
    ) -> Result<Vec<ModelStatistics>, Error> {
        let message = ModelStatisticsRequest {
            name: name.unwrap_or_default().to_owned(),
            version: version.unwrap_or_default().to_owned(),
        };
        let (told, _) = self
            .unary::<_, ModelStatisticsResponse>(call!("ModelStatistics"), message, head)
            .await?;
        told.model_stats.iter().map(form::of_message).collect()
    }

    pub(crate) async fn index(&self, ready: bool, head: &Head) -> Result<Vec<IndexEntry>, Error> {
        let message = RepositoryIndexRequest {
            repository_name: String::new(),
            ready,
        };
        let (told, _) = self
            .unary::<_, RepositoryIndexResponse>(call!("RepositoryIndex"), message, head)
            .await?;
        let entry = |entry: mesh_protocol::grpc::messages::repository_index_response::ModelIndex| IndexEntry {
            name: entry.name,
            version: entry.version,
            state: entry.state,
            reason: entry.reason,
        };
        Ok(told.models.into_iter().map(entry).collect())
    }

    async fn unary<Q, R>(&self, call: PathAndQuery, message: Q, head: &Head) -> Result<(R, HeaderMap), Error>
    where
        Q: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.ready().await?;
        let request = tonic::Request::from_parts(self.metadata_of(head)?, Extensions::default(), message);
        let answered = grpc.unary(request, call, ProstCodec::<Q, R>::default()).await;
        let (metadata, message, _) = answered.map_err(|status| self.lost(&status))?.into_parts();
        Ok((message, metadata.into_headers()))
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Error> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.connections.len().max(1);
        let grpc = self.connections.get(turn).cloned();
        let mut grpc = grpc.ok_or_else(|| Error::invalid("the client has no connections"))?;
        let ready = grpc.ready().await;
        ready.map_err(|error| Error::Unreachable(chain(&error)))?;
        Ok(grpc)
    }

    fn metadata_of(&self, head: &Head) -> Result<MetadataMap, Error> {
        let mut headers = head.over_grpc()?;
        if let Some(credential) = &self.credential {
            headers.insert(header::AUTHORIZATION, credential.clone());
        }
        Ok(MetadataMap::from_headers(headers))
    }

    /// A status as an error. One with a cause was made here: the server's has none.
    pub(crate) fn lost(&self, status: &tonic::Status) -> Error {
        let mut cause = status.source();
        while let Some(error) = cause {
            if error.is::<ConnectError>() {
                return Error::Unreachable(chain(error));
            }
            if error.is::<TimeoutExpired>() {
                return Error::Deadline(Duration::ZERO);
            }
            cause = error.source();
        }
        if let Some(cause) = status.source() {
            return Error::Broken(chain(cause));
        }
        if status.code() == Code::OutOfRange {
            return Error::TooLarge {
                what: "the answer",
                limit: self.limit,
            };
        }
        refusal(status)
    }
}

fn refusal(status: &tonic::Status) -> Error {
    let text = |name: &str| status.metadata().get(name).and_then(|value| value.to_str().ok());
    let asked = text(PUSHBACK).or_else(|| text("retry-after-ms"));
    let retry = match (status.code(), asked.map(str::parse::<i64>)) {
        (Code::Unavailable | Code::ResourceExhausted, Some(Ok(wait))) => match u64::try_from(wait) {
            Ok(wait) => Retry::After(Duration::from_millis(wait)),
            // A negative number is the protocol's way to say never.
            Err(_) => Retry::No,
        },
        // The protocol's way to say that it may be sent again, as long as nothing else is said.
        (Code::Unavailable, None) => Retry::Now,
        _ => Retry::No,
    };
    let request_id = text(head::REQUEST_ID.as_str()).map(str::to_owned);
    let code = Status::Grpc(i32::from(status.code()));
    Error::refused(code, status.message().to_owned(), retry, request_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: Code, metadata: &[(&'static str, &'static str)]) -> Error {
        let mut headers = HeaderMap::new();
        for (name, value) in metadata {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        refusal(&tonic::Status::with_metadata(
            code,
            "full",
            MetadataMap::from_headers(headers),
        ))
    }

    #[test]
    fn what_may_be_sent_again_is_unavailable_or_marked() {
        let after = |milliseconds| Some(Duration::from_millis(milliseconds));
        let marked = said(Code::ResourceExhausted, &[(PUSHBACK, "37"), ("x-request-id", "07")]);
        assert_eq!((marked.may_retry(), marked.retry_after()), (true, after(37)));
        assert_eq!(marked.class(), mesh_types::FaultClass::RateLimited);
        let unavailable = said(Code::Unavailable, &[]);
        assert_eq!((unavailable.may_retry(), unavailable.retry_after()), (true, None));
        let never = said(Code::Unavailable, &[(PUSHBACK, "-1")]);
        assert!(!never.may_retry());
        let large = said(Code::ResourceExhausted, &[]);
        assert_eq!(
            (large.may_retry(), large.class()),
            (false, mesh_types::FaultClass::TooLarge)
        );
        for code in [Code::Internal, Code::DeadlineExceeded, Code::NotFound] {
            assert!(!said(code, &[(PUSHBACK, "1")]).may_retry(), "{code:?}");
        }
    }

    #[test]
    fn a_call_is_one_of_the_service() {
        let wanted = format!("/{}/ModelInfer", mesh_protocol::grpc::SERVICE);
        assert_eq!(call!("ModelInfer").as_str(), wanted);
    }
}
