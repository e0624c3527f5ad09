//! What it costs a request to be let in: its API key, its limits, what its answer tells of them, and its bill; and what memory a tenant with
//! two keys takes.
//!
//! `limit_cost KIND TENANTS REQUESTS` makes so many tenants known and so many requests of some of them in turn, for callgrind to count: two
//! amounts of requests tell what one of them takes. Tenants have no limits (`none`), what tenants usually have (`usual`), or every limit and
//! budget there is, on all four kinds of subjects (`all`). With no requests every tenant calls once, and the bytes of resident memory that one
//! has taken are printed.
#![expect(clippy::print_stdout, reason = "the program's answer")]

use std::{collections::HashMap, error::Error, hint::black_box, time::Duration};

use mesh_policies::{
    ApiKeyEntry, Credentials, MeshSnapshot, Pepper, Presented, Scope, TenantEntry,
    access::generate_api_key,
    limits::{Alike, Budgets, Charge, Limiter, Limits, Marks, Rate, TenantLimits, Unit},
};
use mesh_types::{ModelId, SystemClock, TenantId, TenantShare};
use rand::{SeedableRng, rngs::StdRng};

const MANY: u64 = 1_000_000_000;
const PARTITION: Option<&str> = Some("cHsdsRa894xx");
const KEYS: usize = 2;
/// Tenants that call, of those that are known.
const CALLING: usize = 1_000;

fn every_limit(owner: &TenantId, model: &ModelId, key: &str) -> TenantLimits {
    let limits = Unit::ALL.into_iter().fold(
        Limits {
            concurrency: Some(1_000),
            queued_rows: Some(MANY),
            queued_bytes: Some(MANY),
            ..Limits::default()
        },
        |limits, unit| limits.with_rate(unit, Rate::new(MANY, MANY)),
    );
    let marks = Marks {
        soft: Some(MANY * MANY),
        hard: Some(MANY * MANY),
    };
    let budgets = Budgets {
        daily: [marks; 4],
        monthly: [marks; 4],
        shadow: false,
    };
    TenantLimits::new(limits, budgets, PARTITION)
        .with_key(key, limits, PARTITION)
        .with_endpoint("e", limits, PARTITION)
        .with_model(owner, model, limits, PARTITION)
}

/// Requests over time and at once, time of devices, and a budget of that for a month.
fn usual_limits() -> TenantLimits {
    let limits = Limits {
        concurrency: Some(1_000),
        ..Limits::default()
    };
    let limits = limits
        .with_rate(Unit::Requests, Rate::new(MANY, MANY))
        .with_rate(Unit::DeviceTime, Rate::new(MANY, MANY));
    let mut budgets = Budgets::default();
    if let Some(marks) = budgets.monthly.last_mut() {
        marks.hard = Some(MANY * MANY);
    }
    TenantLimits::new(limits, budgets, PARTITION)
}

/// Bytes of resident memory.
fn resident() -> Result<u64, Box<dyn Error>> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm")?
        .split(' ')
        .nth(1)
        .ok_or("no resident memory")?
        .parse()?;
    Ok(pages * 4_096)
}

/// What is known, and the keys of those who call: each tenant's in a row.
struct Known {
    snapshot: MeshSnapshot,
    keys: Vec<String>,
    bytes_before: u64,
}

fn known(kind: &str, tenants: usize, subject: (&TenantId, &ModelId)) -> Result<Known, Box<dyn Error>> {
    let mut rng = StdRng::seed_from_u64(7);
    let pepper = Pepper::from_bytes([7; 32]);
    let scopes = std::iter::once(Scope::Infer).collect();
    let generated: Vec<_> = (0..tenants * KEYS)
        .map(|_| generate_api_key("live", &mut rng))
        .collect();
    let bytes_before = resident()?;
    let mut credentials = Credentials::new(pepper.clone());
    let mut entries = Vec::with_capacity(tenants);
    let mut alike = Alike::default();
    for (index, keys) in generated.chunks(KEYS).enumerate() {
        let id = TenantId::parse(&format!("tenant-{index}"))?;
        for key in keys {
            credentials = credentials.with_key(ApiKeyEntry {
                id: key.id.clone(),
                tenant: id.clone(),
                hash: pepper.hash(&key.secret),
                scopes,
                expires: None,
                revoked: false,
                groups: Default::default(),
            });
        }
        let key = keys.first().map(|key| format!("key:{}", key.id)).unwrap_or_default();
        entries.push(TenantEntry {
            id,
            suspended: false,
            limits: match kind {
                "all" => every_limit(subject.0, subject.1, &key),
                "usual" => usual_limits(),
                _ => TenantLimits::default(),
            }
            .alike(&mut alike),
            share: TenantShare::default(),
            targets: HashMap::new(),
        });
    }
    Ok(Known {
        snapshot: MeshSnapshot::new(1, credentials, entries),
        keys: generated.into_iter().map(|key| key.text).collect(),
        bytes_before,
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_default();
    let mut number = |otherwise: usize| arguments.next().map_or(Ok(otherwise), |text| text.parse());
    let (tenants, requests) = (number(1)?, number(0)?);
    let limiter = Limiter::new(std::sync::Arc::new(SystemClock));
    let (owner, model) = (TenantId::parse("owner")?, ModelId::parse("m")?);
    let Known {
        snapshot,
        keys,
        bytes_before,
    } = known(&kind, tenants, (&owner, &model))?;
    let charge = Charge {
        endpoint: Some("e"),
        model: (&owner, &model),
        rows: 1,
        input_bytes: 120,
    };
    let ask = |key: &str| -> Result<(), Box<dyn Error>> {
        let now = limiter.now();
        let (principal, tenant) = snapshot.caller(Presented::Bearer(key), now.unix_seconds)?;
        let caller = limiter.caller(&tenant.id, &tenant.limits, (&principal).into())?;
        let admission = caller.admit(now)?.charge(&charge, now)?;
        if tenant.limits.is_limited() {
            black_box(admission.caller().notice(now));
        }
        if let Some(meter) = admission.meter() {
            meter.began();
            meter.ran(Duration::from_micros(20));
        }
        Ok(())
    };
    if requests == 0 {
        for key in keys.iter().step_by(KEYS) {
            ask(key)?;
        }
        println!("{}", resident()?.saturating_sub(bytes_before) / tenants.max(1) as u64);
        return Ok(());
    }
    // Of tenants far from each other; the first of their keys, which has limits of its own if any has.
    let apart = (tenants / CALLING).max(1) * KEYS;
    let calling: Vec<&String> = keys.iter().step_by(apart).collect();
    calling.iter().try_for_each(|key| ask(key))?;
    calling.iter().cycle().take(requests).try_for_each(|key| ask(key))
}
