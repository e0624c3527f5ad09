//! The demo's traffic: held-out digits from changing users of both tenants, and how well they are read.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::{
    demo::{Digits, ENDPOINT, TENANTS},
    interrupt::Interrupt,
    node::Node,
};

/// How often a line is printed.
const REPORT_EVERY: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const USERS: usize = 1_000;
/// How many requests may fail in a row before the demo gives up.
const MAX_FAILURES_IN_A_ROW: u64 = 100;
/// A step through the users that meets each of them.
const USER_STEP: usize = 7_919;

/// What to send, and until when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) node: &'a Node,
    pub(crate) digits: &'a Digits,
    pub(crate) keys: &'a [String],
    /// Requests per second, over all tenants.
    pub(crate) rate: u32,
    /// Ends after so many predictions, if given.
    pub(crate) bound: Option<u64>,
    pub(crate) interrupt: &'a Interrupt,
    /// Whether to print nothing.
    pub(crate) quiet: bool,
}

/// What came back so far.
#[derive(Debug, Default)]
struct Score {
    /// By version: right ones, and all.
    versions: BTreeMap<String, (u64, u64)>,
    failed: u64,
    failed_in_a_row: u64,
    last_failure: String,
    /// Microseconds since the last line.
    recent: Vec<u64>,
}

impl Score {
    fn served(&self) -> u64 {
        self.versions.values().map(|(_, all)| all).sum()
    }

    fn line(&mut self) -> String {
        self.recent.sort_unstable();
        let mut line = format!("{} predictions", self.served());
        for (version, (right, all)) in &self.versions {
            // Writing to a String cannot fail.
            let _ = write!(line, "  v{version}: {:.1} % of {all} right", percent(*right, *all));
        }
        let _ = write!(
            line,
            "  p50 {:.2} ms  p99 {:.2} ms",
            self.quantile(50),
            self.quantile(99)
        );
        if self.failed > 0 {
            let _ = write!(line, "  failed {} ({})", self.failed, self.last_failure);
        }
        self.recent.clear();
        line
    }

    /// Of the recent, which must be sorted, in milliseconds.
    fn quantile(&self, percent: usize) -> f64 {
        let index = (self.recent.len() * percent).div_ceil(100).saturating_sub(1);
        float(self.recent.get(index).copied().unwrap_or_default()) / 1_000.0
    }
}

fn percent(part: u64, all: u64) -> f64 {
    float(part) * 100.0 / float(all.max(1))
}

#[expect(clippy::cast_precision_loss, reason = "a demo's counts are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

/// Sends until the bound is met or the user stops it; returns the predictions served.
pub(crate) fn run(plan: &Plan<'_>) -> anyhow::Result<u64> {
    let score = Mutex::new(Score::default());
    let sent = AtomicU64::new(0);
    let done = Interrupt::default();
    let result = std::thread::scope(|scope| {
        let (score, sent, done) = (&score, &sent, &done);
        for (index, key) in plan.keys.iter().enumerate() {
            let sender = Sender {
                index,
                key,
                score,
                sent,
                done,
            };
            scope.spawn(move || tenant(plan, &sender));
        }
        let watched = watch(plan, score);
        done.stop();
        watched
    });
    let mut score = score.into_inner().unwrap_or_else(PoisonError::into_inner);
    result?;
    if !plan.quiet {
        println!("{}", score.line());
    }
    Ok(score.served())
}

/// Prints lines until it is over.
fn watch(plan: &Plan<'_>, score: &Mutex<Score>) -> anyhow::Result<()> {
    let mut next = Instant::now() + REPORT_EVERY;
    loop {
        if plan.interrupt.wait(Duration::from_millis(100)) {
            return Ok(());
        }
        plan.node.check()?;
        let mut score = score.lock().unwrap_or_else(PoisonError::into_inner);
        if plan.bound.is_some_and(|bound| score.served() >= bound) {
            return Ok(());
        }
        if score.failed_in_a_row >= MAX_FAILURES_IN_A_ROW {
            bail!(
                "{MAX_FAILURES_IN_A_ROW} requests failed one after another, the last: {}",
                score.last_failure
            );
        }
        if !plan.quiet && Instant::now() >= next {
            println!("{}", score.line());
            next += REPORT_EVERY;
        }
    }
}

/// One tenant's side.
#[derive(Debug, Clone, Copy)]
struct Sender<'a> {
    index: usize,
    key: &'a str,
    score: &'a Mutex<Score>,
    sent: &'a AtomicU64,
    done: &'a Interrupt,
}

fn tenant(plan: &Plan<'_>, sender: &Sender<'_>) {
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(REQUEST_TIMEOUT))
        .http_status_as_error(false)
        .build()
        .new_agent();
    let interval = Duration::from_secs(1) * u32::try_from(TENANTS.len()).unwrap_or(1) / plan.rate.max(1);
    let mut next = Instant::now();
    for count in 0_usize.. {
        let asked_for = sender.sent.fetch_add(1, Ordering::Relaxed);
        if plan.bound.is_some_and(|bound| asked_for >= bound) {
            // A failed request does not count: another takes its place.
            sender.sent.fetch_sub(1, Ordering::Relaxed);
        } else {
            let began = Instant::now();
            let answer = ask(plan, sender, &agent, count);
            record(sender, began.elapsed(), answer);
        }
        next = (next + interval).max(Instant::now());
        if sender.done.wait(next.saturating_duration_since(Instant::now())) {
            return;
        }
    }
}

fn record(sender: &Sender<'_>, elapsed: Duration, answer: anyhow::Result<(String, bool)>) {
    let mut score = sender.score.lock().unwrap_or_else(PoisonError::into_inner);
    match answer {
        Ok((version, right)) => {
            let (rights, all) = score.versions.entry(version).or_default();
            *rights += u64::from(right);
            *all += 1;
            score.failed_in_a_row = 0;
            score
                .recent
                .push(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        }
        Err(error) => {
            sender.sent.fetch_sub(1, Ordering::Relaxed);
            score.failed += 1;
            score.failed_in_a_row += 1;
            score.last_failure = format!("{error:#}");
        }
    }
}

#[derive(Debug, Deserialize)]
struct Answer {
    model_version: String,
    outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    data: Vec<f32>,
}

/// Sends one digit; returns which version answered, and whether rightly.
fn ask(plan: &Plan<'_>, sender: &Sender<'_>, agent: &ureq::Agent, count: usize) -> anyhow::Result<(String, bool)> {
    let index = count * TENANTS.len() + sender.index;
    let user = format!("user-{}", (index * USER_STEP) % USERS);
    let (_, label) = plan.digits.digit(index);
    let mut answer = agent
        .post(format!("{}/v2/models/{ENDPOINT}/infer", plan.node.url()))
        .header("authorization", format!("Bearer {}", sender.key))
        .header("content-type", "application/json")
        .send(plan.digits.request(index, &user).to_string())?;
    let text = answer.body_mut().read_to_string()?;
    if answer.status() != 200 {
        bail!("{}: {}", answer.status(), text.trim());
    }
    let answer: Answer = serde_json::from_str(&text).context("the answer is not one of the protocol")?;
    let output = answer.outputs.first().context("the answer has no output")?;
    Ok((answer.model_version, largest(&output.data) == Some(label)))
}

fn largest(values: &[f32]) -> Option<usize> {
    let largest = values.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    largest.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_many_of_each_version_were_right() {
        let mut score = Score {
            versions: BTreeMap::from([("1".into(), (95, 100)), ("2".into(), (10, 10))]),
            recent: (1..=100).map(|value| value * 1_000).collect(),
            ..Score::default()
        };
        let line = score.line();
        assert_eq!(
            line,
            "110 predictions  v1: 95.0 % of 100 right  v2: 100.0 % of 10 right  p50 50.00 ms  p99 99.00 ms"
        );
        score.failed = 2;
        score.last_failure = "503".into();
        assert!(score.line().ends_with("failed 2 (503)"));
    }

    #[test]
    fn the_largest_probability_is_the_guess() {
        assert_eq!(largest(&[0.1, 0.7, 0.2]), Some(1));
        assert_eq!(largest(&[]), None);
    }

    #[test]
    fn every_user_comes_by() {
        let met: std::collections::BTreeSet<usize> = (0..USERS).map(|index| (index * USER_STEP) % USERS).collect();
        assert_eq!(met.len(), USERS);
    }
}
