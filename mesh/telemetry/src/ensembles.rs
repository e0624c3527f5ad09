//! What ensembles do: their requests, the time between their steps, and each step's calls.
//!
//! A meter per version, whose steps are counted by their place, so that counting is a few atomic additions. At most
//! [`MAX_ENSEMBLES`] versions have a meter of their own; where one more comes, those give theirs back that nobody holds, and if all
//! are held it is counted together with others under `other`, without its steps. Whoever counts holds on to its meter.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use mesh_types::{ModelVersionKey, StageTimings};
use parking_lot::RwLock;

use crate::labels::OTHER;

/// The most versions of ensembles that are counted one by one.
pub const MAX_ENSEMBLES: usize = 1_000;

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// It ended well.
    Ok,
    /// It failed, softly or not.
    Failed,
    /// The request ended before it did.
    Cancelled,
    /// It was not needed: another route was taken, a condition did not hold, or an input was missing.
    LeftOut,
}

impl StepOutcome {
    /// Each.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::Cancelled, Self::LeftOut];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::LeftOut => "left_out",
        }
    }

    const fn place(self) -> usize {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Cancelled => 2,
            Self::LeftOut => 3,
        }
    }
}

/// What came of a request of an ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnsembleOutcome {
    /// It was answered.
    Ok,
    /// It failed.
    Failed,
    /// Its caller left, or what it was a step of ended before it did.
    Cancelled,
}

impl EnsembleOutcome {
    /// Each.
    pub const ALL: [Self; 3] = [Self::Ok, Self::Failed, Self::Cancelled];

    /// The name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

#[derive(Debug, Default)]
struct StepMeter {
    name: Box<str>,
    outcomes: [AtomicU64; StepOutcome::ALL.len()],
    nanoseconds: AtomicU64,
}

/// What one version of an ensemble has done.
#[derive(Debug, Default)]
pub struct EnsembleMeter {
    steps: Vec<StepMeter>,
    ok: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    total_ns: AtomicU64,
    compose_ns: AtomicU64,
    failed_ns: AtomicU64,
    rows: AtomicU64,
    last_ms: AtomicU64,
    /// What the steps of requests that were answered took: waiting, gathering inputs, models, splitting outputs.
    steps_ns: [AtomicU64; 4],
}

/// One step of an ensemble, as it was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReading {
    /// The step.
    pub step: String,
    /// Calls that ended well.
    pub ok: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls that were given up because the request ended.
    pub cancelled: u64,
    /// Requests in which it was not needed.
    pub left_out: u64,
    /// The time of the calls that ended well or failed.
    pub total: Duration,
}

impl StepReading {
    /// The counts in the order of [`StepOutcome::ALL`].
    pub(crate) fn counts(&self) -> [u64; StepOutcome::ALL.len()] {
        [self.ok, self.failed, self.cancelled, self.left_out]
    }
}

/// One version of an ensemble, as it was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnsembleReading {
    /// Requests that were answered.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that were given up.
    pub cancelled: u64,
    /// The time of those that were answered: how long one took that failed says nothing of the graph.
    pub total: Duration,
    /// The part of it in which no step was waited for.
    pub compose: Duration,
    /// The time of those that failed.
    pub failed_total: Duration,
    /// Rows that were answered.
    pub rows: u64,
    /// When the last request was answered, in milliseconds since the Unix epoch; 0 if none was.
    pub last_ms: u64,
    /// What the steps of those that were answered took, added up: waiting, gathering inputs, models, splitting outputs.
    pub on_devices: [Duration; 4],
    /// The steps, in the order of writing.
    pub steps: Vec<StepReading>,
}

impl EnsembleReading {
    /// The counts in the order of [`EnsembleOutcome::ALL`].
    pub(crate) fn counts(&self) -> [u64; EnsembleOutcome::ALL.len()] {
        [self.ok, self.failed, self.cancelled]
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl EnsembleMeter {
    fn new<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let step = |name: &str| StepMeter {
            name: name.into(),
            ..StepMeter::default()
        };
        Self {
            steps: names.map(step).collect(),
            ..Self::default()
        }
    }

    fn is_of<'a>(&self, names: impl Iterator<Item = &'a str>) -> bool {
        self.steps.iter().map(|step| &*step.name).eq(names)
    }

    /// A step has ended, or was left out.
    pub fn step(&self, place: usize, outcome: StepOutcome, total: Duration) {
        let Some(step) = self.steps.get(place) else { return };
        if let Some(counter) = step.outcomes.get(outcome.place()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        step.nanoseconds.fetch_add(nanoseconds(total), Ordering::Relaxed);
    }

    /// A request has ended. `compose` is the part of its time in which no step was waited for; times count where it was answered.
    pub fn request(&self, outcome: EnsembleOutcome, total: Duration, compose: Duration) {
        let counter = match outcome {
            EnsembleOutcome::Ok => &self.ok,
            EnsembleOutcome::Failed => &self.failed,
            EnsembleOutcome::Cancelled => &self.cancelled,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if outcome == EnsembleOutcome::Failed {
            self.failed_ns.fetch_add(nanoseconds(total), Ordering::Relaxed);
        }
        if outcome != EnsembleOutcome::Ok {
            return;
        }
        self.total_ns.fetch_add(nanoseconds(total), Ordering::Relaxed);
        self.compose_ns.fetch_add(nanoseconds(compose), Ordering::Relaxed);
    }

    /// What a request had that was answered: its rows, and what its steps took on devices, added up.
    pub fn answered(&self, rows: u32, steps: &StageTimings, now: SystemTime) {
        self.rows.fetch_add(u64::from(rows), Ordering::Relaxed);
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let milliseconds = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.last_ms.fetch_max(milliseconds, Ordering::Relaxed);
        let parts = [
            steps.queue,
            steps.compute_input,
            steps.compute_infer,
            steps.compute_output,
        ];
        for (counter, part) in self.steps_ns.iter().zip(parts) {
            counter.fetch_add(nanoseconds(part), Ordering::Relaxed);
        }
    }

    fn reading(&self) -> EnsembleReading {
        let step = |step: &StepMeter| {
            let [ok, failed, cancelled, left_out] = &step.outcomes;
            StepReading {
                step: step.name.to_string(),
                ok: read(ok),
                failed: read(failed),
                cancelled: read(cancelled),
                left_out: read(left_out),
                total: Duration::from_nanos(read(&step.nanoseconds)),
            }
        };
        EnsembleReading {
            ok: read(&self.ok),
            failed: read(&self.failed),
            cancelled: read(&self.cancelled),
            total: Duration::from_nanos(read(&self.total_ns)),
            compose: Duration::from_nanos(read(&self.compose_ns)),
            failed_total: Duration::from_nanos(read(&self.failed_ns)),
            rows: read(&self.rows),
            last_ms: read(&self.last_ms),
            on_devices: self.steps_ns.each_ref().map(|part| Duration::from_nanos(read(part))),
            steps: self.steps.iter().map(step).collect(),
        }
    }
}

/// The meters of all ensembles.
#[derive(Debug, Default)]
pub(crate) struct Ensembles {
    meters: RwLock<HashMap<ModelVersionKey, Arc<EnsembleMeter>>>,
    other: Arc<EnsembleMeter>,
}

impl Ensembles {
    /// The meter of a version with these steps. Other steps than before begin anew.
    pub(crate) fn of<'a>(
        &self,
        key: &ModelVersionKey,
        names: impl Iterator<Item = &'a str> + Clone,
    ) -> Arc<EnsembleMeter> {
        if let Some(known) = self.meters.read().get(key)
            && known.is_of(names.clone())
        {
            return known.clone();
        }
        let mut meters = self.meters.write();
        match meters.get(key) {
            // Another thread was first.
            Some(known) if known.is_of(names.clone()) => return known.clone(),
            None if meters.len() >= MAX_ENSEMBLES => {
                // With the map locked, a count of one means that nobody holds it.
                meters.retain(|_, meter| Arc::strong_count(meter) > 1);
                if meters.len() >= MAX_ENSEMBLES {
                    return self.other.clone();
                }
            }
            _ => {}
        }
        let meter = Arc::new(EnsembleMeter::new(names));
        meters.insert(key.clone(), meter.clone());
        meter
    }

    /// Drops what was counted of these tenants' ensembles.
    pub(crate) fn forget(&self, is_gone: impl Fn(&str) -> bool) {
        self.meters.write().retain(|key, _| !is_gone(key.tenant.as_str()));
    }

    /// What was counted for a version; none if it has not been asked yet.
    pub(crate) fn reading(&self, key: &ModelVersionKey) -> Option<EnsembleReading> {
        self.meters.read().get(key).map(|meter| meter.reading())
    }

    /// Everything, by the name of the version.
    pub(crate) fn readings(&self) -> Vec<(String, EnsembleReading)> {
        let meters = self.meters.read();
        let mut readings: Vec<_> = meters
            .iter()
            .map(|(key, meter)| (key.to_string(), meter.reading()))
            .collect();
        drop(meters);
        readings.sort_by(|a, b| a.0.cmp(&b.0));
        let other = self.other.reading();
        if other.counts().iter().any(|count| *count > 0) {
            readings.push((OTHER.to_owned(), other));
        }
        readings
    }

    /// In the OpenMetrics text format, without its end mark. Names have passed the grammar of names, so nothing needs escaping.
    pub(crate) fn encode(&self, text: &mut String) -> std::fmt::Result {
        let readings = self.readings();
        requests(&readings, text)?;
        of_steps(&readings, text)
    }
}

fn family(text: &mut String, name: &str, help: &str) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter")?;
    if name.ends_with("_seconds") {
        writeln!(text, "# UNIT {name} seconds")?;
    }
    Ok(())
}

fn requests(readings: &[(String, EnsembleReading)], text: &mut String) -> std::fmt::Result {
    let name = "mesh_ensemble_requests";
    family(text, name, "Requests of ensembles by outcome.")?;
    for (ensemble, reading) in readings {
        for (outcome, count) in EnsembleOutcome::ALL.iter().zip(reading.counts()) {
            let outcome = outcome.as_str();
            writeln!(
                text,
                "{name}_total{{ensemble=\"{ensemble}\",outcome=\"{outcome}\"}} {count}"
            )?;
        }
    }
    let name = "mesh_ensemble_seconds";
    family(text, name, "Time of requests of ensembles that were answered.")?;
    for (ensemble, reading) in readings {
        let seconds = reading.total.as_secs_f64();
        writeln!(text, "{name}_total{{ensemble=\"{ensemble}\"}} {seconds}")?;
    }
    let name = "mesh_ensemble_compose_seconds";
    family(text, name, "The part of it in which no step was waited for.")?;
    for (ensemble, reading) in readings {
        let seconds = reading.compose.as_secs_f64();
        writeln!(text, "{name}_total{{ensemble=\"{ensemble}\"}} {seconds}")?;
    }
    Ok(())
}

fn of_steps(readings: &[(String, EnsembleReading)], text: &mut String) -> std::fmt::Result {
    let name = "mesh_ensemble_steps";
    family(text, name, "Steps of ensembles by outcome.")?;
    for (ensemble, reading) in steps(readings) {
        for (outcome, count) in StepOutcome::ALL.iter().zip(reading.counts()) {
            let (step, outcome) = (&reading.step, outcome.as_str());
            writeln!(
                text,
                "{name}_total{{ensemble=\"{ensemble}\",step=\"{step}\",outcome=\"{outcome}\"}} {count}"
            )?;
        }
    }
    let name = "mesh_ensemble_step_seconds";
    family(text, name, "Time of the steps of ensembles.")?;
    for (ensemble, reading) in steps(readings) {
        let (step, seconds) = (&reading.step, reading.total.as_secs_f64());
        writeln!(
            text,
            "{name}_total{{ensemble=\"{ensemble}\",step=\"{step}\"}} {seconds}"
        )?;
    }
    Ok(())
}

fn steps(readings: &[(String, EnsembleReading)]) -> impl Iterator<Item = (&str, &StepReading)> {
    readings
        .iter()
        .flat_map(|(name, reading)| reading.steps.iter().map(move |step| (name.as_str(), step)))
}

#[cfg(test)]
mod tests {
    use mesh_types::{ModelId, TenantId, Version};

    use super::*;

    fn key(number: usize) -> ModelVersionKey {
        ModelVersionKey {
            tenant: TenantId::parse("acme").unwrap(),
            model: ModelId::parse("pipe").unwrap(),
            version: Version::new(u32::try_from(number).unwrap() + 1).unwrap(),
        }
    }

    #[test]
    fn steps_are_counted_by_their_place_and_other_steps_begin_anew() {
        let ensembles = Ensembles::default();
        let meter = ensembles.of(&key(0), ["a", "b"].into_iter());
        meter.step(0, StepOutcome::Ok, Duration::from_secs(2));
        meter.step(1, StepOutcome::LeftOut, Duration::ZERO);
        meter.step(7, StepOutcome::Ok, Duration::ZERO);
        meter.request(EnsembleOutcome::Ok, Duration::from_secs(3), Duration::from_secs(1));
        for outcome in [EnsembleOutcome::Failed, EnsembleOutcome::Cancelled] {
            meter.request(outcome, Duration::from_secs(9), Duration::from_secs(9));
        }
        let again = ensembles.of(&key(0), ["a", "b"].into_iter());
        assert!(Arc::ptr_eq(&meter, &again));
        let mut text = String::new();
        ensembles.encode(&mut text).unwrap();
        for line in [
            "mesh_ensemble_requests_total{ensemble=\"acme/pipe/1\",outcome=\"ok\"} 1",
            "mesh_ensemble_requests_total{ensemble=\"acme/pipe/1\",outcome=\"failed\"} 1",
            "mesh_ensemble_requests_total{ensemble=\"acme/pipe/1\",outcome=\"cancelled\"} 1",
            "mesh_ensemble_seconds_total{ensemble=\"acme/pipe/1\"} 3",
            "mesh_ensemble_compose_seconds_total{ensemble=\"acme/pipe/1\"} 1",
            "mesh_ensemble_steps_total{ensemble=\"acme/pipe/1\",step=\"a\",outcome=\"ok\"} 1",
            "mesh_ensemble_steps_total{ensemble=\"acme/pipe/1\",step=\"b\",outcome=\"left_out\"} 1",
            "mesh_ensemble_step_seconds_total{ensemble=\"acme/pipe/1\",step=\"a\"} 2",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
        let second = |seconds| Duration::from_secs(seconds);
        let steps = StageTimings {
            queue: second(1),
            compute_infer: second(3),
            ..StageTimings::default()
        };
        for milliseconds in [5_000, 4_000] {
            meter.answered(2, &steps, SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds));
        }
        let reading = ensembles.reading(&key(0)).unwrap();
        assert_eq!(
            (reading.rows, reading.last_ms, reading.failed_total),
            (4, 5_000, second(9))
        );
        assert_eq!(reading.on_devices, [second(2), second(0), second(6), second(0)]);
        ensembles.of(&key(0), ["a", "c"].into_iter());
        assert_eq!(ensembles.reading(&key(0)).unwrap().ok, 0);
    }

    #[test]
    fn as_many_ensembles_as_may_have_a_meter_and_one_more_is_counted_with_others() {
        let ensembles = Ensembles::default();
        let mut held: Vec<_> = (0..MAX_ENSEMBLES)
            .map(|number| ensembles.of(&key(number), ["a"].into_iter()))
            .collect();
        let beyond = ensembles.of(&key(MAX_ENSEMBLES), ["a"].into_iter());
        beyond.request(EnsembleOutcome::Ok, Duration::ZERO, Duration::ZERO);
        beyond.step(0, StepOutcome::Ok, Duration::ZERO);
        assert!(ensembles.reading(&key(MAX_ENSEMBLES)).is_none());
        assert!(ensembles.reading(&key(MAX_ENSEMBLES - 1)).is_some());
        let readings = ensembles.readings();
        assert_eq!(
            (readings.len(), readings.last().unwrap().0.as_str()),
            (MAX_ENSEMBLES + 1, OTHER)
        );
        // One that nobody holds any more makes room.
        held.pop();
        ensembles.of(&key(MAX_ENSEMBLES), ["a"].into_iter());
        assert!(ensembles.reading(&key(MAX_ENSEMBLES)).is_some());
        assert!(ensembles.reading(&key(MAX_ENSEMBLES - 1)).is_none());
        assert!(ensembles.reading(&key(0)).is_some());
    }
}
