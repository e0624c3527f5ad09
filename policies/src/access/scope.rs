//! What a credential may be used for.

use std::fmt;

/// A right that a credential carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// To call models and endpoints.
    Infer,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 1] = [Self::Infer];

    /// The name in keys and tokens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Infer => "infer",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Infer => 1,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The scopes of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// No right at all.
    pub const NONE: Self = Self(0);

    /// Whether the scope is among them.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}
