//! What a write asks for, and who asks.

use std::fmt;

use mesh_resources::{Resource, ResourceError, ResourceKey};
use serde::{Deserialize, Serialize};

/// The most changes in one write.
pub const MAX_CHANGES: usize = 256;
/// The most bytes of each text of an [`Author`].
pub const MAX_AUTHOR_TEXT: usize = 256;

/// Who wrote, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Author {
    /// The credential's name, never the credential.
    pub who: String,
    /// Through what: `api`, `cli`, `ui` or `mesh`.
    pub source: String,
    /// The request that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// The address that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

impl Author {
    /// The mesh itself.
    pub fn mesh(who: impl Into<String>) -> Self {
        Self {
            who: who.into(),
            source: "mesh".to_owned(),
            request: None,
            from: None,
        }
    }
}

/// What a resource must be before a change, or the change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever it is. A put whose metadata name a revision still needs that one.
    Any,
    /// Not there.
    Absent,
    /// At this revision.
    Revision(u64),
}

impl Expected {
    /// Whether it is met by what is there.
    pub fn is_met_by(self, found: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::Revision(revision) => found == Some(revision),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anything"),
            Self::Absent => f.write_str("nothing there"),
            Self::Revision(revision) => write!(f, "revision {revision}"),
        }
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "most changes are puts, and a write has few")]
pub enum Change {
    /// Writes a resource.
    Put {
        /// The resource; its created, updated and revision are filled by the registry.
        resource: Resource,
        /// What must be there before.
        expected: Expected,
    },
    /// Takes a resource away. It must be there.
    Delete {
        /// Which one.
        key: ResourceKey,
        /// What must be there before.
        expected: Expected,
    },
}

impl Change {
    /// Writes a resource, whatever is there; see [`Expected::Any`].
    pub fn put(resource: Resource) -> Self {
        Self::Put {
            resource,
            expected: Expected::Any,
        }
    }

    /// Takes a resource away, at whatever revision it is.
    pub fn delete(key: ResourceKey) -> Self {
        Self::Delete {
            key,
            expected: Expected::Any,
        }
    }

    /// The key of what is changed, or why it has none.
    pub fn key(&self) -> Result<ResourceKey, ResourceError> {
        match self {
            Self::Put { resource, .. } => resource.key(),
            Self::Delete { key, .. } => Ok(key.clone()),
        }
    }

    /// What must be there before, with the revision that the metadata of a put name.
    pub(crate) fn expected(&self) -> Expected {
        match self {
            Self::Put {
                resource,
                expected: Expected::Any,
            } => resource.metadata.revision.map_or(Expected::Any, Expected::Revision),
            Self::Put { expected, .. } | Self::Delete { expected, .. } => *expected,
        }
    }
}
