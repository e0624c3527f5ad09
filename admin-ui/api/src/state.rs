//! What every handler shares: the parts, the sessions, the bounds, and the newest overview.

use std::sync::Arc;

use mesh_actors::{Permits, ShutdownSignal, Tasks};
use tokio::sync::watch;

use crate::{
    AdminParts,
    authz::Rules,
    backup::MAX_BACKUPS,
    live::{self, MAX_EVENT_CLIENTS, Tick},
    sessions::Sessions,
    sign_in::Desk,
    throttle::Throttle,
};

/// Uploads at once, over all callers.
pub(crate) const MAX_UPLOADS: usize = 4;
/// Trials at once, over all callers.
pub(crate) const MAX_TRIALS: usize = 4;

/// The state of an admin door. Clones are the same.
#[derive(Clone)]
pub struct AdminState {
    pub(crate) inner: Arc<Inner>,
}

/// What the state holds.
pub(crate) struct Inner {
    pub(crate) parts: AdminParts,
    pub(crate) rules: Rules,
    pub(crate) sessions: Sessions,
    pub(crate) throttle: Throttle,
    pub(crate) desk: Desk,
    pub(crate) ticks: watch::Receiver<Arc<Tick>>,
    pub(crate) event_clients: Permits,
    pub(crate) uploads: Permits,
    pub(crate) trials: Permits,
    pub(crate) backups: Permits,
    pub(crate) tasks: Tasks,
    pub(crate) ending: ShutdownSignal,
}

impl AdminState {
    /// The state, with the task that keeps its overview.
    pub fn start(parts: AdminParts, tasks: &Tasks) -> Self {
        let ticks = live::start(&parts, tasks);
        let inner = Inner {
            parts,
            rules: Rules::default(),
            sessions: Sessions::default(),
            throttle: Throttle::default(),
            desk: Desk::default(),
            ticks,
            event_clients: Permits::new(MAX_EVENT_CLIENTS),
            uploads: Permits::new(MAX_UPLOADS),
            trials: Permits::new(MAX_TRIALS),
            backups: Permits::new(MAX_BACKUPS),
            tasks: tasks.clone(),
            ending: tasks.signal(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub(crate) fn now_unix(&self) -> i64 {
        self.inner.parts.clock.unix_seconds()
    }
}
