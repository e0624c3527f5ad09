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
use mesh_router::{Answer, Call as RouterCall, Completed, ModelDescription};
use mesh_types::{Fault, FaultClass, InferRequest, ModelConfig, Parameters, RequestId, VersionSelector};
use smallvec::smallvec;

use self::{
    events::Event,
    path::{Call, Route, Which},
};
pub(crate) use path::is_v1;

use crate::{
    infer::{read_head, tell_version, trace_parent},
    packing::{self, Accepted},
    reply,
    service::{Service, credential, is_presented},
};

/// The most characters of a path that a message repeats.
const MAX_QUOTED_CHARS: usize = 128;

/// A prediction that is asked for.
struct Asked<'a> {
    name: &'a str,
    which: Which<'a>,
    call: Call,
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
                    return self.predict_v1(request, payload, Asked { name, which, call }, id).await;
                }
            },
        };
        answered.unwrap_or_else(|fault| reply::fault(&fault, is_presented(request)))
    }

    /// The model, or why not, in the words of TensorFlow Serving.
    fn model_v1(
        &self,
        request: &HttpRequest,
        name: &str,
        which: Which<'_>,
    ) -> Result<(ModelDescription, VersionSelector), Fault> {
        let selector = which.selector()?;
        let known = credential(request);
        match self.router.describe(&known, name, &selector) {
            Ok(model) => Ok((model, selector)),
            Err(fault) if fault.class == FaultClass::NotFound => {
                // A label that a model does not have is the caller's mistake, a model that it does not have is not there.
                let there = matches!(which, Which::Label(_))
                    && self.router.describe(&known, name, &VersionSelector::Default).is_ok();
                Err(if let (Which::Label(label), true) = (which, there) {
                    Fault::invalid(format!("Unrecognized servable version label: {label}"))
                } else {
                    not_found(name, which)
                })
            }
            Err(fault) => Err(fault),
        }
    }

    fn list_v1(&self, request: &HttpRequest) -> Result<HttpResponse, Fault> {
        let index = self.router.index(&credential(request), false)?;
        let mut names: Vec<&str> = index.iter().map(|entry| &*entry.name).collect();
        names.dedup();
        Ok(reply::json(StatusCode::OK, v1::models_body(names)))
    }

    fn status_v1(&self, request: &HttpRequest, name: &str, which: Which<'_>) -> Result<HttpResponse, Fault> {
        let (model, selector) = self.model_v1(request, name, which)?;
        let index = self.router.index(&credential(request), false)?;
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
        let (model, _) = self.model_v1(request, name, which)?;
        let body = v1::metadata_body(name, model.version, &model.config);
        Ok(reply::json(StatusCode::OK, body))
    }

    fn explain_v1(&self, request: &HttpRequest, name: &str, which: Which<'_>) -> Result<HttpResponse, Fault> {
        self.model_v1(request, name, which)?;
        Ok(reply::refusal(
            501,
            "the model has no explainer: ask for a prediction with ':predict'",
        ))
    }

    async fn predict_v1(
        &self,
        request: &HttpRequest,
        mut payload: web::Payload,
        asked: Asked<'_>,
        id: RequestId,
    ) -> HttpResponse {
        let received = self.clock.now();
        let body = match self.body(request, &mut payload, id).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let decode_start = self.clock.now();
        let decoded = self
            .model_v1(request, asked.name, asked.which)
            .and_then(|(model, selector)| {
                let head = read_head(request.headers())?;
                let mut parameters = Parameters::default();
                self.forward(request, &mut parameters)?;
                let (event, bytes) = events::unwrap(request.headers(), &body.bytes)?;
                let read = match asked.call {
                    Call::Predict => v1::decode_predict(&model.config, &bytes)?,
                    _ => v1::decode_examples(&model.config, &bytes)?,
                };
                Ok((model, selector, (head, parameters), event, read))
            });
        let (model, version, (head, parameters), event, Predict { inputs, form }) = match decoded {
            Ok(decoded) => decoded,
            Err(fault) => {
                self.refused("malformed", id);
                return reply::fault(&fault, is_presented(request));
            }
        };
        let answer = self
            .router
            .infer(RouterCall {
                request: InferRequest {
                    model: asked.name.to_owned(),
                    version,
                    inputs,
                    parameters,
                    ..InferRequest::default()
                },
                credential: credential(request),
                unit: head.unit,
                timeout: head.timeout,
                trace_parent: trace_parent(request.headers()),
                fresh: false,
                request_id: id,
                received,
                decode: self.clock.now().saturating_duration_since(decode_start),
            })
            .await;
        self.settle_v1(
            answer,
            request,
            &asked,
            (form, &model.config, event.as_ref(), head.accepted),
        )
        .await
    }

    /// Writes the answer and closes its account.
    async fn settle_v1(
        &self,
        answer: Answer,
        request: &HttpRequest,
        asked: &Asked<'_>,
        (form, config, event, accepted): (v1::Form, &ModelConfig, Option<&Event>, Accepted),
    ) -> HttpResponse {
        let start = self.clock.now();
        let Answer { result, mut account } = answer;
        let written = match result {
            Ok(completed) => {
                let body = written(&completed, asked, form, config);
                match body {
                    Ok(body) => wrapped(event, asked.name, body, accepted).await.map(|mut response| {
                        tell_version(&mut response, &completed);
                        response
                    }),
                    Err(fault) => Err(fault),
                }
            }
            Err(fault) => Err(fault),
        };
        let mut response = written.unwrap_or_else(|fault| {
            account.failed(&fault);
            reply::fault(&fault, is_presented(request))
        });
        reply::trace(&mut response, account.trace());
        account.finish(self.clock.now().saturating_duration_since(start));
        response
    }
}

fn written(completed: &Completed, asked: &Asked<'_>, form: v1::Form, config: &ModelConfig) -> Result<Vec<u8>, Fault> {
    let response = &completed.response;
    Ok(match asked.call {
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

fn not_found(name: &str, which: Which<'_>) -> Fault {
    let mut fault = Fault::unknown_model(name);
    let text: String = which.of(name).chars().take(MAX_QUOTED_CHARS).collect();
    fault.message = format!("Servable not found for request: {text}").into();
    fault
}
