//! The program as operators run it: its exit codes, its signals, its token and its data folder.

use std::{
    io::{BufRead, BufReader, Read, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::Context;
use mesh_harness::{Admin, Caller, identity};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(30);

/// A `mesh serve` of its own process.
struct Served {
    child: Child,
    http: SocketAddr,
    metrics: SocketAddr,
    admin: SocketAddr,
    started: Instant,
    /// What it logs, line by line.
    log: mpsc::Receiver<Value>,
}

fn mesh(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MESH_") {
            command.env_remove(name);
        }
    }
    command
}

/// Starts it on free ports and reads from its log where its doors are.
fn serve(data: &Path, more: &[&str]) -> anyhow::Result<Served> {
    serve_with_log(data, "json", more)
}

/// A field of a line, in either format.
fn field<'a>(line: &'a Value, name: &str) -> Option<&'a str> {
    let words = line.as_str().unwrap_or_default().split_whitespace();
    let mut in_words = words.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    line[name].as_str().or_else(|| in_words.next())
}

fn serve_with_log(data: &Path, format: &str, more: &[&str]) -> anyhow::Result<Served> {
    let data = data.to_string_lossy();
    let mut arguments = vec![
        "serve",
        "--data",
        &data,
        "--log-format",
        format,
        "--threads-per-device",
        "1",
    ];
    for door in ["--http-listen", "--grpc-listen", "--metrics-listen", "--admin-listen"] {
        arguments.extend([door, "127.0.0.1:0"]);
    }
    arguments.extend(more);
    let started = Instant::now();
    let mut child = mesh(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (told, lines) = mpsc::channel();
    let log = BufReader::new(child.stderr.take().context("no log")?);
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            // For whoever looks at a failure.
            let _ = writeln!(std::io::stderr(), "{line}");
            // The test may know all that it needs already.
            let _ = told.send(serde_json::from_str(&line).unwrap_or(Value::String(line)));
        }
    });
    let is_serving =
        |line: &Value| line["message"] == "serving" || line.as_str().is_some_and(|line| line.contains(" serving "));
    let serving = until(&lines, is_serving)?;
    let door = |name: &str| -> anyhow::Result<SocketAddr> { Ok(field(&serving, name).unwrap_or_default().parse()?) };
    Ok(Served {
        http: door("http")?,
        metrics: door("metrics")?,
        admin: door("admin")?,
        child,
        started,
        log: lines,
    })
}

/// The next line of a log that is it.
fn until(log: &mpsc::Receiver<Value>, is_it: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let began = Instant::now();
    loop {
        let line = log.recv_timeout(PATIENCE.saturating_sub(began.elapsed()))?;
        if is_it(&line) {
            return Ok(line);
        }
    }
}

impl Served {
    async fn until_ready(&self) -> anyhow::Result<Duration> {
        let url = format!("http://{}/health/ready", self.metrics);
        mesh_harness::eventually("the process is ready", || async {
            let answer = reqwest::get(&url).await;
            Ok(answer.is_ok_and(|answer| answer.status().is_success()).then_some(()))
        })
        .await?;
        Ok(self.started.elapsed())
    }

    fn signal(&self, name: &str) -> anyhow::Result<()> {
        let pid = self.child.id().to_string();
        anyhow::ensure!(
            Command::new("kill").args([name, &pid]).status()?.success(),
            "kill {name}"
        );
        Ok(())
    }

    /// Its exit status, and what it printed.
    async fn ended(mut self) -> anyhow::Result<(ExitStatus, String)> {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let mut printed = String::new();
        let mut out = self.child.stdout.take().context("no output")?;
        out.read_to_string(&mut printed)?;
        Ok((status, printed))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn body() -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]})
}

/// A tenant with a model that answers.
async fn furnish(served: &Served, token: &str) -> anyhow::Result<Caller> {
    let admin = Admin::new(served.admin, token);
    admin.tenant("acme", json!({})).await?;
    let caller = Caller::new(served.http, Some(&admin.key("acme").await?));
    admin.publish("acme", "m", &identity()).await?;
    caller.until_let_in().await?;
    caller.until_answers("m", &body()).await?;
    Ok(caller)
}

#[tokio::test]
async fn sigterm_ends_it_in_order_and_the_next_start_serves_as_before_without_a_new_token() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, token_file) = (folder.path().join("data"), folder.path().join("token"));
    let token_argument = token_file.to_string_lossy().into_owned();
    let first = serve(&data, &["--admin-token-file", &token_argument])?;
    first.until_ready().await?;
    let token = mesh_harness::eventually("the token file is there", || async {
        Ok(std::fs::read_to_string(&token_file).ok())
    })
    .await?;
    let caller = furnish(&first, token.trim()).await?;
    let key = caller.key().to_owned();
    first.signal("-TERM")?;
    let (status, printed) = first.ended().await?;
    assert_eq!(status.code(), Some(0));
    assert!(printed.contains(token.trim()), "the token is printed: {printed}");

    let second = serve(&data, &["--admin-token-file", &token_argument])?;
    let took = second.until_ready().await?;
    let again = Caller::new(second.http, Some(&key));
    assert!(again.infer("m", &body()).await?.status.is_success());
    assert_eq!(std::fs::read_to_string(&token_file)?, token, "the file is left alone");
    second.signal("-INT")?;
    let (status, printed) = second.ended().await?;
    assert_eq!((status.code(), printed.as_str()), (Some(0), ""), "no second token");
    assert!(took < Duration::from_secs(5), "ready after {took:?}");
    Ok(())
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let token_file = folder.path().join("token").to_string_lossy().into_owned();
    let data = folder.path().join("data");
    let first = serve(&data, &["--admin-token-file", &token_file])?;
    first.until_ready().await?;
    let token = mesh_harness::eventually("the token file is there", || async {
        Ok(std::fs::read_to_string(&token_file).ok())
    })
    .await?;
    let key = furnish(&first, token.trim()).await?.key().to_owned();
    first.signal("-KILL")?;
    assert_eq!(first.ended().await?.0.code(), None);
    let second = serve(&data, &[])?;
    second.until_ready().await?;
    assert!(
        Caller::new(second.http, Some(&key))
            .infer("m", &body())
            .await?
            .status
            .is_success()
    );
    second.signal("-TERM")?;
    assert_eq!(second.ended().await?.0.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let token_file = folder.path().join("token").to_string_lossy().into_owned();
    let served = serve(&folder.path().join("data"), &["--admin-token-file", &token_file])?;
    served.until_ready().await?;
    let token = mesh_harness::eventually("the token file is there", || async {
        Ok(std::fs::read_to_string(&token_file).ok())
    })
    .await?;
    furnish(&served, token.trim()).await?;
    let admin = Admin::new(served.admin, token.trim());
    // Warming it keeps a device's thread busy, and the end waits for that.
    let slow = mesh_harness::builtin("busy", &json!({"busy_us": 8_000_000}));
    admin.publish_only("acme", "slow", &slow).await?;
    mesh_harness::eventually("the slow model is being loaded", || async {
        let view = admin.get("/devices").await?.to_string();
        Ok(view.contains("\"slow\"").then_some(()))
    })
    .await?;
    served.signal("-TERM")?;
    let url = format!("http://{}/health/ready", served.metrics);
    mesh_harness::eventually("it is ending", || async {
        let answer = reqwest::get(&url).await;
        Ok((!answer.is_ok_and(|answer| answer.status().is_success())).then_some(()))
    })
    .await?;
    let asked = Instant::now();
    served.signal("-TERM")?;
    let (status, _) = served.ended().await?;
    assert_ne!(status.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    Ok(())
}

#[test]
fn a_configuration_with_mistakes_ends_with_64_tells_all_of_them_and_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let file = folder.path().join("mesh.toml");
    std::fs::write(&file, "queue = 0\nlog_format = \"xml\"\n").unwrap();
    let output = mesh(&["serve", "--devices", "none", "--http-listen", "nowhere"])
        .args(["--config".as_ref(), file.as_os_str()])
        .args(["--data".as_ref(), data.as_os_str()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8_lossy(&output.stderr);
    for part in [
        "devices: 'none'",
        "http_listen: 'nowhere'",
        "queue: '0'",
        "log_format: 'xml'",
    ] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert!(!data.exists());
    std::fs::write(&file, "listen = \"x\"\n").unwrap();
    let output = mesh(&["serve"])
        .args(["--config".as_ref(), file.as_os_str()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown field `listen`"));
}

#[test]
fn the_environment_is_read_and_a_flag_wins_over_it() {
    let told = |arguments: &[&str]| {
        let output = mesh(arguments).env("MESH_DEVICES", "many").output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, text) = told(&["serve", "--queue", "0"]);
    assert_eq!(code, Some(64));
    assert!(text.contains("devices: 'many'"), "{text}");
    let (code, text) = told(&["serve", "--queue", "0", "--devices", "1"]);
    assert_eq!(code, Some(64));
    assert!(!text.contains("devices:"), "{text}");
}

#[test]
fn a_port_that_is_taken_is_named_and_no_token_is_lost() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    let output = mesh(&[
        "serve",
        "--http-listen",
        "127.0.0.1:0",
        "--grpc-listen",
        "127.0.0.1:0",
        "--metrics-listen",
        "127.0.0.1:0",
    ])
    .args(["--admin-listen", &address])
    .args(["--data".as_ref(), folder.path().join("data").as_os_str()])
    .args(["--admin-token-file".as_ref(), token_file.as_os_str()])
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address), "{output:?}");
    assert!(output.stdout.is_empty() && !token_file.exists());
}

/// Runs a command; its exit code, and what it printed and complained.
fn run(arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = mesh(arguments).output()?;
    let printed = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&printed).into_owned()))
}

#[tokio::test]
async fn a_backup_by_command_is_restored_by_command_and_serves() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (token_file, file, restored) = (at("token"), at("mesh.tar"), at("restored"));
    let first = serve(&folder.path().join("data"), &["--admin-token-file", &token_file])?;
    first.until_ready().await?;
    let token = mesh_harness::eventually("the token file is there", || async {
        Ok(std::fs::read_to_string(&token_file).ok())
    })
    .await?;
    let key = furnish(&first, token.trim()).await?.key().to_owned();
    let url = format!("http://{}", first.admin);
    let backup = [
        "backup",
        "--output",
        &file,
        "--admin-url",
        &url,
        "--admin-token-from",
        &token_file,
    ];
    let (code, printed) = run(&backup)?;
    assert_eq!(code, Some(0), "{printed}");
    assert!(printed.contains("backed up"), "{printed}");
    let (code, printed) = run(&backup)?;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("is there already"), "{printed}");
    assert_eq!(run(&[&backup[..], &["--force"]].concat())?.0, Some(0));
    // It is there, and its folder is in use.
    let (code, printed) = run(&["restore", &file, "--data", &at("data")])?;
    assert_eq!(code, Some(1), "{printed}");
    assert!(printed.contains("is not empty"), "{printed}");
    assert_eq!(run(&["restore", &file])?.0, Some(2), "no folder was named");
    first.signal("-KILL")?;
    first.ended().await?;

    let (code, printed) = run(&["restore", &file, "--data", &restored])?;
    assert_eq!(code, Some(0), "{printed}");
    assert!(
        printed.contains("restored") && printed.contains("revision"),
        "{printed}"
    );
    let second = serve(Path::new(&restored), &[])?;
    second.until_ready().await?;
    let caller = Caller::new(second.http, Some(&key));
    assert!(caller.infer("m", &body()).await?.status.is_success());
    second.signal("-TERM")?;
    let (status, printed) = second.ended().await?;
    assert_eq!((status.code(), printed.as_str()), (Some(0), ""), "no new admin token");
    Ok(())
}

#[tokio::test]
async fn a_caller_that_may_changes_what_is_logged() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let token_file = folder.path().join("token").to_string_lossy().into_owned();
    let more = ["--admin-token-file", &*token_file, "--allow-client-settings"];
    let served = serve(&folder.path().join("data"), &more)?;
    served.until_ready().await?;
    let token = mesh_harness::eventually("the token file is there", || async {
        Ok(std::fs::read_to_string(&token_file).ok())
    })
    .await?;
    let caller = furnish(&served, token.trim()).await?;
    let set = |change: Value| {
        let request = caller.post("/v2/logging").json(&change);
        async move { mesh_harness::Answer::of(request).await?.ok()?.json() }
    };
    let start = mesh_harness::Answer::of(caller.get("/v2/logging"))
        .await?
        .ok()?
        .json()?;
    let wanted = json!({
        "log_file": "", "log_info": true, "log_warning": true, "log_error": true, "log_verbose_level": 0,
        "log_format": "ISO8601",
    });
    assert_eq!(start, wanted);
    let ended = |line: &Value| line["message"] == "request ended";
    let is_change = |line: &Value| line["message"] == "a caller changes what is logged";
    let next = || until(&served.log, |line| ended(line) || is_change(line));
    assert_eq!(set(json!({"log_verbose_level": 1})).await?["log_verbose_level"], 1);
    assert!(caller.infer("m", &body()).await?.status.is_success());
    assert!(is_change(&next()?), "a request was told of before the change");
    let line = next()?;
    assert_eq!(
        (&line["level"], &line["target"]),
        (&json!("DEBUG"), &json!("mesh_router::account"))
    );
    set(json!({"log_verbose_level": 0, "log_info": false})).await?;
    assert!(caller.infer("m", &body()).await?.status.is_success());
    set(json!({"log_info": true})).await?;
    set(json!({"log_warning": false})).await?;
    // Of the changes the first and the last are told: in between it was switched off.
    for part in ["verbose_level: Some(0)", "warning: Some(false)"] {
        let line = next()?;
        let change = line["change"].as_str().unwrap_or_default();
        assert!(change.contains(part), "{line}");
    }
    served.signal("-TERM")?;
    assert_eq!(served.ended().await?.0.code(), Some(0));
    Ok(())
}

#[tokio::test]
async fn times_of_a_log_for_people_are_written_as_a_caller_says_and_of_one_for_programs_as_ever() -> anyhow::Result<()>
{
    let folder = tempfile::tempdir()?;
    let more = ["--compat", "triton", "--allow-client-settings"];
    let served = serve_with_log(&folder.path().join("text"), "text", &more)?;
    served.until_ready().await?;
    let caller = Caller::new(served.http, None);
    let set = |format: &'static str| {
        let request = caller.post("/v2/logging").json(&json!({"log_format": format}));
        async move { mesh_harness::Answer::of(request).await }
    };
    let is_change = |line: &Value| {
        let line = line.as_str().unwrap_or_default();
        line.contains("a caller changes what is logged")
    };
    // A change is told of before it is made.
    for (wanted, is_short) in [("default", false), ("ISO8601", true), ("ISO8601", false)] {
        assert_eq!(set(wanted).await?.ok()?.json()?["log_format"], wanted);
        let line = until(&served.log, is_change)?;
        let line = line.as_str().unwrap_or_default();
        let first = line.split_whitespace().next().unwrap_or_default();
        let digits = first.bytes().all(|byte| byte.is_ascii_digit());
        assert_eq!(
            (first.len() == "0312".len() && digits, first.ends_with('Z')),
            (is_short, !is_short),
            "{line}"
        );
    }
    served.signal("-TERM")?;
    assert_eq!(served.ended().await?.0.code(), Some(0));

    let served = serve(&folder.path().join("json"), &more)?;
    served.until_ready().await?;
    let caller = Caller::new(served.http, None);
    let asked = json!({"log_format": "default", "log_info": false});
    let refused = mesh_harness::Answer::of(caller.post("/v2/logging").json(&asked)).await?;
    assert_eq!(refused.status, 501);
    assert!(
        refused.error()?.contains("log_format can not be updated"),
        "{}",
        refused.error()?
    );
    let now = mesh_harness::Answer::of(caller.get("/v2/logging"))
        .await?
        .ok()?
        .json()?;
    assert_eq!(
        (&now["log_format"], &now["log_info"]),
        (&json!("ISO8601"), &json!(true))
    );
    served.signal("-TERM")?;
    assert_eq!(served.ended().await?.0.code(), Some(0));
    Ok(())
}
