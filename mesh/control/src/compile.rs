//! Records and a report become a snapshot: a pure function.
//!
//! The former result is an argument, because what is not ready yet must not displace what serves: a label, a default or a
//! route stays where it was until where it should go is ready, as long as where it was can still answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use mesh_policies::{
    Arm, Credentials, MeshSnapshot, ModelEntry, Pepper, RequestBounds, Route, Target, TenantEntry, Tenants,
    VersionEntry, graph::Plan,
};
use mesh_resources::{ArmSpec, EndpointSpec, LabelMoves};
use mesh_types::{
    ArtifactFormat, EndpointId, ModelId, ModelVersionKey, TenantId, TenantShare, Version, VersionSelector,
};

use crate::{
    authorization, caching, credentials, ensembles,
    fleet::FleetReport,
    limits,
    records::{ModelName, ModelRecord, Records, VersionRecord},
    reuse,
    standing::{Standing, Standings, Trouble, standings},
};

type RouteName = (TenantId, EndpointId);

/// A snapshot, and what the next one is compiled from.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    /// What routers follow.
    pub snapshot: Arc<MeshSnapshot>,
    /// Versions that a request can be led to.
    pub routed: BTreeSet<ModelVersionKey>,
    // By full name: a tenant's targets hide a model behind an endpoint of the same name.
    models: BTreeMap<ModelName, Arc<ModelEntry>>,
    routes: BTreeMap<RouteName, Arc<Route>>,
    /// The last serial of an endpoint's cache.
    serial: u64,
    authorized: authorization::Compiled,
    /// Whether all of it is of one compilation: what begins with another's snapshot alone is not.
    whole: bool,
}

impl Compiled {
    /// The beginning of control that takes over from one that is gone: what issuers have published is still known.
    pub(crate) fn after(published: Arc<MeshSnapshot>) -> Self {
        Self {
            snapshot: published,
            ..Self::default()
        }
    }
}

/// Compiles what routers follow from what was declared and what devices report.
pub fn compile(
    records: &Records,
    report: &FleetReport,
    trouble: &Trouble,
    pepper: &Pepper,
    previous: &Compiled,
) -> Compiled {
    let mut standings = standings(records, report, trouble);
    let models = ensembles::in_order(records, &mut standings, &previous.models, |name, record, standings| {
        let former = previous.models.get(name);
        reuse::model(model(name, record, standings, former), former)
    });
    let desk = Desk {
        records,
        standings: &standings,
        models: &models,
    };
    let mut serial = previous.serial;
    let routes: BTreeMap<RouteName, Arc<Route>> = records
        .endpoints
        .iter()
        .map(|(name, spec)| {
            let before = previous.routes.get(name).map(Arc::as_ref);
            let mut route = desk.route(name, spec, before);
            route.cache = caching::rule(&route, spec, before, &mut serial);
            (name.clone(), reuse::route(route, previous.routes.get(name)))
        })
        .collect();
    // Parsing keys and remembering verified tokens is worth keeping while the records stay the same.
    let known = previous.snapshot.revision == records.revision && records.revision != 0;
    let former = &previous.snapshot;
    let since = records.since.as_ref();
    let since = since.filter(|since| previous.whole && since.revision == former.revision && since.revision != 0);
    let credentials: Credentials = match since {
        _ if known => former.credentials.clone(),
        Some(since) => credentials::follow(records, since, &former.credentials),
        None => credentials::compile(records, pepper, &former.credentials),
    };
    let authorization = if known {
        previous.snapshot.authorization.clone()
    } else {
        authorization::compile(records, &previous.authorized)
    };
    let touched = (since.is_some() || known && previous.whole).then(|| {
        let since = since.filter(|_| !known);
        reuse::touched(since, (&models, &previous.models), (&routes, &previous.routes))
    });
    let tenants = match &touched {
        None => tenants(records, pepper, &models, &routes, None).into_iter().collect(),
        Some(touched) => {
            let entries = tenants(records, pepper, &models, &routes, Some(touched));
            followed(former.all_tenants(), touched, entries)
        }
    };
    Compiled {
        snapshot: Arc::new(
            MeshSnapshot::of(records.revision, credentials, tenants)
                .with_ensembles(ensembles_of(&models))
                .with_authorization(authorization.clone())
                .with_request_bounds(request_bounds(records)),
        ),
        routed: routed(&models, &routes),
        authorized: authorization::Compiled::new(records, &authorization),
        models,
        routes,
        serial,
        whole: true,
    }
}

/// The former tenants with these entries in the place of those that are touched.
fn followed(former: &Tenants, touched: &BTreeSet<TenantId>, entries: Vec<TenantEntry>) -> Tenants {
    let mut tenants = former.clone();
    touched.iter().for_each(|tenant| tenants.remove(tenant));
    entries.into_iter().for_each(|entry| tenants.insert(entry));
    tenants
}

/// How large requests of models may be.
fn request_bounds(records: &Records) -> RequestBounds {
    RequestBounds::new(records.models.iter().filter_map(|((owner, model), record)| {
        let bound = record.spec.max_request_bytes?;
        Some((owner, model, bound))
    }))
}

/// A model as it can be called now.
fn model(
    (owner, model): &ModelName,
    record: &ModelRecord,
    standings: &Standings,
    previous: Option<&Arc<ModelEntry>>,
) -> ModelEntry {
    let of = |version: Version| {
        let known = record.versions.get(&version)?;
        standings.get(&*known.key)
    };
    let able = |version: &Version| of(*version).is_some_and(Standing::holds);
    let mut held = BTreeSet::new();
    // Where it should go, or where it was while that is still on its way.
    let at_once = record.spec.label_moves == LabelMoves::AtOnce;
    let mut settle = |wanted: Version, before: Option<Version>| {
        if at_once {
            return wanted;
        }
        let on_its_way = of(wanted).is_some_and(|standing| standing.expected && !standing.serves);
        let before = before.filter(|before| on_its_way && *before != wanted && able(before));
        held.extend(before);
        before.unwrap_or(wanted)
    };
    let before_default = previous
        .and_then(|entry| entry.resolve(&VersionSelector::Default))
        .map(|version| version.key.version);
    let labels: BTreeMap<_, _> = record
        .spec
        .labels
        .iter()
        .map(|(label, wanted)| {
            let before = previous.and_then(|entry| entry.labels.get(label).copied());
            (label.clone(), settle(*wanted, before))
        })
        .collect();
    let default = match record.spec.default_version.as_ref().map(|wanted| wanted.selector()) {
        Some(VersionSelector::Version(wanted)) => Some(settle(*wanted, before_default)),
        Some(VersionSelector::Label(label)) => labels.get(label).copied(),
        Some(VersionSelector::Default) | None => {
            // The newest that serves; while none does but one is to come, the one that answered before.
            let mut versions = record.versions.keys().filter_map(|version| of(*version));
            let none_serves = versions.clone().all(|standing| !standing.serves);
            if none_serves && versions.any(|standing| standing.expected) {
                held.extend(before_default.filter(able));
            }
            undisplaced(record, standings)
        }
    };
    let shown = |version: &Version| {
        let standing = of(*version)?;
        let entry = if held.contains(version) {
            &standing.able
        } else {
            &standing.shown
        };
        Some((*version, entry.clone()))
    };
    ModelEntry {
        owner: owner.clone(),
        model: model.clone(),
        grants: Arc::new(record.spec.grants.iter().cloned().collect()),
        versions: record.versions.keys().filter_map(shown).collect(),
        labels,
        default,
    }
}

/// The newest version that serves, where a newer one could be loaded but never was: it displaces none that was.
fn undisplaced(record: &ModelRecord, standings: &Standings) -> Option<Version> {
    let newest = |which: fn(&Standing) -> bool| {
        let standing = |version: &VersionRecord| standings.get(&*version.key).is_some_and(which);
        let mut newest = record.versions.values().rev();
        newest
            .find(|version| standing(version))
            .map(|version| version.key.version)
    };
    let serving = newest(|standing| standing.serves)?;
    let loadable = newest(|standing| standing.shown.is_ready())?;
    (loadable > serving).then_some(serving)
}

/// What routes are compiled from.
struct Desk<'a> {
    records: &'a Records,
    standings: &'a Standings,
    models: &'a BTreeMap<ModelName, Arc<ModelEntry>>,
}

impl Desk<'_> {
    fn route(&self, name: &RouteName, spec: &EndpointSpec, previous: Option<&Route>) -> Route {
        let route = Route {
            endpoint: name.1.clone(),
            arms: self.arms(&name.0, spec),
            unit: spec.sticky_by.clone(),
            salt: spec.salt.clone().unwrap_or_default(),
            timeout: spec.timeout_ms.map(Duration::from_millis),
            class: spec.service_class,
            cache: None,
        };
        let waits = route
            .arms
            .iter()
            .any(|arm| arm.hundredths > 0 && self.is_on_its_way(arm));
        let Some(previous) = previous.filter(|_| waits) else {
            return route;
        };
        let before: Vec<Arm> = previous.arms.iter().map(|arm| self.renewed(&name.0, arm)).collect();
        if before.iter().all(|arm| arm.hundredths == 0 || self.holds(arm)) {
            // Half a new split would fail the other half's requests: the whole one waits.
            return Route {
                arms: before,
                ..previous.clone()
            };
        }
        let keep = |arm: Arm| {
            let former = before
                .iter()
                .find(|former| former.name == arm.name && self.holds(former));
            match former.filter(|_| self.is_on_its_way(&arm)) {
                Some(former) => Arm {
                    hundredths: arm.hundredths,
                    ..former.clone()
                },
                None => arm,
            }
        };
        Route {
            arms: route.arms.into_iter().map(keep).collect(),
            ..route
        }
    }

    fn arms(&self, tenant: &TenantId, spec: &EndpointSpec) -> Vec<Arm> {
        let arm = |arm: &ArmSpec| {
            let model = self.callable(tenant, &arm.model).cloned();
            // An arm whose model is gone keeps its share: its requests fail, and nobody else's move.
            let model = model.unwrap_or_else(|| Arc::new(nothing(tenant, &arm.model)));
            let selector = arm
                .version
                .as_ref()
                .map_or(&VersionSelector::Default, |version| version.selector());
            Arm {
                name: Arc::from(arm.name.as_str()),
                version: model.resolve(selector).cloned(),
                model,
                hundredths: arm.hundredths(),
            }
        };
        spec.arms.iter().map(arm).collect()
    }

    /// The model that an arm of this tenant names: its own, or else one granted to it.
    fn callable(&self, tenant: &TenantId, model: &ModelId) -> Option<&Arc<ModelEntry>> {
        self.models.get(self.records.callable(tenant, None, model)?)
    }

    /// A former arm as it stands now; without a version if it can no longer answer.
    fn renewed(&self, tenant: &TenantId, former: &Arm) -> Arm {
        let name = (former.model.owner.clone(), former.model.model.clone());
        let allowed = self.records.may_call(tenant, &name);
        let standing = former
            .version
            .as_ref()
            .and_then(|version| self.standings.get(&*version.key));
        Arm {
            version: standing.filter(|_| allowed).map(|standing| standing.able.clone()),
            model: self.models.get(&name).unwrap_or(&former.model).clone(),
            ..former.clone()
        }
    }

    fn holds(&self, arm: &Arm) -> bool {
        let version = arm.version.as_ref();
        version.is_some_and(|version| self.standings.get(&*version.key).is_some_and(Standing::holds))
    }

    fn is_on_its_way(&self, arm: &Arm) -> bool {
        let expected = |version: &Arc<VersionEntry>| {
            self.standings
                .get(&*version.key)
                .is_some_and(|standing| standing.expected)
        };
        arm.version
            .as_ref()
            .is_some_and(|version| expected(version) && (!version.is_ready() || self.is_unproven(version)))
    }

    /// Whether it could be loaded but never was, and is about to be because another version answers meanwhile.
    fn is_unproven(&self, version: &VersionEntry) -> bool {
        let standing = self.standings.get(&*version.key);
        standing.is_some_and(|standing| !standing.serves) && self.records.displaces(&version.key)
    }
}

/// Every version that is an ensemble.
fn ensembles_of(models: &BTreeMap<ModelName, Arc<ModelEntry>>) -> impl Iterator<Item = Arc<VersionEntry>> {
    let versions = models.values().flat_map(|model| model.versions.values());
    versions
        .filter(|version| version.format == ArtifactFormat::Ensemble)
        .cloned()
}

fn nothing(owner: &TenantId, model: &ModelId) -> ModelEntry {
    ModelEntry {
        owner: owner.clone(),
        model: model.clone(),
        grants: Arc::default(),
        versions: BTreeMap::new(),
        labels: BTreeMap::new(),
        default: None,
    }
}

/// The entries of all tenants, or only of those that are named and there.
fn tenants(
    records: &Records,
    pepper: &Pepper,
    models: &BTreeMap<ModelName, Arc<ModelEntry>>,
    routes: &BTreeMap<RouteName, Arc<Route>>,
    only: Option<&BTreeSet<TenantId>>,
) -> Vec<TenantEntry> {
    let mut targets: BTreeMap<&TenantId, HashMap<String, Target>> = match only {
        None => records.tenants.keys().map(|tenant| (tenant, HashMap::new())).collect(),
        Some(only) => {
            let there = only.iter().filter(|tenant| records.tenants.contains_key(*tenant));
            there.map(|tenant| (tenant, HashMap::new())).collect()
        }
    };
    let mut limits = limits::of_tenants(records, pepper, only);
    // The first to take a name keeps it: own endpoints, own models, granted models.
    let mut offer = |tenant: &TenantId, name: &str, target: Target| {
        if let Some(targets) = targets.get_mut(tenant) {
            targets.entry(name.to_owned()).or_insert(target);
        }
    };
    for ((tenant, endpoint), route) in routes {
        offer(tenant, endpoint.as_str(), Target::Endpoint(route.clone()));
    }
    for ((owner, model), entry) in models {
        offer(owner, model.as_str(), Target::Model(entry.clone()));
    }
    for (name, record) in &records.models {
        for tenant in &record.spec.grants {
            if let Some(entry) = models.get(name) {
                offer(tenant, name.1.as_str(), Target::Model(entry.clone()));
            }
        }
    }
    let entry = |(tenant, targets): (&TenantId, HashMap<String, Target>)| {
        let record = records.tenants.get(tenant)?;
        Some(TenantEntry {
            id: tenant.clone(),
            created: record.created,
            suspended: record.suspended,
            limits: limits.remove(tenant).unwrap_or_default(),
            share: TenantShare {
                weight: record.weight,
                isolated: record.isolated,
            },
            targets,
        })
    };
    targets.into_iter().filter_map(entry).collect()
}

fn routed(
    models: &BTreeMap<ModelName, Arc<ModelEntry>>,
    routes: &BTreeMap<RouteName, Arc<Route>>,
) -> BTreeSet<ModelVersionKey> {
    let direct = models.values().flat_map(|model| model.versions.values());
    let by_arm = routes
        .values()
        .flat_map(|route| &route.arms)
        .filter_map(|arm| arm.version.as_ref());
    let led_to = || {
        direct
            .clone()
            .chain(by_arm.clone())
            .filter(|version| version.is_ready())
    };
    // Whoever leads to an ensemble leads to its steps.
    let by_plan = led_to()
        .filter_map(|version| version.plan.as_deref())
        .flat_map(Plan::versions);
    led_to()
        .chain(by_plan)
        .map(|version| ModelVersionKey::clone(&version.key))
        .collect()
}
