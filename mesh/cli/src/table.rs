//! Tables for people: one row per resource, the columns of its kind.

use comfy_table::{ContentArrangement, Table, presets};
use mesh_resources::{
    ApiKeySpec, ClientCertificateSpec, Kind, ModelSpec, ModelVersionSpec, Resource, Spec, TenantSpec,
};

use crate::key_uses::Uses;

/// How much of a digest tells files apart for a person.
const SHOWN_DIGEST: usize = 12;

/// An empty table with these columns, as wide as it needs to be.
pub(crate) fn new(columns: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(columns.iter().map(|column| column.to_uppercase()));
    table
}

/// The table's text, without blanks at the ends of lines.
pub(crate) fn text(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// All resources of one kind; of keys, with when they were last used.
pub(crate) fn resources(kind: Kind, resources: &[Resource], uses: &Uses) -> String {
    let mut table = new(columns(kind));
    for resource in resources {
        table.add_row(row(resource, uses));
    }
    text(&table)
}

fn columns(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Tenant => &["name", "weight", "requests/s", "concurrency", "state", "revision"],
        Kind::Issuer => &["name", "issuer", "audiences", "keys", "revision"],
        Kind::ApiKey => &[
            "tenant",
            "key",
            "scopes",
            "expires",
            "state",
            "last used",
            "description",
        ],
        Kind::ClientCertificate => &["tenant", "name", "certificate", "scopes", "expires", "state"],
        Kind::Model => &["tenant", "name", "default", "labels", "granted to", "revision"],
        Kind::ModelVersion => &["tenant", "model", "version", "format", "bytes", "sha256", "load"],
        Kind::Endpoint => &["tenant", "name", "arms", "sticky by", "revision"],
        Kind::AdminToken => &["name", "role", "bound to", "groups", "expires", "revision"],
        Kind::Policy => &["name", "bytes", "description", "revision"],
    }
}

fn optional(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn joined(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<_> = items.into_iter().collect();
    optional((!items.is_empty()).then(|| items.join(", ")))
}

fn json_text(value: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(value).unwrap_or_default();
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

fn row(resource: &Resource, uses: &Uses) -> Vec<String> {
    let (name, revision) = (resource.metadata.name.clone(), optional(resource.metadata.revision));
    let mut cells = match &resource.spec {
        Spec::Tenant(spec) => tenant(name, spec),
        Spec::Issuer(spec) => {
            let audiences = joined(spec.audiences.iter().cloned());
            let keys = spec
                .jwks
                .as_ref()
                .map_or_else(|| spec.keys.len().to_string(), |_| "fetched".to_owned());
            vec![name, spec.issuer.clone(), audiences, keys]
        }
        Spec::ApiKey(spec) => {
            let used = uses.told(resource);
            return namespaced(resource, api_key(name, spec, used));
        }
        Spec::ClientCertificate(spec) => return namespaced(resource, certificate(name, spec)),
        Spec::Model(spec) => model(name, spec),
        Spec::ModelVersion(spec) => return namespaced(resource, version(&name, spec)),
        Spec::Endpoint(spec) => {
            let arms = spec.arms.iter().map(|arm| {
                let version = arm.version.as_ref().map(|version| format!("@{version}"));
                format!(
                    "{}: {}{} {}%",
                    arm.name,
                    arm.model,
                    version.unwrap_or_default(),
                    arm.weight
                )
            });
            vec![name, joined(arms), optional(spec.sticky_by.as_ref())]
        }
        Spec::AdminToken(spec) => {
            let groups = joined(spec.groups.iter().cloned());
            let (role, tenant) = (json_text(&spec.role), optional(spec.tenant.as_ref()));
            vec![name, role, tenant, groups, optional(spec.expires)]
        }
        Spec::Policy(spec) => {
            let bytes = spec.cedar.len().to_string();
            vec![name, bytes, optional(spec.description.as_ref())]
        }
    };
    cells.push(revision);
    namespaced(resource, cells)
}

/// The tenant's column in front, for kinds that have one.
fn namespaced(resource: &Resource, mut cells: Vec<String>) -> Vec<String> {
    if resource.kind().is_namespaced() {
        cells.insert(0, optional(resource.metadata.tenant.as_ref()));
    }
    cells
}

fn tenant(name: String, spec: &TenantSpec) -> Vec<String> {
    let rate = spec.limits.requests;
    let rate = optional(rate.map(|rate| format!("{} (burst {})", rate.per_second, rate.burst)));
    let state = if spec.suspended { "suspended" } else { "active" };
    vec![
        name,
        spec.weight.to_string(),
        rate,
        optional(spec.limits.concurrency),
        state.into(),
    ]
}

fn certificate(name: String, spec: &ClientCertificateSpec) -> Vec<String> {
    vec![
        name,
        spec.identity.to_string(),
        joined(spec.scopes.iter().map(json_text)),
        optional(spec.expires),
        if spec.revoked { "revoked" } else { "active" }.into(),
    ]
}

fn api_key(name: String, spec: &ApiKeySpec, used: String) -> Vec<String> {
    let state = if spec.revoked { "revoked" } else { "active" };
    let scopes = joined(spec.scopes.iter().map(json_text));
    vec![
        name,
        scopes,
        optional(spec.expires),
        state.into(),
        used,
        optional(spec.description.as_ref()),
    ]
}

fn model(name: String, spec: &ModelSpec) -> Vec<String> {
    let default = spec.default_version.as_ref();
    let default = default.map_or_else(|| "highest ready".into(), ToString::to_string);
    let labels = joined(spec.labels.iter().map(|(label, version)| format!("{label}={version}")));
    vec![
        name,
        default,
        labels,
        joined(spec.grants.iter().map(ToString::to_string)),
    ]
}

fn version(name: &str, spec: &ModelVersionSpec) -> Vec<String> {
    let (model, number) = name.split_once('/').unwrap_or((name, ""));
    let artifact = spec.artifact.as_ref();
    let sha256 = artifact.map(|artifact| artifact.sha256.chars().take(SHOWN_DIGEST).collect::<String>());
    let load = if spec.unloaded { "off" } else { "on" };
    let bytes = optional(artifact.map(|artifact| artifact.bytes));
    vec![
        model.into(),
        number.into(),
        json_text(&spec.format),
        bytes,
        optional(sha256),
        load.into(),
    ]
}
