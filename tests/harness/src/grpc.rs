//! A tenant's client at the gRPC door.

use std::net::SocketAddr;

use mesh_protocol::grpc::SERVICE;
use mesh_protocol::grpc::messages::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use tonic::{
    Request, Response, Status, Streaming,
    client::Grpc,
    codec::CompressionEncoding,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::PATIENCE;

/// Somebody who calls over gRPC.
#[derive(Debug, Clone)]
pub struct GrpcCaller {
    grpc: Grpc<Channel>,
    key: Option<String>,
    metadata: Vec<(&'static str, &'static str)>,
}

impl GrpcCaller {
    /// Connects to the gRPC door of this address.
    pub async fn connect(address: SocketAddr, key: Option<&str>) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.timeout(PATIENCE);
        Ok(Self {
            grpc: Grpc::new(endpoint.connect().await?),
            key: key.map(str::to_owned),
            metadata: Vec::new(),
        })
    }

    /// The same over the same connection, with this key.
    #[must_use]
    pub fn showing(&self, key: &str) -> Self {
        Self {
            grpc: self.grpc.clone(),
            key: Some(key.to_owned()),
            metadata: self.metadata.clone(),
        }
    }

    /// The same, sending its messages packed.
    #[must_use]
    pub fn packed(&self) -> Self {
        let grpc = self.grpc.clone();
        Self {
            grpc: grpc
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip),
            key: self.key.clone(),
            metadata: self.metadata.clone(),
        }
    }

    /// The same, with metadata of its own on every call.
    #[must_use]
    pub fn with(&self, name: &'static str, value: &'static str) -> Self {
        let mut with = self.clone();
        with.metadata.push((name, value));
        with
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let value = self.key.as_ref().and_then(|key| format!("Bearer {key}").parse().ok());
        if let Some(value) = value {
            request.metadata_mut().insert("authorization", value);
        }
        for (name, value) in &self.metadata {
            let value = tonic::metadata::MetadataValue::from_static(value);
            request.metadata_mut().insert(*name, value);
        }
        request
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = self.grpc.clone();
        let ready = grpc.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(grpc)
    }

    /// Makes a call of the inference service.
    pub async fn ask<Q, R>(&self, call: &str, message: Q) -> Result<Response<R>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        self.ask_of(SERVICE, call, message).await
    }

    /// Makes a call of another service.
    pub async fn ask_of<Q, R>(&self, service: &str, call: &str, message: Q) -> Result<Response<R>, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        R: prost::Message + Default + Send + Sync + 'static,
    {
        let path = format!("/{service}/{call}").parse();
        let path = path.map_err(|_| Status::internal("no path"))?;
        let codec = ProstCodec::<Q, R>::default();
        self.ready().await?.unary(self.request(message), path, codec).await
    }

    /// Asks for a prediction.
    pub async fn infer(&self, message: ModelInferRequest) -> Result<Response<ModelInferResponse>, Status> {
        self.ask("ModelInfer", message).await
    }

    /// Asks for predictions over one stream.
    pub async fn stream(
        &self,
        requests: Vec<ModelInferRequest>,
    ) -> Result<Streaming<ModelStreamInferResponse>, Status> {
        let path = format!("/{SERVICE}/ModelStreamInfer").parse();
        let path = path.map_err(|_| Status::internal("no path"))?;
        let requests = self.request(futures::stream::iter(requests));
        let answered = self
            .ready()
            .await?
            .streaming(requests, path, ProstCodec::default())
            .await?;
        Ok(answered.into_inner())
    }
}
