//! Downloads: resumed where a former run stopped, verified by digest, with progress.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use ureq::{
    Agent,
    http::StatusCode,
    tls::{Certificate, RootCerts, TlsConfig, parse_pem},
};

use crate::libtorch::{index, pins::Wheel};

const JSON_PAGE: &str = "application/vnd.pypi.simple.v1+json";
/// How often a broken download is taken up again.
const MAX_ATTEMPTS: u32 = 5;
/// How long the other side may be silent.
const IDLE: Duration = Duration::from_secs(60);

/// A client that trusts what pip is configured to trust.
pub(crate) fn client() -> anyhow::Result<Agent> {
    let named = ["PIP_CERT", "SSL_CERT_FILE"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|path| !path.is_empty()));
    let roots = match named.or_else(|| index::pip_setting("global.cert")) {
        Some(path) => RootCerts::from(certificates(Path::new(&path))?.into_iter()),
        None => RootCerts::WebPki,
    };
    let tls = TlsConfig::builder().root_certs(roots).build();
    Ok(Agent::config_builder()
        .tls_config(tls)
        .timeout_recv_response(Some(IDLE))
        .build()
        .new_agent())
}

fn certificates(path: &Path) -> anyhow::Result<Vec<Certificate<'static>>> {
    let pem = std::fs::read(path).with_context(|| format!("cannot read the certificates {}", path.display()))?;
    let items = parse_pem(&pem).filter_map(Result::ok);
    let certificates = items.filter_map(|item| match item {
        ureq::tls::PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    });
    Ok(certificates.collect())
}

/// Fetches a wheel into the folder; one that is there and right is kept.
pub(crate) fn wheel(client: &Agent, wheel: &Wheel, folder: &Path) -> anyhow::Result<PathBuf> {
    let path = folder.join(wheel.file);
    if path.exists() && digest(&path)? == wheel.sha256 {
        return Ok(path);
    }
    let page_url = format!("{}/{}/", index::index_url(), wheel.project);
    let page = client
        .get(&page_url)
        .header("Accept", JSON_PAGE)
        .call()
        .with_context(|| format!("cannot reach {page_url}"))?;
    let text = page.into_body().with_config().limit(64 << 20).read_to_string()?;
    let url = index::address(&text, &page_url, wheel.file)?;
    let part = path.with_extension("part");
    for attempt in 1..=MAX_ATTEMPTS {
        match resume(client, &url, &part, wheel) {
            Ok(()) => break,
            Err(error) if attempt == MAX_ATTEMPTS => return Err(error.context(format!("cannot fetch {}", wheel.file))),
            Err(error) => eprintln!("{error:#}; taking it up again ({attempt} of {MAX_ATTEMPTS})"),
        }
    }
    let got = digest(&part)?;
    if got != wheel.sha256 {
        std::fs::remove_file(&part)?;
        bail!(
            "{} has the SHA-256 {got}, expected {}; it was removed, run again",
            wheel.file,
            wheel.sha256
        );
    }
    std::fs::rename(&part, &path)?;
    Ok(path)
}

/// Goes on where the part ends.
fn resume(client: &Agent, url: &str, part: &Path, wheel: &Wheel) -> anyhow::Result<()> {
    let have = part.metadata().map_or(0, |metadata| metadata.len());
    if have == wheel.bytes {
        return Ok(());
    }
    let mut request = client.get(url);
    if have > 0 && have < wheel.bytes {
        request = request.header("Range", format!("bytes={have}-"));
    }
    let response = request.call()?;
    // A server that knows no ranges sends everything again.
    let resumed = response.status() == StatusCode::PARTIAL_CONTENT;
    let mut file = OpenOptions::new()
        .create(true)
        .append(resumed)
        .write(true)
        .truncate(!resumed)
        .open(part)?;
    let bar = progress(wheel, if resumed { have } else { 0 });
    // One byte past the end shows a file that is too long without reading all of it.
    let mut body = response.into_body().into_with_config().limit(wheel.bytes + 1).reader();
    let mut buffer = vec![0; 1 << 18];
    loop {
        let read = body.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        file.write_all(buffer.get(..read).unwrap_or_default())?;
        bar.inc(u64::try_from(read)?);
    }
    bar.finish();
    let got = file.metadata()?.len();
    if got < wheel.bytes {
        bail!("the connection ended after {got} of {} bytes", wheel.bytes);
    }
    Ok(())
}

fn progress(wheel: &Wheel, from: u64) -> ProgressBar {
    let name = wheel.project;
    eprintln!("fetching {name} ({} MB)", wheel.bytes / 1_000_000);
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    let bar = ProgressBar::new(wheel.bytes).with_position(from);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn digest(path: &Path) -> anyhow::Result<String> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(buffer.get(..read).unwrap_or_default());
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
