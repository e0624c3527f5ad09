//! Where each version stands: what devices report of it, beside what was declared.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_policies::VersionEntry;
use mesh_types::{DeviceId, ModelVersionKey};

use crate::{
    fleet::{FleetReport, ModelState},
    records::{Records, VersionRecord},
};

/// What control itself knows of versions, beyond the devices' report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Why a version could not be brought to a device.
    pub reasons: BTreeMap<ModelVersionKey, String>,
    /// Versions whose record has changed since a device loaded them: what is there must not be taken for what is declared.
    pub stale: BTreeSet<ModelVersionKey>,
}

/// One version.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// As devices report it, ready wherever it could run.
    pub(crate) able: Arc<VersionEntry>,
    /// As it is shown: not ready anywhere while it is leaving.
    pub(crate) shown: Arc<VersionEntry>,
    /// Ready, and meant to be.
    pub(crate) serves: bool,
    /// Meant to become ready, if it is not.
    pub(crate) expected: bool,
    /// Ready, but only on devices that take no requests for now.
    rests: bool,
}

impl Standing {
    /// Whether it may stay where it is led to: it answers, or will as soon as a device is undrained.
    pub(crate) fn holds(&self) -> bool {
        self.able.is_ready() || self.rests
    }
}

pub(crate) type Standings = BTreeMap<ModelVersionKey, Standing>;

#[derive(Default)]
struct Reported {
    ready_on: Vec<DeviceId>,
    /// Ready on devices that take no new jobs.
    draining: bool,
    reason: Option<String>,
}

pub(crate) fn standings(records: &Records, report: &FleetReport, trouble: &Trouble) -> Standings {
    let mut reported: BTreeMap<&ModelVersionKey, Reported> = BTreeMap::new();
    for (device, model) in report.models() {
        let entry = reported.entry(&model.key).or_default();
        match model.state {
            ModelState::Ready if report.is_draining(device) => entry.draining = true,
            ModelState::Ready => entry.ready_on.push(device),
            ModelState::Unavailable | ModelState::Quarantined => {
                entry.reason = entry.reason.take().or_else(|| model.reason.clone());
            }
            ModelState::Loading | ModelState::Unloading => {}
        }
    }
    let of = |record: &VersionRecord| {
        let reported = reported.remove(&*record.key).unwrap_or_default();
        (
            ModelVersionKey::clone(&record.key),
            standing(record, &reported, trouble),
        )
    };
    records.versions().map(of).collect()
}

fn standing(record: &VersionRecord, reported: &Reported, trouble: &Trouble) -> Standing {
    let stale = trouble.stale.contains(&*record.key);
    let leaving = record.unloaded || stale;
    let reason = || {
        if record.unloaded {
            return "it is kept off the devices: set unloaded to false to load it".to_owned();
        }
        if reported.draining {
            return "every device that has it is being drained".to_owned();
        }
        let known = trouble.reasons.get(&*record.key).cloned();
        reported
            .reason
            .clone()
            .or(known)
            .unwrap_or_else(|| "it is still loading".to_owned())
    };
    let entry = |ready_on: &[DeviceId]| {
        Arc::new(VersionEntry {
            key: record.key.clone(),
            config: record.config.clone(),
            format: record.format,
            ready_on: ready_on.to_vec(),
            unavailable_reason: ready_on.is_empty().then(reason),
        })
    };
    let able = entry(&reported.ready_on);
    Standing {
        shown: if leaving { entry(&[]) } else { able.clone() },
        serves: !leaving && able.is_ready(),
        expected: !record.unloaded,
        rests: reported.draining && !able.is_ready(),
        able,
    }
}
