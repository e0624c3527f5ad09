//! What may refer to what, and what may not be taken away.

use crate::{
    Change, RegistryError, RegistryHandle,
    testing::{BUILTIN, admin, key, put, split, tenant, with_registry},
};

async fn problems(registry: &RegistryHandle, changes: Vec<Change>) -> Vec<String> {
    match registry.write(admin(), changes).await {
        Err(RegistryError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("not refused: {other:?}"),
    }
}

fn delete(text: &str) -> Change {
    Change::delete(key(text))
}

/// acme's model `m` with versions 1 and 2, the label `stable` on 1, granted to beta; both have an endpoint on it.
fn town() -> Vec<Change> {
    vec![
        put("Endpoint/acme/e", &split("m", "stable")),
        put("Endpoint/beta/e", &split("m", "2")),
        put("ModelVersion/acme/m/1", BUILTIN),
        put("ModelVersion/acme/m/2", BUILTIN),
        put("Model/acme/m", r#"{"labels":{"stable":1},"grants":["beta"]}"#),
        Change::put(tenant("acme")),
        Change::put(tenant("beta")),
    ]
}

fn with_town<F: Future<Output = ()>>(test: impl FnOnce(RegistryHandle) -> F) {
    with_registry(|registry| async {
        registry.write(admin(), town()).await.unwrap();
        test(registry).await;
    });
}

#[test]
fn a_whole_town_comes_in_one_write_in_any_order_and_goes_in_one() {
    with_town(|registry| async move {
        let gone = town()
            .iter()
            .map(|change| Change::delete(change.key().unwrap()))
            .collect();
        registry.write(admin(), gone).await.unwrap();
        assert!(registry.all().unwrap().1.is_empty());
    });
}

#[test]
fn what_is_referred_to_must_be_there() {
    with_town(|registry| async move {
        let issuer = r#"{"issuer":"i","audiences":["a"],"keys":[{"algorithm":"HS256","secret_base64":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}],"tenants":{"tenant":"none"}}"#;
        let file = format!(
            r#""format":"torchscript","artifact":{{"sha256":"{}","bytes":1}}"#,
            "a".repeat(64)
        );
        let artifact = BUILTIN.replace(r#""format":"builtin""#, &file);
        for (change, wanted) in [
            (put("Model/none/m", "{}"), "metadata.tenant: there is no tenant 'none'"),
            (
                put("Issuer/i", issuer),
                "spec.tenants.tenant: there is no tenant 'none'",
            ),
            (
                put("Model/acme/n", r#"{"labels":{"x":1}}"#),
                "spec.labels.x: there is no version 1 of model 'n'",
            ),
            (
                put("Model/acme/n", r#"{"default_version":"3"}"#),
                "spec.default_version: there is no version 3",
            ),
            (
                put("Model/acme/n", r#"{"grants":["none"]}"#),
                "spec.grants[0]: there is no tenant 'none'",
            ),
            (
                put("ModelVersion/acme/n/1", BUILTIN),
                "metadata.name: there is no model 'n'",
            ),
            (
                put("ModelVersion/acme/m/3", &artifact),
                "spec.artifact: there is no artifact aaa",
            ),
            (
                put("Endpoint/acme/f", &split("n", "1")),
                "spec.arms[0].model: there is no model 'n' here",
            ),
            (
                put("Endpoint/acme/f", &split("m", "3")),
                "spec.arms[0].version: model 'm' has no version or label '3'",
            ),
            (
                put("Endpoint/beta/f", &split("m", "no")),
                "spec.arms[0].version: model 'm' has no version or label 'no'",
            ),
        ] {
            let found = problems(&registry, vec![change]).await;
            assert!(found.len() == 1 && found[0].starts_with(wanted), "{wanted}: {found:?}");
        }
    });
}

#[test]
fn a_model_that_is_not_granted_is_as_if_it_were_not_there() {
    with_town(|registry| async move {
        registry
            .write(admin(), vec![Change::put(tenant("gamma"))])
            .await
            .unwrap();
        let found = problems(&registry, vec![put("Endpoint/gamma/e", &split("m", "1"))]).await;
        assert!(found[0].contains("there is no model 'm' here"), "{found:?}");
        assert!(!found[0].contains("acme"), "{found:?}");
    });
}

#[test]
fn what_something_refers_to_is_not_taken_away() {
    with_town(|registry| async move {
        for (changes, wanted) in [
            (vec![delete("Tenant/acme")], "needs it"),
            (vec![delete("Tenant/beta")], "Endpoint/beta/e needs it"),
            (
                vec![delete("Model/acme/m")],
                "Endpoint/acme/e needs it (spec.arms[0].model",
            ),
            (
                vec![delete("ModelVersion/acme/m/1")],
                "Model/acme/m needs it (spec.labels.stable",
            ),
            (
                vec![delete("ModelVersion/acme/m/2")],
                "Endpoint/beta/e needs it (spec.arms[0].version",
            ),
            (
                vec![put("Model/acme/m", r#"{"labels":{"stable":1}}"#)],
                "Endpoint/beta/e needs it (spec.arms[0].model",
            ),
            (
                vec![put("Model/acme/m", r#"{"grants":["beta"]}"#)],
                "Endpoint/acme/e needs it (spec.arms[0].version",
            ),
        ] {
            let found = problems(&registry, changes).await;
            assert!(
                found.iter().any(|problem| problem.contains(wanted)),
                "{wanted}: {found:?}"
            );
        }
        let moved = vec![
            put("Model/acme/m", r#"{"labels":{"stable":2},"grants":["beta"]}"#),
            delete("ModelVersion/acme/m/1"),
        ];
        registry.write(admin(), moved).await.unwrap();
    });
}

#[test]
fn a_write_is_checked_against_those_that_wait_with_it() {
    with_town(|registry| async move {
        let one = registry.write(admin(), vec![delete("Endpoint/acme/e")]);
        let two = registry.write(admin(), vec![put("Endpoint/acme/f", &split("m", "1"))]);
        let three = registry.write(admin(), vec![put("Model/acme/m", r#"{"grants":["beta"]}"#)]);
        let (one, two, three) = tokio::join!(one, two, three);
        assert!(one.is_ok() && two.is_ok() && three.is_ok(), "{one:?} {two:?} {three:?}");
    });
}
