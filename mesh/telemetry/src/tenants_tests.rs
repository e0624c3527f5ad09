//! What a tenant sees of the metrics, and what it does not.

use std::time::Duration;

use mesh_types::{DeviceId, FaultSource, ModelId, ModelVersionKey, StageTimings, Version};

use super::*;
use crate::{BatchSample, LimitEffect, RequestSample};

fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

fn version(owner: &str, model: &str) -> ModelVersionKey {
    ModelVersionKey {
        tenant: tenant(owner),
        model: ModelId::parse(model).unwrap(),
        version: Version::FIRST,
    }
}

/// Everything that is counted by tenant, of two tenants whose names begin alike.
fn counted() -> Metrics {
    let metrics = Metrics::new();
    let stages = StageTimings::default();
    for (tenant, target) in [("acme", "digits"), ("acme-two", "secret-endpoint")] {
        for fault in [None, Some(FaultSource::TenantLimit)] {
            metrics.request_started();
            metrics.request_finished(&RequestSample {
                tenant,
                target,
                arm: "main",
                version: 1,
                fault,
                total: Duration::from_millis(2),
                stages: &stages,
                answers: None,
            });
        }
        metrics.limit(tenant, "requests", LimitEffect::Refused);
        metrics.asked_cache(tenant, target, "hit");
        metrics.known_by_certificate(tenant, target);
        let model = version(tenant, target);
        metrics.batch_executed(&BatchSample {
            device: DeviceId::cpu(0),
            model: &model,
            rows: 7,
            requests: 3,
            failed: true,
            busy: Duration::from_millis(5),
        });
        metrics.set_queue_length(DeviceId::cpu(0), &model, 3);
        metrics.ensemble(&model, ["first"].into_iter());
    }
    metrics.certificate_expires("http", 5);
    metrics.issuer_fetched("sso", 2, 5);
    metrics.refused("no-credential");
    metrics
}

#[test]
fn a_tenant_sees_every_series_of_its_own_and_none_of_anothers_or_of_the_meshs() {
    let metrics = counted();
    let all = metrics.encode_prometheus().unwrap();
    let seen = metrics.encode_prometheus_of(&tenant("acme")).unwrap();
    for word in [
        "acme-two",
        "secret-endpoint",
        "sso",
        "no-credential",
        "in_flight",
        "mesh_stage_seconds",
        "door=",
    ] {
        assert!(all.contains(word), "{word} is in no metric: the test shows nothing");
        assert!(!seen.contains(word), "{word} is in\n{seen}");
    }
    // Every line of its own, and each as the operator sees it.
    let own = |line: &&str| line.contains("tenant=\"acme\"") || line.contains("=\"acme/");
    let expected: Vec<&str> = all.lines().filter(own).collect();
    for family in [
        "requests_total",
        "duration_seconds",
        "limit_effects",
        "cache",
        "certificate",
        "batches",
        "ensemble",
    ] {
        assert!(expected.iter().any(|line| line.contains(family)), "{family}");
    }
    let shown: Vec<&str> = seen.lines().filter(|line| !line.starts_with('#')).skip(1).collect();
    assert_eq!(shown, expected);
    assert!(seen.contains("mesh_tenant_told_apart{tenant=\"acme\"} 1\n") && seen.ends_with("# EOF\n"));
    // What is said of a family stands before its lines, once, and nothing is said of families without any.
    let about = |name: &str| seen.matches(&format!("# TYPE {name} ")).count();
    assert_eq!(
        (
            about("mesh_requests"),
            about("mesh_stage_seconds"),
            about("mesh_refused")
        ),
        (1, 0, 0)
    );
    let of_nobody = metrics.encode_prometheus_of(&tenant("nobody")).unwrap();
    assert_eq!(of_nobody.lines().count(), 4, "{of_nobody}");
}

#[test]
fn nothing_is_left_of_a_tenant_that_is_forgotten_and_everything_of_others() {
    let metrics = counted();
    metrics.set_model_memory(DeviceId::cpu(1), &version("acme", "digits"), 9);
    let is_acmes = |line: &str| line.contains("\"acme\"") || line.contains("\"acme/");
    let of_others = || -> Vec<String> {
        let all = metrics.encode_prometheus().unwrap();
        let others = all.lines().filter(|line| !line.starts_with('#') && !is_acmes(line));
        others.map(str::to_owned).collect()
    };
    let before = of_others();
    metrics.forget(|tenant| tenant == "acme");
    // Who has the name now sees what a tenant sees that has never asked.
    let seen = |name: &str| metrics.encode_prometheus_of(&tenant(name)).unwrap().replace(name, "");
    assert!(seen("acme") == seen("nobody"), "{}", seen("acme"));
    assert_eq!(of_others(), before);
    assert!(!metrics.encode_prometheus().unwrap().lines().any(is_acmes));
    // What comes is counted from nothing.
    metrics.limit("acme", "requests", LimitEffect::Refused);
    let seen = metrics.encode_prometheus_of(&tenant("acme")).unwrap();
    assert!(seen.contains("rule=\"requests\",effect=\"refused\"} 1\n"), "{seen}");
}

#[test]
fn what_is_counted_together_is_nobodys() {
    let metrics = counted();
    for number in 2..=MAX_TENANT_LABELS {
        metrics.limit(&format!("t{number}"), "requests", LimitEffect::Refused);
    }
    assert!(metrics.encode_prometheus().unwrap().contains("tenant=\"other\""));
    let told = |name: &str| metrics.encode_prometheus_of(&tenant(name)).unwrap();
    // The last within the bound has its own, the one past it is told so, and one of the name that stands for all sees nothing of them.
    assert!(told(&format!("t{}", MAX_TENANT_LABELS - 1)).contains("mesh_limit_effects_total"));
    for name in [&*format!("t{MAX_TENANT_LABELS}"), OTHER] {
        let seen = told(name);
        assert!(
            seen.contains(&format!("mesh_tenant_told_apart{{tenant=\"{name}\"}} 0\n")),
            "{seen}"
        );
        assert_eq!(seen.lines().count(), 4, "{seen}");
    }
}

#[test]
fn a_text_within_a_value_names_nobody() {
    let line = r#"m{a="x\",tenant=\"acme\"",b="tenant=\\",tenant="globex",c=""} 1"#;
    assert_eq!(label(line, "tenant"), Some("globex"));
    assert_eq!(label(line, "b"), Some(r"tenant=\\"));
    assert_eq!(label(line, "c"), Some(""));
    assert_eq!(label(line, "d"), None);
    assert_eq!(label("m 1", "tenant"), None);
    assert_eq!(label("m{tenant=\"acme", "tenant"), None);
    assert!(!is_of(line, "acme") && is_of(line, "globex"));
    assert!(is_of("m{model=\"acme/digits/1\"} 1", "acme") && !is_of("m{model=\"acme-two/digits/1\"} 1", "acme"));
    // Who has called, and not whose model it was.
    assert!(!is_of("m{model=\"acme/digits/1\",tenant=\"globex\"} 1", "acme"));
}
