//! Many tenants with two keys each, of which each may call: what a request and a tenant cost is measured with them.
//!
//! Tenants have no limits (`none`), what tenants usually have (`usual`), or every limit and budget there is, on all four kinds of subjects
//! (`all`).

use std::{collections::BTreeMap, error::Error, hint::black_box, sync::Arc, time::Duration};

use mesh_policies::{
    ApiKeyEntry, Credentials, MeshSnapshot, ModelEntry, Pepper, Presented, Scope, Target, TenantEntry,
    access::generate_api_key,
    limits::{Alike, Budgets, Charge, Limiter, Limits, Marks, Rate, TenantLimits, Unit},
};
use mesh_types::{ModelId, SystemClock, TenantId, TenantShare};
use rand::{SeedableRng, rngs::StdRng};

const MANY: u64 = 1_000_000_000;
const PARTITION: Option<&str> = Some("cHsdsRa894xx");
/// Tenants that a model is granted.
const GRANTED: usize = 100;
/// Keys of each tenant.
pub(crate) const KEYS: usize = 2;

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

/// Tenants that are known.
pub(crate) struct Tenants {
    limiter: Limiter,
    snapshot: MeshSnapshot,
    model: (TenantId, ModelId),
    /// Their keys, each tenant's in a row.
    pub(crate) keys: Vec<String>,
    bytes_before: u64,
}

fn name(index: usize) -> Result<TenantId, Box<dyn Error>> {
    Ok(TenantId::parse(&format!("tenant-{index}"))?)
}

/// What they call: models that each so many are granted. To whom is the models' memory, and not the tenants'.
fn targets((owner, model): &(TenantId, ModelId), tenants: usize) -> Result<Vec<Target>, Box<dyn Error>> {
    (0..tenants)
        .step_by(GRANTED)
        .map(|first| {
            let grants: Result<_, _> = (first..tenants.min(first + GRANTED)).map(name).collect();
            Ok(Target::Model(Arc::new(ModelEntry {
                owner: owner.clone(),
                model: model.clone(),
                grants: Arc::new(grants?),
                versions: BTreeMap::new(),
                labels: BTreeMap::new(),
                default: None,
            })))
        })
        .collect()
}

impl Tenants {
    /// So many tenants of a kind, none of which has called.
    pub(crate) fn known(kind: &str, tenants: usize) -> Result<Self, Box<dyn Error>> {
        let model = (TenantId::parse("owner")?, ModelId::parse("m")?);
        let limiter = Limiter::new(Arc::new(SystemClock));
        let mut rng = StdRng::seed_from_u64(7);
        let pepper = Pepper::from_bytes([7; 32]);
        let scopes = std::iter::once(Scope::Infer).collect();
        let generated: Vec<_> = (0..tenants * KEYS)
            .map(|_| generate_api_key("live", &mut rng))
            .collect();
        let targets = targets(&model, tenants)?;
        let bytes_before = resident()?;
        let mut credentials = Credentials::new(pepper.clone());
        let mut entries = Vec::with_capacity(tenants);
        let mut alike = Alike::default();
        for (index, keys) in generated.chunks(KEYS).enumerate() {
            let id = name(index)?;
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
                created: 0,
                suspended: false,
                limits: match kind {
                    "all" => every_limit(&model.0, &model.1, &key),
                    "usual" => usual_limits(),
                    _ => TenantLimits::default(),
                }
                .alike(&mut alike),
                share: TenantShare::default(),
                targets: (targets
                    .get(index / GRANTED)
                    .cloned()
                    .map(|target| (model.1.to_string(), target)))
                .into_iter()
                .collect(),
            });
        }
        Ok(Self {
            limiter,
            snapshot: MeshSnapshot::new(1, credentials, entries),
            model,
            keys: generated.into_iter().map(|key| key.text).collect(),
            bytes_before,
        })
    }

    /// A request with this key: let in, found what it calls, told of and settled.
    pub(crate) fn ask(&self, key: &str) -> Result<(), Box<dyn Error>> {
        let charge = Charge {
            endpoint: Some("e"),
            model: (&self.model.0, &self.model.1),
            rows: 1,
            input_bytes: 120,
        };
        let now = self.limiter.now();
        let (principal, tenant) = self.snapshot.caller(Presented::Bearer(key), now.unix_seconds)?;
        let target = self.snapshot.callable(&principal, tenant, self.model.1.as_str());
        black_box(target.ok_or("its tenant may not call the model")?);
        let caller = self.limiter.caller(&tenant.id, &tenant.limits, (&principal).into())?;
        let admission = caller.admit(now)?.charge(&charge, now)?;
        if tenant.limits.is_limited() {
            black_box(admission.caller().notice(now));
        }
        if let Some(meter) = admission.meter() {
            meter.began();
            meter.ran(Duration::from_micros(20));
        }
        Ok(())
    }

    /// The bytes of resident memory that a tenant has taken once each has called.
    pub(crate) fn bytes_of_one(&self) -> Result<u64, Box<dyn Error>> {
        self.keys.iter().step_by(KEYS).try_for_each(|key| self.ask(key))?;
        let tenants = (self.keys.len() / KEYS).max(1) as u64;
        Ok(resident()?.saturating_sub(self.bytes_before) / tenants)
    }
}
