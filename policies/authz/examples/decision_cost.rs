//! What asking who may call costs a request: finding the caller and what its name leads to, without a policy, with a remembered
//! decision, and with one that is made anew.
//!
//! `decision_cost KIND STATEMENTS REQUESTS` does that so many times, for callgrind to count: two amounts of requests tell what one of
//! them takes. `found` only looks the name up, `none` asks without policies, `cached` with so many statements, `fresh` has them
//! evaluated each time, `open` too, where the statements name neither callers nor models, so that each of them is evaluated, and `long`
//! has a hundred comparisons in each of them. Prints nanoseconds per request.
#![expect(clippy::print_stdout, reason = "the program's answer")]

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    hint::black_box,
    sync::Arc,
    time::Instant,
};

use mesh_authz::Policies;
use mesh_policies::{
    MeshSnapshot, Pepper,
    access::{ApiKeyEntry, Credentials, Presented, Scope, generate_api_key},
    authorization::Authorization,
    limits::TenantLimits,
    snapshot::{ModelEntry, Target, TenantEntry},
};
use mesh_types::{ModelId, TenantId, TenantShare};

const MODELS: usize = 16;

fn model(owner: &TenantId, name: &str) -> Result<Target, Box<dyn Error>> {
    Ok(Target::Model(Arc::new(ModelEntry {
        owner: owner.clone(),
        model: ModelId::parse(name)?,
        grants: Arc::default(),
        versions: BTreeMap::new(),
        labels: BTreeMap::new(),
        default: None,
    })))
}

/// How many comparisons a long statement has.
const LONG: usize = 100;

/// So many statements, none of which is about the caller; `open` ones do not say so at once, and `long` ones only after many comparisons.
fn statements(count: usize, kind: &str) -> String {
    let one = |index: usize| {
        if kind == "long" {
            let names = (0..LONG).map(|number| format!("principal.name == \"nobody-{index}-{number}\""));
            let names: Vec<String> = names.collect();
            return format!(
                "forbid (principal, action, resource) when {{ {} }};\n",
                names.join(" || ")
            );
        }
        if kind == "open" {
            return format!(
                "forbid (principal, action == Mesh::Action::\"model:infer\", resource) \
                 when {{ principal in Mesh::Group::\"acme/group-{index}\" && resource != Mesh::Model::\"acme/model-{index}\" }};\n"
            );
        }
        format!(
            "forbid (principal in Mesh::Group::\"acme/group-{index}\", action == Mesh::Action::\"model:infer\", resource) \
             unless {{ resource == Mesh::Model::\"acme/model-{index}\" }};\n"
        )
    };
    (0..count).map(one).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let kind = arguments.next().unwrap_or_default();
    let mut number = |otherwise: usize| arguments.next().map_or(Ok(otherwise), |text| text.parse());
    let (count, requests) = (number(0)?, number(1)?);
    let tenant = TenantId::parse("acme")?;
    let names: Vec<String> = (0..MODELS).map(|index| format!("model-{index}")).collect();
    let mut targets = HashMap::new();
    for name in &names {
        targets.insert(name.clone(), model(&tenant, name)?);
    }
    let pepper = Pepper::from_bytes([7; 32]);
    let key = generate_api_key("test", &mut rand::rng());
    let entry = ApiKeyEntry {
        id: key.id.clone(),
        tenant: tenant.clone(),
        hash: pepper.hash(&key.secret),
        scopes: [Scope::Infer].into_iter().collect(),
        groups: ["ci", "bots"].map(Arc::from).into(),
        expires: None,
        revoked: false,
    };
    let text = statements(count, &kind);
    let policies = Arc::new(Policies::compile((count > 0).then_some(("own", text.as_str())))?);
    let authorization = match kind.as_str() {
        "cached" | "fresh" | "open" | "long" => Authorization::by(policies.clone()),
        _ => Authorization::default(),
    };
    let tenants = [TenantEntry {
        id: tenant,
        created: 0,
        suspended: false,
        limits: TenantLimits::default(),
        share: TenantShare::default(),
        targets,
    }];
    let snapshot =
        MeshSnapshot::new(1, Credentials::new(pepper).with_key(entry), tenants).with_authorization(authorization);
    let ask = |index: usize| -> Result<bool, Box<dyn Error>> {
        let (principal, tenant) = snapshot.caller(Presented::Bearer(&key.text), 0)?;
        let name = &names[index % MODELS];
        Ok(match kind.as_str() {
            "found" => black_box(tenant.target(name)).is_some(),
            "fresh" | "open" | "long" => {
                // One that remembers nothing yet.
                let authorization = Authorization::by(policies.clone());
                let target = tenant.target(name).ok_or("no such model")?;
                authorization.may_call(black_box(&principal), tenant, name, target)
            }
            _ => black_box(snapshot.callable(&principal, tenant, name)).is_some(),
        })
    };
    for index in 0..MODELS {
        assert!(ask(index)?, "the caller may call all of its models");
    }
    let begun = Instant::now();
    for index in 0..requests {
        black_box(ask(index)?);
    }
    println!("{}", begun.elapsed().as_nanos() / requests.max(1) as u128);
    Ok(())
}
