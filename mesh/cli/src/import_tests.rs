//! `model import` against a small server that plays the admin door.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::commands_tests::{Script, serve};

const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const CONFIG: &str = "backend: 'pytorch'\ninput { name: 'x' data_type: TYPE_FP32 dims: 2 }\noutput { name: 'y' data_type: TYPE_FP32 dims: 2 }\n";

fn repository(models: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, config) in models {
        let version = folder.path().join(name).join("1");
        fs::create_dir_all(&version).unwrap();
        fs::write(version.join("model.pt"), "abc").unwrap();
        fs::write(folder.path().join(name).join("config.pbtxt"), config).unwrap();
    }
    folder
}

fn import<'a>(folder: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let folder = folder.to_str().unwrap();
    [&["model", "import", folder, "-t", "acme"], more].concat()
}

fn tenant() -> (&'static str, &'static str, u16, Value) {
    let tenant = json!({"apiVersion": "mesh/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {}});
    ("GET", "/admin/v1/tenants/acme", 200, tenant)
}

fn accepting() -> Script {
    vec![
        tenant(),
        (
            "POST",
            "/admin/v1/artifacts",
            201,
            json!({"sha256": SHA256, "bytes": 3}),
        ),
        ("POST", "/admin/v1/apply?dry_run=false", 200, json!({"results": []})),
    ]
}

#[test]
fn new_models_are_uploaded_and_written_with_their_versions() {
    let folder = repository(&[("scale", CONFIG)]);
    let server = serve(accepting());
    let ran = server.mesh("", &import(folder.path(), &[]));
    assert_eq!(
        (ran.code, &*ran.out),
        (
            0,
            "created   Model/acme/scale\ncreated   ModelVersion/acme/scale/1\n\
             1 models are in acme as the repository says; wrote 2 resources\n"
        ),
        "{}",
        ran.err
    );
    let asked = server.asked();
    let at = |part: &str| asked.iter().position(|line| line.contains(part)).unwrap();
    assert!(at("POST /admin/v1/artifacts") < at("POST /admin/v1/apply"), "{asked:?}");
    let written = &asked[at("POST /admin/v1/apply")];
    for part in [
        r#""name":"scale/1""#,
        r#""format":"torchscript""#,
        SHA256,
        r#""version_policy":{"latest":{"num_versions":1}}"#,
    ] {
        assert!(written.contains(part), "{part} in {written}");
    }
}

#[test]
fn a_dry_run_asks_and_writes_nothing() {
    let folder = repository(&[("scale", CONFIG)]);
    let server = serve(accepting());
    let ran = server.mesh("", &import(folder.path(), &["--dry-run"]));
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("1 models would be in acme"), "{}", ran.out);
    assert!(
        server.asked().iter().all(|line| line.starts_with("GET ")),
        "{:?}",
        server.asked()
    );
}

#[test]
fn what_is_there_already_is_left_as_it_is() {
    let folder = repository(&[("scale", CONFIG)]);
    let tensor = |name: &str| json!([{"name": name, "datatype": "FP32", "dims": [2]}]);
    let model = json!({"apiVersion": "mesh/v1", "kind": "Model",
        "metadata": {"tenant": "acme", "name": "scale", "revision": 4},
        "spec": {"labels": {"stable": 1}, "version_policy": {"latest": {"num_versions": 1}}}});
    let version = json!({"apiVersion": "mesh/v1", "kind": "ModelVersion",
        "metadata": {"tenant": "acme", "name": "scale/1", "revision": 4},
        "spec": {"format": "torchscript", "artifact": {"sha256": SHA256, "bytes": 3}, "description": "kept",
            "config": {"max_batch_size": 0, "input": tensor("x"), "output": tensor("y")}}});
    let script = |version: Value| {
        let found = [
            ("GET", "/admin/v1/tenants/acme/models/scale", 200, model.clone()),
            ("GET", "/admin/v1/tenants/acme/models/scale/versions/1", 200, version),
        ];
        accepting().into_iter().chain(found).collect::<Script>()
    };
    let server = serve(script(version.clone()));
    let ran = server.mesh("", &import(folder.path(), &[]));
    assert!(
        ran.out
            .starts_with("unchanged Model/acme/scale\nunchanged ModelVersion/acme/scale/1\n"),
        "{}",
        ran.out
    );
    assert!(
        server.asked().iter().all(|line| line.starts_with("GET ")),
        "{:?}",
        server.asked()
    );
    // A configuration that differs is written at the revision that was read, and the file is not sent again.
    let mut other = version;
    other["spec"]["config"]["max_batch_size"] = json!(4);
    let server = serve(script(other));
    let ran = server.mesh("", &import(folder.path(), &[]));
    assert!(ran.out.contains("changed   ModelVersion/acme/scale/1"), "{}", ran.out);
    let asked = server.asked();
    assert!(!asked.iter().any(|line| line.contains("/artifacts")), "{asked:?}");
    let written = asked.last().unwrap();
    assert!(
        written.contains(r#""revision":4"#) && written.contains("kept") && !written.contains("\"Model\""),
        "{written}"
    );
}

#[test]
fn what_is_not_supported_is_listed_and_the_exit_code_says_so() {
    let folder = repository(&[
        ("densenet_onnx", "name: \"densenet_onnx\"\n\nbackend: \"onnxruntime\"\n"),
        ("scale", &format!("{CONFIG}optimization {{ }}\n")),
    ]);
    let ran = serve(accepting()).mesh("", &import(folder.path(), &[]));
    assert_eq!(ran.code, 5);
    assert_eq!(
        ran.err
            .replace("uploaded 3 bytes, sha256 ", "")
            .replace(&format!("{SHA256}\n"), ""),
        "ignored:\n  scale: optimization is ignored (config.pbtxt:4): hints for other runtimes; the mesh tries variants of \
         the model itself when it loads it\nskipped:\n  densenet_onnx: backend 'onnxruntime' is not supported \
         (config.pbtxt:3): export the model to TorchScript or .pt2\nerror: 1 of 2 models were skipped\n"
    );
    let ran = serve(accepting()).mesh("", &import(folder.path(), &["--model", "scale"]));
    assert_eq!(ran.code, 0, "{}", ran.err);
}

#[test]
fn a_model_that_the_mesh_refuses_is_named_with_its_resource_and_stops_no_other() {
    let folder = repository(&[("a", CONFIG), ("b", CONFIG)]);
    let problem = json!({"field": "resources[1].spec.format", "problem": "the file is another"});
    let mut script = accepting();
    script[2] = (
        "POST",
        "/admin/v1/apply?dry_run=false",
        400,
        json!({"error": "no", "problems": [problem]}),
    );
    let ran = serve(script).mesh("", &import(folder.path(), &[]));
    assert_eq!(ran.code, 5);
    let said = "  a: the mesh refuses it: ModelVersion/acme/a/1 spec.format: the file is another\n  b: ";
    assert!(ran.err.contains(said), "{}", ran.err);
    assert!(ran.out.starts_with("0 models"), "{}", ran.out);
}

#[test]
fn a_tenant_or_a_folder_that_is_not_there_ends_it() {
    let folder = repository(&[("a", CONFIG)]);
    let ran = serve(Vec::new()).mesh("", &import(folder.path(), &[]));
    assert_eq!(
        (ran.code, &*ran.err),
        (1, "error: there is no tenant 'acme': create it first\n")
    );
    let ran = serve(accepting()).mesh("", &import(&folder.path().join("none"), &[]));
    assert!(ran.code == 1 && ran.err.contains("cannot read"), "{}", ran.err);
    let ran = crate::commands_tests::mesh_at("http://127.0.0.1:1", "", &import(folder.path(), &[]));
    assert_eq!(ran.code, 3, "{}", ran.err);
}
