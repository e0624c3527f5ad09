//! Structured logs to standard error: text for people, JSON for collectors.
//!
//! What is logged is set up once for the process, and can be changed while it runs: in the terms of Triton's clients, who
//! switch levels on and off one by one, and say how times are written for people. Of libraries never more is logged than at the start, and
//! collectors' times are always the same.

use std::{
    io::IsTerminal as _,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use mesh_types::{LogChange, LogSettings, LogTimes};
use parking_lot::Mutex;
use tracing::{Level, Metadata, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    fmt::{
        self,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    layer::Context,
    prelude::*,
    reload::{self, Handle},
};

/// The mesh's own rooms, by how the names of their targets begin.
const OWN_TARGETS: &str = "mesh";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LogSetupError {
    /// The filter cannot be read.
    #[error("invalid log filter '{filter}': {problem}; write a level or directives such as info,mesh_worker=debug")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Something else already logs in this process.
    #[error("logging was set up before in this process")]
    AlreadySet,
}

/// Why a change of what is logged is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LogChangeError {
    /// The times of lines that programs read.
    #[error("log_format can not be updated: this server logs in JSON, whose times are ISO8601")]
    Times,
}

/// Logging of this process, where it was set up here.
static LOGS: OnceLock<Logs> = OnceLock::new();

/// What is logged in this process, to be read and changed; none where it does not log by [`init_logs`].
pub fn logs() -> Option<&'static Logs> {
    LOGS.get()
}

/// What is logged.
#[derive(Debug)]
pub struct Logs {
    /// As the operator wrote it.
    filter: String,
    widest: LevelFilter,
    format: LogFormat,
    levels: Arc<AtomicU8>,
    times: Times,
    reload: Handle<EnvFilter, Registry>,
    settings: Mutex<LogSettings>,
}

/// Lets events of some levels through, which need not be those up to one.
struct Levels(Arc<AtomicU8>);

/// Writes times, short or not, as is asked for while lines are written.
#[derive(Debug, Clone, Default)]
struct Times {
    are_short: Arc<AtomicBool>,
}

impl FormatTime for Times {
    fn format_time(&self, into: &mut Writer<'_>) -> std::fmt::Result {
        if !self.are_short.load(Ordering::Relaxed) {
            return SystemTime.format_time(into);
        }
        let mut whole = String::new();
        SystemTime.format_time(&mut Writer::new(&mut whole))?;
        into.write_str(&short(&whole).unwrap_or(whole))
    }
}

/// A time such as 2026-03-12T15:04:05.678901Z without its year: 0312 15:04:05.678901.
fn short(whole: &str) -> Option<String> {
    let (date, time) = whole.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.rsplit('-');
    let (day, month) = (date.next()?, date.next()?);
    Some(format!("{month}{day} {time}"))
}

fn bit(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 4,
        Level::DEBUG => 8,
        Level::TRACE => 16,
    }
}

impl<S: Subscriber> Layer<S> for Levels {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.0.load(Ordering::Relaxed) & bit(*metadata.level()) != 0
    }
}

fn levels(of: LogSettings) -> u8 {
    let each = [
        (of.error, Level::ERROR),
        (of.warning, Level::WARN),
        (of.info, Level::INFO),
        (of.verbose_level >= 1, Level::DEBUG),
        (of.verbose_level >= 2, Level::TRACE),
    ];
    let on = each.iter().filter(|(on, _)| *on);
    on.fold(0, |bits, (_, level)| bits | bit(*level))
}

/// The settings of whoever logs up to a level.
fn up_to(level: LevelFilter) -> LogSettings {
    LogSettings {
        error: level >= LevelFilter::ERROR,
        warning: level >= LevelFilter::WARN,
        info: level >= LevelFilter::INFO,
        verbose_level: u32::from(level >= LevelFilter::DEBUG) + u32::from(level >= LevelFilter::TRACE),
        times: LogTimes::default(),
    }
}

/// The level that settings reach up to.
fn reach(of: LogSettings) -> LevelFilter {
    match of.verbose_level {
        0 if of.info => LevelFilter::INFO,
        0 if of.warning => LevelFilter::WARN,
        0 if of.error => LevelFilter::ERROR,
        0 => LevelFilter::OFF,
        1 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    }
}

impl Logs {
    /// What is logged now.
    pub fn settings(&self) -> LogSettings {
        *self.settings.lock()
    }

    /// Changes what is logged; answers what is logged then.
    pub fn change(&self, change: LogChange) -> Result<LogSettings, LogChangeError> {
        let is_for_people = self.format == LogFormat::Text;
        if change
            .times
            .is_some_and(|times| !is_for_people && times != LogTimes::Iso8601)
        {
            return Err(LogChangeError::Times);
        }
        let mut settings = self.settings.lock();
        *settings = change.of(*settings);
        self.levels.store(levels(*settings), Ordering::Relaxed);
        self.times
            .are_short
            .store(settings.times == LogTimes::Short, Ordering::Relaxed);
        let level = reach(*settings);
        let wider = level > self.widest || settings.verbose_level > 0;
        let filter = if wider {
            format!("{},{OWN_TARGETS}={level}", self.filter)
        } else {
            self.filter.clone()
        };
        // Both parts were read before. What looks at events asks again about all that it has ever asked about.
        let reloaded = EnvFilter::try_new(filter).map(|filter| self.reload.reload(filter));
        if !matches!(reloaded, Ok(Ok(()))) {
            tracing::error!("the log's filter could not be changed");
        }
        Ok(*settings)
    }
}

/// Starts logging for the whole process; once.
pub fn init_logs(format: LogFormat, filter: &str) -> Result<(), LogSetupError> {
    let parse_failed = |error: &dyn std::fmt::Display| LogSetupError::Filter {
        filter: filter.to_owned(),
        problem: error.to_string(),
    };
    let parsed = EnvFilter::try_new(filter).map_err(|error| parse_failed(&error))?;
    // One that looks at the fields of spans may let anything through.
    let widest = parsed.max_level_hint().unwrap_or(LevelFilter::TRACE);
    let settings = up_to(widest);
    let enabled = Arc::new(AtomicU8::new(levels(settings)));
    let (layer, reload) = reload::Layer::new(parsed);
    let registry = tracing_subscriber::registry().with(layer).with(Levels(enabled.clone()));
    let times = Times::default();
    let set = match format {
        LogFormat::Text => {
            let layer = fmt::layer().with_timer(times.clone()).with_writer(std::io::stderr);
            // Colours are for eyes: a file or a pipe gets none. A terminal keeps the library's own choice (NO_COLOR).
            let layer = if std::io::stderr().is_terminal() {
                layer
            } else {
                layer.with_ansi(false)
            };
            registry.with(layer).try_init()
        }
        LogFormat::Json => registry
            .with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr))
            .try_init(),
    };
    set.map_err(|_| LogSetupError::AlreadySet)?;
    let logs = Logs {
        filter: filter.to_owned(),
        widest,
        format,
        levels: enabled,
        times,
        reload,
        settings: Mutex::new(settings),
    };
    LOGS.set(logs).map_err(|_| LogSetupError::AlreadySet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_says_which() {
        let error = init_logs(LogFormat::Text, "mesh=loud").unwrap_err();
        assert!(error.to_string().contains("'mesh=loud'"), "{error}");
    }

    #[test]
    fn times_are_written_as_is_said_while_lines_are_written() {
        let times = Times::default();
        let written = || {
            let mut text = String::new();
            times.format_time(&mut Writer::new(&mut text)).unwrap();
            text
        };
        assert!(written().contains('T') && written().ends_with('Z'), "{}", written());
        times.are_short.store(true, Ordering::Relaxed);
        let (date, time) = written()
            .split_once(' ')
            .map(|(date, time)| (date.len(), time.len()))
            .unwrap();
        assert_eq!((date, time), ("0312".len(), "15:04:05.678901".len()), "{}", written());
        assert_eq!(
            short("2026-03-12T15:04:05.678901Z").as_deref(),
            Some("0312 15:04:05.678901")
        );
        assert_eq!(short("today"), None);
    }

    /// Which of error, warn, info, debug and trace are logged of one of the mesh's rooms.
    fn own() -> [bool; 5] {
        [
            tracing::enabled!(target: "mesh_x::y", Level::ERROR),
            tracing::enabled!(target: "mesh_x::y", Level::WARN),
            tracing::enabled!(target: "mesh_x::y", Level::INFO),
            tracing::enabled!(target: "mesh_x::y", Level::DEBUG),
            tracing::enabled!(target: "mesh_x::y", Level::TRACE),
        ]
    }

    /// Whether more is logged of a library, or of a room with a word of its own, than at the start.
    fn others() -> bool {
        tracing::enabled!(target: "hyper", Level::INFO)
            || tracing::enabled!(target: "hyper", Level::DEBUG)
            || tracing::enabled!(target: "mesh_quiet", Level::INFO)
    }

    #[test]
    fn levels_are_switched_one_by_one_and_are_what_is_logged() {
        init_logs(LogFormat::Json, "warn,mesh_quiet=error").unwrap();
        let logs = logs().unwrap();
        let start = up_to(LevelFilter::WARN);
        assert_eq!((logs.settings(), own()), (start, [true, true, false, false, false]));
        let switched = |info, warning| LogChange {
            info: Some(info),
            warning: Some(warning),
            ..LogChange::default()
        };
        let verbose = |level| LogChange {
            verbose_level: Some(level),
            ..LogChange::default()
        };
        for (change, wanted) in [
            (switched(true, false), [true, false, true, false, false]),
            (verbose(1), [true, false, true, true, false]),
            (verbose(7), [true, false, true, true, true]),
            (verbose(0), [true, false, true, false, false]),
            (switched(false, true), [true, true, false, false, false]),
        ] {
            let changed = logs.change(change);
            assert_eq!((changed, own(), others()), (Ok(logs.settings()), wanted, false));
        }
        assert_eq!(logs.settings(), start);
        // Where a part of a change cannot be, nothing of it is made.
        let times = |times| LogChange {
            times: Some(times),
            ..verbose(1)
        };
        assert_eq!(logs.change(times(LogTimes::Short)), Err(LogChangeError::Times));
        assert_eq!(logs.settings(), start);
        assert_eq!(
            logs.change(times(LogTimes::Iso8601)).map(|now| now.verbose_level),
            Ok(1)
        );
        assert!(matches!(
            init_logs(LogFormat::Text, "info"),
            Err(LogSetupError::AlreadySet)
        ));
    }
}
