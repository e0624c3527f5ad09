//! The crates: what cargo resolved, with the checksums of the lock file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Context;
use serde::Deserialize;

use super::{Component, Dependency, Hash, license, scope};
use crate::{environment, process};

/// The crate that is the product.
const PRODUCT: &str = "mesh-node";

/// What was read.
pub(super) struct Crates {
    /// The product itself.
    pub(super) mesh: Component,
    pub(super) components: Vec<Component>,
    pub(super) dependencies: Vec<Dependency>,
    /// What the product names.
    pub(super) of_the_mesh: Vec<String>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    pkg: String,
    dep_kinds: Vec<EdgeKind>,
}

#[derive(Deserialize)]
struct EdgeKind {
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

impl Edge {
    fn is_linked(&self) -> bool {
        self.dep_kinds.iter().any(|kind| kind.kind.is_none())
    }
}

pub(super) fn read(root: &Path) -> anyhow::Result<Crates> {
    let metadata = resolved(root)?;
    let lock: Lock = toml::from_str(&std::fs::read_to_string(root.join("Cargo.lock"))?)?;
    let checksums: BTreeMap<(String, String), String> = lock
        .package
        .into_iter()
        .filter_map(|locked| Some(((locked.name, locked.version), locked.checksum?)))
        .collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (&*node.id, node)).collect();
    let product = metadata.packages.iter().find(|package| package.name == PRODUCT);
    let product = product.context("the workspace has no crate mesh-node")?;
    let linked = linked(&product.id, &nodes);
    let references: BTreeMap<&str, String> = metadata
        .packages
        .iter()
        .map(|package| (&*package.id, format!("pkg:cargo/{}@{}", package.name, package.version)))
        .collect();
    let reference = |id: &str| references.get(id).cloned().unwrap_or_default();
    let component = |package: &Package| Component {
        kind: "library",
        reference: reference(&package.id),
        name: package.name.clone(),
        version: package.version.clone(),
        scope: scope(linked.contains(&*package.id)),
        hashes: checksums
            .get(&(package.name.clone(), package.version.clone()))
            .map(|checksum| Hash {
                alg: "SHA-256",
                content: checksum.clone(),
            })
            .into_iter()
            .collect(),
        licenses: license(package.license.as_deref()),
        // What is in the workspace is in no registry.
        purl: package.source.as_ref().map(|_| reference(&package.id)),
    };
    let needs = |id: &str| -> Vec<String> {
        let edges = nodes.get(id).into_iter().flat_map(|node| &node.deps);
        edges
            .map(|edge| reference(&edge.pkg))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    let others = || metadata.packages.iter().filter(|package| package.id != product.id);
    Ok(Crates {
        mesh: Component {
            kind: "application",
            name: "mesh".to_owned(),
            scope: None,
            ..component(product)
        },
        components: others().map(component).collect(),
        dependencies: others()
            .map(|package| Dependency {
                reference: reference(&package.id),
                depends_on: needs(&package.id),
            })
            .collect(),
        of_the_mesh: needs(&product.id),
    })
}

fn resolved(root: &Path) -> anyhow::Result<Metadata> {
    let mut command = environment::cargo();
    command
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root);
    Ok(serde_json::from_str(&process::output(&mut command)?)?)
}

/// What is linked into the product, itself included.
fn linked<'a>(product: &'a str, nodes: &BTreeMap<&'a str, &'a Node>) -> BTreeSet<&'a str> {
    let (mut found, mut open) = (BTreeSet::new(), vec![product]);
    while let Some(id) = open.pop() {
        if found.insert(id) {
            let edges = nodes.get(id).into_iter().flat_map(|node| &node.deps);
            open.extend(edges.filter(|edge| edge.is_linked()).map(|edge| &*edge.pkg));
        }
    }
    found
}
