//! Every call that is neither a prediction nor a stream: one small message each way, answered at once.

use std::{future::Future, rc::Rc};

use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use mesh_protocol::{
    Offers, extensions,
    grpc::{ConfigOf, StatisticsOf, messages::*, model_config, model_statistics},
};
use mesh_router::{Credential, ModelDescription};
use mesh_types::{Fault, FaultClass, RequestId, TensorSpec, VersionSelector};
use tonic::{
    Status,
    body::Body,
    codec::{Codec, CompressionEncoding},
    server::Grpc,
};
use tonic_prost::ProstCodec;

use crate::{
    head::{credential, encoding},
    infer::{One, exact},
    regions,
    service::Service,
    settings, status,
};

/// The largest message of such a call.
pub(crate) const MAX_QUESTION_BYTES: usize = 1024 * 1024;

impl Service {
    /// Answers a call by its name.
    pub(crate) async fn question(self: Rc<Self>, call: &str, request: Request<Incoming>) -> Response<Body> {
        match call {
            "ServerLive" => {
                self.ask(request, |_, _: &ServerLiveRequest, _| {
                    Ok(ServerLiveResponse { live: true })
                })
                .await
            }
            "ServerReady" => {
                self.ask(request, |service, _: &ServerReadyRequest, _| {
                    let ready = service.readiness.is_ready();
                    Ok(ServerReadyResponse { ready })
                })
                .await
            }
            "ServerMetadata" => self.ask(request, server_metadata).await,
            "ModelReady" => self.ask(request, model_ready).await,
            "ModelMetadata" => self.ask(request, model_metadata).await,
            "ModelConfig" => self.ask(request, configuration).await,
            "ModelStatistics" => self.ask(request, statistics).await,
            "RepositoryIndex" => self.repository_index(request).await,
            "RepositoryModelLoad" => self.load(request).await,
            "RepositoryModelUnload" => self.unload(request).await,
            "SystemSharedMemoryStatus" => self.ask(request, regions::system_status).await,
            "SystemSharedMemoryRegister" => self.ask(request, regions::system_register).await,
            "SystemSharedMemoryUnregister" => self.ask(request, regions::system_unregister).await,
            "CudaSharedMemoryStatus" => self.ask(request, regions::cuda_status).await,
            "CudaSharedMemoryRegister" => self.ask_waiting(request, regions::cuda_register).await,
            "CudaSharedMemoryUnregister" => self.ask_waiting(request, regions::cuda_unregister).await,
            "TraceSetting" => self.ask(request, settings::trace).await,
            "LogSettings" => self.ask(request, settings::logging).await,
            _ => Status::unimplemented("there is no such call").into_http(),
        }
    }

    /// Reads one message, and answers it with another or a fault, which takes what it takes.
    async fn ask_waiting<Q, R, Answering>(
        self: Rc<Self>,
        request: Request<Incoming>,
        answer: impl Fn(Rc<Self>, Q, Credential) -> Answering,
    ) -> Response<Body>
    where
        Q: prost::Message + Default + Send + 'static,
        R: prost::Message + Send + 'static,
        Answering: Future<Output = Result<R, Fault>>,
    {
        let (id, credential) = (self.ids.next(), credential(&request));
        self.router.await_keys(&credential).await;
        let mut grpc = self.questions(ProstCodec::<R, Q>::default(), request.headers());
        let (request, _meter) = self.metered(request);
        let asked = One(move |question: tonic::Request<Q>| {
            let answering = answer(self.clone(), question.into_inner(), credential.clone());
            async move { said(answering.await, id) }
        });
        exact(grpc.unary(asked, request).await)
    }

    /// The same for what is answered at once.
    async fn ask<Q, R>(
        self: Rc<Self>,
        request: Request<Incoming>,
        answer: fn(&Self, &Q, &Credential) -> Result<R, Fault>,
    ) -> Response<Body>
    where
        Q: prost::Message + Default + Send + 'static,
        R: prost::Message + Send + 'static,
    {
        let (id, credential) = (self.ids.next(), credential(&request));
        self.router.await_keys(&credential).await;
        let mut grpc = self.questions(ProstCodec::<R, Q>::default(), request.headers());
        let (request, _meter) = self.metered(request);
        let asked = One(move |question: tonic::Request<Q>| {
            std::future::ready(said(answer(&self, question.get_ref(), &credential), id))
        });
        exact(grpc.unary(asked, request).await)
    }

    /// A reader and writer of small messages.
    pub(crate) fn questions<C: Codec>(&self, codec: C, headers: &HeaderMap) -> Grpc<C> {
        let grpc = Grpc::new(codec)
            .max_decoding_message_size(MAX_QUESTION_BYTES)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        match encoding(headers) {
            Some(encoding) => grpc.send_compressed(encoding),
            None => grpc,
        }
    }

    fn describe(&self, name: &str, version: &str, credential: &Credential) -> Result<ModelDescription, Fault> {
        self.router.describe(credential, name, &selector(version)?)
    }
}

/// What is answered, with the number of its request.
fn said<R>(answered: Result<R, Fault>, id: RequestId) -> Result<tonic::Response<R>, Status> {
    let metadata = status::marked(id);
    let message = answered.map_err(|fault| status::of_fault(&fault, metadata.clone()))?;
    let mut response = tonic::Response::new(message);
    *response.metadata_mut() = tonic::metadata::MetadataMap::from_headers(metadata);
    Ok(response)
}

/// The version in a message; none is an empty text.
fn selector(version: &str) -> Result<VersionSelector, Fault> {
    if version.is_empty() {
        return Ok(VersionSelector::Default);
    }
    VersionSelector::parse(version).map_err(|error| Fault::invalid(error.to_string()))
}

fn server_metadata(
    service: &Service,
    _: &ServerMetadataRequest,
    _: &Credential,
) -> Result<ServerMetadataResponse, Fault> {
    let extensions = extensions(Offers {
        regions: service.router.offers_regions(),
        control: service.config.control.is_some(),
    });
    Ok(ServerMetadataResponse {
        name: service.config.server_name.clone(),
        version: service.config.server_version.clone(),
        extensions: extensions.into_iter().map(str::to_owned).collect(),
    })
}

fn model_ready(
    service: &Service,
    asked: &ModelReadyRequest,
    credential: &Credential,
) -> Result<ModelReadyResponse, Fault> {
    let ready = match service.describe(&asked.name, &asked.version, credential) {
        Ok(model) => model.ready,
        // To Triton's server a model that it does not have is one that is not ready.
        Err(fault) if service.config.as_triton && fault.class == FaultClass::NotFound => false,
        Err(fault) => return Err(fault),
    };
    Ok(ModelReadyResponse { ready })
}

fn model_metadata(
    service: &Service,
    asked: &ModelMetadataRequest,
    credential: &Credential,
) -> Result<ModelMetadataResponse, Fault> {
    let model = service.describe(&asked.name, &asked.version, credential)?;
    let tensor = |spec: &TensorSpec| model_metadata_response::TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.to_string(),
        shape: model.config.wire_dims(spec),
    };
    Ok(ModelMetadataResponse {
        name: asked.name.clone(),
        versions: model.versions.iter().map(ToString::to_string).collect(),
        platform: model.platform.to_owned(),
        inputs: model.config.input.iter().map(tensor).collect(),
        outputs: model.config.output.iter().map(tensor).collect(),
    })
}

fn configuration(
    service: &Service,
    asked: &ModelConfigRequest,
    credential: &Credential,
) -> Result<ModelConfigResponse, Fault> {
    let model = service.describe(&asked.name, &asked.version, credential)?;
    let config = model_config(ConfigOf {
        name: &asked.name,
        platform: model.platform,
        versions: &model.versions,
        config: &model.config,
        owned: model.owned,
    });
    Ok(ModelConfigResponse { config: Some(config) })
}

fn statistics(
    service: &Service,
    asked: &ModelStatisticsRequest,
    credential: &Credential,
) -> Result<ModelStatisticsResponse, Fault> {
    let name = Some(&*asked.name).filter(|name| !name.is_empty());
    let entries = service
        .router
        .statistics(credential, name, &selector(&asked.version)?)?;
    let written = entries.iter().map(|entry| {
        model_statistics(StatisticsOf {
            name: &entry.name,
            version: entry.version,
            numbers: &entry.numbers,
        })
    });
    Ok(ModelStatisticsResponse {
        model_stats: written.collect(),
    })
}
