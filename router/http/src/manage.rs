//! What is asked about models beside predictions: configuration, statistics, the index, and to load or unload one.
//!
//! The answers are the router's; here they become JSON.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use mesh_protocol::{
    decode_index,
    grpc::{ConfigOf, StatisticsOf},
    index_body, model_config_body, statistics_body,
};
use mesh_router::ModelDescription;
use mesh_types::{Fault, RequestId};

use crate::{
    path::Change,
    reply,
    service::{Service, credential, is_presented, selector},
};

/// A model's configuration.
pub(crate) fn config_body(name: &str, model: &ModelDescription) -> Vec<u8> {
    model_config_body(ConfigOf {
        name,
        platform: model.platform,
        versions: &model.versions,
        config: &model.config,
        owned: model.owned,
    })
}

impl Service {
    /// What versions have done: those of a name, or all.
    pub(crate) fn statistics(&self, request: &HttpRequest, name: Option<&str>, version: Option<&str>) -> HttpResponse {
        let counted = selector(version)
            .and_then(|version| self.router.statistics(&credential(request), name, &version))
            .map(|entries| {
                statistics_body(entries.iter().map(|entry| StatisticsOf {
                    name: &entry.name,
                    version: entry.version,
                    numbers: &entry.numbers,
                }))
            });
        answer(request, counted)
    }

    /// The versions that the caller may use.
    pub(crate) async fn index(&self, request: &HttpRequest, mut payload: web::Payload, id: RequestId) -> HttpResponse {
        let body = match self.body(request, &mut payload, id).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let index = decode_index(&body.bytes)
            .map_err(Fault::from)
            .and_then(|only_ready| self.router.index(&credential(request), only_ready))
            .map(|index| {
                index_body(
                    index
                        .iter()
                        .map(|entry| (&*entry.name, entry.version, entry.state(), &*entry.reason)),
                )
            });
        answer(request, index)
    }

    /// Callers of this door call models; they do not change what is there.
    pub(crate) async fn refuse_change(
        &self,
        request: &HttpRequest,
        mut payload: web::Payload,
        change: Change,
        id: RequestId,
    ) -> HttpResponse {
        // Read, so that the connection can serve the next request.
        if let Err(refused) = self.body(request, &mut payload, id).await {
            return refused;
        }
        let what = match change {
            Change::Load => "loading models is",
            Change::Unload => "unloading models is",
        };
        let fault = self.router.refuse_change(&credential(request), what);
        reply::fault(&fault, is_presented(request))
    }
}

fn answer(request: &HttpRequest, body: Result<Vec<u8>, Fault>) -> HttpResponse {
    match body {
        Ok(body) => reply::json(StatusCode::OK, body),
        Err(fault) => reply::fault(&fault, is_presented(request)),
    }
}
