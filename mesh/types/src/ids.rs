//! Identifiers as types, so that a tenant can never stand where a model is meant.
//!
//! Names are cheap to clone (`Arc<str>`) because one travels with every request. The grammar is the one of resource names:
//! `[a-z0-9]([-a-z0-9_.]*[a-z0-9])?`, at most [`MAX_NAME_BYTES`] bytes. A value of these types has always passed it.

use std::{fmt, num::NonZeroU32, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name, in bytes: that of a DNS label.
pub const MAX_NAME_BYTES: usize = 63;

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid {what} name '{text}': a name is 1 to 63 of a-z, 0-9, '-', '_' and '.', and starts and ends with a letter or digit"
)]
pub struct NameError {
    what: &'static str,
    text: String,
}

fn check_name(what: &'static str, text: &str) -> Result<(), NameError> {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let well_formed = bytes.len() <= MAX_NAME_BYTES
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes
            .iter()
            .all(|byte| alphanumeric(byte) || matches!(byte, b'-' | b'_' | b'.'));
    if well_formed {
        return Ok(());
    }
    // The text came from outside and may be long: keep the message short.
    let text = text.chars().take(MAX_NAME_BYTES + 1).collect();
    Err(NameError { what, text })
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the grammar of names.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check_name($what, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl From<$name> for Arc<str> {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        // Lets a map keyed by this type be asked with text from the wire, without an allocation.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type!(
    /// A tenant: the owner of models and endpoints, and the party that is billed, limited and kept apart.
    TenantId,
    "tenant"
);
name_type!(
    /// A model within its owner's namespace.
    ModelId,
    "model"
);
name_type!(
    /// An endpoint: the name that tenants call, within their namespace.
    EndpointId,
    "endpoint"
);
name_type!(
    /// The public half of an API key.
    KeyId,
    "key"
);
name_type!(
    /// A movable name for a version of a model, such as `stable`.
    Label,
    "label"
);

/// The number of a model version: 1 and up, as in a Triton model repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(NonZeroU32);

/// Why a text or number is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid model version '{0}': a version is a whole number from 1 to 4294967295")]
pub struct VersionError(String);

impl Version {
    /// The first version of a model.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// A version from its number; 0 is refused.
    pub fn new(number: u32) -> Result<Self, VersionError> {
        NonZeroU32::new(number)
            .map(Self)
            .ok_or_else(|| VersionError("0".to_owned()))
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The version after this one, or none after the last.
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Version {
    type Err = VersionError;
    fn from_str(text: &str) -> Result<Self, VersionError> {
        // `parse` would also take "+1"; versions in paths are digits only.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.then(|| text.parse::<NonZeroU32>().ok()).flatten();
        number
            .map(Self)
            .ok_or_else(|| VersionError(text.chars().take(MAX_NAME_BYTES).collect()))
    }
}

/// Which version of a model a caller or a route means.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionSelector {
    /// The endpoint's split, or the model's default version.
    #[default]
    Default,
    /// Exactly this one.
    Version(Version),
    /// The one the label points to now.
    Label(Label),
}

impl VersionSelector {
    /// Reads the part of a path after `/versions/`: digits are a number, anything else is a label.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if let Ok(version) = text.parse() {
            return Ok(Self::Version(version));
        }
        Label::parse(text).map(Self::Label)
    }
}

/// One version of one model of one tenant: what is loaded, batched together and measured.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelVersionKey {
    /// The owner.
    pub tenant: TenantId,
    /// The model.
    pub model: ModelId,
    /// Its version.
    pub version: Version,
}

impl fmt::Display for ModelVersionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.model, self.version)
    }
}

/// What kind of hardware a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Host processors.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// One device of this machine, written `cpu:0` or `cuda:1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    /// The kind.
    pub kind: DeviceKind,
    /// Its index among those of its kind.
    pub index: u16,
}

/// Why a text is no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid device '{0}': write cpu:0 or cuda:0")]
pub struct DeviceIdError(String);

impl DeviceId {
    /// The CPU device with this index.
    pub const fn cpu(index: u16) -> Self {
        Self {
            kind: DeviceKind::Cpu,
            index,
        }
    }

    /// The CUDA device with this index.
    pub const fn cuda(index: u16) -> Self {
        Self {
            kind: DeviceKind::Cuda,
            index,
        }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Cuda => "cuda",
        };
        write!(f, "{kind}:{}", self.index)
    }
}

impl FromStr for DeviceId {
    type Err = DeviceIdError;
    fn from_str(text: &str) -> Result<Self, DeviceIdError> {
        let parsed = text.split_once(':').and_then(|(kind, index)| {
            let index = index.parse().ok()?;
            match kind {
                "cpu" => Some(Self::cpu(index)),
                "cuda" => Some(Self::cuda(index)),
                _ => None,
            }
        });
        parsed.ok_or_else(|| DeviceIdError(text.chars().take(MAX_NAME_BYTES).collect()))
    }
}

impl Serialize for DeviceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The mesh's own number for a request, in logs, traces and the `x-request-id` header. Not the client's `id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_63_bytes_pass_and_of_64_do_not() {
        assert!(TenantId::parse(&"a".repeat(63)).is_ok());
        assert!(TenantId::parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn names_start_and_end_with_a_letter_or_digit() {
        for good in ["a", "0", "a-b", "a.b_c-9", "resnet50.v2"] {
            assert!(ModelId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", ".", "A", "a b", "a/b", "ä", "a\0"] {
            assert!(ModelId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn versions_are_digits_from_one() {
        assert_eq!("7".parse::<Version>().map(Version::get), Ok(7));
        for bad in ["0", "+1", "-1", "", "1.0", "4294967296"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }

    #[test]
    fn selectors_tell_numbers_from_labels() {
        assert_eq!(
            VersionSelector::parse("2"),
            Ok(VersionSelector::Version(Version::new(2).unwrap()))
        );
        assert_eq!(
            VersionSelector::parse("stable"),
            Ok(VersionSelector::Label(Label::parse("stable").unwrap()))
        );
        assert!(VersionSelector::parse("No Such").is_err());
    }

    #[test]
    fn devices_read_back_as_written() {
        for device in [DeviceId::cpu(0), DeviceId::cuda(3)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        assert!("gpu:0".parse::<DeviceId>().is_err());
    }
}
