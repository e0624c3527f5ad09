//! Limits of a tenant, and of its keys, tokens' subjects, endpoints and models, as the router checks them.
//!
//! What is limited gets a word that tells callers which quotas are one: opaque, and the same after every compilation.

use std::collections::{BTreeMap, BTreeSet};

use mesh_policies::{
    Pepper,
    limits::{Alike, Budgets, Limits, Marks, Rate, TenantLimits, Unit},
};
use mesh_resources::{BudgetSpec, BudgetsSpec, Enforce, LimitsSpec, MarksSpec, RateSpec};
use mesh_types::TenantId;

use crate::{
    compact::{PlanRecord, TenantRecord},
    records::Records,
};

/// Tenants' limits, with those of their keys and endpoints and of the models that they may call: of all tenants, or only of those that
/// are named.
pub(crate) fn of_tenants(
    records: &Records,
    pepper: &Pepper,
    only: Option<&BTreeSet<TenantId>>,
) -> BTreeMap<TenantId, TenantLimits> {
    let own = |(tenant, record): (&TenantId, &TenantRecord)| {
        let plan = record.plan.as_deref();
        (
            tenant.clone(),
            plan.map_or_else(TenantLimits::default, |plan| of_tenant(pepper, tenant, plan)),
        )
    };
    let mut all: BTreeMap<TenantId, TenantLimits> = match only {
        None => records.tenants.iter().map(own).collect(),
        Some(only) => {
            let there = only.iter().filter_map(|tenant| records.tenants.get_key_value(tenant));
            there.map(own).collect()
        }
    };
    let mut add =
        |tenant: &TenantId, name: &str, spec: &LimitsSpec, add: &dyn Fn(TenantLimits, Limits, &str) -> TenantLimits| {
            if *spec != LimitsSpec::default()
                && let Some(known) = all.get_mut(tenant)
            {
                let partition = pepper.opaque(&format!("{name} of {tenant}"));
                *known = add(std::mem::take(known), limits(spec), &partition);
            }
        };
    for ((tenant, key), record) in &records.keys {
        let Some(spec) = &record.limits else { continue };
        let credential = format!("key:{key}");
        add(tenant, &credential, spec, &|all, limits, partition| {
            all.with_key(&credential, limits, Some(partition))
        });
    }
    for ((tenant, endpoint), spec) in &records.endpoints {
        add(
            tenant,
            &format!("endpoint {endpoint}"),
            &spec.limits,
            &|all, limits, partition| all.with_endpoint(endpoint.as_str(), limits, Some(partition)),
        );
    }
    for ((owner, model), record) in &records.models {
        for tenant in std::iter::once(owner).chain(&record.spec.grants) {
            let name = format!("model {owner}/{model}");
            add(tenant, &name, &record.spec.limits, &|all, limits, partition| {
                all.with_model(owner, model, limits, Some(partition))
            });
        }
    }
    // Most tenants have one of a few plans.
    let mut alike = Alike::default();
    all.into_iter()
        .map(|(tenant, limits)| (tenant, limits.alike(&mut alike)))
        .collect()
}

fn of_tenant(pepper: &Pepper, tenant: &TenantId, spec: &PlanRecord) -> TenantLimits {
    let own = if spec.limits == LimitsSpec::default() && spec.budgets == BudgetsSpec::default() {
        TenantLimits::default()
    } else {
        let partition = pepper.opaque(&format!("tenant {tenant}"));
        TenantLimits::new(limits(&spec.limits), budgets(&spec.budgets), Some(&partition))
    };
    if spec.per_subject == LimitsSpec::default() && spec.per_subject_budgets == BudgetsSpec::default() {
        return own;
    }
    own.with_token_subjects(limits(&spec.per_subject), budgets(&spec.per_subject_budgets))
}

fn limits(spec: &LimitsSpec) -> Limits {
    let rate = |rate: RateSpec, unit: Unit| {
        let counted = |number: u64| number.saturating_mul(unit.per_shown());
        Rate::new(counted(rate.per_second), counted(rate.burst))
    };
    let rates = [
        (spec.requests, Unit::Requests),
        (spec.rows, Unit::Rows),
        (spec.input_bytes, Unit::InputBytes),
        (spec.device_ms, Unit::DeviceTime),
    ];
    Limits {
        rates: rates.map(|(spec, unit)| spec.map(|spec| rate(spec, unit))),
        concurrency: spec.concurrency,
        queued_rows: spec.queued_rows,
        queued_bytes: spec.queued_bytes,
        shadow: spec.enforce == Enforce::Shadow,
    }
}

fn budgets(spec: &BudgetsSpec) -> Budgets {
    let marks = |spec: Option<MarksSpec>, unit: Unit| {
        let counted = |mark: Option<u64>| mark.map(|mark| mark.saturating_mul(unit.per_shown()));
        let spec = spec.unwrap_or_default();
        Marks {
            soft: counted(spec.soft),
            hard: counted(spec.hard),
        }
    };
    let window = |spec: &BudgetSpec| {
        [
            marks(spec.requests, Unit::Requests),
            marks(spec.rows, Unit::Rows),
            marks(spec.input_bytes, Unit::InputBytes),
            marks(spec.device_ms, Unit::DeviceTime),
        ]
    };
    Budgets {
        daily: window(&spec.daily),
        monthly: window(&spec.monthly),
        shadow: spec.enforce == Enforce::Shadow,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::samples::{a_model, a_tenant, records};

    #[test]
    fn what_is_declared_in_milliseconds_is_counted_in_microseconds() {
        let spec: LimitsSpec = serde_json::from_value(json!({
            "enforce": "shadow", "device_ms": {"per_second": 100, "burst": 5}, "rows": {"per_second": 3, "burst": 4},
            "queued_rows": 9,
        }))
        .unwrap();
        let limits = limits(&spec);
        assert!(limits.shadow);
        assert_eq!(limits.rate(Unit::DeviceTime), Some(Rate::new(100_000, 5_000)));
        assert_eq!(limits.rate(Unit::Rows), Some(Rate::new(3, 4)));
        assert_eq!((limits.rate(Unit::Requests), limits.queued_rows), (None, Some(9)));
        let spec: BudgetsSpec =
            serde_json::from_value(json!({"monthly": {"device_ms": {"soft": 1, "hard": 2}}})).unwrap();
        let marks = Marks {
            soft: Some(1_000),
            hard: Some(2_000),
        };
        assert_eq!(budgets(&spec).monthly[Unit::DeviceTime as usize], marks);
    }

    #[test]
    fn budgets_of_each_subject_are_limits_even_where_there_are_no_others() {
        let mut spec = PlanRecord::default();
        let of = |spec: &PlanRecord| of_tenant(&Pepper::default(), &TenantId::parse("acme").unwrap(), spec);
        assert!(!of(&spec).is_limited());
        spec.per_subject_budgets = serde_json::from_value(json!({"daily": {"requests": {"soft": 1}}})).unwrap();
        assert!(of(&spec).is_limited());
    }

    #[test]
    fn a_models_limits_are_those_of_each_tenant_that_may_call_it() {
        let mut model = a_model("acme", "m", &[], &["globex"]);
        if let mesh_resources::Spec::Model(spec) = &mut model.spec {
            spec.limits.concurrency = Some(1);
        }
        let records = records(1, &[a_tenant("acme"), a_tenant("globex"), a_tenant("other"), model]);
        let all = of_tenants(&records, &Pepper::default(), None);
        let limited = |name: &str| all[name].is_limited();
        assert!(limited("acme") && limited("globex") && !limited("other"));
    }
}
