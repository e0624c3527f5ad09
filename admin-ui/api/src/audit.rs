//! The trail of changes: redacted for people, whole for whoever checks it, and the check of its chain.

use actix_web::{
    HttpResponse,
    web::{self, Query},
};
use jiff::Timestamp;
use mesh_policies::authorization::{Action, ObjectKind};
use mesh_registry::{AuditEntry, AuditExport, AuditPage};
use serde::Deserialize;

use crate::{
    AdminState,
    auth::Caller,
    entry::Entry,
    error::ApiError,
    routes::{Answer, State},
    wire::{AuditChange, AuditList, AuditPart, AuditVerdict, AuditView},
};

const DEFAULT_LIMIT: usize = 50;
/// The most entries of one answer.
pub(crate) const MAX_LIMIT: usize = 500;

/// What part of the trail is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AuditQuery {
    after: u64,
    limit: Option<usize>,
}

impl AuditQuery {
    fn limit(&self) -> Result<usize, ApiError> {
        checked(self.limit)
    }
}

fn checked(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if (1..=MAX_LIMIT).contains(&limit) {
        return Ok(limit);
    }
    let text = format!("{limit} is not within 1 to {MAX_LIMIT}");
    Err(ApiError::problem("limit", text))
}

/// Answers a part of the trail; read from disk, so not on the door's thread.
async fn list(state: &AdminState, query: &AuditQuery) -> Result<HttpResponse, ApiError> {
    let limit = query.limit()?;
    let (registry, after) = (state.inner.parts.registry.clone(), query.after);
    let read = web::block(move || registry.audit(after, limit)).await;
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
        from: entry.by.from.clone(),
        changes: entry.changes.iter().map(change).collect(),
        event: entry.event.clone(),
        signed_by: entry.head.as_ref().map(|head| head.key),
        hash: entry.hash.clone(),
    }
}

/// Reads the whole trail; on a thread of its own, because that takes a while.
async fn verify(state: &AdminState) -> Result<HttpResponse, ApiError> {
    let registry = state.inner.parts.registry.clone();
    let public_key = registry.audit_key();
    let checked = web::block(move || registry.verify_audit()).await;
    let checked = checked.map_err(|_| ApiError::busy("the check was not finished: ask again"))?;
    Ok(HttpResponse::Ok().json(match checked {
        Ok(summary) => AuditVerdict {
            valid: true,
            entries: summary.entries,
            begins: Some(summary.begins),
            head: Some(summary.head),
            heads: summary.heads,
            signed: summary.signed,
            public_key,
            problem: None,
        },
        Err(error) => AuditVerdict {
            valid: false,
            entries: 0,
            begins: None,
            head: None,
            heads: 0,
            signed: None,
            public_key,
            problem: Some(error.to_string()),
        },
    }))
}

/// What part of an export is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExportQuery {
    after: u64,
    since: Option<Timestamp>,
    limit: Option<usize>,
}

/// Answers a part of the trail as it was written, without what resources held.
async fn export(state: &AdminState, query: &ExportQuery) -> Result<HttpResponse, ApiError> {
    let wanted = AuditExport {
        after: query.after,
        since: query.since,
        limit: checked(query.limit)?,
    };
    let registry = state.inner.parts.registry.clone();
    let read = web::block(move || registry.export_audit(wanted)).await;
    let part = read.map_err(|_| ApiError::busy("the trail was not read: ask again"))??;
    Ok(HttpResponse::Ok().json(AuditPart {
        header: part.header,
        items: part.entries,
        next: part.next,
    }))
}

/// Signs the trail as it is now; answered once that is an entry of it.
async fn sign(state: &AdminState, caller: &Caller) -> Result<HttpResponse, ApiError> {
    state.inner.parts.registry.sign_audit(caller.author()).await?;
    verify(state).await
}

async fn get_list(state: State, query: Query<AuditQuery>) -> Answer {
    list(&state, &query).await
}

async fn get_verdict(state: State) -> Answer {
    verify(&state).await
}

async fn get_export(state: State, query: Query<ExportQuery>) -> Answer {
    export(&state, &query).await
}

async fn post_head(state: State, caller: Caller) -> Answer {
    sign(&state, &caller).await
}

/// The routes of the trail.
pub(crate) fn routes() -> [Entry; 4] {
    let (audited, verified) = (web::get().to(get_list), web::get().to(get_verdict));
    let exported = "The trail as it was written, without what resources held, for who checks it with the public key.";
    let signed = "Signs the trail as it is now, with an entry of it, and checks it. It is signed hourly in any case.";
    [
        Entry::get("/audit", "listAudit", "Lists the trail of changes.", audited)
            .query(&["after", "limit"])
            .takes_right(Action::AuditRead, ObjectKind::Mesh)
            .answers("AuditList"),
        Entry::get(
            "/audit/verify",
            "verifyAudit",
            "Checks the chain of hashes and its signatures.",
            verified,
        )
        .takes_right(Action::AuditRead, ObjectKind::Mesh)
        .answers("AuditVerdict"),
        Entry::get("/audit/export", "exportAudit", exported, web::get().to(get_export))
            .query(&["after", "since", "limit"])
            .takes_right(Action::AuditRead, ObjectKind::Mesh)
            .answers("AuditPart"),
        Entry::post("/audit/heads", "signAudit", signed, web::post().to(post_head))
            .takes_right(Action::AuditSign, ObjectKind::Mesh)
            .answers("AuditVerdict"),
    ]
}
