//! What becomes of calls when the router's actor panics or dies: each is answered, and told once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
    time::{Duration, Instant},
};

use actix::System;
use mesh_policies::{Limiter, access::Attempts};
use mesh_telemetry::Telemetry;
use mesh_types::{
    Clock, DeviceId, Fault, FaultClass, FaultSource, InferJob, InferRequest, ManualClock, RequestId, Retry,
};

use super::*;
use crate::{Credential, Room, WorkerReply, Workers};

/// Takes the actor's life.
pub(crate) struct Die;

impl Message for Die {
    type Result = ();
}

impl Handler<Die> for RouterActor {
    type Result = ();

    fn handle(&mut self, _: Die, _: &mut Self::Context) {
        panic!("told to");
    }
}

/// The pipeline asks the time first of all: a clock that panics makes it panic.
struct DeadlyClock {
    time: ManualClock,
    panics: AtomicBool,
}

impl Clock for DeadlyClock {
    fn now(&self) -> Instant {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "told to");
        self.time.now()
    }

    fn unix_seconds(&self) -> i64 {
        self.time.unix_seconds()
    }
}

struct NoWorkers;

impl Workers for NoWorkers {
    fn submit(&self, _: DeviceId, _: InferJob) -> Result<WorkerReply, Fault> {
        Err(Fault::internal("nobody gets as far as this"))
    }
}

/// A router that knows nobody: a call that its pipeline sees is refused as unauthenticated.
struct Bed {
    router: RouterHandle,
    telemetry: Telemetry,
    clock: Arc<DeadlyClock>,
}

impl Bed {
    fn new() -> Self {
        let clock = Arc::new(DeadlyClock {
            time: ManualClock::at(0),
            panics: AtomicBool::new(false),
        });
        let telemetry = Telemetry::local();
        let router = RouterActor::start_here(RouterParts {
            attempts: Arc::new(Attempts::new(clock.clone())),
            cache: Arc::default(),
            sequences: Arc::default(),
            regions: Arc::default(),
            client_settings: false,
            snapshots: Arc::default(),
            limiter: Arc::new(Limiter::new(clock.clone())),
            workers: Arc::new(NoWorkers),
            gates: Arc::default(),
            telemetry: telemetry.clone(),
            clock: clock.clone(),
            default_timeout: Duration::from_secs(1),
            max_in_flight: 10,
        });
        Self {
            router,
            telemetry,
            clock,
        }
    }

    fn call(&self) -> Call {
        Call {
            request: InferRequest::default(),
            bytes: 100,
            credential: Credential::default(),
            unit: None,
            room: Room::One("one answer only"),
            timeout: None,
            trace_parent: None,
            request_id: RequestId(7),
            received: self.clock.time.now(),
            decode: Duration::ZERO,
        }
    }

    async fn refusal(&self) -> Fault {
        let answer = self.router.infer(self.call()).await;
        answer.account.finish(Duration::ZERO);
        answer.result.unwrap_err()
    }

    /// Nothing is held any more, and so many calls were told, under these reasons.
    fn told(&self, reasons: &[(&str, usize)]) {
        assert_eq!((self.router.in_flight(), self.telemetry.metrics().in_flight()), (0, 0));
        let text = self.telemetry.metrics().encode_prometheus().unwrap();
        let mut told: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("mesh_refused_total{"))
            .collect();
        told.sort_unstable();
        let line = |(reason, count): &(&str, usize)| format!("mesh_refused_total{{reason=\"{reason}\"}} {count}");
        assert_eq!(told, reasons.iter().map(line).collect::<Vec<_>>());
    }
}

#[test]
fn a_panic_costs_its_own_call_only_and_is_told_once() {
    System::new().block_on(async {
        let bed = Bed::new();
        bed.clock.panics.store(true, Ordering::SeqCst);
        // Both are in the mailbox when the first of them panics.
        let (first, second) = tokio::join!(bed.refusal(), bed.refusal());
        assert_eq!((first.class, first.source), (FaultClass::Internal, FaultSource::Mesh));
        assert_eq!(second.class, FaultClass::Unauthenticated);
        bed.told(&[("internal", 1), ("unauthenticated", 1)]);
    });
}

#[test]
fn calls_lost_with_the_actor_may_be_sent_again_and_are_told_once() {
    System::new().block_on(async {
        let bed = Bed::new();
        for round in 1..=3 {
            bed.router.kill();
            let (first, second) = tokio::join!(bed.refusal(), bed.refusal());
            for lost in [first, second] {
                assert_eq!(
                    (lost.class, lost.retry),
                    (FaultClass::Unavailable, Retry::Now),
                    "{lost}"
                );
            }
            // Its successor takes calls.
            assert_eq!(bed.refusal().await.class, FaultClass::Unauthenticated);
            bed.told(&[("overloaded", 2 * round), ("unauthenticated", round)]);
        }
    });
}

#[test]
fn a_caller_that_leaves_before_the_actor_looks_is_told_once() {
    System::new().block_on(async {
        let bed = Bed::new();
        let mut call = Box::pin(bed.router.infer(bed.call()));
        assert!(matches!(futures::poll!(&mut call), Poll::Pending));
        drop(call);
        // Behind it in the mailbox: once this one is answered, that one has been passed over.
        assert_eq!(bed.refusal().await.class, FaultClass::Unauthenticated);
        bed.told(&[("cancelled", 1), ("unauthenticated", 1)]);
    });
}
