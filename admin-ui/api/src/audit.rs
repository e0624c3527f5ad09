//! The trail of changes, redacted, and the check of its chain.

use actix_web::HttpResponse;
use mesh_registry::{AuditEntry, AuditPage};
use serde::Deserialize;

use crate::{
    AdminState,
    error::ApiError,
    wire::{AuditChange, AuditList, AuditVerdict, AuditView},
};

const DEFAULT_LIMIT: usize = 50;
/// The most entries of one answer.
pub(crate) const MAX_LIMIT: usize = 500;

/// What part of the trail is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AuditQuery {
    after: u64,
    limit: Option<usize>,
}

/// Answers a part of the trail; read from disk, so not on the door's thread.
pub(crate) async fn list(state: &AdminState, query: &AuditQuery) -> Result<HttpResponse, ApiError> {
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::problem(
            "limit",
            format!("{limit} is not within 1 to {MAX_LIMIT}"),
        ));
    }
    let (registry, after) = (state.inner.parts.registry.clone(), query.after);
    let read = actix_web::web::block(move || registry.audit(after, limit)).await;
    let AuditPage { entries, begins } = read.map_err(|_| ApiError::busy("the trail was not read: ask again"))??;
    let next = entries
        .last()
        .filter(|_| entries.len() == limit)
        .map(|entry| entry.revision);
    let items = entries.iter().map(view).collect();
    let latest = *state.inner.parts.registry.revision().borrow();
    Ok(HttpResponse::Ok().json(AuditList {
        items,
        next,
        latest,
        begins,
    }))
}

fn view(entry: &AuditEntry) -> AuditView {
    let change = |change: &mesh_registry::AuditChange| AuditChange {
        key: change.key.to_string(),
        action: match (&change.before, &change.after) {
            (None, _) => "created",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "deleted",
        },
        before: change.before.clone(),
        after: change.after.clone(),
    };
    AuditView {
        revision: entry.revision,
        time: entry.time,
        who: entry.by.who.clone(),
        source: entry.by.source.clone(),
        request: entry.by.request.clone(),
        changes: entry.changes.iter().map(change).collect(),
        event: entry.event.clone(),
        hash: entry.hash.clone(),
    }
}

/// Reads the whole trail; on a thread of its own, because that takes a while.
pub(crate) async fn verify(state: &AdminState) -> Result<HttpResponse, ApiError> {
    let registry = state.inner.parts.registry.clone();
    let checked = actix_web::web::block(move || registry.verify_audit()).await;
    let checked = checked.map_err(|_| ApiError::busy("the check was not finished: ask again"))?;
    Ok(HttpResponse::Ok().json(match checked {
        Ok(summary) => AuditVerdict {
            valid: true,
            entries: summary.entries,
            begins: Some(summary.begins),
            head: Some(summary.head),
            problem: None,
        },
        Err(error) => AuditVerdict {
            valid: false,
            entries: 0,
            begins: None,
            head: None,
            problem: Some(error.to_string()),
        },
    }))
}
