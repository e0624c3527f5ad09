//! The calls about a repository of models: its index, and to load and unload one. They are not answered at once.

use std::{future::Future, rc::Rc};

use http::{Request, Response};
use hyper::body::Incoming;
use mesh_protocol::{LoadParameters, grpc::messages::*, index_entry, load_parameters, unload_parameters};
use mesh_router::{Change, ChangeOrder, Load, RepositoryEntry};
use mesh_types::{Deadline, Fault, RequestId};
use tonic::{Status, body::Body, codec::CompressionEncoding, server::Grpc};
use tonic_prost::ProstCodec;

use crate::{
    calls::MAX_QUESTION_BYTES,
    head::{Head, encoding},
    infer::{One, exact},
    service::Service,
    status,
};

impl Service {
    pub(crate) async fn repository_index(self: Rc<Self>, request: Request<Incoming>) -> Response<Body> {
        let index = async |service: Rc<Self>, (asked, head, _): (RepositoryIndexRequest, Head, RequestId)| {
            let control = service.config.control.as_ref();
            let wanted = (&*asked.repository_name, asked.ready);
            let index = service.router.full_index(control, &head.credential, wanted).await?;
            let written =
                |entry: &RepositoryEntry| index_entry((&entry.name, entry.version, entry.state, &entry.reason));
            Ok(RepositoryIndexResponse {
                models: index.iter().map(written).collect(),
            })
        };
        self.ask_later(request, MAX_QUESTION_BYTES, index).await
    }

    pub(crate) async fn load(self: Rc<Self>, request: Request<Incoming>) -> Response<Body> {
        let load = async |service: Rc<Self>, (asked, head, id): (RepositoryModelLoadRequest, Head, RequestId)| {
            let change = || {
                let LoadParameters { config, files } = load_parameters(asked.parameters)?;
                Ok(Change::Load(Load { config, files }))
            };
            let model = (asked.repository_name, asked.model_name);
            service.change((model, head, id), change).await?;
            Ok(RepositoryModelLoadResponse {})
        };
        // It may bring a model's files.
        let most = self.config.max_message_bytes;
        self.ask_later(request, most, load).await
    }

    pub(crate) async fn unload(self: Rc<Self>, request: Request<Incoming>) -> Response<Body> {
        let unload = async |service: Rc<Self>, (asked, head, id): (RepositoryModelUnloadRequest, Head, RequestId)| {
            let change = || {
                let dependents = unload_parameters(asked.parameters)?;
                Ok(Change::Unload { dependents })
            };
            let model = (asked.repository_name, asked.model_name);
            service.change((model, head, id), change).await?;
            Ok(RepositoryModelUnloadResponse {})
        };
        self.ask_later(request, MAX_QUESTION_BYTES, unload).await
    }

    async fn change(
        &self,
        ((repository, model), head, request): ((String, String), Head, RequestId),
        change: impl FnOnce() -> Result<Change, Fault>,
    ) -> Result<(), Fault> {
        let order = |deadline: Deadline| {
            Ok(ChangeOrder {
                repository,
                model,
                change: change()?,
                deadline,
                request,
                door: "grpc",
            })
        };
        let control = self.config.control.as_ref();
        self.router
            .change_model(control, &head.credential, head.timeout, order)
            .await
    }

    /// Reads one message of at most so many bytes, and answers it in time with another or a fault.
    async fn ask_later<Q, R, Answering>(
        self: Rc<Self>,
        request: Request<Incoming>,
        most: usize,
        answer: impl Fn(Rc<Self>, (Q, Head, RequestId)) -> Answering,
    ) -> Response<Body>
    where
        Q: prost::Message + Default + Send + 'static,
        R: prost::Message + Send + 'static,
        Answering: Future<Output = Result<R, Fault>>,
    {
        let id = self.ids.next();
        let head = match Head::read(&request) {
            Ok(head) => head,
            Err(fault) => return status::of_fault(&fault, status::marked(id)).into_http(),
        };
        self.router.await_keys(&head.credential).await;
        let mut grpc = Grpc::new(ProstCodec::<R, Q>::default())
            .max_decoding_message_size(most)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        if let Some(encoding) = encoding(request.headers()) {
            grpc = grpc.send_compressed(encoding);
        }
        let (request, _meter) = self.metered(request);
        let mut once = Some((self, head));
        let asked = One(|question: tonic::Request<Q>| {
            let begun = once
                .take()
                .map(|(service, head)| answer(service, (question.into_inner(), head, id)));
            async move {
                let answered = begun.ok_or_else(|| Status::internal("the call was begun twice"))?.await;
                let metadata = status::marked(id);
                match answered {
                    Ok(message) => {
                        let mut response = tonic::Response::new(message);
                        *response.metadata_mut() = tonic::metadata::MetadataMap::from_headers(metadata);
                        Ok(response)
                    }
                    Err(fault) => Err(status::of_fault(&fault, metadata)),
                }
            }
        });
        exact(grpc.unary(asked, request).await)
    }
}
