//! Has cargo look again when the web app is built anew.
//!
//! The folder is made if it is not there: a path that does not exist would have cargo run this, and all that stands on
//! this crate, at every build.

use std::io::{self, Write as _};

fn main() -> io::Result<()> {
    std::fs::create_dir_all("dist")?;
    writeln!(
        io::stdout(),
        "cargo:rerun-if-changed=build.rs\ncargo:rerun-if-changed=dist"
    )
}
