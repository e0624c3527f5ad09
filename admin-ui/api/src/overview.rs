//! The numbers behind the overview page: what was counted since the last ten ticks, as rates and quantiles.
//!
//! Pure: fed with a snapshot of the metrics and the time, answers the overview, of the mesh or of one tenant. Only what changed in
//! a tick is kept, so a series that rests costs nothing; a copy of the window shares all that was counted.
//!
//! Invariants: a tenant's overview holds only what was counted under its own name, and of devices only its own models; requests
//! that are counted together because there are too many names (`other`) are no tenant's.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use jiff::Timestamp;
use mesh_telemetry::{LatencySnapshot, LiveSeries, LiveSnapshot, OTHER};
use mesh_types::TenantId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{DeviceView, HeldModel, LoadState};

/// Ticks in the sliding window; there is one a second.
pub(crate) const WINDOW_TICKS: usize = 10;
/// The most rows of endpoints in an overview; the busiest come first.
pub(crate) const MAX_ROWS: usize = 500;

/// How the mesh is doing, or one tenant.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Overview {
    /// The tenant whose numbers these are; null: the whole mesh.
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantId>,
    /// When this was counted.
    #[schema(value_type = String, format = DateTime)]
    pub time: Timestamp,
    /// Since the start of the admin door.
    pub uptime_seconds: f64,
    /// Requests being worked on.
    pub in_flight: i64,
    /// Counted since the start.
    pub totals: Totals,
    /// Over the last ten seconds.
    pub rates: Rates,
    /// Of answered requests, over the last ten seconds.
    pub latency_ms: LatencyMs,
    /// Each way that requests go, the busiest first.
    pub endpoints: Vec<EndpointRow>,
    /// What devices hold; of a tenant's, its own models.
    pub devices: Vec<DeviceView>,
}

/// What an overview says beside what was counted.
#[derive(Debug, Clone)]
pub(crate) struct Scene {
    /// Now.
    pub(crate) time: Timestamp,
    /// Since the start of the admin door.
    pub(crate) uptime_seconds: f64,
    /// Requests being worked on.
    pub(crate) in_flight: i64,
    /// What devices hold.
    pub(crate) devices: Vec<DeviceView>,
}

impl Scene {
    /// What of it is a tenant's: its models on the devices, and so many requests. Why a model is not in memory is left out, which
    /// can name the model of another that it made room for.
    pub(crate) fn of_tenant(&self, tenant: &TenantId, in_flight: u32) -> Self {
        let own = |held: &HeldModel| {
            let told = matches!(held.state, LoadState::Failed | LoadState::Quarantined);
            HeldModel {
                reason: held.reason.clone().filter(|_| told),
                ..held.clone()
            }
        };
        let device = |device: &DeviceView| {
            let models: Vec<_> = device.models.iter().filter(|held| held.tenant == *tenant).collect();
            (!models.is_empty()).then(|| DeviceView {
                device: device.device,
                draining: device.draining,
                models: models.into_iter().map(own).collect(),
            })
        };
        Self {
            in_flight: in_flight.into(),
            devices: self.devices.iter().filter_map(device).collect(),
            ..*self
        }
    }
}

/// Counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Totals {
    /// Answered.
    pub ok: u64,
    /// Refused by a tenant's limit.
    pub refused: u64,
    /// Failed otherwise.
    pub errors: u64,
}

/// Per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct Rates {
    /// All requests.
    pub requests_per_second: f64,
    /// Failed ones.
    pub errors_per_second: f64,
    /// Refused ones.
    pub refused_per_second: f64,
}

/// Quantiles in milliseconds; null where nothing was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, ToSchema)]
pub struct LatencyMs {
    /// The median.
    pub p50: Option<f64>,
    /// One in ten is slower.
    pub p90: Option<f64>,
    /// One in a hundred is slower.
    pub p99: Option<f64>,
}

/// One way that requests go.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct EndpointRow {
    /// Who called.
    #[schema(value_type = String)]
    pub tenant: Arc<str>,
    /// The endpoint or model called; empty where it was not found.
    #[schema(value_type = String)]
    pub target: Arc<str>,
    /// The arm; empty where there was no split.
    #[schema(value_type = String)]
    pub arm: Arc<str>,
    /// The version that answered; 0 where none did.
    pub version: u32,
    /// Over the last ten seconds.
    pub requests_per_second: f64,
    /// The median over the last ten seconds.
    pub p50_ms: Option<f64>,
    /// The 99th percentile over the last ten seconds.
    pub p99_ms: Option<f64>,
    /// Answered since the start.
    pub ok: u64,
    /// Failed since the start.
    pub errors: u64,
    /// Refused since the start.
    pub refused: u64,
}

type Names = (Arc<str>, Arc<str>, Arc<str>, u32);

#[derive(Debug, Clone, Default)]
struct Counted {
    totals: Totals,
    latency: LatencySnapshot,
}

impl Counted {
    fn of(series: &LiveSeries) -> Self {
        let totals = Totals {
            ok: series.ok,
            refused: series.refused,
            errors: series.errors,
        };
        Self {
            totals,
            latency: series.latency.clone(),
        }
    }

    fn since(&self, earlier: &Self) -> Self {
        let totals = Totals {
            ok: self.totals.ok.saturating_sub(earlier.totals.ok),
            refused: self.totals.refused.saturating_sub(earlier.totals.refused),
            errors: self.totals.errors.saturating_sub(earlier.totals.errors),
        };
        Self {
            totals,
            latency: self.latency.since(&earlier.latency),
        }
    }

    fn add(&mut self, other: &Self) {
        self.totals.ok += other.totals.ok;
        self.totals.refused += other.totals.refused;
        self.totals.errors += other.totals.errors;
        self.latency.add(&other.latency);
    }
}

impl Totals {
    fn all(self) -> u64 {
        self.ok + self.refused + self.errors
    }
}

#[derive(Debug)]
struct Change {
    since: Instant,
    counted: Vec<(Names, Counted)>,
}

/// The sliding window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    before: Option<(Instant, Arc<HashMap<Names, Counted>>)>,
    changes: VecDeque<Arc<Change>>,
}

fn names(series: &LiveSeries) -> Names {
    (
        series.tenant.clone(),
        series.target.clone(),
        series.arm.clone(),
        series.version,
    )
}

impl Window {
    /// Takes in what is counted now. The first call is where counting starts from.
    pub(crate) fn tick(&mut self, live: &LiveSnapshot, now: Instant) {
        let counted: HashMap<_, _> = live
            .series
            .iter()
            .map(|series| (names(series), Counted::of(series)))
            .collect();
        if let Some((since, before)) = self.before.take() {
            let none = Counted::default();
            let changed = counted.iter().filter_map(|(names, counted)| {
                let change = counted.since(before.get(names).unwrap_or(&none));
                (change.totals.all() > 0).then(|| (names.clone(), change))
            });
            self.changes.push_back(Arc::new(Change {
                since,
                counted: changed.collect(),
            }));
            if self.changes.len() > WINDOW_TICKS {
                self.changes.pop_front();
            }
        }
        self.before = Some((now, Arc::new(counted)));
    }

    /// The overview at the last tick; of a tenant only what was counted under its name.
    pub(crate) fn overview(&self, scene: Scene, whose: Option<&TenantId>) -> Overview {
        let seconds = self.seconds();
        let theirs = |names: &Names| whose.is_none_or(|whose| *names.0 == *whose.as_str() && &*names.0 != OTHER);
        let mut recent: HashMap<&Names, Counted> = HashMap::new();
        let mut all_recent = Counted::default();
        let changes = self.changes.iter().flat_map(|change| &change.counted);
        for (names, counted) in changes.filter(|(names, _)| theirs(names)) {
            recent.entry(names).or_default().add(counted);
            all_recent.add(counted);
        }
        let (mut totals, mut endpoints) = (Totals::default(), Vec::new());
        let counted = self.before.iter().flat_map(|(_, counted)| &**counted);
        for (names, counted) in counted.filter(|(names, _)| theirs(names)) {
            totals.ok += counted.totals.ok;
            totals.refused += counted.totals.refused;
            totals.errors += counted.totals.errors;
            endpoints.push(row(names, counted, recent.get(names), seconds));
        }
        endpoints.sort_by(|a, b| {
            let by_rate = b.requests_per_second.total_cmp(&a.requests_per_second);
            let order = |row: &EndpointRow| (row.tenant.clone(), row.target.clone(), row.arm.clone(), row.version);
            by_rate.then_with(|| order(a).cmp(&order(b)))
        });
        endpoints.truncate(MAX_ROWS);
        let Scene {
            time,
            uptime_seconds,
            in_flight,
            devices,
        } = scene;
        Overview {
            tenant: whose.cloned(),
            time,
            uptime_seconds,
            in_flight,
            totals,
            rates: Rates {
                requests_per_second: rate(all_recent.totals.all(), seconds),
                errors_per_second: rate(all_recent.totals.errors, seconds),
                refused_per_second: rate(all_recent.totals.refused, seconds),
            },
            latency_ms: LatencyMs {
                p50: all_recent.latency.quantile_ms(0.5),
                p90: all_recent.latency.quantile_ms(0.9),
                p99: all_recent.latency.quantile_ms(0.99),
            },
            endpoints,
            devices,
        }
    }

    /// How long the window is.
    fn seconds(&self) -> f64 {
        let (Some((end, _)), Some(first)) = (&self.before, self.changes.front()) else {
            return 0.0;
        };
        end.saturating_duration_since(first.since).as_secs_f64()
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 {
        return 0.0;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let count = count as f64;
    count / seconds
}

fn row(names: &Names, counted: &Counted, recent: Option<&Counted>, seconds: f64) -> EndpointRow {
    let (tenant, target, arm, version) = names.clone();
    EndpointRow {
        tenant,
        target,
        arm,
        version,
        requests_per_second: recent.map_or(0.0, |recent| rate(recent.totals.all(), seconds)),
        p50_ms: recent.and_then(|recent| recent.latency.quantile_ms(0.5)),
        p99_ms: recent.and_then(|recent| recent.latency.quantile_ms(0.99)),
        ok: counted.totals.ok,
        errors: counted.totals.errors,
        refused: counted.totals.refused,
    }
}

#[cfg(test)]
#[path = "overview_tests.rs"]
mod tests;
