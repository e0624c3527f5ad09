//! "May X do Y to Z, and why": policies tried out, those that are declared and those that are not yet.
//!
//! Owns the question as it is written, `Key/acme/ci`, `model:infer`, `Model/acme/digits`, and the answer in words. Decides nothing:
//! the answer is the judge's, the same that the doors ask.

use actix_web::{
    HttpResponse,
    web::{self, Json},
};
use mesh_authz::{Holder, Policies, Thing};
use mesh_policies::{
    Scopes,
    authorization::{Action, Because, Deciding, ObjectKind, SubjectKind, Verdict, decide},
};
use mesh_resources::{AdminRole, Kind, Problem, ResourceKey, Spec};
use mesh_types::TenantId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    AdminState,
    authz::Needs,
    entry::Entry,
    error::ApiError,
    routes::{Answer, State},
};

/// The most policies that one test brings along.
pub(crate) const MAX_DRAFTS: usize = 64;

/// A policy that is tried out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyDraft {
    /// Its name; one that is declared under it is left out.
    name: String,
    /// Its statements.
    cedar: String,
}

/// May X do Y to Z?
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PolicyTest {
    /// X: `Key/TENANT/NAME`, `Certificate/TENANT/NAME`, `User/TENANT/SUB` (with `issuer`) or `Admin/NAME`. A key, a
    /// certificate and an admin token that are there have the groups and the role that they have; of others, and of users, the question says.
    principal: String,
    /// Who says who a user is: the exact `iss` of its tokens.
    #[serde(default)]
    issuer: String,
    /// The groups of a principal that is no record.
    #[serde(default)]
    groups: Vec<String>,
    /// The role of an admin token that is not there.
    #[serde(default)]
    role: Option<AdminRole>,
    /// Y: an action, such as `model:infer`.
    action: String,
    /// Z: `Mesh`, `Tenant/NAME`, `Model/TENANT/NAME`, `Endpoint/TENANT/NAME`, `Key/TENANT/NAME`,
    /// `Certificate/TENANT/NAME`, `Issuer/NAME`, `Admin/NAME`, `Policy/NAME` or `Device/NAME`.
    resource: String,
    /// Policies to try beside those that are declared, and in the place of those of the same name.
    #[serde(default)]
    policies: Vec<PolicyDraft>,
}

/// A statement that decided.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DecidedBy {
    /// The policy's name; `builtin:..` are those that hold without any other.
    policy: String,
    /// Which of its statements, from 1.
    statement: usize,
    /// On which line of the policy's text it begins.
    line: usize,
    /// `permit` or `forbid`.
    effect: &'static str,
}

impl From<Deciding> for DecidedBy {
    fn from(deciding: Deciding) -> Self {
        Self {
            policy: deciding.policy.to_string(),
            statement: deciding.statement,
            line: deciding.line,
            effect: deciding.effect.as_str(),
        }
    }
}

/// Whether X may do Y to Z, and why.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PolicyAnswer {
    /// Whether it may.
    allowed: bool,
    /// Why, in words.
    reason: String,
    /// The statements that decided; none where nothing permits it or it would reach across tenants.
    decided_by: Vec<DecidedBy>,
    /// X, as policies call it.
    principal: String,
    /// Whether X is a record of the mesh; a user never is.
    principal_known: bool,
    /// Y.
    action: &'static str,
    /// Z, as policies call it.
    resource: String,
}

/// One action of the table.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActionView {
    /// Its name.
    name: &'static str,
    /// What it is.
    about: &'static str,
    /// What it can be done to.
    resources: Vec<&'static str>,
    /// The least role that may do it without any policy; null: a tenant's callers, by their scope.
    role: Option<&'static str>,
}

/// What policies can speak of.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PolicySchema {
    /// Cedar's schema that every policy is checked against.
    schema: &'static str,
    /// The policies that hold without any other.
    builtin: &'static str,
    /// Every action.
    actions: Vec<ActionView>,
}

/// Answers with the schema, the built-in policies and the table of actions.
fn schema() -> HttpResponse {
    let view = |action: &Action| ActionView {
        name: action.as_str(),
        about: action.about(),
        resources: action.objects().iter().map(|kind| kind.as_str()).collect(),
        role: action.least_role().map(mesh_policies::authorization::Role::as_str),
    };
    HttpResponse::Ok().json(PolicySchema {
        schema: mesh_authz::SCHEMA,
        builtin: mesh_authz::BUILTIN,
        actions: Action::ALL.iter().map(view).collect(),
    })
}

fn bad(field: &str, text: &str, right: &str) -> ApiError {
    let shown: String = text.chars().take(200).collect();
    ApiError::problem(field, format!("'{shown}' cannot be read: write {right}"))
}

fn tenant(field: &str, text: &str) -> Result<TenantId, ApiError> {
    TenantId::parse(text).map_err(|error| ApiError::problem(field, error.to_string()))
}

/// X as the question says it, where it is no record.
fn said(test: &PolicyTest, kind: SubjectKind, tenant: Option<TenantId>, name: &str) -> Holder {
    let is_admin = kind == SubjectKind::Admin;
    Holder {
        kind,
        tenant,
        name: name.to_owned(),
        issuer: test.issuer.clone(),
        groups: test.groups.iter().map(|group| group.as_str().into()).collect(),
        scopes: Scopes::from_iter((!is_admin).then_some(mesh_policies::Scope::Infer)),
        role: test.role.filter(|_| is_admin).map(mesh_authz::role),
    }
}

/// X, and whether it is a record.
fn holder(state: &AdminState, test: &PolicyTest) -> Result<(Holder, bool), ApiError> {
    let right = "Key/TENANT/NAME, Certificate/TENANT/NAME, User/TENANT/SUB or Admin/NAME";
    let unreadable = || bad("principal", &test.principal, right);
    let (kind, rest) = test.principal.split_once('/').ok_or_else(unreadable)?;
    let of_tenant = || -> Result<(TenantId, &str), ApiError> {
        let (of, name) = rest.split_once('/').ok_or_else(unreadable)?;
        Ok((tenant("principal", of)?, name))
    };
    let registry = &state.inner.parts.registry;
    match kind.to_ascii_lowercase().as_str() {
        "admin" => {
            let key = ResourceKey::new(Kind::AdminToken, None, rest)?;
            match registry.get(&key)?.map(|found| found.spec) {
                Some(Spec::AdminToken(spec)) => Ok((Holder::of_token(rest, &spec), true)),
                _ => Ok((said(test, SubjectKind::Admin, None, rest), false)),
            }
        }
        "user" => {
            let (of, name) = of_tenant()?;
            if test.issuer.is_empty() || name.is_empty() {
                return Err(ApiError::problem(
                    "issuer",
                    "a user is known with its issuer: say the iss of its tokens",
                ));
            }
            Ok((said(test, SubjectKind::User, Some(of), name), false))
        }
        "key" => {
            let (of, name) = of_tenant()?;
            let key = ResourceKey::new(Kind::ApiKey, Some(of.clone()), name)?;
            match registry.get(&key)?.map(|found| found.spec) {
                Some(Spec::ApiKey(spec)) => Ok((Holder::of_key(&of, name, &spec), true)),
                _ => Ok((said(test, SubjectKind::Key, Some(of), name), false)),
            }
        }
        "certificate" => {
            let (of, name) = of_tenant()?;
            let key = ResourceKey::new(Kind::ClientCertificate, Some(of.clone()), name)?;
            match registry.get(&key)?.map(|found| found.spec) {
                Some(Spec::ClientCertificate(spec)) => Ok((Holder::of_certificate(&of, name, &spec), true)),
                _ => Ok((said(test, SubjectKind::Certificate, Some(of), name), false)),
            }
        }
        _ => Err(unreadable()),
    }
}

/// Z.
fn thing(state: &AdminState, text: &str) -> Result<Thing, ApiError> {
    let right = "Mesh, Tenant/NAME, Model/TENANT/NAME, Endpoint/TENANT/NAME, Key/TENANT/NAME, Certificate/TENANT/NAME, \
                 Issuer/NAME, Admin/NAME, Policy/NAME or Device/NAME";
    let unreadable = || bad("resource", text, right);
    let (kind, rest) = text.split_once('/').unwrap_or((text, ""));
    let kind = match ObjectKind::parse(kind).ok_or_else(unreadable)? {
        ObjectKind::Mesh => return Ok(Thing::mesh()),
        ObjectKind::Device if !rest.is_empty() => return Ok(Thing::new(ObjectKind::Device, None, rest)),
        ObjectKind::Device => return Err(unreadable()),
        ObjectKind::Tenant => Kind::Tenant,
        ObjectKind::Key => Kind::ApiKey,
        ObjectKind::Certificate => Kind::ClientCertificate,
        ObjectKind::Issuer => Kind::Issuer,
        ObjectKind::Model => Kind::Model,
        ObjectKind::Endpoint => Kind::Endpoint,
        ObjectKind::Admin => Kind::AdminToken,
        ObjectKind::Policy => Kind::Policy,
    };
    let (of, name) = match kind.is_namespaced() {
        true => rest.split_once('/').ok_or_else(unreadable)?,
        false => ("", rest),
    };
    let of = kind.is_namespaced().then(|| tenant("resource", of)).transpose()?;
    state.thing(&ResourceKey::new(kind, of, name)?)
}

/// The declared policies with the drafts laid over them.
fn judge(state: &AdminState, drafts: &[PolicyDraft]) -> Result<Policies, ApiError> {
    if drafts.len() > MAX_DRAFTS {
        let text = format!("{} policies; at most {MAX_DRAFTS} are tried at once", drafts.len());
        return Err(ApiError::problem("policies", text));
    }
    let mut problems = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        if let Err(error) = mesh_types::KeyId::parse(&draft.name) {
            problems.push(Problem::new(format!("policies[{index}].name"), error.to_string()));
        }
        for problem in mesh_authz::check(&draft.cedar).err().into_iter().flatten() {
            problems.push(Problem::new(format!("policies[{index}].cedar"), problem.to_string()));
        }
    }
    if !problems.is_empty() {
        return Err(ApiError::problems(problems));
    }
    let mut texts = state.policy_texts()?;
    texts.extend(drafts.iter().map(|draft| (draft.name.clone(), draft.cedar.clone())));
    let texts = texts.iter().map(|(name, text)| (name.as_str(), text.as_str()));
    Policies::compile(texts).map_err(|error| ApiError::problem("policies", error.to_string()))
}

fn reason(verdict: &Verdict) -> String {
    match &verdict.because {
        Because::OtherTenant => {
            "it is not the principal's own tenant's, and nothing that is written in a policy reaches across tenants"
                .to_owned()
        }
        Because::NothingPermits => "no policy permits it, and what none permits is denied".to_owned(),
        Because::Failed(error) => format!("a policy cannot be evaluated, so it is denied: {error}"),
        Because::Policies(deciding) => {
            let name = |one: &Deciding| format!("{} (statement {}, line {})", one.policy, one.statement, one.line);
            let names: Vec<String> = deciding.iter().map(name).collect();
            let verb = if verdict.allowed { "permitted" } else { "forbidden" };
            format!("{verb} by {}", names.join(", "))
        }
    }
}

/// Answers a question.
fn test(state: &AdminState, test: &PolicyTest) -> Result<HttpResponse, ApiError> {
    let (holder, principal_known) = holder(state, test)?;
    let action = Action::parse(&test.action);
    let action = action.ok_or_else(|| bad("action", &test.action, "one that GET /admin/v1/policy-schema lists"))?;
    let thing = thing(state, &test.resource)?;
    if !action.objects().contains(&thing.kind) {
        let kinds: Vec<&str> = action.objects().iter().map(|kind| kind.as_str()).collect();
        let text = format!(
            "{action} is done to {}, not to {}",
            kinds.join(" or "),
            thing.kind.as_str()
        );
        return Err(ApiError::problem("resource", text));
    }
    let policies = judge(state, &test.policies)?;
    let (subject, object) = (holder.subject(), thing.object());
    let verdict = decide(&policies, &subject, action, &object);
    let reason = reason(&verdict);
    let decided_by = match verdict.because {
        Because::Policies(deciding) => deciding.into_iter().map(DecidedBy::from).collect(),
        _ => Vec::new(),
    };
    Ok(HttpResponse::Ok().json(PolicyAnswer {
        allowed: verdict.allowed,
        reason,
        decided_by,
        principal: policies.name_of_subject(&subject),
        principal_known,
        action: action.as_str(),
        resource: policies.name_of_object(&object),
    }))
}

async fn post_test(state: State, body: Json<PolicyTest>) -> Answer {
    test(&state, &body)
}

async fn get_schema() -> HttpResponse {
    schema()
}

/// The routes of questions about policies.
pub(crate) fn routes() -> [Entry; 2] {
    let about = "Says whether somebody may do something to something, and which policies decide; also with policies that are \
                 not written yet.";
    let schema = "What policies can speak of, and what holds without any.";
    [
        Entry::post("/policy-test", "testPolicy", about, web::post().to(post_test))
            .takes("PolicyTest")
            .takes_right(Action::PolicyRead, ObjectKind::Mesh)
            .answers("PolicyAnswer"),
        Entry::get("/policy-schema", "getPolicySchema", schema, web::get().to(get_schema))
            .needs(Needs::Nothing)
            .answers("PolicySchema"),
    ]
}
