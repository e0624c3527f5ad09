//! Every command against a small server that plays the admin and the inference door, and remembers what it was asked.

use std::{
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use crate::{Cli, Terminal, run_with};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, dev::ServerHandle, http::StatusCode, web};
use clap::Parser as _;
use serde_json::{Value, json};

/// An answer to a method and a path.
pub(crate) type Script = Vec<(&'static str, &'static str, u16, Value)>;

pub(crate) struct Server {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
    handle: ServerHandle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn header(request: &HttpRequest, name: &str) -> String {
    let value = request.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or("-").to_owned()
}

pub(crate) fn serve(script: Script) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (log, script) = (asked.clone(), Arc::new(script));
    let answer = move |request: HttpRequest, body: web::Bytes| {
        let line = format!(
            "{} {} auth={} agent={} body={}",
            request.method(),
            request.uri(),
            header(&request, "authorization"),
            header(&request, "user-agent"),
            String::from_utf8_lossy(&body)
        );
        log.lock().unwrap().push(line);
        let uri = request.uri().to_string();
        let found = script
            .iter()
            .find(|(method, path, ..)| request.method() == *method && uri == *path);
        let response = match found {
            Some((_, _, status, value)) => HttpResponse::build(StatusCode::from_u16(*status).unwrap())
                .insert_header(("x-mesh-arm", "v2"))
                .json(value),
            None => HttpResponse::NotFound().json(json!({"error": format!("no such thing: {uri}"), "problems": []})),
        };
        std::future::ready(response)
    };
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = thread::spawn(move || {
        actix_web::rt::System::new().block_on(async move {
            let app = move || App::new().default_service(web::to(answer.clone()));
            let server = HttpServer::new(app)
                .workers(1)
                .disable_signals()
                .listen(listener)
                .unwrap()
                .run();
            sender.send(server.handle()).unwrap();
            server.await.unwrap();
        });
    });
    Server {
        url,
        asked,
        handle: receiver.recv().unwrap(),
        thread: Some(thread),
    }
}

pub(crate) struct Ran {
    pub(crate) code: u8,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn mesh_at(url: &str, input: &str, args: &[&str]) -> Ran {
    let fixed = [
        "mesh",
        "--admin-url",
        url,
        "--url",
        url,
        "--admin-token",
        "meshadmin_secret",
        "--api-key",
        "mesh_key",
    ];
    let cli = Cli::try_parse_from(fixed.iter().chain(args)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut terminal = Terminal {
        out: &mut out,
        err: &mut err,
        input: &mut input.as_bytes(),
        interactive: false,
    };
    let code = run_with(cli.command, &cli.globals, &mut terminal);
    Ran {
        code,
        out: String::from_utf8(out).unwrap(),
        err: String::from_utf8(err).unwrap(),
    }
}

impl Server {
    pub(crate) fn mesh(&self, input: &str, args: &[&str]) -> Ran {
        let ran = mesh_at(&self.url, input, args);
        assert!(!ran.out.contains("meshadmin_secret") && !ran.err.contains("meshadmin_secret"));
        ran
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn endpoint(revision: u64) -> Value {
    json!({"apiVersion": "mesh/v1", "kind": "Endpoint",
        "metadata": {"tenant": "acme", "name": "digits", "revision": revision},
        "spec": {"arms": [{"name": "v1", "model": "digits", "version": "stable", "weight": 90.0},
            {"name": "v2", "model": "digits", "version": "2", "weight": 10.0}], "sticky_by": "user"}})
}

fn tenant() -> &'static str {
    "apiVersion: mesh/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {}\n"
}

#[test]
fn get_lists_all_pages_as_a_table() {
    let server = serve(vec![
        (
            "GET",
            "/admin/v1/endpoints?limit=200&tenant=acme",
            200,
            json!({"items": [endpoint(3)], "next": "Endpoint/acme/digits"}),
        ),
        (
            "GET",
            "/admin/v1/endpoints?limit=200&tenant=acme&cursor=Endpoint/acme/digits",
            200,
            json!({"items": [endpoint(4)], "next": null}),
        ),
    ]);
    let ran = server.mesh("", &["get", "endpoints", "-t", "acme"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", ran.out);
    assert!(
        lines[0].contains("ARMS") && lines[1].contains("v1: digits@stable 90%, v2: digits@2 10%"),
        "{}",
        ran.out
    );
    let asked = server.asked();
    assert!(
        asked[0].contains("auth=Bearer meshadmin_secret") && asked[0].contains("agent=mesh-cli/"),
        "{asked:?}"
    );
}

#[test]
fn what_get_prints_apply_takes() {
    let path = "/admin/v1/endpoints?limit=200";
    let list = json!({"items": [endpoint(3), endpoint(4)], "next": null});
    let one = "/admin/v1/tenants/acme/endpoints/digits";
    let applied = json!({"results": [{"key": "Endpoint/acme/digits", "action": "unchanged", "revision": 3}]});
    let server = serve(vec![
        ("GET", path, 200, list),
        ("GET", one, 200, endpoint(3)),
        ("POST", "/admin/v1/apply?dry_run=false", 200, applied),
    ]);
    for args in [
        &["get", "endpoints", "-o", "yaml"][..],
        &["get", "endpoints", "-o", "json"],
        &["get", "endpoint", "acme/digits", "-o", "yaml"],
        &["get", "endpoint", "digits", "-t", "acme", "-o", "json"],
    ] {
        let printed = server.mesh("", args);
        let ran = server.mesh(&printed.out, &["apply", "-f", "-"]);
        assert_eq!(
            (ran.code, &*ran.out),
            (0, "unchanged Endpoint/acme/digits\n"),
            "{args:?}: {}",
            ran.err
        );
    }
    let sent: Vec<_> = server
        .asked()
        .into_iter()
        .filter(|line| line.starts_with("POST"))
        .collect();
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|line| line.contains("\"revision\":3")), "{sent:?}");
}

#[test]
fn apply_tells_what_was_done_and_names_the_file_of_a_problem() {
    let results = json!({"results": [
        {"key": "Tenant/acme", "action": "created", "revision": 1},
        {"key": "Tenant/acme", "action": "changed", "revision": 2}]});
    let server = serve(vec![("POST", "/admin/v1/apply?dry_run=false", 200, results)]);
    let ran = server.mesh(&format!("{0}---\n{0}", tenant()), &["apply", "-f", "-"]);
    assert_eq!(
        ran.out,
        "created   Tenant/acme (revision 1)\nchanged   Tenant/acme (revision 2)\n"
    );
    let problems =
        json!({"error": "invalid", "problems": [{"field": "resources[1].spec.weight", "problem": "too much"}]});
    let server = serve(vec![("POST", "/admin/v1/apply?dry_run=true", 400, problems)]);
    let ran = server.mesh(&format!("{0}---\n{0}", tenant()), &["apply", "--dry-run", "-f", "-"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.err
            .contains("standard input, document 2 (Tenant/acme): spec.weight: too much"),
        "{}",
        ran.err
    );
}

#[test]
fn diff_shows_lines_and_ends_in_one_when_asked() {
    let (before, mut after) = (endpoint(3), endpoint(3));
    after["spec"]["sticky_by"] = json!("session");
    let results =
        json!({"results": [{"key": "Endpoint/acme/digits", "action": "changed", "before": before, "after": after}]});
    let server = serve(vec![("POST", "/admin/v1/apply?dry_run=true", 200, results)]);
    let ran = server.mesh(&after.to_string(), &["diff", "-f", "-"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains("-   sticky_by: user\n+   sticky_by: session\n"),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains("revision"), "{}", ran.out);
    assert_eq!(
        server
            .mesh(&after.to_string(), &["diff", "-f", "-", "--exit-code"])
            .code,
        1
    );
}

#[test]
fn exit_codes_tell_refused_unreachable_and_conflict_apart() {
    let conflict = json!({"error": "Tenant/acme has revision 5, expected 3: read it again", "problems": []});
    let server = serve(vec![("POST", "/admin/v1/apply?dry_run=false", 409, conflict)]);
    let ran = server.mesh(tenant(), &["apply", "-f", "-"]);
    assert_eq!((ran.code, ran.err.contains("revision 5")), (4, true), "{}", ran.err);
    assert_eq!(server.mesh("", &["get", "tenant", "nobody"]).code, 1);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = mesh_at(&format!("http://{closed}"), "", &["get", "tenants"]);
    assert_eq!(ran.code, 3);
    assert!(
        ran.err.contains("mesh serve") && ran.err.contains("MESH_ADMIN_URL"),
        "{}",
        ran.err
    );
}

#[test]
fn delete_asks_first_and_goes_from_dependents_to_tenants() {
    let server = serve(vec![
        ("DELETE", "/admin/v1/tenants/acme", 204, json!(null)),
        ("DELETE", "/admin/v1/tenants/acme/endpoints/digits", 204, json!(null)),
    ]);
    let file = format!("{}---\n{}", tenant(), endpoint(1));
    assert_eq!(server.mesh("", &["delete", "tenant", "acme"]).code, 1);
    assert!(server.asked().is_empty());
    let ran = server.mesh(&file, &["delete", "-f", "-", "--yes"]);
    assert_eq!(
        ran.out, "deleted   Endpoint/acme/digits\ndeleted   Tenant/acme\n",
        "{}",
        ran.err
    );
}

#[test]
fn a_key_is_alone_on_stdout() {
    let resource = json!({"apiVersion": "mesh/v1", "kind": "ApiKey", "metadata": {"tenant": "acme", "name": "ab12"},
        "spec": {"hash": "(redacted)", "scopes": ["infer"]}});
    let made = json!({"key": "mesh_live_ab12_x_y", "resource": resource});
    let server = serve(vec![("POST", "/admin/v1/tenants/acme/keys", 201, made)]);
    let ran = server.mesh(
        "",
        &["key", "create", "--tenant", "acme", "--expires", "2030-01-31T00:00:00Z"],
    );
    assert_eq!((ran.code, &*ran.out), (0, "mesh_live_ab12_x_y\n"), "{}", ran.err);
    assert!(!ran.err.contains("mesh_live_ab12_x_y"));
    assert!(
        server.asked()[0].contains(r#"body={"expires":"2030-01-31T00:00:00Z"}"#),
        "{:?}",
        server.asked()
    );
}

#[test]
fn publish_uploads_with_its_digest_then_makes_the_version_and_waits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("digits.pt");
    std::fs::write(&file, b"abc").unwrap();
    let config = "input: [{name: x, datatype: FP32, dims: [2]}]\noutput: [{name: y, datatype: FP32, dims: [2]}]\n";
    std::fs::write(folder.path().join("model.yaml"), config).unwrap();
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let version = json!({"apiVersion": "mesh/v1", "kind": "ModelVersion", "metadata": {"tenant": "acme", "name": "digits/1"},
        "spec": {"format": "torchscript", "artifact": {"sha256": sha256, "bytes": 3},
            "config": {"max_batch_size": 0, "input": [], "output": []}}});
    let held = |state: &str| {
        json!([{"device": "cpu:0", "models": [{"tenant": "acme", "model": "digits", "version": 1,
        "state": state, "reason": "no room", "memory_bytes": 3}]}])
    };
    let script = |state: &str| {
        vec![
            (
                "POST",
                "/admin/v1/artifacts",
                201,
                json!({"sha256": sha256, "bytes": 3}),
            ),
            (
                "POST",
                "/admin/v1/tenants/acme/models/digits/versions",
                201,
                version.clone(),
            ),
            ("GET", "/admin/v1/devices", 200, held(state)),
        ]
    };
    let args = [
        "model",
        "publish",
        file.to_str().unwrap(),
        "-t",
        "acme",
        "-m",
        "digits",
        "--label",
        "stable",
        "--wait",
    ];
    let server = serve(script("READY"));
    let ran = server.mesh("", &args);
    assert_eq!(
        (ran.code, &*ran.out),
        (0, "published ModelVersion/acme/digits/1\nready     on cpu:0\n"),
        "{}",
        ran.err
    );
    let asked = server.asked();
    assert!(
        asked[0].ends_with("body=abc") && asked[1].contains(r#""labels":["stable"]"#),
        "{asked:?}"
    );
    let ran = serve(script("FAILED")).mesh("", &args);
    assert_eq!((ran.code, ran.err.contains("no room")), (1, true), "{}", ran.err);
}

#[test]
fn publish_refuses_a_bad_configuration_before_any_upload() {
    let folder = tempfile::tempdir().unwrap();
    let (file, config) = (folder.path().join("m.pt"), folder.path().join("c.yaml"));
    std::fs::write(&file, b"abc").unwrap();
    std::fs::write(&config, "max_batch_size: 4\n").unwrap();
    let server = serve(Vec::new());
    let args = [
        "model",
        "publish",
        file.to_str().unwrap(),
        "-t",
        "a",
        "-m",
        "m",
        "-c",
        config.to_str().unwrap(),
    ];
    let ran = server.mesh("", &args);
    assert!(
        ran.code == 1
            && ran.err.contains("input: a model has at least one input")
            && ran
                .err
                .contains("its file does not say the rest: models are read by the program itself"),
        "{}",
        ran.err
    );
    assert!(server.asked().is_empty());
}

#[test]
fn infer_takes_datatypes_from_the_model_and_shows_arm_and_outputs() {
    let metadata =
        json!({"name": "digits", "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}], "outputs": []});
    let answer = json!({"model_name": "digits", "model_version": "2",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.0]}]});
    let server = serve(vec![
        ("GET", "/v2/models/digits", 200, metadata),
        ("POST", "/v2/models/digits/infer", 200, answer),
    ]);
    let ran = server.mesh("", &["infer", "digits", "--input", "x=[[1,2]]"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("[1,2]") && ran.out.contains("0.5, 1.0"), "{}", ran.out);
    assert_eq!(ran.err, "digits version 2, arm v2\n");
    let asked = server.asked();
    assert!(asked[1].contains("auth=Bearer mesh_key"), "{asked:?}");
    assert!(
        asked[1].contains(r#""datatype":"FP32""#) && asked[1].contains(r#""shape":[1,2]"#),
        "{asked:?}"
    );
    let ran = server.mesh("", &["infer", "digits", "--input", "x=1", "--tenant-key", ""]);
    assert!(ran.code == 1 && ran.err.contains("mesh key create"), "{}", ran.err);
    let ran = server.mesh("", &["infer", "digits", "--input", "z=1"]);
    assert!(ran.code == 1 && ran.err.contains("it has x"), "{}", ran.err);
}

/// How a mesh with one model is doing.
fn overview() -> Value {
    json!({"time": "2030-01-01T00:00:00Z", "uptime_seconds": 12.0, "in_flight": 1,
        "totals": {"ok": 5, "refused": 1, "errors": 0},
        "rates": {"requests_per_second": 2.5, "errors_per_second": 0.0, "refused_per_second": 0.1},
        "latency_ms": {"p50": 1.25, "p90": 2.0, "p99": null},
        "endpoints": [{"tenant": "acme", "target": "digits", "arm": "v1", "version": 1, "requests_per_second": 2.5,
            "p50_ms": 1.25, "p99_ms": null, "ok": 5, "errors": 0, "refused": 1}],
        "devices": [{"device": "cpu:0", "models": [{"tenant": "acme", "model": "digits", "version": 1, "state": "READY",
            "reason": null, "memory_bytes": 1024}]}]})
}

#[test]
fn status_and_describe_show_the_live_numbers() {
    let server = serve(vec![
        ("GET", "/admin/v1/overview", 200, overview()),
        ("GET", "/admin/v1/tenants/acme/endpoints/digits", 200, endpoint(3)),
    ]);
    let ran = server.mesh("", &["status"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains("2.5 requests/s") && ran.out.contains("READY"),
        "{}",
        ran.out
    );
    let ran = server.mesh("", &["describe", "endpoint", "acme/digits"]);
    assert!(
        ran.out.contains("revision 3") && ran.out.contains("sticky_by: user") && ran.out.contains("1.25"),
        "{}",
        ran.out
    );
    let ran = server.mesh("", &["status", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["in_flight"], 1);
}

/// A mesh with one model whose list of devices answers so.
fn one_model(status: u16, devices: Value) -> Server {
    let resource = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "mesh/v1", "kind": kind, "metadata": {"tenant": "acme", "name": name}, "spec": spec});
    let spec = json!({"format": "builtin", "config": vector()});
    let (model, version) = (
        resource("Model", "digits", json!({})),
        resource("ModelVersion", "digits/1", spec),
    );
    let versions = "/admin/v1/tenants/acme/models/digits/versions";
    serve(vec![
        ("GET", "/admin/v1/overview", 200, overview()),
        ("GET", "/admin/v1/devices", status, devices),
        ("GET", "/admin/v1/tenants/acme/models/digits", 200, model),
        (
            "GET",
            "/admin/v1/tenants/acme/models/digits/versions/1",
            200,
            version.clone(),
        ),
        ("POST", versions, 201, version),
    ])
}

fn vector() -> Value {
    let tensor = |name: &str| json!([{"name": name, "datatype": "FP32", "dims": [2]}]);
    json!({"max_batch_size": 8, "input": tensor("x"), "output": tensor("y")})
}

#[test]
fn who_is_bound_to_a_tenant_sees_its_models_without_what_is_the_meshs() {
    let refusal = |text: &str| json!({"error": text, "problems": []});
    let server = one_model(403, refusal("'ann' may not do device:read to the mesh"));
    for (kind, name) in [("model", "acme/digits"), ("version", "acme/digits/1")] {
        let ran = server.mesh("", &["describe", kind, name]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let told = "what loading it came to is not shown";
        assert!(ran.out.contains("READY") && ran.out.contains(told), "{}", ran.out);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.yaml");
    std::fs::write(&file, vector().to_string()).unwrap();
    let publish = ["model", "publish", "-t", "acme", "-m", "digits", "--wait"];
    let config = ["--format", "builtin", "-c", file.to_str().unwrap()];
    let ran = server.mesh("", &[&publish[..], &config[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.ends_with("ready     on cpu:0\n"), "{}", ran.out);
    // Nobody is told so who may see it, and another refusal is one.
    let describe = ["describe", "model", "acme/digits"];
    let ran = one_model(200, json!([])).mesh("", &describe);
    assert!(
        ran.code == 0 && !ran.out.contains("not shown"),
        "{} {}",
        ran.err,
        ran.out
    );
    assert_eq!(one_model(500, refusal("no")).mesh("", &describe).code, 1);
}

#[test]
fn the_command_line_is_consistent_and_teaches() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
    for args in [
        &["mesh", "apply"][..],
        &["mesh", "delete"],
        &["mesh", "get", "cats"],
        &["mesh", "infer", "x"],
        &["mesh", "delete", "tenant"],
    ] {
        assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2, "{args:?}");
    }
    for name in [
        "apply",
        "diff",
        "get",
        "describe",
        "delete",
        "infer",
        "status",
        "completions",
    ] {
        let help = Cli::try_parse_from(["mesh", name, "--help"]).unwrap_err().to_string();
        assert!(help.contains("Examples:"), "{name}");
    }
    for name in ["list", "describe", "drain", "undrain"] {
        let help = Cli::try_parse_from(["mesh", "device", name, "--help"])
            .unwrap_err()
            .to_string();
        assert!(help.contains("Examples:"), "device {name}");
    }
    let wrong = Cli::try_parse_from(["mesh", "device", "drain", "gpu0"]).unwrap_err();
    assert!(wrong.exit_code() == 2 && wrong.to_string().contains("cpu:0 or cuda:0"));
    let ran = mesh_at("http://127.0.0.1:1", "", &["completions", "bash"]);
    assert!(ran.code == 0 && ran.out.contains("_mesh") && ran.out.contains("undrain"));
}

fn device(in_flight: u64, draining: bool) -> Value {
    let sequences =
        json!({"open": 21, "backlog": 22, "ended": 23, "idle": 24, "not_begun": 25, "lost": 26, "closed": 27});
    json!({"device": "cpu:0", "kind": "cpu", "threads": 2, "abandoned_threads": 1, "draining": draining,
        "in_flight": in_flight, "up_seconds": 100.0, "busy_seconds": 50.0, "busy_fraction": 0.25,
        "recent_busy_fraction": null, "memory_bytes": 7,
        "models": [{"tenant": "acme", "model": "digits", "version": 1, "state": "QUARANTINED", "reason": "it crashed",
            "memory_bytes": 7, "queue_length": 6, "requests": 4, "failed": 0, "rows": 12, "executions": 3,
            "loads": 2, "load_failures": 0, "evictions": 1, "idle_unloads": 0,
            "mean_batch_rows": 6.0, "mean_latency_ms": 2.5, "mean_queue_ms": 0.5, "mean_compute_ms": null,
            "cancelled": 0, "expired": 0, "rejected": 5, "crashed": 3, "out_of_memory": 0, "non_finite": 0,
            "prediction_error": 0.125, "sequences": sequences}],
        "tenants": [{"tenant": "acme", "seconds": 3.0}], "other_tenants_seconds": 1.0})
}

#[test]
fn devices_are_listed_and_described_in_all_formats() {
    let devices = json!([device(3, true)]);
    let server = serve(vec![("GET", "/admin/v1/devices", 200, devices.clone())]);
    let ran = server.mesh("", &["device", "list"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for part in ["cpu:0", "draining", "25.0 %", "0 of 1", "BUSY 10 S"] {
        assert!(ran.out.contains(part), "{part} is not in\n{}", ran.out);
    }
    let ran = server.mesh("", &["device", "describe", "cpu:0"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    for part in [
        "acme/digits/1: it crashed",
        "QUARANTINED",
        "12.5 %",
        "75.0 %",
        "(others)",
        "1 thread(s) given up",
        "NO SEAT",
        "21",
        "27",
        "3 in flight",
    ] {
        assert!(ran.out.contains(part), "{part} is not in\n{}", ran.out);
    }
    let json = |args: &[&str]| serde_json::from_str::<Value>(&server.mesh("", args).out).unwrap();
    assert_eq!(json(&["device", "list", "-o", "json"]), devices);
    assert_eq!(json(&["device", "describe", "cpu:0", "-o", "json"]), devices[0]);
    let yaml = server.mesh("", &["device", "describe", "cpu:0", "-o", "yaml"]).out;
    assert_eq!(serde_yaml_ng::from_str::<Value>(&yaml).unwrap(), devices[0]);
    let ran = server.mesh("", &["device", "describe", "cuda:0"]);
    assert!(ran.code == 1 && ran.err.contains("there are cpu:0"), "{}", ran.err);
}

#[test]
fn a_device_is_drained_waited_for_and_undrained() {
    let server = serve(vec![
        ("POST", "/admin/v1/devices/cpu:0/drain", 200, device(2, true)),
        ("GET", "/admin/v1/devices", 200, json!([device(0, true)])),
        ("POST", "/admin/v1/devices/cpu:0/undrain", 200, device(0, false)),
    ]);
    let ran = server.mesh("", &["device", "drain", "cpu:0", "--wait"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.contains("2 in flight") && ran.out.contains("cpu:0 is drained"),
        "{}",
        ran.out
    );
    assert!(
        ran.err.contains("no device takes requests now") && ran.err.contains("restarted"),
        "{}",
        ran.err
    );
    let ran = server.mesh("", &["device", "undrain", "cpu:0"]);
    assert_eq!((ran.code, ran.out.as_str()), (0, "cpu:0 takes requests again\n"));
    assert_eq!(
        server.mesh("", &["device", "drain", "cpu:1"]).code,
        1,
        "the API's refusal"
    );
}

#[test]
fn waiting_for_a_device_ends_in_time_and_when_somebody_undrains_it() {
    let drained = ("POST", "/admin/v1/devices/cpu:0/drain", 200, device(2, true));
    let args = ["device", "drain", "cpu:0", "--wait", "--wait-timeout", "1s"];
    let server = serve(vec![
        drained.clone(),
        ("GET", "/admin/v1/devices", 200, json!([device(2, true)])),
    ]);
    let ran = server.mesh("", &args);
    assert!(
        ran.code == 1 && ran.err.contains("still has 2 in flight"),
        "{}",
        ran.err
    );
    let server = serve(vec![
        drained,
        ("GET", "/admin/v1/devices", 200, json!([device(2, false)])),
    ]);
    let ran = server.mesh("", &args);
    assert!(ran.code == 4 && ran.err.contains("undrained"), "{}", ran.err);
}

#[test]
fn a_backup_is_written_whole_for_its_owner_only_and_replaces_nothing_unasked() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = serve(vec![("GET", "/admin/v1/backup", 200, json!("every byte"))]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.tar");
    let name = file.to_str().unwrap();
    std::fs::write(folder.path().join("mesh.tar.part"), "of a backup that was ended").unwrap();
    let ran = server.mesh("", &["backup", "--output", name]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "\"every byte\"");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(ran.out.contains("backed up 12 bytes into"), "{}", ran.out);
    assert!(
        ran.err.contains("keep it like a key") && ran.err.contains("mesh restore"),
        "{}",
        ran.err
    );
    let again = server.mesh("", &["backup", "--output", name]);
    assert_eq!(again.code, 1);
    assert!(
        again.err.contains("is there already: give another name, or --force"),
        "{}",
        again.err
    );
    assert_eq!(server.asked().len(), 1, "refused before anything is asked for");
    assert_eq!(server.mesh("", &["backup", "-o", name, "--force"]).code, 0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_backup_that_is_refused_or_breaks_off_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mesh.tar");
    let name = file.to_str().unwrap();
    let forbidden = json!({"error": "a backup holds every secret", "problems": []});
    let server = serve(vec![("GET", "/admin/v1/backup", 403, forbidden)]);
    let ran = server.mesh("", &["backup", "--output", name]);
    assert_eq!(
        (ran.code, ran.err.as_str()),
        (1, "error: a backup holds every secret\n")
    );
    // A server that says more than it sends.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let short = thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
            .unwrap();
    });
    let ran = mesh_at(&url, "", &["backup", "--output", name]);
    short.join().unwrap();
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("broke off the backup"), "{}", ran.err);
    assert_eq!(mesh_at("http://127.0.0.1:1", "", &["backup", "--output", name]).code, 3);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let nowhere = folder.path().join("no/folder/mesh.tar");
    let ran = mesh_at(&url, "", &["backup", "--output", nowhere.to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("cannot write"), "{}", ran.err);
}

fn scan(ready: bool) -> Value {
    json!({
        "tenant": "acme", "model": "scan", "version": 3, "ready": ready,
        "reason": (!ready).then_some("step 'read' is not ready: it broke"),
        "text": "inputs: x FP32\nread: digits (pixels=x) -> y=label\noutputs: y\n", "dot": "digraph \"acme/scan/3\" {\n}\n",
        "steps": [{"name": "read", "numbers": {"ok": 4, "failed": 1, "cancelled": 0, "left_out": 2, "mean_ms": 1.5}}],
        "numbers": {"ok": 4, "failed": 1, "cancelled": 3, "mean_ms": 2.0, "mean_compose_ms": 0.25},
    })
}

#[test]
fn a_graph_is_printed_as_text_with_its_numbers_and_for_graphviz() {
    let path = "/admin/v1/tenants/acme/models/scan/graph";
    let labelled = "/admin/v1/tenants/acme/models/scan/graph?version=stable";
    let server = serve(vec![
        ("GET", path, 200, scan(true)),
        ("GET", labelled, 200, scan(false)),
    ]);
    let ran = mesh_at(&server.url, "", &["model", "graph", "scan", "-t", "acme"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(
        ran.out.starts_with("acme/scan/3  ready\n\ninputs: x FP32\n"),
        "{}",
        ran.out
    );
    let line = |start: &str| {
        ran.out
            .lines()
            .find(|line| line.trim_start().starts_with(start))
            .unwrap()
    };
    let cells = |start: &str| line(start).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(cells("read "), ["read", "4", "1", "0", "2", "1.500"]);
    assert_eq!(cells("(all)"), ["(all)", "4", "1", "3", "-", "2.000"]);
    assert!(line("(between steps)").ends_with("0.250"));
    let ran = mesh_at(&server.url, "", &["model", "graph", "acme/scan@stable"]);
    assert!(
        ran.out.starts_with("acme/scan/3  not ready: step 'read'"),
        "{}",
        ran.out
    );
    let ran = mesh_at(&server.url, "", &["model", "graph", "acme/scan", "-o", "dot"]);
    assert_eq!(ran.out, "digraph \"acme/scan/3\" {\n}\n");
    let ran = mesh_at(&server.url, "", &["model", "graph", "acme/lost"]);
    assert_eq!(ran.code, 1);
}

#[test]
fn describing_a_version_that_is_an_ensemble_shows_its_graph() {
    let version = json!({
        "apiVersion": "mesh/v1", "kind": "ModelVersion", "metadata": {"tenant": "acme", "name": "scan/3"},
        "spec": {"format": "ensemble", "config": {"input": [], "output": []}},
    });
    let server = serve(vec![
        ("GET", "/admin/v1/tenants/acme/models/scan/versions/3", 200, version),
        (
            "GET",
            "/admin/v1/tenants/acme/models/scan/graph?version=3",
            200,
            scan(false),
        ),
    ]);
    let ran = mesh_at(&server.url, "", &["describe", "version", "acme/scan/3"]);
    assert!(
        ran.out.contains("Now\nnot ready: step 'read' is not ready"),
        "{} {}",
        ran.out,
        ran.err
    );
    assert!(ran.out.contains("read: digits (pixels=x) -> y=label"), "{}", ran.out);
}

#[test]
fn an_ensemble_is_published_without_a_file_and_waited_for_by_its_graph() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("scan.yaml");
    std::fs::write(
        &config,
        "input: [{name: x, datatype: FP32, dims: [2]}]\noutput: [{name: y, datatype: FP32, dims: [2]}]\n\
         graph: {steps: [{name: a, model: m, outputs: {y: y}}]}\n",
    )
    .unwrap();
    let version = json!({
        "apiVersion": "mesh/v1", "kind": "ModelVersion", "metadata": {"tenant": "acme", "name": "scan/3"},
        "spec": {"format": "ensemble", "config": {"input": [], "output": []}},
    });
    let server = serve(vec![
        ("POST", "/admin/v1/tenants/acme/models/scan/versions", 201, version),
        (
            "GET",
            "/admin/v1/tenants/acme/models/scan/graph?version=3",
            200,
            scan(true),
        ),
    ]);
    let config = config.to_str().unwrap();
    let args = [
        "model", "publish", "--format", "ensemble", "-t", "acme", "-m", "scan", "--config", config, "--wait",
    ];
    let ran = mesh_at(&server.url, "", &args);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("ready     all of its steps"), "{}", ran.out);
    let asked = server.asked.lock().unwrap().join("\n");
    assert!(
        asked.contains("\"format\":\"ensemble\"") && asked.contains("\"graph\""),
        "{asked}"
    );
}

#[test]
fn keys_are_shown_with_when_they_were_last_used() {
    let key = |name: &str| {
        json!({"apiVersion": "mesh/v1", "kind": "ApiKey", "metadata": {"tenant": "acme", "name": name, "revision": 3},
            "spec": {"hash": "0".repeat(64), "scopes": ["infer"], "description": "builds"}})
    };
    let (minute, used) = ("2030-03-17T17:46:00Z", "/admin/v1/tenants/acme/keys/used");
    let last = |name: &str, time: Value| json!({"tenant": "acme", "key": name, "last_used": time});
    let server = serve(vec![
        (
            "GET",
            "/admin/v1/keys?limit=200&tenant=acme",
            200,
            json!({"items": [key("idle"), key("new"), key("used")], "next": null}),
        ),
        (
            "GET",
            "/admin/v1/key-uses?limit=200&tenant=acme",
            200,
            json!({"items": [last("idle", Value::Null), last("used", json!(minute))], "next": null}),
        ),
        ("GET", used, 200, key("used")),
        (
            "GET",
            "/admin/v1/tenants/acme/keys/used/use",
            200,
            last("used", json!(minute)),
        ),
    ]);
    let ran = server.mesh("", &["get", "keys", "-t", "acme"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let lines: Vec<_> = ran.out.lines().collect();
    assert!(lines[0].contains("LAST USED"), "{}", ran.out);
    for (line, word) in lines[1..].iter().zip(["never", " - ", minute]) {
        assert!(line.contains(word) && line.contains("builds"), "{line}");
    }
    for args in [&["get", "key", "acme/used"], &["describe", "key", "acme/used"]] {
        let ran = server.mesh("", args);
        assert!(ran.code == 0 && ran.out.contains(minute), "{}{}", ran.out, ran.err);
    }
    let as_json = server.mesh("", &["get", "key", "acme/used", "-o", "json"]);
    assert!(
        !as_json.out.contains("last"),
        "what is printed to be applied again: {}",
        as_json.out
    );
}
