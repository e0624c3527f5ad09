//! The admin web app, embedded.
//!
//! Owns the files that the browser gets: what `npm run build` left in `dist/` (the sources are beside this file). Knows no
//! HTTP: the admin door asks for a path and says the rest. Compiles without `dist/`, so that nobody needs Node.js to work on
//! the mesh; then [`is_built`] is false and [`NOT_BUILT_PAGE`] stands in.
//!
//! Invariants: only files of the build are reachable, whatever the path; a file whose name holds its digest (`assets/`) may
//! be kept for ever, all others must be asked for again.

use std::borrow::Cow;

use rust_embed::RustEmbed;

/// The page that holds the app; every address of the app that is no file shows it.
pub const INDEX: &str = "index.html";

/// What to show where the app was not built.
pub const NOT_BUILT_PAGE: &str = concat!(
    "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>mesh</title>",
    "<h1>The admin app is not part of this build</h1>",
    "<p>Run <code>cargo xtask build-web</code>, then build and start the mesh again.</p>",
    "<p>The admin API is here all the same, under <code>/admin/v1</code>.</p></html>"
);

/// The longest path that is looked up.
const MAX_PATH: usize = 256;

#[derive(RustEmbed)]
#[folder = "dist"]
#[allow_missing = true]
struct Dist;

/// One file of the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asset {
    /// The file.
    pub bytes: Cow<'static, [u8]>,
    /// For the `Content-Type` header.
    pub content_type: &'static str,
    /// Whether it may be kept for ever: its name changes with its content.
    pub immutable: bool,
}

/// The file at this path (`index.html`, `assets/..`), a leading `/` or none; the empty path is the index.
pub fn get(path: &str) -> Option<Asset> {
    lookup::<Dist>(path)
}

/// Whether the app is part of this build.
pub fn is_built() -> bool {
    Dist::get(INDEX).is_some()
}

fn lookup<Files: RustEmbed>(path: &str) -> Option<Asset> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = if path.is_empty() { INDEX } else { path };
    if !is_plain(path) {
        return None;
    }
    let file = Files::get(path)?;
    Some(Asset {
        bytes: file.data,
        content_type: content_type(path),
        immutable: path.starts_with("assets/"),
    })
}

/// Whether a path could be one that the build made: no way up, no hidden file, nothing that a file system reads its own way.
fn is_plain(path: &str) -> bool {
    let plain_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    path.len() <= MAX_PATH
        && path.bytes().all(plain_byte)
        && path
            .split('/')
            .all(|segment| !segment.is_empty() && !segment.starts_with('.'))
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("json" | "map") => "application/json",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(RustEmbed)]
    #[folder = "tests/fixture"]
    struct Fixture;

    #[derive(RustEmbed)]
    #[folder = "tests/no-such-folder"]
    #[allow_missing = true]
    struct Missing;

    #[test]
    fn the_index_is_served_for_the_root_and_never_kept() {
        for path in ["", "/", "index.html", "/index.html"] {
            let asset = lookup::<Fixture>(path).unwrap();
            assert_eq!(asset.content_type, "text/html; charset=utf-8", "{path}");
            assert!(!asset.immutable);
            assert!(asset.bytes.starts_with(b"<!doctype html>"));
        }
    }

    #[test]
    fn a_file_named_by_its_digest_may_be_kept() {
        let asset = lookup::<Fixture>("/assets/app-0a1b2c3d.js").unwrap();
        assert!(asset.immutable);
        assert_eq!(asset.content_type, "text/javascript; charset=utf-8");
    }

    #[test]
    fn a_path_that_leaves_the_folder_finds_nothing() {
        for path in [
            "../Cargo.toml",
            "assets/../index.html",
            "assets//app-0a1b2c3d.js",
            "./index.html",
            "..\\index.html",
            "/etc/passwd",
            "%2e%2e/Cargo.toml",
            "index.html\0",
            ".hidden",
            "assets",
            "missing.js",
        ] {
            assert_eq!(lookup::<Fixture>(path), None, "{path}");
        }
    }

    #[test]
    fn a_path_is_bounded() {
        let at = |bytes: usize| "a".repeat(bytes);
        assert!(is_plain(&at(MAX_PATH)));
        assert!(!is_plain(&at(MAX_PATH + 1)));
    }

    #[test]
    fn without_the_folder_there_is_nothing_to_serve() {
        assert_eq!(lookup::<Missing>("index.html"), None);
        assert!(NOT_BUILT_PAGE.contains("cargo xtask build-web"));
    }

    #[test]
    fn what_is_built_and_what_is_served_agree() {
        assert_eq!(is_built(), get("").is_some());
    }
}
