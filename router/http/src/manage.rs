//! What is asked about models beside predictions: configuration, statistics, the index, and to load or unload one.
//!
//! The answers are the router's; here they become JSON.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use mesh_protocol::{
    LoadParameters, decode_index, decode_load, decode_unload,
    grpc::{ConfigOf, StatisticsOf},
    index_body, index_entry, model_config_body, models_body, statistics_body,
};
use mesh_router::{ChangeOrder, Load, ModelDescription, RepositoryEntry};
use mesh_types::{Fault, RequestId};

use crate::{
    extension::decoded,
    infer::timeout,
    path::Change,
    reply,
    service::{Service, credential, is_presented, selector},
};

/// The most names of a page, and as many as there are on one without a limit.
const MAX_NAMES: usize = 1_000;

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

    /// A page of the names that the caller may call.
    pub(crate) fn names(&self, request: &HttpRequest) -> HttpResponse {
        let names = page_of(request.query_string()).and_then(|(limit, after)| {
            let page = self
                .router
                .view()
                .names(&credential(request), after.as_deref(), limit)?;
            let next = page.names.last().filter(|_| page.more);
            Ok(models_body(&page.names, next.map(String::as_str)))
        });
        answer(request, names)
    }

    /// The versions that the caller may use, of the repository that is named.
    pub(crate) async fn index(
        &self,
        request: &HttpRequest,
        mut payload: web::Payload,
        repository: Option<&str>,
        id: RequestId,
    ) -> HttpResponse {
        let body = match self.body(request, &mut payload, id).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let index = match decode_index(&body.bytes) {
            Ok(only_ready) => {
                let control = self.control.as_ref();
                let asked = (repository.unwrap_or_default(), only_ready);
                self.router.full_index(control, &credential(request), asked).await
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
        (repository, name, change): (Option<&str>, &str, Change),
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
                repository: repository.unwrap_or_default().to_owned(),
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

/// How many names are asked for, and behind which. What else stands there is ignored.
fn page_of(query: &str) -> Result<(usize, Option<String>), Fault> {
    let (mut limit, mut after) = (MAX_NAMES, None);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "limit" => {
                let wrong = || {
                    Fault::invalid(format!(
                        "the query's 'limit' must be a whole number from 1 to {MAX_NAMES}"
                    ))
                };
                let known = value.parse().ok().filter(|limit| (1..=MAX_NAMES).contains(limit));
                limit = known.ok_or_else(wrong)?;
            }
            "after" => {
                let wrong = || Fault::invalid("the query's 'after' must be a name of a model");
                after = Some(decoded(value).ok_or_else(wrong)?);
            }
            _ => {}
        }
    }
    Ok((limit, after))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_thousand_names_at_most() {
        let page = |query| page_of(query).map_err(|fault| fault.to_string());
        assert_eq!(page(""), Ok((MAX_NAMES, None)));
        assert_eq!(
            page("limit=1000&else=1&after=m%2d1"),
            Ok((1_000, Some("m-1".to_owned())))
        );
        assert_eq!(page("limit=1&x"), Ok((1, None)));
        for wrong in ["limit=1001", "limit=0", "limit=-1", "limit=", "limit=ten", "after=%zz"] {
            assert!(page(wrong).unwrap_err().contains("the query's"), "{wrong}");
        }
    }
}
