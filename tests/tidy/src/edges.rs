//! Who may depend on whom: an edge goes only to a lower level, and some libraries are at home in one room only.

use anyhow::Context;
use cargo_metadata::MetadataCommand;

/// Each crate's level. A crate that is not here is a breach, so that a new room must find its place.
pub const LEVELS: &[(&str, u8)] = &[
    ("mesh-types", 0),
    ("mesh-telemetry", 1),
    ("mesh-resources", 1),
    ("mesh-policies", 1),
    ("mesh-authz", 2),
    ("mesh-protocol", 1),
    ("mesh-backend", 1),
    ("mesh-scheduler", 1),
    ("mesh-backend-torch", 2),
    ("mesh-backend-builtin", 2),
    ("mesh-actors", 2),
    ("mesh-tls", 2),
    ("mesh-import", 2),
    ("mesh-worker", 3),
    ("mesh-registry", 3),
    ("mesh-router", 3),
    ("mesh-wire", 4),
    ("mesh-router-http", 5),
    ("mesh-router-grpc", 5),
    ("mesh-control", 4),
    ("mesh-admin-api", 5),
    ("mesh-admin-web", 4),
    ("mesh-client", 4),
    ("mesh-jwks", 4),
    ("mesh-cli", 5),
    ("mesh-node", 6),
    ("mesh-harness", 9),
    ("mesh-e2e", 10),
    ("mesh-load", 9),
    ("mesh-torch-workshop", 3),
    ("mesh-xtask", 9),
    ("mesh-tidy", 9),
];

/// Libraries that only these crates may name.
const AT_HOME: &[(&str, &[&str])] = &[
    ("tch", &["mesh-backend-torch", "mesh-torch-workshop"]),
    ("torch-sys", &["mesh-backend-torch", "mesh-torch-workshop"]),
    ("sled", &["mesh-registry"]),
    ("jsonwebtoken", &["mesh-policies"]),
    ("governor", &["mesh-policies"]),
    ("cedar-policy", &["mesh-authz"]),
];

/// Crates that know no runtime: pure decisions and plain data.
const PURE: &[&str] = &[
    "mesh-types",
    "mesh-backend",
    "mesh-scheduler",
    "mesh-resources",
    "mesh-policies",
    "mesh-authz",
    "mesh-protocol",
    "mesh-import",
];
const RUNTIMES: &[&str] = &["tokio", "actix", "actix-rt", "actix-web"];

/// Libraries that speak HTTP or gRPC; only doors and what stands above them may name one.
const WIRE: &[&str] = &["actix-http", "actix-web", "h2", "hyper", "reqwest", "tonic", "ureq"];
const DOORS_LEVEL: u8 = 4;

/// One dependency of a crate of the workspace, not counting those of its tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// The crate.
    pub from: String,
    /// What it names.
    pub to: String,
}

/// The edges of the workspace, from `cargo metadata`.
pub fn workspace_edges() -> anyhow::Result<Vec<Edge>> {
    let metadata = MetadataCommand::new()
        .no_deps()
        .exec()
        .context("cargo metadata failed")?;
    let mut edges = Vec::new();
    for package in &metadata.packages {
        for dependency in &package.dependencies {
            if dependency.kind != cargo_metadata::DependencyKind::Development {
                edges.push(Edge {
                    from: package.name.to_string(),
                    to: dependency.name.clone(),
                });
            }
        }
    }
    Ok(edges)
}

fn level(name: &str) -> Option<u8> {
    LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level)
}

/// Every edge that breaks a law.
pub fn breaches(edges: &[Edge]) -> Vec<String> {
    let mut breaches = Vec::new();
    for Edge { from, to } in edges {
        let Some(from_level) = level(from) else {
            breaches.push(format!(
                "{from} has no level: add it to the table in tests/tidy/src/edges.rs"
            ));
            continue;
        };
        if let Some(to_level) = level(to)
            && to_level >= from_level
        {
            breaches.push(format!(
                "{from} (level {from_level}) must not depend on {to} (level {to_level})"
            ));
        }
        if let Some((_, homes)) = AT_HOME.iter().find(|(library, _)| library == to)
            && !homes.contains(&from.as_str())
        {
            breaches.push(format!("{from} must not name {to}: it is at home in {homes:?}"));
        }
        if PURE.contains(&from.as_str()) && RUNTIMES.contains(&to.as_str()) {
            breaches.push(format!("{from} is pure and must not know {to}"));
        }
        if WIRE.contains(&to.as_str()) && from_level < DOORS_LEVEL {
            breaches.push(format!(
                "{from} (level {from_level}) must not name {to}: doors begin at level {DOORS_LEVEL}"
            ));
        }
    }
    breaches.dedup();
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(from: &str, to: &str) -> bool {
        !breaches(&[Edge {
            from: from.into(),
            to: to.into(),
        }])
        .is_empty()
    }

    #[test]
    fn edges_upward_sideways_and_of_unknown_crates_are_breaches() {
        assert!(broken("mesh-types", "mesh-telemetry"));
        assert!(broken("mesh-scheduler", "mesh-backend"));
        assert!(broken("mesh-newcomer", "serde"));
        assert!(!broken("mesh-backend", "mesh-types"));
    }

    #[test]
    fn http_below_the_doors_is_a_breach() {
        assert!(broken("mesh-router", "actix-web"));
        assert!(broken("mesh-registry", "reqwest"));
        assert!(!broken("mesh-router-http", "actix-web"));
    }

    #[test]
    fn rooms_of_one_level_do_not_see_each_other() {
        assert!(broken("mesh-router", "mesh-worker"));
        assert!(broken("mesh-worker", "mesh-registry"));
    }

    #[test]
    fn libtorch_outside_its_room_and_runtimes_in_pure_rooms_are_breaches() {
        assert!(broken("mesh-actors", "tch"));
        assert!(broken("mesh-scheduler", "tokio"));
        assert!(!broken("mesh-backend-torch", "tch"));
        assert!(!broken("mesh-actors", "tokio"));
    }
}
