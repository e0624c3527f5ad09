//! The packages of the web app: those of npm's lock file.

use std::{collections::BTreeMap, path::Path};

use anyhow::Context;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{Component, Hash, license, scope};

/// Where a package lies, in the lock file's words.
const FOLDER: &str = "node_modules/";

/// What was read.
pub(super) struct Packages {
    pub(super) components: Vec<Component>,
    /// What is bundled into the app.
    pub(super) of_the_app: Vec<String>,
}

#[derive(Deserialize)]
struct Lock {
    packages: BTreeMap<String, Locked>,
}

#[derive(Deserialize)]
struct Locked {
    version: Option<String>,
    license: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    dev: bool,
    #[serde(default, rename = "devOptional")]
    dev_optional: bool,
}

pub(super) fn read(path: &Path) -> anyhow::Result<Packages> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lock: Lock = serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    let components: Vec<Component> = lock.packages.iter().filter_map(component).collect();
    let bundled = components.iter().filter(|component| component.scope == scope(true));
    Ok(Packages {
        of_the_app: bundled.map(|component| component.reference.clone()).collect(),
        components,
    })
}

fn component((place, locked): (&String, &Locked)) -> Option<Component> {
    // The entry without a place is the app itself. One package may lie in several places.
    let (_, name) = place.rsplit_once(FOLDER)?;
    let version = locked.version.clone()?;
    let purl = format!("pkg:npm/{}@{version}", name.replace('@', "%40"));
    Some(Component {
        kind: "library",
        reference: purl.clone(),
        name: name.to_owned(),
        version,
        scope: scope(!(locked.dev || locked.dev_optional)),
        hashes: locked.integrity.as_deref().and_then(hash).into_iter().collect(),
        licenses: license(locked.license.as_deref()),
        purl: Some(purl),
    })
}

/// A hash as npm writes it: its kind, a hyphen and base64.
fn hash(integrity: &str) -> Option<Hash> {
    let digest = STANDARD.decode(integrity.strip_prefix("sha512-")?).ok()?;
    Some(Hash {
        alg: "SHA-512",
        content: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}
