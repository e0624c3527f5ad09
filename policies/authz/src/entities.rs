//! Who asks and what it is about, as the engine knows them.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    Entity, EntityAttrEvaluationError, EntityId, EntityTypeName, EntityUid, RestrictedExpression as Value,
};
use mesh_policies::{
    Scope,
    authorization::{Action, Object, ObjectKind, Subject, SubjectKind},
};
use mesh_types::TenantId;

/// The types of the schema, read once.
#[derive(Debug, Clone)]
pub(crate) struct Types {
    action: EntityTypeName,
    user: EntityTypeName,
    role: EntityTypeName,
    group: EntityTypeName,
    objects: Vec<(ObjectKind, EntityTypeName)>,
}

/// Why an entity cannot be made: a value of it cannot be evaluated.
type Unwritable = Box<EntityAttrEvaluationError>;

/// The one entity of type `Mesh`.
const MESH: &str = "mesh";

impl Types {
    /// None only if a name in this crate is not well-formed, which a test rules out.
    pub(crate) fn read() -> Option<Self> {
        let name = |text: &str| format!("Mesh::{text}").parse::<EntityTypeName>().ok();
        let objects = ObjectKind::ALL.into_iter();
        Some(Self {
            action: name("Action")?,
            user: name("User")?,
            role: name("Role")?,
            group: name("Group")?,
            objects: objects
                .map(|kind| Some((kind, name(kind.as_str())?)))
                .collect::<Option<_>>()?,
        })
    }

    fn of(&self, kind: ObjectKind) -> &EntityTypeName {
        let found = self.objects.iter().find(|(known, _)| *known == kind);
        // Every kind is there: see `read`.
        found.map_or(&self.action, |(_, name)| name)
    }

    pub(crate) fn action(&self, action: Action) -> EntityUid {
        uid(&self.action, action.as_str())
    }

    fn mesh(&self) -> EntityUid {
        uid(self.of(ObjectKind::Mesh), MESH)
    }

    fn tenant(&self, tenant: &TenantId) -> EntityUid {
        uid(self.of(ObjectKind::Tenant), tenant.as_str())
    }

    pub(crate) fn subject(&self, subject: &Subject<'_>) -> EntityUid {
        match subject.kind {
            SubjectKind::Key => uid(self.of(ObjectKind::Key), &owned(subject.tenant, subject.name)),
            SubjectKind::Certificate => uid(self.of(ObjectKind::Certificate), &owned(subject.tenant, subject.name)),
            // A blank parts them: an issuer's own blanks are escaped, so that two callers never look alike.
            SubjectKind::User => {
                let issuer = subject.issuer.replace('%', "%25").replace(' ', "%20");
                uid(&self.user, &format!("{issuer} {}", subject.name))
            }
            SubjectKind::Admin => uid(self.of(ObjectKind::Admin), subject.name),
        }
    }

    pub(crate) fn object(&self, object: &Object<'_>) -> EntityUid {
        match object.kind {
            ObjectKind::Mesh => self.mesh(),
            ObjectKind::Tenant => uid(self.of(ObjectKind::Tenant), object.name),
            kind => uid(self.of(kind), &owned(object.tenant, object.name)),
        }
    }

    /// All that the policies can ask of these two. An entity that is both (an admin's token that reads itself) is there once, as
    /// the one who asks.
    pub(crate) fn entities(&self, subject: &Subject<'_>, object: &Object<'_>) -> Result<Vec<Entity>, Unwritable> {
        let mut entities = HashMap::new();
        let mut add = |entity: Entity| {
            entities.entry(entity.uid()).or_insert(entity);
        };
        add(self.subject_entity(subject)?);
        add(self.object_entity(object)?);
        for tenant in subject.tenant.into_iter().chain(object.tenant) {
            let name = HashMap::from([("name".to_owned(), Value::new_string(tenant.to_string()))]);
            add(Entity::new(self.tenant(tenant), name, HashSet::from([self.mesh()])).map_err(Box::new)?);
        }
        Ok(entities.into_values().collect())
    }

    fn subject_entity(&self, subject: &Subject<'_>) -> Result<Entity, Unwritable> {
        let mut attributes = HashMap::from([("name".to_owned(), Value::new_string(subject.name.to_owned()))]);
        let mut parents: HashSet<EntityUid> = subject
            .groups
            .iter()
            .map(|group| uid(&self.group, &owned(subject.tenant, group)))
            .collect();
        match subject.tenant {
            Some(tenant) => {
                attributes.insert("tenant".to_owned(), Value::new_entity_uid(self.tenant(tenant)));
                parents.insert(self.tenant(tenant));
            }
            None => drop(parents.insert(self.mesh())),
        }
        if subject.kind != SubjectKind::Admin {
            let scopes = Scope::ALL.into_iter().filter(|scope| subject.scopes.contains(*scope));
            let scopes = scopes.map(|scope| Value::new_string(scope.as_str().to_owned()));
            attributes.insert("scopes".to_owned(), Value::new_set(scopes));
        }
        if subject.kind == SubjectKind::User {
            attributes.insert("issuer".to_owned(), Value::new_string(subject.issuer.to_owned()));
        }
        parents.extend(subject.role.map(|role| uid(&self.role, role.as_str())));
        Entity::new(self.subject(subject), attributes, parents).map_err(Box::new)
    }

    fn object_entity(&self, object: &Object<'_>) -> Result<Entity, Unwritable> {
        let id = self.object(object);
        if object.kind == ObjectKind::Mesh {
            return Ok(Entity::with_uid(id));
        }
        let mut attributes = HashMap::from([("name".to_owned(), Value::new_string(object.name.to_owned()))]);
        let parent = match object.tenant {
            Some(tenant) if object.kind != ObjectKind::Tenant => {
                attributes.insert("tenant".to_owned(), Value::new_entity_uid(self.tenant(tenant)));
                self.tenant(tenant)
            }
            _ => self.mesh(),
        };
        if object.kind == ObjectKind::Model {
            let granted = object
                .granted
                .iter()
                .map(|tenant| Value::new_entity_uid(self.tenant(tenant)));
            attributes.insert("granted".to_owned(), Value::new_set(granted));
        }
        if matches!(object.kind, ObjectKind::Key | ObjectKind::Certificate) {
            // A key as something that is made or taken back can do nothing itself.
            attributes.insert("scopes".to_owned(), Value::new_set([]));
        }
        Entity::new(id, attributes, HashSet::from([parent])).map_err(Box::new)
    }
}

fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}

fn owned(tenant: Option<&TenantId>, name: &str) -> String {
    tenant.map_or_else(|| name.to_owned(), |tenant| format!("{tenant}/{name}"))
}
