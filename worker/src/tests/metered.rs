//! A meter that adds up what a job is said to have cost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_types::DeviceMeter;

use crate::shared::Queued;

/// What a job has cost.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    begun: AtomicBool,
    nanos: AtomicU64,
}

impl Meter {
    /// Has a job metered.
    pub(crate) fn put(queued: &mut Queued) -> Arc<Self> {
        let meter = Arc::new(Self::default());
        queued.job.meter = Some(meter.clone());
        meter
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    pub(crate) fn paid(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::SeqCst))
    }
}

impl DeviceMeter for Meter {
    fn began(&self) {
        self.begun.store(true, Ordering::SeqCst);
    }

    fn ran(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap();
        self.nanos.fetch_add(nanos, Ordering::SeqCst);
    }
}
