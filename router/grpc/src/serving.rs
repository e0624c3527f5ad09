//! TensorFlow Serving's calls: predictions by named tensors and by examples, and what is said about models.
//!
//! The way of a call, its metadata, limits and errors are those of version 2; only its messages are others, and the texts about names
//! that are not there. A model has one signature. What is read by a model's configuration is answered by the same snapshot.

use std::{marker::PhantomData, rc::Rc};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use mesh_protocol::{
    serving::{self, Asked, MODELS, PREDICTIONS, messages::serving::*},
    v1::{self, VersionStatus},
};
use mesh_router::{Credential, ModelDescription, Undescribed, View};
use mesh_types::{Fault, InferRequest, InferResponse, ModelConfig, VersionSelector};
use tonic::{
    Status,
    body::Body,
    codec::{Codec, EncodeBuf, Encoder},
    metadata::MetadataMap,
};

use crate::{
    codec::Whole,
    head::{self, credential},
    infer::{Going, One, exact},
    service::Service,
    status,
};

/// What a message asks of the router, and the model that it was read for.
type Reading = fn(&View, &Credential, &Bytes) -> Result<(InferRequest, ModelDescription), Fault>;
/// How an answer is written.
type Writing<R> = fn(&InferResponse, &ModelConfig) -> Result<R, Fault>;

impl Service {
    /// Answers a call of TensorFlow Serving's, by its service and name; none if the path is not one.
    pub(crate) async fn serving(self: Rc<Self>, path: &str, request: Request<Incoming>) -> Response<Body> {
        let (service, call) = path.split_once('/').unwrap_or((path, ""));
        match (service, call) {
            (PREDICTIONS, "Predict") => {
                self.predict(request, by_tensors, |answer, _| Ok(serving::prediction(answer)))
                    .await
            }
            (PREDICTIONS, "Classify") => {
                self.predict(request, by_examples, |answer, config| {
                    Ok(serving::classification(answer, config)?)
                })
                .await
            }
            (PREDICTIONS, "Regress") => {
                self.predict(request, by_examples, |answer, _| Ok(serving::regression(answer)?))
                    .await
            }
            (PREDICTIONS, "GetModelMetadata") => self.tell(request, metadata).await,
            (MODELS, "GetModelStatus") => self.tell(request, versions).await,
            (PREDICTIONS, "MultiInference") => {
                Status::unimplemented("several inferences in one call are not offered: send them apart").into_http()
            }
            _ => Status::unimplemented("there is no such call").into_http(),
        }
    }

    /// Takes a message through the router.
    async fn predict<R: prost::Message + 'static>(
        self: Rc<Self>,
        request: Request<Incoming>,
        read: Reading,
        write: Writing<R>,
    ) -> Response<Body> {
        let (id, received) = (self.ids.next(), self.clock.now());
        let head = match self.head(&request) {
            Ok(head) => head,
            Err(fault) => {
                self.refused("malformed", id);
                return status::of_fault(&fault, status::marked(id)).into_http();
            }
        };
        let mut grpc = self.grpc(Written::default(), head::encoding(request.headers()));
        let (request, meter) = self.metered(request);
        let mut once = Some((self, head, meter));
        let answer = One(move |message: tonic::Request<Bytes>| {
            let begun = once.take();
            async move {
                let (service, head, meter) = begun.ok_or_else(|| Status::internal("the call was begun twice"))?;
                // Held until the answer is there.
                let held = service.hold(&meter, message.get_ref());
                let _share = held.map_err(|fault| status::of_fault(&fault, status::marked(id)))?;
                let (start, view) = (service.clock.now(), service.router.view());
                let read = read(&view, &head.credential, message.get_ref());
                let read = read.and_then(|(request, model)| Ok((head.forwarded_into(request)?, model)));
                let (request, model) = read.map_err(|fault| {
                    service.refused("malformed", id);
                    status::of_fault(&fault, status::marked(id))
                })?;
                let going = Going {
                    request,
                    bytes: message.get_ref().len(),
                    view: Some(view),
                    id,
                    received,
                    start,
                };
                let (answer, metadata) = service.go(head, going, |answer| write(&answer, &model.config)).await;
                let mut answer = tonic::Response::new(match answer {
                    Ok(answer) => answer,
                    Err(fault) => return Err(status::of_fault(&fault, metadata)),
                });
                *answer.metadata_mut() = MetadataMap::from_headers(metadata);
                Ok(answer)
            }
        });
        exact(grpc.unary(answer, request).await)
    }

    /// Answers what is asked about a model.
    async fn tell<R: prost::Message + 'static>(
        self: Rc<Self>,
        request: Request<Incoming>,
        answer: fn(&View, &Credential, &Asked) -> Result<R, Fault>,
    ) -> Response<Body> {
        let (id, credential) = (self.ids.next(), credential(&request));
        let mut grpc = self.questions(Written::default(), request.headers());
        let (request, _meter) = self.metered(request);
        let asked = One(move |question: tonic::Request<Bytes>| {
            let asked = serving::decode_question(question.get_ref()).map_err(Fault::from);
            let answered = asked.and_then(|asked| answer(&self.router.view(), &credential, &asked));
            let metadata = status::marked(id);
            std::future::ready(match answered {
                Ok(message) => {
                    let mut response = tonic::Response::new(message);
                    *response.metadata_mut() = MetadataMap::from_headers(metadata);
                    Ok(response)
                }
                Err(fault) => Err(status::of_fault(&fault, metadata)),
            })
        });
        exact(grpc.unary(asked, request).await)
    }
}

/// The model that is meant, or why there is none, in the words of TensorFlow Serving.
fn model(view: &View, credential: &Credential, asked: &Asked) -> Result<ModelDescription, Fault> {
    let found = view.find(credential, &asked.name, &asked.version);
    found.map_err(|lacking| match lacking {
        Undescribed::Model => v1::not_found(&asked.name, &asked.version),
        Undescribed::Label(label) => v1::unknown_label(&label),
        Undescribed::Refused(fault) => fault,
    })
}

fn by_tensors(
    view: &View,
    credential: &Credential,
    message: &Bytes,
) -> Result<(InferRequest, ModelDescription), Fault> {
    let read = serving::decode_predict(message)?;
    let model = model(view, credential, &read.asked)?;
    let request = InferRequest {
        model: read.asked.name,
        version: read.asked.version,
        inputs: read.inputs,
        outputs: read.outputs,
        ..InferRequest::default()
    };
    Ok((request, model))
}

fn by_examples(
    view: &View,
    credential: &Credential,
    message: &Bytes,
) -> Result<(InferRequest, ModelDescription), Fault> {
    let examples = serving::decode_examples(message)?;
    let model = model(view, credential, &examples.asked)?;
    let inputs = examples.inputs(&model.config)?;
    let request = InferRequest {
        model: examples.asked.name,
        version: examples.asked.version,
        inputs,
        ..InferRequest::default()
    };
    Ok((request, model))
}

fn metadata(view: &View, credential: &Credential, asked: &Asked) -> Result<GetModelMetadataResponse, Fault> {
    let model = model(view, credential, asked)?;
    Ok(serving::signature(&asked.name, model.version, &model.config))
}

fn versions(view: &View, credential: &Credential, asked: &Asked) -> Result<GetModelStatusResponse, Fault> {
    let model = model(view, credential, asked)?;
    if asked.version != VersionSelector::Default {
        let only = VersionStatus {
            version: model.version,
            ready: model.ready,
            reason: "",
        };
        return Ok(serving::status(&[only]));
    }
    let index = view.index(credential, false)?;
    let of_name = index.iter().filter(|entry| *entry.name == asked.name);
    let all: Vec<VersionStatus<'_>> = of_name
        .map(|entry| VersionStatus {
            version: entry.version,
            ready: entry.ready,
            reason: &entry.reason,
        })
        .collect();
    Ok(serving::status(&all))
}

/// Takes messages whole, and writes answers by their generated type.
struct Written<R>(PhantomData<R>);

impl<R> Default for Written<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R: prost::Message + 'static> Codec for Written<R> {
    type Encode = R;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Whole;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Whole {
        Whole
    }
}

impl<R: prost::Message> Encoder for Written<R> {
    type Item = R;
    type Error = Status;

    fn encode(&mut self, answer: R, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(answer.encoded_len());
        answer
            .encode(out)
            .map_err(|_| Status::internal("the answer does not fit its buffer"))
    }
}
