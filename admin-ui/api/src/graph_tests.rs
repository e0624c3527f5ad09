//! How an ensemble's graph is shown, and how an ensemble that does not fit is refused.

use serde_json::json;

use crate::fixture_tests::{Fixture, pipe_spec, resource};

#[actix_web::test]
async fn a_graph_is_shown_with_what_its_steps_lead_to() {
    let fixture = Fixture::new().await;
    fixture.demo().await;
    fixture
        .post(
            "/tenants/acme/models/pipe/versions",
            &json!({"spec": pipe_spec(), "labels": ["stable"]}),
        )
        .await
        .is(201);
    for query in ["", "?version=1", "?version=stable"] {
        let shown = fixture
            .get(&format!("/tenants/acme/models/pipe/graph{query}"))
            .await
            .is(200)
            .body;
        assert_eq!((&shown["version"], &shown["ready"]), (&json!(1), &json!(true)));
        let steps: Vec<_> = shown["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|step| &step["name"])
            .collect();
        assert_eq!(steps, ["first", "up", "down"]);
        let up = &shown["steps"][1];
        assert_eq!(
            (&up["model"], &up["version"], &up["level"]),
            (&json!("digits@1"), &json!(1), &json!(2))
        );
        assert_eq!(up["inputs"], json!([{"name": "x", "tensors": ["mid"]}]));
        assert_eq!(
            up["route"],
            json!({"choice": "way", "route": 0, "when": "when mid > 0"})
        );
        assert_eq!(shown["choices"][0]["routes"], json!(["when mid > 0", "otherwise"]));
        assert_eq!(
            shown["outputs"],
            json!([{"name": "y", "from": ["y"], "optional": false}])
        );
        assert!(
            shown["text"]
                .as_str()
                .unwrap()
                .contains("way: switch\n  when mid > 0:\n    up: digits@1")
        );
        assert!(shown["dot"].as_str().unwrap().starts_with("digraph \"acme/pipe/1\""));
        assert!(shown["numbers"].is_null());
    }
    fixture.get("/tenants/acme/models/digits/graph").await.is(404);
    fixture.get("/tenants/acme/models/lost/graph").await.is(404);
    fixture.get("/tenants/acme/models/pipe/graph?version=9").await.is(404);
    fixture.get("/tenants/acme/models/pipe/graph?version=No").await.is(400);
    fixture.end().await;
}

#[actix_web::test]
async fn everything_that_is_wrong_with_an_ensemble_is_said_at_once() {
    let fixture = Fixture::new().await;
    fixture.demo().await;
    let mut spec = pipe_spec();
    spec["config"]["dynamic_batching"] = json!({});
    spec["config"]["graph"]["steps"][0]["inputs"] = json!({"x": "nothing", "w": "x"});
    spec["config"]["graph"]["steps"][1]["switch"][0]["when"] = json!("mid >");
    let refused = fixture
        .post("/tenants/acme/models/pipe/versions", &json!({"spec": spec}))
        .await
        .is(400);
    assert!(
        refused.body.to_string().contains("spec.config.dynamic_batching"),
        "{}",
        refused.body
    );
    spec["config"].as_object_mut().unwrap().remove("dynamic_batching");
    let refused = fixture
        .post("/tenants/acme/models/pipe/versions", &json!({"spec": spec}))
        .await
        .is(400);
    assert!(refused.body.to_string().contains("switch[0].when"), "{}", refused.body);
    spec["config"]["graph"]["steps"][1]["switch"][0]["when"] = json!("mid == 'x'");
    let version = resource("ModelVersion", Some("acme"), "pipe/1", spec);
    fixture
        .put(
            "/tenants/acme/models/pipe",
            &resource("Model", Some("acme"), "pipe", json!({})),
        )
        .await
        .is(201);
    let refused = fixture
        .put("/tenants/acme/models/pipe/versions/1?dry_run=true", &version)
        .await
        .is(400);
    let problems = refused.body["problems"].as_array().unwrap();
    let fields: Vec<_> = problems
        .iter()
        .map(|problem| problem["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        fields,
        [
            "spec.config.graph.steps[0].inputs.w",
            "spec.config.graph.steps[0].inputs.x",
            "spec.config.graph.steps[1].switch[0].when"
        ]
    );
    fixture.end().await;
}
