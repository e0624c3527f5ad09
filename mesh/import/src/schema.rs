//! What a Triton model configuration (`ModelConfig` of model_config.proto) can say, and what becomes of each field.
//!
//! Owns the vocabulary of the tables in [`tables`]: a rule per field with its kind, and whether the mesh takes it, ignores it
//! with a word, or refuses the model for it. `read` walks a text along them. What is taken has the same name in
//! [`mesh_types::ModelConfig`], or is looked at by this crate.

pub(crate) mod tables;

/// What a field holds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Bool,
    /// A whole number within the bounds.
    Number(i128, i128),
    /// A number with a fraction.
    Real,
    Text,
    /// One of these; by its place as well.
    Choice(&'static [&'static str]),
    Message(&'static [Rule]),
    /// Messages of a key and a value; by texts.
    ByText(&'static Kind),
    /// The same by numbers.
    ByNumber(&'static Kind),
}

pub(crate) const INT32: Kind = Kind::Number(-(1 << 31), (1 << 31) - 1);
pub(crate) const INT64: Kind = Kind::Number(-(1 << 63), (1 << 63) - 1);
/// Sizes and counts: what is negative is wrong, and the mesh counts to 2^32.
pub(crate) const COUNT: Kind = Kind::Number(0, (1 << 32) - 1);
pub(crate) const UINT64: Kind = Kind::Number(0, (1 << 64) - 1);

/// How often a field stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// At most once.
    Once,
    /// Exactly once.
    Needed,
    /// As often as one likes.
    Many,
    /// The same, and the mesh wants to see an empty list.
    List,
}

/// What becomes of a field that says something else than its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The mesh has it.
    Taken,
    /// It has no meaning here, and nothing is lost.
    Quiet,
    /// It changes nothing; why.
    Ignored(&'static str),
    /// The model would not be what it says; what to do.
    Refused(&'static str),
}

/// A field.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) times: Times,
    pub(crate) fate: Fate,
}

pub(crate) const fn taken(name: &'static str, kind: Kind) -> Rule {
    Rule {
        name,
        kind,
        times: Times::Once,
        fate: Fate::Taken,
    }
}

pub(crate) const fn needed(name: &'static str, kind: Kind) -> Rule {
    Rule {
        times: Times::Needed,
        ..taken(name, kind)
    }
}

pub(crate) const fn many(name: &'static str, kind: Kind) -> Rule {
    Rule {
        times: Times::Many,
        ..taken(name, kind)
    }
}

pub(crate) const fn list(name: &'static str, kind: Kind) -> Rule {
    Rule {
        times: Times::List,
        ..taken(name, kind)
    }
}

impl Rule {
    pub(crate) const fn quiet(self) -> Self {
        Self {
            fate: Fate::Quiet,
            ..self
        }
    }

    pub(crate) const fn ignored(self, why: &'static str) -> Self {
        Self {
            fate: Fate::Ignored(why),
            ..self
        }
    }

    pub(crate) const fn refused(self, right: &'static str) -> Self {
        Self {
            fate: Fate::Refused(right),
            ..self
        }
    }
}
