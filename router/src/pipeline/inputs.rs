//! A request's inputs, once its version is chosen: how many bytes they may be, reading those that are in shared memory, and whether all fit.
//!
//! What lies in the system's memory is read at once; what lies on a device is read on a thread that may wait for its driver. Either is
//! done for whom the limits have let through only.

use mesh_policies::{MeshSnapshot, snapshot::VersionEntry};
use mesh_types::{Deadline, Fault, FaultClass, FaultSource};

use super::{Checked, Pipeline, Versioned};
use crate::{
    regions::{self, Landing},
    sequences,
    standing::standing,
};

/// What was in shared memory is among the inputs.
pub(crate) struct WithInputs {
    versioned: Versioned,
    /// Where outputs go that are not answered with.
    landing: Option<Box<Landing>>,
}

/// A model may take less than its door does; which model answers is known only now.
pub(super) fn within_bound(snapshot: &MeshSnapshot, entry: &VersionEntry, bytes: usize) -> Result<(), Fault> {
    match snapshot.request_bounds.of(&entry.key) {
        Some(bound) if bytes as u64 > bound => Err(Fault::new(
            FaultClass::TooLarge,
            FaultSource::Client,
            format!(
                "the request has {bytes} bytes, and model '{}' takes {bound} at most",
                entry.key.model
            ),
        )),
        _ => Ok(()),
    }
}

impl Versioned {
    /// The deadline, where it has not passed.
    pub(super) fn in_time(&self, pipeline: &Pipeline) -> Result<Deadline, Fault> {
        // The caller may shorten what its operators allow, never lengthen it.
        let allowed = self.timeout.unwrap_or(pipeline.parts.default_timeout);
        let timeout = self.call.timeout.map_or(allowed, |wanted| wanted.min(allowed));
        let deadline = Deadline::after(self.call.received, timeout);
        if deadline.is_past(pipeline.parts.clock.now()) {
            return Err(Fault::deadline("before the request was dispatched"));
        }
        Ok(deadline)
    }

    /// Whether any input lies in the memory of a device.
    pub(super) fn reads_devices(&self, pipeline: &Pipeline) -> bool {
        let what = self.call.request.regions.as_deref();
        what.is_some_and(|what| pipeline.parts.regions.reads_devices(&self.tenant.id, what))
    }

    /// Reads what is in shared memory.
    pub(super) fn read_here(mut self, pipeline: &Pipeline) -> Result<WithInputs, Fault> {
        let landing = match self.call.request.regions.take() {
            None => None,
            Some(what) => {
                self.in_time(pipeline)?;
                let landing = (pipeline.parts.regions).take_in(&self.tenant.id, *what, &mut self.call.request)?;
                Some(Box::new(landing))
            }
        };
        Ok(WithInputs {
            versioned: self,
            landing,
        })
    }

    /// The same on a thread that may wait for a driver; the request waits until its deadline.
    pub(crate) async fn read_elsewhere(mut self: Box<Self>, pipeline: &Pipeline) -> Result<WithInputs, Fault> {
        let deadline = self.in_time(pipeline)?;
        let (regions, tenant) = (pipeline.parts.regions.clone(), self.tenant.id.clone());
        let mut request = std::mem::take(&mut self.call.request);
        let read = regions::may_wait(move || {
            let what = request.regions.take().unwrap_or_default();
            let landing = regions.take_in(&tenant, *what, &mut request)?;
            Ok((request, landing))
        });
        let (request, landing) = regions::in_time(deadline, read).await?;
        self.call.request = request;
        Ok(WithInputs {
            versioned: *self,
            landing: Some(Box::new(landing)),
        })
    }
}

impl WithInputs {
    pub(super) fn check(self, pipeline: &Pipeline) -> Result<Checked, Fault> {
        let Self { mut versioned, landing } = self;
        let deadline = versioned.in_time(pipeline)?;
        let (config, model) = (&versioned.entry.config, &versioned.entry.key.model);
        let request = &mut versioned.call.request;
        let rows = config.check_inputs(model, &mut request.inputs)?;
        let given = config.model_parameters(model, &request.parameters)?;
        config.check_outputs(model, &request.outputs)?;
        config.check_classes(&request.classes)?;
        let step = versioned.sequence.as_ref().map(|sequence| &sequence.step);
        sequences::check_all(&versioned.entry, step, rows)?;
        if config.is_decoupled() {
            versioned.call.room.for_many(landing.as_deref())?;
        }
        let standing = standing(&versioned.call.request, versioned.tenant.share, versioned.class)?;
        Ok(Checked {
            versioned,
            rows,
            given,
            deadline,
            standing,
            landing,
        })
    }
}
