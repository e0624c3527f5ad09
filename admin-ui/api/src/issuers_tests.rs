//! The keys of issuers as admins see them: declared, fetched, and not there yet.

use serde_json::{Value, json};

use crate::fixture_tests::{Ask, Fixture, resource};

fn issuer(name: &str, keys: &Value) -> Value {
    let mut spec =
        json!({"issuer": format!("https://{name}.test"), "audiences": ["mesh"], "tenants": {"claim": "tenant"}});
    spec.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    resource("Issuer", None, name, spec)
}

#[actix_web::test]
async fn the_keys_of_an_issuer_are_shown_with_how_fetching_them_goes() {
    let door = Fixture::new().await;
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA==";
    for (name, keys) in [
        (
            "declared",
            json!({"keys": [{"key_id": "h", "algorithm": "HS256", "secret_base64": secret}]}),
        ),
        ("published", json!({"jwks": {"url": "https://idp.test/keys"}})),
        ("new", json!({"jwks": {}})),
    ] {
        door.put(&format!("/issuers/{name}"), &issuer(name, &keys))
            .await
            .is(201);
    }
    let keys = async |name: &str| door.get(&format!("/issuers/{name}/keys")).await.is(200).body;
    let declared = keys("declared").await;
    assert_eq!(declared["source"], "declared");
    assert_eq!(
        declared["keys"],
        json!([{"key_id": "h", "algorithm": "HS256", "thumbprint": null}])
    );
    assert!(!declared.to_string().contains(secret));
    let published = keys("published").await;
    assert_eq!(
        published,
        json!({
            "issuer": "https://published.test", "source": "jwks", "url": "https://idp.test/keys",
            "keys": [{"key_id": "k1", "algorithm": "ES256", "thumbprint": "print"}],
            "left_out": [{"key_id": "enc", "reason": "it is not for signatures"}],
            "fetched_at": "2030-03-17T17:45:40Z", "next_refresh": "2030-03-17T17:46:42Z",
            "kept_until": "2030-03-18T17:45:40Z",
            "last_error": "no answer within 5 s", "last_error_at": "2030-03-17T17:46:39Z",
        })
    );
    let new = keys("new").await;
    assert_eq!(
        (&new["source"], &new["keys"], &new["fetched_at"]),
        (&json!("discovery"), &json!([]), &Value::Null)
    );
    door.get("/issuers/nobody/keys").await.is(404);
    door.get("/issuers/No%20name/keys").await.is(400);
    let stranger = Ask::new(actix_web::http::Method::GET, "/issuers/published/keys");
    door.send(stranger).await.is(401);
}
