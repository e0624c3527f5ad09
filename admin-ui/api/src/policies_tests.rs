//! Policies at the admin door: written, refused, tried out, and asked before every route.

use actix_web::http::Method;
use mesh_policies::{Pepper, generate_admin_token, hash_secret};
use mesh_registry::{Author, Change, Expected};
use mesh_resources::{AdminRole, AdminTokenSpec, Resource, ResourceKey};
use mesh_types::TenantId;
use serde_json::{Value, json};
use utoipa::openapi::HttpMethod;

use crate::{
    authz::Needs,
    fixture_tests::{Answer, Ask, Fixture, endpoint, resource, tenant, version_spec},
    policies::MAX_DRAFTS,
    routes::entries,
};

fn policy(name: &str, cedar: &str) -> Value {
    resource("Policy", None, name, json!({"cedar": cedar}))
}

async fn declare(door: &Fixture, name: &str, cedar: &str) -> Answer {
    door.put(&format!("/policies/{name}"), &policy(name, cedar)).await
}

/// A new admin token of this name.
async fn token_of(door: &Fixture, name: &str, role: AdminRole, tenant: Option<&str>, groups: &[&str]) -> String {
    let mut made = generate_admin_token(&mut rand::rng());
    let id = mesh_types::KeyId::parse(name).unwrap();
    if made.id != id {
        made = mesh_policies::access::generate_admin_token_as(id, &mut rand::rng());
    }
    let spec = AdminTokenSpec {
        hash: hash_secret(&Pepper::from_bytes([7; 32]), &made.secret),
        role,
        tenant: tenant.map(|tenant| TenantId::parse(tenant).unwrap()),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        expires: None,
    };
    let resource = Resource::new(&ResourceKey::admin_token(&made.id), spec);
    let by = Author {
        who: "start".into(),
        source: "mesh".into(),
        request: None,
        from: None,
    };
    let expected = Expected::Absent;
    door.registry
        .write(by, vec![Change::Put { resource, expected }])
        .await
        .unwrap();
    made.text
}

async fn ask(door: &Fixture, token: &str, method: Method, path: &str, body: Value) -> Answer {
    door.send(Ask::new(method, path).bearer(token).json(&body)).await
}

/// The action that a refusal names.
fn refused(answer: &Answer) -> String {
    assert_eq!(answer.status, 403, "{}", answer.body);
    let text = answer.body["error"].as_str().unwrap();
    text.split(" may not do ")
        .nth(1)
        .unwrap_or(text)
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

fn path(path: &str) -> String {
    [
        ("{tenant}", "acme"),
        ("{model}", "digits"),
        ("{version}", "1"),
        ("{name}", "read"),
        ("{device}", "cpu:0"),
    ]
    .iter()
    .fold(path.to_owned(), |path, (part, name)| path.replace(part, name))
}

#[actix_web::test]
async fn no_route_is_without_its_right_and_each_refuses_by_name() {
    let door = Fixture::new().await;
    door.demo().await;
    let nobody = token_of(&door, "nobody", AdminRole::Admin, None, &[]).await;
    declare(
        &door,
        "nobody",
        "forbid (principal == Mesh::Admin::\"nobody\", action, resource);",
    )
    .await
    .is(201);
    let mut asked = 0;
    for entry in entries() {
        let method = match entry.method {
            HttpMethod::Get => Method::GET,
            HttpMethod::Post => Method::POST,
            HttpMethod::Put => Method::PUT,
            _ => Method::DELETE,
        };
        assert_ne!(entry.needs, Needs::Undeclared, "{}", entry.id);
        let (Needs::Path(action, _) | Needs::Home(action)) = entry.needs else {
            continue;
        };
        let answer = ask(&door, &nobody, method, &path(&entry.path), json!({})).await;
        assert_eq!(refused(&answer), action.as_str(), "{}", entry.id);
        asked += 1;
    }
    assert!(asked > 25, "only {asked} routes were asked");
}

#[actix_web::test]
async fn what_a_handler_asks_for_itself_is_refused_by_name_too() {
    let door = Fixture::new().await;
    door.demo().await;
    let viewer = token_of(&door, "looks", AdminRole::Viewer, None, &[]).await;
    let version = json!({"spec": version_spec()});
    let put = |kind: &str, name: &str, spec: Value| resource(kind, None, name, spec);
    let label = resource("Model", Some("acme"), "digits", json!({"labels": {"stable": 1}}));
    let grant = resource("Model", Some("acme"), "digits", json!({"grants": ["acme"]}));
    let mut slow = endpoint(90.0);
    slow["spec"]["timeout_ms"] = json!(5);
    for (method, path, body, action) in [
        (Method::PUT, "/tenants/globex", tenant("globex"), "tenant:admin"),
        (
            Method::PUT,
            "/tenants/acme/models/digits",
            label.clone(),
            "rollout:promote",
        ),
        (Method::PUT, "/tenants/acme/models/digits", grant, "model:publish"),
        (
            Method::PUT,
            "/tenants/acme/endpoints/read",
            endpoint(50.0),
            "experiment:edit",
        ),
        (Method::PUT, "/tenants/acme/endpoints/read", slow, "endpoint:route"),
        (
            Method::PUT,
            "/policies/p",
            put("Policy", "p", json!({"cedar": "permit (principal, action, resource);"})),
            "policy:edit",
        ),
        (
            Method::POST,
            "/tenants/acme/models/digits/versions",
            version,
            "model:publish",
        ),
        (Method::POST, "/tenants/acme/keys", json!({}), "key:admin"),
        (Method::POST, "/admin-tokens", json!({"role": "admin"}), "token:admin"),
        (
            Method::POST,
            "/apply",
            json!({"resources": [tenant("acme"), label]}),
            "tenant:admin",
        ),
        (
            Method::POST,
            "/apply?dry_run=true",
            json!({"resources": [endpoint(50.0)]}),
            "experiment:edit",
        ),
    ] {
        assert_eq!(
            refused(&ask(&door, &viewer, method, path, body).await),
            action,
            "{path}"
        );
    }
    assert_eq!(
        door.get("/tenants/acme/endpoints/read").await.body["spec"]["arms"][0]["weight"],
        90.0
    );
    for (role, weight) in [(AdminRole::Experimenter, 60.0), (AdminRole::Operator, 70.0)] {
        let token = token_of(&door, &format!("{role:?}").to_lowercase(), role, None, &[]).await;
        ask(
            &door,
            &token,
            Method::PUT,
            "/tenants/acme/endpoints/read",
            endpoint(weight),
        )
        .await
        .is(200);
        let published = ask(
            &door,
            &token,
            Method::POST,
            "/tenants/acme/models/digits/versions",
            json!({"spec": version_spec()}),
        )
        .await;
        assert_eq!(published.status, if role == AdminRole::Operator { 201 } else { 403 });
        let key = ask(&door, &token, Method::POST, "/tenants/acme/keys", json!({})).await;
        assert_eq!(refused(&key), "key:admin");
    }
}

#[actix_web::test]
async fn a_policy_counts_for_the_next_request_and_until_it_is_deleted() {
    let door = Fixture::new().await;
    door.demo().await;
    let kim = token_of(&door, "kim", AdminRole::Viewer, None, &["on-call"]).await;
    let drain = || ask(&door, &kim, Method::POST, "/devices/cpu:0/drain", json!({}));
    assert_eq!(refused(&drain().await), "device:drain");
    let text = "permit (principal in Mesh::Group::\"on-call\", action == Mesh::Action::\"device:drain\", resource);";
    declare(&door, "on-call", text).await.is(201);
    drain().await.is(200);
    let revision = door.get("/policies/on-call").await.is(200).body["metadata"]["revision"]
        .as_u64()
        .unwrap();
    let trail = door.get("/audit?limit=500").await.is(200).body.to_string();
    assert!(trail.contains("Policy/on-call"), "{trail}");
    assert!(*door.registry.revision().borrow() >= revision);
    door.delete("/policies/on-call").await.is(204);
    assert_eq!(refused(&drain().await), "device:drain");
}

#[actix_web::test]
async fn a_text_that_does_not_type_check_is_refused_with_its_place() {
    let door = Fixture::new().await;
    let answer = declare(
        &door,
        "p",
        "permit (principal, action, resource)\nwhen { principal.nmae == \"x\" };",
    )
    .await
    .is(400);
    let problem = &answer.body["problems"][0];
    assert_eq!(problem["field"], "spec.cedar");
    assert!(
        problem["problem"].as_str().unwrap().starts_with("line 2, column 8: "),
        "{problem}"
    );
    door.get("/policies/p").await.is(404);
    declare(&door, "p", &"x".repeat(65_537)).await.is(400);
}

#[actix_web::test]
async fn policies_that_would_lock_everybody_out_are_refused() {
    let door = Fixture::new().await;
    for text in [
        "forbid (principal, action, resource);",
        "forbid (principal is Mesh::Admin, action == Mesh::Action::\"policy:edit\", resource);",
        "forbid (principal, action == Mesh::Action::\"policy:edit\", resource == Mesh::Policy::\"lock\");",
    ] {
        let answer = declare(&door, "lock", text).await.is(400);
        assert!(
            answer.body.to_string().contains("nobody could take it back"),
            "{}",
            answer.body
        );
    }
    // One who is left out of it is enough, and must stay.
    let root = token_of(&door, "root", AdminRole::Admin, None, &[]).await;
    let text = "forbid (principal, action, resource) unless { principal == Mesh::Admin::\"root\" };";
    declare(&door, "lock", text).await.is(201);
    door.get("/tenants").await.is(403);
    let ends = ask(&door, &root, Method::DELETE, "/admin-tokens/root", json!({}))
        .await
        .is(400);
    assert!(
        ends.body.to_string().contains("nobody could take it back"),
        "{}",
        ends.body
    );
    ask(&door, &root, Method::DELETE, "/policies/lock", json!({}))
        .await
        .is(204);
    door.get("/tenants").await.is(200);
}

#[actix_web::test]
async fn who_is_bound_to_a_tenant_is_shown_the_overview_of_that_tenant() {
    let door = Fixture::new().await;
    door.demo().await;
    door.put("/tenants/globex", &tenant("globex")).await.is(201);
    for (name, models) in [("acme", 1), ("globex", 0)] {
        let bound = token_of(&door, name, AdminRole::Viewer, Some(name), &[]).await;
        let seen = ask(&door, &bound, Method::GET, "/overview", json!({}))
            .await
            .is(200)
            .body;
        assert_eq!(seen["tenant"], *name);
        let devices = seen["devices"].as_array().unwrap();
        assert_eq!(devices.len(), models, "{devices:?}");
        assert!(
            devices.iter().all(|one| one["models"][0]["tenant"] == "acme"),
            "{devices:?}"
        );
    }
    assert_eq!(door.get("/overview").await.is(200).body["tenant"], Value::Null);
    // Each needs the right to what it would be shown.
    let text = "forbid (principal, action in [Mesh::Action::\"tenant:read\", Mesh::Action::\"mesh:read\"], resource)
        unless { principal == Mesh::Admin::\"root\" };";
    declare(&door, "blind", text).await.is(201);
    for (name, bound, action) in [("ann", Some("acme"), "tenant:read"), ("ben", None, "mesh:read")] {
        let token = token_of(&door, name, AdminRole::Admin, bound, &[]).await;
        for path in ["/overview", "/events"] {
            assert_eq!(refused(&ask(&door, &token, Method::GET, path, json!({})).await), action);
        }
    }
}

#[actix_web::test]
async fn who_is_bound_to_a_tenant_reads_that_tenants_metrics_and_no_others() {
    let door = Fixture::new().await;
    door.demo().await;
    door.put("/tenants/globex", &tenant("globex")).await.is(201);
    let metrics = door.state.inner.parts.telemetry.metrics();
    for name in ["acme", "globex", "gone"] {
        metrics.limit(name, "requests", mesh_telemetry::LimitEffect::Refused);
    }
    let bound = token_of(&door, "ann", AdminRole::Viewer, Some("acme"), &[]).await;
    let own = ask(&door, &bound, Method::GET, "/tenants/acme/metrics", json!({}))
        .await
        .is(200);
    assert_eq!(own.header("content-type"), mesh_telemetry::OPENMETRICS);
    let text = own.body.as_str().unwrap();
    let counted = "mesh_limit_effects_total{tenant=\"acme\",rule=\"requests\",effect=\"refused\"} 1\n";
    assert!(text.contains(counted) && !text.contains("globex"), "{text}");
    // Who is bound to nobody reads each, and nobody those of a tenant that is not there, though there are series of its name.
    let other = door.get("/tenants/globex/metrics").await.is(200).body;
    assert!(other.as_str().unwrap().contains("tenant=\"globex\"") && !other.to_string().contains("acme"));
    door.get("/tenants/gone/metrics").await.is(404);
    // A policy takes it away, and no policy gives it to another's.
    let text = "forbid (principal, action == Mesh::Action::\"tenant:read\", resource) \
        unless { principal == Mesh::Admin::\"root\" };";
    declare(&door, "wide", "permit (principal, action, resource);")
        .await
        .is(201);
    assert_eq!(
        refused(&ask(&door, &bound, Method::GET, "/tenants/globex/metrics", json!({})).await),
        "tenant:read"
    );
    declare(&door, "blind", text).await.is(201);
    assert_eq!(
        refused(&ask(&door, &bound, Method::GET, "/tenants/acme/metrics", json!({})).await),
        "tenant:read"
    );
    door.end().await;
}

#[actix_web::test]
async fn who_is_bound_to_a_tenant_sees_and_changes_nothing_else() {
    let door = Fixture::new().await;
    door.demo().await;
    door.put("/tenants/globex", &tenant("globex")).await.is(201);
    door.put(
        "/tenants/globex/models/cats",
        &resource("Model", Some("globex"), "cats", json!({})),
    )
    .await
    .is(201);
    declare(&door, "wide", "permit (principal, action, resource);")
        .await
        .is(201);
    let bound = token_of(&door, "ann", AdminRole::Admin, Some("acme"), &[]).await;
    let get = |path: &'static str| ask(&door, &bound, Method::GET, path, json!({}));
    for (path, names) in [
        ("/models", vec!["digits"]),
        ("/tenants", vec!["acme"]),
        ("/endpoints", vec!["read"]),
    ] {
        let items = get(path).await.is(200).body["items"].clone();
        let found: Vec<&str> = items
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap())
            .collect();
        assert_eq!(found, names, "{path}");
    }
    for path in [
        "/models?tenant=globex",
        "/tenants/globex",
        "/tenants/globex/metrics",
        "/tenants/absent/metrics",
        "/tenants/globex/models/cats",
        "/tenants/globex/models/absent",
        "/devices",
        "/audit",
        "/admin-tokens",
        "/policies",
        "/issuers",
        "/backup",
    ] {
        get(path).await.is(403);
    }
    // What is there and what is not are refused alike.
    let body = |name: &str| resource("Model", Some("globex"), name, json!({"description": "x"}));
    for name in ["cats", "absent"] {
        let written = ask(
            &door,
            &bound,
            Method::PUT,
            &format!("/tenants/globex/models/{name}"),
            body(name),
        )
        .await;
        assert_eq!(refused(&written), "model:publish");
        let applied = ask(
            &door,
            &bound,
            Method::POST,
            "/apply",
            json!({"resources": [body(name)]}),
        )
        .await;
        assert_eq!(refused(&applied), "model:publish");
    }
    ask(
        &door,
        &bound,
        Method::POST,
        "/tenants/acme/models/digits/versions",
        json!({"spec": version_spec()}),
    )
    .await
    .is(201);
    ask(
        &door,
        &bound,
        Method::POST,
        "/tenants/acme/keys",
        json!({"groups": ["ci"]}),
    )
    .await
    .is(201);
    ask(&door, &bound, Method::POST, "/artifacts", json!({})).await.is(201);
    let session = ask(&door, &bound, Method::GET, "/session", json!({})).await.is(200);
    assert_eq!(session.body["tenant"], "acme");
}

#[actix_web::test]
async fn lists_hold_what_the_caller_may_read() {
    let door = Fixture::new().await;
    door.demo().await;
    door.put(
        "/tenants/acme/models/secret",
        &resource("Model", Some("acme"), "secret", json!({})),
    )
    .await
    .is(201);
    declare(&door, "hide", "forbid (principal in Mesh::Role::\"viewer\", action == Mesh::Action::\"model:read\", resource == Mesh::Model::\"acme/secret\");").await.is(201);
    let listed = ask(&door, &door.viewer.clone(), Method::GET, "/models", json!({}))
        .await
        .is(200);
    assert!(
        listed.body.to_string().contains("digits") && !listed.body.to_string().contains("secret"),
        "{}",
        listed.body
    );
    ask(
        &door,
        &door.viewer.clone(),
        Method::GET,
        "/tenants/acme/models/secret",
        json!({}),
    )
    .await
    .is(403);
    assert!(door.get("/models").await.is(200).body.to_string().contains("secret"));
}

#[actix_web::test]
async fn a_question_is_answered_with_the_policies_that_decide_also_those_not_written_yet() {
    let door = Fixture::new().await;
    door.demo().await;
    let made = door
        .post("/tenants/acme/keys", &json!({"name": "ci", "groups": ["bots"]}))
        .await
        .is(201);
    assert_eq!(made.body["resource"]["spec"]["groups"], json!(["bots"]));
    let ask = |principal: &str, action: &str, object: &str, more: Value| {
        let mut body = json!({"principal": principal, "action": action, "resource": object});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        let door = &door;
        async move { door.post("/policy-test", &body).await }
    };
    let digits = "Model/acme/digits";
    let plain = ask("Key/acme/ci", "model:infer", digits, json!({})).await.is(200).body;
    assert_eq!(
        (&plain["allowed"], &plain["principal_known"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(plain["decided_by"][0]["policy"], "builtin:infer");
    assert_eq!(plain["principal"], "Mesh::Key::\"acme/ci\"");
    let draft = json!({"policies": [{"name": "no-bots", "cedar":
        "// bots\nforbid (principal in Mesh::Group::\"acme/bots\", action == Mesh::Action::\"model:infer\", resource);"}]});
    let tried = ask("Key/acme/ci", "model:infer", digits, draft.clone())
        .await
        .is(200)
        .body;
    assert_eq!(tried["allowed"], false);
    assert_eq!(
        tried["decided_by"],
        json!([{"policy": "no-bots", "statement": 1, "line": 2, "effect": "forbid"}])
    );
    assert_eq!(tried["reason"], "forbidden by no-bots (statement 1, line 2)");
    door.get("/policies/no-bots").await.is(404);
    let user = ask(
        "User/acme/alice",
        "model:infer",
        digits,
        json!({"issuer": "https://idp", "groups": ["bots"],
        "policies": draft["policies"]}),
    )
    .await
    .is(200)
    .body;
    assert_eq!(
        (&user["allowed"], &user["principal"]),
        (&json!(false), &json!("Mesh::User::\"https://idp alice\""))
    );
    let foreign = ask("Key/globex/x", "model:infer", digits, json!({})).await.is(200).body;
    assert_eq!(
        (&foreign["allowed"], &foreign["decided_by"], &foreign["principal_known"]),
        (&json!(false), &json!([]), &json!(false))
    );
    assert!(foreign["reason"].as_str().unwrap().contains("across tenants"));
    let admin = ask("Admin/new", "device:drain", "Device/cpu:0", json!({"role": "viewer"}))
        .await
        .is(200)
        .body;
    assert_eq!(
        (&admin["allowed"], &admin["reason"]),
        (
            &json!(false),
            &json!("no policy permits it, and what none permits is denied")
        )
    );
    for (principal, action, object, more, field) in [
        ("Cat/acme/ci", "model:infer", digits, json!({}), "principal"),
        ("User/acme/alice", "model:infer", digits, json!({}), "issuer"),
        ("Key/acme/ci", "model:eat", digits, json!({}), "action"),
        ("Key/acme/ci", "model:infer", "Cake/x", json!({}), "resource"),
        ("Key/acme/ci", "model:infer", "Tenant/acme", json!({}), "resource"),
        (
            "Key/acme/ci",
            "model:infer",
            digits,
            json!({"policies": [{"name": "p", "cedar": "permit"}]}),
            "policies[0].cedar",
        ),
    ] {
        let answer = ask(principal, action, object, more).await.is(400);
        assert_eq!(answer.body["problems"][0]["field"], field, "{}", answer.body);
    }
    let drafts = |count: usize| {
        let draft = |index: usize| json!({"name": format!("p{index}"), "cedar": "permit (principal, action == Mesh::Action::\"mesh:read\", resource);"});
        json!({"policies": (0..count).map(draft).collect::<Vec<_>>()})
    };
    ask("Key/acme/ci", "model:infer", digits, drafts(MAX_DRAFTS))
        .await
        .is(200);
    ask("Key/acme/ci", "model:infer", digits, drafts(MAX_DRAFTS + 1))
        .await
        .is(400);
}

#[actix_web::test]
async fn the_schema_is_told_with_every_action() {
    let door = Fixture::new().await;
    let body = door.get("/policy-schema").await.is(200).body;
    assert!(body["schema"].as_str().unwrap().contains("namespace Mesh"));
    assert!(body["builtin"].as_str().unwrap().contains("builtin:admin"));
    let names: Vec<&str> = body["actions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|action| action["name"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"model:infer") && names.contains(&"audit:read"),
        "{names:?}"
    );
}
