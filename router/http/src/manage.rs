//! What is asked about models beside predictions: configuration, statistics, the index, and to load or unload one.
//!
//! The answers are the router's; here they become JSON.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use mesh_protocol::{
    LoadParameters, decode_index, decode_load, decode_unload,
    grpc::{ConfigOf, StatisticsOf},
    index_body, index_entry, model_config_body, statistics_body,
};
use mesh_router::{ChangeOrder, Load, ModelDescription, RepositoryEntry};
use mesh_types::{Fault, RequestId};

use crate::{
    infer::timeout,
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
        let index = match decode_index(&body.bytes) {
            Ok(only_ready) => {
                let control = self.control.as_ref();
                self.router.full_index(control, &credential(request), only_ready).await
            }
            Err(error) => Err(Fault::from(error)),
        };
        let told = index.map(|index| {
            let written =
                |entry: &RepositoryEntry| index_entry((&entry.name, entry.version, entry.state, &entry.reason));
            index_body(index.iter().map(written))
        });
        answer(request, told)
    }

    /// Loads or unloads a model, for whoever may.
    pub(crate) async fn change(
        &self,
        request: &HttpRequest,
        mut payload: web::Payload,
        (name, change): (&str, Change),
        id: RequestId,
    ) -> HttpResponse {
        // Read in any case, so that the connection can serve the next request.
        let body = match self.body(request, &mut payload, id).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let timeout = match timeout(request.headers()) {
            Ok(timeout) => timeout,
            Err(fault) => return reply::fault(&fault, is_presented(request)),
        };
        let order = |deadline| {
            Ok(ChangeOrder {
                model: name.to_owned(),
                change: asked(change, &body.bytes)?,
                deadline,
                request: id,
                door: "http",
            })
        };
        let control = self.control.as_ref();
        match self
            .router
            .change_model(control, &credential(request), timeout, order)
            .await
        {
            Ok(()) => HttpResponse::new(StatusCode::OK),
            Err(fault) => reply::fault(&fault, is_presented(request)),
        }
    }
}

fn asked(change: Change, body: &[u8]) -> Result<mesh_router::Change, Fault> {
    Ok(match change {
        Change::Load => {
            let LoadParameters { config, files } = decode_load(body)?;
            mesh_router::Change::Load(Load { config, files })
        }
        Change::Unload => {
            let dependents = decode_unload(body)?;
            mesh_router::Change::Unload { dependents }
        }
    })
}

fn answer(request: &HttpRequest, body: Result<Vec<u8>, Fault>) -> HttpResponse {
    match body {
        Ok(body) => reply::json(StatusCode::OK, body),
        Err(fault) => reply::fault(&fault, is_presented(request)),
    }
}
