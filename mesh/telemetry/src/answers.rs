//! Requests of decoupled models: how many answers they had, and how long the first took.
//!
//! Counted once for a request, when it has ended, beside what every request is counted in. Nothing is written of a series that never
//! had such a request.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{metrics::labels_text, series::Series};

/// The answers to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AnswersSample {
    /// How many.
    pub count: u64,
    /// From the request's first byte to its first answer; none if there was none.
    pub first: Option<Duration>,
}

/// Those of one series.
#[derive(Debug, Default)]
pub(crate) struct AnswerCounts {
    requests: AtomicU64,
    answers: AtomicU64,
    firsts: AtomicU64,
    first_ns: AtomicU64,
}

impl AnswerCounts {
    /// A request has ended.
    pub(crate) fn add(&self, sample: AnswersSample) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.answers.fetch_add(sample.count, Ordering::Relaxed);
        if let Some(first) = sample.first {
            let nanoseconds = u64::try_from(first.as_nanos()).unwrap_or(u64::MAX);
            self.firsts.fetch_add(1, Ordering::Relaxed);
            self.first_ns.fetch_add(nanoseconds, Ordering::Relaxed);
        }
    }
}

/// Writes them.
pub(crate) fn encode(all: &[Arc<Series>], text: &mut String) -> std::fmt::Result {
    let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let streams = || all.iter().filter(|series| load(&series.answers.requests) > 0);
    if streams().next().is_none() {
        return Ok(());
    }
    writeln!(
        text,
        "# HELP mesh_answers Answers of decoupled models to requests that have ended.\n# TYPE mesh_answers counter"
    )?;
    for series in streams() {
        let answers = load(&series.answers.answers);
        writeln!(text, "mesh_answers_total{{{}}} {answers}", labels_text(&series.key))?;
    }
    writeln!(
        text,
        "# HELP mesh_time_to_first_answer_seconds From a request to the first of its answers.\n\
         # TYPE mesh_time_to_first_answer_seconds summary\n# UNIT mesh_time_to_first_answer_seconds seconds"
    )?;
    for series in streams() {
        let labels = labels_text(&series.key);
        let sum = Duration::from_nanos(load(&series.answers.first_ns)).as_secs_f64();
        writeln!(text, "mesh_time_to_first_answer_seconds_sum{{{labels}}} {sum}")?;
        let count = load(&series.answers.firsts);
        writeln!(text, "mesh_time_to_first_answer_seconds_count{{{labels}}} {count}")?;
    }
    Ok(())
}
