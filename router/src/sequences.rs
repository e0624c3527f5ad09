//! Sequences: what a request says of its own, and where those that are open have their state.
//!
//! The first request of a sequence chooses version and device like any other, except that its id decides where nothing else
//! does: the arm of a split without a unit of its own, and the device (rendezvous hashing, [`mesh_policies::placement`]). So
//! routers that share nothing choose alike. What was chosen is remembered for as long as the sequence is open ([`Homes`],
//! shared by the routers of this process), so that a split whose weights change, a label that moves, and a device or a version
//! that is on its way out do not tear it. What is forgotten or was never known here is chosen anew; if that is another device
//! or version than before, the device says that the sequence must be started.

mod homes;

use mesh_policies::snapshot::VersionEntry;
use mesh_types::{
    ControlKind, CorrelationId, CorrelationIds, DataType, DeviceId, Fault, InferRequest, MAX_CORRELATION_ID_BYTES,
    ModelConfig, ModelId, ParameterValue, SequenceStep, VersionSelector,
};

use crate::graph::{Course, InSequence};

pub(crate) use homes::Place;
pub use homes::{Homes, MAX_HOMES};

/// How a caller names a sequence: the target and version that it asks for, and the id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SequenceName {
    target: String,
    selector: String,
    id: CorrelationId,
}

/// A request's sequence, on its way to a device.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) step: SequenceStep,
    pub(crate) name: SequenceName,
    /// Where its state is, if that is known.
    pub(crate) place: Option<Place>,
}

/// The sequence that a request belongs to, if it says so.
pub(crate) fn step_of(request: &InferRequest) -> Result<Option<SequenceStep>, Fault> {
    let Some(value) = request.parameter("sequence_id") else {
        return Ok(None);
    };
    let Some(id) = correlation_id(value)? else {
        return Ok(None);
    };
    let flag = |name: &str| match request.parameter(name) {
        None => Ok(false),
        Some(value) => {
            let wrong = || Fault::invalid(format!("parameter '{name}' is true or false"));
            value.as_bool().ok_or_else(wrong)
        }
    };
    Ok(Some(SequenceStep {
        id,
        start: flag("sequence_start")?,
        end: flag("sequence_end")?,
    }))
}

/// As in Triton, 0 and an empty text stand for no sequence.
fn correlation_id(value: &ParameterValue) -> Result<Option<CorrelationId>, Fault> {
    if let Some(text) = value.as_str() {
        if text.len() > MAX_CORRELATION_ID_BYTES {
            return Err(Fault::invalid(format!(
                "parameter 'sequence_id' has at most {MAX_CORRELATION_ID_BYTES} bytes as a text"
            )));
        }
        return Ok((!text.is_empty()).then(|| CorrelationId::Text(text.into())));
    }
    let wrong = || Fault::invalid("parameter 'sequence_id' is a whole number that is not negative, or a text");
    let number = value.as_u64().ok_or_else(wrong)?;
    Ok((number != 0).then_some(CorrelationId::Number(number)))
}

/// Whether the request may be a step of a sequence of this version, and of all stateful steps of an ensemble.
pub(crate) fn check_all(entry: &VersionEntry, step: Option<&SequenceStep>, rows: u32) -> Result<(), Fault> {
    check(&entry.key.model, &entry.config, step, rows)?;
    for (path, stateful) in entry.plan.iter().flat_map(|plan| &plan.stateful) {
        check(&stateful.key.model, &stateful.config, step, rows).map_err(|fault| Fault {
            message: format!("{path}: {}", fault.message).into(),
            ..fault
        })?;
    }
    Ok(())
}

/// Whether the request may be a step of a sequence of this model.
pub(crate) fn check(
    model: &ModelId,
    config: &ModelConfig,
    step: Option<&SequenceStep>,
    rows: u32,
) -> Result<(), Fault> {
    let Some(sequence) = &config.sequence_batching else {
        return Ok(());
    };
    // The texts are Triton's: its clients look for them.
    let Some(step) = step else {
        return Err(Fault::invalid(format!(
            "inference request to model '{model}' must specify a non-zero or non-empty correlation ID"
        )));
    };
    if rows > 1 {
        return Err(Fault::invalid(format!(
            "inference request to model '{model}' must specify batch-size 1 due to requirements of sequence batcher"
        )));
    }
    let told = sequence.control(ControlKind::Corrid);
    let told = told.filter(|_| sequence.correlation_ids == CorrelationIds::AsGiven);
    let Some(datatype) = told.and_then(|(_, control)| control.data_type) else {
        return Ok(());
    };
    let most = match datatype {
        DataType::Int32 => u64::from(i32::MAX.unsigned_abs()),
        DataType::Uint32 => u64::from(u32::MAX),
        DataType::Int64 => i64::MAX.unsigned_abs(),
        DataType::Uint64 => u64::MAX,
        _ => return Ok(()),
    };
    match &step.id {
        CorrelationId::Number(number) if *number <= most => Ok(()),
        id => Err(Fault::invalid(format!(
            "sequence id '{id}' for model '{model}' is no {datatype}, which is how the model is told it: a number from 1 to \
             {most}"
        ))),
    }
}

impl Routed {
    /// Whether it begins a sequence that goes on.
    pub(crate) fn stays(&self) -> bool {
        self.step.start && !self.step.end
    }

    /// The device that holds its state, if that is known.
    pub(crate) fn device(&self) -> Option<DeviceId> {
        match self.place {
            Some(Place::Device(device)) => Some(device),
            _ => None,
        }
    }

    /// The same on its way through an ensemble.
    pub(crate) fn travels(self) -> InSequence {
        let course = match self.place {
            Some(Place::Steps(course)) => course,
            _ if self.step.start => Course::begin(),
            _ => Course::unknown(),
        };
        InSequence {
            step: self.step,
            course,
            name: Some(self.name),
        }
    }
}

impl SequenceName {
    pub(crate) fn of(request: &InferRequest, id: &CorrelationId) -> Self {
        Self {
            target: request.model.clone(),
            selector: match &request.version {
                VersionSelector::Default => String::new(),
                VersionSelector::Version(version) => version.to_string(),
                VersionSelector::Label(label) => label.to_string(),
            },
            id: id.clone(),
        }
    }
}

#[cfg(test)]
#[path = "sequences_tests.rs"]
mod tests;
