//! What to load and unload next: decided from the records, the devices' report and the books on what was tried before.
//!
//! Owns the books. Carries nothing out and reads no clock: `now` is an argument.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use mesh_types::{ArtifactFormat, DeviceId, ModelVersionKey};

use crate::{
    compile::Compiled,
    fleet::{DeviceReport, FleetReport, ModelReport, ModelState},
    records::{Records, VersionRecord},
    standing::Trouble,
};

/// Loads and warm-ups under way at once.
pub const MAX_MOVES: usize = 4;
/// Unloads under way at once. Counted apart: loads may wait for the memory that unloads free, and an unload for sequences to end.
pub const MAX_UNLOADS: usize = 64;
/// How often a load is tried before the version stays unavailable until its record changes.
pub const MAX_ATTEMPTS: u32 = 6;
/// How long no published snapshot has led to a version before it is unloaded: requests that hold an older snapshot get by.
pub const UNROUTED_REST: Duration = Duration::from_secs(1);
/// The wait after the first failure; doubled for each further one, up to the bound.
const BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

pub(crate) type Place = (DeviceId, ModelVersionKey);

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Move {
    /// Bring the version to the device, or what has changed about it.
    Load(DeviceId, VersionRecord),
    /// Bring it into the device's memory: requests are to be led to it once it is warm.
    WarmUp(DeviceId, ModelVersionKey),
    /// Take it away.
    Unload(DeviceId, ModelVersionKey),
}

/// What was tried on one device with one version.
#[derive(Debug, Clone, Default)]
struct Slot {
    under_way: bool,
    /// Whether what is under way is an unload.
    leaving: bool,
    failures: u32,
    not_before: Option<Instant>,
    reason: Option<String>,
    /// The record that the device was told to load last.
    ordered: Option<VersionRecord>,
    /// The record that the device has loaded, as far as is known.
    runs: Option<VersionRecord>,
    /// Whether the loss of what was there has been noted.
    lost: bool,
}

impl Slot {
    /// Notes what the device reports: that it is there, or that it was lost or did not load when it was needed.
    fn note(&mut self, report: Option<&ModelReport>, now: Instant) {
        match report {
            Some(model) if model.state == ModelState::Ready && !self.under_way && self.runs_what_was_ordered() => {
                (self.failures, self.lost) = (0, false);
                (self.not_before, self.reason) = (None, None);
            }
            Some(model)
                if model.state == ModelState::Unavailable && !self.under_way && !self.lost && self.runs.is_some() =>
            {
                self.lost = true;
                self.failures += 1;
                self.not_before = now.checked_add(backoff(self.failures.saturating_sub(1)));
                self.reason = model.reason.clone();
            }
            _ => {}
        }
    }

    fn runs_what_was_ordered(&self) -> bool {
        let both = self.runs.as_ref().zip(self.ordered.as_ref());
        both.is_some_and(|(runs, ordered)| runs.is_same(ordered))
    }

    fn failed(&mut self, place: &Place, reason: &str, now: Instant) {
        self.not_before = now.checked_add(backoff(self.failures));
        self.failures += 1;
        let last = self.failures >= MAX_ATTEMPTS;
        let further = if last {
            "; it is not tried again until its record changes"
        } else {
            ""
        };
        tracing::warn!(device = %place.0, model = %place.1, %reason, attempts = self.failures, "a load failed");
        self.reason = Some(format!("{reason}{further}"));
    }

    /// Whether the device has what is declared.
    fn has(&self, record: &VersionRecord) -> bool {
        !self.under_way && self.runs.as_ref().is_some_and(|runs| runs.is_same(record))
    }

    /// What the device has is not what is declared, and the one may take the other's place.
    fn is_outdated(&self, record: &VersionRecord) -> bool {
        self.runs
            .as_ref()
            .is_some_and(|runs| !runs.is_same(record) && runs.is_called_as(record))
    }
}

/// The memory of what was tried. Holds an entry per declared or loaded version and device, no more.
#[derive(Debug, Default)]
pub(crate) struct Books {
    slots: BTreeMap<Place, Slot>,
    unrouted: BTreeMap<ModelVersionKey, Instant>,
}

/// The versions that are not yet, or could not be brought, where they belong as they were declared at a revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsettled {
    /// The revision of the records; a snapshot of it can be read.
    pub revision: u64,
    /// Those that are on their way.
    pub pending: BTreeSet<ModelVersionKey>,
    /// Those that failed on a device, and why. They may be tried again.
    pub failed: BTreeMap<ModelVersionKey, String>,
}

/// What to do now, and when to ask again if nothing else happens.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub(crate) moves: Vec<Move>,
    pub(crate) wake_at: Option<Instant>,
}

impl Plan {
    /// Nothing to do before this instant.
    pub(crate) fn again_at(at: Instant) -> Self {
        Self {
            moves: Vec::new(),
            wake_at: Some(at),
        }
    }

    fn wake(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}

impl Books {
    /// Forgets failures of records that have changed, and what concerns nothing that is there.
    pub(crate) fn review(&mut self, records: &Records, report: &FleetReport, now: Instant) {
        let reported: BTreeMap<(DeviceId, &ModelVersionKey), &ModelReport> = report
            .models()
            .map(|(device, model)| ((device, &model.key), model))
            .collect();
        self.slots.retain(|(device, key), slot| {
            let record = records.version(key);
            let changed = match (&slot.ordered, record) {
                (Some(ordered), Some(record)) => !ordered.is_same(record),
                _ => false,
            };
            if changed && slot.failures > 0 {
                (slot.failures, slot.not_before, slot.reason) = (0, None, None);
            }
            slot.note(reported.get(&(*device, key)).copied(), now);
            slot.under_way || record.is_some() || reported.contains_key(&(*device, key))
        });
        self.unrouted
            .retain(|key, _| records.version(key).is_some() || reported.keys().any(|(_, there)| *there == key));
    }

    /// What routers and callers must know beyond the devices' report.
    pub(crate) fn trouble(&self, records: &Records, report: &FleetReport, devices: &[DeviceId]) -> Trouble {
        let mut trouble = Trouble::default();
        for ((_, key), slot) in &self.slots {
            if let Some(reason) = &slot.reason {
                trouble.reasons.entry(key.clone()).or_insert_with(|| reason.clone());
            }
            let Some((runs, record)) = slot.runs.as_ref().zip(records.version(key)) else {
                continue;
            };
            if !runs.runs_as(record) && !runs.is_called_as(record) {
                trouble.stale.insert(key.clone());
            } else if !runs.runs_as(record) {
                trouble.former.insert(key.clone(), runs.clone());
            }
        }
        let on_devices = |record: &&VersionRecord| record.is_wanted() && record.format != ArtifactFormat::Ensemble;
        for record in records.versions().filter(on_devices) {
            let placed = record.placement(devices);
            let key = || ModelVersionKey::clone(&record.key);
            if placed.is_empty() {
                let reason = "no device of this mesh fits its instance_group".to_owned();
                trouble.reasons.insert(key(), reason);
            } else if placed.iter().all(|device| report.is_draining(*device)) {
                let reason = "every device that it belongs on is being drained".to_owned();
                trouble.reasons.entry(key()).or_insert(reason);
            }
        }
        trouble
    }

    /// The report, with what is on its way to a device or could not be brought there.
    pub(crate) fn view(&self, report: &FleetReport) -> FleetReport {
        let mut view = report.clone();
        for ((device, key), slot) in &self.slots {
            let state = match (&slot.reason, slot.under_way) {
                (None, true) => ModelState::Loading,
                (Some(_), _) => ModelState::Unavailable,
                (None, false) => continue,
            };
            let Some(DeviceReport { models, .. }) = view.devices.iter_mut().find(|known| known.device == *device)
            else {
                continue;
            };
            if let Err(place) = models.binary_search_by(|model| model.key.cmp(key)) {
                let model = ModelReport {
                    key: key.clone(),
                    state,
                    reason: slot.reason.clone(),
                    memory_bytes: 0,
                    peak_bytes: 0,
                    load_time: None,
                    proven: false,
                    progress: None,
                };
                models.insert(place, model);
            }
        }
        view
    }

    /// Notes which versions no snapshot leads to, and since when.
    pub(crate) fn published(&mut self, compiled: &Compiled, report: &FleetReport, now: Instant) {
        self.unrouted.retain(|key, _| !compiled.routed.contains(key));
        for (_, model) in report
            .models()
            .filter(|(_, model)| !compiled.routed.contains(&model.key))
        {
            self.unrouted.entry(model.key.clone()).or_insert(now);
        }
    }

    /// What to do next, at most as much as is free of [`MAX_MOVES`]. What it returns is under way from now on.
    pub(crate) fn plan(&mut self, records: &Records, report: &FleetReport, devices: &[DeviceId], now: Instant) -> Plan {
        let mut plan = Plan::default();
        let mut free = MAX_MOVES.saturating_sub(self.under_way(false));
        let mut free_unloads = MAX_UNLOADS.saturating_sub(self.under_way(true));
        let reported: BTreeMap<Place, &ModelReport> = report
            .models()
            .map(|(device, model)| ((device, model.key.clone()), model))
            .collect();
        let wanted: BTreeMap<Place, &VersionRecord> = records
            .versions()
            .filter(|record| record.is_wanted())
            .flat_map(|record| {
                let place = move |device| ((device, ModelVersionKey::clone(&record.key)), record);
                record.placement(devices).into_iter().map(place)
            })
            .collect();
        for (place, model) in &reported {
            let stays = wanted.get(place).is_some_and(|record| !self.is_stale(place, record));
            let settled = !matches!(model.state, ModelState::Loading | ModelState::Unloading);
            if !stays && settled && free_unloads > 0 && self.may_unload(place, &mut plan, now) {
                free_unloads -= 1;
                let slot = self.slots.entry(place.clone()).or_default();
                (slot.under_way, slot.leaving) = (true, true);
                plan.moves.push(Move::Unload(place.0, place.1.clone()));
            }
        }
        for (place, record) in wanted {
            if free == 0 {
                break;
            }
            // What is being emptied is given nothing new; what is on it stays, so that it serves again at once.
            if report.is_draining(place.0) {
                continue;
            }
            let there = reported
                .get(&place)
                .filter(|model| model.state != ModelState::Unavailable);
            // What is quarantined may be mended by what is declared now.
            let replaceable =
                there.is_some_and(|model| model.state.takes_jobs() || model.state == ModelState::Quarantined);
            let outdated = replaceable && self.slots.get(&place).is_some_and(|slot| slot.is_outdated(record));
            if (there.is_none() || outdated) && self.may_load(&place, &mut plan, now) {
                free -= 1;
                let device = place.0;
                let slot = self.slots.entry(place).or_default();
                (slot.under_way, slot.ordered) = (true, Some(record.clone()));
                plan.moves.push(Move::Load(device, record.clone()));
            } else if there.is_some_and(|model| model.state == ModelState::Standby && !model.proven)
                && records.displaces(&record.key)
                && self.may_load(&place, &mut plan, now)
            {
                free -= 1;
                plan.moves.push(Move::WarmUp(place.0, place.1.clone()));
                self.slots.entry(place).or_default().under_way = true;
            }
        }
        plan
    }

    fn under_way(&self, leaving: bool) -> usize {
        let of_kind = |slot: &&Slot| slot.under_way && slot.leaving == leaving;
        self.slots.values().filter(of_kind).count()
    }

    fn is_stale(&self, place: &Place, record: &VersionRecord) -> bool {
        let runs = self.slots.get(place).and_then(|slot| slot.runs.as_ref());
        runs.is_some_and(|runs| !runs.runs_as(record) && !runs.is_called_as(record))
    }

    fn may_load(&self, place: &Place, plan: &mut Plan, now: Instant) -> bool {
        let Some(slot) = self.slots.get(place) else { return true };
        if slot.under_way || slot.failures >= MAX_ATTEMPTS {
            return false;
        }
        is_due(slot.not_before, plan, now)
    }

    fn may_unload(&self, place: &Place, plan: &mut Plan, now: Instant) -> bool {
        // Not noted yet: a snapshot may still lead to it.
        let Some(since) = self.unrouted.get(&place.1) else {
            return false;
        };
        let slot = self.slots.get(place);
        if slot.is_some_and(|slot| slot.under_way) {
            return false;
        }
        is_due(Some(*since + UNROUTED_REST), plan, now) && is_due(slot.and_then(|slot| slot.not_before), plan, now)
    }

    /// Notes what came of a load; the reason is kept for callers and admins.
    pub(crate) fn loaded(&mut self, place: &Place, result: Result<(), String>, now: Instant) {
        let slot = self.slots.entry(place.clone()).or_default();
        slot.under_way = false;
        match result {
            Ok(()) => {
                // Failures are forgotten once it is in memory: what stands by may still fail.
                (slot.not_before, slot.reason, slot.lost) = (None, None, false);
                slot.runs = slot.ordered.clone();
            }
            Err(reason) => slot.failed(place, &reason, now),
        }
    }

    /// Notes what came of a warm-up.
    pub(crate) fn warmed(&mut self, place: &Place, result: Result<(), String>, now: Instant) {
        let slot = self.slots.entry(place.clone()).or_default();
        slot.under_way = false;
        if let Err(reason) = result {
            slot.lost = true;
            slot.failed(place, &reason, now);
        }
    }

    /// Notes what came of an unload.
    pub(crate) fn unloaded(&mut self, place: &Place, result: Result<(), String>, now: Instant) {
        let slot = self.slots.entry(place.clone()).or_default();
        (slot.under_way, slot.leaving) = (false, false);
        match result {
            Ok(()) => *slot = Slot::default(),
            Err(reason) => {
                tracing::warn!(device = %place.0, model = %place.1, %reason, "an unload failed");
                slot.not_before = now.checked_add(BACKOFF);
            }
        }
    }

    /// Which wanted versions are not where they belong as they are declared now.
    pub(crate) fn unsettled(&self, records: &Records, report: &FleetReport, devices: &[DeviceId]) -> Unsettled {
        let mut unsettled = Unsettled {
            revision: records.revision,
            ..Unsettled::default()
        };
        let on_devices = |record: &&VersionRecord| record.is_wanted() && record.format != ArtifactFormat::Ensemble;
        for record in records.versions().filter(on_devices) {
            let placed = record.placement(devices);
            let key = || ModelVersionKey::clone(&record.key);
            if placed.is_empty() {
                let reason = "no device of this mesh fits its instance_group".to_owned();
                unsettled.failed.insert(key(), reason);
            }
            for device in placed.into_iter().filter(|device| !report.is_draining(*device)) {
                let slot = self.slots.get(&(device, key()));
                match slot.and_then(|slot| slot.reason.clone()) {
                    Some(reason) => drop(unsettled.failed.insert(key(), reason)),
                    None if slot.is_some_and(|slot| slot.has(record)) => {}
                    None => drop(unsettled.pending.insert(key())),
                }
            }
        }
        unsettled
    }

    /// Whether every wanted version is where it belongs, or has failed to come there.
    pub(crate) fn is_settled(&self, records: &Records, report: &FleetReport, devices: &[DeviceId]) -> bool {
        let there = |state: ModelState| state.takes_jobs() || state == ModelState::Quarantined;
        let ready: BTreeSet<(DeviceId, &ModelVersionKey)> = report
            .models()
            .filter(|(_, model)| there(model.state))
            .map(|(device, model)| (device, &model.key))
            .collect();
        let settled = |device: DeviceId, record: &VersionRecord| {
            let failed = |slot: &Slot| slot.failures > 0;
            report.is_draining(device)
                || ready.contains(&(device, &*record.key))
                || self
                    .slots
                    .get(&(device, ModelVersionKey::clone(&record.key)))
                    .is_some_and(failed)
        };
        records.versions().filter(|record| record.is_wanted()).all(|record| {
            record
                .placement(devices)
                .into_iter()
                .all(|device| settled(device, record))
        })
    }
}

fn is_due(at: Option<Instant>, plan: &mut Plan, now: Instant) -> bool {
    match at.filter(|at| *at > now) {
        Some(later) => {
            plan.wake(later);
            false
        }
        None => true,
    }
}

fn backoff(failures: u32) -> Duration {
    let doublings = failures.min(10);
    BACKOFF.saturating_mul(2u32.pow(doublings)).min(MAX_BACKOFF)
}
