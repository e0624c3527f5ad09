//! The OpenAPI 3.1 document, written from the table of routes and the types that travel.

use std::{borrow::Cow, collections::BTreeMap};

use mesh_resources::{
    AdminTokenSpec, ApiKeySpec, ArtifactRef, ClientCertificateSpec, EndpointSpec, IssuerSpec, Kind, Metadata,
    ModelSpec, ModelVersionSpec, PolicySpec, TenantSpec,
};
use mesh_telemetry::OPENMETRICS;
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, InfoBuilder, ObjectBuilder, OneOfBuilder, OpenApi, OpenApiBuilder, PathItem,
    Ref, RefOr, Required, ResponseBuilder, Schema, ServerBuilder, Type,
    path::{OperationBuilder, ParameterBuilder, ParameterIn, PathsBuilder},
    request_body::RequestBodyBuilder,
    response::Response,
    schema::ArrayBuilder,
    security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};
use utoipa::{PartialSchema, ToSchema};

use crate::{
    Overview,
    auth::COOKIE,
    certificates::DoorView,
    devices::DeviceDetail,
    entry::{Body, Entry},
    error::ErrorBody,
    graph::GraphView,
    issuers::IssuerKeysView,
    key_uses::{KeyUse, KeyUseList},
    parts::Purged,
    policies::{PolicyAnswer, PolicySchema, PolicyTest},
    routes::{ROOT, entries},
    sign_in::{SignInView, SignedOutView},
    usage::{SubjectUsageList, UsageList, UsageView},
    wire::{
        ApplyBody, ApplyResults, AuditList, AuditPart, AuditVerdict, LoginBody, NewKey, NewKeyBody, NewToken,
        NewTokenBody, PublishBody, ResourceList, SessionView, TrialBody, Trials, WarmBody, Warmed,
    },
};

/// The operations that need no credential.
const PUBLIC: [&str; 6] = [
    "signIn",
    "getOpenApi",
    "getSignIn",
    "beginSignIn",
    "endSignIn",
    "endSignOut",
];

fn reference(name: &str) -> RefOr<Schema> {
    Ref::from_schema_name(name).into()
}

/// Parts of a path in braces.
fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn parameter(name: &str, place: ParameterIn) -> ParameterBuilder {
    let kind = match name {
        "limit" | "after" => Type::Integer,
        "dry_run" => Type::Boolean,
        _ => Type::String,
    };
    let about = match name {
        "limit" => "the most that are answered at once",
        "cursor" => "what the last answer said in 'next'",
        "after" => "answers only what comes after this revision",
        "dry_run" => "check and tell the difference, but write nothing",
        "If-Match" => "the revision, in quotes, that the resource must have",
        "If-None-Match" => "*: the resource must be new",
        "x-sha256" => "the file's SHA-256; other bytes are refused",
        "version" => "the version's number; in a query a label does as well",
        "device" => "the device, such as cpu:0",
        "to" => "the page of the web app to go on to",
        "state" | "code" | "iss" | "error" => "what the identity provider sends along",
        "tenant" => "the tenant's name",
        "model" => "the model's name",
        _ => "the resource's name",
    };
    let required = if place == ParameterIn::Path {
        Required::True
    } else {
        Required::False
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .description(Some(about))
        .schema(Some(ObjectBuilder::new().schema_type(kind).build()))
}

fn json_content(schema: &str) -> utoipa::openapi::Content {
    ContentBuilder::new().schema(Some(reference(schema))).build()
}

fn answer(entry: &Entry) -> Response {
    let about = entry.status.canonical_reason().unwrap_or("done");
    let response = ResponseBuilder::new().description(about);
    match entry.answer {
        Body::None => response.build(),
        Body::Json(schema) => response.content("application/json", json_content(schema)).build(),
        Body::Events(schema) => response.content("text/event-stream", json_content(schema)).build(),
        Body::Bytes => response
            .content("application/octet-stream", ContentBuilder::new().build())
            .build(),
        Body::Metrics => response.content(OPENMETRICS, ContentBuilder::new().build()).build(),
    }
}

fn operation(entry: &Entry) -> OperationBuilder {
    let error = ResponseBuilder::new()
        .description("refused, with the problems")
        .content("application/json", json_content("ErrorBody"));
    let mut operation = OperationBuilder::new()
        .operation_id(Some(entry.id.clone()))
        .tag(entry.tag)
        .summary(Some(entry.summary.clone()))
        .response(entry.status.as_str(), answer(entry))
        .response("default", error.build());
    if entry.id.starts_with("put") {
        let created = ResponseBuilder::new()
            .description("Created")
            .content("application/json", json_content("Resource"));
        operation = operation.response("201", created.build());
    }
    for name in path_parameters(&entry.path) {
        operation = operation.parameter(parameter(name, ParameterIn::Path));
    }
    for name in entry.query {
        operation = operation.parameter(parameter(name, ParameterIn::Query));
    }
    for name in entry.headers {
        operation = operation.parameter(parameter(name, ParameterIn::Header));
    }
    let body = match entry.body {
        Body::Json(schema) => Some(("application/json", json_content(schema))),
        Body::Bytes => Some(("application/octet-stream", ContentBuilder::new().build())),
        Body::None | Body::Events(_) | Body::Metrics => None,
    };
    if let Some((media, content)) = body {
        let body = RequestBodyBuilder::new()
            .content(media, content)
            .required(Some(Required::True));
        operation = operation.request_body(Some(body.build()));
    }
    if PUBLIC.contains(&entry.id.as_str()) {
        operation = operation.security(SecurityRequirement::default());
    }
    operation
}

/// The schema of one kind of resource.
fn resource_schema(kind: Kind) -> Schema {
    let text = |value: &str| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some([value]))
            .build()
    };
    ObjectBuilder::new()
        .property("apiVersion", text(mesh_resources::API_VERSION))
        .required("apiVersion")
        .property("kind", text(kind.as_str()))
        .required("kind")
        .property("metadata", reference("Metadata"))
        .required("metadata")
        .property("spec", reference(&format!("{kind}Spec")))
        .required("spec")
        .build()
        .into()
}

/// How a resource looks in the document; the resource itself writes its envelope by hand.
pub(crate) struct ResourceSchema;

impl PartialSchema for ResourceSchema {
    fn schema() -> RefOr<Schema> {
        let any = OneOfBuilder::new().description(Some("A resource of any kind, told apart by `kind`."));
        let kinds = Kind::ALL.map(|kind| reference(&format!("{kind}Resource")));
        Schema::from(kinds.into_iter().fold(any, OneOfBuilder::item).build()).into()
    }
}

impl ToSchema for ResourceSchema {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Resource")
    }
}

/// Schemas with all that they refer to.
#[derive(Default)]
struct Schemas(BTreeMap<String, RefOr<Schema>>);

impl Schemas {
    fn with<T: ToSchema>(mut self) -> Self {
        let mut referred = Vec::new();
        T::schemas(&mut referred);
        self.0.extend(referred);
        self.0.insert(T::name().into_owned(), T::schema());
        self
    }
}

fn list_of(name: &str) -> Schema {
    ArrayBuilder::new().items(reference(name)).build().into()
}

fn any_document() -> Schema {
    let document = ObjectBuilder::new().description(Some("An OpenAPI document."));
    document.build().into()
}

/// What bodies are made of.
fn schemas() -> Schemas {
    Schemas::default()
        .with::<ResourceSchema>()
        .with::<Metadata>()
        .with::<TenantSpec>()
        .with::<PolicySpec>()
        .with::<PolicyTest>()
        .with::<PolicyAnswer>()
        .with::<PolicySchema>()
        .with::<IssuerSpec>()
        .with::<IssuerKeysView>()
        .with::<KeyUse>()
        .with::<KeyUseList>()
        .with::<ApiKeySpec>()
        .with::<ClientCertificateSpec>()
        .with::<ModelSpec>()
        .with::<ModelVersionSpec>()
        .with::<EndpointSpec>()
        .with::<AdminTokenSpec>()
        .with::<ArtifactRef>()
        .with::<ErrorBody>()
        .with::<LoginBody>()
        .with::<SessionView>()
        .with::<SignInView>()
        .with::<SignedOutView>()
        .with::<ResourceList>()
        .with::<ApplyBody>()
        .with::<ApplyResults>()
        .with::<NewKeyBody>()
        .with::<NewKey>()
        .with::<NewTokenBody>()
        .with::<NewToken>()
        .with::<PublishBody>()
        .with::<WarmBody>()
        .with::<Warmed>()
        .with::<TrialBody>()
        .with::<Trials>()
        .with::<Purged>()
        .with::<AuditList>()
        .with::<AuditVerdict>()
        .with::<AuditPart>()
        .with::<Overview>()
        .with::<DeviceDetail>()
        .with::<DoorView>()
        .with::<GraphView>()
        .with::<UsageView>()
        .with::<UsageList>()
        .with::<SubjectUsageList>()
}

fn components() -> ComponentsBuilder {
    let mut components = ComponentsBuilder::new();
    for kind in Kind::ALL {
        components = components.schema(format!("{kind}Resource"), resource_schema(kind));
    }
    components
        .schemas_from_iter(schemas().0)
        .schema("DeviceList", list_of("DeviceDetail"))
        .schema("DoorList", list_of("DoorView"))
        .schema("OpenApiDocument", any_document())
        .security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)))
        .security_scheme(
            "session",
            SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(COOKIE))),
        )
}

/// The document.
pub fn document() -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut entries = entries();
    while let Some(first) = entries.first() {
        let path = first.path.clone();
        let (same, rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.path == path);
        entries = rest;
        let operations = same
            .iter()
            .map(|entry| (entry.method.clone(), operation(entry).build()));
        let mut item = PathItem::default();
        for (method, operation) in operations {
            item.merge_operations(PathItem::new(method, operation));
        }
        paths = paths.path(path, item);
    }
    let info = InfoBuilder::new()
        .title("mesh admin API")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("Tenants, credentials, models, endpoints, and how they are doing."));
    let either = ["token", "session"].map(|scheme| SecurityRequirement::new(scheme, std::iter::empty::<String>()));
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([ServerBuilder::new().url(ROOT).build()]))
        .security(Some(either))
        .components(Some(components().build()))
        .paths(paths)
        .build()
}

#[cfg(test)]
#[path = "openapi_tests.rs"]
mod tests;
