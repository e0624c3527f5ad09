//! What tenants, and the subjects of their tokens, have used today and this month, beside the marks of their budgets.

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, Data, Query},
};
use jiff::Timestamp;
use mesh_policies::{
    authorization::{Action, ObjectKind},
    limits::Usage,
};
use mesh_resources::{BudgetsSpec, Kind, Resource, ResourceKey, Spec};
use mesh_types::TenantId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AdminState,
    auth::Caller,
    authz::Needs,
    entry::Entry,
    error::ApiError,
    resources::{ListQuery, limit_of, page, tenant_of},
};

/// What was used of each unit.
#[derive(Debug, Clone, Copy, Default, Serialize, ToSchema)]
pub(crate) struct Used {
    /// Requests that were let through.
    requests: u64,
    /// Their rows.
    rows: u64,
    /// Bytes of their inputs.
    input_bytes: u64,
    /// Milliseconds of devices.
    device_ms: u64,
}

impl From<[u64; 4]> for Used {
    fn from([requests, rows, input_bytes, device]: [u64; 4]) -> Self {
        Self {
            requests,
            rows,
            input_bytes,
            device_ms: device / 1_000,
        }
    }
}

/// One tenant's use, in days and months of UTC.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct UsageView {
    /// Whose.
    #[schema(value_type = String)]
    tenant: TenantId,
    /// Requests that are running now.
    in_flight: u32,
    /// The day, such as `2026-11-26`.
    day: String,
    /// What was used in it.
    daily: Used,
    /// The month, such as `2026-11`.
    month: String,
    /// What was used in it.
    monthly: Used,
    /// The marks, as they are declared.
    budgets: BudgetsSpec,
}

/// Tenants with what they have used, and where to go on.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct UsageList {
    items: Vec<UsageView>,
    /// The cursor of the rest, if there is one.
    next: Option<String>,
}

/// What one subject of a tenant's tokens has used.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SubjectUsage {
    /// The token's `iss`.
    issuer: String,
    /// Its `sub`.
    subject: String,
    /// What was used in the day.
    daily: Used,
    /// What was used in the month.
    monthly: Used,
}

/// The subjects of a tenant's tokens with what they have used, those who have used the most this month first, and where to go on.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SubjectUsageList {
    /// Whose tokens.
    #[schema(value_type = String)]
    tenant: TenantId,
    /// The day, such as `2026-11-26`.
    day: String,
    /// The month, such as `2026-11`.
    month: String,
    /// The marks of each subject, as they are declared.
    budgets: BudgetsSpec,
    items: Vec<SubjectUsage>,
    /// How many subjects there are.
    total: usize,
    /// The cursor of the rest, if there is one.
    next: Option<String>,
}

/// What comes next is told by how many were told: the order follows what is used, and moves meanwhile.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SubjectQuery {
    limit: Option<usize>,
    cursor: Option<usize>,
}

/// The day and the month of now, as they are written.
fn windows(state: &AdminState) -> (String, String) {
    let now = Timestamp::from_second(state.now_unix()).unwrap_or_default();
    let (day, month) = (now.strftime("%Y-%m-%d"), now.strftime("%Y-%m"));
    (day.to_string(), month.to_string())
}

fn view(state: &AdminState, tenant: TenantId, budgets: BudgetsSpec) -> UsageView {
    let limiter = &state.inner.parts.limiter;
    let Usage { daily, monthly, .. } = limiter.usage(&tenant).unwrap_or_default();
    let (day, month) = windows(state);
    UsageView {
        in_flight: limiter.in_flight(&tenant),
        day,
        daily: daily.into(),
        month,
        monthly: monthly.into(),
        tenant,
        budgets,
    }
}

fn view_of(state: &AdminState, resource: &Resource) -> Option<UsageView> {
    let Spec::Tenant(spec) = &resource.spec else {
        return None;
    };
    let tenant = TenantId::parse(&resource.metadata.name).ok()?;
    Some(view(state, tenant, spec.budgets.clone()))
}

/// One tenant's use.
pub(crate) fn get(state: &AdminState, tenant: &TenantId) -> Result<HttpResponse, ApiError> {
    let key = ResourceKey::tenant(tenant);
    let resource = state.inner.parts.registry.get(&key)?;
    let found = resource.and_then(|resource| view_of(state, &resource));
    let found = found.ok_or_else(|| ApiError::not_found(&key))?;
    Ok(HttpResponse::Ok().json(found))
}

/// That of every tenant that the caller may read.
pub(crate) fn list(state: &AdminState, caller: &Caller, query: &ListQuery) -> Result<HttpResponse, ApiError> {
    let page = page(state, caller, Kind::Tenant, query)?;
    Ok(HttpResponse::Ok().json(UsageList {
        items: page
            .items
            .iter()
            .filter_map(|resource| view_of(state, resource))
            .collect(),
        next: page.next.map(|key| key.to_string()),
    }))
}

/// That of the subjects of a tenant's tokens.
fn subjects(state: &AdminState, tenant: TenantId, query: &SubjectQuery) -> Result<HttpResponse, ApiError> {
    let (limit, skipped) = (limit_of(query.limit)?, query.cursor.unwrap_or(0));
    let key = ResourceKey::tenant(&tenant);
    let resource = state.inner.parts.registry.get(&key)?;
    let Some(Spec::Tenant(spec)) = resource.map(|resource| resource.spec) else {
        return Err(ApiError::not_found(&key));
    };
    let mut all = state.inner.parts.limiter.usage_of_subjects(&tenant);
    // By requests, then by time of devices; those alike by name, so that pages do not mix them.
    let most = |usage: &Usage| {
        let [requests, _, _, device] = usage.monthly;
        std::cmp::Reverse((requests, device))
    };
    all.sort_by(|(name, usage), (other, than)| most(usage).cmp(&most(than)).then_with(|| name.cmp(other)));
    let told = skipped.saturating_add(limit);
    let items = all.iter().skip(skipped).take(limit).map(|(name, usage)| SubjectUsage {
        issuer: name.issuer.to_string(),
        subject: name.subject.to_string(),
        daily: usage.daily.into(),
        monthly: usage.monthly.into(),
    });
    let (day, month) = windows(state);
    Ok(HttpResponse::Ok().json(SubjectUsageList {
        items: items.collect(),
        tenant,
        day,
        month,
        budgets: spec.per_subject_budgets,
        total: all.len(),
        next: (told < all.len()).then(|| told.to_string()),
    }))
}

/// Its routes.
pub(crate) fn entries() -> [Entry; 3] {
    let all = web::get().to(
        |state: Data<AdminState>, caller: Caller, query: Query<ListQuery>| async move { list(&state, &caller, &query) },
    );
    let one = web::get().to(|state: Data<AdminState>, request: HttpRequest| async move {
        let tenant = tenant_of(&request)?;
        get(&state, &tenant)
    });
    let each = web::get().to(
        |state: Data<AdminState>, request: HttpRequest, query: Query<SubjectQuery>| async move {
            subjects(&state, tenant_of(&request)?, &query)
        },
    );
    let about_each =
        "What each subject of a tenant's tokens has used, where subjects have budgets: who used most, first.";
    let about_all = "What every tenant has used today and this month.";
    let about = "What a tenant has used today and this month, and the marks of its budgets.";
    let entries = [
        Entry::get("/usage", "listUsage", about_all, all)
            .query(&["limit", "cursor"])
            // As of every list: what the caller may not read is left out.
            .needs(Needs::Handler)
            .answers("UsageList"),
        Entry::get("/tenants/{tenant}/usage", "getUsage", about, one)
            .takes_right(Action::TenantRead, ObjectKind::Tenant)
            .answers("UsageView"),
        Entry::get("/tenants/{tenant}/usage/subjects", "listSubjectUsage", about_each, each)
            .query(&["limit", "cursor"])
            .takes_right(Action::TenantRead, ObjectKind::Tenant)
            .answers("SubjectUsageList"),
    ];
    entries.map(|entry| entry.tag("live"))
}
