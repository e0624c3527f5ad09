//! Whether a caller of the admin door may do what it asks for.
//!
//! Owns the judge as the records are now, so that a policy counts for the very next request, and the check in front of every
//! route. Which action a route takes is said in the table of routes; what depends on the difference that a write makes is asked
//! by its handler, through the same [`Caller::may`]. Evaluates nothing itself.
//!
//! Invariants: a route whose action was not declared is denied; policies that cannot be read leave the mesh to its admins alone.

use std::{collections::BTreeMap, sync::Arc};

use actix_web::{
    HttpMessage as _, ResponseError as _,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    middleware::Next,
    web::Data,
};
use mesh_authz::{CompileError, Policies, Thing};
use mesh_policies::authorization::{Action, Judge, Object, ObjectKind, Role, Subject, Verdict, decide};
use mesh_resources::{Kind, ResourceKey, Spec};
use mesh_types::TenantId;
use parking_lot::Mutex;

use crate::{AdminState, auth::Caller, error::ApiError, resources::MAX_LIMIT};

/// What a route takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// It was not said: nobody may.
    Undeclared,
    /// No right but to have come in, or not even that.
    Nothing,
    /// This, done to what the path names.
    Path(Action, ObjectKind),
    /// This, done to the caller's own tenant, or to the mesh by who belongs to none.
    Home(Action),
    /// What its handler finds out from the request and asks for itself.
    Handler,
}

/// Texts of policies by name.
type Texts = BTreeMap<String, String>;

/// The policies as they were read last.
#[derive(Debug, Default)]
pub(crate) struct Rules(Mutex<Option<Kept>>);

#[derive(Debug, Clone)]
struct Kept {
    revision: u64,
    texts: Arc<Texts>,
    judge: Arc<dyn Judge>,
}

/// What judges where a policy cannot be read: the mesh's admins keep what the built-in policies give them, to mend it.
#[derive(Debug)]
struct Mending(Policies);

impl Judge for Mending {
    fn judge(&self, subject: &Subject<'_>, action: Action, object: &Object<'_>) -> Verdict {
        let verdict = self.0.judge(subject, action, object);
        let of_mesh = subject.role == Some(Role::Admin) && subject.tenant.is_none();
        Verdict {
            allowed: verdict.allowed && of_mesh,
            ..verdict
        }
    }
}

fn compiled(texts: &Texts) -> Result<Arc<dyn Judge>, CompileError> {
    match Policies::compile(texts.iter().map(|(name, text)| (name.as_str(), text.as_str()))) {
        Ok(policies) => Ok(Arc::new(policies)),
        Err(error) => {
            tracing::error!(%error, "the policies cannot be read: only admins of the mesh may administer until they can");
            Ok(Arc::new(Mending(Policies::builtin()?)))
        }
    }
}

impl AdminState {
    /// The declared policies' texts.
    pub(crate) fn policy_texts(&self) -> Result<Texts, ApiError> {
        let (mut texts, mut after) = (Texts::new(), None);
        loop {
            let page = self
                .inner
                .parts
                .registry
                .list(Kind::Policy, None, after.as_ref(), MAX_LIMIT)?;
            for resource in page.items {
                if let Spec::Policy(spec) = resource.spec {
                    texts.insert(resource.metadata.name, spec.cedar);
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(texts);
            }
        }
    }

    fn rules(&self) -> Result<Kept, ApiError> {
        // Read before the texts: what is written meanwhile is read again.
        let revision = *self.inner.parts.registry.revision().borrow();
        let mut kept = self.inner.rules.0.lock();
        if let Some(kept) = kept.as_ref().filter(|kept| kept.revision == revision) {
            return Ok(kept.clone());
        }
        let texts = Arc::new(self.policy_texts()?);
        let same = kept
            .as_ref()
            .filter(|kept| kept.texts == texts)
            .map(|kept| kept.judge.clone());
        let judge = match same {
            Some(judge) => judge,
            None => compiled(&texts).map_err(|error| ApiError::internal(error.to_string()))?,
        };
        let fresh = Kept { revision, texts, judge };
        *kept = Some(fresh.clone());
        Ok(fresh)
    }

    /// Whether any policy was declared.
    pub(crate) fn has_policies(&self) -> Result<bool, ApiError> {
        Ok(!self.rules()?.texts.is_empty())
    }

    /// What a resource is to policies: a model with those that it is granted to.
    pub(crate) fn thing(&self, key: &ResourceKey) -> Result<Thing, ApiError> {
        let mut thing = Thing::of(key);
        if let (ObjectKind::Model, Some(tenant)) = (thing.kind, &thing.tenant) {
            let model = ResourceKey::new(Kind::Model, Some(tenant.clone()), &thing.name)?;
            let found = self.inner.parts.registry.get(&model)?;
            if let Some(Spec::Model(spec)) = found.map(|found| found.spec) {
                thing.granted = spec.grants.into_iter().collect();
            }
        }
        Ok(thing)
    }
}

impl Caller {
    fn verdict(&self, state: &AdminState, action: Action, thing: &Thing) -> Result<Verdict, ApiError> {
        let rules = state.rules()?;
        Ok(decide(&*rules.judge, &self.holder.subject(), action, &thing.object()))
    }

    /// Refuses what the caller may not do.
    pub(crate) fn may(&self, state: &AdminState, action: Action, thing: &Thing) -> Result<(), ApiError> {
        let verdict = self.verdict(state, action, thing)?;
        if verdict.allowed {
            return Ok(());
        }
        tracing::info!(who = %self.who, %action, object = %thing.object(), because = ?verdict.because, "denied");
        Err(ApiError::denied(&self.who, action, &thing.object()))
    }

    /// The same for a resource.
    pub(crate) fn may_to(&self, state: &AdminState, action: Action, key: &ResourceKey) -> Result<(), ApiError> {
        self.may(state, action, &state.thing(key)?)
    }

    /// Whether the caller may read a resource; without a word.
    pub(crate) fn sees(&self, state: &AdminState, key: &ResourceKey) -> Result<bool, ApiError> {
        let (action, thing) = (mesh_authz::reading(key.kind), state.thing(key)?);
        Ok(self.verdict(state, action, &thing)?.allowed)
    }

    /// Refuses what is beyond the caller's tenant, before anything is looked up there.
    pub(crate) fn reaches(&self, key: &ResourceKey) -> Result<(), ApiError> {
        let (action, thing) = (mesh_authz::writing(key.kind), Thing::of(key));
        if mesh_policies::authorization::crosses_tenants(&self.holder.subject(), action, &thing.object()) {
            return Err(ApiError::denied(&self.who, action, &thing.object()));
        }
        Ok(())
    }

    /// The tenant that the caller is bound to.
    pub(crate) fn tenant(&self) -> Option<&TenantId> {
        self.holder.tenant.as_ref()
    }

    /// Where it is at home: its tenant, or the mesh.
    pub(crate) fn home(&self) -> Thing {
        match self.tenant() {
            Some(tenant) => Thing::new(ObjectKind::Tenant, Some(tenant.clone()), tenant.as_str()),
            None => Thing::mesh(),
        }
    }
}

/// What the path names.
fn named(request: &ServiceRequest, state: &AdminState, kind: ObjectKind) -> Result<Thing, ApiError> {
    let part = |name: &str| request.match_info().get(name).unwrap_or_default();
    let resource = |kind: Kind, name: &str| -> Result<Thing, ApiError> {
        let tenant = kind.is_namespaced().then(|| TenantId::parse(part("tenant")));
        let tenant = tenant
            .transpose()
            .map_err(|error| ApiError::invalid(error.to_string()))?;
        state.thing(&ResourceKey::new(kind, tenant, name)?)
    };
    match kind {
        ObjectKind::Mesh => Ok(Thing::mesh()),
        ObjectKind::Device => Ok(Thing::new(kind, None, part("device"))),
        ObjectKind::Tenant => resource(Kind::Tenant, part("tenant")),
        ObjectKind::Model => resource(Kind::Model, part("model")),
        ObjectKind::Endpoint => resource(Kind::Endpoint, part("name")),
        ObjectKind::Key => resource(Kind::ApiKey, part("name")),
        ObjectKind::Certificate => resource(Kind::ClientCertificate, part("name")),
        ObjectKind::Issuer => resource(Kind::Issuer, part("name")),
        ObjectKind::Admin => resource(Kind::AdminToken, part("name")),
        ObjectKind::Policy => resource(Kind::Policy, part("name")),
    }
}

fn check(request: &ServiceRequest, needs: Needs) -> Result<(), ApiError> {
    let (action, kind) = match needs {
        Needs::Nothing | Needs::Handler => return Ok(()),
        Needs::Undeclared => return Err(ApiError::forbidden("nobody may do this: its action was not declared")),
        Needs::Home(action) => (action, None),
        Needs::Path(action, kind) => (action, Some(kind)),
    };
    let state = request
        .app_data::<Data<AdminState>>()
        .ok_or_else(ApiError::unauthenticated)?;
    let caller = request.extensions().get::<Caller>().cloned();
    let caller = caller.ok_or_else(ApiError::unauthenticated)?;
    let thing = match kind {
        None => caller.home(),
        Some(kind) => named(request, state, kind)?,
    };
    caller.may(state, action, &thing)
}

/// Stands before one route, once its path has been read.
pub(crate) async fn guard(
    needs: Needs,
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    match check(&request, needs) {
        Ok(()) => next.call(request).await.map(ServiceResponse::map_into_left_body),
        Err(error) => Ok(request.into_response(error.error_response()).map_into_right_body()),
    }
}
