//! What admins declare, as who asks and what it is about.
//!
//! Owns the way from a resource to a subject or an object, and which action it takes to read or to change one. Decides nothing.

use std::{collections::BTreeSet, sync::Arc};

use mesh_policies::{
    Scope, Scopes,
    authorization::{Action, Granted, Object, ObjectKind, Role, Subject, SubjectKind},
};
use mesh_resources::{
    AdminRole, AdminTokenSpec, ApiKeySpec, ClientCertificateSpec, EndpointSpec, Kind, ModelSpec, ResourceKey, Spec,
};
use mesh_types::TenantId;

/// Somebody, with all that policies can ask of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What kind of caller.
    pub kind: SubjectKind,
    /// To which tenant they belong; none: to the mesh.
    pub tenant: Option<TenantId>,
    /// Their name.
    pub name: String,
    /// Who says so, of a user.
    pub issuer: String,
    /// Their groups.
    pub groups: Vec<Arc<str>>,
    /// What their credential may be used for.
    pub scopes: Scopes,
    /// What their token makes of them.
    pub role: Option<Role>,
}

fn shared(groups: &[String]) -> Vec<Arc<str>> {
    groups.iter().map(|group| Arc::from(group.as_str())).collect()
}

fn scopes(scopes: &[mesh_resources::Scope]) -> Scopes {
    let scopes = scopes.iter().map(|scope| match scope {
        mesh_resources::Scope::Infer => Scope::Infer,
    });
    scopes.collect()
}

impl Holder {
    /// Whoever has this admin token.
    pub fn of_token(name: &str, spec: &AdminTokenSpec) -> Self {
        Self {
            kind: SubjectKind::Admin,
            tenant: spec.tenant.clone(),
            name: name.to_owned(),
            issuer: String::new(),
            groups: shared(&spec.groups),
            scopes: Scopes::NONE,
            role: Some(role(spec.role)),
        }
    }

    /// Whoever has this API key.
    pub fn of_key(tenant: &TenantId, name: &str, spec: &ApiKeySpec) -> Self {
        Self {
            kind: SubjectKind::Key,
            tenant: Some(tenant.clone()),
            name: name.to_owned(),
            issuer: String::new(),
            groups: shared(&spec.groups),
            scopes: scopes(&spec.scopes),
            role: None,
        }
    }

    /// Whoever this certificate's record stands for.
    pub fn of_certificate(tenant: &TenantId, name: &str, spec: &ClientCertificateSpec) -> Self {
        Self {
            kind: SubjectKind::Certificate,
            tenant: Some(tenant.clone()),
            name: name.to_owned(),
            issuer: String::new(),
            groups: shared(&spec.groups),
            scopes: scopes(&spec.scopes),
            role: None,
        }
    }

    /// As the one who asks.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            kind: self.kind,
            tenant: self.tenant.as_ref(),
            name: &self.name,
            issuer: &self.issuer,
            groups: &self.groups,
            scopes: self.scopes,
            role: self.role,
        }
    }
}

/// A role as policies know it.
pub const fn role(role: AdminRole) -> Role {
    match role {
        AdminRole::Viewer => Role::Viewer,
        AdminRole::Experimenter => Role::Experimenter,
        AdminRole::Operator => Role::Operator,
        AdminRole::Admin => Role::Admin,
    }
}

/// Something, with all that policies can ask of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thing {
    /// What kind of thing.
    pub kind: ObjectKind,
    /// Whose it is; none: the mesh's.
    pub tenant: Option<TenantId>,
    /// Its name; empty for the mesh.
    pub name: String,
    /// To whom it is granted, of a model.
    pub granted: BTreeSet<TenantId>,
}

impl Thing {
    /// The mesh as a whole.
    pub fn mesh() -> Self {
        Self::new(ObjectKind::Mesh, None, "")
    }

    /// A thing of this name.
    pub fn new(kind: ObjectKind, tenant: Option<TenantId>, name: &str) -> Self {
        Self {
            kind,
            tenant,
            name: name.to_owned(),
            granted: BTreeSet::new(),
        }
    }

    /// What a resource is to policies; a model's versions are the model's.
    pub fn of(key: &ResourceKey) -> Self {
        let kind = kind_of(key.kind);
        let name = key.name.split('/').next().unwrap_or_default();
        let tenant = match kind {
            // Its own.
            ObjectKind::Tenant => TenantId::parse(name).ok(),
            _ => key.tenant.clone(),
        };
        Self::new(kind, tenant, name)
    }

    /// As what it is about.
    pub fn object(&self) -> Object<'_> {
        Object {
            kind: self.kind,
            tenant: self.tenant.as_ref(),
            name: &self.name,
            granted: Granted::To(&self.granted),
        }
    }
}

/// What resources of a kind are to policies.
pub const fn kind_of(kind: Kind) -> ObjectKind {
    match kind {
        Kind::Tenant => ObjectKind::Tenant,
        Kind::Issuer => ObjectKind::Issuer,
        Kind::ApiKey => ObjectKind::Key,
        Kind::ClientCertificate => ObjectKind::Certificate,
        Kind::Model | Kind::ModelVersion => ObjectKind::Model,
        Kind::Endpoint => ObjectKind::Endpoint,
        Kind::AdminToken => ObjectKind::Admin,
        Kind::Policy => ObjectKind::Policy,
    }
}

/// What it takes to read resources of a kind.
pub const fn reading(kind: Kind) -> Action {
    match kind {
        Kind::Tenant => Action::TenantRead,
        Kind::Issuer => Action::IssuerRead,
        Kind::ApiKey | Kind::ClientCertificate => Action::KeyRead,
        Kind::Model | Kind::ModelVersion => Action::ModelRead,
        Kind::Endpoint => Action::EndpointRead,
        Kind::AdminToken => Action::TokenRead,
        Kind::Policy => Action::PolicyRead,
    }
}

/// What it takes to make, replace or delete a resource of a kind, whatever it says.
pub const fn writing(kind: Kind) -> Action {
    match kind {
        Kind::Tenant => Action::TenantAdmin,
        Kind::Issuer => Action::IssuerAdmin,
        Kind::ApiKey | Kind::ClientCertificate => Action::KeyAdmin,
        Kind::Model | Kind::ModelVersion => Action::ModelPublish,
        Kind::Endpoint => Action::EndpointRoute,
        Kind::AdminToken => Action::TokenAdmin,
        Kind::Policy => Action::PolicyEdit,
    }
}

/// What it takes to write this in the place of that: less, where only a split or a label moves.
pub fn changing(before: Option<&Spec>, after: &Spec) -> Action {
    match (before, after) {
        (Some(Spec::Model(before)), Spec::Model(after)) if only_promotes(before, after) => Action::RolloutPromote,
        (Some(Spec::Endpoint(before)), Spec::Endpoint(after)) if only_splits(before, after) => Action::ExperimentEdit,
        (_, after) => writing(after.kind()),
    }
}

fn only_promotes(before: &ModelSpec, after: &ModelSpec) -> bool {
    let moved = ModelSpec {
        labels: after.labels.clone(),
        default_version: after.default_version.clone(),
        ..before.clone()
    };
    moved == *after
}

fn only_splits(before: &EndpointSpec, after: &EndpointSpec) -> bool {
    let arms = |spec: &EndpointSpec| -> BTreeSet<(String, String)> {
        let arm = |arm: &mesh_resources::ArmSpec| (arm.name.clone(), arm.model.to_string());
        spec.arms.iter().map(arm).collect()
    };
    let split = EndpointSpec {
        arms: after.arms.clone(),
        sticky_by: after.sticky_by.clone(),
        salt: after.salt.clone(),
        ..before.clone()
    };
    split == *after && arms(before) == arms(after)
}

#[cfg(test)]
mod tests {
    use mesh_resources::{ArmSpec, TenantSpec};

    use super::*;

    fn endpoint(arms: &[(&str, &str, f64)]) -> EndpointSpec {
        let arm = |(name, model, weight): &(&str, &str, f64)| ArmSpec {
            name: (*name).to_owned(),
            model: model.parse().unwrap(),
            version: None,
            weight: *weight,
        };
        EndpointSpec {
            description: None,
            arms: arms.iter().map(arm).collect(),
            sticky_by: None,
            salt: None,
            timeout_ms: None,
            service_class: Default::default(),
            cache: None,
            limits: Default::default(),
        }
    }

    #[test]
    fn a_moved_split_is_an_experiment_and_another_model_is_a_route() {
        let before = endpoint(&[("a", "m", 90.0), ("b", "n", 10.0)]);
        let of = |after: EndpointSpec| changing(Some(&Spec::Endpoint(before.clone())), &Spec::Endpoint(after));
        assert_eq!(
            of(endpoint(&[("a", "m", 50.0), ("b", "n", 50.0)])),
            Action::ExperimentEdit
        );
        assert_eq!(of(before.clone()), Action::ExperimentEdit);
        let sticky = EndpointSpec {
            sticky_by: Some("user".into()),
            ..before.clone()
        };
        assert_eq!(of(sticky), Action::ExperimentEdit);
        assert_eq!(
            of(endpoint(&[("a", "m", 90.0), ("b", "other", 10.0)])),
            Action::EndpointRoute
        );
        assert_eq!(of(endpoint(&[("a", "m", 100.0)])), Action::EndpointRoute);
        let slow = EndpointSpec {
            timeout_ms: Some(1),
            ..before.clone()
        };
        assert_eq!(of(slow), Action::EndpointRoute);
        assert_eq!(changing(None, &Spec::Endpoint(before)), Action::EndpointRoute);
    }

    #[test]
    fn a_moved_label_is_a_promotion_and_a_grant_is_not() {
        let before = ModelSpec::default();
        let of = |after: ModelSpec| changing(Some(&Spec::Model(ModelSpec::default())), &Spec::Model(after));
        let mut labelled = before.clone();
        labelled
            .labels
            .insert("stable".parse().unwrap(), mesh_types::Version::FIRST);
        assert_eq!(of(labelled.clone()), Action::RolloutPromote);
        let granted = ModelSpec {
            grants: vec![TenantId::parse("globex").unwrap()],
            ..labelled
        };
        assert_eq!(of(granted), Action::ModelPublish);
        assert_eq!(changing(None, &Spec::Model(before)), Action::ModelPublish);
        assert_eq!(
            changing(None, &Spec::Tenant(TenantSpec::default())),
            Action::TenantAdmin
        );
    }

    #[test]
    fn resources_are_what_policies_call_them() {
        let of = |text: &str| Thing::of(&text.parse().unwrap()).object().to_string();
        assert_eq!(of("ModelVersion/acme/digits/3"), "Model/acme/digits");
        assert_eq!(of("ApiKey/acme/ci"), "Key/acme/ci");
        assert_eq!(of("Tenant/acme"), "Tenant/acme");
        assert_eq!(of("AdminToken/root"), "Admin/root");
        assert_eq!(
            Thing::of(&"Tenant/acme".parse().unwrap()).tenant,
            TenantId::parse("acme").ok()
        );
    }

    #[test]
    fn every_action_that_a_kind_takes_can_be_done_to_it() {
        for kind in Kind::ALL {
            let name = if kind == Kind::ModelVersion { "m/1" } else { "m" };
            let tenant = kind.is_namespaced().then(|| TenantId::parse("acme").unwrap());
            let thing = Thing::of(&ResourceKey::new(kind, tenant, name).unwrap());
            assert!(reading(kind).objects().contains(&thing.kind), "{kind}");
            assert!(reading(kind).objects().contains(&ObjectKind::Mesh), "{kind}: lists");
            assert!(writing(kind).objects().contains(&thing.kind), "{kind}");
        }
    }
}
