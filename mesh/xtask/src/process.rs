//! Other programs: run to their end, or kept beside us and stopped in order.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    fs::File,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    },
    time::Duration,
};

use anyhow::{Context, bail};

/// How long a child may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(40);
const SHOWN_LINES: usize = 20;

/// What a command is, for people.
pub(crate) fn text(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let mut text = program.file_name().unwrap_or(program.as_os_str()).display().to_string();
    for argument in command.get_args() {
        let _ = write!(text, " {}", argument.display());
    }
    text
}

/// Runs a command to its end, its output on our terminal.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let text = text(command);
    eprintln!("> {text}");
    let status = command.status().with_context(|| format!("'{text}' does not start"))?;
    if status.success() {
        return Ok(());
    }
    bail!("'{text}' failed ({status})")
}

/// Runs a command to its end and returns what it printed; what it says on stderr becomes the error.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let text = text(command);
    let output = command.output().with_context(|| format!("'{text}' does not start"))?;
    if output.status.success() {
        return String::from_utf8(output.stdout).with_context(|| format!("'{text}' did not print text"));
    }
    let error = String::from_utf8_lossy(&output.stderr);
    bail!("'{text}' failed ({}): {}", output.status, error.trim())
}

/// A program that runs beside us, in a process group of its own: Ctrl-C reaches us alone, and we stop it.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    pid: u32,
    ended: Mutex<Receiver<std::io::Result<ExitStatus>>>,
    log: PathBuf,
}

impl Running {
    /// Starts it, its output in the log.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let name = text(command);
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("'{name}' does not start"))?;
        let (pid, (ending, ended)) = (child.id(), channel());
        let waiter = std::thread::Builder::new().name("child".into());
        // The receiver is gone only if nobody wants to know.
        waiter.spawn(move || drop(ending.send(child.wait())))?;
        let log = log.to_path_buf();
        Ok(Self {
            name,
            pid,
            ended: Mutex::new(ended),
            log,
        })
    }

    fn ended(&self) -> MutexGuard<'_, Receiver<std::io::Result<ExitStatus>>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has printed so far.
    pub(crate) fn printed(&self) -> anyhow::Result<String> {
        let bytes = std::fs::read(&self.log)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Fails if it has ended, with the last it said.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let status = match self.ended().try_recv() {
            Err(TryRecvError::Empty) => return Ok(()),
            Ok(status) => status?.to_string(),
            Err(TryRecvError::Disconnected) => "ended before".to_owned(),
        };
        bail!("'{}' ended by itself ({status}){}", self.name, self.last_words())
    }

    fn last_words(&self) -> String {
        let printed = self.printed().unwrap_or_default();
        let lines: Vec<&str> = printed.lines().collect();
        let shown = lines.get(lines.len().saturating_sub(SHOWN_LINES)..).unwrap_or_default();
        format!("; the end of {}:\n{}", self.log.display(), shown.join("\n"))
    }

    /// Asks it to end, as Ctrl-C does, and waits; fails if it ends badly or not at all.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.check()?;
        signal(self.pid, "INT")?;
        match self.ended().recv_timeout(GRACE) {
            Ok(status) => {
                let status = status?;
                if !status.success() {
                    bail!("'{}' ended badly ({status}){}", self.name, self.last_words());
                }
                Ok(())
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("'{}' did not end within {} s of SIGINT", self.name, GRACE.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("'{}' was lost", self.name),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Still there only if something failed before its stop, or the stop did.
        let state = self.ended().try_recv();
        if let Err(TryRecvError::Empty) = state {
            let _ = signal(self.pid, "TERM");
            if self.ended().recv_timeout(Duration::from_secs(5)).is_err() {
                let _ = signal(self.pid, "KILL");
            }
        }
    }
}

fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    // The shell's own kill: a small system has no other.
    let mut command = Command::new("sh");
    command.args(["-c", "kill -\"$1\" \"$2\"", "sh", name, &pid.to_string()]);
    output(&mut command).map(drop)
}

/// A command of cargo, or of another program, at a folder.
pub(crate) fn command(program: impl AsRef<OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(folder);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_child_that_ends_by_itself_is_told_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let running = Running::start(&mut shell("echo port taken; exit 3"), &folder.path().join("log")).unwrap();
        let error = loop {
            match running.check() {
                Ok(()) => std::thread::yield_now(),
                Err(error) => break error.to_string(),
            }
        };
        assert!(
            error.contains("port taken") && error.contains("exit status: 3"),
            "{error}"
        );
    }

    #[test]
    fn a_child_is_interrupted_and_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let script = "trap 'echo bye; exit 0' INT; echo up; while :; do sleep 0.05; done";
        let running = Running::start(&mut shell(script), &log).unwrap();
        while !running.printed().unwrap().contains("up") {
            std::thread::yield_now();
        }
        running.stop().unwrap();
        assert!(std::fs::read_to_string(&log).unwrap().contains("bye"));
    }

    #[test]
    fn what_a_failing_command_says_is_its_error() {
        let error = output(&mut shell("echo no such thing >&2; exit 1"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no such thing"), "{error}");
        assert_eq!(output(&mut shell("echo yes")).unwrap(), "yes\n");
    }
}
