//! Where a wheel is: the package index that pip is configured for (PEP 503 pages as JSON, PEP 691).

use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

const DEFAULT_INDEX: &str = "https://pypi.org/simple";

#[derive(Debug, Deserialize)]
struct Project {
    files: Vec<ProjectFile>,
}

#[derive(Debug, Deserialize)]
struct ProjectFile {
    filename: String,
    url: String,
}

/// The index that pip would ask.
pub(crate) fn index_url() -> String {
    let from_environment = std::env::var("PIP_INDEX_URL").ok().filter(|url| !url.is_empty());
    let url = from_environment
        .or_else(|| pip_setting("global.index-url"))
        .unwrap_or_else(|| DEFAULT_INDEX.to_owned());
    url.trim_end_matches('/').to_owned()
}

/// A setting of pip's configuration files.
pub(crate) fn pip_setting(name: &str) -> Option<String> {
    let output = Command::new("python3")
        .args(["-m", "pip", "config", "get", name])
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let value = text.trim();
    (output.status.success() && !value.is_empty()).then(|| value.to_owned())
}

/// Reads a project's page: the address of the file.
pub(crate) fn address(page: &str, page_url: &str, file: &str) -> anyhow::Result<String> {
    let project: Project =
        serde_json::from_str(page).with_context(|| format!("{page_url} is no package index page in JSON"))?;
    let found = project.files.into_iter().find(|candidate| candidate.filename == file);
    let url = found.with_context(|| format!("{page_url} does not have {file}"))?.url;
    if url.contains("://") {
        return Ok(url);
    }
    // Mirrors answer with addresses relative to their page or host.
    let base_end = page_url
        .find("://")
        .and_then(|scheme| page_url.get(scheme + 3..)?.find('/').map(|slash| scheme + 3 + slash));
    let host = base_end.and_then(|end| page_url.get(..end)).unwrap_or(page_url);
    if url.starts_with('/') {
        return Ok(format!("{host}{url}"));
    }
    let mut base: Vec<&str> = page_url.trim_end_matches('/').split('/').collect();
    let mut rest = url.as_str();
    while let Some(after) = rest.strip_prefix("../") {
        base.pop();
        rest = after;
    }
    Ok(format!("{}/{rest}", base.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://index.example/simple/torch/";

    fn page(url: &str) -> String {
        format!(r#"{{"files":[{{"filename":"a.whl","url":"{url}","hashes":{{}}}}],"name":"torch"}}"#)
    }

    #[test]
    fn absolute_rooted_and_relative_addresses_are_read() {
        let cases = [
            ("https://files.example/a.whl", "https://files.example/a.whl"),
            ("/files/a.whl", "https://index.example/files/a.whl"),
            ("../../files/a.whl", "https://index.example/files/a.whl"),
        ];
        for (url, expected) in cases {
            assert_eq!(address(&page(url), PAGE, "a.whl").unwrap(), expected);
        }
    }

    #[test]
    fn a_file_that_is_not_there_and_a_page_that_is_none_are_named() {
        assert!(
            address(&page("x"), PAGE, "b.whl")
                .unwrap_err()
                .to_string()
                .contains("b.whl")
        );
        assert!(address("<html>", PAGE, "b.whl").unwrap_err().to_string().contains(PAGE));
    }
}
