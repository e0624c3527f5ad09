//! Ensembles as they are written: what they may be made of, and what may not be changed under them.

use crate::{
    Change, RegistryError, RegistryHandle,
    testing::{admin, key, put, tenant, with_registry},
};

/// A plain version of vectors of so many numbers, `x` to `y`.
fn vectors(extent: u32) -> String {
    format!(
        r#"{{"format":"builtin","config":{{"max_batch_size":8,
            "input":[{{"name":"x","datatype":"FP32","dims":[{extent}]}}],
            "output":[{{"name":"y","datatype":"FP32","dims":[{extent}]}}]}}}}"#
    )
}

/// An ensemble of one step.
fn pipe(model: &str, version: &str, namespace: &str) -> String {
    let namespace = if namespace.is_empty() {
        String::new()
    } else {
        format!(r#""namespace":"{namespace}","#)
    };
    format!(
        r#"{{"format":"ensemble","config":{{"max_batch_size":8,
            "input":[{{"name":"x","datatype":"FP32","dims":[2]}}],
            "output":[{{"name":"y","datatype":"FP32","dims":[2]}}],
            "graph":{{"steps":[{{"name":"s","model":"{model}","version":{version},{namespace}
                "inputs":{{"x":"x"}},"outputs":{{"y":"y"}}}}]}}}}}}"#
    )
}

fn town() -> Vec<Change> {
    vec![
        Change::put(tenant("acme")),
        Change::put(tenant("beta")),
        Change::put(tenant("gamma")),
        put("Model/acme/m", r#"{"labels":{"stable":1}}"#),
        put("ModelVersion/acme/m/1", &vectors(2)),
        put("ModelVersion/acme/m/2", &vectors(3)),
        put("Model/acme/pipe", "{}"),
        put("ModelVersion/acme/pipe/1", &pipe("m", "\"stable\"", "")),
        put("Model/beta/theirs", r#"{"grants":["acme"]}"#),
        put("ModelVersion/beta/theirs/1", &vectors(2)),
        put("Model/gamma/hidden", "{}"),
        put("ModelVersion/gamma/hidden/1", &vectors(2)),
    ]
}

async fn refused(registry: &RegistryHandle, changes: Vec<Change>, part: &str) {
    let problems = match registry.write(admin(), changes).await {
        Err(RegistryError::Invalid(problems)) => problems,
        other => panic!("'{part}' was not refused: {other:?}"),
    };
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert!(
        texts.iter().any(|text| text.contains(part)),
        "wanted '{part}' in {texts:#?}"
    );
}

#[test]
fn a_town_with_ensembles_comes_in_one_write_and_goes_in_one() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let gone = town()
            .iter()
            .map(|change| Change::delete(change.key().unwrap()))
            .collect();
        registry.write(admin(), gone).await.unwrap();
    });
}

#[test]
fn steps_must_be_there_fit_and_be_callable_by_the_owner() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let at = |model: &str, version: &str, namespace: &str| {
            vec![put("ModelVersion/acme/pipe/2", &pipe(model, version, namespace))]
        };
        let place = "spec.config.graph.steps[0]";
        refused(
            &registry,
            at("lost", "-1", ""),
            &format!("{place}.model: there is no model 'lost' here"),
        )
        .await;
        refused(&registry, at("hidden", "-1", ""), "there is no model 'hidden' here").await;
        refused(
            &registry,
            at("hidden", "-1", "gamma"),
            "there is no model 'hidden' here",
        )
        .await;
        refused(&registry, at("m", "7", ""), "model 'm' has no version 7").await;
        refused(&registry, at("m", "\"canary\"", ""), "model 'm' has no label 'canary'").await;
        refused(
            &registry,
            at("m", "-1", ""),
            "'x' has the shape [-1,2], but model 'm' takes [-1,3]",
        )
        .await;
        registry.write(admin(), at("theirs", "-1", "beta")).await.unwrap();
        registry.write(admin(), at("theirs", "1", "")).await.unwrap();
    });
}

#[test]
fn circles_over_models_are_refused() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let itself = vec![put("ModelVersion/acme/pipe/2", &pipe("pipe", "1", ""))];
        refused(&registry, itself, "'pipe' would be a step of itself").await;
        let outer = vec![
            put("Model/acme/outer", "{}"),
            put("ModelVersion/acme/outer/1", &pipe("pipe", "-1", "")),
        ];
        registry.write(admin(), outer).await.unwrap();
        let back = vec![put("ModelVersion/acme/pipe/2", &pipe("outer", "-1", ""))];
        refused(&registry, back, "'pipe' would be a step of itself").await;
    });
}

#[test]
fn nothing_is_taken_away_or_changed_under_an_ensemble() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let needs = "ModelVersion/acme/pipe/1 needs it";
        refused(&registry, vec![Change::delete(key("Model/acme/m"))], needs).await;
        refused(&registry, vec![put("Model/acme/m", "{}")], needs).await;
        refused(
            &registry,
            vec![put("Model/acme/m", r#"{"labels":{"stable":2}}"#)],
            needs,
        )
        .await;
        refused(&registry, vec![put("ModelVersion/acme/m/1", &vectors(4))], needs).await;
        let theirs = vec![put("ModelVersion/acme/pipe/2", &pipe("theirs", "-1", ""))];
        registry.write(admin(), theirs).await.unwrap();
        let needs = "ModelVersion/acme/pipe/2 needs it";
        refused(&registry, vec![put("Model/beta/theirs", "{}")], needs).await;
        refused(&registry, vec![put("ModelVersion/beta/theirs/2", &vectors(3))], needs).await;
        registry
            .write(admin(), vec![put("ModelVersion/beta/theirs/2", &vectors(2))])
            .await
            .unwrap();
    });
}

#[test]
fn a_grant_is_not_handed_on() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        // Its own steps come with it.
        registry
            .write(admin(), vec![put("Model/acme/pipe", r#"{"grants":["gamma"]}"#)])
            .await
            .unwrap();
        let theirs = vec![put("ModelVersion/acme/pipe/2", &pipe("theirs", "-1", ""))];
        let text = "model 'theirs' is beta's and is not granted to 'gamma', to whom this model is";
        refused(&registry, theirs.clone(), text).await;
        registry
            .write(admin(), vec![put("Model/acme/pipe", "{}")])
            .await
            .unwrap();
        registry.write(admin(), theirs).await.unwrap();
        let grant = |tenant: &str| vec![put("Model/acme/pipe", &format!(r#"{{"grants":["{tenant}"]}}"#))];
        refused(&registry, grant("gamma"), text).await;
        registry.write(admin(), grant("beta")).await.unwrap();
    });
}
