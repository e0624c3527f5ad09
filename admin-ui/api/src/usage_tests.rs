//! What subjects of tokens have used, as the API says it.

use mesh_policies::limits::{TenantUsage, TokenSubject, Usage};
use mesh_types::TenantId;
use serde_json::{Value, json};

use crate::fixture_tests::{Ask, Fixture, resource};

/// Subjects of acme's tokens that have used so many requests and milliseconds this month, and half of them today.
fn use_some(door: &Fixture, used: &[(&str, u64, u64)]) {
    let of = |(subject, requests, device): &(&str, u64, u64)| TenantUsage {
        tenant: TenantId::parse("acme").unwrap(),
        subject: Some(TokenSubject {
            issuer: "https://idp.test".into(),
            subject: (*subject).into(),
        }),
        // 2030-03-17.
        usage: Usage {
            day: 21_990,
            month: 722,
            daily: [requests / 2, 0, 0, 0],
            monthly: [*requests, 0, 0, device * 1_000],
        },
    };
    door.state.inner.parts.limiter.restore_usage(used.iter().map(of));
}

#[actix_web::test]
async fn subjects_come_by_pages_and_who_has_used_the_most_comes_first() {
    let door = Fixture::new().await;
    let budgets = json!({"monthly": {"requests": {"hard": 100}}});
    for (name, spec) in [("acme", json!({"per_subject_budgets": budgets})), ("globex", json!({}))] {
        let path = format!("/tenants/{name}");
        door.put(&path, &resource("Tenant", None, name, spec)).await.is(201);
    }
    use_some(&door, &[("cy", 7, 1), ("ann", 7, 1), ("bob", 7, 2), ("di", 8, 0)]);
    let first = door.get("/tenants/acme/usage/subjects?limit=3").await.is(200).body;
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap();
        let name = |item: &Value| item["subject"].as_str().unwrap().to_owned();
        items.iter().map(name).collect()
    };
    assert_eq!(names(&first), ["di", "bob", "ann"]);
    assert_eq!(
        (&first["total"], &first["budgets"], &first["month"]),
        (&json!(4), &budgets, &json!("2030-03"))
    );
    assert_eq!(
        first["items"][1],
        json!({
            "issuer": "https://idp.test", "subject": "bob",
            "daily": {"requests": 3, "rows": 0, "input_bytes": 0, "device_ms": 0},
            "monthly": {"requests": 7, "rows": 0, "input_bytes": 0, "device_ms": 2},
        })
    );
    let rest = format!(
        "/tenants/acme/usage/subjects?limit=3&cursor={}",
        first["next"].as_str().unwrap()
    );
    let rest = door.get(&rest).await.is(200).body;
    assert_eq!((names(&rest), &rest["next"]), (vec!["cy".to_owned()], &Value::Null));
    let whole = door.get("/tenants/acme/usage/subjects?limit=4").await.is(200).body;
    assert_eq!((names(&whole).len(), &whole["next"]), (4, &Value::Null));
    let none = door.get("/tenants/globex/usage/subjects").await.is(200).body;
    assert_eq!((&none["items"], &none["total"]), (&json!([]), &json!(0)));
    door.get("/tenants/acme/usage/subjects?limit=0").await.is(400);
    door.get("/tenants/acme/usage/subjects?limit=1001").await.is(400);
    door.get("/tenants/acme/usage/subjects?cursor=x").await.is(400);
    door.get("/tenants/gone/usage/subjects").await.is(404);
    let path = "/tenants/acme/usage/subjects";
    let viewer = Ask::new(actix_web::http::Method::GET, path).bearer(&door.viewer);
    door.send(viewer).await.is(200);
    door.send(Ask::new(actix_web::http::Method::GET, path)).await.is(401);
    door.end().await;
}
