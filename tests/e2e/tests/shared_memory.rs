//! Tensors in shared memory: what lies there gives what is carried, at both doors; a region is its tenant's alone; and nothing
//! that a tenant does to an object harms the server.

use std::{
    fs::File,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, ensure};
use base64::Engine as _;
use mesh_harness::{Answer, Caller, GrpcCaller, Mesh, MeshOptions, ServeOptions, identity};
use mesh_protocol::grpc::messages::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryRegisterResponse, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryStatusResponse, CudaSharedMemoryUnregisterRequest, CudaSharedMemoryUnregisterResponse,
    InferParameter, ModelInferRequest, SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse,
    SystemSharedMemoryStatusRequest, SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest,
    SystemSharedMemoryUnregisterResponse,
    infer_parameter::ParameterChoice,
    model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tonic::{Code, Status};

const FOLDER: &str = "/dev/shm";
/// As many regions as one tenant may have.
const MAX_REGIONS_OF_TENANT: usize = 256;

async fn mesh() -> anyhow::Result<Mesh> {
    let serve = ServeOptions {
        allow_client_shm: true,
        ..ServeOptions::default()
    };
    Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await
}

/// A mesh with a tenant's identity.
async fn with_model() -> anyhow::Result<(Mesh, Caller)> {
    let mesh = mesh().await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "m", &identity()).await?;
    caller.until_ready("m").await?;
    Ok((mesh, caller))
}

/// A shared memory object that ends with the test, and its key.
fn object(content: &[u8]) -> anyhow::Result<(NamedTempFile, String)> {
    let file = tempfile::Builder::new().prefix("e2e-").tempfile_in(FOLDER)?;
    std::fs::write(file.path(), content)?;
    let key = key_of(file.path())?;
    Ok((file, key))
}

fn key_of(path: &Path) -> anyhow::Result<String> {
    let name = path.file_name().and_then(|name| name.to_str()).context("no name")?;
    Ok(format!("/{name}"))
}

fn raw(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

async fn register(caller: &Caller, region: &str, key: &str, bytes: usize) -> anyhow::Result<Answer> {
    let request = caller.post(&format!("/v2/systemsharedmemory/region/{region}/register"));
    Answer::of(request.json(&json!({"key": key, "offset": 0, "byte_size": bytes}))).await
}

async fn status(caller: &Caller) -> anyhow::Result<Value> {
    Answer::of(caller.get("/v2/systemsharedmemory/status"))
        .await?
        .ok()?
        .json()
}

fn there(region: &str, bytes: usize, offset: usize) -> Value {
    json!({"shared_memory_region": region, "shared_memory_byte_size": bytes, "shared_memory_offset": offset})
}

/// One row of so many numbers in a region, answered with into a region.
fn body(columns: usize, from: &Value, to: &Value) -> Value {
    json!({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, columns], "parameters": from}],
        "outputs": [{"name": "y", "parameters": to}],
    })
}

fn message(columns: i64, from: &Value, to: &Value) -> ModelInferRequest {
    let parameter = |(name, value): (&String, &Value)| {
        let choice = match value {
            Value::String(text) => ParameterChoice::StringParam(text.clone()),
            number => ParameterChoice::Int64Param(number.as_i64().unwrap_or(-1)),
        };
        let parameter_choice = Some(choice);
        (name.clone(), InferParameter { parameter_choice })
    };
    let parameters = |of: &Value| of.as_object().into_iter().flatten().map(parameter).collect();
    ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, columns],
            parameters: parameters(from),
            ..InferInputTensor::default()
        }],
        outputs: vec![InferRequestedOutputTensor {
            name: "y".into(),
            parameters: parameters(to),
        }],
        ..ModelInferRequest::default()
    }
}

#[tokio::test]
async fn a_tensor_in_shared_memory_gives_what_a_carried_one_gives_at_both_doors() -> anyhow::Result<()> {
    let (mesh, caller) = with_model().await?;
    let grpc = mesh.grpc(caller.key()).await?;
    let (input, in_key) = object(&[vec![0; 4], raw(&[1.5, -2.5])].concat())?;
    let (output, out_key) = object(&[b'.'; 32])?;
    register(&caller, "in%20put", &in_key, 12).await?.ok()?;
    let asked = SystemSharedMemoryRegisterRequest {
        name: "out".into(),
        key: out_key.clone(),
        offset: 16,
        byte_size: 16,
    };
    let _: SystemSharedMemoryRegisterResponse = grpc.ask("SystemSharedMemoryRegister", asked).await?.into_inner();
    let known = json!([
        {"name": "in put", "key": in_key, "offset": 0, "byte_size": 12},
        {"name": "out", "key": out_key, "offset": 16, "byte_size": 16},
    ]);
    assert_eq!(status(&caller).await?, known);
    let one = Answer::of(caller.get("/v2/systemsharedmemory/region/out/status"))
        .await?
        .ok()?
        .json()?;
    assert_eq!(one, json!([known[1]]));

    let (from, to) = (there("in put", 8, 4), there("out", 16, 0));
    let answer = caller.infer("m", &body(2, &from, &to)).await?.ok()?.json()?;
    let wanted = json!({
        "name": "y", "datatype": "FP32", "shape": [1, 2],
        "parameters": {"shared_memory_region": "out", "shared_memory_byte_size": 8},
    });
    assert_eq!(answer["outputs"], json!([wanted]));
    let content = std::fs::read(output.path())?;
    assert_eq!(
        (&content[..16], &content[16..24], &content[24..]),
        (&[b'.'; 16][..], &*raw(&[1.5, -2.5]), &[b'.'; 8][..])
    );

    // Over gRPC what is next to it, from what is there by now.
    std::fs::write(input.path(), [vec![0; 4], raw(&[7.0, 8.0])].concat())?;
    let answer = grpc.infer(message(2, &from, &there("out", 8, 8))).await?.into_inner();
    assert!(answer.raw_output_contents.iter().all(|raw| raw.is_empty()));
    let told = answer.outputs[0]
        .parameters
        .get("shared_memory_offset")
        .cloned()
        .context("no offset")?;
    assert_eq!(told.parameter_choice, Some(ParameterChoice::Int64Param(8)));
    assert_eq!(&std::fs::read(output.path())?[24..], &*raw(&[7.0, 8.0]));

    // In one way and out the other.
    let carried = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": from}]});
    assert_eq!(caller.infer("m", &carried).await?.ok()?.numbers(0)?, [7.0, 8.0]);

    // What is unregistered is forgotten by both doors.
    let all = SystemSharedMemoryUnregisterRequest { name: String::new() };
    let _: SystemSharedMemoryUnregisterResponse = grpc.ask("SystemSharedMemoryUnregister", all).await?.into_inner();
    assert_eq!(status(&caller).await?, json!([]));
    let gone = caller.infer("m", &carried).await?;
    assert_eq!(
        (gone.status.as_u16(), gone.error()?),
        (404, "Unable to find shared memory region: 'in put'".into())
    );
    Ok(())
}

#[tokio::test]
async fn sizes_that_do_not_fit_are_refused_in_the_words_that_clients_know() -> anyhow::Result<()> {
    let (mesh, caller) = with_model().await?;
    let grpc = mesh.grpc(caller.key()).await?;
    let (_input, in_key) = object(&raw(&[1.0, 2.0]))?;
    let (output, out_key) = object(&[b'.'; 8])?;
    register(&caller, "in", &in_key, 8).await?.ok()?;
    register(&caller, "out", &out_key, 8).await?.ok()?;
    let small = "shared memory size specified with the request for output 'y' (7 bytes) should be at least 8 bytes to hold the results";
    let mismatch = "input byte size mismatch for input 'x' for model 'm'. Expected 12, got 8";
    let beyond = "Invalid offset + byte size for shared memory region: 'in'";
    let cases = [
        (2, there("in", 8, 0), there("out", 7, 0), 500, Code::Internal, small),
        (
            3,
            there("in", 8, 0),
            there("out", 8, 0),
            400,
            Code::InvalidArgument,
            mismatch,
        ),
        (
            2,
            there("in", 8, 1),
            there("out", 8, 0),
            400,
            Code::InvalidArgument,
            beyond,
        ),
        (
            2,
            there("none", 8, 0),
            there("out", 8, 0),
            404,
            Code::NotFound,
            "Unable to find shared memory region: 'none'",
        ),
        (
            2,
            there("in", 8, 0),
            there("none", 8, 0),
            404,
            Code::NotFound,
            "Unable to find shared memory region: 'none'",
        ),
    ];
    for (columns, from, to, http, code, text) in cases {
        let answer = caller.infer("m", &body(columns, &from, &to)).await?;
        let told = answer.error()?;
        assert!(
            answer.status.as_u16() == http && told.contains(text),
            "{} {told}",
            answer.status
        );
        let refused = grpc.infer(message(i64::try_from(columns)?, &from, &to)).await;
        let refused = refused.err().context("answered")?;
        assert_eq!((refused.code(), refused.message()), (code, &*told));
    }
    assert_eq!(std::fs::read(output.path())?, [b'.'; 8]);
    Ok(())
}

#[tokio::test]
async fn a_region_is_its_tenants_alone() -> anyhow::Result<()> {
    let (mesh, acme) = with_model().await?;
    let globex = mesh.tenant("globex").await?;
    let admin = mesh.admin()?;
    admin.model("acme", "m", json!({"grants": ["globex"]})).await?;
    globex.until_ready("m").await?;
    let (_mine, key) = object(&raw(&[1.0, 2.0]))?;
    register(&acme, "r", &key, 8).await?.ok()?;

    let seen = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": there("r", 8, 0)}]});
    let absent =
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": there("s", 8, 0)}]});
    let (foreign, unknown) = (globex.infer("m", &seen).await?, globex.infer("m", &absent).await?);
    assert_eq!(foreign.status.as_u16(), 404);
    assert_eq!(foreign.error()?.replace("'r'", "'s'"), unknown.error()?);
    assert_eq!(status(&globex).await?, json!([]));
    let one = Answer::of(globex.get("/v2/systemsharedmemory/region/r/status")).await?;
    assert_eq!(one.status.as_u16(), 404);
    // To forget all is to forget one's own.
    Answer::of(globex.post("/v2/systemsharedmemory/unregister"))
        .await?
        .ok()?;
    Answer::of(globex.post("/v2/systemsharedmemory/region/r/unregister"))
        .await?
        .ok()?;
    assert_eq!(acme.infer("m", &seen).await?.ok()?.numbers(0)?, [1.0, 2.0]);

    // Nor does another tenant reach the object by its key, or learn that it is there.
    for bytes in [8, 9] {
        let foreign = register(&globex, "mine", &key, bytes).await?;
        let unknown = register(&globex, "mine", "/e2e-none", bytes).await?;
        assert_eq!(foreign.status, unknown.status);
        assert_eq!(foreign.error()?.replace(&key, "/e2e-none"), unknown.error()?);
    }
    let grpc = mesh.grpc(globex.key()).await?;
    let regions = grpc
        .ask::<_, SystemSharedMemoryStatusResponse>(
            "SystemSharedMemoryStatus",
            SystemSharedMemoryStatusRequest::default(),
        )
        .await?;
    assert!(regions.into_inner().regions.is_empty());

    // The same name is another region.
    let (_theirs, other) = object(&raw(&[3.0, 4.0]))?;
    register(&globex, "r", &other, 8).await?.ok()?;
    assert_eq!(globex.infer("m", &seen).await?.ok()?.numbers(0)?, [3.0, 4.0]);
    assert_eq!(acme.infer("m", &seen).await?.ok()?.numbers(0)?, [1.0, 2.0]);
    let stranger = Answer::of(mesh.stranger().get("/v2/systemsharedmemory/status")).await?;
    assert_eq!(stranger.status.as_u16(), 401);
    Ok(())
}

/// A link that ends with the test.
struct Link(PathBuf);

impl Drop for Link {
    fn drop(&mut self) {
        // What is not there need not go.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn a_key_leads_nowhere_but_to_an_object() -> anyhow::Result<()> {
    let mesh = mesh().await?;
    let caller = mesh.tenant("acme").await?;
    let secret = NamedTempFile::new()?;
    std::fs::write(secret.path(), b"secret")?;
    let (object, key) = object(b"12345678")?;
    let link = Link(object.path().with_extension("link"));
    symlink(secret.path(), &link.0)?;
    let inner = Link(object.path().with_extension("inner"));
    symlink(object.path(), &inner.0)?;
    let outside = secret.path().to_string_lossy().into_owned();
    let name = key.trim_start_matches('/').to_owned();
    for wrong in [
        outside,
        format!("..{}", secret.path().display()),
        format!("/../shm/{name}"),
        format!("./{name}"),
        format!("//{name}"),
        "..".to_owned(),
        "/".to_owned(),
        String::new(),
        key_of(&link.0)?,
        key_of(&inner.0)?,
        "/mesh_anything".to_owned(),
    ] {
        let refused = register(&caller, "r", &wrong, 1).await?;
        assert_eq!(refused.status.as_u16(), 400, "{wrong}: {}", refused.error()?);
    }
    let reserved = register(&caller, "r", "mesh_anything", 1).await?.error()?;
    assert!(
        reserved.contains("the key contains the reserved prefix 'mesh_'"),
        "{reserved}"
    );
    for bytes in [0, 9] {
        let refused = register(&caller, "r", &key, bytes).await?;
        assert_eq!(refused.status.as_u16(), 400);
        let text = refused.error()?;
        assert!(
            text.contains("failed to register shared memory region 'r': invalid args"),
            "{text}"
        );
    }
    assert_eq!(status(&caller).await?, json!([]));
    register(&caller, "r", &key, 8).await?.ok()?;
    let again = register(&caller, "r", &key, 8).await?;
    ensure!(again.status.as_u16() == 400 && again.error()?.contains("already in manager"));
    Ok(())
}

#[tokio::test]
async fn an_object_that_is_cut_short_while_requests_use_it_costs_them_an_error_and_nobody_else() -> anyhow::Result<()> {
    const COLUMNS: usize = 16_384;
    let (mesh, caller) = with_model().await?;
    let bytes = COLUMNS * 4;
    let (input, in_key) = object(&vec![0; bytes])?;
    let (output, out_key) = object(&vec![0; bytes])?;
    register(&caller, "in", &in_key, bytes).await?.ok()?;
    register(&caller, "out", &out_key, bytes).await?.ok()?;
    let over = Arc::new(AtomicBool::new(false));
    let files = [
        File::options().write(true).open(input.path())?,
        File::options().write(true).open(output.path())?,
    ];
    let (ending, length) = (over.clone(), u64::try_from(bytes)?);
    let cutter = std::thread::spawn(move || -> std::io::Result<()> {
        while !ending.load(Ordering::Acquire) {
            for file in &files {
                file.set_len(0)?;
                file.set_len(length)?;
            }
        }
        Ok(())
    });
    let body = body(COLUMNS, &there("in", bytes, 0), &there("out", bytes, 0));
    for _ in 0..300 {
        let answer = caller.infer("m", &body).await?;
        if !answer.status.is_success() {
            let text = answer.error()?;
            ensure!(
                answer.status.as_u16() == 400 && text.contains("shorter than when it was registered"),
                "{text}"
            );
        }
    }
    over.store(true, Ordering::Release);
    cutter.join().map_err(|_| anyhow::anyhow!("the cutter panicked"))??;
    // For good: then it is an error each time, and what is carried is answered.
    File::options().write(true).open(input.path())?.set_len(length - 1)?;
    let cut = caller.infer("m", &body).await?;
    assert_eq!(cut.status.as_u16(), 400);
    caller.ask("m", &[1.0]).await?.ok()?;
    drop(mesh);
    Ok(())
}

#[tokio::test]
async fn a_tenant_has_so_many_regions_and_not_one_more() -> anyhow::Result<()> {
    let mesh = mesh().await?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    let (_file, key) = object(b"1")?;
    for at in 0..MAX_REGIONS_OF_TENANT {
        register(&acme, &at.to_string(), &key, 1).await?.ok()?;
    }
    let beyond = register(&acme, "more", &key, 1).await?;
    assert_eq!(beyond.status.as_u16(), 429);
    assert!(beyond.error()?.contains("at most 256 shared memory regions"));
    // That is its own affair.
    let (_other, other) = object(b"1")?;
    register(&globex, "r", &other, 1).await?.ok()?;
    Answer::of(acme.post("/v2/systemsharedmemory/region/0/unregister"))
        .await?
        .ok()?;
    register(&acme, "more", &key, 1).await?.ok()?;
    Ok(())
}

async fn refused_everywhere(caller: &Caller, grpc: &GrpcCaller, kind: &str) -> anyhow::Result<()> {
    let path = |rest: &str| format!("/v2/{kind}sharedmemory/{rest}");
    let register = json!({"key": "/k", "byte_size": 1, "raw_handle": {"b64": "AA=="}, "device_id": 0});
    for request in [
        caller.get(&path("status")),
        caller.post(&path("unregister")),
        caller.post(&path("region/r/register")).json(&register),
    ] {
        let answer = Answer::of(request).await?;
        assert_eq!(answer.status.as_u16(), 501);
        assert!(answer.error()?.contains("--allow-client-shm"));
    }
    let asked = CudaSharedMemoryStatusRequest::default();
    let refused = grpc
        .ask::<_, CudaSharedMemoryStatusResponse>("CudaSharedMemoryStatus", asked)
        .await;
    assert_eq!(refused.map_err(|status| status.code()).err(), Some(Code::Unimplemented));
    Ok(())
}

#[tokio::test]
async fn it_is_off_unless_the_operator_allows_it() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "m", &identity()).await?;
    caller.until_ready("m").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    for kind in ["system", "cuda"] {
        refused_everywhere(&caller, &grpc, kind).await?;
    }
    let (from, to) = (there("in", 8, 0), there("out", 8, 0));
    assert_eq!(caller.infer("m", &body(2, &from, &to)).await?.status.as_u16(), 501);
    let refused = grpc.infer(message(2, &from, &to)).await;
    assert_eq!(refused.map_err(|status| status.code()).err(), Some(Code::Unimplemented));
    let server = Answer::of(caller.get("/v2")).await?.ok()?.json()?;
    assert!(!server["extensions"].to_string().contains("shared_memory"));
    Ok(())
}

#[tokio::test]
async fn without_cuda_there_are_no_regions_of_it_and_none_can_be_made() -> anyhow::Result<()> {
    let mesh = mesh().await?;
    let caller = mesh.tenant("acme").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    let server = Answer::of(caller.get("/v2")).await?.ok()?.json()?;
    assert!(server["extensions"].to_string().contains("cuda_shared_memory"));
    let none = Answer::of(caller.get("/v2/cudasharedmemory/status"))
        .await?
        .ok()?
        .json()?;
    assert_eq!(none, json!([]));
    Answer::of(caller.post("/v2/cudasharedmemory/unregister")).await?.ok()?;
    let made = caller.post("/v2/cudasharedmemory/region/r/register");
    let made = Answer::of(made.json(&json!({"raw_handle": {"b64": "AA=="}, "device_id": 0, "byte_size": 8}))).await?;
    let asked = CudaSharedMemoryRegisterRequest {
        name: "r".into(),
        raw_handle: vec![0].into(),
        device_id: 0,
        byte_size: 8,
    };
    let over_grpc: Result<_, Status> = grpc
        .ask::<_, CudaSharedMemoryRegisterResponse>("CudaSharedMemoryRegister", asked)
        .await;
    let over_grpc = over_grpc.err().context("registered")?;
    // On a machine with a GPU the handle is looked at, and is none.
    let wanted = if Path::new("/dev/nvidiactl").exists() {
        (400, Code::InvalidArgument)
    } else {
        (501, Code::Unimplemented)
    };
    assert_eq!((made.status.as_u16(), over_grpc.code()), wanted);
    assert_eq!(over_grpc.message(), &*made.error()?);
    let all = CudaSharedMemoryUnregisterRequest::default();
    let _: CudaSharedMemoryUnregisterResponse = grpc.ask("CudaSharedMemoryUnregister", all).await?.into_inner();
    Ok(())
}

/// A mesh whose CUDA driver is that of the tests, in which the memory of a device is a file: see its source.
async fn with_cuda(folder: &Path) -> anyhow::Result<Mesh> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../worker/backends/torch/fake/driver.c");
    let library = folder.join("libcuda.so.1");
    let compiled = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .args([source, "-lpthread"])
        .status()?;
    anyhow::ensure!(compiled.success(), "the driver is not compiled");
    let serve = ServeOptions {
        allow_client_shm: true,
        cuda_driver: Some(library),
        ..ServeOptions::default()
    };
    Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await
}

/// The handle of a file's memory.
fn handle(file: &NamedTempFile) -> anyhow::Result<Vec<u8>> {
    let mut handle = file.path().to_str().context("no text")?.as_bytes().to_vec();
    anyhow::ensure!(handle.len() < 64, "the path must fit a handle");
    handle.resize(64, 0);
    Ok(handle)
}

async fn register_cuda(caller: &Caller, region: &str, handle: &[u8], bytes: usize) -> anyhow::Result<Answer> {
    let packed = base64::engine::general_purpose::STANDARD.encode(handle);
    let request = caller.post(&format!("/v2/cudasharedmemory/region/{region}/register"));
    let what = json!({"raw_handle": {"b64": packed}, "device_id": 1, "byte_size": bytes});
    Answer::of(request.json(&what)).await
}

#[tokio::test]
async fn a_tensor_in_the_memory_of_a_cuda_device_gives_what_a_carried_one_gives_at_both_doors() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = with_cuda(folder.path()).await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "m", &identity()).await?;
    caller.until_ready("m").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    let (input, _) = object(&raw(&[0.0, 1.5, -2.5]))?;
    let (output, _) = object(&[b'.'; 16])?;
    register_cuda(&caller, "in", &handle(&input)?, 12).await?.ok()?;
    let asked = CudaSharedMemoryRegisterRequest {
        name: "out".into(),
        raw_handle: handle(&output)?.into(),
        device_id: 0,
        byte_size: 16,
    };
    let _: CudaSharedMemoryRegisterResponse = grpc.ask("CudaSharedMemoryRegister", asked).await?.into_inner();
    let known = Answer::of(caller.get("/v2/cudasharedmemory/status"))
        .await?
        .ok()?
        .json()?;
    let wanted = json!([
        {"name": "in", "device_id": 1, "byte_size": 12},
        {"name": "out", "device_id": 0, "byte_size": 16},
    ]);
    assert_eq!(known, wanted);
    let asked = CudaSharedMemoryStatusRequest { name: "in".into() };
    let told: CudaSharedMemoryStatusResponse = grpc.ask("CudaSharedMemoryStatus", asked).await?.into_inner();
    assert_eq!((told.regions.len(), told.regions["in"].device_id), (1, 1));
    let answer = caller
        .infer("m", &body(2, &there("in", 8, 4), &there("out", 8, 8)))
        .await?
        .ok()?
        .json()?;
    assert_eq!(answer["outputs"][0]["parameters"], there("out", 8, 8));
    let expected = [b"........".to_vec(), raw(&[1.5, -2.5])].concat();
    assert_eq!(std::fs::read(output.path())?, expected);
    grpc.infer(message(2, &there("in", 8, 0), &there("out", 8, 0))).await?;
    assert_eq!(std::fs::read(output.path())?[..8], raw(&[0.0, 1.5]));
    Ok(())
}

#[tokio::test]
async fn a_region_of_a_cuda_device_is_its_tenants_alone() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = with_cuda(folder.path()).await?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    let (file, _) = object(&[b'.'; 16])?;
    register_cuda(&acme, "r", &handle(&file)?, 16).await?.ok()?;
    let foreign = register_cuda(&globex, "r", &handle(&file)?, 16).await?;
    let (gone, _) = object(b"x")?;
    let nowhere = handle(&gone)?;
    drop(gone);
    let unknown = register_cuda(&globex, "r", &nowhere, 16).await?;
    assert_eq!((foreign.status.as_u16(), foreign.error()?), (400, unknown.error()?));
    for path in ["status", "region/r/status"] {
        let told = Answer::of(globex.get(&format!("/v2/cudasharedmemory/{path}"))).await?;
        let wanted = if path == "status" { 200 } else { 404 };
        assert_eq!(told.status.as_u16(), wanted, "{path}");
    }
    Answer::of(acme.post("/v2/cudasharedmemory/region/r/unregister"))
        .await?
        .ok()?;
    register_cuda(&globex, "r", &handle(&file)?, 16).await?.ok()?;
    let malformed = globex.post("/v2/cudasharedmemory/region/q/register");
    let malformed = malformed.json(&json!({"raw_handle": {"b64": "*"}, "device_id": 0, "byte_size": 1}));
    assert!(Answer::of(malformed).await?.error()?.contains("base64"));
    assert!(
        register_cuda(&globex, "q", b"short", 1)
            .await?
            .error()?
            .contains("64 bytes")
    );
    Ok(())
}
