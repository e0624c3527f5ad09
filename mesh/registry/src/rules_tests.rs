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

fn token(name: &str, role: &str, expires: &str) -> Change {
    let hash = "a".repeat(64);
    put(
        &format!("AdminToken/{name}"),
        &format!(r#"{{"hash":"{hash}","role":"{role}"{expires}}}"#),
    )
}

const ENDED: &str = r#","expires":"2020-01-01T00:00:00Z""#;
const ENDS_LATER: &str = r#","expires":"2099-01-01T00:00:00Z""#;

#[test]
fn no_write_ends_the_last_admins_token_whichever_way() {
    with_registry(|registry| async move {
        let tokens = vec![
            token("a", "admin", ""),
            token("v", "viewer", ""),
            token("old", "admin", ENDED),
        ];
        registry.write(admin(), tokens).await.unwrap();
        for (changes, wanted) in [
            (vec![delete("AdminToken/a")], "make another before deleting it"),
            (vec![token("a", "viewer", "")], "before it becomes a viewer's or ends"),
            (vec![token("a", "admin", ENDED)], "before it becomes a viewer's or ends"),
            (
                vec![
                    token("a", "viewer", ""),
                    token("b", "viewer", ""),
                    delete("AdminToken/v"),
                ],
                "AdminToken/a spec",
            ),
        ] {
            let found = problems(&registry, changes).await;
            assert!(
                found.iter().any(|problem| problem.contains(wanted)),
                "{wanted}: {found:?}"
            );
        }
        // Another in the same write is enough, and so is one that ends later.
        let swap = vec![delete("AdminToken/a"), token("b", "admin", ENDS_LATER)];
        registry.write(admin(), swap).await.unwrap();
        // What is none of an admin's may come and go.
        let others = vec![delete("AdminToken/v"), delete("AdminToken/old")];
        registry.write(admin(), others).await.unwrap();
        assert!(!problems(&registry, vec![delete("AdminToken/b")]).await.is_empty());
        // A renewal of the last one is no end.
        registry.write(admin(), vec![token("b", "admin", "")]).await.unwrap();
    });
}

#[test]
fn of_two_writes_that_wait_together_only_one_can_end_an_admins_token() {
    with_registry(|registry| async move {
        registry
            .write(admin(), vec![token("a", "admin", ""), token("b", "admin", "")])
            .await
            .unwrap();
        let one = registry.write(admin(), vec![delete("AdminToken/a")]);
        let two = registry.write(admin(), vec![token("b", "viewer", "")]);
        let (one, two) = tokio::join!(one, two);
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
    });
}

#[test]
fn two_issuers_cannot_have_the_same_iss() {
    with_registry(|registry| async move {
        let issuer = |name: &str, iss: &str| {
            let secret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
            let spec = format!(
                r#"{{"issuer":"{iss}","audiences":["a"],"keys":[{{"algorithm":"HS256","secret_base64":"{secret}"}}],"tenants":{{"claim":"t"}}}}"#
            );
            put(&format!("Issuer/{name}"), &spec)
        };
        registry
            .write(admin(), vec![issuer("one", "https://one")])
            .await
            .unwrap();
        for changes in [
            vec![issuer("two", "https://one")],
            vec![issuer("two", "https://two"), issuer("three", "https://two")],
        ] {
            let found = problems(&registry, changes).await;
            assert!(
                found
                    .iter()
                    .all(|problem| problem.contains("has the same issuer, and a token's iss must mean one")),
                "{found:?}"
            );
        }
        registry
            .write(
                admin(),
                vec![issuer("one", "https://one"), issuer("two", "https://two")],
            )
            .await
            .unwrap();
        // Taken over in one write.
        let moved = vec![delete("Issuer/one"), issuer("two", "https://one")];
        registry.write(admin(), moved).await.unwrap();
    });
}

#[test]
fn a_certificate_is_one_caller_of_one_tenant() {
    with_town(|registry| async move {
        let caller = |name: &str, dns: &str| {
            let spec = format!(r#"{{"identity":{{"dns":"{dns}"}},"scopes":["infer"]}}"#);
            put(&format!("ClientCertificate/{name}"), &spec)
        };
        registry
            .write(admin(), vec![caller("acme/billing", "billing.test")])
            .await
            .unwrap();
        for changes in [
            vec![caller("beta/theirs", "billing.test")],
            vec![caller("acme/again", "billing.test")],
            vec![caller("acme/one", "new.test"), caller("beta/two", "new.test")],
        ] {
            let found = problems(&registry, changes).await;
            assert!(
                !found.is_empty()
                    && found
                        .iter()
                        .all(|problem| problem.contains("stands for the same certificate")),
                "{found:?}"
            );
        }
        // The same record again, another name, and what is taken over in one write.
        let moved = vec![
            delete("ClientCertificate/acme/billing"),
            caller("beta/theirs", "billing.test"),
        ];
        for changes in [
            vec![caller("acme/billing", "billing.test")],
            vec![caller("acme/other", "other.test")],
            moved,
        ] {
            registry.write(admin(), changes).await.unwrap();
        }
    });
}
