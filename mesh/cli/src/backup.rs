//! `backup`: the mesh's own archive of everything, written to a file that is whole or not there.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use reqwest::Method;

use crate::{
    BackupArgs, Failure, Terminal,
    client::{AdminClient, cause},
};

/// Only the owner reads it: it holds every secret of the mesh.
const OWNER_ONLY: u32 = 0o600;
/// What the file is called until it is whole.
const UNFINISHED: &str = ".part";

/// The file while it is being written; taken away again unless it was finished.
struct Unfinished {
    path: PathBuf,
    file: File,
    finished: bool,
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::refused(format!("cannot {what} {path}: {error}"))
}

impl Unfinished {
    fn begin(target: &Path) -> Result<Self, Failure> {
        let mut name = OsString::from(target);
        name.push(UNFINISHED);
        let path = PathBuf::from(name);
        // What a backup that was ended left behind.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("replace", &path)(error)),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(OWNER_ONLY).open(&path);
        let file = file.map_err(failed("write", &path))?;
        Ok(Self {
            path,
            file,
            finished: false,
        })
    }

    fn finish(mut self, target: &Path) -> Result<(), Failure> {
        self.file.sync_all().map_err(failed("fsync", &self.path))?;
        fs::rename(&self.path, target).map_err(failed("write", target))?;
        self.finished = true;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(failed("fsync", folder))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // The failure that is told is the one that matters.
            let _ = fs::remove_file(&self.path);
        }
    }
}

pub(crate) async fn backup(
    client: &AdminClient,
    args: &BackupArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let target = &args.output;
    refuse_to_overwrite(args)?;
    let mut file = Unfinished::begin(target)?;
    let mut response = client.stream(client.request(Method::GET, "/backup")).await?;
    let whole = response.content_length();
    let bar = progress(whole, terminal);
    let mut bytes = 0;
    let broken = |error: reqwest::Error| broke_off(client, &cause(&error));
    while let Some(piece) = response.chunk().await.map_err(broken)? {
        file.file.write_all(&piece).map_err(failed("write", &file.path))?;
        bytes += piece.len() as u64;
        bar.set_position(bytes);
    }
    bar.finish_and_clear();
    if whole.is_some_and(|whole| whole != bytes) {
        return Err(broke_off(client, "it ended early"));
    }
    refuse_to_overwrite(args)?;
    file.finish(target)?;
    writeln!(terminal.out, "backed up {bytes} bytes into {}", target.display())?;
    writeln!(
        terminal.err,
        "it holds every secret of the mesh: keep it like a key. Check it with: mesh restore {} --data NEW-FOLDER",
        target.display()
    )?;
    Ok(())
}

fn refuse_to_overwrite(args: &BackupArgs) -> Result<(), Failure> {
    if args.force || !args.output.exists() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "{} is there already: give another name, or --force to replace it",
        args.output.display()
    )))
}

fn broke_off(client: &AdminClient, why: &str) -> Failure {
    Failure::Unreachable(format!(
        "{} broke off the backup ({why}); nothing was kept. Its log says more",
        client.url()
    ))
}

fn progress(bytes: Option<u64>, terminal: &Terminal<'_>) -> ProgressBar {
    // indicatif shows nothing where stderr is no terminal.
    let target = if terminal.interactive {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(bytes, target);
    match ProgressStyle::with_template("backing up {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
