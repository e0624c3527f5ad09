//! Authorization: who may do what to what, once it is known who calls.
//!
//! Owns the table of actions ([`Action`]), the question ([`Subject`], [`Action`], [`Object`]) and its answer ([`Verdict`]), the
//! rule that nobody reaches across tenants ([`crosses_tenants`]), and the memory of what callers may call
//! ([`Authorization`]). Does not evaluate policies: that is a [`Judge`]'s, and the one that there is, Cedar's, lives in a crate of
//! its own, so that a change here does not build it again.
//!
//! Invariants: the rule across tenants is asked first and no judge can lift it; what no policy permits is denied; a remembered
//! answer is what the judge would say, because it is forgotten with the records that it follows from.

mod action;
mod decisions;

use std::{borrow::Borrow, fmt, sync::Arc, time::Duration};

use mesh_types::TenantId;

use self::decisions::Decisions;
pub use self::{
    action::{Action, ObjectKind, Role},
    decisions::MAX_DECISIONS,
};
use crate::{
    access::{Principal, Scope, Scopes},
    snapshot::{Target, TenantEntry},
};

/// What kind of caller it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    /// A tenant's API key.
    Key,
    /// A tenant's caller that is known by the certificate of its connection.
    Certificate,
    /// A tenant's user or service, known by a token of an issuer.
    User,
    /// Somebody with an admin token.
    Admin,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// What kind of caller.
    pub kind: SubjectKind,
    /// To which tenant it belongs; none: to the mesh.
    pub tenant: Option<&'a TenantId>,
    /// Its name: the key's, the token's `sub`, the admin token's.
    pub name: &'a str,
    /// Who says so, of a user.
    pub issuer: &'a str,
    /// The groups that it is in.
    pub groups: &'a [Arc<str>],
    /// What its credential may be used for, of a tenant's caller.
    pub scopes: Scopes,
    /// What its token makes of it, of an admin.
    pub role: Option<Role>,
}

impl<'a> Subject<'a> {
    /// A tenant's caller.
    pub fn of(principal: &'a Principal) -> Self {
        let (kind, issuer) = match principal.credential.split_once(':') {
            Some(("key", _)) => (SubjectKind::Key, ""),
            Some(("cert", _)) => (SubjectKind::Certificate, ""),
            Some((_, issuer)) => (SubjectKind::User, issuer),
            None => (SubjectKind::User, &*principal.credential),
        };
        Self {
            kind,
            tenant: Some(&principal.tenant),
            name: &principal.subject,
            issuer,
            groups: &principal.groups,
            scopes: principal.scopes,
            role: None,
        }
    }
}

/// What something is to be done to.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// What kind of thing.
    pub kind: ObjectKind,
    /// Whose it is; none: the mesh's.
    pub tenant: Option<&'a TenantId>,
    /// Its name; empty for the mesh.
    pub name: &'a str,
    /// To which other tenants it is granted, of a model.
    pub granted: Granted<'a>,
}

impl<'a> Object<'a> {
    /// The mesh as a whole.
    pub const MESH: Self = Self {
        kind: ObjectKind::Mesh,
        tenant: None,
        name: "",
        granted: Granted::None,
    };

    /// A thing of this name.
    pub const fn new(kind: ObjectKind, tenant: Option<&'a TenantId>, name: &'a str) -> Self {
        Self {
            kind,
            tenant,
            name,
            granted: Granted::None,
        }
    }

    /// A tenant itself.
    pub fn tenant(tenant: &'a TenantId) -> Self {
        Self::new(ObjectKind::Tenant, Some(tenant), tenant.as_str())
    }

    /// What a name of a tenant's leads to.
    fn target(tenant: &'a TenantEntry, target: &'a Target) -> Self {
        match target {
            Target::Endpoint(route) => Self::new(ObjectKind::Endpoint, Some(&tenant.id), route.endpoint.as_str()),
            Target::Model(model) => Self {
                granted: Granted::To(&model.grants),
                ..Self::new(ObjectKind::Model, Some(&model.owner), model.model.as_str())
            },
        }
    }
}

impl fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.tenant) {
            (ObjectKind::Mesh, _) => f.write_str("the mesh"),
            (ObjectKind::Tenant, _) | (_, None) => write!(f, "{}/{}", self.kind.as_str(), self.name),
            (kind, Some(tenant)) => write!(f, "{}/{tenant}/{}", kind.as_str(), self.name),
        }
    }
}

/// To whom a model is granted besides its owner.
#[derive(Debug, Clone, Copy)]
pub enum Granted<'a> {
    /// To nobody.
    None,
    /// To these.
    To(&'a std::collections::BTreeSet<TenantId>),
}

impl<'a> Granted<'a> {
    /// Whether this tenant is among them.
    pub fn contains(self, tenant: &TenantId) -> bool {
        match self {
            Self::None => false,
            Self::To(tenants) => tenants.contains::<str>(tenant.borrow()),
        }
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = &'a TenantId> {
        let tenants = match self {
            Self::None => None,
            Self::To(tenants) => Some(tenants),
        };
        tenants.into_iter().flatten()
    }
}

/// Whether this would reach across tenants. Who belongs to a tenant reaches what is that tenant's, and calls what is granted to
/// it; nothing of another tenant's and nothing of the mesh's. No policy can lift this: it is asked before any.
pub fn crosses_tenants(subject: &Subject<'_>, action: Action, object: &Object<'_>) -> bool {
    let Some(own) = subject.tenant else {
        return false;
    };
    let granted = || action == Action::Infer && object.granted.contains(own);
    object.tenant != Some(own) && !granted()
}

/// Whether a policy permits or forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It lets in.
    Permit,
    /// It keeps out, whatever others permit.
    Forbid,
}

impl Effect {
    /// The word in policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Forbid => "forbid",
        }
    }
}

/// A statement of a policy that decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deciding {
    /// The policy's name.
    pub policy: Arc<str>,
    /// Which of its statements, from 1.
    pub statement: usize,
    /// The line of the policy's text on which that begins, from 1.
    pub line: usize,
    /// What it does.
    pub effect: Effect,
}

/// Why an answer is what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Because {
    /// It would reach across tenants.
    OtherTenant,
    /// No policy permits it.
    NothingPermits,
    /// These decided.
    Policies(Vec<Deciding>),
    /// A policy could not be evaluated, so nothing is certain: it is denied.
    Failed(String),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may be done.
    pub allowed: bool,
    /// Why.
    pub because: Because,
}

impl Verdict {
    /// No.
    pub const fn denied(because: Because) -> Self {
        Self {
            allowed: false,
            because,
        }
    }
}

/// Evaluates policies. Must not block.
pub trait Judge: fmt::Debug + Send + Sync + 'static {
    /// What the policies say; the rule across tenants has been asked before.
    fn judge(&self, subject: &Subject<'_>, action: Action, object: &Object<'_>) -> Verdict;

    /// How long an answer to a tenant's caller takes at most: no refusal that must not tell whether one was asked for is answered before.
    fn longest(&self) -> Duration {
        Duration::ZERO
    }
}

/// Whether it may be done, and why: the rule across tenants, then the policies.
pub fn decide(judge: &dyn Judge, subject: &Subject<'_>, action: Action, object: &Object<'_>) -> Verdict {
    if crosses_tenants(subject, action, object) {
        return Verdict::denied(Because::OtherTenant);
    }
    judge.judge(subject, action, object)
}

/// A judge that lets nobody do anything: what stands in where declared policies cannot be read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Judge for Nobody {
    fn judge(&self, _: &Subject<'_>, _: Action, _: &Object<'_>) -> Verdict {
        Verdict::denied(Because::Failed("the policies cannot be read".to_owned()))
    }
}

/// Who may call what, of one set of records. Clones share the memory.
#[derive(Debug, Clone, Default)]
pub struct Authorization(Option<Arc<Ruled>>);

#[derive(Debug)]
struct Ruled {
    judge: Arc<dyn Judge>,
    decisions: Decisions,
}

impl Authorization {
    /// By this judge. Without one (the default) nothing was declared, and the right to infer is all that it takes.
    pub fn by(judge: Arc<dyn Judge>) -> Self {
        Self(Some(Arc::new(Ruled {
            judge,
            decisions: Decisions::default(),
        })))
    }

    /// The judge, if there is one.
    pub fn judge(&self) -> Option<&Arc<dyn Judge>> {
        self.0.as_ref().map(|ruled| &ruled.judge)
    }

    /// How long it may take to find out who may call what; nothing where nobody is asked. See [`Judge::longest`].
    pub fn longest(&self) -> Duration {
        self.judge().map_or(Duration::ZERO, |judge| judge.longest())
    }

    /// Whether the caller may call what `name` leads to.
    pub fn may_call(&self, principal: &Principal, tenant: &TenantEntry, name: &str, target: &Target) -> bool {
        let Some(ruled) = &self.0 else {
            // What the built-in policy says, without asking it.
            let object = Object::target(tenant, target);
            let crosses = crosses_tenants(&Subject::of(principal), Action::Infer, &object);
            return principal.scopes.contains(Scope::Infer) && !crosses;
        };
        if let Some(remembered) = ruled.decisions.get(principal.id, name) {
            return remembered;
        }
        let (subject, object) = (Subject::of(principal), Object::target(tenant, target));
        let verdict = decide(&*ruled.judge, &subject, Action::Infer, &object);
        ruled.decisions.insert(principal.id, name, verdict.allowed);
        verdict.allowed
    }

    /// Whether the caller may do this to a model of this tenant's, also one that is not there yet; not remembered.
    pub fn may(&self, principal: &Principal, action: Action, tenant: &TenantId, name: &str) -> bool {
        let (subject, object) = (
            Subject::of(principal),
            Object::new(ObjectKind::Model, Some(tenant), name),
        );
        match &self.0 {
            Some(ruled) => decide(&*ruled.judge, &subject, action, &object).allowed,
            None => {
                let crosses = crosses_tenants(&subject, action, &object);
                action.least_role().is_none() && principal.scopes.contains(Scope::Infer) && !crosses
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
