//! Ensembles in snapshots: ready with their steps, moving with labels, and why not where they are not.

use mesh_policies::VersionEntry;
use mesh_resources::{ModelVersionSpec, Resource, ResourceKey, Spec, VersionPolicy};
use mesh_types::{ArtifactFormat, ModelConfig};
use serde_json::{Value, json};

use crate::{
    Compiled, ModelState, Records,
    samples::{
        a_model, a_tenant, a_version, an_endpoint, answers, compiled, draining, key, ready, records, report, tenant,
    },
};

fn config(value: Value) -> ModelConfig {
    serde_json::from_value(value).unwrap()
}

/// A model of vectors, `x` to `y`.
fn vectors(more: &Value) -> ModelConfig {
    let mut all = json!({
        "max_batch_size": 8,
        "input": [{"name": "x", "datatype": "FP32", "dims": [2]}],
        "output": [{"name": "y", "datatype": "FP32", "dims": [2]}],
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config(all)
}

/// A plain version of vectors.
fn plain(text: &str) -> Resource {
    let mut version = a_version(text, false);
    if let Spec::ModelVersion(spec) = &mut version.spec {
        spec.config = vectors(&json!({}));
    }
    version
}

/// An ensemble that is a chain of these steps, each written `model` or `model@version`.
fn chain(text: &str, models: &[&str]) -> Resource {
    let steps: Vec<Value> = models
        .iter()
        .enumerate()
        .map(|(at, model)| {
            let (name, version) = model.split_once('@').unwrap_or((model, "-1"));
            let tensor = |at: usize| if at == 0 { "x".to_owned() } else { format!("t{at}") };
            let made = if at + 1 == models.len() { "y".to_owned() } else { tensor(at + 1) };
            json!({"model_name": name, "model_version": version, "input_map": {"x": tensor(at)}, "output_map": {"y": made}})
        })
        .collect();
    let spec = ModelVersionSpec {
        format: ArtifactFormat::Ensemble,
        artifact: None,
        config: vectors(&json!({"ensemble_scheduling": {"step": steps}})),
        signature: None,
        unloaded: false,
        description: None,
    };
    Resource::new(&ResourceKey::version(&key(text)), spec)
}

/// A model that does without a step of `a` where that fails.
fn softly(text: &str) -> Resource {
    let graph = json!({"steps": [
        {"name": "best", "model": "a", "inputs": {"x": "x"}, "outputs": {"y": "best"}, "dependency": "Soft"},
        {"name": "good", "model": "b", "inputs": {"x": "x"}, "outputs": {"y": "good"}},
    ], "outputs": {"y": ["best", "good"]}});
    let spec = ModelVersionSpec {
        format: ArtifactFormat::Ensemble,
        artifact: None,
        config: vectors(&json!({"graph": graph})),
        signature: None,
        unloaded: false,
        description: None,
    };
    Resource::new(&ResourceKey::version(&key(text)), spec)
}

fn town(more: &[Resource]) -> Records {
    let mut all = vec![
        a_tenant("acme"),
        a_tenant("beta"),
        a_model("acme", "a", &[("stable", 1)], &[]),
        plain("acme/a/1"),
        plain("acme/a/2"),
        a_model("acme", "b", &[], &[]),
        plain("acme/b/1"),
        a_model("acme", "pipe", &[], &["beta"]),
    ];
    all.extend(more.iter().cloned());
    records(1, &all)
}

fn entry<'a>(compiled: &'a Compiled, text: &str) -> &'a VersionEntry {
    compiled.snapshot.ensemble(&key(text)).unwrap()
}

fn steps(compiled: &Compiled, text: &str) -> Vec<String> {
    let plan = entry(compiled, text).plan.as_ref().filter(|plan| plan.ready);
    let entries = plan.map(|plan| plan.entries.clone()).unwrap_or_default();
    entries
        .iter()
        .map(|entry| format!("{}/{}", entry.key.model, entry.key.version))
        .collect()
}

fn reason(compiled: &Compiled, text: &str) -> String {
    entry(compiled, text).unavailable_reason.clone().unwrap_or_default()
}

#[test]
fn an_ensemble_is_ready_once_all_its_steps_are_and_says_which_is_not() {
    let town = town(&[chain("acme/pipe/1", &["a@stable", "b"])]);
    let before = compiled(&town, &ready(&["acme/a/1"]), &Compiled::default());
    assert_eq!(answers(&before, "acme", "pipe"), [("pipe/1".to_owned(), false)]);
    assert_eq!(
        reason(&before, "acme/pipe/1"),
        "step 'b' is not ready: model 'b' version 1: it is still loading"
    );
    let failed = report(&[("acme/a/1", ModelState::Ready), ("acme/b/1", ModelState::Unavailable)]);
    let failed = compiled(&town, &failed, &before);
    assert!(reason(&failed, "acme/pipe/1").ends_with("it broke"));
    let after = compiled(&town, &ready(&["acme/a/1", "acme/b/1"]), &before);
    assert_eq!(answers(&after, "acme", "pipe"), [("pipe/1".to_owned(), true)]);
    assert_eq!(
        answers(&after, "beta", "pipe"),
        [("pipe/1".to_owned(), true)],
        "it was granted"
    );
    assert_eq!(answers(&after, "beta", "a"), [], "its steps were not");
    assert_eq!(steps(&after, "acme/pipe/1"), ["a/1", "b/1"]);
}

#[test]
fn an_ensemble_is_ready_without_the_steps_that_may_fail() {
    let town = town(&[softly("acme/pipe/1")]);
    let neither = compiled(&town, &report(&[]), &Compiled::default());
    assert!(reason(&neither, "acme/pipe/1").starts_with("step 'good' is not ready"));
    let good = compiled(&town, &ready(&["acme/b/1"]), &Compiled::default());
    assert_eq!(answers(&good, "acme", "pipe"), [("pipe/1".to_owned(), true)]);
    let best = compiled(&town, &ready(&["acme/a/2"]), &Compiled::default());
    assert!(!answers(&best, "acme", "pipe")[0].1, "the other is needed");
}

#[test]
fn a_step_moves_with_its_label_once_the_new_version_is_ready() {
    let pipe = chain("acme/pipe/1", &["a@stable", "b"]);
    let one = town(std::slice::from_ref(&pipe));
    let first = compiled(&one, &ready(&["acme/a/1", "acme/b/1"]), &Compiled::default());
    let two = town(&[pipe, a_model("acme", "a", &[("stable", 2)], &[])]);
    let waiting = compiled(&two, &ready(&["acme/a/1", "acme/b/1"]), &first);
    assert_eq!(steps(&waiting, "acme/pipe/1"), ["a/1", "b/1"]);
    let moved = compiled(&two, &ready(&["acme/a/1", "acme/a/2", "acme/b/1"]), &waiting);
    assert_eq!(steps(&moved, "acme/pipe/1"), ["a/2", "b/1"]);
}

#[test]
fn what_an_ensemble_runs_counts_as_routed_though_nobody_else_leads_to_it() {
    let pipe = chain("acme/pipe/1", &["a@stable", "b"]);
    let one = town(std::slice::from_ref(&pipe));
    let all = ready(&["acme/a/1", "acme/b/1"]);
    let first = compiled(&one, &all, &Compiled::default());
    for text in ["acme/a/1", "acme/b/1", "acme/pipe/1"] {
        assert!(first.routed.contains(&key(text)), "{text}");
    }
    // The version that the label leaves stays until the one it goes to is ready, and counts as long.
    let mut leaving = plain("acme/a/1");
    if let Spec::ModelVersion(spec) = &mut leaving.spec {
        spec.unloaded = true;
    }
    let two = town(&[pipe, a_model("acme", "a", &[("stable", 2)], &[]), leaving]);
    let waiting = compiled(&two, &all, &first);
    assert_eq!(steps(&waiting, "acme/pipe/1"), ["a/1", "b/1"]);
    assert!(waiting.routed.contains(&key("acme/a/1")));
    let moved = compiled(&two, &ready(&["acme/a/1", "acme/a/2", "acme/b/1"]), &waiting);
    assert!(!moved.routed.contains(&key("acme/a/1")));
}

#[test]
fn a_version_policy_keeps_what_steps_name_through_ensembles_that_are_kept_themselves() {
    let newest = |name: &str| {
        let mut model = a_model("acme", name, &[], &[]);
        if let Spec::Model(spec) = &mut model.spec {
            spec.version_policy = Some(VersionPolicy::Latest { num_versions: 1 });
        }
        model
    };
    let wanted = |more: &[Resource]| -> Vec<String> {
        let mut all = vec![
            newest("a"),
            plain("acme/a/3"),
            newest("pipe"),
            chain("acme/pipe/1", &["a@1"]),
            chain("acme/pipe/2", &["a@3"]),
            a_model("acme", "outer", &[], &[]),
        ];
        all.extend(more.iter().cloned());
        let records = town(&all);
        let wanted = records.versions().filter(|version| version.is_wanted());
        let of_two = wanted.filter(|version| ["a", "pipe"].contains(&version.key.model.as_str()));
        of_two
            .map(|version| format!("{}/{}", version.key.model, version.key.version))
            .collect()
    };
    assert_eq!(
        wanted(&[]),
        ["a/3", "pipe/2"],
        "what pipe/1 names is not kept: it is left out itself"
    );
    assert_eq!(wanted(&[chain("acme/outer/1", &["a@2"])]), ["a/2", "a/3", "pipe/2"]);
    assert_eq!(
        wanted(&[chain("acme/outer/1", &["pipe@1"])]),
        ["a/1", "a/3", "pipe/1", "pipe/2"]
    );
    let mut off = chain("acme/outer/1", &["pipe@1"]);
    if let Spec::ModelVersion(spec) = &mut off.spec {
        spec.unloaded = true;
    }
    assert_eq!(wanted(&[off]), ["a/3", "pipe/2"]);
}

#[test]
fn a_new_version_of_an_ensemble_displaces_the_old_one_only_once_it_is_ready() {
    let records = town(&[chain("acme/pipe/1", &["b"]), chain("acme/pipe/2", &["a@2"])]);
    let first = compiled(&records, &ready(&["acme/b/1"]), &Compiled::default());
    assert_eq!(answers(&first, "acme", "pipe"), [("pipe/1".to_owned(), true)]);
    let both = compiled(&records, &ready(&["acme/b/1", "acme/a/2"]), &first);
    assert_eq!(answers(&both, "acme", "pipe"), [("pipe/2".to_owned(), true)]);
}

#[test]
fn an_ensemble_that_is_changed_goes_on_as_it_was_until_its_new_steps_are_ready() {
    let at = |pipe: Resource| town(&[pipe]);
    let one = ready(&["acme/a/1", "acme/b/1"]);
    let first = compiled(&at(chain("acme/pipe/1", &["a@1", "b"])), &one, &Compiled::default());
    let changed = at(chain("acme/pipe/1", &["a@2"]));
    let waiting = compiled(&changed, &one, &first);
    assert_eq!(answers(&waiting, "acme", "pipe"), [("pipe/1".to_owned(), true)]);
    assert_eq!(steps(&waiting, "acme/pipe/1"), ["a/1", "b/1"]);
    assert_eq!(
        reason(&waiting, "acme/pipe/1"),
        "its graph as it was before answers: step 'a' is not ready: model 'a' version 2: it is still loading"
    );
    let still = compiled(&changed, &one, &waiting);
    assert_eq!(steps(&still, "acme/pipe/1"), ["a/1", "b/1"]);
    let moved = compiled(&changed, &ready(&["acme/a/1", "acme/a/2", "acme/b/1"]), &still);
    assert_eq!(steps(&moved, "acme/pipe/1"), ["a/2"]);
    assert_eq!(reason(&moved, "acme/pipe/1"), "");
    // What it was before cannot answer any more.
    let lost = compiled(&changed, &ready(&["acme/b/1"]), &waiting);
    assert!(!answers(&lost, "acme", "pipe")[0].1);
    // Requests that fitted what it was before do not fit what it is now.
    let mut otherwise = chain("acme/pipe/1", &["a@2"]);
    if let Spec::ModelVersion(spec) = &mut otherwise.spec {
        spec.config.max_batch_size = 4;
    }
    assert!(!answers(&compiled(&at(otherwise), &one, &first), "acme", "pipe")[0].1);
}

#[test]
fn what_a_changed_ensemble_still_runs_stays_though_a_policy_leaves_it_out_but_not_without_its_grant() {
    let newest = |name: &str| {
        let mut model = a_model("acme", name, &[], &[]);
        if let Spec::Model(spec) = &mut model.spec {
            spec.version_policy = Some(VersionPolicy::Latest { num_versions: 1 });
        }
        model
    };
    let at = |version: &str| town(&[newest("a"), chain("acme/pipe/1", &[version])]);
    let first = compiled(&at("a@1"), &ready(&["acme/a/1"]), &Compiled::default());
    let waiting = compiled(&at("a@2"), &ready(&["acme/a/1"]), &first);
    assert_eq!(steps(&waiting, "acme/pipe/1"), ["a/1"]);
    assert!(waiting.routed.contains(&key("acme/a/1")), "so it is not unloaded");
    let theirs = |grants: &[&str], step: &str| {
        town(&[
            a_model("beta", "theirs", &[], grants),
            plain("beta/theirs/1"),
            chain("acme/pipe/1", &[step]),
        ])
    };
    let there = ready(&["beta/theirs/1"]);
    let first = compiled(&theirs(&["acme"], "theirs"), &there, &Compiled::default());
    let kept = compiled(&theirs(&["acme"], "b"), &there, &first);
    assert_eq!(steps(&kept, "acme/pipe/1"), ["theirs/1"]);
    let withdrawn = compiled(&theirs(&[], "b"), &there, &first);
    assert!(!answers(&withdrawn, "acme", "pipe")[0].1);
}

#[test]
fn endpoints_lead_to_ensembles_and_drained_devices_let_them_rest_where_they_are() {
    let split = |version: &str| {
        town(&[
            chain("acme/pipe/1", &["b"]),
            chain("acme/pipe/2", &["a@2"]),
            an_endpoint("acme", "front", &[("only", "pipe", version, 100.0)]),
        ])
    };
    let first = compiled(&split("1"), &ready(&["acme/b/1"]), &Compiled::default());
    assert_eq!(answers(&first, "acme", "front"), [("pipe/1".to_owned(), true)]);
    let drained = compiled(&split("2"), &draining(ready(&["acme/b/1"])), &first);
    assert_eq!(
        answers(&drained, "acme", "front"),
        [("pipe/1".to_owned(), false)],
        "it rests"
    );
    let moved = compiled(&split("2"), &ready(&["acme/b/1", "acme/a/2"]), &drained);
    assert_eq!(answers(&moved, "acme", "front"), [("pipe/2".to_owned(), true)]);
}

#[test]
fn ensembles_within_ensembles_are_compiled_after_what_they_need() {
    // By name the outer one comes first.
    let records = town(&[
        a_model("acme", "aa", &[], &[]),
        chain("acme/aa/1", &["pipe", "a@1"]),
        chain("acme/pipe/1", &["b"]),
    ]);
    let compiled = compiled(&records, &ready(&["acme/a/1", "acme/b/1"]), &Compiled::default());
    assert_eq!(steps(&compiled, "acme/aa/1"), ["pipe/1", "a/1"]);
    let plan = entry(&compiled, "acme/aa/1").plan.clone().unwrap();
    assert_eq!(plan.versions().count(), 3);
}

#[test]
fn a_circle_is_not_ready_and_breaks_nothing_else() {
    let records = town(&[
        a_model("acme", "c1", &[], &[]),
        a_model("acme", "c2", &[], &[]),
        chain("acme/c1/1", &["c2"]),
        chain("acme/c2/1", &["c1"]),
        chain("acme/pipe/1", &["b"]),
    ]);
    let compiled = compiled(&records, &ready(&["acme/b/1"]), &Compiled::default());
    assert!(reason(&compiled, "acme/c1/1").contains("ensembles of each other"));
    assert!(!answers(&compiled, "acme", "c2")[0].1);
    assert!(answers(&compiled, "acme", "pipe")[0].1);
}

#[test]
fn what_an_unloaded_ensemble_names_may_name_its_model_and_keeps_no_version() {
    let mut off = chain("acme/pipe/1", &["outer", "a@1"]);
    if let Spec::ModelVersion(spec) = &mut off.spec {
        spec.unloaded = true;
    }
    let mut unloaded = plain("acme/a/1");
    if let Spec::ModelVersion(spec) = &mut unloaded.spec {
        spec.unloaded = true;
    }
    let records = town(&[
        off,
        chain("acme/pipe/2", &["b"]),
        a_model("acme", "outer", &[], &[]),
        chain("acme/outer/1", &["pipe@2"]),
        unloaded,
        an_endpoint("acme", "front", &[("only", "pipe", "1", 100.0)]),
    ]);
    let there = ready(&["acme/a/1", "acme/a/2", "acme/b/1"]);
    let compiled = compiled(&records, &there, &Compiled::default());
    assert_eq!(steps(&compiled, "acme/outer/1"), ["pipe/2"]);
    assert_eq!(steps(&compiled, "acme/pipe/2"), ["b/1"]);
    assert!(reason(&compiled, "acme/pipe/1").starts_with("it is kept off"));
    assert_eq!(answers(&compiled, "acme", "front"), [("pipe/1".to_owned(), false)]);
    assert!(!compiled.routed.contains(&key("acme/a/1")), "so it is unloaded");
    assert!(compiled.routed.contains(&key("acme/b/1")));
}

#[test]
fn only_what_the_owner_may_call_is_reached_and_foreign_and_absent_models_read_alike() {
    let foreign = [a_model("beta", "secret", &[], &[]), plain("beta/secret/1")];
    let at = |step: &str, grants: &[&str]| {
        let mut all = foreign.to_vec();
        all[0] = a_model("beta", "secret", &[], grants);
        all.push(chain("acme/pipe/1", &[step]));
        compiled(&town(&all), &ready(&["beta/secret/1"]), &Compiled::default())
    };
    let (hidden, absent) = (at("secret", &[]), at("absent", &[]));
    assert_eq!(
        reason(&hidden, "acme/pipe/1").replace("secret", "NAME"),
        reason(&absent, "acme/pipe/1").replace("absent", "NAME")
    );
    let granted = at("secret", &["acme"]);
    assert_eq!(steps(&granted, "acme/pipe/1"), ["secret/1"]);
    let plan = entry(&granted, "acme/pipe/1").plan.clone().unwrap();
    assert!(plan.admits(&tenant("acme")) && plan.admits(&tenant("beta")));
    assert!(!plan.admits(&tenant("gamma")), "a grant is not handed on");
}

#[test]
fn an_unloaded_ensemble_is_not_served_and_one_that_does_not_fit_says_why() {
    let mut kept = chain("acme/pipe/1", &["b"]);
    if let Spec::ModelVersion(spec) = &mut kept.spec {
        spec.unloaded = true;
    }
    let mut wide = chain("acme/pipe/2", &["b"]);
    if let Spec::ModelVersion(spec) = &mut wide.spec {
        spec.config.max_batch_size = 9;
    }
    let compiled = compiled(&town(&[kept, wide]), &ready(&["acme/b/1"]), &Compiled::default());
    assert!(reason(&compiled, "acme/pipe/1").starts_with("it is kept off"));
    assert_eq!(
        reason(&compiled, "acme/pipe/2"),
        "ensemble_scheduling.step[0].model_name: max_batch_size is 9 here, but model 'b' takes at most 8"
    );
}
