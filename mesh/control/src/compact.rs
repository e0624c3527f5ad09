//! Tenants and keys as control keeps them: what requests follow from and no more, and what many have alike once.
//!
//! There is one of each for every tenant and key that was declared, beside what the snapshot has of them; everything else here is few. The
//! texts for people, and what only admins ask for, stay in the registry.
//!
//! Invariant: two declarations that read alike decide alike.

use std::sync::Arc;

use mesh_policies::{Scope, Scopes, SecretHash};
use mesh_resources::{ApiKeySpec, BudgetsSpec, Isolation, LimitsSpec, TenantSpec};

/// Limits that are looked at for one that was declared alike before; the rest have theirs to themselves.
const MAX_PLANS: usize = 16;

/// What a tenant's requests follow from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRecord {
    /// When its record was made, in microseconds since 1970.
    pub created: i64,
    /// Its part of a busy device, beside the others'.
    pub weight: u32,
    /// Whether its requests share batches with nobody's.
    pub isolated: bool,
    /// Whether all of them are refused.
    pub suspended: bool,
    /// What it may use; none: whatever there is.
    pub plan: Option<Arc<PlanRecord>>,
}

/// What a tenant may use, and each subject of its tokens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlanRecord {
    /// The tenant's.
    pub limits: LimitsSpec,
    /// The tenant's.
    pub budgets: BudgetsSpec,
    /// Each subject's.
    pub per_subject: LimitsSpec,
    /// Each subject's.
    pub per_subject_budgets: BudgetsSpec,
}

/// What lets a key's callers in, and what they may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// None where what was declared cannot be read: nobody gets in with it.
    pub hash: Option<SecretHash>,
    /// What it may be used for.
    pub scopes: Scopes,
    /// The tenant's groups that it is in.
    pub groups: Arc<[Arc<str>]>,
    /// The Unix second at which it ends.
    pub expires: Option<i64>,
    /// Whether it was taken back.
    pub revoked: bool,
    /// What its callers may use together; none: as much as the tenant.
    pub limits: Option<Box<LimitsSpec>>,
}

/// The plans that were declared last.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plans(Vec<Arc<PlanRecord>>);

impl Plans {
    /// The tenant, with a plan that it shares with others that were declared alike.
    pub(crate) fn tenant(&mut self, created: i64, spec: TenantSpec) -> TenantRecord {
        let plan = PlanRecord {
            limits: spec.limits,
            budgets: spec.budgets,
            per_subject: spec.per_subject,
            per_subject_budgets: spec.per_subject_budgets,
        };
        TenantRecord {
            created,
            weight: spec.weight,
            isolated: spec.isolation == Isolation::Isolated,
            suspended: spec.suspended,
            plan: (plan != PlanRecord::default()).then(|| self.alike(plan)),
        }
    }

    fn alike(&mut self, plan: PlanRecord) -> Arc<PlanRecord> {
        if let Some(known) = self.0.iter().find(|known| ***known == plan) {
            return known.clone();
        }
        if self.0.len() == MAX_PLANS {
            self.0.remove(0);
        }
        let plan = Arc::new(plan);
        self.0.push(plan.clone());
        plan
    }
}

impl From<ApiKeySpec> for KeyRecord {
    fn from(spec: ApiKeySpec) -> Self {
        Self {
            hash: spec.hash.parse().ok(),
            scopes: scopes(&spec.scopes),
            groups: spec.groups.iter().map(|group| group.as_str().into()).collect(),
            expires: spec.expires.map(|expires| expires.as_second()),
            revoked: spec.revoked,
            limits: (spec.limits != LimitsSpec::default()).then(|| Box::new(spec.limits)),
        }
    }
}

/// What a credential may be used for.
pub(crate) fn scopes(scopes: &[mesh_resources::Scope]) -> Scopes {
    let scopes = scopes.iter().map(|scope| match scope {
        mesh_resources::Scope::Infer => Scope::Infer,
    });
    scopes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(concurrency: u32) -> TenantSpec {
        let limits = LimitsSpec {
            concurrency: Some(concurrency),
            ..LimitsSpec::default()
        };
        TenantSpec {
            limits,
            ..TenantSpec::default()
        }
    }

    #[test]
    fn limits_that_were_declared_alike_are_there_once_among_so_many_and_no_more() {
        let mut plans = Plans::default();
        assert_eq!(plans.tenant(0, TenantSpec::default()).plan, None);
        let mut plan = |concurrency: u32| plans.tenant(0, tenant(concurrency)).plan.unwrap();
        let most = u32::try_from(MAX_PLANS).unwrap();
        let first = plan(1);
        (2..=most).for_each(|concurrency| drop(plan(concurrency)));
        assert!(Arc::ptr_eq(&first, &plan(1)));
        plan(most + 1);
        let again = plan(1);
        assert!(!Arc::ptr_eq(&first, &again) && first == again, "it has given way");
        assert_eq!(plans.0.len(), MAX_PLANS);
    }
}
