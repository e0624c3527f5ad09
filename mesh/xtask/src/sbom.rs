//! `cargo xtask sbom`: what the mesh is made of, as a bill of materials (CycloneDX 1.6, JSON).
//!
//! Owns the list: crates of the lock file with their checksums and licences, packages of the web app, and the libraries of
//! libtorch that are fetched. What is only needed to build or to test is in it with the scope `excluded`. Nothing in it depends
//! on the time or the machine, so two of the same sources are equal.

mod cargo;
mod npm;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{environment, libtorch::LIBTORCH_WHEELS};

/// The version of the form.
const SPEC_VERSION: &str = "1.6";

/// `cargo xtask sbom`.
#[derive(Debug, Clone, Args)]
pub(crate) struct SbomArguments {
    /// The file to write. [default: mesh.cdx.json in cargo's target folder]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// The whole document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sbom {
    bom_format: &'static str,
    spec_version: &'static str,
    serial_number: String,
    version: u32,
    metadata: Metadata,
    components: Vec<Component>,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Serialize)]
struct Metadata {
    component: Component,
}

/// One thing that it is made of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Component {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref")]
    reference: String,
    name: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<License>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Hash {
    alg: &'static str,
    content: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct License {
    expression: String,
}

/// What one component needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dependency {
    #[serde(rename = "ref")]
    reference: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<String>,
}

/// Needed where the mesh runs, or only to build and test it.
const fn scope(shipped: bool) -> Option<&'static str> {
    Some(if shipped { "required" } else { "excluded" })
}

/// A licence as SPDX writes it: some crates still write `/` for `OR`. The form takes one expression.
fn license(text: Option<&str>) -> Vec<License> {
    let expression = text.filter(|text| !text.is_empty()).map(|text| License {
        expression: text.replace('/', " OR ").replace("  ", " "),
    });
    Vec::from_iter(expression)
}

/// The wheels that libtorch is cut from.
fn wheels() -> impl Iterator<Item = Component> {
    LIBTORCH_WHEELS.iter().map(|wheel| {
        // A wheel's name is its project, its version and what it is for, with hyphens between them.
        let version = wheel.file.split('-').nth(1).unwrap_or_default();
        let purl = format!("pkg:pypi/{}@{version}", wheel.project);
        Component {
            kind: "library",
            reference: purl.clone(),
            name: wheel.project.to_owned(),
            version: version.to_owned(),
            scope: scope(true),
            hashes: vec![Hash {
                alg: "SHA-256",
                content: wheel.sha256.to_owned(),
            }],
            licenses: Vec::new(),
            purl: Some(purl),
        }
    })
}

/// Reads everything and puts it together.
pub(crate) fn make() -> anyhow::Result<Sbom> {
    let root = environment::root()?;
    let crates = cargo::read(&root)?;
    let packages = npm::read(&root.join("admin-ui/web/package-lock.json"))?;
    let mut components: Vec<Component> = crates.components;
    let (mut dependencies, mut of_the_mesh) = (crates.dependencies, crates.of_the_mesh);
    of_the_mesh.extend(wheels().map(|wheel| wheel.reference));
    of_the_mesh.extend(packages.of_the_app);
    components.extend(wheels());
    components.extend(packages.components);
    components.sort_by(|a, b| a.reference.cmp(&b.reference));
    components.dedup_by(|a, b| a.reference == b.reference);
    let mesh = crates.mesh;
    of_the_mesh.sort();
    dependencies.push(Dependency {
        reference: mesh.reference.clone(),
        depends_on: of_the_mesh,
    });
    dependencies.sort();
    let digest = Sha256::digest(serde_json::to_vec(&(&components, &dependencies))?);
    Ok(Sbom {
        bom_format: "CycloneDX",
        spec_version: SPEC_VERSION,
        serial_number: serial(&digest),
        version: 1,
        metadata: Metadata { component: mesh },
        components,
        dependencies,
    })
}

/// A number that follows from what is in it (RFC 9562, version 8).
fn serial(digest: &[u8]) -> String {
    let mut hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    hex.replace_range(12..13, "8");
    hex.replace_range(16..17, "a");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or_default().to_owned());
    format!("urn:uuid:{}", parts.join("-"))
}

/// Writes it.
pub(crate) fn run(arguments: &SbomArguments) -> anyhow::Result<()> {
    let path = match &arguments.output {
        Some(path) => path.clone(),
        None => environment::target()?.join("mesh.cdx.json"),
    };
    let sbom = make()?;
    let text = serde_json::to_string_pretty(&sbom)?;
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{} components in {}", sbom.components.len(), path.display());
    Ok(())
}

#[cfg(test)]
mod tests;
