//! Records that have followed changes are those that are read anew, and what is compiled of them is what is compiled from nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_policies::{GeneratedKey, Pepper, Presented, Target, TenantEntry, generate_api_key, hash_secret};
use mesh_registry::Changes;
use mesh_resources::{Resource, ResourceKey};
use proptest::prelude::*;

use crate::{Compiled, FleetReport, Records, samples::*};

const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
const MODELS: [&str; 2] = ["m", "n"];
const KEYS: usize = 5;

/// One write, of a small world.
#[derive(Debug, Clone)]
enum Op {
    Tenant(usize, u32, bool),
    NoTenant(usize),
    Key(usize, usize, bool, bool),
    NoKey(usize, usize),
    Model(usize, usize, Vec<usize>, u32, bool),
    NoModel(usize, usize),
    Version(usize, usize, u32, bool, u8),
    NoVersion(usize, usize, u32),
    Endpoint(usize, usize, u32, bool),
    NoEndpoint(usize),
    Certificate(usize, bool),
    NoCertificate(usize),
    Issuer(bool),
    NoIssuer,
    Policy(bool),
}

fn op() -> impl Strategy<Value = Op> {
    let (tenant, model, key, number) = (0..TENANTS.len(), 0..MODELS.len(), 0..KEYS, 1_u32..4);
    let whose = (tenant.clone(), model);
    prop_oneof![
        3 => (tenant.clone(), 1_u32..4, any::<bool>()).prop_map(|(t, w, s)| Op::Tenant(t, w, s)),
        1 => tenant.clone().prop_map(Op::NoTenant),
        4 => (tenant.clone(), key.clone(), any::<bool>(), any::<bool>()).prop_map(|(t, k, r, l)| Op::Key(t, k, r, l)),
        2 => (tenant.clone(), key).prop_map(|(t, k)| Op::NoKey(t, k)),
        3 => (whose.clone(), prop::collection::vec(tenant.clone(), 0..3), number.clone(), any::<bool>())
            .prop_map(|((t, m), grants, n, l)| Op::Model(t, m, grants, n, l)),
        1 => whose.clone().prop_map(|(t, m)| Op::NoModel(t, m)),
        4 => (whose.clone(), number.clone(), any::<bool>(), 0_u8..3).prop_map(|((t, m), n, u, d)| Op::Version(t, m, n, u, d)),
        1 => (whose.clone(), number.clone()).prop_map(|((t, m), n)| Op::NoVersion(t, m, n)),
        3 => (whose, number, any::<bool>()).prop_map(|((t, m), n, c)| Op::Endpoint(t, m, n, c)),
        1 => tenant.clone().prop_map(Op::NoEndpoint),
        1 => (tenant.clone(), any::<bool>()).prop_map(|(t, r)| Op::Certificate(t, r)),
        1 => tenant.prop_map(Op::NoCertificate),
        1 => any::<bool>().prop_map(Op::Issuer),
        1 => Just(Op::NoIssuer),
        1 => any::<bool>().prop_map(Op::Policy),
    ]
}

fn resource(text: &str) -> Resource {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn declared(kind: &str, tenant: Option<&str>, name: &str, spec: &str) -> Resource {
    let tenant = tenant
        .map(|tenant| format!(r#""tenant":"{tenant}","#))
        .unwrap_or_default();
    resource(&format!(
        r#"{{"apiVersion":"mesh/v1","kind":"{kind}","metadata":{{{tenant}"name":"{name}"}},"spec":{spec}}}"#
    ))
}

/// What was declared, and the keys that callers may show.
struct World {
    shown: Vec<GeneratedKey>,
    declared: BTreeMap<String, Resource>,
}

impl World {
    fn new() -> Self {
        Self {
            shown: (0..KEYS).map(|_| generate_api_key("live", &mut rand::rng())).collect(),
            declared: BTreeMap::new(),
        }
    }

    fn written(&self, op: &Op) -> Resource {
        let limits = r#"{"concurrency":3}"#;
        match op {
            Op::Tenant(at, weight, suspended) => declared(
                "Tenant",
                None,
                TENANTS[*at],
                &format!(r#"{{"weight":{weight},"suspended":{suspended},"limits":{{"concurrency":{weight}}}}}"#),
            ),
            Op::Key(at, key, revoked, limited) => {
                let shown = &self.shown[*key];
                let hash = hash_secret(&Pepper::from_bytes([7; 32]), &shown.secret);
                let limits = if *limited { limits } else { "{}" };
                let spec = format!(r#"{{"hash":"{hash}","scopes":["infer"],"revoked":{revoked},"limits":{limits}}}"#);
                declared("ApiKey", Some(TENANTS[*at]), shown.id.as_str(), &spec)
            }
            Op::Model(at, model, grants, number, limited) => {
                let grants: BTreeSet<&str> = grants.iter().map(|grant| TENANTS[*grant]).collect();
                let grants = Vec::from_iter(grants);
                let limits = if *limited { limits } else { "{}" };
                let spec = format!(
                    r#"{{"labels":{{"stable":{number}}},"grants":{grants:?},"limits":{limits},"version_policy":{{"latest":{{"num_versions":{number}}}}}}}"#
                );
                declared("Model", Some(TENANTS[*at]), MODELS[*model], &spec)
            }
            Op::Version(at, model, number, unloaded, digit) => a_version_of(
                &format!("{}/{}/{number}", TENANTS[*at], MODELS[*model]),
                *unloaded,
                *digit,
            ),
            other => Self::written_beside(other),
        }
    }

    fn written_beside(op: &Op) -> Resource {
        let limits = r#"{"concurrency":3}"#;
        match op {
            Op::Endpoint(at, model, number, cached) => {
                let cache = if *cached { r#","cache":{"ttl_seconds":5}"# } else { "" };
                let spec = format!(
                    r#"{{"arms":[{{"name":"a","model":"{}","version":{number},"weight":100}}],"limits":{limits}{cache}}}"#,
                    MODELS[*model]
                );
                declared("Endpoint", Some(TENANTS[*at]), "front", &spec)
            }
            Op::Certificate(at, revoked) => {
                let spec = format!(
                    r#"{{"identity":{{"dns":"a.{}"}},"scopes":["infer"],"revoked":{revoked}}}"#,
                    TENANTS[*at]
                );
                declared("ClientCertificate", Some(TENANTS[*at]), "cert", &spec)
            }
            Op::Issuer(wide) => {
                let audiences = if *wide { r#"["mesh","more"]"# } else { r#"["mesh"]"# };
                let spec = format!(
                    r#"{{"issuer":"https://sso.example","audiences":{audiences},"tenants":{{"tenant":"acme"}},"jwks":{{}}}}"#
                );
                declared("Issuer", None, "sso", &spec)
            }
            Op::Policy(strict) => {
                let principal = if *strict {
                    "principal"
                } else {
                    "principal in Mesh::Tenant::\\\"acme\\\""
                };
                let cedar = format!(r#"{{"cedar":"permit ({principal}, action, resource);"}}"#);
                declared("Policy", None, "rule", &cedar)
            }
            _ => unreachable!("nothing is written"),
        }
    }

    fn key_of(&self, op: &Op) -> ResourceKey {
        let text = match op {
            Op::NoTenant(at) => format!("Tenant/{}", TENANTS[*at]),
            Op::NoKey(at, key) => format!("ApiKey/{}/{}", TENANTS[*at], self.shown[*key].id),
            Op::NoModel(at, model) => format!("Model/{}/{}", TENANTS[*at], MODELS[*model]),
            Op::NoVersion(at, model, number) => format!("ModelVersion/{}/{}/{number}", TENANTS[*at], MODELS[*model]),
            Op::NoEndpoint(at) => format!("Endpoint/{}/front", TENANTS[*at]),
            Op::NoCertificate(at) => format!("ClientCertificate/{}/cert", TENANTS[*at]),
            Op::NoIssuer => "Issuer/sso".to_owned(),
            written => return self.written(written).key().unwrap(),
        };
        text.parse().unwrap()
    }

    fn apply(&mut self, revision: u64, ops: &[Op]) -> Changes {
        let keys: BTreeMap<String, ResourceKey> = ops
            .iter()
            .map(|op| {
                let key = self.key_of(op);
                match op {
                    Op::NoTenant(_)
                    | Op::NoKey(..)
                    | Op::NoModel(..)
                    | Op::NoVersion(..)
                    | Op::NoEndpoint(_)
                    | Op::NoCertificate(_)
                    | Op::NoIssuer => drop(self.declared.remove(&key.to_string())),
                    written => drop(self.declared.insert(key.to_string(), self.written(written))),
                }
                (key.to_string(), key)
            })
            .collect();
        let mut changes = Changes {
            revision,
            ..Changes::default()
        };
        for (text, key) in keys {
            match self.declared.get(&text) {
                Some(resource) => changes.written.push(resource.clone()),
                None => changes.gone.push(key),
            }
        }
        changes
    }

    /// All that can be told of what was compiled, in an order of its own.
    fn told(&self, compiled: &Compiled) -> Vec<String> {
        let tenant = |entry: &TenantEntry| {
            let targets: BTreeMap<&String, &Target> = entry.targets.iter().collect();
            format!(
                "{} {} {} {:?} {:?} {targets:?}",
                entry.id, entry.created, entry.suspended, entry.share, entry.limits
            )
        };
        let mut told: Vec<String> = compiled.snapshot.tenants().map(|entry| tenant(entry)).collect();
        told.sort();
        let credentials = &compiled.snapshot.credentials;
        told.push(format!("{credentials:?} {:?}", compiled.routed));
        told.extend(self.shown.iter().map(|key| {
            let who = credentials.authenticate(Presented::Bearer(&key.text), 0);
            format!("{:?}", who.map(|who| (who.tenant, who.subject, who.scopes, who.groups)))
        }));
        told
    }
}

/// The same without what it knows of how it came about.
fn plain(records: &Records) -> String {
    let mut records = records.clone();
    (records.since, records.plans) = Default::default();
    format!("{records:?}")
}

fn reported(bits: u32) -> FleetReport {
    let mut all = Vec::new();
    for (at, tenant) in TENANTS.iter().enumerate() {
        for (index, model) in MODELS.iter().enumerate() {
            for number in 1..4 {
                if bits >> (at * 6 + index * 3 + number - 1) & 1 == 1 {
                    all.push(format!("{tenant}/{model}/{number}"));
                }
            }
        }
    }
    ready(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn what_follows_changes_is_what_is_compiled_from_nothing(
        steps in prop::collection::vec((prop::collection::vec(op(), 0..5), any::<u32>(), any::<bool>()), 1..25)
    ) {
        let mut world = World::new();
        let (mut followed, mut one, mut other) = (Records::default(), Compiled::default(), Compiled::default());
        let mut bits = 0;
        for (revision, (ops, more, moves)) in (1..).zip(&steps) {
            let changes = world.apply(revision, ops);
            let anew = Records::index(revision, world.declared.values().cloned());
            prop_assert!(followed.follow(changes));
            prop_assert_eq!(plain(&followed), plain(&anew));
            if *moves {
                bits = *more;
            }
            let report = reported(bits);
            one = compiled(&followed, &report, &one);
            other = compiled(&anew, &report, &other);
            prop_assert_eq!(world.told(&one), world.told(&other));
            // The devices say something else, and the records are the same.
            let report = reported(bits.rotate_left(5));
            one = compiled(&followed, &report, &one);
            other = compiled(&anew, &report, &other);
            prop_assert_eq!(world.told(&one), world.told(&other));
        }
    }
}

#[test]
fn a_key_that_is_revoked_costs_nothing_of_other_keys_and_tenants() {
    let mut world = World::new();
    let mut records = Records::default();
    let ops: Vec<Op> = (0..3)
        .map(|at| Op::Tenant(at, 1, false))
        .chain((0..KEYS).map(|key| Op::Key(key % 3, key, false, true)))
        .chain([Op::Model(0, 0, vec![1], 1, true), Op::Version(0, 0, 1, false, 0)])
        .collect();
    let first = world.apply(1, &ops);
    records.follow(first);
    let report = ready(&["acme/m/1"]);
    let before = compiled(&records, &report, &Compiled::default());
    let principal = |compiled: &Compiled, key: usize| {
        let credentials = &compiled.snapshot.credentials;
        credentials.authenticate(Presented::Bearer(&world.shown[key].text), 0)
    };
    let numbers: Vec<_> = (0..KEYS).map(|key| principal(&before, key).unwrap().id).collect();
    let revoked = world.written(&Op::Key(0, 0, true, true));
    assert!(records.follow(Changes {
        revision: 2,
        written: vec![revoked],
        gone: Vec::new()
    }));
    let after = compiled(&records, &report, &before);
    assert!(principal(&after, 0).is_err());
    // A principal's number is drawn when its key is read.
    for (key, number) in numbers.iter().enumerate().skip(1) {
        assert_eq!(principal(&after, key).unwrap().id, *number);
    }
    let same = |name: &str| {
        let entry = |compiled: &Compiled| compiled.snapshot.tenant(name).unwrap().clone();
        Arc::ptr_eq(&entry(&before), &entry(&after))
    };
    assert_eq!(TENANTS.map(same), [false, true, true]);
    // Nor does a device's report cost those that have nothing on it.
    let reported = compiled(&records, &ready(&[]), &after);
    let entry = |compiled: &Compiled, name: &str| compiled.snapshot.tenant(name).unwrap().clone();
    let same = |name: &str| Arc::ptr_eq(&entry(&after, name), &entry(&reported, name));
    assert_eq!(TENANTS.map(same), [false, false, true]);
    // From nothing, every key is read.
    records.since = None;
    let anew = compiled(&records, &report, &before);
    assert!((1..KEYS).all(|key| principal(&anew, key).unwrap().id != numbers[key]));
}

#[test]
fn a_models_limits_reach_all_who_may_call_it_though_nothing_else_of_it_changes() {
    let mut world = World::new();
    let mut records = Records::default();
    let ops = [
        Op::Tenant(0, 1, false),
        Op::Tenant(1, 1, false),
        Op::Model(0, 0, vec![1], 1, false),
    ];
    records.follow(world.apply(1, &ops));
    let before = compiled(&records, &ready(&[]), &Compiled::default());
    assert!(records.follow(world.apply(2, &[Op::Model(0, 0, vec![1], 1, true)])));
    let after = compiled(&records, &ready(&[]), &before);
    let limits = |compiled: &Compiled, name: &str| format!("{:?}", compiled.snapshot.tenant(name).unwrap().limits);
    for name in ["acme", "globex"] {
        assert_ne!(limits(&before, name), limits(&after, name), "{name}");
    }
    // Who may call it no more is rid of them.
    assert!(records.follow(world.apply(3, &[Op::Model(0, 0, vec![], 1, true)])));
    let last = compiled(&records, &ready(&[]), &after);
    assert_eq!(limits(&last, "globex"), limits(&before, "globex"));
}
