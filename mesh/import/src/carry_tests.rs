//! Plans carried out in a mesh of memory.

use std::{collections::BTreeMap, path::PathBuf};

use futures::executor::block_on;
use mesh_resources::VersionPolicy;
use mesh_types::{ArtifactFormat, Label, ModelConfig, ModelId, Version};

use super::*;
use crate::plan::PlannedVersion;

#[derive(Default)]
struct Memory {
    resources: BTreeMap<String, Resource>,
    uploads: Vec<PathBuf>,
    writes: Vec<usize>,
    told: Vec<String>,
    refuses: Option<&'static str>,
    down: bool,
}

impl Target for Memory {
    type Error = &'static str;

    async fn find(&mut self, key: &ResourceKey) -> Result<Option<Resource>, &'static str> {
        if self.down {
            return Err("down");
        }
        Ok(self.resources.get(&key.to_string()).cloned())
    }

    async fn upload(&mut self, file: &Path, _: &ArtifactRef) -> Result<(), Setback<&'static str>> {
        self.uploads.push(file.to_path_buf());
        Ok(())
    }

    async fn write(&mut self, resources: Vec<Resource>) -> Result<(), Setback<&'static str>> {
        let refused = |resource: &Resource| self.refuses.is_some_and(|name| resource.metadata.name.contains(name));
        if resources.iter().any(refused) {
            return Err(Setback::Model("no".to_owned()));
        }
        self.writes.push(resources.len());
        for mut resource in resources {
            let key = resource.key().unwrap().to_string();
            let found = self.resources.get(&key).and_then(|found| found.metadata.revision);
            assert_eq!(resource.metadata.revision, found, "{key}");
            resource.metadata.revision = Some(found.unwrap_or(0) + 1);
            self.resources.insert(key, resource);
        }
        Ok(())
    }

    fn tell(&mut self, outcome: &Outcome) -> Result<(), &'static str> {
        self.told.push(format!("{} {}", outcome.action, outcome.key));
        Ok(())
    }
}

fn version(number: u32, digest: &str) -> PlannedVersion {
    PlannedVersion {
        number: Version::new(number).unwrap(),
        file: Some(PathBuf::from(digest)),
        spec: ModelVersionSpec {
            format: ArtifactFormat::TorchScript,
            artifact: Some(ArtifactRef {
                sha256: digest.repeat(64),
                bytes: 1,
            }),
            config: ModelConfig::default(),
            signature: None,
            unloaded: false,
            description: None,
        },
    }
}

fn plan(models: &[(&str, &[(u32, &str)])]) -> Plan {
    let models = models.iter().map(|(name, versions)| Planned {
        loads: false,
        name: ModelId::parse(name).unwrap(),
        policy: VersionPolicy::Latest { num_versions: 1 },
        versions: versions
            .iter()
            .map(|(number, digest)| version(*number, digest))
            .collect(),
    });
    Plan {
        models: models.collect(),
        ..Plan::default()
    }
}

fn run(plan: &Plan, trial: bool, memory: &mut Memory) -> Report {
    memory.told.clear();
    memory.uploads.clear();
    block_on(carry_out(plan, &TenantId::parse("acme").unwrap(), trial, memory)).unwrap()
}

#[test]
fn the_first_time_writes_the_second_nothing_and_a_new_version_only_itself() {
    let mut memory = Memory::default();
    let first = plan(&[("a", &[(1, "1")])]);
    let report = run(&first, true, &mut memory);
    assert_eq!((report.models, report.written), (1, 2));
    assert!(memory.resources.is_empty() && memory.uploads.is_empty());
    assert_eq!(run(&first, false, &mut memory).written, 2);
    assert_eq!(memory.told, ["created Model/acme/a", "created ModelVersion/acme/a/1"]);
    assert_eq!((memory.writes.as_slice(), memory.uploads.len()), (&[2][..], 1));
    assert_eq!(run(&first, false, &mut memory).written, 0);
    assert_eq!(
        memory.told,
        ["unchanged Model/acme/a", "unchanged ModelVersion/acme/a/1"]
    );
    assert!(memory.writes.len() == 1 && memory.uploads.is_empty());
    let second = plan(&[("a", &[(1, "1"), (2, "2")])]);
    assert_eq!(run(&second, false, &mut memory).written, 1);
    assert_eq!(memory.uploads, [PathBuf::from("2")]);
    assert_eq!(memory.writes, [2, 1]);
    // Another file under the same number is another file.
    let other = plan(&[("a", &[(1, "3"), (2, "2")])]);
    run(&other, false, &mut memory);
    assert_eq!(memory.told[1], "changed ModelVersion/acme/a/1");
}

#[test]
fn what_admins_have_set_stays() {
    let mut memory = Memory::default();
    let plan = plan(&[("a", &[(1, "1")])]);
    run(&plan, false, &mut memory);
    let stable = Label::parse("stable").unwrap();
    if let Spec::Model(spec) = &mut memory.resources.get_mut("Model/acme/a").unwrap().spec {
        spec.labels.insert(stable.clone(), Version::FIRST);
        spec.version_policy = Some(VersionPolicy::All {});
    }
    if let Spec::ModelVersion(spec) = &mut memory.resources.get_mut("ModelVersion/acme/a/1").unwrap().spec {
        spec.unloaded = true;
        spec.description = Some("kept".into());
    }
    run(&plan, false, &mut memory);
    assert_eq!(memory.told, ["changed Model/acme/a", "unchanged ModelVersion/acme/a/1"]);
    let Spec::Model(spec) = &memory.resources["Model/acme/a"].spec else {
        panic!("no model")
    };
    assert!(
        spec.labels.contains_key(&stable) && spec.version_policy == Some(VersionPolicy::Latest { num_versions: 1 })
    );
}

#[test]
fn a_model_that_is_refused_stops_no_other_and_a_mesh_that_is_down_ends_it() {
    let mut memory = Memory {
        refuses: Some("b"),
        ..Memory::default()
    };
    let all = plan(&[("a", &[(1, "1")]), ("b", &[(1, "1")]), ("c", &[(1, "1")])]);
    let report = run(&all, false, &mut memory);
    assert_eq!(report.models, 2);
    assert_eq!(report.refused[0].to_string(), "b: the mesh refuses it: no");
    memory.down = true;
    let ended = block_on(carry_out(&all, &TenantId::parse("acme").unwrap(), false, &mut memory));
    assert_eq!(ended.unwrap_err(), "down");
}
