//! Bounded label values: a set that admits the first N distinct texts and calls all others `other`.
//!
//! Labels come from names that tenants choose, and every distinct value costs memory here and in whatever scrapes us.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// What stands for every value past the bound.
pub const OTHER: &str = "other";

/// A label value that is cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LabelText(pub(crate) Arc<str>);

impl EncodeLabelValue for LabelText {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

impl From<&str> for LabelText {
    fn from(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

/// The tenant in front of a name of two parts, as models, endpoints and certificates have.
pub(crate) fn owner(name: &str) -> &str {
    name.split_once('/').map_or("", |(owner, _)| owner)
}

/// Words of our own that were labels, by which what was counted under them is found again.
#[derive(Debug, Default)]
pub(crate) struct Words(RwLock<BTreeSet<&'static str>>);

impl Words {
    pub(crate) fn note(&self, word: &'static str) {
        if !self.0.read().contains(word) {
            self.0.write().insert(word);
        }
    }

    pub(crate) fn all(&self) -> Vec<&'static str> {
        self.0.read().iter().copied().collect()
    }
}

/// The values seen so far, at most `bound` of them.
#[derive(Debug)]
pub(crate) struct BoundedLabels {
    bound: usize,
    seen: RwLock<HashSet<Arc<str>>>,
    other: Arc<str>,
}

impl BoundedLabels {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            bound,
            seen: RwLock::default(),
            other: Arc::from(OTHER),
        }
    }

    /// Whether this value is one of those.
    pub(crate) fn knows(&self, value: &str) -> bool {
        self.seen.read().contains(value)
    }

    /// Forgets these values; there is room for others again.
    pub(crate) fn forget(&self, is_gone: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        self.seen.write().extract_if(|value| is_gone(value)).collect()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.seen.read().len()
    }

    /// The value itself while there is room, `other` after that.
    pub(crate) fn admit(&self, value: &str) -> LabelText {
        if let Some(known) = self.seen.read().get(value) {
            return LabelText(known.clone());
        }
        let mut seen = self.seen.write();
        if let Some(known) = seen.get(value) {
            return LabelText(known.clone());
        }
        if seen.len() >= self.bound {
            return LabelText(self.other.clone());
        }
        let value: Arc<str> = Arc::from(value);
        seen.insert(value.clone());
        LabelText(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_value_is_kept_and_the_one_after_is_other() {
        let labels = BoundedLabels::new(2);
        assert_eq!(&*labels.admit("a").0, "a");
        assert_eq!(&*labels.admit("b").0, "b");
        assert_eq!(&*labels.admit("c").0, OTHER);
        assert_eq!(&*labels.admit("a").0, "a");
    }
}
