//! When API keys were last used, as the API says it.

use serde_json::{Value, json};

use crate::fixture_tests::{Fixture, tenant};

#[actix_web::test]
async fn each_key_says_when_it_was_last_used_and_a_use_is_no_write() {
    let door = Fixture::new().await;
    for name in ["acme", "globex"] {
        door.put(&format!("/tenants/{name}"), &tenant(name)).await.is(201);
    }
    for (tenant, key) in [("acme", "idle"), ("acme", "used"), ("globex", "used")] {
        door.post(&format!("/tenants/{tenant}/keys"), &json!({"name": key}))
            .await
            .is(201);
    }
    let before = *door.registry.revision().borrow();
    let used = json!({"tenant": "acme", "key": "used", "last_used": "2030-03-17T17:46:00Z"});
    let idle = json!({"tenant": "acme", "key": "idle", "last_used": null});
    assert_eq!(door.get("/tenants/acme/keys/used/use").await.is(200).body, used);
    assert_eq!(door.get("/tenants/acme/keys/idle/use").await.is(200).body, idle);
    door.get("/tenants/acme/keys/gone/use").await.is(404);
    let listed = door.get("/key-uses?tenant=acme").await.is(200).body;
    assert_eq!(listed, json!({"items": [idle, used], "next": null}));
    // Page by page, over all tenants.
    let first = door.get("/key-uses?limit=2").await.is(200).body;
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    let cursor = first["next"].as_str().unwrap();
    let second = door
        .get(&format!("/key-uses?limit=2&cursor={cursor}"))
        .await
        .is(200)
        .body;
    assert_eq!(second["items"][0]["tenant"], "globex");
    assert_eq!(
        second["items"][0]["last_used"],
        Value::Null,
        "another tenant's key of the same name"
    );
    assert_eq!(second["next"], Value::Null);
    door.get("/key-uses?limit=0").await.is(400);
    assert_eq!(*door.registry.revision().borrow(), before);
    door.end().await;
}
