//! Where each version stands: what devices report of it, beside what was declared.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_policies::{VersionEntry, VersionPhase, graph::Plan, placement::device_of};
use mesh_types::{ArtifactFormat, CorrelationId, DeviceId, ModelVersionKey};

use crate::{
    fleet::{FleetReport, ModelState},
    records::{Records, VersionRecord},
};

const KEPT_OFF: &str = "it is kept off the devices: set unloaded to false to load it";

/// What control itself knows of versions, beyond the devices' report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trouble {
    /// Why a version could not be brought to a device.
    pub reasons: BTreeMap<ModelVersionKey, String>,
    /// Versions whose record has changed since a device loaded them, so that requests would not fit: what is there must not be
    /// taken for what is declared.
    pub stale: BTreeSet<ModelVersionKey>,
    /// Versions whose record has changed otherwise: what is there serves until what is declared has taken its place.
    pub former: BTreeMap<ModelVersionKey, VersionRecord>,
}

/// One version.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// As devices report it, ready wherever it could run.
    pub(crate) able: Arc<VersionEntry>,
    /// As it is shown: not ready anywhere while it is leaving.
    pub(crate) shown: Arc<VersionEntry>,
    /// Ready, or standing by after it was warm once; and meant to be.
    pub(crate) serves: bool,
    /// Meant to become ready, if it is not.
    pub(crate) expected: bool,
    /// Ready, but only on devices that take no requests for now.
    rests: bool,
    /// What is there is not what is declared, and requests would not fit.
    stale: bool,
}

impl Standing {
    /// Whether it may stay where it is led to: it answers, or will as soon as a device is undrained.
    pub(crate) fn holds(&self) -> bool {
        // Led to in the stead of itself it would never leave, and what is declared never come.
        !self.stale && (self.able.is_ready() || self.rests)
    }

    /// Of an ensemble: its plan if its graph holds together, and why it is not ready if it is not. `rests` is whether its steps
    /// only wait for devices to be undrained, and `phase` that of the step that it waits for.
    pub(crate) fn of_ensemble(
        record: &VersionRecord,
        plan: Option<Arc<Plan>>,
        unavailable_reason: Option<String>,
        (rests, phase): (bool, VersionPhase),
    ) -> Self {
        let entry = |plan: Option<Arc<Plan>>, unavailable_reason: Option<String>| {
            Arc::new(VersionEntry {
                key: record.key.clone(),
                config: record.config.clone(),
                format: record.format,
                digest: record.digest.clone(),
                ready_on: Vec::new(),
                plan,
                unavailable_reason,
                phase: if record.is_wanted() {
                    phase
                } else {
                    VersionPhase::Settled
                },
            })
        };
        let off = plan
            .as_ref()
            .filter(|_| !record.is_wanted())
            .map(|plan| Arc::new(plan.kept_off()));
        let able = entry(plan, unavailable_reason);
        Self {
            shown: if !record.is_wanted() {
                entry(off, Some(KEPT_OFF.to_owned()))
            } else {
                able.clone()
            },
            serves: record.is_wanted() && able.is_ready(),
            expected: record.is_wanted(),
            rests,
            stale: false,
            able,
        }
    }
}

impl Reported {
    /// Where it is in memory is better than where it is on its way there, and that is better than where nobody loads it yet. Of
    /// the latter it is one device, always the same: requests that come at once load it once.
    fn prefer(&mut self, key: &ModelVersionKey) {
        if !self.ready_on.is_empty() {
            return;
        }
        self.ready_on = std::mem::take(&mut self.waking_on);
        if self.ready_on.is_empty() {
            let one = device_of(&key.tenant, key, &CorrelationId::Number(1), &self.standby_on);
            self.ready_on.extend(one);
        }
    }
}

pub(crate) type Standings = BTreeMap<ModelVersionKey, Standing>;

#[derive(Default)]
struct Reported {
    ready_on: Vec<DeviceId>,
    /// Where it is being loaded for requests that wait.
    waking_on: Vec<DeviceId>,
    /// Where it stands by.
    standby_on: Vec<DeviceId>,
    /// Whether it has been warm anywhere.
    proven: bool,
    /// Ready on devices that take no new jobs.
    draining: bool,
    loading: bool,
    unloading: bool,
    reason: Option<String>,
}

pub(crate) fn standings(records: &Records, report: &FleetReport, trouble: &Trouble) -> Standings {
    let mut reported: BTreeMap<&ModelVersionKey, Reported> = BTreeMap::new();
    for (device, model) in report.models() {
        let entry = reported.entry(&model.key).or_default();
        match model.state {
            state if state.takes_jobs() && report.is_draining(device) => entry.draining = true,
            ModelState::Ready => {
                entry.proven = true;
                entry.ready_on.push(device);
            }
            ModelState::Waking => {
                entry.proven |= model.proven;
                entry.waking_on.push(device);
            }
            ModelState::Standby => {
                entry.proven |= model.proven;
                entry.standby_on.push(device);
            }
            ModelState::Unavailable | ModelState::Quarantined => {
                entry.reason = entry.reason.take().or_else(|| model.reason.clone());
            }
            ModelState::Loading => entry.loading = true,
            ModelState::Unloading => entry.unloading = true,
        }
    }
    for (key, entry) in &mut reported {
        entry.prefer(key);
    }
    let of = |record: &VersionRecord| {
        let reported = reported.remove(&*record.key).unwrap_or_default();
        (
            ModelVersionKey::clone(&record.key),
            standing(record, &reported, trouble),
        )
    };
    // Those of ensembles follow from their steps'.
    let on_devices = |record: &&VersionRecord| record.format != ArtifactFormat::Ensemble;
    records.versions().filter(on_devices).map(of).collect()
}

fn standing(record: &VersionRecord, reported: &Reported, trouble: &Trouble) -> Standing {
    let stale = trouble.stale.contains(&*record.key);
    let leaving = !record.is_wanted() || stale;
    let reason = || {
        if record.unloaded {
            return KEPT_OFF.to_owned();
        }
        if record.left_out {
            return "its model's version_policy leaves it out".to_owned();
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
    let phase = phase(record, reported, trouble);
    let runs = trouble.former.get(&*record.key).unwrap_or(record);
    let entry = |ready_on: &[DeviceId]| {
        Arc::new(VersionEntry {
            key: record.key.clone(),
            config: runs.config.clone(),
            format: runs.format,
            digest: runs.digest.clone(),
            ready_on: ready_on.to_vec(),
            plan: None,
            unavailable_reason: ready_on.is_empty().then(reason),
            phase: if ready_on.is_empty() {
                phase
            } else {
                VersionPhase::Settled
            },
        })
    };
    let able = entry(&reported.ready_on);
    Standing {
        shown: if leaving { entry(&[]) } else { able.clone() },
        serves: !leaving && able.is_ready() && reported.proven,
        expected: record.is_wanted(),
        rests: reported.draining && !able.is_ready(),
        stale,
        able,
    }
}

/// Where a version is on its way: what is meant to be there comes, and what is not goes.
fn phase(record: &VersionRecord, reported: &Reported, trouble: &Trouble) -> VersionPhase {
    let there = reported.draining || reported.loading || reported.unloading || !reported.ready_on.is_empty();
    if !record.is_wanted() {
        return if there {
            VersionPhase::Unloading
        } else {
            VersionPhase::Settled
        };
    }
    // What is there and does not fit any more is about to be replaced.
    if reported.loading || trouble.stale.contains(&*record.key) {
        return VersionPhase::Loading;
    }
    if reported.unloading {
        return VersionPhase::Unloading;
    }
    let failed = reported.reason.is_some() || trouble.reasons.contains_key(&*record.key);
    // No device has begun yet.
    if failed || there {
        VersionPhase::Settled
    } else {
        VersionPhase::Loading
    }
}
