//! What can be done, and to what: the one table of everything that the doors do.
//!
//! Owns [`Action`], [`ObjectKind`] and [`Role`]. The schema that policies are checked against and the policies that are there
//! from the start say the same (a test of `mesh-authz` holds them together). Decides nothing.

use std::fmt;

use super::SubjectKind;

/// What an admin's token makes of its holder; each may do what the one before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Changes how traffic is split, and what a label leads to.
    Experimenter,
    /// Publishes models, routes endpoints, takes devices out of service.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Experimenter, Self::Operator, Self::Admin];

    /// The name in tokens and policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Experimenter => "experimenter",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// What something is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// The mesh as a whole.
    Mesh,
    /// A tenant.
    Tenant,
    /// An API key of a tenant.
    Key,
    /// A caller of a tenant that is known by its certificate.
    Certificate,
    /// A source of tokens.
    Issuer,
    /// A model of a tenant, with its versions.
    Model,
    /// An endpoint of a tenant.
    Endpoint,
    /// An admin's token.
    Admin,
    /// A policy.
    Policy,
    /// A device.
    Device,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Mesh,
        Self::Tenant,
        Self::Key,
        Self::Certificate,
        Self::Issuer,
        Self::Model,
        Self::Endpoint,
        Self::Admin,
        Self::Policy,
        Self::Device,
    ];

    /// The name of its type in policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::Tenant => "Tenant",
            Self::Key => "Key",
            Self::Certificate => "Certificate",
            Self::Issuer => "Issuer",
            Self::Model => "Model",
            Self::Endpoint => "Endpoint",
            Self::Admin => "Admin",
            Self::Policy => "Policy",
            Self::Device => "Device",
        }
    }

    /// Whether it belongs to a tenant, or is one.
    pub const fn is_of_tenant(self) -> bool {
        matches!(
            self,
            Self::Tenant | Self::Key | Self::Certificate | Self::Model | Self::Endpoint
        )
    }

    /// Reads its name, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|kind| text.eq_ignore_ascii_case(kind.as_str()))
    }
}

macro_rules! actions {
    ($($variant:ident $name:literal [$($object:ident)+] $least:expr, $about:literal;)+) => {
        /// Something that a door does for a caller.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action {
            $(#[doc = $about] $variant,)+
        }

        impl Action {
            /// Every action.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in policies, answers and the audit trail.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it can be done to.
            pub const fn objects(self) -> &'static [ObjectKind] {
                match self {
                    $(Self::$variant => &[$(ObjectKind::$object),+],)+
                }
            }

            /// The least role that may do it without any policy; none: it is a tenant's caller's, by the scope `infer`.
            pub const fn least_role(self) -> Option<Role> {
                match self {
                    $(Self::$variant => $least,)+
                }
            }

            /// What it is, for people.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$variant => $about,)+
                }
            }
        }
    };
}

actions! {
    Infer "model:infer" [Model Endpoint] None,
        "Calls a model or an endpoint at the inference doors, and asks what it is, whether it is ready and what it has done.";
    Load "model:load" [Model] None,
        "Loads and unloads a model at the inference doors, where the server's repository is that of the caller's tenant.";
    MeshRead "mesh:read" [Mesh] Some(Role::Viewer), "Reads the overview and follows the live numbers.";
    TenantRead "tenant:read" [Mesh Tenant] Some(Role::Viewer), "Reads a tenant, or lists tenants.";
    KeyRead "key:read" [Mesh Tenant Key Certificate] Some(Role::Viewer),
        "Reads API keys, without their secrets, and which certificates stand for whom.";
    IssuerRead "issuer:read" [Mesh Issuer] Some(Role::Viewer), "Reads issuers of tokens.";
    ModelRead "model:read" [Mesh Tenant Model] Some(Role::Viewer), "Reads models, their versions and graphs.";
    EndpointRead "endpoint:read" [Mesh Tenant Endpoint] Some(Role::Viewer), "Reads endpoints.";
    TokenRead "token:read" [Mesh Admin] Some(Role::Viewer), "Reads admin tokens, without their secrets.";
    PolicyRead "policy:read" [Mesh Policy] Some(Role::Viewer), "Reads policies, and tries them out.";
    DeviceRead "device:read" [Mesh] Some(Role::Viewer), "Reads what devices hold and have done.";
    AuditRead "audit:read" [Mesh] Some(Role::Viewer), "Reads and verifies the trail of changes.";
    EndpointTry "endpoint:try" [Endpoint] Some(Role::Experimenter), "Runs inputs on every arm of an endpoint.";
    ExperimentEdit "experiment:edit" [Endpoint] Some(Role::Experimenter),
        "Changes how an endpoint's traffic is split among the arms that it has: weights, versions, stickiness, salt.";
    RolloutPromote "rollout:promote" [Model] Some(Role::Experimenter),
        "Moves a model's labels or its default to other versions.";
    EndpointRoute "endpoint:route" [Endpoint] Some(Role::Operator),
        "Makes, changes or deletes an endpoint: its arms' models, its deadline, its class.";
    ModelPublish "model:publish" [Model] Some(Role::Operator),
        "Makes, changes or deletes a model and its versions, and grants it.";
    ModelWarm "model:warm" [Model] Some(Role::Operator), "Brings a version into its devices' memory.";
    ArtifactUpload "artifact:upload" [Mesh Tenant] Some(Role::Operator), "Uploads a model's file.";
    DeviceDrain "device:drain" [Device] Some(Role::Operator), "Takes a device out of service, and back.";
    KeyAdmin "key:admin" [Key Certificate] Some(Role::Admin),
        "Makes, changes or takes back an API key, or whom a certificate stands for.";
    TenantAdmin "tenant:admin" [Tenant] Some(Role::Admin),
        "Makes, changes or deletes a tenant: its weight, its limits. Never by default for who belongs to one.";
    IssuerAdmin "issuer:admin" [Issuer] Some(Role::Admin), "Makes, changes or deletes an issuer of tokens.";
    TokenAdmin "token:admin" [Admin] Some(Role::Admin), "Makes, changes or takes back an admin token.";
    PolicyEdit "policy:edit" [Policy] Some(Role::Admin), "Makes, changes or deletes a policy.";
    AuditSign "audit:sign" [Mesh] Some(Role::Admin), "Signs the trail of changes as it is now.";
    Backup "mesh:backup" [Mesh] Some(Role::Admin), "Copies everything, secrets included.";
}

impl Action {
    /// Whether callers of this kind can do it at all: tenants' callers infer and load, and admins do all else.
    pub const fn is_by(self, kind: SubjectKind) -> bool {
        matches!(kind, SubjectKind::Admin) == self.least_role().is_some()
    }

    /// Reads its name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|action| action.as_str() == text)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_differ() {
        for action in Action::ALL {
            assert_eq!(Action::parse(action.as_str()), Some(*action));
            assert!(!action.objects().is_empty());
        }
        for kind in ObjectKind::ALL {
            assert_eq!(ObjectKind::parse(&kind.as_str().to_lowercase()), Some(kind));
        }
        assert_eq!(Action::parse("model:eat"), None);
        assert_eq!(ObjectKind::parse("Cake"), None);
    }
}
