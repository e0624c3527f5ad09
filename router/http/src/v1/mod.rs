//! The V1 protocol of TensorFlow Serving and KServe at the inference door.
//!
//! Owns its paths, statuses and texts. A prediction goes the way of any other once its body has been read by the model's
//! configuration, so the caller is known before its body is looked at. Names that are not there answer as TensorFlow Serving's do,
//! foreign ones among them.

mod events;
mod path;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method, StatusCode,
        header::{ALLOW, HeaderValue},
    },
    web,
};
use bytes::Bytes;
use mesh_protocol::v1::{self, Predict, VersionStatus};
use mesh_router::{Completed, ModelDescription, Undescribed, View};
use mesh_types::{Fault, InferRequest, ModelConfig, Parameters, RequestId, VersionSelector};
use smallvec::smallvec;

use self::{
    events::Event,
    path::{Call, Route, Which},
};
pub(crate) use path::is_v1;

use crate::{
    asked::Asked,
    infer::{Head, ONE_ANSWER, read_head},
    packing::{self, Accepted},
    reply,
    service::{Service, credential, is_presented},
};

/// The most characters of a path that a message repeats.
const MAX_QUOTED_CHARS: usize = 128;

/// A prediction that is asked for, as its path says.
struct Wanted<'a> {
    name: &'a str,
    which: Which<'a>,
    call: Call,
}

/// What its body has become, and how its answer is to be written.
struct Read {
    call: (InferRequest, Head, View),
    form: v1::Form,
    event: Option<Event>,
    model: ModelDescription,
}

impl Service {
    /// Answers a request whose path is one of V1.
    pub(crate) async fn answer_v1(&self, request: &HttpRequest, payload: web::Payload, id: RequestId) -> HttpResponse {
        let Some((route, verb)) = path::route(request.path()) else {
            let path: String = request.path().chars().take(MAX_QUOTED_CHARS).collect();
            return reply::refusal(400, &format!("Malformed request: {} {path}", request.method()));
        };
        if *request.method() != verb {
            let mut response = reply::refusal(405, "Method Not Allowed");
            let allowed = if verb == Method::GET { "GET" } else { "POST" };
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            return response;
        }
        let answered = match route {
            Route::List => self.list_v1(request),
            Route::Model { name, which, call } => match call {
                Call::Status => self.status_v1(request, name, which),
                Call::Metadata => self.metadata_v1(request, name, which),
                Call::Explain => self.explain_v1(request, name, which),
                Call::Predict | Call::Classify | Call::Regress => {
                    return self
                        .predict_v1(request, payload, Wanted { name, which, call }, id)
                        .await;
                }
            },
        };
        answered.unwrap_or_else(|fault| reply::fault(&fault, is_presented(request)))
    }

    /// The model, or why not, in the words of TensorFlow Serving.
    fn model_v1(
        &self,
        (request, view): (&HttpRequest, &View),
        name: &str,
        which: Which<'_>,
    ) -> Result<(ModelDescription, VersionSelector), Fault> {
        let selector = which.selector()?;
        match view.find(&credential(request), name, &selector) {
            Ok(model) => Ok((model, selector)),
            Err(Undescribed::Model) => Err(v1::not_found(name, &selector)),
            Err(Undescribed::Label(label)) => Err(v1::unknown_label(&label)),
            Err(Undescribed::Refused(fault)) => Err(fault),
        }
    }

    fn list_v1(&self, request: &HttpRequest) -> Result<HttpResponse, Fault> {
        let index = self.router.index(&credential(request), false)?;
        let mut names: Vec<&str> = index.iter().map(|entry| &*entry.name).collect();
        names.dedup();
        Ok(reply::json(StatusCode::OK, v1::models_body(names)))
    }

    fn status_v1(&self, request: &HttpRequest, name: &str, which: Which<'_>) -> Result<HttpResponse, Fault> {
        let view = self.router.view();
        let (model, selector) = self.model_v1((request, &view), name, which)?;
        let index = view.index(&credential(request), false)?;
        let chosen = |version| selector == VersionSelector::Default || selector == VersionSelector::Version(version);
        let of_name = index.iter().filter(|entry| *entry.name == *name);
        let mut versions: Vec<VersionStatus<'_>> = of_name
            .filter(|entry| chosen(entry.version))
            .map(|entry| VersionStatus {
                version: entry.version,
                ready: entry.ready,
                reason: &entry.reason,
            })
            .collect();
        // A label leads to one version, which the description is of.
        if let VersionSelector::Label(_) = &selector {
            versions = vec![VersionStatus {
                version: model.version,
                ready: model.ready,
                reason: "",
            }];
        }
        let status = if model.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        Ok(reply::json(status, v1::status_body(name, model.ready, &versions)))
    }

    fn metadata_v1(&self, request: &HttpRequest, name: &str, which: Which<'_>) -> Result<HttpResponse, Fault> {
        let (model, _) = self.model_v1((request, &self.router.view()), name, which)?;
        let body = v1::metadata_body(name, model.version, &model.config);
        Ok(reply::json(StatusCode::OK, body))
    }

    fn explain_v1(&self, request: &HttpRequest, name: &str, which: Which<'_>) -> Result<HttpResponse, Fault> {
        self.model_v1((request, &self.router.view()), name, which)?;
        Ok(reply::refusal(
            501,
            "the model has no explainer: ask for a prediction with ':predict'",
        ))
    }

    async fn predict_v1(
        &self,
        request: &HttpRequest,
        mut payload: web::Payload,
        wanted: Wanted<'_>,
        id: RequestId,
    ) -> HttpResponse {
        let received = self.clock.now();
        let body = match self.body_of(request, &mut payload, wanted.name, id).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let decode_start = self.clock.now();
        let Read {
            call,
            form,
            event,
            model,
        } = match self.read_v1(request, &body.bytes, &wanted) {
            Ok(read) => read,
            Err(fault) => {
                self.refused("malformed", id);
                return reply::fault(&fault, is_presented(request));
            }
        };
        let (infer, head, view) = call;
        let accepted = head.accepted;
        let asked = Asked {
            request: infer,
            bytes: body.bytes.len(),
            head,
            room: ONE_ANSWER,
            view: Some(view),
            id,
            received,
            decode_start,
        };
        let answer = self.ask(request, asked).await;
        self.settle(request, answer, async |completed| {
            let body = written(completed, &wanted, form, &model.config)?;
            wrapped(event.as_ref(), wanted.name, body, accepted).await
        })
        .await
    }

    /// Reads the body by the model's configuration, in the snapshot that answers.
    fn read_v1(&self, request: &HttpRequest, body: &Bytes, wanted: &Wanted<'_>) -> Result<Read, Fault> {
        let view = self.router.view();
        let (model, version) = self.model_v1((request, &view), wanted.name, wanted.which)?;
        let head = read_head(request.headers())?;
        let mut parameters = Parameters::default();
        self.forward(request, &mut parameters)?;
        let (event, bytes) = events::unwrap(request.headers(), body)?;
        let Predict { inputs, form } = match wanted.call {
            Call::Predict => v1::decode_predict(&model.config, &bytes)?,
            _ => v1::decode_examples(&model.config, &bytes)?,
        };
        let infer = InferRequest {
            model: wanted.name.to_owned(),
            version,
            inputs,
            parameters,
            ..InferRequest::default()
        };
        Ok(Read {
            call: (infer, head, view),
            form,
            event,
            model,
        })
    }
}

fn written(completed: &Completed, wanted: &Wanted<'_>, form: v1::Form, config: &ModelConfig) -> Result<Vec<u8>, Fault> {
    let response = &completed.response;
    Ok(match wanted.call {
        Call::Classify => v1::encode_classes(response, config)?,
        Call::Regress => v1::encode_regressions(response)?,
        _ => v1::encode_predictions(response, form)?,
    })
}

async fn wrapped(event: Option<&Event>, model: &str, body: Vec<u8>, accepted: Accepted) -> Result<HttpResponse, Fault> {
    let body = match event {
        Some(event) => event.wrap(model, body),
        None => body,
    };
    let mut response = packing::answer(smallvec![Bytes::from(body)], None, accepted).await?;
    if let Some(event) = event {
        event.mark(model, &mut response);
    }
    Ok(response)
}
