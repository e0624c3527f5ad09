//! Every route, once: the table that the server is set up from and that the OpenAPI document is written from.

use actix_web::{
    HttpRequest, HttpResponse, ResponseError as _,
    body::BoxBody,
    dev::ServiceRequest,
    error::JsonPayloadError,
    http::StatusCode,
    middleware::{Next, from_fn},
    web::{self, Bytes, Data, Json, Payload, Query, ServiceConfig},
};
use mesh_policies::authorization::{Action, ObjectKind};
use mesh_resources::Kind;
use mesh_types::{EndpointId, ModelId};
use serde_json::Value;

use crate::{
    AdminState, apply, artifacts, audit,
    auth::{self, Caller},
    authz::{self, Needs},
    backup,
    bodies::{Pace, keep_pace},
    cache, certificates, devices,
    entry::{Body, Entry},
    error::ApiError,
    graph, issuers, key_uses, keys, live, metrics, openapi, policies, resources,
    resources::{ListQuery, WriteQuery, tenant_of},
    sign_in, trial, usage, versions,
    wire::{ApplyBody, LoginBody, NewKeyBody, NewTokenBody, PublishBody, WarmBody},
};

/// Where the API is.
pub(crate) const ROOT: &str = "/admin/v1";
/// The largest JSON body.
pub(crate) const MAX_JSON_BYTES: usize = 4 << 20;
/// The largest body of a sign-in.
pub(crate) const MAX_LOGIN_BYTES: usize = 4 << 10;

pub(crate) type State = Data<AdminState>;
pub(crate) type Answer = Result<HttpResponse, ApiError>;

/// The path of a kind's resources, up to the resource itself.
fn paths(kind: Kind) -> (String, String) {
    let list = format!("/{}", kind.plural());
    let one = match kind {
        Kind::Tenant => "/tenants/{tenant}".to_owned(),
        Kind::Issuer | Kind::AdminToken | Kind::Policy => format!("{list}/{{name}}"),
        Kind::ApiKey | Kind::ClientCertificate | Kind::Endpoint => format!("/tenants/{{tenant}}{list}/{{name}}"),
        Kind::Model => "/tenants/{tenant}/models/{model}".to_owned(),
        Kind::ModelVersion => "/tenants/{tenant}/models/{model}/versions/{version}".to_owned(),
    };
    (list, one)
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(chars)
        .collect()
}

fn reads_of(kind: Kind) -> [Entry; 2] {
    let (list, one) = paths(kind);
    let name = kind.as_str();
    let plural = capitalized(&kind.plural().replace("admin-tokens", "adminTokens"));
    let listed = web::get().to(
        move |state: State, caller: Caller, query: Query<ListQuery>| async move {
            resources::list(&state, &caller, kind, &query)
        },
    );
    let got =
        web::get().to(move |state: State, request: HttpRequest| async move { resources::get(&state, kind, &request) });
    let about = format!("Lists resources of kind {name}.");
    [
        Entry::get(&list, &format!("list{plural}"), &about, listed)
            .query(&["tenant", "limit", "cursor"])
            .needs(Needs::Handler)
            .answers("ResourceList"),
        Entry::get(
            &one,
            &format!("get{name}"),
            &format!("Reads a resource of kind {name}."),
            got,
        )
        .takes_right(mesh_authz::reading(kind), mesh_authz::kind_of(kind))
        .answers("Resource"),
    ]
}

fn writes_of(kind: Kind) -> [Entry; 2] {
    let (_, one) = paths(kind);
    let name = kind.as_str();
    let put = web::put().to(
        move |state: State, caller: Caller, request: HttpRequest, query: Query<WriteQuery>, body: Json<Value>| async move {
            let resource = resources::read(body)?;
            resources::put(&state, &caller, kind, &request, resource, query.dry_run).await
        },
    );
    let deleted = web::delete().to(move |state: State, caller: Caller, request: HttpRequest| async move {
        resources::delete(&state, &caller, kind, &request).await
    });
    let about = format!("Writes a resource of kind {name}; `dry_run` answers with the difference instead.");
    [
        Entry::put(&one, &format!("put{name}"), &about, put)
            .query(&["dry_run"])
            .headers(&["If-Match", "If-None-Match"])
            .needs(Needs::Handler)
            .takes("Resource")
            .answers("Resource"),
        Entry::delete(
            &one,
            &format!("delete{name}"),
            &format!("Deletes a resource of kind {name}."),
            deleted,
        )
        .headers(&["If-Match"])
        .takes_right(mesh_authz::writing(kind), mesh_authz::kind_of(kind)),
    ]
}

async fn sign_in(state: State, request: HttpRequest, body: Json<LoginBody>) -> Answer {
    auth::sign_in(&state, &request, &body)
}

async fn session(caller: Caller) -> HttpResponse {
    auth::session(&caller)
}

async fn apply_all(state: State, caller: Caller, query: Query<WriteQuery>, body: Json<ApplyBody>) -> Answer {
    apply::apply(&state, &caller, body.into_inner(), query.dry_run).await
}

async fn create_key(state: State, caller: Caller, request: HttpRequest, body: Json<NewKeyBody>) -> Answer {
    keys::create_key(&state, &caller, &tenant_of(&request)?, body.into_inner()).await
}

async fn create_token(state: State, caller: Caller, body: Json<NewTokenBody>) -> Answer {
    keys::create_token(&state, &caller, body.into_inner()).await
}

async fn issuer_keys(state: State, request: HttpRequest) -> Answer {
    issuers::keys(&state, request.match_info().get("name").unwrap_or_default())
}

async fn upload(state: State, request: HttpRequest, body: Payload) -> Answer {
    artifacts::upload(&state, &request, body).await
}

fn model_of(request: &HttpRequest) -> Result<ModelId, ApiError> {
    let text = request.match_info().get("model").unwrap_or_default();
    ModelId::parse(text).map_err(|error| ApiError::invalid(error.to_string()))
}

async fn publish(state: State, caller: Caller, request: HttpRequest, body: Json<PublishBody>) -> Answer {
    let (tenant, model) = (tenant_of(&request)?, model_of(&request)?);
    versions::publish(&state, &caller, &tenant, &model, body.into_inner()).await
}

async fn warm(state: State, caller: Caller, request: HttpRequest, body: Json<WarmBody>) -> Answer {
    let (tenant, model) = (tenant_of(&request)?, model_of(&request)?);
    versions::warm(&state, &caller, &tenant, &model, body.into_inner()).await
}

async fn model_versions(state: State, request: HttpRequest) -> Answer {
    versions::list(&state, &tenant_of(&request)?, &model_of(&request)?)
}

async fn model_graph(state: State, request: HttpRequest, query: Query<graph::GraphQuery>) -> Answer {
    graph::graph(&state, &tenant_of(&request)?, &model_of(&request)?, &query)
}

async fn try_endpoint(state: State, caller: Caller, request: HttpRequest, body: Bytes) -> Answer {
    let name = request.match_info().get("name").unwrap_or_default();
    let endpoint = EndpointId::parse(name).map_err(|error| ApiError::invalid(error.to_string()))?;
    trial::try_endpoint(&state, &caller, &tenant_of(&request)?, &endpoint, &body).await
}

async fn overview(state: State, caller: Caller) -> Answer {
    live::overview(&state, &caller)
}

async fn events(state: State, caller: Caller) -> Answer {
    live::events(&state, caller)
}

async fn device_list(state: State) -> HttpResponse {
    devices::list(&state)
}

async fn drain(state: State, caller: Caller, request: HttpRequest) -> Answer {
    let device = request.match_info().get("device").unwrap_or_default();
    devices::drain(&state, &caller, device, true).await
}

async fn undrain(state: State, caller: Caller, request: HttpRequest) -> Answer {
    let device = request.match_info().get("device").unwrap_or_default();
    devices::drain(&state, &caller, device, false).await
}

async fn download_backup(state: State, caller: Caller) -> Answer {
    backup::download(&state, &caller).await
}

async fn document() -> HttpResponse {
    HttpResponse::Ok().json(openapi::document())
}

fn session_routes() -> [Entry; 2] {
    let about = "Signs in: an admin token for a session's cookie.";
    [
        Entry::post("/session", "signIn", about, web::post().to(sign_in))
            .tag("session")
            .takes("LoginBody")
            .pace(Pace::LOGIN)
            .needs(Needs::Nothing)
            .status(StatusCode::NO_CONTENT),
        Entry::get(
            "/session",
            "getSession",
            "Says who is signed in.",
            web::get().to(session),
        )
        .tag("session")
        .needs(Needs::Nothing)
        .answers("SessionView"),
    ]
}

fn making_routes() -> [Entry; 3] {
    let (apply, key) = (web::post().to(apply_all), web::post().to(create_key));
    let about = "Writes resources, all or none, and tells the difference of each.";
    [
        Entry::post("/apply", "apply", about, apply)
            .query(&["dry_run"])
            .takes("ApplyBody")
            .needs(Needs::Handler)
            .answers("ApplyResults"),
        Entry::post(
            "/tenants/{tenant}/keys",
            "createKey",
            "Makes an API key; it is shown once.",
            key,
        )
        .tag("credentials")
        .takes("NewKeyBody")
        .needs(Needs::Handler)
        .makes("NewKey"),
        Entry::post(
            "/admin-tokens",
            "createAdminToken",
            "Makes an admin token; it is shown once.",
            web::post().to(create_token),
        )
        .tag("credentials")
        .takes("NewTokenBody")
        .needs(Needs::Handler)
        .makes("NewToken"),
    ]
}

fn model_routes() -> [Entry; 6] {
    let versions = "/tenants/{tenant}/models/{model}/versions";
    let next = "Makes the next version of a model, and the model if it is new.";
    let listed = web::get().to(model_versions);
    let tried = web::post().to(try_endpoint);
    [
        Entry::post(
            "/artifacts",
            "uploadArtifact",
            "Takes a model's file in.",
            web::post().to(upload),
        )
        .headers(&["x-sha256"])
        .body(Body::Bytes)
        .pace(Pace::UPLOAD)
        .needs(Needs::Home(Action::ArtifactUpload))
        .makes("ArtifactRef"),
        Entry::post(versions, "publishVersion", next, web::post().to(publish))
            .takes("PublishBody")
            .takes_right(Action::ModelPublish, ObjectKind::Model)
            .makes("Resource"),
        Entry::post(
            "/tenants/{tenant}/models/{model}/warm",
            "warmVersion",
            "Brings a version into its devices' memory before requests come; answers once it is warm.",
            web::post().to(warm),
        )
        .takes("WarmBody")
        .takes_right(Action::ModelWarm, ObjectKind::Model)
        .answers("Warmed"),
        Entry::get(
            versions,
            "listModelVersions",
            "Lists a model's versions by number.",
            listed,
        )
        .takes_right(Action::ModelRead, ObjectKind::Model)
        .answers("ResourceList"),
        Entry::get(
            "/tenants/{tenant}/models/{model}/graph",
            "getModelGraph",
            "Shows an ensemble's graph, what each step leads to now and what it has done.",
            web::get().to(model_graph),
        )
        .query(&["version"])
        .takes_right(Action::ModelRead, ObjectKind::Model)
        .answers("GraphView"),
        Entry::post(
            "/tenants/{tenant}/endpoints/{name}/try",
            "tryEndpoint",
            "Runs inputs on every arm of an endpoint.",
            tried,
        )
        .takes("TrialBody")
        .takes_right(Action::EndpointTry, ObjectKind::Endpoint)
        .answers("Trials"),
    ]
}

fn watching_routes() -> [Entry; 3] {
    [
        Entry::get(
            "/overview",
            "getOverview",
            "How the mesh is doing; for who is bound to a tenant, how that tenant is.",
            web::get().to(overview),
        )
        // Whose overview it is decides which right it takes: `mesh:read`, or `tenant:read` of the caller's own.
        .needs(Needs::Handler)
        .answers("Overview"),
        Entry::get(
            "/events",
            "streamEvents",
            "The overview once a second.",
            web::get().to(events),
        )
        .needs(Needs::Handler)
        .answer(Body::Events("Overview")),
        Entry::get("/openapi.json", "getOpenApi", "This document.", web::get().to(document))
            .needs(Needs::Nothing)
            .answers("OpenApiDocument"),
    ]
}

fn device_routes() -> [Entry; 3] {
    let about = "What each device holds, has done, and for whom.";
    let drained = "Lets a device take no new requests: what it has is finished, and its models stay. Until undrained, or \
                   until the mesh is restarted.";
    let undrained = "Lets a device that was drained take requests again.";
    [
        Entry::get("/devices", "listDevices", about, web::get().to(device_list))
            .takes_right(Action::DeviceRead, ObjectKind::Mesh)
            .answers("DeviceList"),
        Entry::post("/devices/{device}/drain", "drainDevice", drained, web::post().to(drain))
            .takes_right(Action::DeviceDrain, ObjectKind::Device)
            .answers("DeviceDetail"),
        Entry::post(
            "/devices/{device}/undrain",
            "undrainDevice",
            undrained,
            web::post().to(undrain),
        )
        .takes_right(Action::DeviceDrain, ObjectKind::Device)
        .answers("DeviceDetail"),
    ]
}

fn issuer_route() -> Entry {
    let about = "The keys that an issuer's tokens are checked with now, and how fetching them goes.";
    Entry::get(
        "/issuers/{name}/keys",
        "getIssuerKeys",
        about,
        web::get().to(issuer_keys),
    )
    .tag("credentials")
    .takes_right(Action::IssuerRead, ObjectKind::Issuer)
    .answers("IssuerKeysView")
}

fn backup_route() -> Entry {
    let about =
        "A copy of everything as a tar archive, secrets included; for who may do mesh:backup. `mesh restore` takes it.";
    Entry::get("/backup", "downloadBackup", about, web::get().to(download_backup))
        .tag("backup")
        .takes_right(Action::Backup, ObjectKind::Mesh)
        .answer(Body::Bytes)
}

/// Every route.
pub(crate) fn entries() -> Vec<Entry> {
    let kinds = Kind::ALL.into_iter();
    let mut entries: Vec<Entry> = kinds
        .flat_map(|kind| reads_of(kind).into_iter().chain(writes_of(kind)))
        .collect();
    entries.extend(session_routes());
    entries.extend(sign_in::entries());
    entries.extend(making_routes());
    entries.extend(model_routes().map(|entry| entry.tag("models")));
    entries.extend(cache::entries());
    entries.push(issuer_route());
    entries.push(certificates::entry());
    entries.extend(policies::routes().map(|entry| entry.tag("policies")));
    entries.extend(key_uses::entries());
    entries.extend(usage::entries());
    entries.push(metrics::entry());
    entries.push(backup_route());
    entries.extend(device_routes().map(|entry| entry.tag("devices")));
    entries.extend(audit::routes().map(|entry| entry.tag("audit")));
    entries.extend(watching_routes().map(|entry| entry.tag("live")));
    entries
}

/// Sets every route up; the application needs a [`Data`] of [`AdminState`].
pub fn configure(config: &mut ServiceConfig) {
    let json = json_config(MAX_JSON_BYTES);
    let query = web::QueryConfig::default()
        .error_handler(|error, _| ApiError::invalid(format!("the query cannot be read: {error}")).into());
    let bytes = web::PayloadConfig::new(trial::MAX_TRIAL_BYTES);
    let mut scope = web::scope(ROOT).app_data(json).app_data(query).app_data(bytes);
    let mut entries = entries();
    // Routes of one path make one resource, so that another method answers 405.
    while let Some(first) = entries.first() {
        let path = first.path.clone();
        let (same, rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.path == path);
        entries = rest;
        let mut resource = web::resource(&*path).default_service(web::to(wrong_method));
        if path == "/session" {
            // Nobody has signed in yet.
            resource = resource.app_data(json_config(MAX_LOGIN_BYTES));
        }
        scope = scope.service(same.into_iter().fold(resource, |resource, entry| {
            let (needs, pace) = (entry.needs, entry.pace);
            let guarded =
                from_fn(move |request: ServiceRequest, next: Next<BoxBody>| authz::guard(needs, request, next));
            let paced = from_fn(move |request: ServiceRequest, next: Next<BoxBody>| keep_pace(pace, request, next));
            resource.route(entry.route.wrap(paced).wrap(guarded))
        }));
    }
    let scope = scope.default_service(web::to(no_route)).wrap(from_fn(auth::guard));
    config.service(scope);
}

fn json_config(limit: usize) -> web::JsonConfig {
    web::JsonConfig::default().limit(limit).error_handler(|error, _| {
        let status = match &error {
            JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            JsonPayloadError::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            _ => StatusCode::BAD_REQUEST,
        };
        ApiError::new(status, format!("the body cannot be read: {error}")).into()
    })
}

async fn wrong_method() -> HttpResponse {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "this route does not take this method").error_response()
}

async fn no_route() -> HttpResponse {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "there is no such route: see /admin/v1/openapi.json",
    )
    .error_response()
}
