//! How a command fails, what it says and which exit code it gives.

use std::fmt;

use mesh_resources::Problem;

/// The most problems that are printed; the rest are counted.
const MAX_PRINTED_PROBLEMS: usize = 50;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub enum Failure {
    /// Exit code 1: refused by the mesh, or failed here.
    Refused {
        /// What was wrong and what to do.
        message: String,
        /// Each problem with its field.
        problems: Vec<Problem>,
    },
    /// Exit code 3: the mesh cannot be reached.
    Unreachable(String),
    /// Exit code 4: somebody else changed it in the meantime.
    Conflict(String),
    /// Exit code 5: done, but some of it was left out.
    Incomplete(String),
}

impl Failure {
    /// Refused, without a list of problems.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::Refused {
            message: message.into(),
            problems: Vec::new(),
        }
    }

    /// What the process ends with. 0 is success and 2 a wrong command line, which clap answers.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } => 1,
            Self::Unreachable(_) => 3,
            Self::Conflict(_) => 4,
            Self::Incomplete(_) => 5,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::refused(format!("cannot write the output: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(message) | Self::Conflict(message) | Self::Incomplete(message) => {
                writeln!(f, "error: {message}")
            }
            Self::Refused { message, problems } => {
                writeln!(f, "error: {message}")?;
                for problem in problems.iter().take(MAX_PRINTED_PROBLEMS) {
                    writeln!(f, "  - {problem}")?;
                }
                match problems.len().saturating_sub(MAX_PRINTED_PROBLEMS) {
                    0 => Ok(()),
                    more => writeln!(f, "  and {more} more"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        assert_eq!(Failure::refused("x").exit_code(), 1);
        assert_eq!(Failure::Unreachable(String::new()).exit_code(), 3);
        assert_eq!(Failure::Conflict(String::new()).exit_code(), 4);
        assert_eq!(Failure::Incomplete(String::new()).exit_code(), 5);
    }

    #[test]
    fn fifty_problems_are_printed_and_the_next_is_counted() {
        let failure = |count: usize| Failure::Refused {
            message: "no".into(),
            problems: vec![Problem::new("spec.x", "bad"); count],
        };
        assert!(!failure(MAX_PRINTED_PROBLEMS).to_string().contains("more"));
        assert!(failure(MAX_PRINTED_PROBLEMS + 1).to_string().ends_with("and 1 more\n"));
    }
}
