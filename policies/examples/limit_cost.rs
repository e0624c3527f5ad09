//! What limits cost a request: let in, charged, told of in its answer, run and settled, with every limit and budget set, and with none.
//!
//! `limit_cost KIND TENANTS REQUESTS` does that so many times over tenants in turn, for callgrind to count: two amounts of requests tell
//! what one of them takes. Prints how many bytes of memory a tenant has taken, by the process' resident memory.
#![expect(clippy::print_stdout, reason = "the program's answer")]

use std::{error::Error, hint::black_box, sync::Arc, time::Duration};

use mesh_policies::limits::{Budgets, Charge, Limiter, Limits, Marks, Rate, TenantLimits, Unit};
use mesh_types::{ModelId, SystemClock, TenantId};

const KEY: &str = "key:k";
const MANY: u64 = 1_000_000_000;

fn every_limit(owner: &TenantId, model: &ModelId) -> TenantLimits {
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
    let partition = Some("cHsdsRa894xx");
    TenantLimits::new(limits, budgets, partition)
        .with_key(KEY, limits, partition)
        .with_endpoint("e", limits, partition)
        .with_model(owner, model, limits, partition)
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

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let limited = arguments.next().as_deref() == Some("all");
    let mut number = |otherwise: usize| arguments.next().map_or(Ok(otherwise), |text| text.parse());
    let (tenants, requests) = (number(1)?, number(0)?);
    let limiter = Limiter::new(Arc::new(SystemClock));
    let (owner, model) = (TenantId::parse("owner")?, ModelId::parse("m")?);
    let names: Vec<TenantId> = (0..tenants)
        .map(|index| TenantId::parse(&format!("tenant-{index}")))
        .collect::<Result<_, _>>()?;
    let limits = || {
        if limited {
            every_limit(&owner, &model)
        } else {
            TenantLimits::default()
        }
    };
    let before = resident()?;
    let all: Vec<TenantLimits> = names.iter().map(|_| limits()).collect();
    let charge = Charge {
        endpoint: Some("e"),
        model: (&owner, &model),
        rows: 1,
        input_bytes: 120,
    };
    let ask = |index: usize| -> Result<(), Box<dyn Error>> {
        let (Some(tenant), Some(limits)) = (names.get(index), all.get(index)) else {
            return Ok(());
        };
        let now = limiter.now();
        let admission = limiter.caller(tenant, limits, KEY)?.admit(now)?.charge(&charge, now)?;
        if limited {
            black_box(admission.caller().notice(now));
        }
        if let Some(meter) = admission.meter() {
            meter.began();
            meter.ran(Duration::from_micros(20));
        }
        Ok(())
    };
    for index in 0..tenants {
        ask(index)?;
    }
    println!("{}", resident()?.saturating_sub(before) / tenants.max(1) as u64);
    // Far from each other, as callers come.
    let mut index = 0;
    for _ in 0..requests {
        index = (index + 7_919) % tenants.max(1);
        ask(index)?;
    }
    Ok(())
}
