//! The envelope that every resource travels in: `apiVersion`, `kind`, `metadata`, `spec`.

use jiff::Timestamp;
use mesh_types::TenantId;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::SerializeStruct as _};
use utoipa::ToSchema;

use crate::{
    AdminTokenSpec, ApiKeySpec, ClientCertificateSpec, EndpointSpec, IssuerSpec, Kind, ModelSpec, ModelVersionSpec,
    PolicySpec, Problem, REDACTED, ResourceError, ResourceKey, TenantSpec,
};

/// The version of the envelope.
pub const API_VERSION: &str = "mesh/v1";

/// Which resource, and what the mesh knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The tenant it belongs to, for kinds that do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantId>,
    /// Its name; for a model version `model/number`.
    pub name: String,
    /// The revision of its last change. In a write: the one it must still have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// When it was first written; set by the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub created: Option<Timestamp>,
    /// When it was last changed; set by the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub updated: Option<Timestamp>,
}

/// What a resource says; the variant is its kind.
#[derive(Debug, Clone, PartialEq, ToSchema)]
#[schema(no_recursion)]
#[expect(missing_docs, reason = "each is documented at its type")]
pub enum Spec {
    Tenant(TenantSpec),
    Issuer(IssuerSpec),
    ApiKey(ApiKeySpec),
    ClientCertificate(ClientCertificateSpec),
    Model(ModelSpec),
    ModelVersion(ModelVersionSpec),
    Endpoint(EndpointSpec),
    AdminToken(AdminTokenSpec),
    Policy(PolicySpec),
}

impl Spec {
    /// The kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Tenant(_) => Kind::Tenant,
            Self::Issuer(_) => Kind::Issuer,
            Self::ApiKey(_) => Kind::ApiKey,
            Self::ClientCertificate(_) => Kind::ClientCertificate,
            Self::Model(_) => Kind::Model,
            Self::ModelVersion(_) => Kind::ModelVersion,
            Self::Endpoint(_) => Kind::Endpoint,
            Self::AdminToken(_) => Kind::AdminToken,
            Self::Policy(_) => Kind::Policy,
        }
    }
}

macro_rules! spec_from {
    ($($name:ident: $spec:ty),+) => {$(
        impl From<$spec> for Spec {
            fn from(spec: $spec) -> Self {
                Self::$name(spec)
            }
        }
    )+};
}
spec_from!(
    Tenant: TenantSpec, Issuer: IssuerSpec, ApiKey: ApiKeySpec, ClientCertificate: ClientCertificateSpec, Model: ModelSpec, ModelVersion: ModelVersionSpec,
    Endpoint: EndpointSpec, AdminToken: AdminTokenSpec, Policy: PolicySpec
);

/// A resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Which one.
    pub metadata: Metadata,
    /// What it says.
    pub spec: Spec,
}

impl Resource {
    /// A resource with this key, not yet written.
    pub fn new(key: &ResourceKey, spec: impl Into<Spec>) -> Self {
        Self {
            metadata: Metadata {
                tenant: key.tenant.clone(),
                name: key.name.clone(),
                ..Metadata::default()
            },
            spec: spec.into(),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        self.spec.kind()
    }

    /// Its key, or why its name and tenant make none.
    pub fn key(&self) -> Result<ResourceKey, ResourceError> {
        ResourceKey::new(self.kind(), self.metadata.tenant.clone(), &self.metadata.name)
    }

    /// Everything that is wrong with it as it stands; what it refers to is not looked at.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(error) = self.key() {
            let text = error.to_string();
            let (field, problem) = text.split_once(": ").unwrap_or(("metadata", &text));
            problems.push(Problem::new(field, problem));
        }
        match &self.spec {
            Spec::Tenant(spec) => spec.check(&mut problems),
            Spec::Issuer(spec) => spec.check(&mut problems),
            Spec::ApiKey(spec) => spec.check(&mut problems),
            Spec::ClientCertificate(spec) => spec.check(&mut problems),
            Spec::Model(spec) => spec.check(&mut problems),
            Spec::ModelVersion(spec) => spec.check(&mut problems),
            Spec::Endpoint(spec) => spec.check(&mut problems),
            Spec::AdminToken(spec) => spec.check(&mut problems),
            Spec::Policy(spec) => spec.check(&mut problems),
        }
        problems
    }

    /// The same with secrets and hashes blacked out, for anyone's eyes.
    #[must_use]
    pub fn redacted(&self) -> Self {
        let mut shown = self.clone();
        match &mut shown.spec {
            Spec::ApiKey(spec) => REDACTED.clone_into(&mut spec.hash),
            Spec::AdminToken(spec) => REDACTED.clone_into(&mut spec.hash),
            Spec::Issuer(spec) => {
                for key in &mut spec.keys {
                    key.secret_base64 = key.secret_base64.take().map(|_| REDACTED.to_owned());
                }
            }
            _ => {}
        }
        shown
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Resource", 4)?;
        fields.serialize_field("apiVersion", API_VERSION)?;
        fields.serialize_field("kind", &self.kind())?;
        fields.serialize_field("metadata", &self.metadata)?;
        match &self.spec {
            Spec::Tenant(spec) => fields.serialize_field("spec", spec)?,
            Spec::Issuer(spec) => fields.serialize_field("spec", spec)?,
            Spec::ApiKey(spec) => fields.serialize_field("spec", spec)?,
            Spec::ClientCertificate(spec) => fields.serialize_field("spec", spec)?,
            Spec::Model(spec) => fields.serialize_field("spec", spec)?,
            Spec::ModelVersion(spec) => fields.serialize_field("spec", spec)?,
            Spec::Endpoint(spec) => fields.serialize_field("spec", spec)?,
            Spec::AdminToken(spec) => fields.serialize_field("spec", spec)?,
            Spec::Policy(spec) => fields.serialize_field("spec", spec)?,
        }
        fields.end()
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The kind may come after the spec, so the spec is read once the kind is known.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Envelope {
            #[serde(rename = "apiVersion")]
            api_version: String,
            kind: String,
            metadata: Metadata,
            #[serde(default)]
            spec: Option<serde_json::Value>,
        }
        fn read<T: serde::de::DeserializeOwned, E: serde::de::Error>(spec: serde_json::Value) -> Result<T, E> {
            T::deserialize(spec).map_err(|error| E::custom(format!("spec: {error}")))
        }
        let envelope = Envelope::deserialize(deserializer)?;
        if envelope.api_version != API_VERSION {
            let got: String = envelope.api_version.chars().take(64).collect();
            return Err(D::Error::custom(format!(
                "apiVersion is '{got}', it must be {API_VERSION}"
            )));
        }
        let kind = Kind::parse(&envelope.kind).map_err(D::Error::custom)?;
        let value = envelope
            .spec
            .unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new()));
        let spec = match kind {
            Kind::Tenant => Spec::Tenant(read(value)?),
            Kind::Issuer => Spec::Issuer(read(value)?),
            Kind::ApiKey => Spec::ApiKey(read(value)?),
            Kind::ClientCertificate => Spec::ClientCertificate(read(value)?),
            Kind::Model => Spec::Model(read(value)?),
            Kind::ModelVersion => Spec::ModelVersion(read(value)?),
            Kind::Endpoint => Spec::Endpoint(read(value)?),
            Kind::AdminToken => Spec::AdminToken(read(value)?),
            Kind::Policy => Spec::Policy(read(value)?),
        };
        Ok(Self {
            metadata: envelope.metadata,
            spec,
        })
    }
}
