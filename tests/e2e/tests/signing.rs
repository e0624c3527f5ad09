//! Models are code: a tenant that names its signers takes signed models only, and the command line signs them.

use std::{fs, io, path::Path};

use clap::Parser as _;
use mesh_harness::Mesh;
use serde_json::json;

/// Runs a command line as the program would; answers its exit code and what it printed.
async fn mesh(arguments: &[&str]) -> anyhow::Result<(u8, String, String)> {
    let cli = mesh_cli::Cli::try_parse_from([&["mesh"][..], arguments].concat())?;
    tokio::task::spawn_blocking(move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = mesh_cli::Terminal {
            out: &mut out,
            err: &mut err,
            input: &mut io::empty(),
            interactive: false,
        };
        let code = mesh_cli::run_with(cli.command, &cli.globals, &mut terminal);
        Ok((code, String::from_utf8(out)?, String::from_utf8(err)?))
    })
    .await?
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, told from its beginning to its end")]
async fn a_signed_model_is_taken_and_an_unsigned_one_names_who_was_wanted() -> anyhow::Result<()> {
    let served = Mesh::start().await?;
    let admin = served.admin()?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (key, file, config, signature) = (path("key"), path("m.pt"), path("m.yaml"), path("m.sig"));
    fs::write(&file, "of no kind that is known: whoever loads it says so")?;
    let tensor = "{datatype: FP32, dims: [2], name: ";
    fs::write(
        &config,
        format!("max_batch_size: 4\ninput: [{tensor}x}}]\noutput: [{tensor}y}}]\n"),
    )?;

    let (code, public, _) = mesh(&["model", "keygen", &key]).await?;
    assert!(code == 0 && public.starts_with("ed25519:"), "{public}");
    let public = public.trim();
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&key)?.permissions().mode() & 0o777, 0o600);
    }
    let (code, _, err) = mesh(&["model", "keygen", &key]).await?;
    assert!(
        code == 1 && err.contains("cannot write"),
        "no key is written over: {err}"
    );
    admin.tenant("acme", json!({"required_signers": [public]})).await?;

    let url = format!("http://{}", served.addresses().admin);
    let connection = ["--admin-url", &url, "--admin-token", admin.token()];
    let publish = [
        "model", "publish", &file, "--tenant", "acme", "--model", "m", "--config", &config,
    ];
    let with = |more: &[&str]| -> Vec<String> {
        let all = connection.iter().chain(&publish).chain(more);
        all.map(|text| (*text).to_owned()).collect()
    };
    let run = |more: Vec<String>| async move {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        mesh(&more).await
    };
    let (code, _, err) = run(with(&[])).await?;
    assert!(
        code == 1 && err.contains("signed models only") && err.contains(public),
        "{err}"
    );
    let (code, out, err) = run(with(&["--sign-key", &key])).await?;
    assert!(
        code == 0 && out.contains("published ModelVersion/acme/m/1"),
        "{out}{err}"
    );

    // Signed elsewhere, for a number: the next one, and no other.
    let sign = async |number: &str, to: &str| {
        let arguments = [
            "model",
            "sign",
            &file,
            "--model",
            "m",
            "--version",
            number,
            "--config",
            &config,
            "--sign-key",
            &key,
        ];
        let (code, out, err) = mesh(&arguments).await?;
        anyhow::ensure!(code == 0, "{err}");
        fs::write(to, out)?;
        anyhow::Ok(())
    };
    sign("3", &signature).await?;
    let (code, _, err) = run(with(&["--signature", &signature])).await?;
    assert!(code == 1 && err.contains("which is of version 2 of 'm'"), "{err}");
    sign("2", &signature).await?;
    let (code, out, err) = run(with(&["--signature", &signature])).await?;
    assert!(code == 0 && out.contains("ModelVersion/acme/m/2"), "{out}{err}");
    assert!(Path::new(&signature).exists());
    let shown = admin.get("/tenants/acme/models/m/versions/2").await?;
    assert_eq!(shown["spec"]["signature"]["signer"], public);
    Ok(())
}
