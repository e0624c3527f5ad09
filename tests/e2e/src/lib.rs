//! End-to-end tests of the whole mesh: what tenants, admins and operators see through the doors.
//!
//! The tests are in `tests/`, one file per promise; the mesh that they speak to is started by `mesh-harness`. Here is what
//! several of them need.

pub mod node;
pub mod python;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_harness::{Answer, Caller};
use tokio::task::JoinSet;

/// A constant load: so many callers, each with one request at a time.
#[derive(Debug)]
pub struct Load {
    callers: JoinSet<Tally>,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
}

/// What the callers of a load saw.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were answered well.
    pub ok: u64,
    /// What went wrong otherwise.
    pub failures: Vec<String>,
    /// The versions that answered, each time another one than before.
    pub versions: Vec<String>,
}

impl Load {
    /// Begins it.
    pub fn begin(caller: &Caller, target: &str, callers: usize) -> Self {
        let mut load = Self {
            callers: JoinSet::new(),
            stop: Arc::default(),
            answered: Arc::default(),
        };
        for _ in 0..callers {
            let (caller, target) = (caller.clone(), target.to_owned());
            let (stop, answered) = (load.stop.clone(), load.answered.clone());
            load.callers.spawn(async move {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Acquire) {
                    tally.take(caller.ask(&target, &[1.0, 2.0]).await);
                    answered.fetch_add(1, Ordering::AcqRel);
                }
                tally
            });
        }
        load
    }

    /// Waits until so many more requests have been answered.
    pub async fn go_on_for(&self, requests: u64) {
        let goal = self.answered.load(Ordering::Acquire) + requests;
        while self.answered.load(Ordering::Acquire) < goal {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Ends it; answers what was seen.
    pub async fn end(mut self) -> Tally {
        self.stop.store(true, Ordering::Release);
        let mut all = Tally::default();
        while let Some(tally) = self.callers.join_next().await {
            match tally {
                Ok(tally) => all.add(tally),
                Err(error) => all.failures.push(error.to_string()),
            }
        }
        all
    }
}

impl Tally {
    fn take(&mut self, answer: anyhow::Result<Answer>) {
        match answer.and_then(Answer::ok) {
            Ok(answer) => {
                self.ok += 1;
                let version = answer.header("x-mesh-version").unwrap_or("none").to_owned();
                if self.versions.last() != Some(&version) {
                    self.versions.push(version);
                }
            }
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failures.extend(other.failures);
        for version in other.versions {
            if !self.versions.contains(&version) {
                self.versions.push(version);
            }
        }
    }
}

/// The sum of a counter's series in the text of metrics, over those that have all these labels.
pub fn counted(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
    let has = |line: &&str| labels.iter().all(|label| line.contains(label));
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    metrics.lines().filter(of).filter(has).filter_map(value).sum()
}
