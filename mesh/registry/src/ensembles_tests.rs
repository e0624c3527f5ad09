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

#[test]
fn ensembles_lie_as_deep_within_each_other_as_they_may_and_one_more_is_refused_at_either_end() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let on = |name: &str, step: &str| {
            vec![
                put(&format!("Model/acme/{name}"), "{}"),
                put(&format!("ModelVersion/acme/{name}/1"), &pipe(step, "1", "")),
            ]
        };
        // pipe is the first of four.
        for (name, step) in [("two", "pipe"), ("three", "two"), ("four", "three")] {
            registry.write(admin(), on(name, step)).await.unwrap();
        }
        let deep = "graph: ensembles lie 5 deep within each other, at most 4 may";
        refused(&registry, on("five", "four"), deep).await;
        registry.write(admin(), on("zero", "m")).await.unwrap();
        let lower = vec![put("ModelVersion/acme/pipe/1", &pipe("zero", "1", ""))];
        refused(&registry, lower.clone(), "ModelVersion/acme/four/1 needs it").await;
        refused(&registry, lower, deep).await;
        let around = vec![put("ModelVersion/acme/three/1", &pipe("zero", "1", ""))];
        registry.write(admin(), around).await.unwrap();
    });
}

/// An ensemble of so many steps of one model, one after the other.
fn many(model: &str, steps: usize) -> String {
    let step = |at: usize| {
        let tensor = |at: usize| if at == 0 { "x".to_owned() } else { format!("t{at}") };
        let made = if at + 1 == steps {
            "y".to_owned()
        } else {
            tensor(at + 1)
        };
        format!(
            r#"{{"name":"s{at}","model":"{model}","version":1,"inputs":{{"x":"{}"}},"outputs":{{"y":"{made}"}}}}"#,
            tensor(at)
        )
    };
    let steps: Vec<String> = (0..steps).map(step).collect();
    format!(
        r#"{{"format":"ensemble","config":{{"max_batch_size":8,
            "input":[{{"name":"x","datatype":"FP32","dims":[2]}}],
            "output":[{{"name":"y","datatype":"FP32","dims":[2]}}],"graph":{{"steps":[{}]}}}}}}"#,
        steps.join(",")
    )
}

#[test]
fn steps_of_ensembles_within_count_as_many_as_may_and_one_more_is_refused() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let on = |name: &str, model: &str, steps: usize| {
            vec![
                put(&format!("Model/acme/{name}"), "{}"),
                put(&format!("ModelVersion/acme/{name}/1"), &many(model, steps)),
            ]
        };
        // Eight times 31 and the eight themselves.
        registry.write(admin(), on("inner", "m", 31)).await.unwrap();
        registry.write(admin(), on("outer", "inner", 8)).await.unwrap();
        let beyond = "graph: 264 steps with those of ensembles within it, at most 256 are allowed";
        refused(&registry, on("inner", "m", 32), beyond).await;
        refused(
            &registry,
            on("outer", "inner", 9),
            "steps with those of ensembles within it",
        )
        .await;
        refused(
            &registry,
            on("outer", "inner", 30),
            "steps with those of ensembles within it",
        )
        .await;
    });
}

#[test]
fn a_grant_is_not_handed_on_through_an_ensemble_within_either() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let outer = |grants: &str| {
            vec![
                put("Model/acme/outer", &format!(r#"{{"grants":[{grants}]}}"#)),
                put("ModelVersion/acme/outer/1", &pipe("pipe", "2", "")),
            ]
        };
        let theirs = vec![put("ModelVersion/acme/pipe/2", &pipe("theirs", "-1", ""))];
        registry.write(admin(), theirs.clone()).await.unwrap();
        let text = "model 'pipe' runs a model that is not granted to 'gamma', to whom this model is";
        refused(&registry, outer("\"gamma\""), text).await;
        registry.write(admin(), outer("\"beta\"")).await.unwrap();
        // Nor where the inner one comes to run it afterwards.
        let own = vec![put("ModelVersion/acme/pipe/2", &pipe("m", "1", ""))];
        registry.write(admin(), own).await.unwrap();
        registry.write(admin(), outer("\"gamma\"")).await.unwrap();
        refused(&registry, theirs, "ModelVersion/acme/outer/1 needs it").await;
    });
}

#[test]
fn a_version_that_is_kept_off_the_devices_is_no_step() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let off = |extent: u32| vectors(extent).replacen('{', r#"{"unloaded":true,"#, 1);
        refused(
            &registry,
            vec![put("ModelVersion/acme/m/1", &off(2))],
            "ModelVersion/acme/pipe/1 needs it",
        )
        .await;
        registry
            .write(admin(), vec![put("ModelVersion/acme/m/2", &off(2))])
            .await
            .unwrap();
        let two = vec![put("ModelVersion/acme/pipe/2", &pipe("m", "2", ""))];
        refused(&registry, two, "version 2 of model 'm' is kept off the devices").await;
        // One that is kept off itself may rest on it, and so may a step that may fail.
        let asleep = pipe("m", "2", "").replacen('{', r#"{"unloaded":true,"#, 1);
        registry
            .write(admin(), vec![put("ModelVersion/acme/pipe/2", &asleep)])
            .await
            .unwrap();
    });
}

/// Keeps what was written off the devices.
fn off(spec: &str) -> String {
    spec.replacen('{', r#"{"unloaded":true,"#, 1)
}

#[test]
fn an_ensemble_that_is_unloaded_leaves_what_it_names_as_free_as_if_it_were_not_there() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let theirs = vec![put("ModelVersion/acme/pipe/2", &pipe("theirs", "-1", ""))];
        registry.write(admin(), theirs).await.unwrap();
        let above = |spec: &str| vec![put("Model/acme/outer", "{}"), put("ModelVersion/acme/outer/1", spec)];
        registry.write(admin(), above(&pipe("pipe", "1", ""))).await.unwrap();
        // Who runs it still asks for it.
        let unload = |version: u32, model: &str, step: &str| {
            vec![put(
                &format!("ModelVersion/acme/pipe/{version}"),
                &off(&pipe(model, step, "")),
            )]
        };
        let needs = "ModelVersion/acme/outer/1 needs it";
        refused(&registry, unload(1, "m", "\"stable\""), needs).await;
        registry
            .write(admin(), above(&off(&pipe("pipe", "1", ""))))
            .await
            .unwrap();
        let needs = "ModelVersion/acme/pipe/1 needs it";
        refused(&registry, vec![put("ModelVersion/acme/m/1", &vectors(4))], needs).await;
        registry.write(admin(), unload(1, "m", "\"stable\"")).await.unwrap();
        registry.write(admin(), unload(2, "theirs", "-1")).await.unwrap();
        for change in [
            // Another configuration, no label, no grant, one version less, and an ensemble above what was above it.
            put("ModelVersion/acme/m/1", &vectors(4)),
            put("Model/acme/m", "{}"),
            put("Model/beta/theirs", "{}"),
            Change::delete(key("ModelVersion/acme/m/2")),
            put("ModelVersion/acme/pipe/3", &vectors(2)),
            put("ModelVersion/acme/m/3", &pipe("pipe", "3", "")),
        ] {
            registry.write(admin(), vec![change]).await.unwrap();
        }
        let load = vec![put("ModelVersion/acme/pipe/1", &pipe("m", "\"stable\"", ""))];
        refused(&registry, load.clone(), "'pipe' would be a step of itself").await;
        let gone =
            ["ModelVersion/acme/m/1", "ModelVersion/acme/m/3", "Model/acme/m"].map(|text| Change::delete(key(text)));
        registry.write(admin(), gone.to_vec()).await.unwrap();
        // It may be written as it is, among others; loaded again, or changed, it asks for all that it names.
        registry.write(admin(), unload(1, "m", "\"stable\"")).await.unwrap();
        refused(&registry, load.clone(), "there is no model 'm' here").await;
        refused(&registry, unload(1, "m", "1"), "there is no model 'm' here").await;
        let again = vec![
            put("Model/acme/m", r#"{"labels":{"stable":1}}"#),
            put("ModelVersion/acme/m/1", &vectors(2)),
        ];
        registry.write(admin(), again).await.unwrap();
        registry.write(admin(), load).await.unwrap();
        refused(&registry, vec![put("ModelVersion/acme/m/1", &vectors(4))], needs).await;
    });
}

#[test]
fn an_ensemble_and_its_steps_are_put_away_in_one_write_and_its_steps_may_go_with_it() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let away = vec![
            put("ModelVersion/acme/pipe/1", &off(&pipe("m", "\"stable\"", ""))),
            put("ModelVersion/acme/m/1", &off(&vectors(2))),
        ];
        registry.write(admin(), away).await.unwrap();
        let mut gone = vec![put("ModelVersion/acme/pipe/1", &off(&pipe("m", "\"stable\"", "")))];
        let steps = ["ModelVersion/acme/m/1", "ModelVersion/acme/m/2", "Model/acme/m"];
        gone.extend(steps.map(|text| Change::delete(key(text))));
        registry.write(admin(), gone).await.unwrap();
    });
}

#[test]
fn a_default_is_the_highest_version_that_the_policy_keeps() {
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let newest = vec![put("ModelVersion/acme/pipe/2", &pipe("m", "-1", ""))];
        refused(&registry, newest.clone(), "but model 'm' takes [-1,3]").await;
        let policy = r#"{"labels":{"stable":1},"version_policy":{"specific":{"versions":[1]}}}"#;
        registry
            .write(admin(), vec![put("Model/acme/m", policy)])
            .await
            .unwrap();
        registry.write(admin(), newest).await.unwrap();
        refused(
            &registry,
            vec![put("Model/acme/m", r#"{"labels":{"stable":1}}"#)],
            "ModelVersion/acme/pipe/2 needs it",
        )
        .await;
    });
}

/// The same with a state for each sequence.
fn stateful(extent: u32) -> String {
    let state = r#""sequence_batching":{"state":[
        {"input_name":"before","output_name":"after","data_type":"TYPE_FP32","dims":[1]}]},"#;
    vectors(extent).replace(r#""max_batch_size":8,"#, &format!(r#""max_batch_size":8,{state}"#))
}

#[test]
fn one_stateful_model_is_not_two_steps_of_one_request() {
    with_registry(|registry| async move {
        let mut all = town();
        all.push(put("Model/acme/ears", "{}"));
        all.push(put("ModelVersion/acme/ears/1", &stateful(2)));
        all.push(put("ModelVersion/acme/pipe/2", &pipe("ears", "1", "")));
        all.push(put("Model/acme/twice", "{}"));
        registry.write(admin(), all).await.unwrap();
        let twice = vec![put("ModelVersion/acme/twice/1", &many("ears", 2))];
        let text = "steps[1]: step 's0' runs the stateful model 'ears' too";
        refused(&registry, twice, text).await;
        let below = many("ears", 2).replacen(r#""model":"ears","version":1"#, r#""model":"pipe","version":2"#, 1);
        refused(&registry, vec![put("ModelVersion/acme/twice/1", &below)], text).await;
        let once = many("ears", 2).replacen(r#""model":"ears""#, r#""model":"m""#, 1);
        registry
            .write(admin(), vec![put("ModelVersion/acme/twice/1", &once)])
            .await
            .unwrap();
    });
}

#[test]
fn no_step_gives_any_number_of_answers_now_or_later() {
    let decoupled = || {
        vectors(2).replace(
            r#""max_batch_size":8,"#,
            r#""max_batch_size":8,"model_transaction_policy":{"decoupled":true},"#,
        )
    };
    with_registry(|registry| async move {
        registry.write(admin(), town()).await.unwrap();
        let streams = vec![
            put("Model/acme/streams", "{}"),
            put("ModelVersion/acme/streams/1", &decoupled()),
        ];
        registry.write(admin(), streams).await.unwrap();
        let at = vec![put("ModelVersion/acme/pipe/2", &pipe("streams", "-1", ""))];
        refused(
            &registry,
            at,
            "model 'streams' gives any number of answers (it is decoupled)",
        )
        .await;
        let later = vec![put("ModelVersion/acme/m/1", &decoupled())];
        refused(&registry, later, "gives any number of answers (it is decoupled)").await;
    });
}
