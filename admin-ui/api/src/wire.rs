//! The bodies of requests and answers that are not resources themselves.

use jiff::Timestamp;
use mesh_policies::PublicKey;
use mesh_registry::{ExportHeader, ExportItem};
use mesh_resources::{AdminRole, LimitsSpec, ModelVersionSpec, Resource, Scope, VersionRef};
use mesh_types::{DeviceId, KeyId, Label, TenantId, Version};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::openapi::ResourceSchema;

/// A token, to sign in with.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginBody {
    /// The admin token.
    pub(crate) token: String,
}

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionView {
    /// The token's name.
    pub(crate) who: String,
    /// What it may do.
    pub(crate) role: AdminRole,
    /// The tenant that it is bound to; null: none.
    #[schema(value_type = Option<String>)]
    pub(crate) tenant: Option<TenantId>,
}

/// Some of the resources, in the order of their keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ResourceList {
    /// The resources.
    #[schema(value_type = Vec<ResourceSchema>)]
    pub(crate) items: Vec<Resource>,
    /// The cursor of what comes next; null at the end.
    pub(crate) next: Option<String>,
}

/// Resources to write, all or none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApplyBody {
    /// The resources; at most 256.
    #[schema(value_type = Vec<ResourceSchema>)]
    pub(crate) resources: Vec<Value>,
}

/// What a write did or would do.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApplyResults {
    /// One for each resource, in their order.
    pub(crate) results: Vec<ApplyResult>,
}

/// What became of a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Action {
    /// It is new.
    Created,
    /// It says something else now.
    Changed,
    /// It says what it said.
    Unchanged,
}

/// What a write did or would do to one resource.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApplyResult {
    /// Which, such as `Endpoint/acme/digits`.
    pub(crate) key: String,
    /// What happened or would happen.
    pub(crate) action: Action,
    /// Its revision; null for what would be created.
    pub(crate) revision: Option<u64>,
    /// What it said; null if it is new.
    #[schema(value_type = Option<ResourceSchema>)]
    pub(crate) before: Option<Resource>,
    /// What it says.
    #[schema(value_type = ResourceSchema)]
    pub(crate) after: Resource,
}

/// A key to make.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NewKeyBody {
    /// The key's public half; drawn if absent.
    #[schema(value_type = Option<String>)]
    pub(crate) name: Option<KeyId>,
    /// For people.
    pub(crate) description: Option<String>,
    /// When it ends; absent: never.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) expires: Option<Timestamp>,
    /// What it may be used for; absent: calling models and endpoints.
    pub(crate) scopes: Option<Vec<Scope>>,
    /// The tenant's groups that it is in.
    pub(crate) groups: Vec<String>,
    /// What its callers may use together; absent: no more than the tenant may.
    pub(crate) limits: Option<LimitsSpec>,
}

/// A key just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewKey {
    /// All of it; shown this once and never again.
    pub(crate) key: String,
    /// What is kept of it.
    #[schema(value_type = ResourceSchema)]
    pub(crate) resource: Resource,
}

/// Which version to bring into memory.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WarmBody {
    /// Its number or a label; absent: the model's default, or the newest that is not kept off the devices.
    pub(crate) version: Option<VersionRef>,
}

/// A version that is in memory.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Warmed {
    /// Its number.
    #[schema(value_type = u32)]
    pub(crate) version: Version,
    /// Where.
    #[schema(value_type = Vec<String>)]
    pub(crate) devices: Vec<DeviceId>,
}

/// An admin token to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTokenBody {
    /// The token's name, by which the audit trail says who made a change; drawn if absent.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) name: Option<KeyId>,
    /// What it may do.
    pub(crate) role: AdminRole,
    /// The tenant that it is bound to; absent: the whole mesh.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub(crate) tenant: Option<TenantId>,
    /// The groups that its holder is in.
    #[serde(default)]
    pub(crate) groups: Vec<String>,
    /// When it ends; absent: never.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) expires: Option<Timestamp>,
}

/// An admin token just made.
#[derive(Serialize, ToSchema)]
pub(crate) struct NewToken {
    /// All of it; shown this once and never again.
    pub(crate) token: String,
    /// What is kept of it.
    #[schema(value_type = ResourceSchema)]
    pub(crate) resource: Resource,
}

/// A version to publish.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PublishBody {
    /// What it is.
    pub(crate) spec: ModelVersionSpec,
    /// Labels that point to it from now on.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub(crate) labels: Vec<Label>,
}

/// Inputs to try out, as in an inference request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TrialBody {
    /// Tensors of the Open Inference Protocol: name, datatype, shape, data.
    #[schema(value_type = Vec<Object>)]
    pub(crate) inputs: Vec<Value>,
}

/// What each arm answered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Trials {
    /// One for each arm, in their order.
    pub(crate) arms: Vec<Trial>,
}

/// What one arm answered: a response or an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Trial {
    /// The arm.
    pub(crate) arm: String,
    /// The version that was asked; null if there is none.
    pub(crate) version: Option<u32>,
    /// The response of the Open Inference Protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(crate) response: Option<Value>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// How long it took.
    pub(crate) milliseconds: f64,
}

/// Part of the trail of changes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditList {
    /// The changes, oldest first.
    pub(crate) items: Vec<AuditView>,
    /// What to ask for `after` to get the next; null at the end.
    pub(crate) next: Option<u64>,
    /// The newest change of all, for who wants to begin there.
    pub(crate) latest: u64,
    /// Where history begins: the oldest change that is still kept. What came before it is in the resources as they are, and
    /// in backups, but no longer in the trail.
    pub(crate) begins: u64,
}

/// One write of the trail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditView {
    /// The revision it made.
    pub(crate) revision: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub(crate) time: Timestamp,
    /// The token that made it.
    pub(crate) who: String,
    /// Through what: `ui`, `cli`, `api` or `mesh`.
    pub(crate) source: String,
    /// The request's number.
    pub(crate) request: Option<String>,
    /// The address that the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    /// What was changed.
    pub(crate) changes: Vec<AuditChange>,
    /// What happened where nothing was changed, such as `backup`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) event: Option<String>,
    /// Where the entry is a signature of all before it: by which key.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub(crate) signed_by: Option<PublicKey>,
    /// The entry's place in the chain of hashes.
    pub(crate) hash: String,
}

/// One resource of a write.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditChange {
    /// Which, such as `Endpoint/acme/digits`.
    pub(crate) key: String,
    /// `created`, `changed` or `deleted`.
    pub(crate) action: &'static str,
    /// SHA-256 of its record before; null if it was not there.
    pub(crate) before: Option<String>,
    /// SHA-256 of its record after; null if it was deleted.
    pub(crate) after: Option<String>,
}

/// Whether the chain of hashes holds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditVerdict {
    /// Whether it does.
    pub(crate) valid: bool,
    /// How many writes were looked at; 0 if something is wrong.
    pub(crate) entries: u64,
    /// The oldest change that is still kept; what came before it is only vouched for by a signed snapshot.
    pub(crate) begins: Option<u64>,
    /// The hash of all of them. Kept elsewhere, it proves later that nothing before it was changed.
    pub(crate) head: Option<String>,
    /// How many signatures are among them.
    pub(crate) heads: u64,
    /// The last revision that a signature is of; null: nothing is signed yet.
    pub(crate) signed: Option<u64>,
    /// The key that the signatures were checked with. Keep it elsewhere: with it alone, anybody can check an export.
    #[schema(value_type = Option<String>)]
    pub(crate) public_key: Option<PublicKey>,
    /// What is wrong, if something is: it names the first entry that does not hold.
    pub(crate) problem: Option<String>,
}

/// A part of the trail in a form that others can check.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditPart {
    /// What the first item follows: the first line of an export.
    #[schema(value_type = Object)]
    pub(crate) header: ExportHeader,
    /// The entries, the oldest first, none left out: each with its `revision` and `time`, whether it `signs` what is before
    /// it, and its `line` of an export: `hash`, which is SHA-256 of the hash before it, as 32 bytes, and of the very bytes of
    /// `entry`.
    #[schema(value_type = Vec<Object>)]
    pub(crate) items: Vec<ExportItem>,
    /// What to ask for `after` to get the next; null at the end.
    pub(crate) next: Option<u64>,
}
