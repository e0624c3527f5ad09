//! Which requests are traced, where their callers have not decided: one in so many, of the server or of one model, until so
//! many were.
//!
//! Decided for each request, so what is read here is a few atomics; only where a model has settings of its own is there a
//! look-up. Invariants: at most [`MAX_TRACED_MODELS`] models have settings of their own; no more requests are traced than a
//! count allows.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use mesh_types::{Change, TraceChange, TraceSettings};
use parking_lot::RwLock;

/// The most models with trace settings of their own.
pub const MAX_TRACED_MODELS: usize = 1_024;
/// No bound on how many are traced.
const ENDLESS: i64 = -1;

/// A tenant, and a model by the name that it uses.
type Traced = (String, String);

/// Why a change cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TraceChangeError {
    /// There is nowhere to push traces to.
    #[error(
        "this server traces nothing, and cannot begin to: its operator must say where traces go with --otlp-endpoint"
    )]
    Nowhere,
    /// As many models as may have settings of their own.
    #[error("at most {MAX_TRACED_MODELS} models have trace settings of their own: clear those of another first")]
    TooMany,
}

/// How requests are chosen.
#[derive(Debug)]
pub(crate) struct Sampling {
    start: Start,
    on: AtomicBool,
    /// The share of requests, as the bits of a number.
    share: AtomicU64,
    rate: AtomicU64,
    left: AtomicI64,
    /// Whether any model has settings of its own.
    particular: AtomicBool,
    models: RwLock<HashMap<Traced, OfModel>>,
}

/// As it was at the start.
#[derive(Debug, Clone, Copy)]
struct Start {
    on: bool,
    share: f64,
}

/// A model's own settings; what it has not is the server's.
#[derive(Debug, Default)]
struct OfModel {
    on: Option<bool>,
    rate: Option<u32>,
    left: Option<AtomicI64>,
}

fn rate_of(share: f64) -> u32 {
    // What is no number, or beyond all, becomes 0 or the largest: casts do not wrap.
    if share > 0.0 { (1.0 / share).round() as u32 } else { 0 }
}

fn share_of(rate: u32) -> f64 {
    if rate == 0 { 0.0 } else { 1.0 / f64::from(rate) }
}

/// Takes one of what is left; false if nothing is.
fn take(left: &AtomicI64) -> bool {
    if left.load(Ordering::Relaxed) == ENDLESS {
        return true;
    }
    let one_less = |left: i64| match left {
        ENDLESS => Some(ENDLESS),
        left => (left > 0).then(|| left - 1),
    };
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
        .is_ok()
}

/// Gives one back that was taken and is not used.
fn give_back(left: &AtomicI64) {
    let one_more = |left: i64| (left != ENDLESS).then(|| left.saturating_add(1));
    // Where there is no bound there is nothing to give back.
    let _ = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
}

fn drawn(share: f64) -> bool {
    share > 0.0 && rand::random::<f64>() < share
}

impl Sampling {
    pub(crate) fn new(on: bool, share: f64) -> Self {
        Self {
            start: Start { on, share },
            on: AtomicBool::new(on),
            share: AtomicU64::new(share.to_bits()),
            rate: AtomicU64::new(u64::from(rate_of(share))),
            left: AtomicI64::new(ENDLESS),
            particular: AtomicBool::new(false),
            models: RwLock::default(),
        }
    }

    /// Whether a request is traced whose caller has not decided, as far as the server has a say.
    pub(crate) fn choose(&self) -> bool {
        self.is_on() && drawn(self.share()) && take(&self.left)
    }

    /// Whether anything is traced, also where callers have decided.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Whether any model has settings of its own.
    pub(crate) fn is_particular(&self) -> bool {
        self.particular.load(Ordering::Relaxed)
    }

    /// The decision about a request of this model, where its own settings make it another than what was chosen for it before;
    /// `decided` is whether its caller has made it.
    pub(crate) fn choose_for(&self, tenant: &str, model: &str, chosen: bool, decided: Option<bool>) -> bool {
        let models = self.models.read();
        let Some(own) = models.get(&(tenant.to_owned(), model.to_owned())) else {
            return chosen;
        };
        let on = own.on.unwrap_or_else(|| self.is_on());
        if let Some(decided) = decided {
            return on && decided;
        }
        if chosen {
            give_back(&self.left);
        }
        let share = own.rate.map_or_else(|| self.share(), share_of);
        on && drawn(share) && take(own.left.as_ref().unwrap_or(&self.left))
    }

    fn share(&self) -> f64 {
        f64::from_bits(self.share.load(Ordering::Relaxed))
    }

    /// The server's settings.
    pub(crate) fn settings(&self) -> TraceSettings {
        TraceSettings {
            on: self.is_on(),
            rate: u32::try_from(self.rate.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            count: self.left.load(Ordering::Relaxed),
        }
    }

    /// A model's settings, with the server's where it has none of its own.
    pub(crate) fn settings_of(&self, tenant: &str, model: &str) -> TraceSettings {
        let servers = self.settings();
        let models = self.models.read();
        let Some(own) = models.get(&(tenant.to_owned(), model.to_owned())) else {
            return servers;
        };
        let left = own.left.as_ref().map(|left| left.load(Ordering::Relaxed));
        TraceSettings {
            on: own.on.unwrap_or(servers.on),
            rate: own.rate.unwrap_or(servers.rate),
            count: left.unwrap_or(servers.count),
        }
    }

    /// Changes the server's settings.
    pub(crate) fn change(&self, change: &TraceChange) {
        match change.on {
            Change::Keep => {}
            Change::Clear => self.on.store(self.start.on, Ordering::Relaxed),
            Change::To(on) => self.on.store(on, Ordering::Relaxed),
        }
        let share = match change.rate {
            Change::Keep => None,
            Change::Clear => Some((self.start.share, rate_of(self.start.share))),
            Change::To(rate) => Some((share_of(rate), rate)),
        };
        if let Some((share, rate)) = share {
            self.share.store(share.to_bits(), Ordering::Relaxed);
            self.rate.store(u64::from(rate), Ordering::Relaxed);
        }
        match change.count {
            Change::Keep => {}
            Change::Clear => self.left.store(ENDLESS, Ordering::Relaxed),
            Change::To(count) => self.left.store(count.max(ENDLESS), Ordering::Relaxed),
        }
    }

    /// Changes a model's settings.
    pub(crate) fn change_of(&self, tenant: &str, model: &str, change: &TraceChange) -> Result<(), TraceChangeError> {
        let mut models = self.models.write();
        let key = (tenant.to_owned(), model.to_owned());
        if !models.contains_key(&key) && models.len() >= MAX_TRACED_MODELS {
            return Err(TraceChangeError::TooMany);
        }
        let own = models.entry(key.clone()).or_default();
        own.on = changed(own.on.take(), change.on);
        own.rate = changed(own.rate.take(), change.rate);
        own.left = match change.count {
            Change::Keep => own.left.take(),
            Change::Clear => None,
            Change::To(count) => Some(AtomicI64::new(count.max(ENDLESS))),
        };
        if own.on.is_none() && own.rate.is_none() && own.left.is_none() {
            models.remove(&key);
        }
        self.particular.store(!models.is_empty(), Ordering::Relaxed);
        Ok(())
    }
}

impl Sampling {
    /// Forgets the settings of models whose tenants are gone.
    pub(crate) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        if self.is_particular() {
            let mut models = self.models.write();
            models.retain(|(tenant, _), _| is_there(tenant));
            self.particular.store(!models.is_empty(), Ordering::Relaxed);
        }
    }
}

fn changed<T>(own: Option<T>, change: Change<T>) -> Option<T> {
    match change {
        Change::Keep => own,
        Change::Clear => None,
        Change::To(value) => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rate: u32) -> TraceChange {
        TraceChange {
            rate: Change::To(rate),
            ..TraceChange::default()
        }
    }

    fn on(on: bool) -> TraceChange {
        TraceChange {
            on: Change::To(on),
            ..TraceChange::default()
        }
    }

    fn count(count: i64) -> TraceChange {
        TraceChange {
            count: Change::To(count),
            ..TraceChange::default()
        }
    }

    fn chosen(sampling: &Sampling, of: usize) -> usize {
        (0..of).filter(|_| sampling.choose()).count()
    }

    #[test]
    fn what_is_configured_is_what_is_shown() {
        for (share, shown) in [(1.0, 1), (0.01, 100), (0.0, 0), (0.3, 3), (f64::NAN, 0)] {
            assert_eq!(Sampling::new(true, share).settings().rate, shown, "{share}");
        }
        let off = Sampling::new(false, 1.0);
        assert_eq!(
            (off.settings().on, off.settings().count, chosen(&off, 100)),
            (false, -1, 0)
        );
    }

    #[test]
    fn rate_level_and_count_change_what_is_chosen_and_clearing_brings_back_the_start() {
        let sampling = Sampling::new(true, 1.0);
        assert_eq!(chosen(&sampling, 50), 50);
        sampling.change(&rate(0));
        assert_eq!(chosen(&sampling, 50), 0);
        sampling.change(&rate(2));
        assert!((300..700).contains(&chosen(&sampling, 1_000)));
        sampling.change(&rate(1));
        sampling.change(&count(7));
        assert_eq!(chosen(&sampling, 50), 7);
        assert_eq!(sampling.settings().count, 0);
        sampling.change(&on(false));
        sampling.change(&count(7));
        assert_eq!((chosen(&sampling, 50), sampling.settings().count), (0, 7));
        sampling.change(&TraceChange {
            on: Change::Clear,
            rate: Change::Clear,
            count: Change::Clear,
        });
        assert_eq!(chosen(&sampling, 50), 50);
        assert_eq!(sampling.settings(), Sampling::new(true, 1.0).settings());
    }

    #[test]
    fn a_model_has_its_own_settings_and_for_the_rest_the_servers() {
        let sampling = Sampling::new(true, 0.0);
        assert!(!sampling.is_particular());
        sampling.change_of("acme", "m", &rate(1)).unwrap();
        sampling.change_of("acme", "m", &count(2)).unwrap();
        assert!(sampling.is_particular());
        let of = |tenant: &str, chosen| sampling.choose_for(tenant, "m", chosen, None);
        assert_eq!(
            (of("acme", false), of("acme", false), of("acme", false)),
            (true, true, false)
        );
        assert!(
            !of("globex", false) && of("globex", true),
            "another tenant's model of that name"
        );
        assert_eq!(sampling.settings_of("acme", "m").count, 0);
        assert_eq!(sampling.settings_of("globex", "m"), sampling.settings());
        sampling.change_of("acme", "m", &on(false)).unwrap();
        assert!(!sampling.choose_for("acme", "m", true, Some(true)));
        let clear = TraceChange {
            on: Change::Clear,
            rate: Change::Clear,
            count: Change::Clear,
        };
        sampling.change_of("acme", "m", &clear).unwrap();
        assert!(!sampling.is_particular());
        assert!(sampling.choose_for("acme", "m", true, Some(true)));
    }

    #[test]
    fn a_model_with_settings_of_its_own_does_not_use_up_the_servers_count() {
        let sampling = Sampling::new(true, 1.0);
        sampling.change(&count(3));
        sampling.change_of("acme", "m", &rate(0)).unwrap();
        for _ in 0..10 {
            let chosen = sampling.choose();
            assert!(!sampling.choose_for("acme", "m", chosen, None));
        }
        assert_eq!(sampling.settings().count, 3);
    }

    #[test]
    fn so_many_models_have_settings_of_their_own_and_not_one_more() {
        let sampling = Sampling::new(true, 1.0);
        for at in 0..MAX_TRACED_MODELS {
            sampling.change_of("acme", &at.to_string(), &rate(1)).unwrap();
        }
        assert_eq!(
            sampling.change_of("acme", "more", &rate(1)),
            Err(TraceChangeError::TooMany)
        );
        sampling.change_of("acme", "0", &rate(5)).unwrap();
        let clear = TraceChange {
            rate: Change::Clear,
            ..TraceChange::default()
        };
        sampling.change_of("acme", "0", &clear).unwrap();
        sampling.change_of("acme", "more", &rate(1)).unwrap();
        sampling.retain(|tenant| tenant != "acme");
        assert!(!sampling.is_particular());
    }
}
