//! A sequence's way through an ensemble: where each stateful model below it has its state, and whose turn it is.
//!
//! The ensemble has no state of its own: the caller's sequence is handed on to the steps that have. A step begins with the request
//! that starts the sequence, or with the first one whose way leads through it; from then on it stays with the version and on the
//! device that it began with, as a plain model's sequence does. What is not known here (another process began it) goes where the
//! placement leads, and the device says if it must be started.
//!
//! Invariants: requests of one sequence travel one after the other, in the order in which they came, so that each step has them in
//! that order; a sequence has its state in at most [`MAX_STATES`] models; one whose first request failed has not begun, and those that
//! came behind it begin nothing in its place.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mesh_policies::{VersionEntry, graph::MAX_TOTAL_STEPS, placement::device_of};
use mesh_types::{DeviceId, Fault, FaultSource, ModelId, Retry, SequenceStep, Standing, TenantId};
use parking_lot::Mutex;

use super::gates::{Gate, Pass};
use crate::sequences::SequenceName;

/// The most models that one sequence has its state in: as many as an ensemble has steps. The graph may change on the way.
pub const MAX_STATES: usize = MAX_TOTAL_STEPS;

/// One sequence on its way through an ensemble.
#[derive(Debug)]
pub(crate) struct Course {
    turn: Arc<Gate>,
    states: Mutex<BTreeMap<(TenantId, ModelId), State>>,
    /// Whether this process has seen it begin: then a model that has no state yet is one that its way has not led to.
    begun_here: bool,
    /// Its first request has failed.
    not_begun: AtomicBool,
}

/// Where a model has its state.
#[derive(Debug, Clone)]
struct State {
    entry: Arc<VersionEntry>,
    device: DeviceId,
}

/// A request's sequence, while it travels.
#[derive(Debug)]
pub(crate) struct InSequence {
    pub(crate) step: SequenceStep,
    pub(crate) course: Arc<Course>,
    /// How its caller names it; none where it is nobody's to go on with.
    pub(crate) name: Option<SequenceName>,
}

/// What a stateful step is to run.
#[derive(Debug)]
pub(super) struct Seat {
    /// The version that has the state.
    pub(super) entry: Arc<VersionEntry>,
    /// What its model is told of the sequence.
    pub(super) step: SequenceStep,
}

impl Course {
    /// Of a sequence that begins.
    pub(crate) fn begin() -> Arc<Self> {
        Arc::new(Self::new(true))
    }

    /// Of a sequence that nothing is known of.
    pub(crate) fn unknown() -> Arc<Self> {
        Arc::new(Self::new(false))
    }

    fn new(begun_here: bool) -> Self {
        Self {
            turn: Arc::new(Gate::new(1)),
            states: Mutex::default(),
            begun_here,
            not_begun: AtomicBool::new(false),
        }
    }

    /// Its first request has failed, and nothing of it goes on. To be said while that request still has its turn.
    pub(crate) fn fail(&self) {
        self.not_begun.store(true, Ordering::Release);
    }

    fn state(&self, entry: &VersionEntry) -> Option<State> {
        let name = (entry.key.tenant.clone(), entry.key.model.clone());
        self.states.lock().get(&name).cloned()
    }

    /// A step has gone to a device.
    pub(super) fn went(&self, entry: &Arc<VersionEntry>, device: DeviceId) {
        let name = (entry.key.tenant.clone(), entry.key.model.clone());
        let entry = entry.clone();
        self.states.lock().insert(name, State { entry, device });
    }
}

impl InSequence {
    /// Waits until the requests before it have ended.
    pub(super) async fn turn(&self, tenant: &TenantId) -> Result<Pass, Fault> {
        // Within a sequence no request overtakes another, whatever its class.
        let pass = self.course.turn.pass(tenant, &Standing::default()).await;
        let pass = pass.map_err(|_| {
            let text = "as many requests of this sequence wait as may: wait for an answer first";
            Fault::unavailable(FaultSource::TenantLimit, text)
        })?;
        if self.course.not_begun.load(Ordering::Acquire) {
            // As a device says of the steps behind one that did not run.
            let text = "a request before it in its sequence was not run";
            return Err(Fault::unavailable(FaultSource::Device, text).with_retry(Retry::No));
        }
        Ok(pass)
    }

    /// What a stateful step of this version is to run.
    pub(super) fn seat(&self, entry: &Arc<VersionEntry>) -> Result<Seat, Fault> {
        let state = self.course.state(entry);
        if state.is_none() && self.course.states.lock().len() >= MAX_STATES {
            let text = format!("a sequence has its state in at most {MAX_STATES} models: end it and start another");
            return Err(Fault::unavailable(FaultSource::TenantLimit, text));
        }
        let begins = self.step.start || (self.course.begun_here && state.is_none());
        Ok(Seat {
            entry: state.map_or_else(|| entry.clone(), |state| state.entry),
            step: SequenceStep {
                start: begins,
                ..self.step.clone()
            },
        })
    }

    /// The device of a stateful step of this version; none where it is ready on none.
    pub(super) fn device(&self, tenant: &TenantId, entry: &VersionEntry) -> Option<DeviceId> {
        let known = self.course.state(entry).map(|state| state.device);
        known.or_else(|| device_of(tenant, &entry.key, &self.step.id, &entry.ready_on))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use mesh_types::{ArtifactFormat, CorrelationId, ModelConfig, ModelVersionKey, Version};

    use super::*;

    fn entry(model: &str, version: u32) -> Arc<VersionEntry> {
        Arc::new(VersionEntry {
            key: Arc::new(ModelVersionKey {
                tenant: TenantId::parse("acme").unwrap(),
                model: ModelId::parse(model).unwrap(),
                version: Version::new(version).unwrap(),
            }),
            config: Arc::new(ModelConfig::default()),
            format: ArtifactFormat::Builtin,
            digest: None,
            ready_on: vec![DeviceId::cpu(0), DeviceId::cpu(1)],
            plan: None,
            unavailable_reason: None,
            phase: Default::default(),
        })
    }

    fn request(course: &Arc<Course>, start: bool) -> InSequence {
        InSequence {
            step: SequenceStep {
                id: CorrelationId::Number(5),
                start,
                end: false,
            },
            course: course.clone(),
            name: None,
        }
    }

    #[test]
    fn a_step_begins_when_it_is_first_led_to_and_stays_where_it_began() {
        let course = Course::begin();
        let first = request(&course, true);
        assert!(first.seat(&entry("ears", 1)).unwrap().step.start);
        course.went(&entry("ears", 1), DeviceId::cpu(1));
        let next = request(&course, false);
        let seat = next.seat(&entry("ears", 2)).unwrap();
        assert_eq!((seat.step.start, seat.entry.key.version), (false, Version::FIRST));
        let acme = TenantId::parse("acme").unwrap();
        assert_eq!(next.device(&acme, &seat.entry), Some(DeviceId::cpu(1)));
        assert!(next.seat(&entry("eyes", 1)).unwrap().step.start, "only now led to");
        let unknown = request(&Course::unknown(), false);
        assert!(!unknown.seat(&entry("ears", 1)).unwrap().step.start, "the device knows");
    }

    #[test]
    fn a_sequence_has_its_state_in_as_many_models_as_may_and_in_no_more() {
        let course = Course::begin();
        for number in 0..MAX_STATES {
            assert!(request(&course, false).seat(&entry(&format!("m{number}"), 1)).is_ok());
            course.went(&entry(&format!("m{number}"), 1), DeviceId::cpu(0));
        }
        let fault = request(&course, false).seat(&entry("more", 1)).unwrap_err();
        assert!(fault.message.contains("at most 256 models"), "{fault}");
        assert!(request(&course, false).seat(&entry("m0", 1)).is_ok());
    }

    #[tokio::test]
    async fn requests_of_a_sequence_have_their_turn_in_order() {
        let (course, acme) = (Course::begin(), TenantId::parse("acme").unwrap());
        let (first, second) = (request(&course, true), request(&course, false));
        let turn = first.turn(&acme).now_or_never().unwrap().unwrap();
        let mut waits = Box::pin(second.turn(&acme));
        assert!(waits.as_mut().now_or_never().is_none());
        drop(turn);
        assert!(waits.now_or_never().unwrap().is_ok());
    }
}
