//! How large requests of models may be, where an owner says so: less than a door takes.
//!
//! Owns the look-up by model, and what is known before the model is: the least bound of all, below which no request needs a look, and the
//! bound of a name, which for an endpoint is that of the arm that takes most. Refuses nothing itself.

use std::collections::HashMap;

use mesh_types::{ModelId, ModelVersionKey, TenantId};

use crate::snapshot::Target;

/// The bounds of all models that have one.
#[derive(Debug, Clone, Default)]
pub struct RequestBounds {
    least: Option<u64>,
    of: HashMap<TenantId, HashMap<ModelId, u64>>,
}

impl RequestBounds {
    /// Puts them together.
    pub fn new<'a>(bounds: impl IntoIterator<Item = (&'a TenantId, &'a ModelId, u64)>) -> Self {
        let mut all = Self::default();
        for (owner, model, bound) in bounds {
            all.least = Some(all.least.map_or(bound, |least| least.min(bound)));
            let of_owner = all.of.entry(owner.clone()).or_default();
            of_owner.insert(model.clone(), bound);
        }
        all
    }

    fn of_model(&self, owner: &TenantId, model: &ModelId) -> Option<u64> {
        self.of.get(owner)?.get(model).copied()
    }

    /// The most bytes that a request of this model may have.
    pub fn of(&self, key: &ModelVersionKey) -> Option<u64> {
        self.of_model(&key.tenant, &key.model)
    }

    /// Whether a request of so many bytes, or of nobody knows how many, may be too large for any model.
    pub fn may_refuse(&self, bytes: Option<u64>) -> bool {
        self.least.is_some_and(|least| bytes.is_none_or(|bytes| bytes > least))
    }

    /// The most bytes that a request of this name may have, whichever of its models answers.
    pub fn of_target(&self, target: &Target) -> Option<u64> {
        match target {
            Target::Model(model) => self.of_model(&model.owner, &model.model),
            Target::Endpoint(route) => {
                let arms = route.arms.iter();
                let bounds: Option<Vec<u64>> = arms
                    .map(|arm| self.of_model(&arm.model.owner, &arm.model.model))
                    .collect();
                bounds?.into_iter().max()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_all_says_what_needs_no_look() {
        let (acme, globex) = (TenantId::parse("acme").unwrap(), TenantId::parse("globex").unwrap());
        let (small, large) = (ModelId::parse("small").unwrap(), ModelId::parse("large").unwrap());
        let none = RequestBounds::default();
        assert!(!none.may_refuse(None) && !none.may_refuse(Some(u64::MAX)));
        let bounds = RequestBounds::new([(&acme, &large, 1_000), (&acme, &small, 10)]);
        assert!(!bounds.may_refuse(Some(10)) && bounds.may_refuse(Some(11)) && bounds.may_refuse(None));
        assert_eq!(bounds.of_model(&acme, &large), Some(1_000));
        // Another's model of that name has none.
        assert_eq!(bounds.of_model(&globex, &small), None);
    }
}
