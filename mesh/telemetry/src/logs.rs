//! Structured logs to standard error: text for people, JSON for collectors.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

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

/// Starts logging for the whole process; once.
pub fn init_logs(format: LogFormat, filter: &str) -> Result<(), LogSetupError> {
    let parse_failed = |error: &dyn std::fmt::Display| LogSetupError::Filter {
        filter: filter.to_owned(),
        problem: error.to_string(),
    };
    let filter = EnvFilter::try_new(filter).map_err(|error| parse_failed(&error))?;
    let registry = tracing_subscriber::registry().with(filter);
    let set = match format {
        LogFormat::Text => {
            let layer = fmt::layer().with_writer(std::io::stderr);
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
    set.map_err(|_| LogSetupError::AlreadySet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_says_which() {
        let error = init_logs(LogFormat::Text, "mesh=loud").unwrap_err();
        assert!(error.to_string().contains("'mesh=loud'"), "{error}");
    }
}
